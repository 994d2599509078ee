//! Sessions that go from one node to another (G2, G3, G5, G7).

use skirmish_core::wire::encode;
use skirmish_io::client::{Event, Outcome};
use skirmish_proto::v1::{Kind, Leave, Metadata, Reason, Resume, RoomCursor};
use skirmish_tests::history::{assert_outcomes, complaints};
use skirmish_tests::http::metric;
use skirmish_tests::player::{Player, builder, heard};
use skirmish_tests::process::Process;
use skirmish_tests::socket::{Socket, say};

use crate::nodes::Nodes;
use crate::valve::Valve;

#[tokio::test]
async fn a_client_that_is_cut_off_goes_on_at_another_node_and_loses_nothing() {
    let nodes = Nodes::start(3).await;
    // Wherever the room is: where she was, where she goes, and elsewhere.
    for primary in 0..3 {
        let room = format!("room-{primary}");
        let bob_name = format!("bob-{primary}");
        let mut bob = Player::join(builder(&nodes.url(primary), &bob_name), &room).await;
        let valve = Valve::start().await;
        valve.lead_to(nodes.nodes[0].address);
        let mut alice = Player::join(builder(&valve.url(), &format!("alice-{primary}")), &room).await;
        let mut by_alice = vec![alice.say(&room, "a1").await];
        bob.say(&room, "b1").await;
        alice.hears(&["a1", "b1"]).await;

        // What is on its way now may arrive or not.
        by_alice.push(alice.say(&room, "a2").await);
        bob.say(&room, "b2").await;
        valve.lead_to(nodes.nodes[1].address);
        valve.cut();
        by_alice.push(alice.say(&room, "a3").await);
        bob.say(&room, "b3").await;
        let told = |event: &Event| match event {
            Event::Session { resumed, lost, .. } => Some((*resumed, *lost)),
            _ => None,
        };
        assert_eq!(alice.until("to be welcomed again", told).await, (true, false), "primary {primary}");
        by_alice.push(alice.say(&room, "a4").await);

        alice.hears(&["a1", "a2", "a3", "a4", "b1", "b2", "b3"]).await;
        bob.hears(&["a1", "a2", "a3", "a4", "b1", "b2", "b3"]).await;
        for message in &by_alice {
            alice.outcome(*message).await;
        }
        let (alice, bob) = (alice.leave().await, bob.leave().await);
        assert_outcomes(&alice, &by_alice, Outcome::Acknowledged);
        for (seen, other) in [(&alice, "b"), (&bob, "a")] {
            assert_eq!(complaints(seen), Vec::<String>::new(), "primary {primary}: {seen:#?}");
            let count = heard(seen).filter(|body| body.starts_with(other)).count();
            assert_eq!(count, if other == "a" { 4 } else { 3 }, "primary {primary}: {seen:#?}");
            let gap = seen.iter().find(|event| matches!(event, Event::Snapshot { missing: Some(_), .. }));
            assert_eq!(gap, None, "primary {primary}: something within the window was missed");
        }
        let orders: Vec<Vec<_>> = [&alice, &bob].map(|seen| heard(seen).collect()).into();
        assert_eq!(orders[0], orders[1], "primary {primary}");
    }
}

/// Alice in a room that a node leads, with one message in its log; and the cursor after that.
async fn member(at: &Process, room: &str) -> (Socket, Resume) {
    let mut socket = Socket::connect(at.address, "alice").await;
    let welcome = socket.hello(None).await;
    socket.join(room).await;
    socket.say(room, 1, "first").await;
    let entry = socket.said().await;
    let cursor = RoomCursor { room: room.to_owned(), epoch: entry.epoch, seq: entry.seq };
    (socket, Resume { session: welcome.session, epoch: welcome.epoch, rooms: vec![cursor] })
}

#[tokio::test]
async fn a_connection_at_another_node_takes_the_session_over() {
    // The old connection stays for as long as it likes.
    let settings = ["connections.linger=\"1h\"", "rooms.tombstone_horizon=\"2h\""];
    let nodes = Nodes::start_with(2, &settings).await;
    let [first, second] = &nodes.nodes[..] else { panic!("there are two") };
    // Somebody else, so that the room is led by the other node.
    let mut bob = Socket::open(second.address, "bob").await;
    bob.join("arena").await;
    let (mut old, resume) = member(first, "arena").await;
    let seq = resume.rooms[0].seq;
    let session = resume.session.clone();
    let mut new = Socket::connect(second.address, "alice").await;
    let welcome = new.hello(Some(resume)).await;
    assert!(welcome.resumed && welcome.session == session, "{welcome:?}");

    // What the old one still writes has no effect.
    let forged = encode(Kind::Say, &Metadata::default(), &say("arena", 2, "from the past"));
    let leave = encode(Kind::Leave, &Metadata::default(), &Leave { room: "arena".to_owned() });
    for frame in [forged, leave] {
        // It may be refused on the way already.
        let _ = old.try_send(frame).await;
    }
    old.closed(Reason::TakenOver, 1008).await;
    new.say("arena", 2, "from now").await;
    let entry = new.said().await;
    assert_eq!((entry.client_seq, entry.body.as_ref()), (2, b"from now".as_ref()));
    assert_eq!(entry.seq, seq + 1, "something else was written");
    for body in ["first", "from now"] {
        assert_eq!(bob.said().await.body, body);
    }
    assert_eq!(metric(first.admin, "skirmish_takeovers_total").await, Some(1));
    assert_eq!(metric(first.admin, "skirmish_sessions").await, Some(0));
}

#[tokio::test]
async fn a_player_who_comes_anew_at_another_node_ends_the_old_session() {
    let nodes = Nodes::start(2).await;
    let [first, second] = &nodes.nodes[..] else { panic!("there are two") };
    let (mut old, resume) = member(first, "arena").await;
    let mut new = Socket::connect(second.address, "alice").await;
    let fresh = new.hello(None).await;
    assert!(!fresh.resumed && fresh.session != resume.session);
    old.closed(Reason::TakenOver, 1008).await;
    // The old session cannot be resumed anywhere any more.
    for node in [first, second] {
        let mut late = Socket::connect(node.address, "alice").await;
        assert!(!late.hello(Some(resume.clone())).await.resumed);
    }
    new.closed(Reason::TakenOver, 1008).await;
}
