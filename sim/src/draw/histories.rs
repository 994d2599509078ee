//! Draws histories that are rare although each of their steps is common: some bugs show only if
//! several events happen within moments. Steps that are drawn one by one hardly ever do so.
//!
//! A seed has few histories or none. Histories draw from generators of their own, so that they
//! change no other draw of a seed.

use skirmish_core::rng::Rng;

use super::{below, chance, generator, pick, scale, signed};
use crate::scenario::{Action, Shape, Step};

/// A history, the percentage of seeds with it among those that can have it, and its function.
struct DrawnHistory {
    name: &'static str,
    percent: u64,
    /// Returns true if a world of this shape can have the history.
    fits: fn(&Shape) -> bool,
    draw: fn(&mut Rng, &mut Shape, &mut Vec<Step>),
}

const HISTORIES: &[DrawnHistory] = &[
    DrawnHistory { name: "silent ends", percent: 10, fits: |_| true, draw: silent_ends },
    DrawnHistory { name: "two devices", percent: 12, fits: |shape| shape.clients > 1, draw: two_devices },
    DrawnHistory {
        name: "rooms come and go",
        percent: 30,
        fits: |shape| shape.nodes > 1 && shape.clients > 1,
        draw: rooms_come_and_go,
    },
    DrawnHistory {
        name: "doubtful claims",
        percent: 30,
        fits: Shape::has_remote_registry,
        draw: doubtful_claims,
    },
    DrawnHistory {
        name: "links break",
        percent: 20,
        fits: |shape| shape.nodes > 1 && shape.clients > 1,
        draw: links_break,
    },
    DrawnHistory { name: "slow farewells", percent: 20, fits: |shape| shape.nodes > 1, draw: slow_farewells },
    DrawnHistory {
        name: "matchers held up",
        percent: 30,
        fits: |shape| shape.nodes > 1 && shape.queues > 0,
        draw: matchers_held_up,
    },
    DrawnHistory {
        name: "searches end elsewhere",
        percent: 30,
        fits: |shape| shape.nodes > 1 && shape.queues > 0,
        draw: searches_end_elsewhere,
    },
    DrawnHistory {
        name: "clocks off",
        percent: 25,
        // The times of matches are as wrong as the clock of their matcher.
        fits: |shape| shape.nodes > 1 && shape.queues == 0,
        draw: clocks_off,
    },
    // Removes the steps that change clocks of nodes, so the history is drawn after them.
    DrawnHistory {
        name: "registry goes back",
        percent: 25,
        // No rule says how matches end in a registry that is lost.
        fits: |shape| shape.has_remote_registry() && shape.queues == 0,
        draw: registry_goes_back,
    },
    DrawnHistory { name: "late hellos", percent: 20, fits: |_| true, draw: late_hellos },
    DrawnHistory { name: "backlogs", percent: 15, fits: |_| true, draw: backlogs },
    DrawnHistory {
        name: "matches left",
        percent: 30,
        fits: |shape| shape.queues > 0 && shape.clients > 1,
        draw: matches_left,
    },
    DrawnHistory {
        name: "registry full",
        percent: 15,
        fits: Shape::has_remote_registry,
        draw: registry_full,
    },
    // Its steps follow all others.
    DrawnHistory { name: "suspensions", percent: 20, fits: |shape| shape.nodes > 1, draw: suspensions },
    // Last, since its function removes every fault.
    DrawnHistory {
        name: "joins cross",
        percent: 15,
        fits: |shape| shape.nodes > 1 && shape.clients > 1,
        draw: joins_cross,
    },
];

/// Gives some of the histories to some seeds.
pub(super) fn draw(seed: u64, shape: &mut Shape, steps: &mut Vec<Step>) {
    for history in HISTORIES.iter().filter(|history| (history.fits)(shape)).collect::<Vec<_>>() {
        let mut rng = generator(seed, history.name);
        if chance(&mut rng, history.percent) {
            (history.draw)(&mut rng, shape, steps);
        }
    }
    steps.sort_by_key(|step| step.at);
}

