//! Sessions that move from one node to another (G2, G3, G5, G7).

use skirmish_core::client::ClientConfig;
use skirmish_core::wire::encode;
use skirmish_io::client::{Event, Outcome};
use skirmish_proto::v1::{Kind, Leave, Metadata, Reason, Resume, RoomCursor};
use skirmish_tests::history::{assert_outcomes, complaints};
use skirmish_tests::http::metric;
use skirmish_tests::player::{Player, builder, heard};
use skirmish_tests::process::Process;
use skirmish_tests::socket::{Socket, say};

use crate::nodes::{Nodes, is_about};
use crate::valve::Valve;

#[tokio::test]
async fn a_client_that_is_cut_off_goes_on_at_another_node_and_loses_nothing() {
    let nodes = Nodes::start(3).await;
    // The primary is alice's first node, her second node, or the third one.
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

        // Messages in flight at this point may arrive or not.
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

/// Returns alice in a room that a node leads, with one message in its log, and the cursor after this message.
async fn member(at: &Process, room: &str) -> (Socket, Resume) {
    let mut socket = Socket::connect(at.address, "alice").await;
    let welcome = socket.hello(None).await;
    socket.join(room).await;
    socket.say(room, 1, "first").await;
    let entry = socket.said().await;
    let cursor = RoomCursor { room: room.to_owned(), epoch: entry.epoch, seq: entry.seq, request: 0 };
    (socket, Resume { session: welcome.session, epoch: welcome.epoch, rooms: vec![cursor] })
}

#[tokio::test]
async fn a_connection_at_another_node_takes_the_session_over() {
    // The server waits long for the end of the old connection.
    let settings = ["connections.linger=\"1h\"", "rooms.tombstone_horizon=\"2h\""];
    let nodes = Nodes::start_with(2, &settings).await;
    let [first, second] = &nodes.nodes[..] else { panic!("there are two") };
    // Another player, so that the other node is the room's primary.
    let mut bob = Socket::open(second.address, "bob").await;
    bob.join("arena").await;
    let (mut old, resume) = member(first, "arena").await;
    let seq = resume.rooms[0].seq;
    let session = resume.session.clone();
    let mut new = Socket::connect(second.address, "alice").await;
    let welcome = new.hello(Some(resume)).await;
    assert!(welcome.resumed && welcome.session == session, "{welcome:?}");

    // Frames of the old connection have no effect.
    let forged = encode(Kind::Say, &Metadata::default(), &say("arena", 2, "from the past"));
    let leave = encode(Kind::Leave, &Metadata::default(), &Leave { room: "arena".to_owned(), request: 0 });
    for frame in [forged, leave] {
        // The connection may be refused already.
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
    // The old session cannot be resumed at any node any more.
    for node in [first, second] {
        let mut late = Socket::connect(node.address, "alice").await;
        assert!(!late.hello(Some(resume.clone())).await.resumed);
    }
    new.closed(Reason::TakenOver, 1008).await;
}

#[tokio::test]
async fn a_player_of_a_killed_node_is_at_another_node_at_once() {
    let mut nodes = Nodes::start(3).await;
    let others = [nodes.url(1), nodes.url(2)];
    // With the waits of production, and connected for long enough to be dialled at once.
    let config = ClientConfig::default();
    let healthy = config.backoff_max;
    let mut alice = Player::join(builder(&nodes.url(0), "alice").config(config).nodes(others), "arena").await;
    tokio::time::sleep(healthy + healthy / 10).await;
    let mut home = 0;
    while metric(nodes.nodes[home].admin, "skirmish_sessions").await != Some(1) {
        home = (home + 1) % nodes.nodes.len();
    }
    nodes.kill(home).await;
    let told = |event: &Event| match event {
        Event::Session { resumed, lost, .. } => Some((*resumed, *lost)),
        _ => None,
    };
    assert_eq!(alice.until("to be welcomed elsewhere", told).await, (true, false));
}

#[tokio::test]
async fn a_player_that_was_away_when_its_node_was_killed_resumes_its_session_at_another_node() {
    let mut nodes = Nodes::start(2).await;
    // Another player, so that the other node is the room's primary.
    let mut bob = Socket::open(nodes.nodes[1].address, "bob").await;
    bob.join("arena").await;
    let (alice, resume) = member(&nodes.nodes[0], "arena").await;
    drop(alice);
    let dead = nodes.nodes[0].node.clone();
    nodes.kill(0).await;
    nodes.nodes[0].logged("the death", |line| is_about(line, "node down", &dead)).await;
    let mut back = Socket::connect(nodes.nodes[0].address, "alice").await;
    let welcome = back.hello(Some(resume.clone())).await;
    assert!(welcome.resumed && welcome.session == resume.session, "{welcome:?}");
    back.say("arena", 2, "back").await;
    assert_eq!(bob.said().await.body, "first".as_bytes());
    assert_eq!(bob.said().await.body, "back".as_bytes());
}
