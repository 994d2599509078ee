//! Dead paths, frozen servers, and connections that only seem dead.

use std::time::Duration;

use rustix::process::Signal;
use skirmish_io::client::{Event, Outcome};
use skirmish_tests::eventually;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::Process;
use skirmish_tests::proxy::Proxy;
use skirmish_tests::server::Running;

/// Time in which a client must give up a dead connection: the bound of the default configuration plus the
/// delays of a loaded computer. Far below the minute of the server's own heartbeats.
const SECONDS: Duration = Duration::from_secs(25);

fn is_lost(event: &Event) -> Option<()> {
    matches!(event, Event::StateChanged { to: skirmish_core::client::ClientState::Disconnected, .. })
        .then_some(())
}

/// Waits until the player has given up its connection, which takes seconds.
async fn given_up(player: &mut Player) {
    let lost = player.until("the connection to be given up", is_lost);
    tokio::time::timeout(SECONDS, lost).await.expect("a dead connection is given up within seconds");
}

#[tokio::test]
async fn a_path_that_goes_dead_is_left_within_seconds_by_who_speaks() {
    let server = Running::start(|_| {}).await;
    let proxy = Proxy::start(server.address, None).await;
    let mut alice = Player::join(builder(&proxy.url(), "alice"), "arena").await;
    let before = alice.say("arena", "before").await;
    assert_eq!(alice.outcome(before).await, Outcome::Acknowledged);
    proxy.silence();
    let lost = alice.say("arena", "into the dead path").await;
    given_up(&mut alice).await;
    // The client reconnects, and nothing is lost.
    assert_eq!(alice.outcome(lost).await, Outcome::Acknowledged);
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_path_that_goes_dead_is_left_within_seconds_by_who_is_idle() {
    let server = Running::start(|_| {}).await;
    let proxy = Proxy::start(server.address, None).await;
    let mut alice = Player::join(builder(&proxy.url(), "alice"), "arena").await;
    proxy.silence();
    given_up(&mut alice).await;
    alice.joined("arena").await;
}

#[tokio::test]
async fn a_frozen_server_is_left_within_seconds() {
    let server = Process::start(&[]).await;
    let mut alice = Player::join(builder(&server.url(), "alice"), "arena").await;
    server.signal(Signal::STOP);
    given_up(&mut alice).await;
    server.signal(Signal::CONT);
    alice.joined("arena").await;
}

#[tokio::test]
async fn a_quiet_server_is_not_left() {
    // The server's own heartbeats would be too late for a client that only waits.
    let server = Running::start(|config| {
        config.heartbeat.interval = Duration::from_secs(3600);
        config.rooms.tombstone_horizon = Duration::from_secs(24 * 3600);
    })
    .await;
    let config = skirmish_io::client::ClientConfig {
        ping_interval: Duration::from_millis(50),
        ..skirmish_io::client::ClientConfig::default()
    };
    let mut alice =
        Player::join(builder(&server.url(), "alice").config(config).player("alice"), "arena").await;
    let frames = server.handle.stats().frames_in;
    eventually("many pings", async || server.handle.stats().frames_in >= frames + 40).await;
    let said = alice.say("arena", "still here").await;
    assert_eq!(alice.outcome(said).await, Outcome::Acknowledged);
    assert!(!alice.seen.iter().any(|event| is_lost(event).is_some()));
    assert_eq!(server.handle.stats().accepted, 1);
}

#[tokio::test]
async fn a_client_that_stood_still_reads_before_it_judges() {
    let server = Running::start(|_| {}).await;
    let url = server.url();
    // The client's thread stands still, with unread pongs in the socket.
    let client = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let config = skirmish_io::client::ClientConfig {
                ping_interval: Duration::from_millis(20),
                ping_timeout: Duration::from_millis(200),
                ..skirmish_io::client::ClientConfig::default()
            };
            let alice = Player::join(builder(&url, "alice").config(config).player("alice"), "arena").await;
            let mut alice = alice;
            for round in 0..10 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                std::thread::sleep(Duration::from_secs(1));
                let said = alice.say("arena", &format!("round {round}")).await;
                assert_eq!(alice.outcome(said).await, Outcome::Acknowledged);
            }
            assert!(!alice.seen.iter().any(|event| is_lost(event).is_some()));
        });
    });
    client.await.expect("it does not panic");
    assert_eq!(server.handle.stats().accepted, 1);
}
