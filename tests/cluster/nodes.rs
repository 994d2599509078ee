//! Nodes with an etcd between them.

use serde_json::Value;
use skirmish_tests::etcd::Etcd;
use skirmish_tests::eventually;
use skirmish_tests::http::{get, metric};
use skirmish_tests::process::Process;

/// As short as may be.
const NODE_TTL: &str = "cluster.node_ttl=\"3s\"";
/// So long that nothing can have waited for it.
const ROOM_TTL: &str = "cluster.room_ttl=\"1h\"";
/// Links notice quickly that nothing passes.
const HEARTBEAT: &str = "cluster.heartbeat.interval=\"200ms\"";

/// The nodes, the oldest first: the older dials the younger.
pub(crate) struct Nodes {
    pub(crate) etcd: Etcd,
    pub(crate) nodes: Vec<Process>,
}

impl Nodes {
    /// Starts nodes and waits until each has a link to every other.
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, &[]).await
    }

    /// Starts nodes with more keys set, and waits until each has a link to every other.
    pub(crate) async fn start_with(count: usize, settings: &[&str]) -> Self {
        let mut this = Self { etcd: Etcd::start().await, nodes: Vec::new() };
        for _ in 0..count {
            this.add(settings).await;
        }
        this.linked().await;
        this
    }

    /// Starts one more node.
    pub(crate) async fn add(&mut self, settings: &[&str]) -> &mut Process {
        let endpoints = format!("registry.etcd.endpoints=[\"{}\"]", self.etcd.url());
        let mut all = vec!["registry.kind=etcd", &endpoints, "cluster.link.address=127.0.0.1:0"];
        all.extend([NODE_TTL, ROOM_TTL, HEARTBEAT]);
        all.extend(settings);
        self.nodes.push(Process::start(&all).await);
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
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let options = etcd_client::GetOptions::new().with_prefix().with_keys_only();
        let answer = self.etcd.client().await.get(prefix, Some(options)).await.expect("etcd answers");
        answer.kvs().iter().map(|kv| kv.key_str().expect("keys are text").to_owned()).collect()
    }
}

/// Whether a line of the log says this of another node.
pub(crate) fn is_about(line: &Value, message: &str, node: &str) -> bool {
    line["message"] == message && line["node"] == node
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
