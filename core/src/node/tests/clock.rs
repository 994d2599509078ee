//! Nodes whose wall clocks are off.

use super::cluster::Cluster;
use super::*;
use crate::node::clocks::ClockVerdict;

const HOUR_MS: i64 = 3_600_000;
const ANYBODY: Address = Address([9; 16]);

fn verdicts(cluster: &Cluster) -> Vec<ClockVerdict> {
    cluster.nodes.iter().flatten().map(Node::clock).collect()
}

/// Answer of a node to a new connection.
fn at_the_door(cluster: &mut Cluster, node: usize) -> Result<(), Refusal> {
    let now = cluster.time(node);
    cluster.node(node).handle_accept(now, ANYBODY).map(|_| ())
}

#[test]
fn a_cluster_starts_within_a_round_trip_of_its_links() {
    let mut cluster = Cluster::unstarted(3, Config::default());
    for index in 0..3 {
        cluster.start(index, index as u64 + 1);
        assert_eq!(
            verdicts(&cluster).last(),
            Some(&[ClockVerdict::Agrees, ClockVerdict::Unknown][index.min(1)])
        );
    }
    assert_eq!(at_the_door(&mut cluster, 1), Err(Refusal::ClockUnknown));
    cluster.advance(Duration::ZERO);
    assert_eq!(verdicts(&cluster), [ClockVerdict::Agrees; 3]);
    assert_eq!(at_the_door(&mut cluster, 1), Ok(()));
}

#[test]
fn a_node_that_starts_with_a_clock_that_is_off_lets_nobody_in_until_it_is_right() {
    for off in [HOUR_MS, -HOUR_MS, 2_500] {
        let mut cluster = Cluster::unstarted(3, Config::default());
        cluster.off[2] = off;
        (0..3).for_each(|index| cluster.start(index, index as u64 + 1));
        cluster.advance(Duration::from_secs(1));
        assert_eq!(verdicts(&cluster), [ClockVerdict::Agrees, ClockVerdict::Agrees, ClockVerdict::Off]);
        assert_eq!(at_the_door(&mut cluster, 2), Err(Refusal::ClockOff));
        let now = cluster.time(2).instant;
        let told: Vec<_> = cluster.node(2).clock_differences(now).collect();
        assert!(
            told.len() == 2 && told.iter().all(|d| d.is_beyond && (d.ahead_ms + off).abs() <= 20),
            "{told:?}"
        );
        cluster.off[2] = 0;
        assert_eq!(at_the_door(&mut cluster, 2), Ok(()), "at once");
    }
}

#[test]
fn a_clock_that_is_set_wrong_sends_everybody_elsewhere_before_anything_is_stamped_by_it() {
    let mut cluster = Cluster::new(3);
    let mut alice = cluster.join(0, "alice");
    let bob = cluster.join(1, "bob");
    cluster.off[0] = HOUR_MS;
    cluster.advance(Duration::from_secs(2));
    assert_eq!(cluster.node(0).clock(), ClockVerdict::Off);
    assert_eq!(cluster.closed, [(0, alice.conn, v1::Reason::Draining)]);
    let told = cluster.received(&alice);
    let goodbye = told.iter().find_map(|m| if let ToClient::Goodbye(g) = m { Some(g) } else { None });
    assert!(goodbye.is_some_and(|goodbye| goodbye.retry_after_ms > 0), "{told:?}");
    let now = cluster.time(0);
    cluster.node(0).handle_closed(now, alice.conn);
    cluster.advance(Duration::from_secs(1));
    // The room continues for members at other nodes, and stamps there are right.
    let stamps = cluster.node(1).replica("arena").unwrap().changes_since(0, 1 << 20).0;
    let latest = stamps.iter().filter_map(|entry| entry.stamp).map(|stamp| stamp.wall_ms).max();
    assert!(latest.is_some_and(|latest| latest <= cluster.now.wall.0), "{stamps:?}");
    alice.node = 2;
    let again = cluster.connect(2, "alice", alice.resume());
    assert!(again.told.iter().any(|m| matches!(m, ToClient::Joined(j) if j.resumed)), "{:?}", again.told);
    let mut bob = bob;
    cluster.say(&mut bob, "still here");
    assert_eq!(cluster.node(0).stats().clock_stops, 1);
    assert_eq!(cluster.node(0).leads("arena"), Some(bob.epoch));

    cluster.off[0] = 0;
    cluster.advance(Duration::from_secs(2));
    assert_eq!(verdicts(&cluster), [ClockVerdict::Agrees; 3]);
    cluster.connect(0, "carol", None);
}

