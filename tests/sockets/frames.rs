//! Violations of the protocol: reported, closed with the right code, and harmless to other clients (rows W2,
//! H2).

use std::time::Duration;

use skirmish_core::wire::{ToClient, Zstd, encode};
use skirmish_io::config::{Config, RateLimit};
use skirmish_proto::v1::{self, Kind, Metadata, Reason};
use skirmish_tests::server::Running;
use skirmish_tests::socket::{Socket, say, web_socket_frame};

/// Close code for a protocol error.
const PROTOCOL: u16 = 1002;
/// Close code for unsupported data.
const UNSUPPORTED: u16 = 1003;
/// Close code for a message that is too big.
const TOO_BIG: u16 = 1009;
/// Close code for a policy violation.
const POLICY: u16 = 1008;

/// One client in a room misbehaves in one way, and a bystander plays on.
async fn misbehave(reason: Reason, code: u16, how: impl AsyncFnOnce(&mut Socket)) {
    let server = Running::start(|_| {}).await;
    let mut bystander = Socket::open(server.address, "bystander").await;
    bystander.join("arena").await;
    let mut socket = Socket::open(server.address, "mallory").await;
    socket.join("arena").await;
    how(&mut socket).await;
    let goodbye = socket.closed(reason, code).await;
    assert!(!goodbye.message.is_empty(), "it is not said what was wrong");
    drop(socket);
    bystander.say("arena", 1, "still here").await;
    assert_eq!(bystander.said().await.body, "still here");
    server.connections(1).await;
    assert_eq!(server.handle.stats().protocol_errors, 1);
    server.audit();
}

#[tokio::test]
async fn pings_and_the_close_frame_of_the_web_socket_are_answered() {
    let server = Running::start(|_| {}).await;
    let mut socket = Socket::open(server.address, "alice").await;
    socket.ping(b"once").await;
    socket.join("arena").await;
    socket.say("arena", 1, "in between").await;
    assert_eq!(socket.said().await.body, "in between");
    socket.ping(b"again").await;
    socket.close().await;
    server.connections(0).await;
    assert_eq!(server.handle.stats().protocol_errors, 0);
    server.audit();
}

#[tokio::test]
async fn a_text_message() {
    misbehave(Reason::ProtocolError, UNSUPPORTED, async |socket| socket.send_text("hello").await).await;
}

#[tokio::test]
async fn bytes_that_are_no_frame() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        socket.try_send(b"complete and utter garbage".to_vec().into()).await.expect("it is open");
    })
    .await;
}

#[tokio::test]
async fn an_empty_message() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        socket.try_send(bytes::Bytes::new()).await.expect("it is open");
    })
    .await;
}

#[tokio::test]
async fn a_flipped_bit() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        let mut frame = encode(Kind::Say, &Metadata::default(), &say("arena", 1, "body")).to_vec();
        frame[20] ^= 1;
        socket.try_send(frame.into()).await.expect("it is open");
    })
    .await;
}

#[tokio::test]
async fn a_frame_of_another_version() {
    misbehave(Reason::Incompatible, PROTOCOL, async |socket| {
        let mut frame = encode(Kind::Say, &Metadata::default(), &say("arena", 1, "body")).to_vec();
        frame[5] = 2;
        socket.try_send(frame.into()).await.expect("it is open");
    })
    .await;
}

#[tokio::test]
async fn a_message_that_only_servers_send() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        socket.send(Kind::Welcome, &v1::Welcome { session: vec![0; 16].into(), ..Default::default() }).await;
    })
    .await;
}

#[tokio::test]
async fn a_second_hello() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        socket.send(Kind::Hello, &v1::Hello::default()).await;
    })
    .await;
}

#[tokio::test]
async fn a_message_longer_than_the_largest_frame() {
    misbehave(Reason::ProtocolError, TOO_BIG, async |socket| {
        let too_long = vec![0; Config::default().frames.frame_bytes + 1];
        socket.try_send(too_long.into()).await.expect("it is open");
    })
    .await;
}

