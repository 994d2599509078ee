//! One bot of the match mode: queues, battles, leaves, queues again.

use std::sync::Arc;
use std::task::Context;

use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant, Now};
use skirmish_proto::v1::{self, TicketState};
use tokio::sync::OwnedSemaphorePermit;

use super::super::cuts::{next_cut, uniform};
use super::super::world::BattleStage;
use super::stay::MatchStay;
use super::world::{MatchModeState, SharedMatchMode};
use crate::client::{Act, App, ClientState, DialError, Event, Machine};

/// Longest rest between a match and the next search.
const REST: Duration = Duration::from_secs(1);
/// Maximum time before a search is given up, if it is given up at all.
const GIVE_UP: Duration = Duration::from_millis(500);

pub(super) struct MatchPlayer {
    index: u32,
    world: Arc<MatchModeState>,
    rng: Rng,
    /// Held until the bot is connected, so that not too many bots connect at a time.
    permit: Option<OwnedSemaphorePermit>,
    registered: bool,
    connections: u32,
    /// Time of the next cut of the connection.
    cut: Option<Instant>,
    step: MatchActivity,
    /// Stay in the current or the last match.
    stay: Option<MatchStay>,
}

/// Current activity of a bot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatchActivity {
    /// The bot waits until all bots are connected.
    Gather,
    /// The bot has neither ticket nor match, and queues at `until`.
    Rest { until: Instant },
    /// The bot has a ticket.
    Search {
        /// Time at which the bot takes the ticket back.
        give_up: Option<Instant>,
        cancelled: bool,
    },
    /// The bot is in a match.
    Play,
    /// The bot ends its session.
    Gone,
}

impl MatchPlayer {
    pub(super) fn new(
        index: u32,
        world: Arc<MatchModeState>,
        rng: Rng,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            index,
            world,
            rng,
            permit: Some(permit),
            registered: false,
            connections: 0,
            cut: None,
            step: MatchActivity::Gather,
            stay: None,
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

    fn set_connected(&mut self, shared: &mut SharedMatchMode, connected: bool) {
        let bot = &mut shared.bots[self.index as usize];
        match (std::mem::replace(&mut bot.connected, connected), connected) {
            (false, true) => shared.connected += 1,
            (true, false) => shared.connected -= 1,
            _ => {}
        }
        if connected {
            self.permit = None;
            shared.arrived += u32::from(!std::mem::replace(&mut bot.arrived, true));
        }
    }

    /// Sets the bot's activity.
    fn set_step(&mut self, shared: &mut SharedMatchMode, step: MatchActivity) {
        self.step = step;
        shared.bots[self.index as usize].busy =
            matches!(step, MatchActivity::Search { .. } | MatchActivity::Play);
    }

    fn rest(&mut self, shared: &mut SharedMatchMode, now: Instant) {
        let until = now + self.rng.duration(Duration::ZERO..=REST);
        self.set_step(shared, MatchActivity::Rest { until });
    }

    /// Returns the bot's request for a match.
    fn wish(&self) -> v1::Queue {
        let options = &self.world.options;
        let mode = options.matches.queue.clone().unwrap_or_default();
        if self.index >= options.matches.in_parties(options.players) {
            return v1::Queue { mode, ..v1::Queue::default() };
        }
        let party = format!("{}-party-{}", options.prefix, self.index / 2);
        let party_key = party.clone().into_bytes().into_iter().rev().take(32).collect();
        v1::Queue { mode, party, party_key, party_size: 2, ..v1::Queue::default() }
    }

    fn queue(&mut self, shared: &mut SharedMatchMode, now: Now, machine: &mut Machine) -> Act {
        if let Err(error) = machine.queue(now, self.wish()) {
            shared.trouble.get_or_insert_with(|| format!("cannot queue: {error}"));
            self.rest(shared, now.instant);
            return Act::Nothing;
        }
        shared.ledger.queued(self.index, machine.search().unwrap_or(0), now.instant);
        let gives_up = uniform(&mut self.rng) < self.world.options.matches.cancel_rate;
        let give_up = gives_up.then(|| now.instant + self.rng.duration(Duration::ZERO..=GIVE_UP));
        self.set_step(shared, MatchActivity::Search { give_up, cancelled: false });
        Act::Commanded
    }

    fn search(&mut self, shared: &mut SharedMatchMode, now: Now, machine: &mut Machine) -> Act {
        let MatchActivity::Search { give_up, cancelled } = self.step else { return Act::Nothing };
        let last = matches!(shared.stage, BattleStage::Settle | BattleStage::Leave);
        if cancelled || !(last || give_up.is_some_and(|at| at <= now.instant)) {
            return Act::Nothing;
        }
        self.step = MatchActivity::Search { give_up: None, cancelled: true };
        shared.ledger.cancels(self.index);
        match machine.cancel(now) {
            Ok(()) => Act::Commanded,
            Err(_) => Act::Nothing,
        }
    }

    fn ticket(
        &mut self,
        shared: &mut SharedMatchMode,
        now: Now,
        search: u64,
        state: TicketState,
        reason: &str,
    ) {
        match state {
            TicketState::Unspecified
            | TicketState::Waiting
            | TicketState::Unavailable
            | TicketState::Lost => return,
            TicketState::Refused => {
                shared.trouble.get_or_insert_with(|| format!("the ticket is refused: {reason}"));
            }
            TicketState::Cancelled
            | TicketState::TimedOut
            | TicketState::PartyLost
            | TicketState::GivenUp
            | TicketState::None => {}
        }
        shared.ledger.ended(self.index, search, state, now.instant);
        if matches!(self.step, MatchActivity::Search { .. }) {
            self.rest(shared, now.instant);
        }
    }

    fn told(&mut self, shared: &mut SharedMatchMode, now: Now, matched: &v1::Matched) {
        let options = &self.world.options;
        shared.told(self.index, matched, now.instant, now.instant + options.matches.battle);
        let first = self.rng.duration(Duration::ZERO..=options.interval());
        self.stay = Some(MatchStay::new(self.index, matched, first));
        self.set_step(shared, MatchActivity::Play);
    }
}

impl App for MatchPlayer {
    fn event(&mut self, now: Now, event: Event) {
        let world = Arc::clone(&self.world);
        let mut shared = world.lock();
        let shared = &mut *shared;
        match event {
            Event::Ticket { search, state, reason, .. } => self.ticket(shared, now, search, state, &reason),
            Event::Matched(matched) => self.told(shared, now, &matched),
            Event::GivenUp { matched } => shared.gave_up(self.index, &matched),
            Event::Left { room, reason } => {
                let Some(stay) = self.stay.as_mut().filter(|stay| stay.room == room) else { return };
                if stay.left(shared, reason) && self.step == MatchActivity::Play {
                    shared.left(self.index);
                    self.rest(shared, now.instant);
                }
            }
            Event::Session { resumed, lost, .. } => {
                if let Some(stay) = &self.stay {
                    stay.connected(shared);
                }
                shared.stats.reconnects += u64::from(self.connections > 0);
                shared.stats.resumes += u64::from(resumed);
                shared.stats.sessions_lost += u64::from(lost);
                self.connections += 1;
            }
            Event::StateChanged { to, .. } => self.set_connected(shared, to == ClientState::Connected),
            Event::Throttled { .. } => shared.stats.throttled += 1,
            Event::Closed { reason, message, .. } => {
                if self.step != MatchActivity::Gone {
                    shared.trouble.get_or_insert_with(|| format!("connection closed: {reason:?} {message}"));
                }
            }
            other => {
                if let Some(stay) = &mut self.stay {
                    stay.event(shared, now, other);
                }
            }
        }
    }

