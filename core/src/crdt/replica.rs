//! One copy of a room's state.

use alloc::borrow::ToOwned as _;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;
use skirmish_proto::v1;

use super::changes::ChangeLog;
use super::index::{Index, Slot};
use super::key::{counter_of, owner_and_name};
use super::merkle::Merkle;
use super::tombstone::Graveyard;
use super::{Counter, Crdt as _, Hlc, KeyBuf, LwwMap, LwwSet, Share, StateKey, Version};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::Seed;
use crate::base::time::{Deadline, Duration, Now};

/// Maximum length of the value of a property, in bytes.
pub const MAX_VALUE: usize = 1024;

/// Caps of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaLimits {
    /// Maximum number of names of one owner: properties, tombstones of properties, and counters of
    /// which the owner has shares. The owner may have twice as many entries, since each of its
    /// sessions has its own share of a counter. The cap holds for local writes and for entries from
    /// a client. Entries from another server were checked there.
    pub entries_per_owner: usize,
    /// Maximum number of entries in all, tombstones included. The cap of a client must exceed the
    /// cap of its server by `entries_per_owner`, for the writes that the client makes while it is
    /// cut off.
    pub entries: usize,
    /// Maximum time that the stamp of a client may be ahead of our clock. A batch with a later
    /// stamp is refused.
    pub clock_bound: Duration,
    /// Time for which a tombstone is kept; see [`super::tombstone`].
    pub tombstone_horizon: Duration,
    /// The bug planted here, if any.
    pub planted: Planted,
}

/// One replica of a room's state.
///
/// Shares of counters stay until the room ends, also after their owner has left.
#[derive(Clone, Debug)]
pub struct Replica {
    pub(super) limits: ReplicaLimits,
    pub(super) clock: Hlc,
    pub(super) presence: LwwSet<Slot>,
    pub(super) properties: LwwMap<Slot, Bytes>,
    /// Shares, by their key without the replica.
    pub(super) counters: Counter<StateKey>,
    /// All entries of presence, properties and counters.
    pub(super) index: Index,
    pub(super) merkle: Merkle,
    pub(super) changes: ChangeLog,
    pub(super) graveyard: Graveyard,
    /// Time of the last call that passed a time.
    pub(super) now: Now,
}

impl Replica {
    /// Creates an empty replica. `replica` is its number in stamps and in shares of counters; no
    /// other replica of this room may ever have the same number. Strangers choose the names of
    /// entries, and `seed` prevents them from choosing names that are slow to find, so strangers
    /// must not know the seed.
    #[must_use]
    pub fn new(replica: u64, limits: ReplicaLimits, seed: Seed) -> Self {
        Self {
            clock: Hlc::new(replica, limits.clock_bound),
            graveyard: Graveyard::new(limits.tombstone_horizon),
            limits,
            presence: LwwSet::default(),
            properties: LwwMap::default(),
            counters: Counter::default(),
            index: Index::new(seed),
            merkle: Merkle::default(),
            changes: ChangeLog::default(),
            now: Now::default(),
        }
    }

    // Reads.

    /// Returns true if a player is present.
    #[must_use]
    pub fn is_present(&self, player: &str) -> bool {
        let slot = KeyBuf::presence(player).ok().and_then(|key| self.index.find(&key));
        slot.is_some_and(|slot| self.presence.contains(&slot))
    }

    /// Returns the players that are present, in an order that is the same in all replicas.
    pub fn present(&self) -> impl Iterator<Item = &str> {
        let entries = self.index.starting_with(KeyBuf::domain(v1::Domain::Presence));
        entries.filter(|(_, slot)| self.presence.contains(slot)).map(|(key, _)| key.parts().owner)
    }

    /// Returns the value of a property; `None` if the property is not set.
    #[must_use]
    pub fn property(&self, owner: &str, name: &str) -> Option<&Bytes> {
        self.properties.get(&self.index.find(&KeyBuf::property(owner, name).ok()?)?)
    }

