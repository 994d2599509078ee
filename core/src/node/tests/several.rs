//! Rooms and sessions over several nodes.

use super::cluster::{Cluster, Member};
use super::*;

#[test]
fn members_on_different_nodes_hear_the_same_in_the_same_order() {
    let mut cluster = Cluster::new(3);
    let mut members: Vec<Member> = (0..3).map(|n| cluster.join(n, ["ann", "bob", "cid"][n])).collect();
    assert_eq!(members[0].epoch, members[2].epoch);
    for member in &mut members {
        cluster.heard(member);
    }
    for round in 0..5 {
        for n in 0..3 {
            let mut member = members.remove(n);
            cluster.say(&mut member, &alloc::format!("{n} says {round}"));
            members.insert(n, member);
        }
    }
    let heard: Vec<Vec<String>> = members.iter_mut().map(|member| cluster.heard(member)).collect();
    assert_eq!(heard[0].len(), 15);
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
}

#[test]
fn a_session_goes_on_at_another_node_and_the_old_connection_is_closed() {
    let mut cluster = Cluster::new(3);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.say(&mut bob, "one");
    cluster.heard(&mut bob);
    cluster.heard(&mut ann);
    let resume = bob.resume();
    cluster.say(&mut ann, "two");
    // Bob's first connection has not read "two". The second one continues from bob's cursor.
    let mut moved = cluster.connect(2, "bob", resume);
    assert_eq!(moved.session, bob.session);
    moved.said = 1;
    cluster.say(&mut moved, "three");
    let all = cluster.heard(&mut ann);
    assert_eq!(all, ["two", "three"]);
    assert!(
        cluster
            .closed
            .iter()
            .any(|(node, conn, reason)| { (*node, *conn, *reason) == (1, bob.conn, v1::Reason::TakenOver) })
    );
    // Messages that still arrive over the old connection are not written.
    bob.said = 2;
    cluster.say(&mut bob, "late");
    assert_eq!(cluster.heard(&mut ann), Vec::<String>::new());
}

#[test]
fn members_are_told_plainly_when_the_primary_of_their_room_dies() {
    let mut cluster = Cluster::new(3);
    let ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.heard(&mut bob);
    cluster.kill(0);
    drop(ann);
    // The dead node stays the primary for as long as the registry names that node.
    cluster.say(&mut bob, "anybody?");
    let held = cluster.received(&bob);
    assert!(held.iter().any(|m| matches!(m, ToClient::Throttle(_))), "{held:?}");
    cluster.advance(Duration::from_secs(30));
    let told = cluster.received(&bob);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(told.iter().any(gone), "{told:?}");
    let before = bob.epoch;
    cluster.send(&bob, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    let messages = cluster.received(&bob);
    bob.learn(&messages);
    assert!(bob.epoch > before);
    bob.said = 0;
    cluster.say(&mut bob, "again");
    assert_eq!(cluster.heard(&mut bob), ["again"]);
}

#[test]
fn what_was_lost_with_a_link_is_asked_for_again() {
    let mut cluster = Cluster::new(2);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.heard(&mut ann);
    cluster.heard(&mut bob);
    cluster.say(&mut bob, "one");
    cluster.swallow = true;
    cluster.say(&mut bob, "two");
    cluster.swallow = false;
    cluster.cut(0, 1);
    cluster.heard(&mut bob);
    cluster.heal();
    cluster.advance(Duration::from_secs(10));
    let messages = cluster.received(&bob);
    let asked = |m: &ToClient| matches!(m, ToClient::Throttle(throttle) if throttle.expected == 2);
    assert!(messages.iter().any(asked), "{messages:?}");
    cluster.send(&bob, v1::Kind::Say, &say(2, "two"));
    assert_eq!(cluster.heard(&mut ann), ["one", "two"]);
}

#[test]
fn a_node_that_the_registry_does_not_confirm_takes_nothing_and_goes_on_when_it_does() {
    let mut cluster = Cluster::new(1);
    let mut ann = cluster.join(0, "ann");
    cluster.heard(&mut ann);
    cluster.unregistered.push(0);
    cluster.advance(Duration::from_secs(12));
    assert!(cluster.events.contains(&(0, Event::NotServing)));
    cluster.say(&mut ann, "held");
    let messages = cluster.received(&ann);
    assert!(
        matches!(&messages[..], [ToClient::Throttle(throttle)] if throttle.expected == 1),
        "{messages:?}"
    );
    // By the registry's clock the node's leases may have ended, but no other node has claimed the
    // room.
    cluster.heal();
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.events.last(), Some(&(0, Event::Serving)));
    cluster.received(&ann);
    cluster.send(&ann, v1::Kind::Say, &say(1, "held"));
    assert_eq!(cluster.heard(&mut ann), ["held"]);
}

