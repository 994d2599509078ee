//! Rules for dropping tombstones.
//!
//! # The rule
//!
//! A tombstone is dropped once its stamp and the moment of its arrival are both more than the
//! *horizon* in the past, by the own wall clock. Replicas do not agree on this; they drop a
//! tombstone at different moments. (The stamp alone does not suffice: the tombstone of a writer
//! whose clock is far behind would be dropped before it was passed on.)
//!
//! # Convergence of replicas
//!
//! The Merkle tree does not see tombstones: a removed entry has no hash, as if it had never been
//! written (see [`super::merkle`]). So dropping a tombstone changes no hash, and a replica that has
//! dropped a tombstone compares equal to a replica that still has the same one. A replica ignores
//! an unknown tombstone whose stamp is past the horizon on arrival, so that two replicas do not
//! send the same tombstone to each other for ever. In all other cases, replicas that exchange their
//! differences end up equal: after a tombstone is dropped, an older write of the key is accepted
//! again if it arrives.
//!
//! # Removed entries stay removed
//!
//! An older write of the key can arrive only if some replica has missed the removal for the whole
//! horizon. The horizon is longer than a session lives without a connection, and a client whose
//! session has ended starts afresh, so no well-behaved client sends such a write.
//!
//! Other clients are handled by the server. When a client sends an entry that is unknown, the
//! server compares the stamp of the entry with the newest tombstone that was ever dropped here. If
//! the stamp is not later, that tombstone may have removed the entry. The server then *buries* the
//! entry: it writes a new tombstone in the place of the entry. The new tombstone also reaches every
//! other replica that still has the entry.
//!
//! The primary of a room treats entries from a follower in the same way: the follower may have been
//! cut off for any time, and receives entries from clients before it learns of the removals. If the
//! primary still has the tombstone, the primary sends that tombstone again, since the follower may
//! have ignored it on arrival.
//!
//! A server that has never dropped a tombstone (a new server, for example) believes all entries. So
//! does a client that receives from its server, and a node that receives from the primary: these
//! have to learn entries that were written long ago. If the clock of a client is further behind
//! than the horizon, the first write of the client may be buried. The new tombstone brings the
//! client's clock forward, and the next write is accepted.

use alloc::collections::BTreeMap;

use super::Stamp;
use super::hlc::millis;
use super::index::Slot;
use crate::base::time::Duration;

/// The tombstones of a replica.
#[derive(Clone, Debug)]
pub(super) struct Graveyard {
    horizon_ms: u64,
    /// Stamps, by the last millisecond of the wall clock at which the tombstone is kept.
    tombstones: BTreeMap<(u64, Slot), Stamp>,
    /// Newest stamp of the tombstones that were dropped.
    dropped: Stamp,
}

impl Graveyard {
    pub(super) fn new(horizon: Duration) -> Self {
        Self { horizon_ms: millis(horizon), tombstones: BTreeMap::new(), dropped: Stamp::default() }
    }

    /// Adds a tombstone. Returns the last millisecond at which the tombstone is kept.
    pub(super) fn insert(&mut self, stamp: Stamp, slot: Slot, wall_ms: u64) -> u64 {
        let kept_ms = stamp.wall_ms.max(wall_ms).saturating_add(self.horizon_ms);
        self.tombstones.insert((kept_ms, slot), stamp);
        kept_ms
    }

    /// Removes the tombstone of an entry that was written again or evicted.
    pub(super) fn remove(&mut self, kept_ms: u64, slot: Slot) {
        self.tombstones.remove(&(kept_ms, slot));
    }

    /// Returns true if a stamp is past the horizon.
    pub(super) fn is_past(&self, stamp: Stamp, wall_ms: u64) -> bool {
        stamp.wall_ms.saturating_add(self.horizon_ms) < wall_ms
    }

    /// Removes and returns the earliest tombstone that may be dropped; with `any`, the earliest
    /// tombstone even if it is not due.
    pub(super) fn take(&mut self, wall_ms: u64, any: bool) -> Option<Slot> {
        if !any && self.next_due_ms()? >= wall_ms {
            return None;
        }
        let ((_, slot), stamp) = self.tombstones.pop_first()?;
        self.dropped = self.dropped.max(stamp);
        Some(slot)
    }

    /// Returns true if a dropped tombstone may have removed an unknown entry with this stamp.
    pub(super) fn may_have_removed(&self, stamp: Stamp) -> bool {
        stamp <= self.dropped
    }

    /// Returns the last millisecond at which the earliest tombstone is kept.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.tombstones.keys().next().map(|&(kept_ms, _)| kept_ms)
    }
}
