//! The registry: in the process, or etcd.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// Shortest interval of keep-alives: etcd treats more frequent pings as an attack
/// (`--grpc-keepalive-min-time`).
const MIN_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Largest size of a group, in bytes: etcd refuses requests of more than 1.5 MiB.
const MAX_GROUP_BYTES: usize = 1024 * 1024;

/// The registry, by which nodes find each other's sessions, rooms and matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryBackend {
    /// Kind of the registry.
    pub kind: RegistryKind,
    /// Beginning of every key in etcd, such as `/arena/eu`: deployments that share an etcd need
    /// different ones. Empty, or segments of letters, digits, `-`, `_` and `.`, each after a `/`;
    /// at most 64 bytes.
    pub prefix: String,
    /// Connections and requests to etcd. Without effect for another kind.
    pub etcd: RegistryEtcd,
}

/// Kind of the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// In the process: for a single server, and lost when the process ends.
    #[default]
    Embedded,
    /// etcd, for any number of processes.
    Etcd,
}

/// Connections and requests to etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryEtcd {
    /// Addresses of members, such as `https://etcd-1.example:2379`. One member is used at a time;
    /// when it fails, the next one is used.
    pub endpoints: Vec<String>,
    /// etcd user for the log-in. By default no log-in.
    pub user: Option<String>,
    /// The user's password. Better in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File with the password. White space around the password is ignored.
    pub password_file: Option<PathBuf>,
    /// PEM file with the authority of the members' certificates. By default the system's
    /// authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this client's certificate and its chain.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with this client's private key.
    pub key_file: Option<PathBuf>,
    /// Longest time until a member has answered after a dial; 2 s by default. Then the next member
    /// is tried.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Longest time of a request; 2 s by default. After that the outcome of a request that was sent
    /// is unknown.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Time between pings of a silent connection, at least 5 s; 10 s by default.
    #[serde(with = "humantime_serde")]
    pub keep_alive_interval: Duration,
    /// Longest time of a ping, 3 s by default. Then the connection counts as lost.
    #[serde(with = "humantime_serde")]
    pub keep_alive_timeout: Duration,
    /// Shortest wait before the members are tried again; 500 ms by default.
    #[serde(with = "humantime_serde")]
    pub backoff_min: Duration,
    /// Longest wait before the members are tried again; 3 s by default.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// Requests in flight or waiting; 16384 by default. A further request is answered at once: the
    /// registry is unavailable.
    pub requests: usize,
    /// Maximum number of watches; 1024 by default.
    pub watches: usize,
    /// Small transactions in one request, at most 1024; 1 sends each alone. 512 by default.
    pub group_requests: usize,
    /// Size of a group, in bytes; 524288 by default.
    pub group_bytes: usize,
    /// Groups in flight at once; 2 by default. Fewer make fuller groups.
    pub groups: usize,
}

impl Default for RegistryEtcd {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            user: None,
            password: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(2),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(3),
            requests: 16 * 1024,
            watches: 1024,
            group_requests: 512,
            group_bytes: 512 * 1024,
            groups: 2,
        }
    }
}

impl RegistryBackend {
    /// Checks the values that a type cannot.
    ///
    /// # Errors
    /// The first key with a value that makes no sense, and the problem.
    pub fn validate(&self) -> Result<(), (String, String)> {
        if self.kind == RegistryKind::Embedded {
            return Ok(());
        }
        if !is_prefix(&self.prefix) {
            let why = format!(
                "must be empty or such as `/arena/eu`: at most {MAX_PREFIX} bytes; each segment of letters, \
                 digits, `-`, `_` and `.` after a `/`, and none of {RESERVED:?}, which are names of keys"
            );
            return Err(("registry.prefix".to_owned(), why));
        }
        self.etcd.validate()
    }
}

/// Longest prefix, in bytes.
const MAX_PREFIX: usize = 64;
/// First segments of keys. A prefix with such a segment would put keys among those of a deployment
/// with a shorter prefix.
const RESERVED: [&str; 5] = ["generation", "match", "nodes", "rooms", "sessions"];

fn is_prefix(prefix: &str) -> bool {
    let of_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_good = |name: &str| !name.is_empty() && name.chars().all(of_name) && !RESERVED.contains(&name);
    let segments = prefix.strip_prefix('/').map(|rest| rest.split('/').all(is_good));
    prefix.len() <= MAX_PREFIX && (prefix.is_empty() || segments == Some(true))
}

