//! Costs of the server are rated: a flooding client is closed, and other players lose nothing.

use std::time::Duration;

use skirmish_core::wire::{Zstd, encode};
use skirmish_io::config::{Config, RateLimit};
use skirmish_proto::v1::{self, Kind, Metadata, Reason};
use skirmish_tests::server::Running;
use skirmish_tests::socket::{Socket, say, web_socket_frame};

/// Sets a short heartbeat, so that a third of the longest stall, after which a flood is closed, is soon over.
fn brief(config: &mut Config) {
    config.heartbeat.interval = Duration::from_secs(1);
    config.rates.bytes = RateLimit { per_second: 64 * 1024, burst: 128 * 1024 };
}

/// A player plays while another client sends `first` and then `bytes` without end.
async fn floods(first: &[u8], bytes: &[u8]) {
    let server = Running::start(brief).await;
    let address = server.address;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let player = tokio::spawn(async move {
        let mut player = Socket::open(address, "player").await;
        player.join("arena").await;
        let mut said = 0;
        while stopped.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
            said += 1;
            player.say("arena", said, said.to_string()).await;
            let entry = player.said().await;
            assert_eq!((entry.client_seq, entry.body), (said, said.to_string().into()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        said
    });
    let mut mallory = Socket::open(address, "mallory").await;
    mallory.join("den").await;
    mallory.send_raw(first).await;
    let goodbye = mallory.flood(bytes).await;
    assert_eq!(goodbye.reason(), Reason::RateLimited, "{}", goodbye.message);
    mallory.ended().await;
    server.connections(1).await;
    drop(stop);
    assert!(player.await.expect("the player is not disturbed") > 1);
    server.audit();
}

/// Returns the same frame many times, each in a WebSocket message of its own.
fn messages(frame: &[u8]) -> Vec<u8> {
    web_socket_frame(true, 2, true, frame).repeat(64)
}

#[tokio::test]
async fn requests() {
    let leave = v1::Leave { room: "elsewhere".to_owned(), request: 0 };
    floods(&[], &messages(&encode(Kind::Leave, &Metadata::default(), &leave))).await;
}

#[tokio::test]
async fn pongs_that_nobody_has_asked_for() {
    floods(&[], &messages(&encode(Kind::Pong, &Metadata::default(), &v1::Pong { nonce: 7 }))).await;
}

#[tokio::test]
async fn reliable_messages_that_are_refused() {
    let gap = say("den", 1_000, "never the next");
    floods(&[], &messages(&encode(Kind::Say, &Metadata::default(), &gap))).await;
}

#[tokio::test]
async fn reliable_messages_for_a_room_that_it_is_not_in() {
    let stray = say("elsewhere", 1, "stray");
    floods(&[], &messages(&encode(Kind::Say, &Metadata::default(), &stray))).await;
}

#[tokio::test]
async fn latest_messages_that_are_dropped() {
    let latest = v1::Latest { room: "den".to_owned(), ..v1::Latest::default() };
    floods(&[], &messages(&encode(Kind::Latest, &Metadata::default(), &latest))).await;
}

#[tokio::test]
async fn frames_that_inflate() {
    let large = say("elsewhere", 1, vec![0; 16_000]);
    let plain = encode(Kind::Say, &Metadata::default(), &large);
    let frame = Zstd::default().deflate(&plain).expect("it becomes smaller");
    assert!(frame.len() < 100);
    floods(&[], &messages(&frame)).await;
}

#[tokio::test]
async fn pings_of_the_web_socket() {
    floods(&[], &web_socket_frame(true, 9, true, b"?").repeat(64)).await;
}

#[tokio::test]
async fn pongs_of_the_web_socket() {
    floods(&[], &web_socket_frame(true, 10, true, b"!").repeat(64)).await;
}

#[tokio::test]
async fn fragments_without_end() {
    let begin = web_socket_frame(false, 2, true, b"to be continued");
    floods(&begin, &web_socket_frame(false, 0, true, &[]).repeat(64)).await;
}

#[tokio::test]
async fn fragments_of_good_messages() {
    let frame =
        encode(Kind::Leave, &Metadata::default(), &v1::Leave { room: "elsewhere".to_owned(), request: 0 });
    let mut message = web_socket_frame(false, 2, true, &[]);
    for byte in &frame[..] {
        message.extend(web_socket_frame(false, 0, true, std::slice::from_ref(byte)));
    }
    message.extend(web_socket_frame(true, 0, true, &[]));
    floods(&[], &message).await;
}

#[tokio::test]
async fn pings_before_hello() {
    let server = Running::start(brief).await;
    let mut mallory = Socket::connect(server.address, "mallory").await;
    let goodbye = mallory.flood(&web_socket_frame(true, 9, true, b"?").repeat(64)).await;
    assert_eq!(goodbye.reason(), Reason::RateLimited, "{}", goodbye.message);
    server.connections(0).await;
}
