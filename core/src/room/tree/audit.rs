//! Invariants of a broadcast tree.

use super::{BroadcastTree, FEEDERS, MEASURED};

impl BroadcastTree {
    /// Checks the invariants of the plan, and the bounds of the last change.
    ///
    /// # Errors
    /// Names the invariant that does not hold.
    pub fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, invariant| if holds { Ok(()) } else { Err(invariant) };
        let mut links = 0;
        for (&node, known) in &self.nodes {
            let place = &known.place;
            check((place.parent.is_none()) == (node == self.root), "one root of a broadcast tree")?;
            let is_listed =
                |parent| self.children(parent).iter().filter(|child| **child == node).count() == 1;
            check(place.parent.is_none_or(is_listed), "child that its parent does not know")?;
            // Levels that grow by one from a parent to a child leave no circle, and no node aside.
            let level = place.parent.map_or(1, |parent| self.level(parent) + 1);
            check(place.level == level && self.level(node) > 0, "levels of a broadcast tree")?;
            check(place.children.len() <= self.fan_out, "children of a node of a broadcast tree")?;
            links += place.children.len();
            if let Some(spare) = self.spare(node) {
                let apart = Some(spare) != place.parent && !self.is_within(spare, node);
                check(apart, "spare that is the parent or below the node")?;
            }
            check(known.measured.len() <= MEASURED, "round trips of a node of a broadcast tree")?;
            check(known.feeders.len() <= FEEDERS, "feeders of a node of a broadcast tree")?;
        }
        check(links + 1 == self.nodes.len(), "nodes that the root of a broadcast tree reaches")?;
        check(self.depth() <= self.least_depth() + 1, "levels of a broadcast tree")?;
        check(self.nodes.len() <= self.most + 1, "nodes of a broadcast tree")?;
        check(self.gone.len() <= self.most, "nodes that have left a broadcast tree")?;
        check(self.moved.len() <= 2 * self.fan_out, "moves of one change of a broadcast tree")?;
        let known = |node| self.nodes.contains_key(node);
        check(self.changed.iter().chain(&self.under_way).all(known), "moves of nodes that have left")?;
        let is_balanced = |node| self.children(node).iter().all(|child| !self.is_too_heavy(node, *child));
        check(!self.is_at_rest() || self.nodes().all(is_balanced), "weights of a broadcast tree at rest")
    }

    /// Returns the number of levels of the smallest tree with as many nodes: the logarithm of
    /// `n * (k - 1) + 1` to the base `k`, rounded up.
    fn least_depth(&self) -> usize {
        let (mut depth, mut row, mut holds) = (1, 1, 1);
        while holds < self.nodes.len() {
            row *= self.fan_out;
            holds += row;
            depth += 1;
        }
        depth
    }
}
