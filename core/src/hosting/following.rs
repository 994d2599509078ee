//! A room that another node is the primary of: whether its tail comes.

use crate::base::id::NodeId;
use crate::base::time::Instant;

/// State of a follower, beside the tail of the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Following {
    primary: NodeId,
    /// Number of the last `Attach`; 0 before the first.
    attach: u64,
    tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// It comes.
    Attached,
    /// It does not; until when it must, if sessions wait for it.
    Detached { until: Instant },
}

impl Following {
    /// Follows a primary that was not asked for the tail yet.
    pub(crate) const fn new(primary: NodeId, until: Instant) -> Self {
        Self { primary, attach: 0, tail: Tail::Detached { until } }
    }

    /// The primary.
    pub(crate) const fn primary(&self) -> NodeId {
        self.primary
    }

    /// Returns true if the tail comes.
    pub(crate) const fn is_attached(&self) -> bool {
        matches!(self.tail, Tail::Attached)
    }

    /// Returns true if an answer is to the last `Attach`.
    pub(crate) const fn has_asked(&self, number: u64) -> bool {
        self.attach == number
    }

    /// Time at which sessions have waited for the tail for long enough.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        match self.tail {
            Tail::Attached => None,
            Tail::Detached { until } => Some(until),
        }
    }

    /// The primary is asked for the tail, by an `Attach` of this number.
    pub(crate) const fn ask(&mut self, number: u64, until: Instant) {
        self.attach = number;
        self.detach(until);
    }

    /// The tail comes. Returns true if it did not before.
    pub(crate) fn attached(&mut self) -> bool {
        core::mem::replace(&mut self.tail, Tail::Attached) != Tail::Attached
    }

    /// The tail does not come any more, or not yet.
    pub(crate) const fn detach(&mut self, until: Instant) {
        self.tail = Tail::Detached { until };
    }

    /// Returns true if sessions have waited for the tail for too long; the next wait ends at
    /// `until`.
    pub(crate) fn take_overdue(&mut self, now: Instant, until: Instant) -> bool {
        let is_overdue = self.deadline().is_some_and(|at| at <= now);
        if is_overdue {
            self.detach(until);
        }
        is_overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_comes_and_goes() {
        let at = Instant::from_micros;
        let mut following = Following::new(NodeId(7), at(10));
        assert_eq!((following.primary(), following.deadline()), (NodeId(7), Some(at(10))));
        following.ask(3, at(20));
        assert!(following.has_asked(3) && !following.has_asked(2) && !following.is_attached());
        assert!(!following.take_overdue(at(19), at(99)) && following.take_overdue(at(20), at(30)));
        assert_eq!(following.deadline(), Some(at(30)));
        assert!(following.attached() && !following.attached());
        assert_eq!((following.deadline(), following.is_attached()), (None, true));
        assert!(!following.take_overdue(at(99), at(100)));
        following.detach(at(40));
        assert_eq!((following.deadline(), following.has_asked(3)), (Some(at(40)), true));
    }
}
