//! A set in which the last writer of an element wins.

use core::borrow::Borrow;

use super::{Crdt, LwwMap, Stamp, Version};

/// An LWW element set: the newest write of an element decides whether the set contains the element
/// (row M5). A delta is a set that holds only the changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LwwSet<E>(LwwMap<E, ()>);

impl<E: Ord> LwwSet<E> {
    /// Adds or removes an element. Returns true if the write won.
    pub fn apply(&mut self, element: E, stamp: Stamp, present: bool) -> bool {
        self.0.apply(element, stamp, present.then_some(()))
    }

    /// Returns true if the set contains an element.
    pub fn contains<Q: Ord + ?Sized>(&self, element: &Q) -> bool
    where
        E: Borrow<Q>,
    {
        self.0.get(element).is_some()
    }

    /// Returns the elements that the set contains, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.0.iter().map(|(element, ())| element)
    }

    /// Returns the map that holds the set.
    pub(super) const fn as_map(&self) -> &LwwMap<E, ()> {
        &self.0
    }

    /// Returns the map that holds the set.
    pub(super) const fn as_map_mut(&mut self) -> &mut LwwMap<E, ()> {
        &mut self.0
    }
}

impl<E> Default for LwwSet<E> {
    fn default() -> Self {
        Self(LwwMap::default())
    }
}

impl<E: Ord + Clone> Crdt for LwwSet<E> {
    fn merge(&mut self, other: &Self) -> bool {
        self.0.merge(&other.0)
    }

    fn version(&self) -> &Version {
        self.0.version()
    }
}
