//! How a client's replica follows its server's, where the two do not simply merge.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::index::Slot;
use super::{KeyBuf, MAX_WALL_MS, Replica, Stamp, StateKey};
use crate::base::time::Now;

/// Where the counts of fresh stamps start after a refusal: above those that a clock at
/// the same millisecond got to by itself.
const RESTAMPED: u32 = 1 << 31;

/// What a server's form of an entry has: the stamp, or what is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    stamp: Option<Stamp>,
    plus: u64,
    minus: u64,
}

impl Heard {
    pub(crate) fn of(entry: &v1::StateEntry) -> Self {
        Self { stamp: entry.stamp.map(Stamp::from), plus: entry.plus, minus: entry.minus }
    }
}

/// What a client's replica has forgotten at its server's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// Entries that the server does not have.
    pub(crate) unheard: bool,
    /// Entries that it has in an older form, which is to be asked for.
    pub(crate) older: bool,
}

impl Replica {
    /// Tells the replica what time it is at the server, so that its stamps follow the
    /// server's clock. For clients.
    pub fn observe_wall(&mut self, now: Now, server_wall_ms: u64) {
        self.now = now;
        self.clock.follow(now, server_wall_ms);
    }

    /// A server refused entries of `owner` because our clock was ahead. Takes
    /// `server_wall_ms` as the present, stamps the owner's properties that lie beyond
    /// `latest_ms` afresh, in their order, and returns
    /// all entries of the owner, for sending: they may all have been in the batch.
    ///
    /// The fresh stamps are the latest that the server takes, because it may have taken
    /// an older write of the same entry with a stamp up to that.
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

    /// Forgets entries of others in these buckets that the server does not have, or
    /// has in an older form: `heard` is what it sent since it was asked for them. For clients, whose server is where what others write comes from. What
    /// it has no word of, not even a tombstone, was removed so long ago that it forgot; what
    /// it has older was heard from a server that has died with it.
    pub(crate) fn forget_unheard(
        &mut self,
        leaves: &[u32],
        heard: &BTreeMap<StateKey, Heard>,
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
                match heard.get(key) {
                    None => forgotten.unheard = true,
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

    /// Whether our form of an entry has something that the server's has not.
    fn is_newer(&self, slot: Slot, theirs: &Heard) -> bool {
        let Some(ours) = self.entry(slot) else { return false };
        ours.stamp.map(Stamp::from) > theirs.stamp || ours.plus > theirs.plus || ours.minus > theirs.minus
    }

    /// Gives up entries that a server has no place for. Nobody else has them.
    pub(crate) fn give_up(&mut self, entries: &[v1::StateEntry]) {
        for entry in entries {
            let known = KeyBuf::of(entry).ok().and_then(|key| self.index.find(&key));
            let Some(slot) = known else { continue };
            // What was written since is another entry, with an answer of its own.
            if self.entry(slot).as_ref() == Some(entry) {
                self.evict(slot);
            }
        }
    }
}
