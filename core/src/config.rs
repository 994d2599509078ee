//! Configuration of a node: limits, rates and times.
//!
//! Every queue, table and loop of the core has its bound in this configuration.

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::base::config_error::{self, check};
pub use crate::base::config_error::{ConfigError, Problem};
pub use crate::base::rate::Rate;
use crate::base::time::Duration;
pub use crate::matchmaking::MatchmakingConfig;
use crate::matchmaking::QueueConfig;
pub use crate::registrar::RegistrarConfig;

/// Configuration of a node. [`Default`] is fit for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Caps of the connection table.
    pub connections: ConnectionLimits,
    /// Liveness of connections.
    pub heartbeat: HeartbeatConfig,
    /// Rates of frames that a connection may send.
    pub rates: Rates,
    /// Limits of sessions.
    pub sessions: SessionLimits,
    /// Limits of rooms.
    pub rooms: RoomLimits,
    /// Sizes of frames.
    pub frames: FrameLimits,
    /// Limits of links to other nodes.
    pub links: LinkLimits,
    /// Backups of rooms.
    pub replication: ReplicationConfig,
    /// Leases and requests of the node in the registry.
    pub registrar: RegistrarConfig,
    /// Queues, and times and caps of matchmaking.
    pub matchmaking: MatchmakingConfig,
}

/// Backups of rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationConfig {
    /// Number of nodes that have a room; default 1. With 1, a room ends with its node; with 2, a backup
    /// goes on with the room.
    pub replicas: u32,
    /// Time after which a backup is given up that stores nothing of what it was sent; default 1 s.
    pub backup_patience: Duration,
}

impl ReplicationConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Range, Zero};
        check((1..=2).contains(&self.replicas), "cluster.replicas", Range(1, 2))?;
        check(!self.backup_patience.is_zero(), "cluster.backup_patience", Zero)
    }
}

/// Limits of links to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Maximum number of links; default 256. Links whose other node is not known yet count too, and
    /// may be a quarter of all at most.
    pub total: usize,
    /// Maximum time from connecting a link to its `LinkHello`; default 3 s.
    pub handshake_timeout: Duration,
    /// Liveness of links. Nodes are close to each other, so the interval is shorter than for
    /// clients.
    pub heartbeat: HeartbeatConfig,
    /// Largest frame of a link, in bytes; default 256 KiB.
    pub frame_bytes: usize,
    /// Number of bytes that may wait for a link, beside the rooms that are read over it; default
    /// 16 MiB. With one frame more at most. Beyond that the link is dropped, and dialed anew.
    pub queue_bytes: usize,
    /// Shortest wait before a failed dial is repeated; default 100 ms.
    pub backoff_min: Duration,
    /// Longest wait before a failed dial is repeated; default 3 s.
    pub backoff_max: Duration,
}

/// Caps of the connection table (row H2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum number of connections; default 18,000.
    pub total: usize,
    /// Maximum number of connections from one address; default 256.
    pub per_address: usize,
    /// Leading bits of an IPv6 address that count as one address, as a provider gives them to one
    /// subscriber. From 32 to 128; default 64.
    pub ipv6_prefix: u8,
    /// Maximum number of connections that have not sent `Hello` yet; default 1,024. When the
    /// maximum is reached, each address has an equal share of these connections.
    pub unauthenticated: usize,
    /// Maximum time from accepting a connection to its `Hello`; default 10 s.
    pub handshake_timeout: Duration,
    /// Maximum time that a closing connection may take to send its queued frames; default 5 s.
    pub linger: Duration,
}

/// Settings of the heartbeat (row H1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Time between two pings; default 15 s, for links 1 s. Below the 30 s after which NATs forget
    /// a connection.
    pub interval: Duration,
    /// Largest random part, in percent, by which each interval is shortened; default 10. It
    /// separates connections that were opened together.
    pub jitter_percent: u8,
    /// Number of unanswered pings after which the connection counts as unhealthy; default 2.
    pub unhealthy_after: u8,
    /// Number of unanswered pings after which the connection is closed; default 3.
    pub close_after: u8,
}

