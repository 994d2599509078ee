//! Group commit: many small requests to a remote registry ride in one transaction.
//!
//! [`GroupCommit`] says what it does. [`access_set`] tells which requests depend on each other,
//! [`queue`] chooses the members of the next group, [`bundle`] packs them, and [`transaction`]
//! makes one request of them and takes its response apart.

mod access_set;
mod bundle;
mod machine;
mod member;
mod queue;
mod share_limit;
#[cfg(test)]
mod tests;
mod transaction;

use core::fmt;

use super::{CallId, Failure, Request, Response};
use crate::base::time::{Duration, Instant};

pub use machine::GroupCommit;

/// Upper limit of [`GroupConfig::members`], so that a burst does not become one long
/// transaction.
pub const MAX_GROUP_MEMBERS: usize = 1024;

/// Bounds of [`GroupCommit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Requests that wait to be sent. More are answered with [`Failure::Unavailable`]. Requests
    /// that are sent again come on top of this.
    pub waiting: usize,
    /// Requests in a group, from 1 to [`MAX_GROUP_MEMBERS`]; 1 sends each request alone.
    pub members: usize,
    /// Size of a group in bytes. A larger request goes alone.
    pub bytes: usize,
    /// Groups in flight, from 1. Fewer make fuller groups.
    pub in_flight: usize,
    /// Time from a request to its outcome. A request without one then has
    /// [`Failure::Unavailable`] if it was not sent, else [`Failure::Unknown`].
    pub patience: Duration,
}

/// A group's identifier, never used twice by a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// A group to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Comes back with the response or the failure.
    pub id: GroupId,
    /// The request to send.
    pub request: Request,
    /// Requests that ride in it.
    pub members: usize,
}

/// Reason why a group has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFailure {
    /// The registry or the transport gave an outcome over a connection that stays.
    Outcome(Failure),
    /// The connection is of no use any more, and the group may have been done. Reads are sent
    /// again.
    Lost,
    /// Nothing was done, and the group can be sent again, over another connection.
    NotDone,
}

/// Fate of the members of a failed group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Aftermath {
    /// Each has the group's failure as its outcome.
    Settled,
    /// All wait to be sent again.
    Again,
    /// All wait to be sent again, in groups of half the size.
    Halved,
}

/// Output of [`GroupCommit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupOutput {
    /// The outcome of a request.
    Reply {
        /// Names the request.
        id: CallId,
        /// The response, or the reason why there is none.
        outcome: Result<Response, Failure>,
        /// The time at which the request came.
        asked: Instant,
    },
    /// Requests have run out of time after they were sent. The driver should give the connection
    /// up if it has heard nothing since.
    Overdue {
        /// The time at which the last of these requests was sent.
        sent: Instant,
    },
}

/// A response is not of the shape of its group's request: the registry, or the transport,
/// misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedResponse;

impl fmt::Display for MalformedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the registry's answer is not of the shape of the request")
    }
}

impl core::error::Error for MalformedResponse {}
