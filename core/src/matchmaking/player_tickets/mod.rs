//! The tickets and notices of a node's own players (rows K1, K2).
//!
//! For each player, [`PlayerTickets`] knows the state in the registry (session, ticket, notice) and
//! the wish of the player. One transaction at a time removes a difference between the two. The transaction
//! compares the known state, and answers with the state after it. So a transaction with unknown
//! outcome is sent again, and nothing is guessed. One watch reports the changes that others
//! make to tickets and notices.
//!
//! # Rules
//!
//! * A ticket is written only while the session's key is as this session left it, while there is no
//!   notice, and over no ticket but the known one.
//! * The newest `Queue` counts. An equal one changes nothing; a different one replaces the ticket
//!   and waits from its own start. A `Cancel` removes the ticket of its search and no other.
//! * A ticket that was deleted with its lease is queued again and keeps its waiting time, once the
//!   player has confirmed that the search is still wanted. The session's record was deleted too: in
//!   the meantime the player may have been at another node and learnt the end of the search there,
//!   without a trace in the registry. The player confirms by answering a message that this node has
//!   sent since it registered the session again. Such a player is at this node and has learnt of no
//!   end. At any other node the session no longer counts as present.
//! * So is the ticket that another node has left, once it is gone, unless the player has asked for the
//!   search at this node: the session may have been claimed for a connection that is gone since, and
//!   the player may have gone on at the other node.
//! * The end of a ticket is sent to the player before the ticket is deleted, and a match is sent
//!   until the player leaves it. So a player that was away learns of both.
//!
//! # Absence
//!
//! A ticket contains the start of its player's absence, so that the matcher leaves the ticket
//! alone. The absence is written [`MatchmakingConfig::absence_delay`] after the loss of the
//! connection, or together with another change of the ticket. So a player that returns at once
//! costs no write, and a player that returns later costs two. The end of an absent player's ticket
//! stays in the registry until the player returns, at any node, and is notified, or until the
//! session ends.
//!
//! # Searches that have ended
//!
//! Messages cross: when the end of a search is sent, the player may already have sent its `Queue`
//! or `Cancel` again at the start of its connection. So while a session is here, the last end
//! that was sent to the player is kept, with the number of the search. One end suffices: a
//! client has one search at a time, and its frames keep their order. A request for that search is
//! answered with the same end and starts no search. When another session of the player arrives, or
//! the session returns from another node, the end is dropped. There the search may have started
//! again, so only the state in the registry counts.
//!
//! While the player is in a match, the match is the answer to every search. The match is sent until
//! the player is out of it: see `quit`.

mod absence;
mod confirmation;
mod late_matches;
mod line;
mod places;
mod player;
mod quit;
mod replaced_registry;
mod request;
mod view;
mod watch;
mod wish;

use alloc::boxed::Box;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use self::places::Rosters;
use self::player::{LastMessage, Player};
use self::quit::unavailable;
use self::request::{has_reads, has_state};
use self::watch::Base;
use self::wish::Wish;
use super::record::{Refused, check, seal_party};
use super::settings::MatchmakingConfig;
use crate::base::backoff::Spread;
use crate::base::bug::{Bug, Bugs};
use crate::base::id::{Name, NodeId};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Instant, Now};
use crate::registry::{
    Answer, CallNumbers, Calls, Failure, LeaseId, RegistryCommand, RegistryEvent, Response,
};

/// Maximum number of players that one step attends to.
const STEP: usize = 256;

/// The tickets of a node's players. See the [module](self).
#[derive(Debug)]
pub struct PlayerTickets {
    config: MatchmakingConfig,
    node: NodeId,
    now: Now,
    lease: Option<LeaseId>,
    /// Boxed, since the table has unused places.
    players: BTreeMap<Name, Box<Player>>,
    /// Players to attend to, in order.
    line: BTreeMap<u64, Name>,
    line_number: u64,
    retries: BTreeSet<(Instant, Name)>,
    /// Absences to be written, with their times.
    absences: BTreeSet<(Instant, Name)>,
    /// Players of the matches whose rooms have this node as primary.
    rosters: Rosters,
    calls: Calls<Asked>,
    rng: Rng,
    /// Wait before a failed request is repeated.
    backoff: Spread,
    asked: u64,
    base: Base,
    decisions: VecDeque<PlayerTicketsDecision>,
    stats: Stats,
    planted: Planted,
    bugs: Bugs,
}

