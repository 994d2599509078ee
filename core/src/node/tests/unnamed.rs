//! Rooms of a node that the registry does not name any more, and that lives.

use super::cluster::Cluster;
use super::*;

/// Ann's node leads the arena, and has lost its leases. Bob's node has heard so, and is linked to it.
fn lapsed() -> (Cluster, cluster::Member, cluster::Member) {
    // No pings of clients.
    let mut config = Config::default();
    config.heartbeat.interval = Duration::from_secs(100);
    let mut cluster = Cluster::with(3, config);
    let ann = cluster.join(0, "ann");
    let bob = cluster.join(1, "bob");
    cluster.received(&ann);
    cluster.unregistered = vec![0];
    cluster.events.clear();
    cluster.advance(Duration::from_secs(15));
    let down = |n| (n, Event::NodeDown { node: NodeId(1), is_linked: true });
    assert!(cluster.events.contains(&down(1)) && cluster.events.contains(&down(2)), "{:?}", cluster.events);
    assert!(cluster.events.contains(&(0, Event::NotServing)));
    let is_link =
        |(_, event): &(usize, Event)| matches!(event, Event::LinkDown { .. } | Event::LinkUp { .. });
    assert!(!cluster.events.iter().any(is_link), "every link is kept");
    (cluster, ann, bob)
}

#[test]
fn a_room_goes_on_when_its_primary_is_named_again() {
    let (mut cluster, mut ann, mut bob) = lapsed();
    assert_eq!(cluster.received(&bob), [], "bob waits");
    cluster.say(&mut bob, "refused");
    let told = cluster.received(&bob);
    assert!(matches!(told[..], [ToClient::Throttle(_)]), "the primary does not serve: {told:?}");
    bob.said -= 1;
    cluster.heal();
    cluster.advance(Duration::from_secs(8));
    assert!(cluster.events.contains(&(1, Event::NodeUp { node: NodeId(1) })));
    cluster.say(&mut bob, "accepted");
    assert_eq!(cluster.heard(&mut bob), ["accepted"]);
    assert_eq!(cluster.heard(&mut ann), ["accepted"]);
    let epoch = ann.epoch;
    assert_eq!(cluster.node(0).leads("arena"), Some(epoch));
}

#[test]
fn a_room_that_another_node_takes_meanwhile_ends_when_its_primary_hears_so() {
    let (mut cluster, _ann, bob) = lapsed();
    let cat = cluster.join(2, "cat");
    assert_eq!(cluster.node(2).leads("arena"), Some(cat.epoch));
    assert_eq!(cluster.received(&bob), []);
    cluster.heal();
    cluster.advance(Duration::from_secs(8));
    let told = cluster.received(&bob);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(told.iter().any(gone), "{told:?}");
    assert_eq!(cluster.node(0).leads("arena"), None);
}

#[test]
fn rooms_of_a_node_that_is_not_named_end_when_it_dies() {
    let (mut cluster, _ann, bob) = lapsed();
    cluster.kill(0);
    let told = cluster.received(&bob);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(told.iter().any(gone), "at once: {told:?}");
}

#[test]
fn rooms_of_a_node_that_is_not_named_are_kept_for_the_time_of_a_lease() {
    let (mut cluster, _ann, bob) = lapsed();
    let ttl = cluster.node(1).config().registrar.node_ttl;
    cluster.advance(ttl.saturating_sub(Duration::from_secs(10)));
    assert_eq!(cluster.received(&bob), []);
    cluster.advance(Duration::from_secs(11));
    let told = cluster.received(&bob);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(told.iter().any(gone), "{told:?}");
}

#[test]
fn a_node_that_is_not_named_is_missed_by_nobody_and_its_clock_counts() {
    let (mut cluster, ..) = lapsed();
    cluster.advance(Duration::from_secs(20));
    let now = cluster.now.instant;
    let node = cluster.node(1);
    assert_eq!((node.others(), node.unreachable(now, Duration::ZERO)), (1, vec![]));
    assert_eq!(node.clock_differences(now).count(), 2);
    assert_eq!(node.unmeasured_clocks().count(), 0);
    cluster.kill(0);
    cluster.advance(Duration::from_secs(20));
    let now = cluster.now.instant;
    assert_eq!(cluster.node(1).clock_differences(now).count(), 1);
}

#[test]
fn rooms_of_a_node_that_stops_end_at_once() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, "ann");
    let bob = cluster.join(1, "bob");
    cluster.stop(0);
    cluster.advance(Duration::from_millis(10));
    let told = cluster.received(&bob);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(told.iter().any(gone), "{told:?}");
    assert_eq!(cluster.node(1).stats().links, 0);
}