impl HeartbeatConfig {
    /// Checks the numbers. `unhealthy_after` is the full key of that setting; keys of errors are
    /// relative.
    fn validate(&self, unhealthy_after: &'static str) -> Result<(), ConfigError> {
        use Problem::{AboveOf, Least, Most, Zero};
        check(!self.interval.is_zero(), "interval", Zero)?;
        check(self.jitter_percent <= 50, "jitter_percent", Most(50))?;
        check(self.unhealthy_after > 0, "unhealthy_after", Least(1))?;
        check(self.close_after > self.unhealthy_after, "close_after", AboveOf(unhealthy_after))
    }

    /// Longest silence of a connection before the heartbeat closes it.
    #[must_use]
    pub fn longest_stall(&self) -> Duration {
        self.interval * (u32::from(self.close_after) + 1)
    }
}

/// Rates at which a connection may send, by class of frame. Excess reliable and latest messages are
/// throttled, and the client is notified. Excess of any class is read slowly. A connection that
/// continues beyond its limits is closed; a connection within its limits is never closed for its
/// rate, even after stalls (`core/src/node/connections/meter.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Rate of reliable messages.
    pub reliable: Rate,
    /// Rate of latest messages.
    pub latest: Rate,
    /// Rate of all other frames: joins, leaves, state, application messages, control frames of the
    /// WebSocket. Answers to pings of the node are not counted.
    pub control: Rate,
    /// Rate of bytes of all frames: the bytes on the wire or the inflated bytes, whichever are
    /// more.
    pub bytes: Rate,
    /// Rate of `Hello`s of one player, counted by each node. Excess is refused with
    /// `REASON_RATE_LIMITED` and the time to wait.
    pub logins: Rate,
    /// Rate of connections from one address, counted by each node. Excess is refused with the time
    /// to wait, before the node keeps any state of the connection.
    pub logins_per_address: Rate,
}

impl Rates {
    fn validate(&self) -> Result<(), ConfigError> {
        let Self { reliable, latest, control, bytes, logins, logins_per_address } = *self;
        for (name, rate) in [
            ("reliable", reliable),
            ("latest", latest),
            ("control", control),
            ("bytes", bytes),
            ("logins", logins),
            ("logins_per_address", logins_per_address),
        ] {
            let named = |error: ConfigError| error.within(format_args!("rates.{name}"));
            check(rate.per_second > 0, "per_second", Problem::Least(1)).map_err(named)?;
            check(rate.burst > 0, "burst", Problem::Least(1)).map_err(named)?;
        }
        Ok(())
    }
}

/// Limits of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Maximum number of sessions, with and without a connection; default 40,000.
    pub total: usize,
    /// Time for which a session is kept after the loss of its connection; default 60 s. The time is
    /// extended by the handshake timeout while a handshake of the player is under way, and once if
    /// the player may have been unable to reach the node.
    pub ttl: Duration,
    /// Maximum number of rooms of a session; default 8.
    pub rooms: usize,
}

/// Limits of rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomLimits {
    /// Maximum number of rooms; default 20,000.
    pub total: usize,
    /// Maximum number of members of a room; default 256.
    pub members: usize,
    /// Maximum number of entries in the window of a room's log; default 256.
    pub window_entries: usize,
    /// Maximum number of bytes in the window of a room's log; default 64 KiB.
    pub window_bytes: usize,
    /// Maximum number of messages of a room that are appended and not stored by the backup yet; default
    /// 128. Further messages are refused for a moment.
    pub pending_ops: usize,
    /// Time for which a room gathers messages before it wakes its members. Zero, the default, wakes
    /// the members at the end of each batch of input.
    pub flush_interval: Duration,
    /// Maximum time of a turn, after which the next turn begins by itself. Zero, the default, means
    /// that only a message ends a turn.
    pub turn_time: Duration,
    /// Maximum number of keys of latest messages for each member; default 8.
    pub latest_keys: u32,
    /// Maximum bytes of the kept latest messages of a room; default 256 KiB. A message that does
    /// not fit is dropped, and its sender is notified.
    pub latest_bytes: usize,
    /// Maximum number of names of properties and counters for each player; default 32.
    pub state_entries: usize,
    /// Maximum lead of a stamp over the node's clock, and maximum difference between the wall
    /// clocks of two nodes; default 2 s. A node whose clock differs by more from most others serves
    /// nobody.
    pub clock_bound: Duration,
    /// Time for which a removed entry of the state is remembered; default 600 s. Must be longer
    /// than [`SessionLimits::ttl`]: a replica that was away for longer starts afresh.
    pub tombstone_horizon: Duration,
}

