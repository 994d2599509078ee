//! Latencies between the nodes of a broadcast tree: on one host, in one zone, between zones.

use std::collections::BTreeMap;

use skirmish_core::id::NodeId;
use skirmish_core::rng::Rng;

/// One-way latency on one host, in microseconds.
const SAME_HOST: u64 = 60;

/// One-way latency in one zone, in microseconds.
const SAME_ZONE: u64 = 400;

/// Location of each node, and the latency of each pair.
#[derive(Clone, Debug)]
pub struct TreeNetwork {
    zones: u64,
    hosts: u64,
    /// One-way latency between two zones, in microseconds.
    far: BTreeMap<(u64, u64), u64>,
    /// Addition to each latency of a node.
    slow: BTreeMap<NodeId, u64>,
    /// Last arrival on each way: messages on one way keep their order.
    last: BTreeMap<(NodeId, NodeId), u64>,
    rng: Rng,
}

impl TreeNetwork {
    /// Creates a network of zones with so many hosts each. Latencies between zones are drawn up to
    /// `far` microseconds.
    #[must_use]
    pub fn new(zones: u64, hosts: u64, far: u64, mut rng: Rng) -> Self {
        let mut latencies = BTreeMap::new();
        for a in 0..zones {
            for b in 0..a {
                latencies.insert((b, a), rng.range(far / 4 + 1..=far + 1));
            }
        }
        Self { zones, hosts, far: latencies, slow: BTreeMap::new(), last: BTreeMap::new(), rng }
    }

    /// Returns the zone of a node.
    #[must_use]
    pub const fn zone(&self, node: NodeId) -> u64 {
        node.0 % self.zones
    }

    /// Returns true if two nodes are on one host.
    #[must_use]
    pub const fn is_same_host(&self, a: NodeId, b: NodeId) -> bool {
        a.0 % (self.zones * self.hosts) == b.0 % (self.zones * self.hosts)
    }

    /// Returns the one-way latency, without its random part.
    #[must_use]
    pub fn latency(&self, a: NodeId, b: NodeId) -> u64 {
        let (x, y) = (self.zone(a).min(self.zone(b)), self.zone(a).max(self.zone(b)));
        let base = match self.far.get(&(x, y)) {
            Some(far) => *far,
            None if self.is_same_host(a, b) => SAME_HOST,
            None => SAME_ZONE,
        };
        base + [a, b].iter().filter_map(|node| self.slow.get(node)).sum::<u64>()
    }

    /// Sets the latency between two zones.
    pub fn set_far(&mut self, a: u64, b: u64, latency: u64) {
        if let Some(far) = self.far.get_mut(&(a.min(b), a.max(b))) {
            *far = latency;
        }
    }

    /// Sets the addition to each latency of a node.
    pub fn set_slow(&mut self, node: NodeId, addition: u64) {
        self.slow.insert(node, addition);
    }

    /// Draws the time of arrival of a message that is sent now.
    pub fn arrival(&mut self, now: u64, from: NodeId, to: NodeId) -> u64 {
        let latency = self.latency(from, to);
        let due = now + latency + self.rng.range(0..=latency / 8);
        let last = self.last.entry((from, to)).or_default();
        *last = due.max(*last);
        *last
    }
}
