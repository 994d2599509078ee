//! Shortage of open files: reported at the start, noticed by new players before anything else, and over as
//! soon as files are free again.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::{Resource, Rlimit, Signal, prlimit};
use skirmish_core::node::budget::Size;
use skirmish_io::config::Config;
use skirmish_tests::http::{exchange, get, metric, status, upgrade};
use skirmish_tests::process::{Process, key, limited};
use skirmish_tests::socket::Socket;
use skirmish_tests::{eventually, token, within};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Settings with time limits that no test reaches.
const PATIENT: [&str; 3] =
    ["connections.handshake_timeout=\"1h\"", "heartbeat.interval=\"1h\"", "rooms.tombstone_horizon=\"24h\""];

/// Sends the upgrade request of a player.
async fn knock(address: SocketAddr) -> String {
    exchange(address, upgrade(&format!("X-Game-Token: {}\r\n", token("late")))).await
}

#[tokio::test]
async fn the_default_is_lowered_and_what_is_kept_goes_on() {
    let mut server = Process::start_as(limited("ulimit -n 256"), &PATIENT).await;
    let lowered = |line: &serde_json::Value| line["configured"] == 18_000 && line["limit"] == 256;
    let line = server.logged("the warning", lowered).await;
    let places = usize::try_from(line["connections"].as_u64().expect("it is a number")).expect("it fits");
    assert!((64..200).contains(&places), "{places}");
    let is_budget =
        |line: &serde_json::Value| line["message"].to_string().contains("memory that the limits allow");
    let told = server.logged("the budget", is_budget).await;
    assert_ne!(
        told["total"],
        Size(Config::default().budget().total()).to_string(),
        "it is of what is lowered"
    );
    let mut alice = Socket::open(server.address, "alice").await;
    alice.join("arena").await;
    let idle = server.fill().await;

    let answer = knock(server.address).await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    assert_eq!(get(server.admin, "/healthz").await.0, 200);
    assert_eq!(get(server.admin, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(metric(server.admin, "skirmish_open_files_limit").await, Some(256));
    let open = metric(server.admin, "skirmish_open_files").await.expect("it is known");
    assert!(open >= u64::try_from(places).expect("it fits") && open <= 256 - 32, "{open} are open");
    alice.say("arena", 1, "still here").await;
    assert_eq!(alice.said().await.body, "still here");
    assert_eq!(metric(server.admin, "skirmish_accept_errors_total").await, Some(0));

    drop(idle);
    eventually("a place", async || status(&knock(server.address).await) == 101).await;
    drop(alice);
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await, Some(0));
}

#[tokio::test]
async fn the_soft_limit_is_raised() {
    let server = Process::start_as(limited("ulimit -Sn 128; ulimit -Hn 4096"), &[]).await;
    assert_eq!(metric(server.admin, "skirmish_open_files_limit").await, Some(4096));
}

/// Starts a server that refuses to start. Returns its error message.
async fn refused(limits: &str, setting: &str) -> String {
    let mut command = limited(limits);
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--set", &key()]);
    command.args(["--log", "error", "--set", setting]).stdout(Stdio::null());
    let output = within("the end of the program", command.output()).await.expect("the program runs");
    let error = String::from_utf8(output.stderr).expect("it is text");
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

#[tokio::test]
async fn a_number_that_was_set_and_does_not_fit_is_an_error() {
    let error = refused("ulimit -n 256", "connections.total=18000").await;
    for part in ["error: connections.total: 18000 ", "the limit is 256", "ulimit -n 18", "LimitNOFILE=18"] {
        assert!(error.contains(part), "{error}");
    }
    let (_, most) = error.rsplit_once("set connections.total to ").expect("it says what would fit");
    let most = most.split(' ').next().expect("a number");
    let fits = format!("connections.total={most}");
    drop(Process::start_as(limited("ulimit -n 256"), &[&fits]).await);
    let more = most.parse::<usize>().expect("a number") + 1;
    refused("ulimit -n 256", &format!("connections.total={more}")).await;
}

#[tokio::test]
async fn a_limit_that_is_too_low_for_any_server_is_an_error() {
    let error = refused("ulimit -n 64", "rooms.members=5").await;
    assert!(error.contains("the limit is 64") && !error.contains("set connections.total"), "{error}");
}

#[tokio::test]
async fn probes_and_players_go_on_where_no_file_can_be_opened() {
    let server = Process::start(&PATIENT).await;
    let mut alice = Socket::open(server.address, "alice").await;
    alice.join("arena").await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(server.address).await.expect("the server listens"));
    }
    let limit = |current: u64| {
        // The server has the same hard limit as this process.
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: Some(current), maximum };
        prlimit(Some(server.pid()), Resource::Nofile, limit).expect("a soft limit can be changed");
    };
    // Repeated if the descriptor of a connection that was closing was counted.
    eventually("no file to be left", async || {
        const SILENT: &str = "skirmish_connections{state=\"unauthenticated\"}";
        eventually("the silent ones", async || metric(server.admin, SILENT).await == Some(16)).await;
        limit(first_free(&server));
        let refused = status(&knock(server.address).await) != 101;
        if !refused {
            limit(4096);
        }
        refused
    })
    .await;

    for _ in 0..3 {
        assert_eq!(get(server.admin, "/healthz").await, (200, "ok\n".to_owned()));
        // The server refuses, or closes the connection at once; the request does not hang.
        let answer = knock(server.address).await;
        assert!(answer.is_empty() || status(&answer) == 503, "{answer}");
        let mut silent = TcpStream::connect(server.address).await.expect("the server listens");
        let end = within("the end of a silent connection", silent.read(&mut [0; 16])).await;
        drop(end);
        let (status, why) = get(server.admin, "/readyz").await;
        assert_eq!((status, why.starts_with("out of files")), (503, true), "{why}");
    }
    assert!(metric(server.admin, "skirmish_refused_for_files_total").await.is_some_and(|n| n >= 6));
    alice.say("arena", 1, "still here").await;
    assert_eq!(alice.said().await.body, "still here");

    limit(4096);
    eventually("the server to be ready", async || get(server.admin, "/readyz").await.0 == 200).await;
    assert_eq!(status(&knock(server.address).await), 101);
    drop(silent);
}

/// Returns the lowest descriptor number that the server does not use.
fn first_free(server: &Process) -> u64 {
    let list = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("it runs");
    let names = list.map(|entry| entry.expect("an entry can be read").file_name());
    let open: BTreeSet<u64> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    (0..).find(|number| !open.contains(number)).expect("they are few")
}