/// Sizes of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest frame on the wire, and largest payload after inflating, in bytes; default 64 KiB.
    pub frame_bytes: usize,
    /// Largest body of a message, in bytes; default 16 KiB.
    pub body_bytes: usize,
    /// Smallest payload, in bytes, that is compressed for peers that accept compression; default
    /// 1,024. 0 turns compression off.
    pub compress_from: usize,
}

impl Config {
    /// Bytes that a frame may need in addition to the body of its message.
    pub const FRAME_OVERHEAD: usize = config_error::FRAME_OVERHEAD;
    /// Bytes of a snapshot for each of its members.
    pub const MEMBER_BYTES: usize = config_error::MEMBER_BYTES;
    /// Shortest permitted `turn_time`, unless it is zero.
    pub const SHORTEST_TURN: Duration = config_error::SHORTEST_TURN;

    /// Longest time for which a member can miss all news of its rooms and still resume. Such a
    /// member stops reading, misses heartbeats until its connection is closed, and reconnects just
    /// before its session ends. The time can be longer if a node has stood still; for this case a
    /// client starts its replica afresh after [`RoomLimits::tombstone_horizon`].
    #[must_use]
    pub fn longest_absence(&self) -> Duration {
        self.sessions.ttl + self.connections.linger + self.heartbeat.longest_stall()
    }

    /// Returns the time for which a session without a connection can be resumed, even if its node
    /// dies meanwhile and the registry lives.
    #[must_use]
    pub fn promised_absence(&self) -> Duration {
        self.sessions.ttl.min(self.registrar.outlives())
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// The first key whose value is not valid, and the condition that the value does not meet.
    pub fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Least, LeastOf, MatchInRoom, MostOf, RoomFor};
        let Self { heartbeat, rates, sessions, rooms, frames, links, registrar, matchmaking, .. } = self;
        registrar.validate()?;
        matchmaking.validate()?;
        self.connections.validate()?;
        let named = |error: ConfigError| error.within(format_args!("heartbeat"));
        heartbeat.validate("heartbeat.unhealthy_after").map_err(named)?;
        links.validate()?;
        self.replication.validate()?;
        check(
            links.frame_bytes >= frames.frame_bytes.saturating_add(Self::FRAME_OVERHEAD),
            "links.frame_bytes",
            RoomFor("frames.frame_bytes"),
        )?;
        check(
            links.queue_bytes >= frames.frame_bytes,
            "cluster.link.queue_bytes",
            LeastOf("frames.frame_bytes"),
        )?;
        rates.validate()?;
        check(
            rates.bytes.burst as usize >= frames.frame_bytes,
            "rates.bytes.burst",
            LeastOf("frames.frame_bytes"),
        )?;
        check(sessions.total > 0, "sessions.total", Least(1))?;
        check(sessions.rooms > 0, "sessions.rooms", Least(1))?;
        check(
            matchmaking.queues.is_empty() || matchmaking.absence_grace <= sessions.ttl,
            "matchmaking.absence_grace",
            MostOf("sessions.ttl"),
        )?;
        rooms.validate()?;
        let players = matchmaking.queues.iter().map(QueueConfig::players).max().unwrap_or(0);
        check(players as usize <= rooms.members, "rooms.members", MatchInRoom(players.into()))?;
        check(
            rooms.latest_bytes >= frames.body_bytes.saturating_add(Self::FRAME_OVERHEAD),
            "rooms.latest_bytes",
            RoomFor("frames.body_bytes"),
        )?;
        check(rooms.tombstone_horizon > self.longest_absence(), "rooms.tombstone_horizon", Problem::Horizon)?;
        check(
            frames.body_bytes.saturating_add(Self::FRAME_OVERHEAD) <= frames.frame_bytes,
            "frames.frame_bytes",
            RoomFor("frames.body_bytes"),
        )?;
        check(
            rooms.members * Self::MEMBER_BYTES + Self::FRAME_OVERHEAD <= frames.frame_bytes,
            "frames.frame_bytes",
            Problem::Snapshot,
        )
    }
}

