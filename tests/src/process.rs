//! The program `skirmish` in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::http::metric;
use crate::{SECRET, eventually, within};

/// Path of the program, which is built at the first use.
///
/// Cargo passes the path of a binary (`CARGO_BIN_EXE_...`) only to tests of the binary's own package, and
/// these tests are in another package. A build of several packages at once may also give the binary features
/// that the shipped program does not have. So the program is built in the way of users, with the profile and
/// into the directory of this test.
///
/// # Panics
/// If the build fails.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build)
}

fn build() -> PathBuf {
    // `TARGET/PROFILE/deps/TEST`
    let test = std::env::current_exe().expect("a test knows its file");
    let directory = test.ancestors().nth(2).expect("a test is in the directory `deps` of its profile");
    let profile = match directory.file_name().and_then(|name| name.to_str()).expect("it has a name") {
        "debug" => "dev",
        other => other,
    };
    let target = directory.parent().expect("profiles are below the target directory");
    let mut cargo = std::process::Command::new(env!("CARGO"));
    // Variables that Cargo sets for this test's package. With them, build scripts that read such variables
    // would run again, and so would the builds that depend on the scripts.
    let told = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|told| name.starts_with(told));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        cargo.env_remove(name);
    }
    let output = cargo
        .args(["build", "--package", "skirmish-io", "--bin", "skirmish", "--message-format", "json"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("cargo writes text");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = messages.filter(|m| m["target"]["name"] == "skirmish");
    executables.find_map(|m| Some(m["executable"].as_str()?.into())).expect("cargo names what it has built")
}

/// Runs the program to its end.
///
/// # Panics
/// If the program does not end.
pub async fn run(arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments).stdin(Stdio::null());
    within("the end of the program", command.output()).await.expect("the program runs")
}

/// Returns a command for the program with an empty environment.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(program());
    command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command
}

/// Returns a command for the program under a shell's limits, such as `ulimit -n 256`.
#[must_use]
pub fn limited(limits: &str) -> Command {
    let mut command = Command::new("sh");
    command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(program());
    command
}

/// Adds `serve` with the options of every test, and more settings.
fn serve(mut command: Command, address: SocketAddr, admin: SocketAddr, settings: &[&str]) -> Command {
    command.args(["serve", "--log", "debug", "--log-format", "json"]);
    command.args(["--listen", &address.to_string(), "--admin", &admin.to_string(), "--set", &key()]);
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    command
}

/// Returns an address without a listener.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port is free");
    listener.local_addr().expect("it is bound")
}

