//! Messages of the application: routed by their type, and answered (row W4).

use skirmish_io::client::{CommandError, Error, Event};
use skirmish_io::server::{Handle, Message};
use skirmish_proto::v1::Reason;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::server::Running;
use skirmish_tests::socket::Socket;

async fn start() -> Running {
    let attack = |attack: Message, server: &Handle| {
        let hit = [attack.player.as_str().as_bytes(), b" hits ", &attack.payload].concat();
        assert!(server.send(attack.conn, "mygame.v1.Attacked", &hit));
    };
    let defend = |defend: Message, server: &Handle| {
        assert!(server.send(defend.conn, "mygame.v1.Defended", &defend.payload));
    };
    let routes = |builder: skirmish_io::server::Builder| {
        builder.route("mygame.v1.Attack", attack).route("mygame.v1.Defend", defend)
    };
    Running::build(|_| {}, routes).await
}

#[tokio::test]
async fn a_message_goes_to_the_handler_of_its_type_and_is_answered() {
    let server = start().await;
    let mut players = Vec::new();
    for name in ["alice", "bob"] {
        players.push(Player::join(builder(&server.url(), name), "arena").await);
    }
    for (player, hit) in players.iter_mut().zip(["alice hits the gate", "bob hits the gate"]) {
        player.client.send("mygame.v1.Defend", "the wall").await.expect("it is connected");
        player.client.send("mygame.v1.Attack", "the gate").await.expect("it is connected");
        let mut answers = Vec::new();
        while answers.len() < 2 {
            if let Event::Application { type_url, payload } = player.next().await {
                answers.push((type_url, payload));
            }
        }
        let expected = [
            ("mygame.v1.Defended".to_owned(), "the wall".into()),
            ("mygame.v1.Attacked".to_owned(), hit.into()),
        ];
        assert_eq!(answers, expected);
    }
}

#[tokio::test]
async fn a_message_that_has_no_handler_closes_its_connection() {
    let server = start().await;
    let mut socket = Socket::open(server.address, "alice").await;
    socket.send_application("mygame.v1.Unheard", b"of").await;
    socket.closed(Reason::ProtocolError, 1002).await;
    assert_eq!(server.handle.stats().sessions, 1, "the session is kept");
}

#[tokio::test]
async fn the_application_can_kick_a_player() {
    let server = start().await;
    let mut alice = Socket::open(server.address, "alice").await;
    assert!(server.handle.kick("alice") && !server.handle.kick("bob"));
    alice.closed(Reason::Kicked, 1008).await;
    assert_eq!(server.handle.stats().sessions, 0);
}

#[tokio::test]
async fn a_message_needs_a_connection() {
    let server = start().await;
    let url = server.url();
    server.stop().await;
    let alice = Player::start(builder(&url, "alice"));
    let error = alice.client.send("mygame.v1.Attack", "the gate").await.expect_err("there is no server");
    assert!(matches!(error, Error::Command(CommandError::NotConnected)), "{error}");
}
