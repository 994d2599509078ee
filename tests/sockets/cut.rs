//! Cuts of the connection at every message boundary, and within every message: in the end every message is
//! delivered once, in order (G2, G3, G4, G5).

use std::time::Duration;

use skirmish_io::client::{Event, Outcome};
use skirmish_tests::history::{assert_outcomes, complaints};
use skirmish_tests::player::{Player, builder, heard};
use skirmish_tests::proxy::{Edge, Plan, Proxy, Way};
use skirmish_tests::server::Running;
use skirmish_tests::{eventually, within};

/// Minimum number of messages from the client in an exchange: `Hello`, `Join`, three messages and a property.
const LEAST_UP: usize = 6;
/// Minimum number of messages to the client: `Welcome`, `Joined`, six entries.
const LEAST_DOWN: usize = 8;

#[tokio::test]
async fn a_cut_at_every_message_from_the_client_loses_nothing() {
    cut_everywhere(Way::Up, LEAST_UP).await;
}

#[tokio::test]
async fn a_cut_at_every_message_from_the_server_loses_nothing() {
    cut_everywhere(Way::Down, LEAST_DOWN).await;
}

async fn cut_everywhere(way: Way, least: usize) {
    let server = Running::start(|_| {}).await;
    let whole = Proxy::start(server.address, None).await;
    exchange(&server, &whole, "whole").await;
    let length = whole.messages(way);
    assert!(length >= least, "an exchange has only {length} messages {way:?}");

    for at in 1..=length + 1 {
        for edge in [Edge::Before, Edge::Within, Edge::After] {
            let plan = Plan { way, at, edge, times: 1 };
            let proxy = Proxy::start(server.address, Some(plan)).await;
            exchange(&server, &proxy, &format!("{way:?}-{at}-{edge:?}")).await;
            // Beyond the minimum, the number of messages varies from run to run.
            assert!(proxy.cuts() == 1 || at > least, "{plan:?}: nothing was cut");
        }
    }
    server.audit();
}

#[tokio::test]
async fn connections_that_are_cut_again_and_again_lose_nothing() {
    let server = Running::start(|_| {}).await;
    for (way, at) in [(Way::Up, 1), (Way::Up, 2), (Way::Down, 1), (Way::Down, 2), (Way::Down, 3)] {
        for edge in [Edge::Before, Edge::Within, Edge::After] {
            let plan = Plan { way, at, edge, times: 5 };
            let proxy = Proxy::start(server.address, Some(plan)).await;
            exchange(&server, &proxy, &format!("again-{way:?}-{at}-{edge:?}")).await;
            assert_eq!(proxy.cuts(), 5, "{plan:?}");
        }
    }
    server.audit();
}

/// Alice, connected through the proxy, and Bob, connected directly, talk in a room of their own. All messages
/// and properties must arrive.
async fn exchange(server: &Running, proxy: &Proxy, room: &str) {
    let what = format!("exchange {room}");
    within(&what, async {
        let bob_name = format!("bob-{room}");
        let alice_name = format!("alice-{room}");
        let mut bob = Player::join(builder(&server.url(), &bob_name), room).await;
        let mut alice = Player::start(builder(&proxy.url(), &alice_name));
        alice.client.join(room, 0).await.expect("a good name");
        let mut by_alice = vec![alice.say(room, "a1").await, alice.say(room, "a2").await];
        alice.joined(room).await;
        let by_bob = vec![bob.say(room, "b1").await, bob.say(room, "b2").await, bob.say(room, "b3").await];
        by_alice.push(alice.say(room, "a3").await);
        alice.client.set_property(room, "hat", Some("red".into())).await.expect("it is hers");

        alice.hears(&["b1", "b2", "b3", "a1", "a2", "a3"]).await;
        bob.hears(&["a1", "a2", "a3", "b1", "b2", "b3"]).await;
        for message in &by_alice {
            alice.outcome(*message).await;
        }
        for message in &by_bob {
            bob.outcome(*message).await;
        }
        eventually("the property", async || {
            let hat = bob.client.property(room, &alice_name, "hat").await.expect("bob plays");
            hat.as_deref() == Some(b"red")
        })
        .await;

        let (alice, bob) = (alice.leave().await, bob.leave().await);
        for (name, seen, own, other) in
            [("alice", &alice, &by_alice, ["b1", "b2", "b3"]), ("bob", &bob, &by_bob, ["a1", "a2", "a3"])]
        {
            assert_eq!(complaints(seen), Vec::<String>::new(), "{room}: {name}: {seen:#?}");
            assert_outcomes(seen, own, Outcome::Acknowledged);
            let heard: Vec<_> = heard(seen).filter(|body| other.contains(body)).collect();
            assert_eq!(heard, other, "{room}: what {name} heard of the other");
            let gap = seen.iter().find(|e| matches!(e, Event::Snapshot { missing: Some(_), .. }));
            assert_eq!(gap, None, "{room}: {name} missed something within the window");
        }
        let orders: Vec<Vec<_>> = [&alice, &bob].map(|seen| heard(seen).collect()).into();
        assert_eq!(orders[0], orders[1], "{room}: two orders");
    })
    .await;
}

#[tokio::test]
async fn a_member_learns_who_is_there_also_if_it_is_cut_before_it_is_told() {
    let server = Running::start(|_| {}).await;
    let _bob = Player::join(builder(&server.url(), "bob"), "arena").await;
    for edge in [Edge::Before, Edge::Within, Edge::After] {
        // The `Welcome`, the `Joined`, and the snapshot with the members.
        for at in 1..=3 {
            let proxy = Proxy::start(server.address, Some(Plan { way: Way::Down, at, edge, times: 1 })).await;
            let mut alice = Player::start(builder(&proxy.url(), "alice"));
            alice.client.join("arena", 0).await.expect("a good name");
            // Her own message comes back after everything that the server owes her.
            let message = alice.say("arena", "who is there?").await;
            assert_eq!(alice.outcome(message).await, Outcome::Acknowledged);
            alice.hears(&["who is there?"]).await;
            assert_eq!(proxy.cuts(), 1);
            let told = alice.seen.iter().any(|event| match event {
                Event::Snapshot { members, .. } => members.iter().any(|member| member.player == "bob"),
                _ => false,
            });
            assert!(told, "cut {edge:?} message {at}: {:#?}", alice.seen);
            alice.leave().await;
        }
    }
}

#[tokio::test]
async fn a_session_outlives_its_connection_no_longer_than_its_time() {
    let server = Running::start(|config| config.sessions.ttl = Duration::from_millis(50)).await;
    let proxy = Proxy::start(server.address, None).await;
    let mut alice = Player::join(builder(&proxy.url(), "alice"), "arena").await;
    proxy.block();
    eventually("the session to expire", async || server.handle.stats().expiries == 1).await;
    assert_eq!(server.handle.stats().rooms, 0);
    proxy.unblock();
    let told = |event: &Event| match event {
        Event::Session { lost, resumed, .. } => Some((*lost, *resumed)),
        _ => None,
    };
    assert_eq!(alice.until("to be told", told).await, (true, false));
    alice.joined("arena").await;
    server.audit();
}
