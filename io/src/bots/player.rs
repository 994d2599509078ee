//! One bot of a battle: joins its room, sends on its schedule, reports its deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Context;

use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant, Now};
use skirmish_proto::v1;
use tokio::sync::OwnedSemaphorePermit;

use super::body::Tag;
use super::cuts::next_cut;
use super::options::{MessageClass, SchedulePhase};
use super::verdict::{Delivery, entry_hash};
use super::world::{BattleStage, BattleState, SharedBattle};
use crate::client::{Act, App, ClientState, DialError, Event, Machine, MessageId, Outcome};

pub(super) struct BattlePlayer {
    index: u32,
    room: String,
    world: Arc<BattleState>,
    rng: Rng,
    /// Held until the bot is in its room, so that not too many bots connect at a time.
    permit: Option<OwnedSemaphorePermit>,
    registered: bool,
    asked_to_join: bool,
    leaving: bool,
    connections: u32,
    /// Due time of the next message, while there is a schedule.
    due: Option<Instant>,
    /// Time of the next cut of the connection.
    cut: Option<Instant>,
    /// Messages sent so far.
    number: u64,
    /// Numbers of the messages without an outcome.
    outstanding: BTreeMap<MessageId, u64>,
}

impl BattlePlayer {
    pub(super) fn new(index: u32, world: Arc<BattleState>, rng: Rng, permit: OwnedSemaphorePermit) -> Self {
        Self {
            index,
            room: world.options.room(index),
            world,
            rng,
            permit: Some(permit),
            registered: false,
            asked_to_join: false,
            leaving: false,
            connections: 0,
            due: None,
            cut: None,
            number: 0,
            outstanding: BTreeMap::new(),
        }
    }

    /// Notes that the bot's task has ended.
    pub(super) fn gone(&mut self, result: Result<(), DialError>) {
        let world = Arc::clone(&self.world);
        let mut shared = world.lock();
        shared.gone += 1;
        self.set_connected(&mut shared, false);
        if let Err(error) = result {
            shared.refused = true;
            shared.trouble.get_or_insert_with(|| error.to_string());
        }
    }

    fn set_connected(&self, shared: &mut SharedBattle, connected: bool) {
        let bot = &mut shared.bots[self.index as usize];
        match (std::mem::replace(&mut bot.connected, connected), connected) {
            (false, true) => shared.connected += 1,
            (true, false) => shared.connected -= 1,
            _ => {}
        }
    }

    /// Draws the first due time: all players start within one interval.
    fn first_due(&mut self, from: Instant) -> Instant {
        let options = &self.world.options;
        let interval = options.interval();
        from + match options.phase {
            SchedulePhase::Spread => interval.mul_f64(options.place(self.index)),
            SchedulePhase::Random => self.rng.duration(Duration::ZERO..=interval),
        }
    }

    fn next_cut(&mut self, now: Instant) -> Option<Instant> {
        next_cut(&mut self.rng, self.world.options.disconnect_rate, now)
    }

    fn say(&mut self, shared: &mut SharedBattle, now: Now, due: Instant, machine: &mut Machine) {
        let options = &self.world.options;
        let sender = self.index;
        let number = self.number + 1;
        let body = Tag { sender, number, due }.body(options.size);
        let taken = match options.class {
            MessageClass::Reliable => match machine.say(now, &self.room, body, "") {
                Ok(message) => {
                    self.outstanding.insert(message, number);
                    shared.outstanding += 1;
                    true
                }
                Err(_) => false,
            },
            // A bot that is away sends no positions: only the position at its return counts.
            MessageClass::Latest => {
                machine.state() == ClientState::Connected
                    && machine.latest(now, &self.room, 0, body, "").is_ok()
            }
        };
        if taken {
            self.number = number;
        }
        shared.stats.say(now.instant, due, taken);
    }

    fn play(
        &mut self,
        shared: &mut SharedBattle,
        now: Now,
        from: Instant,
        to: Instant,
        machine: &mut Machine,
    ) -> Act {
        let due = match self.due {
            Some(due) => due,
            None => {
                self.cut = self.next_cut(now.instant);
                self.first_due(from)
            }
        };
        self.due = Some(due);
        if self.cut.is_some_and(|cut| cut <= now.instant) {
            self.cut = self.next_cut(now.instant);
            if shared.bots[self.index as usize].connected {
                shared.stats.cuts += 1;
                return Act::Cut;
            }
        }
        if due > now.instant || due >= to {
            return Act::Nothing;
        }
        self.due = Some(due + self.world.options.interval());
        self.say(shared, now, due, machine);
        Act::Commanded
    }

