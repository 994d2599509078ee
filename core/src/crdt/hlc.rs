//! Hybrid logical clocks.
//!
//! A stamp is close to the wall clock. It is also later than every believable stamp that its writer
//! had seen, even if the wall clock stands still or is set back. So "the last writer wins" agrees
//! with the order that players see, and a reply always wins over the write that it replies to.

use skirmish_proto::v1;

use crate::base::time::{Duration, Now};

/// Latest time of a stamp, Unix time in ms (the year 10889). An entry with a later time is
/// malformed, so that no stamp can exhaust the clocks.
pub const MAX_WALL_MS: u64 = 1 << 48;

/// Time and writer of a write. Stamps are totally ordered, by the fields in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Unix time in milliseconds. Not below the time of any believable stamp that the writer had
    /// seen.
    pub wall_ms: u64,
    /// Number that distinguishes writes with the same `wall_ms`.
    pub count: u32,
    /// Replica that made the write.
    pub replica: u64,
}

impl Stamp {
    /// Returns the earliest stamp of `replica` after this stamp, which may be of any replica.
    fn next(self, replica: u64) -> Self {
        match self.count.checked_add(1) {
            Some(count) => Self { count, replica, ..self },
            None => Self { wall_ms: self.wall_ms + 1, count: 0, replica },
        }
    }

    /// Returns the time and the count as one number, for [`super::Version`].
    pub(super) fn as_u128(self) -> u128 {
        u128::from(self.wall_ms) << 32 | u128::from(self.count)
    }
}

impl From<Stamp> for v1::Stamp {
    fn from(stamp: Stamp) -> Self {
        Self { wall_ms: stamp.wall_ms, count: stamp.count, replica: stamp.replica }
    }
}

impl From<v1::Stamp> for Stamp {
    fn from(stamp: v1::Stamp) -> Self {
        Self { wall_ms: stamp.wall_ms, count: stamp.count, replica: stamp.replica }
    }
}

/// Error of a stamp that is more than the clock bound ahead of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFarAhead;

/// A hybrid logical clock. Its stamps only grow, except after [`Self::turn_back`].
#[derive(Clone, Debug)]
pub struct Hlc {
    replica: u64,
    bound_ms: u64,
    /// Latest stamp that was made or observed.
    last: Stamp,
    /// Highest reading of the own wall clock. The bound of stamps counts from this reading. It
    /// cannot count from `last`: each accepted stamp that is a little ahead would let the next one
    /// be ahead a little more. It cannot count from the present reading: a clock that was set back
    /// would refuse stamps that it had accepted.
    highest_ms: u64,
    /// Difference from the own wall clock to the clock that is followed.
    offset_ms: i64,
}

impl Hlc {
    /// Creates the clock of `replica`, which refuses stamps more than `bound` ahead.
    #[must_use]
    pub fn new(replica: u64, bound: Duration) -> Self {
        Self { replica, bound_ms: millis(bound), last: Stamp::default(), highest_ms: 0, offset_ms: 0 }
    }

    /// Returns the replica that the stamps name.
    #[must_use]
    pub const fn replica(&self) -> u64 {
        self.replica
    }

    /// Returns the wall clock, corrected by [`Self::follow`]: Unix time in milliseconds.
    #[must_use]
    pub fn wall_ms(&self, now: Now) -> u64 {
        now.wall.0.saturating_add_signed(self.offset_ms).min(MAX_WALL_MS)
    }

    /// Returns a stamp for an own write, later than all stamps that were made or observed.
    pub fn tick(&mut self, now: Now) -> Stamp {
        let wall_ms = self.read(now);
        self.last = if wall_ms > self.last.wall_ms {
            Stamp { wall_ms, count: 0, replica: self.replica }
        } else {
            self.last.next(self.replica)
        };
        self.last
    }

    /// Checks that a stamp is believable.
    ///
    /// # Errors
    /// If the stamp is more than the bound ahead of the highest reading of our wall clock.
    pub fn check(&mut self, now: Now, stamp: Stamp) -> Result<(), TooFarAhead> {
        self.read(now);
        if stamp.wall_ms > self.highest_ms.saturating_add(self.bound_ms) { Err(TooFarAhead) } else { Ok(()) }
    }

    /// Returns a stamp for an own write that wins over a write with the stamp `known`, however far
    /// ahead `known` is.
    pub fn tick_over(&mut self, now: Now, known: Option<Stamp>) -> Stamp {
        let stamp = self.tick(now);
        match known {
            Some(known) if known >= stamp => known.next(self.replica),
            _ => stamp,
        }
    }