    /// Returns the properties that are set: owner, name, value, in an order that is the same in all
    /// replicas.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str, &Bytes)> {
        self.index.starting_with(KeyBuf::domain(v1::Domain::Property)).filter_map(|(key, slot)| {
            let parts = key.parts();
            Some((parts.owner, parts.name, self.properties.get(&slot)?))
        })
    }

    /// Returns the value of a counter: the sum over all owners, clamped to 64 bits; 0 if no replica
    /// has a share of the counter.
    #[must_use]
    pub fn counter(&self, name: &str) -> i64 {
        let shares = self.counters.iter().filter(|(key, _)| owner_and_name(key.as_bytes()).1 == name);
        let sum: i128 = shares.map(|(_, value)| value).sum();
        i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
    }

    /// Returns how far the writes of each replica to presence and properties have been seen.
    #[must_use]
    pub fn version(&self) -> Version {
        let mut version = self.properties.version().clone();
        version.join(self.presence.as_map().version());
        version
    }

    /// Returns the number of entries in all, tombstones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns true if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the entries of an owner in a domain, in the order of the keys.
    pub(super) fn entries_of(
        &self,
        domain: v1::Domain,
        owner: &str,
    ) -> impl Iterator<Item = (&StateKey, Slot)> {
        let prefix = KeyBuf::owner(domain, owner).ok();
        prefix.into_iter().flat_map(|prefix| self.index.starting_with(prefix))
    }

    pub(super) fn share(&self, key: &[u8], replica: u64) -> Option<Share> {
        self.counters.share(counter_of(key), replica)
    }

    // Changes.

    /// Returns the number of the last change, local or merged. Starts at 0 and grows with each
    /// change.
    #[must_use]
    pub const fn change(&self) -> u64 {
        self.changes.last()
    }

    /// Returns the number of the newest removal that is forgotten. A reader that has not read that
    /// far misses the removal, and has to reconcile.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.changes.forgotten()
    }

    /// Returns the entries that changed after change number `after`: oldest change first, each
    /// entry once, in its newest form. Returns as many entries as fit into `max_bytes` when
    /// encoded, but at least one. An empty list means that there are no later changes. The second
    /// value is the number of the last change that was read; the reader passes this number as
    /// `after` next time.
    ///
    /// A reader may be too far behind for removals: see [`Self::forgotten`].
    #[must_use]
    pub fn changes_since(&self, after: u64, max_bytes: usize) -> (Vec<v1::StateEntry>, u64) {
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        let mut reached = after;
        let lines = self.changes.since(after).filter(|&(change, slot)| self.index.is_last(change, slot));
        for (change, slot) in lines {
            let Some(entry) = self.entry(slot) else { continue };
            bytes = bytes.saturating_add(framed_len(&entry));
            if bytes > max_bytes && !entries.is_empty() {
                return (entries, reached);
            }
            entries.push(entry);
            reached = change;
        }
        (entries, reached.max(self.changes.last()))
    }

    /// Returns an entry in the form of the wire.
    pub(super) fn entry(&self, slot: Slot) -> Option<v1::StateEntry> {
        let key = self.index.key(slot)?;
        let parts = key.parts();
        let mut entry = v1::StateEntry {
            domain: parts.domain.into(),
            owner: parts.owner.to_owned(),
            name: parts.name.to_owned(),
            ..v1::StateEntry::default()
        };
        match parts.domain {
            v1::Domain::Presence => {
                let (stamp, value) = self.presence.as_map().write(&slot)?;
                entry.stamp = Some(stamp.into());
                entry.removed = value.is_none();
            }
            v1::Domain::Property => {
                let (stamp, value) = self.properties.write(&slot)?;
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
        while let Some(slot) = self.graveyard.take(wall_ms, at_once) {
            self.presence.as_map_mut().forget(&slot);
            self.properties.forget(&slot);
            if let Some(meta) = self.index.remove(slot) {
                self.changes.forget(meta.change);
            }
        }
    }

    /// Returns the next time for a call of [`Self::collect`], calculated from the last time that
    /// was passed. The wall clock may run at another rate. Then the call may find no tombstone to
    /// drop, and there is a new deadline after the call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let due_ms = self.graveyard.next_due_ms()?;
        let wait_ms = due_ms.saturating_add(1).saturating_sub(self.clock.wall_ms(self.now));
        let wait_ms = if self.limits.planted.is(Plant::TombstoneForgotten) { 0 } else { wait_ms };
        Some(Deadline::new(self.now.instant + Duration::from_millis(wait_ms), "tombstones are to be dropped"))
    }

    /// Returns the values for the refusal of a client's stamp, both Unix time in ms: the reading of
    /// the clock by which stamps are bounded, and the latest stamp that is believed.
    pub fn believes(&mut self, now: Now) -> (u64, u64) {
        self.clock.believes(now)
    }
}

/// Returns the size of an entry in a message that holds many entries, in bytes.
pub(super) fn framed_len(entry: &v1::StateEntry) -> usize {
    // Tag and length: 4 bytes suffice for an entry of legal size.
    entry.encoded_len().saturating_add(4)
}
