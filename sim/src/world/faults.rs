//! Execution of a scenario's faults, and of operators' acts.

use skirmish_core::client::{Client, ClientState};

use super::steps::positive;
use super::{World, WorldEvent};
use crate::history::Actor;
use crate::network::{NetworkPath, PipeItem, Way};
use crate::oracle::Verdict;
use crate::scenario::Action;

/// Longest time that a fault lasts by itself, in milliseconds.
const LONGEST: u64 = 60_000;

impl World<'_> {
    pub(super) fn fault(&mut self, action: Action) -> Verdict {
        match action {
            Action::Kick { client } => {
                let player = self.clients[self.client_at(client)].player.clone();
                self.kick(&player)
            }
            Action::Partition { client, way, node } => {
                self.partition(self.client_at(client), way, node);
                Ok(())
            }
            Action::Heal { client, node } => {
                self.heal_path(self.client_at(client), node);
                Ok(())
            }
            Action::Delay { client, latency } => {
                let client = self.client_at(client);
                for path in &mut self.client_paths[client] {
                    path.latency = positive(latency).min(5_000_000);
                }
                Ok(())
            }
            Action::Move { client, millis, node } => {
                let (client, node) = (self.client_at(client), self.node_at(node));
                if self.clients[client].paused {
                    return Ok(());
                }
                self.coverage.hit("client moved");
                self.clients[client].home = node;
                self.roam(client, positive(millis).min(LONGEST))?;
                if self.clients[client].machine.state() == ClientState::Disconnected {
                    self.client_input(client, Client::connect)?;
                }
                Ok(())
            }
            Action::Reset { client } => {
                self.reset(self.client_at(client));
                Ok(())
            }
            Action::Vanish { client } => {
                self.vanish(self.client_at(client));
                Ok(())
            }
            Action::Stall { client, millis } => {
                let client = self.client_at(client);
                let until = self.at + positive(millis).min(LONGEST) * 1_000;
                self.coverage.hit("reader stalled");
                self.clients[client].stalled_until = until;
                self.trouble(Actor::Client(client), "stalled");
                self.schedule(until, WorldEvent::ClientReads(client));
                Ok(())
            }
            Action::Repeat { client, count } => {
                let client = self.client_at(client);
                self.clients[client].repeat = positive(count).min(100);
                Ok(())
            }
            Action::Roam { client, millis } => {
                let client = self.client_at(client);
                if self.clients[client].paused {
                    return Ok(());
                }
                self.roam(client, positive(millis).min(LONGEST))
            }
            Action::Slow { client, gap } => {
                let client = self.client_at(client);
                self.clients[client].read_gap = positive(gap).min(1_000_000);
                Ok(())
            }
            Action::PauseClient { client, millis } => {
                let client = self.client_at(client);
                self.clients[client].paused = true;
                self.trouble(Actor::Client(client), "paused");
                let until = self.at + positive(millis).min(LONGEST) * 1_000;
                self.schedule(until, WorldEvent::ClientResumes(client));
                Ok(())
            }
            Action::PauseNode { millis, node } => {
                self.pause_node(self.node_at(node), positive(millis).min(LONGEST));
                Ok(())
            }
            Action::Crash { millis, silent, node } => {
                self.crash_node(self.node_at(node), positive(millis).min(LONGEST), silent != 0);
                Ok(())
            }
            Action::Drain { millis, node } => {
                self.drain_node(self.node_at(node), positive(millis).min(LONGEST))
            }
            Action::CrashClient { client } => self.crash_client(self.client_at(client)),
            Action::FailMatcher { mode, how, millis } => {
                self.fail_matcher(mode, how, positive(millis).min(LONGEST));
                Ok(())
            }
            Action::SetWrong { node, millis } => {
                let node = self.node_at(node);
                self.set_wrong(node, millis.clamp(-86_400_000, 86_400_000));
                Ok(())
            }
            Action::Jump { process, millis } => {
                let millis = millis.clamp(-86_400_000, 86_400_000);
                self.jump(positive(process), millis);
                Ok(())
            }
            other => {
                self.fault_among_nodes(other);
                Ok(())
            }
        }
    }

    /// Executes faults between nodes, and faults of their registry.
    fn fault_among_nodes(&mut self, action: Action) {
        let latency = |micros| positive(micros).min(5_000_000);
        let millis = |millis| positive(millis).min(LONGEST);
        match action {
            Action::CutNodes { one, other, way } => {
                self.cut_nodes(self.node_at(one), self.node_at(other), way);
            }
            Action::HealNodes { one, other } => self.heal_nodes(self.node_at(one), self.node_at(other)),
            Action::DelayNodes { one, other, latency: micros } => {
                let (one, other) = (self.node_at(one), self.node_at(other));
                if let Some(path) = self.node_path(one, other) {
                    path.latency = latency(micros);
                }
            }
            Action::ResetNodes { one, other } => self.reset_nodes(self.node_at(one), self.node_at(other)),
            Action::VanishNodes { one, other } => self.vanish_nodes(self.node_at(one), self.node_at(other)),
            Action::CutRegistry { way, node } => self.cut_registry(self.node_at(node), way),
            Action::HealRegistry { node } => self.heal_registry(self.node_at(node)),
            Action::DelayRegistry { latency: micros, node } => {
                let node = self.node_at(node);
                self.registry_paths[node].latency = latency(micros);
            }
            Action::LagWatches { millis: lag, node } => {
                let node = self.node_at(node);
                if let Some(registry) = self.registry.as_mut() {
                    registry.node_messages[node].lag = millis(lag) * 1_000;
                }
            }
            Action::BlurRegistry { count, node } => {
                let node = self.node_at(node);
                if let Some(registry) = self.registry.as_mut() {
                    registry.node_messages[node].blurred = positive(count).min(20);
                }
            }
            Action::PauseRegistry { millis: pause } => self.pause_registry(millis(pause)),
            Action::RestartRegistry { millis: down, silent } => self.stop_registry(millis(down), silent != 0),
            Action::CopyRegistry {} => self.copy_registry(),
            Action::ReturnRegistry { millis: down, wiped } => self.return_registry(millis(down), wiped != 0),
            Action::ElectRegistry { millis: without } => self.depose_leader(millis(without)),
            Action::FillRegistry { millis: full } => self.fill_registry(millis(full)),
            Action::CompactRegistry { keep } => self.compact_registry(positive(keep)),
            _ => {}
        }
    }

    fn jump(&mut self, process: u64, millis: i64) {
        self.oracles.clocks.forget();
        let (clients, nodes) = (self.clients.len(), self.nodes.len());
        let number = usize::try_from(process).unwrap_or(0) % (clients + nodes);
        match number.checked_sub(1) {
            None => self.nodes[0].clock.jump(millis),
            Some(client) if client < clients => self.clients[client].clock.jump(millis),
            Some(other) => self.nodes[other - clients + 1].clock.jump(millis),
        }
    }

    fn partition(&mut self, client: usize, way: i64, node: i64) {
        self.coverage.hit("partition");
        for node in self.nodes_of(node) {
            self.client_paths[client][node].cut(way, self.at);
        }
        if way.rem_euclid(3) != 2 {
            self.trouble(Actor::Client(client), "cut off: to the node");
        }
        if way.rem_euclid(3) != 1 {
            self.trouble(Actor::Client(client), "cut off: from the node");
        }
    }

    pub(super) fn heal_path(&mut self, client: usize, node: i64) {
        let mut latency = 0;
        for node in self.nodes_of(node) {
            let path = &mut self.client_paths[client][node];
            path.heal();
            latency = path.latency;
        }
        if !self.client_paths[client].iter().any(NetworkPath::is_hurt) {
            self.relief(Actor::Client(client), "cut off: to the node");
            self.relief(Actor::Client(client), "cut off: from the node");
        }
        self.schedule_arrivals(client, self.at + latency);
    }

    /// Resets the connection: both ends are notified, and all data under way is lost from a random
    /// item on.
    fn reset(&mut self, client: usize) {
        let Some(id) = self.clients[client].conn else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let path = &mut self.client_paths[client][conn.to];
        let keep = path.below(conn.up.len());
        conn.up.truncate(keep);
        let keep = path.below(conn.down.len());
        conn.down.truncate(keep);
        self.send(id, Way::Up, PipeItem::Reset);
        self.send(id, Way::Down, PipeItem::Reset);
    }

    /// Kills the connection in silence: neither end is notified.
    fn vanish(&mut self, client: usize) {
        let Some(id) = self.clients[client].conn else { return };
        let at = self.at;
        if let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.connected) {
            self.coverage.hit("connection vanished");
            conn.vanished.get_or_insert(at);
        }
    }

    fn node_at(&self, number: i64) -> usize {
        usize::try_from(positive(number)).unwrap_or(0) % self.nodes.len()
    }

    /// Returns the nodes that a step names: 0 for all, else the node's number, from 1.
    fn nodes_of(&self, number: i64) -> Vec<usize> {
        match positive(number).checked_sub(1) {
            None => (0..self.nodes.len()).collect(),
            Some(node) => vec![usize::try_from(node).unwrap_or(0) % self.nodes.len()],
        }
    }
}
