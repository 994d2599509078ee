//! Shortens a failing scenario: leaves out steps as long as the same guarantee breaks.

use crate::oracle::Guarantee;
use crate::scenario::{Scenario, Step};
use crate::world::{RunOptions, run};

/// A shortened scenario.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The shortest scenario that was found.
    pub scenario: Scenario,
    /// Number of scenarios that were run to find the shortest one.
    pub runs: usize,
}

/// Leaves out steps, many at a time first, until no single step can be left out or `max_runs`
/// scenarios were run.
#[must_use]
pub fn shrink(scenario: &Scenario, options: RunOptions, guarantee: Guarantee, max_runs: usize) -> Shrunk {
    let options = RunOptions { traced: false, ..options };
    let mut runs = 0;
    let mut fails = |candidate: &Scenario| {
        runs += 1;
        let outcome = run(candidate, options);
        outcome.violation.filter(|(_, violation)| violation.guarantee == guarantee).map(|(at, _)| at)
    };
    let mut best = scenario.clone();
    let mut budget = max_runs;
    let Some(at) = fails(&best) else { return Shrunk { scenario: best, runs: 1 } };
    // Steps after the failure had no part in it.
    let cut = Scenario {
        shape: crate::scenario::Shape { chaos_ms: best.shape.chaos_ms.min(at / 1_000 + 1), ..best.shape },
        ..best.with_steps(best.steps.iter().copied().filter(|step| step.at <= at).collect())
    };
    if fails(&cut).is_some() {
        best = cut;
    }
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 && budget > 0 {
        let mut from = 0;
        let mut shorter = false;
        while from < best.steps.len() && budget > 0 {
            budget -= 1;
            let candidate = best.with_steps(without(&best.steps, from, size));
            if fails(&candidate).is_some() {
                best = candidate;
                shorter = true;
            } else {
                from += size;
            }
        }
        // The last round repeats as long as a step can be left out.
        if size > 1 || !shorter {
            size /= 2;
        }
    }
    Shrunk { scenario: best, runs }
}

fn without(steps: &[Step], from: usize, size: usize) -> Vec<Step> {
    let to = (from + size).min(steps.len());
    [&steps[..from], &steps[to..]].concat()
}
