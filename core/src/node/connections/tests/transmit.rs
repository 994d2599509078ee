//! Output frames.

use super::*;
use crate::wire::seal;

fn pong(nonce: u64) -> Bytes {
    encode(v1::Kind::Pong, &v1::Metadata::default(), &v1::Pong { nonce })
}

fn welcome() -> v1::Welcome {
    v1::Welcome { session: Bytes::from_static(&[3; 16]), ..v1::Welcome::default() }
}

fn answer(world: &mut World, key: Key, frame: Bytes) {
    world.input(|connections, cx| connections.answer(cx, key, frame));
}

/// Opens a sealed connection, and returns the seal of the peer.
fn sealed(world: &mut World) -> (Key, Seal) {
    let offer = seal::Offer::new([1; 32], None);
    let (public, agreed) = seal::answer([2; 32], None, &offer.public(), &[3; 16]).unwrap();
    let client = offer.finish(&public, &[3; 16]).unwrap();
    let key = world.open();
    world.input(|connections, cx| connections.welcome(cx.bugs, key, &welcome(), Some(agreed)));
    (key, client)
}

#[test]
fn the_welcome_goes_out_first_and_in_the_clear() {
    let mut world = World::new(|_| {});
    let key = world.open();
    answer(&mut world, key, pong(1));
    world.input(|connections, cx| connections.welcome(cx.bugs, key, &welcome(), None));
    let received = world.received(key);
    assert!(matches!(&received[..], [ToClient::Welcome(_), ToClient::Pong(_)]), "{received:?}");
    let mut world = World::new(|_| {});
    let (key, mut client) = sealed(&mut world);
    answer(&mut world, key, pong(1));
    let welcome = Frame::decode(world.transmit(key).unwrap(), 1 << 20).unwrap();
    assert!(matches!(ToClient::decode(&welcome), Ok(ToClient::Welcome(_))));
    let pong = Frame::decode(world.transmit(key).unwrap(), 1 << 20).unwrap();
    assert!(ToClient::decode(&pong).is_err(), "it is sealed");
    assert!(matches!(ToClient::decode(&client.open(pong).unwrap()), Ok(ToClient::Pong(_))));
    world.close(key, v1::Reason::Kicked);
    let goodbye = Frame::decode(world.transmit(key).unwrap(), 1 << 20).unwrap();
    assert!(matches!(ToClient::decode(&client.open(goodbye).unwrap()), Ok(ToClient::Goodbye(_))));
}

#[test]
fn the_driver_is_woken_once_until_it_has_found_nothing() {
    let mut world = World::new(|_| {});
    let key = world.open();
    let wake = |world: &mut World| world.input(|connections, cx| connections.wake(cx.bugs, cx.out, key));
    assert!(!wake(&mut world));
    assert!(wake(&mut world));
    answer(&mut world, key, pong(1));
    assert_eq!(world.outputs(), [Output::Wake(ConnId::from_key(key))]);
    assert_eq!(world.transmit(key), Some(pong(1)));
    assert!(wake(&mut world), "the driver asks on");
    assert!(world.outputs().is_empty());
    assert_eq!(world.transmit(key), None);
    answer(&mut world, key, pong(2));
    assert_eq!(world.outputs(), [Output::Wake(ConnId::from_key(key))]);
    assert_eq!(world.transmit(key), Some(pong(2)));
    assert_eq!(world.transmit(key), None);
    assert!(!wake(&mut world));
}

#[test]
fn a_closed_connection_needs_no_waking() {
    let mut world = World::new(|_| {});
    let key = world.open();
    world.close(key, v1::Reason::Kicked);
    world.outputs();
    assert!(world.input(|connections, cx| connections.wake(cx.bugs, cx.out, key)));
    assert!(world.outputs().is_empty());
}

#[test]
fn frames_and_bytes_are_counted_as_they_go_out() {
    let mut world = World::new(|_| {});
    let (key, _) = sealed(&mut world);
    answer(&mut world, key, pong(1));
    let sent = [world.transmit(key).unwrap().len(), world.transmit(key).unwrap().len()];
    assert_eq!(world.transmit(key), None);
    let stats = world.stats();
    assert_eq!((stats.frames_out, stats.bytes_out), (2, sent.iter().sum::<usize>() as u64));
    assert_eq!(sent[1], pong(1).len() + seal::OVERHEAD);
}

