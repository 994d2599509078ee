//! Draws a scenario from a seed.
//!
//! Swarm testing: each seed switches whole kinds of workload and of fault off, and gives the others
//! wildly different rates and limits. Some seeds therefore reach states that an average of
//! everything would never reach.

mod cluster;
mod histories;
pub(crate) mod matches;

use skirmish_core::rng::Rng;

use crate::scenario::{Action, Scenario, Shape, Step};

/// Most steps of a drawn scenario.
const MAX_STEPS: usize = 2_000;

/// Longest time of the steps of a scenario from bytes, in microseconds. Steps beyond this are
/// executed all at once. Time without steps finds little, and slows a fuzzer down.
const MAX_TIME: u64 = 300_000_000;

/// Returns the scenario of a seed.
#[must_use]
pub fn draw(seed: u64) -> Scenario {
    let mut rng = generator(seed, "scenario");
    let mut shape = draw_shape(&mut rng);
    let mut steps = draw_steps(&mut rng, &shape);
    if cluster::draw_shape(seed, &mut shape) {
        cluster::draw_steps(seed, &shape, &mut steps);
    }
    draw_turns(seed, &mut shape);
    draw_groups(seed, &mut shape);
    draw_replicas(seed, &mut shape);
    if let Some(before) = matches::draw_shape(seed, &mut shape) {
        matches::draw_steps(&mut generator(seed, "match steps"), before, &shape, &mut steps);
    }
    histories::draw(seed, &mut shape, &mut steps);
    Scenario { seed, shape, steps }
}

/// Returns the scenario of arbitrary bytes: the first eight are the seed of its shape, and each six
/// that follow are a step.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Scenario {
    let (head, tail) = bytes.split_at(bytes.len().min(8));
    let mut first = [0; 8];
    first[..head.len()].copy_from_slice(head);
    let seed = u64::from_be_bytes(first);
    let mut shape = draw_shape(&mut generator(seed, "scenario"));
    cluster::draw_shape(seed, &mut shape);
    draw_turns(seed, &mut shape);
    matches::draw_shape(seed, &mut shape);
    let mut at = 0;
    let mut steps = Vec::new();
    for client in 0..shape.clients {
        let client = i64::try_from(client).unwrap_or(0);
        steps.push(Step { at: 0, action: Action::Connect { client } });
        steps.push(Step { at: 0, action: Action::Join { client, room: 0, history: 0 } });
    }
    for chunk in tail.chunks_exact(6).take(500) {
        let &[wait, kind, a, b, c, d] = chunk else { continue };
        // The square lets one byte reach from milliseconds to a minute.
        at = (at + u64::from(wait) * u64::from(wait) * 1_000).min(MAX_TIME);
        let name = Action::NAMES[usize::from(kind) % Action::NAMES.len()];
        let numbers = match name {
            "stall" | "pause-client" | "roam" => [a.into(), i64::from(b) * 100, 0, 0],
            "pause-node" | "drain" | "lag-watches" => [i64::from(a) * 50, b.into(), 0, 0],
            "crash" => [i64::from(a) * 50, i64::from(b & 1), c.into(), 0],
            "pause-registry" | "restart-registry" | "elect-registry" | "fill-registry" => {
                [i64::from(a) * 50, i64::from(b & 1), 0, 0]
            }
            "jump" => [a.into(), (i64::from(b) - 128) * 1_000, 0, 0],
            "delay" | "slow" => [a.into(), i64::from(b) * 1_000, 0, 0],
            "delay-registry" => [i64::from(a) * 1_000, b.into(), 0, 0],
            "delay-nodes" => [a.into(), b.into(), i64::from(c) * 1_000, 0],
            "move" => [a.into(), i64::from(b) * 50, c.into(), 0],
            "queue" => [a.into(), b.into(), i64::from(c) % 3, i64::from(d) * 10],
            "fail-matcher" => [a.into(), b.into(), i64::from(c) * 50, 0],
            _ => [a.into(), b.into(), i64::from(c) % 32, d.into()],
        };
        // These actions need conditions that bytes do not meet: see `histories`.
        let is_drawn = !matches!(name, "return-registry" | "set-wrong");
        if let Some(action) = Action::from_numbers(name, &numbers).filter(|_| is_drawn) {
            steps.push(Step { at, action });
        }
    }
    shape.chaos_ms = at / 1_000 + 1_000;
    Scenario { seed, shape, steps }
}

