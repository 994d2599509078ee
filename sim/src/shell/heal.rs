//! The second phase: faults have stopped, and L1 and G10 are demanded.

use std::collections::BTreeMap;

use skirmish_core::crdt::Replica;
use skirmish_io::client::Machine;

use super::actions::ClientCommand;
use super::hosts::Hosts;
use super::ledger::{AFTERMATH, at};
use crate::history::Actor;
use crate::oracle::g10_convergence::converged;
use crate::oracle::l1_liveness::{ClientProgress, RoomProgress, satisfied};
use crate::oracle::{Guarantee, Verdict, Violation};

/// Interval of checks of the conditions, in microseconds.
const CHECK_EVERY: u64 = 200_000;

/// State of a client as its machine reports it.
struct ClientReport {
    standing: ClientProgress,
    replicas: Vec<(String, Replica)>,
    searching: bool,
}

impl Hosts {
    /// Ends every fault, lets one client of each player live, and waits: first for the messages
    /// from the time of faults, then for one more message of every client.
    pub(super) async fn heal(&mut self) -> Verdict {
        self.shared.lock().note(Actor::World, format_args!("every fault ends"));
        self.calm();
        self.start_registry().await;
        self.start_servers().await;
        let present = self.present().await?;
        self.await_rest(&present).await?;
        self.search_all(&present).await?;
        for &client in &present {
            for room in 0..self.rooms() {
                self.send_command(client, ClientCommand::Say { room, count: 1, size: 16 });
            }
        }
        // Before the commands are executed there is nothing to wait for.
        self.pass_until(at() + 10_000).await?;
        self.await_rest(&present).await?;
        self.leave_searching(&present).await
    }

    /// Starts one client of each player. The processes of the others end, since only one client of
    /// a player can be connected.
    async fn present(&mut self) -> Result<Vec<usize>, Violation> {
        let mut chosen: BTreeMap<usize, usize> = BTreeMap::new();
        for (client, process) in self.shared.lock().clients.iter().enumerate() {
            let best = chosen.entry(process.player).or_insert(client);
            if process.running {
                *best = client;
            }
        }
        let present: Vec<usize> = chosen.into_values().collect();
        for client in 0..self.plan.clients() {
            if !present.contains(&client) {
                self.kill_client(client).await;
            }
        }
        for &client in &present {
            // Spreads the starts over time.
            let pause = self.rng.range(0..=50_000);
            self.pass_until(at() + pause).await?;
            self.start_client(client).await;
            let room = self.room_of(client);
            self.send_command(client, ClientCommand::Join { room, history: 0 });
        }
        Ok(present)
    }

    /// Waits until every condition holds. The first condition that still fails when the bound is
    /// over is the violation.
    async fn await_rest(&mut self, present: &[usize]) -> Verdict {
        let mut backlog = 0;
        for &client in present {
            let report = self.report(client).await;
            backlog = backlog.max(report.map_or(0, |report| report.standing.outstanding as u64));
        }
        let bound = self.plan.shape.liveness_bound(backlog) + AFTERMATH;
        let end = at() + bound;
        loop {
            self.pass_until(at() + CHECK_EVERY).await?;
            // A server may have been about to end when the faults stopped.
            self.start_servers().await;
            for &client in present {
                // A late frame of another client took the session over, or an operator ended the
                // session: the application starts again.
                if !self.shared.lock().clients[client].running {
                    self.start_client(client).await;
                    let room = self.room_of(client);
                    self.send_command(client, ClientCommand::Join { room, history: 0 });
                }
            }
            match self.unmet(present).await {
                Ok(()) => return Ok(()),
                Err(unmet) if at() >= end => {
                    // A broken promise explains more than a missing message.
                    self.shared.lock().oracles.rest()?;
                    let description =
                        format!("{} ms after the last fault, {}", bound / 1_000, unmet.description);
                    return Err(Violation { description, ..unmet });
                }
                Err(_) => {}
            }
        }
    }

    /// Returns the first condition that is not met.
    async fn unmet(&self, present: &[usize]) -> Verdict {
        let mut reports = Vec::new();
        for &client in present {
            let Some(report) = self.report(client).await else {
                let description = format!("client {client} does not answer its application");
                return Err(Violation { guarantee: Guarantee::Liveness, description });
            };
            satisfied(&report.standing)?;
            reports.push(report);
        }
        self.shared.lock().oracles.rest()?;
        let servers = self.running()?;
        let names: Vec<String> = (0..4).map(|number| format!("counter-{number}")).collect();
        for ClientReport { standing, replicas, .. } in &reports {
            for (room, ours) in replicas {
                let label = format!("client {}'s replica of {room}", standing.client);
                let mut any = false;
                for (number, server) in servers.iter().enumerate() {
                    let verdict = server.inspect(|node| {
                        let Some(theirs) = node.replica(room) else { return Ok(()) };
                        any = true;
                        converged((&label, ours), (&format!("server {number}'s"), theirs), &names)
                    });
                    verdict?;
                }
                if !any {
                    let description = format!("no server has {room}");
                    return Err(Violation { guarantee: Guarantee::Convergence, description });
                }
            }
        }
        self.agreed(present)?;
        let searching = reports.iter().find(|report| report.searching).map(|report| report.standing.client);
        self.matched(present, searching)
    }

    /// Asks a client for its state; `None` if the client has ended or not begun.
    async fn report(&self, client: usize) -> Option<ClientReport> {
        let handle = self.shared.lock().clients[client].client.clone()?;
        let look = |machine: &Machine| {
            let rooms: Vec<String> = machine.rooms().map(str::to_owned).collect();
            let replica = |room: &String| Some((room.clone(), machine.replica(room)?.clone()));
            let replicas: Vec<_> = rooms.iter().filter_map(replica).collect();
            let cursors: Vec<_> = rooms.iter().map(|room| machine.cursor(room)).collect();
            let at_work = (machine.state(), machine.outstanding(), machine.is_searching());
            (rooms, cursors, replicas, at_work)
        };
        let (rooms, cursors, replicas, (state, outstanding, searching)) = handle.inspect(look).await.ok()?;
        let mut ledger = self.shared.lock();
        let client_life = ledger.client_life(client);
        let mut places = Vec::new();
        for (room, cursor) in rooms.into_iter().zip(cursors) {
            let number = ledger.room(&room);
            let (member, newest) =
                (ledger.oracles.is_member(client_life, number), ledger.oracles.newest(number));
            places.push(RoomProgress { room, member, cursor, newest });
        }
        let open = ledger.oracles.open_messages(client_life);
        let standing = ClientProgress { client, state, open, outstanding, rooms: places };
        Some(ClientReport { standing, replicas, searching })
    }

    pub(super) fn send_command(&self, client: usize, command: ClientCommand) {
        if let Some(commands) = &self.shared.lock().clients[client].commands {
            // A client that has just ended needs no commands.
            let _ = commands.send(command);
        }
    }

    fn rooms(&self) -> u32 {
        self.plan.rooms()
    }

    fn room_of(&self, client: usize) -> u32 {
        u32::try_from(client).unwrap_or(0) % self.rooms()
    }
}
