//! A table with stable keys and a cap.

use alloc::vec::Vec;

/// Place in a [`Slab`]. A key is never used twice, so a stale key finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A table whose places are reused in a fixed order.
#[derive(Clone, Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    len: usize,
    cap: usize,
}

impl<T> Slab<T> {
    /// Creates an empty table for up to `cap` values, and at most 2^32.
    pub(crate) const fn new(cap: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0, cap }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Adds a value; `None` if the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Option<Key> {
        if self.len >= self.cap {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push((0, None));
                slot
            }
        };
        let (generation, place) = self.slots.get_mut(slot as usize)?;
        *place = Some(value);
        self.len += 1;
        Some(Key { slot, generation: *generation })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.slot as usize)? {
            (generation, value) if *generation == key.generation => value.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.slot as usize)? {
            (generation, value) if *generation == key.generation => value.as_mut(),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, place) = self.slots.get_mut(key.slot as usize)?;
        if *generation != key.generation {
            return None;
        }
        let value = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.slot);
        self.len -= 1;
        Some(value)
    }

    /// Returns the keys that are in use, by slot.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let used = self.slots.iter().zip(0..).filter(|((_, value), _)| value.is_some());
        used.map(|((generation, _), slot)| Key { slot, generation: *generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::new(2);
        let a = slab.insert('a').unwrap();
        let b = slab.insert('b').unwrap();
        assert_eq!(slab.insert('c'), None);
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c').unwrap();
        assert_eq!(c.slot, a.slot);
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.keys().collect::<Vec<_>>(), [c, b]);
        assert_eq!(slab.len(), 2);
    }
}