/// Returns a generator for one purpose of a seed.
#[must_use]
pub fn generator(seed: u64, purpose: &str) -> Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let purpose = purpose.as_bytes();
    let length = purpose.len().min(24);
    bytes[8..8 + length].copy_from_slice(&purpose[..length]);
    Rng::new(bytes)
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    let last = from.len() as u64 - 1;
    from[usize::try_from(rng.range(0..=last)).unwrap_or(0)]
}

fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.range(0..=99) < percent
}

/// Draws the number of one of `count` things.
fn below(rng: &mut Rng, count: u64) -> i64 {
    signed(rng.range(0..=count.max(1) - 1))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Draws a number between the two, with small numbers as likely as large ones.
fn scale(rng: &mut Rng, low: u64, high: u64) -> u64 {
    let doublings = u64::from((high / low.max(1)).max(1).ilog2());
    let base = low.max(1) << rng.range(0..=doublings);
    (base + rng.range(0..=base)).clamp(low, high)
}

/// Gives some seeds turns, from a generator of their own.
fn draw_turns(seed: u64, shape: &mut Shape) {
    let mut rng = generator(seed, "turns");
    if chance(&mut rng, 30) {
        shape.turns = 1;
        shape.turn_ms = pick(&mut rng, &[0, 2_000, 20_000]);
    }
}

/// Lets the requests of some seeds travel to the registry in groups, from a generator of their own.
fn draw_groups(seed: u64, shape: &mut Shape) {
    let mut rng = generator(seed, "groups");
    if shape.has_remote_registry() && chance(&mut rng, 40) {
        shape.group_us = pick(&mut rng, &[200, 2_000, 20_000]);
    }
}

/// Gives the rooms of some clusters a backup, from a generator of its own.
fn draw_replicas(seed: u64, shape: &mut Shape) {
    let mut rng = generator(seed, "replicas");
    if shape.nodes > 1 && chance(&mut rng, 60) {
        shape.replicas = 2;
    }
}

fn draw_shape(rng: &mut Rng) -> Shape {
    let clients = rng.range(1..=6);
    let session_ttl_ms = pick(rng, &[300, 1_000, 3_000, 10_000, 60_000]);
    let reliable_rate = pick(rng, &[2, 5, 20, 60, 1_000]);
    let latency_us = scale(rng, 50, 150_000);
    let backoff_min_ms = pick(rng, &[10, 100, 500]);
    let mut shape = Shape {
        clients,
        players: if chance(rng, 60) { clients } else { rng.range(1..=clients) },
        rooms: pick(rng, &[1, 1, 1, 2, 3]),
        chaos_ms: scale(rng, 2_000, 60_000),
        latency_us,
        jitter_us: pick(rng, &[0, latency_us / 10, latency_us, latency_us * 3]),
        pipe_up: scale(rng, 64, 65_536),
        pipe_down: scale(rng, 64, 65_536),
        upgrade_us: pick(rng, &[0, 1_000, 20_000]),
        close_waits: rng.range(0..=1),
        skew_ms: pick(rng, &[0, 0, 500, 10_000, 86_400_000]),
        drift_ppm: pick(rng, &[0, 0, 50, 1_000, 20_000]),
        linger_ms: pick(rng, &[100, 1_000, 5_000]),
        handshake_ms: pick(rng, &[2_000, 10_000]),
        heartbeat_ms: pick(rng, &[500, 2_000, 5_000, 15_000]),
        heartbeat_jitter: pick(rng, &[0, 10, 30]),
        reliable_rate,
        reliable_burst: reliable_rate * pick(rng, &[1, 2, 4]),
        latest_rate: pick(rng, &[2, 20, 120]),
        latest_burst: pick(rng, &[2, 40, 240]),
        session_ttl_ms,
        session_rooms: pick(rng, &[1, 2, 8]),
        window_entries: pick(rng, &[2, 4, 16, 64, 1_024]),
        window_bytes: pick(rng, &[512, 4_096, 262_144]),
        flush_ms: pick(rng, &[0, 0, 0, 5, 50]),
        latest_keys: pick(rng, &[1, 2, 8]),
        state_entries: pick(rng, &[2, 8, 32]),
        clock_bound_ms: pick(rng, &[200, 2_000]),
        tombstone_ms: 0,
        compress_from: pick(rng, &[0, 64, 1_024]),
        backoff_min_ms,
        backoff_max_ms: backoff_min_ms * 6,
        connect_ms: pick(rng, &[1_000, 5_000, 10_000]),
        outbox: pick(rng, &[2, 16, 1_024]),
        zstd_percent: pick(rng, &[0, 50, 100]),
        seal_percent: pick(rng, &[0, 0, 0, 50]),
        ..Shape::default()
    };
    let longest = shape.node_config().longest_absence();
    shape.tombstone_ms =
        u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) + pick(rng, &[1, 1_000, 60_000]);
    // Caps of whole tables are rarely small: with a small cap, little else happens.
    match rng.range(0..=19) {
        0 => shape.session_total = shape.players,
        1 => shape.room_total = 1,
        2 => shape.room_members = rng.range(1..=shape.clients),
        3 => shape.conn_total = shape.clients.max(2),
        4 => shape.conn_per_address = 2,
        5 => shape.conn_unauthenticated = 1,
        _ => {}
    }
    shape
}

