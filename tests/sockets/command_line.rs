//! Failures of the program: one clear line, the right exit code, no panic, no secret.

use std::process::Output;

use rustix::process::Signal;
use skirmish_tests::http::metric;
use skirmish_tests::process::{KeyFile, Process, key, run};
use skirmish_tests::{SECRET, eventually};
use tokio::net::TcpListener;

/// Checks that the program failed with this code and one line of output. Returns the line.
fn failed(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    assert!(error.starts_with("error: ") && !error.contains("panicked"), "{error}");
    assert!(!error.contains(SECRET), "{error}");
    assert!(output.stdout.is_empty());
    error
}

#[tokio::test]
async fn a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let free = "127.0.0.1:0";
    for (listen, admin, named) in
        [(address.as_str(), free, "listen.address"), (free, address.as_str(), "admin.address")]
    {
        // With so few connections, no low limit on open files adds another line.
        let few = "connections.total=100";
        let output =
            run(&["serve", "--listen", listen, "--admin", admin, "--set", &key(), "--set", few]).await;
        let error = failed(&output, 1);
        assert!(error.contains(named) && error.contains(&address), "{error}");
    }
}

#[tokio::test]
async fn a_key_that_is_none() {
    let error = failed(&run(&["serve", "--set", &key(), "--set", "rooms.mebmers=5"]).await, 2);
    assert!(error.contains("rooms.mebmers"), "{error}");
}

#[tokio::test]
async fn a_value_that_is_none() {
    let error = failed(&run(&["serve", "--set", &key(), "--set", "rooms.members=many"]).await, 2);
    assert!(error.contains("rooms.members"), "{error}");
    let error = failed(&run(&["serve", "--set", &key(), "--set", "heartbeat.interval=0s"]).await, 2);
    assert!(error.contains("heartbeat.interval"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_there() {
    let error = failed(&run(&["serve", "--config", "no-such-file.toml"]).await, 2);
    assert!(error.contains("no-such-file.toml"), "{error}");
    let setting = "auth.keys=[{ id = \"a\", secret_file = \"no-such-key\" }]";
    let error = failed(&run(&["serve", "--listen", "127.0.0.1:0", "--set", setting]).await, 1);
    assert!(error.contains("no-such-key"), "{error}");
}

#[tokio::test]
async fn a_secret_that_is_too_short() {
    let setting = "auth.keys=[{ id = \"a\", secret = \"short-secret\" }]";
    let error = failed(&run(&["serve", "--listen", "127.0.0.1:0", "--set", setting]).await, 1);
    assert!(!error.contains("short-secret"), "{error}");
}

#[tokio::test]
async fn no_key_at_all() {
    failed(&run(&["serve"]).await, 2);
}

#[tokio::test]
async fn the_printed_configuration_has_every_key_and_no_secret() {
    let output = run(&["serve", "--print-config", "--set", &key(), "--set", "rooms.members=17"]).await;
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).expect("a configuration is text");
    assert!(printed.lines().any(|line| line == "members = 17"), "{printed}");
    assert!(printed.contains("[heartbeat]") && printed.contains("[redacted]"), "{printed}");
    assert!(!printed.contains(SECRET), "{printed}");
    assert!(output.stderr.is_empty());
}

#[tokio::test]
async fn a_token_that_is_never_good() {
    for ttl in ["0s", "10ms", "300000000000years", "-1h", "soon"].map(|ttl| format!("--ttl={ttl}")) {
        let output = run(&["token", "--set", &key(), "--player", "alice", &ttl]).await;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("--ttl") && !error.contains("panicked"), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[tokio::test]
async fn bots_say_unknown_of_what_a_fault_that_outlasts_their_patience_hides() {
    let server = Process::start(&[]).await;
    let key = KeyFile::write();
    let url = server.url();
    let arguments = ["bots", "--server", &url, "--players", "4", "--room-size", "2", "--rate", "20"];
    let more = ["--warmup", "0s", "--duration", "3s", "--patience", "2s", "--json"];
    let arguments = [&arguments[..], &more, &key.options()].concat();
    let stops = async {
        eventually("messages", async || {
            metric(server.admin, "skirmish_entries_total").await.is_some_and(|entries| entries > 20)
        })
        .await;
        server.signal(Signal::STOP);
    };
    let (output, ()) = tokio::join!(run(&arguments), stops);
    server.signal(Signal::CONT);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let verdicts: Vec<_> =
        report["guarantees"].as_array().expect("a list").iter().map(|g| g["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["held", "unknown", "held", "held", "held"].map(Some), "{report:#}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("--patience (2s)") && error.contains("/readyz"), "{error}");
}
