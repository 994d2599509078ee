//! Cost of log-ins for etcd, and their rates.

use skirmish_core::wire::ToClient;
use skirmish_io::clock::Clock;
use skirmish_proto::v1::{Goodbye, Hello, Kind, Leave, Reason, Resume};
use skirmish_tests::http::{exchange, status, upgrade};
use skirmish_tests::socket::Socket;
use skirmish_tests::token;

use crate::nodes::Nodes;

/// A rate that no test reaches.
const UNLIMITED: &str = "rates.logins={per_second=1000, burst=10000}";

/// Returns the revision of etcd's last write.
async fn revision(nodes: &Nodes) -> i64 {
    let answer = nodes.etcd.client().await.get("/", None).await.expect("etcd answers");
    answer.header().expect("it has a header").revision()
}

/// Connects, joins, leaves and disconnects.
async fn cycle(nodes: &Nodes, player: &str) {
    let mut socket = Socket::open(nodes.nodes[0].address, player).await;
    socket.join("arena").await;
    socket.send(Kind::Leave, &Leave { room: "arena".to_owned(), request: 0 }).await;
    let left = |message| matches!(message, ToClient::Left(_)).then_some(());
    socket.until(left).await;
    socket.send(Kind::Goodbye, &Goodbye::default()).await;
    socket.ended().await;
}

#[tokio::test]
async fn a_cycle_writes_a_session_and_a_room_and_deletes_them() {
    const CYCLES: i64 = 20;
    let nodes = Nodes::start_with(1, &[UNLIMITED]).await;
    let before = revision(&nodes).await;
    for number in 0..CYCLES {
        cycle(&nodes, &format!("player-{number}")).await;
    }
    let written = revision(&nodes).await - before;
    // The node also writes a few times by itself.
    assert!(written <= CYCLES * 4 + 5, "{CYCLES} cycles made {written} revisions");
    assert!(
        written >= CYCLES * 4 - 2,
        "{CYCLES} cycles made {written} revisions: fewer than there are records"
    );
}

#[tokio::test]
async fn a_session_that_goes_on_at_its_node_writes_nothing() {
    let nodes = Nodes::start_with(1, &[UNLIMITED]).await;
    let mut socket = Socket::connect(nodes.nodes[0].address, "alice").await;
    let mut welcome = socket.hello(None).await;
    let before = revision(&nodes).await;
    for _ in 0..50 {
        let resume = Resume { session: welcome.session.clone(), epoch: welcome.epoch, ..Resume::default() };
        socket = Socket::connect(nodes.nodes[0].address, "alice").await;
        welcome = socket.hello(Some(resume)).await;
        assert!(welcome.resumed);
    }
    let written = revision(&nodes).await - before;
    // The node writes a few times by itself.
    assert!(written <= 5, "50 resumes made {written} revisions");
    drop(socket);
}

#[tokio::test]
async fn a_player_who_logs_in_in_a_loop_is_told_to_wait_and_writes_little() {
    let nodes = Nodes::start_with(1, &["rates.logins={per_second=1, burst=10}"]).await;
    let clock = Clock::new();
    let (began, before) = (clock.now().instant, revision(&nodes).await);
    let (mut welcomed, mut refused) = (0, 0);
    for _ in 0..300 {
        let mut socket = Socket::connect(nodes.nodes[0].address, "mallory").await;
        socket.send(Kind::Hello, &Hello::default()).await;
        match socket.next().await {
            ToClient::Welcome(_) => welcomed += 1,
            ToClient::Goodbye(goodbye) => {
                assert_eq!(goodbye.reason(), Reason::RateLimited, "{}", goodbye.message);
                assert!((1..=1_000).contains(&goodbye.retry_after_ms), "{}", goodbye.retry_after_ms);
                refused += 1;
            }
            other => panic!("neither a welcome nor a goodbye: {other:?}"),
        }
    }
    let most = 10 + clock.now().instant.since(began).as_secs() + 1;
    assert!((10..=most).contains(&welcomed) && welcomed + refused == 300, "{welcomed} of {most}");
    let written = revision(&nodes).await - before;
    assert!(written <= i64::try_from(welcomed).unwrap() + 5, "{welcomed} log-ins made {written} revisions");
    // Other players can log in.
    Socket::open(nodes.nodes[0].address, "alice").await;
}

#[tokio::test]
async fn an_address_that_connects_in_a_loop_is_answered_when_to_come_back() {
    let nodes = Nodes::start_with(1, &["rates.logins_per_address={per_second=1, burst=5}"]).await;
    let request = || upgrade(&format!("X-Game-Token: {}\r\n", token("mallory")));
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(exchange(nodes.nodes[0].address, request()).await);
    }
    let refused: Vec<&String> = answers.iter().filter(|answer| status(answer) == 429).collect();
    assert!(answers.iter().take(5).all(|answer| status(answer) == 101), "{answers:#?}");
    assert!(!refused.is_empty(), "{answers:#?}");
    for answer in refused {
        assert!(
            answer.contains("\r\nRetry-After: 1\r\n") || answer.contains("\r\nRetry-After: 2\r\n"),
            "{answer}"
        );
    }
}