/// A kind of step of a seed, and its frequency.
struct StepKind {
    name: &'static str,
    weight: u64,
}

fn draw_kinds(rng: &mut Rng, names: &[(&'static str, u64)], keep_percent: u64) -> Vec<StepKind> {
    let mut kinds = Vec::new();
    for &(name, usual) in names {
        let kept = chance(rng, keep_percent);
        let weight = usual << rng.range(0..=4);
        if kept {
            kinds.push(StepKind { name, weight });
        }
    }
    kinds
}

fn choose(rng: &mut Rng, kinds: &[StepKind]) -> Option<&'static str> {
    let total: u64 = kinds.iter().map(|kind| kind.weight).sum();
    let mut left = rng.range(0..=total.checked_sub(1)?);
    for kind in kinds {
        if left < kind.weight {
            return Some(kind.name);
        }
        left -= kind.weight;
    }
    None
}

const WORKLOAD: &[(&str, u64)] = &[
    ("connect", 6),
    ("disconnect", 1),
    ("join", 4),
    ("leave", 2),
    ("say", 24),
    ("latest", 8),
    ("set", 6),
    ("unset", 3),
    ("add", 4),
    ("application", 1),
    ("kick", 1),
];

const FAULTS: &[(&str, u64)] = &[
    ("partition", 3),
    ("heal", 2),
    ("delay", 1),
    ("reset", 3),
    ("vanish", 2),
    ("roam", 3),
    ("stall", 2),
    ("slow", 1),
    ("repeat", 2),
    ("pause-client", 1),
    ("pause-node", 1),
    ("crash", 1),
    ("drain", 1),
    ("crash-client", 1),
    ("jump", 1),
];

fn draw_steps(rng: &mut Rng, shape: &Shape) -> Vec<Step> {
    let mut steps = Vec::new();
    for client in 0..shape.clients {
        let client = i64::try_from(client).unwrap_or(0);
        if chance(rng, 90) {
            let at = rng.range(0..=1_000_000);
            steps.push(Step { at, action: Action::Connect { client } });
            let at = at + rng.range(0..=100_000);
            steps.push(Step { at, action: draw_action(rng, shape, "join", client) });
        }
    }
    let end = shape.chaos_ms * 1_000;
    let mut workload = draw_kinds(rng, WORKLOAD, 70);
    if !workload.iter().any(|kind| kind.name == "say") && chance(rng, 80) {
        workload.push(StepKind { name: "say", weight: 24 });
    }
    let faults = if chance(rng, 10) { Vec::new() } else { draw_kinds(rng, FAULTS, 45) };
    for (kinds, gap) in [(workload, scale(rng, 5_000, 1_000_000)), (faults, scale(rng, 100_000, 8_000_000))] {
        let mut at = 0;
        let budget = steps.len() + MAX_STEPS / 2;
        while steps.len() < budget {
            at += rng.range(0..=gap * 2);
            let Some(name) = choose(rng, &kinds).filter(|_| at < end) else { break };
            let client = i64::try_from(rng.range(0..=shape.clients - 1)).unwrap_or(0);
            let action = draw_action(rng, shape, name, client);
            steps.push(Step { at, action });
            follow_up(rng, &mut steps, at, end, action);
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// Adds the end of a fault that does not end by itself.
fn follow_up(rng: &mut Rng, steps: &mut Vec<Step>, at: u64, end: u64, action: Action) {
    if let Action::Roam { client, .. } = action {
        // Messages that are under way at the roam.
        let say = Action::Say { client, room: 0, count: 3, size: 16 };
        steps.push(Step { at: at.saturating_sub(1), action: say });
    }
    let (then, longest) = match action {
        Action::Partition { client, .. } => (Action::Heal { client, node: 0 }, 20_000_000),
        Action::Slow { client, gap } if gap > 0 => (Action::Slow { client, gap: 0 }, 20_000_000),
        Action::Disconnect { client } | Action::Kick { client } => (Action::Connect { client }, 2_000_000),
        _ => return,
    };
    let at = at + scale(rng, 1_000, longest);
    if at < end && chance(rng, 85) {
        steps.push(Step { at, action: then });
    }
}

fn draw_action(rng: &mut Rng, shape: &Shape, name: &'static str, client: i64) -> Action {
    let room = below(rng, shape.rooms);
    let numbers = match name {
        "join" => [client, room, signed(pick(rng, &[0, 0, 1, 10])), 0],
        "say" => {
            [client, room, signed(pick(rng, &[1, 1, 1, 1, 3, 20])), signed(pick(rng, &[8, 16, 100, 2_000]))]
        }
        "latest" => {
            [client, room, signed(rng.range(0..=shape.latest_keys)), signed(pick(rng, &[1, 1, 5, 40]))]
        }
        "set" => [client, room, signed(rng.range(0..=1)), signed(rng.range(0..=999))],
        "unset" => [client, room, signed(rng.range(0..=1)), 0],
        "add" => [client, room, signed(rng.range(0..=1)), signed(rng.range(0..=10)) - 4],
        "application" => [client, signed(pick(rng, &[0, 10, 1_000])), 0, 0],
        "partition" => [client, signed(rng.range(0..=2)), 0, 0],
        "delay" => [client, signed(scale(rng, 50, 1_000_000)), 0, 0],
        "roam" => {
            let late = scale(rng, 1, 2_000);
            [client, if chance(rng, 50) { 0 } else { signed(late) }, 0, 0]
        }
        "stall" => [client, signed(scale(rng, 100, 30_000)), 0, 0],
        "repeat" => [client, signed(rng.range(1..=9)), 0, 0],
        "slow" => [client, signed(scale(rng, 1_000, 500_000)), 0, 0],
        "pause-client" => [client, signed(scale(rng, 10, 20_000)), 0, 0],
        "pause-node" => [signed(scale(rng, 10, 10_000)), 0, 0, 0],
        "crash" => [signed(scale(rng, 1, 5_000)), signed(rng.range(0..=1)), 0, 0],
        "drain" => [signed(scale(rng, 10, 5_000)), 0, 0, 0],
        "jump" => {
            let millis = signed(scale(rng, 10, 4_000_000));
            let process = signed(rng.range(0..=shape.clients));
            [process, if chance(rng, 50) { millis } else { -millis }, 0, 0]
        }
        _ => [client, room, 0, 0],
    };
    Action::from_numbers(name, &numbers).expect("the tables above name actions only")
}
