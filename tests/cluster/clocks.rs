//! Nodes with different wall clocks, in the test process: each node reads a clock of its own.

use std::time::Duration;

use skirmish_io::clock::Clock;
use skirmish_io::config::RegistryKind;
use skirmish_tests::etcd::Etcd;
use skirmish_tests::http::{exchange, get, metric, status, upgrade};
use skirmish_tests::player::{Player, builder};
use skirmish_tests::server::Running;
use skirmish_tests::{eventually, token};

use crate::nodes::TTL;

/// Longer than the validity of every token in the tests.
const TWO_DAYS_MS: i64 = 2 * 24 * 3_600 * 1_000;

async fn start(etcd: &Etcd, name: &str, clock: &Clock) -> Running {
    let change = |config: &mut skirmish_io::config::Config| {
        config.registry.kind = RegistryKind::Etcd;
        config.registry.etcd.endpoints = vec![etcd.url()];
        config.cluster.name = Some(name.to_owned());
        config.cluster.link.address = Some("127.0.0.1:0".parse().expect("an address"));
        config.cluster.heartbeat.interval = Duration::from_millis(200);
        config.cluster.node_ttl = TTL;
    };
    Running::build(change, |builder| builder.clock(clock.clone())).await
}

/// Returns the answer to an upgrade request with a valid token.
async fn at_the_door(server: &Running) -> String {
    exchange(server.address, upgrade(&format!("X-Game-Token: {}\r\n", token("bob")))).await
}

async fn is_ready(server: &Running) -> bool {
    get(server.admin, "/readyz").await.0 == 200
}

#[tokio::test]
async fn a_node_whose_clock_is_off_lets_nobody_in_says_so_and_serves_again_when_it_is_right() {
    let etcd = Etcd::start().await;
    let clocks: [Clock; 3] = std::array::from_fn(|_| Clock::new());
    let first = start(&etcd, "first", &clocks[0]).await;
    let second = start(&etcd, "second", &clocks[1]).await;
    clocks[2].set_skew_ms(TWO_DAYS_MS);
    let third = start(&etcd, "third", &clocks[2]).await;
    for server in [&first, &second] {
        eventually("a node whose clock is right to be ready", async || is_ready(server).await).await;
    }
    let says = async |what: &str| get(third.admin, "/readyz").await.1.contains(what);
    // The clocks of both others may be measured one after the other. Until then both are named, too.
    eventually("the node to find out", async || {
        says("s ahead of node \"first\"").await && says("s ahead of node \"second\"").await
    })
    .await;
    let (code, body) = get(third.admin, "/readyz").await;
    assert_eq!(code, 503, "{body}");
    for part in ["s ahead of node \"first\"", "s ahead of node \"second\"", "chrony", "rooms.clock_bound"] {
        assert!(body.contains(part), "no {part:?} in {body}");
    }
    // Two days, with the measurement error of a slow link.
    assert!(body.contains(" 1727") || body.contains(" 1728"), "how far it is off: {body}");
    assert_eq!(metric(third.admin, "skirmish_not_ready{reason=\"clock_off\"}").await, Some(1));
    let answer = at_the_door(&third).await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("Retry-After: ") && answer.contains("NTP"), "{answer}");

    clocks[2].set_skew_ms(0);
    eventually("the node to serve again", async || is_ready(&third).await).await;
    assert_eq!(status(&at_the_door(&third).await), 101);

    // The clock becomes wrong while the node serves: its players are sent to other nodes.
    let player = Player::join(builder(&third.url(), "alice"), "arena").await;
    clocks[2].set_skew_ms(-TWO_DAYS_MS);
    third.connections(0).await;
    let answer = at_the_door(&third).await;
    assert_eq!(status(&answer), 503, "{answer}");
    eventually("the node to say so", async || says("s behind node \"first\"").await).await;
    assert!(is_ready(&first).await && is_ready(&second).await, "the others go on");
    assert_eq!(metric(third.admin, "skirmish_clock_stops_total").await, Some(2));
    drop(player);
    for server in [third, second, first] {
        server.stop().await;
    }
}

#[tokio::test]
async fn of_two_nodes_that_differ_neither_is_ready() {
    let etcd = Etcd::start().await;
    let clocks: [Clock; 2] = std::array::from_fn(|_| Clock::new());
    let first = start(&etcd, "first", &clocks[0]).await;
    let second = start(&etcd, "second", &clocks[1]).await;
    for server in [&first, &second] {
        eventually("a node to be ready", async || is_ready(server).await).await;
    }
    clocks[1].set_skew_ms(-3_000);
    for server in [&first, &second] {
        let off = async || get(server.admin, "/readyz").await.1.contains("the wall clock is off");
        eventually("both to find out", off).await;
        assert_eq!(status(&at_the_door(server).await), 503);
    }
    clocks[1].set_skew_ms(500);
    for server in [&first, &second] {
        eventually("a node to be ready", async || is_ready(server).await).await;
    }
    second.stop().await;
    first.stop().await;
}
