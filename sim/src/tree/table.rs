//! Measured figures of trees of a size and a fan-out.

use std::fmt;

use skirmish_core::rng::Rng;

use super::scenario::{TreeAction, TreeScenario, TreeStep, draw_action, draw_weight};
use super::world::{TreeOutcome, TreeStats, run};
use crate::draw::generator;
use crate::oracle::Violation;
use crate::world::RunOptions;

/// Time in which the nodes of a measured run join, in microseconds.
const JOINING: u64 = 2_000_000;

/// Time from the last join to the first fault, in microseconds.
const PAUSE: u64 = 20_000_000;

/// Time of faults, in microseconds.
const BUSY: u64 = 10_000_000;

/// Time between two faults, in microseconds.
const FAULTS: u64 = 100_000;

/// Line of the table: the figures of one run.
#[derive(Clone, Debug)]
pub struct TreeRow {
    fan_out: usize,
    nodes: u64,
    stats: TreeStats,
}

impl TreeRow {
    /// Head of the table.
    pub const HEAD: &'static str = "\
fan-out  nodes  levels   mean  moves a change   weight  frames an entry  all have it, at rest    with faults
                      fan-out    mean     max     skew   root   busiest      p50 ms    p99 ms   p50 ms  p99 ms";
}

impl fmt::Display for TreeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = &self.stats;
        let moves = stats.moves.iter().sum::<usize>() as f64 / stats.moves.len().max(1) as f64;
        let most = stats.moves.iter().max().copied().unwrap_or_default();
        let ms = |times: &[u64], percent| percentile(times, percent) as f64 / 1e3;
        write!(
            f,
            "{:>7}{:>7}{:>8}{:>7.2}{:>8.2}{:>8}{:>9.2}{:>7.2}{:>10.2}{:>12.1}{:>10.1}{:>9.1}{:>8.1}",
            self.fan_out,
            self.nodes,
            stats.levels,
            stats.fan_out,
            moves,
            most,
            stats.skew,
            stats.root_frames,
            stats.busiest_frames,
            ms(&stats.calm, 50),
            ms(&stats.calm, 99),
            ms(&stats.busy, 50),
            ms(&stats.busy, 99),
        )
    }
}

/// Measures one run of so many nodes below the root, in three zones up to 10 ms apart. A fault every
/// 100 ms ends, adds, slows or reweighs a node.
///
/// # Errors
/// The broken guarantee.
pub fn measure(seed: u64, nodes: u64, fan_out: usize) -> Result<TreeRow, (u64, Violation)> {
    let mut rng = generator(seed, "tree table");
    let end = JOINING + PAUSE + BUSY;
    let mut scenario = TreeScenario {
        seed,
        fan_out,
        window: 256,
        zones: 3,
        hosts: (nodes / 9).max(2),
        far: 10_000,
        weight: 100,
        interval: 20_000,
        joined: JOINING + PAUSE,
        end,
        steps: Vec::new(),
    };
    for _ in 0..nodes {
        let action = TreeAction::Join(draw_weight(&mut rng, scenario.weight));
        scenario.steps.push(TreeStep { at: rng.range(0..=JOINING), action });
    }
    let faults = (scenario.joined..end).step_by(usize::try_from(FAULTS).unwrap_or(1));
    for at in faults {
        scenario.steps.push(TreeStep { at, action: fault(&mut rng, &scenario) });
    }
    scenario.steps.sort_by_key(|step| step.at);
    let TreeOutcome { violation, stats, .. } = run(&scenario, RunOptions::default());
    violation.map_or(Ok(TreeRow { fan_out, nodes, stats }), Err)
}

/// Draws joins as often as nodes end, so that the size of the tree stays.
fn fault(rng: &mut Rng, scenario: &TreeScenario) -> TreeAction {
    draw_action(rng, scenario, &[0, 0, 1, 2, 4, 6])
}

/// Returns the smallest of the times that `percent` of them do not exceed.
fn percentile(times: &[u64], percent: usize) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}