/// The registry is restored from a copy, or wiped. A node that starts meanwhile has no memory of
/// earlier epochs, so in this case the registry is away until all older nodes have stopped by
/// themselves. Wall clocks of nodes do not jump: nothing else keeps epochs apart if no older node
/// is left.
fn registry_goes_back(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    let clients = signed(shape.clients);
    steps.retain(|step| match step.action {
        Action::Jump { process, .. } => (1..=clients).contains(&process),
        Action::SetWrong { .. } => false,
        _ => true,
    });
    let starts = |step: &Step| matches!(step.action, Action::Crash { .. } | Action::Drain { .. });
    let least = if steps.iter().any(starts) { shape.room_lease_s * 1_000 + 500 } else { 1 };
    let mut at = 0;
    for _ in 0..rng.range(1..=3) {
        at += rng.range(0..=shape.chaos_ms * 500);
        steps.push(Step { at, action: Action::CopyRegistry {} });
        at += scale(rng, 10_000, 30_000_000);
        let millis = signed(least + scale(rng, 1, 5_000));
        let wiped = signed(rng.range(0..=1));
        steps.push(Step { at, action: Action::ReturnRegistry { millis, wiped } });
        // The end of all faults must not cut the return short.
        shape.chaos_ms = shape.chaos_ms.max(at / 1_000 + millis.unsigned_abs());
        at += scale(rng, 1_000_000, 30_000_000);
    }
    shape.chaos_ms = shape.chaos_ms.max(at / 1_000);
}

/// Wall clocks of nodes are off by more than the bound, from the start or from some moment on, for
/// a while or until all faults end.
fn clocks_off(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    shape.chaos_ms = shape.chaos_ms.max(15_000);
    for _ in 0..rng.range(1..=3) {
        let node = below(rng, shape.nodes);
        let at = if chance(rng, 40) { 0 } else { rng.range(0..=shape.chaos_ms * 800) };
        let far = signed(scale(rng, shape.clock_bound_ms * 2, 86_400_000));
        let millis = if chance(rng, 50) { far } else { -far };
        steps.push(Step { at, action: Action::SetWrong { node, millis } });
        if chance(rng, 60) {
            let at = at + scale(rng, 1_000, 20_000_000);
            steps.push(Step { at, action: Action::SetWrong { node, millis: 0 } });
        }
        // A client that the node must turn away.
        let client = below(rng, shape.clients);
        let at = at + scale(rng, 100_000, 10_000_000);
        steps.push(Step { at, action: Action::Move { client, millis: 0, node } });
    }
}

/// Players leave without a word: their connections die in silence, and the players neither come
/// back soon nor can say goodbye. Only the nodes' heartbeats can detect this.
fn silent_ends(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    shape.heartbeat_ms = pick(rng, &[500, 500, 2_000]);
    shape.handshake_ms = 2_000;
    shape.chaos_ms = shape.chaos_ms.max(15_000);
    for _ in 0..rng.range(1..=4) {
        let at = rng.range(0..=shape.chaos_ms * 500);
        let client = below(rng, shape.clients);
        let gone =
            if chance(rng, 50) { Action::CrashClient { client } } else { Action::Disconnect { client } };
        steps.push(Step { at, action: Action::Vanish { client } });
        steps.push(Step { at, action: gone });
        if chance(rng, 60) {
            let at = at + scale(rng, 1_000_000, 30_000_000);
            steps.push(Step { at, action: Action::Connect { client } });
        }
    }
}

