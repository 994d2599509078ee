//! Operations by which a client's replica follows the server's replica instead of merging.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::index::Slot;
use super::{KeyBuf, MAX_WALL_MS, Replica, Stamp, StateKey};
use crate::base::time::Now;

/// Count from which new stamps start after a refusal. A clock that only counts up within one
/// millisecond does not reach this number, so the new stamps are above all earlier stamps of that
/// millisecond.
const RESTAMPED: u32 = 1 << 31;

/// The server's form of an entry: the stamp, or the sums of a counter's share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerForm {
    stamp: Option<Stamp>,
    plus: u64,
    minus: u64,
}

impl ServerForm {
    pub(crate) fn of(entry: &v1::StateEntry) -> Self {
        Self { stamp: entry.stamp.map(Stamp::from), plus: entry.plus, minus: entry.minus }
    }
}

/// Kinds of entries that [`Replica::forget_lost`] has forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// True if the server did not have some of the entries.
    pub(crate) absent: bool,
    /// True if the server had some of the entries in an older form. The client has to ask for this
    /// form.
    pub(crate) older: bool,
}

impl Replica {
    /// Passes the time of the server to the replica, so that stamps follow the server's clock. For
    /// clients.
    pub fn observe_wall(&mut self, now: Now, server_wall_ms: u64) {
        self.now = now;
        self.clock.follow(now, server_wall_ms);
    }

    /// Stamps entries of `owner` anew after a server has refused entries because our clock was
    /// ahead. Takes `server_wall_ms` as the present time. The owner's properties with stamps beyond
    /// `latest_ms` get new stamps, in their order. Returns all entries of the owner, for sending,
    /// since the refused batch may have held any of them.
    ///
    /// The new stamps are the latest that the server accepts. The server may have accepted an older
    /// write of the same entry, with a stamp up to that time, and the new write has to win over the
    /// old one.
    pub fn restamp(
        &mut self,
        now: Now,
        owner: &str,
        server_wall_ms: u64,
        latest_ms: u64,
    ) -> Vec<v1::StateEntry> {
        self.now = now;
        let latest_ms = latest_ms.clamp(server_wall_ms, MAX_WALL_MS);
        let mut known = Stamp { wall_ms: latest_ms, count: RESTAMPED, replica: 0 };
        let edge = known.wall_ms;
        let own: Vec<Slot> = self.entries_of(v1::Domain::Property, owner).map(|(_, slot)| slot).collect();
        let mut beyond = Vec::new();
        for &slot in &own {
            match self.properties.write(&slot) {
                Some((stamp, _)) if stamp.wall_ms > edge => beyond.push((stamp, slot)),
                Some((stamp, _)) => known = known.max(stamp),
                None => {}
            }
        }
        self.clock.turn_back(now, server_wall_ms, known);
        beyond.sort();
        for (_, slot) in beyond {
            let value = self.properties.get(&slot).cloned();
            let stamp = self.clock.tick(now);
            self.write_property(slot, stamp, value, true);
        }
        let counters = self.entries_of(v1::Domain::Counter, owner).map(|(_, slot)| slot);
        own.iter().copied().chain(counters).filter_map(|slot| self.entry(slot)).collect()
    }

    /// Forgets entries of other players, in the buckets `leaves`, that the server does not have or
    /// has in an older form. `server_forms` holds the entries that the server has sent since the client
    /// asked for these buckets.
    ///
    /// For clients: writes of others reach a client only through its server. If the server has no
    /// entry at all, not even a tombstone, the entry was removed so long ago that the server has
    /// dropped the tombstone. If the server has an older form, the newer form came from a server
    /// that has died, and was lost there.
    pub(crate) fn forget_lost(
        &mut self,
        leaves: &[u32],
        server_forms: &BTreeMap<StateKey, ServerForm>,
        owner: &str,
    ) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let mut slots = Vec::new();
        for bucket in leaves.iter().filter_map(|leaf| u8::try_from(*leaf).ok()) {
            for slot in self.index.in_bucket(bucket) {
                let Some(key) = self.index.key(slot) else { continue };
                let parts = key.parts();
                if parts.owner == owner && parts.domain != v1::Domain::Presence {
                    continue;
                }
                match server_forms.get(key) {
                    None => forgotten.absent = true,
                    Some(theirs) if self.is_newer(slot, theirs) => forgotten.older = true,
                    Some(_) => continue,
                }
                slots.push(slot);
            }
        }
        for slot in slots {
            self.evict(slot);
        }
        forgotten
    }

    /// Returns true if our form of an entry has a later stamp or a larger sum than the server's
    /// form.
    fn is_newer(&self, slot: Slot, theirs: &ServerForm) -> bool {
        let Some(ours) = self.entry(slot) else { return false };
        ours.stamp.map(Stamp::from) > theirs.stamp || ours.plus > theirs.plus || ours.minus > theirs.minus
    }

    /// Drops entries that the server has no place for. No other replica has them.
    pub(crate) fn give_up(&mut self, entries: &[v1::StateEntry]) {
        for entry in entries {
            let known = KeyBuf::of(entry).ok().and_then(|key| self.index.find(&key));
            let Some(slot) = known else { continue };
            // An entry that was written again since then is a different entry and gets its own
            // answer.
            if self.entry(slot).as_ref() == Some(entry) {
                self.evict(slot);
            }
        }
    }
}
