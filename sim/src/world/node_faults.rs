//! Nodes that pause, die, are drained and are started again.

use skirmish_core::id::ConnId;
use skirmish_core::plant::Plant;
use skirmish_core::time::Duration;

use super::node::Registration;
use super::registry_link::RegistryLink;
use super::{World, WorldEvent};
use crate::history::Actor;
use crate::network::{PipeItem, Way};
use crate::oracle::Verdict;

impl World<'_> {
    pub(super) fn pause_node(&mut self, node: usize, millis: u64) {
        let process = &mut self.nodes[node];
        if !process.paused {
            process.paused = true;
            let life = process.life;
            self.trouble(Actor::Node(node), "paused");
            self.schedule(self.at + millis * 1_000, WorldEvent::NodeResumes(node, life));
        }
    }

    pub(super) fn resume_node(&mut self, node: usize, life: u32) -> Verdict {
        let process = &mut self.nodes[node];
        if life != process.life || !process.paused {
            return Ok(());
        }
        process.paused = false;
        process.resumed = self.at;
        let is_due = process.wakes.is_some_and(|at| at <= self.at);
        self.relief(Actor::Node(node), "paused");
        if is_due {
            self.coverage.hit("deadline in a pause");
        }
        if is_due && self.nodes[node].planted.is(Plant::TimeoutsFirst) {
            self.node_timeout(node)?;
        }
        self.rouse_node(node)
    }

    /// Schedules everything that waited for the node.
    fn rouse_node(&mut self, node: usize) -> Verdict {
        for client in 0..self.clients.len() {
            self.schedule_arrivals(client, self.at);
        }
        self.schedule_node_links(self.at);
        self.schedule_registry_messages(self.at);
        for event in std::mem::take(&mut self.nodes[node].deferred) {
            self.schedule(self.at, event);
        }
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            self.node_can_write(id)?;
        }
        for (node_link, end) in self.nodes[node].node_links.values().copied().collect::<Vec<_>>() {
            self.node_link_can_write(node_link, end)?;
        }
        Ok(())
    }

    /// Kills the node with all its data, and plans its next start.
    pub(super) fn crash_node(&mut self, node: usize, millis: u64, silent: bool) {
        if self.nodes[node].machine.is_none() {
            return;
        }
        self.coverage.hit("node crash");
        self.stop_node(node, silent);
        self.schedule(self.at + millis * 1_000, WorldEvent::NodeStarts(node));
    }

    fn stop_node(&mut self, node: usize, silent: bool) {
        self.retire_node_stats(node);
        self.trouble(Actor::Node(node), "down");
        self.hang_up_registry(node, silent);
        let process = &mut self.nodes[node];
        (process.machine, process.wakes, process.silent) = (None, None, silent);
        process.registry = Registration::Remote(Box::new(RegistryLink::new(&self.scenario.shape)));
        process.told.clear();
        process.deferred.clear();
        process.holders.clear();
        let names: Vec<ConnId> = process.ids.keys().copied().collect();
        if process.paused {
            process.paused = false;
            self.relief(Actor::Node(node), "paused");
        }
        for name in names {
            let Some(id) = self.detach(node, name) else { continue };
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            // Some of the frames that the node had handed over had left the host.
            let keep = self.client_paths[conn.client][node].below(conn.down.len());
            conn.down.truncate(keep);
            if !silent {
                self.send(id, Way::Down, PipeItem::Reset);
            }
            self.forget_if_over(id);
        }
        self.lose_node_links(node, silent);
    }

    pub(super) fn start_node(&mut self, node: usize) -> Verdict {
        let process = &mut self.nodes[node];
        if process.machine.is_some() {
            return Ok(());
        }
        if process.life > 0 {
            process.clock = process.clock.restarted(self.at);
        }
        process.start(&self.scenario.shape, self.at);
        let id = process.machine.as_ref().map(skirmish_core::node::Node::id);
        self.history.record(self.at, Actor::Node(node), format_args!("starts as {id:?}"));
        self.relief(Actor::Node(node), "down");
        self.dial_registry(node);
        self.watch_matches(Some(node));
        self.node_input(node, skirmish_core::node::Node::start)?;
        self.rouse_node(node)
    }

    pub(super) fn drain_node(&mut self, node: usize, millis: u64) -> Verdict {
        if self.nodes[node].is_paused() {
            return Ok(());
        }
        self.coverage.hit("node drain");
        let life = self.nodes[node].life;
        self.node_input(node, |machine, now| machine.drain(now, Duration::from_millis(millis)))?;
        self.schedule(self.at + millis * 1_000, WorldEvent::NodeStops(node, life));
        Ok(())
    }

    pub(super) fn stop_drained(&mut self, node: usize, life: u32) -> Verdict {
        if life != self.nodes[node].life || self.nodes[node].machine.is_none() {
            return Ok(());
        }
        if !self.nodes[node].is_paused() {
            // Requests to the registry from this call are under way when the node is gone.
            self.node_input(node, skirmish_core::node::Node::stop)?;
        }
        self.stop_node(node, false);
        self.start_node(node)
    }
}
