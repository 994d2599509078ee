//! The configuration: one schema, from a TOML file, the environment and flags.
//!
//! Later sources win: the built-in defaults, then the file, then environment variables, then flags.
//! A key is named by its place in the file, such as `rates.reliable.burst`; its variable is
//! `SKIRMISH_RATES__RELIABLE__BURST`. An unknown key, a value of the wrong type and a value that
//! makes no sense are errors that name the key and the value's source.
//!
//! [`Config::default`] is fit for production, but has no keys for tokens: a server without a key
//! refuses to start.

mod budget;
mod cluster;
mod limits;
mod load;
mod matchmaking;
mod origins;
mod proxies;
mod registry;
mod secret;
mod validate;

#[cfg(test)]
mod tests;

#[cfg(all(unix, not(madsim)))]
pub(crate) use cluster::MAX_NODE_NAME;
pub use cluster::{Cluster, ClusterTls, LinkHeartbeat, LinkListener};
pub use limits::{Connections, Frames, HeartbeatTimes, RateLimit, Rates, Rooms, Sessions};
pub use load::{LoadError, Sources, ValueSource};
pub use matchmaking::{LatencyWindow, Matchmaking, QualityRules, QueueSection, RatingWindow};
pub(crate) use origins::OriginPattern;
pub use proxies::{ForwardedHeader, Network, ProxyProtocol};
pub use registry::{RegistryBackend, RegistryEtcd, RegistryKind};
pub use secret::Secret;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Listener for players.
    pub listen: Listen,
    /// Listener for operators: health and metrics.
    pub admin: Admin,
    /// Authentication of players (row W1).
    pub auth: Auth,
    /// TLS on the players' listener; none without a certificate.
    pub tls: Tls,
    /// Sealing of payloads.
    pub seal: SealKey,
    /// Logs.
    pub log: LogConfig,
    /// Orderly stop of the server.
    pub drain: Drain,
    /// Caps of the connection table (row H2).
    pub connections: Connections,
    /// Liveness of connections (row H1).
    pub heartbeat: HeartbeatTimes,
    /// Rates at which a connection may send.
    pub rates: Rates,
    /// Sessions.
    pub sessions: Sessions,
    /// Rooms.
    pub rooms: Rooms,
    /// Frames.
    pub frames: Frames,
    /// This node as a member of a cluster.
    pub cluster: Cluster,
    /// The registry, by which nodes find each other's sessions and rooms.
    pub registry: RegistryBackend,
    /// Queues, and rules of matches.
    pub matchmaking: Matchmaking,
}

/// Listener for players.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes any free port. `127.0.0.1:9500` by default.
    pub address: SocketAddr,
    /// Longest head of a request, in bytes, 1024 to 65536; 16384 by default. A longer head is
    /// refused with 431.
    pub head_bytes: usize,
    /// Paths of the upgrade request; `/` and `/ws` by default. Another path is answered with 404.
    pub paths: Vec<String>,
    /// Networks of the trusted proxies. If a trusted proxy names a client, then caps, rates and the
    /// audit count for the client, not for the proxy.
    pub trusted_proxies: Vec<Network>,
    /// Header of the PROXY protocol at the beginning of trusted proxies' connections.
    pub proxy_protocol: ProxyProtocol,
    /// Header of requests in which trusted proxies name the client.
    pub forwarded: ForwardedHeader,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 9500)),
            head_bytes: 16 * 1024,
            paths: vec!["/".to_owned(), "/ws".to_owned()],
            trusted_proxies: Vec::new(),
            proxy_protocol: ProxyProtocol::Off,
            forwarded: ForwardedHeader::Off,
        }
    }
}

/// Listener for operators: health and metrics. The listener authenticates no peer, so its address
/// should be a loopback address or otherwise private.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// True if the server has this listener. True by default.
    pub enabled: bool,
    /// Address and port; port 0 takes any free port. `127.0.0.1:9600` by default.
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { enabled: true, address: SocketAddr::from(([127, 0, 0, 1], 9600)) }
    }
}

