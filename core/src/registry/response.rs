//! What the registry answers.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

/// A lease's identifier: 1 to 2^63 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A watch's identifier, chosen by whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub u64);

/// A key and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value; empty if the request left values out.
    pub value: Bytes,
    /// The revision that made it.
    pub created: u64,
    /// The revision that last wrote it.
    pub modified: u64,
    /// How often it was written since it was made, from 1.
    pub version: u64,
    /// The lease that it dies with.
    pub lease: Option<LeaseId>,
}

/// A request's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The newest revision when the request was done.
    pub revision: u64,
    /// What it came to.
    pub answer: Answer,
}

impl Response {
    /// Returns true if a key was written or deleted. The revision is then that of this request,
    /// above all that the registry had before; leases aside, whose end deletes keys unsaid.
    #[must_use]
    pub fn wrote(&self) -> bool {
        self.answer.wrote()
    }
}

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a read.
    Range {
        /// What was asked for, in the order of keys.
        kvs: Vec<KeyValue>,
        /// Whether the limit left some out.
        more: bool,
        /// How many there are, whatever the limit.
        count: u64,
    },
    /// Of a write.
    Put {
        /// What was there, if that was asked for.
        prev: Option<KeyValue>,
    },
    /// Of a deletion.
    Delete {
        /// How many.
        deleted: u64,
        /// What was there, if that was asked for.
        prev: Vec<KeyValue>,
    },
    /// Of a transaction.
    Txn {
        /// Whether all comparisons held.
        succeeded: bool,
        /// What each step of the branch that was done came to.
        answers: Vec<Self>,
    },
    /// Of a compaction.
    Compact,
    /// Of [`super::Request::Grant`].
    Granted {
        /// The time to live granted, in seconds: at least what was asked for.
        ttl_s: u64,
    },
    /// Of [`super::Request::Revoke`].
    Revoked,
    /// Of [`super::Request::KeepAlive`].
    KeptAlive {
        /// The time to live from now on, in seconds.
        ttl_s: u64,
    },
    /// Of [`super::Request::TimeToLive`].
    TimeToLive {
        /// What is left, in seconds, rounded down.
        left_s: u64,
        /// What was granted, in seconds.
        granted_s: u64,
        /// Its keys in order, if they were asked for.
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

/// Why the registry did nothing of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A key is empty.
    EmptyKey,
    /// A key is written twice in one transaction.
    DuplicateKey,
    /// More than 128 steps or comparisons in a transaction.
    TooManyOps,
    /// More than 1.5 MiB.
    TooLarge,
    /// The revision is compacted.
    Compacted,
    /// The revision is not there yet.
    FutureRevision,
    /// There is no such lease, or not any more.
    LeaseNotFound,
    /// There is such a lease already.
    LeaseExists,
    /// The time to live is longer than leases may have.
    LeaseTtlTooLarge,
    /// A value came with `ignore_value`.
    ValueProvided,
    /// A lease came with `ignore_lease`.
    LeaseProvided,
    /// With `ignore_value` or `ignore_lease`: the key is not there.
    KeyNotFound,
    /// The registry has no place left, be it for data, leases or watches.
    NoSpace,
    /// The credentials do not allow it.
    PermissionDenied,
    /// The data of the registry's members differ: it does nothing until that is repaired.
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

/// What a watch is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Which watch.
    pub id: WatchId,
    /// Everything up to this revision was told. A watch that has to be made again starts
    /// from the one after it.
    pub revision: u64,
    /// What there is to tell.
    pub news: News,
}

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The watch runs.
    Created,
    /// Changes, in the order of revisions; those of one revision always together.
    Changes(Vec<Change>),
    /// Nothing, up to the revision.
    Progress,
    /// The watch ended, since its start is compacted: what was between is lost to it, and
    /// the keys are to be read afresh.
    Compacted {
        /// The oldest revision that can still be watched from.
        oldest: u64,
    },
    /// The watch ended as it was asked to, or the registry refuses it.
    Canceled,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put {
        /// As it is since.
        kv: KeyValue,
        /// As it was before, if that was asked for, it was there and is not compacted.
        prev: Option<KeyValue>,
    },
    /// It was deleted, by whomever, or its lease ended.
    Delete {
        /// The key.
        key: Bytes,
        /// The revision that deleted it.
        revision: u64,
        /// As for `Put`.
        prev: Option<KeyValue>,
    },
}

impl Change {
    /// The key that changed.
    #[must_use]
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { kv, .. } => &kv.key,
            Self::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        match self {
            Self::Put { kv, .. } => kv.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }
}
