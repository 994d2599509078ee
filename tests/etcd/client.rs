//! Each kind of request, each refusal, and leases: etcd answers like the machine.

use std::time::Duration;

use skirmish_core::registry::{
    Answer, Compare, CompareTarget, Delete, Error, Failure, LeaseId, Put, Range, RegistryOp, Relation,
    Request, Response, Span, Txn, Watch,
};
use skirmish_core::registry::{CallId, Change, News, RegistryCommand, RegistryEvent, WatchId, Watched};
use skirmish_io::config::RegistryEtcd;
use skirmish_tests::etcd::{Etcd, Version};
use skirmish_tests::eventually;

use crate::asker::{Asker, Outcome, options};

const LEASE: LeaseId = LeaseId(77);

fn put(key: &'static str, value: &'static str) -> Put {
    Put::new(key, value, None)
}

fn when(span: Span, relation: Relation, target: CompareTarget) -> Compare {
    Compare { span, relation, target }
}

/// Returns requests of every kind, with every option, and requests that are refused.
fn requests() -> Vec<Request> {
    let range = |span| Request::Range(Range::of(span));
    let txn = |compares, success, failure| Request::Txn(Txn { compares, success, failure });
    let equal = |key: &'static str, target| when(Span::one(key), Relation::Equal, target);
    let prev = |put: Put| Put { prev: true, ..put };
    let many =
        |count: usize| (0..count).map(|i| RegistryOp::Put(Put::new(format!("many/{i}"), "", None))).collect();
    vec![
        Request::Grant { id: LEASE, ttl_s: 300 },
        Request::Put(put("a", "1")),
        Request::Put(prev(put("a", "2"))),
        Request::Put(Put::new("b", "1", Some(LEASE))),
        Request::Put(Put { ignore_lease: true, ..put("b", "2") }),
        Request::Put(prev(Put { ignore_value: true, ..put("b", "") })),
        Request::Put(put("c", "1")),
        range(Span::one("a")),
        range(Span::prefix("")),
        range(Span::from("b")),
        range(Span { key: "a".into(), end: "c".into() }),
        Request::Range(Range { limit: 1, ..Range::of(Span::prefix("")) }),
        Request::Range(Range { keys_only: true, ..Range::of(Span::prefix("")) }),
        Request::Range(Range { count_only: true, ..Range::of(Span::prefix("")) }),
        Request::Range(Range { revision: 3, ..Range::of(Span::prefix("")) }),
        txn(vec![Compare::absent("d")], vec![RegistryOp::Put(put("d", "1"))], vec![]),
        txn(vec![Compare::absent("d")], vec![], vec![RegistryOp::Range(Range::of(Span::one("d")))]),
        txn(
            vec![
                equal("a", CompareTarget::Version(2)),
                equal("a", CompareTarget::Create(2)),
                equal("a", CompareTarget::Mod(3)),
                equal("a", CompareTarget::Value("2".into())),
                equal("a", CompareTarget::Lease(None)),
                equal("c", CompareTarget::Lease(None)),
                when(Span::prefix("a"), Relation::Less, CompareTarget::Version(9)),
                when(Span::one("a"), Relation::Greater, CompareTarget::Version(1)),
                when(Span::one("a"), Relation::NotEqual, CompareTarget::Value("9".into())),
            ],
            vec![
                RegistryOp::Txn(Txn {
                    success: vec![RegistryOp::Put(prev(put("a", "3")))],
                    ..Txn::default()
                }),
                RegistryOp::Delete(Delete { span: Span::one("c"), prev: true }),
                RegistryOp::Range(Range::of(Span::one("a"))),
            ],
            vec![],
        ),
        Request::TimeToLive { id: LEASE, keys: true },
        Request::TimeToLive { id: LEASE, keys: false },
        Request::KeepAlive(LEASE),
        Request::Delete(Delete { span: Span::prefix("a"), prev: true }),
        Request::Delete(Delete::of(Span::one("none"))),
        // Refused.
        Request::Put(put("", "1")),
        range(Span::one("")),
        Request::Delete(Delete::of(Span::one(""))),
        Request::Put(Put::new("x", "1", Some(LeaseId(9)))),
        Request::Put(Put { ignore_value: true, ..put("d", "1") }),
        Request::Put(Put { ignore_lease: true, ..Put::new("d", "1", Some(LEASE)) }),
        Request::Put(Put { ignore_value: true, ..put("none", "") }),
        Request::Put(Put::new("x", vec![0; 1_600_000], None)),
        Request::Put(Put::new("x", vec![0; 3_000_000], None)),
        txn(vec![], vec![RegistryOp::Put(put("x", "1")), RegistryOp::Put(put("x", "2"))], vec![]),
        txn(
            vec![],
            vec![RegistryOp::Put(put("x", "1")), RegistryOp::Delete(Delete::of(Span::prefix("x")))],
            vec![],
        ),
        txn(vec![], many(129), vec![]),
        txn(vec![], many(128), vec![]),
        Request::Grant { id: LEASE, ttl_s: 5 },
        Request::Grant { id: LeaseId(78), ttl_s: 10_000_000_000 },
        Request::Revoke(LeaseId(9)),
        Request::KeepAlive(LeaseId(9)),
        Request::TimeToLive { id: LeaseId(9), keys: false },
        Request::Range(Range { revision: 1000, ..Range::of(Span::one("a")) }),
        Request::Compact { revision: 1000 },
        Request::Compact { revision: 5 },
        Request::Compact { revision: 5 },
        Request::Range(Range { revision: 4, ..Range::of(Span::one("a")) }),
        Request::Revoke(LEASE),
        range(Span::prefix("")),
    ]
}

