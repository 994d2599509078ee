//! Draws a run of the broadcast tree from a seed.

use skirmish_core::rng::Rng;

use crate::draw::{generator, pick};

/// Everything that a run depends on.
#[derive(Clone, Debug)]
pub struct TreeScenario {
    /// Seed of latencies and of their random parts.
    pub seed: u64,
    /// Maximum number of children of a node.
    pub fan_out: usize,
    /// Entries in the window of a node.
    pub window: usize,
    /// Number of zones.
    pub zones: u64,
    /// Number of hosts of a zone.
    pub hosts: u64,
    /// Highest one-way latency between zones, in microseconds.
    pub far: u64,
    /// Highest weight of a node.
    pub weight: u32,
    /// Time between two entries, in microseconds.
    pub interval: u64,
    /// Time from which broadcasts are measured: most nodes have joined.
    pub joined: u64,
    /// Time at which faults and entries end.
    pub end: u64,
    /// Steps, by time.
    pub steps: Vec<TreeStep>,
}

/// Step of a run.
#[derive(Clone, Copy, Debug)]
pub struct TreeStep {
    /// Microseconds from the start.
    pub at: u64,
    /// The act.
    pub action: TreeAction,
}

/// Something that happens to a node or a link. `node` is taken modulo the number of living nodes.
#[derive(Clone, Copy, Debug)]
pub enum TreeAction {
    /// A node joins, with this weight.
    Join(u32),
    /// A node leaves.
    Leave {
        /// Which node.
        node: u64,
    },
    /// A node dies.
    Die {
        /// Which node.
        node: u64,
        /// True if the links do not close, so that only silence shows the death.
        silent: bool,
    },
    /// All nodes of a host die.
    DieHost {
        /// Which node's host.
        node: u64,
    },
    /// Messages of a node take longer.
    Slow {
        /// Which node.
        node: u64,
        /// Addition, in microseconds.
        addition: u64,
    },
    /// The latency between two zones changes.
    Far {
        /// One zone.
        from: u64,
        /// The other zone.
        to: u64,
        /// Microseconds one way.
        latency: u64,
    },
    /// The weight of a node changes.
    Weigh {
        /// Which node.
        node: u64,
        /// The weight.
        weight: u32,
    },
}

/// Draws a run of up to `nodes` nodes. Each seed leaves some kinds of steps out.
#[must_use]
pub fn draw(seed: u64, nodes: u64, fan_out: Option<usize>) -> TreeScenario {
    let mut rng = generator(seed, "broadcast tree");
    let nodes = rng.range(2..=nodes.max(2));
    let joining = pick(&mut rng, &[20_000, 200_000, 1_000_000]);
    let busy = rng.range(1_000_000..=4_000_000);
    let drawn = usize::try_from(rng.range(2..=8)).unwrap_or(2);
    let mut scenario = TreeScenario {
        seed,
        fan_out: fan_out.unwrap_or(drawn),
        window: pick(&mut rng, &[4, 16, 64, 256]),
        zones: rng.range(1..=4),
        hosts: rng.range(2..=8),
        far: pick(&mut rng, &[2_000, 10_000, 40_000]),
        weight: pick(&mut rng, &[1, 3, 100, 10_000]),
        interval: pick(&mut rng, &[2_000, 10_000, 50_000]),
        joined: joining,
        end: joining + busy,
        steps: Vec::new(),
    };
    for _ in 0..nodes {
        let action = TreeAction::Join(draw_weight(&mut rng, scenario.weight));
        scenario.steps.push(TreeStep { at: rng.range(0..=joining), action });
    }
    let kinds: Vec<u64> = (0..7).filter(|_| rng.range(0..=2) > 0).collect();
    let count = if kinds.is_empty() { 0 } else { rng.range(1..=40 + nodes / 4) };
    for _ in 0..count {
        let at = rng.range(joining / 2..=scenario.end);
        let action = draw_action(&mut rng, &scenario, &kinds);
        scenario.steps.push(TreeStep { at, action });
    }
    scenario.steps.sort_by_key(|step| step.at);
    scenario
}

/// Most nodes have a small part of the highest weight.
pub(super) fn draw_weight(rng: &mut Rng, most: u32) -> u32 {
    let most = rng.range(1..=u64::from(most));
    u32::try_from(rng.range(1..=most)).unwrap_or(1)
}

pub(super) fn draw_action(rng: &mut Rng, scenario: &TreeScenario, kinds: &[u64]) -> TreeAction {
    let kind = pick(rng, kinds);
    let node = rng.u64();
    match kind {
        0 => TreeAction::Join(draw_weight(rng, scenario.weight)),
        1 => TreeAction::Leave { node },
        2 => TreeAction::Die { node, silent: rng.range(0..=2) > 0 },
        3 if rng.range(0..=3) == 0 => TreeAction::DieHost { node },
        3 => TreeAction::Die { node, silent: true },
        4 => TreeAction::Slow { node, addition: rng.range(0..=scenario.far) },
        5 => {
            let (from, to) = (rng.range(0..=scenario.zones - 1), rng.range(0..=scenario.zones - 1));
            TreeAction::Far { from, to, latency: rng.range(100..=2 * scenario.far) }
        }
        _ => TreeAction::Weigh { node, weight: draw_weight(rng, scenario.weight) },
    }
}
