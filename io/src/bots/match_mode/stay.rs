//! A bot's stay in one match: joins the room, talks, waits for all deliveries, leaves.

use std::collections::BTreeMap;

use skirmish_core::time::{Duration, Instant, Now};
use skirmish_proto::v1::{self, LeftReason, Matched};

use super::super::body::Tag;
use super::super::options::Options;
use super::super::verdict::{Checker, Delivery, entry_hash};
use super::super::world::BattleStage;
use super::world::SharedMatchMode;
use crate::client::{Act, Event, Machine, MessageId, Outcome};

#[derive(Debug)]
pub(super) struct MatchStay {
    bot: u32,
    id: String,
    pub room: String,
    step: MatchStayStep,
    /// Time from the join to the first message.
    first: Duration,
    /// Due time of the next message; `None` before the join.
    due: Option<Instant>,
    /// Time of the next check if the stay has to end.
    look: Option<Instant>,
    /// Messages sent so far.
    number: u64,
    /// Numbers of the messages without an outcome.
    outstanding: BTreeMap<MessageId, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatchStayStep {
    Join,
    Joining,
    Talk,
    Leaving,
}

impl MatchStay {
    /// Creates a stay in a match, with the first message due `first` after the join.
    pub(super) fn new(bot: u32, matched: &Matched, first: Duration) -> Self {
        Self {
            bot,
            id: matched.r#match.clone(),
            room: matched.room.clone(),
            step: MatchStayStep::Join,
            first,
            due: None,
            look: None,
            number: 0,
            outstanding: BTreeMap::new(),
        }
    }

