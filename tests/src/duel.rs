//! Players in a queue for matches of two, and their play.

use std::collections::BTreeSet;

use skirmish_io::client::{Event, Matched, Outcome, Queue, TicketState};

use crate::player::Player;

/// Setting of a matchmaking queue for two players, with a short interval.
pub const DUEL: &str = "matchmaking.queues=[{ mode = \"duel\", teams = 2, team_size = 1, regions = [\"local\"], interval = \"10ms\" }]";

/// Returns a search for any match of a mode.
#[must_use]
pub fn wish(mode: &str) -> Queue {
    Queue { mode: mode.to_owned(), ..Queue::default() }
}

/// Queues the player, and waits until the server has the ticket.
///
/// # Panics
/// If the player has a search already, or gets a match.
pub async fn queue(player: &mut Player) {
    player.client.queue(wish("duel")).await.expect("nothing else is searched for");
    assert_eq!(state(player).await.0, TicketState::Waiting);
}

/// Returns the next state of the player's ticket, with the reason.
///
/// # Panics
/// If the player gets a match.
pub async fn state(player: &mut Player) -> (TicketState, String) {
    let ticket_state = |event: &Event| match event {
        Event::Ticket { state: TicketState::Unavailable | TicketState::Lost, .. } => None,
        Event::Ticket { state, reason, .. } => Some((*state, reason.clone())),
        Event::Matched(matched) => panic!("nobody was there to play with: {matched:?}"),
        _ => None,
    };
    player.until("news of the ticket", ticket_state).await
}

/// Returns the player's next match.
pub async fn matched(player: &mut Player) -> Matched {
    let found = |event: &Event| match event {
        Event::Matched(matched) => Some(matched.clone()),
        _ => None,
    };
    player.until("a match", found).await
}

/// Checks that alice and bob got the same match, in different teams. Then they talk in its room and leave.
pub async fn play(alice: &mut Player, bob: &mut Player, found: [&Matched; 2]) {
    meet(alice, bob, found).await;
    part(alice, bob, found[0]).await;
}

/// Checks that alice and bob got the same match, in different teams. Then they talk in its room.
///
/// # Panics
/// If the matches differ, or have other players.
pub async fn meet(alice: &mut Player, bob: &mut Player, found: [&Matched; 2]) {
    let [one, other] = found;
    assert_eq!((&one.r#match, &one.room, &one.teams), (&other.r#match, &other.room, &other.teams));
    for (matched, name) in [(one, "alice"), (other, "bob")] {
        let team = &matched.teams[usize::try_from(matched.team).expect("a small number")];
        assert_eq!(team.players, [name], "{matched:?}");
    }
    let all: BTreeSet<_> = one.teams.iter().flat_map(|team| &team.players).map(String::as_str).collect();
    assert_eq!(all, BTreeSet::from(["alice", "bob"]));
    for player in [&mut *alice, &mut *bob] {
        player.client.join(&one.room, 0).await.expect("a room");
        player.joined(&one.room).await;
    }
    let body = format!("good luck in {}", one.room);
    let greeting = alice.say(&one.room, &body).await;
    assert_eq!(alice.outcome(greeting).await, Outcome::Acknowledged);
    bob.hears(&[&body]).await;
}

/// Both players leave the room of their match.
///
/// # Panics
/// If a player is not in the room.
pub async fn part(alice: &mut Player, bob: &mut Player, found: &Matched) {
    for player in [alice, bob] {
        player.client.leave(&found.room).await.expect("a member");
        let left = |event: &Event| matches!(event, Event::Left { room, .. } if *room == found.room);
        player.until("to have left", |event| left(event).then_some(())).await;
    }
}
