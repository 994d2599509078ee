//! The registry: etcd's semantics as a machine (design 6).
//!
//! [`Request`], [`Response`] and the watches of [`Watch`] are what any registry speaks,
//! etcd or the machine; [`RegistryCommand`] and [`RegistryEvent`] are what a node says to its registry and
//! hears from it. [`Registry`] is the machine: the embedded registry, the simulated etcd,
//! and what the real one is compared to. [`GroupCommit`] groups the requests to a remote one.
//!
//! # Where the machine and etcd differ
//!
//! etcd 3.4.23, 3.5.1 and 3.5.16 answer alike, and the machine as they do, but:
//!
//! * Before 3.5.16 a compaction forgets the deletions of its own revision; the machine does
//!   where [`RegistryConfig::forgets_deletions`] says so.
//! * A transaction that deletes without end (`\0`) and puts with `ignore_value` or
//!   `ignore_lease` may be the end of an etcd; the machine refuses it as
//!   [`Error::DuplicateKey`].
//! * etcd takes up to a second to notice that a lease is over.
//! * etcd that is full refuses every write until an operator says that there is place
//!   again; the machine, as long as there is none.
//! * The size of a request is known to etcd to the byte, to the machine within some tens.
//! * Leases have no negative identifiers and none that the registry chooses.

mod calls;
mod config;
mod embedded;
mod group;
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

pub(crate) use calls::Calls;
pub use config::RegistryConfig;
pub use embedded::Embedded;
pub use group::{
    Aftermath, Group, GroupCommit, GroupConfig, GroupFailure, GroupId, GroupOutput, MAX_GROUP_MEMBERS,
    MalformedResponse,
};
pub use machine::{Registry, Snapshot};
pub use port::{CallId, Failure, RegistryCommand, RegistryEvent};
pub use request::{
    Compare, CompareTarget, Delete, Put, Range, RegistryOp, Relation, Request, Span, Txn, Watch,
};
pub use response::{Answer, Change, Error, KeyValue, LeaseId, News, Response, WatchId, Watched};
