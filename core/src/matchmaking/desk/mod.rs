//! What a node does for the tickets of its own players (rows K1, K2).
//!
//! For each player there is what the registry is known to hold (session, ticket, notice),
//! and what the player wants. What differs is put right by one transaction at a time, which
//! compares what was known and answers with what there is. So a transaction whose outcome
//! is unknown is simply asked again, and nothing is ever guessed. One watch tells of what
//! others do to tickets and notices.
//!
//! # Rules
//!
//! * A ticket is written only while the session's key is as this session left it, while
//!   there is no notice, and over no ticket but the one that was known.
//! * The newest `Queue` counts: an equal one changes nothing, another one takes the place of
//!   the ticket and waits anew. A `Cancel` takes back the ticket of its search and no other.
//! * A ticket that is gone though nobody took it back, because its lease is, is queued
//!   again and keeps its time, once the player has said that it searches yet. The session's
//!   record was gone too: the player may have been elsewhere meanwhile, and heard there how
//!   the search ended, and nothing in the registry would say so. Whoever answers what it was
//!   told here since the session was registered again is here, and has heard of no end; and
//!   where the session was before, it does not count as here any more.
//! * How a ticket ended is told before it is taken away, and a match until it is left: so
//!   whoever was away hears of both.
//!
//! # Absence
//!
//! A ticket says since when its player has no connection, for the matcher to leave it alone.
//! That is written [`MatchmakingConfig::absence_delay`] after the loss, or with whatever else is
//! to be written of the ticket: so a player that is back at once costs no write, and one that
//! is back later two. How a ticket of an absent player ended stays in the registry until the
//! player is back and is told, at whichever node, or its session ends.
//!
//! # Searches that have ended
//!
//! What is told and what the player asks cross: it hears that its search has ended, and has
//! sent its `Queue` or `Cancel` again on the connection that it came with. So for each player
//! the end that was told last is remembered, with the number of the search, while the session
//! is here: one end, since a client has one search at a time and its frames keep their order.
//! Who asks for that search again is told the same, and nothing begins. When another session
//! of the player comes, or this one comes back from another node, the end is forgotten: there
//! the search may have begun anew, and what counts is what the registry has.
//!
//! Where the player is in a match, that is the answer to any search it asks for. It is told
//! until the player is out of it: see `quit`.

mod absence;
mod anew;
mod coming;
mod places;
mod player;
mod quit;
mod request;
mod view;
mod watch;
mod wish;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use self::places::Rosters;
use self::player::{Context, LastNotice as Heard, NextAction, Player};
use self::request::none;
use self::watch::Base;
use self::wish::Wish;
use super::record::{Refused, check, seal_party};
use super::settings::MatchmakingConfig;
use crate::base::backoff::Spread;
use crate::base::id::{Name, NodeId};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Instant, Now};
use crate::registry::{Answer, Calls, Failure, LeaseId, RegistryCommand, RegistryEvent, Request, Response};

/// Players that are looked at in one step.
const STEP: usize = 256;

/// The tickets of a node's players. See the [module](self).
#[derive(Debug)]
pub struct Desk {
    config: MatchmakingConfig,
    node: NodeId,
    now: Now,
    lease: Option<LeaseId>,
    /// Boxed, as the table has places that nobody is in.
    players: BTreeMap<Name, Box<Player>>,
    /// Who is to be looked at, in turn.
    line: BTreeMap<u64, Name>,
    turn: u64,
    retries: BTreeSet<(Instant, Name)>,
    /// Players whose absence is to be written, and when.
    absences: BTreeSet<(Instant, Name)>,
    /// Who is in the matches whose rooms this node is the primary of.
    rosters: Rosters,
    calls: Calls<Asked>,
    rng: Rng,
    /// Waits before what failed is tried again.
    backoff: Spread,
    asked: u64,
    base: Base,
    decisions: VecDeque<DeskDecision>,
    stats: Stats,
    planted: Planted,
}

/// What a desk has decided.
#[derive(Clone, Debug, PartialEq)]
pub enum DeskDecision {
    /// The player is to be told of its ticket.
    Ticket {
        /// Who.
        player: Name,
        /// What.
        queued: v1::Queued,
    },
    /// The player is to be told of its match.
    Matched {
        /// Who.
        player: Name,
        /// Its match.
        matched: v1::Matched,
    },
    /// The registry has it that the player is not in the match of a room, which it has asked
    /// to leave.
    Left {
        /// Who.
        player: Name,
        /// The room.
        room: Name,
        /// Its session was a member, or it was in the match.
        was_in: bool,
    },
    /// It is known for whom places of a room are kept, of which this node is the primary.
    PlacesKnown {
        /// The room.
        room: Name,
    },
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Players whose sessions are here.
    pub players: usize,
    /// Requests under way.
    pub under_way: usize,
    /// Requests asked for players.
    pub asked: u64,
    /// Requests that came to nothing, or to nobody knows what.
    pub failed: u64,
    /// Times that the watch had to be begun anew.
    pub rebased: u64,
}

