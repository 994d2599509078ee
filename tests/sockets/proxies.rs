//! Addresses of clients: behind trusted proxies, and of strangers.

use std::net::Ipv4Addr;
use std::time::Duration;

use skirmish_io::config::{Config, ForwardedHeader, ProxyProtocol};
use skirmish_tests::eventually;
use skirmish_tests::http::{connect_from, exchange, exchange_over, metric, status, upgrade};
use skirmish_tests::server::Running;
use skirmish_tests::socket::Socket;
use skirmish_tests::token;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The trusted proxy, and another address.
const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn behind(protocol: ProxyProtocol, header: ForwardedHeader) -> impl FnOnce(&mut Config) {
    move |config| {
        config.listen.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
        config.listen.proxy_protocol = protocol;
        config.listen.forwarded = header;
        config.connections.per_address = 2;
    }
}

fn request(player: &str, headers: &str) -> String {
    upgrade(&format!("{headers}X-Game-Token: {}\r\n", token(player)))
}

/// Returns a header of version 2 with an extension after the addresses.
fn version_2(command: u8, source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, 0x11, 0, 17]);
    header.extend(source);
    header.extend([127, 0, 0, 1, 0x12, 0x67, 1, 187]);
    header.extend([0x04, 0, 2, 7, 7]);
    header
}

fn version_1(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 127.0.0.1 4711 443\r\n").into_bytes()
}

/// Returns an upgraded connection.
async fn upgraded(server: &Running, from: Ipv4Addr, request: &[u8]) -> TcpStream {
    let mut stream = connect_from(from, server.address).await;
    stream.write_all(request).await.expect("the server reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101");
    stream
}

#[tokio::test]
async fn a_whole_game_comes_through_one_proxy_and_each_client_has_its_own_cap() {
    let server = Running::start(behind(ProxyProtocol::Require, ForwardedHeader::Off)).await;
    let mut players = Vec::new();
    for number in 0..20_u8 {
        let header = match number % 2 {
            0 => version_1(&format!("192.0.2.{number}")),
            _ => version_2(0x21, [192, 0, 2, number]),
        };
        for twin in 0..2 {
            let request = request(&format!("player-{number}-{twin}"), "");
            players.push(upgraded(&server, PROXY, &[&header[..], request.as_bytes()].concat()).await);
        }
        let third = [&header[..], request("third", "").as_bytes()].concat();
        let answer = exchange(server.address, &third).await;
        assert_eq!(status(&answer), 503, "{answer}");
        assert!(answer.contains("too many connections from this address"), "{answer}");
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    }
    server.connections(40).await;
    server.audit();
    let refused = "skirmish_refusals_total{reason=\"address_full\"}";
    assert_eq!(metric(server.admin, refused).await, Some(20));
}

#[tokio::test]
async fn a_header_of_a_proxy_may_come_in_pieces_and_is_bounded() {
    let server = Running::start(behind(ProxyProtocol::Accept, ForwardedHeader::Off)).await;
    for header in [version_1("192.0.2.1"), version_2(0x21, [192, 0, 2, 2])] {
        let mut stream = connect_from(PROXY, server.address).await;
        stream.set_nodelay(true).expect("a socket");
        for byte in [&header[..], request("alice", "").as_bytes()].concat() {
            stream.write_all(&[byte]).await.expect("the server reads");
        }
        let answer = exchange_over(stream, "").await;
        assert_eq!(status(&answer), 101, "{answer}");
    }
    let mut long = version_2(0x21, [192, 0, 2, 3]);
    long[14..16].copy_from_slice(&[0xff, 0xff]);
    long.resize(16 + 0xffff, 0);
    let endless = format!("PROXY TCP4 {}", "1".repeat(300)).into_bytes();
    for (what, header) in [
        ("too long", long),
        ("a line without an end", endless),
        ("no addresses", b"PROXY TCP4\r\n".to_vec()),
        ("another command", version_2(0x2f, [192, 0, 2, 3])),
    ] {
        let answer = exchange(server.address, [&header[..], request("alice", "").as_bytes()].concat()).await;
        assert_eq!(status(&answer), 400, "{what}: {answer}");
        assert!(answer.contains("PROXY protocol"), "{what}: {answer}");
    }
    // A connection of the proxy itself, and clients with an address that the proxy does not know.
    for header in [version_2(0x20, [192, 0, 2, 4]), b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
        let answer = exchange(server.address, [&header[..], request("bob", "").as_bytes()].concat()).await;
        assert_eq!(status(&answer), 101, "{answer}");
    }
    server.connections(0).await;
    server.audit();
}

