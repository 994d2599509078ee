//! Converts requests to those of `etcd-client`.

use bytes::Bytes;
use etcd_client as etcd;
use skirmish_core::registry::{
    Compare, CompareTarget, Delete, LeaseId, Put, Range, RegistryOp, Relation, Span, Txn, Watch,
};

/// Converts a number to etcd's signed ones. The registry's numbers fit by their definition; a
/// number that does not fit is too large for etcd as well.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn lease(lease: Option<LeaseId>) -> i64 {
    lease.map_or(0, |lease| signed(lease.0))
}

pub(super) fn transaction(txn: &Txn) -> etcd::Txn {
    let mut made = etcd::Txn::new();
    // Each of these methods may be called at most once, and only with a non-empty list.
    if !txn.compares.is_empty() {
        made = made.when(txn.compares.iter().map(compare).collect::<Vec<_>>());
    }
    if !txn.success.is_empty() {
        made = made.and_then(txn.success.iter().map(op).collect::<Vec<_>>());
    }
    if !txn.failure.is_empty() {
        made = made.or_else(txn.failure.iter().map(op).collect::<Vec<_>>());
    }
    made
}

fn op(op: &RegistryOp) -> etcd::TxnOp {
    match op {
        RegistryOp::Range(range) => range_step(range),
        RegistryOp::Put(put) => put_step(put),
        RegistryOp::Delete(delete) => delete_step(delete),
        RegistryOp::Txn(txn) => etcd::TxnOp::txn(transaction(txn)),
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
        CompareTarget::Version(version) => etcd::Compare::version(key, relation, signed(*version)),
        CompareTarget::Create(revision) => etcd::Compare::create_revision(key, relation, signed(*revision)),
        CompareTarget::Mod(revision) => etcd::Compare::mod_revision(key, relation, signed(*revision)),
        CompareTarget::Value(value) => etcd::Compare::value(key, relation, &**value),
        CompareTarget::Lease(id) => etcd::Compare::lease(key, relation, lease(*id)),
    };
    if end.is_empty() { made } else { made.with_range(&**end) }
}

/// Returns the options of a watch with the number `number` on its stream, from revision `start` on.
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

#[cfg(test)]
mod tests {
    use etcd::proto::{PbTxnOpRequest, PbTxnRequest};

    use super::*;

    #[test]
    fn nested_transactions_stay_nested_and_empty_branches_stay_empty() {
        let put = |key: &'static str| RegistryOp::Put(Put::new(key, "", None));
        let inner = Txn {
            compares: vec![Compare::absent("a")],
            success: vec![put("a")],
            failure: vec![RegistryOp::Range(Range::of(Span::one("a")))],
        };
        let outer = Txn { success: vec![RegistryOp::Txn(inner), put("b")], ..Txn::default() };
        let sent = PbTxnRequest::from(transaction(&outer));
        assert_eq!((sent.compare.len(), sent.success.len(), sent.failure.len()), (0, 2, 0));
        let Some(PbTxnOpRequest::RequestTxn(inner)) = &sent.success[0].request else {
            panic!("it is nested: {sent:?}")
        };
        assert_eq!((inner.compare.len(), inner.success.len(), inner.failure.len()), (1, 1, 1));
        assert!(matches!(&sent.success[1].request, Some(PbTxnOpRequest::RequestPut(put)) if put.key == b"b"));
    }
}
