//! A process's clocks.

use skirmish_core::time::{Instant, Now, Wall};

/// Unix time at the world's beginning, in milliseconds.
const BEGINNING: i64 = 1_800_000_000_000;

/// Reading of a process's monotonic clock at the start of the process.
const FIRST_INSTANT: i64 = 1_000_000;

/// The clocks of a process, each with its own error: the monotonic clock drifts, and the wall clock
/// is off and jumps as well.
#[derive(Clone, Copy, Debug)]
pub struct SkewedClock {
    started: i64,
    drift_ppm: i64,
    wall_offset_ms: i64,
    /// Largest error, in milliseconds, of a wall clock that is kept right from outside.
    kept_within: Option<i64>,
    /// Error, in milliseconds, of a wall clock that should be right.
    wrong_ms: i64,
}

impl SkewedClock {
    /// Creates the clocks of a process that starts at `started` (world time, microseconds).
    #[must_use]
    pub fn new(started: u64, drift_ppm: i64, wall_offset_ms: i64) -> Self {
        Self { started: signed(started), drift_ppm, wall_offset_ms, kept_within: None, wrong_ms: 0 }
    }

    /// Returns the same clocks with a wall clock that does not drift and is never off by more than
    /// this many milliseconds.
    #[must_use]
    pub fn kept_within(self, millis: u64) -> Self {
        let most = signed(millis);
        Self { wall_offset_ms: self.wall_offset_ms.clamp(-most, most), kept_within: Some(most), ..self }
    }

    /// Returns the clocks after a restart of the process: the machine's wall clock keeps its error.
    #[must_use]
    pub fn restarted(self, at: u64) -> Self {
        if self.kept_within.is_some() {
            return Self { started: signed(at), ..self };
        }
        let shown = self.elapsed(signed(at) - self.started) - (signed(at) - self.started);
        Self { started: signed(at), wall_offset_ms: self.wall_offset_ms + shown / 1_000, ..self }
    }

    /// Returns the readings of the clocks at a moment of the world.
    #[must_use]
    pub fn now(&self, at: u64) -> Now {
        let elapsed = self.elapsed(signed(at) - self.started);
        let passed = if self.kept_within.is_some() { signed(at) } else { self.started + elapsed };
        let wall = BEGINNING + passed / 1_000 + self.wall_offset_ms + self.wrong_ms;
        Now { instant: Instant::from_micros(unsigned(FIRST_INSTANT + elapsed)), wall: Wall(unsigned(wall)) }
    }

    /// Returns the first moment of the world at which the monotonic clock shows `instant`.
    #[must_use]
    pub fn world(&self, instant: Instant) -> u64 {
        let target = signed(instant.as_micros()).saturating_sub(FIRST_INSTANT).max(0);
        let wide = i128::from(target) * 1_000_000 / i128::from(1_000_000 + self.drift_ppm);
        let mut guess = i64::try_from(wide).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        while self.elapsed(guess) < target && guess < i64::MAX / 4 {
            guess += 1;
        }
        while guess > 0 && self.elapsed(guess - 1) >= target {
            guess -= 1;
        }
        unsigned(self.started + guess)
    }

    /// Moves the wall clock.
    pub fn jump(&mut self, millis: i64) {
        let most = self.kept_within.unwrap_or(i64::MAX / 4);
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(millis).clamp(-most, most);
    }

    /// Sets the wall clock wrong by this many milliseconds, even if it is kept right from outside;
    /// 0 ends this.
    pub fn set_wrong(&mut self, millis: i64) {
        self.wrong_ms = millis;
    }

    fn elapsed(&self, true_micros: i64) -> i64 {
        let wide = i128::from(true_micros) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000;
        i64::try_from(wide).unwrap_or(i64::MAX / 2)
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX / 2)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_a_deadline_is_the_first_at_which_it_has_come() {
        for drift in [-20_000, -50, 0, 1, 50, 20_000] {
            let clock = SkewedClock::new(7_000_003, drift, 0);
            for local in [1_000_000, 1_000_001, 1_000_999, 5_000_000, 3_600_000_000] {
                let local = Instant::from_micros(local);
                let at = clock.world(local);
                assert!(clock.now(at).instant >= local);
                assert!(at == 7_000_003 || clock.now(at - 1).instant < local);
            }
        }
    }
}
