//! Deadlines of connections.

use super::*;
use crate::base::time::LATE;

const TICK: Duration = Duration::from_micros(1);

#[test]
fn each_phase_before_the_welcome_ends_at_the_handshake_deadline() {
    for (connect, reason) in [
        (World::accept as fn(&mut World) -> Key, v1::Reason::HandshakeTimeout),
        (World::admit, v1::Reason::HandshakeTimeout),
        (World::claim, v1::Reason::Overloaded),
    ] {
        let mut world = World::new(|_| {});
        connect(&mut world);
        let handshake = world.config.connections.handshake_timeout;
        world.advance(handshake - TICK);
        assert!(world.outputs().is_empty());
        world.advance(TICK);
        assert_eq!(closed(&world.outputs()), [reason]);
        assert_eq!(world.stats().handshake_timeouts, 1);
    }
}

#[test]
fn a_connection_that_does_not_let_itself_be_closed_is_dropped() {
    let mut world = World::new(|_| {});
    let key = world.open();
    world.close(key, v1::Reason::Kicked);
    world.outputs();
    let linger = world.config.connections.linger;
    assert_eq!(world.advance(linger - TICK), []);
    let conn = ConnId::from_key(key);
    assert_eq!(world.advance(TICK), [LostConnection { session: SESSION, conn, trace: trace(1) }]);
    assert_eq!(world.outputs(), [Output::Abort(conn)]);
    assert_eq!((world.connections.len(), world.stats().closing), (0, 0));
}

#[test]
fn a_phase_that_is_found_late_is_put_off_once() {
    let handshake = Config::default().connections.handshake_timeout;
    let linger = Config::default().connections.linger;
    for closing in [false, true] {
        let mut world = World::new(|_| {});
        let key = world.accept();
        if closing {
            world.close(key, v1::Reason::Kicked);
        }
        world.outputs();
        let time = if closing { linger } else { handshake };
        world.now.instant = world.now.instant + time + LATE + TICK;
        assert_eq!(world.fire(), None);
        assert!(world.outputs().is_empty());
        let again = world.now.instant + time;
        assert_eq!(world.connections.next_timer(), Some((again, key)));
        // The second time it counts, however late.
        world.now.instant = again + time;
        world.fire();
        let outputs = world.outputs();
        assert_eq!(outputs.contains(&Output::Abort(ConnId::from_key(key))), closing);
        assert_eq!(closed(&outputs).is_empty(), closing);
    }
    let mut world = World::new(|_| {});
    world.accept();
    world.now.instant = world.now.instant + handshake + LATE;
    world.fire();
    assert_eq!(closed(&world.outputs()), [v1::Reason::HandshakeTimeout], "it is in time");
}

#[test]
fn a_silent_peer_is_unhealthy_and_then_closed() {
    let mut world = World::new(|_| {});
    let key = world.open();
    let interval = world.config.heartbeat.interval;
    let unhealthy = Output::Event(Event::Unhealthy { conn: ConnId::from_key(key) });
    let mut told = Vec::new();
    for _ in 0..4 {
        world.advance(interval);
        let outputs = world.outputs();
        told.push((outputs.contains(&unhealthy), world.stats().unhealthy, closed(&outputs)));
    }
    let dead = (false, 1, [v1::Reason::HeartbeatTimeout].into());
    assert_eq!(told, [(false, 0, [].into()), (false, 0, [].into()), (true, 1, [].into()), dead]);
    assert_eq!(world.stats().heartbeat_timeouts, 1);
    world.input(|connections, cx| connections.forget(cx, key));
    assert_eq!(world.stats().unhealthy, 0);
}

