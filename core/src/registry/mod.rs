//! The registry: etcd's semantics as a machine (design 6).
//!
//! [`Request`], [`Response`] and the watches of [`Watch`] are what any registry speaks,
//! etcd or the machine; [`Call`] and [`Told`] are what a node says to its registry and
//! hears from it. [`Registry`] is the machine: the embedded registry, the simulated etcd,
//! and what the real one is compared to.
//!
//! # Where versions of etcd differ
//!
//! * A compaction forgets the deletions of its own revision before 3.5.16
//!   ([`RegistryConfig::forgets_deletions`]).

mod config;
mod lease;
mod limits;
mod machine;
mod port;
mod request;
mod response;
mod store;
#[cfg(test)]
mod tests;
mod txn;
mod watch;

pub use config::RegistryConfig;
pub use machine::Registry;
pub use port::{Call, CallId, Failure, Told};
pub use request::{Compare, Delete, Op, Put, Range, Relation, Request, Span, Target, Txn, Watch};
pub use response::{Answer, Change, Error, KeyValue, LeaseId, News, Response, WatchId, Watched};
