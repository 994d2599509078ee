//! The registry: etcd's semantics as a machine (design 6).
//!
//! [`Request`], [`Response`] and the watches of [`Watch`] are what any registry speaks,
//! etcd or the machine; [`Call`] and [`Told`] are what a node says to its registry and
//! hears from it.

mod port;
mod request;
mod response;

pub use port::{Call, CallId, Failure, Told};
pub use request::{Compare, Delete, Op, Put, Range, Relation, Request, Span, Target, Txn, Watch};
pub use response::{Answer, Change, Error, KeyValue, LeaseId, News, Response, WatchId, Watched};
