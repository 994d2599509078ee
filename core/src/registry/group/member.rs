//! Members of groups: requests, with the properties that decide about their groups.

use alloc::vec::Vec;

use super::access_set::{Access, accesses};
use super::bundle::{BundleKind, Need, WIDTH};
use crate::registry::{CallId, Compare, CompareTarget, Delete, Range, RegistryOp, Request, Span, Txn};

/// Maximum number of keys in the answer to a groupable read.
const SMALL_READ: u64 = 16;

/// Cost of a step beside its keys and values, in bytes.
const STEP_BYTES: usize = 32;

/// Request that waits or is in a group.
#[derive(Clone, Debug)]
pub(super) struct GroupMember {
    pub(super) id: CallId,
    pub(super) request: Request,
    pub(super) accesses: Vec<Access>,
    /// Size in bytes, as counted for [`GroupConfig::bytes`](super::GroupConfig::bytes).
    pub(super) bytes: usize,
    /// Maximum number of keys in the answer.
    pub(super) reads: u64,
    pub(super) need: Need,
    /// Maximum number of members of this member's group.
    pub(super) most: usize,
}

impl GroupMember {
    /// Creates a member for groups of at most `most` members.
    pub(super) fn new(id: CallId, request: Request, most: usize) -> Self {
        let need = Need::of(&request);
        Self {
            id,
            accesses: accesses(&request),
            bytes: bytes_of(&request),
            reads: reads_of(&request),
            most: if is_groupable(&request) && need.depth < WIDTH { most } else { 1 },
            need,
            request,
        }
    }

    /// Makes the member a nested transaction of its own from now on.
    pub(super) const fn unshare(&mut self) {
        self.need.kind = BundleKind::Nested;
    }

    /// Returns true if the request changes nothing, so that it can be sent again after any failure.
    pub(super) const fn is_read(&self) -> bool {
        matches!(self.request, Request::Range(_) | Request::TimeToLive { .. })
    }
}

/// Returns true if a request may be a step of a transaction with others.
pub(super) fn is_groupable(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::Delete(_) => true,
        // A transaction without effect, which only checks for refusals, gets other answers as a step: etcd
        // checks neither space nor rights in nested transactions.
        Request::Txn(txn) => !txn.compares.is_empty() || txn.failure.is_empty(),
        Request::Range(range) => range.revision == 0 && reads_of_range(range) <= SMALL_READ,
        _ => false,
    }
}

/// Returns the maximum number of keys in the answer to a request.
fn reads_of(request: &Request) -> u64 {
    match request {
        Request::Range(range) => reads_of_range(range),
        Request::Delete(delete) => reads_of_delete(delete),
        Request::Txn(txn) => reads_of_txn(txn),
        Request::Put(put) => u64::from(put.prev),
        _ => 0,
    }
}

fn reads_of_txn(txn: &Txn) -> u64 {
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        RegistryOp::Range(range) => reads_of_range(range),
        RegistryOp::Delete(delete) => reads_of_delete(delete),
        RegistryOp::Txn(txn) => reads_of_txn(txn),
        RegistryOp::Put(put) => u64::from(put.prev),
    });
    ops.fold(0, u64::saturating_add)
}

const fn reads_of_delete(delete: &Delete) -> u64 {
    match delete.prev {
        false => 0,
        true if delete.span.end.is_empty() => 1,
        true => u64::MAX,
    }
}

const fn reads_of_range(range: &Range) -> u64 {
    match range.limit {
        _ if range.span.end.is_empty() => 1,
        0 => u64::MAX,
        limit => limit,
    }
}

fn bytes_of(request: &Request) -> usize {
    STEP_BYTES
        + match request {
            Request::Range(range) => bytes_of_span(&range.span),
            Request::Put(put) => put.key.len() + put.value.len(),
            Request::Delete(delete) => bytes_of_span(&delete.span),
            Request::Txn(txn) => bytes_of_txn(txn),
            _ => 0,
        }
}

fn bytes_of_txn(txn: &Txn) -> usize {
    let compares: usize = txn.compares.iter().map(bytes_of_compare).sum();
    let ops = txn.success.iter().chain(&txn.failure).map(|op| {
        STEP_BYTES
            + match op {
                RegistryOp::Range(range) => bytes_of_span(&range.span),
                RegistryOp::Put(put) => put.key.len() + put.value.len(),
                RegistryOp::Delete(delete) => bytes_of_span(&delete.span),
                RegistryOp::Txn(txn) => bytes_of_txn(txn),
            }
    });
    compares + ops.sum::<usize>()
}

fn bytes_of_compare(compare: &Compare) -> usize {
    let value = if let CompareTarget::Value(value) = &compare.target { value.len() } else { 0 };
    STEP_BYTES + bytes_of_span(&compare.span) + value
}

const fn bytes_of_span(span: &Span) -> usize {
    span.key.len() + span.end.len()
}
