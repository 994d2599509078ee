//! The cluster: this node's part in it, and the links between nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skirmish_core::config as core;

use super::validate::check;
use super::{Config, RegistryKind};

/// Longest name of a node, in bytes.
pub(crate) const MAX_NODE_NAME: usize = 64;

/// Shortest time to live. A shorter one leaves a node no time to miss a keep-alive; etcd makes
/// leases longer anyway.
const MIN_TTL: Duration = Duration::from_secs(3);

/// This node as a member of a cluster. By default the node is alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The node's name, for people; at most 64 bytes. Without one, the host's name.
    pub name: Option<String>,
    /// True if links over addresses that are not loopback may lack mutual TLS. Then every peer that
    /// reaches such an address can act as a node. False by default.
    pub insecure: bool,
    /// Listener for the links of other nodes.
    pub link: LinkListener,
    /// Mutual TLS between nodes.
    pub tls: ClusterTls,
    /// Liveness of links.
    pub heartbeat: LinkHeartbeat,
    /// Time after which the registry takes a silent node for dead; 10 s by default. A node that
    /// cannot reach the registry stops serving before.
    #[serde(with = "humantime_serde")]
    pub node_ttl: Duration,
    /// Time for which the registry keeps a room after its primary was last heard; 1 min by default.
    #[serde(with = "humantime_serde")]
    pub room_ttl: Duration,
    /// Nodes that have a room; 1 by default: a room ends with its node. With 2, a backup goes on with
    /// the room.
    pub replicas: u32,
    /// Time after which a backup is given up that stores nothing of what it was sent; 1 s by default.
    #[serde(with = "humantime_serde")]
    pub backup_patience: Duration,
}

impl Default for Cluster {
    fn default() -> Self {
        let core::Config { registrar, replication, .. } = core::Config::default();
        let core::RegistrarConfig { node_ttl, room_ttl, .. } = registrar;
        let core::ReplicationConfig { replicas, backup_patience } = replication;
        Self {
            name: None,
            insecure: false,
            link: LinkListener::default(),
            tls: ClusterTls::default(),
            heartbeat: LinkHeartbeat::default(),
            node_ttl,
            room_ttl,
            replicas,
            backup_patience,
        }
    }
}

/// Listener for the links of other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkListener {
    /// Address and port to listen at; port 0 takes any free port. Without an address the node
    /// accepts no links.
    pub address: Option<SocketAddr>,
    /// `host:port` that other nodes dial. By default the address of the listener.
    pub advertise: Option<String>,
    /// Bytes that may wait for a link; 16 MiB by default. Beyond that the link is dropped and dialed
    /// anew.
    pub queue_bytes: usize,
}

impl Default for LinkListener {
    fn default() -> Self {
        let core::LinkLimits { queue_bytes, .. } = core::Config::default().links;
        Self { address: None, advertise: None, queue_bytes }
    }
}

/// Mutual TLS between nodes: all three files, or none. The authority should sign nodes and
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterTls {
    /// PEM file with the certificates of the authority that signs those of nodes.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this node's certificate and its chain.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with its private key.
    pub key_file: Option<PathBuf>,
    /// DNS name that every node certificate must contain; `skirmish-node` by default.
    pub name: String,
}

impl Default for ClusterTls {
    fn default() -> Self {
        Self { ca_file: None, certificate_file: None, key_file: None, name: "skirmish-node".to_owned() }
    }
}

/// Liveness of links, like `heartbeat` for connections. Nodes are close to each other, so the
/// defaults are shorter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkHeartbeat {
    /// Time between two pings; 1 s by default.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Each interval is shortened by a random part of up to this many percent.
    pub jitter_percent: u8,
    /// After this many unanswered pings the link counts as unhealthy.
    pub unhealthy_after: u8,
    /// After this many unanswered pings the link is dropped and dialed anew.
    pub close_after: u8,
}

