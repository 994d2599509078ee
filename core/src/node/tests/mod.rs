//! A node driven by hand-made frames, one behaviour a test.

mod admission;
mod bugs;
mod clock;
mod cluster;
mod dials;
mod interleavings;
mod late;
mod limits;
mod matchmaking;
mod metering;
mod parting;
mod races;
mod random;
mod reach;
mod requests;
mod sealed;
mod several;
mod turns;
mod unnamed;

use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;
use skirmish_proto::v1;

use super::*;
use crate::base::time::Wall;
use crate::registry::{Embedded, RegistryConfig};
use crate::wire::{Frame, ToClient, encode};

/// Deadlines of a node without connections.
const RENEWALS: [&str; 3] = ["a keep-alive is due", "the generation is looked at", "writes are checked"];

const HOUR: Duration = Duration::from_secs(3600);

/// A node and its clock, driven by the contract.
struct World {
    node: Node,
    registry: Embedded,
    now: Now,
    events: Vec<Event>,
    closed: Vec<(ConnId, v1::Reason)>,
    aborted: Vec<ConnId>,
    resumed: Vec<ConnId>,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap();
        let record = v1::NodeRecord::default();
        let mut world = Self {
            node: Node::new(config, [7; 32], NodeId(1), record, None),
            registry: Embedded::new(RegistryConfig::default(), Instant::ZERO),
            now: Now { instant: Instant::ZERO, wall: Wall(1_700_000_000_000) },
            events: vec![],
            closed: vec![],
            aborted: vec![],
            resumed: vec![],
        };
        world.node.start(world.now);
        world.settle();
        world
    }

    fn settle(&mut self) {
        loop {
            while let Some(output) = self.node.poll_output() {
                match output {
                    Output::Event(event) => self.events.push(event),
                    Output::Close(conn, reason) => self.closed.push((conn, reason)),
                    Output::Abort(conn) => self.aborted.push(conn),
                    Output::Resume(conn) => self.resumed.push(conn),
                    Output::Registry(call) => self.registry.handle_call(self.now.instant, call),
                    Output::Wake(_) => {}
                    other => panic!("a node that is alone wants {other:?}"),
                }
            }
            let Some(event) = self.registry.poll_event() else { break };
            self.node.handle_registry_event(self.now, event);
        }
        self.node.audit().unwrap();
    }

    /// Advances the time, with a stop at each reported deadline.
    fn advance(&mut self, by: Duration) {
        let end = self.now.instant + by;
        let due = |world: &Self| Deadline::earliest(world.node.poll_timeout(), world.registry.poll_timeout());
        while let Some(deadline) = due(self).filter(|deadline| deadline.at <= end) {
            let at = deadline.at.max(self.now.instant);
            self.now.wall.0 += u64::try_from((at - self.now.instant).as_millis()).unwrap();
            self.now.instant = at;
            self.node.handle_timeout(self.now);
            self.settle();
            self.registry.handle_timeout(at);
            self.settle();
        }
        self.now.wall.0 += u64::try_from((end - self.now.instant).as_millis()).unwrap();
        self.now.instant = end;
    }

    fn accept(&mut self, player: &str) -> ConnId {
        let conn = self.node.handle_accept(self.now, Address([0; 16])).unwrap();
        self.upgrade(conn, player);
        conn
    }

    fn upgrade(&mut self, conn: ConnId, player: &str) {
        let player = Name::new(player).unwrap();
        let identity = Identity { player, token: Bytes::from_static(b"token"), trace: Trace::default() };
        self.node.handle_upgraded(self.now, conn, identity);
        self.settle();
    }

    fn send(&mut self, conn: ConnId, kind: v1::Kind, message: &impl Message) {
        self.node.handle_frame(self.now, conn, encode(kind, &v1::Metadata::default(), message));
        self.settle();
    }

    fn received(&mut self, conn: ConnId) -> Vec<ToClient> {
        let mut messages = vec![];
        while let Some(frame) = self.node.poll_transmit(self.now, conn) {
            messages.push(ToClient::decode(&Frame::decode(frame, 1 << 20).unwrap()).unwrap());
        }
        self.settle();
        messages
    }

    /// Sends `Hello`, and returns the `Welcome` and the messages after it.
    fn hello(&mut self, conn: ConnId, resume: Option<v1::Resume>) -> (v1::Welcome, Vec<ToClient>) {
        self.send(conn, v1::Kind::Hello, &v1::Hello { resume, ..v1::Hello::default() });
        let mut messages = self.received(conn);
        let ToClient::Welcome(welcome) = messages.remove(0) else { panic!("no Welcome") };
        (welcome, messages)
    }

    /// Connects a player and joins room "arena".
    fn player(&mut self, player: &str) -> Player {
        let conn = self.accept(player);
        let (welcome, _) = self.hello(conn, None);
        self.send(conn, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
        let messages = self.received(conn);
        let ToClient::Joined(joined) = &messages[0] else { panic!("no Joined: {messages:?}") };
        Player { conn, session: welcome.session, epoch: joined.epoch, said: 0 }
    }

    fn say(&mut self, player: &mut Player, body: &str) {
        player.said += 1;
        let say = say(player.said, body);
        self.send(player.conn, v1::Kind::Say, &say);
    }
}

