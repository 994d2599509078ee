//! A set in which the last writer of an element wins.

use core::borrow::Borrow;

use super::{Crdt, LwwMap, Stamp, Version};

/// An LWW element set: the newest write of an element decides whether it is in (row
/// M5). A delta is a set that holds only what changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LwwSet<E>(LwwMap<E, ()>);

impl<E: Ord> LwwSet<E> {
    /// Puts an element in or takes it out. Returns whether the write won.
    pub fn apply(&mut self, element: E, stamp: Stamp, present: bool) -> bool {
        self.0.apply(element, stamp, present.then_some(()))
    }

    /// Whether an element is in.
    pub fn contains<Q: Ord + ?Sized>(&self, element: &Q) -> bool
    where
        E: Borrow<Q>,
    {
        self.0.get(element).is_some()
    }

    /// The elements that are in, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.0.iter().map(|(element, ())| element)
    }

    /// The set as the map that it is.
    pub(super) const fn as_map(&self) -> &LwwMap<E, ()> {
        &self.0
    }

    /// The set as the map that it is.
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
