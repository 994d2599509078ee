//! Costly input is charged, and a backlog is read slowly.

use super::*;
use crate::config::Rate;
use crate::wire::Zstd;

/// Reads `count` inputs from a connection that was held, as a driver does. Returns true if the
/// connection is still open, and the time that the inputs took.
fn read(
    world: &mut World,
    conn: ConnId,
    count: usize,
    mut input: impl FnMut(&mut World),
) -> (bool, Duration) {
    let start = world.now.instant;
    for _ in 0..count {
        while world.node.is_held(conn) {
            let due = world.node.poll_timeout().expect("a pause ends").at;
            world.resumed.clear();
            world.advance(due - world.now.instant);
            assert_eq!(world.resumed.contains(&conn), !world.node.is_held(conn));
        }
        input(world);
        if !world.closed.is_empty() {
            break;
        }
    }
    (world.closed.is_empty(), world.now.instant - start)
}

fn leave(world: &mut World, conn: ConnId) {
    world.send(conn, v1::Kind::Leave, &v1::Leave { room: "nowhere".into(), request: 0 });
    world.received(conn);
}

#[test]
fn a_client_within_its_limits_is_read_slowly_after_a_stall_and_not_closed() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    world.advance(Duration::from_secs(6));
    // 20 requests a second for the six seconds; 30 a second are allowed.
    let (open, took) = read(&mut world, a.conn, 120, |world| leave(world, a.conn));
    assert!(open, "{:?}", world.events);
    assert!(took > Duration::ZERO && took < Duration::from_secs(2), "{took:?}");
    world.node.handle_drained(world.now, a.conn);
    for _ in 0..300 {
        world.advance(Duration::from_millis(50));
        leave(&mut world, a.conn);
        assert!(!world.node.is_held(a.conn));
    }
    assert!(world.closed.is_empty());
}

