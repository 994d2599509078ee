//! Wrong wall clocks of nodes, and the reaction of the nodes.

use skirmish_core::node::Node;

use super::World;
use crate::history::Actor;
use crate::oracle::Verdict;
use crate::oracle::g12_clocks::{NodeClock, is_off};

impl World<'_> {
    /// Sets the error of a node's wall clock; 0: the clock is right again.
    pub(super) fn set_wrong(&mut self, node: usize, millis: i64) {
        self.nodes[node].clock.set_wrong(millis);
        self.oracles.clocks.forget();
        if millis == 0 {
            self.relief(Actor::Node(node), "clock off");
        } else {
            self.trouble(Actor::Node(node), "clock off");
        }
    }

    /// Checks that no node serves players while its clock is off.
    pub(super) fn check_clocks(&mut self) -> Verdict {
        if self.nodes.len() == 1 {
            return Ok(());
        }
        let mut nodes = Vec::new();
        for process in self.nodes.iter().filter(|process| !process.is_troubled()) {
            let number = process.number;
            let has =
                |conn: &&crate::network::Conn| conn.to == number && conn.node.is_some() && !conn.closing;
            nodes.push(NodeClock {
                node: (number, process.life),
                is_off: self.is_clock_off(number),
                connections: self.conns.values().filter(has).count(),
            });
        }
        let within = self.clock_bound();
        self.oracles.clocks.check(self.at, &nodes, within)
    }

    /// Checks a node that lets a player in.
    pub(super) fn lets_in(&self, node: usize) -> Verdict {
        let is_off = self.nodes.len() > 1 && self.is_clock_off(node);
        let life = self.nodes[node].life;
        self.oracles.clocks.lets_in(self.at, (node, life), is_off, self.clock_bound())
    }

    fn clock_bound(&self) -> u64 {
        let slowest = self.node_paths.values().map(|path| path.latency + path.jitter).max().unwrap_or(0);
        self.scenario.shape.clock_bound(slowest)
    }

    /// Returns true if a node's clock surely is off among the nodes that it reaches.
    fn is_clock_off(&self, number: usize) -> bool {
        let process = &self.nodes[number];
        let Some(machine) = process.machine.as_ref() else { return false };
        let wall =
            |node: usize| i64::try_from(self.nodes[node].clock.now(self.at).wall.0).unwrap_or(i64::MAX);
        let reached = (0..self.nodes.len()).filter(|other| self.reaches(machine, number, *other));
        let ahead: Vec<i64> = reached.map(|other| wall(other) - wall(number)).collect();
        is_off(&ahead, machine.peers(), self.most_apart_ms())
    }

    /// Returns true if another node answers over the link.
    fn reaches(&self, machine: &Node, number: usize, other: usize) -> bool {
        let Some(peer) = self.nodes[other].machine.as_ref().filter(|_| !self.nodes[other].is_paused()) else {
            return false;
        };
        let pair = (number.min(other), number.max(other));
        let Some(path) = self.node_paths.get(&pair) else { return false };
        let linked = machine.is_linked(peer.id()) && peer.is_linked(machine.id());
        let vanished = self.node_links.values().any(|node_link| {
            let ends = (node_link.ends[0].node, node_link.ends[1].node);
            node_link.vanished && (ends.0.min(ends.1), ends.0.max(ends.1)) == pair
        });
        linked && !path.is_hurt() && !vanished
    }

    /// Returns the largest difference of clocks that may still be measured as allowed. A
    /// measurement is wrong by the time of the round trip and by the drift of the clocks since.
    fn most_apart_ms(&self) -> i64 {
        let shape = &self.scenario.shape;
        let slowest = self.node_paths.values().map(|path| path.latency + path.jitter).max().unwrap_or(0);
        let wrong = slowest * 4 / 1_000 + shape.link_heartbeat_ms / 2 + 100;
        i64::try_from(shape.clock_bound_ms + wrong).unwrap_or(i64::MAX)
    }
}
