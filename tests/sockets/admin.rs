//! The admin endpoints for operators (rows O1, D4).

use std::io::ErrorKind;
use std::time::Duration;

use skirmish_io::server::{ApplicationMessage, Handle};
use skirmish_tests::eventually;
use skirmish_tests::http::{exchange, get, metric, status};
use skirmish_tests::server::Running;
use skirmish_tests::socket::Socket;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

#[tokio::test]
async fn health_readiness_and_nothing_else() {
    let server = Running::start(|_| {}).await;
    assert_eq!(get(server.admin, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(server.admin, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(get(server.admin, "/").await.0, 404);
    for path in ["/healthz", "/readyz", "/metrics", "/nothing"] {
        let ask =
            async |method: &str| exchange(server.admin, format!("{method} {path} HTTP/1.1\r\n\r\n")).await;
        let (head, get) = (ask("HEAD").await, ask("GET").await);
        assert!(head.ends_with("\r\n\r\n") && head.matches("\r\n\r\n").count() == 1, "{head}");
        let (names, first) = (
            |text: &str| {
                text.lines().map(|line| line.split(':').next().unwrap_or("").to_owned()).collect::<Vec<_>>()
            },
            get.split("\r\n\r\n").next().unwrap_or(""),
        );
        assert_eq!(names(head.trim_end()), names(first), "the headers are the same");
        let options = ask("OPTIONS").await;
        assert_eq!(status(&options), 204, "{options}");
        assert!(options.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{options}");
        for method in ["POST", "PUT", "DELETE", "TRACE", "BREW"] {
            let refused = ask(method).await;
            assert_eq!(status(&refused), 405, "{refused}");
            assert!(refused.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{refused}");
        }
    }
    assert_eq!(get(server.admin, "/readyz?verbose").await.0, 200);
    assert_eq!(status(&exchange(server.admin, "\u{1}\r\n\r\n").await), 400);
    assert_eq!(get(server.address, "/healthz").await.0, 404, "players do not see it");
}

#[tokio::test]
async fn a_node_whose_event_loop_stands_still_says_so_until_it_has_run_for_a_while() {
    let stall = |_: ApplicationMessage, _: &Handle| std::thread::sleep(Duration::from_secs(4));
    let server = Running::build(|_| {}, |builder| builder.route("test.Stall", stall)).await;
    let mut alice = Socket::open(server.address, "alice").await;
    alice.send_application("test.Stall", b"").await;
    eventually("the node to be late", async || get(server.admin, "/readyz").await.0 == 503).await;
    let body = get(server.admin, "/readyz").await.1;
    let late = body.strip_prefix("the event loop stands still for too long: it came ");
    assert!(late.is_some_and(|late| late.contains("; give the node more CPU")), "{body}");
    let metrics = get(server.admin, "/metrics").await.1;
    assert!(metrics.contains("skirmish_not_ready{reason=\"driver_late\"} 1"), "{metrics}");
    assert!(metrics.contains("skirmish_not_ready{reason=\"draining\"} 0"), "{metrics}");
    eventually("the node to be ready", async || get(server.admin, "/readyz").await.0 == 200).await;
}

#[tokio::test]
async fn metrics_count_what_happens() {
    let server = Running::start(|_| {}).await;
    let mut alice = Socket::open(server.address, "alice").await;
    let mut bob = Socket::open(server.address, "bob").await;
    alice.join("arena").await;
    bob.join("arena").await;
    alice.say("arena", 1, "hello").await;
    assert_eq!((alice.said().await.body, bob.said().await.body), ("hello".into(), "hello".into()));
    let text = get(server.admin, "/metrics").await.1;
    for line in [
        "skirmish_connections{state=\"open\"} 2",
        "skirmish_connections{state=\"unauthenticated\"} 0",
        "skirmish_sessions 2",
        "skirmish_rooms 1",
        "skirmish_members 2",
        "skirmish_accepting 1",
        "skirmish_accepted_total 2",
        "skirmish_protocol_errors_total 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("alice") && !text.contains("arena"), "players and rooms are no labels:\n{text}");
}

/// Opens connections with half of a request each.
async fn slow(server: &Running, number: usize) -> Vec<TcpStream> {
    let mut slow = Vec::with_capacity(number);
    for _ in 0..number {
        let mut stream = TcpStream::connect(server.admin).await.expect("the server listens");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").await.expect("it is open");
        slow.push(stream);
    }
    slow
}

#[tokio::test]
async fn slow_connections_keep_nobody_from_the_probes() {
    let server = Running::start(|_| {}).await;
    for number in [64, 1_000] {
        // The newest connections are still open after the probes, so the probes have not waited for their
        // time-outs. Repeated in case this computer stood still for that long.
        eventually("a probe before the slow ones are over", async || {
            let slow = slow(&server, number).await;
            assert_eq!(get(server.admin, "/healthz").await, (200, "ok\n".to_owned()));
            assert_eq!(get(server.admin, "/readyz").await.0, 200);
            assert_eq!(get(server.admin, "/metrics").await.0, 200);
            let newest = &slow[number - 32..];
            newest.iter().all(|stream| {
                stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            })
        })
        .await;
    }
    assert!(metric(server.admin, "skirmish_admin_dropped_total").await.is_some_and(|dropped| dropped >= 900));
}

#[tokio::test]
async fn who_does_not_read_its_answer_keeps_nobody_from_the_probes() {
    let server = Running::start(|_| {}).await;
    let mut unread = Vec::new();
    for _ in 0..200 {
        let socket = TcpSocket::new_v4().expect("there are sockets");
        socket.set_recv_buffer_size(1024).expect("the size of a buffer can be set");
        let mut stream = socket.connect(server.admin).await.expect("the server listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").await.expect("it is open");
        unread.push(stream);
    }
    assert_eq!(get(server.admin, "/healthz").await.0, 200);
    drop(unread);
}
