//! Input frames.

use super::*;
use crate::config::Rate;
use crate::node::connections::metering::Overhead;
use crate::wire::{TRAILER_LEN, ToServer, Zstd, seal};

fn join() -> v1::Join {
    v1::Join { room: "arena".into(), history: 0, request: 0 }
}

/// A message with a payload that compresses well.
fn say() -> v1::Say {
    v1::Say { room: "arena".into(), client_seq: 1, body: alloc::vec![0; 4_000].into(), ..v1::Say::default() }
}

/// Returns the reason of the one connection that was closed, and the offence.
fn closed_for(world: &mut World) -> (v1::Reason, String, Wrong) {
    let outputs = world.outputs();
    let (closed, offences) = (closed(&outputs), offences(&outputs));
    assert_eq!((closed.len(), offences.len()), (1, 1), "{outputs:?}");
    (closed[0], offences[0].0.into(), offences[0].1)
}

#[test]
fn a_connection_reads_nothing_before_its_upgrade() {
    let mut world = World::new(|_| {});
    let key = world.accept();
    assert!(world.send(key, v1::Kind::Hello, &v1::Hello::default()).is_none());
    assert_eq!(world.stats().frames_in, 0);
    assert!(world.outputs().is_empty());
}

#[test]
fn the_first_frame_is_the_hello_of_the_player_that_was_admitted() {
    for token in ["", "token"] {
        let mut world = World::new(|_| {});
        let key = world.admit();
        let hello = v1::Hello { token: Bytes::from(token), agent: "test".into(), ..v1::Hello::default() };
        let Some(ClientInput::Hello { player, hello }) = world.send(key, v1::Kind::Hello, &hello) else {
            panic!("it is a Hello");
        };
        assert_eq!((player.as_str(), &hello.agent[..]), ("ann", "test"));
        assert!(world.outputs().is_empty());
    }
    let mut world = World::new(|_| {});
    let key = world.admit();
    let hello = v1::Hello { token: Bytes::from_static(b"tokem"), ..v1::Hello::default() };
    assert!(world.send(key, v1::Kind::Hello, &hello).is_none());
    assert_eq!(closed_for(&mut world).0, v1::Reason::Unauthenticated);
    let mut world = World::new(|_| {});
    let key = world.admit();
    assert!(world.send(key, v1::Kind::Join, &join()).is_none());
    let (reason, what, wrong) = closed_for(&mut world);
    assert_eq!((reason, wrong), (v1::Reason::ProtocolError, Wrong::Protocol));
    assert_eq!(what, "the first frame must be Hello");
}

#[test]
fn a_frame_before_the_welcome_and_a_second_hello_are_offences() {
    let mut world = World::new(|_| {});
    let key = world.claim();
    assert!(world.send(key, v1::Kind::Join, &join()).is_none());
    assert_eq!(closed_for(&mut world).1, "a frame before the Welcome");
    let mut world = World::new(|_| {});
    let key = world.open();
    assert!(world.send(key, v1::Kind::Hello, &v1::Hello::default()).is_none());
    assert_eq!(closed_for(&mut world).1, "a second Hello");
    assert_eq!(world.stats().protocol_errors, 1);
}

#[test]
fn a_message_of_an_open_connection_is_passed_to_its_session() {
    let mut world = World::new(|_| {});
    let key = world.open();
    let input = world.send(key, v1::Kind::Join, &join());
    let Some(ClientInput::Message { session, message: ToServer::Join(joined), .. }) = input else {
        panic!("{input:?}");
    };
    assert_eq!((session, joined), (SESSION, join()));
    let length = encode(v1::Kind::Join, &v1::Metadata::default(), &join()).len() as u64;
    assert_eq!((world.stats().frames_in, world.stats().bytes_in), (1, length));
    assert!(world.outputs().is_empty());
}