#[test]
fn a_short_silence_of_the_registry_loses_nothing() {
    let mut cluster = Cluster::new(2);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.heard(&mut ann);
    cluster.unregistered.push(0);
    cluster.advance(Duration::from_secs(5));
    cluster.say(&mut bob, "on");
    assert_eq!(cluster.heard(&mut ann), ["on"]);
    cluster.heal();
    cluster.advance(Duration::from_secs(20));
    cluster.say(&mut bob, "and on");
    assert_eq!(cluster.heard(&mut ann), ["and on"]);
}

#[test]
fn state_converges_over_nodes() {
    let mut cluster = Cluster::new(3);
    let members: Vec<Member> = (0..3).map(|n| cluster.join(n, ["ann", "bob", "cid"][n])).collect();
    for (n, member) in members.iter().enumerate() {
        let entry = v1::StateEntry {
            domain: v1::Domain::Property.into(),
            owner: ["ann", "bob", "cid"][n].into(),
            name: "colour".into(),
            stamp: Some(v1::Stamp { wall_ms: cluster.now.wall.0, count: 0, replica: n as u64 + 1 }),
            value: Bytes::from_static(b"red"),
            ..v1::StateEntry::default()
        };
        let entries = vec![entry];
        let state = v1::State { room: "arena".into(), epoch: member.epoch, entries, ..v1::State::default() };
        cluster.send(member, v1::Kind::State, &state);
    }
    for node in cluster.nodes.iter().flatten() {
        let replica = node.replica("arena").unwrap();
        assert_eq!(replica.properties().count(), 3);
        assert_eq!(replica.present().count(), 3);
    }
}

#[test]
fn a_node_does_not_go_on_with_a_session_that_was_elsewhere_since() {
    let mut cluster = Cluster::new(2);
    let ann = cluster.join(0, "ann");
    // The first node does not hear that the session moves.
    cluster.unregistered.push(0);
    let moved = cluster.connect(1, "ann", ann.resume());
    let now = cluster.now;
    let conn = cluster.node(0).handle_accept(now, Address([1; 16])).unwrap();
    let player = Name::new("ann").unwrap();
    let identity = Identity { player, token: Bytes::from_static(b"token"), trace: Trace::default() };
    cluster.node(0).handle_upgraded(now, conn, identity);
    let back = Member { node: 0, conn, ..moved };
    let hello = v1::Hello { resume: back.resume(), ..v1::Hello::default() };
    cluster.send(&back, v1::Kind::Hello, &hello);
    assert_eq!(cluster.received(&back), [], "it has to ask first");
    cluster.advance(Duration::from_secs(6));
    assert!(cluster.closed.contains(&(0, conn, v1::Reason::Overloaded)), "{:?}", cluster.closed);
}