/// Removes a permitted difference: a second may have passed.
fn rounded(mut outcome: Outcome) -> Outcome {
    if let Ok(Response { answer: Answer::TimeToLive { left_s, granted_s, .. }, .. }) = &mut outcome {
        assert!(*left_s <= *granted_s && *left_s + 30 >= *granted_s, "{left_s} of {granted_s}");
        *left_s = *granted_s;
    }
    outcome
}

#[tokio::test]
async fn every_request_has_the_outcome_that_the_machine_gives_it() {
    for version in Version::installed() {
        let etcd = Etcd::start_with(version, &[]).await;
        let mut real = Asker::new(&options(vec![etcd.url()]));
        let mut machine = Asker::embedded();
        let mut refused = Vec::new();
        for request in requests() {
            let expected = rounded(machine.done(request.clone()).await);
            let outcome = rounded(real.done(request.clone()).await);
            assert!(outcome == expected, "{version:?} {request:.300?}:\n{outcome:?}\n{expected:?}");
            refused.extend(outcome.err());
        }
        let counters = real.registry.counters();
        assert_eq!(counters.refused as usize, refused.len());
        assert_eq!((counters.calls as usize, counters.unknown), (requests().len(), 0));
        for error in [
            Error::EmptyKey,
            Error::DuplicateKey,
            Error::TooManyOps,
            Error::TooLarge,
            Error::Compacted,
            Error::FutureRevision,
            Error::LeaseNotFound,
            Error::LeaseExists,
            Error::LeaseTtlTooLarge,
            Error::ValueProvided,
            Error::LeaseProvided,
            Error::KeyNotFound,
        ] {
            assert!(refused.contains(&Failure::Refused(error)), "nothing was refused because {error}");
        }
    }
}

#[tokio::test]
async fn leases_live_while_they_are_kept_alive_on_one_stream_and_end_with_their_keys() {
    const LEASES: u64 = 50;
    let etcd = Etcd::start().await;
    let mut asker = Asker::new(&options(vec![etcd.url()]));
    asker.watch(1, Watch::of(Span::prefix("leased/"), 0));
    for lease in 1..=LEASES {
        asker.done(Request::Grant { id: LeaseId(lease), ttl_s: 2 }).await.unwrap();
        let put = Put::new(format!("leased/{lease}"), "", Some(LeaseId(lease)));
        asker.done(Request::Put(put)).await.unwrap();
    }
    // For three times their time to live all leases are kept alive, together with two that do not exist.
    for _ in 0..12 {
        let leases = (1..=LEASES).chain([900, 901]);
        let calls: Vec<_> =
            leases.map(|lease| (lease, asker.ask(Request::KeepAlive(LeaseId(lease))))).collect();
        for (lease, call) in calls {
            match asker.outcome(call).await {
                Ok(response) => {
                    assert_eq!((response.answer, lease < 900), (Answer::KeptAlive { ttl_s: 2 }, true))
                }
                Err(failure) => {
                    assert_eq!(
                        (failure, lease >= 900),
                        (Failure::Refused(Error::LeaseNotFound), true),
                        "{lease}"
                    );
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(asker.list("leased/").await.1.len() as u64, LEASES);
    let mut gone = 0;
    while gone < LEASES {
        let changes = asker.changes().await;
        gone += changes.iter().filter(|change| matches!(change, Change::Delete { .. })).count() as u64;
    }
    assert!(asker.list("leased/").await.1.is_empty());
}

#[tokio::test]
async fn without_etcd_everything_is_unavailable_and_says_why() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let short = RegistryEtcd {
        request_timeout: Duration::from_millis(200),
        ..options(vec![format!("http://{address}")])
    };
    let mut asker = Asker::new(&short);
    for request in
        [Request::Put(put("a", "")), Request::KeepAlive(LEASE), Request::Range(Range::of(Span::one("a")))]
    {
        assert_eq!(asker.done(request).await, Err(Failure::Unavailable));
    }
    let status = asker.registry.status();
    assert!(!status.connected && status.error.is_some(), "{status:?}");
    assert_eq!(asker.registry.counters().unavailable, 3);
}

#[tokio::test]
async fn more_than_may_wait_is_unavailable_at_once() {
    let etcd = Etcd::start().await;
    let few = RegistryEtcd { requests: 10, watches: 2, ..options(vec![etcd.url()]) };
    let mut asker = Asker::new(&few);
    for _ in 0..15 {
        asker.ask(Request::Put(put("a", "")));
    }
    for id in 0..3 {
        asker.watch(id, Watch::of(Span::one("a"), 0));
    }
    // The task gets no time to run before this.
    let refused: Vec<_> = std::iter::from_fn(|| asker.registry.poll_event()).collect();
    let unavailable =
        (10..15).map(|id| RegistryEvent::Reply { id: CallId(id), outcome: Err(Failure::Unavailable) });
    let canceled = RegistryEvent::Watched(Watched { id: WatchId(2), revision: 0, news: News::Canceled });
    assert_eq!(refused, unavailable.chain([canceled]).collect::<Vec<_>>());
    for id in 0..10 {
        asker.outcome(CallId(id)).await.unwrap();
    }
    asker.done(Request::Put(put("a", ""))).await.unwrap();
    // A watch that ends makes room for another one.
    asker.call(RegistryCommand::Unwatch(WatchId(0)));
    asker.watch(3, Watch::of(Span::one("a"), 1));
    eventually("the new watch to run", async || {
        let watched = asker.news().await;
        assert_ne!(watched.news, News::Canceled);
        watched.id == WatchId(3)
    })
    .await;
}
