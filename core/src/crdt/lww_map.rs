//! A map in which the last writer of a key wins.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use core::borrow::Borrow;

use super::{Crdt, Stamp, Version};

/// A map that keeps the newest write of each key: a value, or the removal (a tombstone). A delta is
/// a map that holds only the changes.
///
/// Two writes with the same stamp are made only by a writer that breaks the protocol. Then a
/// removal wins over a value, and the greater value wins over the smaller one, so that replicas
/// converge nevertheless.
///
/// The size is not bounded here: the owner of the map bounds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LwwMap<K, V> {
    entries: BTreeMap<K, Register<V>>,
    version: Version,
}

/// Newest write of a key; a value of `None` is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Register<V> {
    stamp: Stamp,
    value: Option<V>,
}

impl<V: Ord> Register<V> {
    /// Returns true if a write wins over this one.
    fn loses_to(&self, stamp: Stamp, value: Option<&V>) -> bool {
        self.stamp < stamp
            || self.stamp == stamp
                && match (&self.value, value) {
                    (Some(ours), Some(theirs)) => ours < theirs,
                    (Some(_), None) => true,
                    (None, _) => false,
                }
    }
}

impl<K: Ord, V: Ord> LwwMap<K, V> {
    /// Writes a value, or, with `None`, a removal. Returns true if the write won.
    pub fn apply(&mut self, key: K, stamp: Stamp, value: Option<V>) -> bool {
        self.version.raise(stamp.replica, stamp.as_u128());
        match self.entries.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(Register { stamp, value });
                true
            }
            Entry::Occupied(mut occupied) => {
                let wins = occupied.get().loses_to(stamp, value.as_ref());
                if wins {
                    occupied.insert(Register { stamp, value });
                }
                wins
            }
        }
    }

    /// Returns true if [`Self::apply`] would change anything.
    pub fn would_change<Q: Ord + ?Sized>(&self, key: &Q, stamp: Stamp, value: Option<&V>) -> bool
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).is_none_or(|register| register.loses_to(stamp, value))
    }

    /// Replaces the known write of a key, even if the known write is newer. This is not a merge: it
    /// is for a write that was taken back before any other replica accepted it. Returns true if
    /// anything changed.
    pub(super) fn replace(&mut self, key: K, stamp: Stamp, value: Option<V>) -> bool {
        self.version.raise(stamp.replica, stamp.as_u128());
        let register = Register { stamp, value };
        match self.entries.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(register);
                true
            }
            Entry::Occupied(mut occupied) => {
                occupied.get() != &register && {
                    occupied.insert(register);
                    true
                }
            }
        }
    }

    /// Drops a tombstone. After this, an older write of the key is accepted again;
    /// [`super::tombstone`] explains when that is sound.
    pub fn forget<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if self.entries.get(key).is_some_and(|register| register.value.is_none()) {
            self.entries.remove(key);
        }
    }

    /// Drops a key, with a value or a tombstone, as if it had never been written.
    pub fn evict<Q: Ord + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key);
    }

    /// Returns the value of a key; `None` if the key is unknown or removed.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key)?.value.as_ref()
    }

    /// Returns the newest write of a key; a value of `None` is a tombstone.
    pub fn write<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(Stamp, Option<&V>)>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|register| (register.stamp, register.value.as_ref()))
    }

    /// Returns the keys that have a value, with their values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().filter_map(|(key, register)| Some((key, register.value.as_ref()?)))
    }

    /// Returns the newest writes of all keys, tombstones included, in the order of the keys.
    pub fn iter_writes(&self) -> impl Iterator<Item = (&K, Stamp, Option<&V>)> {
        self.entries.iter().map(|(key, register)| (key, register.stamp, register.value.as_ref()))
    }
}

impl<K, V> Default for LwwMap<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), version: Version::default() }
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Crdt for LwwMap<K, V> {
    fn merge(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (key, theirs) in &other.entries {
            match self.entries.get_mut(key) {
                Some(ours) => {
                    if ours.loses_to(theirs.stamp, theirs.value.as_ref()) {
                        ours.clone_from(theirs);
                        changed = true;
                    }
                }
                None => {
                    self.entries.insert(key.clone(), theirs.clone());
                    changed = true;
                }
            }
        }
        self.version.join(&other.version) | changed
    }

    fn version(&self) -> &Version {
        &self.version
    }
}
