//! Tickets and offers by rating: one tree for each region and size of party.

use alloc::vec::Vec;

use super::tree::{Names, Spot, Tree, TreeEntry, TreePosition};

/// The trees of a queue.
#[derive(Debug)]
pub(super) struct Pool {
    team_size: u8,
    /// Trees of tickets, by region, then by size.
    tickets: Vec<Tree>,
    /// Trees of offers, by region.
    vacancies: Vec<Tree>,
}

impl Pool {
    pub(super) fn new(regions: usize, team_size: u8) -> Self {
        let trees = |number: usize| (0..number).map(|_| Tree::default()).collect();
        Self { team_size, tickets: trees(regions * usize::from(team_size)), vacancies: trees(regions) }
    }

    /// Returns the tree of the tickets of one size that may play in a region.
    pub(super) fn tickets(&self, region: u8, size: u8) -> Option<&Tree> {
        self.tickets.get(self.index(region, size))
    }

    pub(super) fn tickets_mut(&mut self, region: u8, size: u8) -> Option<&mut Tree> {
        let index = self.index(region, size);
        self.tickets.get_mut(index)
    }

    /// Returns the tree of the offers in a region.
    pub(super) fn vacancies(&self, region: u8) -> Option<&Tree> {
        self.vacancies.get(usize::from(region))
    }

    pub(super) fn vacancies_mut(&mut self, region: u8) -> Option<&mut Tree> {
        self.vacancies.get_mut(usize::from(region))
    }

    /// Returns the number of entries of all trees of tickets, and of all trees of vacancies.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.tickets.iter().map(Tree::len).sum(), self.vacancies.iter().map(Tree::len).sum())
    }

    fn index(&self, region: u8, size: u8) -> usize {
        usize::from(region) * usize::from(self.team_size) + usize::from(size.saturating_sub(1))
    }
}

/// Last entries that a traversal of a tree has passed, upwards and downwards.
#[derive(Clone, Debug, Default)]
pub(super) struct Passed {
    pub(super) up: Option<TreePosition>,
    pub(super) down: Option<TreePosition>,
}

/// Traversal of a tree, from a rating to both sides, nearest first.
pub(super) struct Nearest<'a> {
    tree: &'a Tree,
    names: &'a dyn Names,
    rating: i32,
    most: u32,
    /// Next entry on each side, if there is one.
    up: (Spot, Option<&'a TreeEntry>),
    down: (Option<Spot>, Option<&'a TreeEntry>),
    from: &'a Passed,
    passed_up: Option<Spot>,
    passed_down: Option<Spot>,
}

impl<'a> Nearest<'a> {
    /// Returns a traversal up to a distance of `most`, which continues after the passed entries.
    pub(super) fn new(
        tree: &'a Tree,
        names: &'a dyn Names,
        rating: i32,
        most: u32,
        from: &'a Passed,
    ) -> Self {
        let start = tree.at_or_after(&TreePosition::before_all(rating), names);
        let up = from.up.as_ref().map_or(start, |place| tree.after(place, names));
        let down = from.down.as_ref().map_or(start, |place| tree.at_or_after(place, names));
        let down = tree.previous(down);
        Self {
            tree,
            names,
            rating,
            most,
            up: (up, tree.get(up)),
            down: (down, down.and_then(|spot| tree.get(spot))),
            from,
            passed_up: None,
            passed_down: None,
        }
    }

    /// Returns the last entries passed, from which a later traversal continues.
    pub(super) fn passed(&self) -> Passed {
        let place = |spot: Option<Spot>, from: &Option<TreePosition>| {
            spot.and_then(|spot| self.tree.place(spot, self.names)).or_else(|| from.clone())
        };
        Passed { up: place(self.passed_up, &self.from.up), down: place(self.passed_down, &self.from.down) }
    }
}

impl<'a> Iterator for Nearest<'a> {
    type Item = &'a TreeEntry;

    fn next(&mut self) -> Option<Self::Item> {
        let distance = |next: Option<&TreeEntry>| next.map_or(u32::MAX, |e| e.rating.abs_diff(self.rating));
        let (up, down) = (distance(self.up.1), distance(self.down.1));
        if up.min(down) > self.most {
            return None;
        }
        if up <= down {
            let (spot, entry) = self.up;
            let next = self.tree.next(spot);
            self.up = (next, self.tree.get(next));
            self.passed_up = Some(spot);
            entry
        } else {
            let (spot, entry) = self.down;
            let next = spot.and_then(|spot| self.tree.previous(spot));
            self.down = (next, next.and_then(|spot| self.tree.get(spot)));
            self.passed_down = spot;
            entry
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Name;
    use crate::base::slab::Key;
    use crate::base::time::Instant;
    use crate::matchmaking::Traits;
    use crate::matchmaking::class::TicketClass;

    /// One name for all entries: no two entries with the same rating and age have different names.
    struct Nameless(Name);

    impl Names for Nameless {
        fn name(&self, _: Key) -> Option<&Name> {
            Some(&self.0)
        }
    }

    #[test]
    fn walks_to_both_sides_and_goes_on_where_it_stopped() {
        let (mut tree, names) = (Tree::default(), Nameless(Name::new("n").unwrap()));
        for rating in [1, 4, 5, 5, 6, 9, 20] {
            let number = u32::try_from(tree.len()).unwrap();
            let key = Key { slot: number, generation: 0 };
            let rank = (rating, Instant::from_micros(number.into()));
            tree.insert(TreeEntry::new(key, rank, 0, TicketClass::none(&Traits::default())), &names);
        }
        let start = Passed::default();
        let whole: Vec<i32> = Nearest::new(&tree, &names, 5, 4, &start).map(|entry| entry.rating).collect();
        assert_eq!(whole, [5, 5, 6, 4, 9, 1]);
        let (mut passed, mut parts) = (Passed::default(), Vec::new());
        for _ in 0..7 {
            let mut walk = Nearest::new(&tree, &names, 5, 4, &passed);
            parts.extend(walk.next().map(|entry| entry.rating));
            passed = walk.passed();
        }
        assert_eq!(parts, whole);
    }
}
