//! Limits of rates, as token buckets.

use crate::base::time::{Duration, Instant};

/// Parameters of a token bucket: `per_second` on average, `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens added per second.
    pub per_second: u32,
    /// Maximum number of tokens in the bucket.
    pub burst: u32,
}

/// A token bucket. Starts full; exact to a millionth of a token, without drift.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// Tokens in millionths: a rate of one token a second adds one millionth each microsecond.
    millionths: u64,
    refilled: Instant,
}

const TOKEN: u64 = 1_000_000;

impl Bucket {
    /// Creates a full bucket.
    #[must_use]
    pub const fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, millionths: rate.burst as u64 * TOKEN, refilled: now }
    }

    /// Removes `tokens` from the bucket, or none.
    ///
    /// # Errors
    /// If the bucket has fewer tokens. The error is the time until it will have enough; for more
    /// tokens than the bucket can hold, the time until it is full.
    pub fn take(&mut self, now: Instant, tokens: u32) -> Result<(), Duration> {
        let wait = self.wait(now, tokens);
        if wait.is_zero() {
            self.millionths -= u64::from(tokens) * TOKEN;
            return Ok(());
        }
        Err(wait)
    }

    /// Removes `tokens` from the bucket, or all if it has fewer.
    pub fn drain(&mut self, now: Instant, tokens: u32) {
        self.refill(now);
        self.millionths = self.millionths.saturating_sub(u64::from(tokens) * TOKEN);
    }

    /// Returns the time until the bucket has `tokens`; zero if it has enough now. For more tokens
    /// than the bucket can hold, this is the time until it is full.
    #[must_use]
    pub fn wait(&mut self, now: Instant, tokens: u32) -> Duration {
        self.refill(now);
        let wanted = u64::from(tokens) * TOKEN;
        if wanted <= self.millionths {
            return Duration::ZERO;
        }
        let missing = wanted.min(self.full()).saturating_sub(self.millionths);
        Duration::from_micros(missing.div_ceil(u64::from(self.rate.per_second.max(1))).max(1))
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = u64::try_from(now.since(self.refilled).as_micros()).unwrap_or(u64::MAX);
        let grown = elapsed.saturating_mul(self.rate.per_second.into());
        self.millionths = self.millionths.saturating_add(grown).min(self.full());
        self.refilled = self.refilled.max(now);
    }

    const fn full(&self) -> u64 {
        self.rate.burst as u64 * TOKEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn gives_the_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(RATE, at(0));
        for _ in 0..3 {
            bucket.take(at(0), 1).unwrap();
        }
        assert_eq!(bucket.take(at(0), 1), Err(Duration::from_millis(100)));
        assert_eq!(bucket.take(at(99), 1), Err(Duration::from_millis(1)));
        bucket.take(at(100), 1).unwrap();
        bucket.take(at(10_000), 3).unwrap();
        assert!(bucket.take(at(10_000), 1).is_err());
    }

    #[test]
    fn a_refusal_takes_nothing_and_tells_the_exact_wait() {
        let mut bucket = Bucket::new(RATE, at(0));
        let wait = bucket.take(at(0), 9).unwrap_err();
        assert_eq!(wait, Duration::from_micros(1));
        bucket.take(at(0), 3).unwrap();
        let wait = bucket.take(at(0), 2).unwrap_err();
        bucket.take(at(0) + wait, 2).unwrap();
    }
}
