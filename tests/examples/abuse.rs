//! Measures the delay of messages between players while other clients abuse the server.
//!
//! A server runs on a thread of its own with its default limits. The abusers are another process with low
//! priority, so their own use of the processors is not measured. Twenty players in rooms of two send a
//! message ten times a second, and measure the time until they hear it themselves. First there are no
//! abusers. Then 200 connections of the same address, logged in one after the other, flood the server with
//! one kind of input, each until the server closes it. Each kind is a line of the table; without an argument,
//! all kinds are measured.
//!
//! ```sh
//! cargo run --release -p skirmish-tests --example abuse -- [KIND]
//! ```
#![allow(clippy::print_stdout, reason = "printing a table is what this program does")]
#![allow(clippy::disallowed_methods, reason = "this measures time")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use skirmish_core::wire::{Zstd, encode};
use skirmish_proto::v1::{self, Kind, Metadata, Reason};
use skirmish_tests::server::Running;
use skirmish_tests::socket::{Socket, say, web_socket_frame};
use tokio::task::JoinSet;

/// First argument of the abusers' process, before the server's address and the kind.
const ABUSE: &str = "--abuse";

const PLAYERS: usize = 20;
const ABUSERS: usize = 200;
/// Time of the measurement without abusers.
const QUIET: Duration = Duration::from_secs(5);

/// Bytes to send once, and bytes to send repeatedly.
type Flood = (Vec<u8>, Vec<u8>);

fn kinds() -> Vec<(&'static str, Flood)> {
    let messages = |frame: &[u8]| (Vec::new(), web_socket_frame(true, 2, true, frame).repeat(64));
    let none = Metadata::default();
    let leave = v1::Leave { room: "elsewhere".to_owned(), request: 0 };
    let inflating = encode(Kind::Say, &none, &say("elsewhere", 1, vec![0; 16_000]));
    let latest = v1::Latest { room: "den".to_owned(), ..v1::Latest::default() };
    vec![
        ("requests", messages(&encode(Kind::Leave, &none, &leave))),
        ("pongs", messages(&encode(Kind::Pong, &none, &v1::Pong { nonce: 7 }))),
        ("refused", messages(&encode(Kind::Say, &none, &say("den", 1_000, "never the next")))),
        ("dropped", messages(&encode(Kind::Latest, &none, &latest))),
        ("inflating", messages(&Zstd::default().deflate(&inflating).expect("it becomes smaller"))),
        ("ws-pings", (Vec::new(), web_socket_frame(true, 9, true, b"?").repeat(64))),
        ("ws-pongs", (Vec::new(), web_socket_frame(true, 10, true, b"!").repeat(64))),
        (
            "fragments",
            (web_socket_frame(false, 2, true, b"..."), web_socket_frame(false, 0, true, &[]).repeat(64)),
        ),
    ]
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.next();
    if let (Some(ABUSE), Some(address), Some(kind)) = (only.as_deref(), arguments.next(), arguments.next()) {
        let flood = kinds().into_iter().find(|(name, _)| *name == kind).expect("the kind is known").1;
        return runtime().block_on(abuse(address.parse().expect("an address"), flood));
    }
    println!(
        "{:<12}{:>12}{:>12}{:>12}{:>12}{:>14}",
        "kind", "p50 quiet", "p99 quiet", "p50", "p99", "closed after"
    );
    for (kind, _) in kinds() {
        if only.as_ref().is_none_or(|only| only == kind) {
            measure(kind);
        }
    }
}

fn measure(kind: &str) {
    let (tell, address) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = std::thread::spawn(move || {
        runtime().block_on(async {
            let open = |config: &mut skirmish_io::config::Config| config.connections.per_address = 1_000;
            let server = Running::start(open).await;
            tell.send(server.address).expect("it is waited for");
            drop(stopped.await);
        });
    });
    let address = address.recv().expect("the server starts");
    runtime().block_on(async {
        let mut quiet = play(address, tokio::time::sleep(QUIET)).await;
        let program = std::env::current_exe().expect("this program has a path");
        let mut abusers = Command::new("nice")
            .args(["-n", "19"])
            .arg(program)
            .args([ABUSE, &address.to_string(), kind])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the abusers start");
        // The process prints a line once all abusers have logged in.
        let output = abusers.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut String::new()).expect("the abusers are ready");
        let start = Instant::now();
        let abused = tokio::task::spawn_blocking(move || abusers.wait());
        let mut loud = play(address, async {
            let status = abused.await.expect("the wait ends").expect("the abusers end");
            assert!(status.success(), "an abuser was not told why it was closed");
        })
        .await;
        println!(
            "{kind:<12}{:>12}{:>12}{:>12}{:>12}{:>14}",
            percentile(&mut quiet, 50),
            percentile(&mut quiet, 99),
            percentile(&mut loud, 50),
            percentile(&mut loud, 99),
            format!("{:.1} s", start.elapsed().as_secs_f64()),
        );
    });
    drop(stop);
    server.join().expect("the server does not panic");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts")
}

async fn abuse(address: SocketAddr, (first, bytes): Flood) {
    let mut sockets = Vec::new();
    for number in 0..ABUSERS {
        let mut socket = Socket::open(address, &format!("abuser-{number}")).await;
        socket.join("den").await;
        sockets.push(socket);
    }
    println!("ready");
    let mut abusers = JoinSet::new();
    for mut socket in sockets {
        let (first, bytes) = (first.clone(), bytes.clone());
        abusers.spawn(async move {
            socket.send_raw(&first).await;
            assert_eq!(socket.flood(&bytes).await.reason(), Reason::RateLimited);
        });
    }
    while let Some(ended) = abusers.join_next().await {
        ended.expect("an abuser is told why");
    }
}

/// Lets players play until a future ends. Returns the delay of each message.
async fn play(address: SocketAddr, until: impl Future<Output = ()>) -> Vec<Duration> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut players = JoinSet::new();
    for number in 0..PLAYERS {
        let stopped = stopped.clone();
        players.spawn(async move {
            let mut socket = Socket::open(address, &format!("player-{number}")).await;
            let room = format!("room-{}", number / 2);
            let joined = socket.join(&room).await;
            let (own, mut said) = (joined.member, joined.client_seq);
            let mut took = Vec::new();
            while !*stopped.borrow() {
                said += 1;
                let start = Instant::now();
                socket.say(&room, said, "something").await;
                while socket.said().await.member != own {}
                took.push(start.elapsed());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            took
        });
    }
    until.await;
    stop.send_replace(true);
    let mut all = Vec::new();
    while let Some(took) = players.join_next().await {
        all.extend(took.expect("a player loses nothing"));
    }
    all
}

fn percentile(took: &mut [Duration], percent: usize) -> String {
    took.sort_unstable();
    let at = took.len().saturating_sub(1) * percent / 100;
    took.get(at).map_or_else(String::new, |took| format!("{:.1} ms", took.as_secs_f64() * 1e3))
}
