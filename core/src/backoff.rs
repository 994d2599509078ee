//! How long to wait before the next attempt.

use crate::rng::Rng;
use crate::time::Duration;

/// The longest wait that a server may ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Exponential back-off with full jitter above its minimum (row R1): those who lost
/// the same server at the same moment do not come back at the same moment.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// Upper end of the next wait.
    ceiling: Duration,
}

impl Backoff {
    /// The first wait is from `min` to twice that, no wait is over `max`; a `max` below
    /// `min` counts as `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        let max = max.max(min);
        Self { min, max, ceiling: min.saturating_mul(2).min(max) }
    }

    /// The wait from now on; the next one may be twice as long. `retry_after` is what the
    /// server asked for, up to a minute: waited at least, and the jitter comes on top.
    pub fn next(&mut self, rng: &mut Rng, retry_after: Duration) -> Duration {
        let wait = rng.duration(self.min..=self.ceiling);
        self.ceiling = self.ceiling.saturating_mul(2).min(self.max);
        let asked = retry_after.min(LONGEST_RETRY_AFTER);
        if asked > self.min { asked + (wait - self.min) } else { wait }
    }

    /// An attempt has succeeded: the next trouble is a new one.
    pub fn reset(&mut self) {
        self.ceiling = self.min.saturating_mul(2).min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    const MIN: Duration = Duration::from_millis(500);
    const MAX: Duration = Duration::from_millis(3_000);

    #[test]
    fn the_range_doubles_up_to_the_maximum_and_starts_again_after_a_reset() {
        let mut backoff = Backoff::new(MIN, MAX);
        let mut rng = Rng::new([1; 32]);
        let mut ceilings = [Duration::ZERO; 4];
        for ceiling in &mut ceilings {
            *ceiling = backoff.ceiling;
            let _ = backoff.next(&mut rng, Duration::ZERO);
        }
        assert_eq!(ceilings.map(|c| c.as_millis()), [1_000, 2_000, 3_000, 3_000]);
        backoff.reset();
        assert_eq!(backoff.ceiling.as_millis(), 1_000);
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
