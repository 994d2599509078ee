//! Other nodes: dials, followed rooms, and reach.

use super::*;

#[test]
fn the_node_with_the_lower_number_dials() {
    let mut bench = Bench::new();
    for node in [LOWER, HIGHER] {
        bench.record(node);
        assert_eq!(bench.outputs(), [Output::Event(Event::NodeUp { node })]);
    }
    bench.call(|peers, cx| peers.handle_record(cx, NodeId(7), &v1::NodeRecord::default()));
    bench.out.clear();
    bench.advance(Duration::ZERO);
    let (address, limit) = (String::from("node-6:1"), bench.config.links.handshake_timeout);
    assert_eq!(bench.outputs(), [Output::Dial { node: HIGHER, address, limit }], "node 7 takes no links");
    assert_eq!((bench.peers.nodes(), bench.peers.name(LOWER)), (3, Some("name")));
    assert_eq!(bench.peers.name(NodeId(9)), None);
}

#[test]
fn a_dial_of_which_nothing_is_heard_is_made_again() {
    let mut bench = Bench::acquainted();
    let patience = bench.config.links.handshake_timeout * 2;
    bench.advance(patience - Duration::from_micros(1));
    assert_eq!(bench.dialed(), []);
    bench.advance(Duration::from_micros(1));
    assert_eq!(bench.dialed(), [HIGHER]);
}

#[test]
fn a_dial_that_fails_is_made_again_after_a_back_off() {
    let mut bench = Bench::acquainted();
    let (least, most) = (bench.config.links.backoff_min, bench.config.links.backoff_max);
    let mut waits = Vec::new();
    for _ in 0..40 {
        bench.call(|peers, cx| peers.handle_dial_failed(cx, HIGHER));
        let (due, timer) = bench.peers.next_timer().unwrap();
        assert_eq!(timer, PeersTimer::Dial(HIGHER));
        waits.push(due - bench.now.instant);
        bench.advance(due - bench.now.instant);
        assert_eq!(bench.dialed(), [HIGHER]);
    }
    assert!(waits[0] >= least && waits[0] <= least * 2, "{waits:?}");
    assert!(waits.iter().all(|wait| *wait >= least && *wait <= most), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > most / 2), "{waits:?}");
    let before = bench.peers.next_timer();
    // The other side dials, or nobody knows the node.
    for node in [LOWER, NodeId(9)] {
        bench.call(|peers, cx| peers.handle_dial_failed(cx, node));
    }
    assert_eq!(bench.peers.next_timer(), before);
}

/// Times of the dials within a time, after the last of which each dial fails.
fn dials(bench: &mut Bench, within: Duration, fails_after: Duration) -> Vec<Duration> {
    let start = bench.now.instant;
    let (mut dials, mut failures) = (Vec::new(), VecDeque::new());
    while bench.now.instant < start + within {
        bench.advance(Duration::from_millis(1));
        let now = bench.now.instant;
        for _ in bench.dialed() {
            dials.push(now - start);
            failures.push_back(now + fails_after);
        }
        while failures.pop_front_if(|at| *at <= now).is_some() {
            bench.call(|peers, cx| peers.handle_dial_failed(cx, HIGHER));
        }
    }
    dials
}

#[test]
fn a_node_with_which_a_room_is_shared_is_dialed_without_a_back_off_for_a_while() {
    for (fails_after, most) in [(0, 100), (40, 100), (150, 100)].map(|(a, b)| (Duration::from_millis(a), b)) {
        let mut bench = Bench::acquainted();
        let link = bench.link(HIGHER);
        bench.peers.read(&mut bench.out, link, room(1));
        bench.effects();
        bench.now.instant = bench.now.instant + Duration::from_secs(1);
        bench.call(|peers, cx| peers.forget_link(cx, link));
        bench.effects();
        bench.out.clear();
        let dials = dials(&mut bench, Duration::from_secs(30), fails_after);
        assert!(dials[0] <= Duration::from_millis(1), "at once: {dials:?}");
        let in_haste = dials.iter().filter(|at| **at < peer::HASTE).count();
        assert!((49..=51).contains(&in_haste), "{fails_after:?}: {dials:?}");
        let gap = |pair: &[Duration]| pair[1] - pair[0];
        let hasty = dials[..in_haste].windows(2).map(gap).max().unwrap();
        assert!(hasty <= Duration::from_millis(most + 2), "{hasty:?}");
        assert!(dials.len() - in_haste < 40, "then with the usual back-off: {dials:?}");
    }
}

/// A machine that has lost a link without rooms, of which the round trip was measured, and cannot dial.
fn out_of_reach(measured: bool) -> Bench {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    bench.advance(Duration::ZERO);
    bench.now.instant = bench.now.instant + Duration::from_millis(1);
    if measured {
        bench.frame(link, v1::Kind::Pong, &v1::LinkPong { nonce: 1, wall_ms: 0 });
    }
    bench.call(|peers, cx| peers.forget_link(cx, link));
    bench.effects();
    for _ in 0..20 {
        bench.call(|peers, cx| peers.handle_dial_failed(cx, HIGHER));
    }
    bench.advance(Duration::from_millis(99));
    bench.out.clear();
    bench
}

