//! Generated sequences with many conflicts: few keys, few leases, close revisions.

use bytes::Bytes;
use proptest::collection::vec as many;
use proptest::prelude::*;
use skirmish_core::registry::{
    Compare, CompareTarget, Delete, LeaseId, Put, Range, RegistryOp, Relation, Request, Span, Txn, Watch,
};

/// Step of a sequence. Its revisions are relative, see [`Revisions`].
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Ask(Request),
    Watch(Watch),
    /// Ends the watch with this index, modulo the number of watches.
    Unwatch(usize),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => request().prop_map(Step::Ask),
        4 => watch().prop_map(Step::Watch),
        1 => any::<usize>().prop_map(Step::Unwatch),
    ]
}

/// References for the relative revisions of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revisions {
    /// Revision at the start of the sequence.
    pub(crate) base: u64,
    pub(crate) compacted: u64,
    pub(crate) newest: u64,
}

/// Makes relative revisions absolute.
pub(crate) fn rebase(step: &mut Step, revisions: Revisions) {
    match step {
        Step::Ask(Request::Range(range)) => revisions.rebase(&mut range.revision),
        Step::Ask(Request::Compact { revision }) => revisions.rebase(revision),
        Step::Ask(Request::Txn(txn)) => rebase_txn(txn, revisions),
        Step::Watch(watch) => revisions.rebase(&mut watch.start),
        Step::Ask(_) | Step::Unwatch(_) => {}
    }
}

fn rebase_txn(txn: &mut Txn, revisions: Revisions) {
    for compare in &mut txn.compares {
        if let CompareTarget::Create(revision) | CompareTarget::Mod(revision) = &mut compare.target {
            revisions.rebase(revision);
        }
    }
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match op {
            RegistryOp::Range(range) => revisions.rebase(&mut range.revision),
            RegistryOp::Txn(txn) => rebase_txn(txn, revisions),
            RegistryOp::Put(_) | RegistryOp::Delete(_) => {}
        }
    }
}

impl Revisions {
    /// 0 stays; the next numbers stand for the edges of the readable range; the others count from the base.
    fn rebase(self, revision: &mut u64) {
        *revision = match *revision {
            0 => 0,
            1 => self.compacted - 1,
            2 => self.compacted,
            3 => self.newest,
            4 => self.newest + 1,
            after => self.base + after - 4,
        };
    }
}

/// Returns true if a request may crash etcd: etcd checks the existence of a kept value or lease before it
/// deletes all keys from one on, and then does not find the key.
pub(crate) fn crashes_etcd(request: &Request) -> bool {
    fn any(txn: &Txn, is: fn(&RegistryOp) -> bool) -> bool {
        txn.success.iter().chain(&txn.failure).any(|op| match op {
            RegistryOp::Txn(txn) => any(txn, is),
            op => is(op),
        })
    }
    let Request::Txn(txn) = request else { return false };
    any(txn, |op| matches!(op, RegistryOp::Put(put) if put.ignore_value || put.ignore_lease))
        && any(txn, |op| matches!(op, RegistryOp::Delete(delete) if delete.span.end.as_ref() == [0]))
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => Just("a"), 6 => Just("aa"), 4 => Just("ab"), 8 => Just("b"), 4 => Just("c"),
        2 => Just("m"), 1 => Just("\0"), 1 => Just("a\0"),
    ]
    .prop_map(Bytes::from)
}

/// Returns a key; seldom an empty one, which is refused.
fn asked_key() -> impl Strategy<Value = Bytes> {
    prop_oneof![60 => key(), 1 => Just(Bytes::new())]
}

fn span() -> impl Strategy<Value = Span> {
    let end = prop_oneof![
        6 => Just(Bytes::new()),
        2 => Just(Bytes::from("\0")),
        4 => key(),
        2 => Just(Bytes::from("z")),
        1 => Just(Bytes::from("\0\0")),
    ];
    (asked_key(), end).prop_map(|(key, end)| Span { key, end })
}

fn lease() -> impl Strategy<Value = LeaseId> {
    prop_oneof![10 => 1..=3u64, 1 => Just(9)].prop_map(LeaseId)
}

/// Returns a relative revision, see [`Revisions::rebase`].
fn at() -> impl Strategy<Value = u64> {
    prop_oneof![5 => Just(0), 5 => 1..=4u64, 4 => 5..15u64, 2 => 5..45u64]
}

