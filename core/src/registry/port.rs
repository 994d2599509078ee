//! What passes between a node and its registry, whichever that is.

use core::fmt;

use super::{Error, Request, Response, Watch, WatchId, Watched};

/// A request's identifier, chosen by the node, never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a node asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryCommand {
    /// A request; every one is answered, with [`Failure::Unknown`] if nothing else can be said
    /// within the deadline that the driver has for it.
    Request {
        /// Comes back with the answer.
        id: CallId,
        /// What is asked.
        request: Request,
    },
    /// Starts a watch. The driver keeps it alive over reconnections: it is made again from
    /// the revision after the last that was told.
    Watch {
        /// Comes back with the news.
        id: WatchId,
        /// What is watched.
        watch: Watch,
    },
    /// Ends a watch. Nothing is told of it any more.
    Unwatch(WatchId),
}

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryEvent {
    /// The outcome of a request.
    Reply {
        /// Which.
        id: CallId,
        /// What came of it.
        outcome: Result<Response, Failure>,
    },
    /// Of a watch.
    Watched(Watched),
    /// There is a connection, and there was none, or another one. What was asked before may
    /// be answered yet.
    Connected {
        /// The identifier of the registry's cluster. If it is another one than before, so is
        /// the registry.
        cluster: u64,
    },
}

/// Why there is no answer. The three differ in what may have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The registry refused: nothing was done, and nothing will be.
    Refused(Error),
    /// The request never reached a registry that could do it: nothing was done.
    Unavailable,
    /// It was sent and no answer came: it was done, or not, or will be yet.
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
