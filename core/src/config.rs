//! What a node is told at its start: limits, rates and times.
//!
//! Every queue, table and loop of the core is bounded by a number in here.

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
    /// How fast a connection may send.
    pub rates: Rates,
    /// Sessions.
    pub sessions: SessionLimits,
    /// Rooms.
    pub rooms: RoomLimits,
    /// Frames.
    pub frames: FrameLimits,
    /// Links to other nodes.
    pub links: LinkLimits,
    /// What the node says to the registry, and how long that holds.
    pub registrar: RegistrarConfig,
    /// What can be queued for.
    pub matchmaking: MatchmakingConfig,
}

/// Links to other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Links in all, those included that have not said who they lead to: a quarter at most.
    pub total: usize,
    /// From connecting a link to its `LinkHello`.
    pub handshake_timeout: Duration,
    /// Liveness. Nodes are close to each other, so it is quicker than for clients.
    pub heartbeat: HeartbeatConfig,
    /// Largest frame, in bytes.
    pub frame_bytes: usize,
    /// Shortest wait before a dial that failed is tried again.
    pub backoff_min: Duration,
    /// Longest.
    pub backoff_max: Duration,
}

/// Caps of the connection table (row H2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections in all.
    pub total: usize,
    /// Connections from one address.
    pub per_address: usize,
    /// Leading bits of an IPv6 address that make one address: what a subscriber has. 32 to 128.
    pub ipv6_prefix: u8,
    /// Connections that have not said `Hello` yet. While there are as many, each address has
    /// an equal share of them.
    pub unauthenticated: usize,
    /// From accepting a connection to its `Hello`.
    pub handshake_timeout: Duration,
    /// How long a connection that is being closed may take to send what is queued.
    pub linger: Duration,
}

/// The heartbeat (row H1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Between two pings. Below the 30 s after which NATs forget a connection.
    pub interval: Duration,
    /// Each interval is shortened by a random part of up to this many percent, so that
    /// connections that came together do not stay together.
    pub jitter_percent: u8,
    /// After this many unanswered pings the connection counts as unhealthy.
    pub unhealthy_after: u8,
    /// After this many unanswered pings the connection is closed.
    pub close_after: u8,
}

impl HeartbeatConfig {
    /// Checks the numbers. The key is that of `unhealthy_after`; keys of errors are relative.
    fn validate(&self, unhealthy_after: &'static str) -> Result<(), ConfigError> {
        use Problem::{AboveOf, Least, Most, Zero};
        check(!self.interval.is_zero(), "interval", Zero)?;
        check(self.jitter_percent <= 50, "jitter_percent", Most(50))?;
        check(self.unhealthy_after > 0, "unhealthy_after", Least(1))?;
        check(self.close_after > self.unhealthy_after, "close_after", AboveOf(unhealthy_after))
    }

    /// Longest time in which nothing is heard of a connection that is not closed for it.
    #[must_use]
    pub fn longest_stall(&self) -> Duration {
        self.interval * (u32::from(self.close_after) + 1)
    }
}

/// How fast a connection may send, by class. Excess of reliable and latest messages is
/// throttled and said. Excess of any class is read slowly; a connection that goes on is closed,
/// and one that is within its limits is not, whatever stalls there are (`core/src/node/meter.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Reliable messages.
    pub reliable: Rate,
    /// Latest messages.
    pub latest: Rate,
    /// Every other frame: joins, leaves, state, application messages, control frames of the
    /// WebSocket. Not the answers to pings of the node.
    pub control: Rate,
    /// Bytes of all frames, as they are on the wire or inflated, whichever is more.
    pub bytes: Rate,
    /// `Hello`s of one player, counted by each node; excess is refused with
    /// `REASON_RATE_LIMITED` and the time to wait.
    pub logins: Rate,
    /// Connections from one address, counted by each node; excess is refused before there is
    /// any state, with the time to wait.
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

/// Sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions in all, with and without a connection.
    pub total: usize,
    /// How long a session is kept after its connection is lost; once longer by the handshake
    /// timeout, if the player is at the door then or the node has stood still.
    pub ttl: Duration,
    /// Rooms a session may be in.
    pub rooms: usize,
}

/// Rooms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomLimits {
    /// Rooms in all.
    pub total: usize,
    /// Members of a room.
    pub members: usize,
    /// Entries in the window of a room's log.
    pub window_entries: usize,
    /// Bytes in the window of a room's log.
    pub window_bytes: usize,
    /// How long a room gathers messages before it wakes its members; zero wakes them at
    /// the end of each batch of input.
    pub flush_interval: Duration,
    /// How long a turn may last before the next one begins by itself; zero: until it is
    /// ended.
    pub turn_time: Duration,
    /// Keys of latest messages for each member.
    pub latest_keys: u32,
    /// Bytes of the latest messages of a room that are kept; one more that does not fit is
    /// dropped, and its sender told.
    pub latest_bytes: usize,
    /// Names of properties and counters for each player.
    pub state_entries: usize,
    /// Longest time that a stamp may be ahead of the node's clock, and that the wall clocks of two
    /// nodes may differ by: one that differs from most others by more serves nobody.
    pub clock_bound: Duration,
    /// How long a removed entry of the state is remembered. Must be longer than
    /// [`SessionLimits::ttl`]: a replica that was away for longer starts afresh.
    pub tombstone_horizon: Duration,
}

/// Frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest frame on the wire, and largest payload after inflating, in bytes.
    pub frame_bytes: usize,
    /// Largest body of a message, in bytes.
    pub body_bytes: usize,
    /// Payloads from this size on are compressed for whoever accepts it; 0 never.
    pub compress_from: usize,
}

impl Config {
    /// Bytes that a frame may need beside the body of its message.
    pub const FRAME_OVERHEAD: usize = config_error::FRAME_OVERHEAD;
    /// Bytes of a snapshot for each member that it names.
    pub const MEMBER_BYTES: usize = config_error::MEMBER_BYTES;
    /// Shortest time of a turn that has one.
    pub const SHORTEST_TURN: Duration = config_error::SHORTEST_TURN;

    /// The longest that a member can hear nothing of its rooms and still resume: it stops
    /// reading, misses its heartbeats, is closed, and comes back just in time. Behind a node that
    /// has stood still it can be longer: a client starts its replica afresh after the horizon.
    #[must_use]
    pub fn longest_absence(&self) -> Duration {
        self.sessions.ttl + self.connections.linger + self.heartbeat.longest_stall()
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// The first key whose value does not fit, and the condition that it does not meet.
    pub fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Least, LeastOf, MatchInRoom, MostOf, RoomFor};
        let Self { heartbeat, rates, sessions, rooms, frames, links, registrar, matchmaking, .. } = self;
        registrar.validate()?;
        matchmaking.validate()?;
        self.connections.validate()?;
        let named = |error: ConfigError| error.within(format_args!("heartbeat"));
        heartbeat.validate("heartbeat.unhealthy_after").map_err(named)?;
        links.validate()?;
        check(
            links.frame_bytes >= frames.frame_bytes.saturating_add(Self::FRAME_OVERHEAD),
            "links.frame_bytes",
            RoomFor("frames.frame_bytes"),
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
        // No list of a frame has more items.
        let most = crate::wire::items::MAX_ITEMS;
        check((1..=most).contains(&self.members), "rooms.members", Range(1, most as u64))?;
        check(self.window_entries > 0, "rooms.window_entries", Least(1))?;
        check(self.window_bytes > 0, "rooms.window_bytes", Least(1))?;
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
                backoff_min: Duration::from_millis(100),
                backoff_max: Duration::from_secs(3),
            },
            registrar: RegistrarConfig::default(),
            matchmaking: MatchmakingConfig::new(Vec::new()),
        }
    }
}
