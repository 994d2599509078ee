//! Entries sorted by rating, in a tree of two levels: a list of short sorted pieces. A traversal
//! from a rating to both sides reads memory in sequence.
//!
//! A search looks at dozens of neighbours for each ticket that it matches. So the data that a
//! search needs of each neighbour is in the entries. Names decide only between equals, and are
//! elsewhere.

use alloc::vec::Vec;
use core::cmp::Ordering;

use super::class::TicketClass;
use crate::base::id::Name;
use crate::base::slab::Key;
use crate::base::time::Instant;

/// Maximum number of entries of a piece. An insertion or removal moves few entries, and a traversal
/// seldom passes from one piece to another.
const PIECE: usize = 64;

/// Position of an entry in a tree: by rating, then by age, the oldest first, then by name. So the
/// order of insertions does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TreePosition {
    rating: i32,
    queued: Instant,
    /// `None` is before every name: the bound of a range.
    name: Option<Name>,
}

/// The data of a candidate that a search reads first. A ticket has several entries, and a search
/// passes many of them, so an entry is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TreeEntry {
    pub(super) key: Key,
    pub(super) queued: Instant,
    pub(super) rating: i32,
    /// The latency in the lower bits, and the class above it.
    packed: u32,
}

/// Source of the names of entries.
pub(super) trait Names {
    /// Returns the name of an entry's ticket or room; `None` if it does not exist.
    fn name(&self, key: Key) -> Option<&Name>;
}

/// Entries by their positions.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// Non-empty pieces; two neighbours have more than half of a piece's maximum together. A split
    /// of a piece moves the later pieces, 40 bytes each, once in 32 insertions or fewer.
    pieces: Vec<Piece>,
    len: usize,
}

#[derive(Debug)]
struct Piece {
    /// Rank of the first entry: the search for a piece opens no piece.
    first: TreeRank,
    entries: Vec<TreeEntry>,
}

/// A position without the name.
pub(super) type TreeRank = (i32, Instant);

/// Location of an entry in a tree, valid until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    piece: usize,
    index: usize,
}

impl TreePosition {
    pub(super) const fn before_all(rating: i32) -> Self {
        Self { rating, queued: Instant::ZERO, name: None }
    }

    const fn rank(&self) -> TreeRank {
        (self.rating, self.queued)
    }
}

/// Bits of a latency; the widest latency cap, [`MAX_RATING`](super::MAX_RATING), fits.
const LATENCY: u32 = 24;

impl TreeEntry {
    pub(super) fn new(key: Key, (rating, queued): TreeRank, latency: u32, class: TicketClass) -> Self {
        let latency = latency.min((1 << LATENCY) - 1);
        Self { key, queued, rating, packed: u32::from(class.byte()) << LATENCY | latency }
    }

    /// Returns the latency in the tree's region, in milliseconds.
    pub(super) const fn latency(&self) -> u32 {
        self.packed & ((1 << LATENCY) - 1)
    }

    pub(super) const fn class(&self) -> TicketClass {
        let [class, ..] = self.packed.to_be_bytes();
        TicketClass::from_byte(class)
    }

    const fn rank(&self) -> TreeRank {
        (self.rating, self.queued)
    }
}

impl Piece {
    /// Returns the number of entries that are below `rank`, or equal to it and `passed`.
    fn count(&self, rank: TreeRank, passed: impl Fn(&TreeEntry) -> bool) -> usize {
        self.entries.partition_point(|entry| match entry.rank().cmp(&rank) {
            Ordering::Less => true,
            Ordering::Equal => passed(entry),
            Ordering::Greater => false,
        })
    }

    /// Notes the rank of the first entry. A piece that has become empty is about to be removed.
    fn set_first(&mut self) {
        if let Some(entry) = self.entries.first() {
            self.first = entry.rank();
        }
    }

    /// Takes the upper half of a full piece.
    fn split(&mut self) -> Self {
        let mut upper = Self { first: self.first, entries: self.entries.split_off(PIECE / 2) };
        upper.set_first();
        upper
    }
}

