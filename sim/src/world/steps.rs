//! Execution of a scenario's steps: acts of applications. [`faults`](super::faults) executes the
//! other steps.

use bytes::Bytes;
use skirmish_core::client::CommandError;

use super::World;
use crate::history::Actor;
use crate::oracle::{Observation, Verdict};
use crate::rooms::room_name;
use crate::scenario::Action;

/// One in so many scenarios has large latest messages.
const LARGE_LATEST: u64 = 8;

impl World<'_> {
    pub(super) fn step(&mut self, index: usize) -> Verdict {
        self.next_step = index + 1;
        let Some(step) = self.scenario.steps.get(index) else { return Ok(()) };
        self.history.record(self.at, Actor::World, format_args!("step {index}: {}", step.action));
        self.faulted |= self.scenario.shape.is_disturbed_by(step.action);
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
            | Action::Application { client, .. }
            | Action::Queue { client, .. }
            | Action::Cancel { client }
            | Action::LeaveMatch { client }
            | Action::GiveUp { client } => {
                let client = self.client_at(client);
                // A paused process gives its machine no commands.
                if self.clients[client].paused { Ok(()) } else { self.command(client, action) }
            }
            fault => self.fault(fault),
        }
    }

    /// Executes a command of a client's application.
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
                self.leave(client, &room)?
            }
            Action::Say { room, count, size, .. } => {
                let room = positive(room) % self.rooms.plain();
                return self.say(client, room, positive(count).min(100), positive(size));
            }
            Action::Latest { room, key, count, .. } => {
                let (room, key) = (room_of(room), u32::try_from(key).unwrap_or(0));
                let mut result = Ok(());
                for number in 0..positive(count).min(100) {
                    let mut body = number.to_be_bytes().to_vec();
                    // Large messages in some scenarios: rooms have no space for all of them.
                    if self.scenario.seed % LARGE_LATEST == 5 {
                        body.resize(8 * 1024, 0);
                    }
                    let body = Bytes::from(body);
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
            Action::Queue { mode, party, rating, .. } => return self.queue(client, mode, party, rating),
            Action::Cancel { .. } => self.client_input(client, skirmish_core::client::Client::cancel)?,
            Action::LeaveMatch { .. } => return self.leave_matches(client),
            Action::GiveUp { .. } => return self.give_up_match(client),
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

    /// Says reliable messages, each with a content that is unique in the run.
    pub(super) fn say(&mut self, client: usize, room: u64, count: u64, size: u64) -> Verdict {
        let name = self.rooms.name(room);
        let ends_turns = self.scenario.shape.turns > 0;
        for _ in 0..count {
            let serial = self.next_serial;
            self.next_serial += 1;
            let mut body = serial.to_be_bytes().to_vec();
            body.resize(usize::try_from(size).unwrap_or(0).clamp(8, 8_192), b'x');
            let process = &mut self.clients[client];
            let now = process.clock.now(self.at);
            let turn = process.turns.get(&*name).copied().unwrap_or(0);
            let said = if ends_turns && serial.is_multiple_of(3) {
                process.machine.end_turn(now, &name, turn, body.into(), "sim.v1.Said")
            } else {
                process.machine.say(now, &name, body.into(), "sim.v1.Said")
            };
            let client_life = process.client_life();
            match said {
                Ok(message) => {
                    let room = u32::try_from(room).unwrap_or(u32::MAX);
                    self.observe(Observation::Said { client_life, room, message: message.0, serial })?;
                }
                Err(error) => self.answered(client, Some(error)),
            }
            self.settle_client(client)?;
        }
        Ok(())
    }

    pub(super) fn answered(&mut self, client: usize, error: Option<CommandError>) {
        if let Some(error) = error {
            self.coverage.hit("command refused");
            self.history.record(self.at, Actor::Client(client), format_args!("refuses: {error:?}"));
        }
    }

    pub(super) fn client_at(&self, number: i64) -> usize {
        usize::try_from(positive(number)).unwrap_or(0) % self.clients.len()
    }
}

pub(super) fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
