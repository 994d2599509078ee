//! Tests of group commit.

mod bundle;
mod machine;
mod queue;
mod transaction;

use alloc::{borrow::ToOwned as _, vec};

use crate::base::time::Duration;
use crate::registry::{Compare, GroupConfig, LeaseId, Put, Range, RegistryOp, Span, Txn};

const CONFIG: GroupConfig = GroupConfig {
    waiting: 1000,
    members: 128,
    bytes: 1 << 16,
    in_flight: 1,
    patience: Duration::from_secs(2),
};

fn put(key: &str) -> RegistryOp {
    RegistryOp::Put(Put::new(key.to_owned(), "value", Some(LeaseId(1))))
}

fn read(key: &str) -> RegistryOp {
    RegistryOp::Range(Range::of(Span::one(key.to_owned())))
}

/// Returns a transaction that writes a key if the key is absent.
fn claim(key: &str) -> Txn {
    Txn { compares: vec![Compare::absent(key.to_owned())], success: vec![put(key)], failure: vec![read(key)] }
}
