//! Connections that are late with the upgrade or with `Hello` (rows H1, H2).

use std::time::Duration;

use skirmish_io::config::Config;
use skirmish_proto::v1::Reason;
use skirmish_tests::http::upgrade;
use skirmish_tests::server::Running;
use skirmish_tests::socket::Socket;
use skirmish_tests::{token, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sets a short time limit for the handshake.
fn short(config: &mut Config) {
    config.connections.handshake_timeout = Duration::from_millis(50);
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_dropped() {
    let server = Running::start(short).await;
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    let mut answer = Vec::new();
    // The connection ends, or is reset.
    let _ = within("the end of a silent connection", stream.read_to_end(&mut answer)).await;
    assert_eq!(answer, b"");
    server.connections(0).await;
    assert_eq!(server.handle.stats().handshake_timeouts, 1);
}

#[tokio::test]
async fn a_request_that_drips_in_is_dropped() {
    let server = Running::start(short).await;
    let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
    let request = upgrade(&format!("X-Game-Token: {}\r\n", token("alice")));
    // Sends byte after byte without end. Each byte shows that the peer lives, but none may extend the
    // deadline.
    let endless = request.trim_end().bytes().chain(std::iter::repeat(b'a'));
    let mut sent = 0;
    let dripping = async {
        for byte in endless {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            sent += 1;
        }
    };
    within("the server to drop the connection", dripping).await;
    assert!(sent > 0);
    server.connections(0).await;
    // The deadline ended the connection, and not the length of the request, unless the deadline had passed at
    // once.
    assert_eq!(server.handle.stats().handshake_timeouts, 1);
}

#[tokio::test]
async fn a_connection_that_says_no_hello_is_told_and_closed() {
    // Longer, since the upgrade must succeed within this time.
    let server = Running::start(|config| config.connections.handshake_timeout = Duration::from_secs(2)).await;
    let mut socket = Socket::connect(server.address, "alice").await;
    socket.closed(Reason::HandshakeTimeout, 1008).await;
    server.connections(0).await;
    let stats = server.handle.stats();
    assert_eq!((stats.handshake_timeouts, stats.sessions), (1, 0));
    server.audit();
}

#[tokio::test]
async fn a_session_has_no_deadline_of_that_kind() {
    let server = Running::start(|config| config.connections.handshake_timeout = Duration::from_secs(2)).await;
    let mut member = Socket::open(server.address, "alice").await;
    member.join("arena").await;
    // When another client has missed the deadline, the member would have missed it too.
    Socket::connect(server.address, "bob").await.closed(Reason::HandshakeTimeout, 1008).await;
    member.say("arena", 1, "still here").await;
    assert_eq!(member.said().await.body, "still here");
}

#[tokio::test]
async fn a_connection_that_answers_no_heartbeat_is_closed_and_its_session_kept() {
    let fast = |config: &mut Config| {
        config.heartbeat.interval = Duration::from_millis(50);
        config.connections.linger = Duration::from_millis(100);
    };
    let server = Running::start(fast).await;
    let mut silent = Socket::open(server.address, "alice").await;
    silent.join("arena").await;
    server.connections(0).await;
    let stats = server.handle.stats();
    assert_eq!((stats.heartbeat_timeouts, stats.sessions, stats.detached), (1, 1, 1));
    server.audit();
}