    /// Returns the time of the next action.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.step {
            MatchStayStep::Talk => [self.due, self.look].into_iter().flatten().min(),
            MatchStayStep::Join | MatchStayStep::Joining | MatchStayStep::Leaving => self.look,
        }
    }

    /// Returns the battle's checker, and the bot's place there; `None` once the battle is over.
    fn checker<'a>(&self, shared: &'a mut SharedMatchMode) -> Option<(&'a mut Checker, u32)> {
        let battle = shared.battles.get_mut(&self.id).filter(|battle| !battle.is_over())?;
        let place = battle.place(self.bot)?;
        Some((&mut battle.checker, place))
    }

    /// Returns the place of another bot, or an unused place if that bot is not in the match.
    fn place_of(&self, shared: &SharedMatchMode, bot: u32) -> u32 {
        shared.battles.get(&self.id).and_then(|battle| battle.place(bot)).unwrap_or(u32::MAX)
    }

    /// Notes that the bot is connected again.
    pub(super) fn connected(&self, shared: &mut SharedMatchMode) {
        if let Some((checker, place)) = self.checker(shared) {
            checker.connected(place);
        }
    }

    /// Notes that the bot is no longer in the room. Returns true if the bot has left the match.
    pub(super) fn left(&mut self, shared: &mut SharedMatchMode, reason: LeftReason) -> bool {
        if let Some((checker, place)) = self.checker(shared) {
            checker.left(place);
        }
        if self.step == MatchStayStep::Leaving {
            return true;
        }
        // If the room was gone, the client joins again by itself.
        shared.trouble.get_or_insert_with(|| format!("left the room of its match: {reason:?}"));
        if !matches!(reason, LeftReason::Gone | LeftReason::NotAMember | LeftReason::Unspecified) {
            self.step = MatchStayStep::Join;
        }
        false
    }

    /// Handles an event in the room.
    pub(super) fn event(&mut self, shared: &mut SharedMatchMode, now: Now, event: Event) {
        match event {
            Event::Entry { room, cursor, kind, member, message, client_seq, body, player, .. } => {
                if room != self.room {
                    return;
                }
                let tag = (kind == v1::EntryKind::Say).then(|| Tag::read(&body)).flatten();
                let said = tag.map(|tag| (self.place_of(shared, tag.sender), tag.number));
                if let Some((checker, place)) = self.checker(shared) {
                    let hash = entry_hash(kind as i32, member, client_seq, &body, &player);
                    checker.delivered(place, Delivery { cursor, hash, said });
                    if message.is_some() {
                        checker.sequenced(place, cursor);
                    }
                }
                if let Some(tag) = tag {
                    shared.stats.deliver(now.instant, tag.due);
                }
            }
            Event::Snapshot { room, cursor, missing, .. } if room == self.room => {
                if let Some((checker, place)) = self.checker(shared) {
                    checker.snapshot(place, cursor, missing);
                }
                shared.stats.snapshots += u64::from(missing.is_some());
            }
            Event::Joined { room, resumed, .. } if room == self.room => {
                if let Some((checker, place)) = self.checker(shared) {
                    checker.joined(place, resumed);
                }
                if self.step == MatchStayStep::Joining {
                    self.step = MatchStayStep::Talk;
                    self.due = Some(now.instant + self.first);
                }
            }
            Event::Outcome { message, outcome, .. } => self.outcome(shared, message, outcome),
            _ => {}
        }
    }

    fn outcome(&mut self, shared: &mut SharedMatchMode, message: MessageId, outcome: Outcome) {
        let Some(number) = self.outstanding.remove(&message) else { return };
        let counter = match outcome {
            Outcome::Acknowledged => &mut shared.stats.acknowledged,
            Outcome::Refused => &mut shared.stats.refused,
            Outcome::Unknown => &mut shared.stats.unknown,
        };
        *counter += 1;
        if let Some((checker, place)) = self.checker(shared) {
            if outcome == Outcome::Acknowledged {
                checker.acknowledged(place, number);
            } else {
                checker.not_acknowledged(place, number);
            }
        }
    }

    /// Does everything that is due.
    pub(super) fn poll(
        &mut self,
        shared: &mut SharedMatchMode,
        options: &Options,
        now: Now,
        machine: &mut Machine,
    ) -> Act {
        let until = shared.battles.get(&self.id).map_or(now.instant, |battle| battle.until);
        let latest = until + options.patience;
        let last = !matches!(shared.stage, BattleStage::Play { .. });
        match self.step {
            MatchStayStep::Join => {
                self.step = MatchStayStep::Joining;
                self.look = Some(latest);
                if let Err(error) = machine.join(now, &self.room, 0) {
                    shared.trouble.get_or_insert_with(|| format!("cannot join: {error}"));
                }
                return Act::Commanded;
            }
            MatchStayStep::Leaving => return Act::Nothing,
            MatchStayStep::Talk => {
                let due = self.due.filter(|due| *due < until && !last);
                if let Some(due) = due {
                    self.look = Some(until);
                    if due > now.instant {
                        return Act::Nothing;
                    }
                    self.due = Some(due + options.interval());
                    self.say(shared, options, now, due, machine);
                    return Act::Commanded;
                }
                self.due = None;
                self.look = Some(if until > now.instant && !last { until } else { latest });
                let talked = last || until <= now.instant;
                if talked
                    && self.outstanding.is_empty()
                    && let Some(battle) = shared.battles.get_mut(&self.id)
                {
                    battle.done(self.bot);
                }
            }
            MatchStayStep::Joining => {}
        }
        shared.end_battle(&self.id, latest <= now.instant);
        if shared.battles.get(&self.id).is_some_and(|battle| !battle.is_over()) {
            return Act::Nothing;
        }
        if self.step == MatchStayStep::Joining && latest > now.instant {
            // A bot that is not in the room yet cannot leave it.
            return Act::Nothing;
        }
        self.step = MatchStayStep::Leaving;
        self.look = None;
        if let Err(error) = machine.leave(now, &self.room) {
            shared.trouble.get_or_insert_with(|| format!("cannot leave: {error}"));
        }
        Act::Commanded
    }

    fn say(
        &mut self,
        shared: &mut SharedMatchMode,
        options: &Options,
        now: Now,
        due: Instant,
        machine: &mut Machine,
    ) {
        let (sender, number) = (self.bot, self.number + 1);
        let body = Tag { sender, number, due }.body(options.size);
        let said = machine.say(now, &self.room, body, "");
        if let Ok(message) = said {
            self.number = number;
            self.outstanding.insert(message, number);
        }
        shared.stats.say(now.instant, due, said.is_ok());
    }
}
