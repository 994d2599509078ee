//! Application messages: routed by their type, and answered (row W4).

use skirmish_core::wire::{ToClient, encode};
use skirmish_io::client::{CommandError, Error, Event};
use skirmish_io::server::{ApplicationMessage, Handle};
use skirmish_proto::v1::{self, Reason};
use skirmish_tests::player::{Player, builder};
use skirmish_tests::server::Running;
use skirmish_tests::socket::Socket;

async fn start() -> Running {
    let attack = |attack: ApplicationMessage, server: &Handle| {
        let hit = [attack.player.as_str().as_bytes(), b" hits ", &attack.payload].concat();
        assert!(server.send(attack.conn, "mygame.v1.Attacked", &hit));
    };
    let defend = |defend: ApplicationMessage, server: &Handle| {
        assert!(server.send(defend.conn, "mygame.v1.Defended", &defend.payload));
    };
    let routes = |builder: skirmish_io::server::ServerBuilder| {
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
async fn a_message_that_has_no_handler_is_answered_and_its_connection_stays() {
    let server = start().await;
    let mut socket = Socket::open(server.address, "alice").await;
    socket.send_application("mygame.v1.Unheard", b"of").await;
    let ToClient::Unsupported(answer) = socket.next().await else { panic!("not the answer") };
    assert_eq!((answer.kind, answer.type_url.as_str()), (0, "mygame.v1.Unheard"));
    socket.send_application("mygame.v1.Defend", b"the wall").await;
    let ToClient::Application { payload, .. } = socket.next().await else { panic!("not the answer") };
    assert_eq!(payload, "the wall");
    let stats = server.handle.stats();
    assert_eq!((stats.unsupported, stats.protocol_errors), (1, 0));
}

#[tokio::test]
async fn a_kind_that_is_not_known_is_answered_and_its_connection_stays() {
    let server = start().await;
    let mut socket = Socket::open(server.address, "alice").await;
    for kind in [7, 9_999, u16::MAX] {
        let leave = v1::Leave { room: "of a kind of its own".to_owned(), request: 0 };
        let mut frame = encode(v1::Kind::Leave, &v1::Metadata::default(), &leave).to_vec();
        frame[10..12].copy_from_slice(&kind.to_be_bytes());
        let sum = crc32c::crc32c(&frame[..frame.len() - 4]);
        let end = frame.len() - 4;
        frame[end..].copy_from_slice(&sum.to_be_bytes());
        socket.try_send(frame.into()).await.expect("the connection is open");
        let ToClient::Unsupported(answer) = socket.next().await else { panic!("not the answer") };
        assert_eq!((answer.kind, answer.type_url.as_str()), (kind.into(), ""));
    }
    socket.join("arena").await;
    let stats = server.handle.stats();
    assert_eq!((stats.unsupported, stats.protocol_errors), (3, 0));
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
