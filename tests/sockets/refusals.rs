//! Refusals at the upgrade (rows W1, H2), with their answers.

use skirmish_io::config::{Auth, Config};
use skirmish_io::token::Keys;
use skirmish_tests::http::{UPGRADE, exchange, metric, status, upgrade};
use skirmish_tests::server::Running;
use skirmish_tests::socket::Socket;
use skirmish_tests::{SECRET, keys, signed, token};
use tokio::net::TcpStream;

fn with_origin(config: &mut Config) {
    config.auth.origins = vec!["https://game.example".to_owned()];
}

/// Returns the token in the header for programs, and in the header for browsers.
fn both_ways(token: &str) -> [String; 2] {
    [format!("X-Game-Token: {token}\r\n"), format!("Sec-WebSocket-Protocol: skirmish.v1, token.{token}\r\n")]
}

#[tokio::test]
async fn a_good_token_is_taken_in_both_ways() {
    let server = Running::start(|_| {}).await;
    let [header, protocol] = both_ways(&token("alice"));
    let answer = exchange(server.address, upgrade(&header)).await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert!(!answer.contains("Sec-WebSocket-Protocol"), "{answer}");
    let answer = exchange(server.address, upgrade(&protocol)).await;
    assert_eq!(status(&answer), 101, "{answer}");
    assert!(answer.contains("Sec-WebSocket-Protocol: skirmish.v1\r\n"), "{answer}");
    assert!(!answer.contains(&token("alice")), "the token is echoed: {answer}");
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let server = Running::start(with_origin).await;
    let [header, protocol] = both_ways(&token("alice"));
    for token in [&header, &protocol] {
        for origin in ["https://evil.example", "http://game.example", "https://game.example.evil", "null"] {
            let answer = exchange(server.address, upgrade(&format!("Origin: {origin}\r\n{token}"))).await;
            assert_eq!(status(&answer), 403, "{origin}: {answer}");
        }
        let answer =
            exchange(server.address, upgrade(&format!("Origin: https://game.example\r\n{token}"))).await;
        assert_eq!(status(&answer), 101, "{answer}");
    }
    assert_eq!(metric(server.admin, "skirmish_upgrades_refused_total{status=\"403\"}").await, Some(8));
}

#[tokio::test]
async fn origins_may_be_patterns_and_the_head_has_a_limit_of_its_own() {
    let server = Running::start(|config| {
        let origins = ["https://*.game.example", "http://localhost:*", "https://b.example:443", "null"];
        config.auth.origins = origins.map(str::to_owned).to_vec();
        config.listen.head_bytes = 2_000;
    })
    .await;
    let token = format!("X-Game-Token: {}\r\n", token("alice"));
    for (origin, expected) in [
        ("https://eu.game.example", 101),
        ("https://game.example", 403),
        ("http://eu.game.example", 403),
        ("http://localhost:5173", 101),
        ("https://b.example", 101),
        ("null", 101),
        ("file://", 403),
    ] {
        let answer = exchange(server.address, upgrade(&format!("Origin: {origin}\r\n{token}"))).await;
        assert_eq!(status(&answer), expected, "{origin}: {answer}");
    }
    for (padding, expected) in [(900, 101), (2_000, 431)] {
        let padded = upgrade(&format!("{token}X-Padding: {}\r\n", "a".repeat(padding)));
        assert_eq!(status(&exchange(server.address, padded).await), expected);
    }
}