/// A decision about the tickets of this node's players.
#[derive(Clone, Debug, PartialEq)]
pub enum PlayerTicketsDecision {
    /// Notifies the player of its ticket.
    Ticket {
        /// The player.
        player: Name,
        /// The state of the ticket.
        queued: v1::Queued,
    },
    /// Notifies the player of its match.
    Matched {
        /// The player.
        player: Name,
        /// The match.
        matched: v1::Matched,
    },
    /// Notifies the player that it has left a room: the registry confirms that the player is no
    /// longer in the room's match.
    Left {
        /// The player.
        player: Name,
        /// The room.
        room: Name,
        /// Number of the client's newest request to leave the room.
        request: u64,
        /// True if the session was a member, or the player was in the match.
        was_in: bool,
    },
    /// The players are known for which a room keeps places. This node is the primary of the room.
    PlacesKnown {
        /// The room.
        room: Name,
    },
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Players whose sessions are here.
    pub players: usize,
    /// Open requests.
    pub under_way: usize,
    /// Requests sent for players.
    pub asked: u64,
    /// Requests that failed, or have an unknown outcome.
    pub failed: u64,
    /// Restarts of the watch.
    pub rebased: u64,
}

#[derive(Debug)]
enum Asked {
    /// Reads the revision from which to watch.
    Base,
    Player {
        name: Name,
        serial: u64,
        match_id: Option<String>,
    },
    /// Reads the match of a room, or this number of notices.
    Roster {
        room: Name,
        serial: u64,
        reads: usize,
    },
}

impl PlayerTickets {
    /// Returns the tickets of the players of `node`. Their requests and watches have these numbers.
    #[must_use]
    pub fn new(config: MatchmakingConfig, node: NodeId, seed: Seed, numbers: CallNumbers) -> Self {
        let backoff = Spread::new(config.backoff_min, config.backoff_max);
        Self {
            config,
            node,
            now: Now::default(),
            lease: None,
            players: BTreeMap::new(),
            line: BTreeMap::new(),
            line_number: 0,
            retries: BTreeSet::new(),
            absences: BTreeSet::new(),
            rosters: Rosters::default(),
            calls: Calls::new(numbers),
            rng: Rng::new(seed),
            backoff,
            asked: 0,
            base: Base::default(),
            decisions: VecDeque::new(),
            stats: Stats::default(),
            planted: Planted::default(),
            bugs: Bugs::new(),
        }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.bugs.plant(planted);
    }