impl Tree {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry. No other entry may have the same rank and name.
    pub(super) fn insert(&mut self, entry: TreeEntry, names: &impl Names) {
        let before = |other: &TreeEntry| names.name(other.key) < names.name(entry.key);
        let at = self.count(entry.rank(), before);
        self.len += 1;
        let Some(piece) = self.pieces.get_mut(at.piece) else {
            // The tree is empty.
            return self.pieces.push(Piece { first: entry.rank(), entries: Vec::from([entry]) });
        };
        let mut upper = (piece.entries.len() >= PIECE).then(|| piece.split());
        let (piece, index) = match &mut upper {
            Some(upper) if at.index > PIECE / 2 => (upper, at.index - PIECE / 2),
            _ => (piece, at.index),
        };
        piece.entries.insert(index.min(piece.entries.len()), entry);
        piece.set_first();
        if let Some(upper) = upper {
            self.pieces.insert(at.piece + 1, upper);
        }
    }

    /// Removes an entry. Its key must still have its name. Returns false if there is no such entry.
    pub(super) fn remove(&mut self, key: Key, rank: TreeRank, names: &impl Names) -> bool {
        let before = |other: &TreeEntry| names.name(other.key) < names.name(key);
        let spot = self.normal(self.count(rank, before));
        let is_there = |piece: &&mut Piece| {
            piece.entries.get(spot.index).is_some_and(|entry| entry.key == key && entry.rank() == rank)
        };
        let Some(piece) = self.pieces.get_mut(spot.piece).filter(is_there) else { return false };
        piece.entries.remove(spot.index);
        piece.set_first();
        self.len -= 1;
        self.join(spot.piece);
        if let Some(before) = spot.piece.checked_sub(1) {
            self.join(before);
        }
        true
    }

    /// Returns the spot of the first entry at `place` or after it.
    pub(super) fn at_or_after(&self, place: &TreePosition, names: &dyn Names) -> Spot {
        let passed = |other: &TreeEntry| names.name(other.key) < place.name.as_ref();
        self.normal(self.count(place.rank(), passed))
    }

    /// Returns the spot of the first entry after `place`.
    pub(super) fn after(&self, place: &TreePosition, names: &dyn Names) -> Spot {
        let passed = |other: &TreeEntry| names.name(other.key) <= place.name.as_ref();
        self.normal(self.count(place.rank(), passed))
    }

    pub(super) fn get(&self, spot: Spot) -> Option<&TreeEntry> {
        self.pieces.get(spot.piece)?.entries.get(spot.index)
    }

    pub(super) fn place(&self, spot: Spot, names: &dyn Names) -> Option<TreePosition> {
        let TreeEntry { key, queued, rating, .. } = *self.get(spot)?;
        Some(TreePosition { rating, queued, name: Some(names.name(key)?.clone()) })
    }

    /// Returns the next spot upwards.
    pub(super) fn next(&self, spot: Spot) -> Spot {
        self.normal(Spot { index: spot.index + 1, ..spot })
    }

    /// Returns the next spot downwards.
    pub(super) fn previous(&self, spot: Spot) -> Option<Spot> {
        if let Some(index) = spot.index.checked_sub(1) {
            return Some(Spot { index, ..spot });
        }
        let piece = spot.piece.checked_sub(1)?;
        Some(Spot { piece, index: self.pieces.get(piece)?.entries.len().checked_sub(1)? })
    }

    /// Returns the spot of the first entry that is above `rank`, or equal to it and not `passed`.
    /// The spot may be at the end of its piece.
    fn count(&self, rank: TreeRank, passed: impl Fn(&TreeEntry) -> bool) -> Spot {
        let begins_before = |piece: &Piece| match piece.first.cmp(&rank) {
            Ordering::Less => true,
            Ordering::Equal => piece.entries.first().is_some_and(&passed),
            Ordering::Greater => false,
        };
        let piece = self.pieces.partition_point(begins_before).saturating_sub(1);
        Spot { piece, index: self.pieces.get(piece).map_or(0, |piece| piece.count(rank, passed)) }
    }

    /// Moves a spot at the end of a piece to the start of the next piece.
    fn normal(&self, spot: Spot) -> Spot {
        match self.pieces.get(spot.piece) {
            Some(piece) if spot.index >= piece.entries.len() => Spot { piece: spot.piece + 1, index: 0 },
            _ => spot,
        }
    }

