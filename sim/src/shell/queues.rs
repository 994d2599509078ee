//! Draws the steps of seeds with queues for matches: the draws of the machine world, translated to
//! the shell world, and more parties.

use skirmish_core::rng::Rng;

use super::actions::{ClientAction, ClientCommand, ShellAction};
use super::plan::pick;
use crate::draw::{generator, matches};
use crate::matches::MatcherFailure;
use crate::scenario::{Action, Shape, Step};

/// Percent of the seeds with queues, among those with a registry on a host of its own. The oracle
/// needs the registry's history, and a registry in a server's process does not show it.
const QUEUES_PERCENT: u64 = 62;

/// Time for which players gather, in microseconds: from the end of their searches to the last new one.
const GATHERING: u64 = 4_000_000;

/// Gives some seeds queues, enough clients for them, and the steps of their searches. The draws
/// have a generator of their own, so that they change no other draw of a seed.
pub(super) fn draw(seed: u64, shape: &mut Shape, steps: &mut Vec<(u64, ShellAction)>) {
    let mut rng = generator(seed, "shell matches");
    if !shape.has_remote_registry() || rng.range(0..=99) >= QUEUES_PERCENT {
        return;
    }
    let before = matches::give_queues(&mut rng, shape);
    let mut drawn = Vec::new();
    matches::draw_steps(&mut rng, before, shape, &mut drawn);
    if shape.queues > 1 {
        gather(&mut rng, shape, &mut drawn);
    }
    leave_matches(seed, shape, &mut drawn);
    steps.extend(drawn.into_iter().filter_map(|step| Some((step.at, act(step.action)?))));
}

/// Adds steps in which all players end their matches and searches, and then search for two against
/// two at about the same time, as parties or some of them alone: at some moments, and when the faults
/// end. Chance alone hardly ever brings a match with a party about.
fn gather(rng: &mut Rng, shape: &Shape, steps: &mut Vec<Step>) {
    let gap = pick(rng, &[6_000_000, 15_000_000]);
    let mut at = rng.range(500_000..=gap);
    let last = (shape.chaos_ms * 1_000).saturating_sub(GATHERING);
    while at + GATHERING < last {
        gather_at(rng, shape, at, steps);
        at += rng.range(gap / 4..=gap * 2);
    }
    gather_at(rng, shape, last, steps);
}

fn gather_at(rng: &mut Rng, shape: &Shape, at: u64, steps: &mut Vec<Step>) {
    let first = rng.range(0..=shape.clients - 1);
    let parties = pick(rng, &[[1, 1, 2, 2, 3, 3], [1, 1, 0, 0, 2, 2]]);
    for (number, party) in (first..first + shape.clients).zip(parties.into_iter().cycle()) {
        let client = i64::try_from(number % shape.clients).unwrap_or(0);
        steps.push(Step { at, action: Action::Cancel { client } });
        steps.push(Step { at, action: Action::LeaveMatch { client } });
        let then = at + GATHERING - rng.range(0..=300_000);
        steps.push(Step { at: then, action: Action::Queue { client, mode: 1, party, rating: 1_500 } });
    }
}

/// Adds to some seeds steps in which players leave their matches or give them up just when they
/// have no connection, come back at another server, and search for other matches.
fn leave_matches(seed: u64, shape: &mut Shape, steps: &mut Vec<Step>) {
    let mut rng = generator(seed, "shell partings");
    if rng.range(0..=99) >= 40 {
        return;
    }
    shape.match_ms = shape.match_ms.max(20_000);
    let gap = pick(&mut rng, &[6_000_000, 12_000_000]);
    let mut at = rng.range(500_000..=gap);
    while at < shape.chaos_ms * 1_000 {
        let out = at + rng.range(500_000..=4_000_000);
        for number in 0..shape.clients {
            let client = i64::try_from(number).unwrap_or(0);
            let queue = Action::Queue { client, mode: 0, party: 0, rating: 1_000 };
            steps.push(Step { at: at + rng.range(0..=300_000), action: queue });
            let out = out + rng.range(0..=300_000);
            let node = i64::try_from(rng.range(0..=shape.nodes.max(1) - 1)).unwrap_or(0);
            steps.push(Step { at: out, action: Action::Move { client, millis: 0, node } });
            let parts = pick(&mut rng, &[Action::LeaveMatch { client }, Action::GiveUp { client }]);
            // The connection is gone, or being closed.
            let after = pick(&mut rng, &[0, 10, 1_000, 50_000]);
            steps.push(Step { at: out + after, action: parts });
            steps.push(Step { at: out + after + rng.range(1_000..=1_000_000), action: queue });
        }
        at += rng.range(gap / 2..=gap * 2);
    }
}

/// Returns the shell world's action for an action of the machine world, if there is one.
fn act(action: Action) -> Option<ShellAction> {
    let size = |number: i64| usize::try_from(number).unwrap_or(0);
    let small = |number: i64| u32::try_from(number).unwrap_or(0);
    Some(match action {
        Action::Connect { client } => ShellAction::Client(size(client), ClientAction::Start),
        Action::Join { client, room, history } => {
            let command = ClientCommand::Join { room: small(room), history: small(history) };
            ShellAction::Client(size(client), ClientAction::Do(command))
        }
        Action::Queue { client, mode, party, rating } => {
            ShellAction::Client(size(client), ClientAction::Do(ClientCommand::Queue { mode, party, rating }))
        }
        Action::Cancel { client } => {
            ShellAction::Client(size(client), ClientAction::Do(ClientCommand::Cancel))
        }
        Action::GiveUp { client } => {
            ShellAction::Client(size(client), ClientAction::Do(ClientCommand::GiveUp))
        }
        Action::LeaveMatch { client } => {
            ShellAction::Client(size(client), ClientAction::Do(ClientCommand::LeaveMatches))
        }
        Action::Move { client, node, .. } => {
            ShellAction::Client(size(client), ClientAction::Move(size(node)))
        }
        Action::FailMatcher { mode, how, millis } => {
            let millis = u64::try_from(millis).unwrap_or(0);
            ShellAction::FailMatcher { mode, how: MatcherFailure::numbered(how), millis }
        }
        _ => return None,
    })
}
