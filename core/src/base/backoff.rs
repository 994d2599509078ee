//! Growing random waits between attempts.

use crate::base::rng::Rng;
use crate::base::time::Duration;

/// Longest wait that a server may ask for. A longer one is cut to this wait.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Exponential back-off with full jitter above its minimum: clients that lost the same server at
/// the same moment do not return at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    min: Duration,
    max: Duration,
}

impl Spread {
    /// Creates waits from `min` to `max`. The first wait is from `min` to twice that, and no wait
    /// is longer than `max`. A `max` below `min` counts as `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min) }
    }

    /// Returns the wait after a number of failures in a row, counted from 1.
    pub fn after(self, failures: u32, rng: &mut Rng) -> Duration {
        rng.duration(self.min..=self.ceiling(failures))
    }

    fn ceiling(self, failures: u32) -> Duration {
        self.min.saturating_mul(1 << failures.clamp(1, 16)).min(self.max)
    }
}

/// Attempts in a row, each after a longer [wait](Spread).
#[derive(Debug)]
pub struct Backoff {
    spread: Spread,
    failures: u32,
}

impl Backoff {
    /// Creates a back-off with the waits of a [`Spread`] of these bounds.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { spread: Spread::new(min, max), failures: 0 }
    }

    /// Returns the wait from now on; the next one may be twice as long. `retry_after` is the wait
    /// that the server has asked for, a minute at most. The result is at least this long, with the
    /// jitter on top.
    pub fn next(&mut self, rng: &mut Rng, retry_after: Duration) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = self.spread.after(self.failures, rng);
        let (asked, min) = (retry_after.min(LONGEST_RETRY_AFTER), self.spread.min);
        if asked > min { asked + (wait - min) } else { wait }
    }

    /// Starts again with the shortest wait, after an attempt has succeeded.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::rng::Rng;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_millis(3_000);

    #[test]
    fn the_range_doubles_up_to_the_maximum_and_starts_again_after_a_reset() {
        let spread = Spread::new(MIN, MAX);
        let ceilings = [1, 2, 3, 4, u32::MAX].map(|failures| spread.ceiling(failures).as_millis());
        assert_eq!(ceilings, [1_000, 2_000, 3_000, 3_000, 3_000]);
        let rng = &mut Rng::new([1; 32]);
        let mut backoff = Backoff::new(MIN, MAX);
        let longest = |backoff: &mut Backoff, rng: &mut Rng| {
            let waits = (0..200).map(|_| {
                backoff.reset();
                backoff.next(rng, Duration::ZERO)
            });
            waits.max().unwrap()
        };
        for _ in 0..3 {
            let _ = backoff.next(rng, Duration::ZERO);
        }
        let most = longest(&mut backoff, rng);
        assert!(most <= MIN * 2 && most > MIN * 3 / 2, "{most:?}");
    }

    #[test]
    fn the_first_waits_of_many_clients_are_spread() {
        let waits: alloc::collections::BTreeSet<_> = (0..100u8)
            .map(|i| Backoff::new(MIN, MAX).next(&mut Rng::new([i; 32]), Duration::ZERO).as_millis() / 50)
            .collect();
        assert!(waits.len() >= 8, "{waits:?}");
    }

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(seed: [u8; 32], retry_ms in 0u64..200_000, rounds in 1usize..8) {
            let mut backoff = Backoff::new(MIN, MAX);
            let mut rng = Rng::new(seed);
            let asked = Duration::from_millis(retry_ms);
            for _ in 0..rounds {
                let wait = backoff.next(&mut rng, asked);
                prop_assert!(wait >= MIN && wait >= asked.min(LONGEST_RETRY_AFTER));
                prop_assert!(wait <= LONGEST_RETRY_AFTER + MAX);
                if asked <= MIN {
                    prop_assert!(wait <= MAX);
                }
            }
        }
    }
}
