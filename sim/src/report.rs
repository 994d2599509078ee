//! Report on a failing seed, for people.

use std::fmt;

use skirmish_core::plant::Plant;

use crate::draw::draw;
use crate::oracle::Violation;
use crate::picture;
use crate::scenario::Scenario;
use crate::shrink::shrink;
use crate::world::{RunOptions, RunOutcome, run};

/// Most runs of scenarios to shorten a failing one.
const SHRINK_RUNS: usize = 400;

/// Report on a failure.
#[derive(Debug)]
pub struct FailureReport {
    /// The seed.
    pub seed: u64,
    /// The planted bug, if any.
    pub plant: Option<Plant>,
    /// The broken guarantee, in the scenario of the seed.
    pub violation: Violation,
    /// Numbers of steps before and after the shortening.
    pub steps: (usize, usize),
    /// The shortest scenario that breaks the same guarantee.
    pub scenario: Scenario,
    /// Outcome of the shortest scenario, with texts and picture.
    pub outcome: RunOutcome,
}

impl FailureReport {
    /// Runs the scenario of a seed. If the scenario fails, shortens it and returns the report.
    #[must_use]
    pub fn of_seed(seed: u64, plant: Option<Plant>) -> Option<Self> {
        let full = draw(seed);
        let options = RunOptions { plant, traced: false };
        let (_, violation) = run(&full, options).violation?;
        let scenario = shrink(&full, options, violation.guarantee, SHRINK_RUNS).scenario;
        let outcome = run(&scenario, RunOptions { traced: true, ..options });
        let steps = (full.steps.len(), scenario.steps.len());
        Some(Self { seed, plant, violation, steps, scenario, outcome })
    }

    /// Returns the failure as a page: self-contained HTML.
    #[must_use]
    pub fn page(&self) -> String {
        picture::page(&self.scenario, &self.outcome)
    }
}

impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, violation) =
            self.outcome.violation.as_ref().map_or((0, &self.violation), |(at, violation)| (*at, violation));
        writeln!(f, "seed {} breaks {}", self.seed, violation.guarantee)?;
        writeln!(f, "  {}", violation.description)?;
        writeln!(f, "  after {}.{:06} s of the world's time", at / 1_000_000, at % 1_000_000)?;
        writeln!(f, "shortest schedule found: {} of {} steps", self.steps.1, self.steps.0)?;
        for step in &self.scenario.steps {
            writeln!(f, "  {:>4}.{:06} s  {}", step.at / 1_000_000, step.at % 1_000_000, step.action)?;
        }
        Ok(())
    }
}

/// Returns the name of a planted bug on the command line: `duplicate-applied`.
#[must_use]
pub fn plant_name(plant: Plant) -> String {
    let mut name = String::new();
    for letter in format!("{plant:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Returns the planted bug of a name.
///
/// # Errors
/// If the name is unknown; the error lists all names.
pub fn plant_of(name: &str) -> Result<Plant, String> {
    Plant::ALL.into_iter().find(|plant| plant_name(*plant) == name).ok_or_else(|| {
        let names: Vec<String> = Plant::ALL.into_iter().map(plant_name).collect();
        format!("there is no planted bug of this name; there are: {}", names.join(", "))
    })
}
