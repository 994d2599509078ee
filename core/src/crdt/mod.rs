//! A room's replicated state: presence, properties, counters (row M5, guarantee G10).
//!
//! Every replica may change its copy at any time, also while cut off. Replicas send
//! each other what changed (a *delta*: a value of the same type that holds only that)
//! and merge it. Merging is commutative, associative and idempotent, and loses nothing,
//! so deltas may come late, twice, and in any order; see [`Crdt`].
//!
//! * [`LwwSet`], [`LwwMap`] and [`Counter`] are the types, good for any keys and values.
//!   [`Hlc`] makes the stamps by which the last writer wins.
//! * [`Replica`] is one copy of a room's state made of them, with caps, rights of
//!   writers, a log of changes to send from, and forgetting of what was removed.
//! * [`merkle`] is how two replicas find what differs after they were apart, and
//!   [`Replica::reconcile`] the conversation by which they do.

mod changes;
mod counter;
mod follow;
mod hlc;
mod index;
mod key;
mod lww_map;
mod lww_set;
mod merge;
pub mod merkle;
mod replica;
pub mod tombstone;
mod version;
mod walk;
mod writes;

#[cfg(test)]
mod tests;

use core::fmt;

pub use counter::{Counter, Share};
pub use hlc::{Hlc, MAX_WALL_MS, Stamp, TooFarAhead};
pub use key::MAX_NAME;
pub use lww_map::LwwMap;
pub use lww_set::LwwSet;
pub use replica::{MAX_VALUE, Replica, ReplicaLimits};
pub use version::Version;
pub use walk::{ANSWER_BYTES, ReconcileAnswer, split};

pub(crate) use follow::{Forgotten, Heard};
use key::KeyBuf;
pub(crate) use key::StateKey;

/// State that replicas change apart and merge. The values of a type form a
/// join-semilattice: [`Self::merge`] is commutative, associative and idempotent, and
/// its result is at least either operand.
pub trait Crdt {
    /// Takes in what `other`, a whole state or a delta, has and this has not. Returns
    /// whether anything changed.
    fn merge(&mut self, other: &Self) -> bool;

    /// What has been seen of each replica's writes. Never goes back.
    fn version(&self) -> &Version;
}

/// Why entries were not written or merged; of a batch, none was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// A stamp is further ahead of our clock than the bound: the writer's clock is wrong.
    ClockTooFarAhead,
    /// The known write of an entry was stamped further ahead of our clock than the bound, by
    /// another server whose clock was wrong: no write wins over it before that time.
    BehindTheFuture,
    /// An entry would change what the writer does not own.
    NotOwner,
    /// There would be more entries than a cap allows, or a counter's share does not fit
    /// into 64 bits.
    TooMany,
    /// An entry, or a step of a walk, breaks the rules of `state.proto`.
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