impl Default for LinkHeartbeat {
    fn default() -> Self {
        let core::HeartbeatConfig { interval, jitter_percent, unhealthy_after, close_after } =
            core::Config::default().links.heartbeat;
        Self { interval, jitter_percent, unhealthy_after, close_after }
    }
}

impl Cluster {
    /// Returns the core's limits of links, with room for frames of this size.
    pub(super) fn links(&self, frame_bytes: usize) -> core::LinkLimits {
        let LinkHeartbeat { interval, jitter_percent, unhealthy_after, close_after } = self.heartbeat;
        let links = core::Config::default().links;
        core::LinkLimits {
            heartbeat: core::HeartbeatConfig { interval, jitter_percent, unhealthy_after, close_after },
            frame_bytes: links.frame_bytes.max(frame_bytes.saturating_add(core::Config::FRAME_OVERHEAD)),
            queue_bytes: self.link.queue_bytes,
            ..links
        }
    }

    /// Returns the core's settings of backups.
    pub(super) const fn replication(&self) -> core::ReplicationConfig {
        core::ReplicationConfig { replicas: self.replicas, backup_patience: self.backup_patience }
    }

    /// Returns the core's settings for a registry whose requests take at most this time.
    pub(super) fn registrar(&self, request_timeout: Duration) -> core::RegistrarConfig {
        let usual = core::RegistrarConfig::default();
        // A lease must outlive two requests to prolong it that get no answer.
        let call_timeout = request_timeout.min(self.node_ttl / 3);
        core::RegistrarConfig { node_ttl: self.node_ttl, room_ttl: self.room_ttl, call_timeout, ..usual }
    }
}

impl ClusterTls {
    /// Returns the files of the authority, the certificate and the key, if TLS is configured.
    #[must_use]
    pub const fn files(&self) -> Option<[&PathBuf; 3]> {
        match (&self.ca_file, &self.certificate_file, &self.key_file) {
            (Some(ca), Some(certificate), Some(key)) => Some([ca, certificate, key]),
            _ => None,
        }
    }
}

impl Config {
    /// Checks the values of the cluster that a type cannot.
    ///
    /// # Errors
    /// The first key with a value that makes no sense, and the problem.
    pub(super) fn validate_cluster(&self) -> Result<(), (String, String)> {
        let Cluster {
            name,
            insecure,
            link,
            tls,
            heartbeat: beat,
            node_ttl,
            room_ttl,
            replicas,
            backup_patience,
        } = &self.cluster;
        check(
            name.as_ref().is_none_or(|name| !name.is_empty() && name.len() <= MAX_NODE_NAME),
            "cluster.name",
            "must have from 1 to 64 bytes",
        )?;
        let files = [&tls.ca_file, &tls.certificate_file, &tls.key_file];
        check(
            tls.files().is_some() || files.iter().all(|file| file.is_none()),
            "cluster.tls",
            "needs `ca_file`, `certificate_file` and `key_file`, or none of them",
        )?;
        check(!tls.name.is_empty(), "cluster.tls.name", "must not be empty")?;
        if let Some(advertised) = &link.advertise {
            check(link.address.is_some(), "cluster.link.advertise", "needs `cluster.link.address`")?;
            check(
                is_host_and_port(advertised),
                "cluster.link.advertise",
                "must be a host and a port, such as `node-1.example:9700`",
            )?;
        }
        if let Some(address) = link.address {
            check(
                self.registry.kind != RegistryKind::Embedded,
                "cluster.link.address",
                "is of no use while every node has a registry of its own: nodes find each other in a shared one, `registry.kind = \"etcd\"`",
            )?;
            check(
                *insecure || tls.files().is_some() || address.ip().to_canonical().is_loopback(),
                "cluster.link.address",
                "is not a loopback address: whoever reaches it could be a node. Configure mutual TLS (`cluster.tls`), or say `cluster.insecure = true` where the network keeps strangers away",
            )?;
            check(
                link.advertise.is_some() || !address.ip().to_canonical().is_unspecified(),
                "cluster.link.advertise",
                "must say what other nodes dial, since `cluster.link.address` stands for every address of this host",
            )?;
            let taken = [Some(self.listen.address), self.admin.enabled.then_some(self.admin.address)];
            check(
                address.port() == 0 || !taken.contains(&Some(address)),
                "cluster.link.address",
                "must not be the address of another listener",
            )?;
        }
        check(*node_ttl >= MIN_TTL, "cluster.node_ttl", "must be at least 3s")?;
        check(room_ttl >= node_ttl, "cluster.room_ttl", "must be at least cluster.node_ttl")?;
        check((1..=2).contains(replicas), "cluster.replicas", "must be 1 or 2")?;
        check(!backup_patience.is_zero(), "cluster.backup_patience", "must not be zero")?;
        check(beat.interval >= Duration::from_millis(1), "cluster.heartbeat.interval", "must be at least 1ms")
    }
}

