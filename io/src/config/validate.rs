//! Values of the right type that make no sense.

use std::time::Duration;

use super::{Algorithm, Config, OriginPattern, RateLimit, TokenKey};

/// Maximum number of keys that a token may have to be checked with.
const MAX_KEYS: usize = 16;

/// Bounds of `log.queue_bytes`: the smallest has room for any line.
const SMALLEST_LOG_QUEUE: usize = 64 << 10;
const LARGEST_LOG_QUEUE: usize = 1 << 30;

/// The key, and the problem with its value.
type InvalidValue = (String, String);

impl Config {
    /// Checks the values that a type cannot.
    ///
    /// # Errors
    /// The first key with a value that makes no sense, and the problem.
    pub fn validate(&self) -> Result<(), (String, String)> {
        self.validate_listeners()?;
        self.validate_auth()?;
        self.validate_times()?;
        self.validate_sizes()?;
        self.registry.validate()?;
        self.validate_cluster()?;
        self.matchmaking.validate()?;
        for (key, rate) in
            [("log.audit_per_address", self.log.audit_per_address), ("log.audit_total", self.log.audit_total)]
        {
            let RateLimit { per_second, burst } = rate;
            check(per_second > 0, format!("{key}.per_second"), "must be at least 1")?;
            check(burst > 0, format!("{key}.burst"), "must be at least 1")?;
        }
        // The machines check their own limits.
        self.core().validate().map_err(|error| (error.key.into_owned(), error.problem.to_string()))
    }

    fn validate_listeners(&self) -> Result<(), InvalidValue> {
        check(!self.listen.paths.is_empty(), "listen.paths", "must name at least one path")?;
        for (index, path) in self.listen.paths.iter().enumerate() {
            check(
                path.starts_with('/') && !path.contains(['?', '#', ' ']),
                format!("listen.paths[{index}]"),
                "must start with `/` and have no query in it",
            )?;
            check(
                path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('*'),
                format!("listen.paths[{index}]"),
                "must be written as in a request: other characters as %XX, and no `*`, which stands for nothing here",
            )?;
            check(
                !path.split('/').any(|segment| matches!(segment, "." | "..")),
                format!("listen.paths[{index}]"),
                "must not have `.` or `..` in it: clients resolve them before they ask",
            )?;
        }
        self.listen.validate_proxies()?;
        check(
            (1024..=64 * 1024).contains(&self.listen.head_bytes),
            "listen.head_bytes",
            "must be from 1024 to 65536",
        )?;
        let port = self.listen.address.port();
        check(
            !self.admin.enabled || port == 0 || self.admin.address != self.listen.address,
            "admin.address",
            "must not be the address of the players' listener",
        )?;
        check(
            self.tls.certificate_file.is_some() == self.tls.key_file.is_some(),
            "tls",
            "needs both `certificate_file` and `key_file`, or neither",
        )?;
        check(!self.log.level.trim().is_empty(), "log.level", "must not be empty")?;
        check(
            (SMALLEST_LOG_QUEUE..=LARGEST_LOG_QUEUE).contains(&self.log.queue_bytes),
            "log.queue_bytes",
            "must be from 65536 (64 KiB) to 1073741824 (1 GiB)",
        )
    }

    fn validate_auth(&self) -> Result<(), InvalidValue> {
        let auth = &self.auth;
        for (index, origin) in auth.origins.iter().enumerate() {
            OriginPattern::parse(origin).map_err(|problem| (format!("auth.origins[{index}]"), problem))?;
        }
        let trimmed = |text: &str| !text.is_empty() && text.trim() == text;
        check(trimmed(&auth.audience), "auth.audience", "must not be empty, nor have space around it")?;
        check(
            auth.issuer.as_deref().is_none_or(trimmed),
            "auth.issuer",
            "must not be empty, nor have space around it: leave it out if any issuer will do",
        )?;
        check(auth.keys.len() <= MAX_KEYS, "auth.keys", "there may be at most 16 keys")?;
        for (index, key) in auth.keys.iter().enumerate() {
            let at = |field: &str| format!("auth.keys[{index}]{field}");
            check(!key.id.is_empty(), at(".id"), "must not be empty")?;
            let same = auth.keys.iter().take(index).any(|other| other.id == key.id);
            check(!same, at(".id"), "another key has this id")?;
            validate_key(key).map_err(|problem| (at(""), problem.to_owned()))?;
        }
        if let Some(signing) = &auth.signing {
            let known = auth.keys.iter().any(|key| key.id == *signing);
            check(known, "auth.signing", "is not the id of a key in auth.keys")?;
        }
        Ok(())
    }

