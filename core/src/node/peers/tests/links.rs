//! Greetings, and the end of links.

use super::*;

#[test]
fn the_side_that_dialed_greets_first_and_the_answer_opens_the_link() {
    let mut bench = Bench::acquainted();
    let link = bench.connect(Caller::Dialed(HIGHER));
    let greeting = ToNode::Hello(v1::LinkHello { node: OWN.0, to: HIGHER.0 });
    assert_eq!(bench.outputs(), [wake(link)]);
    assert_eq!(bench.sent(link), [greeting]);
    assert_eq!((bench.peers.link_to(HIGHER), bench.effects()), (None, vec![]));
    bench.hello(link, HIGHER);
    assert_eq!((bench.outputs(), bench.sent(link)), (vec![], vec![]));
    assert_eq!((bench.peers.link_to(HIGHER), bench.effects()), (Some(link), vec![linked(HIGHER, link)]));
}

#[test]
fn the_side_that_was_dialed_answers_a_node_that_the_registry_names() {
    let mut bench = Bench::acquainted();
    let link = bench.connect(Caller::Stranger(ADDRESS));
    assert_eq!(bench.outputs(), [], "it does not greet first");
    bench.hello(link, LOWER);
    let greeting = ToNode::Hello(v1::LinkHello { node: OWN.0, to: LOWER.0 });
    assert_eq!((bench.outputs(), bench.sent(link)), (vec![wake(link)], vec![greeting]));
    assert_eq!(bench.effects(), [linked(LOWER, link)]);
    let unknown = bench.connect(Caller::Stranger(ADDRESS));
    bench.hello(unknown, NodeId(9));
    assert_eq!(bench.closed(), [(unknown, LinkClosure::NodeUnknown)]);
    assert_eq!((bench.peers.link_to(NodeId(9)), bench.peers.nodes()), (None, 2));
    let wrong = bench.connect(Caller::Stranger(ADDRESS));
    bench.frame(wrong, v1::Kind::LinkHello, &v1::LinkHello { node: LOWER.0, to: HIGHER.0 });
    assert_eq!(bench.closed(), [(wrong, LinkClosure::WrongNode)]);
    assert_eq!((bench.peers.links(), bench.effects()), (1, vec![]));
}

#[test]
fn a_link_begins_with_one_hello() {
    let mut bench = Bench::acquainted();
    let early = bench.connect(Caller::Stranger(ADDRESS));
    assert!(bench.frame(early, v1::Kind::Ping, &v1::Ping::default()).is_none());
    assert_eq!(bench.closed(), [(early, LinkClosure::NoHello)]);
    let twice = bench.link(LOWER);
    bench.hello(twice, LOWER);
    assert_eq!(bench.closed(), [(twice, LinkClosure::SecondHello)]);
    let garbled = bench.link(LOWER);
    assert!(bench.raw(garbled, Bytes::from_static(b"?")).is_none());
    let closed = bench.closed();
    assert!(matches!(closed[..], [(link, LinkClosure::Wire(_))] if link == garbled), "{closed:?}");
    assert_eq!(bench.peers.links(), 0);
}

#[test]
fn a_newer_link_takes_over() {
    let mut bench = Bench::acquainted();
    let old = bench.link(LOWER);
    bench.peers.read(&mut bench.out, old, room(1));
    bench.follow(LOWER, room(2));
    bench.effects();
    let newer = bench.link(LOWER);
    assert_eq!(bench.closed(), [(old, LinkClosure::Superseded)]);
    let effects = [unlinked(LOWER, old, &[room(1)], false), linked(LOWER, newer)];
    assert_eq!(bench.effects(), effects, "the node was not out of reach");
    assert_eq!((bench.peers.link_to(LOWER), bench.peers.is_up(old)), (Some(newer), false));
    bench.advance(Duration::from_micros(1));
    assert_eq!(bench.dialed(), []);
}

#[test]
fn of_two_dials_under_way_the_first_link_that_opens_stays() {
    let mut bench = Bench::acquainted();
    let first = bench.link(HIGHER);
    let room = room(1);
    bench.peers.read(&mut bench.out, first, room);
    bench.effects();
    bench.out.clear();
    let second = bench.connect(Caller::Dialed(HIGHER));
    assert_eq!(bench.outputs(), [Output::CloseLink(LinkId::from_key(second), LinkClosure::Surplus)]);
    assert_eq!((bench.peers.link_to(HIGHER), bench.peers.links(), bench.effects()), (Some(first), 1, vec![]));
}

#[test]
fn a_greeting_that_does_not_come_ends_the_link() {
    let mut bench = Bench::acquainted();
    let link = bench.connect(Caller::Stranger(ADDRESS));
    let limit = bench.config.links.handshake_timeout;
    bench.advance(limit - Duration::from_micros(1));
    assert!(bench.peers.is_up(link));
    bench.advance(Duration::from_micros(1));
    assert_eq!(bench.closed(), [(link, LinkClosure::HandshakeTimeout)]);
}

