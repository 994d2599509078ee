//! The registry that a node asks: in the process, etcd, or another one that the embedder
//! of the server talks to ([`Remote`]).
//!
//! Whoever drives a node drives its registry in the same loop: it passes on the node's
//! [`RegistryCommand`]s with [`NodeRegistry::handle`], and what comes of them by [`NodeRegistry::poll_told`].
//! It sleeps until [`NodeRegistry::poll_timeout`] or until [`NodeRegistry::ready`], and calls
//! [`NodeRegistry::handle_timeout`] when the time has come.
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
//! let told = registry.poll_told();
//! assert!(matches!(told, Some(RegistryEvent::Reply { id: CallId(1), outcome: Ok(_) })));
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
    /// In the process.
    Embedded(Box<EmbeddedRegistry>),
    /// Behind another task: etcd, or whatever the embedder has.
    Remote(Remote),
}

impl NodeRegistry {
    /// Takes a call of the node's. Never waits; every request is answered.
    pub fn handle(&mut self, now: Instant, call: RegistryCommand) {
        match self {
            Self::Embedded(embedded) => embedded.handle(now, call),
            Self::Remote(remote) => remote.handle(call),
        }
    }

    /// What there is to tell the node; to be asked until there is nothing.
    #[must_use]
    pub fn poll_told(&mut self) -> Option<RegistryEvent> {
        match self {
            Self::Embedded(embedded) => embedded.poll_told(),
            Self::Remote(remote) => remote.poll_told(),
        }
    }

    /// When [`Self::handle_timeout`] is to be called, and why. The clock of a
    /// remote one is its own.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self {
            Self::Embedded(embedded) => embedded.poll_timeout(),
            Self::Remote(_) => None,
        }
    }

    /// A deadline has come, or may have.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Embedded(embedded) => embedded.handle_timeout(now),
            Self::Remote(_) => {}
        }
    }

    /// Waits for something to tell that does not come by [`Self::handle_timeout`]. Can be
    /// dropped at any time.
    pub async fn ready(&mut self) {
        match self {
            Self::Embedded(embedded) if embedded.has_told() => {}
            Self::Embedded(_) => std::future::pending().await,
            Self::Remote(remote) => remote.ready().await,
        }
    }

    /// Whether it can be reached.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Embedded(embedded) => embedded.status(),
            Self::Remote(remote) => remote.status(),
        }
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> RegistryCounters {
        match self {
            Self::Embedded(embedded) => embedded.counters(),
            Self::Remote(remote) => remote.counters(),
        }
    }
}
