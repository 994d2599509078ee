//! The core's limits, in the form of the configuration file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use skirmish_core::config as core;

/// Defines a section of the configuration: the type with its documentation, its defaults (the
/// core's), and its conversion to the core's type.
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
        /// Connections in all; 18000 by default.
        total: usize,
        /// Connections from one address; 256 by default.
        per_address: usize,
        /// Leading bits of an IPv6 address that count as one address, 32 to 128; 64 by default.
        ipv6_prefix: u8,
        /// Connections without `Hello`; 1024 by default. At this number each address has an equal
        /// share of them.
        unauthenticated: usize,
        /// Maximum time from accept to `Hello`, including the registry's answer; 10 s by default. Then
        /// the connection is closed.
        #[serde(with = "humantime_serde")]
        handshake_timeout: Duration,
        /// Longest time of a close, in which queued frames are sent; 5 s by default.
        #[serde(with = "humantime_serde")]
        linger: Duration,
    }
}

section! {
    /// The heartbeat (row H1).
    HeartbeatTimes from HeartbeatConfig at heartbeat {
        /// Time between two pings; 15 s by default. Below the 30 s after which NATs forget a
        /// connection.
        #[serde(with = "humantime_serde")]
        interval: Duration,
        /// Largest random shortening of an interval, in percent; 10 by default.
        jitter_percent: u8,
        /// Unanswered pings after which the connection counts as unhealthy; 2 by default.
        unhealthy_after: u8,
        /// Unanswered pings after which the connection is closed; 3 by default.
        close_after: u8,
    }
}

section! {
    /// Rates at which a connection may send, by class.
    Rates from Rates at rates {
        /// Reliable messages; 60 per second and 120 at once by default. A message above the rate is
        /// answered with a `Throttle`, and the client repeats the message.
        reliable: RateLimit,
        /// Latest messages; 120 per second and 240 at once by default. A message above the rate is
        /// dropped, and a `Throttle` says so.
        latest: RateLimit,
        /// All other frames of a connection: joins, leaves, state, application messages, and pings, pongs
        /// and closes of the WebSocket; 30 per second and 100 at once by default. Above the rate the
        /// connection is read more slowly.
        control: RateLimit,
        /// Bytes of all frames; 1 MiB per second and 8 MiB at once by default. Above the rate the
        /// connection is read more slowly.
        bytes: RateLimit,
        /// Log-ins of one player, at each node; 1 per second and 30 at once by default. A log-in above
        /// the rate is refused with the time to wait.
        logins: RateLimit,
        /// Connections from one address, at each node; 64 per second and 1024 at once by default. A
        /// connection above the rate is answered with 429.
        logins_per_address: RateLimit,
    }
}

section! {
    /// Sessions.
    Sessions from SessionLimits at sessions {
        /// Sessions in all, with and without a connection; 40000 by default.
        total: usize,
        /// Lifetime of a session without a connection; 1 min by default.
        #[serde(with = "humantime_serde")]
        ttl: Duration,
        /// Rooms of one session; 8 by default.
        rooms: usize,
    }
}

section! {
    /// Rooms.
    Rooms from RoomLimits at rooms {
        /// Rooms of a node; 20000 by default.
        total: usize,
        /// Members of a room; 256 by default.
        members: usize,
        /// Window of a room's log, in entries; 256 by default.
        window_entries: usize,
        /// Window of a room's log, in bytes; 65536 by default.
        window_bytes: usize,
        /// Messages of a room that the backup has not stored yet; 128 by default. Further messages are
        /// refused for a moment.
        pending_ops: usize,
        /// Time for which a room gathers messages before its members are woken; zero, the default,
        /// wakes them at the end of each batch of input.
        #[serde(with = "humantime_serde")]
        flush_interval: Duration,
        /// Longest turn, at least 100ms. Then the next turn begins. With zero, the default, a turn
        /// lasts until a message ends it.
        #[serde(with = "humantime_serde")]
        turn_time: Duration,
        /// Keys of latest messages for each member; 8 by default.
        latest_keys: u32,
        /// Size of a room's latest messages, in bytes; 262144 by default. A message above this size
        /// is dropped, and a `Throttle` says so. At least 2048 more than `frames.body_bytes`.
        latest_bytes: usize,
        /// Names of properties and counters for each player; 32 by default.
        state_entries: usize,
        /// Furthest time that a stamp may be ahead of the server's clock, and largest difference of
        /// the wall clocks of two nodes; 2 s by default.
        #[serde(with = "humantime_serde")]
        clock_bound: Duration,
        /// Time for which a removed entry of the state is remembered; 10 min by default. Longer than any
        /// absence that a session survives.
        #[serde(with = "humantime_serde")]
        tombstone_horizon: Duration,
    }
}

section! {
    /// Frames.
    Frames from FrameLimits at frames {
        /// Largest frame, and largest payload after inflating, in bytes; 65536 by default.
        frame_bytes: usize,
        /// Largest body of a message, in bytes; 16384 by default.
        body_bytes: usize,
        /// Smallest payload that is compressed for clients that accept compression, in bytes; 1024
        /// by default, 0 for never.
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