struct Player {
    conn: ConnId,
    session: Bytes,
    epoch: u64,
    said: u64,
}

impl Player {
    fn resume(&self, seq: u64) -> v1::Resume {
        let room = v1::RoomCursor { room: "arena".into(), epoch: self.epoch, seq, request: 0 };
        v1::Resume { session: self.session.clone(), rooms: vec![room], ..v1::Resume::default() }
    }
}

fn say(client_seq: u64, body: &str) -> v1::Say {
    v1::Say {
        room: "arena".into(),
        client_seq,
        body: body.to_string().into(),
        type_url: String::new(),
        ends_turn: None,
    }
}

/// Returns the bodies of the reliable messages, with their sequence numbers.
fn said(messages: &[ToClient]) -> Vec<(u64, String)> {
    let body = |message: &ToClient| match message {
        ToClient::Entry(e) if e.kind() == v1::EntryKind::Say => {
            Some((e.seq, String::from_utf8(e.body.to_vec()).unwrap()))
        }
        _ => None,
    };
    messages.iter().filter_map(body).collect()
}

fn goodbye(messages: &[ToClient]) -> Option<v1::Reason> {
    match messages.last() {
        Some(ToClient::Goodbye(goodbye)) => Some(goodbye.reason()),
        _ => None,
    }
}

#[test]
fn everybody_in_a_room_gets_what_is_said_in_one_order() {
    let mut world = World::new(|_| {});
    let mut a = world.player("a");
    let mut b = world.player("b");
    world.received(a.conn);
    for n in 0..5 {
        world.say(&mut a, &n.to_string());
        world.say(&mut b, &n.to_string());
    }
    let to_a = said(&world.received(a.conn));
    let to_b = said(&world.received(b.conn));
    assert_eq!(to_a, to_b);
    assert_eq!(to_a.len(), 10);
    assert!(to_a.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
}

#[test]
fn a_resend_is_acknowledged_and_not_applied() {
    let mut world = World::new(|_| {});
    let mut a = world.player("a");
    world.say(&mut a, "once");
    world.received(a.conn);
    world.send(a.conn, v1::Kind::Say, &say(1, "once"));
    let messages = world.received(a.conn);
    assert!(matches!(&messages[..], [ToClient::Ack(ack)] if ack.client_seq == 1), "{messages:?}");
}

#[test]
fn a_gap_in_the_numbers_of_a_sender_is_named() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    world.send(a.conn, v1::Kind::Say, &say(3, "early"));
    let messages = world.received(a.conn);
    assert!(matches!(&messages[..], [ToClient::Throttle(t)] if t.expected == 1), "{messages:?}");
}

#[test]
fn a_resume_goes_on_at_the_cursor() {
    let mut world = World::new(|_| {});
    let mut a = world.player("a");
    let mut b = world.player("b");
    world.say(&mut a, "before");
    let seq = said(&world.received(b.conn))[0].0;
    world.node.handle_closed(world.now, b.conn);
    world.say(&mut a, "while away");
    world.advance(Duration::from_secs(30));
    world.say(&mut a, "and more");
    b.conn = world.accept("b");
    let (welcome, messages) = world.hello(b.conn, Some(b.resume(seq)));
    assert!(welcome.resumed);
    assert!(matches!(&messages[0], ToClient::Joined(joined) if joined.resumed));
    assert_eq!(said(&messages), [(seq + 1, "while away".into()), (seq + 2, "and more".into())]);
}

#[test]
fn a_snapshot_that_was_lost_with_its_connection_is_sent_again() {
    let mut world = World::new(|_| {});
    let mut a = world.player("a");
    world.node.handle_closed(world.now, a.conn);
    a.conn = world.accept("a");
    let (_, messages) = world.hello(a.conn, Some(a.resume(0)));
    assert!(
        matches!(&messages[..], [ToClient::Joined(j), ToClient::Snapshot(s), ToClient::Entry(_), ..]
            if j.resumed && s.seq == 0 && s.missing_from == 0),
        "{messages:?}"
    );
}

