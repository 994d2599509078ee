//! Requests to the registry, in the terms of etcd's v3 API.
//!
//! Revisions are counted from 1; in a request, 0 means "the newest" or "now". Revisions, leases and times to
//! live fit into 63 bits, as in etcd.

use alloc::vec::Vec;

use bytes::Bytes;

use super::LeaseId;

/// One key, or the keys from one (included) to another (excluded), in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The key, or the first key of the span. Must not be empty.
    pub key: Bytes,
    /// Empty for a single key; one zero byte for all keys from `key` on; otherwise the first key after the
    /// span.
    pub end: Bytes,
}

impl Span {
    /// Returns the span of one key.
    #[must_use]
    pub fn one(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::new() }
    }

    /// Returns the span of all keys from this one on.
    #[must_use]
    pub fn from(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::from_static(&[0]) }
    }

    /// Returns the span of all keys that start with `prefix`; all keys if the prefix is empty.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let key: Bytes = prefix.into();
        if key.is_empty() {
            return Self::from(Bytes::from_static(&[0]));
        }
        let mut end = key.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { key, end: end.into() };
            }
        }
        Self::from(key)
    }

    /// Returns true if the span contains the key.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end.as_ref() {
            [] => key == self.key,
            [0] => key >= self.key.as_ref(),
            end => key >= self.key.as_ref() && key < end,
        }
    }
}

/// Request of any kind except a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads keys.
    Range(Range),
    /// Writes a key.
    Put(Put),
    /// Deletes keys.
    Delete(Delete),
    /// Compares, then reads and writes, all in one revision.
    Txn(Txn),
    /// Forgets the history before a revision. The revision itself stays readable.
    Compact {
        /// Above the last compaction, and at most the newest revision.
        revision: u64,
    },
    /// Grants a lease.
    Grant {
        /// Identifier, chosen by the requester, so that a repeated request grants one lease.
        id: LeaseId,
        /// Time to live in seconds, from 1. The registry may grant more.
        ttl_s: u64,
    },
    /// Ends a lease and deletes its keys, in one revision.
    Revoke(LeaseId),
    /// Restarts a lease's time to live.
    KeepAlive(LeaseId),
    /// Asks for the remaining time of a lease.
    TimeToLive {
        /// The lease.
        id: LeaseId,
        /// True if the answer lists the lease's keys.
        keys: bool,
    },
}

/// Reads keys, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Keys to read.
    pub span: Span,
    /// Revision to read at; 0 for the newest.
    pub revision: u64,
    /// Maximum number of keys in the answer; 0 for all.
    pub limit: u64,
    /// True if the answer leaves out the values.
    pub keys_only: bool,
    /// True if the answer has only the number of keys.
    pub count_only: bool,
}

impl Range {
    /// Returns a read of all keys of a span, at the newest revision.
    #[must_use]
    pub const fn of(span: Span) -> Self {
        Self { span, revision: 0, limit: 0, keys_only: false, count_only: false }
    }
}

/// Writes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key. Must not be empty.
    pub key: Bytes,
    /// New value. Must be empty with `ignore_value`.
    pub value: Bytes,
    /// Lease that the key is attached to, instead of any earlier one. Must be `None` with `ignore_lease`.
    pub lease: Option<LeaseId>,
    /// True if the answer has the former key and value.
    pub prev: bool,
    /// Keeps the value. The key must exist.
    pub ignore_value: bool,
    /// Keeps the lease. The key must exist.
    pub ignore_lease: bool,
}

impl Put {
    /// Returns a plain write.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: Option<LeaseId>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self { key, value, lease, prev: false, ignore_value: false, ignore_lease: false }
    }
}

/// Deletes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Keys to delete.
    pub span: Span,
    /// True if the answer has the former keys and values.
    pub prev: bool,
}

impl Delete {
    /// Returns a deletion without former values in the answer.
    #[must_use]
    pub const fn of(span: Span) -> Self {
        Self { span, prev: false }
    }
}

/// A transaction: executes `success` if all comparisons hold, otherwise `failure`. The steps are executed in
/// order, atomically, in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Comparisons, which all must hold. An empty list holds.
    pub compares: Vec<Compare>,
    /// Steps if the comparisons hold. No key may be written twice, nested transactions included. The longest
    /// of the three lists counts against the limit of 128 entries; the lists of a nested transaction may use
    /// the rest.
    pub success: Vec<RegistryOp>,
    /// Steps if a comparison does not hold; limited like `success`.
    pub failure: Vec<RegistryOp>,
}

/// Step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryOp {
    /// Reads; includes the writes of earlier steps.
    Range(Range),
    /// Writes a key.
    Put(Put),
    /// Deletes keys.
    Delete(Delete),
    /// Executes a nested transaction.
    Txn(Txn),
}

/// Comparison of every key in a span, before the whole transaction. A span without keys is compared like one
/// absent key: version, revisions and lease 0, no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Compared keys.
    pub span: Span,
    /// Required relation of each key's property to the target.
    pub relation: Relation,
    /// Compared property, and its reference value.
    pub target: CompareTarget,
}

impl Compare {
    /// Returns a comparison that holds if the key is absent.
    #[must_use]
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Create(0) }
    }

    /// Returns a comparison that holds if the key was last written at this revision.
    #[must_use]
    pub fn unchanged(key: impl Into<Bytes>, modified: u64) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Mod(modified) }
    }

    /// Returns a comparison that holds if the key is attached to this lease.
    #[must_use]
    pub fn leased(key: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Lease(Some(lease)) }
    }

    /// Returns a comparison that holds if the key was created at this revision and not deleted since, with or
    /// without later writes.
    #[must_use]
    pub fn same_life(key: impl Into<Bytes>, created: u64) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Create(created) }
    }
}

/// Relation of a key's property to a reference value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// The key's property is greater.
    Greater,
    /// The key's property is less.
    Less,
}

/// Property of a key, with the reference value for a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// Number of writes since the key's creation.
    Version(u64),
    /// Revision of the key's creation.
    Create(u64),
    /// Revision of the key's last write.
    Mod(u64),
    /// Value of the key. Never holds for an absent key.
    Value(Bytes),
    /// Lease of the key; `None` for a key without a lease.
    Lease(Option<LeaseId>),
}

/// Subscription to changes of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Watched keys.
    pub span: Span,
    /// First revision to report; 0 for all revisions after the present one.
    pub start: u64,
    /// True if the news include the value before each change.
    pub prev: bool,
    /// True if a watch without news regularly reports the revision.
    pub progress: bool,
    /// Leaves out puts.
    pub no_put: bool,
    /// Leaves out deletions.
    pub no_delete: bool,
}

impl Watch {
    /// Returns a watch of all changes in a span from a revision on.
    #[must_use]
    pub const fn of(span: Span, start: u64) -> Self {
        Self { span, start, prev: false, progress: true, no_put: false, no_delete: false }
    }
}