#[test]
fn strangers_take_the_places_of_strangers() {
    let mut bench = Bench::new();
    bench.config.links.total = 8;
    bench.peers = Peers::new(OWN, 8);
    let first = bench.connect(Caller::Stranger(ADDRESS));
    bench.now.instant = bench.now.instant + Duration::from_micros(1);
    let second = bench.connect(Caller::Stranger(ADDRESS));
    assert_eq!(bench.closed(), []);
    let third = bench.connect(Caller::Stranger(Address([8; 16])));
    assert_eq!(bench.closed(), [(first, LinkClosure::Displaced)]);
    assert!(bench.peers.is_up(second) && bench.peers.is_up(third));
    for node in 10..16 {
        bench.connect(Caller::Dialed(NodeId(node)));
    }
    assert_eq!(bench.peers.links(), 8);
    assert!(bench.call(|peers, cx| peers.handle_link(cx, Caller::Dialed(NodeId(16)))).is_none());
}

#[test]
fn the_loss_of_the_open_link_is_told_with_its_rooms_and_the_node_is_dialed_again() {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    for slot in [3, 1] {
        bench.peers.read(&mut bench.out, link, room(slot));
    }
    for slot in [2, 3] {
        bench.follow(HIGHER, room(slot));
    }
    bench.effects();
    bench.out.clear();
    bench.now.instant = bench.now.instant + Duration::from_secs(1);
    bench.call(|peers, cx| peers.forget_link(cx, link));
    assert_eq!(bench.effects(), [unlinked(HIGHER, link, &[room(1), room(2), room(3)], true)]);
    assert_eq!(bench.outputs(), [], "the driver has told of it");
    assert_eq!((bench.peers.link_to(HIGHER), bench.peers.links()), (None, 0));
    let due = bench.peers.next_timer().unwrap();
    assert_eq!(due, (bench.now.instant, PeersTimer::Dial(HIGHER)), "members wait");
    bench.call(|peers, cx| peers.forget_link(cx, link));
    assert_eq!((bench.effects(), bench.peers.next_timer()), (vec![], Some(due)), "told twice");
    bench.advance(due.0 - bench.now.instant);
    assert_eq!(bench.dialed(), [HIGHER]);
}

#[test]
fn a_link_without_rooms_is_dialed_again_after_a_back_off() {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    bench.effects();
    bench.call(|peers, cx| peers.forget_link(cx, link));
    let (due, _) = bench.peers.next_timer().unwrap();
    assert!(due >= bench.now.instant + bench.config.links.backoff_min);
}

#[test]
fn a_link_that_was_never_open_goes_without_a_word() {
    let mut bench = Bench::acquainted();
    let link = bench.connect(Caller::Dialed(HIGHER));
    bench.call(|peers, cx| peers.forget_link(cx, link));
    let stranger = bench.connect(Caller::Stranger(ADDRESS));
    bench.call(|peers, cx| peers.forget_link(cx, stranger));
    assert_eq!(bench.effects(), []);
}

#[test]
fn a_peer_that_does_not_read_is_dropped() {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    bench.effects();
    bench.sent(link);
    bench.out.clear();
    let frame = Bytes::from(vec![0; bench.config.links.queue_bytes / 2]);
    assert!(bench.peers.takes_more(link));
    bench.call(|peers, cx| peers.tell(cx, link, frame.clone()));
    assert!(!bench.peers.takes_more(link), "relayed messages wait");
    bench.call(|peers, cx| peers.tell(cx, link, frame.clone()));
    assert_eq!(bench.outputs(), [wake(link)], "once for both frames");
    bench.call(|peers, cx| peers.tell(cx, link, frame));
    assert_eq!(bench.closed(), [(link, LinkClosure::NotReading)]);
    assert_eq!(bench.peers.stats().overflows, 1);
    assert_eq!(bench.effects(), [unlinked(HIGHER, link, &[], true)]);
    bench.call(|peers, cx| peers.tell(cx, link, Bytes::new()));
    assert!(!bench.peers.takes_more(link) && bench.outputs().is_empty(), "it is gone");
}

#[test]
fn a_peer_that_is_silent_is_dropped() {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    bench.effects();
    bench.sent(link);
    bench.advance(Duration::ZERO);
    assert_eq!(bench.sent(link), [ToNode::Ping(v1::Ping { nonce: 1, rtt_us: 0 })], "at once");
    bench.advance(bench.config.links.heartbeat.interval * 10);
    assert!(bench.closed().contains(&(link, LinkClosure::HeartbeatTimeout)));
    assert_eq!(bench.effects(), [unlinked(HIGHER, link, &[], true)]);
}

#[test]
fn a_peer_that_sends_anything_lives() {
    let mut bench = Bench::acquainted();
    let link = bench.link(LOWER);
    for _ in 0..20 {
        bench.advance(bench.config.links.heartbeat.interval);
        assert!(bench.frame(link, v1::Kind::Detach, &v1::Detach::default()).is_some());
    }
    assert_eq!(bench.closed(), []);
}
