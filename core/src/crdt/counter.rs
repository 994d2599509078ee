//! Counters that go up and down.

use alloc::collections::BTreeMap;
use core::borrow::Borrow;

use super::{Crdt, Version};

/// What one replica added to a counter and took away from it so far. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The sum of what it added.
    pub plus: u64,
    /// The sum of what it took away.
    pub minus: u64,
}

impl Share {
    /// What the replica contributes.
    #[must_use]
    pub fn value(self) -> i128 {
        i128::from(self.plus) - i128::from(self.minus)
    }

    /// The share after `delta` more; `None` if it does not fit.
    #[must_use]
    pub fn plus(self, delta: i64) -> Option<Self> {
        let amount = delta.unsigned_abs();
        Some(if delta < 0 {
            Self { minus: self.minus.checked_add(amount)?, ..self }
        } else {
            Self { plus: self.plus.checked_add(amount)?, ..self }
        })
    }

    /// Whether joining `other` would raise it.
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

/// PN counters by key: each replica raises its own share of a counter, shares merge by
/// the maximum, and the value is the sum. A delta holds only the shares that changed.
///
/// The version counts, for each replica, the amounts in its shares.
///
/// Shares are never removed: what was counted stays counted. Whoever owns the counters
/// bounds how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter<K> {
    shares: BTreeMap<K, BTreeMap<u64, Share>>,
    version: Version,
}

impl<K: Ord> Counter<K> {
    /// Raises the share of `replica` to at least `share`. Returns whether it changed.
    pub fn apply(&mut self, key: K, replica: u64, share: Share) -> bool {
        let known = self.shares.entry(key).or_default().entry(replica);
        let mut new = false;
        let ours = known.or_insert_with(|| {
            new = true;
            Share::default()
        });
        raise(ours, &mut self.version, replica, share) | new
    }

    /// Drops the share of a replica as if there had never been one.
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

    /// Whether any replica has a share of the counter.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.shares.contains_key(key)
    }

    /// Like [`Self::apply`], for whoever holds the key in borrowed form; `own` is asked
    /// for the key only if it is new.
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

    /// What `replica` contributed to a counter; `None` if it never did.
    pub fn share<Q: Ord + ?Sized>(&self, key: &Q, replica: u64) -> Option<Share>
    where
        K: Borrow<Q>,
    {
        self.shares.get(key)?.get(&replica).copied()
    }

    /// The value of a counter; 0 if nobody ever touched it.
    pub fn value<Q: Ord + ?Sized>(&self, key: &Q) -> i128
    where
        K: Borrow<Q>,
    {
        self.shares.get(key).map_or(0, sum)
    }

    /// The counters and their values, in the order of the keys.
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

/// Raises one share, and the version by as much.
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
