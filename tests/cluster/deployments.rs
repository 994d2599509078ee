//! Two deployments on one etcd.

use skirmish_tests::etcd::Etcd;
use skirmish_tests::eventually;
use skirmish_tests::http::get;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::other_key;

use crate::nodes::{Nodes, ready};

const PREFIX: &str = "registry.prefix=\"/second/eu\"";

#[tokio::test]
async fn a_deployment_with_other_keys_does_not_serve_where_another_is_and_says_what_to_set() {
    let mut nodes = Nodes::on(Etcd::start().await, 1, &[]).await;
    let second = nodes.add(&[&other_key(false)]).await;
    let admin = second.admin;
    eventually("the second to say why it does not serve", async || {
        let (status, body) = get(admin, "/readyz").await;
        status == 503 && body.contains("another deployment") && body.contains("registry.prefix")
    })
    .await;
    second.logged("a line of the log", |line| line.to_string().contains("registry_shared")).await;
    let first = format!("/nodes/{}", nodes.nodes[0].node);
    assert_eq!(nodes.keys("/nodes/").await, [first]);
    ready(&nodes.nodes[0]).await;

    // The node registers as soon as the other one is gone.
    nodes.kill(0).await;
    ready(&nodes.nodes[0]).await;
}

#[tokio::test]
async fn keys_are_rotated_node_by_node() {
    let mut nodes = Nodes::on(Etcd::start().await, 2, &[]).await;
    for setting in [other_key(true), other_key(false)] {
        for _ in 0..2 {
            nodes.kill(0).await;
            ready(nodes.add(&[&setting]).await).await;
        }
    }
    nodes.linked().await;
}

#[tokio::test]
async fn deployments_with_prefixes_of_their_own_know_nothing_of_each_other() {
    let mut nodes = Nodes::on(Etcd::start().await, 1, &[]).await;
    ready(nodes.add(&[PREFIX]).await).await;
    let mut first = Player::join(builder(&nodes.url(0), "alice"), "arena").await;
    let mut second = Player::join(builder(&nodes.url(1), "alice"), "arena").await;
    for (player, text) in [(&mut first, "of the first"), (&mut second, "of the second")] {
        player.say("arena", text).await;
        player.hears(&[text]).await;
    }
    assert_eq!(nodes.keys("/sessions/").await, ["/sessions/player:alice"]);
    assert_eq!(nodes.keys("/second/eu/sessions/").await, ["/second/eu/sessions/player:alice"]);
    assert_eq!(nodes.keys("/rooms/").await, ["/rooms/arena/state"]);
    assert_eq!(nodes.keys("/nodes/").await.len(), 1);
}
