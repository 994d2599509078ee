//! Does the steps of a scenario.

use bytes::Bytes;
use skirmish_core::client::CommandError;

use super::client::room_name;
use super::{Happening, World};
use crate::history::Lane;
use crate::network::{Item, Way};
use crate::oracle::{Observation, Verdict};
use crate::scenario::Action;

impl World<'_> {
    pub(super) fn step(&mut self, index: usize) -> Verdict {
        self.next_step = index + 1;
        let Some(step) = self.scenario.steps.get(index) else { return Ok(()) };
        self.history.record(self.at, Lane::World, format_args!("step {index}: {}", step.action));
        self.act(step.action)
    }

    fn act(&mut self, action: Action) -> Verdict {
        match action {
            Action::Connect { client }
            | Action::Disconnect { client }
            | Action::Join { client, .. }
            | Action::Leave { client, .. }
            | Action::Say { client, .. }
            | Action::Latest { client, .. }
            | Action::Set { client, .. }
            | Action::Unset { client, .. }
            | Action::Add { client, .. }
            | Action::Application { client, .. } => {
                let client = self.client_at(client);
                // A process that stands still gives its machine no commands.
                if self.clients[client].paused { Ok(()) } else { self.command(client, action) }
            }
            Action::Kick { client } => {
                let player = self.clients[self.client_at(client)].player.clone();
                if self.node.is_paused() { Ok(()) } else { self.kick(&player) }
            }
            Action::Partition { client, way } => {
                self.partition(self.client_at(client), way);
                Ok(())
            }
            Action::Heal { client } => {
                self.heal_link(self.client_at(client));
                Ok(())
            }
            Action::Delay { client, latency } => {
                let client = self.client_at(client);
                self.links[client].latency = positive(latency).min(5_000_000);
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
                let until = self.at + positive(millis).min(60_000) * 1_000;
                self.coverage.hit("reader stalled");
                self.clients[client].stalled_until = until;
                self.trouble(Lane::Client(client), "stalled");
                self.schedule(until, Happening::ClientReads(client));
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
                self.roam(client, positive(millis).min(60_000))
            }
            Action::Slow { client, gap } => {
                let client = self.client_at(client);
                self.clients[client].read_gap = positive(gap).min(1_000_000);
                Ok(())
            }
            Action::PauseClient { client, millis } => {
                let client = self.client_at(client);
                self.clients[client].paused = true;
                self.trouble(Lane::Client(client), "paused");
                let until = self.at + positive(millis).min(60_000) * 1_000;
                self.schedule(until, Happening::ClientResumes(client));
                Ok(())
            }
            Action::PauseNode { millis } => {
                self.pause_node(positive(millis).min(60_000));
                Ok(())
            }
            Action::Crash { millis, silent } => self.crash_node(positive(millis).min(60_000), silent != 0),
            Action::Drain { millis } => {
                if self.node.is_paused() {
                    Ok(())
                } else {
                    self.drain_node(positive(millis).min(60_000))
                }
            }
            Action::CrashClient { client } => self.crash_client(self.client_at(client)),
            Action::Jump { process, millis } => {
                let millis = millis.clamp(-86_400_000, 86_400_000);
                let number = positive(process) % (self.clients.len() as u64 + 1);
                match usize::try_from(number).unwrap_or(0).checked_sub(1) {
                    None => self.node.clock.jump(millis),
                    Some(client) => self.clients[client].clock.jump(millis),
                }
                Ok(())
            }
        }
    }

    /// A command of a client's application.
    fn command(&mut self, client: usize, action: Action) -> Verdict {
        let room_of = |room: i64| room_name(positive(room) % self.scenario.shape.rooms.max(1));
        let connected = self.clients[client].is_connected();
        let result = match action {
            Action::Connect { .. } => self.client_input(client, |machine, now| {
                machine.connect(now);
                Ok(())
            })?,
            Action::Disconnect { .. } => {
                self.client_input(client, skirmish_core::client::Client::disconnect)?;
                Ok(())
            }
            Action::Join { room, history, .. } => {
                let (room, history) = (room_of(room), u32::try_from(history).unwrap_or(0));
                self.client_input(client, |machine, now| machine.join(now, &room, history))?
            }
            Action::Leave { room, .. } => {
                let room = room_of(room);
                self.client_input(client, |machine, now| machine.leave(now, &room))?
            }
            Action::Say { room, count, size, .. } => {
                let room = positive(room) % self.scenario.shape.rooms.max(1);
                return self.say(client, room, positive(count).min(100), positive(size));
            }
            Action::Latest { room, key, count, .. } => {
                let (room, key) = (room_of(room), u32::try_from(key).unwrap_or(0));
                let mut result = Ok(());
                for number in 0..positive(count).min(100) {
                    let body = Bytes::copy_from_slice(&number.to_be_bytes());
                    result =
                        self.client_input(client, |machine, now| machine.latest(now, &room, key, body, ""))?;
                }
                result
            }
            Action::Set { room, name, value, .. } => {
                let (room, name) = (room_of(room), format!("property-{name}"));
                let value = Bytes::from(value.to_string());
                self.client_input(client, |machine, now| {
                    machine.set_property(now, &room, &name, Some(value))
                })?
            }
            Action::Unset { room, name, .. } => {
                let (room, name) = (room_of(room), format!("property-{name}"));
                self.client_input(client, |machine, now| machine.set_property(now, &room, &name, None))?
            }
            Action::Add { room, name, delta, .. } => {
                let (room, name) = (room_of(room), format!("counter-{name}"));
                self.client_input(client, |machine, now| machine.add(now, &room, &name, delta))?
            }
            Action::Application { size, .. } => {
                let payload = Bytes::from(vec![7; usize::try_from(size).unwrap_or(0).min(4_096)]);
                self.client_input(client, |machine, now| machine.send(now, "sim.v1.Echo", payload))?
            }
            _ => Ok(()),
        };
        let state = matches!(action, Action::Set { .. } | Action::Unset { .. } | Action::Add { .. });
        if state && !connected && result.is_ok() {
            self.coverage.hit("state written offline");
        }
        self.answered(client, result.err());
        Ok(())
    }

    /// Says reliable messages, each unlike every other of the run.
    pub(super) fn say(&mut self, client: usize, room: u64, count: u64, size: u64) -> Verdict {
        let name = room_name(room);
        for _ in 0..count {
            let serial = self.next_serial;
            self.next_serial += 1;
            let mut body = serial.to_be_bytes().to_vec();
            body.resize(usize::try_from(size).unwrap_or(0).clamp(8, 8_192), b'x');
            let process = &mut self.clients[client];
            let now = process.clock.now(self.at);
            let (who, said) = (process.who(), process.machine.say(now, &name, body.into(), "sim.v1.Said"));
            match said {
                Ok(message) => {
                    let room = u32::try_from(room).unwrap_or(u32::MAX);
                    self.observe(Observation::Said { who, room, message: message.0, serial })?;
                }
                Err(error) => self.answered(client, Some(error)),
            }
            self.settle_client(client)?;
        }
        Ok(())
    }

    fn answered(&mut self, client: usize, error: Option<CommandError>) {
        if let Some(error) = error {
            self.coverage.hit("command refused");
            self.history.record(self.at, Lane::Client(client), format_args!("refuses: {error:?}"));
        }
    }

    fn partition(&mut self, client: usize, way: i64) {
        self.coverage.hit("partition");
        let link = &mut self.links[client];
        if way.rem_euclid(3) != 2 {
            link.up_cut.get_or_insert(self.at);
            self.trouble(Lane::Client(client), "cut off: to the node");
        }
        let link = &mut self.links[client];
        if way.rem_euclid(3) != 1 {
            link.down_cut.get_or_insert(self.at);
            self.trouble(Lane::Client(client), "cut off: from the node");
        }
    }

    pub(super) fn heal_link(&mut self, client: usize) {
        let link = &mut self.links[client];
        link.up_cut = None;
        link.down_cut = None;
        let latency = link.latency;
        self.relief(Lane::Client(client), "cut off: to the node");
        self.relief(Lane::Client(client), "cut off: from the node");
        self.schedule_arrivals(client, self.at + latency);
    }

    /// Both ends learn that the connection is no more; what was under way is lost from
    /// some message on.
    fn reset(&mut self, client: usize) {
        let Some(id) = self.clients[client].conn else { return };
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let link = &mut self.links[client];
        let keep = link.below(conn.up.len());
        conn.up.truncate(keep);
        let keep = link.below(conn.down.len());
        conn.down.truncate(keep);
        self.send(id, Way::Up, Item::Reset);
        self.send(id, Way::Down, Item::Reset);
    }

    /// Nothing gets through the connection any more, and neither end is told.
    fn vanish(&mut self, client: usize) {
        let Some(id) = self.clients[client].conn else { return };
        if let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.connected) {
            self.coverage.hit("connection vanished");
            conn.vanished = true;
        }
    }

    fn client_at(&self, number: i64) -> usize {
        usize::try_from(positive(number)).unwrap_or(0) % self.clients.len()
    }
}

fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
