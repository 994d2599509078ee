//! Places of the plan: joining, leaving and exchanging places.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{BroadcastTree, TreePlace};
use crate::base::id::NodeId;

impl BroadcastTree {
    /// Returns the highest level with a free place below a node, and the number of levels.
    pub(super) fn shape(&self) -> (usize, usize) {
        let placed = self.nodes.values().map(|known| &known.place).filter(|place| place.level > 0);
        placed.fold((usize::MAX, 0), |(open, depth), place| {
            let is_open = place.children.len() < self.fan_out;
            (if is_open { open.min(place.level) } else { open }, depth.max(place.level))
        })
    }

    /// Returns true if a node has a place and may have another child.
    pub(super) fn is_open(&self, node: NodeId) -> bool {
        self.level(node) > 0 && self.children(node).len() < self.fan_out
    }

    /// Returns true if a node has no children.
    pub(super) fn is_leaf(&self, node: NodeId) -> bool {
        self.children(node).is_empty()
    }

    /// Returns true if `below` is `node`, or is fed through `node` in the plan.
    pub(super) fn is_within(&self, below: NodeId, node: NodeId) -> bool {
        core::iter::successors(Some(below), |at| self.parent(*at)).any(|at| at == node)
    }

    /// Returns the best parent for a node without a place, among the open nodes of the two highest
    /// levels that have any: the one with the shortest way from the root.
    pub(super) fn parent_for(&self, node: NodeId) -> NodeId {
        let (open, _) = self.shape();
        let candidates = self.nodes().filter(|at| self.level(*at) <= open + 1 && self.is_open(*at));
        let cost = |at: &NodeId| {
            (self.way(*at) + self.rtt(*at, node), self.level(*at), self.children(*at).len(), *at)
        };
        candidates.min_by_key(cost).unwrap_or(self.root)
    }

    /// Returns the leaf that takes the place of an inner node; `None` if the node is a leaf. The leaf
    /// comes from one of the two lowest levels, where a free place is within the rule of levels. A
    /// leaf that respects the rule of weights is preferred, then a short way from the root.
    pub(super) fn substitute(&self, node: NodeId) -> Option<NodeId> {
        if self.is_leaf(node) {
            return None;
        }
        let depth = self.depth();
        let leaves = self.nodes().filter(|at| self.is_leaf(*at) && self.level(*at) + 1 >= depth);
        leaves.min_by_key(|leaf| {
            let misfit = self.misfit(*leaf, node);
            (misfit, if misfit { self.weight(*leaf) } else { 0 }, self.way_at(*leaf, node), *leaf)
        })
    }

    /// Puts a node without children below a parent.
    pub(super) fn hang(&mut self, node: NodeId, parent: NodeId) {
        let level = self.level(parent) + 1;
        if let Some(above) = self.nodes.get_mut(&parent) {
            above.place.children.push(node);
        }
        if let Some(known) = self.nodes.get_mut(&node) {
            known.place = TreePlace { parent: Some(parent), children: Vec::new(), level };
        }
        self.moved.insert(node);
        self.changed.insert(node);
        self.unbalanced = true;
    }

    /// Takes its place from a node without children.
    pub(super) fn unhang(&mut self, node: NodeId) {
        let parent = self.nodes.get_mut(&node).and_then(|known| core::mem::take(&mut known.place).parent);
        if let Some(above) = parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            above.place.children.retain(|child| *child != node);
        }
    }

    /// Moves a leaf of the lowest level to the highest free place, if there are more than two levels
    /// below that place.
    pub(super) fn refill(&mut self) {
        let (open, depth) = self.shape();
        if depth <= open + 2 {
            return;
        }
        let target = self.nodes().find(|at| self.level(*at) == open && self.is_open(*at));
        let Some(target) = target else { return };
        let leaf = self
            .nodes()
            .filter(|at| self.level(*at) == depth)
            .min_by_key(|leaf| (self.is_too_heavy(target, *leaf), self.rtt(target, *leaf), *leaf));
        if let Some(leaf) = leaf {
            self.unhang(leaf);
            self.hang(leaf, target);
        }
    }

    /// Exchanges the places of two nodes, and notes who has another parent.
    pub(super) fn exchange(&mut self, a: NodeId, b: NodeId) {
        let before = self.around(a, b);
        self.swap(a, b);
        self.note_moves(&before);
    }

    /// Returns the nodes whose parents an exchange may change, with their parents.
    pub(super) fn around(&self, a: NodeId, b: NodeId) -> Vec<(NodeId, Option<NodeId>)> {
        let below = self.children(a).iter().chain(self.children(b)).copied();
        let mut nodes: Vec<NodeId> = [a, b].into_iter().chain(below).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter().map(|node| (node, self.parent(node))).collect()
    }

    /// Notes the nodes that have other parents than before an exchange. The nodes two levels below
    /// have other spares.
    pub(super) fn note_moves(&mut self, before: &[(NodeId, Option<NodeId>)]) {
        for &(node, parent) in before {
            if self.parent(node) != parent {
                self.moved.insert(node);
                self.changed.insert(node);
                for child in self.children(node).to_vec() {
                    self.changed.insert(child);
                }
            }
        }
        self.unbalanced = true;
    }

    /// Exchanges the places of two nodes. The same call again undoes the exchange.
    pub(super) fn swap(&mut self, a: NodeId, b: NodeId) {
        let other = |node: NodeId| match node {
            node if node == a => b,
            node if node == b => a,
            node => node,
        };
        let mut places = Vec::new();
        for node in [b, a] {
            let Some(known) = self.nodes.get(&node) else { return };
            let mut place = known.place.clone();
            place.parent = place.parent.map(other);
            place.children.iter_mut().for_each(|child| *child = other(*child));
            places.push(place);
        }
        // One parent of both is named once, since its children are renamed once.
        let mut parents: Vec<NodeId> = places.iter().filter_map(|place| place.parent).collect();
        parents.dedup();
        parents.retain(|parent| *parent != a && *parent != b);
        for parent in parents {
            if let Some(above) = self.nodes.get_mut(&parent) {
                above.place.children.iter_mut().for_each(|child| *child = other(*child));
            }
        }
        for (node, place) in [a, b].into_iter().zip(places) {
            for child in &place.children {
                if let Some(below) = self.nodes.get_mut(child).filter(|_| *child != a && *child != b) {
                    below.place.parent = Some(node);
                }
            }
            if let Some(known) = self.nodes.get_mut(&node) {
                known.place = place;
            }
        }
    }

    /// Returns the lightest leaf below a level, apart from one node.
    pub(super) fn lightest_leaf_below(&self, level: usize, except: NodeId) -> Option<NodeId> {
        let leaves = self.nodes().filter(|at| self.is_leaf(*at) && self.level(*at) > level && *at != except);
        leaves.min_by_key(|leaf| (self.weight(*leaf), Reverse(self.level(*leaf)), *leaf))
    }
}
