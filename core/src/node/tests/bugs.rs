//! A node that finds an invariant of its own broken.

use super::*;
use crate::matchmaking::QueueConfig;

/// Breaks an invariant, always at the same place: a connection has lost its session.
fn break_an_invariant(world: &mut World, conn: ConnId) {
    let session = world.node.connections.swap_session(conn.key(), None);
    world.send(conn, v1::Kind::Ping, &v1::Ping::default());
    world.node.connections.swap_session(conn.key(), session);
}

fn told(world: &World) -> Vec<&Event> {
    world.events.iter().filter(|event| matches!(event, Event::Bug { .. })).collect()
}

#[test]
fn a_broken_invariant_is_counted_told_once_and_gone_on_from() {
    let mut world = World::new(|_| {});
    world.node.bugs = Bugs::lenient();
    let conn = world.player("alice").conn;
    for _ in 0..3 {
        break_an_invariant(&mut world, conn);
    }
    assert_eq!(world.node.stats().bugs, 3);
    let told = told(&world);
    let [Event::Bug { what, place }] = told[..] else { panic!("{told:?}") };
    assert_eq!(*what, "an open connection has no session");
    assert!(place.file().ends_with("intake.rs"), "{place}");
    world.send(conn, v1::Kind::Ping, &v1::Ping::default());
    let pongs = world.received(conn).into_iter().filter(|m| matches!(m, ToClient::Pong(_))).count();
    assert_eq!(pongs, 1, "it goes on");
}

#[test]
fn a_broken_invariant_is_news_that_the_driver_is_woken_for() {
    let mut world = World::new(|_| {});
    world.node.bugs = Bugs::lenient();
    world.node.bugs.found("something");
    assert_eq!(world.node.poll_timeout().map(|deadline| deadline.reason), Some("output is queued"));
    world.settle();
    assert_ne!(world.node.poll_timeout().map(|deadline| deadline.reason), Some("output is queued"));
}

#[test]
fn broken_invariants_of_matchmaking_are_told_and_counted_too() {
    let name = |name| Name::new(name).unwrap();
    let queue = QueueConfig::new(name("duel"), 2, 1, vec![name("eu")]);
    let mut world = World::new(|config| config.matchmaking.queues = vec![queue]);
    world.node.player_tickets.find_bug("of a player");
    assert_eq!(world.node.poll_timeout().map(|deadline| deadline.reason), Some("output is queued"));
    world.settle();
    world.node.matcher.find_bugs("of a match");
    assert_eq!(world.node.poll_timeout().map(|deadline| deadline.reason), Some("output is queued"));
    world.settle();
    assert_ne!(world.node.poll_timeout().map(|deadline| deadline.reason), Some("output is queued"));
    let what = |event: &&Event| match event {
        Event::Bug { what, .. } => *what,
        _ => "no bug",
    };
    let told: Vec<_> = told(&world).iter().map(what).collect();
    assert_eq!(told, ["of a player", "of a match", "of a match"]);
    assert_eq!(world.node.stats().bugs, 3);
}

#[test]
fn a_broken_invariant_of_the_registrar_is_told_and_counted_too() {
    let mut world = World::new(|_| {});
    world.node.registrar.find_bug("something");
    assert_eq!(world.node.poll_timeout().map(|deadline| deadline.reason), Some("output is queued"));
    world.settle();
    assert_ne!(world.node.poll_timeout().map(|deadline| deadline.reason), Some("output is queued"));
    assert_eq!(world.node.stats().bugs, 1);
    let told = told(&world);
    assert!(matches!(told[..], [Event::Bug { what: "something", .. }]), "{told:?}");
}

#[test]
#[should_panic(expected = "broken invariant: an open connection has no session")]
fn a_test_fails_at_a_broken_invariant() {
    let mut world = World::new(|_| {});
    let conn = world.player("alice").conn;
    break_an_invariant(&mut world, conn);
}