#[test]
fn a_peer_that_does_not_read_is_held_and_then_closed() {
    let mut world = World::new(|_| {});
    let key = world.open();
    let held_from = (0_u64..).find(|nonce| {
        answer(&mut world, key, pong(*nonce));
        world.connections.is_held(key)
    });
    assert_eq!(held_from, Some(32));
    world.outputs();
    assert_eq!(world.transmit(key), Some(pong(0)));
    assert!(world.outputs().is_empty());
    assert_eq!(world.transmit(key), Some(pong(1)));
    assert_eq!(world.outputs(), [Output::Resume(ConnId::from_key(key))]);
    for nonce in 0..100 {
        answer(&mut world, key, pong(nonce));
    }
    let outputs = world.outputs();
    assert_eq!(closed(&outputs), [v1::Reason::RateLimited]);
    assert_eq!(offences(&outputs), [("requests without reading the answers", Wrong::Protocol)]);
}

#[test]
fn the_same_answer_is_given_once_in_a_row() {
    let mut world = World::new(|_| {});
    let key = world.open();
    for nonce in [1, 1, 2, 1] {
        world.input(|connections, cx| connections.answer_once(cx, key, pong(nonce)));
    }
    let frames = [(); 4].map(|()| world.transmit(key));
    assert_eq!(frames, [Some(pong(1)), Some(pong(2)), Some(pong(1)), None]);
    world.input(|connections, cx| connections.answer_once(cx, key, pong(1)));
    assert_eq!(world.transmit(key), Some(pong(1)), "the one before was read");
}

#[test]
fn an_application_sends_to_open_connections_while_there_is_room() {
    let mut world = World::new(|_| {});
    let send = |world: &mut World, key| world.input(|connections, cx| connections.send(cx, key, pong(1)));
    let key = world.claim();
    assert!(!send(&mut world, key));
    let key = world.open();
    let sent = (0..1_000).take_while(|_| send(&mut world, key)).count();
    assert_eq!(sent, 48);
    assert_eq!(world.outputs(), [Output::Wake(ConnId::from_key(key))]);
    world.close(key, v1::Reason::Draining);
    world.transmit(key);
    assert!(!send(&mut world, key));
}

#[test]
fn the_session_is_read_after_the_queue_and_before_the_goodbye() {
    let next = |world: &mut World, key| world.input(|connections, cx| connections.next_frame(cx.out, key));
    let of_session = NextFrame::Session { session: SESSION, accept_zstd: false };
    let mut world = World::new(|_| {});
    let key = world.open();
    answer(&mut world, key, pong(1));
    assert_eq!(next(&mut world, key), Some(NextFrame::Own(pong(1))));
    assert_eq!(next(&mut world, key), Some(of_session));
    assert_eq!(world.connections.take_goodbye(key), None);
    world.close(key, v1::Reason::Draining);
    assert_eq!(next(&mut world, key), Some(NextFrame::Session { session: SESSION, accept_zstd: false }));
    assert!(world.connections.take_goodbye(key).is_some());
    assert_eq!(world.connections.take_goodbye(key), None, "it is the last frame");
    // Of no other closed connection.
    let key = world.open();
    world.close(key, v1::Reason::Kicked);
    assert_eq!(next(&mut world, key), Some(NextFrame::Last));
    world.input(|connections, cx| connections.forget(cx, key));
    assert_eq!(next(&mut world, key), None);
}

#[test]
fn a_connection_whose_key_is_used_up_is_closed() {
    let mut world = World::new(|_| {});
    let (key, _) = sealed(&mut world);
    assert!(world.transmit(key).is_some(), "the Welcome");
    // Bytes that are no frame cannot be sealed, as no frame can when the nonces are used up.
    let none = Bytes::from_static(b"no frame");
    assert_eq!(world.input(|connections, cx| connections.transmit(cx, key, Some(none))), None);
    assert_eq!(closed(&world.outputs()), [v1::Reason::Overloaded]);
    let received = world.received(key);
    assert!(matches!(&received[..], [ToClient::Goodbye(_)]), "in the clear: {received:?}");
}