/// A running `skirmish serve`. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    /// Address for players.
    pub address: SocketAddr,
    /// Address for operators.
    pub admin: SocketAddr,
    /// Address for other nodes, if links are enabled.
    pub link: Option<SocketAddr>,
    /// Identifier of the node.
    pub node: String,
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Process {
    /// Starts a server on free ports, with more settings (`--set`).
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), settings).await
    }

    /// Starts a server at an address.
    ///
    /// # Panics
    /// If the server does not start to listen.
    pub async fn start_at(address: SocketAddr, settings: &[&str]) -> Self {
        Self::start_command(command(), address, settings).await
    }

    /// Starts a server with a command that gets `serve` and its options as arguments.
    pub async fn start_as(command: Command, settings: &[&str]) -> Self {
        Self::start_command(command, SocketAddr::from(([127, 0, 0, 1], 0)), settings).await
    }

    async fn start_command(command: Command, address: SocketAddr, settings: &[&str]) -> Self {
        let admin = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut command = serve(command, address, admin, settings);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let log: Arc<Mutex<Vec<Value>>> = Arc::default();
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let written = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let node = String::new();
        let mut process = Self { address, admin: address, link: None, node, child, log };
        let line = process.logged("the server to listen", |line| line["message"] == "listening").await;
        let url = line["url"].as_str().expect("it says where");
        let bound = url.split('/').nth(2).expect("an authority");
        process.address = bound.parse().expect("an address");
        process.admin = line["admin"].as_str().expect("it says where").parse().expect("an address");
        process.link = line["link"].as_str().map(|link| link.parse().expect("an address"));
        process.node = line["node"].as_str().expect("it says which").to_owned();
        process
    }

    /// Starts a server with its log sent to `stderr`, where this test does not read it.
    ///
    /// # Panics
    /// If the server does not answer at its admin address.
    pub async fn start_unread(stderr: impl Fn() -> Stdio, settings: &[&str]) -> Self {
        loop {
            // Another process may take these addresses before the server does. Then the server ends, and
            // other addresses are tried.
            let (address, admin) = (free_address(), free_address());
            let mut command = serve(command(), address, admin, settings);
            let child = command.stderr(stderr()).spawn().expect("the program starts");
            let (node, log) = (String::new(), Arc::default());
            let mut process = Self { address, admin, link: None, node, child, log };
            let mut ended = false;
            eventually("the server to listen", async || {
                ended = process.child.try_wait().expect("a child can be asked").is_some();
                ended || TcpStream::connect(admin).await.is_ok()
            })
            .await;
            if !ended {
                return process;
            }
            let code = process.exit().await;
            assert_eq!(code, Some(1), "it did not start, and not for an address in use");
        }
    }

    /// Identifier of the process.
    ///
    /// # Panics
    /// If the process has ended.
    #[must_use]
    pub fn pid(&self) -> Pid {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        id.expect("it runs")
    }

    /// URL for the client library.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// Returns the lines of the log so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.lines().clone()
    }

    /// Returns the number of log lines so far for which `is` returns true.
    pub fn count(&self, is: impl Fn(&Value) -> bool) -> usize {
        self.lines().iter().filter(|line| is(line)).count()
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Value>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a line of the log.
    ///
    /// # Panics
    /// If the process ends before.
    pub async fn logged(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        eventually(what, async || {
            // The state is read first, so that the last lines of an ended process are seen.
            let ended = self.child.try_wait().expect("a child can be asked");
            found = self.lines().iter().find(|line| is(line)).cloned();
            assert!(found.is_some() || ended.is_none(), "{ended:?}: {:#?}", self.log());
            found.is_some()
        })
        .await;
        found.expect("it was waited for")
    }

    /// Opens silent connections until the server refuses one.
    ///
    /// # Panics
    /// If the server does not listen.
    pub async fn fill(&self) -> Vec<TcpStream> {
        let mut silent = Vec::new();
        eventually("all places to be taken", async || {
            for _ in 0..16 {
                silent.push(TcpStream::connect(self.address).await.expect("the server listens"));
            }
            metric(self.admin, "skirmish_refused_total").await.is_some_and(|refused| refused > 0)
        })
        .await;
        silent
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child takes signals");
    }

    /// Waits for the end of the process. Returns the exit code; `None` if a signal killed the process.
    ///
    /// # Panics
    /// If the process does not end.
    pub async fn exit(&mut self) -> Option<i32> {
        within("the end of the server", self.child.wait()).await.expect("a child can be waited for").code()
    }

    /// Kills the process with a signal that cannot be caught. Returns the address for players.
    pub async fn kill(mut self) -> SocketAddr {
        self.signal(Signal::KILL);
        assert_eq!(self.exit().await, None);
        self.address
    }
}

/// A file with the secret of the servers, for `skirmish bots`. Dropping it removes the file.
#[derive(Debug)]
pub struct KeyFile(String);

impl KeyFile {
    /// Writes a key file.
    ///
    /// # Panics
    /// If no temporary file can be written.
    #[must_use]
    pub fn write() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("skirmish-bots-{}-{}.key", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name).into_os_string().into_string().expect("it is text");
        std::fs::write(&path, SECRET).expect("a temporary file");
        Self(path)
    }

    /// Returns the options that pass the key file to bots.
    #[must_use]
    pub fn options(&self) -> [&str; 4] {
        ["--key-file", &self.0, "--key-id", "test"]
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns a setting with the key of another deployment; with `beside`, also the usual key, as during a
/// rotation.
#[must_use]
pub fn other_key(beside: bool) -> String {
    let other = "{ id = \"other\", secret = \"another secret, of at least 32 bytes\" }";
    if beside { key().replacen('[', &format!("[{other}, "), 1) } else { format!("auth.keys=[{other}]") }
}

/// Returns a setting with the key of the servers.
#[must_use]
pub fn key() -> String {
    format!("auth.keys=[{{ id = \"test\", secret = \"{SECRET}\" }}]")
}
