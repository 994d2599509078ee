//! Vector clocks, which record how far the writes of each replica have been seen.

use alloc::vec::Vec;
use core::cmp::Ordering;

/// A vector clock: for each replica that ever wrote, a number that says how far the writes of the
/// replica have been seen. The type decides the unit of the numbers (stamps for the
/// last-writer-wins types, amounts for the counter); the numbers only grow. A replica that is not
/// named counts as 0. Versions are partially ordered: two versions can differ without one being
/// later.
///
/// Bounded: beyond [`Self::MAX_REPLICAS`] the smallest number is forgotten. The replica of the
/// smallest number has written least, or has not written for the longest time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version(
    /// Pairs of replica and number, in the order of the replicas.
    Vec<(u64, u128)>,
);

impl Version {
    /// Maximum number of replicas in a version. At the bound, the smallest number is forgotten.
    pub const MAX_REPLICAS: usize = 512;

    /// Returns the number of `replica`: how far the writes of the replica have been seen.
    #[must_use]
    pub fn seen(&self, replica: u64) -> u128 {
        self.place(replica).ok().and_then(|place| self.0.get(place)).map_or(0, |&(_, seen)| seen)
    }

    /// Raises the number of `replica` to `to`, if the number is lower. Returns true if the number
    /// was raised.
    pub fn raise(&mut self, replica: u64, to: u128) -> bool {
        if to == 0 {
            return false;
        }
        match self.place(replica) {
            Ok(place) => {
                let Some((_, seen)) = self.0.get_mut(place) else { return false };
                let raised = *seen < to;
                *seen = (*seen).max(to);
                return raised;
            }
            Err(place) => self.0.insert(place, (replica, to)),
        }
        if self.0.len() > Self::MAX_REPLICAS {
            let least = self.0.iter().copied().min_by_key(|&(replica, to)| (to, replica));
            self.0.retain(|&seen| Some(seen) != least);
        }
        true
    }

    /// Takes the greater number of the two versions for each replica. Returns true if any number
    /// grew.
    pub fn join(&mut self, other: &Self) -> bool {
        other.0.iter().fold(false, |grew, &(replica, to)| self.raise(replica, to) | grew)
    }

    /// Returns true if all writes that `other` has seen have been seen here too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|&(replica, to)| self.seen(replica) >= to)
    }

    /// Returns the position of a replica, or the position at which the replica would be inserted.
    fn place(&self, replica: u64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&replica, |&(replica, _)| replica)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}