#[test]
fn a_connection_that_is_being_closed_reads_nothing() {
    let mut world = World::new(|_| {});
    let key = world.open();
    world.close(key, v1::Reason::Kicked);
    assert!(world.send(key, v1::Kind::Join, &join()).is_none());
    assert_eq!(world.stats().frames_in, 0);
    world.input(|connections, cx| connections.forget(cx, key));
    assert!(world.send(key, v1::Kind::Join, &join()).is_none());
}

#[test]
fn an_open_connection_without_a_session_is_a_bug() {
    let mut world = World::new(|_| {});
    let key = world.open();
    world.bugs = Bugs::lenient();
    world.input(|connections, cx| connections.part_from_session(cx.bugs, key));
    assert_eq!(world.bugs.count(), 0);
    assert!(world.send(key, v1::Kind::Join, &join()).is_none());
    assert_eq!(world.bugs.count(), 1);
}

#[test]
fn pings_are_answered_and_pongs_measure_the_round_trip() {
    let mut world = World::new(|_| {});
    let key = world.open();
    assert!(world.send(key, v1::Kind::Ping, &v1::Ping { nonce: 9, rtt_us: 0 }).is_none());
    assert_eq!(world.received(key), [ToClient::Pong(v1::Pong { nonce: 9 })]);
    assert_eq!(world.connections.rtt(key), None);
    world.advance(world.config.heartbeat.interval);
    let sent = world.received(key);
    let [ToClient::Ping(ping)] = &sent[..] else { panic!("{sent:?}") };
    let due = world.connections.table.get(key).unwrap().heartbeat.due();
    world.advance(Duration::from_millis(40));
    assert!(world.send(key, v1::Kind::Pong, &v1::Pong { nonce: ping.nonce }).is_none());
    assert!(world.now.instant < due);
    assert!(world.connections.rtt(key).is_some_and(|rtt| rtt >= Duration::from_millis(40)));
}

/// A frame of an unknown kind, with the right checksum.
fn of_unknown_kind() -> Bytes {
    let mut frame = encode(v1::Kind::Ping, &v1::Metadata::default(), &v1::Ping::default()).to_vec();
    frame.truncate(frame.len() - TRAILER_LEN);
    frame[10..12].copy_from_slice(&0x7ff0_u16.to_be_bytes());
    let divide = |rest: u32, _| if rest & 1 == 1 { rest >> 1 ^ 0x82f6_3b78 } else { rest >> 1 };
    let crc = frame.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), divide));
    frame.extend((!crc).to_be_bytes());
    frame.into()
}

#[test]
fn a_kind_that_is_not_known_is_told_to_a_client_with_a_session() {
    let mut world = World::new(|_| {});
    let key = world.open();
    assert!(world.send_frame(key, of_unknown_kind()).is_none());
    let unsupported = v1::Unsupported { kind: 0x7ff0, type_url: String::new() };
    assert_eq!(world.received(key), [ToClient::Unsupported(unsupported)]);
    assert_eq!((world.stats().unsupported, world.stats().protocol_errors), (1, 0));
    let mut world = World::new(|_| {});
    let key = world.admit();
    assert!(world.send_frame(key, of_unknown_kind()).is_none());
    assert_eq!(closed_for(&mut world).0, v1::Reason::Incompatible);
}

#[test]
fn an_offence_tells_whether_the_frame_was_too_large() {
    let most = Config::default().frames.frame_bytes;
    let large = v1::Say { body: alloc::vec![0; most].into(), ..say() };
    for (frame, wrong) in [
        (encode(v1::Kind::Say, &v1::Metadata::default(), &large), Wrong::Size),
        (Bytes::from_static(b"GET / HTTP/1.1"), Wrong::Protocol),
    ] {
        let mut world = World::new(|_| {});
        let key = world.open();
        assert!(world.send_frame(key, frame).is_none());
        let (reason, _, told) = closed_for(&mut world);
        assert_eq!((reason, told), (v1::Reason::ProtocolError, wrong));
    }
}

