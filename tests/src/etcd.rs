//! Real etcds, each a process on ports and with a data directory of its own.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Client, ConnectOptions};
use rustix::process::{Pid, Signal, kill_process};
use skirmish_core::registry::{KeyValue, LeaseId};
use tokio::process::{Child, Command};

use crate::{eventually, within};

/// How long one try to reach an etcd that may not listen yet, or be stopped, may take.
const TRY: Duration = Duration::from_secs(2);

/// The etcds that `scripts/etcd` installs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 3.4, from Debian.
    V3_4,
    /// 3.5.1, from PyPI.
    V3_5,
    /// 3.5.16, from Debian 13.
    V3_5_16,
}

impl Version {
    /// Those that are installed, the oldest first.
    ///
    /// # Panics
    /// If none is: that a test has nothing to run against is a failure of the test.
    #[must_use]
    pub fn installed() -> Vec<Self> {
        let mut versions = vec![Self::V3_4, Self::V3_5, Self::V3_5_16];
        versions.retain(|version| version.program().exists());
        assert!(!versions.is_empty(), "no etcd is installed in target/etcd: run scripts/etcd");
        versions
    }

    /// The oldest that is installed of those that keep what they have acknowledged when they are
    /// killed: before 3.5.5 one of 3.5 that is alone may forget it.
    ///
    /// # Panics
    /// If none is.
    #[must_use]
    pub fn durable() -> Self {
        let durable = Self::installed().into_iter().find(|version| *version != Self::V3_5);
        durable.expect("no etcd but 3.5.1, which forgets what it has acknowledged when it is killed")
    }

    /// The newest that is installed.
    ///
    /// # Panics
    /// If none is.
    #[must_use]
    pub fn newest() -> Self {
        Self::installed().pop().expect("there is one")
    }

    fn program(self) -> PathBuf {
        let name = match self {
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
            Self::V3_5_16 => "3.5.16",
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate is in the workspace");
        root.join("target/etcd").join(name).join("etcd")
    }
}

/// An etcd, alone or a member of a [`Cluster`]. Dropped, it is killed and its data removed.
#[derive(Debug)]
pub struct Etcd {
    version: Version,
    options: Vec<String>,
    directory: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    name: String,
    /// What `--initial-cluster` says.
    members: String,
    child: Option<Child>,
}

impl Etcd {
    /// Starts the newest etcd there is and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(Version::newest(), &[]).await
    }

