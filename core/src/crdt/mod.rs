//! A room's replicated state: presence, properties, counters (row M5, guarantee G10).
//!
//! Every replica may change its copy at any time, also while it is cut off from the others.
//! Replicas send deltas to each other and merge them. A *delta* is a value of the same type that
//! holds only the changes. Merging is commutative, associative and idempotent, and loses nothing,
//! so deltas may arrive late, twice, and in any order; see [`Crdt`].
//!
//! * [`LwwSet`], [`LwwMap`] and [`Counter`] are the types, for any keys and values. [`Hlc`] makes
//!   the stamps by which the last writer wins.
//! * [`Replica`] is one copy of a room's state. To these types it adds caps, rights of writers, a
//!   log of changes for readers, and the collection of tombstones.
//! * [`merkle`] is the hash tree that finds the differences between two replicas that were apart.
//!   [`Replica::reconcile`] makes the messages of such a comparison.

mod changes;
mod client_replica;
mod counter;
mod hlc;
mod index;
mod key;
mod lww_map;
mod lww_set;
mod merge;
pub mod merkle;
mod reconciliation;
mod replica;
pub mod tombstone;
mod version;
mod writes;

#[cfg(test)]
mod tests;

use core::fmt;

pub use counter::{Counter, Share};
pub use hlc::{Hlc, MAX_WALL_MS, Stamp, TooFarAhead};
pub use key::MAX_STATE_NAME;
pub use lww_map::LwwMap;
pub use lww_set::LwwSet;
pub use reconciliation::{ANSWER_BYTES, ReconcileAnswer, split};
pub use replica::{MAX_VALUE, Replica, ReplicaLimits};
pub use version::Version;

pub(crate) use client_replica::{Forgotten, ServerForm};
use key::KeyBuf;
pub(crate) use key::StateKey;

/// State that replicas change independently and merge. The values of a type form a
/// join-semilattice: [`Self::merge`] is commutative, associative and idempotent, and the result is
/// at least either operand.
pub trait Crdt {
    /// Merges `other`, a whole state or a delta. Returns true if anything changed.
    fn merge(&mut self, other: &Self) -> bool;

    /// Returns how far the writes of each replica have been seen. The numbers never decrease.
    fn version(&self) -> &Version;
}

/// Reason for not writing or merging an entry; then no entry of the batch was written or merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// A stamp is further ahead of our clock than the bound: the writer's clock is wrong.
    ClockTooFarAhead,
    /// The known write of the entry is stamped further ahead of our clock than the bound: another
    /// server with a wrong clock made the stamp. No write of a client wins over that entry before
    /// that time.
    BehindTheFuture,
    /// An entry would change state that the writer does not own.
    NotOwner,
    /// There would be more entries than a cap allows, or a counter's share does not fit
    /// into 64 bits.
    TooMany,
    /// An entry, or a step of a reconciliation, breaks the rules of `state.proto`.
    Malformed,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClockTooFarAhead => "a stamp is too far ahead of the clock",
            Self::BehindTheFuture => "a write of the same entry is stamped too far ahead of the clock",
            Self::NotOwner => "the entry belongs to another player",
            Self::TooMany => "there are too many entries",
            Self::Malformed => "the entry is malformed",
        })
    }
}

impl core::error::Error for StateError {}