#[test]
fn a_node_where_a_room_comes_to_be_followed_is_dialed_at_once() {
    let mut bench = out_of_reach(true);
    bench.follow(HIGHER, room(1));
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.dialed(), [HIGHER]);
    bench.follow(LOWER, room(1));
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.dialed(), [], "the other side dials");
}

#[test]
fn haste_that_was_in_vain_gives_way_to_patient_dials() {
    // As in seed 661748, where the path took longer than a dial in haste may.
    for measured in [true, false] {
        let mut bench = out_of_reach(measured);
        let mut limits = Vec::new();
        for n in 0..20 {
            bench.follow(HIGHER, room(n));
            for _ in 0..1_000 {
                bench.advance(Duration::from_millis(1));
                let dials: Vec<Output> = bench.outputs();
                for output in dials {
                    if let Output::Dial { limit, .. } = output {
                        limits.push(limit);
                        bench.call(|peers, cx| peers.handle_dial_failed(cx, HIGHER));
                    }
                }
            }
        }
        let usual = bench.config.links.handshake_timeout;
        let hasty = limits.iter().filter(|limit| **limit < usual).count();
        assert!(hasty <= 51 && (hasty > 0) == measured, "{limits:?}");
        assert!(limits.len() > hasty + 3, "{limits:?}");
    }
}

#[test]
fn only_the_last_back_off_counts() {
    let mut bench = Bench::acquainted();
    for _ in 0..10 {
        bench.call(|peers, cx| peers.handle_dial_failed(cx, HIGHER));
    }
    let (due, _) = bench.peers.next_timer().unwrap();
    bench.advance(due - bench.now.instant);
    assert_eq!(bench.dialed(), [HIGHER], "nothing is due for nothing");
}

/// The registry does not name a node any more. Returns the event.
fn unnamed(bench: &mut Bench, node: NodeId) -> Option<Event> {
    bench.named.remove(&node);
    let is_known = bench.call(|peers, cx| peers.handle_unnamed(cx, node));
    let down = |output: &Output| matches!(output, Output::Event(Event::NodeDown { .. }));
    let event = bench.out.iter().position(down).and_then(|at| bench.out.remove(at));
    assert_eq!(event.is_some(), is_known);
    event.map(|output| if let Output::Event(event) = output { event } else { panic!("{output:?}") })
}

/// A machine with a link to a node that the registry does not name any more, where a room is followed.
fn kept() -> (Bench, Key) {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    bench.follow(HIGHER, room(1));
    bench.peers.read(&mut bench.out, link, room(1));
    bench.effects();
    bench.out.clear();
    let down = Event::NodeDown { node: HIGHER, is_linked: true };
    assert_eq!(unnamed(&mut bench, HIGHER), Some(down));
    assert_eq!((bench.effects(), bench.outputs()), (vec![], vec![]), "nothing changes");
    assert_eq!((bench.peers.link_to(HIGHER), bench.peers.rooms_at(HIGHER)), (Some(link), vec![room(1)]));
    (bench, link)
}

#[test]
fn a_link_that_works_is_kept_when_the_registry_does_not_name_its_node() {
    let (mut bench, link) = kept();
    assert!(bench.frame(link, v1::Kind::Detach, &v1::Detach::default()).is_some());
    bench.record(HIGHER);
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.dialed(), [], "it is named again, and the link is the same");
    bench.call(|peers, cx| peers.forget_link(cx, link));
    assert_eq!(bench.effects(), [unlinked(HIGHER, link, &[room(1)], true)]);
    bench.advance(Duration::from_millis(100));
    assert_eq!(bench.dialed(), [HIGHER]);
}

#[test]
fn a_node_without_a_name_is_dead_once_its_link_is_gone() {
    let (mut bench, link) = kept();
    bench.call(|peers, cx| peers.forget_link(cx, link));
    let gone = PeersEffect::NodeGone { node: HIGHER, rooms: vec![room(1)] };
    assert_eq!(bench.effects(), [unlinked(HIGHER, link, &[room(1)], true), gone]);
    assert_eq!((bench.peers.nodes(), bench.peers.next_timer()), (1, None), "nobody is dialed");
    let again = bench.connect(Caller::Dialed(HIGHER));
    bench.hello(again, HIGHER);
    assert_eq!(bench.closed(), [(again, LinkClosure::NodeUnknown)]);
}