#[test]
fn every_byte_is_charged_and_inflated_ones_too() {
    let frame = encode(v1::Kind::Say, &v1::Metadata::default(), &say());
    let small = Zstd::default().deflate(&frame).unwrap();
    assert!(small.len() < 200);
    // Room for sixteen frames as they are inflated.
    let burst = 64 * 1024;
    let paused_after = |frame: &Bytes| {
        let mut world = World::new(|config| config.rates.bytes = Rate { per_second: 4_096, burst });
        let key = world.open();
        (0..1_000)
            .take_while(|_| {
                world.send_frame(key, frame.clone());
                !world.connections.is_held(key)
            })
            .count()
    };
    assert_eq!(paused_after(&frame), paused_after(&small));
    assert_eq!(paused_after(&frame), 16);
}

#[test]
fn each_class_has_a_meter_of_its_own() {
    /// Limits a class to a rate; sends a frame of the class.
    type OfClass = (fn(&mut Config, Rate), fn(&mut World, Key, &v1::Latest));
    let latest = v1::Latest { room: "arena".into(), ..v1::Latest::default() };
    let rate = Rate { per_second: 1, burst: 3 };
    let classes: [OfClass; 4] = [
        (
            |config, rate| config.rates.reliable = rate,
            |world, key, _| {
                world.send(key, v1::Kind::Say, &say());
            },
        ),
        (
            |config, rate| config.rates.latest = rate,
            |world, key, latest| {
                world.send(key, v1::Kind::Latest, latest);
            },
        ),
        (
            |config, rate| config.rates.control = rate,
            |world, key, _| {
                world.send(key, v1::Kind::Join, &join());
            },
        ),
        (
            |config, rate| config.rates.control = rate,
            |world, key, _| {
                let overhead = Overhead { controls: 1, fragments: 0 };
                world.input(|connections, cx| connections.handle_overhead(cx, key, overhead));
            },
        ),
    ];
    for (limited, (limit, _)) in classes.iter().enumerate() {
        for (sent, (_, send)) in classes.iter().enumerate() {
            let mut world = World::new(|config| limit(config, rate));
            let key = world.open();
            for _ in 0..3 {
                send(&mut world, key, &latest);
                assert!(!world.connections.is_held(key));
            }
            send(&mut world, key, &latest);
            // The last two are of one class.
            assert_eq!(world.connections.is_held(key), limited.min(2) == sent.min(2), "{limited} {sent}");
        }
    }
}

#[test]
fn a_fast_connection_is_paused_and_read_on_and_a_flood_is_closed() {
    let mut world = World::new(|config| config.rates.control = Rate { per_second: 1, burst: 1 });
    let key = world.open();
    for _ in 0..2 {
        assert!(world.send(key, v1::Kind::Join, &join()).is_some(), "it is read all the same");
    }
    assert!(world.connections.is_held(key) && world.connections.is_behind(key));
    assert_eq!(world.stats().pauses, 1);
    assert!(world.send(key, v1::Kind::Join, &join()).is_some());
    assert_eq!(world.stats().pauses, 1, "it is one pause");
    world.outputs();
    // Two requests too many are made up for at four a second.
    world.advance(SECOND / 2);
    assert!(world.outputs().is_empty());
    world.advance(SECOND / 2);
    assert_eq!(world.outputs(), [Output::Resume(ConnId::from_key(key))]);
    assert!(!world.connections.is_held(key) && world.connections.is_behind(key));
    let now = world.now.instant;
    world.connections.handle_drained(now, key);
    assert!(!world.connections.is_behind(key));
    let most = world.config.heartbeat.longest_stall().as_secs() + 10;
    for _ in 0..most {
        world.send(key, v1::Kind::Join, &join());
    }
    let (reason, what, _) = closed_for(&mut world);
    assert_eq!((reason, &what[..]), (v1::Reason::RateLimited, "far more requests than the limits allow"));
    assert!(!world.connections.is_held(key), "it is not read any more");
}