/// Input of a client that costs the node something: its name, the number of inputs a second that
/// the limits allow, and the input.
type Abuse = (&'static str, u32, fn(&mut World, ConnId));

const ABUSES: &[Abuse] = &[
    ("requests", 30, |world, conn| leave(world, conn)),
    ("pongs that answer nothing", 30, |world, conn| {
        world.send(conn, v1::Kind::Pong, &v1::Pong { nonce: 1 });
    }),
    ("control frames of the WebSocket", 30, |world, conn| {
        world.node.handle_overhead(world.now, conn, Overhead { controls: 1, fragments: 0 });
        world.settle();
    }),
    ("empty fragments", 100, |world, conn| {
        world.node.handle_overhead(world.now, conn, Overhead { controls: 0, fragments: 1 });
        world.settle();
    }),
    ("reliable messages that are refused", 60, |world, conn| {
        world.send(conn, v1::Kind::Say, &say(1_000, "never next"));
    }),
    ("reliable messages for a room that it is not in", 60, |world, conn| {
        let say = v1::Say { room: "elsewhere".into(), ..say(1, "lost") };
        world.send(conn, v1::Kind::Say, &say);
        world.received(conn);
    }),
    ("latest messages that are dropped", 120, |world, conn| {
        world.send(conn, v1::Kind::Latest, &v1::Latest { room: "arena".into(), ..v1::Latest::default() });
        world.received(conn);
    }),
    ("frames that inflate", 100, |world, conn| {
        let say = v1::Say { room: "arena".into(), body: vec![0; 1_000].into(), ..say(1_000, "") };
        let frame = encode(v1::Kind::Say, &v1::Metadata::default(), &say);
        let small = Zstd::default().deflate(&frame).unwrap();
        assert!(small.len() < 100);
        world.node.handle_frame(world.now, conn, small);
        world.settle();
    }),
];

#[test]
fn whatever_costs_the_node_something_is_counted() {
    for (name, per_second, abuse) in ABUSES {
        let mut world = World::new(|config| {
            config.heartbeat.interval = Duration::from_secs(1);
            config.rates.bytes = Rate { per_second: 100 * 1024, burst: 100 * 1024 };
            if *name == "frames that inflate" {
                config.rates.reliable = Rate { per_second: 100_000, burst: 100_000 };
            }
        });
        let a = world.player("a");
        world.received(a.conn);
        // Far more than the limits allow for the longest stall, which is four seconds.
        let (open, took) = read(&mut world, a.conn, 100_000, |world| {
            abuse(world, a.conn);
        });
        assert!(!open, "{name}");
        assert_eq!(world.closed, [(a.conn, v1::Reason::RateLimited)], "{name}");
        assert!(took < Duration::from_secs(3), "{name}: {took:?}");

        let mut world = World::new(|config| {
            config.rates.bytes = Rate { per_second: 100 * 1024, burst: 100 * 1024 };
        });
        let a = world.player("a");
        for _ in 0..per_second * 90 {
            world.advance(Duration::from_secs(1) / *per_second);
            abuse(&mut world, a.conn);
            world.received(a.conn);
            // This pong answers a ping, so it is free, and keeps the connection alive.
            let nonce = world.now.instant.since(Instant::ZERO).as_secs() / 15;
            if world.node.stats().unhealthy > 0 {
                world.send(a.conn, v1::Kind::Pong, &v1::Pong { nonce });
            }
        }
        assert!(world.closed.is_empty(), "{name} within the limits: {:?}", world.events);
    }
}

#[test]
fn a_pong_for_each_ping_is_free_however_late() {
    let mut world = World::new(|config| {
        config.rates.control = Rate { per_second: 1, burst: 1 };
        config.heartbeat.interval = Duration::from_secs(1);
    });
    let a = world.accept("a");
    world.hello(a, None);
    world.advance(Duration::from_millis(2_500));
    let pings = world.received(a).into_iter().filter(|m| matches!(m, ToClient::Ping(_))).count();
    assert_eq!(pings, 2);
    for nonce in 1..=2 {
        world.send(a, v1::Kind::Pong, &v1::Pong { nonce });
    }
    assert_eq!(world.node.stats().pauses, 0);
    for _ in 0..2 {
        world.send(a, v1::Kind::Pong, &v1::Pong { nonce: 2 });
    }
    assert_eq!(world.node.stats().pauses, 1);
}

#[test]
fn a_connection_that_is_not_read_is_not_taken_for_dead() {
    let mut world = World::new(|config| {
        config.heartbeat.interval = Duration::from_secs(10);
        config.heartbeat.jitter_percent = 50;
        (config.heartbeat.unhealthy_after, config.heartbeat.close_after) = (1, 2);
        config.rates.bytes = Rate { per_second: 1_000, burst: 65_536 };
    });
    let a = world.accept("a");
    world.hello(a, None);
    // As many bytes as a client may send in the longest stall, and no more.
    for _ in 0..5 {
        let payload = vec![0; 16_000];
        let metadata = v1::Metadata { type_url: "t".into(), ..v1::Metadata::default() };
        world.node.handle_frame(world.now, a, wire::encode_bytes(v1::Kind::Application, &metadata, &payload));
    }
    world.send(a, v1::Kind::Say, &v1::Say { body: vec![0; 15_000].into(), ..v1::Say::default() });
    let start = world.now.instant;
    while world.node.is_held(a) {
        world.advance(Duration::from_millis(50));
        world.received(a);
    }
    let paused = world.now.instant - start;
    let longest = world.node.config().heartbeat.longest_stall() / 4 + Duration::from_millis(100);
    assert!(paused > Duration::from_secs(7) && paused < longest, "{paused:?} {:?}", world.events);
    assert!(world.closed.is_empty());
    world.advance(Duration::from_secs(30));
    assert_eq!(world.closed, [(a, v1::Reason::HeartbeatTimeout)], "nothing came when it was read");
}

#[test]
fn a_client_whose_answers_are_not_read_is_held_and_not_closed() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    world.received(a.conn);
    let mut sent = 0;
    while !world.node.is_held(a.conn) {
        let room = sent.to_string();
        world.send(a.conn, v1::Kind::Leave, &v1::Leave { room, request: 0 });
        sent += 1;
    }
    world.advance(Duration::from_secs(20));
    assert!(world.node.is_held(a.conn) && world.closed.is_empty());
    world.resumed.clear();
    assert_eq!(world.received(a.conn).iter().filter(|m| matches!(m, ToClient::Left(_))).count(), sent);
    assert_eq!(world.resumed, [a.conn]);
    assert!(!world.node.is_held(a.conn));
}
