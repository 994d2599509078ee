//! Limits of a connection, judged by the times at which the node reads its frames.
//!
//! A client is within a limit of `R` per second and `B` at once if in no span of `t` seconds
//! it *sends* more than `B + R * t`. The node sees when it *reads*: after a stall of the path,
//! or of the node itself, everything that was sent meanwhile is there at once. So each class of
//! frames has two levels:
//!
//! - The **pace** (`B`, refilled at [`CATCH_UP`]` * R`) decides how fast a connection is read.
//!   While it is used up the connection is paused: TCP holds the sender, and nothing is lost.
//! - The **patience** (`B + R * S`, refilled at `R`) decides whether the client is within its
//!   limits. A connection whose patience is used up is closed. `S` is the longest stall that a
//!   connection survives ([`Heartbeat::longest_stall`](crate::config::Heartbeat::longest_stall)).
//!
//! The patience may exceed `B + R * S` while the connection is *behind*: from a pause until
//! everything that had come was read.
//!
//! **A client within its limits never uses up its patience**, if path and node together delay
//! nothing by more than `S`, the pauses themselves not counted. Let `d` be any moment at which
//! the connection was not behind. Nothing that is read after `d` could have been read before, so
//! all of it was sent after `d - S`. Until a moment `t` the client sent at most
//! `B + R * (t - d + S)` of that. The patience was limited to `B + R * S` at `d` and has grown by
//! `R * (t - d)` since: that covers it. This holds for every such `d`, hence for the level, which
//! is the least over all of them.
//!
//! A client that floods is behind from its first pause on, and is read at `CATCH_UP * R`: it is
//! closed after `S / (CATCH_UP - 1)`.

use crate::base::time::{Duration, Instant};
use crate::config::Rate;

/// Factor of its limit at which a connection with a backlog is read. A client that sends as much as
/// its limits allow has caught up after a third of the stall.
pub(crate) const CATCH_UP: u64 = 4;

/// Shortest pause. The driver's timer has a resolution of a millisecond, so one pause collects the
/// waits of several frames.
pub(crate) const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Inverse of the fraction by which the patience is refilled faster than the limit, since clocks of
/// clients and nodes differ.
const CLOCK_TOLERANCE: u64 = 16;

/// One token, in the unit of the levels.
const TOKEN: i64 = 1_000_000;

/// Limits of a class of frames, as refills and bounds of the two levels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Refill of the pace, in millionths of a token per microsecond.
    catch_up: u64,
    /// Highest pace, in millionths of a token.
    pace: i64,
    /// Refill of the patience, in millionths of a token per microsecond, times
    /// [`CLOCK_TOLERANCE`].
    patience_rate: u64,
    /// Highest patience of a connection that is not behind, in millionths of a token.
    patience: i64,
}

impl Allowance {
    /// Returns the allowance for a limit, with stalls of at most `stall`.
    #[must_use]
    pub(crate) fn new(limit: Rate, stall: Duration) -> Self {
        let per_second = u64::from(limit.per_second);
        let burst = i64::from(limit.burst) * TOKEN;
        let catch_up = per_second * CATCH_UP;
        Self {
            catch_up,
            // A pause must not be longer than the wait of its frames.
            pace: burst.max(product(catch_up, micros(SHORTEST_PAUSE * 2))),
            patience_rate: per_second * (CLOCK_TOLERANCE + 1),
            patience: burst.saturating_add(product(per_second, micros(stall))),
        }
    }
}

/// Consequence of a charge for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charge {
    /// The connection is read on.
    Within,
    /// The connection is not read for this time.
    Pause(Duration),
    /// The client exceeds its limits: the connection is closed.
    Spent,
}

/// The levels of one class of frames of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    pace: i64,
    patience: i64,
    refilled: Instant,
}

