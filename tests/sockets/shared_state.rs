//! A room's replicated state and latest messages, through the client library (row M5).

use skirmish_io::client::{ClientState, Event};
use skirmish_tests::eventually;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::proxy::Proxy;
use skirmish_tests::server::Running;

/// Waits until a player knows another player's property.
async fn knows(who: &Player, whose: &str, name: &str, value: Option<&str>) {
    eventually(&format!("{whose}'s {name} to be {value:?}"), async || {
        let known = who.client.property("arena", whose, name).await.expect("the client plays");
        known.as_deref() == value.map(str::as_bytes)
    })
    .await;
}

async fn counts(who: &Player, counter: &str, value: i64) {
    eventually(&format!("{counter} to be {value}"), async || {
        who.client.counter("arena", counter).await.expect("the client plays") == value
    })
    .await;
}

/// Waits until exactly these players are present for a player; in order of their names.
async fn sees(who: &Player, present: &[&str]) {
    eventually(&format!("{present:?} to be present"), async || {
        let mut seen = who.client.present("arena").await.expect("the client plays");
        seen.sort();
        seen == present
    })
    .await;
}

async fn disconnected(player: &mut Player) {
    let is = |event: &Event| matches!(event, Event::StateChanged { to: ClientState::Disconnected, .. });
    player.until("to be cut off", |event| is(event).then_some(())).await;
}

#[tokio::test]
async fn what_was_changed_while_cut_off_is_merged_on_return() {
    let server = Running::start(|_| {}).await;
    let proxy = Proxy::start(server.address, None).await;
    let mut alice = Player::join(builder(&proxy.url(), "alice"), "arena").await;
    let bob = Player::join(builder(&server.url(), "bob"), "arena").await;
    alice.client.set_property("arena", "hat", Some("red".into())).await.expect("it is hers");
    alice.client.set_property("arena", "cape", Some("long".into())).await.expect("it is hers");
    alice.client.add("arena", "coins", 5).await.expect("it is hers");
    knows(&bob, "alice", "hat", Some("red")).await;
    knows(&bob, "alice", "cape", Some("long")).await;
    counts(&bob, "coins", 5).await;

    proxy.block();
    disconnected(&mut alice).await;
    sees(&bob, &["bob"]).await;
    alice.client.set_property("arena", "hat", Some("blue".into())).await.expect("it is hers");
    alice.client.set_property("arena", "cape", None).await.expect("it is hers");
    alice.client.set_property("arena", "boots", Some("new".into())).await.expect("it is hers");
    alice.client.add("arena", "coins", -2).await.expect("it is hers");
    bob.client.set_property("arena", "hat", Some("green".into())).await.expect("it is his");
    bob.client.add("arena", "coins", 10).await.expect("it is his");
    knows(&alice, "alice", "hat", Some("blue")).await;
    counts(&alice, "coins", 3).await;
    knows(&bob, "alice", "hat", Some("red")).await;
    counts(&bob, "coins", 15).await;

    proxy.unblock();
    for player in [&alice, &bob] {
        knows(player, "alice", "hat", Some("blue")).await;
        knows(player, "alice", "cape", None).await;
        knows(player, "alice", "boots", Some("new")).await;
        knows(player, "bob", "hat", Some("green")).await;
        counts(player, "coins", 13).await;
        sees(player, &["alice", "bob"]).await;
    }
    let resumed = |event: &Event| matches!(event, Event::Session { resumed: true, lost: false, .. });
    alice.has_seen("the session to be resumed", |seen| seen.iter().any(resumed)).await;
    server.audit();
}

#[tokio::test]
async fn the_state_is_there_for_whoever_joins_later() {
    let server = Running::start(|_| {}).await;
    let alice = Player::join(builder(&server.url(), "alice"), "arena").await;
    for number in 0..20 {
        let name = format!("property-{number}");
        alice.client.set_property("arena", &name, Some(name.clone().into())).await.expect("it is hers");
    }
    let bob = Player::join(builder(&server.url(), "bob"), "arena").await;
    for number in 0..20 {
        let name = format!("property-{number}");
        knows(&bob, "alice", &name, Some(&name)).await;
    }
    server.audit();
}

#[tokio::test]
async fn of_latest_messages_the_newest_arrives_also_after_a_cut() {
    let server = Running::start(|_| {}).await;
    let proxy = Proxy::start(server.address, None).await;
    let mut alice = Player::join(builder(&proxy.url(), "alice"), "arena").await;
    let bob = Player::join(builder(&server.url(), "bob"), "arena").await;
    let last_of = |key: u32, last: &'static str| {
        move |event: &Event| match event {
            Event::Latest { key: of, body, .. } if *of == key && body == last => Some(()),
            _ => None,
        }
    };
    for step in ["1", "2", "3"] {
        bob.client.latest("arena", 0, step, "").await.expect("a good key");
        bob.client.latest("arena", 1, step, "").await.expect("a good key");
    }
    // The two keys do not replace each other, and have no common order.
    alice
        .has_seen("the newest of both keys", |seen| {
            [0, 1].iter().all(|key| seen.iter().any(|event| last_of(*key, "3")(event).is_some()))
        })
        .await;
    proxy.block();
    disconnected(&mut alice).await;
    for step in ["4", "5", "6"] {
        bob.client.latest("arena", 0, step, "").await.expect("a good key");
    }
    eventually("the server to have them", async || server.handle.stats().latest == 9).await;
    proxy.unblock();
    alice.until("the newest", last_of(0, "6")).await;

    let versions: Vec<_> = alice
        .seen
        .iter()
        .filter_map(|event| match event {
            Event::Latest { key: 0, version, .. } => Some(*version),
            _ => None,
        })
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "an older one came after a newer one: {versions:?}");
    assert!(!alice.seen.iter().any(|event| last_of(0, "4")(event).is_some()), "it was replaced long ago");
}