/// A player writes the same property from two devices: first from one that is cut off, later from
/// the other. The older write arrives last.
fn two_devices(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    shape.players = shape.players.min(shape.clients / 2);
    for _ in 0..rng.range(2..=6) {
        let at = rng.range(0..=shape.chaos_ms * 800);
        let client = rng.range(0..=shape.clients - shape.players - 1);
        let (one, two) = (signed(client), signed(client + shape.players));
        let (one, two) = if chance(rng, 50) { (one, two) } else { (two, one) };
        let (room, name) = (below(rng, shape.rooms), below(rng, 2));
        let mut then = |after: u64, action: Action| steps.push(Step { at: at + after, action });
        then(0, Action::Connect { client: one });
        then(0, Action::Join { client: one, room, history: 0 });
        let mut after = scale(rng, 100_000, 1_000_000);
        then(after, Action::Partition { client: one, way: 0, node: 0 });
        then(after, Action::Set { client: one, room, name, value: 1 });
        after += scale(rng, 1_000, 1_000_000);
        then(after, Action::Connect { client: two });
        then(after, Action::Join { client: two, room, history: 0 });
        then(after, Action::Set { client: two, room, name, value: 2 });
        after += scale(rng, 10_000, 2_000_000);
        then(after, Action::Heal { client: one, node: 0 });
        after += scale(rng, 1_000, 1_000_000);
        then(after, Action::Connect { client: one });
    }
}

/// All members leave a room and come back after about the time in which nodes learn of the leaves.
/// A node then asks or speaks of a life of the room that is over at the receiver.
fn rooms_come_and_go(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    if chance(rng, 70) {
        // A node's news from the registry is ahead of its news from another node.
        shape.node_latency_us = scale(rng, 5_000, 200_000);
        shape.registry_latency_us = scale(rng, 50, 1_000);
        shape.registry_jitter_us = pick(rng, &[0, shape.registry_latency_us]);
    }
    let far = shape.node_latency_us + shape.node_jitter_us + shape.latency_us + shape.jitter_us;
    for _ in 0..rng.range(4..=12) {
        let at = rng.range(0..=shape.chaos_ms * 1_000);
        let room = below(rng, shape.rooms);
        let (one, other) = two_nodes(rng, shape);
        let disturbed = match rng.range(0..=5) {
            0 => Some(Action::ResetNodes { one, other }),
            1 => Some(Action::VanishNodes { one, other }),
            2 => Some(Action::DelayNodes { one, other, latency: signed(scale(rng, 1_000, 500_000)) }),
            3 => Some(Action::LagWatches { millis: signed(scale(rng, 10, 1_000)), node: one }),
            _ => None,
        };
        steps.extend(disturbed.map(|action| Step { at, action }));
        let away = scale(rng, 50, far * 8);
        for client in 0..shape.clients {
            let client = signed(client);
            let leaves = at + rng.range(0..=far);
            let comes = leaves + away + rng.range(0..=far);
            steps.push(Step { at: leaves, action: Action::Say { client, room, count: 2, size: 16 } });
            steps.push(Step { at: leaves, action: Action::Leave { client, room } });
            steps.push(Step { at: comes, action: Action::Join { client, room, history: 0 } });
        }
    }
}

/// A client gives a connection up while its `Hello` is under way, and dials again. The `Hello` arrives
/// after that of the newer connection. Meanwhile the leases of the nodes may lapse, so that either
/// node registers the session first.
fn late_hellos(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    shape.latency_us = scale(rng, 50_000, 200_000);
    shape.jitter_us = pick(rng, &[0, 1_000, shape.latency_us / 4]);
    (shape.backoff_min_ms, shape.backoff_max_ms) = (10, 60);
    shape.handshake_ms = 10_000;
    shape.session_ttl_ms = shape.session_ttl_ms.max(20_000);
    let (latency, upgrade, lease) = (shape.latency_us, shape.upgrade_us, shape.node_lease_s * 1_000_000);
    let (nodes, has_remote_registry) = (shape.node_count() as u64, shape.has_remote_registry());
    for _ in 0..rng.range(2..=6) {
        let at = rng.range(0..=shape.chaos_ms * 1_000);
        let client = below(rng, shape.clients);
        let (one, other) = (below(rng, nodes), below(rng, nodes));
        let mut then = |at: u64, action: Action| {
            steps.push(Step { at, action });
            shape.chaos_ms = shape.chaos_ms.max(at / 1_000 + 1);
        };
        then(at, Action::Connect { client });
        if has_remote_registry && chance(rng, 40) {
            for node in [one, other] {
                let at = at + rng.range(0..=2_000_000);
                then(at, Action::CutRegistry { way: pick(rng, &[0, 1, 2]), node });
                then(at + rng.range(lease / 2..=lease * 2), Action::HealRegistry { node });
            }
        }
        let mut at = at + scale(rng, 100_000, 4_000_000);
        for node in [one, pick(rng, &[one, other])] {
            then(at, Action::Move { client, millis: 1, node });
            // The `Hello` leaves after the upgrade, which takes two ways.
            at += latency * 2 + rng.range(0..=upgrade + latency);
            let millis = signed(scale(rng, 200, 6_000));
            then(at, Action::Move { client, millis, node: other });
            at += scale(rng, 500_000, 3_000_000);
        }
    }
}