#[test]
fn of_two_nodes_that_differ_neither_serves_and_a_node_without_a_link_is_waited_for_in_vain() {
    let mut cluster = Cluster::new(2);
    cluster.off[1] = -HOUR_MS;
    cluster.advance(Duration::from_secs(3));
    assert_eq!(verdicts(&cluster), [ClockVerdict::Off; 2]);
    cluster.off[1] = 0;
    cluster.advance(Duration::from_secs(3));
    assert_eq!(verdicts(&cluster), [ClockVerdict::Agrees; 2]);

    cluster.kill(1);
    cluster.advance(Duration::from_secs(1));
    cluster.kill(0);
    // The registry still names both dead nodes. One of them is an earlier start of this node.
    cluster.start(0, 7);
    assert_eq!(verdicts(&cluster), [ClockVerdict::Unknown]);
    assert_eq!(cluster.node(0).unmeasured_clocks().collect::<Vec<_>>(), [NodeId(2)]);
    cluster.advance(cluster.node_ttl());
    assert_eq!(verdicts(&cluster), [ClockVerdict::Agrees]);
}

#[test]
fn an_answer_that_takes_longer_than_the_next_ping_measures_all_the_same() {
    let mut config = Config::default();
    config.links.heartbeat.interval = Duration::from_millis(300);
    let mut cluster = Cluster::unstarted(2, config);
    cluster.off[1] = HOUR_MS;
    (0..2).for_each(|index| cluster.start(index, index as u64 + 1));
    cluster.slow = Some(1);
    for _ in 0..4 {
        cluster.advance(Duration::from_millis(700));
        cluster.release();
        cluster.slow = Some(1);
    }
    assert_eq!(cluster.node(0).clock(), ClockVerdict::Off);
}

#[test]
fn whoever_writes_what_a_write_from_the_future_hides_is_told() {
    let mut world = World::new(|_| ());
    let alice = world.player("alice");
    let now = world.now;
    let write = |wall_ms: u64, value: &'static [u8]| v1::State {
        room: "arena".into(),
        epoch: alice.epoch,
        entries: alloc::vec![v1::StateEntry {
            domain: v1::Domain::Property.into(),
            owner: "alice".into(),
            name: "colour".into(),
            stamp: Some(v1::Stamp { wall_ms, count: 0, replica: 7 }),
            value: Bytes::from_static(value),
            ..v1::StateEntry::default()
        }],
        ..v1::State::default()
    };
    // As relayed by a node whose clock was an hour ahead.
    let future = write(now.wall.0 + 3_600_000, b"red");
    let room = world.node.rooms.named("arena").unwrap();
    world.node.rooms.get_mut(room).unwrap().room_mut().state.merge(now, None, &future.entries).unwrap();
    world.received(alice.conn);
    let later = write(now.wall.0, b"blue");
    world.send(alice.conn, v1::Kind::State, &later);
    let told = world.received(alice.conn);
    let refusal = told.iter().find_map(|m| match m {
        ToClient::State(state) if state.refused => Some(state),
        _ => None,
    });
    let refusal = refusal.unwrap_or_else(|| panic!("the write vanished: {told:?}"));
    assert!(refusal.full && refusal.superseded && refusal.entries == later.entries, "{refusal:?}");
    assert_eq!(world.node.stats().clock_refusals, 1);
    world.send(alice.conn, v1::Kind::State, &write(now.wall.0 + 1, b"red"));
    assert_eq!(world.node.stats().clock_refusals, 2);
    assert_eq!(world.node.replica("arena").unwrap().property("alice", "colour").unwrap(), "red");
}

#[test]
fn a_node_that_others_do_not_know_yet_is_not_kept_waiting_for_as_long_as_the_dead_are_named() {
    let mut config = Config::default();
    config.registrar.node_ttl = HOUR;
    config.registrar.room_ttl = HOUR;
    let mut cluster = Cluster::unstarted(2, config);
    cluster.start(0, 1);
    // The first node hears no more of the registry, and so not of the second.
    cluster.unregistered = vec![0];
    cluster.start(1, 2);
    assert_eq!(cluster.node(1).clock(), ClockVerdict::Unknown);
    cluster.advance(Duration::from_secs(11));
    assert_eq!(cluster.node(1).clock(), ClockVerdict::Agrees);
}
