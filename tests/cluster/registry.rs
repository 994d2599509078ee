//! Answers of etcd to a node, and the keys that a stopped node leaves in etcd.

use rustix::process::Signal;
use skirmish_io::client::{Event, Outcome};
use skirmish_proto::v1::LeftReason;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::socket::Socket;
use skirmish_tests::{eventually, within};

use crate::nodes::Nodes;

#[tokio::test]
async fn what_etcd_answers_is_heard_at_once() {
    let nodes = Nodes::start(1).await;
    // If each answer had to wait for the node's own timer, the loop would take minutes.
    within("a hundred sessions, one after the other", async {
        for number in 0..100 {
            Socket::open(nodes.nodes[0].address, &format!("player-{number}")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_leaves_nothing_behind() {
    // A test that waits for the end of a lease would take an hour.
    let mut nodes = Nodes::start_with(2, &["cluster.node_ttl=\"1h\""]).await;
    let alice = Player::join(builder(&nodes.url(0), "alice"), "arena").await;
    let mut bob = Player::join(builder(&nodes.url(1), "bob"), "arena").await;
    assert_eq!(nodes.keys("/nodes/").await.len(), 2);
    assert_eq!(nodes.keys("/rooms/").await.len(), 1);
    assert_eq!(nodes.keys("/sessions/").await.len(), 2);

    let mut first = nodes.nodes.remove(0);
    first.signal(Signal::TERM);
    assert_eq!(first.exit().await, Some(0));
    // The node's records are deleted before its process ends.
    assert_eq!(nodes.keys("/nodes/").await, [format!("/nodes/{}", nodes.nodes[0].node)]);
    assert_eq!(nodes.keys("/sessions/").await.len(), 1, "alice's session was on the first node");
    // Bob is notified, and plays on at this node.
    let gone = |event: &Event| matches!(event, Event::Left { reason: LeftReason::Gone, .. }).then_some(());
    bob.until("to be told that the room is gone", gone).await;
    bob.joined("arena").await;
    let message = bob.say("arena", "alone").await;
    assert_eq!(bob.outcome(message).await, Outcome::Acknowledged);
    drop(alice);
}

#[tokio::test]
async fn a_node_that_cannot_say_goodbye_stops_all_the_same() {
    let mut nodes = Nodes::start(1).await;
    nodes.etcd.pause();
    let mut node = nodes.nodes.remove(0);
    node.signal(Signal::TERM);
    assert_eq!(node.exit().await, Some(0));
    let said = |line: &serde_json::Value| {
        line["message"].as_str().is_some_and(|message| message.contains("stays until its leases end"))
    };
    // The last line of the log may arrive after the end of the process.
    eventually("the node to have said so", async || node.count(said) == 1).await;
}
