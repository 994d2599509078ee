//! The way of a connection from its acceptance to its end.

use super::*;

/// Returns the last frame of a connection, if there is one.
fn goodbye(world: &mut World, key: Key) -> Option<v1::Goodbye> {
    match world.received(key).pop() {
        Some(ToClient::Goodbye(goodbye)) => Some(goodbye),
        _ => None,
    }
}

#[test]
fn a_connection_is_admitted_once_and_greets_until_its_session_is_open() {
    let mut world = World::new(|_| {});
    let key = world.accept();
    assert!(!world.connections.is_greeting(key));
    let admit = |world: &mut World| {
        let player = Name::new("ann").unwrap();
        let identity = Identity { player, token: Bytes::new(), trace: trace(3) };
        world.input(|connections, cx| connections.admit(cx.bugs, key, identity))
    };
    assert!(admit(&mut world));
    assert!(!admit(&mut world), "it is admitted already");
    assert_eq!(world.connections.trace(key), Some(trace(3)));
    assert!(world.connections.is_greeting(key) && !world.connections.is_open(key));
    let hello = v1::Hello { agent: "test".into(), ..v1::Hello::default() };
    assert_eq!(world.connections.take_hello(key), None, "none was said");
    world.input(|connections, cx| connections.start_claiming(cx.bugs, key, hello));
    assert!(world.connections.is_greeting(key) && !world.connections.is_open(key));
    assert_eq!(world.connections.take_hello(key).map(|hello| hello.agent), Some("test".into()));
    world.input(|connections, cx| connections.open(cx, key, SESSION, true));
    assert!(!world.connections.is_greeting(key) && world.connections.is_open(key));
    let NextFrame::Session { session, accept_zstd } =
        world.input(|connections, cx| connections.next_frame(cx.out, key)).unwrap()
    else {
        panic!("its session has frames");
    };
    assert_eq!((session, accept_zstd), (SESSION, true));
    world.close(key, v1::Reason::Kicked);
    assert!(!world.connections.is_greeting(key) && !world.connections.is_open(key));
    assert!(!admit(&mut world), "it is being closed");
    world.input(|connections, cx| connections.forget(cx, key));
    assert!(!admit(&mut world), "it is gone");
}

#[test]
fn connections_are_numbered_in_the_order_in_which_they_were_accepted() {
    let mut world = World::new(|_| {});
    let keys = [(); 3].map(|()| world.accept());
    world.input(|connections, cx| connections.forget(cx, keys[0]));
    let last = world.accept();
    let numbers = [keys[0], keys[1], keys[2], last].map(|key| world.connections.number(key));
    assert_eq!(numbers, [None, Some(2), Some(3), Some(4)]);
}

#[test]
fn only_a_client_that_was_admitted_gets_a_goodbye() {
    for (connect, told) in [
        (World::accept as fn(&mut World) -> Key, false),
        (World::admit, true),
        (World::claim, true),
        (World::open, true),
    ] {
        let mut world = World::new(|_| {});
        let key = connect(&mut world);
        world.close(key, v1::Reason::Overloaded);
        assert_eq!(world.outputs(), [Output::Close(ConnId::from_key(key), v1::Reason::Overloaded)]);
        let goodbye = goodbye(&mut world, key);
        assert_eq!(goodbye.is_some(), told);
        if let Some(goodbye) = goodbye {
            assert_eq!((goodbye.reason(), &goodbye.message[..]), (v1::Reason::Overloaded, "why"));
            assert_eq!(goodbye.retry_after_ms, 1_000);
        }
    }
}

#[test]
fn a_connection_is_closed_once() {
    let mut world = World::new(|_| {});
    let key = world.open();
    world.close(key, v1::Reason::Kicked);
    world.close(key, v1::Reason::Draining);
    let offence = || Offence::new(v1::Reason::ProtocolError, "late");
    world.input(|connections, cx| connections.punish(cx, key, offence()));
    assert_eq!(world.outputs(), [Output::Close(ConnId::from_key(key), v1::Reason::Kicked)]);
    assert_eq!((world.stats().closing, world.stats().protocol_errors), (1, 0));
    world.input(|connections, cx| connections.forget(cx, key));
    world.close(key, v1::Reason::Kicked);
    world.input(|connections, cx| connections.punish(cx, key, offence()));
    assert!(world.outputs().is_empty());
    assert_eq!((world.stats().closing, world.stats().protocol_errors), (0, 0));
}

#[test]
fn queued_frames_are_owed_to_an_open_connection_of_a_node_that_drains() {
    let pong = ToClient::Pong(v1::Pong { nonce: 1 });
    for (reason, owed) in [(v1::Reason::Draining, true), (v1::Reason::Kicked, false)] {
        let mut world = World::new(|_| {});
        let key = world.open();
        world.send(key, v1::Kind::Ping, &v1::Ping { nonce: 1, rtt_us: 0 });
        world.close(key, reason);
        let received = world.received(key);
        assert_eq!(received.first() == Some(&pong), owed, "{received:?}");
        assert!(matches!(received.last(), Some(ToClient::Goodbye(_))), "{received:?}");
    }
    // A session that is claimed has nothing to be owed yet.
    let mut world = World::new(|_| {});
    let key = world.claim();
    world.close(key, v1::Reason::Draining);
    let next = world.input(|connections, cx| connections.next_frame(cx.out, key));
    assert_eq!(next, Some(NextFrame::Last));
}

#[test]
fn every_connection_is_closed_at_once() {
    let mut world = World::new(|_| {});
    let (_, _, kicked) = (world.accept(), world.open(), world.open());
    world.close(kicked, v1::Reason::Kicked);
    world.outputs();
    world.input(|connections, cx| connections.close_all(cx, v1::Reason::Draining, "why", SECOND));
    assert_eq!(closed(&world.outputs()), [v1::Reason::Draining; 2]);
    assert_eq!(world.stats().closing, 3);
}

#[test]
fn a_connection_that_is_gone_tells_the_session_that_it_belonged_to() {
    let mut world = World::new(|_| {});
    let forget = |world: &mut World, key| world.input(|connections, cx| connections.forget(cx, key));
    let key = world.admit();
    assert_eq!(forget(&mut world, key), None, "it has none");
    let key = world.open();
    let lost = LostConnection { session: SESSION, conn: ConnId::from_key(key), trace: trace(1) };
    assert_eq!(forget(&mut world, key), Some(lost));
    assert_eq!(forget(&mut world, key), None, "it is gone");
    let key = world.open();
    world.input(|connections, cx| connections.part_from_session(cx.bugs, key));
    assert_eq!(forget(&mut world, key), None, "it has none any more");
    assert!(world.outputs().is_empty());
    assert_eq!((world.connections.len(), world.connections.next_timer()), (0, None));
}

#[test]
fn a_connection_that_is_being_closed_is_not_held() {
    let mut world = World::new(|_| {});
    let key = world.open();
    let pong = encode(v1::Kind::Pong, &v1::Metadata::default(), &v1::Pong::default());
    while !world.connections.is_held(key) {
        world.input(|connections, cx| connections.answer(cx, key, pong.clone()));
    }
    world.close(key, v1::Reason::Draining);
    assert!(!world.connections.is_held(key));
    world.outputs();
    world.received(key);
    assert!(world.outputs().is_empty(), "it is not resumed");
}
