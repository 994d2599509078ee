//! One copy of a room's state.

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;
use skirmish_proto::v1;

use super::key::{check_form, owner_and_name};
use super::merkle::{Merkle, bucket, key_hash, share_hash, stamped_hash};
use super::tombstone::Graveyard;
use super::{Counter, Crdt as _, Hlc, Key, KeyBuf, LwwMap, LwwSet, Share, Stamp, StateError, Version};
use crate::plant::{Plant, Planted};
use crate::time::{Deadline, Duration, Now};

/// Longest value of a property, in bytes.
pub const MAX_VALUE: usize = 1024;

/// Caps of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaLimits {
    /// Names of one owner: its properties, its tombstones of properties, and the counters
    /// that it has shares of. Holds for what is written here or comes from a client; what
    /// comes from another server was checked there.
    pub entries_per_owner: usize,
    /// Entries in all, tombstones too. A client's must exceed its server's by
    /// `entries_per_owner`, for what it writes while it is cut off.
    pub entries: usize,
    /// How far ahead of our clock a client's stamp may be.
    pub clock_bound: Duration,
    /// How long a tombstone is kept; see [`super::tombstone`].
    pub tombstone_horizon: Duration,
    /// The bug planted here, if any.
    pub planted: Planted,
}

/// One replica of a room's state.
///
/// Counters' shares stay for as long as the room does: what was counted stays counted.
#[derive(Clone, Debug)]
pub struct Replica {
    limits: ReplicaLimits,
    pub(super) clock: Hlc,
    pub(super) presence: LwwSet<Key>,
    pub(super) properties: LwwMap<Key, Bytes>,
    /// By the key of a share without its replica.
    counters: Counter<Key>,
    /// Every entry of the three.
    pub(super) index: BTreeMap<Key, Meta>,
    pub(super) buckets: BTreeSet<(u8, Key)>,
    pub(super) merkle: Merkle,
    /// Keys by the number of their last change.
    changes: BTreeMap<u64, Key>,
    change: u64,
    /// The number of the last change that a dropped tombstone was.
    forgotten: u64,
    graveyard: Graveyard,
    /// The last time that we were told.
    pub(super) now: Now,
}

/// What is kept about each entry beside its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    key_hash: u64,
    /// What it adds to its leaf of the Merkle tree.
    hash: u64,
    change: u64,
    /// Until when it is kept, in wall time, if it is a tombstone.
    kept_ms: Option<u64>,
}

/// What an entry of a batch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing.
    Skip,
    /// It is merged.
    Take,
    /// It is old and unknown, and is removed wherever it still is.
    Bury,
}

impl Replica {
    /// An empty replica. `replica` names it in stamps and in shares of counters, and is
    /// no other's, in this room, ever.
    #[must_use]
    pub fn new(replica: u64, limits: ReplicaLimits) -> Self {
        Self {
            clock: Hlc::new(replica, limits.clock_bound),
            graveyard: Graveyard::new(limits.tombstone_horizon),
            limits,
            presence: LwwSet::default(),
            properties: LwwMap::default(),
            counters: Counter::default(),
            index: BTreeMap::new(),
            buckets: BTreeSet::new(),
            merkle: Merkle::default(),
            changes: BTreeMap::new(),
            change: 0,
            forgotten: 0,
            now: Now::default(),
        }
    }

    // Writes of our own.

    /// Says that a player is there, or is not. Says nothing new if that is known.
    ///
    /// # Errors
    /// [`StateError::TooMany`] at the cap of entries; [`StateError::Malformed`] if the
    /// name is empty or too long.
    pub fn set_present(&mut self, now: Now, player: &str, present: bool) -> Result<(), StateError> {
        self.now = now;
        let key = KeyBuf::presence(player)?;
        if self.presence.contains(key.as_bytes()) == present {
            return Ok(());
        }
        self.make_room(now, None, usize::from(!self.index.contains_key(key.as_bytes())))?;
        let stamp = self.clock.tick(now);
        self.write_presence(&key, stamp, present, false);
        Ok(())
    }

    /// Sets a property; `None` removes it.
    ///
    /// # Errors
    /// [`StateError::TooMany`] at a cap; [`StateError::Malformed`] if a name or the value
    /// is too long, or the owner empty.
    pub fn set_property(
        &mut self,
        now: Now,
        owner: &str,
        name: &str,
        value: Option<Bytes>,
    ) -> Result<(), StateError> {
        self.now = now;
        let key = KeyBuf::property(owner, name)?;
        if value.as_ref().is_some_and(|value| value.len() > MAX_VALUE) {
            return Err(StateError::Malformed);
        }
        if value.is_none() && self.properties.get(key.as_bytes()).is_none() {
            return Ok(());
        }
        let new = usize::from(!self.index.contains_key(key.as_bytes()));
        self.make_room(now, Some((owner, new)), new)?;
        let stamp = self.clock.tick(now);
        self.write_property(&key, stamp, value, false);
        Ok(())
    }

