//! Time as an argument.

use core::fmt;
use core::ops::{Add, Sub};
pub use core::time::Duration;

/// Point on the driver's monotonic clock, in microseconds since a moment that the driver has
/// chosen. The clock has no relation to any wall clock, or to the clock of another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// Moment from which the driver counts.
    pub const ZERO: Self = Self(0);

    /// Returns the instant `micros` microseconds after [`Self::ZERO`].
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since [`Self::ZERO`].
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// Lateness beyond which a deadline counts as missed because the driver stood still. Far above the
/// lateness of a timer or of a busy process.
pub const LATE: Duration = Duration::from_millis(250);

/// Reading of a wall clock: Unix time in milliseconds. The reading may be wrong, and may jump. It
/// serves for hybrid logical clocks and for people, never for ordering or waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub u64);

/// Both clocks, read together. Every input takes this argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic clock.
    pub instant: Instant,
    /// Wall clock.
    pub wall: Wall,
}

/// Time at which a machine wants its `handle_timeout` called, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// Moment of the call. A moment in the past is due now.
    pub at: Instant,
    /// Reason of the deadline in a few words, for logs and for developers.
    pub reason: &'static str,
}

impl Deadline {
    /// Creates a deadline with its reason.
    #[must_use]
    pub const fn new(at: Instant, reason: &'static str) -> Self {
        Self { at, reason }
    }

    /// Returns the earlier of two deadlines.
    #[must_use]
    pub fn earliest(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        }
    }
}
