//! Answers of the registry.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

/// Identifier of a lease: 1 to 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// Identifier of a watch, chosen by the watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// A key with its value and metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Value of the key; empty if the request left values out.
    pub value: Bytes,
    /// Revision of the key's creation.
    pub created: u64,
    /// Revision of the key's last write.
    pub modified: u64,
    /// Number of writes since the key's creation, from 1.
    pub version: u64,
    /// Lease that the key is attached to.
    pub lease: Option<LeaseId>,
}

/// Response to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Newest revision after the execution of the request.
    pub revision: u64,
    /// Result of the request.
    pub answer: Answer,
}

impl Response {
    /// Returns true if the request itself wrote or deleted a key. The revision is then the request's own,
    /// above all earlier revisions of the registry. The deletion of keys by the end of a lease does not
    /// count.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.answer.wrote()
    }
}

/// Result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Result of a read.
    Range {
        /// Keys that were read, in byte order.
        kvs: Vec<KeyValue>,
        /// True if the limit left keys out.
        more: bool,
        /// Number of keys in the span, regardless of the limit.
        count: u64,
    },
    /// Result of a write.
    Put {
        /// The key before the write, if requested and present.
        prev: Option<KeyValue>,
    },
    /// Result of a deletion.
    Delete {
        /// Number of deleted keys.
        deleted: u64,
        /// The keys before the deletion, if requested.
        prev: Vec<KeyValue>,
    },
    /// Result of a transaction.
    Txn {
        /// True if all comparisons held.
        succeeded: bool,
        /// Result of each step of the executed branch.
        answers: Vec<Self>,
    },
    /// Result of a compaction.
    Compact,
    /// Result of [`super::Request::Grant`].
    Granted {
        /// Granted time to live, in seconds: at least the requested one.
        ttl_s: u64,
    },
    /// Result of [`super::Request::Revoke`].
    Revoked,
    /// Result of [`super::Request::KeepAlive`].
    KeptAlive {
        /// Time to live from now on, in seconds.
        ttl_s: u64,
    },
    /// Result of [`super::Request::TimeToLive`].
    TimeToLive {
        /// Remaining time, in seconds, rounded down.
        left_s: u64,
        /// Granted time, in seconds.
        granted_s: u64,
        /// Keys of the lease in byte order, if requested.
        keys: Vec<Bytes>,
    },
}

impl Answer {
    fn wrote(&self) -> bool {
        match self {
            Self::Put { .. } => true,
            Self::Delete { deleted, .. } => *deleted > 0,
            Self::Txn { answers, .. } => answers.iter().any(Self::wrote),
            _ => false,
        }
    }
}

/// Reason for which the registry refused a request wholly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A key is empty.
    EmptyKey,
    /// A key is written twice in one transaction.
    DuplicateKey,
    /// A transaction has more than 128 steps or comparisons.
    TooManyOps,
    /// The request is larger than 1.5 MiB.
    TooLarge,
    /// The revision is compacted.
    Compacted,
    /// The revision is in the future.
    FutureRevision,
    /// The lease does not exist, or not any more.
    LeaseNotFound,
    /// The lease exists already.
    LeaseExists,
    /// The time to live is above the limit.
    LeaseTtlTooLarge,
    /// The request has a value with `ignore_value`.
    ValueProvided,
    /// The request has a lease with `ignore_lease`.
    LeaseProvided,
    /// The key is absent, with `ignore_value` or `ignore_lease`.
    KeyNotFound,
    /// The registry has no space left for data, leases or watches.
    NoSpace,
    /// The credentials do not permit the request.
    PermissionDenied,
    /// The data of the registry's members differ. The registry executes nothing until the data are repaired.
    Corrupt,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyKey => "the key is empty",
            Self::DuplicateKey => "a key is written twice in one transaction",
            Self::TooManyOps => "too many operations in one transaction",
            Self::TooLarge => "the request is too large",
            Self::Compacted => "the revision is compacted",
            Self::FutureRevision => "the revision is in the future",
            Self::LeaseNotFound => "there is no such lease",
            Self::LeaseExists => "the lease exists already",
            Self::LeaseTtlTooLarge => "the lease's time to live is too long",
            Self::ValueProvided => "a value came with ignore_value",
            Self::LeaseProvided => "a lease came with ignore_lease",
            Self::KeyNotFound => "the key is not there",
            Self::NoSpace => "the registry has no place left",
            Self::PermissionDenied => "the registry's credentials do not allow it",
            Self::Corrupt => "the registry's data is corrupt",
        })
    }
}

impl core::error::Error for Error {}

/// Report of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Identifier of the watch.
    pub id: WatchId,
    /// Newest revision that the watch has reported completely. A watch that is started again starts after
    /// this revision.
    pub revision: u64,
    /// Content of the report.
    pub news: News,
}

/// Content of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The watch was started.
    Created,
    /// Changes, in the order of revisions. All changes of one revision are in one report.
    Changes(Vec<Change>),
    /// No changes up to the revision.
    Progress,
    /// The watch ended, since its next revision is compacted. The changes in between are lost, and the keys
    /// have to be read again.
    Compacted {
        /// Oldest revision that can still be watched from.
        oldest: u64,
    },
    /// The watch ended on request, or the registry refused it.
    Canceled,
}

/// Change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A write.
    Put {
        /// The key after the write.
        kv: KeyValue,
        /// The key before the write, if requested, present and not compacted.
        prev: Option<KeyValue>,
    },
    /// A deletion, by a request or by the end of a lease.
    Delete {
        /// The deleted key.
        key: Bytes,
        /// Revision of the deletion.
        revision: u64,
        /// The key before the deletion; as for `Put`.
        prev: Option<KeyValue>,
    },
}

impl Change {
    /// Returns the key of the change.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// Returns the revision of the change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        match self {
            Self::Put { kv, .. } => kv.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}
