//! Nodes that are in the registry but have no link.

use super::cluster::Cluster;
use super::*;

const BOUND: Duration = Duration::from_secs(5);

/// Returns the unreachable nodes of each node, by index.
fn unreachable(cluster: &mut Cluster) -> Vec<Vec<u64>> {
    let now = cluster.now.instant;
    let numbers = |node: &Option<Node>| {
        let node = node.as_ref().unwrap();
        node.unreachable(now, BOUND).into_iter().map(|other| other.node.0).collect()
    };
    cluster.nodes.iter().map(numbers).collect()
}

#[test]
fn a_node_whose_links_are_lost_is_found_out_after_the_bound_and_not_when_they_are_back() {
    let mut cluster = Cluster::new(3);
    cluster.advance(Duration::from_secs(30));
    assert_eq!(unreachable(&mut cluster), [vec![], vec![], vec![]], "every link was answered");
    cluster.cut(0, 2);
    cluster.advance(Duration::from_secs(4));
    assert_eq!(unreachable(&mut cluster), [vec![], vec![], vec![]], "not for long yet");
    cluster.advance(Duration::from_secs(2));
    assert_eq!(unreachable(&mut cluster), [vec![3], vec![], vec![1]]);
    let now = cluster.now.instant;
    let other = cluster.node(0).unreachable(now, BOUND).remove(0);
    assert_eq!((other.address.as_str(), other.dials), ("2", true));
    assert!(other.lasts > BOUND && other.lasts < BOUND * 2, "{other:?}");
    let other = cluster.node(2).unreachable(now, BOUND).remove(0);
    assert_eq!((other.address.as_str(), other.dials), ("0", false));
    cluster.heal();
    cluster.advance(Duration::from_secs(6));
    assert_eq!(unreachable(&mut cluster), [vec![], vec![], vec![]]);
}

#[test]
fn a_link_over_which_nothing_comes_back_is_none() {
    let mut cluster = Cluster::new(2);
    cluster.advance(Duration::from_secs(2));
    // New connections open but carry nothing: neither side may count them as links.
    cluster.swallow = true;
    cluster.advance(Duration::from_secs(20));
    assert_eq!(unreachable(&mut cluster), [vec![2], vec![1]]);
    cluster.swallow = false;
    cluster.advance(Duration::from_secs(10));
    assert_eq!(unreachable(&mut cluster), [vec![], vec![]]);
}

#[test]
fn a_node_that_dies_is_forgotten_with_its_record() {
    let mut cluster = Cluster::new(2);
    cluster.advance(Duration::from_secs(2));
    cluster.kill(1);
    let ttl = cluster.node(0).config().registrar.node_ttl;
    for _ in 0..60 {
        cluster.advance(Duration::from_secs(1));
        let now = cluster.now.instant;
        assert_eq!(cluster.node(0).unreachable(now, ttl * 2), []);
    }
}

#[test]
fn a_link_that_is_dropped_while_a_tail_is_granted_over_it_does_not_read_the_room() {
    let mut cluster = Cluster::new(2);
    let ann = cluster.join(0, "ann");
    let now = cluster.time(0);
    let node = cluster.node(0);
    let link = node.peers.link_to(NodeId(2)).unwrap();
    // The other side does not read any more.
    node.tell(now, link, Bytes::from(vec![0; node.config.links.queue_bytes]));
    assert!(node.peers.is_up(link));
    let attach = v1::Attach { room: "arena".into(), epoch: ann.epoch, number: 1, ..v1::Attach::default() };
    let message = wire::RoomMessage::Attach(attach);
    node.take_room_message(now, link, NodeId(2), message, v1::Metadata::default());
    assert!(!node.peers.is_up(link));
    let room = node.rooms.named("arena").unwrap();
    assert_eq!(node.rooms.get(room).unwrap().readers().count(), 0);
}
