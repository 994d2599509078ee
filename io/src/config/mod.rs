//! The configuration: one schema, from a TOML file, the environment and flags.
//!
//! Later sources win: the built-in defaults, then the file, then environment
//! variables, then flags. A key is named by its place in the file, such as
//! `rates.reliable.burst`; its variable is `SKIRMISH_RATES__RELIABLE__BURST`. An
//! unknown key, a value of the wrong type and a value that makes no sense are errors
//! that name the key and where it was set.
//!
//! [`Config::default`] is fit for production but for the keys that tokens are checked
//! with: a server without any refuses to start.

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

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where players connect.
    pub listen: Listen,
    /// Where operators ask for health and metrics.
    pub admin: Admin,
    /// Who may connect (row W1).
    pub auth: Auth,
    /// TLS on the players' listener; none without a certificate.
    pub tls: Tls,
    /// Sealing of payloads.
    pub seal: SealKey,
    /// Logs.
    pub log: LogConfig,
    /// What happens when the server is told to stop.
    pub drain: Drain,
    /// Caps of the connection table (row H2).
    pub connections: Connections,
    /// Liveness of connections (row H1).
    pub heartbeat: HeartbeatTimes,
    /// How fast a connection may send.
    pub rates: Rates,
    /// Sessions.
    pub sessions: Sessions,
    /// Rooms.
    pub rooms: Rooms,
    /// Frames.
    pub frames: Frames,
    /// This node among others.
    pub cluster: Cluster,
    /// Where nodes find each other's sessions and rooms.
    pub registry: RegistryBackend,
    /// What players can queue for.
    pub matchmaking: Matchmaking,
}

/// Where players connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// Address and port; port 0 takes any free one.
    pub address: SocketAddr,
    /// Longest head of a request, in bytes, 1024 to 65536; a longer one is refused with 431.
    pub head_bytes: usize,
    /// Paths of the upgrade request.
    pub paths: Vec<String>,
    /// Networks of the proxies that are believed when they say who a client is. Caps, rates
    /// and the audit count for the client then, not for the proxy.
    pub trusted_proxies: Vec<Network>,
    /// Whether connections of trusted proxies begin with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// The header of requests by which trusted proxies say who a client is.
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

/// Where operators ask for health and metrics. Nothing is authenticated there, so it
/// belongs on a loopback or otherwise private address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Whether there is such a listener.
    pub enabled: bool,
    /// Address and port; port 0 takes any free one.
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { enabled: true, address: SocketAddr::from(([127, 0, 0, 1], 9600)) }
    }
}

/// Who may connect (row W1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Origins whose pages may connect, such as `https://game.example`. A request with
    /// an `Origin` that is not listed is refused. One without is let through to the
    /// token check: only browsers send the header, and only they can be made to
    /// connect by somebody else's page. `https://*.game.example` lists every host below that
    /// domain, `http://localhost:*` every port of this machine, `null` pages without an
    /// origin, and `*` every origin.
    pub origins: Vec<String>,
    /// What the `aud` of a token must be.
    pub audience: String,
    /// What the `iss` of a token must be, if set.
    pub issuer: Option<String>,
    /// How wrong the issuer's clock may be.
    #[serde(with = "humantime_serde")]
    pub leeway: Duration,
    /// Keys that tokens are checked with. Several, so that keys can be rotated: add the
    /// new one everywhere, sign with it, then remove the old one once its last token
    /// has expired.
    pub keys: Vec<TokenKey>,
    /// `id` of the key that `skirmish token` signs with; without it, the first that can.
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

/// A key that tokens are checked with, and perhaps signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// The key's name, the `kid` of its tokens.
    pub id: String,
    /// The algorithm. Tokens of any other are refused with this key.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// HS256: the secret itself, at least 32 bytes. Better in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// HS256: a file whose content, less white space around it, is the secret.
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

/// Sealing of payloads (row W3). Clients may ask for it in any case; with a static key,
/// those that have pinned its public half know whom they talk to.
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
    /// A level, or directives such as `info,skirmish_io=debug,audit=info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Size of the queue of lines that are not written yet, in bytes. Lines that find it full
    /// are dropped and counted.
    pub queue_bytes: usize,
    /// Lines that one address may cause by what is refused or dropped. Others are counted,
    /// and the count is told with the next one.
    pub audit_per_address: RateLimit,
    /// The same for all addresses together.
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

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// What happens when the server is told to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long connections may take to get what they are owed and to go.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// When clients are told to come back.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), retry_after: Duration::from_secs(1) }
    }
}

impl Config {
    /// The configuration of the core.
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
            registrar: self.cluster.registrar(),
            matchmaking: self.matchmaking.core(self.sessions.total, self.sessions.ttl),
        }
    }

    /// The configuration as a TOML file, with secrets redacted.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}
