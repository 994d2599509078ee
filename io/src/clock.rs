//! The clock: the only place of the shell that reads the system's clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use skirmish_core::time::{Instant, Now, Wall};
use tokio::time::Instant as TokioInstant;

const MILLION: u128 = 1_000_000;

/// Largest difference of a rate from the runtime's, in parts per million.
const MOST_DRIFT_PPM: i32 = 500_000;

/// Reads the monotonic and the wall clock in the form that the core needs. Cheap to clone; clones
/// share the origin, the rate and the skew.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: TokioInstant,
    drift_ppm: i32,
    skew_ms: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Creates a clock whose monotonic side starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self::drifting(0)
    }

    /// Creates a clock whose monotonic side is fast by this many parts per million, or slow if the
    /// number is negative; by half at most. For simulation. The wall clock does not drift: it is
    /// corrected from outside, up to its skew. The rate is constant: after a change of the rate,
    /// the clock could show a time twice.
    #[must_use]
    pub fn drifting(drift_ppm: i32) -> Self {
        Self {
            origin: TokioInstant::now(),
            drift_ppm: drift_ppm.clamp(-MOST_DRIFT_PPM, MOST_DRIFT_PPM),
            skew_ms: Arc::new(AtomicI64::new(0)),
        }
    }

    /// Sets the wall clock wrong by this many milliseconds, for simulation.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// Returns the current time.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the shell's clock")]
    pub fn now(&self) -> Now {
        let micros = self.shown(self.origin.elapsed().as_micros());
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX);
        Now {
            instant: Instant::from_micros(micros),
            wall: Wall(wall.saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))),
        }
    }

    /// Returns the runtime's instant for a core instant, as a deadline for sleeping: the first
    /// instant at which the clock shows the core instant.
    #[must_use]
    pub fn deadline(&self, at: Instant) -> TokioInstant {
        self.origin + std::time::Duration::from_micros(self.passed(at.as_micros()))
    }

    /// Returns the time that the clock shows after so many microseconds of the runtime.
    fn shown(&self, passed: u128) -> u64 {
        // The clock is read for every frame, and a division takes as long as the read.
        if self.drift_ppm == 0 {
            return u64::try_from(passed).unwrap_or(u64::MAX);
        }
        u64::try_from(passed.saturating_mul(self.rate()) / MILLION).unwrap_or(u64::MAX)
    }

    /// Returns the microseconds of the runtime after which the clock shows this time.
    fn passed(&self, shown: u64) -> u64 {
        // Rounded up: a deadline that is handled early would be found not to be due yet.
        u64::try_from((u128::from(shown) * MILLION).div_ceil(self.rate())).unwrap_or(u64::MAX)
    }

    /// Returns the shown microseconds in a million microseconds of the runtime.
    fn rate(&self) -> u128 {
        MILLION.saturating_add_signed(self.drift_ppm.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRIFTS: [i32; 9] = [-MOST_DRIFT_PPM, -20_000, -333, -1, 0, 1, 333, 20_000, MOST_DRIFT_PPM];

    #[test]
    fn a_deadline_is_the_first_moment_at_which_its_time_has_come() {
        for clock in DRIFTS.map(Clock::drifting) {
            for at in [0, 1, 2, 3, 999, 1_000_000, 1_000_001, 86_400_000_007, u64::MAX / 4] {
                let first = clock.passed(at);
                assert!(clock.shown(first.into()) >= at, "{clock:?} {at}");
                assert!(first == 0 || clock.shown(u128::from(first) - 1) < at, "{clock:?} {at}");
                let deadline = clock.deadline(Instant::from_micros(at));
                assert_eq!(deadline.duration_since(clock.origin).as_micros(), first.into());
            }
        }
    }

    #[test]
    fn a_drifting_clock_never_goes_back() {
        for clock in DRIFTS.map(Clock::drifting) {
            let shown: Vec<u64> = (0..5_000).map(|passed| clock.shown(passed)).collect();
            assert!(shown.is_sorted(), "{clock:?}");
        }
    }

    #[test]
    fn a_rate_is_what_was_asked_for_and_by_half_wrong_at_most() {
        for (drift_ppm, shown) in [
            (0, 10_000_000),
            (20_000, 10_200_000),
            (-20_000, 9_800_000),
            (i32::MIN, 5_000_000),
            (i32::MAX, 15_000_000),
        ] {
            assert_eq!(Clock::drifting(drift_ppm).shown(10_000_000), shown);
        }
    }

    #[test]
    fn what_is_beyond_all_time_is_its_end() {
        for clock in DRIFTS.map(Clock::drifting) {
            for passed in [u128::MAX, u128::MAX / clock.rate() + 1] {
                assert_eq!(clock.shown(passed), u64::MAX, "{clock:?} {passed}");
            }
            assert!(clock.passed(u64::MAX) >= u64::MAX / 3 * 2, "{clock:?}");
        }
    }

    #[tokio::test]
    async fn both_sides_of_a_clock_keep_its_rate() {
        for drift_ppm in [-MOST_DRIFT_PPM, 0, MOST_DRIFT_PPM] {
            let clock = Clock::drifting(drift_ppm);
            let due = Instant::from_micros(60_000);
            tokio::time::sleep_until(clock.deadline(due)).await;
            let now = clock.clone().now().instant;
            assert!(now >= due, "{clock:?} {now}");
        }
    }
}
