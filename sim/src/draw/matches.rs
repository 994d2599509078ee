//! Draws the additional parts of scenarios with queues for matches.
//!
//! The draws have a generator of their own, so that they change no other draw of a seed.

use skirmish_core::rng::Rng;

use super::{StepKind, below, chance, choose, draw_kinds, generator, pick, scale, signed};
use crate::scenario::{Action, Shape, Step};

/// Percent of the seeds that have queues.
const QUEUES_PERCENT: u64 = 45;

/// Most steps that are added to a scenario.
const MAX_STEPS: usize = 600;

const KINDS: &[(&str, u64)] =
    &[("queue", 12), ("cancel", 3), ("leave-match", 2), ("fail-matcher", 1), ("move", 1)];

/// Gives some seeds queues, and enough clients for them. Returns the number of clients before;
/// `None` for seeds without queues.
pub(super) fn draw_shape(seed: u64, shape: &mut Shape) -> Option<u64> {
    let mut rng = generator(seed, "match shape");
    let before = chance(&mut rng, QUEUES_PERCENT).then(|| give_queues(&mut rng, shape))?;
    let mut rng = generator(seed, "absence");
    shape.absence_delay_ms = pick(&mut rng, &[0, 20, 200, 1_000]);
    shape.absence_grace_ms = pick(&mut rng, &[500, 3_000, 10_000, 30_000]);
    Some(before)
}

/// Gives a scenario queues, and enough clients for them. Returns the number of clients before.
pub(crate) fn give_queues(rng: &mut Rng, shape: &mut Shape) -> u64 {
    let before = shape.clients;
    let queues = pick(rng, &[1, 2]);
    let clients = before.max(rng.range(queues * 2..=queues * 2 + 3));
    let players = if chance(rng, 80) { clients } else { rng.range(2..=clients) };
    let rating_start = pick(rng, &[0, 50, 100, 1_000]);
    *shape = Shape {
        queues,
        clients,
        players,
        // Caps of whole tables stay as low as they were drawn, but let every client in.
        session_total: shape.session_total.max(players),
        conn_total: shape.conn_total.max(clients),
        room_members: shape.room_members.max(queues * 2),
        session_rooms: if chance(rng, 80) { shape.session_rooms + 1 } else { shape.session_rooms },
        queue_interval_ms: pick(rng, &[50, 250, 1_000]),
        queue_time_out_ms: pick(rng, &[2_000, 5_000, 10_000, 20_000]),
        rating_start,
        rating_per_s: pick(rng, &[0, 20, 100, 500]),
        rating_most: rating_start.max(pick(rng, &[100, 600, 2_000])),
        join_window_ms: pick(rng, &[500, 2_000, 10_000]),
        party_grace_ms: pick(rng, &[200, 1_000, 5_000]),
        sweep_ms: pick(rng, &[300, 1_000, 5_000]),
        queue_page: pick(rng, &[1, 3, 500]),
        queue_calls: pick(rng, &[3, 4, 64]),
        match_ms: pick(rng, &[100, 2_000, 10_000]),
        backfill: rng.range(0..=1),
        ..*shape
    };
    before
}

/// Adds the steps of searches for matches; `before` is the number of clients that already have
/// other steps.
pub(crate) fn draw_steps(rng: &mut Rng, before: u64, shape: &Shape, steps: &mut Vec<Step>) {
    let end = shape.chaos_ms * 1_000;
    for client in 0..shape.clients {
        let at = rng.range(0..=1_000_000);
        let queues = chance(rng, 70);
        let joins = chance(rng, 50);
        if client >= before {
            let client = signed(client);
            steps.push(Step { at, action: Action::Connect { client } });
            if joins {
                steps.push(Step { at, action: Action::Join { client, room: 0, history: 0 } });
            }
        }
        if queues {
            let at = at + scale(rng, 1_000, 2_000_000);
            search(rng, shape, steps, at, client);
        }
    }
    let mut kinds = draw_kinds(rng, KINDS, 70);
    if !kinds.iter().any(|kind| kind.name == "queue") {
        kinds.push(StepKind { name: "queue", weight: 12 });
    }
    let (gap, budget) = (scale(rng, 50_000, 2_000_000), steps.len() + MAX_STEPS);
    let mut at = 0;
    while steps.len() < budget {
        at += rng.range(0..=gap * 2);
        let Some(name) = choose(rng, &kinds).filter(|_| at < end) else { break };
        let client = rng.range(0..=shape.clients - 1);
        if name == "queue" {
            search(rng, shape, steps, at, client);
            continue;
        }
        let numbers = match name {
            "move" => [signed(client), signed(scale(rng, 1, 2_000)), below(rng, shape.nodes), 0],
            "fail-matcher" => [below(rng, shape.queues), below(rng, 8), signed(scale(rng, 100, 15_000)), 0],
            _ => [signed(client), 0, 0, 0],
        };
        let action = Action::from_numbers(name, &numbers).expect("the table above names actions only");
        steps.push(Step { at, action });
    }
    steps.sort_by_key(|step| step.at);
}

/// Adds a search of a client, and often a search of another client at about the same time.
fn search(rng: &mut Rng, shape: &Shape, steps: &mut Vec<Step>, at: u64, client: u64) {
    let mode = below(rng, shape.queues);
    let party = if mode == 1 && chance(rng, 50) { signed(rng.range(1..=2)) } else { 0 };
    let mut rating = || signed(1_000 + pick(rng, &[0, 0, 10, 60, 150, 400, 1_500]));
    let (one, two) = (rating(), rating());
    steps.push(Step { at, action: Action::Queue { client: signed(client), mode, party, rating: one } });
    if chance(rng, if party > 0 { 90 } else { 50 }) {
        let other = (client + rng.range(1..=shape.clients - 1)) % shape.clients;
        let at = at + scale(rng, 1, 2_000_000);
        steps.push(Step { at, action: Action::Queue { client: signed(other), mode, party, rating: two } });
    }
}
