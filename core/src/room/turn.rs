//! The turns of a room: counted from 1, each ended by a message or by its deadline.
//!
//! The application decides which player may act in a turn, and in which way. The room makes all
//! members see the same turns end at the same entries of the log.

use crate::base::time::Duration;

/// Turn of a room, as sent to members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Number of the turn; 0 before the first.
    pub number: u32,
    /// Log time at which the turn ends by itself, in Unix milliseconds; 0 if only a message ends
    /// the turn.
    pub ends_ms: u64,
}

impl Turn {
    /// Returns the turn after this one, which begins at log time `at_ms` and lasts for `time`. With
    /// a zero `time` the turn does not end by itself.
    pub(super) fn next(self, at_ms: u64, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let ends_ms = if time.is_zero() { 0 } else { at_ms.saturating_add(millis) };
        Self { number: self.number.saturating_add(1), ends_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted_and_timed() {
        let timed = Turn::default().next(1_000, Duration::from_secs(30));
        assert_eq!(timed, Turn { number: 1, ends_ms: 31_000 });
        let untimed = timed.next(2_000, Duration::ZERO);
        assert_eq!(untimed, Turn { number: 2, ends_ms: 0 });
        assert_eq!(Turn { number: u32::MAX, ends_ms: 0 }.next(0, Duration::ZERO).number, u32::MAX);
    }
}
