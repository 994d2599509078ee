//! What is asked of the registry, in the terms of etcd's v3 API.
//!
//! Revisions are counted from 1; 0 stands for "the newest" or "now" where a request has
//! one. They, leases and times to live fit into 63 bits, as etcd's do.

use alloc::vec::Vec;

use bytes::Bytes;

use super::LeaseId;

/// A key, or the keys from one (included) to another (excluded), in the order of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The key, or the first of the span. Not empty.
    pub key: Bytes,
    /// Empty for the one key; a single zero byte for every key from `key` on; else the
    /// first key that is not in the span any more.
    pub end: Bytes,
}

impl Span {
    /// One key.
    #[must_use]
    pub fn one(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::new() }
    }

    /// Every key from this one on.
    #[must_use]
    pub fn from(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), end: Bytes::from_static(&[0]) }
    }

    /// Every key that starts with `prefix`; every key there is if it is empty.
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

    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end.as_ref() {
            [] => key == self.key,
            [0] => key >= self.key.as_ref(),
            end => key >= self.key.as_ref() && key < end,
        }
    }
}

/// Any request but a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads.
    Range(Range),
    /// Writes a key.
    Put(Put),
    /// Deletes keys.
    Delete(Delete),
    /// Compares, then reads and writes, in one revision.
    Txn(Txn),
    /// Forgets what was before a revision; that revision itself can still be read.
    Compact {
        /// Above the last compaction's, and at most the newest.
        revision: u64,
    },
    /// Makes a lease.
    Grant {
        /// Its identifier, chosen by whoever asks, so that asking twice makes one lease.
        id: LeaseId,
        /// Seconds, from 1. The registry may grant more.
        ttl_s: u64,
    },
    /// Ends a lease and deletes its keys, in one revision.
    Revoke(LeaseId),
    /// Starts a lease's time to live anew.
    KeepAlive(LeaseId),
    /// Asks what a lease has left.
    TimeToLive {
        /// The lease.
        id: LeaseId,
        /// Whether to name its keys.
        keys: bool,
    },
}

/// Reads keys, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which.
    pub span: Span,
    /// As of which revision; 0 for the newest.
    pub revision: u64,
    /// At most so many; 0 for all.
    pub limit: u64,
    /// Leaves out the values.
    pub keys_only: bool,
    /// Only counts.
    pub count_only: bool,
}

impl Range {
    /// Everything in a span, as of now.
    #[must_use]
    pub const fn of(span: Span) -> Self {
        Self { span, revision: 0, limit: 0, keys_only: false, count_only: false }
    }
}

/// Writes a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Not empty.
    pub key: Bytes,
    /// Its new value; must be empty with `ignore_value`.
    pub value: Bytes,
    /// The lease that the key dies with, in place of any that it had. Must be `None` with
    /// `ignore_lease`.
    pub lease: Option<LeaseId>,
    /// Whether to answer with what was there.
    pub prev: bool,
    /// Keeps the value. The key must be there.
    pub ignore_value: bool,
    /// Keeps the lease. The key must be there.
    pub ignore_lease: bool,
}

impl Put {
    /// A plain write.
    #[must_use]
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>, lease: Option<LeaseId>) -> Self {
        let (key, value) = (key.into(), value.into());
        Self { key, value, lease, prev: false, ignore_value: false, ignore_lease: false }
    }
}

/// Deletes keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// Which.
    pub span: Span,
    /// Whether to answer with what was there.
    pub prev: bool,
}

impl Delete {
    /// Deletes without asking for what was there.
    #[must_use]
    pub const fn of(span: Span) -> Self {
        Self { span, prev: false }
    }
}

/// A transaction: if all comparisons hold, `success` is done, else `failure`; in order,
/// at once, in one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold. None: they do.
    pub compares: Vec<Compare>,
    /// No key written twice, nested transactions included. At most 128; the longest of the
    /// three lists here counts, and those of a transaction in it may be as long as is left.
    pub success: Vec<RegistryOp>,
    /// As `success`.
    pub failure: Vec<RegistryOp>,
}

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryOp {
    /// Reads; sees what earlier steps wrote.
    Range(Range),
    /// Writes.
    Put(Put),
    /// Deletes.
    Delete(Delete),
    /// A transaction in the transaction.
    Txn(Txn),
}

/// A comparison of every key in a span, before the whole transaction. A span without a key
/// is compared like one key that is not there: version, revisions and lease 0, no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub span: Span,
    /// How they have to relate to `target`.
    pub relation: Relation,
    /// What of them, and to what it is compared.
    pub target: CompareTarget,
}

impl Compare {
    /// The key is not there.
    #[must_use]
    pub fn absent(key: impl Into<Bytes>) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Create(0) }
    }

    /// The key was last written at this revision.
    #[must_use]
    pub fn unchanged(key: impl Into<Bytes>, modified: u64) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Mod(modified) }
    }

    /// The key was last written with this lease.
    #[must_use]
    pub fn leased(key: impl Into<Bytes>, lease: LeaseId) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Lease(Some(lease)) }
    }

    /// The key was made at this revision and not deleted since, whatever was written.
    #[must_use]
    pub fn same_life(key: impl Into<Bytes>, created: u64) -> Self {
        Self { span: Span::one(key), relation: Relation::Equal, target: CompareTarget::Create(created) }
    }
}

/// How what a key has relates to what it is compared to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

/// What of a key is compared, and to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// How often it was written since it was made.
    Version(u64),
    /// The revision that made it.
    Create(u64),
    /// The revision that last wrote it.
    Mod(u64),
    /// Its value. Never holds for a key that is not there.
    Value(Bytes),
    /// Its lease; `None` for a key without one.
    Lease(Option<LeaseId>),
}

/// Asks to be told of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Of which keys.
    pub span: Span,
    /// From which revision on, included; 0 for whatever comes after now.
    pub start: u64,
    /// Whether to tell what was there before a change.
    pub prev: bool,
    /// Whether to be told the revision from time to time when there is nothing to tell.
    pub progress: bool,
    /// Leaves out puts.
    pub no_put: bool,
    /// Leaves out deletions.
    pub no_delete: bool,
}

impl Watch {
    /// Everything that happens in a span from a revision on.
    #[must_use]
    pub const fn of(span: Span, start: u64) -> Self {
        Self { span, start, prev: false, progress: true, no_put: false, no_delete: false }
    }
}
