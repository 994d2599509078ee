//! Who may play where, by rating: one tree for each region and size of party.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Range;
use alloc::vec::Vec;
use core::iter::{Peekable, Rev};
use core::ops::Bound;

use crate::id::Name;
use crate::slab::Key;
use crate::time::Instant;

/// Where something stands in a tree: by rating, then the older, then by name, so that
/// the order in which things came does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) rating: i32,
    pub(super) queued: Instant,
    /// `None` comes before every name: the bound of a range.
    pub(super) name: Option<Name>,
}

/// What a search must know of a candidate before it looks closer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    /// In the tree's region, in milliseconds.
    pub(super) latency: u32,
    /// It has conditions.
    pub(super) choosy: bool,
}

/// Things by rating.
pub(super) type Tree = BTreeMap<Place, Entry>;

/// The trees of a queue.
#[derive(Debug)]
pub(super) struct Pool {
    team_size: u8,
    /// By region, then by size.
    tickets: Vec<Tree>,
    /// By region.
    vacancies: Vec<Tree>,
}

impl Place {
    pub(super) const fn before_all(rating: i32) -> Self {
        Self { rating, queued: Instant::ZERO, name: None }
    }
}

impl Pool {
    pub(super) fn new(regions: usize, team_size: u8) -> Self {
        let trees = |number: usize| (0..number).map(|_| Tree::new()).collect();
        Self { team_size, tickets: trees(regions * usize::from(team_size)), vacancies: trees(regions) }
    }

    /// Tickets of a size that may play in a region.
    pub(super) fn tickets(&self, region: u8, size: u8) -> Option<&Tree> {
        self.tickets.get(self.index(region, size))
    }

    pub(super) fn tickets_mut(&mut self, region: u8, size: u8) -> Option<&mut Tree> {
        let index = self.index(region, size);
        self.tickets.get_mut(index)
    }

    /// Offers in a region.
    pub(super) fn vacancies(&self, region: u8) -> Option<&Tree> {
        self.vacancies.get(usize::from(region))
    }

    pub(super) fn vacancies_mut(&mut self, region: u8) -> Option<&mut Tree> {
        self.vacancies.get_mut(usize::from(region))
    }

    /// Entries of all trees of tickets, and of all trees of vacancies.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.tickets.iter().map(Tree::len).sum(), self.vacancies.iter().map(Tree::len).sum())
    }

    fn index(&self, region: u8, size: u8) -> usize {
        usize::from(region) * usize::from(self.team_size) + usize::from(size.saturating_sub(1))
    }
}

/// How far a walk over a tree has come, upwards and downwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed {
    pub(super) up: Option<Place>,
    pub(super) down: Option<Place>,
}

/// A walk over a tree, from a rating to both sides, nearest first.
#[derive(Debug)]
pub(super) struct Nearest<'a> {
    rating: i32,
    most: u32,
    up: Peekable<Range<'a, Place, Entry>>,
    down: Peekable<Rev<Range<'a, Place, Entry>>>,
    passed_up: Option<&'a Place>,
    passed_down: Option<&'a Place>,
}

impl<'a> Nearest<'a> {
    /// A walk up to a distance of `most`, which goes on after what was passed.
    pub(super) fn new(tree: &'a Tree, rating: i32, most: u32, passed: &'a Passed) -> Self {
        let from = Place::before_all(rating);
        let up = match &passed.up {
            Some(place) => (Bound::Excluded(place.clone()), Bound::Unbounded),
            None => (Bound::Included(from.clone()), Bound::Unbounded),
        };
        let down = (Bound::Unbounded, Bound::Excluded(passed.down.clone().unwrap_or(from)));
        Self {
            rating,
            most,
            up: tree.range(up).peekable(),
            down: tree.range(down).rev().peekable(),
            passed_up: passed.up.as_ref(),
            passed_down: passed.down.as_ref(),
        }
    }

    /// How far it has come, to go on from later.
    pub(super) fn passed(&self) -> Passed {
        Passed { up: self.passed_up.cloned(), down: self.passed_down.cloned() }
    }
}

impl<'a> Iterator for Nearest<'a> {
    type Item = (&'a Place, Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let distance = |next: Option<&(&Place, &Entry)>| {
            next.map_or(u32::MAX, |(place, _)| place.rating.abs_diff(self.rating))
        };
        let (up, down) = (distance(self.up.peek()), distance(self.down.peek()));
        if up.min(down) > self.most {
            return None;
        }
        let (place, entry) = if up <= down {
            let next = self.up.next()?;
            self.passed_up = Some(next.0);
            next
        } else {
            let next = self.down.next()?;
            self.passed_down = Some(next.0);
            next
        };
        Some((place, *entry))
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn walks_to_both_sides_and_goes_on_where_it_stopped() {
        let mut tree = Tree::new();
        for rating in [1, 4, 5, 5, 6, 9, 20] {
            let number = u32::try_from(tree.len()).unwrap();
            let name = Some(Name::new(&format!("n{number}")).unwrap());
            let key = Key { slot: number, generation: 0 };
            let entry = Entry { key, latency: 0, choosy: false };
            tree.insert(Place { rating, queued: Instant::ZERO, name }, entry);
        }
        let start = Passed::default();
        let whole: Vec<i32> = Nearest::new(&tree, 5, 4, &start).map(|(place, _)| place.rating).collect();
        assert_eq!(whole, [5, 5, 6, 4, 9, 1]);
        let (mut passed, mut parts) = (Passed::default(), Vec::new());
        for _ in 0..7 {
            let mut walk = Nearest::new(&tree, 5, 4, &passed);
            parts.extend(walk.next().map(|(place, _)| place.rating));
            passed = walk.passed();
        }
        assert_eq!(parts, whole);
    }
}
