//! Deadlines that the node finds late. The node stood still, so peers are excused once.

use super::*;

const STALL: Duration = Duration::from_secs(40);

impl World {
    /// Lets the process stand still for a time in which nothing arrives.
    fn stand_still(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.node.handle_timeout(self.now);
        self.settle();
        self.registry.handle_timeout(self.now.instant);
        self.settle();
    }

    /// Opens a session for a player, and closes the connection.
    fn away(&mut self, player: &str) -> v1::Resume {
        let conn = self.accept(player);
        let (welcome, _) = self.hello(conn, None);
        self.node.handle_closed(self.now, conn);
        v1::Resume { session: welcome.session, epoch: welcome.epoch, ..v1::Resume::default() }
    }
}

#[test]
fn a_handshake_has_its_time_once_more_after_the_node_stood_still() {
    let mut world = World::new(|_| {});
    let (late, silent) = (world.accept("late"), world.accept("silent"));
    world.stand_still(STALL);
    assert_eq!(world.closed, []);
    let (welcome, _) = world.hello(late, None);
    assert!(!welcome.resumed);
    // Only once: a node that is always late does not extend deadlines for ever.
    world.stand_still(STALL);
    assert_eq!(world.closed, [(silent, v1::Reason::HandshakeTimeout)]);
}

#[test]
fn a_session_waits_once_for_who_may_be_at_the_door() {
    let mut world = World::new(|_| {});
    let conn = world.accept("alice");
    let (welcome, _) = world.hello(conn, None);
    let resume = |epoch| v1::Resume { session: welcome.session.clone(), epoch, ..v1::Resume::default() };
    world.node.handle_closed(world.now, conn);
    world.stand_still(world.node.config().sessions.ttl * 2);
    let again = world.accept("alice");
    let (back, _) = world.hello(again, Some(resume(welcome.epoch)));
    assert!(back.resumed);
    // The session ends if the player is late twice.
    world.node.handle_closed(world.now, again);
    world.stand_still(world.node.config().sessions.ttl * 2);
    world.stand_still(STALL);
    assert_eq!(world.node.stats().sessions, 0);
}

#[test]
fn a_session_does_not_end_between_the_upgrade_and_the_hello_of_its_player() {
    let mut world = World::new(|_| {});
    let resume = world.away("alice");
    let ttl = world.node.config().sessions.ttl;
    world.advance(ttl - Duration::from_millis(1));
    let again = world.accept("alice");
    world.advance(Duration::from_millis(5));
    assert!(world.hello(again, Some(resume)).0.resumed);
    // A client that sends nothing after its upgrade keeps the session for one handshake timeout
    // only.
    world.node.handle_closed(world.now, again);
    world.advance(ttl - Duration::from_millis(1));
    world.accept("alice");
    world.advance(world.node.config().connections.handshake_timeout * 2);
    assert_eq!(world.node.stats().sessions, 0);
}

#[test]
fn a_node_alone_keeps_its_leases_however_long_it_stands_still() {
    let mut world = World::new(|_| {});
    let mut player = world.player("alice");
    for _ in 0..3 {
        world.say(&mut player, "before");
        world.stand_still(world.node.config().registrar.node_ttl * 3);
        assert!(world.node.leads("arena").is_some());
    }
    assert!(world.node.is_serving(world.now.instant));
    assert!(!world.events.iter().any(|event| matches!(event, Event::RoomClosed { .. })));
}

#[test]
fn a_ping_of_the_client_is_answered() {
    let mut world = World::new(|_| {});
    let conn = world.accept("alice");
    let (welcome, _) = world.hello(conn, None);
    assert!(welcome.answers_pings);
    world.send(conn, v1::Kind::Ping, &v1::Ping { nonce: 77, rtt_us: 0 });
    assert_eq!(world.received(conn), [ToClient::Pong(v1::Pong { nonce: 77 })]);
}

#[test]
fn messages_of_the_application_leave_place_for_answers() {
    let mut world = World::new(|_| {});
    let conn = world.accept("alice");
    world.hello(conn, None);
    while world.node.send(world.now, conn, "game.Event", b"news") {}
    // One ping arrives, and another one was under way.
    for nonce in 0..2 {
        world.send(conn, v1::Kind::Ping, &v1::Ping { nonce, rtt_us: 0 });
    }
    assert_eq!(world.closed, []);
    assert!(world.received(conn).contains(&ToClient::Pong(v1::Pong { nonce: 0 })));
}

#[test]
fn a_session_waits_for_who_is_at_the_door_also_when_the_node_stands_still_again() {
    let mut world = World::new(|_| {});
    let resume = world.away("alice");
    world.advance(world.node.config().sessions.ttl - Duration::from_millis(1));
    let again = world.accept("alice");
    world.advance(Duration::from_millis(5));
    world.stand_still(STALL);
    assert!(world.hello(again, Some(resume)).0.resumed);
}

#[test]
fn a_session_waits_once_for_who_is_being_upgraded() {
    let mut world = World::new(|_| {});
    let resume = world.away("alice");
    let ttl = world.node.config().sessions.ttl;
    world.advance(ttl - Duration::from_millis(1));
    let again = world.node.handle_accept(world.now, Address([0; 16])).unwrap();
    world.advance(Duration::from_millis(5));
    world.upgrade(again, "alice");
    assert!(world.hello(again, Some(resume)).0.resumed);
    // A stranger's connection keeps the session once, even if others follow.
    world.node.handle_closed(world.now, again);
    let handshake = world.node.config().connections.handshake_timeout;
    world.advance(ttl - Duration::from_millis(1));
    for _ in 0..2 {
        world.node.handle_accept(world.now, Address([0; 16])).unwrap();
        world.advance(handshake);
    }
    assert_eq!(world.node.stats().sessions, 0);
}

#[test]
fn a_session_waits_for_who_came_while_the_node_stood_still_however_often() {
    let mut world = World::new(|_| {});
    let resume = world.away("alice");
    world.stand_still(world.node.config().sessions.ttl * 2);
    world.now.instant = world.now.instant + STALL;
    let again = world.node.handle_accept(world.now, Address([0; 16])).unwrap();
    world.node.handle_timeout(world.now);
    world.settle();
    world.upgrade(again, "alice");
    assert!(world.hello(again, Some(resume)).0.resumed);
}

#[test]
fn a_session_waits_for_each_connection_at_the_door_not_only_the_newest() {
    let mut world = World::new(|_| {});
    let resume = world.away("alice");
    // The session has waited once for a stranger, and does not do so again.
    let (ttl, handshake) =
        (world.node.config().sessions.ttl, world.node.config().connections.handshake_timeout);
    world.advance(ttl - Duration::from_millis(1));
    world.node.handle_accept(world.now, Address([0; 16])).unwrap();
    world.advance(handshake);
    let (first, second) = (world.accept("alice"), world.accept("alice"));
    world.node.handle_closed(world.now, second);
    world.advance(Duration::from_millis(5));
    assert!(world.hello(first, Some(resume)).0.resumed);
}
