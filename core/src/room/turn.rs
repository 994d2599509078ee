//! The turns of a room (row M1): counted from 1, each ended by a message or by its time.
//!
//! Whose turn it is, and what may be done in it, is the application's. The room sees to it
//! that all members see the same turns end at the same entries of the log.

use crate::time::{Duration, Instant, Now};

/// A turn, as members are told of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// 0 before the first.
    pub number: u32,
    /// When its time is over by the server's clock, Unix milliseconds; 0: it lasts until it
    /// is ended.
    pub ends_ms: u64,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Turns {
    /// What each turn has; zero: no end.
    time: Duration,
    turn: Turn,
    ends_at: Option<Instant>,
}

impl Turns {
    pub(super) const fn new(time: Duration) -> Self {
        Self { time, turn: Turn { number: 0, ends_ms: 0 }, ends_at: None }
    }

    pub(super) const fn turn(&self) -> Turn {
        self.turn
    }

    /// When the time of the turn is over.
    pub(super) const fn ends_at(&self) -> Option<Instant> {
        self.ends_at
    }

    /// The turn has ended, and the next one begins.
    pub(super) fn end(&mut self, now: Now) -> Turn {
        let timed = !self.time.is_zero();
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        self.ends_at = timed.then(|| now.instant + self.time);
        let ends_ms = if timed { now.wall.0.saturating_add(millis) } else { 0 };
        self.turn = Turn { number: self.turn.number.saturating_add(1), ends_ms };
        self.turn
    }

    /// Another node, which leads the room, says which turn it is.
    pub(super) const fn follow(&mut self, turn: Turn) {
        self.turn = turn;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;

    #[test]
    fn turns_are_counted_and_timed() {
        let now = Now { instant: Instant::from_micros(7_000_000), wall: Wall(1_000) };
        let mut turns = Turns::new(Duration::from_secs(30));
        assert_eq!((turns.turn(), turns.ends_at()), (Turn::default(), None));
        assert_eq!(turns.end(now), Turn { number: 1, ends_ms: 31_000 });
        assert_eq!(turns.ends_at(), Some(Instant::from_micros(37_000_000)));
        let mut untimed = Turns::new(Duration::ZERO);
        assert_eq!((untimed.end(now), untimed.ends_at()), (Turn { number: 1, ends_ms: 0 }, None));
        assert_eq!(untimed.end(now).number, 2);
    }
}