    fn poll_command(&mut self, cx: &mut Context<'_>, now: Now, machine: &mut Machine) -> Act {
        let world = Arc::clone(&self.world);
        let mut shared = world.lock();
        let shared = &mut *shared;
        if !self.registered {
            shared.bots[self.index as usize].waker = Some(cx.waker().clone());
            self.registered = true;
        }
        let playing = matches!(shared.stage, BattleStage::Play { .. });
        if !playing {
            self.cut = None;
        } else if self.cut.is_some_and(|cut| cut <= now.instant) {
            self.cut = next_cut(&mut self.rng, world.options.disconnect_rate, now.instant);
            if shared.bots[self.index as usize].connected {
                shared.stats.cuts += 1;
                return Act::Cut;
            }
        }
        match self.step {
            MatchActivity::Gone => Act::Nothing,
            _ if shared.stage == BattleStage::Leave => {
                self.step = MatchActivity::Gone;
                machine.disconnect(now);
                Act::Commanded
            }
            MatchActivity::Gather => {
                let BattleStage::Play { from, to } = shared.stage else { return Act::Nothing };
                self.cut = next_cut(&mut self.rng, world.options.disconnect_rate, now.instant);
                // Bots that have connected together must not stay together.
                let spread = world.options.matches.battle.min((to - from) / 2);
                let until = from + self.rng.duration(Duration::ZERO..=spread);
                self.set_step(shared, MatchActivity::Rest { until });
                Act::Nothing
            }
            MatchActivity::Rest { until } if playing && until <= now.instant => {
                self.queue(shared, now, machine)
            }
            MatchActivity::Rest { .. } => Act::Nothing,
            MatchActivity::Search { .. } => self.search(shared, now, machine),
            MatchActivity::Play => match &mut self.stay {
                Some(stay) => stay.poll(shared, &world.options, now, machine),
                None => Act::Nothing,
            },
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let next = match self.step {
            MatchActivity::Gather | MatchActivity::Gone => None,
            MatchActivity::Rest { until } => Some(until),
            MatchActivity::Search { give_up, .. } => give_up,
            MatchActivity::Play => self.stay.as_ref().and_then(MatchStay::deadline),
        };
        [next, self.cut].into_iter().flatten().min()
    }

    fn dial_failed(&mut self, error: &DialError) {
        self.world.lock().trouble.get_or_insert_with(|| error.to_string());
    }
}