impl ConnectionLimits {
    fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Least, Range, Zero};
        let total = u64::try_from(self.total).unwrap_or(u64::MAX);
        let most = u64::from(u32::MAX) - 1;
        check((1..=most).contains(&total), "connections.total", Range(1, most))?;
        check(self.per_address > 0, "connections.per_address", Least(1))?;
        check(self.unauthenticated > 0, "connections.unauthenticated", Least(1))?;
        check((32..=128).contains(&self.ipv6_prefix), "connections.ipv6_prefix", Range(32, 128))?;
        check(!self.handshake_timeout.is_zero(), "connections.handshake_timeout", Zero)
    }
}

impl LinkLimits {
    fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Least, LeastOf, Zero};
        check(self.total > 0, "links.total", Least(1))?;
        check(!self.handshake_timeout.is_zero(), "links.handshake_timeout", Zero)?;
        let named = |error: ConfigError| error.within(format_args!("cluster.heartbeat"));
        self.heartbeat.validate("cluster.heartbeat.unhealthy_after").map_err(named)?;
        check(!self.backoff_min.is_zero(), "links.backoff_min", Zero)?;
        check(self.backoff_max >= self.backoff_min, "links.backoff_max", LeastOf("links.backoff_min"))
    }
}

impl RoomLimits {
    fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Least, Range};
        check(self.total > 0, "rooms.total", Least(1))?;
        // No list in a frame has more items.
        let most = crate::wire::repeated_fields::MAX_ITEMS;
        check((1..=most).contains(&self.members), "rooms.members", Range(1, most as u64))?;
        check(self.window_entries > 0, "rooms.window_entries", Least(1))?;
        check(self.window_bytes > 0, "rooms.window_bytes", Least(1))?;
        check(self.pending_ops > 0, "rooms.pending_ops", Least(1))?;
        check(
            self.turn_time.is_zero() || self.turn_time >= Config::SHORTEST_TURN,
            "rooms.turn_time",
            Problem::Turn,
        )
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: ConnectionLimits {
                total: 18_000,
                per_address: 256,
                ipv6_prefix: 64,
                unauthenticated: 1_024,
                handshake_timeout: Duration::from_secs(10),
                linger: Duration::from_secs(5),
            },
            heartbeat: HeartbeatConfig {
                interval: Duration::from_secs(15),
                jitter_percent: 10,
                unhealthy_after: 2,
                close_after: 3,
            },
            rates: Rates {
                reliable: Rate { per_second: 60, burst: 120 },
                latest: Rate { per_second: 120, burst: 240 },
                control: Rate { per_second: 30, burst: 100 },
                bytes: Rate { per_second: 1024 * 1024, burst: 8 * 1024 * 1024 },
                logins: Rate { per_second: 1, burst: 30 },
                logins_per_address: Rate { per_second: 64, burst: 1_024 },
            },
            sessions: SessionLimits { total: 40_000, ttl: Duration::from_secs(60), rooms: 8 },
            rooms: RoomLimits {
                total: 20_000,
                members: 256,
                window_entries: 256,
                window_bytes: 64 * 1024,
                pending_ops: 128,
                flush_interval: Duration::ZERO,
                turn_time: Duration::ZERO,
                latest_keys: 8,
                latest_bytes: 256 * 1024,
                state_entries: 32,
                clock_bound: Duration::from_secs(2),
                tombstone_horizon: Duration::from_secs(600),
            },
            frames: FrameLimits { frame_bytes: 64 * 1024, body_bytes: 16 * 1024, compress_from: 1024 },
            links: LinkLimits {
                total: 256,
                handshake_timeout: Duration::from_secs(3),
                heartbeat: HeartbeatConfig {
                    interval: Duration::from_secs(1),
                    jitter_percent: 10,
                    unhealthy_after: 2,
                    close_after: 3,
                },
                frame_bytes: 256 * 1024,
                queue_bytes: 16 * 1024 * 1024,
                backoff_min: Duration::from_millis(100),
                backoff_max: Duration::from_secs(3),
            },
            replication: ReplicationConfig { replicas: 1, backup_patience: Duration::from_secs(1) },
            registrar: RegistrarConfig::default(),
            matchmaking: MatchmakingConfig::new(Vec::new()),
        }
    }
}