    /// Takes note of a stamp from another replica: later stamps of this clock will be above it. A
    /// stamp that is not [believed](Self::check) is ignored: the writer had a wrong clock, and that
    /// clock must not spread to all replicas.
    pub fn observe(&mut self, now: Now, stamp: Stamp) {
        if self.check(now, stamp).is_ok() {
            self.last = self.last.max(stamp);
        }
    }

    /// Follows another wall clock, which shows `wall_ms` now. Later stamps are still above all
    /// earlier ones.
    pub fn follow(&mut self, now: Now, wall_ms: u64) {
        let difference = i128::from(wall_ms.min(MAX_WALL_MS)) - i128::from(now.wall.0);
        self.offset_ms = i64::try_from(difference).unwrap_or(i64::MIN);
        self.highest_ms = wall_ms.min(MAX_WALL_MS);
    }

    /// Turns the clock back to `wall_ms`, but not to before `known`. For a replica whose clock was
    /// ahead, if nobody has accepted the stamps of that time.
    pub fn turn_back(&mut self, now: Now, wall_ms: u64, known: Stamp) {
        self.follow(now, wall_ms);
        self.last = known;
    }

    /// Returns the highest reading of the own wall clock, and the latest time that [`Self::check`]
    /// accepts.
    pub fn believes(&mut self, now: Now) -> (u64, u64) {
        self.read(now);
        (self.highest_ms, self.highest_ms.saturating_add(self.bound_ms).min(MAX_WALL_MS))
    }

    fn read(&mut self, now: Now) -> u64 {
        let wall_ms = self.wall_ms(now);
        self.highest_ms = self.highest_ms.max(wall_ms);
        wall_ms
    }
}

/// Returns the whole milliseconds of a duration, `u64::MAX` at most.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{Instant, Wall};

    fn at(ms: u64) -> Now {
        Now { instant: Instant::from_micros(ms * 1000), wall: Wall(ms) }
    }

    fn clock() -> Hlc {
        Hlc::new(7, Duration::from_secs(2))
    }

    #[test]
    fn stamps_grow_when_the_wall_clock_stands_or_goes_back() {
        let mut clock = clock();
        let stamps = [1000, 1000, 400, 1001].map(|ms| clock.tick(at(ms)));
        assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
        assert_eq!((stamps[3].wall_ms, stamps[3].count), (1001, 0));
    }

    #[test]
    fn a_stamp_is_later_than_what_was_observed() {
        let mut clock = clock();
        let remote = Stamp { wall_ms: 2500, count: 9, replica: 99 };
        clock.observe(at(1000), remote);
        assert!(clock.tick(at(1000)) > remote);
    }

    #[test]
    fn a_stamp_that_is_not_believed_is_won_over_and_not_followed() {
        let mut clock = clock();
        let future = Stamp { wall_ms: 900_000, count: u32::MAX, replica: 99 };
        clock.observe(at(1000), future);
        assert_eq!(clock.tick(at(1000)).wall_ms, 1000);
        let over = clock.tick_over(at(1001), Some(future));
        assert_eq!(over, Stamp { wall_ms: 900_001, count: 0, replica: 7 });
        assert_eq!(clock.tick(at(1002)).wall_ms, 1002);
        let past = Stamp { wall_ms: 500, ..future };
        assert_eq!(clock.tick_over(at(1003), Some(past)).wall_ms, 1003);
    }

    #[test]
    fn a_full_count_carries_into_the_time() {
        let mut clock = clock();
        clock.observe(at(4000), Stamp { wall_ms: 5000, count: u32::MAX, replica: 9 });
        assert_eq!(clock.tick(at(4000)), Stamp { wall_ms: 5001, count: 0, replica: 7 });
    }

    #[test]
    fn accepted_stamps_do_not_stretch_the_bound() {
        let mut clock = clock();
        let edge = Stamp { wall_ms: 3000, count: 0, replica: 9 };
        assert_eq!(clock.check(at(1000), edge), Ok(()));
        clock.observe(at(1000), edge);
        assert!(clock.tick(at(1000)) > edge);
        assert_eq!(clock.check(at(1000), Stamp { wall_ms: 3001, ..edge }), Err(TooFarAhead));
        assert_eq!(clock.check(at(1001), Stamp { wall_ms: 3001, ..edge }), Ok(()));
    }

    #[test]
    fn a_clock_set_back_still_takes_what_it_took_before() {
        let mut clock = clock();
        clock.tick(at(10_000));
        assert_eq!(clock.check(at(1000), Stamp { wall_ms: 10_000, count: 3, replica: 9 }), Ok(()));
    }

    #[test]
    fn follows_another_clock() {
        for server in [500, 90_000] {
            let mut clock = clock();
            clock.follow(at(1000), server);
            assert_eq!(clock.wall_ms(at(1010)), server + 10);
            assert_eq!(clock.tick(at(1010)).wall_ms, server + 10);
        }
    }
}
