//! Health, readiness, metrics and the reason for which a ticket waits, on an address of their own
//! (rows O1, D4).

use std::time::Duration;

use skirmish_core::id::Name;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::accept::{Accepted, Acceptor};
use super::http::{RefusedRequest, read_head};
use super::metrics::{self, ClusterMetrics, LogCounters, MetricsSnapshot};
use super::places::Places;
use super::readiness::Reason;
use super::{Handle, checks, descriptors};
use crate::log_queue::LogQueue;

/// Beginning of the path of a player's ticket.
const TICKETS: &str = "/tickets/";
/// Longest request head, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Maximum time of a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time of a request on a connection that has the last descriptor.
const SCARCE_TIMEOUT: Duration = Duration::from_millis(100);

/// Serves requests for as long as the future is polled. A request above the number of places ends
/// the oldest one, so that peers that send or read slowly do not block the probes.
pub(super) async fn serve(listener: TcpListener, server: Handle) {
    let mut acceptor = Acceptor::new(listener);
    let mut places = Places::new(descriptors::OPERATORS);
    loop {
        let Accepted { stream, scarce, .. } = acceptor.next(&server, || places.end_oldest()).await;
        if scarce {
            // Answered here and briefly, so that no other task gets the descriptor in between.
            let _ = crate::rounds::within(SCARCE_TIMEOUT, answer(stream, &server)).await;
            continue;
        }
        let asked = server.clone();
        let request = async move {
            let _ = crate::rounds::within(TIMEOUT, answer(stream, &asked)).await;
        };
        places.spawn(request).await;
        server.0.shared.lock().counters.admin_dropped = places.ended();
    }
}

async fn answer(mut stream: TcpStream, server: &Handle) -> std::io::Result<()> {
    let Ok(head) = read_head(&mut stream, MAX_HEAD).await else { return Ok(()) };
    let text = respond(head.bytes(), server);
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

fn respond(head: &[u8], server: &Handle) -> String {
    let mut headers = [httparse::EMPTY_HEADER; super::http::MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return RefusedRequest::bad_request("not an HTTP request").response(0);
    }
    let answer = match request.method {
        Some("GET" | "HEAD") => read(request.path, server),
        Some("OPTIONS") => {
            "HTTP/1.1 204 No Content\r\nAllow: GET, HEAD, OPTIONS\r\nConnection: close\r\n\r\n".to_owned()
        }
        _ => RefusedRequest::only_reads().response(0),
    };
    match (request.method, answer.find("\r\n\r\n")) {
        // The headers are those of the answer to `GET`, including the length of its body.
        (Some("HEAD"), Some(end)) => answer.get(..end + 4).unwrap_or_default().to_owned(),
        _ => answer,
    }
}

/// Returns the answer to a reading request.
fn read(path: Option<&str>, server: &Handle) -> String {
    // Probes may add a query, which is ignored.
    match path.and_then(|path| path.split('?').next()) {
        Some("/healthz") => ok("text/plain", "ok\n"),
        Some("/readyz") => match server.ready() {
            Ok(()) => ok("text/plain", &ready(server)),
            Err(why) => RefusedRequest::unavailable(why.to_string()).response(0),
        },
        Some("/metrics") => {
            let snapshot = snapshot(server);
            match snapshot.encode() {
                Ok(text) => ok(metrics::CONTENT_TYPE, &text),
                Err(_) => RefusedRequest::unavailable("the metrics could not be written").response(0),
            }
        }
        Some(path) if path.starts_with(TICKETS) => explain(&path[TICKETS.len()..], server),
        _ => RefusedRequest::not_found().response(0),
    }
}

/// Returns the answer of a node that is ready, with the warnings for operators.
fn ready(server: &Handle) -> String {
    let shard = server.0.shared.lock();
    let warning = |text: String, cause| text + &format!("warning: {cause}\n");
    shard.readiness.warnings().fold("ready\n".to_owned(), warning)
}

/// Returns the reason for which a player has no match yet. Only the node that forms the matches of
/// a mode knows the reason.
fn explain(player: &str, server: &Handle) -> String {
    let player = match Name::new(player) {
        Ok(player) => player,
        Err(error) => return RefusedRequest::bad_request(error.to_string()).response(0),
    };
    let now = server.0.shared.clock().now().instant;
    let shard = server.0.shared.lock();
    if let Some(why) = shard.node.explain(now, &player) {
        return ok("text/plain", &format!("{why}\n"));
    }
    let modes: Vec<_> = shard.node.elected().map(Name::as_str).collect();
    let body = match modes.as_slice() {
        [] => "this node forms no matches: ask the others".to_owned(),
        modes => format!(
            "no ticket of that player waits in {}, of which this node forms the matches",
            modes.join(", ")
        ),
    };
    RefusedRequest::nothing_known(body).response(0)
}

/// Returns the current figures.
fn snapshot(server: &Handle) -> MetricsSnapshot {
    let now = server.0.shared.clock().now().instant;
    let mut shard = server.0.shared.lock();
    checks::run(&mut shard, now);
    let cluster = ClusterMetrics {
        peers: shard.node.peers(),
        followed: shard.node.rooms_followed(),
        serving: shard.node.is_serving(now),
        connected: shard.registry.status().connected,
        registry: shard.registry.counters(),
    };
    let holds = |reason| (reason, shard.readiness.since(reason).is_some());
    MetricsSnapshot {
        stats: shard.node.stats(),
        counters: shard.counters.clone(),
        accepting: shard.accepting,
        cluster,
        reasons: Reason::ALL.map(holds),
        driver_lateness: shard.lateness(now),
        log: LogCounters {
            dropped: shard.log.as_ref().map_or(0, LogQueue::dropped),
            suppressed: shard.audit.suppressed(),
        },
        open_files: descriptors::open(),
        open_files_limit: descriptors::limit(),
    }
}

fn ok(content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
