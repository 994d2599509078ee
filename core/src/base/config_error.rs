//! Errors of configuration values.

use alloc::borrow::Cow;
use core::fmt;

use crate::base::time::Duration;

/// Maximum size of a frame beside the body of its message, in bytes.
pub(crate) const FRAME_OVERHEAD: usize = 2048;
/// Shortest time of a turn that ends by itself. A shorter one is refused, except zero, which turns
/// the time off.
pub(crate) const SHORTEST_TURN: Duration = Duration::from_millis(100);
/// Size of a snapshot for each member, in bytes.
pub(crate) const MEMBER_BYTES: usize = 80;

/// Error of a configuration value that does not meet a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Key of the value in the configuration file, such as `rooms.window_bytes`; for a value that
    /// no file sets, its path in [`Config`](crate::config::Config).
    pub key: Cow<'static, str>,
    /// Condition that the value does not meet.
    pub problem: Problem,
}

/// Condition that a configuration value does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The value must be at least this number.
    Least(u64),
    /// The value must be at most this number.
    Most(u64),
    /// The value must be from the first number to the second.
    Range(u64, u64),
    /// The list must have from the first number of elements to the second.
    Count(u64, u64),
    /// The value must not be zero.
    Zero,
    /// The value must be at least this time.
    LeastTime(Duration),
    /// The value must be whole seconds, since leases have no fractions.
    WholeSeconds,
    /// The value must be at least the value of this key.
    LeastOf(&'static str),
    /// The value must be above the value of this key.
    AboveOf(&'static str),
    /// The value must be at most the value of this key.
    MostOf(&'static str),
    /// The value must be at least the bytes of this key, plus the overhead of a frame
    /// ([`Config::FRAME_OVERHEAD`](crate::config::Config::FRAME_OVERHEAD)).
    RoomFor(&'static str),
    /// The value must be unique: an earlier element has the same value.
    Repeated,
    /// The value must be at most a third of the times of leases: a lease must outlive requests
    /// without an answer.
    ThirdOfLeases,
    /// The number of players of a match must be from the first number to the second.
    MatchSize(u64, u64),
    /// The value must be at least this number, the players of a match: all of them meet in one
    /// room.
    MatchInRoom(u64),
    /// The value must be at least this number, twice the players of a match: a matcher must know as
    /// many tickets.
    TwoMatches(u64),
    /// The value must be zero, or at least the shortest time of a turn.
    Turn,
    /// The value must be longer than the longest absence of a member: tombstones must outlive it.
    Horizon,
    /// The value must have place for a snapshot that names as many members as a room may have.
    Snapshot,
}

impl ConfigError {
    /// Returns the error of a part as an error of the whole. `part` is the key of the part in the
    /// whole.
    pub(crate) fn within(self, part: fmt::Arguments<'_>) -> Self {
        Self { key: Cow::Owned(alloc::format!("{part}.{}", self.key)), ..self }
    }
}

/// Returns an error for the key if the condition does not hold.
pub(crate) fn check(
    holds: bool,
    key: impl Into<Cow<'static, str>>,
    problem: Problem,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { key: key.into(), problem }) }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.problem)
    }
}

impl core::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Least(least) => write!(f, "must be at least {least}"),
            Self::Most(most) => write!(f, "must be at most {most}"),
            Self::Range(least, most) => write!(f, "must be from {least} to {most}"),
            Self::Count(least, most) => write!(f, "must have from {least} to {most} elements"),
            Self::Zero => f.write_str("must not be zero"),
            Self::LeastTime(least) => write!(f, "must be at least {least:?}"),
            Self::WholeSeconds => f.write_str("must be whole seconds"),
            Self::LeastOf(key) => write!(f, "must be at least {key}"),
            Self::AboveOf(key) => write!(f, "must be above {key}"),
            Self::MostOf(key) => write!(f, "must be at most {key}"),
            Self::RoomFor(key) => write!(f, "must be at least {key} + {}", FRAME_OVERHEAD),
            Self::Repeated => f.write_str("must be unique: an earlier one is the same"),
            Self::ThirdOfLeases => {
                f.write_str("must be at most a third of cluster.node_ttl and of cluster.room_ttl")
            }
            Self::MatchSize(least, most) => write!(
                f,
                "must be such that a match has from {least} to {most} players: teams * team_size"
            ),
            Self::MatchInRoom(players) => write!(
                f,
                "must be at least {players}: the players of a match of matchmaking.queues meet in a room"
            ),
            Self::TwoMatches(players) => write!(f, "must be at least {players}: twice the players of a match"),
            Self::Turn => write!(
                f,
                "must be 0s, for turns that last until they are ended, or at least {:?}",
                SHORTEST_TURN
            ),
            Self::Horizon => f.write_str(
                "must be longer than sessions.ttl + connections.linger + heartbeat.interval * (heartbeat.close_after + 1): a session that is resumed must find the tombstones of everything removed in its absence",
            ),
            Self::Snapshot => write!(
                f,
                "must have {} bytes for each of rooms.members, and {} more: a snapshot names them all",
                MEMBER_BYTES,
                FRAME_OVERHEAD
            ),
        }
    }
}