    /// Adds to a counter, or takes away, in the name of `owner`.
    ///
    /// # Errors
    /// [`StateError::TooMany`] at a cap, and when the sum of what was added, or taken away,
    /// would exceed 64 bits; [`StateError::Malformed`] if a name is too long, or the owner
    /// empty.
    pub fn add(&mut self, now: Now, owner: &str, name: &str, delta: i64) -> Result<(), StateError> {
        self.now = now;
        let replica = self.clock.replica();
        let key = KeyBuf::share(owner, name, replica)?;
        let share = self.share(key.as_bytes(), replica).unwrap_or_default();
        let share = share.plus(delta).ok_or(StateError::TooMany)?;
        let new = usize::from(!self.index.contains_key(key.as_bytes()));
        let names = usize::from(!self.counters.contains(counter_of(key.as_bytes())));
        self.make_room(now, Some((owner, names)), new)?;
        self.write_share(&key, replica, share);
        Ok(())
    }

    /// Removes all properties of a player that has left for good. Its shares of counters
    /// stay.
    pub fn remove_owner(&mut self, now: Now, owner: &str) {
        self.now = now;
        let keys = self.keys_of(v1::Domain::Property, owner);
        let keys: Vec<Key> =
            keys.filter(|key| self.properties.get(key.as_bytes()).is_some()).cloned().collect();
        for key in keys {
            if let Ok(key) = KeyBuf::property(owner, key.parts().name) {
                let stamp = self.clock.tick(now);
                self.write_property(&key, stamp, None, false);
            }
        }
    }

    // Reads.

    /// Whether a player is there.
    #[must_use]
    pub fn is_present(&self, player: &str) -> bool {
        KeyBuf::presence(player).is_ok_and(|key| self.presence.contains(key.as_bytes()))
    }

    /// The players that are there, in an order that is the same everywhere.
    pub fn present(&self) -> impl Iterator<Item = &str> {
        self.presence.iter().map(|key| key.parts().owner)
    }

    /// A property that is set.
    #[must_use]
    pub fn property(&self, owner: &str, name: &str) -> Option<&Bytes> {
        self.properties.get(KeyBuf::property(owner, name).ok()?.as_bytes())
    }