/// Links between nodes break just after messages, and no later messages follow that would show the
/// missing ones.
fn links_break(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    let far = shape.node_latency_us + shape.node_jitter_us + shape.latency_us + shape.jitter_us;
    for _ in 0..rng.range(3..=10) {
        let at = rng.range(far * 2..=far * 2 + shape.chaos_ms * 1_000);
        for client in 0..shape.clients {
            let (client, room) = (signed(client), below(rng, shape.rooms));
            let count = pick(rng, &[1, 1, 3]);
            let at = at - rng.range(0..=far * 2);
            steps.push(Step { at, action: Action::Say { client, room, count, size: 16 } });
        }
        let (one, other) = two_nodes(rng, shape);
        let action = match rng.range(0..=1) {
            0 => Action::ResetNodes { one, other },
            _ => Action::VanishNodes { one, other },
        };
        steps.push(Step { at, action });
    }
}

/// The registry is silent to a node for about as long as the node's lease lasts, while clients
/// speak in the rooms that the node leads: the node is suspended, and then serves again. The
/// history is the last of a run, so that no later messages show the missing ones.
fn suspensions(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    shape.node_lease_s = 3;
    shape.room_lease_s = 18;
    shape.registry_keepalive_ms = 5_000;
    let lease = shape.node_lease_s * 1_000_000;
    let at = shape.chaos_ms * 1_000;
    shape.chaos_ms += 10_000;
    let lasts = rng.range(lease * 2 / 3..=lease * 2);
    let node = below(rng, shape.nodes);
    // Mostly the registry hears the node, and the node stays registered.
    let way = pick(rng, &[0, 1, 2, 2, 2]);
    steps.push(Step { at, action: Action::CutRegistry { way, node } });
    steps.push(Step { at: at + lasts, action: Action::HealRegistry { node } });
    for client in 0..shape.clients {
        for _ in 0..rng.range(0..=4) {
            let (client, room) = (signed(client), below(rng, shape.rooms));
            let at = at + rng.range(0..=lasts);
            steps.push(Step { at, action: Action::Say { client, room, count: 1, size: 16 } });
        }
    }
}

/// The registry has no space left for a while. Mostly nodes and registry have no other fault, so
/// that every node must detect this.
fn registry_full(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    if chance(rng, 70) {
        steps.retain(|step| !step.action.disturbs_servers());
    }
    let mut at = 0;
    for _ in 0..rng.range(1..=2) {
        at += rng.range(0..=shape.chaos_ms * 1_000);
        let millis = scale(rng, 100, 30_000);
        steps.push(Step { at, action: Action::FillRegistry { millis: signed(millis) } });
        at += millis * 1_000;
    }
    shape.chaos_ms = shape.chaos_ms.max(at / 1_000);
}

