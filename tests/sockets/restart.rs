//! A kill and a new start of the server: clients reconnect by themselves and are notified of all losses.

use rustix::process::Signal;
use skirmish_io::client::{ClientState, Event, Outcome};
use skirmish_proto::v1::LeftReason;
use skirmish_tests::history::complaints;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::Process;

#[tokio::test]
async fn after_a_kill_clients_come_back_and_are_told_what_was_lost() {
    let server = Process::start(&[]).await;
    let mut players = Vec::new();
    for name in ["alice", "bob"] {
        players.push(Player::join(builder(&server.url(), name), "arena").await);
    }
    let acknowledged = players[0].say("arena", "before").await;
    assert_eq!(players[0].outcome(acknowledged).await, Outcome::Acknowledged);
    players[1].hears(&["before"]).await;

    // The process is stopped: new messages are sent but never acknowledged.
    server.signal(Signal::STOP);
    let unacknowledged = players[0].say("arena", "into the void").await;
    let address = server.kill().await;
    for player in &mut players {
        player
            .until("to be disconnected", |event| {
                matches!(event, Event::StateChanged { to: ClientState::Disconnected, .. }).then_some(())
            })
            .await;
    }
    let meanwhile = players[0].say("arena", "said meanwhile").await;
    let server = Process::start_at(address, &[]).await;
    assert_eq!(server.address, address);

    for player in &mut players {
        let told = |event: &Event| match event {
            Event::Session { lost, resumed, .. } => Some((*lost, *resumed)),
            _ => None,
        };
        assert_eq!(player.until("to be told that the session is lost", told).await, (true, false));
        player
            .has_seen("to be told that the room is gone", |seen| {
                let gone = |event: &Event| {
                    matches!(event, Event::Left { room, reason: LeftReason::Gone } if room == "arena")
                };
                seen.iter().any(gone)
            })
            .await;
        let joined = |event: &Event| match event {
            Event::Joined { resumed, .. } => Some(*resumed),
            _ => None,
        };
        assert!(!player.until("to be in the room again", joined).await, "a room that is gone is not resumed");
    }
    // A sent but unacknowledged message has the outcome unknown; an unsent message is sent now.
    assert_eq!(players[0].outcome(unacknowledged).await, Outcome::Unknown);
    assert_eq!(players[0].outcome(meanwhile).await, Outcome::Acknowledged);

    // The players continue.
    let after = players[1].say("arena", "after").await;
    assert_eq!(players[1].outcome(after).await, Outcome::Acknowledged);
    players[0].hears(&["after", "said meanwhile"]).await;
    for player in players {
        let seen = player.leave().await;
        assert_eq!(complaints(&seen), Vec::<String>::new(), "{seen:#?}");
    }
}
