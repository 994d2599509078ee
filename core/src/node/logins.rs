//! Rate limit of log-ins: one token bucket for each player or address, in a table of bounded size.

use alloc::collections::BTreeMap;

use crate::base::rate::Bucket;
use crate::base::time::{Duration, Instant};
use crate::config::Rate;

/// Log-ins by player or by address. A key without an entry has a full bucket, so a bucket that is
/// surely full again is removed. When the table is full, the bucket with the oldest attempt is
/// removed.
#[derive(Debug)]
pub(crate) struct Logins<K> {
    rate: Rate,
    most: usize,
    buckets: BTreeMap<K, (Bucket, u64)>,
    /// Last attempts with their keys, in order of time.
    asked: BTreeMap<u64, (Instant, K)>,
    next: u64,
}

impl<K: Clone + Ord> Logins<K> {
    /// Creates an empty table of at most `most` buckets.
    pub(crate) const fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, buckets: BTreeMap::new(), asked: BTreeMap::new(), next: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Charges one log-in.
    ///
    /// # Errors
    /// If there were too many log-ins; the error is the time until the next is allowed.
    pub(crate) fn take(&mut self, now: Instant, who: &K) -> Result<(), Duration> {
        self.forget_full(now);
        let mut bucket = match self.buckets.remove(who) {
            Some((bucket, asked)) => {
                self.asked.remove(&asked);
                bucket
            }
            None => Bucket::new(self.rate, now),
        };
        let taken = bucket.take(now, 1);
        if self.buckets.len() >= self.most
            && let Some((_, (_, oldest))) = self.asked.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        if self.buckets.len() < self.most {
            self.next += 1;
            self.buckets.insert(who.clone(), (bucket, self.next));
            self.asked.insert(self.next, (now, who.clone()));
        }
        taken
    }

    /// Removes the buckets that surely are full again.
    fn forget_full(&mut self, now: Instant) {
        let refill = Duration::from_secs(u64::from(self.rate.burst.div_ceil(self.rate.per_second.max(1))));
        while let Some(first) = self.asked.first_entry()
            && first.get().0 + refill <= now
        {
            let (_, who) = first.remove();
            self.buckets.remove(&who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 2, burst: 3 };

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    #[test]
    fn each_has_a_bucket_of_its_own_and_a_refusal_tells_the_wait() {
        let mut logins = Logins::new(RATE, 10);
        for _ in 0..3 {
            logins.take(at(0), &"ann").unwrap();
        }
        assert_eq!(logins.take(at(0), &"ann"), Err(Duration::from_millis(500)));
        logins.take(at(0), &"bob").unwrap();
        assert_eq!(logins.take(at(499), &"ann"), Err(Duration::from_millis(1)));
        logins.take(at(500), &"ann").unwrap();
        assert!(logins.take(at(500), &"ann").is_err());
    }

    #[test]
    fn a_full_table_forgets_whom_it_has_not_seen_for_longest() {
        let mut logins = Logins::new(RATE, 2);
        for who in ["ann", "ann", "ann", "bob"] {
            logins.take(at(0), &who).unwrap();
        }
        // Refused attempts count as well: a key with many attempts is not forgotten.
        assert!(logins.take(at(1), &"ann").is_err());
        for number in 0..1_000 {
            logins.take(at(2), &["cid", "dan"][number % 2]).ok();
            assert!(logins.take(at(2), &"ann").is_err());
            assert_eq!(logins.len(), 2);
        }
    }

    #[test]
    fn buckets_that_are_full_again_take_no_place() {
        let mut logins = Logins::new(RATE, 1_000);
        for number in 0..1_000 {
            logins.take(at(number), &number).unwrap();
        }
        logins.take(at(10_000), &0).unwrap();
        assert_eq!(logins.len(), 1);
    }

    #[test]
    fn a_table_without_places_limits_nobody_and_does_not_grow() {
        let mut logins = Logins::new(RATE, 0);
        for _ in 0..100 {
            logins.take(at(0), &1).unwrap();
        }
        assert_eq!(logins.len(), 0);
    }
}