/// Clients send as much as their limits allow while a node is paused or the way to the node is cut.
/// All data is read at once, long after it was sent.
fn backlogs(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    shape.heartbeat_ms = pick(rng, &[2_000, 5_000]);
    shape.control_rate = pick(rng, &[10, 30]);
    shape.control_burst = pick(rng, &[10, 40]);
    shape.bytes_rate = pick(rng, &[16_384, 1 << 20]);
    shape.bytes_burst = pick(rng, &[1 << 16, 1 << 18]);
    shape.pipe_up = shape.pipe_up.max(4_096);
    for _ in 0..rng.range(1..=3) {
        let start = rng.range(0..=shape.chaos_ms * 1_000);
        let lasts = scale(rng, 500_000, 6_000_000);
        let client = below(rng, shape.clients);
        if chance(rng, 50) {
            let (millis, node) = (signed(lasts / 1_000), below(rng, shape.nodes));
            steps.push(Step { at: start, action: Action::PauseNode { millis, node } });
        } else {
            steps.push(Step { at: start, action: Action::Partition { client, way: 1, node: 0 } });
            steps.push(Step { at: start + lasts, action: Action::Heal { client, node: 0 } });
        }
        let gap = 900_000 / shape.control_rate;
        let mut at = start.saturating_sub(500_000);
        while at < start + lasts {
            at += gap;
            let action = match rng.range(0..=3) {
                0 => Action::Latest { client, room: 0, key: 0, count: 1 },
                _ => Action::Application { client, size: signed(pick(rng, &[0, 10, 1_000])) },
            };
            steps.push(Step { at, action });
        }
    }
}

/// A client says messages and moves to another node. The messages are late: on their way to the old
/// node, which is the last node to learn of the move, or on their way from there.
fn slow_farewells(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    for _ in 0..rng.range(2..=8) {
        let at = rng.range(0..=shape.chaos_ms * 1_000);
        let (client, room) = (below(rng, shape.clients), below(rng, shape.rooms));
        let (left, next) = two_nodes(rng, shape);
        steps.push(Step { at, action: Action::Move { client, millis: 0, node: left } });
        let at = at + scale(rng, 200_000, 2_000_000);
        let slow = if chance(rng, 50) { signed(scale(rng, 50_000, 700_000)) } else { 0 };
        let mut wait = |at, millis, latency| {
            steps.push(Step { at, action: Action::LagWatches { millis, node: left } });
            for other in (0..signed(shape.nodes)).filter(|other| *other != left && slow > 0) {
                steps.push(Step { at, action: Action::DelayNodes { one: left, other, latency } });
            }
        };
        wait(at, 3_000, slow);
        wait(at + 4_000_000, 0, signed(shape.node_latency_us));
        steps.push(Step { at, action: Action::Say { client, room, count: 3, size: 16 } });
        let at = at + rng.range(0..=(shape.latency_us + shape.jitter_us) * 2);
        let millis = pick(rng, &[0, 0, 1, 10]);
        steps.push(Step { at, action: Action::Move { client, millis, node: next } });
    }
}

/// The matcher is held up for about as long as its lease lasts, just when a match can be formed.
fn matchers_held_up(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    let lease_ms = shape.node_lease_s * 1_000;
    for _ in 0..rng.range(2..=5) {
        let at = rng.range(0..=shape.chaos_ms * 1_000);
        let mode = below(rng, shape.queues);
        for client in 0..shape.clients {
            let client = signed(client);
            let at = at + rng.range(0..=shape.queue_interval_ms * 2_000);
            steps.push(Step { at, action: Action::Queue { client, mode, party: 0, rating: 1_000 } });
        }
        let at = at + rng.range(0..=shape.queue_interval_ms * 3_000);
        let (how, millis) = (pick(rng, &[2, 3, 5, 7, 7, 7]), signed(rng.range(lease_ms / 2..=lease_ms * 3)));
        steps.push(Step { at, action: Action::FailMatcher { mode, how, millis } });
    }
}

