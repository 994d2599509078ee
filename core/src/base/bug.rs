//! Broken invariants: what cannot happen unless the code of the core itself is wrong.
//!
//! Wrong input of a peer, and a handle of what has ended meanwhile, are no bugs: they have
//! outcomes of their own. Nothing that a peer can send may reach [`Bugs::found`].

use alloc::vec::Vec;
use core::panic::Location;

#[cfg(feature = "plant")]
use crate::base::plant::Planted;

/// Most places that are told; those beyond are counted only.
const MOST_PLACES: usize = 64;

/// Recorder of the broken invariants of one machine.
///
/// In tests, in the simulator and under a fuzzer a broken invariant panics at once. In
/// production it is counted, told once for each place, and the machine goes on without the
/// step that has found it.
#[derive(Debug)]
pub(crate) struct Bugs {
    panics: bool,
    count: u64,
    /// The first of each place, in the order in which they were found.
    places: Vec<Bug>,
    /// Number of places that [`Self::poll`] has returned.
    told: usize,
}

/// A broken invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bug {
    pub(crate) what: &'static str,
    pub(crate) place: &'static Location<'static>,
}

impl Bugs {
    /// An empty recorder. It panics in tests and wherever bugs can be planted.
    pub(crate) const fn new() -> Self {
        Self { panics: cfg!(any(test, feature = "plant")), count: 0, places: Vec::new(), told: 0 }
    }

    /// Stops panics if a bug is planted: that may well break invariants, and the guarantee that
    /// it breaks is to be reported instead.
    #[cfg(feature = "plant")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.panics = planted == Planted::default();
    }

    /// Records a broken invariant at the place of the caller, which then goes on without what
    /// it cannot do.
    ///
    /// # Panics
    /// In tests, and where bugs can be planted but none is.
    #[cold]
    #[track_caller]
    pub(crate) fn found(&mut self, what: &'static str) {
        assert!(!self.panics, "broken invariant: {what}");
        let place = Location::caller();
        self.count += 1;
        if self.places.len() < MOST_PLACES && self.places.iter().all(|bug| bug.place != place) {
            self.places.push(Bug { what, place });
        }
    }

    /// Number of times that an invariant was found broken.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// True if [`Self::poll`] has something to tell.
    pub(crate) fn has_news(&self) -> bool {
        self.told < self.places.len()
    }

    /// The next broken invariant that was not told yet; one for each place.
    pub(crate) fn poll(&mut self) -> Option<Bug> {
        let bug = *self.places.get(self.told)?;
        self.told += 1;
        Some(bug)
    }

    /// A recorder as in production.
    #[cfg(test)]
    pub(crate) const fn lenient() -> Self {
        let mut bugs = Self::new();
        bugs.panics = false;
        bugs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_told_once_and_each_time_is_counted() {
        let mut bugs = Bugs::lenient();
        assert!(!bugs.has_news());
        for _ in 0..3 {
            bugs.found("a");
        }
        let line = line!() + 1;
        bugs.found("b");
        assert_eq!((bugs.count(), bugs.has_news()), (4, true));
        let first = bugs.poll().unwrap();
        assert_eq!((first.what, first.place.file(), first.place.line()), ("a", file!(), line - 3));
        let second = bugs.poll().unwrap();
        assert_eq!((second.what, second.place.line()), ("b", line));
        assert_eq!((bugs.poll(), bugs.has_news()), (None, false));
        bugs.found("b, elsewhere");
        assert_eq!(bugs.poll().map(|bug| bug.what), Some("b, elsewhere"));
    }

    #[test]
    #[should_panic(expected = "broken invariant: a room without a name")]
    fn a_test_does_not_go_on_behind_a_broken_invariant() {
        Bugs::new().found("a room without a name");
    }
}
