//! A room while the registry is asked whose it is.

use alloc::vec::Vec;

use skirmish_proto::v1;

use crate::base::slab::Key;
use crate::base::time::Instant;

/// State of a room that is being claimed.
#[derive(Debug, Default)]
pub(crate) struct Claiming {
    /// `Attach` messages that came meanwhile: one for each link.
    early: Vec<EarlyAttach>,
    /// Time at which the registry is to be asked; `None`: it is asked.
    ask_at: Option<Instant>,
}

/// An `Attach` that came before the registry had said whose the room is.
#[derive(Debug)]
pub(crate) struct EarlyAttach {
    pub(crate) link: Key,
    pub(crate) attach: v1::Attach,
}

impl Claiming {
    /// Number of `Attach` messages that are kept.
    pub(crate) const fn early(&self) -> usize {
        self.early.len()
    }

    /// Time at which the registry is to be asked.
    pub(crate) const fn ask_at(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Puts the question to the registry off.
    pub(crate) const fn put_off(&mut self, until: Instant) {
        self.ask_at = Some(until);
    }

    /// Returns true if the registry is to be asked now; then it counts as asked.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.ask_at.is_some_and(|at| at <= now);
        if is_due {
            self.ask_at = None;
        }
        is_due
    }

    /// Keeps an `Attach` until the registry has said whose the room is: one for each link that
    /// `lives`.
    pub(crate) fn keep(&mut self, early: EarlyAttach, lives: impl Fn(Key) -> bool) {
        self.early.retain(|kept| kept.link != early.link && lives(kept.link));
        self.early.push(early);
    }

    /// The `Attach` of a link is taken back.
    pub(crate) fn forget(&mut self, link: Key) {
        self.early.retain(|early| early.link != link);
    }

    /// Ends the role: what was kept is to be answered.
    pub(crate) fn finish(self) -> Vec<EarlyAttach> {
        self.early
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn early(slot: u32, number: u64) -> EarlyAttach {
        let attach = v1::Attach { number, ..v1::Attach::default() };
        EarlyAttach { link: Key { slot, generation: 1 }, attach }
    }

    #[test]
    fn one_attach_is_kept_for_each_link_that_lives() {
        let mut claiming = Claiming::default();
        for (slot, number) in [(1, 10), (2, 20), (1, 11)] {
            claiming.keep(early(slot, number), |_| true);
        }
        assert_eq!(claiming.early(), 2);
        claiming.keep(early(3, 30), |link| link.slot != 2);
        claiming.forget(Key { slot: 3, generation: 1 });
        let kept: Vec<u64> = claiming.finish().iter().map(|early| early.attach.number).collect();
        assert_eq!(kept, [11]);
    }

    #[test]
    fn the_registry_is_asked_once_for_each_time_that_it_was_put_off() {
        let at = Instant::from_micros;
        let mut claiming = Claiming::default();
        assert!(!claiming.take_due(at(100)), "it is asked already");
        claiming.put_off(at(200));
        assert!(!claiming.take_due(at(199)) && claiming.take_due(at(200)) && !claiming.take_due(at(300)));
    }
}