#[test]
fn rooms_are_followed_at_a_node_without_a_name_for_the_time_of_a_lease() {
    let (mut bench, link) = kept();
    bench.config.links.heartbeat.interval = bench.config.registrar.node_ttl * 2;
    bench.frame(link, v1::Kind::Detach, &v1::Detach::default());
    let until = bench.now.instant + bench.config.registrar.node_ttl;
    let mut ended = Vec::new();
    while ended.is_empty() {
        bench.frame(link, v1::Kind::Detach, &v1::Detach::default());
        bench.advance(Duration::from_millis(500));
        ended = bench.effects();
    }
    assert!(bench.now.instant.since(until) < Duration::from_secs(1), "{ended:?}");
    assert_eq!(ended, [PeersEffect::RoomsOver { node: HIGHER, rooms: vec![room(1)] }]);
    assert_eq!(bench.peers.link_to(HIGHER), Some(link), "it may be named again");
}

#[test]
fn a_node_without_a_link_that_works_is_forgotten_with_its_dial() {
    let mut bench = Bench::acquainted();
    let open = bench.link(LOWER);
    bench.follow(LOWER, room(1));
    bench.effects();
    bench.out.clear();
    let down = |node| Some(Event::NodeDown { node, is_linked: false });
    assert_eq!(unnamed(&mut bench, LOWER), down(LOWER), "it may not hear this node");
    let gone = |node, rooms| PeersEffect::NodeGone { node, rooms };
    assert_eq!(bench.closed(), [(open, LinkClosure::NodeGone)]);
    assert_eq!(bench.effects(), [gone(LOWER, vec![room(1)])]);
    assert_eq!(unnamed(&mut bench, LOWER), None);
    assert_eq!(unnamed(&mut bench, HIGHER), down(HIGHER), "while it is dialed");
    assert_eq!(bench.effects(), [gone(HIGHER, vec![])]);
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.dialed(), []);
}

#[test]
fn a_node_that_stops_ends_its_links_and_opens_none() {
    let mut bench = Bench::acquainted();
    let link = bench.link(HIGHER);
    bench.effects();
    bench.out.clear();
    bench.call(Peers::stop);
    assert_eq!(bench.closed(), [(link, LinkClosure::Stopping)]);
    assert_eq!(bench.effects(), [unlinked(HIGHER, link, &[], true)]);
    let late = bench.link(LOWER);
    assert_eq!((bench.closed(), bench.effects()), (vec![(late, LinkClosure::Stopping)], vec![]));
}

#[test]
fn a_node_is_known_once_a_room_is_followed_there_and_is_told_its_rooms() {
    let mut bench = Bench::new();
    bench.follow(LOWER, room(1));
    bench.follow(LOWER, room(2));
    assert_eq!((bench.peers.nodes(), bench.peers.name(LOWER)), (1, Some("")));
    bench.peers.unfollow(LOWER, room(1));
    bench.peers.unfollow(NodeId(9), room(2));
    assert_eq!(bench.peers.rooms_at(LOWER), [room(2)]);
    assert_eq!(bench.peers.rooms_at(NodeId(9)), []);
}

#[test]
fn a_node_is_in_reach_while_its_link_works_both_ways() {
    let mut bench = Bench::acquainted();
    bench.follow(LOWER, room(1));
    let start = bench.now.instant;
    let reach = |bench: &Bench| -> Vec<_> { bench.peers.unlinked(bench.now.instant).collect() };
    bench.now.instant = start + Duration::from_secs(1);
    let second = Duration::from_secs(1);
    assert_eq!(reach(&bench), [(LOWER, second), (HIGHER, second)]);
    let dialed = bench.link(HIGHER);
    let called = bench.link(LOWER);
    assert_eq!(reach(&bench), [(LOWER, second)], "it may not hear this node");
    bench.frame(called, v1::Kind::Ping, &v1::Ping::default());
    assert_eq!(reach(&bench), []);
    bench.now.instant = start + second * 2;
    bench.call(|peers, cx| peers.forget_link(cx, dialed));
    bench.now.instant = start + second * 5;
    assert_eq!(reach(&bench), [(HIGHER, second * 3)], "since the link went");
    // A link that is replaced before it works leaves the moment as it is.
    bench.connect(Caller::Dialed(HIGHER));
    bench.now.instant = start + second * 6;
    assert_eq!(reach(&bench), [(HIGHER, second * 4)]);
}

#[test]
fn a_link_that_took_over_and_does_not_work_counts_from_the_takeover() {
    let mut bench = Bench::acquainted();
    let start = bench.now.instant;
    let first = bench.link(LOWER);
    bench.frame(first, v1::Kind::Ping, &v1::Ping::default());
    bench.now.instant = start + Duration::from_secs(2);
    bench.link(LOWER);
    bench.now.instant = start + Duration::from_secs(3);
    let reach: Vec<_> = bench.peers.unlinked(bench.now.instant).collect();
    assert!(reach.contains(&(LOWER, Duration::from_secs(1))), "{reach:?}");
}