/// A player searches through a node that is then cut off from the registry, until its lease is
/// over. Meanwhile the search ends through another node, and the player leaves. The changes that
/// the first node has missed are compacted before the node is back, or arrive late.
fn searches_end_elsewhere(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    shape.node_lease_s = 3;
    shape.room_lease_s = shape.room_lease_s.max(3);
    shape.session_ttl_ms = shape.session_ttl_ms.max(20_000);
    let lease = shape.node_lease_s * 1_000_000;
    for _ in 0..rng.range(1..=3) {
        let at = rng.range(0..=shape.chaos_ms * 1_000);
        let (client, mode) = (below(rng, shape.clients), below(rng, shape.queues));
        let (left, next) = two_nodes(rng, shape);
        let mut then = |at: u64, action: Action| {
            steps.push(Step { at, action });
            shape.chaos_ms = shape.chaos_ms.max(at / 1_000 + 1);
        };
        then(at, Action::Connect { client });
        then(at, Action::Move { client, millis: 0, node: left });
        let at = at + scale(rng, 100_000, 1_000_000);
        then(at, Action::Queue { client, mode, party: 0, rating: 1_000 });
        let at = at + scale(rng, 100_000, 2_000_000);
        then(at, Action::CutRegistry { way: pick(rng, &[0, 0, 1]), node: left });
        let back = at + rng.range(lease..=lease * 4);
        let at = at + rng.range(0..=lease);
        then(at, Action::Move { client, millis: pick(rng, &[0, 10, 2_000, 20_000]), node: next });
        let at = at + scale(rng, 100_000, 2_000_000);
        then(at, Action::Cancel { client });
        let at = at + scale(rng, 100_000, 2_000_000);
        then(at, Action::Disconnect { client });
        if chance(rng, 70) {
            then(back, Action::CompactRegistry { keep: 0 });
        } else {
            then(back, Action::LagWatches { millis: 10_000, node: left });
            then(back + 12_000_000, Action::LagWatches { millis: 0, node: left });
        }
        then(back, Action::HealRegistry { node: left });
    }
}

/// Players leave their matches or give them up just when they have no connection, and search for
/// other matches. They come back at another node, in another session, or while outcomes of requests
/// to the registry are unknown.
fn matches_left(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    // No player leaves because the match is played.
    shape.match_ms = shape.match_ms.max(20_000);
    shape.join_window_ms = shape.join_window_ms.max(10_000);
    for _ in 0..rng.range(1..=4) {
        let at = rng.range(0..=shape.chaos_ms * 1_000);
        let mode = below(rng, shape.queues);
        let out = at + scale(rng, 200_000, 4_000_000);
        for client in 0..shape.clients {
            let client = signed(client);
            let mut then = |at: u64, action: Action| {
                steps.push(Step { at, action });
                shape.chaos_ms = shape.chaos_ms.max(at / 1_000 + 1);
            };
            let queue = Action::Queue { client, mode, party: 0, rating: 1_000 };
            then(at, Action::Connect { client });
            then(at + rng.range(0..=shape.queue_interval_ms * 2_000), queue);
            if chance(rng, 20) {
                continue;
            }
            let out = out + rng.range(0..=300_000);
            let (node, millis) = (below(rng, shape.nodes), pick(rng, &[0, 1, 500]));
            let lost = match rng.range(0..=6) {
                0 => Some(Action::Reset { client }),
                1 => Some(Action::Vanish { client }),
                2 => Some(Action::Kick { client }),
                3 => None,
                _ => Some(Action::Move { client, millis, node }),
            };
            let leaves =
                if chance(rng, 60) { Action::LeaveMatch { client } } else { Action::GiveUp { client } };
            if chance(rng, 30) {
                then(out, Action::BlurRegistry { count: signed(rng.range(1..=3)), node });
            }
            let (first, second) = if chance(rng, 70) { (lost, Some(leaves)) } else { (Some(leaves), lost) };
            [first, second].into_iter().flatten().for_each(|action| then(out, action));
            if chance(rng, 30) {
                then(out + scale(rng, 1, 200_000), Action::Disconnect { client });
            }
            if chance(rng, 15) {
                then(out, Action::Crash { millis: signed(scale(rng, 10, 3_000)), silent: 0, node });
            }
            let back = out + scale(rng, 1_000, 2_000_000);
            then(back, Action::Connect { client });
            then(back + rng.range(0..=500_000), queue);
        }
    }
}

