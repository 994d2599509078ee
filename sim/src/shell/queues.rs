//! Draws what seeds with queues for matches have beside the others: what the machine world
//! draws, as it is done here.

use super::act::{Act, Deed, ToClient};
use crate::draw::{generator, matches};
use crate::matches::Failure;
use crate::scenario::{Action, Shape};

/// Percent of those seeds that have queues whose registry has a host of its own: its history
/// is what the oracle is told, and one in a server's process does not show it.
const QUEUES_PERCENT: u64 = 62;

/// Gives some seeds queues, clients enough for them, and the steps of their searches. It
/// draws from a generator of its own, so that what a seed means without queues does not
/// depend on it.
pub(super) fn draw(seed: u64, shape: &mut Shape, steps: &mut Vec<(u64, Act)>) {
    let mut rng = generator(seed, "shell matches");
    if !shape.has_remote_registry() || rng.range(0..=99) >= QUEUES_PERCENT {
        return;
    }
    let before = matches::give_queues(&mut rng, shape);
    let mut drawn = Vec::new();
    matches::draw_steps(&mut rng, before, shape, &mut drawn);
    steps.extend(drawn.into_iter().filter_map(|step| Some((step.at, act(step.action)?))));
}

/// What an action of the machine world is here, if there is a like.
fn act(action: Action) -> Option<Act> {
    let size = |number: i64| usize::try_from(number).unwrap_or(0);
    let small = |number: i64| u32::try_from(number).unwrap_or(0);
    Some(match action {
        Action::Connect { client } => Act::Client(size(client), ToClient::Start),
        Action::Join { client, room, history } => {
            let deed = Deed::Join { room: small(room), history: small(history) };
            Act::Client(size(client), ToClient::Do(deed))
        }
        Action::Queue { client, mode, party, rating } => {
            Act::Client(size(client), ToClient::Do(Deed::Queue { mode, party, rating }))
        }
        Action::Cancel { client } => Act::Client(size(client), ToClient::Do(Deed::Cancel)),
        Action::LeaveMatch { client } => Act::Client(size(client), ToClient::Do(Deed::LeaveMatches)),
        Action::Move { client, node, .. } => Act::Client(size(client), ToClient::Move(size(node))),
        Action::FailMatcher { mode, how, millis } => {
            let millis = u64::try_from(millis).unwrap_or(0);
            Act::FailMatcher { mode, how: Failure::numbered(how), millis }
        }
        _ => return None,
    })
}
