//! Group commit: sends many small requests to a remote registry in one transaction.
//!
//! [`GroupCommit`] is the machine. [`access_set`] finds the requests that depend on each other, [`queue`]
//! selects the members of the next group, [`bundle`] packs the members, and [`transaction`] makes one request
//! of the bundles and splits the response.

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

/// Upper limit of [`GroupConfig::members`], so that a burst of requests does not become one long transaction.
pub const MAX_GROUP_MEMBERS: usize = 1024;

/// Bounds of [`GroupCommit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// Requests that wait to be sent. Further requests are answered with [`Failure::Unavailable`]. Requests
    /// that are sent again are not counted.
    pub waiting: usize,
    /// Requests in a group, from 1 to [`MAX_GROUP_MEMBERS`]; with 1 each request is sent alone.
    pub members: usize,
    /// Size of a group in bytes. A larger request is sent alone.
    pub bytes: usize,
    /// Groups in flight, from 1. Fewer groups in flight are fuller.
    pub in_flight: usize,
    /// Time from a request to its outcome. After this time an unsent request fails with
    /// [`Failure::Unavailable`], a sent one with [`Failure::Unknown`].
    pub patience: Duration,
}

/// Identifier of a group, never used twice by a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// Group to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Identifier that the response or the failure repeats.
    pub id: GroupId,
    /// The request to send.
    pub request: Request,
    /// Number of requests in the group.
    pub members: usize,
}

/// Reason of a missing response to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupFailure {
    /// The registry or the transport reported an outcome; the connection is still usable.
    Outcome(Failure),
    /// The connection is unusable, and the group may have been executed. Groups of reads are sent again.
    Lost,
    /// The group was not executed, and can be sent again over another connection.
    NotDone,
}

/// Fate of the members of a failed group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Aftermath {
    /// Each member has the group's failure as its outcome.
    Settled,
    /// All members wait to be sent again.
    Again,
    /// All members wait to be sent again, in groups of half the size.
    Halved,
}

/// Output of [`GroupCommit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupOutput {
    /// The outcome of a request.
    Reply {
        /// Identifier of the request.
        id: CallId,
        /// The response, or the reason of its absence.
        outcome: Result<Response, Failure>,
        /// Time at which the request was accepted.
        asked: Instant,
    },
    /// Requests have run out of time after they were sent. The driver should close the connection if nothing
    /// was received since.
    Overdue {
        /// Latest sending time of these requests.
        sent: Instant,
    },
}

/// Refusal of a response with another shape than its group's request, by a fault of the registry or the
/// transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedResponse;

impl fmt::Display for MalformedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the registry's answer is not of the shape of the request")
    }
}

impl core::error::Error for MalformedResponse {}