#[test]
fn whoever_falls_out_of_the_window_gets_a_snapshot_that_says_so() {
    let mut world = World::new(|config| config.rooms.window_entries = 4);
    let mut a = world.player("a");
    let mut b = world.player("b");
    world.received(b.conn);
    for n in 0..10 {
        world.say(&mut a, &n.to_string());
    }
    let messages = world.received(b.conn);
    let ToClient::Snapshot(snapshot) = &messages[0] else { panic!("{messages:?}") };
    assert_eq!((snapshot.missing_from, snapshot.seq), (3, 12));
    assert_eq!(snapshot.members.len(), 2);
    assert_eq!(said(&messages), []);
    world.say(&mut b, "goes on");
    assert_eq!(said(&world.received(b.conn)), [(13, "goes on".into())]);
}

#[test]
fn a_late_joiner_gets_the_history_it_asks_for() {
    let mut world = World::new(|_| {});
    let mut a = world.player("a");
    for n in 0..5 {
        world.say(&mut a, &n.to_string());
    }
    let b = world.accept("b");
    world.hello(b, None);
    world.send(b, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 2, request: 0 });
    let messages = world.received(b);
    assert!(
        matches!(&messages[1], ToClient::Snapshot(s) if s.missing_from == 0 && s.seq == 4),
        "{messages:?}"
    );
    assert_eq!(said(&messages), [(5, "3".into()), (6, "4".into())]);
}

#[test]
fn the_newest_connection_wins_and_the_old_one_cannot_write() {
    let mut world = World::new(|_| {});
    let mut old = world.player("a");
    let mut b = world.player("b");
    world.say(&mut old, "first");
    world.received(b.conn);
    let new = world.accept("a");
    let (welcome, _) = world.hello(new, Some(old.resume(1)));
    assert!(welcome.resumed);
    world.say(&mut old, "from the grave");
    assert_eq!(said(&world.received(b.conn)), []);
    assert_eq!(goodbye(&world.received(old.conn)), Some(v1::Reason::TakenOver));
    world.node.handle_closed(world.now, old.conn);
    world.settle();
    old.conn = new;
    old.said = 1;
    world.say(&mut old, "second");
    assert_eq!(said(&world.received(b.conn)).len(), 1, "the late end of the old one harms nothing");
    b.said = 0;
}

#[test]
fn another_device_of_a_player_ends_the_session_of_the_first() {
    let mut world = World::new(|_| {});
    let old = world.player("a");
    let new = world.accept("a");
    let (welcome, _) = world.hello(new, None);
    assert!(!welcome.resumed);
    assert_ne!(welcome.session, old.session);
    assert_eq!(goodbye(&world.received(old.conn)), Some(v1::Reason::TakenOver));
    assert_eq!(world.node.stats().members, 0);
    assert_eq!(world.node.stats().rooms, 0);
}

#[test]
fn a_session_is_kept_for_its_time_and_not_longer() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    world.node.handle_closed(world.now, a.conn);
    world.settle();
    world.advance(Duration::from_secs(59));
    assert_eq!(world.node.stats().sessions, 1);
    world.advance(Duration::from_secs(2));
    assert_eq!((world.node.stats().sessions, world.node.stats().rooms), (0, 0));
    let conn = world.accept("a");
    let (welcome, messages) = world.hello(conn, Some(a.resume(1)));
    assert!(!welcome.resumed);
    assert!(
        matches!(&messages[..], [ToClient::Left(left)] if left.reason() == v1::LeftReason::Gone),
        "{messages:?}"
    );
}

#[test]
fn a_room_that_is_opened_again_has_another_epoch() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    world.send(a.conn, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
    world.received(a.conn);
    world.send(a.conn, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    let messages = world.received(a.conn);
    assert!(matches!(&messages[0], ToClient::Joined(joined) if joined.epoch > a.epoch));
}

#[test]
fn silence_is_closed_after_three_heartbeats() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    world.advance(Duration::from_secs(40));
    assert!(world.closed.is_empty());
    world.advance(Duration::from_secs(21));
    assert_eq!(world.closed, [(a.conn, v1::Reason::HeartbeatTimeout)]);
    assert!(world.events.contains(&Event::Unhealthy { conn: a.conn }));
    assert_eq!(world.node.stats().unhealthy, 1);
    world.node.handle_closed(world.now, a.conn);
    world.settle();
    assert_eq!(world.node.stats().unhealthy, 0);
    assert_eq!(world.node.stats().detached, 1);
}

