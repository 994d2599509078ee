//! Limits of the form of a request: all refusals that need no store.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Compare, Delete, Error, Put, Range, RegistryConfig, RegistryOp, Request, Span, Txn};

/// Bytes that a step or comparison counts beside its keys and values.
const OP_BYTES: usize = 8;

/// Checks a request, in etcd's order of checks.
pub(super) fn check(config: &RegistryConfig, request: &Request) -> Result<(), Error> {
    let bytes = match request {
        Request::Range(range) => return check_range(range),
        Request::Put(put) => {
            check_put(put)?;
            put_bytes(put)
        }
        Request::Delete(delete) => {
            check_delete(delete)?;
            span_bytes(&delete.span)
        }
        Request::Txn(txn) => {
            check_txn(txn, config.ops)?;
            writes(&txn.success)?;
            writes(&txn.failure)?;
            if is_read_only(txn) {
                return Ok(());
            }
            txn_bytes(txn)
        }
        Request::Compact { .. }
        | Request::Grant { .. }
        | Request::Revoke(_)
        | Request::KeepAlive(_)
        | Request::TimeToLive { .. } => return Ok(()),
    };
    if bytes > config.request_bytes { Err(Error::TooLarge) } else { Ok(()) }
}

/// Returns true if etcd refuses the request when its quota is used up. etcd counts the puts of both branches
/// of a transaction, but not those of nested transactions.
pub(super) fn takes_space(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::Grant { .. } => true,
        Request::Txn(txn) => {
            txn.success.iter().chain(&txn.failure).any(|op| matches!(op, RegistryOp::Put(_)))
        }
        Request::Range(_)
        | Request::Delete(_)
        | Request::Compact { .. }
        | Request::Revoke(_)
        | Request::KeepAlive(_)
        | Request::TimeToLive { .. } => false,
    }
}

const fn check_span(span: &Span) -> Result<(), Error> {
    if span.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

const fn check_range(range: &Range) -> Result<(), Error> {
    check_span(&range.span)
}

const fn check_delete(delete: &Delete) -> Result<(), Error> {
    check_span(&delete.span)
}

fn check_put(put: &Put) -> Result<(), Error> {
    if put.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if put.ignore_lease && put.lease.is_some_and(|lease| lease.0 != 0) {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

/// Checks the number of steps and comparisons of a transaction, and each of them. The number is the length of
/// the longest list; nested transactions may have as many as are left. So no recursion over a transaction,
/// here or later, is deeper than the cap.
fn check_txn(txn: &Txn, ops: usize) -> Result<(), Error> {
    let longest = txn.compares.len().max(txn.success.len()).max(txn.failure.len());
    let Some(left) = ops.checked_sub(longest) else { return Err(Error::TooManyOps) };
    txn.compares.iter().try_for_each(|compare| check_span(&compare.span))?;
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match op {
        RegistryOp::Range(range) => check_range(range),
        RegistryOp::Put(put) => check_put(put),
        RegistryOp::Delete(delete) => check_delete(delete),
        RegistryOp::Txn(txn) => check_txn(txn, left),
    })
}

/// Writes of the steps of one branch.
#[derive(Default)]
struct Writes<'a> {
    /// Written keys; true if the key's value or lease is kept.
    puts: BTreeMap<&'a [u8], bool>,
    deletes: Vec<&'a Span>,
}

/// Collects the written keys and spans, and refuses keys that are written twice.
///
/// The branches of a transaction exclude each other and may write the same keys. As in etcd, two cases pass
/// that could be refused: a key that a nested transaction writes and a later one deletes, and a key within a
/// deletion without end (`\0`). In the second case, a put with `ignore_value` or `ignore_lease` may find no
/// key to keep, which crashes etcd; here it is a duplicate key.
fn writes(ops: &[RegistryOp]) -> Result<Writes<'_>, Error> {
    let mut all = Writes::default();
    all.deletes.extend(
        ops.iter()
            .filter_map(|op| if let RegistryOp::Delete(delete) = op { Some(&delete.span) } else { None }),
    );
    for op in ops {
        let RegistryOp::Txn(txn) = op else { continue };
        let (success, failure) = (writes(&txn.success)?, writes(&txn.failure)?);
        for (key, keeps) in &success.puts {
            all.put(key, *keeps)?;
        }
        for (key, keeps) in &failure.puts {
            if success.puts.contains_key(key) {
                all.refuse_deleted(key, *keeps)?;
            } else {
                all.put(key, *keeps)?;
            }
        }
        all.deletes.extend(success.deletes);
        all.deletes.extend(failure.deletes);
    }
    for op in ops {
        if let RegistryOp::Put(put) = op {
            all.put(&put.key, put.ignore_value || put.ignore_lease)?;
        }
    }
    Ok(all)
}

impl<'a> Writes<'a> {
    fn put(&mut self, key: &'a [u8], keeps: bool) -> Result<(), Error> {
        self.refuse_deleted(key, keeps)?;
        if self.puts.insert(key, keeps).is_some() {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }

    fn refuse_deleted(&self, key: &[u8], keeps: bool) -> Result<(), Error> {
        let clashes = |span: &&Span| span.contains(key) && (keeps || span.end.as_ref() != [0]);
        if self.deletes.iter().any(clashes) { Err(Error::DuplicateKey) } else { Ok(()) }
    }
}

/// Returns true if a transaction only reads. Such a transaction needs no agreement of the members, so its
/// size has no limit.
fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| matches!(op, RegistryOp::Range(_)))
}

const fn span_bytes(span: &Span) -> usize {
    OP_BYTES + span.key.len() + span.end.len()
}

const fn put_bytes(put: &Put) -> usize {
    OP_BYTES + put.key.len() + put.value.len()
}

fn compare_bytes(compare: &Compare) -> usize {
    let value = if let super::CompareTarget::Value(value) = &compare.target { value.len() } else { 0 };
    span_bytes(&compare.span) + value
}

fn txn_bytes(txn: &Txn) -> usize {
    let compares = txn.compares.iter().map(compare_bytes).sum::<usize>();
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        RegistryOp::Range(range) => span_bytes(&range.span),
        RegistryOp::Put(put) => put_bytes(put),
        RegistryOp::Delete(delete) => span_bytes(&delete.span),
        RegistryOp::Txn(txn) => txn_bytes(txn),
    });
    OP_BYTES + compares + ops.sum::<usize>()
}
