//! Vector clocks: how much of what each replica wrote has been seen.

use alloc::vec::Vec;
use core::cmp::Ordering;

/// A vector clock: for each replica that ever wrote, how far its writes have been
/// seen. What the numbers count is up to the type (stamps for the last-writer-wins
/// types, amounts for the counter); they only grow. A replica that is not named counts
/// as 0. Partially ordered: neither of two versions need be the later one.
///
/// Bounded: beyond [`Self::MAX_REPLICAS`] the smallest number is forgotten, which is of
/// the replica that has written least, or not for longest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version(
    /// In the order of the replicas.
    Vec<(u64, u128)>,
);

impl Version {
    /// Replicas that are remembered.
    pub const MAX_REPLICAS: usize = 512;

    /// How far the writes of `replica` have been seen.
    #[must_use]
    pub fn seen(&self, replica: u64) -> u128 {
        self.place(replica).ok().and_then(|place| self.0.get(place)).map_or(0, |&(_, seen)| seen)
    }

    /// Raises the number of `replica` to `to`, if it is lower. Returns whether it was.
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

    /// Takes the greater number of both for each replica. Returns whether any grew.
    pub fn join(&mut self, other: &Self) -> bool {
        other.0.iter().fold(false, |grew, &(replica, to)| self.raise(replica, to) | grew)
    }

    /// Whether everything that `other` has seen has been seen here too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|&(replica, to)| self.seen(replica) >= to)
    }

    /// Where a replica is, or would be.
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
