//! Descriptors reserved for other nodes and for etcd.

use skirmish_tests::etcd::Etcd;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::limited;

use crate::nodes::{Nodes, shows};

/// Keeps silent connections open.
const PATIENT: &str = "connections.handshake_timeout=\"1h\"";

#[tokio::test]
async fn a_node_that_is_full_of_players_takes_links_and_stays_in_the_registry() {
    let mut nodes = Nodes { etcd: Etcd::start().await, nodes: Vec::new() };
    nodes.add_as(limited("ulimit -n 320"), &[PATIENT]).await;
    let alice = Player::join(builder(&nodes.url(0), "alice"), "arena").await;
    let silent = nodes.nodes[0].fill().await;

    nodes.add(&[]).await;
    nodes.add(&[]).await;
    nodes.linked().await;
    let mut bob = Player::join(builder(&nodes.url(1), "bob"), "arena").await;
    shows(&nodes.nodes[1], "skirmish_rooms_followed", 1).await;
    alice.say("arena", "still here").await;
    bob.hears(&["still here"]).await;
    drop(silent);
}
