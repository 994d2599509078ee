//! The room's replicated state, against a server's replica.

use super::*;
use crate::client::StateRefusal;
use crate::crdt::{Replica, ReplicaLimits};

fn limits() -> ReplicaLimits {
    ReplicaLimits {
        entries_per_owner: 32,
        entries: 8_192,
        clock_bound: Duration::from_secs(2),
        tombstone_horizon: Duration::from_secs(600),
        planted: crate::base::plant::Planted::default(),
    }
}

fn server() -> Replica {
    Replica::new(1, limits(), [0; 32])
}

/// Returns the server's time at the client's `now`.
fn clock(script: &Script) -> Now {
    let elapsed = script.now.instant.since(Instant::from_micros(1_000_000)).as_millis();
    Now { instant: script.now.instant, wall: Wall(SERVER_WALL + u64::try_from(elapsed).unwrap()) }
}

/// Exchanges state until neither side has more to send.
fn exchange(script: &mut Script, server: &mut Replica, epoch: u64) {
    for _ in 0..40 {
        for message in script.sent() {
            match message {
                ToServer::State(state) => {
                    server.merge(clock(script), Some("alice"), &state.entries).unwrap();
                }
                ToServer::Reconcile(step) => {
                    let answer = server.reconcile(&step).unwrap();
                    let room = String::from("a");
                    if !answer.entries.is_empty() {
                        let entries = answer.entries;
                        let state = v1::State { room: room.clone(), epoch, entries, ..v1::State::default() };
                        script.tell(v1::Kind::State, &state);
                    }
                    if let Some(step) = answer.reconcile {
                        script.tell(v1::Kind::Reconcile, &v1::Reconcile { room, epoch, ..step });
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        script.sleep(Duration::from_millis(50));
    }
    assert_eq!(script.client.replica("a").unwrap().root(), server.root());
}

fn set(script: &mut Script, name: &str, value: &'static [u8]) {
    script.client.set_property(script.now, "a", name, Some(Bytes::from_static(value))).unwrap();
}

#[test]
fn what_is_written_while_cut_off_merges_on_return() {
    let mut server = server();
    let mut script = Script::new(config());
    script.client.join(script.now, "a", 0).unwrap();
    set(&mut script, "colour", b"red");
    script.client.add(script.now, "a", "kills", 3).unwrap();
    script.connect();
    script.welcome(false);
    script.sent();
    server.set_property(clock(&script), "bob", "colour", Some(Bytes::from_static(b"blue"))).unwrap();
    script.joined(5, 0, 0, false);
    script.snapshot(5, 0, 0);
    exchange(&mut script, &mut server, 5);
    assert_eq!(server.property("alice", "colour"), Some(&Bytes::from_static(b"red")));
    assert_eq!(script.client.replica("a").unwrap().property("bob", "colour").unwrap(), "blue");

    script.client.handle_disconnected(script.now);
    script.drain();
    set(&mut script, "colour", b"green");
    script.client.add(script.now, "a", "kills", -1).unwrap();
    server.set_property(clock(&script), "bob", "colour", None).unwrap();
    script.reconnect();
    script.welcome(true);
    script.joined(5, 0, 0, true);
    exchange(&mut script, &mut server, 5);
    assert_eq!(server.property("alice", "colour"), Some(&Bytes::from_static(b"green")));
    assert_eq!(server.counter("kills"), 2);
    assert_eq!(script.client.replica("a").unwrap().property("bob", "colour"), None);
}

#[test]
fn what_was_written_before_the_welcome_and_has_no_place_is_refused() {
    let mut script = Script::new(config());
    script.client.join(script.now, "a", 0).unwrap();
    set(&mut script, "colour", b"red");
    set(&mut script, "shape", b"round");
    script.client.add(script.now, "a", "kills", 3).unwrap();
    script.connect();
    script.hello();
    let limits = Some(v1::Limits { state_entries: 1, ..v1::Limits::default() });
    script.tell(v1::Kind::Welcome, &v1::Welcome { limits, ..welcome(false) });
    let refused = Event::StateRefused {
        room: "a".into(),
        names: ["shape", "kills"].map(String::from).into(),
        why: StateRefusal::Full,
    };
    assert!(script.events().contains(&refused));
    let replica = script.client.replica("a").unwrap();
    assert_eq!(replica.property("alice", "colour").unwrap(), "red");
    assert_eq!((replica.property("alice", "shape"), replica.counter("kills")), (None, 0));
}

#[test]
fn a_removal_is_not_forgotten_before_it_was_sent() {
    let mut server = server();
    let mut script = Script::new(config());
    script.client.join(script.now, "a", 0).unwrap();
    set(&mut script, "colour", b"red");
    script.connect();
    script.hello();
    script.tell(v1::Kind::Welcome, &v1::Welcome { tombstone_horizon_ms: 1_000, ..welcome(false) });
    script.sent();
    script.joined(5, 0, 0, false);
    script.snapshot(5, 0, 0);
    exchange(&mut script, &mut server, 5);
    // The connection accepts no frames for longer than the horizon.
    script.client.set_property(script.now, "a", "colour", None).unwrap();
    script.sleep(Duration::from_millis(1_500));
    exchange(&mut script, &mut server, 5);
    assert_eq!(server.property("alice", "colour"), None);
    // The removal is sent, so now the tombstone is dropped.
    script.sleep(Duration::from_millis(1_500));
    assert_eq!(script.client.replica("a").unwrap().len(), 0);
}

#[test]
fn a_new_epoch_gets_what_the_player_owns_and_forgets_the_rest() {
    let mut old = server();
    let mut script = Script::in_room();
    old.set_property(clock(&script), "bob", "colour", Some(Bytes::from_static(b"blue"))).unwrap();
    set(&mut script, "colour", b"red");
    script.client.add(script.now, "a", "kills", 3).unwrap();
    exchange_after_rejoin(&mut script, &mut old, 5);
    script.cut();
    let hello = script.hello();
    assert!(hello.resume.is_some());
    script.tell(v1::Kind::Welcome, &v1::Welcome { replica: 10, ..welcome(false) });
    script.sent();
    let mut new = server();
    script.joined(6, 0, 0, false);
    exchange(&mut script, &mut new, 6);
    assert_eq!(new.property("alice", "colour"), Some(&Bytes::from_static(b"red")));
    assert_eq!(new.property("bob", "colour"), None);
    script.client.add(script.now, "a", "kills", 1).unwrap();
    exchange(&mut script, &mut new, 6);
    assert_eq!(new.counter("kills"), 4);
}

/// Exchanges state after a resume, since the reconciliation of the join got no answer.
fn exchange_after_rejoin(script: &mut Script, server: &mut Replica, epoch: u64) {
    script.cut();
    script.welcome(true);
    script.joined(epoch, 10, 0, true);
    exchange(script, server, epoch);
}

#[test]
fn a_refused_clock_is_corrected_and_the_entries_sent_again() {
    let mut server = server();
    let mut script = Script::in_room();
    set(&mut script, "colour", b"red");
    let mut later = clock(&script);
    later.wall = Wall(later.wall.0 - 60_000);
    let refused = script.sent().into_iter().find_map(|message| match message {
        ToServer::State(state) => Some(state),
        _ => None,
    });
    let refused = refused.expect("the property was sent");
    assert!(server.merge(later, Some("alice"), &refused.entries).is_err());
    let answer = v1::State { refused: true, wall_ms: later.wall.0, ..refused };
    script.tell(v1::Kind::State, &answer);
    script.sleep(Duration::from_millis(50));
    let again = script.sent().into_iter().find_map(|message| match message {
        ToServer::State(state) => Some(state),
        _ => None,
    });
    server.merge(later, Some("alice"), &again.expect("sent again").entries).unwrap();
    assert_eq!(server.property("alice", "colour").unwrap(), "red");
}

#[test]
fn frames_of_state_keep_their_distance() {
    let mut script = Script::in_room();
    let mut frames = 0;
    for i in 0..100u8 {
        set(&mut script, "colour", if i % 2 == 0 { b"red" } else { b"blue" });
        frames += script.sent().len();
        script.sleep(Duration::from_millis(10));
    }
    assert!((18..=21).contains(&frames), "{frames} in a second");
    script.sleep(Duration::from_millis(50));
    script.sent();
    let silence = script.client.poll_timeout().map(|deadline| deadline.reason);
    assert_ne!(silence, Some("output is queued"));
}

/// An entry that the server does not have, not even as a tombstone, was removed long ago.
#[test]
fn a_walk_forgets_what_others_wrote_and_the_server_has_forgotten() {
    let mut old = server();
    let mut script = Script::in_room();
    old.set_property(clock(&script), "bob", "colour", Some(Bytes::from_static(b"blue"))).unwrap();
    set(&mut script, "colour", b"red");
    exchange_after_rejoin(&mut script, &mut old, 5);
    assert!(script.client.replica("a").unwrap().property("bob", "colour").is_some());
    let mut forgetful = server();
    exchange_after_rejoin(&mut script, &mut forgetful, 5);
    assert_eq!(script.client.replica("a").unwrap().property("bob", "colour"), None);
    assert_eq!(forgetful.property("alice", "colour"), Some(&Bytes::from_static(b"red")));
}

#[test]
fn what_only_a_server_that_died_had_newer_gives_way_to_what_the_next_one_has() {
    let mut server = server();
    let mut script = Script::in_room();
    server.set_present(clock(&script), "bob", true).unwrap();
    // Another server noticed that bob left, notified its own client, and died before it notified
    // any other node.
    let mut dead = Replica::new(2, limits(), [0; 32]);
    let (known, _) = server.changes_since(0, usize::MAX);
    dead.merge(clock(&script), None, &known).unwrap();
    script.sleep(Duration::from_millis(50));
    dead.set_present(clock(&script), "bob", false).unwrap();
    dead.add(clock(&script), "bob", "kills", 5).unwrap();
    let (entries, _) = dead.changes_since(0, usize::MAX);
    let state = v1::State { room: "a".into(), epoch: 5, entries, ..v1::State::default() };
    script.tell(v1::Kind::State, &state);
    assert!(!script.client.replica("a").unwrap().is_present("bob"));
    script.cut();
    script.welcome(true);
    script.joined(5, 10, 0, true);
    exchange(&mut script, &mut server, 5);
    let replica = script.client.replica("a").unwrap();
    assert!(replica.is_present("bob"));
    assert_eq!(replica.counter("kills"), 0, "nobody else has counted it");
}

#[test]
fn a_client_keeps_more_than_a_room_of_a_server_may_have() {
    let rooms = crate::config::Config::default().rooms;
    let most = rooms.members * (rooms.state_entries + 1) * 2;
    assert!(ClientConfig::default().state_entries >= most + rooms.state_entries);
}