impl RegistryEtcd {
    fn validate(&self) -> Result<(), (String, String)> {
        check(!self.endpoints.is_empty(), "endpoints", "must name at least one member")?;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
            check(
                rest.is_some_and(is_authority),
                &format!("endpoints[{index}]"),
                "must be an address such as `https://etcd-1.example:2379`, without a path or a user",
            )?;
        }
        let with_tls = |endpoint: &String| endpoint.starts_with("https://");
        check(
            self.password.is_none() || self.password_file.is_none(),
            "password",
            "must not be set beside `password_file`",
        )?;
        check(
            self.user.is_some() == (self.password.is_some() || self.password_file.is_some()),
            "user",
            "needs a password, and a password needs a user",
        )?;
        check(
            self.certificate_file.is_some() == self.key_file.is_some(),
            "certificate_file",
            "needs `key_file`, and the other way round",
        )?;
        check(
            (self.ca_file.is_none() && self.key_file.is_none()) || self.endpoints.iter().all(with_tls),
            "ca_file",
            "and certificates are of no use without TLS: every endpoint must start with `https://`",
        )?;
        for (key, duration) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("keep_alive_timeout", self.keep_alive_timeout),
            ("backoff_min", self.backoff_min),
        ] {
            check(!duration.is_zero(), key, "must not be zero")?;
        }
        check(
            self.keep_alive_interval >= MIN_KEEP_ALIVE,
            "keep_alive_interval",
            "must be at least 5s: etcd closes connections that ping more often",
        )?;
        check(self.backoff_max >= self.backoff_min, "backoff_max", "must be at least `backoff_min`")?;
        check((1..=1 << 20).contains(&self.requests), "requests", "must be from 1 to 1048576")?;
        check((1..=1 << 20).contains(&self.watches), "watches", "must be from 1 to 1048576")?;
        check((1..=1024).contains(&self.group_requests), "group_requests", "must be from 1 to 1024")?;
        check(
            (1..=MAX_GROUP_BYTES).contains(&self.group_bytes),
            "group_bytes",
            "must be from 1 to 1048576: etcd refuses requests of more than 1.5 MiB",
        )?;
        check((1..=64).contains(&self.groups), "groups", "must be from 1 to 64")
    }
}

/// Returns true if the text is a host, with or without a port that can be dialed.
fn is_authority(text: &str) -> bool {
    if text.contains(['/', '@', '?', '#', ' ']) {
        return false;
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        _ => !text.is_empty(),
    }
}

fn check(holds: bool, key: &str, why: &str) -> Result<(), (String, String)> {
    if holds { Ok(()) } else { Err((format!("registry.etcd.{key}"), why.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(change: impl FnOnce(&mut RegistryEtcd)) -> Option<String> {
        let mut registry = RegistryBackend { kind: RegistryKind::Etcd, ..RegistryBackend::default() };
        change(&mut registry.etcd);
        registry.validate().err().map(|(key, _)| key)
    }

    #[test]
    fn a_prefix_is_a_path_beside_the_keys() {
        let with = |prefix: &str| {
            let registry = RegistryBackend {
                kind: RegistryKind::Etcd,
                prefix: prefix.to_owned(),
                ..RegistryBackend::default()
            };
            registry.validate().err().map(|(key, _)| key)
        };
        for good in ["", "/a", "/arena/eu-1", "/x.y_z/1"] {
            assert_eq!(with(good), None, "{good}");
        }
        let long = format!("/{}", "x".repeat(64));
        for bad in ["a", "/", "/a/", "//a", "/a//b", "/a b", "/ä", "/nodes", "/a/match", "/a/rooms/b", &long]
        {
            assert_eq!(with(bad), Some("registry.prefix".to_owned()), "{bad}");
        }
    }

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(wrong(|_| ()), None);
        assert_eq!(RegistryBackend::default().validate(), Ok(()));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let key = |key: &str| Some(format!("registry.etcd.{key}"));
        assert_eq!(wrong(|etcd| etcd.endpoints.clear()), key("endpoints"));
        for endpoint in ["etcd:2379", "http://", "http://a/b", "http://user:secret@etcd:2379"] {
            assert_eq!(wrong(|etcd| etcd.endpoints.push(endpoint.to_owned())), key("endpoints[1]"));
        }
        assert_eq!(wrong(|etcd| etcd.user = Some("me".to_owned())), key("user"));
        assert_eq!(wrong(|etcd| etcd.password = Some(Secret::new("x".to_owned()))), key("user"));
        assert_eq!(wrong(|etcd| etcd.key_file = Some("key".into())), key("certificate_file"));
        assert_eq!(wrong(|etcd| etcd.ca_file = Some("ca".into())), key("ca_file"));
        assert_eq!(wrong(|etcd| etcd.request_timeout = Duration::ZERO), key("request_timeout"));
        assert_eq!(
            wrong(|etcd| etcd.keep_alive_interval = Duration::from_secs(1)),
            key("keep_alive_interval")
        );
        assert_eq!(wrong(|etcd| etcd.backoff_max = Duration::ZERO), key("backoff_max"));
        assert_eq!(wrong(|etcd| etcd.requests = 0), key("requests"));
        assert_eq!(wrong(|etcd| etcd.group_requests = 1025), key("group_requests"));
        assert_eq!(wrong(|etcd| etcd.group_bytes = 2 << 20), key("group_bytes"));
        assert_eq!(wrong(|etcd| etcd.groups = 0), key("groups"));
    }

    #[test]
    fn a_file_may_set_what_it_likes_and_shows_no_secret() {
        let text =
            "kind = \"etcd\"\n[etcd]\nuser = \"me\"\npassword = \"hidden\"\nrequest_timeout = \"3s\"\n";
        let registry: RegistryBackend = toml::from_str(text).unwrap();
        assert_eq!(registry.validate(), Ok(()));
        assert_eq!(registry.etcd.request_timeout, Duration::from_secs(3));
        assert!(!toml::to_string(&registry).unwrap().contains("hidden"));
        assert!(!format!("{registry:?}").contains("hidden"));
    }
}
