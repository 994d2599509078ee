//! Turns of a room (row M1), as its members see them.

use std::time::Duration;

use skirmish_io::client::Event;
use skirmish_proto::v1::EntryKind;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::server::Running;

/// Returns the turn that begins with an entry: its number, true if time ended the turn before, and the
/// message.
fn turn(event: &Event) -> Option<(u32, bool, String)> {
    let Event::Entry { turn: Some(turn), kind, body, .. } = event else { return None };
    let said = String::from_utf8(body.to_vec()).expect("it is text");
    Some((turn.number, *kind == EntryKind::Turn, said))
}

#[tokio::test]
async fn players_end_turns_and_so_does_time() {
    let server = Running::start(|config| config.rooms.turn_time = Duration::from_secs(1)).await;
    let mut alice = Player::join(builder(&server.url(), "alice"), "arena").await;
    let mut bob = Player::join(builder(&server.url(), "bob"), "arena").await;
    alice.client.end_turn("arena", 0, "begin", "").await.expect("there is a place in the outbox");
    for player in [&mut alice, &mut bob] {
        assert_eq!(player.until("the first turn", turn).await, (1, false, "begin".to_owned()));
    }
    bob.client.end_turn("arena", 1, "my move", "").await.expect("there is a place in the outbox");
    for player in [&mut alice, &mut bob] {
        assert_eq!(player.until("the second turn", turn).await.0, 2);
        let third = player.until("the third turn", turn).await;
        assert_eq!((third.0, third.1), (3, true), "nobody has ended the second");
    }
    let mut cid = Player::join(builder(&server.url(), "cid"), "arena").await;
    let told = |event: &Event| match event {
        Event::Snapshot { turn, .. } => Some(turn.number),
        _ => None,
    };
    let seen = cid.seen.iter().find_map(told);
    let told = match seen {
        Some(turn) => turn,
        None => cid.until("a snapshot", told).await,
    };
    assert!(told >= 3, "{told}");
}