#[tokio::test]
async fn a_header_that_never_comes_whole_costs_a_place_for_the_handshake_and_no_longer() {
    let server = Running::start(|config| {
        behind(ProxyProtocol::Accept, ForwardedHeader::Off)(config);
        config.connections.handshake_timeout = Duration::from_millis(300);
    })
    .await;
    let mut stalled = Vec::new();
    for part in [&b""[..], b"P", b"PROXY TCP4 192.0.2.1", b"\r\n\r\n\0\r\nQUIT"] {
        let mut stream = connect_from(PROXY, server.address).await;
        stream.write_all(part).await.expect("the server reads");
        stalled.push(stream);
    }
    server.connections(0).await;
    for mut stream in stalled {
        let ended = skirmish_tests::within("the end", stream.read(&mut [0; 64])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}

#[tokio::test]
async fn what_strangers_say_of_themselves_is_not_believed() {
    let server = Running::start(behind(ProxyProtocol::Accept, ForwardedHeader::XForwardedFor)).await;
    let header = [&version_1("192.0.2.1")[..], request("eve", "").as_bytes()].concat();
    let answer = exchange_over(connect_from(STRANGER, server.address).await, &header).await;
    assert_eq!(status(&answer), 400, "a stranger's header is no request: {answer}");
    let mut held = Vec::new();
    for number in 0..2 {
        let request = request(&format!("eve-{number}"), &format!("X-Forwarded-For: 192.0.2.{number}\r\n"));
        held.push(upgraded(&server, STRANGER, request.as_bytes()).await);
    }
    let third = request("eve-3", "X-Forwarded-For: 192.0.2.3\r\n");
    let answer = exchange_over(connect_from(STRANGER, server.address).await, &third).await;
    assert_eq!(status(&answer), 503, "the stranger's own address counts: {answer}");

    let server = Running::start(behind(ProxyProtocol::Require, ForwardedHeader::Off)).await;
    for from in [STRANGER, PROXY] {
        let answer = exchange_over(connect_from(from, server.address).await, request("eve", "")).await;
        assert_eq!(status(&answer), if from == PROXY { 400 } else { 403 }, "{answer}");
    }
}

#[tokio::test]
async fn a_header_of_the_request_names_the_client() {
    for (header, name, prefix) in [
        (ForwardedHeader::XForwardedFor, "X-Forwarded-For", ""),
        (ForwardedHeader::Forwarded, "Forwarded", "proto=https;for="),
    ] {
        let server = Running::start(behind(ProxyProtocol::Off, header)).await;
        let mut held = Vec::new();
        for number in 0..10 {
            for twin in 0..2 {
                let headers = format!("{name}: {prefix}192.0.2.{number}\r\n");
                let request = request(&format!("player-{number}-{twin}"), &headers);
                held.push(upgraded(&server, PROXY, request.as_bytes()).await);
            }
        }
        // Earlier addresses in the header come from the client itself.
        let lie = request("liar", &format!("{name}: {prefix}198.51.100.1, {prefix}192.0.2.3\r\n"));
        let answer = exchange(server.address, &lie).await;
        assert_eq!(status(&answer), 503, "{lie}\n{answer}");
        // Without a header, or with garbage, the proxy's own address counts.
        for headers in [String::new(), format!("{name}: {prefix}garbage\r\n")] {
            held.push(upgraded(&server, PROXY, request("somebody", &headers).as_bytes()).await);
        }
        assert_eq!(status(&exchange(server.address, request("third", "")).await), 503);
        server.connections(22).await;
        server.audit();
    }
}

#[tokio::test]
async fn silent_sockets_of_five_addresses_keep_nobody_out() {
    let server = Running::start(|config| config.connections.unauthenticated = 100).await;
    let mut silent = Vec::new();
    for number in 0..5 * 40 {
        silent.push(connect_from(Ipv4Addr::new(127, 0, 0, 2 + number % 5), server.address).await);
    }
    eventually("all places to be taken", async || server.handle.stats().unauthenticated == 100).await;
    let mut players = Vec::new();
    for player in ["alice", "bob", "carol"] {
        players.push(Socket::open(server.address, player).await);
    }
    for last in 20..40 {
        let answer = exchange_over(
            connect_from(Ipv4Addr::new(127, 0, 0, last), server.address).await,
            request("dan", ""),
        )
        .await;
        assert_eq!(status(&answer), 101, "{answer}");
    }
    assert!(metric(server.admin, "skirmish_displaced_total").await.expect("a figure") > 0);
    server.audit();
}

#[tokio::test]
async fn a_refusal_is_answered_and_not_reset() {
    let server = Running::start(|config| config.connections.per_address = 1).await;
    let _player = Socket::open(server.address, "alice").await;
    // More connections than the server keeps open for reading the refusal, half of them with a request in
    // flight.
    let mut comers = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        if number % 2 == 0 {
            stream.write_all(request("bob", "").as_bytes()).await.expect("a new connection takes a little");
        }
        comers.push(stream);
    }
    for stream in comers {
        let answer = exchange_over(stream, "").await;
        assert_eq!(status(&answer), 503, "{answer}");
        assert!(answer.contains("\r\nRetry-After: 1\r\n"), "{answer}");
        assert!(answer.ends_with("too many connections from this address\n"), "{answer}");
    }
    assert_eq!(server.handle.stats().refused, 200);
}
