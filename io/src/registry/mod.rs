//! The registry of a node: in the process, etcd, or another one that the embedder of the server
//! talks to ([`Remote`]).
//!
//! The driver of a node drives the node's registry in the same loop. The driver passes the node's
//! [`RegistryCommand`]s on with [`NodeRegistry::handle`], and gives the node the events of
//! [`NodeRegistry::poll_event`]. The driver sleeps until [`NodeRegistry::poll_timeout`] or
//! [`NodeRegistry::ready`], and calls [`NodeRegistry::handle_timeout`] at the deadline.
//!
//! ```
//! use skirmish_core::registry::{CallId, Put, RegistryCommand, RegistryConfig, RegistryEvent, Request};
//! use skirmish_io::clock::Clock;
//! use skirmish_io::registry::{EmbeddedRegistry, NodeRegistry};
//!
//! let clock = Clock::new();
//! let now = clock.now().instant;
//! let mut registry = NodeRegistry::Embedded(Box::new(EmbeddedRegistry::new(RegistryConfig::default(), now)));
//! let request = Request::Put(Put::new("key", "value", None));
//! registry.handle(now, RegistryCommand::Request { id: CallId(1), request });
//! let event = registry.poll_event();
//! assert!(matches!(event, Some(RegistryEvent::Reply { id: CallId(1), outcome: Ok(_) })));
//! ```

mod embedded;
#[cfg(not(madsim))]
pub mod etcd;
mod prefix;
mod remote;
#[cfg_attr(madsim, allow(dead_code, reason = "etcd is not simulated"))]
mod shared;
mod status;

use skirmish_core::registry::{RegistryCommand, RegistryEvent};
use skirmish_core::time::{Deadline, Instant};

pub use self::embedded::EmbeddedRegistry;
pub use self::remote::{Backend, Remote};
pub use self::status::{RegistryCounters, RegistryRefusal, Status};

/// A node's registry.
#[allow(clippy::large_enum_variant, reason = "a node has one")]
#[derive(Debug)]
pub enum NodeRegistry {
    /// The registry in the process.
    Embedded(Box<EmbeddedRegistry>),
    /// A registry behind another task: etcd, or a registry of the embedder.
    Remote(Remote),
}

impl NodeRegistry {
    /// Passes on a call of the node. Never waits; every request is answered.
    pub fn handle(&mut self, now: Instant, call: RegistryCommand) {
        match self {
            Self::Embedded(embedded) => embedded.handle(now, call),
            Self::Remote(remote) => remote.handle(call),
        }
    }

    /// Returns the next event for the node. Call until `None`.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        match self {
            Self::Embedded(embedded) => embedded.poll_event(),
            Self::Remote(remote) => remote.poll_event(),
        }
    }

    /// Returns the next deadline for [`Self::handle_timeout`], with its reason. A remote registry
    /// has none: it handles its own time.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Self::Embedded(embedded) => embedded.poll_timeout(),
            Self::Remote(_) => None,
        }
    }

    /// Handles deadlines that are due. May be called early.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Embedded(embedded) => embedded.handle_timeout(now),
            Self::Remote(_) => {}
        }
    }

    /// Waits for an event that [`Self::handle_timeout`] does not cause. Cancel-safe.
    pub async fn ready(&mut self) {
        match self {
            Self::Embedded(embedded) if embedded.has_event() => {}
            Self::Embedded(_) => std::future::pending().await,
            Self::Remote(remote) => remote.ready().await,
        }
    }

    /// Returns the state of the connection to the registry.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Embedded(embedded) => embedded.status(),
            Self::Remote(remote) => remote.status(),
        }
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> RegistryCounters {
        match self {
            Self::Embedded(embedded) => embedded.counters(),
            Self::Remote(remote) => remote.counters(),
        }
    }
}