    fn outcome(&mut self, shared: &mut SharedBattle, message: MessageId, outcome: Outcome) {
        let Some(number) = self.outstanding.remove(&message) else { return };
        shared.outstanding = shared.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Acknowledged => {
                shared.stats.acknowledged += 1;
                shared.checker.acknowledged(self.index, number);
            }
            Outcome::Refused => {
                shared.stats.refused += 1;
                shared.checker.not_acknowledged(self.index, number);
            }
            Outcome::Unknown => {
                shared.stats.unknown += 1;
                shared.checker.not_acknowledged(self.index, number);
            }
        }
    }
}

impl App for BattlePlayer {
    fn event(&mut self, now: Now, event: Event) {
        let world = Arc::clone(&self.world);
        let mut shared = world.lock();
        let shared = &mut *shared;
        match event {
            Event::Entry { cursor, kind, member, message, client_seq, body, player, .. } => {
                let tag = (kind == v1::EntryKind::Say).then(|| Tag::read(&body)).flatten();
                shared.checker.delivered(
                    self.index,
                    Delivery {
                        cursor,
                        hash: entry_hash(kind as i32, member, client_seq, &body, &player),
                        said: tag.map(|tag| (tag.sender, tag.number)),
                    },
                );
                if message.is_some() {
                    shared.checker.sequenced(self.index, cursor);
                }
                if let Some(tag) = tag {
                    shared.stats.deliver(now.instant, tag.due);
                }
            }
            Event::Latest { body, .. } => {
                if let Some(tag) = Tag::read(&body) {
                    shared.checker.latest(self.index, tag.sender, tag.number);
                    shared.stats.deliver(now.instant, tag.due);
                }
            }
            Event::Outcome { message, outcome, .. } => self.outcome(shared, message, outcome),
            Event::Snapshot { cursor, missing, .. } => {
                shared.checker.snapshot(self.index, cursor, missing);
                shared.stats.snapshots += u64::from(missing.is_some());
            }
            Event::Session { resumed, lost, .. } => {
                shared.checker.connected(self.index);
                shared.stats.reconnects += u64::from(self.connections > 0);
                shared.stats.resumes += u64::from(resumed);
                shared.stats.sessions_lost += u64::from(lost);
                self.connections += 1;
            }
            Event::Joined { resumed, .. } => {
                shared.checker.joined(self.index, resumed);
                self.permit = None;
                let bot = &mut shared.bots[self.index as usize];
                shared.arrived += u32::from(!std::mem::replace(&mut bot.arrived, true));
            }
            Event::Left { reason, .. } => {
                shared.checker.left(self.index);
                if !self.leaving {
                    shared.trouble.get_or_insert_with(|| format!("left its room: {reason:?}"));
                }
            }
            Event::StateChanged { to, .. } => self.set_connected(shared, to == ClientState::Connected),
            Event::Throttled { .. } => shared.stats.throttled += 1,
            Event::Closed { reason, message, .. } => {
                if !self.leaving {
                    shared.trouble.get_or_insert_with(|| format!("connection closed: {reason:?} {message}"));
                }
            }
            Event::State { .. }
            | Event::StateRefused { .. }
            | Event::Application { .. }
            | Event::Unsupported { .. }
            | Event::Ticket { .. }
            | Event::Matched(_)
            | Event::GivenUp { .. } => {}
        }
    }

    fn poll_command(&mut self, cx: &mut Context<'_>, now: Now, machine: &mut Machine) -> Act {
        let world = Arc::clone(&self.world);
        let mut shared = world.lock();
        if !self.registered {
            shared.bots[self.index as usize].waker = Some(cx.waker().clone());
            self.registered = true;
        }
        if !self.asked_to_join {
            self.asked_to_join = true;
            if let Err(error) = machine.join(now, &self.room, self.world.options.history) {
                shared.trouble.get_or_insert_with(|| format!("cannot join: {error:?}"));
            }
            return Act::Commanded;
        }
        match shared.stage {
            BattleStage::Gather => Act::Nothing,
            BattleStage::Play { from, to } => self.play(&mut shared, now, from, to, machine),
            BattleStage::Settle => {
                (self.due, self.cut) = (None, None);
                Act::Nothing
            }
            BattleStage::Leave if self.leaving => Act::Nothing,
            BattleStage::Leave => {
                self.leaving = true;
                machine.disconnect(now);
                Act::Commanded
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match (self.due, self.cut) {
            (Some(due), Some(cut)) => Some(due.min(cut)),
            (one, None) | (None, one) => one,
        }
    }

    fn dial_failed(&mut self, error: &DialError) {
        self.world.lock().trouble.get_or_insert_with(|| error.to_string());
    }
}
