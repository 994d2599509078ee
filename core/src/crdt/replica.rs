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

/// Longest value of a property, in bytes.
pub const MAX_VALUE: usize = 1024;

/// Caps of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaLimits {
    /// Names of one owner: its properties, its tombstones of properties, and the counters
    /// that it has shares of. It may have twice as many entries, as each of its sessions has
    /// a share of its own. Holds for what is written here or comes from a client; what comes
    /// from another server was checked there.
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
    pub(super) limits: ReplicaLimits,
    pub(super) clock: Hlc,
    pub(super) presence: LwwSet<Slot>,
    pub(super) properties: LwwMap<Slot, Bytes>,
    /// By the key of a share without its replica.
    pub(super) counters: Counter<StateKey>,
    /// Every entry of the three.
    pub(super) index: Index,
    pub(super) merkle: Merkle,
    pub(super) changes: ChangeLog,
    pub(super) graveyard: Graveyard,
    /// The last time that we were told.
    pub(super) now: Now,
}

impl Replica {
    /// An empty replica. `replica` names it in stamps and in shares of counters, and is
    /// no other's, in this room, ever. Strangers choose the names of entries: `seed` keeps
    /// them from choosing such that are slow to find, so they must not know it.
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

    /// Whether a player is there.
    #[must_use]
    pub fn is_present(&self, player: &str) -> bool {
        let slot = KeyBuf::presence(player).ok().and_then(|key| self.index.find(&key));
        slot.is_some_and(|slot| self.presence.contains(&slot))
    }

    /// The players that are there, in an order that is the same everywhere.
    pub fn present(&self) -> impl Iterator<Item = &str> {
        let entries = self.index.starting_with(KeyBuf::domain(v1::Domain::Presence));
        entries.filter(|(_, slot)| self.presence.contains(slot)).map(|(key, _)| key.parts().owner)
    }

    /// A property that is set.
    #[must_use]
    pub fn property(&self, owner: &str, name: &str) -> Option<&Bytes> {
        self.properties.get(&self.index.find(&KeyBuf::property(owner, name).ok()?)?)
    }

    /// The properties that are set: owner, name, value, in an order that is the same
    /// everywhere.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &str, &Bytes)> {
        self.index.starting_with(KeyBuf::domain(v1::Domain::Property)).filter_map(|(key, slot)| {
            let parts = key.parts();
            Some((parts.owner, parts.name, self.properties.get(&slot)?))
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
        self.len() == 0
    }

    /// What an owner has in a domain, in the order of the keys.
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

    /// The number of the last change, local or merged. Grows with each; 0 at first.
    #[must_use]
    pub const fn change(&self) -> u64 {
        self.changes.last()
    }

    /// The number of the newest change that was a removal and is forgotten. A reader that had
    /// not got that far does not hear of it, and has to walk the tree.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.changes.forgotten()
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

    /// An entry as it goes over the wire.
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
}

/// What an entry takes in a message that holds many.
pub(super) fn framed_len(entry: &v1::StateEntry) -> usize {
    // Tag and length: 4 bytes suffice for an entry of legal size.
    entry.encoded_len().saturating_add(4)
}