#[test]
fn fragments_are_charged_as_bytes() {
    let mut world = World::new(|config| config.rates.bytes = Rate { per_second: 4_096, burst: 64 * 1024 });
    let key = world.open();
    let fragments = |world: &mut World, fragments| {
        let overhead = Overhead { controls: 0, fragments };
        world.input(|connections, cx| connections.handle_overhead(cx, key, overhead));
        world.connections.is_held(key)
    };
    assert!(!fragments(&mut world, 64));
    assert!(fragments(&mut world, 1));
    fragments(&mut world, u32::MAX);
    assert_eq!(closed_for(&mut world).1, "far more bytes than the limits allow");
    fragments(&mut world, u32::MAX);
    world.input(|connections, cx| connections.forget(cx, key));
    fragments(&mut world, u32::MAX);
    assert!(world.outputs().is_empty(), "nothing is charged that is being closed or is gone");
}

#[test]
fn messages_are_taken_from_the_bucket_of_their_class() {
    let mut world = World::new(|config| {
        config.rates.reliable = Rate { per_second: 1, burst: 1 };
        config.rates.latest = Rate { per_second: 2, burst: 1 };
    });
    let key = world.open();
    let take = |world: &mut World| {
        let now = world.now.instant;
        world.input(|connections, cx| {
            (connections.take_reliable(cx.bugs, now, key), connections.take_latest(cx.bugs, now, key))
        })
    };
    assert_eq!(take(&mut world), (Ok(()), Ok(())));
    assert_eq!(take(&mut world), (Err(SECOND), Err(SECOND / 2)));
    world.advance(SECOND / 2);
    assert_eq!(take(&mut world), (Err(SECOND / 2), Ok(())));
}

#[test]
fn a_sealed_connection_reads_sealed_frames_only() {
    let offer = seal::Offer::new([1; 32], None);
    let (public, agreed) = seal::answer([2; 32], None, &offer.public(), &[3; 16]).unwrap();
    let mut client = offer.finish(&public, &[3; 16]).unwrap();
    let mut world = World::new(|_| {});
    let key = world.open();
    world.input(|connections, cx| connections.welcome(cx.bugs, key, &v1::Welcome::default(), Some(agreed)));
    let frame = encode(v1::Kind::Join, &v1::Metadata::default(), &join());
    let sealed = client.seal(&frame).unwrap();
    let input = world.send_frame(key, sealed);
    assert!(matches!(input, Some(ClientInput::Message { message: ToServer::Join(_), .. })), "{input:?}");
    assert!(world.send_frame(key, frame).is_none());
    assert_eq!(closed_for(&mut world).1, "the frame is not sealed");
}

#[test]
fn pongs_that_answer_pings_are_free_and_what_is_not_understood_is_not() {
    let mut world = World::new(|config| config.rates.control = Rate { per_second: 1, burst: 1 });
    let key = world.open();
    for nonce in 1..=5 {
        let due = world.connections.table.get(key).unwrap().heartbeat.due();
        world.advance(due - world.now.instant);
        world.send(key, v1::Kind::Pong, &v1::Pong { nonce });
        assert!(!world.connections.is_held(key));
    }
    world.send(key, v1::Kind::Pong, &v1::Pong { nonce: 5 });
    assert!(!world.connections.is_held(key));
    world.send(key, v1::Kind::Pong, &v1::Pong { nonce: 5 });
    assert!(world.connections.is_held(key), "it answers none");
    let mut world = World::new(|config| config.rates.control = Rate { per_second: 1, burst: 1 });
    let key = world.open();
    for held in [false, true] {
        world.send_frame(key, of_unknown_kind());
        assert_eq!(world.connections.is_held(key), held);
    }
}

/// A connection that is being closed is read, and charged nothing.
#[cfg(feature = "plant")]
#[test]
fn a_planted_bug_has_a_closing_connection_read() {
    let mut world = World::new(|config| config.rates.control = Rate { per_second: 1, burst: 1 });
    world.planted = Planted::with(crate::base::plant::Plant::OldConnectionWrites);
    let key = world.open();
    world.close(key, v1::Reason::TakenOver);
    for _ in 0..1_000 {
        assert!(world.send(key, v1::Kind::Join, &join()).is_some());
    }
    assert_eq!(world.stats().pauses, 0);
}