    fn validate_times(&self) -> Result<(), InvalidValue> {
        for (key, time) in [
            ("connections.handshake_timeout", self.connections.handshake_timeout),
            ("connections.linger", self.connections.linger),
            ("heartbeat.interval", self.heartbeat.interval),
            ("rooms.clock_bound", self.rooms.clock_bound),
        ] {
            check(time >= Duration::from_millis(1), key, "must be at least 1ms")?;
        }
        // The protocol has 32 bits for these times, in milliseconds.
        for (key, time) in [
            ("heartbeat.interval", self.heartbeat.interval),
            ("sessions.ttl", self.sessions.ttl),
            ("drain.retry_after", self.drain.retry_after),
        ] {
            check(u32::try_from(time.as_millis()).is_ok(), key, "must be less than 49 days")?;
        }
        Ok(())
    }

    fn validate_sizes(&self) -> Result<(), InvalidValue> {
        for (key, number) in [
            ("connections.total", self.connections.total),
            ("connections.per_address", self.connections.per_address),
            ("connections.unauthenticated", self.connections.unauthenticated),
            ("sessions.total", self.sessions.total),
            ("sessions.rooms", self.sessions.rooms),
            ("rooms.total", self.rooms.total),
            ("rooms.members", self.rooms.members),
            ("rooms.window_entries", self.rooms.window_entries),
        ] {
            check(u32::try_from(number).is_ok(), key, "must be less than 4294967296")?;
        }
        check(
            self.sessions.total >= self.connections.total,
            "sessions.total",
            "must be at least connections.total",
        )?;
        let frames = &self.frames;
        check(frames.body_bytes > 0, "frames.body_bytes", "must be at least 1")?;
        check(frames.frame_bytes <= 16 << 20, "frames.frame_bytes", "must be at most 16777216 (16 MiB)")?;
        check(
            self.rooms.window_bytes >= frames.frame_bytes,
            "rooms.window_bytes",
            "must be at least frames.frame_bytes",
        )
    }
}

/// Checks that a key has the secret or files of its algorithm and no others.
fn validate_key(key: &TokenKey) -> Result<(), &'static str> {
    let public = key.public_key_file.is_some() || key.private_key_file.is_some();
    match key.algorithm {
        Algorithm::HS256 if public => Err("a key for HS256 has a secret, not a public or private key"),
        Algorithm::HS256 if key.secret.is_some() == key.secret_file.is_some() => {
            Err("a key for HS256 needs either `secret` or `secret_file`")
        }
        Algorithm::EdDSA | Algorithm::ES256 if key.secret.is_some() || key.secret_file.is_some() => {
            Err("a key for EdDSA or ES256 has no secret, but `public_key_file`")
        }
        Algorithm::EdDSA | Algorithm::ES256 if key.public_key_file.is_none() => {
            Err("a key for EdDSA or ES256 needs `public_key_file`")
        }
        Algorithm::HS256 | Algorithm::EdDSA | Algorithm::ES256 => Ok(()),
    }
}

/// Returns `Ok` if the condition holds.
pub(super) fn check(holds: bool, key: impl Into<String>, problem: &str) -> Result<(), InvalidValue> {
    if holds { Ok(()) } else { Err((key.into(), problem.to_owned())) }
}