#[derive(Debug)]
enum Asked {
    /// Where the watch is to begin.
    Base,
    Player {
        name: Name,
        serial: u64,
        pair: Option<String>,
    },
    /// The match of a room.
    Roster {
        room: Name,
        serial: u64,
    },
}

impl Desk {
    /// A desk of `node`. Its requests and watches have the identifiers `first_call +
    /// n * call_step`.
    #[must_use]
    pub fn new(config: MatchmakingConfig, node: NodeId, seed: Seed, first_call: u64, call_step: u64) -> Self {
        let backoff = Spread::new(config.backoff_min, config.backoff_max);
        Self {
            config,
            node,
            now: Now::default(),
            lease: None,
            players: BTreeMap::new(),
            line: BTreeMap::new(),
            turn: 0,
            retries: BTreeSet::new(),
            absences: BTreeSet::new(),
            rosters: Rosters::default(),
            calls: Calls::new(first_call, call_step),
            rng: Rng::new(seed),
            backoff,
            asked: 0,
            base: Base::default(),
            decisions: VecDeque::new(),
            stats: Stats::default(),
            planted: Planted::default(),
        }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    // Getters.

    /// What has happened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { players: self.players.len(), under_way: self.calls.len(), ..self.stats }
    }

    /// Checks the bounds, and that the tables agree with each other.
    ///
    /// # Errors
    /// Says what is not as it must be.
    pub fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, error: &'static str| if holds { Ok(()) } else { Err(error) };
        check(self.players.len() <= self.config.players, "the desk has too many players")?;
        check(self.calls.len() <= self.config.calls, "the desk has too many requests under way")?;
        let retrying = self.players.values().filter(|player| player.retry.is_some()).count();
        check(self.retries.len() == retrying, "the desk's retries differ from its players")?;
        let absences = self.players.values().filter(|player| player.is_absence_awaited()).count();
        check(self.absences.len() == absences, "the desk's absences differ from its players")?;
        let in_line = self.players.values().filter(|player| player.turn.is_some()).count();
        check(self.line.len() == in_line, "the desk's line differs from its players")
    }

    // Commands.

    /// Begins to watch.
    pub fn start(&mut self, now: Now) {
        self.now = now;
        self.rebase();
    }

    /// The lease that tickets die with; `None` while the node holds none.
    pub fn set_lease(&mut self, now: Now, lease: Option<LeaseId>) {
        self.now = now;
        if self.lease == lease {
            return;
        }
        self.lease = lease;
        let waiting: Vec<Name> =
            self.players.values().filter(|player| player.is_waiting()).map(|p| p.name.clone()).collect();
        waiting.iter().for_each(|name| self.look_at(name));
        self.drive();
    }

    /// The player wants a match. It is told what comes of it.
    pub fn queue(&mut self, now: Now, player: &Name, session_epoch: u64, mut queue: v1::Queue) {
        self.now = now;
        let answers = core::mem::take(&mut queue.session_epoch);
        if let Err(refused) = check(&self.config, player, &queue) {
            return self.refuse(player, &queue, &refused);
        }
        seal_party(&mut queue);
        let Some(entry) = self.enter(player, session_epoch) else {
            return self.refuse(player, &queue, &Refused::Full);
        };
        entry.handle_answer(answers);
        entry.replace_cancel();
        let same = matches!(&entry.wish, Wish::Queue { queue: wished, .. } if **wished == queue);
        if !same {
            entry.wish = Wish::Queue { queue: Box::new(queue), queued_ms: now.wall.0 };
        }
        let stands = match entry.told {
            Heard::Ended(_) => true,
            // That may have crossed this, and will be answered.
            Heard::Lost(_) => same,
            _ => false,
        };
        if !stands {
            entry.told = Heard::Nothing;
        }
        self.look_at(player);
        self.drive();
    }

    /// The player gives the search of this number up, with the match that has answered it; 0:
    /// whichever there is. It is told what comes of that.
    pub fn cancel(&mut self, now: Now, player: &Name, search: u64) {
        self.now = now;
        let entry = self.players.get_mut(player).filter(|entry| !entry.parting);
        let said = entry.map_or_else(|| Some(none(search)), |entry| entry.cancel(search));
        if let Some(queued) = said {
            return self.decisions.push_back(DeskDecision::Ticket { player: player.clone(), queued });
        }
        self.look_at(player);
        self.drive();
    }

    /// The player's session is here, or has a connection again: it is told what there is.
    /// Its epoch is that with which it is registered by now.
    /// Players over the cap of [`MatchmakingConfig::players`] are not looked after.
    pub fn arrive(&mut self, now: Now, player: &Name, session_epoch: u64) {
        self.come(now, player, session_epoch, None);
    }

    /// The player's session has ended here, and the player is in no match whose room it has
    /// been in; `moved`: another session has its ticket and its match, here or elsewhere.
    pub fn depart(&mut self, now: Now, player: &Name, moved: bool) {
        self.now = now;
        let Some(entry) = self.players.get_mut(player) else { return };
        if moved && entry.quits.is_empty() {
            return self.forget(player);
        }
        self.end_absence(player);
        let Some(entry) = self.players.get_mut(player) else { return };
        (entry.parting, entry.moved) = (true, moved);
        entry.wish = Wish::Nothing;
        if !moved {
            entry.quit_joined();
        }
        if entry.failures > 0 {
            // A ticket may have been written.
            entry.view = None;
        }
        self.look_at(player);
        self.drive();
    }

    // Inputs.

    /// The registry has answered, or tells something.
    pub fn handle_told(&mut self, now: Now, told: RegistryEvent) {
        self.now = now;
        match told {
            RegistryEvent::Reply { id, outcome } => match self.calls.take(id) {
                None => return,
                Some(Asked::Base) => self.based(outcome),
                Some(Asked::Player { name, serial, pair }) => self.answered(&name, serial, pair, outcome),
                Some(Asked::Roster { room, serial }) => self.roster_answered(&room, serial, outcome),
            },
            RegistryEvent::Watched(watched) => self.watched(&watched),
            RegistryEvent::Connected { .. } => {}
        }
        self.drive();
    }

    /// The time of something may have come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        if self.base.retry.is_some_and(|at| at <= now.instant) {
            self.rebase();
        }
        for _ in 0..STEP {
            let Some((at, name)) = self.retries.first().cloned() else { break };
            if at > now.instant {
                break;
            }
            self.stop_waiting(&name);
            self.look_at(&name);
        }
        self.write_absences();
        self.drive();
    }

    // Outputs.

    /// What is to be asked of the registry.
    #[must_use]
    pub fn poll_call(&mut self) -> Option<RegistryCommand> {
        self.calls.poll()
    }

    /// What was decided.
    #[must_use]
    pub fn poll_decision(&mut self) -> Option<DeskDecision> {
        self.decisions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.calls.is_queued() || !self.decisions.is_empty() {
            return Some(Deadline::new(self.now.instant, "output is queued"));
        }
        if !self.line.is_empty() && self.has_place() {
            return Some(Deadline::new(self.now.instant, "players are to be looked at"));
        }
        let base = self.base.retry.map(|at| Deadline::new(at, "the watch of tickets is begun anew"));
        let retry =
            self.retries.first().map(|(at, _)| Deadline::new(*at, "a player's request is made again"));
        [retry, self.next_absence(), self.rosters.next()].into_iter().fold(base, Deadline::earliest)
    }

    // Players.

    fn answered(
        &mut self,
        name: &Name,
        serial: u64,
        pair: Option<String>,
        outcome: Result<Response, Failure>,
    ) {
        let Some(player) = self.players.get_mut(name).filter(|player| player.asked == Some(serial)) else {
            return;
        };
        player.asked = None;
        let (puts, fences) = (core::mem::take(&mut player.puts), core::mem::take(&mut player.fences));
        let (revision, succeeded, answers) = match outcome {
            Ok(Response { revision, answer: Answer::Txn { succeeded, answers } }) => {
                (revision, succeeded, answers)
            }
            outcome => {
                if puts && self.planted.is(Plant::UnknownIsFailure) && outcome == Err(Failure::Unknown) {
                    let refused = player.tell(self.now.wall, TicketState::Refused, "it was not written");
                    player.wish = Wish::Nothing;
                    self.decisions.push_back(refused);
                    return self.wait(name);
                }
                player.doubt |= puts && outcome != Err(Failure::Unavailable);
                return self.failed(name);
            }
        };
        player.doubt &= !fences;
        let news = revision >= self.base.revision && player.read(revision, &answers, pair);
        if succeeded {
            player.failures = 0;
        } else if news {
            // It was not as it was known to be: it is now.
            player.failures = player.failures.saturating_add(1);
        }
        if succeeded || (news && player.failures <= 1) {
            return self.look_at(name);
        }
        self.wait(name);
    }

    /// A request came to nothing, or nobody knows. It is the same again that is asked after
    /// a while, unless the watch tells better.
    fn failed(&mut self, name: &Name) {
        self.stats.failed += 1;
        let Some(player) = self.players.get_mut(name) else { return };
        player.failures = player.failures.saturating_add(1);
        if player.takes_back() {
            player.view = None;
        }
        if player.is_waiting() && player.told != Heard::Unavailable {
            player.told = Heard::Unavailable;
            let reason = "the registry does not answer";
            let decision = player.tell(self.now.wall, TicketState::Unavailable, reason);
            self.decisions.push_back(decision);
        }
        self.wait(name);
    }

    /// The player's entry, if it is of this session; made if there is none and there is
    /// place.
    fn enter(&mut self, name: &Name, epoch: u64) -> Option<&mut Player> {
        if !self.players.contains_key(name) {
            if self.players.len() >= self.config.players {
                return None;
            }
            self.players.insert(name.clone(), Box::new(Player::new(name.clone(), epoch)));
        }
        let player = self.players.get_mut(name)?;
        if player.epoch > epoch {
            return None;
        }
        if player.epoch < epoch || player.parting {
            player.succeed(epoch);
        }
        Some(player)
    }

    fn forget(&mut self, name: &Name) {
        self.stop_waiting(name);
        self.end_absence(name);
        if let Some(turn) = self.players.remove(name).and_then(|player| player.turn) {
            self.line.remove(&turn);
        }
    }

    fn refuse(&mut self, player: &Name, queue: &v1::Queue, refused: &Refused) {
        let state = TicketState::Refused.into();
        let (mode, reason, search) = (queue.mode.clone(), refused.to_string(), queue.search);
        let queued = v1::Queued { state, mode, reason, search, ..v1::Queued::default() };
        self.decisions.push_back(DeskDecision::Ticket { player: player.clone(), queued });
    }

    /// Puts a player in line, unless it waits for something.
    fn look_at(&mut self, name: &Name) {
        let Some(player) = self.players.get_mut(name) else { return };
        if player.turn.is_none() && player.asked.is_none() && player.retry.is_none() {
            self.turn += 1;
            player.turn = Some(self.turn);
            self.line.insert(self.turn, name.clone());
        }
    }

    fn wait(&mut self, name: &Name) {
        let Some(player) = self.players.get_mut(name) else { return };
        if player.retry.is_none() {
            let at = self.now.instant + self.backoff.after(player.failures, &mut self.rng);
            player.retry = Some(at);
            self.retries.insert((at, name.clone()));
        }
    }

    fn stop_waiting(&mut self, name: &Name) {
        let Some(player) = self.players.get_mut(name) else { return };
        if let Some(at) = player.retry.take() {
            self.retries.remove(&(at, name.clone()));
        }
    }

    /// One request is kept free for the watch.
    fn has_place(&self) -> bool {
        self.calls.len() + 1 < self.config.calls
    }

    /// Looks at players in their turn, as many as a step may.
    fn drive(&mut self) {
        self.ask_for_rosters();
        for _ in 0..STEP {
            if !self.has_place() {
                return;
            }
            let Some((_, name)) = self.line.pop_first() else { return };
            self.attend(&name);
        }
    }

    fn attend(&mut self, name: &Name) {
        let context =
            Context { wall: self.now.wall, node: self.node, lease: self.lease, planted: self.planted };
        loop {
            let Some(player) = self.players.get_mut(name) else { return };
            player.turn = None;
            if player.asked.is_some() || player.retry.is_some() {
                return;
            }
            match player.next(context) {
                NextAction::Rest => return,
                NextAction::Tell(decision) => {
                    self.decisions.push_back(decision);
                }
                NextAction::Ask(txn, pair) => {
                    self.asked += 1;
                    self.stats.asked += 1;
                    player.asked = Some(self.asked);
                    let asked = Asked::Player { name: name.clone(), serial: self.asked, pair };
                    return self.calls.send(Request::Txn(txn), asked);
                }
                NextAction::Wait => {
                    player.failures = player.failures.saturating_add(1);
                    player.view = None;
                    return self.wait(name);
                }
                NextAction::Forget => return self.forget(name),
            }
        }
    }
}
