//! The core's limits, as they are written in a file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skirmish_core::config as core;

/// Writes a section of the configuration down once: its type with the documentation,
/// its defaults (the core's), and its conversion into the core's type.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $name:ident from $core:ident at $place:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                let core::$core { $($field),* } = core::Config::default().$place;
                Self { $($field: $field.into()),* }
            }
        }

        impl From<$name> for core::$core {
            fn from(section: $name) -> Self {
                Self { $($field: section.$field.into()),* }
            }
        }
    };
}

section! {
    /// Caps of the connection table (row H2).
    Connections from ConnectionLimits at connections {
        /// Connections in all.
        total: usize,
        /// Connections from one address.
        per_address: usize,
        /// Leading bits of an IPv6 address that make one address. 32 to 128.
        ipv6_prefix: u8,
        /// Connections that have not said `Hello` yet; while there are as many, each address
        /// has an equal share of them.
        unauthenticated: usize,
        /// From accepting a connection to its `Hello`.
        #[serde(with = "humantime_serde")]
        handshake_timeout: Duration,
        /// How long a connection that is being closed may take to send what is queued.
        #[serde(with = "humantime_serde")]
        linger: Duration,
    }
}

section! {
    /// The heartbeat (row H1).
    HeartbeatTimes from HeartbeatConfig at heartbeat {
        /// Between two pings. Below the 30 s after which NATs forget a connection.
        #[serde(with = "humantime_serde")]
        interval: Duration,
        /// Each interval is shortened by a random part of up to this many percent.
        jitter_percent: u8,
        /// After this many unanswered pings the connection counts as unhealthy.
        unhealthy_after: u8,
        /// After this many unanswered pings the connection is closed.
        close_after: u8,
    }
}

section! {
    /// How fast a connection may send, by class.
    Rates from Rates at rates {
        /// Reliable messages.
        reliable: RateLimit,
        /// Latest messages.
        latest: RateLimit,
        /// Joins, leaves, state, application messages.
        control: RateLimit,
        /// Bytes of all frames.
        bytes: RateLimit,
        /// Log-ins of one player, at each node. Excess is told when to come back.
        logins: RateLimit,
        /// Connections from one address, at each node. Excess is answered with 429.
        logins_per_address: RateLimit,
    }
}

section! {
    /// Sessions.
    Sessions from SessionLimits at sessions {
        /// Sessions in all, with and without a connection.
        total: usize,
        /// How long a session is kept after its connection is lost.
        #[serde(with = "humantime_serde")]
        ttl: Duration,
        /// Rooms a session may be in.
        rooms: usize,
    }
}

section! {
    /// Rooms.
    Rooms from RoomLimits at rooms {
        /// Rooms in all.
        total: usize,
        /// Members of a room.
        members: usize,
        /// Entries in the window of a room's log.
        window_entries: usize,
        /// Bytes in the window of a room's log.
        window_bytes: usize,
        /// How long a room gathers messages before it wakes its members; zero wakes
        /// them at the end of each batch of input.
        #[serde(with = "humantime_serde")]
        flush_interval: Duration,
        /// How long a turn may last before the next one begins by itself; zero: until
        /// it is ended. At least 100ms.
        #[serde(with = "humantime_serde")]
        turn_time: Duration,
        /// Keys of latest messages for each member.
        latest_keys: u32,
        /// Bytes of a room's latest messages; more are dropped, and that is said. At least
        /// `frames.body_bytes` and 2048.
        latest_bytes: usize,
        /// Names of properties and counters for each player.
        state_entries: usize,
        /// Longest time that a stamp may be ahead of the server's clock, and that the wall clocks
        /// of two nodes may differ by.
        #[serde(with = "humantime_serde")]
        clock_bound: Duration,
        /// How long a removed entry of the state is remembered. Longer than
        /// `sessions.ttl`.
        #[serde(with = "humantime_serde")]
        tombstone_horizon: Duration,
    }
}

section! {
    /// Frames.
    Frames from FrameLimits at frames {
        /// Largest frame on the wire, and largest payload after inflating, in bytes.
        frame_bytes: usize,
        /// Largest body of a message, in bytes.
        body_bytes: usize,
        /// Payloads from this size on are compressed for whoever accepts it; 0 never.
        compress_from: usize,
    }
}

/// A token bucket: `per_second` on average, `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Refill per second.
    pub per_second: u32,
    /// Size of the bucket.
    pub burst: u32,
}

impl From<core::Rate> for RateLimit {
    fn from(rate: core::Rate) -> Self {
        Self { per_second: rate.per_second, burst: rate.burst }
    }
}

impl From<RateLimit> for core::Rate {
    fn from(rate: RateLimit) -> Self {
        Self { per_second: rate.per_second, burst: rate.burst }
    }
}
