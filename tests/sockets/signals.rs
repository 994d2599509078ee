//! Signals without a meaning for the server are logged, and change nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use skirmish_tests::http::metric;
use skirmish_tests::process::{KeyFile, Process, command, key};
use skirmish_tests::socket::Socket;
use skirmish_tests::{eventually, within};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Signals that operators, their tools and the system send, and their names in the log.
const IGNORED: [(&str, Signal); 9] = [
    ("SIGHUP", Signal::HUP),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGALRM", Signal::ALARM),
    ("SIGVTALRM", Signal::VTALARM),
    ("SIGPROF", Signal::PROF),
    ("SIGIO", Signal::IO),
    ("SIGPWR", Signal::POWER),
    ("SIGXFSZ", Signal::XFSZ),
];

#[tokio::test]
async fn they_are_logged_and_change_nothing() {
    let mut server = Process::start(&[]).await;
    let mut alice = Socket::open(server.address, "alice").await;
    alice.join("arena").await;
    for signal in [Signal::PIPE, Signal::WINCH, Signal::URG, Signal::CHILD, Signal::CONT] {
        server.signal(signal);
    }
    for (name, signal) in IGNORED {
        for times in 1..=2 {
            server.signal(signal);
            eventually(name, async || server.count(|line| line["signal"] == name) == times).await;
        }
    }
    alice.say("arena", 1, "still here").await;
    assert_eq!(alice.said().await.body, "still here");
    drop(alice);
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await, Some(0));
    eventually("its last line", async || server.count(|line| line["message"] == "stopped") == 1).await;
}

/// File that is removed when it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("skirmish-signals-{}-{name}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn they_do_not_end_a_server_that_starts() {
    // The server keeps starting until its configuration is written.
    let file = Temporary::new("config.toml");
    let made = std::process::Command::new("mkfifo").arg(&file.0).status().expect("there is mkfifo");
    assert!(made.success());
    let mut command = command();
    command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--set", &key(), "--config"]);
    command.arg(&file.0).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut server = command.spawn().expect("the program starts");
    let pid = server.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
    // This opening succeeds once the server has opened the file.
    let path = file.0.clone();
    let open = tokio::task::spawn_blocking(move || fs::File::options().write(true).open(path));
    let mut config =
        within("the server to read it", open).await.expect("no panic").expect("it can be written");
    for (_, signal) in IGNORED {
        kill_process(pid, signal).expect("it runs");
    }
    config.write_all(b"[log]\nlevel = \"info\"\n").expect("it is read");
    drop(config);
    let mut log = BufReader::new(server.stderr.take().expect("it is piped")).lines();
    let mut missing: BTreeSet<&str> = IGNORED.iter().map(|(name, _)| *name).collect();
    while !missing.is_empty() {
        let line = within("the lines of the log", log.next_line()).await.expect("the log is text");
        let line = line.expect("the server runs");
        missing.retain(|name| !line.contains(&format!("signal=\"{name}\"")));
    }
    kill_process(pid, Signal::TERM).expect("it runs");
    let status = within("the end of the server", server.wait()).await.expect("it ran");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_log_at_the_limit_on_the_size_of_a_file_goes_on_when_there_is_room() {
    const LIMIT: u64 = 16 * 1024;
    let file = Temporary::new("log");
    let stderr = || fs::File::create(&file.0).expect("a temporary file").into();
    let settings =
        ["log.queue_bytes=65536", "rates.logins_per_address={ per_second = 100000, burst = 100000 }"];
    let server = Process::start_unread(stderr, &settings).await;
    let limit = |bytes| {
        let limit = Rlimit { current: Some(bytes), maximum: None };
        prlimit(Some(server.pid()), Resource::Fsize, limit).expect("a limit can be lowered");
    };
    limit(LIMIT);
    let mut player = 0;
    eventually("lines to be lost", async || {
        for _ in 0..20 {
            player += 1;
            Socket::open(server.address, &format!("player-{player}")).await.join("arena").await;
        }
        metric(server.admin, "skirmish_log_lines_dropped_total").await.is_some_and(|dropped| dropped > 0)
    })
    .await;
    assert_eq!(fs::metadata(&file.0).expect("it is there").len(), LIMIT);
    limit(1 << 30);
    let text = || fs::read_to_string(&file.0).expect("it is text");
    eventually("the log to go on", async || text().contains("log lines were lost")).await;
}

#[tokio::test]
async fn bots_end_with_their_report_when_their_terminal_is_closed() {
    let server = Process::start(&[]).await;
    let key = KeyFile::write();
    for signal in [Signal::HUP, Signal::INT] {
        let played = metric(server.admin, "skirmish_entries_total").await.expect("it is there");
        let mut command = command();
        command.args(["bots", "--server", &server.url(), "--players", "2", "--duration", "1h"]);
        command.args(["--warmup", "0s", "--rate", "20"]).args(key.options());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let bots = command.spawn().expect("the program starts");
        let pid = bots.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
        eventually("the bots to play", async || {
            metric(server.admin, "skirmish_entries_total").await.is_some_and(|now| now > played + 40)
        })
        .await;
        kill_process(pid, signal).expect("it runs");
        let output = within("the end of the bots", bots.wait_with_output()).await.expect("they ran");
        let report = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{signal:?}: {report}");
        assert!(report.contains("(interrupted)"), "{signal:?}: {report}");
    }
}