    /// The properties that are set: owner, name, value, in an order that is the same
    /// everywhere.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str, &Bytes)> {
        self.properties.iter().map(|(key, value)| {
            let parts = key.parts();
            (parts.owner, parts.name, value)
        })
    }

    /// A counter: the sum over all owners, clamped to 64 bits; 0 if nobody ever touched it.
    #[must_use]
    pub fn counter(&self, name: &str) -> i64 {
        let shares = self.counters.iter().filter(|(key, _)| owner_and_name(key.as_bytes()).1 == name);
        let sum: i128 = shares.map(|(_, value)| value).sum();
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    /// What has been seen of the writes of each replica to presence and properties.
    #[must_use]
    pub fn version(&self) -> Version {
        let mut version = self.properties.version().clone();
        version.join(self.presence.as_map().version());
        version
    }

    /// Entries in all, tombstones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    // What comes from elsewhere.

    /// Merges entries from elsewhere, all or none. Returns whether anything changed.
    ///
    /// With a `writer`, they come from the client of that player, and may change only the
    /// properties and counters that the player owns. Without, they come from a server, and
    /// are believed, clock included.
    ///
    /// # Errors
    /// See [`StateError`]; nothing was merged then.
    pub fn merge(
        &mut self,
        now: Now,
        writer: Option<&str>,
        entries: &[v1::StateEntry],
    ) -> Result<bool, StateError> {
        self.now = now;
        self.admit(now, writer, entries)?;
        let before = self.change;
        for entry in entries {
            let key = KeyBuf::of(entry)?;
            match self.judge(&key, writer, entry) {
                Verdict::Skip => {}
                Verdict::Take => self.take(&key, entry),
                Verdict::Bury => {
                    let stamp = self.clock.tick(now);
                    self.write_property(&key, stamp, None, false);
                }
            }
        }
        Ok(self.change != before)
    }

    /// Checks a batch before any of it is merged.
    fn admit(
        &mut self,
        now: Now,
        writer: Option<&str>,
        entries: &[v1::StateEntry],
    ) -> Result<(), StateError> {
        let (mut new, mut names) = (BTreeSet::new(), BTreeSet::new());
        for entry in entries {
            let key = KeyBuf::of(entry)?;
            check_form(entry)?;
            let Some(writer) = writer else {
                if !self.index.contains_key(key.as_bytes()) {
                    new.insert(Key::from(key.as_bytes()));
                }
                continue;
            };
            if self.judge(&key, Some(writer), entry) == Verdict::Skip {
                continue;
            }
            if entry.owner != writer || entry.domain() == v1::Domain::Presence {
                return Err(StateError::NotOwner);
            }
            if let Some(stamp) = &entry.stamp {
                self.clock.check(now, (*stamp).into()).map_err(|_| StateError::ClockTooFarAhead)?;
            }
            if !self.index.contains_key(key.as_bytes()) {
                new.insert(Key::from(key.as_bytes()));
                let counter = entry.domain() == v1::Domain::Counter;
                let name = if counter { counter_of(key.as_bytes()) } else { key.as_bytes() };
                if !counter || !self.counters.contains(name) {
                    names.insert(Key::from(name));
                }
            }
        }
        self.make_room(now, writer.map(|writer| (writer, names.len())), new.len())
    }

    fn judge(&self, key: &KeyBuf, writer: Option<&str>, entry: &v1::StateEntry) -> Verdict {
        let bytes = key.as_bytes();
        let known = self.index.contains_key(bytes);
        let Some(stamp) = entry.stamp.map(Stamp::from) else {
            let share = Share { plus: entry.plus, minus: entry.minus };
            let news = self.share(bytes, entry.replica).is_none_or(|ours| ours.would_grow(share));
            return if news { Verdict::Take } else { Verdict::Skip };
        };
        if !known && entry.removed && self.graveyard.is_past(stamp, self.clock.wall_ms(self.now)) {
            return Verdict::Skip;
        }
        if !known && writer.is_some() && self.graveyard.may_have_removed(stamp) {
            return Verdict::Bury;
        }
        if self.limits.planted.is(Plant::ArrivalWins) {
            return Verdict::Take;
        }
        let news = match entry.domain() {
            v1::Domain::Presence => {
                let value = (!entry.removed).then_some(&());
                self.presence.as_map().would_change(bytes, stamp, value)
            }
            _ => self.properties.would_change(bytes, stamp, (!entry.removed).then_some(&entry.value)),
        };
        if news { Verdict::Take } else { Verdict::Skip }
    }

    fn take(&mut self, key: &KeyBuf, entry: &v1::StateEntry) {
        let Some(stamp) = entry.stamp.map(Stamp::from) else {
            return self.write_share(key, entry.replica, Share { plus: entry.plus, minus: entry.minus });
        };
        self.clock.observe(stamp);
        let replace = self.limits.planted.is(Plant::ArrivalWins);
        match entry.domain() {
            v1::Domain::Presence => self.write_presence(key, stamp, !entry.removed, replace),
            _ => self.write_property(key, stamp, (!entry.removed).then(|| entry.value.clone()), replace),
        }
    }

    /// Makes sure that `new` more entries fit, and so many more names of an owner.
    fn make_room(&mut self, now: Now, names: Option<(&str, usize)>, new: usize) -> Result<(), StateError> {
        if new == 0 || self.has_room(names, new) {
            return Ok(());
        }
        self.collect(now);
        if self.has_room(names, new) { Ok(()) } else { Err(StateError::TooMany) }
    }

    fn has_room(&self, names: Option<(&str, usize)>, new: usize) -> bool {
        let fits = |(owner, names): (&str, usize)| {
            names == 0 || self.names(owner).saturating_add(names) <= self.limits.entries_per_owner
        };
        self.index.len().saturating_add(new) <= self.limits.entries && names.is_none_or(fits)
    }

    /// Names of an owner, presence aside.
    fn names(&self, owner: &str) -> usize {
        let properties = self.keys_of(v1::Domain::Property, owner).count();
        let mut last: &[u8] = &[];
        let shares = self.keys_of(v1::Domain::Counter, owner).map(|key| counter_of(key.as_bytes()));
        // Shares of one counter stand together.
        let counters = shares.filter(|counter| core::mem::replace(&mut last, *counter) != *counter).count();
        properties + counters
    }

    pub(super) fn keys_of(&self, domain: v1::Domain, owner: &str) -> impl Iterator<Item = &Key> {
        let prefix = KeyBuf::owner(domain, owner).ok();
        prefix.into_iter().flat_map(move |prefix| {
            let from = (core::ops::Bound::Included(prefix.as_bytes()), core::ops::Bound::Unbounded);
            self.index
                .range::<[u8], _>(from)
                .map(|(key, _)| key)
                .take_while(move |key| key.as_bytes().starts_with(prefix.as_bytes()))
        })
    }

    // Changes.

    /// The number of the last change, local or merged. Grows with each; 0 at first.
    #[must_use]
    pub const fn change(&self) -> u64 {
        self.change
    }

    /// The number of the newest change that was a removal and is forgotten. A reader that had
    /// not got that far does not hear of it, and has to walk the tree.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The entries that changed after change number `after`, oldest change first, each
    /// once, in its newest form: as many as `max_bytes` hold when encoded, but at least
    /// one. With them, the change number that the reader has reached and passes as
    /// `after` next time. None: there is nothing newer.
    ///
    /// A reader may be too far behind for removals: see [`Self::forgotten`].
    #[must_use]
    pub fn changes_since(&self, after: u64, max_bytes: usize) -> (Vec<v1::StateEntry>, u64) {
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        let mut reached = after;
        let from = (core::ops::Bound::Excluded(after), core::ops::Bound::Unbounded);
        for (&change, key) in self.changes.range(from) {
            let Some(entry) = self.entry(key) else { continue };
            bytes = bytes.saturating_add(framed_len(&entry));
            if bytes > max_bytes && !entries.is_empty() {
                return (entries, reached);
            }
            entries.push(entry);
            reached = change;
        }
        (entries, reached.max(self.change))
    }

    /// An entry as it goes over the wire.
    pub(super) fn entry(&self, key: &Key) -> Option<v1::StateEntry> {
        let parts = key.parts();
        let mut entry = v1::StateEntry {
            domain: parts.domain.into(),
            owner: parts.owner.to_owned(),
            name: parts.name.to_owned(),
            ..v1::StateEntry::default()
        };
        match parts.domain {
            v1::Domain::Presence => {
                let (stamp, value) = self.presence.as_map().write(key.as_bytes())?;
                entry.stamp = Some(stamp.into());
                entry.removed = value.is_none();
            }
            v1::Domain::Property => {
                let (stamp, value) = self.properties.write(key.as_bytes())?;
                entry.stamp = Some(stamp.into());
                entry.removed = value.is_none();
                entry.value = value.cloned().unwrap_or_default();
            }
            v1::Domain::Counter | v1::Domain::Unspecified => {
                let share = self.share(key.as_bytes(), parts.replica)?;
                (entry.replica, entry.plus, entry.minus) = (parts.replica, share.plus, share.minus);
            }
        }
        Some(entry)
    }

    // Time.

    /// Drops the tombstones that are past the horizon.
    pub fn collect(&mut self, now: Now) {
        self.now = now;
        let wall_ms = self.clock.wall_ms(now);
        let at_once = self.limits.planted.is(Plant::TombstoneForgotten);
        while let Some(key) = self.graveyard.take(wall_ms, at_once) {
            self.presence.as_map_mut().forget(key.as_bytes());
            self.properties.forget(key.as_bytes());
            if let Some(meta) = self.index.remove(key.as_bytes()) {
                self.forgotten = self.forgotten.max(meta.change);
                self.changes.remove(&meta.change);
                self.buckets.remove(&(bucket(meta.key_hash), key));
            }
        }
    }

    /// When [`Self::collect`] has something to do next, judged by the time that was told
    /// last. The wall clock may run differently; then there is nothing to do yet, and
    /// after the call there is a new deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let due_ms = self.graveyard.next_due_ms()?;
        let wait_ms = due_ms.saturating_add(1).saturating_sub(self.clock.wall_ms(self.now));
        let wait_ms = if self.limits.planted.is(Plant::TombstoneForgotten) { 0 } else { wait_ms };
        Some(Deadline::new(self.now.instant + Duration::from_millis(wait_ms), "tombstones are to be dropped"))
    }

    /// For the refusal of a client's stamp: what time it is by the clock that stamps are
    /// bounded against, and the latest stamp that is believed, both Unix time in ms.
    pub fn believes(&mut self, now: Now) -> (u64, u64) {
        self.clock.believes(now)
    }

    /// Drops an entry as if it had never been.
    pub(super) fn evict(&mut self, key: &Key) {
        let Some(meta) = self.index.remove(key.as_bytes()) else { return };
        let parts = key.parts();
        match parts.domain {
            v1::Domain::Presence => self.presence.as_map_mut().evict(key.as_bytes()),
            v1::Domain::Property => self.properties.evict(key.as_bytes()),
            v1::Domain::Counter | v1::Domain::Unspecified => {
                self.counters.evict(counter_of(key.as_bytes()), parts.replica);
            }
        }
        self.merkle.change(bucket(meta.key_hash), meta.hash, 0);
        self.changes.remove(&meta.change);
        self.buckets.remove(&(bucket(meta.key_hash), key.clone()));
        if let Some(kept_ms) = meta.kept_ms {
            self.graveyard.remove(kept_ms, key.clone());
        }
    }

    // The only places where the state changes; each keeps the index up to date.

    fn write_presence(&mut self, key: &KeyBuf, stamp: Stamp, present: bool, replace: bool) {
        let value = present.then_some(());
        let own = || Key::from(key.as_bytes());
        let map = self.presence.as_map_mut();
        let changed = if replace {
            map.replace(own(), stamp, value)
        } else {
            map.apply_with(key.as_bytes(), own, stamp, value)
        };
        if changed {
            self.record_stamped(key, stamp, present.then_some(&[]));
        }
    }

    pub(super) fn write_property(&mut self, key: &KeyBuf, stamp: Stamp, value: Option<Bytes>, replace: bool) {
        let own = || Key::from(key.as_bytes());
        let changed = if replace {
            self.properties.replace(own(), stamp, value.clone())
        } else {
            self.properties.apply_with(key.as_bytes(), own, stamp, value.clone())
        };
        if changed {
            self.record_stamped(key, stamp, value.as_deref());
        }
    }

    fn write_share(&mut self, key: &KeyBuf, replica: u64, share: Share) {
        let counter = counter_of(key.as_bytes());
        if self.counters.apply_with(counter, || Key::from(counter), replica, share) {
            let share = self.counters.share(counter, replica).unwrap_or(share);
            let key_hash = key_hash(key.as_bytes());
            self.record(key, key_hash, share_hash(key_hash, share), None);
        }
    }

    fn share(&self, key: &[u8], replica: u64) -> Option<Share> {
        self.counters.share(counter_of(key), replica)
    }

    fn record_stamped(&mut self, key: &KeyBuf, stamp: Stamp, value: Option<&[u8]>) {
        let key_hash = key_hash(key.as_bytes());
        match value {
            Some(value) => self.record(key, key_hash, stamped_hash(key_hash, stamp, value), None),
            None => self.record(key, key_hash, 0, Some(stamp)),
        }
    }

    /// Keeps tree, log of changes and tombstones up to date after an entry changed.
    fn record(&mut self, key: &KeyBuf, key_hash: u64, hash: u64, tombstone: Option<Stamp>) {
        self.change += 1;
        let change = self.change;
        let meta = Meta { key_hash, hash, change, kept_ms: None };
        let (old, key) = if let Some(known) = self.index.get_mut(key.as_bytes()) {
            let old = core::mem::replace(known, meta);
            let key = self.changes.remove(&old.change).unwrap_or_else(|| Key::from(key.as_bytes()));
            (Some(old), key)
        } else {
            let key = Key::from(key.as_bytes());
            self.index.insert(key.clone(), meta);
            self.buckets.insert((bucket(key_hash), key.clone()));
            (None, key)
        };
        self.merkle.change(bucket(key_hash), old.map_or(0, |old| old.hash), hash);
        if let Some(kept_ms) = old.and_then(|old| old.kept_ms) {
            self.graveyard.remove(kept_ms, key.clone());
        }
        if let Some(stamp) = tombstone {
            let kept_ms = self.graveyard.insert(stamp, key.clone(), self.clock.wall_ms(self.now));
            if let Some(meta) = self.index.get_mut(key.as_bytes()) {
                meta.kept_ms = Some(kept_ms);
            }
        }
        self.changes.insert(change, key);
    }
}

/// What an entry takes in a message that holds many.
pub(super) fn framed_len(entry: &v1::StateEntry) -> usize {
    // Tag and length: 4 bytes suffice for an entry of legal size.
    entry.encoded_len().saturating_add(4)
}

/// The key of the counter that a share belongs to.
fn counter_of(key: &[u8]) -> &[u8] {
    key.split_last_chunk::<8>().map_or(key, |(counter, _)| counter)
}
