//! Rule of latencies: short ways from the root.

use alloc::vec::Vec;

use super::{BroadcastTree, MEASURED};
use crate::base::id::NodeId;

/// Shortest gain for which a node moves, in microseconds.
const GAIN: u64 = 1_000;

impl BroadcastTree {
    /// Keeps a measured round trip, in place of the oldest one of the first node.
    pub(super) fn note_rtt(&mut self, a: NodeId, b: NodeId, rtt: u32) {
        let below = if a == self.root { b } else { a };
        if (a == self.root || b == self.root)
            && let Some(known) = self.nodes.get_mut(&below)
        {
            known.root_rtt = rtt;
            return;
        }
        for (node, other) in [(b, a), (a, b)] {
            if let Some(known) = self.nodes.get_mut(&node) {
                known.measured.retain(|(peer, _)| *peer != other);
            }
        }
        if let Some(known) = self.nodes.get_mut(&a) {
            known.measured.push_back((b, rtt));
            if known.measured.len() > MEASURED {
                known.measured.pop_front();
            }
        }
    }

    /// Returns the measured round trip between two nodes.
    fn measured(&self, a: NodeId, b: NodeId) -> Option<u32> {
        let known = self.nodes.get(&a)?;
        if b == self.root {
            return Some(known.root_rtt);
        }
        known.measured.iter().find(|(peer, _)| *peer == b).map(|(_, rtt)| *rtt)
    }

    /// Returns the round trip between two nodes. One that was not measured is taken for the middle of
    /// its bounds: two nodes with the round trips `x` and `y` to the root have one of at least the
    /// difference and at most the sum, and the middle is the greater of `x` and `y`.
    pub(super) fn rtt(&self, a: NodeId, b: NodeId) -> u64 {
        let known = self.measured(a, b).or_else(|| self.measured(b, a));
        let root_rtt = |node| self.nodes.get(&node).map_or(0, |known| known.root_rtt);
        u64::from(known.unwrap_or_else(|| root_rtt(a).max(root_rtt(b))))
    }

    /// Returns the length of the way from the root to a node: the sum of its round trips.
    pub(super) fn way(&self, node: NodeId) -> u64 {
        let mut way = 0;
        let mut at = node;
        while let Some(parent) = self.parent(at) {
            way += self.rtt(parent, at);
            at = parent;
        }
        way
    }

    /// Returns the length of the way to a node in the place of another node.
    pub(super) fn way_at(&self, node: NodeId, place: NodeId) -> u64 {
        self.parent(place).map_or(0, |parent| self.way(parent) + self.rtt(parent, node))
    }

    /// Moves a node below `peer`, if the way through `peer` is shorter. If `peer` is the parent, whose
    /// link may have become slower, other parents with a measured round trip are tried. Returns true
    /// if the node has moved.
    pub(super) fn shorten(&mut self, node: NodeId, peer: NodeId) -> bool {
        let peers: Vec<NodeId> = if self.parent(node) == Some(peer) {
            let measured = self.nodes.get(&node).into_iter().flat_map(|known| &known.measured);
            measured.map(|(other, _)| *other).chain([self.root]).filter(|other| *other != peer).collect()
        } else {
            [peer].into()
        };
        node != self.root && peers.into_iter().any(|parent| self.move_below(node, parent))
    }

    fn move_below(&mut self, node: NodeId, parent: NodeId) -> bool {
        let is_shorter = |before: u64, after: u64| after + GAIN <= before && after * 5 <= before * 4;
        if self.is_within(parent, node) || self.level(parent) == 0 {
            return false;
        }
        if !is_shorter(self.way(node), self.way(parent) + self.rtt(parent, node)) {
            return false;
        }
        if self.is_leaf(node) && self.is_open(parent) && !self.is_too_heavy(parent, node) {
            let (open, depth) = self.shape();
            // The place that the node leaves is free afterwards.
            let open = open.min(self.level(node) - 1);
            if depth.max(self.level(parent) + 1) <= open + 2 {
                self.begin();
                self.unhang(node);
                self.hang(node, parent);
                return true;
            }
        }
        let children = self.children(parent).to_vec();
        children.into_iter().any(|child| self.exchange_for_latency(node, child))
    }

    /// Exchanges two nodes if the sum of all ways becomes shorter, and the rule of weights holds. While
    /// latencies stay, exchanges therefore end.
    fn exchange_for_latency(&mut self, node: NodeId, other: NodeId) -> bool {
        let before = self.around(node, other);
        let ways = self.ways_below(node, other);
        self.swap(node, other);
        let moves = before.iter().filter(|(at, parent)| self.parent(*at) != *parent).count();
        let is_fit = !self.misfit(node, node) && !self.misfit(other, other);
        if self.ways_below(node, other) < ways && moves <= 2 * self.fan_out && is_fit {
            self.begin();
            self.note_moves(&before);
            return true;
        }
        self.swap(node, other);
        false
    }

    /// Returns the sum of the ways to two nodes and to all nodes below them.
    fn ways_below(&self, a: NodeId, b: NodeId) -> u64 {
        let tops = [(a, b), (b, a)].into_iter().filter(|(top, other)| !self.is_within(*top, *other));
        let mut ahead: Vec<(NodeId, u64)> = tops.map(|(top, _)| (top, self.way(top))).collect();
        let mut sum = 0;
        while let Some((node, way)) = ahead.pop() {
            sum += way;
            ahead.extend(self.children(node).iter().map(|child| (*child, way + self.rtt(node, *child))));
        }
        sum
    }
}
