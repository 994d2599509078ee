//! Generated sequences.

use std::cell::Cell;

use proptest::collection::vec as many;
use proptest::test_runner::{Config, FileFailurePersistence, TestError, TestRunner};
use skirmish_tests::etcd::{Etcd, Version};

use crate::generate::{Step, crashes_etcd, rebase, step};
use crate::pair::Pair;

/// What a run on one etcd does at least.
const OPERATIONS: u64 = 10_000;

/// Seeds of sequences that once came to something else; they are tried first.
const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/conformance.txt");

#[test]
fn generated_sequences_come_to_the_same() {
    for version in Version::installed() {
        let operations = compare(version);
        println!("etcd {version:?}: {operations} operations came to the same");
        assert!(operations >= OPERATIONS);
    }
}

/// Returns how many operations there were.
fn compare(version: Version) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let etcd = runtime.block_on(Etcd::start_with(version, &[]));
    let operations = Cell::new(0);
    while operations.get() < OPERATIONS {
        // A runner counts its cases once and for all.
        let mut runner = TestRunner::new(Config {
            cases: 50,
            max_shrink_iters: 500,
            failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
            ..Config::default()
        });
        let outcome = runner.run(&many(step(), 1..100), |steps| {
            let done = runtime.block_on(run(&etcd, steps));
            operations.set(operations.get() + done);
            Ok(())
        });
        match outcome {
            Ok(()) => {}
            Err(TestError::Fail(reason, steps)) => panic!("etcd {version:?}: {reason}\n{steps:#?}"),
            Err(other) => panic!("{other}"),
        }
    }
    operations.get()
}

/// Returns how many operations there were.
async fn run(etcd: &Etcd, steps: Vec<Step>) -> u64 {
    let mut pair = Pair::new(etcd).await;
    let base = pair.revision();
    for mut step in steps {
        rebase(&mut step, base);
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
