//! Frames in and out, and rooms that are read.

use super::*;
use crate::wire::RoomMessage;

#[test]
fn pings_and_pongs_compare_the_clocks() {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    bench.effects();
    bench.sent(link);
    bench.frame(link, v1::Kind::Ping, &v1::Ping { nonce: 77, rtt_us: 0 });
    let pong = v1::LinkPong { nonce: 77, wall_ms: WALL.0 };
    assert_eq!(bench.sent(link), [ToNode::Pong(pong)]);
    let sent = bench.now.instant;
    bench.advance(Duration::ZERO);
    bench.now.instant = sent + Duration::from_micros(300);
    let answer = v1::LinkPong { nonce: 1, wall_ms: 123 };
    bench.frame(link, v1::Kind::Pong, &answer);
    let read = PeersEffect::ClockRead { node: HIGHER, sent, wall: Wall(123) };
    assert_eq!(bench.effects(), [read]);
    bench.frame(link, v1::Kind::Pong, &answer);
    assert_eq!(bench.effects(), [], "once for a ping");
}

#[test]
fn frames_about_rooms_are_handed_on_and_counted() {
    let mut bench = Bench::acquainted();
    let link = bench.link(LOWER);
    let detach = v1::Detach { room: "arena".into(), epoch: 4 };
    let frame = bench.frame(link, v1::Kind::Detach, &detach).unwrap();
    assert_eq!(frame.from, LOWER);
    assert!(matches!(&frame.message, RoomMessage::Detach(same) if *same == detach), "{frame:?}");
    assert_eq!(bench.peers.stats(), LinkStats { frames_in: 2, frames_out: 0, ..LinkStats::default() });
    assert_eq!(bench.sent(link).len(), 1);
    assert_eq!(bench.peers.stats(), LinkStats { frames_in: 2, frames_out: 1, ..LinkStats::default() });
    bench.call(|peers, cx| peers.forget_link(cx, link));
    assert!(bench.frame(link, v1::Kind::Detach, &detach).is_none(), "the link is gone");
    assert_eq!(bench.peers.stats().frames_in, 2);
}

#[test]
fn rooms_are_read_in_turn() {
    let mut bench = Bench::acquainted();
    let link = bench.link(LOWER);
    bench.sent(link);
    for slot in [1, 2] {
        bench.peers.read(&mut bench.out, link, room(slot));
    }
    assert_eq!(bench.peers.next_ready(link), Some(room(1)));
    bench.peers.handed_out(link, room(1));
    let turn = [bench.peers.next_ready(link), bench.peers.next_ready(link), bench.peers.next_ready(link)];
    assert_eq!(turn, [Some(room(2)), Some(room(1)), None]);
    assert_eq!(bench.peers.stats().frames_out, 2);
}

#[test]
fn the_driver_is_woken_for_rooms_that_are_read() {
    let mut bench = Bench::acquainted();
    let link = bench.link(LOWER);
    bench.sent(link);
    bench.out.clear();
    bench.peers.read(&mut bench.out, link, room(1));
    assert_eq!(bench.outputs(), [wake(link)]);
    assert_eq!((bench.peers.next_ready(link), bench.peers.next_ready(link)), (Some(room(1)), None));
    bench.peers.sleep(link);
    bench.peers.mark(&mut bench.out, link, room(2));
    bench.peers.mark(&mut bench.out, room(9), room(1));
    bench.peers.read(&mut bench.out, room(9), room(1));
    assert_eq!(bench.outputs(), [], "the room is not read, or its link is gone");
    bench.peers.mark(&mut bench.out, link, room(1));
    assert_eq!((bench.outputs(), bench.peers.next_ready(link)), (vec![wake(link)], Some(room(1))));
    bench.peers.sleep(link);
    bench.peers.unread(link, room(1));
    bench.peers.mark(&mut bench.out, link, room(1));
    assert_eq!(bench.outputs(), []);
}

#[test]
fn the_driver_is_woken_once_until_there_is_nothing() {
    let mut bench = Bench::acquainted();
    let link = bench.link(LOWER);
    bench.sent(link);
    bench.out.clear();
    for _ in 0..2 {
        bench.peers.wake(&mut bench.out, link);
    }
    assert_eq!(bench.outputs(), [wake(link)]);
    bench.peers.sleep(link);
    bench.peers.wake(&mut bench.out, link);
    bench.peers.wake(&mut bench.out, room(9));
    assert_eq!(bench.outputs(), [wake(link)]);
}
