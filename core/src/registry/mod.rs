//! The registry: etcd's semantics as a machine (design 6).
//!
//! [`Request`], [`Response`] and [`Watch`] are the messages of every registry, etcd or the machine.
//! [`RegistryCommand`] and [`RegistryEvent`] pass between a node and its registry. [`Registry`] is the
//! machine: the embedded registry, the simulated etcd, and the yardstick for real etcds. [`GroupCommit`]
//! groups the requests to a remote registry.
//!
//! # Differences between the machine and etcd
//!
//! etcd 3.4.23, 3.5.1 and 3.5.16 answer alike, and the machine answers as they do, with these exceptions:
//!
//! * Before 3.5.16 a compaction forgets the deletions of its own revision; the machine forgets them if
//!   [`RegistryConfig::forgets_deletions`] is set.
//! * A transaction that deletes without end (`\0`) and puts with `ignore_value` or `ignore_lease` may crash
//!   an etcd; the machine refuses such a transaction with [`Error::DuplicateKey`].
//! * etcd takes up to a second to notice that a lease is over.
//! * A full etcd refuses every write until an operator disarms the alarm; the machine refuses writes only
//!   while space is missing.
//! * etcd knows the size of a request to the byte, the machine within some tens of bytes.
//! * Leases have no negative identifiers, and the registry chooses none.

mod calls;
mod config;
mod embedded;
mod group;
mod lease;
mod limits;
mod machine;
mod protocol;
mod request;
mod response;
mod store;
#[cfg(test)]
mod tests;
mod txn;
mod watch;

pub use calls::CallNumbers;
pub(crate) use calls::{CallOrigin, Calls};
pub use config::RegistryConfig;
pub use embedded::Embedded;
pub use group::{
    Aftermath, Group, GroupCommit, GroupConfig, GroupFailure, GroupId, GroupOutput, MAX_GROUP_MEMBERS,
    MalformedResponse,
};
pub use machine::{Registry, Snapshot};
pub use protocol::{CallId, Failure, RegistryCommand, RegistryEvent};
pub use request::{
    Compare, CompareTarget, Delete, Put, Range, RegistryOp, Relation, Request, Span, Txn, Watch,
};
pub use response::{Answer, Change, Error, KeyValue, LeaseId, News, Response, WatchId, Watched};
