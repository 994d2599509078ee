//! Rule of weights: heavy nodes sink to the leaves.

use super::BroadcastTree;
use crate::base::id::NodeId;

impl BroadcastTree {
    /// Returns true if a node is more than 1.5 times as heavy as a node below it.
    pub(super) fn is_too_heavy(&self, above: NodeId, below: NodeId) -> bool {
        above != self.root && 2 * u64::from(self.weight(above)) > 3 * u64::from(self.weight(below))
    }

    /// Returns true if a node breaks the rule of weights in the place of another node.
    pub(super) fn misfit(&self, node: NodeId, place: NodeId) -> bool {
        let above = self.parent(place).filter(|above| *above != node);
        above.is_some_and(|above| self.is_too_heavy(above, node))
            || self.children(place).iter().any(|child| *child != node && self.is_too_heavy(node, *child))
    }

    /// Returns the lightest child of a node.
    fn lightest_child(&self, node: NodeId) -> Option<NodeId> {
        self.children(node).iter().copied().min_by_key(|child| (self.weight(*child), *child))
    }

    /// Exchanges a new leaf with its parent, once, if the parent is too heavy.
    pub(super) fn sift_up(&mut self, node: NodeId) {
        if let Some(parent) = self.parent(node).filter(|parent| self.is_too_heavy(*parent, node)) {
            self.exchange(parent, node);
        }
    }

    /// Plans one exchange for the rule of weights. Returns false if all nodes respect the rule.
    ///
    /// The highest node that is too heavy changes places with its lightest child. If both have all
    /// their children, one exchange would move `2 * fan_out + 1` nodes. Then there are two exchanges
    /// with leaves: the light child changes places with a leaf first, and with the heavy node next.
    /// The exchanges end: each lowers the weight of a level, and leaves higher levels as they are.
    pub(super) fn settle(&mut self) -> bool {
        if let Some((heavy, light)) = self.half_done.take()
            && self.is_leaf(light)
            && self.level(heavy) < self.level(light)
            && self.is_too_heavy(heavy, light)
        {
            self.begin();
            self.exchange(heavy, light);
            return true;
        }
        let heavy = self
            .nodes()
            .filter(|node| self.lightest_child(*node).is_some_and(|child| self.is_too_heavy(*node, child)))
            .min_by_key(|node| (self.level(*node), *node));
        let Some((heavy, light)) = heavy.and_then(|heavy| Some((heavy, self.lightest_child(heavy)?))) else {
            return false;
        };
        let moves = self.children(heavy).len() + self.children(light).len() + 1;
        if moves <= 2 * self.fan_out {
            self.begin();
            self.exchange(heavy, light);
            return true;
        }
        let Some(leaf) = self.lightest_leaf_below(self.level(heavy), light) else { return false };
        self.begin();
        self.exchange(light, leaf);
        self.half_done = Some((heavy, light));
        true
    }
}
