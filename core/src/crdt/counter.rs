//! Counters that go up and down.

use alloc::collections::BTreeMap;
use core::borrow::Borrow;

use super::{Crdt, Version};

/// Sums that one replica has added to a counter and subtracted from it. Both sums only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Sum of all additions.
    pub plus: u64,
    /// Sum of all subtractions.
    pub minus: u64,
}

impl Share {
    /// Returns the contribution of the replica to the counter: `plus` - `minus`.
    #[must_use]
    pub fn value(self) -> i128 {
        i128::from(self.plus) - i128::from(self.minus)
    }

    /// Returns the share with `delta` added; `None` if a sum would exceed 64 bits.
    #[must_use]
    pub fn plus(self, delta: i64) -> Option<Self> {
        let amount = delta.unsigned_abs();
        Some(if delta < 0 {
            Self { minus: self.minus.checked_add(amount)?, ..self }
        } else {
            Self { plus: self.plus.checked_add(amount)?, ..self }
        })
    }

    /// Returns true if joining `other` would raise this share.
    #[must_use]
    pub fn would_grow(self, other: Self) -> bool {
        self.join(other) != self
    }

    fn join(self, other: Self) -> Self {
        Self { plus: self.plus.max(other.plus), minus: self.minus.max(other.minus) }
    }

    fn weight(self) -> u128 {
        u128::from(self.plus) + u128::from(self.minus)
    }
}

/// PN counters by key: each replica raises only its own share of a counter, shares merge by the
/// maximum, and the value is the sum of all shares. A delta holds only the shares that changed.
///
/// The version counts, for each replica, the amounts in the shares of that replica.
///
/// Merging never removes a share. The number of counters is not bounded here: the owner of this
/// value bounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter<K> {
    shares: BTreeMap<K, BTreeMap<u64, Share>>,
    version: Version,
}

impl<K: Ord> Counter<K> {
    /// Raises the share of `replica` to at least `share`. Returns true if the counter changed.
    pub fn apply(&mut self, key: K, replica: u64, share: Share) -> bool {
        let known = self.shares.entry(key).or_default().entry(replica);
        let mut new = false;
        let ours = known.or_insert_with(|| {
            new = true;
            Share::default()
        });
        raise(ours, &mut self.version, replica, share) | new
    }

    /// Drops the share of a replica as if that share had never existed.
    pub fn evict<Q: Ord + ?Sized>(&mut self, key: &Q, replica: u64)
    where
        K: Borrow<Q>,
    {
        let Some(shares) = self.shares.get_mut(key) else { return };
        shares.remove(&replica);
        if shares.is_empty() {
            self.shares.remove(key);
        }
    }

    /// Returns true if any replica has a share of the counter.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.shares.contains_key(key)
    }

    /// Like [`Self::apply`], for callers that have the key in borrowed form. `own` is called for an
    /// owned key only if the replica has no share of the counter yet.
    pub fn apply_with<Q: Ord + ?Sized>(
        &mut self,
        key: &Q,
        own: impl FnOnce() -> K,
        replica: u64,
        share: Share,
    ) -> bool
    where
        K: Borrow<Q>,
    {
        match self.shares.get_mut(key).and_then(|shares| shares.get_mut(&replica)) {
            Some(ours) => raise(ours, &mut self.version, replica, share),
            None => self.apply(own(), replica, share),
        }
    }

    /// Returns the share of `replica` in a counter; `None` if the replica never wrote to that
    /// counter.
    pub fn share<Q: Ord + ?Sized>(&self, key: &Q, replica: u64) -> Option<Share>
    where
        K: Borrow<Q>,
    {
        self.shares.get(key)?.get(&replica).copied()
    }

    /// Returns the value of a counter; 0 if no replica has a share of the counter.
    pub fn value<Q: Ord + ?Sized>(&self, key: &Q) -> i128
    where
        K: Borrow<Q>,
    {
        self.shares.get(key).map_or(0, sum)
    }

    /// Returns the counters and their values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, i128)> {
        self.shares.iter().map(|(key, shares)| (key, sum(shares)))
    }
}

impl<K> Default for Counter<K> {
    fn default() -> Self {
        Self { shares: BTreeMap::new(), version: Version::default() }
    }
}

impl<K: Ord + Clone> Crdt for Counter<K> {
    fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (key, shares) in &other.shares {
            for (&replica, &share) in shares {
                changed |= self.apply_with(key, || key.clone(), replica, share);
            }
        }
        changed
    }

    fn version(&self) -> &Version {
        &self.version
    }
}

/// Raises one share, and the version by the same amount. Returns true if the share grew.
fn raise(ours: &mut Share, version: &mut Version, replica: u64, share: Share) -> bool {
    let joined = ours.join(share);
    let grown = joined.weight() - ours.weight();
    if grown == 0 {
        return false;
    }
    *ours = joined;
    version.raise(replica, version.seen(replica).saturating_add(grown));
    true
}

fn sum(shares: &BTreeMap<u64, Share>) -> i128 {
    shares.values().map(|share| share.value()).sum()
}
