//! Real etcd processes, each with ports and a data directory of its own.

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

/// Time limit of one attempt to reach an etcd, which may not listen yet or may be paused.
const TRY: Duration = Duration::from_secs(2);

/// etcd versions that `scripts/etcd` installs.
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
    /// Returns the installed versions, the oldest first.
    ///
    /// # Panics
    /// If no version is installed: a test without an etcd fails.
    #[must_use]
    pub fn installed() -> Vec<Self> {
        let mut versions = vec![Self::V3_4, Self::V3_5, Self::V3_5_16];
        versions.retain(|version| version.program().exists());
        assert!(!versions.is_empty(), "no etcd is installed in target/etcd: run scripts/etcd");
        versions
    }

    /// Returns the oldest installed version that keeps its acknowledged writes when it is killed. Before
    /// 3.5.5 a single etcd 3.5 may lose them.
    ///
    /// # Panics
    /// If no such version is installed.
    #[must_use]
    pub fn durable() -> Self {
        let durable = Self::installed().into_iter().find(|version| *version != Self::V3_5);
        durable.expect("no etcd but 3.5.1, which forgets what it has acknowledged when it is killed")
    }

    /// Returns the newest installed version.
    ///
    /// # Panics
    /// If no version is installed.
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

/// A single etcd, or a member of a [`Cluster`]. Dropping it kills the process and removes the data.
#[derive(Debug)]
pub struct Etcd {
    version: Version,
    options: Vec<String>,
    directory: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
    name: String,
    /// Value of `--initial-cluster`.
    members: String,
    child: Option<Child>,
}

impl Etcd {
    /// Starts the newest installed etcd, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(Version::newest(), &[]).await
    }

    /// Starts an etcd with more command-line options, and waits until it answers.
    ///
    /// # Panics
    /// If the etcd does not answer.
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

    /// Version of this etcd.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Address for clients.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.client
    }

    /// URL for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// Returns a client of this etcd only.
    ///
    /// # Panics
    /// If the client cannot connect.
    pub async fn client(&self) -> Client {
        within("a client of etcd", Client::connect([self.url()], None)).await.expect("etcd listens")
    }

    /// Starts the process on its existing data, without waiting. The process must not run.
    ///
    /// # Panics
    /// If the process cannot be started.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let mut command = Command::new(self.version.program());
        // etcd would read options from the environment of the test.
        command.env_clear().current_dir(&self.directory).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log file")).stderr(log);
        let (client, peer) = (self.url(), format!("http://{}", self.peer));
        command.args(["--name", &self.name, "--data-dir", "data", "--logger", "zap"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.members, "--initial-cluster-state", "new"]);
        if self.version >= Version::V3_5 {
            // After a kill, the operating system still has all writes; only its own crash would lose them.
            command.arg("--unsafe-no-fsync");
        }
        command.args(&self.options);
        self.child = Some(command.spawn().expect("etcd starts"));
    }

    /// Waits until the etcd answers, which needs a majority of the members.
    ///
    /// # Panics
    /// If the etcd does not answer, or has ended.
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

    /// Returns true if the etcd answers now.
    pub async fn answers(&self) -> bool {
        let options = ConnectOptions::new().with_connect_timeout(TRY).with_timeout(TRY);
        match Client::connect([self.url()], Some(options)).await {
            Ok(mut client) => client.get("ready", None).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Returns true if the process has ended.
    ///
    /// # Panics
    /// If the state of the process cannot be read.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("a child can be asked").is_some())
    }

    /// Stops the process, like a long pause of its machine.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues a paused process.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills the process with a signal that cannot be caught, paused or not. The data stay.
    ///
    /// # Panics
    /// If the process does not end.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            within("the end of etcd", child.kill()).await.expect("a child can be killed");
        }
    }

    /// Starts the process again on the same data and addresses, and waits until it answers.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.spawn();
        self.ready().await;
    }

    /// Copies the data of a stopped etcd, and returns the path of the copy.
    ///
    /// # Panics
    /// If the process runs, or the data cannot be copied.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        assert!(self.child.is_none(), "it runs");
        let copy = self.directory.join("copy");
        copy_directory(&self.directory.join("data"), &copy);
        copy
    }

    /// Replaces the data of a stopped etcd by a copy, or removes them.
    ///
    /// # Panics
    /// If the process runs, or the data cannot be replaced.
    pub fn put_back(&self, copy: Option<&Path>) {
        assert!(self.child.is_none(), "it runs");
        let data = self.directory.join("data");
        std::fs::remove_dir_all(&data).expect("there is data");
        if let Some(copy) = copy {
            copy_directory(copy, &data);
        }
    }

    /// Returns the log so far.
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
            // The process may write to the directory until its end.
            while matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// An etcd cluster of three members.
#[derive(Debug)]
pub struct Cluster {
    /// Members in no particular order; any of them may lead.
    pub members: Vec<Etcd>,
}

impl Cluster {
    /// Starts three members of the newest installed etcd, and waits until each answers.
    pub async fn start() -> Self {
        Self::start_with(Version::newest(), &[]).await
    }

    /// Starts three members with more command-line options, and waits until each answers.
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

    /// URLs for clients.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(Etcd::url).collect()
    }

    /// Waits until a member that answers leads. Returns its index.
    ///
    /// # Panics
    /// If no member leads.
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

    /// Returns a client of a member that answers.
    ///
    /// # Panics
    /// If no member answers.
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
    /// Returns true if the member reports itself as leader, and answers a read that needs a majority.
    async fn leads(&self) -> bool {
        let options = ConnectOptions::new().with_connect_timeout(TRY).with_timeout(TRY);
        let Ok(mut client) = Client::connect([self.url()], Some(options)).await else { return false };
        let Ok(status) = client.status().await else { return false };
        let leads = status.header().is_some_and(|header| header.member_id() == status.leader());
        leads && client.get("leader", None).await.is_ok()
    }
}

/// Converts a key with its value to the core's type.
///
/// # Panics
/// If etcd sends a negative number.
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

/// Returns addresses that were free a moment ago. Their ports are below those that the system assigns by
/// itself, so only another test could take them.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // All listeners stay open until all ports are known, so that the ports differ.
    let listeners = [(); N].map(|()| {
        let mut ports = std::iter::repeat_with(|| {
            // Test programs that start one after the other have neighbouring numbers, and up to a thousand
            // ports each.
            let next = u64::from(std::process::id()) * 1_009 + NEXT.fetch_add(1, Ordering::Relaxed);
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
