//! A log that cannot be written: the server serves on, counts the lost lines, and reports them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, Read as _};
use std::process::Stdio;
use std::sync::Mutex;

use rustix::process::Signal;
use serde_json::Value;
use skirmish_tests::http::{exchange, get, metric, upgrade};
use skirmish_tests::process::Process;
use skirmish_tests::socket::Socket;
use skirmish_tests::{eventually, within};

/// The smallest allowed queue, which fills soon, and a high rate of log-ins from one address.
const SMALL: &[&str] =
    &["log.queue_bytes=65536", "rates.logins_per_address={ per_second = 100000, burst = 100000 }"];

const DROPPED: &str = "skirmish_log_lines_dropped_total";

/// Plays while log lines are lost, and ends the server with success.
async fn goes_on(mut server: Process) {
    let mut alice = Socket::open(server.address, "alice").await;
    alice.join("arena").await;
    lines_are_lost(&server).await;
    alice.say("arena", 1, "still here").await;
    assert_eq!(alice.said().await.body, "still here");
    assert_eq!(get(server.admin, "/healthz").await.0, 200);
    let (status, why) = get(server.admin, "/readyz").await;
    assert_eq!((status, why.contains("log lines are lost")), (503, true), "{why}");
    drop(alice);
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await, Some(0));
}

/// Causes log lines until some are dropped.
async fn lines_are_lost(server: &Process) {
    let mut player = 0;
    eventually("lines to be lost", async || {
        for _ in 0..20 {
            player += 1;
            Socket::open(server.address, &format!("player-{player}")).await.join("arena").await;
        }
        metric(server.admin, DROPPED).await.is_some_and(|dropped| dropped > 0)
    })
    .await;
}

#[tokio::test]
async fn a_full_disk() {
    let full = || File::options().write(true).open("/dev/full").expect("it is always there").into();
    goes_on(Process::start_unread(full, SMALL).await).await;
}

#[tokio::test]
async fn a_reader_that_is_gone() {
    let gone = || std::io::pipe().expect("there are pipes").1.into();
    goes_on(Process::start_unread(gone, SMALL).await).await;
}

#[tokio::test]
async fn a_reader_that_does_not_read() {
    let (_kept, stderr) = unread_pipe();
    goes_on(Process::start_unread(stderr, SMALL).await).await;
}

#[tokio::test]
async fn nothing_is_written_and_nothing_is_lost_yet() {
    let full = || File::options().write(true).open("/dev/full").expect("it is always there").into();
    let server = Process::start_unread(full, &[]).await;
    eventually("the server to say so", async || {
        let (status, why) = get(server.admin, "/readyz").await;
        status == 503 && why.contains("the log cannot be written: No space left on device")
    })
    .await;
    assert_eq!(metric(server.admin, DROPPED).await, Some(0));
}

/// Returns a pipe as standard error, and the reading end after the first use.
fn unread_pipe() -> (&'static Mutex<Option<PipeReader>>, impl Fn() -> Stdio) {
    let kept: &Mutex<Option<PipeReader>> = Box::leak(Box::default());
    let stderr = || {
        let (reader, writer) = std::io::pipe().expect("there are pipes");
        *kept.lock().expect("nobody panics") = Some(reader);
        writer.into()
    };
    (kept, stderr)
}

#[tokio::test]
async fn the_log_goes_on_when_it_is_read_again_and_says_what_is_missing() {
    let (kept, stderr) = unread_pipe();
    let server = Process::start_unread(stderr, SMALL).await;
    lines_are_lost(&server).await;
    let reader = kept.lock().expect("nobody panics").take().expect("the server has the other end");
    let lines = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(reader).lines().map(|line| line.expect("the log is text"));
        let lines = lines.map(|line| serde_json::from_str::<Value>(&line).expect("each line is whole"));
        let mut lines = lines.skip_while(|line| line["message"] != "log lines were lost");
        (lines.next(), lines.find(|line| line["reason"] == "log_lost" && line["lasted_ms"].is_string()))
    });
    eventually("the server to be ready", async || get(server.admin, "/readyz").await.0 == 200).await;
    let dropped = metric(server.admin, DROPPED).await;
    let (lost, over) = within("the lines", lines).await.expect("the reader does not panic");
    assert_eq!(lost.and_then(|line| line["lines"].as_u64()), dropped, "each is told once");
    assert!(over.is_some(), "the end of the reason is logged");
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why_behind_its_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let mut command = skirmish_tests::process::command();
    command.args(["serve", "--listen", &address, "--admin", "127.0.0.1:0", "--set"]);
    command.args([&skirmish_tests::process::key(), "--log", "trace"]);
    let output = within("the end of the program", command.output()).await.expect("the program runs");
    let error = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.lines().last().is_some_and(|line| line.starts_with("error: listen.address: ")), "{error}");
}

#[tokio::test]
async fn a_stranger_fills_no_log() {
    const REFUSED: usize = 300;
    let limits = ["log.audit_per_address={ per_second = 1, burst = 5 }"];
    let mut server = Process::start(&limits).await;
    for _ in 0..REFUSED {
        exchange(server.address, upgrade("X-Game-Token: a.forged.token\r\n")).await;
    }
    let suppressed =
        metric(server.admin, "skirmish_log_lines_suppressed_total").await.expect("it is counted");
    let told = |line: &Value| line["message"].as_str().is_some_and(|m| m.starts_with("upgrade refused"));
    let mut written = 0;
    eventually("the lines of the log", async || {
        written = server.count(told);
        written + usize::try_from(suppressed).expect("it fits") >= REFUSED
    })
    .await;
    assert!((5..REFUSED).contains(&written), "{written} lines");
    server.logged("how many were suppressed", |line| line["suppressed"].as_u64().is_some()).await;
    // Another address is not suppressed, since its own bucket is full. Neither is a player.
    let mut alice = Socket::open(server.address, "alice").await;
    alice.join("arena").await;
    server.logged("a session", |line| line["player"] == "alice" && line["message"] == "session opened").await;
}

#[tokio::test]
async fn a_terminal_that_is_gone_ends_nothing() {
    // As after the closing of a terminal window: reads and writes fail for good.
    let (mut reader, writer) = std::io::pipe().expect("there are pipes");
    let writer = Mutex::new(Some(writer));
    let stderr = || writer.lock().expect("nobody panics").take().map_or_else(Stdio::null, Stdio::from);
    let server = Process::start_unread(stderr, SMALL).await;
    let mut some = [0; 16];
    reader.read_exact(&mut some).expect("the log has begun");
    drop(reader);
    goes_on(server).await;
}

#[tokio::test]
async fn no_core_dump_is_written() {
    let server = Process::start(&[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).expect("it runs");
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("it is listed");
    assert_eq!(core.split_whitespace().next(), Some("0"), "{limits}");
}