#[test]
fn answers_to_pings_keep_a_connection_and_measure_it() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    for _ in 0..100 {
        world.advance(Duration::from_secs(5));
        for message in world.received(a.conn) {
            if let ToClient::Ping(ping) = message {
                world.send(a.conn, v1::Kind::Pong, &v1::Pong { nonce: ping.nonce });
            }
        }
    }
    assert!(world.closed.is_empty());
    assert!(world.node.rtt(a.conn).is_some());
}

#[test]
fn whoever_does_not_say_hello_is_closed_and_forgotten() {
    let mut world = World::new(|_| {});
    let conn = world.accept("a");
    world.advance(Duration::from_secs(11));
    assert_eq!(world.closed, [(conn, v1::Reason::HandshakeTimeout)]);
    assert_eq!(goodbye(&world.received(conn)), Some(v1::Reason::HandshakeTimeout));
    world.advance(Duration::from_secs(6));
    assert_eq!(world.aborted, [conn], "a driver that does not close is told to drop it");
    assert_eq!(world.node.stats().connections, 0);
    assert_eq!(world.node.stats().unauthenticated, 0);
}

#[test]
fn caps_refuse_before_there_is_any_state() {
    let mut world = World::new(|config| {
        config.connections.total = 4;
        config.connections.per_address = 2;
        config.connections.unauthenticated = 3;
    });
    let accept = |world: &mut World, n: u8| world.node.handle_accept(world.now, Address([n; 16]));
    let first = accept(&mut world, 1).unwrap();
    accept(&mut world, 1).unwrap();
    assert_eq!(accept(&mut world, 1), Err(Refusal::AddressFull));
    accept(&mut world, 2).unwrap();
    // The first address has more than its share: another address displaces one of its connections.
    accept(&mut world, 3).unwrap();
    assert_eq!(accept(&mut world, 2), Err(Refusal::TooManyUnauthenticated));
    assert_eq!(accept(&mut world, 4), Err(Refusal::TooManyUnauthenticated));
    world.node.handle_closed(world.now, first);
    assert_eq!(world.node.stats().displaced, 1);
    world.settle();
}

#[test]
fn latest_messages_are_conflated_for_whoever_lags() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    let b = world.player("b");
    world.received(a.conn);
    for n in 0..20u8 {
        let body = Bytes::copy_from_slice(&[n]);
        let latest =
            v1::Latest { room: "arena".into(), key: u32::from(n % 2), body, ..v1::Latest::default() };
        world.send(a.conn, v1::Kind::Latest, &latest);
    }
    let bodies = |messages: Vec<ToClient>| -> Vec<u8> {
        let body = |m| if let ToClient::Latest(latest) = m { Some(latest.body[0]) } else { None };
        messages.into_iter().filter_map(body).collect()
    };
    assert_eq!(bodies(world.received(b.conn)), [18, 19]);
    assert_eq!(bodies(world.received(a.conn)), [], "nobody gets back its own");
    assert_eq!(world.node.stats().conflated, 18);
}

#[test]
fn a_room_gathers_for_its_flush_interval() {
    let mut world = World::new(|config| config.rooms.flush_interval = Duration::from_millis(50));
    let mut a = world.player("a");
    let b = world.player("b");
    world.advance(Duration::from_secs(1));
    world.received(b.conn);
    world.say(&mut a, "one");
    world.advance(Duration::from_millis(49));
    world.say(&mut a, "two");
    assert_eq!(said(&world.received(b.conn)), []);
    world.advance(Duration::from_millis(1));
    assert_eq!(said(&world.received(b.conn)).len(), 2);
}

#[test]
fn drain_sends_what_is_owed_and_says_when_to_come_back() {
    let mut world = World::new(|_| {});
    let mut a = world.player("a");
    let b = world.player("b");
    world.say(&mut a, "owed");
    world.node.drain(world.now, Duration::from_millis(700));
    world.settle();
    let messages = world.received(b.conn);
    assert_eq!(said(&messages).len(), 1);
    let Some(ToClient::Goodbye(goodbye)) = messages.last() else { panic!("{messages:?}") };
    assert_eq!((goodbye.reason(), goodbye.retry_after_ms), (v1::Reason::Draining, 700));
    assert_eq!(world.node.handle_accept(world.now, Address([9; 16])), Err(Refusal::Draining));
}

