//! Effects of limits: each is reported once or repeated, and no message is lost.

use super::*;
use crate::config::Rate;

#[test]
fn whoever_is_too_fast_is_told_once_and_then_taken_again() {
    let mut world = World::new(|config| config.rates.reliable = Rate { per_second: 10, burst: 2 });
    let mut a = world.player("a");
    for _ in 0..6 {
        world.say(&mut a, "fast");
    }
    let messages = world.received(a.conn);
    let throttles = messages.iter().filter(|m| matches!(m, ToClient::Throttle(_))).count();
    assert_eq!((said(&messages).len(), throttles), (2, 1), "{messages:?}");
    world.advance(Duration::from_millis(100));
    world.send(a.conn, v1::Kind::Say, &say(3, "again"));
    assert_eq!(said(&world.received(a.conn)).len(), 1);
}

#[test]
fn whoever_comes_back_too_early_is_told_again() {
    let mut world = World::new(|config| config.rates.reliable = Rate { per_second: 10, burst: 1 });
    let a = world.player("a");
    world.send(a.conn, v1::Kind::Say, &say(1, "taken"));
    for _ in 0..3 {
        world.received(a.conn);
        world.send(a.conn, v1::Kind::Say, &say(2, "early"));
        let messages = world.received(a.conn);
        assert!(matches!(&messages[..], [ToClient::Throttle(t)] if t.expected == 2), "{messages:?}");
        world.advance(Duration::from_millis(10));
    }
}

#[test]
fn messages_behind_one_that_was_not_taken_do_not_use_up_what_it_waits_for() {
    let mut world = World::new(|config| config.rates.reliable = Rate { per_second: 10, burst: 1 });
    let a = world.player("a");
    for client_seq in 1..20 {
        world.send(a.conn, v1::Kind::Say, &say(client_seq, "burst"));
    }
    world.received(a.conn);
    for client_seq in 3..20 {
        world.advance(Duration::from_millis(10));
        world.send(a.conn, v1::Kind::Say, &say(client_seq, "behind"));
    }
    world.send(a.conn, v1::Kind::Say, &say(2, "in time"));
    assert_eq!(said(&world.received(a.conn)).len(), 1);
}

#[test]
fn a_full_window_is_released_before_the_interval_is_over() {
    let mut world = World::new(|config| {
        config.rooms.flush_interval = Duration::from_secs(1);
        config.rooms.window_entries = 4;
    });
    let mut a = world.player("a");
    let b = world.player("b");
    world.advance(Duration::from_secs(2));
    world.received(b.conn);
    let mut got = 0;
    for n in 0..20 {
        world.say(&mut a, &n.to_string());
        let messages = world.received(b.conn);
        assert!(!messages.iter().any(|m| matches!(m, ToClient::Snapshot(_))), "{messages:?}");
        got += said(&messages).len();
    }
    world.advance(Duration::from_secs(1));
    assert_eq!(got + said(&world.received(b.conn)).len(), 20);
}

#[test]
fn a_state_that_is_full_takes_what_fits_and_names_the_rest() {
    let mut world = World::new(|config| config.rooms.state_entries = 2);
    let a = world.player("a");
    world.received(a.conn);
    let entry = |name: u64| v1::StateEntry {
        domain: v1::Domain::Property.into(),
        owner: "a".into(),
        name: name.to_string(),
        stamp: Some(v1::Stamp { wall_ms: 1_700_000_000_000, count: 0, replica: 9 }),
        ..v1::StateEntry::default()
    };
    let entries: Vec<_> = (0..4).map(entry).collect();
    let state = v1::State { room: "arena".into(), epoch: a.epoch, entries, ..v1::State::default() };
    world.send(a.conn, v1::Kind::State, &state);
    let messages = world.received(a.conn);
    let refused =
        messages.iter().find_map(|m| if let ToClient::State(s) = m { s.full.then_some(s) } else { None });
    let names: Vec<_> = refused.unwrap().entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["2", "3"]);
    assert_eq!(world.node.replica("arena").unwrap().properties().count(), 2);
}

