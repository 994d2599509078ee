//! Scenarios: everything that a run depends on, as data.
//!
//! A scenario is drawn from a seed ([`crate::draw`]), printed, parsed back, run, and shortened by
//! leaving steps out. The number of a client or a room is taken modulo the count of them, so every
//! list of steps is a scenario.

mod action;
mod shape;

use std::fmt;
use std::str::FromStr;

pub use action::{Action, Step};
pub use shape::{MODES, Shape};

/// The first line of a printed scenario.
const HEADER: &str = "skirmish-scenario 1";

/// Error of a text that is not a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    /// Description of the error.
    pub description: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.description)
    }
}

impl std::error::Error for ParseError {}

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Seed of the machines and the network.
    pub seed: u64,
    /// Sizes, limits and rates.
    pub shape: Shape,
    /// Steps in order of time.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// Returns the same scenario with other steps.
    #[must_use]
    pub fn with_steps(&self, steps: Vec<Step>) -> Self {
        Self { seed: self.seed, shape: self.shape, steps }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}\nseed {}", self.seed)?;
        write!(f, "{}", self.shape)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "at {} {}", step.at, step.action))
    }
}

impl FromStr for Scenario {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut scenario = Self { seed: 0, shape: Shape::default(), steps: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let error = |description: String| ParseError { line: index + 1, description };
            if index == 0 && line != HEADER {
                return Err(error(format!("a scenario begins with \"{HEADER}\"")));
            }
            let line = line.split('#').next().unwrap_or_default().trim();
            let Some((word, rest)) = line.split_once(' ') else {
                if line.is_empty() {
                    continue;
                }
                return Err(error(format!("\"{line}\" has no value")));
            };
            match word {
                "skirmish-scenario" => {}
                "seed" => scenario.seed = number(rest).map_err(error)?,
                "at" => {
                    let (at, action) = rest
                        .split_once(' ')
                        .ok_or_else(|| error("a step has a time and an action".into()))?;
                    let at = number(at).map_err(error)?;
                    scenario.steps.push(Step { at, action: action.parse().map_err(error)? });
                }
                name => scenario.shape.set(name, number(rest).map_err(error)?).map_err(error)?,
            }
        }
        scenario.steps.sort_by_key(|step| step.at);
        Ok(scenario)
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("\"{text}\" is not a number of this kind"))
}

fn field(word: Option<&str>, name: &str) -> Result<i64, String> {
    // Scenarios that were written for a single node do not name the node.
    if word.is_none() && name == "node" {
        return Ok(0);
    }
    let word = word.ok_or_else(|| format!("{name}=... is missing"))?;
    match word.split_once('=') {
        Some((key, value)) if key == name => number(value),
        _ => Err(format!("{name}=... is expected where \"{word}\" is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::draw;

    #[test]
    fn a_printed_scenario_parses_back_to_itself() {
        for seed in 0..200 {
            let scenario = draw(seed);
            assert_eq!(scenario.to_string().parse::<Scenario>(), Ok(scenario));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let error = format!("{HEADER}\nseed 1\nat 5 say client=0 room=0").parse::<Scenario>();
        assert_eq!(error, Err(ParseError { line: 3, description: "count=... is missing".into() }));
        assert!("seed 1".parse::<Scenario>().is_err());
    }

    #[test]
    fn a_step_that_names_no_node_means_the_first() {
        let scenario = format!("{HEADER}\nseed 1\nat 5 pause-node millis=9").parse::<Scenario>();
        let steps = scenario.map(|scenario| scenario.steps);
        assert_eq!(steps, Ok(vec![Step { at: 5, action: Action::PauseNode { millis: 9, node: 0 } }]));
    }
}