    /// Starts an etcd, with more options of its command line, and waits until it answers.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start_with(version: Version, options: &[&str]) -> Self {
        let mut etcd = Self::new(version, options, "single");
        etcd.members = etcd.member();
        etcd.spawn();
        etcd.ready().await;
        etcd
    }

    fn new(version: Version, options: &[&str], name: &str) -> Self {
        let [client, peer] = free_addresses();
        Self {
            version,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            directory: fresh_directory(),
            client,
            peer,
            name: name.to_owned(),
            members: String::new(),
            child: None,
        }
    }

    fn member(&self) -> String {
        format!("{}=http://{}", self.name, self.peer)
    }

    /// Which series it is of.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.client
    }

    /// Where clients connect, as they want to be told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// A client of this etcd only.
    ///
    /// # Panics
    /// If it cannot connect.
    pub async fn client(&self) -> Client {
        within("a client of etcd", Client::connect([self.url()], None)).await.expect("etcd listens")
    }

    /// Starts the process, which must not run, on the data that it left, and does not wait.
    ///
    /// # Panics
    /// If there is no process to be had.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let mut command = Command::new(self.version.program());
        // Settings of whoever runs the tests would be options of etcd.
        command.env_clear().current_dir(&self.directory).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        let (client, peer) = (self.url(), format!("http://{}", self.peer));
        command.args(["--name", &self.name, "--data-dir", "data", "--logger", "zap"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.members, "--initial-cluster-state", "new"]);
        if self.version >= Version::V3_5 {
            // A kill loses nothing that the operating system has; only its crash would.
            command.arg("--unsafe-no-fsync");
        }
        command.args(&self.options);
        self.child = Some(command.spawn().expect("etcd starts"));
    }

    /// Waits until it answers, which takes a majority of the members.
    ///
    /// # Panics
    /// If it does not, or has ended.
    pub async fn ready(&mut self) {
        eventually("etcd to answer", async || {
            if let Some(child) = &mut self.child {
                let ended = child.try_wait().expect("a child can be asked");
                assert!(ended.is_none(), "{ended:?}: {}", self.log());
            }
            self.answers().await
        })
        .await;
    }

    /// Whether it answers now.
    pub async fn answers(&self) -> bool {
        let options = ConnectOptions::new().with_connect_timeout(TRY).with_timeout(TRY);
        match Client::connect([self.url()], Some(options)).await {
            Ok(mut client) => client.get("ready", None).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Whether the process has ended.
    ///
    /// # Panics
    /// If it cannot be asked.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("a child can be asked").is_some())
    }

    /// Stops the process where it is, as a long pause of its machine would.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process as nothing can resist, paused or not. Its data stays.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            within("the end of etcd", child.kill()).await.expect("a child can be killed");
        }
    }

    /// Starts it again, on the same data and addresses, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.spawn();
        self.ready().await;
    }

    /// Copies its data, while it does not run. Where to.
    ///
    /// # Panics
    /// If it runs, or the data cannot be copied.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        assert!(self.child.is_none(), "it runs");
        let copy = self.directory.join("copy");
        copy_directory(&self.directory.join("data"), &copy);
        copy
    }

    /// Puts a copy in place of its data, or nothing, while it does not run.
    ///
    /// # Panics
    /// If it runs, or the data cannot be replaced.
    pub fn put_back(&self, copy: Option<&Path>) {
        assert!(self.child.is_none(), "it runs");
        let data = self.directory.join("data");
        std::fs::remove_dir_all(&data).expect("there is data");
        if let Some(copy) = copy {
            copy_directory(copy, &data);
        }
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn signal(&self, signal: Signal) {
        let id =
            self.child.as_ref().and_then(Child::id).and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.expect("it runs"), signal).expect("a child takes signals");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
            // Until it is gone it may write what is being removed.
            while matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Three members.
#[derive(Debug)]
pub struct Cluster {
    /// In no particular order; any of them may lead.
    pub members: Vec<Etcd>,
}

impl Cluster {
    /// Starts three members of the newest etcd there is and waits until each answers.
    pub async fn start() -> Self {
        Self::start_with(Version::newest(), &[]).await
    }

    /// Starts three members, with more options of their command line, and waits until each
    /// answers.
    pub async fn start_with(version: Version, options: &[&str]) -> Self {
        let names = ["one", "two", "three"];
        let mut members: Vec<_> = names.iter().map(|name| Etcd::new(version, options, name)).collect();
        let all = members.iter().map(Etcd::member).collect::<Vec<_>>().join(",");
        for member in &mut members {
            member.members.clone_from(&all);
            member.spawn();
        }
        for member in &mut members {
            member.ready().await;
        }
        Self { members }
    }

    /// Where clients connect.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(Etcd::url).collect()
    }

    /// Waits until a member that answers leads. Its index.
    ///
    /// # Panics
    /// If none does.
    pub async fn leader(&self) -> usize {
        let mut leader = None;
        eventually("a leader", async || {
            for (index, member) in self.members.iter().enumerate() {
                if member.leads().await {
                    leader = Some(index);
                }
            }
            leader.is_some()
        })
        .await;
        leader.expect("it was waited for")
    }

    /// A client of a member that answers.
    ///
    /// # Panics
    /// If none does.
    pub async fn client(&self) -> Client {
        let mut client = None;
        eventually("a member to answer", async || {
            for member in &self.members {
                if client.is_none() && member.answers().await {
                    client = Some(member.client().await);
                }
            }
            client.is_some()
        })
        .await;
        client.expect("it was waited for")
    }
}

impl Etcd {
    /// Whether it says that it leads, and answers as only a leader with a majority can.
    async fn leads(&self) -> bool {
        let options = ConnectOptions::new().with_connect_timeout(TRY).with_timeout(TRY);
        let Ok(mut client) = Client::connect([self.url()], Some(options)).await else { return false };
        let Ok(status) = client.status().await else { return false };
        let leads = status.header().is_some_and(|header| header.member_id() == status.leader());
        leads && client.get("leader", None).await.is_ok()
    }
}

/// A key with its value, in the core's words.
///
/// # Panics
/// If etcd counts downwards.
#[must_use]
pub fn key_value(kv: &etcd_client::KeyValue) -> KeyValue {
    let unsigned = |number: i64| u64::try_from(number).expect("etcd counts upwards");
    KeyValue {
        key: Bytes::copy_from_slice(kv.key()),
        value: Bytes::copy_from_slice(kv.value()),
        created: unsigned(kv.create_revision()),
        modified: unsigned(kv.mod_revision()),
        version: unsigned(kv.version()),
        lease: (kv.lease() != 0).then(|| LeaseId(unsigned(kv.lease()))),
    }
}

/// Addresses that were free a moment ago, below those that the system gives to whoever
/// asks for any, so that only another of these could take them.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // All are held until all are known, so that they differ.
    let listeners = [(); N].map(|()| {
        let mut ports = std::iter::repeat_with(|| {
            let next = u64::from(std::process::id()) * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
            TcpListener::bind(("127.0.0.1", 20_000 + u16::try_from(next % 10_000).expect("it is below")))
        });
        ports.find_map(Result::ok).expect("there is no end of them")
    });
    listeners.map(|listener| listener.local_addr().expect("it is bound"))
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_directory(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("a file");
        }
    }
}

fn fresh_directory() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("skirmish-etcd-{}-{unique}", std::process::id()));
    std::fs::create_dir(&path).expect("a directory for an etcd");
    path
}
