//! Vector clocks: how much of what each replica wrote has been seen.

use alloc::collections::BTreeMap;
use core::cmp::Ordering;

/// A vector clock: for each replica that ever wrote, how far its writes have been
/// seen. What the numbers count is up to the type (stamps for the last-writer-wins
/// types, amounts for the counter); they only grow. A replica that is not named counts
/// as 0. Partially ordered: neither of two versions need be the later one.
///
/// Bounded: beyond [`Self::MAX_REPLICAS`] the smallest number is forgotten, which is of
/// the replica that has written least, or not for longest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version(BTreeMap<u64, u128>);

impl Version {
    /// Replicas that are remembered.
    pub const MAX_REPLICAS: usize = 512;

    /// How far the writes of `replica` have been seen.
    #[must_use]
    pub fn seen(&self, replica: u64) -> u128 {
        self.0.get(&replica).copied().unwrap_or(0)
    }

    /// Raises the number of `replica` to `to`, if it is lower. Returns whether it was.
    pub fn raise(&mut self, replica: u64, to: u128) -> bool {
        if to == 0 {
            return false;
        }
        if let Some(seen) = self.0.get_mut(&replica) {
            let raised = *seen < to;
            *seen = (*seen).max(to);
            return raised;
        }
        self.0.insert(replica, to);
        if self.0.len() > Self::MAX_REPLICAS {
            let least =
                self.0.iter().min_by_key(|&(&replica, &to)| (to, replica)).map(|(&replica, _)| replica);
            self.0.retain(|&replica, _| Some(replica) != least);
        }
        true
    }

    /// Takes the greater number of both for each replica. Returns whether any grew.
    pub fn join(&mut self, other: &Self) -> bool {
        other.0.iter().fold(false, |grew, (&replica, &to)| self.raise(replica, to) | grew)
    }

    /// Whether everything that `other` has seen has been seen here too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|(&replica, &to)| self.seen(replica) >= to)
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
