//! Requests as `etcd-client` takes them.

use bytes::Bytes;
use etcd_client as etcd;
use skirmish_core::registry::{
    Compare, Delete, LeaseId, Op, Put, Range, Relation, Request, Span, Target, Txn, Watch,
};

use super::bundle::{Bundle, Way};

/// etcd's numbers are signed; the registry's fit by their definition, and what does not is
/// too large for etcd as well.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn lease(lease: Option<LeaseId>) -> i64 {
    lease.map_or(0, |lease| signed(lease.0))
}

/// The transaction of a group.
pub(super) fn bundles(members: &[&Request], bundles: &[Bundle]) -> etcd::Txn {
    match bundles {
        [only] => bundle(members, only),
        bundles => {
            let steps = bundles.iter().map(|one| etcd::TxnOp::txn(bundle(members, one)));
            etcd::Txn::new().and_then(steps.collect::<Vec<_>>())
        }
    }
}

fn bundle(members: &[&Request], bundle: &Bundle) -> etcd::Txn {
    let (mut compares, mut steps) = (Vec::new(), Vec::new());
    for request in bundle.members.iter().filter_map(|&at| members.get(at)) {
        match request {
            Request::Txn(txn) if bundle.way == Way::Apart => steps.push(etcd::TxnOp::txn(transaction(txn))),
            Request::Txn(txn) => {
                compares.extend(txn.compares.iter().map(compare));
                steps.extend(txn.success.iter().map(op));
            }
            Request::Range(range) => steps.push(range_step(range)),
            Request::Put(put) => steps.push(put_step(put)),
            Request::Delete(delete) => steps.push(delete_step(delete)),
            // They are no steps and go alone.
            _ => {}
        }
    }
    made_of(compares, steps, Vec::new())
}

pub(super) fn transaction(txn: &Txn) -> etcd::Txn {
    made_of(
        txn.compares.iter().map(compare).collect(),
        txn.success.iter().map(op).collect(),
        txn.failure.iter().map(op).collect(),
    )
}

fn made_of(compares: Vec<etcd::Compare>, success: Vec<etcd::TxnOp>, failure: Vec<etcd::TxnOp>) -> etcd::Txn {
    let mut made = etcd::Txn::new();
    // Each of these may be called once, and not at all for what is empty.
    if !compares.is_empty() {
        made = made.when(compares);
    }
    if !success.is_empty() {
        made = made.and_then(success);
    }
    if !failure.is_empty() {
        made = made.or_else(failure);
    }
    made
}

fn op(op: &Op) -> etcd::TxnOp {
    match op {
        Op::Range(range) => range_step(range),
        Op::Put(put) => put_step(put),
        Op::Delete(delete) => delete_step(delete),
        Op::Txn(txn) => etcd::TxnOp::txn(transaction(txn)),
    }
}

fn range_step(range: &Range) -> etcd::TxnOp {
    etcd::TxnOp::get(&*range.span.key, Some(range_options(range)))
}

fn put_step(put: &Put) -> etcd::TxnOp {
    etcd::TxnOp::put(&*put.key, &*put.value, Some(put_options(put)))
}

fn delete_step(delete: &Delete) -> etcd::TxnOp {
    etcd::TxnOp::delete(&*delete.span.key, Some(delete_options(delete)))
}

pub(super) fn range_options(range: &Range) -> etcd::GetOptions {
    let mut options = etcd::GetOptions::new()
        .with_range(&*range.span.end)
        .with_revision(signed(range.revision))
        .with_limit(signed(range.limit));
    if range.keys_only {
        options = options.with_keys_only();
    }
    if range.count_only {
        options = options.with_count_only();
    }
    options
}

pub(super) fn put_options(put: &Put) -> etcd::PutOptions {
    let mut options = etcd::PutOptions::new().with_lease(lease(put.lease));
    if put.prev {
        options = options.with_prev_key();
    }
    if put.ignore_value {
        options = options.with_ignore_value();
    }
    if put.ignore_lease {
        options = options.with_ignore_lease();
    }
    options
}

pub(super) fn delete_options(delete: &Delete) -> etcd::DeleteOptions {
    let options = etcd::DeleteOptions::new().with_range(&*delete.span.end);
    if delete.prev { options.with_prev_key() } else { options }
}

fn compare(compare: &Compare) -> etcd::Compare {
    let Compare { span: Span { key, end }, relation, target } = compare;
    let key: &[u8] = key;
    let relation = match relation {
        Relation::Equal => etcd::CompareOp::Equal,
        Relation::NotEqual => etcd::CompareOp::NotEqual,
        Relation::Greater => etcd::CompareOp::Greater,
        Relation::Less => etcd::CompareOp::Less,
    };
    let made = match target {
        Target::Version(version) => etcd::Compare::version(key, relation, signed(*version)),
        Target::Create(revision) => etcd::Compare::create_revision(key, relation, signed(*revision)),
        Target::Mod(revision) => etcd::Compare::mod_revision(key, relation, signed(*revision)),
        Target::Value(value) => etcd::Compare::value(key, relation, &**value),
        Target::Lease(id) => etcd::Compare::lease(key, relation, lease(*id)),
    };
    if end.is_empty() { made } else { made.with_range(&**end) }
}

/// The options of a watch that goes by `number` on its stream, from revision `start` on.
pub(super) fn watch_options(watch: &Watch, number: i64, start: u64) -> (Bytes, etcd::WatchOptions) {
    let mut options = etcd::WatchOptions::new()
        .with_range(&*watch.span.end)
        .with_start_revision(signed(start))
        .with_watch_id(number)
        .with_fragment();
    if watch.prev {
        options = options.with_prev_key();
    }
    if watch.progress {
        options = options.with_progress_notify();
    }
    let filters =
        [(watch.no_put, etcd::WatchFilterType::NoPut), (watch.no_delete, etcd::WatchFilterType::NoDelete)];
    let filters = filters.into_iter().filter_map(|(set, filter)| set.then_some(filter));
    options = options.with_filters(filters.collect::<Vec<_>>());
    (watch.span.key.clone(), options)
}