#[test]
fn a_primary_that_hears_of_a_newer_session_from_its_node_fences_the_older_one() {
    let mut cluster = Cluster::new(2);
    let mut old = cluster.join(0, "ann");
    cluster.join(0, "bob");
    cluster.unregistered.push(0);
    // The newest connection joins the room at another node, and leaves again.
    let new = cluster.join(1, "ann");
    cluster.send(&new, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
    let fenced = (0, old.conn, v1::Reason::TakenOver);
    assert!(cluster.closed.contains(&fenced), "{:?}", cluster.closed);
    let before = cluster.node(0).stats().entries;
    cluster.send(&old, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    old.said = 0;
    cluster.say(&mut old, "late");
    assert_eq!(cluster.node(0).stats().entries, before);
}

#[test]
fn who_goes_while_he_is_on_his_way_in_leaves_no_member_behind() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, "ann");
    cluster.join(1, "cid");
    let bob = cluster.connect(1, "bob", None);
    cluster.slow = Some(0);
    cluster.send(&bob, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    cluster.send(&bob, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
    cluster.release();
    assert_eq!(cluster.node(0).stats().members, 2);
}

#[test]
fn what_answers_who_wanted_in_before_does_not_let_him_in_again() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, "ann");
    cluster.join(1, "cid");
    let (mut bob, dan) = (cluster.connect(1, "bob", None), cluster.connect(1, "dan", None));
    let join = v1::Join { room: "arena".into(), history: 0, request: 0 };
    cluster.slow = Some(0);
    cluster.send(&bob, v1::Kind::Join, &join);
    // With dan's request, bob's is sent once more.
    cluster.send(&dan, v1::Kind::Join, &join);
    let joined = |messages: &[ToClient]| {
        messages.iter().rev().find_map(|message| match message {
            ToClient::Joined(joined) => Some(joined.member),
            _ => None,
        })
    };
    let first = loop {
        cluster.release_next();
        if let Some(member) = joined(&cluster.received(&bob)) {
            break member;
        }
    };
    cluster.say(&mut bob, "before");
    cluster.send(&bob, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
    cluster.send(&bob, v1::Kind::Join, &join);
    cluster.release();
    let messages = cluster.received(&bob);
    assert!(joined(&messages).is_some_and(|member| member != first), "{messages:?}");
    bob.said = 0;
    cluster.say(&mut bob, "again");
    assert_eq!(cluster.heard(&mut bob), ["again"]);
}

#[test]
fn who_comes_back_while_he_is_on_his_way_in_is_let_in_once() {
    let mut cluster = Cluster::new(1);
    let ann = cluster.connect(0, "ann", None);
    // Longer than the node may serve without the registry, but shorter than its leases last.
    cluster.unregistered.push(0);
    cluster.advance(Duration::from_millis(9_500));
    cluster.send(&ann, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    let resume = v1::Resume { rooms: vec![], ..ann.resume().unwrap() };
    let ann = cluster.connect(0, "ann", Some(resume));
    cluster.heal();
    cluster.advance(Duration::from_secs(4));
    assert_eq!(cluster.node(0).stats().members, 0, "he has not asked again");
    cluster.received(&ann);
    cluster.send(&ann, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    let messages = cluster.received(&ann);
    let snapshots = messages.iter().filter(|m| matches!(m, ToClient::Snapshot(_))).count();
    assert_eq!((cluster.node(0).stats().members, snapshots), (1, 1), "{messages:?}");
}

#[test]
fn an_older_session_whose_node_has_not_heard_of_a_newer_one_is_told_of_it_when_it_joins() {
    let mut cluster = Cluster::new(3);
    cluster.join(0, "bob");
    cluster.join(1, "cid");
    let old = cluster.connect(1, "ann", None);
    cluster.unregistered.push(1);
    cluster.join(2, "ann");
    cluster.send(&old, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    let messages = cluster.received(&old);
    assert_eq!(goodbye(&messages), Some(v1::Reason::TakenOver), "{messages:?}");
}

#[test]
fn who_is_no_member_any_more_when_the_tail_begins_afresh_is_told_so() {
    let mut config = Config::default();
    config.rooms.window_entries = 2;
    config.sessions.ttl = Duration::from_secs(5);
    let mut cluster = Cluster::with(2, config);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.say(&mut bob, "acknowledged");
    assert_eq!(cluster.heard(&mut bob), ["acknowledged"]);
    cluster.cut(0, 1);
    cluster.advance(Duration::from_secs(6));
    assert_eq!(cluster.node(0).stats().members, 1, "bob was away for too long");
    for n in 0..3 {
        cluster.say(&mut ann, &alloc::format!("{n}"));
    }
    // The primary answers no joins, but its tail can be read.
    cluster.unregistered.push(0);
    until(&mut cluster, &(0, Event::NotServing));
    cluster.cut.clear();
    cluster.events.clear();
    until(&mut cluster, &(1, Event::LinkUp { node: NodeId(1) }));
    let messages = cluster.received(&bob);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(messages.iter().any(gone), "{messages:?}");
    let is_down = |event: &_| matches!(event, (1, Event::NodeDown { node: NodeId(1), .. }));
    assert!(!cluster.events.iter().any(is_down), "the room was closed");
}

/// Lets time pass until something happens.
fn until(cluster: &mut Cluster, event: &(usize, Event)) {
    while !cluster.events.contains(event) {
        assert!(cluster.now.instant < Instant::from_micros(60_000_000), "{event:?} does not happen");
        cluster.advance(Duration::from_millis(50));
    }
}

#[test]
fn a_session_that_is_claimed_while_the_one_before_it_ends_stays_registered() {
    let mut cluster = Cluster::new(1);
    let old = cluster.connect(0, "ann", None);
    cluster.slow_registry = true;
    let new = cluster.accept(0, "ann");
    cluster.send(&new, v1::Kind::Hello, &v1::Hello::default());
    cluster.send(&old, v1::Kind::Goodbye, &v1::Goodbye::default());
    cluster.ask();
    assert!(matches!(&cluster.received(&new)[..], [ToClient::Welcome(_)]));
    assert!(cluster.get("/sessions/player:ann").is_some(), "it was taken for the one that ended");
    cluster.send(&new, v1::Kind::Goodbye, &v1::Goodbye::default());
    assert!(cluster.get("/sessions/player:ann").is_none());
}

#[test]
fn a_claim_that_comes_to_nothing_leaves_no_session_that_ended_meanwhile() {
    let mut cluster = Cluster::new(1);
    let old = cluster.connect(0, "ann", None);
    cluster.unregistered.push(0);
    let new = cluster.accept(0, "ann");
    cluster.send(&new, v1::Kind::Hello, &v1::Hello::default());
    cluster.send(&old, v1::Kind::Goodbye, &v1::Goodbye::default());
    cluster.advance(Duration::from_secs(6));
    assert!(cluster.closed.contains(&(0, new.conn, v1::Reason::Overloaded)), "{:?}", cluster.closed);
    cluster.heal();
    cluster.advance(Duration::from_secs(3));
    assert!(cluster.get("/sessions/player:ann").is_none());
}

#[test]
fn an_older_session_does_not_come_back_when_the_newer_one_has_left() {
    let mut config = Config::default();
    // Sessions may be short, but a node may serve for as long as its lease lasts.
    config.sessions.ttl = Duration::from_secs(1);
    let mut cluster = Cluster::with(3, config);
    cluster.join(0, "bob");
    cluster.join(1, "cid");
    let old = cluster.join(1, "ann");
    cluster.received(&old);
    // The node of the old session does not hear of the new one.
    cluster.unregistered.push(1);
    let new = cluster.join(2, "ann");
    cluster.send(&new, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
    cluster.received(&old);
    cluster.advance(Duration::from_secs(3));
    cluster.send(&old, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    let messages = cluster.received(&old);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(messages.iter().any(gone), "{messages:?}");
    assert_eq!(cluster.node(0).stats().members, 2);
    // The newer session is let in.
    cluster.send(&new, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    assert_eq!(cluster.node(0).stats().members, 3);
}

#[test]
fn a_hello_that_is_late_does_not_take_the_session_from_a_newer_connection() {
    let mut cluster = Cluster::new(1);
    let ann = cluster.join(0, "ann");
    let mut bob = cluster.join(0, "bob");
    let now = cluster.now;
    cluster.node(0).handle_closed(now, ann.conn);
    // Ann has given this connection up, with its `Hello` under way, before the next dial.
    let late = cluster.accept(0, "ann");
    let mut newer = Member { said: 0, ..cluster.connect(0, "ann", ann.resume()) };
    let resume = v1::Resume { rooms: vec![], ..ann.resume().unwrap() };
    cluster.send(&late, v1::Kind::Hello, &v1::Hello { resume: Some(resume), ..v1::Hello::default() });
    let told = cluster.received(&late);
    assert!(
        matches!(&told[..], [ToClient::Goodbye(goodbye)] if goodbye.reason() == v1::Reason::TakenOver),
        "{told:?}"
    );
    cluster.heard(&mut bob);
    cluster.say(&mut newer, "here");
    assert_eq!(cluster.heard(&mut bob), ["here"]);
    // For another session, only the order of the `Hello`s counts.
    let other = cluster.accept(0, "ann");
    let newest = cluster.connect(0, "ann", newer.resume());
    cluster.send(&other, v1::Kind::Hello, &v1::Hello::default());
    assert!(matches!(&cluster.received(&other)[..], [ToClient::Welcome(welcome), ..] if !welcome.resumed));
    let told = cluster.received(&newest);
    assert!(matches!(told.last(), Some(ToClient::Goodbye(_))), "{told:?}");
}

#[test]
fn a_node_that_registers_a_session_anew_does_not_know_where_it_was() {
    let mut cluster = Cluster::with_short_leases(2);
    let ann = cluster.connect(0, "ann", None);
    // The session is at node 1, while node 0 does not reach the registry until both leases have
    // ended.
    cluster.unregistered = vec![0];
    let elsewhere = cluster.connect(1, "ann", ann.resume());
    let now = cluster.now;
    cluster.node(0).handle_closed(now, ann.conn);
    cluster.node(1).handle_closed(now, elsewhere.conn);
    cluster.lapse(&[0, 1], &[1]);
    let anew = cluster.get("/sessions/player:ann").expect("node 0 has registered it").modified;
    let back = cluster.connect(0, "ann", elsewhere.resume());
    assert!(cluster.get("/sessions/player:ann").is_some_and(|kv| kv.modified > anew), "it is claimed");
    assert!(back.welcomed > elsewhere.welcomed);
}

#[test]
fn a_room_out_of_reach_does_not_keep_a_session_that_has_moved_from_its_other_rooms() {
    let mut cluster = Cluster::new(3);
    cluster.join(1, "bob");
    let ann = cluster.join(0, "ann");
    // Both nodes live, but the link between them is cut.
    cluster.cut(1, 2);
    cluster.advance(Duration::from_secs(5));
    let moved = cluster.connect(2, "ann", ann.resume());
    let at = cluster.now.instant;
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    let mut told = moved.told.iter().any(gone);
    while !told {
        cluster.advance(Duration::from_millis(500));
        told = cluster.received(&moved).iter().any(gone);
        // The client must be told early enough, with the time for the claims and for the way back.
        let patience = crate::client::ClientConfig::default().connect_timeout;
        assert!(cluster.now.instant.since(at) <= patience * 2 / 3, "a client would have hung up");
    }
}

#[test]
fn a_session_writes_as_the_same_replica_at_every_node() {
    let mut cluster = Cluster::new(2);
    let replica = |messages: &[ToClient]| {
        messages
            .iter()
            .find_map(|m| if let ToClient::Welcome(w) = m { Some(w.replica) } else { None })
            .unwrap()
    };
    let ann = cluster.connect(0, "ann", None);
    let moved = cluster.connect(1, "ann", ann.resume());
    let bob = cluster.connect(1, "bob", None);
    assert_eq!(replica(&ann.told), replica(&moved.told));
    assert_ne!(replica(&ann.told), replica(&bob.told));
}
