//! Writes to a replica: local writes, and the only functions that change the state.

use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::index::Slot;
use super::key::counter_of;
use super::merkle::{bucket, share_hash, stamped_hash};
use super::{KeyBuf, MAX_VALUE, Replica, Share, Stamp, StateError, StateKey};
use crate::base::time::Now;

impl Replica {
    /// Sets or clears the presence of a player. Has no effect if the presence does not change.
    pub fn set_present(&mut self, now: Now, player: &str, present: bool) -> Result<(), StateError> {
        self.now = now;
        let key = KeyBuf::presence(player)?;
        let known = self.index.find(&key);
        if known.is_some_and(|slot| self.presence.contains(&slot)) == present {
            return Ok(());
        }
        self.make_room(now, None, usize::from(known.is_none()))?;
        let slot = known.map_or_else(|| self.index.insert(&key), Ok)?;
        let stamp = self.clock.tick_over(now, self.stamp_of(slot, v1::Domain::Presence));
        self.write_presence(slot, stamp, present, false);
        Ok(())
    }

    /// Sets a property; `None` removes the property.
    ///
    /// # Errors
    /// [`StateError::TooMany`] at a cap; [`StateError::Malformed`] if the owner is empty, or the
    /// owner, the name or the value is too long.
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
        let known = self.index.find(&key);
        if value.is_none() && known.and_then(|slot| self.properties.get(&slot)).is_none() {
            return Ok(());
        }
        let new = usize::from(known.is_none());
        self.make_room(now, Some((owner, new)), new)?;
        let slot = known.map_or_else(|| self.index.insert(&key), Ok)?;
        let stamp = self.clock.tick_over(now, self.stamp_of(slot, v1::Domain::Property));
        self.write_property(slot, stamp, value, false);
        Ok(())
    }

    /// Adds `delta`, which may be negative, to the share that this replica has of the counter of
    /// `owner`.
    ///
    /// # Errors
    /// [`StateError::TooMany`] at a cap, and if the sum of all additions, or of all subtractions,
    /// would exceed 64 bits; [`StateError::Malformed`] if the owner is empty, or the owner or the
    /// name is too long.
    pub fn add(&mut self, now: Now, owner: &str, name: &str, delta: i64) -> Result<(), StateError> {
        self.now = now;
        let replica = self.clock.replica();
        let key = KeyBuf::share(owner, name, replica)?;
        let share = self.share(key.as_bytes(), replica).unwrap_or_default();
        let share = share.plus(delta).ok_or(StateError::TooMany)?;
        let known = self.index.find(&key);
        let new = usize::from(known.is_none());
        let names = usize::from(!self.counters.contains(counter_of(key.as_bytes())));
        self.make_room(now, Some((owner, names)), new)?;
        let slot = known.map_or_else(|| self.index.insert(&key), Ok)?;
        self.write_share(slot, replica, share);
        Ok(())
    }

    /// Removes all properties of a player that has left for good. The player's shares of counters
    /// stay.
    pub fn remove_owner(&mut self, now: Now, owner: &str) {
        self.now = now;
        let entries = self.entries_of(v1::Domain::Property, owner).map(|(_, slot)| slot);
        let set: Vec<Slot> = entries.filter(|slot| self.properties.get(slot).is_some()).collect();
        for slot in set {
            let stamp = self.clock.tick_over(now, self.stamp_of(slot, v1::Domain::Property));
            self.write_property(slot, stamp, None, false);
        }
    }

    // The only functions that change the state. Each of them keeps the index, the tree, the log of
    // changes and the tombstones up to date. With `replace`, a write wins with any stamp.

    pub(super) fn write_presence(&mut self, slot: Slot, stamp: Stamp, present: bool, replace: bool) {
        let hash = self.hash_of(slot, stamp, present.then_some(&[]));
        let changed = if replace {
            self.presence.as_map_mut().replace(slot, stamp, present.then_some(()))
        } else {
            self.presence.apply(slot, stamp, present)
        };
        if changed {
            self.record(slot, hash, (!present).then_some(stamp));
        }
    }

    pub(super) fn write_property(&mut self, slot: Slot, stamp: Stamp, value: Option<Bytes>, replace: bool) {
        let hash = self.hash_of(slot, stamp, value.as_deref());
        let tombstone = value.is_none().then_some(stamp);
        let changed = if replace {
            self.properties.replace(slot, stamp, value)
        } else {
            self.properties.apply(slot, stamp, value)
        };
        if changed {
            self.record(slot, hash, tombstone);
        }
    }

    pub(super) fn write_share(&mut self, slot: Slot, replica: u64, share: Share) {
        let Some(meta) = self.index.get(slot) else { return };
        let counter = counter_of(meta.key.as_bytes());
        if self.counters.apply_with(counter, || StateKey::from(counter), replica, share) {
            let share = self.counters.share(counter, replica).unwrap_or(share);
            self.record(slot, share_hash(meta.key_hash, share), None);
        }
    }

    /// Drops an entry as if the entry had never been written.
    pub(super) fn evict(&mut self, slot: Slot) {
        let Some(meta) = self.index.remove(slot) else { return };
        let parts = meta.key.parts();
        match parts.domain {
            v1::Domain::Presence => self.presence.as_map_mut().evict(&slot),
            v1::Domain::Property => self.properties.evict(&slot),
            v1::Domain::Counter | v1::Domain::Unspecified => {
                self.counters.evict(counter_of(meta.key.as_bytes()), parts.replica);
            }
        }
        self.merkle.change(bucket(meta.key_hash), meta.hash, 0);
        if let Some(kept_ms) = meta.kept_ms {
            self.graveyard.remove(kept_ms, slot);
        }
    }

    /// Sends an entry to the readers again, as if the entry had changed.
    pub(super) fn repeat(&mut self, slot: Slot) {
        let Some(meta) = self.index.get_mut(slot) else { return };
        meta.change = self.changes.append(slot);
        self.changes.tidy(self.index.len(), |change, slot| self.index.is_last(change, slot));
    }

    /// Returns the summand of a write in the Merkle tree; 0 for a tombstone.
    fn hash_of(&self, slot: Slot, stamp: Stamp, value: Option<&[u8]>) -> u64 {
        let key_hash = self.index.get(slot).map_or(0, |meta| meta.key_hash);
        value.map_or(0, |value| stamped_hash(key_hash, stamp, value))
    }

    /// Updates the tree, the log of changes and the tombstones after an entry changed.
    fn record(&mut self, slot: Slot, hash: u64, tombstone: Option<Stamp>) {
        let Some(meta) = self.index.get_mut(slot) else { return };
        self.merkle.change(bucket(meta.key_hash), meta.hash, hash);
        meta.hash = hash;
        if let Some(kept_ms) = meta.kept_ms.take() {
            self.graveyard.remove(kept_ms, slot);
        }
        if let Some(stamp) = tombstone {
            meta.kept_ms = Some(self.graveyard.insert(stamp, slot, self.clock.wall_ms(self.now)));
        }
        self.repeat(slot);
    }
}
