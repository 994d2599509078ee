//! Values of a configuration that do not fit.

use alloc::borrow::Cow;
use core::fmt;

use crate::base::time::Duration;

/// Bytes that a frame may need beside the body of its message.
pub(crate) const FRAME_OVERHEAD: usize = 2048;
/// Shortest time of a turn that has one.
pub(crate) const SHORTEST_TURN: Duration = Duration::from_millis(100);
/// Bytes of a snapshot for each member.
pub(crate) const MEMBER_BYTES: usize = 80;

/// A value of a configuration that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key of the value as the configuration file has it, such as `rooms.window_bytes`; for
    /// a value that no file sets, its place in [`Config`](crate::config::Config).
    pub key: Cow<'static, str>,
    /// The condition that the value does not meet.
    pub problem: Problem,
}

/// A condition that a value of a configuration does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It must be at least this number.
    Least(u64),
    /// It must be at most this number.
    Most(u64),
    /// It must be from the first number to the second.
    Range(u64, u64),
    /// It must have from the first number of elements to the second.
    Count(u64, u64),
    /// It must not be zero.
    Zero,
    /// It must be at least this time.
    LeastTime(Duration),
    /// It must be whole seconds: leases have no others.
    WholeSeconds,
    /// It must be at least the value of this key.
    LeastOf(&'static str),
    /// It must be above the value of this key.
    AboveOf(&'static str),
    /// It must be at most the value of this key.
    MostOf(&'static str),
    /// It must be at least the bytes of this key, with room for what is around them
    /// ([`Config::FRAME_OVERHEAD`](crate::config::Config::FRAME_OVERHEAD)).
    RoomFor(&'static str),
    /// It must be unique: an element before it has the same value.
    Repeated,
    /// A lease must outlive requests without an answer.
    ThirdOfLeases,
    /// A match must have from the first number of players to the second.
    MatchSize(u64, u64),
    /// All players of a match, as many as this, meet in one room.
    MatchInRoom(u64),
    /// A matcher must know twice the players of a match, as many as this.
    TwoMatches(u64),
    /// A turn that ends by itself has a shortest time.
    Turn,
    /// Tombstones must outlive the longest absence of a member.
    Horizon,
    /// A snapshot that names as many members as may be in a room must fit into a frame.
    Snapshot,
}

impl ConfigError {
    /// The error of a part, as an error of the whole that has the part at this key.
    pub(crate) fn within(self, part: fmt::Arguments<'_>) -> Self {
        Self { key: Cow::Owned(alloc::format!("{part}.{}", self.key)), ..self }
    }
}

/// Returns an error of the key if the condition is not met.
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