impl Meter {
    /// Creates full levels.
    #[must_use]
    pub(crate) const fn new(allowance: &Allowance, now: Instant) -> Self {
        Self { pace: allowance.pace, patience: allowance.patience, refilled: now }
    }

    /// Charges for `tokens` that were read. `behind` is true if the connection was paused, and has
    /// not been read to the end since.
    pub(crate) fn charge(
        &mut self,
        allowance: &Allowance,
        now: Instant,
        tokens: u64,
        behind: bool,
    ) -> Charge {
        self.refill(allowance, now, behind);
        let cost = i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(TOKEN);
        self.pace = self.pace.saturating_sub(cost);
        self.patience = self.patience.saturating_sub(cost);
        if self.patience < 0 {
            return Charge::Spent;
        }
        if self.pace >= 0 {
            return Charge::Within;
        }
        let debt = self.pace.unsigned_abs().div_ceil(allowance.catch_up.max(1));
        Charge::Pause(Duration::from_micros(debt) + SHORTEST_PAUSE)
    }

    /// Notes that all received input was read: the connection is not behind any more.
    pub(crate) fn caught_up(&mut self, allowance: &Allowance, now: Instant) {
        self.refill(allowance, now, false);
    }

    fn refill(&mut self, allowance: &Allowance, now: Instant, behind: bool) {
        let elapsed = micros(now.since(self.refilled));
        self.refilled = self.refilled.max(now);
        self.pace = self.pace.saturating_add(product(allowance.catch_up, elapsed)).min(allowance.pace);
        let grown = product(allowance.patience_rate, elapsed) / CLOCK_TOLERANCE.cast_signed();
        self.patience = self.patience.saturating_add(grown);
        if !behind {
            self.patience = self.patience.min(allowance.patience);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn product(rate: u64, micros: u64) -> i64 {
    i64::try_from(rate.saturating_mul(micros)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    /// Reads frames as a driver does, and returns the time at which the connection was closed.
    ///
    /// `arrivals` are moments at which a frame can be read first; `pauses` are spans in which
    /// the node itself reads nothing.
    fn read(allowance: &Allowance, arrivals: &[u64], pauses: &[(u64, u64)]) -> Result<Vec<u64>, u64> {
        let free = |mut now: u64| {
            while let Some((_, end)) = pauses.iter().find(|(start, end)| (*start..*end).contains(&now)) {
                now = *end;
            }
            now
        };
        let mut meter = Meter::new(allowance, at(0));
        let (mut clock, mut behind) = (0, false);
        let mut reads = Vec::new();
        for arrival in arrivals {
            if behind && *arrival > clock {
                // The driver found nothing more to read.
                meter.caught_up(allowance, at(free(clock)));
                behind = false;
            }
            clock = free(clock.max(*arrival));
            reads.push(clock);
            match meter.charge(allowance, at(clock), 1, behind) {
                Charge::Within => {}
                Charge::Pause(pause) => {
                    behind = true;
                    clock += micros(pause);
                }
                Charge::Spent => return Err(clock),
            }
        }
        Ok(reads)
    }

    /// Returns the times at which a client sends that uses its limits fully, with any gaps.
    fn compliant(limit: Rate, gaps: &[u64]) -> Vec<u64> {
        let mut bucket = crate::base::rate::Bucket::new(limit, at(0));
        let (mut now, mut sent) = (0, Vec::new());
        for gap in gaps {
            now += gap;
            while let Err(wait) = bucket.take(at(now), 1) {
                now += micros(wait);
            }
            sent.push(now);
        }
        sent
    }

    #[test]
    fn a_client_at_its_limit_survives_a_stall_and_catches_up_in_a_third_of_it() {
        let limit = Rate { per_second: 30, burst: 100 };
        let stall = Duration::from_secs(60);
        let allowance = Allowance::new(limit, stall);
        let sent = compliant(limit, &[0; 6_000]);
        let stalled = micros(stall);
        let arrivals: Vec<u64> = sent.iter().map(|sent| (*sent).max(stalled)).collect();
        let reads = read(&allowance, &arrivals, &[]).expect("it is within its limits");
        let late = sent.iter().zip(&reads).filter(|(sent, read)| **read > **sent + 50_000);
        let caught_up = late.map(|(_, read)| *read).max().expect("there was a stall");
        assert!(caught_up < stalled + stalled / 3 + 1_000_000, "{caught_up}");
    }

    #[test]
    fn a_flood_is_read_slowly_and_closed_after_a_third_of_the_longest_stall() {
        for limit in [Rate { per_second: 30, burst: 100 }, Rate { per_second: 1 << 20, burst: 1 << 23 }] {
            let allowance = Allowance::new(limit, Duration::from_secs(60));
            let mut meter = Meter::new(&allowance, at(0));
            let (mut clock, mut read, mut behind) = (0, 0, false);
            let frame = u64::from(limit.burst / 100);
            while clock < 60_000_000 {
                match meter.charge(&allowance, at(clock), frame, behind) {
                    Charge::Within => {}
                    Charge::Pause(pause) => {
                        behind = true;
                        clock += micros(pause);
                    }
                    Charge::Spent => break,
                }
                read += frame;
                let most = u64::from(limit.burst)
                    + CATCH_UP * u64::from(limit.per_second) * (clock + 20_000) / 1_000_000;
                assert!(read <= most + 2 * frame, "{read} {most}");
            }
            assert!((15_000_000..22_000_000).contains(&clock), "{clock}");
        }
    }

    proptest! {
        /// Test of the proof at the head of this file.
        #[test]
        fn a_client_within_its_limits_is_never_closed(
            per_second in 1u32..2_000,
            burst in 1u32..300,
            gaps in prop::collection::vec(prop_oneof![4 => Just(0), 1 => 0u64..3_000_000], 1..900),
            stall_ms in 10u64..8_000,
            // Stalls of the path: the start of each after the end of the last, and the duration as
            // a percentage of the longest stall.
            path in prop::collection::vec((0u64..6_000_000, 0u64..=100), 0..20),
            node in prop::collection::vec((0u64..6_000_000, 0u64..=100), 0..20),
            drift in 0u64..=50,
        ) {
            let limit = Rate { per_second, burst };
            let stall = stall_ms * 1_000;
            // The client's clock is fast.
            let sent: Vec<u64> = compliant(limit, &gaps).iter().map(|at| at * 1_000 / (1_000 + drift)).collect();
            let spans = |parts: &[(u64, u64)], longest: u64| {
                let mut at = 0;
                parts.iter().map(|(gap, percent)| {
                    let start = at + gap;
                    at = start + longest * percent / 100;
                    (start, at)
                }).collect::<Vec<_>>()
            };
            // Stalls of path and node together must not exceed the longest stall, so each gets half
            // of it.
            let path = spans(&path, stall / 2);
            let node = spans(&node, stall / 2);
            let held = |sent: u64| path.iter().find(|(start, end)| (*start..*end).contains(&sent)).map_or(sent, |(_, end)| *end);
            let arrivals: Vec<u64> = sent.iter().map(|sent| held(*sent)).collect();
            let allowance = Allowance::new(limit, Duration::from_micros(stall));
            let merged = merge(&node, stall / 2);
            prop_assert_eq!(read(&allowance, &arrivals, &merged).map(|reads| reads.len()), Ok(sent.len()));
        }
    }

    /// Returns the spans, without those that together with earlier ones would exceed `longest`.
    fn merge(spans: &[(u64, u64)], longest: u64) -> Vec<(u64, u64)> {
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for &(start, end) in spans {
            match merged.last_mut() {
                Some(last) if last.1 >= start => {
                    if end - last.0 <= longest {
                        last.1 = end;
                    }
                }
                _ => merged.push((start, end)),
            }
        }
        merged
    }
}
