//! Generated sequences.

use std::cell::RefCell;

use proptest::collection::vec as many;
use proptest::test_runner::{Config, FileFailurePersistence, TestError, TestRunner};
use skirmish_tests::etcd::{Etcd, Version};

use crate::generate::{Revisions, Step, crashes_etcd, rebase, step};
use crate::pair::{Outcomes, Pair};

/// Minimum number of operations in a run on one etcd.
const OPERATIONS: u64 = 10_000;

/// Seeds of sequences with former differences; they are tried first.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/conformance.txt");

/// Results that must occur, so that the comparison is meaningful.
const OUTCOMES: &[&str] = &[
    "Range",
    "Range: EmptyKey",
    "Range: Compacted",
    "Range: FutureRevision",
    "Put",
    "Put: EmptyKey",
    "Put: LeaseNotFound",
    "Put: KeyNotFound",
    "Put: TooLarge",
    "Put: LeaseProvided",
    "Put: ValueProvided",
    "Delete",
    "Delete: EmptyKey",
    "Txn",
    "Txn: DuplicateKey",
    "Txn: EmptyKey",
    "Txn: LeaseNotFound",
    "Txn: KeyNotFound",
    "Txn: TooLarge",
    "Txn: TooManyOps",
    "Txn: Compacted",
    "Txn: FutureRevision",
    "Txn: LeaseProvided",
    "Txn: ValueProvided",
    "Compact",
    "Compact: Compacted",
    "Compact: FutureRevision",
    "Grant",
    "Grant: LeaseExists",
    "Grant: LeaseTtlTooLarge",
    "Revoke",
    "Revoke: LeaseNotFound",
    "KeepAlive",
    "KeepAlive: LeaseNotFound",
    "TimeToLive",
    "TimeToLive: LeaseNotFound",
    "Watch",
    "Watch: Compacted",
    "Watch: Canceled",
    "Unwatch",
];

/// The versions run in parallel, since most of the time is spent on etcd's disk.
#[test]
fn generated_sequences_come_to_the_same() {
    std::thread::scope(|scope| {
        for version in Version::installed() {
            scope.spawn(move || {
                let outcomes = compare(version);
                let operations: u64 = outcomes.values().sum();
                println!("etcd {version:?}: {operations} operations came to the same: {outcomes:#?}");
                assert!(operations >= OPERATIONS);
                for &outcome in OUTCOMES {
                    assert!(outcomes.contains_key(outcome), "etcd {version:?}: nothing came to {outcome}");
                }
            });
        }
    });
}

fn compare(version: Version) -> Outcomes {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let etcd = runtime.block_on(Etcd::start_with(version, &[]));
    let all = RefCell::new(Outcomes::new());
    while all.borrow().values().sum::<u64>() < OPERATIONS {
        // A runner counts its cases only once.
        let mut runner = TestRunner::new(Config {
            cases: 50,
            max_shrink_iters: 500,
            // A case that fails by a timeout takes a minute each time.
            max_shrink_time: 300_000,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
            ..Config::default()
        });
        let outcome = runner.run(&many(step(), 1..100), |steps| {
            for (outcome, count) in runtime.block_on(run(&etcd, steps)) {
                *all.borrow_mut().entry(outcome).or_default() += count;
            }
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, steps)) => panic!("etcd {version:?}: {reason}\n{steps:#?}"),
            Err(other) => panic!("{other}"),
        }
    }
    all.into_inner()
}

async fn run(etcd: &Etcd, steps: Vec<Step>) -> Outcomes {
    let mut pair = Pair::new(etcd).await;
    let base = pair.revision();
    for mut step in steps {
        rebase(&mut step, Revisions { base, compacted: pair.compacted(), newest: pair.revision() });
        match step {
            Step::Ask(request) if crashes_etcd(&request) => {}
            Step::Ask(request) => {
                let _ = pair.ask(request).await;
            }
            Step::Watch(watch) => {
                pair.watch(watch).await;
            }
            Step::Unwatch(index) => {
                let watches = pair.watches();
                if let Some(&id) = watches.get(index % watches.len().max(1)) {
                    pair.unwatch(id).await;
                }
            }
        }
    }
    pair.finish().await
}