    // Getters.

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { players: self.players.len(), under_way: self.calls.len(), ..self.stats }
    }

    /// Checks the bounds, and that the tables agree with each other.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, error: &'static str| if holds { Ok(()) } else { Err(error) };
        check(self.players.len() <= self.config.players, "too many players have tickets")?;
        check(self.calls.len() <= self.config.calls, "too many requests for players are under way")?;
        let retrying = self.players.values().filter(|player| player.retry.is_some()).count();
        check(self.retries.len() == retrying, "the retries of tickets differ from the players")?;
        let absences = self.players.values().filter(|player| player.is_absence_awaited()).count();
        check(self.absences.len() == absences, "the absences differ from the players")?;
        let in_line = self.players.values().filter(|player| player.line_number.is_some()).count();
        check(self.line.len() == in_line, "the line of players differs from the players")?;
        let quits = self.players.values().all(|player| player.quits.len() <= quit::MOST);
        check(quits, "too many quits of a player wait")?;
        self.rosters.audit()
    }

    // Commands.

    /// Starts the watch.
    pub fn start(&mut self, now: Now) {
        self.now = now;
        self.rebase();
    }

    /// Sets the lease of the tickets; `None` while the node holds none.
    pub fn set_lease(&mut self, now: Now, lease: Option<LeaseId>) {
        self.now = now;
        if self.lease == lease {
            return;
        }
        self.lease = lease;
        let waiting: Vec<Name> =
            self.players.values().filter(|player| player.is_waiting()).map(|p| p.name.clone()).collect();
        waiting.iter().for_each(|name| self.put_in_line(name));
        self.drive();
    }

    /// Starts a search for the player. Decisions report its progress.
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
        if !entry.replace_cancel() {
            return self.refuse(player, &queue, &Refused::TooManyQuits);
        }
        let same = matches!(&entry.wish, Wish::Queue { queue: wished, .. } if **wished == queue);
        if !same {
            entry.wish = Wish::Queue { queue: Box::new(queue), queued_ms: now.wall.0 };
        }
        entry.is_unasked = false;
        let stands = match entry.last_message {
            LastMessage::Ended(_) => true,
            // `Lost` may have crossed this `Queue`, and will be answered.
            LastMessage::Lost(_) => same,
            _ => false,
        };
        if !stands {
            entry.last_message = LastMessage::Nothing;
        }
        self.put_in_line(player);
        self.drive();
    }

    /// Cancels the player's search of this number, and gives up a match that has answered the
    /// search; 0 means any search. A decision reports the outcome.
    pub fn cancel(&mut self, now: Now, player: &Name, search: u64) {
        self.now = now;
        let entry = self.players.get_mut(player).filter(|entry| !entry.parting);
        let said = match entry {
            Some(entry) => entry.cancel(search),
            None => Some(unavailable(search, &Refused::Full)),
        };
        if let Some(queued) = said {
            return self
                .decisions
                .push_back(PlayerTicketsDecision::Ticket { player: player.clone(), queued });
        }
        self.put_in_line(player);
        self.drive();
    }

    /// Notes that the player's session is here, or has a connection again. A decision reports the
    /// ticket or match of the player. `session_epoch` is the epoch with which the session is
    /// registered now. Players beyond [`MatchmakingConfig::players`] are ignored.
    pub fn arrive(&mut self, now: Now, player: &Name, session_epoch: u64) {
        self.come(now, player, session_epoch, None);
    }

    /// Notes that the player's session has ended here, which takes the player out of the match
    /// whose room it has joined. `moved`: another session, here or elsewhere, keeps the ticket and
    /// the match.
    pub fn depart(&mut self, now: Now, player: &Name, moved: bool) {
        self.now = now;
        // A player beyond the maximum is not known.
        let Some(entry) = self.players.get_mut(player) else { return };
        if moved && entry.quits.is_empty() {
            return self.forget(player);
        }
        (entry.parting, entry.moved) = (true, moved);
        entry.wish = Wish::Nothing;
        if !moved {
            entry.quit_joined();
        }
        if entry.failures > 0 {
            // A ticket may have been written.
            entry.view = None;
        }
        self.end_absence(player);
        self.put_in_line(player);
        self.drive();
    }

    // Inputs.

    /// Handles an answer or a report of the registry. Those for a request or a watch that was given
    /// up are ignored.
    pub fn handle_event(&mut self, now: Now, event: RegistryEvent) {
        self.now = now;
        match event {
            RegistryEvent::Reply { id, outcome } => match self.calls.take(id) {
                None => return,
                Some(Asked::Base) => self.based(outcome),
                Some(Asked::Player { name, serial, match_id }) => {
                    self.answered(&name, serial, match_id, outcome)
                }
                Some(Asked::Roster { room, serial, reads }) => {
                    let answered = outcome.ok().filter(|response| has_reads(&response.answer, reads));
                    self.roster_answered(&room, serial, answered);
                }
            },
            RegistryEvent::Watched(watched) => self.watched(&watched),
            RegistryEvent::Connected { .. } => {}
        }
        self.drive();
    }

    /// Handles the deadlines that are due.
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
            self.put_in_line(&name);
        }
        self.write_absences();
        self.drive();
    }

    // Outputs.

    /// Returns the next command for the registry.
    #[must_use]
    pub fn poll_call(&mut self) -> Option<RegistryCommand> {
        self.calls.poll()
    }

    /// Returns the next decision.
    #[must_use]
    pub fn poll_decision(&mut self) -> Option<PlayerTicketsDecision> {
        self.decisions.pop_front()
    }

    /// Finds an invariant broken, as in production.
    #[cfg(test)]
    pub(crate) fn find_bug(&mut self, what: &'static str) {
        self.bugs = Bugs::lenient();
        self.bugs.found(what);
    }

    /// Returns the next broken invariant, one for each place.
    pub(crate) fn poll_bug(&mut self) -> Option<Bug> {
        self.bugs.poll()
    }

    /// Returns the number of times that an invariant was found broken.
    pub(crate) const fn bugs_found(&self) -> u64 {
        self.bugs.count()
    }

    /// Returns the time at which to call [`Self::handle_timeout`], and the reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.calls.is_queued() || !self.decisions.is_empty() || self.bugs.has_news() {
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
        match_id: Option<String>,
        outcome: Result<Response, Failure>,
    ) {
        // The player may have left meanwhile.
        let Some(player) = self.players.get_mut(name).filter(|player| player.asked == Some(serial)) else {
            return;
        };
        player.asked = None;
        let (puts, fences) = (core::mem::take(&mut player.puts), core::mem::take(&mut player.fences));
        let (revision, succeeded, answers) = match outcome {
            Ok(Response { revision, answer: Answer::Txn { succeeded, answers } })
                if has_state(&answers, match_id.is_some()) =>
            {
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
        let news = revision >= self.base.revision && player.read(revision, &answers, match_id);
        if succeeded {
            player.failures = 0;
        } else if news {
            // The view was outdated; the answer has replaced it.
            player.failures = player.failures.saturating_add(1);
        }
        if succeeded || (news && player.failures <= 1) {
            return self.put_in_line(name);
        }
        self.wait(name);
    }

    /// Handles a request that failed or has an unknown outcome. The same request is sent again
    /// after a wait, unless the watch reports a change.
    fn failed(&mut self, name: &Name) {
        self.stats.failed += 1;
        let Some(player) = self.players.get_mut(name) else {
            return self.bugs.found("a player vanished while its answer was handled");
        };
        player.failures = player.failures.saturating_add(1);
        if player.takes_back() {
            player.view = None;
        }
        if player.is_waiting() && player.last_message != LastMessage::Unavailable {
            player.last_message = LastMessage::Unavailable;
            let reason = "the registry does not answer";
            let decision = player.tell(self.now.wall, TicketState::Unavailable, reason);
            self.decisions.push_back(decision);
        }
        self.wait(name);
    }

    /// Returns the player's entry for this session; makes it if there is none and a place is
    /// free. Returns `None` without a place, and if a newer session of the player is here.
    fn enter(&mut self, name: &Name, epoch: u64) -> Option<&mut Player> {
        let is_full = self.players.len() >= self.config.players;
        let player = match self.players.entry(name.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(place) => place.insert(Box::new(Player::new(name.clone(), epoch))),
        };
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
        if let Some(number) = self.players.remove(name).and_then(|player| player.line_number) {
            self.line.remove(&number);
        }
        // The place is free for a player that waits for one.
        if let Some((player, room)) = self.rosters.take_expired() {
            self.expire(&player, &room);
        }
    }

    fn refuse(&mut self, player: &Name, queue: &v1::Queue, refused: &Refused) {
        let state = TicketState::Refused.into();
        let (mode, reason, search) = (queue.mode.clone(), refused.to_string(), queue.search);
        let queued = v1::Queued { state, mode, reason, search, ..v1::Queued::default() };
        self.decisions.push_back(PlayerTicketsDecision::Ticket { player: player.clone(), queued });
    }
}
