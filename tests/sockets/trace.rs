//! Trace context: from the upgrade to every line of the log, and from frame to frame
//! (row T1).

use serde_json::Value;
use skirmish_core::wire::ToClient;
use skirmish_proto::v1::{EntryKind, Kind, Latest, Metadata, Reason};
use skirmish_tests::http::{exchange, upgrade};
use skirmish_tests::process::Process;
use skirmish_tests::server::Running;
use skirmish_tests::socket::{Socket, say};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Returns the log lines of the connection that opened a player's session.
fn lines_of<'a>(log: &'a [Value], player: &str) -> Vec<&'a Value> {
    let opened = log.iter().find(|line| line["message"] == "session opened" && line["player"] == player);
    let conn = &opened.expect("the session is in the log")["conn"];
    log.iter().filter(|line| line["conn"] == *conn).collect()
}

/// Returns true for the last line about a connection that the node has forgotten.
fn is_of_the_end(line: &Value) -> bool {
    line["message"] == "connection lost, session kept"
}

/// Alice connects with a trace, and breaks the protocol. Returns the log.
async fn misbehave() -> Vec<Value> {
    let mut server = Process::start(&[]).await;
    let traceparent = format!("00-{TRACE_ID}-00f067aa0ba902b7-01");
    let mut alice = Socket::connect_with(server.address, "alice", &[("traceparent", &traceparent)]).await;
    alice.hello(None).await;
    // Another player, with log lines that must not be confused with hers.
    let mut bob = Socket::open(server.address, "bob").await;
    bob.join("arena").await;
    alice.send_text("not the protocol").await;
    alice.closed(Reason::ProtocolError, 1003).await;
    server.logged("the end of the connection", |line| is_of_the_end(line) && line["player"] == "alice").await;
    server.log()
}

#[tokio::test]
async fn every_line_of_an_open_connection_has_the_trace_of_its_upgrade() {
    let log = misbehave().await;
    let hers = lines_of(&log, "alice");
    for line in hers.iter().filter(|line| !is_of_the_end(line)) {
        assert_eq!(line["trace_id"], TRACE_ID, "{line}");
        assert_eq!(line["player"], "alice", "{line}");
    }
    let said: Vec<_> = hers.iter().filter_map(|line| line["message"].as_str()).collect();
    for message in ["upgraded", "session opened", "peer broke the protocol or its limits"] {
        assert!(said.contains(&message), "`{message}` is not in {said:?}");
    }
    let others: Vec<_> = log.iter().filter(|line| line["player"] == "bob").collect();
    assert!(!others.is_empty());
    for line in others {
        let trace_id = line["trace_id"].as_str().unwrap_or_default();
        assert!(trace_id.len() == 32 && trace_id != TRACE_ID, "{line}");
    }
    let audited = |line: &&Value| line["target"] == "audit" && line["trace_id"] == TRACE_ID;
    assert_eq!(log.iter().filter(audited).count(), 1);
}

#[tokio::test]
async fn the_last_line_of_a_connection_has_its_trace_too() {
    let log = misbehave().await;
    let hers = lines_of(&log, "alice");
    let last: Vec<_> = hers.iter().filter(|line| is_of_the_end(line)).collect();
    assert_eq!(last.len(), 1);
    assert_eq!(last[0]["trace_id"], TRACE_ID, "{}", last[0]);
}

#[tokio::test]
async fn a_token_is_in_no_line_of_the_log() {
    let mut server = Process::start(&["log.level=\"trace\""]).await;
    let mut alice = Socket::open(server.address, "alice").await;
    alice.send_text("not the protocol").await;
    alice.closed(Reason::ProtocolError, 1003).await;
    let lost = |line: &Value| line["message"] == "connection lost, session kept";
    server.logged("the end of the connection", lost).await;
    let token = skirmish_tests::token("alice");
    let signature = token.rsplit('.').next().expect("a token has parts");
    for line in server.log() {
        let line = line.to_string();
        assert!(!line.contains("eyJ") && !line.contains(signature), "{line}");
        assert!(!line.contains(skirmish_tests::SECRET), "{line}");
    }
}

#[tokio::test]
async fn the_trace_of_a_message_goes_on_to_the_other_members() {
    let server = Running::start(|_| {}).await;
    let mut alice = Socket::open(server.address, "alice").await;
    alice.join("arena").await;
    let mut bob = Socket::open(server.address, "bob").await;
    bob.join("arena").await;
    let traced = Metadata {
        trace_id: vec![0xab; 16].into(),
        span_id: vec![0xcd; 8].into(),
        trace_flags: 1,
        ..Metadata::default()
    };
    alice.send_with(Kind::Say, &traced, &say("arena", 1, "traced")).await;
    alice.send(Kind::Say, &say("arena", 2, "not traced")).await;
    let latest = Latest { room: "arena".to_owned(), body: "here".into(), ..Latest::default() };
    alice.send_with(Kind::Latest, &traced, &latest).await;

    let mut seen = Vec::new();
    while seen.len() < 3 {
        match bob.next_with_metadata().await {
            (metadata, ToClient::Entry(entry)) if entry.kind() == EntryKind::Say => {
                seen.push((entry.body, metadata));
            }
            (metadata, ToClient::Latest(latest)) => seen.push((latest.body, metadata)),
            _ => {}
        }
    }
    for (body, metadata) in seen {
        let expected = if body == "not traced" { Metadata::default() } else { traced.clone() };
        assert_eq!(metadata, expected, "{body:?}");
    }
}

#[tokio::test]
async fn an_origin_that_is_refused_is_named_in_bounds_and_escaped() {
    let mut server = Process::start(&[]).await;
    let long = format!("https://{}.example", "x".repeat(500));
    for (origin, shown) in [("https://evil.example", "https://evil.example"), (long.as_str(), &long[..128])] {
        let answer = exchange(server.address, upgrade(&format!("Origin: {origin}\r\n"))).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let line = server.logged("the refusal", |line| line["origin"] == shown).await;
        assert_eq!((line["target"].as_str(), line["status"].as_u64()), (Some("audit"), Some(403)));
    }
}

#[tokio::test]
async fn a_session_that_expires_says_so() {
    let mut server = Process::start(&["sessions.ttl=\"100ms\""]).await;
    drop(Socket::open(server.address, "alice").await);
    let line = server.logged("the end of the session", |line| line["message"] == "session ended").await;
    assert_eq!((line["reason"].as_str(), line["player"].as_str()), (Some("EXPIRED"), Some("alice")));
}