fn value() -> impl Strategy<Value = Bytes> {
    "[xyz]{0,2}".prop_map(Bytes::from)
}

fn put() -> impl Strategy<Value = Put> {
    let leases = prop_oneof![12 => Just(None), 6 => lease().prop_map(Some), 1 => Just(Some(LeaseId(0)))];
    (asked_key(), value(), leases, any::<bool>(), rarely(), rarely(), any::<bool>()).prop_map(
        |(key, value, lease, prev, ignore_value, ignore_lease, proper)| {
            // A kept value or lease must not be given; half of the time it is given.
            let value = if ignore_value && proper { Bytes::new() } else { value };
            let lease = if ignore_lease && proper { None } else { lease };
            Put { prev, ignore_value, ignore_lease, ..Put::new(key, value, lease) }
        },
    )
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.08)
}

fn range() -> impl Strategy<Value = Range> {
    (span(), at(), 0..4u64, rarely(), rarely()).prop_map(|(span, revision, limit, keys_only, count_only)| {
        Range { span, revision, limit, keys_only, count_only }
    })
}

fn delete() -> impl Strategy<Value = Delete> {
    (span(), any::<bool>()).prop_map(|(span, prev)| Delete { span, prev })
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation =
        prop::sample::select(vec![Relation::Equal, Relation::NotEqual, Relation::Greater, Relation::Less]);
    let target = prop_oneof![
        (0..4u64).prop_map(CompareTarget::Version),
        at().prop_map(CompareTarget::Create),
        at().prop_map(CompareTarget::Mod),
        value().prop_map(CompareTarget::Value),
        prop::option::of(lease()).prop_map(CompareTarget::Lease),
    ];
    (span(), relation, target).prop_map(|(span, relation, target)| Compare { span, relation, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        2 => range().prop_map(RegistryOp::Range),
        4 => put().prop_map(RegistryOp::Put),
        2 => delete().prop_map(RegistryOp::Delete),
    ];
    let op = leaf.prop_recursive(2, 12, 3, |op| {
        (many(compare(), 0..2), many(op.clone(), 0..3), many(op, 0..3))
            .prop_map(|(compares, success, failure)| RegistryOp::Txn(Txn { compares, success, failure }))
    });
    (many(compare(), 0..3), many(op.clone(), 0..4), many(op, 0..3))
        .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
}

fn watch() -> impl Strategy<Value = Watch> {
    (span(), at(), any::<(bool, bool)>(), rarely(), rarely()).prop_map(
        |(span, start, (prev, progress), no_put, no_delete)| Watch {
            span,
            start,
            prev,
            progress,
            no_put,
            no_delete,
        },
    )
}

/// Returns a request that is refused for its size.
fn oversize() -> impl Strategy<Value = Request> {
    let large = || Put::new("a", vec![b'x'; 1_600_000], None);
    let reads = |n| vec![RegistryOp::Range(Range::of(Span::one("a"))); n];
    prop_oneof![
        Just(Request::Put(large())),
        Just(Request::Txn(Txn { failure: vec![RegistryOp::Put(large())], ..Txn::default() })),
        (100..160usize).prop_map(move |n| Request::Txn(Txn { success: reads(n), ..Txn::default() })),
        (60..70usize, 60..70usize).prop_map(move |(outer, inner)| {
            let mut ops = reads(outer);
            ops.push(RegistryOp::Txn(Txn { failure: reads(inner), ..Txn::default() }));
            Request::Txn(Txn { success: ops, ..Txn::default() })
        }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    // Long enough that no lease ends before its sequence.
    let ttl_s = prop_oneof![10 => 1000..2000u64, 1 => Just(9_000_000_001)];
    prop_oneof![
        60 => range().prop_map(Request::Range),
        120 => put().prop_map(Request::Put),
        40 => delete().prop_map(Request::Delete),
        120 => txn().prop_map(Request::Txn),
        12 => at().prop_map(|revision| Request::Compact { revision }),
        40 => (lease(), ttl_s).prop_map(|(id, ttl_s)| Request::Grant { id, ttl_s }),
        10 => lease().prop_map(Request::Revoke),
        10 => lease().prop_map(Request::KeepAlive),
        15 => (lease(), any::<bool>()).prop_map(|(id, keys)| Request::TimeToLive { id, keys }),
        4 => oversize(),
    ]
}