/// Authentication of players (row W1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Origins whose pages may connect, such as `https://game.example`. A request with an unlisted
    /// `Origin` is refused. A request without an `Origin` goes on to the token check: only browsers
    /// send the header, and only a browser can be made to connect by a foreign page.
    /// `https://*.game.example` lists every host below that domain, `http://localhost:*` every port
    /// of this machine, `null` pages without an origin, and `*` every origin.
    pub origins: Vec<String>,
    /// Required `aud` claim of tokens; `skirmish` by default.
    pub audience: String,
    /// Required `iss` claim of tokens. By default any issuer.
    pub issuer: Option<String>,
    /// Tolerated error of the issuer's clock; 5 s by default.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// Keys for checking tokens, at most 16. Several keys allow a rotation: add the new one
    /// everywhere, sign with the new one, and remove the old one once its last token has expired.
    pub keys: Vec<TokenKey>,
    /// `id` of the key that `skirmish token` signs with. By default the first key that can sign.
    pub signing: Option<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            audience: "skirmish".to_owned(),
            issuer: None,
            leeway: Duration::from_secs(5),
            keys: Vec::new(),
            signing: None,
        }
    }
}

/// A key for checking tokens, and perhaps for signing them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// The key's name, the `kid` of its tokens.
    pub id: String,
    /// The algorithm. Tokens with any other algorithm are refused with this key.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// HS256: the secret itself, at least 32 bytes. Better in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// HS256: a file with the secret. White space around the secret is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// EdDSA and ES256: a PEM file with the public key, to check tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<PathBuf>,
    /// EdDSA and ES256: a PEM file (PKCS#8) with the private key, to sign tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_file: Option<PathBuf>,
}

/// Algorithms of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: one secret signs and checks.
    #[default]
    HS256,
    /// Ed25519.
    EdDSA,
    /// ECDSA on P-256 with SHA-256.
    ES256,
}

/// TLS on the players' listener: both files, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate and its chain.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the private key.
    pub key_file: Option<PathBuf>,
}

/// Sealing of payloads (row W3). Clients may always ask for sealing. With a static key, clients
/// that have pinned its public half can verify the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SealKey {
    /// File with the static X25519 secret: 32 bytes as 64 hexadecimal digits.
    pub key_file: Option<PathBuf>,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or directives such as `info,skirmish_io=debug,audit=info`. `info` by default.
    pub level: String,
    /// Format of lines; `human` by default.
    pub format: LogFormat,
    /// Size of the queue of unwritten lines, in bytes; 1 MiB by default. Lines that find the queue
    /// full are dropped and counted.
    pub queue_bytes: usize,
    /// Rate of lines that one address can cause by refusals; 2 per second and 50 at once by
    /// default. Further lines are counted, and the next line has their number.
    pub audit_per_address: RateLimit,
    /// Rate of such lines for all addresses together; 50 per second and 1000 at once by default.
    pub audit_total: RateLimit,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Human,
            queue_bytes: 1 << 20,
            audit_per_address: RateLimit { per_second: 2, burst: 50 },
            audit_total: RateLimit { per_second: 50, burst: 1_000 },
        }
    }
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Orderly stop of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Longest time of a drain, 30 s by default. Then the remaining connections are dropped.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Time after which drained clients should reconnect; 1 s by default.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), retry_after: Duration::from_secs(1) }
    }
}

impl Config {
    /// Returns the configuration of the core.
    #[must_use]
    pub fn core(&self) -> skirmish_core::config::Config {
        skirmish_core::config::Config {
            connections: self.connections.clone().into(),
            heartbeat: self.heartbeat.clone().into(),
            rates: self.rates.clone().into(),
            sessions: self.sessions.clone().into(),
            rooms: self.rooms.clone().into(),
            frames: self.frames.clone().into(),
            links: self.cluster.links(self.frames.frame_bytes),
            replication: self.cluster.replication(),
            registrar: self.cluster.registrar(self.registry.etcd.request_timeout),
            matchmaking: self.matchmaking.core(self.sessions.total, self.sessions.ttl),
        }
    }

    /// Returns the configuration as a TOML file, with secrets redacted.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}
