//! Runs many seeds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use skirmish_core::plant::Plant;

use crate::coverage::Coverage;
use crate::draw::draw;
use crate::oracle::Violation;
use crate::world::{RunOptions, run};

/// Seeds of a hunt, and the way to run them.
#[derive(Clone, Copy, Debug)]
pub struct HuntPlan {
    /// The first seed.
    pub first: u64,
    /// Most seeds to run.
    pub seeds: u64,
    /// Seeds that run at the same time.
    pub jobs: usize,
    /// True if the hunt continues after a failure.
    pub keep_going: bool,
    /// Bug to plant.
    pub plant: Option<Plant>,
}

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct FailedSeed {
    /// The seed.
    pub seed: u64,
    /// Time of the failure, in microseconds of the world's time.
    pub at: u64,
    /// The broken guarantee.
    pub violation: Violation,
}

/// Results of a hunt so far.
#[derive(Clone, Debug, Default)]
pub struct HuntTally {
    /// Seeds run.
    pub seeds: u64,
    /// Sum of the microseconds that passed in the worlds.
    pub micros: u64,
    /// Failed seeds, by seed.
    pub failures: Vec<FailedSeed>,
    /// Sum of the coverage.
    pub coverage: Coverage,
}

/// A seed that is being run. If the run panics, as a machine does at a broken invariant, the seed
/// is printed.
struct RunningSeed {
    seed: u64,
}

impl Drop for RunningSeed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("seed {} has panicked", self.seed);
        }
    }
}

/// Runs seeds until all are run, one has failed, or `go_on` returns false. `progress` is called
/// after each seed.
pub fn hunt(
    plan: &HuntPlan,
    go_on: impl Fn() -> bool + Sync,
    mut progress: impl FnMut(&HuntTally),
) -> HuntTally {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (results, tally) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            let results = results.clone();
            let (next, stop, go_on) = (&next, &stop, &go_on);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && go_on() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= plan.seeds {
                        break;
                    }
                    let seed = plan.first.wrapping_add(index);
                    let _running = RunningSeed { seed };
                    let outcome = run(&draw(seed), RunOptions { plant: plan.plant, traced: false });
                    if outcome.violation.is_some() && !plan.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                    if results.send((seed, outcome)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(results);
        let mut all = HuntTally::default();
        for (seed, outcome) in tally {
            all.seeds += 1;
            all.micros += outcome.micros;
            all.coverage.merge(&outcome.coverage);
            if let Some((at, violation)) = outcome.violation {
                all.failures.push(FailedSeed { seed, at, violation });
                all.failures.sort_by_key(|failure| failure.seed.wrapping_sub(plan.first));
            }
            progress(&all);
        }
        all
    })
}
