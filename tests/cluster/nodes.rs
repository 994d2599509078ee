//! Nodes with an etcd between them.

use std::time::Duration;

use etcd_client::{Client, GetOptions};
use serde_json::Value;
use skirmish_core::registry::KeyValue;
use skirmish_tests::etcd::{Cluster, Etcd, key_value};
use skirmish_tests::eventually;
use skirmish_tests::http::{get, metric};
use skirmish_tests::pipe::Pipe;
use skirmish_tests::process::{Process, command};
use tokio::process::Command;

/// How long nodes are taken to live: as short as may be.
pub(crate) const TTL: Duration = Duration::from_secs(3);
const NODE_TTL: &str = "cluster.node_ttl=\"3s\"";
/// So long that nothing can have waited for it.
const ROOM_TTL: &str = "cluster.room_ttl=\"1h\"";
/// Links notice quickly that nothing passes.
const HEARTBEAT: &str = "cluster.heartbeat.interval=\"200ms\"";
/// Nodes are quick to notice that an etcd is there again.
const BACKOFF: &str = "registry.etcd.backoff_max=\"500ms\"";

/// What is between nodes.
pub(crate) trait Registry {
    /// Where a node is to look for it, by the node's number.
    fn endpoints(&self, node: usize) -> Vec<String>;

    /// A client of it, whatever keeps nodes away from it.
    async fn client(&self) -> Client;
}

impl Registry for Etcd {
    fn endpoints(&self, _node: usize) -> Vec<String> {
        vec![self.url()]
    }

    async fn client(&self) -> Client {
        self.client().await
    }
}

/// Each node begins with a member of its own, the first with the first.
impl Registry for Cluster {
    fn endpoints(&self, node: usize) -> Vec<String> {
        let mut urls = self.urls();
        let first = node % urls.len();
        urls.rotate_left(first);
        urls
    }

    async fn client(&self) -> Client {
        self.client().await
    }
}

/// An etcd behind a pipe, by which nodes reach it.
pub(crate) struct Piped {
    pub(crate) etcd: Etcd,
    pub(crate) pipe: Pipe,
}

impl Piped {
    pub(crate) async fn start() -> Self {
        let etcd = Etcd::start().await;
        let pipe = Pipe::start(etcd.address()).await;
        Self { etcd, pipe }
    }
}

impl Registry for Piped {
    fn endpoints(&self, _node: usize) -> Vec<String> {
        vec![self.pipe.url()]
    }

    async fn client(&self) -> Client {
        self.etcd.client().await
    }
}

/// The nodes, the oldest first: the older dials the younger.
pub(crate) struct Nodes<R = Etcd> {
    pub(crate) etcd: R,
    pub(crate) nodes: Vec<Process>,
}

impl Nodes {
    /// Starts nodes and waits until each has a link to every other.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// Starts nodes with more keys set, and waits until each has a link to every other.
    pub(crate) async fn start_with(count: usize, settings: &[&str]) -> Self {
        Self::on(Etcd::start().await, count, settings).await
    }
}

impl<R: Registry> Nodes<R> {
    /// Starts nodes on a registry, with more keys set, and waits until each has a link to
    /// every other.
    pub(crate) async fn on(etcd: R, count: usize, settings: &[&str]) -> Self {
        let mut this = Self { etcd, nodes: Vec::new() };
        for _ in 0..count {
            this.add(settings).await;
        }
        this.linked().await;
        this
    }

    /// Starts one more node.
    pub(crate) async fn add(&mut self, settings: &[&str]) -> &mut Process {
        self.add_as(command(), settings).await
    }

    /// Starts one more node, by a command of one's own.
    pub(crate) async fn add_as(&mut self, command: Command, settings: &[&str]) -> &mut Process {
        let endpoints = endpoints(&self.etcd.endpoints(self.nodes.len()));
        let mut all = vec!["registry.kind=etcd", &endpoints, "cluster.link.address=127.0.0.1:0"];
        all.extend([NODE_TTL, ROOM_TTL, HEARTBEAT, BACKOFF]);
        all.extend(settings);
        self.nodes.push(Process::start_as(command, &all).await);
        self.nodes.last_mut().expect("it was pushed")
    }

    /// Waits until each node serves and has a link to every other.
    pub(crate) async fn linked(&mut self) {
        let ids: Vec<String> = self.nodes.iter().map(|node| node.node.clone()).collect();
        for node in &mut self.nodes {
            let this = node.node.clone();
            for other in ids.iter().filter(|other| **other != this) {
                node.logged("a link", |line| is_about(line, "link up", other)).await;
            }
            ready(node).await;
        }
    }

    /// For the client library.
    pub(crate) fn url(&self, node: usize) -> String {
        self.nodes[node].url()
    }

    /// Kills a node as nothing can resist.
    pub(crate) async fn kill(&mut self, node: usize) {
        self.nodes.remove(node).kill().await;
    }

    /// What etcd has below a prefix.
    pub(crate) async fn records(&self, prefix: &str) -> Vec<KeyValue> {
        let options = GetOptions::new().with_prefix();
        let answer = self.etcd.client().await.get(prefix, Some(options)).await.expect("etcd answers");
        answer.kvs().iter().map(key_value).collect()
    }

    /// The keys that etcd has below a prefix.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let text = |kv: &KeyValue| String::from_utf8(kv.key.to_vec()).expect("keys are text");
        self.records(prefix).await.iter().map(text).collect()
    }
}

/// The addresses of the registry, as a setting.
pub(crate) fn endpoints(urls: &[String]) -> String {
    format!("registry.etcd.endpoints={urls:?}")
}

/// Whether a line of the log says this of another node.
pub(crate) fn is_about(line: &Value, message: &str, node: &str) -> bool {
    line["message"] == message && line["node"] == node
}

/// A node's identifier.
pub(crate) fn number(node: &Process) -> u64 {
    u64::from_str_radix(&node.node, 16).expect("a node is a number")
}

/// Waits until a node is ready.
pub(crate) async fn ready(node: &Process) {
    eventually("a node to be ready", async || get(node.admin, "/readyz").await.0 == 200).await;
}

/// Waits until a figure of a node is this.
pub(crate) async fn shows(node: &Process, name: &str, value: u64) {
    let what = format!("{name} to be {value}");
    eventually(&what, async || metric(node.admin, name).await == Some(value)).await;
}