/// Returns true if the text is `host:port`, with an IPv6 address in brackets, and can be dialed.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_is_good = port.parse().is_ok_and(|port: u16| port > 0);
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_is_good = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified()),
        None => !host.is_empty() && host != "0.0.0.0" && !host.contains([':', '/', ' ', '[', ']', '@']),
    };
    port_is_good && host_is_good
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the key of the error after a change of a valid configuration of mutual TLS.
    fn wrong(change: impl FnOnce(&mut Cluster)) -> Option<String> {
        let mut config = Config::default();
        config.registry.kind = RegistryKind::Etcd;
        let cluster = &mut config.cluster;
        cluster.link.address = Some(SocketAddr::from(([10, 0, 0, 1], 9700)));
        for file in [&mut cluster.tls.ca_file, &mut cluster.tls.certificate_file, &mut cluster.tls.key_file] {
            *file = Some("file.pem".into());
        }
        change(cluster);
        config.validate().err().map(|(key, _)| key)
    }

    fn key(key: &str) -> Option<String> {
        Some(format!("cluster.{key}"))
    }

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn links_without_tls_are_for_loopback_or_for_those_who_say_so() {
        let plain = |at: &str, insecure| {
            wrong(|cluster| {
                cluster.tls = ClusterTls::default();
                cluster.insecure = insecure;
                cluster.link.address = address(at);
                cluster.link.advertise = Some("node:9700".to_owned());
            })
        };
        for loopback in ["127.0.0.1:9700", "127.9.9.9:9700", "[::1]:9700", "[::ffff:127.0.0.1]:9700"] {
            assert_eq!(plain(loopback, false), None, "{loopback}");
        }
        for other in ["10.0.0.1:9700", "0.0.0.0:9700", "[::]:9700", "[2001:db8::1]:9700"] {
            assert_eq!(plain(other, false), key("link.address"), "{other}");
            assert_eq!(plain(other, true), None, "{other}");
        }
        assert_eq!(wrong(|_| ()), None, "mutual TLS is enough");
    }

    #[test]
    fn links_need_a_registry_that_nodes_share() {
        let mut config = Config::default();
        config.cluster.link.address = address("127.0.0.1:0");
        let (key, problem) = config.validate().unwrap_err();
        assert!(key == "cluster.link.address" && problem.contains("registry.kind"), "{key}: {problem}");
        config.registry.kind = RegistryKind::Etcd;
        assert_eq!(config.validate(), Ok(()));
    }

    #[test]
    fn a_request_takes_as_long_as_the_registry_allows_and_a_lease_outlives_two() {
        let mut config = Config::default();
        let call_timeout = |config: &Config| config.core().registrar.call_timeout;
        assert_eq!(call_timeout(&config), config.registry.etcd.request_timeout);
        config.registry.etcd.request_timeout = Duration::from_secs(3);
        assert_eq!(call_timeout(&config), Duration::from_secs(3));
        config.cluster.node_ttl = Duration::from_secs(6);
        assert_eq!(call_timeout(&config), Duration::from_secs(2));
    }

    #[test]
    fn mutual_tls_is_whole_or_not_at_all() {
        assert_eq!(wrong(|cluster| cluster.tls.ca_file = None), key("tls"));
        assert_eq!(wrong(|cluster| cluster.tls.certificate_file = None), key("tls"));
        assert_eq!(wrong(|cluster| cluster.tls.key_file = None), key("tls"));
        assert_eq!(wrong(|cluster| cluster.tls.name.clear()), key("tls.name"));
    }

    #[test]
    fn what_is_advertised_can_be_dialed() {
        let advertised = |text: &str| wrong(|cluster| cluster.link.advertise = Some(text.to_owned()));
        for good in ["node-1.example:9700", "10.0.0.1:1", "[2001:db8::1]:9700"] {
            assert_eq!(advertised(good), None, "{good}");
        }
        for bad in [
            "",
            "node",
            "node:",
            ":9700",
            "node:0",
            "node:65536",
            "0.0.0.0:9700",
            "[::]:9700",
            "2001:db8::1:9700",
            "tcp://node:9700",
            "me@node:9700",
        ] {
            assert_eq!(advertised(bad), key("link.advertise"), "{bad}");
        }
        assert_eq!(wrong(|cluster| cluster.link.address = address("0.0.0.0:9700")), key("link.advertise"));
        let nowhere = |cluster: &mut Cluster| {
            cluster.link.address = None;
            cluster.link.advertise = Some("node:9700".to_owned());
        };
        assert_eq!(wrong(nowhere), key("link.advertise"));
    }

    #[test]
    fn other_values_that_make_no_sense_are_named() {
        assert_eq!(wrong(|cluster| cluster.name = Some("n".repeat(65))), key("name"));
        assert_eq!(wrong(|cluster| cluster.name = Some(String::new())), key("name"));
        assert_eq!(wrong(|cluster| cluster.link.address = address("127.0.0.1:9500")), key("link.address"));
        assert_eq!(wrong(|cluster| cluster.node_ttl = Duration::from_secs(2)), key("node_ttl"));
        assert_eq!(wrong(|cluster| cluster.node_ttl = Duration::from_millis(3_500)), key("node_ttl"));
        assert_eq!(wrong(|cluster| cluster.room_ttl = Duration::from_millis(90_500)), key("room_ttl"));
        assert_eq!(wrong(|cluster| cluster.room_ttl = Duration::from_secs(9)), key("room_ttl"));
        assert_eq!(wrong(|cluster| cluster.heartbeat.interval = Duration::ZERO), key("heartbeat.interval"));
        assert_eq!(wrong(|cluster| cluster.heartbeat.close_after = 2), key("heartbeat.close_after"));
        assert_eq!(wrong(|cluster| cluster.heartbeat.unhealthy_after = 0), key("heartbeat.unhealthy_after"));
        assert_eq!(wrong(|cluster| cluster.heartbeat.jitter_percent = 51), key("heartbeat.jitter_percent"));
    }

    #[test]
    fn the_core_takes_the_shortest_leases() {
        let mut config = Config::default();
        (config.cluster.node_ttl, config.cluster.room_ttl) = (MIN_TTL, MIN_TTL);
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.core().validate(), Ok(()));
    }

    #[test]
    fn the_core_takes_every_size_of_frames() {
        for frame_bytes in [32 * 1024, 64 * 1024, 8 * 1024 * 1024] {
            let mut config = Config::default();
            config.frames.frame_bytes = frame_bytes;
            config.rooms.window_bytes = frame_bytes;
            assert_eq!(config.validate(), Ok(()));
            assert_eq!(config.core().validate(), Ok(()));
        }
    }
}
