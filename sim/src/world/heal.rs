//! The second phase: faults have stopped, and L1 and G10 are demanded.

use std::collections::BTreeMap;

use skirmish_core::client::{Client, ClientState};
use skirmish_core::id::Name;
use skirmish_core::node::{Node, clocks};

use super::node::NodeProcess;
use super::{World, signed_up_to};
use crate::history::Actor;
use crate::network::Conn;
use crate::oracle::g10_convergence::converged;
use crate::oracle::l1_liveness::{ClientProgress, RoomProgress, satisfied};
use crate::oracle::{Guarantee, Verdict};
use crate::rooms::room_name;

/// Interval of checks of the conditions, in microseconds.
const CHECK_EVERY: u64 = 50_000;

impl World<'_> {
    /// Ends every fault, lets one client of each player connect, and waits: first for the messages
    /// from the time of faults, then for one more message of every client.
    pub(super) fn heal(&mut self) -> Verdict {
        self.history.record(self.at, Actor::World, format_args!("every fault ends"));
        self.healed = Some(self.at);
        self.heal_registry_and_nodes()?;
        for client in 0..self.clients.len() {
            for path in &mut self.client_paths[client] {
                path.latency = self.scenario.shape.latency_us;
            }
            self.clients[client].read_gap = 0;
            self.clients[client].stalled_until = 0;
            self.heal_path(client, 0);
            self.unstall(client)?;
            self.resume_client(client)?;
        }
        let present = self.present()?;
        self.await_rest(&present)?;
        self.search_all(&present)?;
        for &client in &present {
            let wanted = |name: &str| self.clients[client].machine.rooms().any(|wanted| wanted == name);
            let rooms: Vec<u64> = self
                .rooms
                .open()
                .into_iter()
                .filter(|(_, name)| wanted(name))
                .map(|(room, _)| room)
                .collect();
            for room in rooms {
                self.say(client, room, 1, 16)?;
            }
        }
        self.await_rest(&present)?;
        self.leave_searching(&present)
    }

    fn heal_registry_and_nodes(&mut self) -> Verdict {
        let shape = self.scenario.shape;
        self.start_registry();
        self.resume_registry();
        self.end_leaderless();
        self.end_fullness()?;
        if let Some(registry) = self.registry.as_mut() {
            for messages in &mut registry.node_messages {
                (messages.lag, messages.blurred, messages.last_match) = (0, 0, None);
            }
        }
        for path in &mut self.registry_paths {
            path.latency = shape.registry_latency_us;
        }
        for path in self.node_paths.values_mut() {
            path.latency = shape.node_latency_us;
        }
        for node in 0..self.nodes.len() {
            self.set_wrong(node, 0);
            self.heal_registry(node);
            for other in 0..node {
                self.heal_nodes(other, node);
            }
        }
        for node in 0..self.nodes.len() {
            self.start_node(node)?;
            self.resume_node(node, self.nodes[node].life)?;
        }
        Ok(())
    }

    /// Connects one client of each player. The other clients end their sessions, since only one
    /// client of a player can be connected.
    fn present(&mut self) -> Result<Vec<usize>, crate::oracle::Violation> {
        let mut chosen: BTreeMap<Name, usize> = BTreeMap::new();
        for (number, client) in self.clients.iter().enumerate() {
            let best = chosen.entry(client.player.clone()).or_insert(number);
            let idle = |number: usize| self.clients[number].machine.state() == ClientState::Idle;
            if idle(*best) && !idle(number) {
                *best = number;
            }
        }
        let present: Vec<usize> = chosen.into_values().collect();
        for client in 0..self.clients.len() {
            if !present.contains(&client) {
                self.client_input(client, Client::disconnect)?;
            }
        }
        self.await_goodbyes(&present)?;
        for &client in &present {
            // Spreads the connects over time.
            let pause = signed_up_to(&mut self.rng, 50_000).unsigned_abs();
            self.run_until(self.at + pause)?;
            let room = room_name(client as u64 % self.scenario.shape.rooms.max(1));
            let alone = self.clients[client].machine.rooms().next().is_none();
            self.client_input(client, |machine, now| {
                if alone {
                    // A refusal shows as a client without a room.
                    let _ = machine.join(now, &room, 0);
                }
                machine.connect(now);
            })?;
        }
        Ok(present)
    }

    /// Waits until no data of absent clients is under way any more: a late `Hello` would take over
    /// from the present client.
    fn await_goodbyes(&mut self, present: &[usize]) -> Verdict {
        let end = self.at + self.scenario.shape.liveness_bound(0);
        loop {
            let late = |conn: &Conn| conn.vanished.is_none() && !present.contains(&conn.client);
            if !self.conns.values().any(late) {
                return Ok(());
            }
            if self.at >= end {
                return self.broken(Guarantee::Liveness, "a client that has left still has a connection");
            }
            self.run_until(self.at + CHECK_EVERY)?;
        }
    }

    /// Waits until every condition holds. The first condition that still fails when the bound is
    /// over is the violation.
    fn await_rest(&mut self, present: &[usize]) -> Verdict {
        let backlog = present.iter().map(|&c| self.clients[c].machine.outstanding() as u64).max();
        let bound = self.scenario.shape.liveness_bound(backlog.unwrap_or(0));
        let end = self.at + bound;
        loop {
            self.run_until(self.at + CHECK_EVERY)?;
            self.missed()?;
            for client in std::mem::take(&mut self.recalled) {
                if present.contains(&client) {
                    self.client_input(client, Client::connect)?;
                }
            }
            match self.unmet(present) {
                Ok(()) => return Ok(()),
                Err(unmet) if self.at >= end => {
                    // A broken promise explains more than a missing message.
                    self.oracles.rest()?;
                    let millis = bound / 1_000;
                    return self.broken(
                        unmet.guarantee,
                        format!("{} ms after the last fault, {}", millis, unmet.description),
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// Returns the first condition that is not met.
    fn unmet(&mut self, present: &[usize]) -> Verdict {
        for &client in present {
            satisfied(&self.standing(client))?;
        }
        self.oracles.rest()?;
        let names: Vec<String> = (0..4).map(|number| format!("counter-{number}")).collect();
        for &client in present {
            let machine = &self.clients[client].machine;
            for room in machine.rooms() {
                let label = format!("client {client}'s replica of {room}");
                let Some(ours) = machine.replica(room) else {
                    return self.broken(Guarantee::Convergence, format!("{label} is not there"));
                };
                let replicas = self.nodes.iter().filter_map(|node| {
                    Some((format!("node {}'s", node.number), node.machine.as_ref()?.replica(room)?))
                });
                let mut any = false;
                for (name, nodes) in replicas {
                    any = true;
                    converged((&label, ours), (&name, nodes), &names)?;
                }
                if !any {
                    return self.broken(Guarantee::Convergence, format!("no node has {room}"));
                }
            }
        }
        self.agreed(present)?;
        self.recorded(present)?;
        self.matched(present)
    }

    /// Checks that every record of the registry names a session or a room that the record's node
    /// has, and that every present player has a record.
    fn recorded(&mut self, present: &[usize]) -> Verdict {
        let records = self.records();
        if self.registry.is_some()
            && let Some(player) = present.iter().map(|&client| &self.clients[client].player).find(|player| {
                let key = format!("/sessions/player:{player}");
                !records.iter().any(|(record, _, _)| *record == key)
            })
        {
            return self.broken(Guarantee::Fence, format!("the registry has no session of {player}"));
        }
        // A session outlives its node until its lease ends, by the clock of the registry.
        let lease = self.scenario.shape.room_lease_s * 2_000_000;
        let is_within_lease = self.healed.is_none_or(|healed| self.at <= healed + lease);
        for (key, owner, epoch) in records {
            let node = self.nodes.iter().find_map(|node| node.machine.as_ref().filter(|m| m.id() == owner));
            let is_room = key.starts_with("/rooms/");
            if node.is_none() && !is_room && is_within_lease {
                continue;
            }
            let held = node.and_then(|node| match key.strip_prefix("/sessions/player:") {
                Some(player) => node.session_epoch(player),
                None => node.leads(key.strip_prefix("/rooms/")?.strip_suffix("/state")?),
            });
            // A session that was registered again after the loss of its node's lease has a newer
            // epoch in the registry than the node uses.
            if !held.is_some_and(|held| held == epoch || !is_room && held < epoch) {
                let guarantee = if is_room { Guarantee::Primary } else { Guarantee::Fence };
                return self.broken(
                    guarantee,
                    format!("{key} is {owner}'s by the registry, in epoch {epoch}; there it is {held:?}"),
                );
            }
        }
        Ok(())
    }

    /// Checks that every node serves, that every room has one primary, and that every session is on
    /// its client's node and nowhere else.
    fn agreed(&self, present: &[usize]) -> Verdict {
        for node in &self.nodes {
            let now = node.clock.now(self.at).instant;
            if !node.machine.as_ref().is_some_and(|machine| machine.is_serving(now)) {
                return self.broken(Guarantee::Liveness, format!("node {} does not serve", node.number));
            }
            if let Some(failure) = node.machine.as_ref().and_then(|machine| machine.registry_failure(now)) {
                let description =
                    format!("node {} takes the registry for one that fails: {failure}", node.number);
                return self.broken(Guarantee::Liveness, description);
            }
            let clock = node.machine.as_ref().map(Node::clock);
            if clock != Some(clocks::ClockVerdict::Agrees) {
                let description =
                    format!("node {} lets nobody in, since it takes its clock for {clock:?}", node.number);
                return self.broken(Guarantee::Liveness, description);
            }
        }
        for (_, room) in self.rooms.open() {
            let machines = || self.nodes.iter().filter_map(|node| node.machine.as_ref());
            let epochs: Vec<u64> =
                machines().filter_map(|node| node.head(&room)).map(|head| head.epoch).collect();
            let primaries = machines().filter_map(|node| node.leads(&room)).count();
            if primaries != usize::from(!epochs.is_empty()) || epochs.iter().any(|epoch| *epoch != epochs[0])
            {
                return self.broken(
                    Guarantee::Primary,
                    format!(
                        "{room} has {primaries} primaries, and its epoch is {epochs:?} at those who have it"
                    ),
                );
            }
            let lacks_backup = |node: &Node| node.leads(&room).is_some() && node.backup(&room).is_none();
            let shape = &self.scenario.shape;
            // A node that has no place for one more room is no backup.
            let has_place = shape.room_total > shape.rooms * 2;
            if shape.replicas > 1 && has_place && machines().any(lacks_backup) {
                return self.broken(Guarantee::Liveness, format!("{room} has no backup"));
            }
        }
        for &client in present {
            let process = &self.clients[client];
            let home = process.conn.and_then(|id| self.conns.get(&id)).map(|conn| conn.to);
            let player = process.player.as_str();
            let has = |node: &&NodeProcess| {
                node.machine.as_ref().is_some_and(|machine| machine.session_epoch(player).is_some())
            };
            let nodes: Vec<usize> = self.nodes.iter().filter(has).map(|node| node.number).collect();
            if home.is_none_or(|home| nodes != [home]) {
                return self.broken(
                    Guarantee::Fence,
                    format!(
                        "{player} is connected to node {home:?}, but nodes {nodes:?} have a session of it"
                    ),
                );
            }
        }
        Ok(())
    }

    fn standing(&self, client: usize) -> ClientProgress {
        let process = &self.clients[client];
        let rooms = self.rooms.open().into_iter();
        let wanted = rooms.filter(|(_, name)| process.machine.rooms().any(|wanted| wanted == &**name));
        let places = wanted.map(|(number, room)| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            RoomProgress {
                member: self.oracles.is_member(process.client_life(), number),
                cursor: process.machine.cursor(&room),
                newest: self.oracles.newest(number),
                room: room.to_string(),
            }
        });
        ClientProgress {
            client,
            state: process.machine.state(),
            open: self.oracles.open_messages(process.client_life()),
            outstanding: process.machine.outstanding(),
            rooms: places.collect(),
        }
    }
}
