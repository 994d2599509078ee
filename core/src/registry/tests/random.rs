//! Invariants under any sequence of requests.

use alloc::collections::BTreeMap;

use proptest::collection::vec as many;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Do(Request),
    Watch(u64, Watch),
    Unwatch(u64),
    Drain,
    Sleep(u64),
    NewLeader,
}

fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just(Bytes::from("a")),
        Just("b".into()),
        Just("ba".into()),
        Just("c".into()),
        Just("".into())
    ]
}

fn a_span() -> impl Strategy<Value = Span> {
    (key(), prop_oneof![4 => Just(Bytes::new()), 1 => Just(Bytes::from("\0")), 2 => key()])
        .prop_map(|(key, end)| Span { key, end })
}

fn a_put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![3 => Just(None), 2 => (0..4u64).prop_map(|id| Some(LeaseId(id)))];
    (key(), "[xyz]{0,2}", lease, any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1))
        .prop_map(|(key, value, lease, prev, ignore_value, ignore_lease)| Put {
            prev,
            ignore_value,
            ignore_lease,
            ..Put::new(key, value, lease)
        })
}

fn a_range() -> impl Strategy<Value = Range> {
    (a_span(), prop_oneof![3 => Just(0), 1 => 0..30u64], 0..3u64, any::<bool>(), prop::bool::weighted(0.2))
        .prop_map(|(span, revision, limit, keys_only, count_only)| Range {
            span,
            revision,
            limit,
            keys_only,
            count_only,
        })
}

fn a_delete() -> impl Strategy<Value = Delete> {
    (a_span(), any::<bool>()).prop_map(|(span, prev)| Delete { span, prev })
}

fn a_compare() -> impl Strategy<Value = Compare> {
    let relation = prop_oneof![
        Just(Relation::Equal),
        Just(Relation::NotEqual),
        Just(Relation::Greater),
        Just(Relation::Less)
    ];
    let target = prop_oneof![
        (0..4u64).prop_map(CompareTarget::Version),
        (0..20u64).prop_map(CompareTarget::Create),
        (0..20u64).prop_map(CompareTarget::Mod),
        "[xyz]{0,1}".prop_map(|value| CompareTarget::Value(value.into())),
        (0..4u64).prop_map(|id| CompareTarget::Lease(Some(LeaseId(id)))),
    ];
    (a_span(), relation, target).prop_map(|(span, relation, target)| Compare { span, relation, target })
}

fn a_txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        a_range().prop_map(RegistryOp::Range),
        a_put().prop_map(RegistryOp::Put),
        a_delete().prop_map(RegistryOp::Delete),
    ];
    let op = leaf.prop_recursive(2, 12, 3, |op| {
        let nested = (many(a_compare(), 0..2), many(op.clone(), 0..3), many(op, 0..3));
        nested.prop_map(|(compares, success, failure)| RegistryOp::Txn(Txn { compares, success, failure }))
    });
    (many(a_compare(), 0..3), many(op.clone(), 0..4), many(op, 0..4))
        .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
}

