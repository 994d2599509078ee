//! When a tombstone may be forgotten.
//!
//! # The rule
//!
//! A tombstone is dropped once both its stamp and the moment that it was learned of are
//! more than the *horizon* in the past, by the own wall clock. Nobody is asked; replicas
//! drop it at different moments. (The stamp alone would not do: the tombstone of a
//! writer whose clock is far behind would be gone before it was passed on.)
//!
//! # Why replicas still converge
//!
//! The Merkle tree does not see tombstones: a removed entry hashes like one that never
//! was (see [`super::merkle`]). So dropping one changes no hash, and a replica that has
//! dropped it compares equal to one that has not. An unknown tombstone whose stamp is
//! past the horizon when it comes in is passed over, so that replicas do not teach each
//! other the same one for ever. Whatever else happens,
//! replicas that exchange what differs end up equal: dropping a tombstone only means
//! that an older write of the key, if one comes in, is news again.
//!
//! # Why what was removed stays removed
//!
//! For such an older write to come in, some replica must have missed the removal for
//! the whole horizon. The horizon is longer than a session lives without a connection,
//! and a client whose session is gone starts afresh, so no client comes back with one
//! in good faith. For all others, a server that is given an unknown entry by a client
//! compares its stamp with the newest tombstone it ever dropped: if it is not later,
//! it may be what that tombstone removed, and the server *buries* it, by writing a new
//! tombstone in its place, which also reaches whoever else still has it. So does a room's
//! primary with what a node says that follows the room: that node may have been cut off
//! for any time, and is given the clients' entries before it knows of the removals. Where
//! the primary still has the tombstone, it says so again: the node may have passed over it
//! when it came in. A
//! server that never dropped a tombstone (a new one, say) believes everything; so does a
//! client that hears from its server, and a node that hears from the primary, which has
//! to learn what was written long ago. A client
//! whose clock is further behind than the horizon may have its first write buried; the
//! tombstone brings its clock forward, and the next one is heard.

use alloc::collections::BTreeMap;

use super::Stamp;
use super::hlc::millis;
use super::index::Slot;
use crate::base::time::Duration;

/// The tombstones of a replica.
#[derive(Clone, Debug)]
pub(super) struct Graveyard {
    horizon_ms: u64,
    /// Stamps, by the last millisecond of the wall clock that the tombstone is kept.
    tombstones: BTreeMap<(u64, Slot), Stamp>,
    /// The newest stamp of a tombstone that was dropped.
    dropped: Stamp,
}

impl Graveyard {
    pub(super) fn new(horizon: Duration) -> Self {
        Self { horizon_ms: millis(horizon), tombstones: BTreeMap::new(), dropped: Stamp::default() }
    }

    /// Learns of a tombstone. Returns until when it is kept.
    pub(super) fn insert(&mut self, stamp: Stamp, slot: Slot, wall_ms: u64) -> u64 {
        let kept_ms = stamp.wall_ms.max(wall_ms).saturating_add(self.horizon_ms);
        self.tombstones.insert((kept_ms, slot), stamp);
        kept_ms
    }

    /// The entry was written again.
    pub(super) fn remove(&mut self, kept_ms: u64, slot: Slot) {
        self.tombstones.remove(&(kept_ms, slot));
    }

    /// Whether a stamp is past the horizon.
    pub(super) fn is_past(&self, stamp: Stamp, wall_ms: u64) -> bool {
        stamp.wall_ms.saturating_add(self.horizon_ms) < wall_ms
    }

    /// Takes the tombstone that is due first, if it may be dropped, or with `any` in any
    /// case.
    pub(super) fn take(&mut self, wall_ms: u64, any: bool) -> Option<Slot> {
        if !any && self.next_due_ms()? >= wall_ms {
            return None;
        }
        let ((_, slot), stamp) = self.tombstones.pop_first()?;
        self.dropped = self.dropped.max(stamp);
        Some(slot)
    }

    /// Whether an unknown entry of this stamp may be what a dropped tombstone removed.
    pub(super) fn may_have_removed(&self, stamp: Stamp) -> bool {
        stamp <= self.dropped
    }

    /// The last millisecond that the tombstone that is due first is kept.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        self.tombstones.keys().next().map(|&(kept_ms, _)| kept_ms)
    }
}