#[test]
fn whoever_lags_behind_forgotten_removals_is_asked_to_walk_the_tree() {
    let mut world = World::new(|config| {
        config.heartbeat.interval = Duration::from_secs(10);
        config.rooms.tombstone_horizon = Duration::from_secs(110);
    });
    let a = world.player("a");
    let b = world.player("b");
    for removed in [false, true] {
        let entry = v1::StateEntry {
            domain: v1::Domain::Property.into(),
            owner: "a".into(),
            name: "colour".into(),
            stamp: Some(v1::Stamp { wall_ms: world.now.wall.0, count: removed.into(), replica: 9 }),
            removed,
            ..v1::StateEntry::default()
        };
        let entries = vec![entry];
        let state = v1::State { room: "arena".into(), epoch: a.epoch, entries, ..v1::State::default() };
        world.send(a.conn, v1::Kind::State, &state);
    }
    for _ in 0..30 {
        world.advance(Duration::from_secs(5));
        for conn in [a.conn, b.conn] {
            // Any frame proves that the peer lives, although it reads nothing.
            world.send(conn, v1::Kind::Pong, &v1::Pong::default());
        }
    }
    let asked =
        |message: &ToClient| matches!(message, ToClient::Reconcile(r) if r.level == 0 && r.nodes.is_empty());
    let messages = world.received(b.conn);
    assert!(world.closed.is_empty());
    assert!(messages.iter().any(asked), "{messages:?}");
    assert!(!world.received(b.conn).iter().any(asked));
}

#[test]
fn whoever_only_connects_to_the_port_of_links_keeps_no_node_out() {
    let mut world = World::new(|_| {});
    let total = Config::default().links.total;
    let stranger = Address([7; 16]);
    let first = world.node.handle_caller(world.now, stranger).expect("there is a place");
    let mut closed = Vec::new();
    for _ in 0..total * 2 {
        world.now.instant = world.now.instant + Duration::from_micros(1);
        world.node.handle_caller(world.now, stranger).expect("another makes room");
        while let Some(output) = world.node.poll_output() {
            if let Output::CloseLink(link, _) = output {
                closed.push(link);
            }
        }
    }
    assert_eq!((closed.len(), closed[0]), (total * 2 + 1 - total / 4, first), "the first one first");
    // Dialed links use the other places, and are not displaced by strangers.
    for node in 0..total - total / 4 {
        world.node.handle_link(world.now, NodeId(100 + node as u64)).expect("there is a place");
    }
    assert_eq!(world.node.handle_link(world.now, NodeId(99)), None);
    world.node.handle_caller(world.now, stranger).expect("another stranger makes room");
}

#[test]
fn a_player_who_logs_in_too_often_is_told_when_to_come_back() {
    let mut world = World::new(|config| config.rates.logins = Rate { per_second: 2, burst: 3 });
    for _ in 0..3 {
        let conn = world.accept("ann");
        world.hello(conn, None);
    }
    let refused = world.accept("ann");
    world.send(refused, v1::Kind::Hello, &v1::Hello::default());
    let messages = world.received(refused);
    let [ToClient::Goodbye(goodbye)] = &messages[..] else { panic!("no Goodbye: {messages:?}") };
    assert_eq!((goodbye.reason(), goodbye.retry_after_ms), (v1::Reason::RateLimited, 500));
    assert_eq!(world.node.stats().logins_limited, 1);
    // The session before continues, and so do those of all other players.
    assert!(world.closed.iter().filter(|(_, reason)| *reason == v1::Reason::TakenOver).count() == 2);
    let other = world.accept("bob");
    world.hello(other, None);
    world.advance(Duration::from_millis(500));
    let again = world.accept("ann");
    world.hello(again, None);
}

#[test]
fn an_address_that_connects_too_often_is_refused_without_any_state() {
    let rate = Rate { per_second: 4, burst: 2 };
    let mut world = World::new(|config| config.rates.logins_per_address = rate);
    world.accept("ann");
    world.accept("bob");
    let connections = world.node.stats().connections;
    let refused = world.node.handle_accept(world.now, Address([0; 16]));
    assert_eq!(refused, Err(Refusal::TooFast(Duration::from_millis(250))));
    assert_eq!(world.node.stats().connections, connections);
    world.node.handle_accept(world.now, Address([1; 16])).expect("another address is another's");
    world.advance(Duration::from_millis(250));
    world.accept("ann");
}