#[test]
fn rubbish_closes_and_says_what_it_was() {
    let mut world = World::new(|_| {});
    let rubbish: [Bytes; 4] = [
        Bytes::new(),
        Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"),
        encode(v1::Kind::Welcome, &v1::Metadata::default(), &v1::Welcome::default()),
        encode(v1::Kind::Say, &v1::Metadata::default(), &say(1, &"x".repeat(20_000))),
    ];
    for bytes in rubbish {
        let a = world.player("a");
        world.node.handle_frame(world.now, a.conn, bytes);
        world.settle();
        assert_eq!(goodbye(&world.received(a.conn)), Some(v1::Reason::ProtocolError));
        assert!(matches!(world.events.last(), Some(Event::Misbehaved { .. })));
        world.node.handle_closed(world.now, a.conn);
        world.settle();
    }
}

#[test]
fn the_token_in_hello_must_be_that_of_the_upgrade() {
    let mut world = World::new(|_| {});
    for (token, reason) in [("token", None), ("tokem", Some(v1::Reason::Unauthenticated))] {
        let conn = world.accept("a");
        let hello = v1::Hello { token: Bytes::from_static(token.as_bytes()), ..v1::Hello::default() };
        world.send(conn, v1::Kind::Hello, &hello);
        assert_eq!(goodbye(&world.received(conn)), reason);
    }
}

#[test]
fn rooms_of_a_hello_are_joined_behind_the_welcome() {
    let mut world = World::new(|config| config.sessions.rooms = 2);
    let conn = world.accept("a");
    let joins = ["arena", "hall", "yard"].map(|room| v1::Join { room: room.into(), history: 0, request: 0 });
    let hello = v1::Hello { joins: joins.to_vec(), ..v1::Hello::default() };
    world.send(conn, v1::Kind::Hello, &hello);
    let messages = world.received(conn);
    let ToClient::Welcome(welcome) = &messages[0] else { panic!("no Welcome: {messages:?}") };
    let joined = messages.iter().filter_map(|message| match message {
        ToClient::Joined(joined) => Some(joined.room.as_str()),
        _ => None,
    });
    assert_eq!(joined.collect::<Vec<_>>(), ["arena", "hall"]);
    let left = |messages: &[ToClient]| {
        messages.iter().find_map(|message| match message {
            ToClient::Left(left) => Some((left.room.clone(), left.reason())),
            _ => None,
        })
    };
    assert_eq!(left(&messages), Some(("yard".into(), v1::LeftReason::Limit)));

    // The player has left the rooms that the resume does not name, and may join others instead.
    world.node.handle_closed(world.now, conn);
    world.settle();
    let conn = world.accept("a");
    let resume = v1::Resume { session: welcome.session.clone(), epoch: welcome.epoch, rooms: vec![] };
    let joins = joins.into_iter().skip(1).collect();
    world.send(conn, v1::Kind::Hello, &v1::Hello { resume: Some(resume), joins, ..v1::Hello::default() });
    let messages = world.received(conn);
    assert!(matches!(&messages[0], ToClient::Welcome(welcome) if welcome.resumed));
    assert_eq!(left(&messages), None);
    let joined = messages.iter().filter(|message| matches!(message, ToClient::Joined(_)));
    assert_eq!(joined.count(), 2);
}

#[test]
fn an_operator_can_remove_a_player() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    let b = world.player("b");
    world.received(b.conn);
    assert!(world.node.kick(world.now, "a"));
    assert!(!world.node.kick(world.now, "nobody"));
    world.settle();
    assert_eq!(goodbye(&world.received(a.conn)), Some(v1::Reason::Kicked));
    let messages = world.received(b.conn);
    assert!(messages.iter().any(|m| matches!(m, ToClient::Entry(e) if e.kind() == v1::EntryKind::Leave)));
}

#[test]
fn an_idle_node_asks_for_nothing() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    world.send(a.conn, v1::Kind::Goodbye, &v1::Goodbye::default());
    world.received(a.conn);
    world.node.handle_closed(world.now, a.conn);
    world.settle();
    world.advance(HOUR);
    assert!(RENEWALS.contains(&world.node.poll_timeout().unwrap().reason));
    let stats = world.node.stats();
    assert_eq!((stats.connections, stats.sessions, stats.rooms, stats.members), (0, 0, 0, 0));
}

#[test]
fn queued_output_is_due_now() {
    let mut world = World::new(|_| {});
    let conn = world.accept("a");
    world.advance(Duration::from_secs(1));
    let hello = encode(v1::Kind::Hello, &v1::Metadata::default(), &v1::Hello::default());
    world.node.handle_frame(world.now, conn, hello);
    assert_eq!(world.node.poll_timeout().unwrap().at, world.now.instant);
}