#[tokio::test]
async fn a_length_that_is_only_announced() {
    misbehave(Reason::ProtocolError, TOO_BIG, async |socket| {
        // Header of a frame of 2^62 bytes.
        let header = [0x82, 0x80 | 127, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        socket.send_raw(&header).await;
    })
    .await;
}

#[tokio::test]
async fn fragments_that_are_together_longer_than_the_largest_frame() {
    misbehave(Reason::ProtocolError, TOO_BIG, async |socket| {
        let part = vec![0; Config::default().frames.frame_bytes / 2];
        socket.send_raw(&web_socket_frame(false, 2, true, &part)).await;
        socket.send_raw(&web_socket_frame(false, 0, true, &part)).await;
        socket.send_raw(&web_socket_frame(true, 0, true, b"and one more")).await;
    })
    .await;
}

#[tokio::test]
async fn a_text_message_that_is_no_text() {
    misbehave(Reason::ProtocolError, UNSUPPORTED, async |socket| {
        socket.send_raw(&web_socket_frame(true, 1, true, &[0xff, 0xfe])).await;
    })
    .await;
}

#[tokio::test]
async fn a_body_longer_than_the_limits() {
    let most = Config::default().frames.body_bytes;
    misbehave(Reason::ProtocolError, TOO_BIG, async |socket| {
        socket.say("arena", 1, vec![1; most + 1]).await;
    })
    .await;
    misbehave(Reason::ProtocolError, TOO_BIG, async |socket| {
        let body = vec![1; most + 1].into();
        let latest = v1::Latest { room: "arena".to_owned(), body, ..v1::Latest::default() };
        socket.send(Kind::Latest, &latest).await;
    })
    .await;
    misbehave(Reason::ProtocolError, TOO_BIG, async |socket| {
        socket.send_application("mygame.v1.Novel", &vec![1; most + 1]).await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_inflates_to_more_than_the_largest_frame() {
    misbehave(Reason::ProtocolError, TOO_BIG, async |socket| {
        let large = say("arena", 1, vec![0; Config::default().frames.frame_bytes + 1]);
        let frame = encode(Kind::Say, &Metadata::default(), &large);
        let small = Zstd::default().deflate(&frame).expect("it becomes smaller");
        socket.try_send(small).await.expect("it is open");
    })
    .await;
}

#[tokio::test]
async fn a_fragment_that_continues_nothing() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        socket.send_raw(&web_socket_frame(true, 0, true, b"more of what?")).await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_without_a_mask() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        let frame = encode(Kind::Say, &Metadata::default(), &say("arena", 1, "unmasked"));
        socket.send_raw(&web_socket_frame(true, 2, false, &frame)).await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_of_an_unknown_opcode() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| {
        socket.send_raw(&web_socket_frame(true, 5, true, b"?")).await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_no_web_socket() {
    misbehave(Reason::ProtocolError, PROTOCOL, async |socket| socket.send_raw(&[0xff; 600]).await).await;
}

#[tokio::test]
async fn a_client_within_its_limits_is_not_closed_after_a_stall() {
    let server = Running::start(|_| {}).await;
    let mut socket = Socket::open(server.address, "alice").await;
    // The requests of a minute at 20 a second, all sent at once.
    let most = 20 * 60;
    let leave =
        encode(Kind::Leave, &Metadata::default(), &v1::Leave { room: "other".to_owned(), request: 0 });
    let frame = web_socket_frame(true, 2, true, &leave);
    for _ in 0..most {
        socket.send_raw(&frame).await;
    }
    socket.send(Kind::Leave, &v1::Leave { room: "last".to_owned(), request: 0 }).await;
    let last = socket.until(|message| match message {
        ToClient::Left(left) => (left.room == "last").then_some(()),
        ToClient::Goodbye(goodbye) => panic!("{goodbye:?}"),
        _ => None,
    });
    last.await;
    assert!(server.handle.stats().pauses > 0);
}

#[tokio::test]
async fn a_message_in_fragments_is_one_message() {
    let server = Running::start(|_| {}).await;
    let mut socket = Socket::open(server.address, "alice").await;
    socket.join("arena").await;
    let frame = encode(Kind::Say, &Metadata::default(), &say("arena", 1, "in three parts"));
    let (first, rest) = frame.split_at(10);
    let (second, third) = rest.split_at(10);
    socket.send_raw(&web_socket_frame(false, 2, true, first)).await;
    // A ping is allowed between two fragments.
    socket.send_raw(&[0x89, 0x80, 1, 2, 3, 4]).await;
    socket.send_raw(&web_socket_frame(false, 0, true, second)).await;
    socket.send_raw(&web_socket_frame(true, 0, true, third)).await;
    assert_eq!(socket.said().await.body, "in three parts");
    server.audit();
}

#[tokio::test]
async fn the_first_frame_must_be_hello() {
    let server = Running::start(|_| {}).await;
    let mut socket = Socket::connect(server.address, "alice").await;
    socket.send(Kind::Join, &v1::Join { room: "arena".to_owned(), history: 0, request: 0 }).await;
    socket.closed(Reason::ProtocolError, PROTOCOL).await;
    let stats = server.handle.stats();
    assert_eq!((stats.rooms, stats.sessions), (0, 0));
}

#[tokio::test]
async fn the_token_in_hello_must_be_that_of_the_upgrade() {
    let server = Running::start(|_| {}).await;
    let mut socket = Socket::connect(server.address, "alice").await;
    let other = skirmish_tests::token("bob");
    socket.send(Kind::Hello, &v1::Hello { token: other.into(), ..v1::Hello::default() }).await;
    socket.closed(Reason::Unauthenticated, POLICY).await;
    assert_eq!(server.handle.stats().sessions, 0);
}

#[tokio::test]
async fn messages_beyond_the_rate_are_throttled_and_not_lost() {
    const LAST: usize = 60;
    let slow = |config: &mut Config| config.rates.reliable = RateLimit { per_second: 20, burst: 2 };
    let server = Running::start(slow).await;
    let mut socket = Socket::open(server.address, "alice").await;
    socket.join("arena").await;
    let mut heard: Vec<u64> = Vec::new();
    let mut throttled = 0;
    let mut from = 1;
    while heard.len() < LAST {
        for client_seq in from..=LAST as u64 {
            socket.say("arena", client_seq, "again and again").await;
        }
        // Until the server throttles, or has accepted all messages.
        from = u64::MAX;
        while from == u64::MAX && heard.len() < LAST {
            match socket.next().await {
                ToClient::Throttle(throttle) => {
                    assert_eq!(throttle.class(), v1::Class::Reliable);
                    throttled += 1;
                    from = throttle.expected;
                    tokio::time::sleep(Duration::from_millis(throttle.retry_after_ms.into())).await;
                }
                ToClient::Entry(entry) if entry.kind() == v1::EntryKind::Say => heard.push(entry.client_seq),
                _ => {}
            }
        }
    }
    assert_eq!(heard, (1..=LAST as u64).collect::<Vec<_>>());
    assert!(throttled > 0);
    server.audit();
}
