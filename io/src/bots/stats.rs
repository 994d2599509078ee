//! Counters and histograms of the bots.

use hdrhistogram::Histogram;
use skirmish_core::time::{Duration, Instant};

/// Latencies from 1 us to a minute with three digits; longer ones count as a minute.
const MAX_US: u64 = 60_000_000;

/// Creates a histogram of microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_US, 3).expect("the bounds are valid")
}

pub(super) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    histogram.saturating_record(micros.max(1));
}

/// Counters of a battle. "In the window" means the measured time: messages with a due time in the
/// window, and deliveries in the window.
#[derive(Debug)]
pub(super) struct Stats {
    /// Begin and end of the measured time; `None` before it is set.
    pub window: Option<(Instant, Instant)>,
    /// Messages that were due in the window and accepted by the client.
    pub sent: u64,
    /// Messages that the client has not accepted: the outbox was full, or, for a latest message,
    /// the client was not connected.
    pub not_taken: u64,
    /// Deliveries in the window.
    pub delivered: u64,
    /// All deliveries, for the progress line.
    pub delivered_ever: u64,
    /// Time from due time to delivery, of messages due in the window.
    pub latency: Histogram<u64>,
    /// Time from the due time to the call of the client: the delay that the bots themselves cause.
    pub lag: Histogram<u64>,
    /// Outcomes of all messages.
    pub acknowledged: u64,
    pub refused: u64,
    pub unknown: u64,
    /// Connections cut on purpose.
    pub cuts: u64,
    /// Connections after the first of a player, and the fate of their sessions.
    pub reconnects: u64,
    pub resumes: u64,
    pub sessions_lost: u64,
    /// Snapshots in place of entries.
    pub snapshots: u64,
    pub throttled: u64,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            window: None,
            sent: 0,
            not_taken: 0,
            delivered: 0,
            delivered_ever: 0,
            latency: histogram(),
            lag: histogram(),
            acknowledged: 0,
            refused: 0,
            unknown: 0,
            cuts: 0,
            reconnects: 0,
            resumes: 0,
            sessions_lost: 0,
            snapshots: 0,
            throttled: 0,
        }
    }

    fn measures(&self, at: Instant) -> bool {
        self.window.is_some_and(|(from, to)| from <= at && at < to)
    }

    /// Counts a message that the client was given, and has accepted or not.
    pub(super) fn say(&mut self, now: Instant, due: Instant, taken: bool) {
        if !self.measures(due) {
            return;
        }
        record(&mut self.lag, now.since(due));
        if taken {
            self.sent += 1;
        } else {
            self.not_taken += 1;
        }
    }

    /// Counts a delivered message.
    pub(super) fn deliver(&mut self, now: Instant, due: Instant) {
        self.delivered_ever += 1;
        if self.measures(now) {
            self.delivered += 1;
        }
        if self.measures(due) {
            record(&mut self.latency, now.since(due));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    #[test]
    fn latency_counts_from_due_time_and_only_in_the_window() {
        let mut stats = Stats::new();
        stats.deliver(ms(5), ms(4));
        assert_eq!((stats.delivered, stats.latency.len()), (0, 0), "nothing is measured yet");
        stats.window = Some((ms(10), ms(20)));
        stats.deliver(ms(12), ms(9));
        assert_eq!((stats.delivered, stats.latency.len()), (1, 0), "due before the window");
        stats.deliver(ms(25), ms(19));
        assert_eq!((stats.delivered, stats.latency.len()), (1, 1), "delivered after it");
        assert_eq!(stats.latency.max() / 100, 60);
        stats.say(ms(12), ms(11), true);
        stats.say(ms(12), ms(11), false);
        stats.say(ms(22), ms(21), true);
        assert_eq!((stats.sent, stats.not_taken, stats.lag.len()), (1, 1, 2));
    }
}
