//! Standard output that cannot be written: short commands end silently or report the reason, and a server
//! works without.

use std::fs::File;
use std::process::Stdio;

use skirmish_tests::process::{command, key};
use skirmish_tests::{eventually, within};
use tokio::net::TcpStream;

/// Returns commands that print and end.
fn short() -> Vec<Vec<String>> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let with_key = |text: &str| [words(text), vec!["--set".to_owned(), key()]].concat();
    vec![
        words("--help"),
        words("serve --help"),
        words("--version"),
        with_key("serve --print-config"),
        with_key("token --player alice --player bob"),
    ]
}

/// Runs a command with this standard output. Returns the exit code and the standard error.
async fn run_into(arguments: &[String], stdout: Stdio) -> (Option<i32>, String) {
    let mut command = command();
    let child = command.args(arguments).stdout(stdout).stderr(Stdio::piped()).spawn();
    let child = child.expect("the program starts");
    let output = within("the end of the program", child.wait_with_output()).await.expect("the program runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("it is text"))
}

#[tokio::test]
async fn a_reader_that_has_heard_enough() {
    for arguments in short() {
        let gone = std::io::pipe().expect("there are pipes").1;
        let (code, error) = run_into(&arguments, gone.into()).await;
        assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_full_disk() {
    for arguments in short() {
        let full = File::options().write(true).open("/dev/full").expect("it is always there");
        let (code, error) = run_into(&arguments, full.into()).await;
        assert_eq!(code, Some(1), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert!(error.starts_with("error: cannot write to standard output: "), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn an_error_that_cannot_be_printed_keeps_its_exit_code() {
    let full = File::options().write(true).open("/dev/full").expect("it is always there");
    let gone = std::io::pipe().expect("there are pipes").1;
    for stderr in [Stdio::from(full), gone.into()] {
        let mut command = command();
        let child = command.args(["serve", "--set", "rooms.members=many"]).stderr(stderr).spawn();
        let status = within("the end of the program", child.expect("the program starts").wait()).await;
        assert_eq!(status.expect("the program runs").code(), Some(2));
    }
}

#[tokio::test]
async fn a_development_server_serves_though_its_token_cannot_be_printed() {
    let directory = std::env::temp_dir().join(format!("skirmish-output-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a temporary directory");
    let full = File::options().write(true).open("/dev/full").expect("it is always there");
    let gone = std::io::pipe().expect("there are pipes").1;
    for stdout in [Stdio::from(full), gone.into()] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port is free");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let mut command = command();
        command.args(["serve", "--dev", "--set", "admin.enabled=false", "--listen", &address.to_string()]);
        command.current_dir(&directory).stdout(stdout).stderr(Stdio::null());
        let mut server = command.spawn().expect("the program starts");
        eventually("the server to listen", async || {
            assert_eq!(server.try_wait().expect("a child can be asked"), None);
            TcpStream::connect(address).await.is_ok()
        })
        .await;
        server.kill().await.expect("it can be killed");
    }
    std::fs::remove_dir_all(&directory).expect("it was made here");
}