#[test]
fn any_frame_is_a_sign_of_life() {
    let mut world = World::new(|_| {});
    let key = world.open();
    let interval = world.config.heartbeat.interval;
    world.advance(interval * 3);
    assert_eq!(world.stats().unhealthy, 1);
    world.send(key, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    assert_eq!(world.stats().unhealthy, 0);
    for _ in 0..10 {
        world.advance(interval / 2);
        world.send(key, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
    }
    assert_eq!(closed(&world.outputs()), []);
}

#[test]
fn a_peer_whose_answers_are_not_read_misses_none() {
    let mut world = World::new(|config| config.heartbeat.interval = SECOND);
    let key = world.open();
    let pause = |world: &mut World| {
        let until = world.now.instant + SECOND * 10;
        world.connections.table.get_mut(key).unwrap().paused = Some(until);
    };
    world.advance(SECOND * 3);
    assert_eq!(world.stats().unhealthy, 1);
    pause(&mut world);
    world.advance(SECOND * 9);
    assert_eq!((closed(&world.outputs()), world.stats().unhealthy), ([].into(), 0));
    world.advance(SECOND);
    assert!(world.outputs().contains(&Output::Resume(ConnId::from_key(key))));
    world.advance(SECOND * 4);
    assert_eq!(closed(&world.outputs()), [v1::Reason::HeartbeatTimeout]);
}

#[test]
fn a_ping_tells_the_round_trip_and_wakes_the_connection() {
    let mut world = World::new(|_| {});
    let key = world.open();
    world.advance(world.config.heartbeat.interval);
    assert_eq!(world.outputs(), [Output::Wake(ConnId::from_key(key))]);
    assert_eq!(world.received(key), [ToClient::Ping(v1::Ping { nonce: 1, rtt_us: 0 })]);
    world.now.instant = world.now.instant + Duration::from_millis(7);
    world.send(key, v1::Kind::Pong, &v1::Pong { nonce: 1 });
    let rtt_us = u32::try_from(world.connections.rtt(key).unwrap().as_micros()).unwrap();
    assert!(rtt_us >= 7_000);
    world.advance(world.config.heartbeat.interval);
    assert_eq!(world.received(key), [ToClient::Ping(v1::Ping { nonce: 2, rtt_us: rtt_us.into() })]);
}

#[test]
fn the_earliest_deadline_comes_first_and_one_that_moves_is_met_once() {
    let mut world = World::new(|_| {});
    let handshake = world.config.connections.handshake_timeout;
    let first = world.accept();
    world.advance(SECOND);
    let second = world.accept();
    assert_eq!(world.connections.next_timer(), Some((Instant::ZERO + handshake, first)));
    world.input(|connections, cx| connections.forget(cx, first));
    assert_eq!(world.connections.next_timer(), Some((Instant::ZERO + handshake + SECOND, second)));
    let now = world.now.instant;
    assert_eq!(world.connections.take_due(now), None, "nothing is due");
    // Closing brings the deadline forward.
    world.close(second, v1::Reason::Kicked);
    let linger = world.config.connections.linger;
    assert_eq!(world.connections.next_timer(), Some((now + linger, second)));
}

#[test]
fn the_end_of_a_pause_ends_no_phase_and_a_closing_connection_is_not_resumed() {
    for closes in [false, true] {
        let mut world = World::new(|_| {});
        let key = world.admit();
        let overhead = Overhead { controls: 120, fragments: 0 };
        world.input(|connections, cx| connections.handle_overhead(cx, key, overhead));
        assert!(world.connections.is_held(key));
        if closes {
            world.close(key, v1::Reason::Kicked);
            assert!(!world.connections.is_held(key));
        }
        world.outputs();
        world.advance(SECOND);
        let resumed = if closes { Vec::new() } else { [Output::Resume(ConnId::from_key(key))].into() };
        assert_eq!(world.outputs(), resumed);
    }
}

#[test]
fn a_phase_is_excused_anew_after_the_one_before() {
    let mut world = World::new(|_| {});
    let key = world.accept();
    let (handshake, linger) = (world.config.connections.handshake_timeout, world.config.connections.linger);
    world.now.instant = world.now.instant + handshake * 2;
    world.fire();
    world.advance(handshake);
    assert_eq!(closed(&world.outputs()), [v1::Reason::HandshakeTimeout]);
    world.now.instant = world.now.instant + linger * 2;
    world.fire();
    assert!(world.outputs().is_empty());
    world.advance(linger);
    assert_eq!(world.outputs(), [Output::Abort(ConnId::from_key(key))]);
}

#[test]
fn the_heartbeat_of_a_session_begins_when_it_is_open() {
    let mut world = World::new(|_| {});
    let key = world.claim();
    let interval = world.config.heartbeat.interval;
    world.advance(interval / 2);
    world.input(|connections, cx| connections.open(cx, key, SESSION, false));
    world.advance(interval * 4 / 5);
    assert!(world.outputs().is_empty());
    world.advance(interval / 5);
    assert_eq!(world.outputs(), [Output::Wake(ConnId::from_key(key))]);
}
