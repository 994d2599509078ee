//! Sessions whose payloads are sealed.

use super::*;

#[test]
fn sealed_sessions_exchange_sealed_frames() {
    let mut world = World::new(|_| {});
    let offer = wire::seal::Offer::new([5; 32], None);
    let conn = world.accept("a");
    let seal_key = Bytes::copy_from_slice(&offer.public());
    world.send(conn, v1::Kind::Hello, &v1::Hello { seal_key, ..v1::Hello::default() });
    let messages = world.received(conn);
    let ToClient::Welcome(welcome) = &messages[0] else { panic!("{messages:?}") };
    let mut seal = offer.finish(&welcome.seal_key, &welcome.session).unwrap();
    let join = encode(
        v1::Kind::Join,
        &v1::Metadata::default(),
        &v1::Join { room: "arena".into(), history: 0, request: 0 },
    );
    world.node.handle_frame(world.now, conn, seal.seal(&join).unwrap());
    world.settle();
    let frame = world.node.poll_transmit(world.now, conn).unwrap();
    let frame = seal.open(Frame::decode(frame, 1 << 20).unwrap()).unwrap();
    assert!(matches!(ToClient::decode(&frame), Ok(ToClient::Joined(_))));
    world.node.handle_frame(world.now, conn, join);
    world.settle();
    assert!(matches!(world.events.last(), Some(Event::Misbehaved { .. })), "an open frame is refused");
}
