//! The second phase: no fault any more, and L1 and G10 are demanded.

use std::collections::BTreeMap;

use skirmish_core::client::{Client, State};
use skirmish_core::id::Name;

use super::client::room_name;
use super::{World, signed_up_to};
use crate::history::Lane;
use crate::network::Conn;
use crate::oracle::g10_convergence::converged;
use crate::oracle::l1_liveness::{Place, Standing, satisfied};
use crate::oracle::{Guarantee, Verdict};

/// How often the conditions are checked, in microseconds.
const CHECK_EVERY: u64 = 50_000;

impl World<'_> {
    /// Ends every fault, lets one client of each player connect, and waits: first for
    /// what the faults left behind, then for one more message of everybody.
    pub(super) fn heal(&mut self) -> Verdict {
        self.history.record(self.at, Lane::World, format_args!("every fault ends"));
        self.healed = Some(self.at);
        self.start_node()?;
        self.resume_node(self.node.life)?;
        for client in 0..self.clients.len() {
            self.links[client].latency = self.scenario.shape.latency_us;
            self.clients[client].read_gap = 0;
            self.clients[client].stalled_until = 0;
            self.heal_link(client);
            self.unstall(client)?;
            self.resume_client(client)?;
        }
        let present = self.present()?;
        self.await_rest(&present)?;
        for &client in &present {
            let rooms: Vec<u64> = (0..self.scenario.shape.rooms)
                .filter(|room| self.clients[client].machine.rooms().any(|name| name == room_name(*room)))
                .collect();
            for room in rooms {
                self.say(client, room, 1, 16)?;
            }
        }
        self.await_rest(&present)
    }

    /// One client of each player connects; the others end their sessions, since no two
    /// can be connected.
    fn present(&mut self) -> Result<Vec<usize>, crate::oracle::Violation> {
        let mut chosen: BTreeMap<Name, usize> = BTreeMap::new();
        for (number, client) in self.clients.iter().enumerate() {
            let best = chosen.entry(client.player.clone()).or_insert(number);
            let idle = |number: usize| self.clients[number].machine.state() == State::Idle;
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
            // Not all at once.
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

    /// Waits until nothing is under way any more of clients that are not present: a
    /// `Hello` that comes late would take over from the client that is.
    fn await_goodbyes(&mut self, present: &[usize]) -> Verdict {
        let end = self.at + self.scenario.shape.liveness_bound(0);
        loop {
            let late = |conn: &Conn| !conn.vanished && !present.contains(&conn.client);
            if !self.conns.values().any(late) {
                return Ok(());
            }
            if self.at >= end {
                return self.broken(Guarantee::Liveness, "a client that has left still has a connection");
            }
            self.run_until(self.at + CHECK_EVERY)?;
        }
    }

    /// Waits until every condition holds; the first that does not hold when the bound
    /// is over is the violation.
    fn await_rest(&mut self, present: &[usize]) -> Verdict {
        let backlog = present.iter().map(|&c| self.clients[c].machine.outstanding() as u64).max();
        let bound = self.scenario.shape.liveness_bound(backlog.unwrap_or(0));
        let end = self.at + bound;
        loop {
            self.run_until(self.at + CHECK_EVERY)?;
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
                        format!("{} ms after the last fault, {}", millis, unmet.what),
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// The first condition that is not met.
    fn unmet(&self, present: &[usize]) -> Verdict {
        for &client in present {
            satisfied(&self.standing(client))?;
        }
        self.oracles.rest()?;
        let names: Vec<String> = (0..4).map(|number| format!("counter-{number}")).collect();
        for &client in present {
            let machine = &self.clients[client].machine;
            for room in machine.rooms() {
                let label = format!("client {client}'s replica of {room}");
                let node = self.node.machine.as_ref().and_then(|node| node.replica(room));
                match (machine.replica(room), node) {
                    (Some(ours), Some(nodes)) => {
                        converged((&label, ours), ("the node's", nodes), &names)?;
                    }
                    (None, _) | (_, None) => {
                        return self
                            .broken(Guarantee::Convergence, format!("{label} or the node's is not there"));
                    }
                }
            }
        }
        Ok(())
    }

    fn standing(&self, client: usize) -> Standing {
        let process = &self.clients[client];
        let rooms = (0..self.scenario.shape.rooms).map(|room| (room, room_name(room)));
        let wanted = rooms.filter(|(_, name)| process.machine.rooms().any(|wanted| wanted == name));
        let places = wanted.map(|(number, room)| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            Place {
                member: self.oracles.is_member(process.who(), number),
                cursor: process.machine.cursor(&room),
                newest: self.oracles.newest(number),
                room,
            }
        });
        Standing {
            client,
            state: process.machine.state(),
            open: self.oracles.open_messages(process.who()),
            outstanding: process.machine.outstanding(),
            rooms: places.collect(),
        }
    }
}
