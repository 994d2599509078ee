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

/// Outcome of one seed, as far as a hunt is concerned.
#[derive(Clone, Debug)]
pub struct SeedOutcome {
    /// Microseconds that passed in the run.
    pub micros: u64,
    /// Time of the first breach, in microseconds, and the breach.
    pub violation: Option<(u64, Violation)>,
    /// Marks of the run.
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

/// Runs seeds of the machine world until all are run, one has failed, or `go_on` returns false.
/// `progress` is called after each seed.
pub fn hunt(plan: &HuntPlan, go_on: impl Fn() -> bool + Sync, progress: impl FnMut(&HuntTally)) -> HuntTally {
    hunt_with(plan, |seed| run_seed(seed, plan.plant), go_on, progress)
}

/// Runs a seed of the machine world.
#[must_use]
pub fn run_seed(seed: u64, plant: Option<Plant>) -> SeedOutcome {
    let outcome = run(&draw(seed), RunOptions { plant, traced: false });
    SeedOutcome { micros: outcome.micros, violation: outcome.violation, coverage: outcome.coverage }
}

/// Runs seeds with a function for one seed, like [`hunt`].
pub fn hunt_with(
    plan: &HuntPlan,
    run_one: impl Fn(u64) -> SeedOutcome + Sync,
    go_on: impl Fn() -> bool + Sync,
    mut progress: impl FnMut(&HuntTally),
) -> HuntTally {
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (results, tally) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            let results = results.clone();
            let (next, stop, go_on, run_one) = (&next, &stop, &go_on, &run_one);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && go_on() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= plan.seeds {
                        break;
                    }
                    let seed = plan.first.wrapping_add(index);
                    let _running = RunningSeed { seed };
                    let outcome = run_one(seed);
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
