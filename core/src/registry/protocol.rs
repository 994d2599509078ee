//! Messages between a node and its registry, for every kind of registry.

use core::fmt;

use super::{Error, Request, Response, Watch, WatchId, Watched};

/// Identifier of a request, chosen by the node and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Command of a node to its registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryCommand {
    /// A request. Every request gets an answer; without a response within the driver's deadline the answer is
    /// [`Failure::Unknown`].
    Request {
        /// Identifier that the answer repeats.
        id: CallId,
        /// The request.
        request: Request,
    },
    /// Starts a watch. The driver keeps the watch alive over reconnections: it starts the watch again after
    /// the last reported revision.
    Watch {
        /// Identifier that the news repeat.
        id: WatchId,
        /// Watched keys and options.
        watch: Watch,
    },
    /// Ends a watch. No further news follow.
    Unwatch(WatchId),
}

/// Event of the registry for its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEvent {
    /// Outcome of a request.
    Reply {
        /// Identifier of the request.
        id: CallId,
        /// The response, or the failure.
        outcome: Result<Response, Failure>,
    },
    /// News of a watch.
    Watched(Watched),
    /// There is a new connection to the registry. Earlier requests may still be answered.
    Connected {
        /// Identifier of the registry's cluster. A change means that the registry is another one.
        cluster: u64,
    },
}

/// Reason of a missing response. The three reasons differ in the possible effects of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The registry refused the request: it was not executed, and will not be.
    Refused(Error),
    /// The request never reached a registry that could execute it: it was not executed.
    Unavailable,
    /// The request was sent and no answer arrived: it may have been executed, or may be later.
    Unknown,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => write!(f, "the registry refuses: {error}"),
            Self::Unavailable => f.write_str("the registry cannot be reached"),
            Self::Unknown => f.write_str("the registry did not answer in time; what came of it is unknown"),
        }
    }
}

impl core::error::Error for Failure {}