#[tokio::test]
async fn no_origin_is_allowed_unless_it_is_listed() {
    let server = Running::start(|_| {}).await;
    let request = upgrade(&format!("Origin: https://game.example\r\nX-Game-Token: {}\r\n", token("alice")));
    assert_eq!(status(&exchange(server.address, request).await), 403);
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_and_not_echoed() {
    let server = Running::start(|_| {}).await;
    let good = token("alice");
    let (claims, signature) = good.rsplit_once('.').expect("a token has parts");
    let other_secret = Keys::from_secret("test", &[9; 32]).expect("a long secret");
    let audience = Auth { audience: "another game".to_owned(), ..Auth::default() };
    let audience = Keys::load(&audience).and_then(|keys| keys.with_secret("test", SECRET.as_bytes()));
    let unknown_key = Keys::from_secret("unknown", SECRET.as_bytes()).expect("a long secret");
    // {"alg":"none","typ":"JWT"}
    let unsigned = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.", claims.split('.').nth(1).unwrap_or(""));
    let bad = [
        ("expired", signed(&keys(), "alice", 2 * 24 * 3600)),
        ("forged", signed(&other_secret, "alice", 0)),
        ("signed with a key of another name", signed(&unknown_key, "alice", 0)),
        ("for another audience", signed(&audience.expect("a long secret"), "alice", 0)),
        ("unsigned", unsigned),
        ("without its signature", claims.to_owned()),
        ("with half of its signature", format!("{claims}.{}", &signature[..signature.len() / 2])),
        ("garbage", "complete-and-utter-garbage".to_owned()),
        ("too long", "a".repeat(5_000)),
    ];
    for (what, token) in &bad {
        for header in both_ways(token) {
            let answer = exchange(server.address, upgrade(&header)).await;
            assert_eq!(status(&answer), 401, "{what}: {answer}");
            let echoed = token.split('.').filter(|part| part.len() > 8).any(|part| answer.contains(part));
            assert!(!echoed, "{what}: echoed in {answer}");
            assert!(answer.ends_with('\n') && answer.contains("\r\nConnection: close\r\n"), "{answer}");
        }
    }
    for header in ["", "X-Game-Token:\r\n", "Sec-WebSocket-Protocol: skirmish.v1\r\n"] {
        let answer = exchange(server.address, upgrade(header)).await;
        assert_eq!(status(&answer), 401, "{header}: {answer}");
    }
    // The server still accepts good tokens.
    Socket::open(server.address, "alice").await;
    server.audit();
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_refused() {
    let server = Running::start(|_| {}).await;
    let token = format!("X-Game-Token: {}\r\n", token("alice"));
    let good = upgrade(&token);
    let cases = [
        (404, good.replace("GET / ", "GET /elsewhere ")),
        (404, good.replace("GET / ", "GET /ws/ ")),
        (405, good.replace("GET / ", "POST / ")),
        (426, good.replace("HTTP/1.1", "HTTP/1.0")),
        (426, good.replace("Version: 13", "Version: 8")),
        (426, good.replace("Upgrade: websocket\r\n", "")),
        (426, good.replace("Connection: Upgrade\r\n", "")),
        (400, good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short")),
        (400, upgrade(&format!("{token}Content-Length: 5\r\n"))),
        (400, upgrade(&format!("{token}{token}"))),
        (400, upgrade(&format!("{token}Sec-WebSocket-Protocol: other\r\n"))),
        (400, "\u{16}\u{3}\u{1} this is not HTTP\r\n\r\n".to_owned()),
        (431, upgrade(&format!("{token}X-Padding: {}\r\n", "a".repeat(17_000)))),
        (431, upgrade(&"X-Many: a\r\n".repeat(100))),
    ];
    for (expected, request) in cases {
        let answer = exchange(server.address, &request).await;
        assert_eq!(status(&answer), expected, "{request}\n{answer}");
    }
    assert_eq!(status(&exchange(server.address, good).await), 101);
    server.connections(0).await;
    server.audit();
}

#[tokio::test]
async fn more_connections_from_one_address_than_its_cap_are_refused() {
    let server = Running::start(|config| config.connections.per_address = 2).await;
    let first = Socket::open(server.address, "alice").await;
    let _second = Socket::open(server.address, "bob").await;
    let request = format!("GET / HTTP/1.1\r\n{UPGRADE}X-Game-Token: {}\r\n\r\n", token("carol"));
    let answer = exchange(server.address, &request).await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    assert_eq!(server.handle.stats().refused, 1);
    drop(first);
    server.connections(1).await;
    assert_eq!(status(&exchange(server.address, request).await), 101);
}

#[tokio::test]
async fn more_strangers_than_their_cap_are_refused() {
    let server = Running::start(|config| config.connections.unauthenticated = 2).await;
    let strangers = [
        TcpStream::connect(server.address).await.expect("the server listens"),
        TcpStream::connect(server.address).await.expect("the server listens"),
    ];
    server.connections(2).await;
    let request = upgrade(&format!("X-Game-Token: {}\r\n", token("alice")));
    let answer = exchange(server.address, &request).await;
    assert_eq!(status(&answer), 503, "{answer}");
    drop(strangers);
    server.connections(0).await;
    // A client that has sent `Hello` does not count as a stranger any more.
    let mut members = Vec::new();
    for player in ["alice", "bob", "carol"] {
        members.push(Socket::open(server.address, player).await);
    }
    assert_eq!(server.handle.stats().connections, 3);
    server.audit();
}
