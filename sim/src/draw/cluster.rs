//! Draws the additional parts of scenarios with several nodes, or with a registry in a process of
//! its own.
//!
//! The draws have a generator of their own, so that they change no other draw of a seed.

use skirmish_core::rng::Rng;

use super::{StepKind, below, chance, choose, draw_kinds, generator, pick, scale, signed};
use crate::scenario::{Action, Shape, Step};

/// Percent of the seeds whose one node has its registry in its own process.
const ALONE_PERCENT: u64 = 40;

/// Most steps that are added to a scenario.
const MAX_STEPS: usize = 1_000;

const FAULTS: &[(&str, u64)] = &[
    ("move", 4),
    ("cut-nodes", 3),
    ("heal-nodes", 1),
    ("delay-nodes", 1),
    ("reset-nodes", 2),
    ("vanish-nodes", 1),
    ("cut-registry", 3),
    ("heal-registry", 1),
    ("delay-registry", 1),
    ("lag-watches", 2),
    ("blur-registry", 3),
    ("pause-registry", 1),
    ("restart-registry", 1),
    ("elect-registry", 1),
    ("compact-registry", 2),
    ("pause-node", 2),
    ("crash", 2),
    ("drain", 1),
];

/// Turns the scenarios of some seeds into clusters. Returns true if this seed's is one.
pub(super) fn draw_shape(seed: u64, shape: &mut Shape) -> bool {
    let mut rng = generator(seed, "cluster shape");
    let rng = &mut rng;
    if chance(rng, ALONE_PERCENT) {
        return false;
    }
    let node_latency_us = scale(rng, 50, 50_000);
    let registry_latency_us = scale(rng, 50, 100_000);
    let node_lease_s = pick(rng, &[3, 3, 5, 10]);
    let link_backoff_min_ms = pick(rng, &[20, 100]);
    *shape = Shape {
        nodes: pick(rng, &[1, 2, 2, 3, 3, 3, 4, 5]),
        remote_registry: 1,
        wander_percent: pick(rng, &[0, 0, 20, 60, 100]),
        node_skew_ms: shape.clock_bound_ms / 4,
        node_latency_us,
        node_jitter_us: pick(rng, &[0, node_latency_us / 10, node_latency_us]),
        node_pipe: scale(rng, 256, 1_048_576),
        link_heartbeat_ms: pick(rng, &[300, 1_000]),
        link_handshake_ms: pick(rng, &[1_000, 3_000]),
        link_backoff_min_ms,
        link_backoff_max_ms: link_backoff_min_ms * pick(rng, &[1, 10]),
        registry_latency_us,
        registry_jitter_us: pick(rng, &[0, registry_latency_us / 10, registry_latency_us]),
        registry_call_ms: pick(rng, &[500, node_lease_s * 1_000 / 3]),
        registry_keepalive_ms: pick(rng, &[500, 2_000, 5_000]),
        node_lease_s,
        room_lease_s: node_lease_s * pick(rng, &[1, 2, 6]),
        link_queue: pick(rng, &[16 << 10, 16 << 10, 16 << 20]),
        ..*shape
    };
    true
}

/// Adds the steps of a cluster.
pub(super) fn draw_steps(seed: u64, shape: &Shape, steps: &mut Vec<Step>) {
    let mut rng = generator(seed, "cluster steps");
    let rng = &mut rng;
    for step in steps.iter_mut() {
        step.action = at_some_node(rng, shape, step.action);
    }
    let kinds: Vec<StepKind> = if chance(rng, 15) { Vec::new() } else { draw_kinds(rng, FAULTS, 45) };
    let (gap, end) = (scale(rng, 100_000, 6_000_000), shape.chaos_ms * 1_000);
    let mut at = 0;
    let budget = steps.len() + MAX_STEPS;
    while steps.len() < budget {
        at += rng.range(0..=gap * 2);
        let Some(name) = choose(rng, &kinds).filter(|_| at < end) else { break };
        let action = draw_action(rng, shape, name);
        steps.push(Step { at, action });
        follow_up(rng, steps, at, end, action);
    }
    steps.sort_by_key(|step| step.at);
}

/// Moves a fault of the only node to any node.
fn at_some_node(rng: &mut Rng, shape: &Shape, action: Action) -> Action {
    let some = below(rng, shape.nodes);
    match action {
        Action::PauseNode { millis, .. } => Action::PauseNode { millis, node: some },
        Action::Crash { millis, silent, .. } => Action::Crash { millis, silent, node: some },
        Action::Drain { millis, .. } => Action::Drain { millis, node: some },
        Action::Partition { client, way, .. } if chance(rng, 50) => {
            Action::Partition { client, way, node: some + 1 }
        }
        Action::Jump { millis, .. } => {
            Action::Jump { process: below(rng, shape.clients + shape.nodes), millis }
        }
        other => other,
    }
}

fn draw_action(rng: &mut Rng, shape: &Shape, name: &'static str) -> Action {
    let client = below(rng, shape.clients);
    let node = below(rng, shape.nodes);
    let other = (node + below(rng, shape.nodes - 1) + 1) % signed(shape.nodes);
    let numbers = match name {
        "move" => {
            let late = scale(rng, 1, 2_000);
            [client, if chance(rng, 50) { 0 } else { signed(late) }, node]
        }
        "cut-nodes" => [node, other, signed(rng.range(0..=2))],
        "heal-nodes" | "reset-nodes" | "vanish-nodes" => [node, other, 0],
        "delay-nodes" => [node, other, signed(scale(rng, 50, 500_000))],
        "cut-registry" => [signed(rng.range(0..=2)), node, 0],
        "heal-registry" => [node, 0, 0],
        "delay-registry" => [signed(scale(rng, 50, 500_000)), node, 0],
        "lag-watches" => [signed(scale(rng, 10, 10_000)), node, 0],
        "blur-registry" => [signed(rng.range(1..=4)), node, 0],
        "pause-registry" => [signed(scale(rng, 10, 20_000)), 0, 0],
        "restart-registry" => [signed(scale(rng, 10, 10_000)), signed(rng.range(0..=1)), 0],
        "elect-registry" => [signed(scale(rng, 10, 5_000)), 0, 0],
        "compact-registry" => [signed(pick(rng, &[0, 0, 1, 5, 20])), 0, 0],
        "pause-node" => [signed(scale(rng, 100, 20_000)), node, 0],
        "crash" => [signed(scale(rng, 1, 20_000)), signed(rng.range(0..=1)), node],
        "drain" => [signed(scale(rng, 10, 5_000)), node, 0],
        _ => [client, node, other],
    };
    Action::from_numbers(name, &numbers).expect("the table above names actions only")
}

/// Adds the end of a fault that does not end by itself, and data that is under way at a fault that
/// needs some.
fn follow_up(rng: &mut Rng, steps: &mut Vec<Step>, at: u64, end: u64, action: Action) {
    let then = match action {
        Action::Move { client, .. } => {
            let say = Action::Say { client, room: 0, count: 3, size: 16 };
            steps.push(Step { at: at.saturating_sub(1), action: say });
            return;
        }
        Action::CutNodes { one, other, .. } => Action::HealNodes { one, other },
        Action::CutRegistry { node, .. } => Action::HealRegistry { node },
        Action::LagWatches { node, .. } => Action::LagWatches { millis: 0, node },
        _ => return,
    };
    let at = at + scale(rng, 1_000, 30_000_000);
    if at < end && chance(rng, 85) {
        steps.push(Step { at, action: then });
    }
}