fn request() -> impl Strategy<Value = Request> {
    let id = (0..4u64).prop_map(LeaseId);
    prop_oneof![
        2 => a_range().prop_map(Request::Range),
        6 => a_put().prop_map(Request::Put),
        2 => a_delete().prop_map(Request::Delete),
        6 => a_txn().prop_map(Request::Txn),
        1 => (0..30u64).prop_map(|revision| Request::Compact { revision }),
        3 => (id.clone(), 0..20u64).prop_map(|(id, ttl_s)| Request::Grant { id, ttl_s }),
        1 => id.clone().prop_map(Request::Revoke),
        1 => id.clone().prop_map(Request::KeepAlive),
        1 => (id, any::<bool>()).prop_map(|(id, keys)| Request::TimeToLive { id, keys }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let watch =
        (a_span(), 0..30u64, any::<(bool, bool)>(), prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    let watch = watch.prop_map(|(span, start, (prev, progress), no_put, no_delete)| Watch {
        span,
        start,
        prev,
        progress,
        no_put,
        no_delete,
    });
    prop_oneof![
        12 => request().prop_map(Step::Do),
        3 => (0..4u64, watch).prop_map(|(id, watch)| Step::Watch(id, watch)),
        1 => (0..4u64).prop_map(Step::Unwatch),
        4 => Just(Step::Drain),
        2 => prop_oneof![0..30_000u64, 0..2_000_000u64].prop_map(Step::Sleep),
        1 => Just(Step::NewLeader),
    ]
}

fn small() -> impl Strategy<Value = RegistryConfig> {
    let history = prop_oneof![Just(None), Just(Some(4)), Just(Some(20))];
    (history, prop_oneof![Just(1500usize), Just(100_000)], any::<bool>()).prop_map(
        |(history, bytes, forgets_deletions)| RegistryConfig {
            history,
            bytes,
            forgets_deletions,
            leases: 3,
            watches: 3,
            watch_batch: 2,
            ..RegistryConfig::etcd()
        },
    )
}

/// Answer to the step's request, and news of the watches if the step fetches them.
type Outcome = (Option<Result<Response, Error>>, Vec<Watched>);

/// Executes a step, with an audit.
fn take(bench: &mut Bench, step: &Step) -> Outcome {
    match step {
        Step::Do(request) => return (Some(bench.handle(request.clone())), Vec::new()),
        Step::Watch(id, watch) => {
            let _ = bench.registry.watch(bench.now, WatchId(*id), watch.clone());
        }
        Step::Unwatch(id) => bench.registry.unwatch(WatchId(*id)),
        Step::Drain => return (None, bench.told()),
        Step::Sleep(ms) => bench.sleep(*ms),
        Step::NewLeader => bench.registry.handle_leader_change(bench.now),
    }
    bench.registry.audit().unwrap();
    (None, Vec::new())
}

/// Runs the steps. `bench.handle` checks that refused requests have no effect.
fn run(config: &RegistryConfig, steps: &[Step]) -> Vec<Outcome> {
    let mut bench = Bench::new(config.clone());
    steps.iter().map(|step| take(&mut bench, step)).collect()
}

/// All states of the registry, by revision.
type States = BTreeMap<u64, Vec<KeyValue>>;

proptest! {
    #[test]
    fn no_sequence_breaks_a_bound_or_half_of_a_request(config in small(), steps in many(step(), 0..80)) {
        let one = run(&config, &steps);
        prop_assert!(one == run(&config, &steps), "the same inputs gave other outputs");
    }

    #[test]
    fn old_revisions_stay_as_they_were(steps in many(step(), 0..80)) {
        let mut bench = Bench::etcd();
        let mut states = States::new();
        states.insert(1, Vec::new());
        for step in &steps {
            let before = bench.registry.revision();
            take(&mut bench, step);
            if bench.registry.revision() == before + 1 {
                states.insert(before + 1, bench.everything());
            }
        }
        for (revision, then) in states {
            let range = Request::Range(Range { revision, ..Range::of(Span::prefix("")) });
            match bench.handle(range) {
                Ok(Response { answer: Answer::Range { kvs, .. }, .. }) => prop_assert_eq!(kvs, then),
                other => {
                    prop_assert_eq!(other, Err(Error::Compacted));
                    prop_assert!(Some(revision) < bench.registry.compacted());
                }
            }
        }
    }

    #[test]
    fn what_a_watch_tells_makes_the_state(
        history in prop_oneof![Just(None), Just(Some(6usize))],
        steps in many(step(), 0..80),
    ) {
        // The watch of all keys is drained together with the others, and started again after its end.
        const ALL: u64 = 9;
        let mut bench = Bench::new(RegistryConfig { history, watch_batch: 3, ..RegistryConfig::etcd() });
        let mut state: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
        let mut upto = 1;
        bench.watch(ALL, Watch { prev: true, ..Watch::of(Span::prefix(""), 2) });
        for step in steps.iter().chain([&Step::Drain, &Step::Drain]) {
            let (_, told) = take(&mut bench, step);
            for watched in told.into_iter().filter(|watched| watched.id.0 == ALL) {
                prop_assert!(watched.revision >= upto || watched.news == News::Created);
                upto = watched.revision;
                match watched.news {
                    News::Created | News::Progress => {}
                    News::Canceled => prop_assert!(false, "nobody asked for it"),
                    News::Compacted { oldest } => {
                        prop_assert!(upto + 1 < oldest);
                        state = bench.everything().into_iter().map(|kv| (kv.key.clone(), kv)).collect();
                        upto = bench.registry.revision();
                        bench.watch(ALL, Watch { prev: true, ..Watch::of(Span::prefix(""), upto + 1) });
                    }
                    News::Changes(changes) => {
                        prop_assert!(changes.is_sorted_by_key(Change::revision));
                        prop_assert!(changes.last().unwrap().revision() <= upto);
                        for change in changes {
                            match change {
                                Change::Put { kv, .. } => { state.insert(kv.key.clone(), kv); }
                                Change::Delete { key, revision, .. } => {
                                    // Of a key that was put and deleted in one revision, the deletion stays
                                    // when the history is compacted up to that revision.
                                    let may_lack_put = bench.registry.compacted() == Some(revision);
                                    prop_assert!(state.remove(&key).is_some() || may_lack_put);
                                }
                            }
                        }
                    }
                }
            }
        }
        prop_assert_eq!(state.into_values().collect::<Vec<_>>(), bench.everything());
    }
}
