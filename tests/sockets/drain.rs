//! SIGTERM: all clients get the rest of their output and the time to come back, and the program ends with
//! success. A second signal ends the program at once.

use rustix::process::Signal;
use skirmish_core::wire::ToClient;
use skirmish_io::client::Event;
use skirmish_proto::v1::{EntryKind, Reason};
use skirmish_tests::eventually;
use skirmish_tests::http::get;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::Process;
use skirmish_tests::socket::Socket;
use tokio::net::TcpStream;

/// Settings with time limits that no test reaches.
const PATIENT: [&str; 5] = [
    "connections.linger=\"1h\"",
    "drain.timeout=\"1h\"",
    "drain.retry_after=\"1234ms\"",
    "heartbeat.interval=\"1h\"",
    "rooms.tombstone_horizon=\"24h\"",
];

async fn draining(server: &Process) {
    eventually("the server to drain", async || get(server.admin, "/readyz").await.0 == 503).await;
}

#[tokio::test]
async fn a_drain_delivers_what_is_owed_and_ends_well() {
    const OWED: u64 = 100;
    let mut server = Process::start(&PATIENT).await;
    assert_eq!(get(server.admin, "/readyz").await.0, 200);
    let mut owed = Socket::open(server.address, "owed").await;
    owed.join("arena").await;
    let mut talker = Socket::open(server.address, "talker").await;
    talker.join("arena").await;
    for client_seq in 1..=OWED {
        talker.say("arena", client_seq, format!("message {client_seq}")).await;
    }
    for client_seq in 1..=OWED {
        assert_eq!(talker.said().await.client_seq, client_seq);
    }

    // The slow reader has not read any of its messages yet, and keeps the server from ending.
    server.signal(Signal::TERM);
    draining(&server).await;
    assert_eq!(get(server.admin, "/healthz").await.0, 200, "it drains, but it is well");
    assert!(TcpStream::connect(server.address).await.is_err(), "it takes no more connections");
    assert_eq!(talker.closed(Reason::Draining, 1001).await.retry_after_ms, 1234);

    let mut heard = 0;
    while heard < OWED {
        match owed.next().await {
            ToClient::Entry(entry) if entry.kind() == EntryKind::Say => {
                heard += 1;
                assert_eq!(entry.client_seq, heard);
            }
            ToClient::Goodbye(goodbye) => panic!("{} entries are still owed: {goodbye:?}", OWED - heard),
            _ => {}
        }
    }
    assert_eq!(owed.closed(Reason::Draining, 1001).await.retry_after_ms, 1234);
    drop(owed);
    assert_eq!(server.exit().await, Some(0));
}

#[tokio::test]
async fn a_client_is_told_of_a_drain_and_comes_back_to_the_next_server() {
    let mut server = Process::start(&["drain.retry_after=\"10ms\""]).await;
    let mut alice = Player::join(builder(&server.url(), "alice"), "arena").await;
    server.signal(Signal::INT);
    let told = |event: &Event| match event {
        Event::Closed { reason, .. } => Some(*reason),
        _ => None,
    };
    assert_eq!(alice.until("to be told", told).await, Reason::Draining);
    assert_eq!(server.exit().await, Some(0));
    let next = Process::start_at(server.address, &[]).await;
    alice.joined("arena").await;
    drop(next);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut server = Process::start(&PATIENT).await;
    let mut idle = Socket::open(server.address, "idle").await;
    idle.join("arena").await;
    server.signal(Signal::TERM);
    draining(&server).await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await, Some(1));
    idle.ended().await;
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_cut_short() {
    let mut settings = PATIENT;
    settings[1] = "drain.timeout=\"100ms\"";
    let mut server = Process::start(&settings).await;
    let mut idle = Socket::open(server.address, "idle").await;
    idle.join("arena").await;
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await, Some(0));
}
