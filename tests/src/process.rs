//! The program itself, in a process of its own.

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

/// The program, built when it is first asked for.
///
/// Cargo names a binary to tests (`CARGO_BIN_EXE_...`) of its own package only, and these
/// tests are in another; and where it builds several packages at once, it may give this
/// one features that the program is not shipped with. So it is built as users build it,
/// with the profile and into the directory of this test.
///
/// # Panics
/// If it cannot be built.
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
    // What Cargo tells a test of its package: build scripts that look at it would run again,
    // and all that is built on them.
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
/// If it does not end.
pub async fn run(arguments: &[&str]) -> Output {
    let mut command = command();
    command.args(arguments).stdin(Stdio::null());
    within("the end of the program", command.output()).await.expect("the program runs")
}

/// The program without the environment of whoever runs the test.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(program());
    command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command
}

/// The program, after a shell has set limits: `ulimit -n 256`.
#[must_use]
pub fn limited(limits: &str) -> Command {
    let mut command = Command::new("sh");
    command.env_clear().current_dir(std::env::temp_dir()).kill_on_drop(true);
    command.arg("-c").arg(format!("{limits}; exec \"$0\" \"$@\"")).arg(program());
    command
}

/// The options of `serve` that every test has, and more settings.
fn serve(mut command: Command, address: SocketAddr, admin: SocketAddr, settings: &[&str]) -> Command {
    command.args(["serve", "--log", "debug", "--log-format", "json"]);
    command.args(["--listen", &address.to_string(), "--admin", &admin.to_string(), "--set", &key()]);
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    command
}

/// An address that nobody listens at.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port is free");
    listener.local_addr().expect("it is bound")
}

/// A running `skirmish serve`; killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    /// Where players connect.
    pub address: SocketAddr,
    /// Where operators ask.
    pub admin: SocketAddr,
    /// Where other nodes connect, if it takes links.
    pub link: Option<SocketAddr>,
    /// Which node it is.
    pub node: String,
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Process {
    /// Starts a server on free ports, with more keys set (`--set`).
    pub async fn start(settings: &[&str]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), settings).await
    }

    /// Starts a server at an address.
    ///
    /// # Panics
    /// If it does not start to listen.
    pub async fn start_at(address: SocketAddr, settings: &[&str]) -> Self {
        Self::start_command(command(), address, settings).await
    }

    /// Starts a server by a command of one's own that `serve` and its options are passed to.
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

    /// Starts a server of which nothing can be read: its log goes where it is told.
    ///
    /// # Panics
    /// If it does not answer on its admin address.
    pub async fn start_unread(stderr: impl Fn() -> Stdio, settings: &[&str]) -> Self {
        loop {
            // Another process may take them before the server does: then it ends, and others
            // are tried.
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

    /// Its process.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn pid(&self) -> Pid {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        id.expect("it runs")
    }

    /// For the client library.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// The lines of the log so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        self.lines().clone()
    }

    /// How many lines of the log so far are such.
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
            // Asked first, so that the last lines of a process that has ended are seen.
            let ended = self.child.try_wait().expect("a child can be asked");
            found = self.lines().iter().find(|line| is(line)).cloned();
            assert!(found.is_some() || ended.is_none(), "{ended:?}: {:#?}", self.log());
            found.is_some()
        })
        .await;
        found.expect("it was waited for")
    }

    /// Opens connections that say nothing, until the server refuses one.
    ///
    /// # Panics
    /// If it does not listen.
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

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child takes signals");
    }

    /// Waits for the end of the process. Its exit code; `None` if a signal killed it.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn exit(&mut self) -> Option<i32> {
        within("the end of the server", self.child.wait()).await.expect("a child can be waited for").code()
    }

    /// Kills the process as nothing can resist.
    pub async fn kill(mut self) -> SocketAddr {
        self.signal(Signal::KILL);
        assert_eq!(self.exit().await, None);
        self.address
    }
}

/// A file with the secret of the servers, for `skirmish bots`. Dropped, it is removed.
#[derive(Debug)]
pub struct KeyFile(String);

impl KeyFile {
    /// Writes one.
    ///
    /// # Panics
    /// If there is no place for temporary files.
    #[must_use]
    pub fn write() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("skirmish-bots-{}-{}.key", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name).into_os_string().into_string().expect("it is text");
        std::fs::write(&path, SECRET).expect("a temporary file");
        Self(path)
    }

    /// The options that make bots use it.
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

/// A key of another deployment's servers, as a setting; `beside` the usual one while that is
/// rotated.
#[must_use]
pub fn other_key(beside: bool) -> String {
    let other = "{ id = \"other\", secret = \"another secret, of at least 32 bytes\" }";
    if beside { key().replacen('[', &format!("[{other}, "), 1) } else { format!("auth.keys=[{other}]") }
}

/// The key of the servers, as a setting.
#[must_use]
pub fn key() -> String {
    format!("auth.keys=[{{ id = \"test\", secret = \"{SECRET}\" }}]")
}
