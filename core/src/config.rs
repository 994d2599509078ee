//! What a node is told at its start: limits, rates and times.
//!
//! Every queue, table and loop of the core is bounded by a number in here.

use alloc::vec::Vec;

pub use crate::matchmaking::MatchmakingConfig;
pub use crate::registrar::RegistrarConfig;
use crate::time::Duration;

/// Configuration of a node. [`Default`] is fit for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Caps of the connection table.
    pub connections: ConnectionLimits,
    /// Liveness of connections.
    pub heartbeat: Heartbeat,
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
    pub heartbeat: Heartbeat,
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
pub struct Heartbeat {
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

impl Heartbeat {
    /// Longest time in which nothing is heard of a connection that is not closed for it.
    #[must_use]
    pub fn longest_stall(&self) -> Duration {
        self.interval * (u32::from(self.close_after) + 1)
    }
}

/// A token bucket: `per_second` on average, `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Refill per second.
    pub per_second: u32,
    /// Size of the bucket.
    pub burst: u32,
}

/// How fast a connection may send, by class. Excess of reliable and latest messages is
/// throttled and said. Excess of any class is read slowly; a connection that goes on is closed,
/// and one that is within its limits is not, whatever stalls there are (`core/src/meter.rs`).
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

/// Why a configuration is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError(pub &'static str);

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// Bytes that a frame may need beside the body of its message.
    pub const FRAME_OVERHEAD: usize = 2048;
    /// Shortest time of a turn that has one.
    pub const SHORTEST_TURN: Duration = Duration::from_millis(100);

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
    /// Says which do not, and what they must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |holds: bool, error: &'static str| if holds { Ok(()) } else { Err(ConfigError(error)) };
        let Self { connections, heartbeat, rates, sessions, rooms, frames, links, registrar, matchmaking } =
            self;
        registrar.validate()?;
        matchmaking.validate()?;
        check(connections.total > 0, "connections.total must be at least 1")?;
        check(connections.total < u32::MAX as usize, "connections.total must be below 2^32 - 1")?;
        check(connections.per_address > 0, "connections.per_address must be at least 1")?;
        check(connections.unauthenticated > 0, "connections.unauthenticated must be at least 1")?;
        check(
            (32..=128).contains(&connections.ipv6_prefix),
            "connections.ipv6_prefix must be from 32 to 128",
        )?;
        check(!connections.handshake_timeout.is_zero(), "connections.handshake_timeout must not be zero")?;
        check(!heartbeat.interval.is_zero(), "heartbeat.interval must not be zero")?;
        check(heartbeat.jitter_percent <= 50, "heartbeat.jitter_percent must be at most 50")?;
        check(links.total > 0, "links.total must be at least 1")?;
        check(!links.handshake_timeout.is_zero(), "links.handshake_timeout must not be zero")?;
        check(
            !links.heartbeat.interval.is_zero()
                && links.heartbeat.jitter_percent <= 50
                && 0 < links.heartbeat.unhealthy_after
                && links.heartbeat.unhealthy_after < links.heartbeat.close_after,
            "links.heartbeat must have an interval, a jitter of at most 50 percent, and close after it is unhealthy",
        )?;
        check(
            links.frame_bytes >= frames.frame_bytes + Self::FRAME_OVERHEAD,
            "links.frame_bytes must be at least frames.frame_bytes and 2048",
        )?;
        check(
            !links.backoff_min.is_zero() && links.backoff_min <= links.backoff_max,
            "links.backoff_min must not be zero, nor above links.backoff_max",
        )?;
        check(
            0 < heartbeat.unhealthy_after && heartbeat.unhealthy_after < heartbeat.close_after,
            "heartbeat.unhealthy_after must be at least 1 and below heartbeat.close_after",
        )?;
        let logins = [rates.logins, rates.logins_per_address];
        for rate in [rates.reliable, rates.latest, rates.control, rates.bytes].into_iter().chain(logins) {
            check(
                rate.per_second > 0 && rate.burst > 0,
                "every rate must be at least 1 per second, with a burst of at least 1",
            )?;
        }
        check(
            rates.bytes.burst as usize >= frames.frame_bytes,
            "rates.bytes.burst must be at least frames.frame_bytes",
        )?;
        check(
            sessions.total > 0 && sessions.rooms > 0,
            "sessions.total and sessions.rooms must be at least 1",
        )?;
        check(
            matchmaking.queues.is_empty() || matchmaking.absence_grace <= sessions.ttl,
            "matchmaking.absence_grace must be at most sessions.ttl: the ticket ends with the session",
        )?;
        check(
            matchmaking.queues.iter().all(|queue| queue.players() as usize <= rooms.members),
            "rooms.members must be at least the players of every queue's match: they meet in a room",
        )?;
        check(rooms.total > 0 && rooms.members > 0, "rooms.total and rooms.members must be at least 1")?;
        check(
            rooms.members <= crate::wire::items::MAX_ITEMS,
            "rooms.members must be at most 4096: no list of a frame has more items",
        )?;
        check(
            rooms.window_entries > 0 && rooms.window_bytes > 0,
            "the window of a room must hold at least one entry",
        )?;
        check(
            rooms.latest_bytes >= frames.body_bytes.saturating_add(Self::FRAME_OVERHEAD),
            "rooms.latest_bytes must be at least frames.body_bytes and 2048: a room must have place for one",
        )?;
        check(
            rooms.turn_time.is_zero() || rooms.turn_time >= Self::SHORTEST_TURN,
            "rooms.turn_time must be zero or at least 100ms: each turn is an entry of the log",
        )?;
        check(
            rooms.tombstone_horizon > self.longest_absence(),
            "rooms.tombstone_horizon must be longer than sessions.ttl + connections.linger + heartbeat.interval * (heartbeat.close_after + 1): whoever resumes must find the tombstones of what was removed while it heard nothing",
        )?;
        check(
            frames.body_bytes.saturating_add(Self::FRAME_OVERHEAD) <= frames.frame_bytes,
            "frames.body_bytes must leave 2048 bytes of frames.frame_bytes for what is around a body",
        )?;
        check(
            rooms.members * 80 + Self::FRAME_OVERHEAD <= frames.frame_bytes,
            "frames.frame_bytes must have 80 bytes for each of rooms.members, and 2048 more: a snapshot names them all",
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
            heartbeat: Heartbeat {
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
                heartbeat: Heartbeat {
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