    /// Removes an empty piece, or joins a piece and the next one if both are small, so that no small
    /// pieces accumulate.
    fn join(&mut self, at: usize) {
        if self.pieces.get(at).is_some_and(|piece| piece.entries.is_empty()) {
            self.pieces.remove(at);
        } else if let Some([lower, upper]) = self.pieces.get_mut(at..at + 2)
            && lower.entries.len() + upper.entries.len() <= PIECE / 2
        {
            lower.entries.append(&mut upper.entries);
            self.pieces.remove(at + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;

    use proptest::prelude::*;

    use super::*;
    use crate::matchmaking::Traits;

    /// Names by slot.
    struct Numbered(Vec<Name>);

    impl Names for Numbered {
        fn name(&self, key: Key) -> Option<&Name> {
            self.0.get(key.slot as usize)
        }
    }

    fn entry(slot: u32, rating: i32, queued: u64) -> TreeEntry {
        let (key, rank) = (Key { slot, generation: 0 }, (rating, Instant::from_micros(queued)));
        TreeEntry::new(key, rank, 0, TicketClass::none(&Traits::default()))
    }

    fn places(tree: &Tree, names: &Numbered) -> Vec<TreePosition> {
        let mut spot = tree.at_or_after(&TreePosition::before_all(i32::MIN), names);
        let mut places = Vec::new();
        while let Some(place) = tree.place(spot, names) {
            places.push(place);
            spot = tree.next(spot);
        }
        places
    }

    #[test]
    fn an_entry_keeps_its_latency_and_its_class() {
        let class = TicketClass::from_byte(0xC0);
        let key = Key { slot: 1, generation: 2 };
        let entry = TreeEntry::new(key, (-5, Instant::ZERO), 1_000_000, class);
        assert_eq!((entry.latency(), entry.class(), entry.rating), (1_000_000, class, -5));
    }

    proptest! {
        /// Insertions and removals in waves, so that pieces are split and joined.
        #[test]
        fn is_as_sorted_as_a_map(
            waves in proptest::collection::vec((any::<bool>(), 0..6_i32, 1..300_usize, any::<u64>()), 1..12),
        ) {
            let names = Numbered((0..20).map(|n| Name::new(&format!("n{n}")).unwrap()).collect());
            let (mut tree, mut map) = (Tree::default(), BTreeMap::new());
            for (comes, spread, number, seed) in waves {
                for n in 0..number as u64 {
                    let draw = (seed ^ n).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
                    let slot = u32::try_from(draw / 256 % 20).unwrap();
                    let entry = entry(slot, i32::try_from(draw % 50).unwrap() * spread, draw / 64 % 3);
                    let name = names.name(entry.key).cloned();
                    let place = TreePosition { rating: entry.rating, queued: entry.queued, name };
                    if comes && !map.contains_key(&place) {
                        tree.insert(entry, &names);
                        map.insert(place, entry);
                    } else if !comes {
                        let was_there = tree.remove(entry.key, entry.rank(), &names);
                        prop_assert_eq!(was_there, map.remove(&place).is_some());
                    }
                }
                let sorted: Vec<TreePosition> = map.keys().cloned().collect();
                prop_assert_eq!(places(&tree, &names), sorted.clone());
                prop_assert_eq!(tree.len(), map.len());
                for (index, place) in sorted.iter().enumerate() {
                    let at = tree.at_or_after(place, &names);
                    let found = tree.place(at, &names);
                    prop_assert_eq!(found.as_ref(), Some(place));
                    let after = tree.place(tree.after(place, &names), &names);
                    prop_assert_eq!(after.as_ref(), sorted.get(index + 1));
                    let before = tree.previous(at).and_then(|spot| tree.place(spot, &names));
                    prop_assert_eq!(before.as_ref(), index.checked_sub(1).and_then(|index| sorted.get(index)));
                }
                let len = |pair: &[Piece]| pair.iter().map(|piece| piece.entries.len()).sum::<usize>();
                prop_assert!(tree.pieces.windows(2).all(|pair| len(pair) > PIECE / 2), "pieces stay filled");
            }
        }
    }
}