/// Outcomes of requests to the registry are unknown just when sessions, rooms and tickets are
/// claimed.
fn doubtful_claims(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    let percent = pick(rng, &[10, 30, 60]);
    let on_the_way = (shape.latency_us + shape.jitter_us) * 2 + shape.registry_latency_us;
    let claims = |step: &&Step| {
        matches!(step.action, Action::Connect { .. } | Action::Join { .. } | Action::Queue { .. })
    };
    let mut blurs = Vec::new();
    for step in steps.iter().filter(claims) {
        if !chance(rng, percent) {
            continue;
        }
        let at = step.at + rng.range(0..=on_the_way);
        for node in 0..shape.nodes {
            let count = signed(rng.range(1..=2));
            blurs.push(Step { at, action: Action::BlurRegistry { count, node: signed(node) } });
        }
    }
    steps.append(&mut blurs);
}

/// All clients join a room at once, at several nodes, and clients that join again cross the last
/// ones that leave. Nodes, links and registry have no fault; only their latencies differ.
fn joins_cross(rng: &mut Rng, shape: &mut Shape, steps: &mut Vec<Step>) {
    steps.retain(|step| !step.action.disturbs_servers());
    shape.players = shape.clients;
    shape.session_total = shape.session_total.max(shape.players);
    shape.node_latency_us = scale(rng, 50, 10_000);
    shape.node_jitter_us = pick(rng, &[0, shape.node_latency_us]);
    shape.registry_latency_us = scale(rng, 50, 20_000);
    shape.registry_jitter_us = pick(rng, &[shape.registry_latency_us, 20_000]);
    let far = shape.registry_latency_us + shape.registry_jitter_us + shape.latency_us + shape.jitter_us;
    let mut at = rng.range(0..=1_000_000);
    for _ in 0..rng.range(6..=16) {
        let room = below(rng, shape.rooms);
        let slow = below(rng, shape.nodes);
        let latency = signed(scale(rng, 50, 50_000));
        steps.push(Step { at, action: Action::DelayRegistry { latency, node: slow } });
        let spread = pick(rng, &[0, 1_000, far, far * 4]);
        for client in 0..shape.clients {
            let client = signed(client);
            let joins = at + rng.range(0..=spread);
            let leaves = joins + rng.range(0..=far * 8);
            let comes = leaves + pick(rng, &[0, far, far * 4]);
            steps.push(Step { at: joins, action: Action::Join { client, room, history: 0 } });
            if chance(rng, 70) {
                steps.push(Step { at: leaves, action: Action::Leave { client, room } });
                steps.push(Step { at: comes, action: Action::Join { client, room, history: 0 } });
            }
        }
        at += rng.range(far..=far * 32);
        shape.chaos_ms = shape.chaos_ms.max(at / 1_000 + 1);
    }
}

/// Draws two of several nodes.
fn two_nodes(rng: &mut Rng, shape: &Shape) -> (i64, i64) {
    let one = below(rng, shape.nodes);
    (one, (one + 1 + below(rng, shape.nodes - 1)) % signed(shape.nodes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::draw::draw;

    #[test]
    fn each_history_draws_from_a_generator_of_its_own() {
        let first: BTreeSet<u64> = HISTORIES.iter().map(|history| generator(1, history.name).u64()).collect();
        assert_eq!(first.len(), HISTORIES.len());
    }

    #[test]
    fn each_history_is_in_some_seeds_and_not_in_most() {
        let shapes: Vec<(u64, Shape)> = (0..400).map(|seed| (seed, draw(seed).shape)).collect();
        for history in HISTORIES {
            let has = |(seed, shape): &&(u64, Shape)| {
                (history.fits)(shape) && chance(&mut generator(*seed, history.name), history.percent)
            };
            let seeds = shapes.iter().filter(has).count();
            assert!((10..150).contains(&seeds), "{} is in {seeds} of 400 seeds", history.name);
        }
    }
}
