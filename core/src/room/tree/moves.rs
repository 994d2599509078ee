//! Moves: the orders that carry the plan out, in an order that makes no circle.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{BroadcastTree, FEEDERS, TreeMove, TreeSources};
use crate::base::id::NodeId;
use crate::base::plant::Plant;

impl BroadcastTree {
    /// Returns the next move to tell to its node. When all moves are carried out, plans the next
    /// exchange for the rule of weights, if one is left.
    pub fn poll(&mut self) -> Option<TreeMove> {
        loop {
            let found = self.next_move();
            let is_carried_out = self.changed.is_empty() && self.under_way.is_empty();
            if found.is_some() || !is_carried_out || !self.unbalanced {
                return found;
            }
            self.unbalanced = self.settle();
        }
    }

    fn next_move(&mut self) -> Option<TreeMove> {
        let (nodes, root) = (&self.nodes, self.root);
        self.changed.retain(|node| {
            let parent = nodes.get(node).and_then(|known| known.place.parent);
            let told = nodes.get(node).and_then(|known| known.told);
            let spare = parent.and_then(|parent| nodes.get(&parent)?.place.parent);
            *node != root && told != parent.map(|parent| TreeSources { parent, spare })
        });
        let ready = |node: &&NodeId| !self.under_way.contains(*node) && self.is_safe(**node);
        let node = *self.changed.iter().find(ready)?;
        let (parent, spare) = (self.parent(node)?, self.spare(node));
        self.changed.remove(&node);
        self.under_way.insert(node);
        let sources = TreeSources { parent, spare };
        if let Some(known) = self.nodes.get_mut(&node) {
            known.told = Some(sources);
            for feeder in sources.nodes() {
                known.feeders.retain(|other| *other != feeder);
                known.feeders.push_back(feeder);
            }
            while known.feeders.len() > FEEDERS {
                known.feeders.pop_front();
            }
        }
        Some(TreeMove { node, parent, spare })
    }

    /// Returns true if the planned sources of a node are attached themselves, and none of them may be
    /// fed by the node, directly or through others. The highest node whose move is left is always
    /// safe.
    fn is_safe(&self, node: NodeId) -> bool {
        let mut ahead: Vec<NodeId> = self.parent(node).into_iter().chain(self.spare(node)).collect();
        let is_attached =
            |at: &NodeId| *at == self.root || self.nodes.get(at).is_some_and(|known| known.is_attached);
        if !ahead.iter().all(is_attached) {
            return false;
        }
        if self.planted.is(Plant::CycleAllowed) {
            return true;
        }
        let mut seen = BTreeSet::new();
        while let Some(at) = ahead.pop() {
            if at == node {
                return false;
            }
            if seen.insert(at) {
                ahead.extend(self.nodes.get(&at).into_iter().flat_map(|known| &known.feeders));
                ahead.extend(self.gone.get(&at).into_iter().flatten());
            }
        }
        true
    }

    /// Removes a node without a place. A node that has left may feed others until they have moved, so
    /// its feeders are known for as long as it is a feeder itself. Nodes that were told to attach to
    /// it may be told another parent.
    pub(super) fn forget(&mut self, node: NodeId) {
        let Some(removed) = self.nodes.remove(&node) else { return };
        self.gone.insert(node, removed.feeders);
        let mut used = BTreeSet::new();
        let mut ahead: Vec<NodeId> = self.nodes.values().flat_map(|known| &known.feeders).copied().collect();
        while let Some(at) = ahead.pop() {
            if let Some(feeders) = self.gone.get(&at).filter(|_| used.insert(at)) {
                ahead.extend(feeders);
            }
        }
        self.gone.retain(|at, _| used.contains(at));
        while self.gone.len() > self.most {
            self.gone.pop_first();
        }
        for (other, known) in &self.nodes {
            if known.told.is_some_and(|told| told.parent == node) {
                self.under_way.remove(other);
            }
        }
    }
}
