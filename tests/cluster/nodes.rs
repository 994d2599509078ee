//! Nodes with a common etcd.

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

/// Time to live of nodes: the shortest that is allowed.
pub(crate) const TTL: Duration = Duration::from_secs(3);
const NODE_TTL: &str = "cluster.node_ttl=\"3s\"";
/// No test waits for this time.
const ROOM_TTL: &str = "cluster.room_ttl=\"1h\"";
/// Makes links notice silence soon.
const HEARTBEAT: &str = "cluster.heartbeat.interval=\"200ms\"";
/// Makes nodes notice the return of an etcd soon.
const BACKOFF: &str = "registry.etcd.backoff_max=\"500ms\"";

/// Registry of the nodes.
pub(crate) trait Registry {
    /// Returns the endpoints for a node, by the node's index.
    fn endpoints(&self, node: usize) -> Vec<String>;

    /// Returns a client of the registry, independent of faults between the registry and the nodes.
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

/// Each node tries a member of its own first: the first node the first member.
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

/// An etcd that nodes reach through a pipe.
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

/// The nodes, the oldest first. An older node dials a younger one.
pub(crate) struct Nodes<R = Etcd> {
    pub(crate) etcd: R,
    pub(crate) nodes: Vec<Process>,
}

impl Nodes {
    /// Starts nodes, and waits until each has a link to every other.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// Starts nodes with more settings, and waits until each has a link to every other.
    pub(crate) async fn start_with(count: usize, settings: &[&str]) -> Self {
        Self::on(Etcd::start().await, count, settings).await
    }
}

impl<R: Registry> Nodes<R> {
    /// Starts nodes on a registry with more settings, and waits until each has a link to every other.
    pub(crate) async fn on(etcd: R, count: usize, settings: &[&str]) -> Self {
        let mut this = Self { etcd, nodes: Vec::new() };
        for _ in 0..count {
            this.add(settings).await;
        }
        this.linked().await;
        this
    }

    /// Starts another node.
    pub(crate) async fn add(&mut self, settings: &[&str]) -> &mut Process {
        self.add_as(command(), settings).await
    }

    /// Starts another node with a given command.
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

    /// URL of a node for the client library.
    pub(crate) fn url(&self, node: usize) -> String {
        self.nodes[node].url()
    }

    /// Kills a node with a signal that cannot be caught.
    pub(crate) async fn kill(&mut self, node: usize) {
        self.nodes.remove(node).kill().await;
    }

    /// Returns etcd's records below a prefix.
    pub(crate) async fn records(&self, prefix: &str) -> Vec<KeyValue> {
        let options = GetOptions::new().with_prefix();
        let answer = self.etcd.client().await.get(prefix, Some(options)).await.expect("etcd answers");
        answer.kvs().iter().map(key_value).collect()
    }

    /// Returns etcd's keys below a prefix.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let text = |kv: &KeyValue| String::from_utf8(kv.key.to_vec()).expect("keys are text");
        self.records(prefix).await.iter().map(text).collect()
    }
}

/// Returns a setting with the addresses of the registry.
pub(crate) fn endpoints(urls: &[String]) -> String {
    format!("registry.etcd.endpoints={urls:?}")
}

/// Returns true if a log line has this message about another node.
pub(crate) fn is_about(line: &Value, message: &str, node: &str) -> bool {
    line["message"] == message && line["node"] == node
}

/// Returns a node's identifier.
pub(crate) fn number(node: &Process) -> u64 {
    u64::from_str_radix(&node.node, 16).expect("a node is a number")
}

/// Waits until a node is ready.
pub(crate) async fn ready(node: &Process) {
    eventually("a node to be ready", async || get(node.admin, "/readyz").await.0 == 200).await;
}

/// Waits until a metric of a node has this value.
pub(crate) async fn shows(node: &Process, name: &str, value: u64) {
    let what = format!("{name} to be {value}");
    eventually(&what, async || metric(node.admin, name).await == Some(value)).await;
}
