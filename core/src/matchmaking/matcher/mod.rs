//! The matcher of each mode: the one node that forms the mode's matches (rows K1, K2; G8).
//!
//! A node's matcher campaigns for every mode. While elected, the matcher knows the mode's tickets
//! by a listing and a watch, passes them to the matching [`Engine`](super::Engine), and writes the
//! matches that the engine finds. Every transaction compares the key by which the matcher was
//! elected, so a deposed matcher that does not know of its deposition writes nothing. Every
//! transaction also compares the tickets, so a change that the matcher has not seen yet makes the
//! transaction fail as a whole.
//!
//! # Parties
//!
//! * Tickets with equal mode, party, `party_size` and `party_key` form a party. The party is
//!   complete when it has `party_size` tickets; of more tickets, the first to queue count.
//! * A party waits since its first player does, and times out when that player would. A ticket of
//!   an incomplete party times out alone.
//! * A ticket of a party may be deleted, cancelled or timed out, so that the party is incomplete.
//!   Then the player has [`MatchmakingConfig::party_grace`] to queue again, as a player that moves
//!   to another node does automatically. After that time the party is lost: its other tickets end
//!   as `PARTY_LOST`. Only this matcher knows of missing players; its successor lets an incomplete
//!   party wait until the tickets time out.
//! * While a player of a party is absent, which means without a connection, the party is not
//!   complete and waits. See below.
//! * For other tickets, a party has the mean of its players' ratings, their highest latency in each
//!   region that is open to all of them, the attributes that all of them share, and the conditions
//!   of all of them. If no ticket can be made of the players, for example since they have no region
//!   in common, their tickets end as `REFUSED`.
//!
//! # Absent players
//!
//! The node with a player's session writes the start of an absence into the player's ticket, once
//! the player has been without a connection for [`MatchmakingConfig::absence_delay`]. When the
//! player has a connection again, the node removes the mark. In between, the ticket keeps its place
//! and its waiting time, and is in no match; the transaction of a match that was forming compares
//! the ticket and fails. If the player is absent for [`MatchmakingConfig::absence_grace`] from the
//! loss of the connection, its ticket ends as `TIMED_OUT`. Its party is treated like one that a
//! player has left.
//!
//! # More tickets than places
//!
//! A matcher knows [`MatchmakingConfig::tickets`] players of a mode at most. A party counts with
//! all its players, including those without tickets. The known players are those of the tickets
//! that were created first in the registry, regardless of the clocks, and their parties.
//!
//! * A listing gives places to all tickets that were created before the first one without a place,
//!   and to no later ticket. So places may stay free if they are too few for a party. Until the
//!   next listing, only the rest of a party that already has places gets more places.
//! * While tickets have no place, the next listing begins as soon as half of the places are free,
//!   and after five seconds if any place is free.
//!
//! So at each listing that leaves a ticket without a place, fewer tickets are ahead of that ticket.
//! All tickets with places are ahead of it, and before the next listing half of them leave, or five
//! seconds pass. A ticket with `n` players ahead of it has a place after at most
//! `n / (tickets / 2 - team_size + 1) + 2` listings, if the players with places find matches. No
//! later ticket makes it wait for longer. The guarantees of matches ([`Engine`](super::Engine)) hold among the tickets
//! with places. If so many of those find no match that hardly any leave, the other tickets wait
//! until these time out.
//!
//! # The end of matches
//!
//! At intervals the matcher sweeps all matches of its mode. A match that all its players have left
//! is deleted. A match is abandoned if its room has no primary after
//! [`MatchmakingConfig::join_window`], or if none of its players has joined in time. The match is
//! deleted then, together with its notices and with a room that has no primary.
//!
//! # Late players
//!
//! A player must join the match's room within [`MatchmakingConfig::join_window`] of being added to
//! the match. The first sweep after that time, at most [`MatchmakingConfig::sweep_interval`] later,
//! removes late players from the match: their notices are deleted, and the match and the notices of
//! the other players are written again, so that these players are notified. In a queue that fills
//! free places, the place is then free. In other queues, the match begins when all of its players
//! have joined. If some do not join, or have left before, the match goes on if two teams have
//! players (one team, in a queue with one team), and is over otherwise. Such a match stays in the
//! registry until all remaining players were notified, for another `join_window` at most.
//!
//! # Free places
//!
//! If [`QueueConfig::backfill`](super::QueueConfig) is set, the sweep offers the places of players
//! that have left a running match. Offers are filled before new matches are formed, by the same
//! rules. The conditions of all players hold, also of those that have left, and the mean rating is
//! that at the time of forming.

mod attendance;
mod backfill;
mod consuming;
mod forming;
mod mode_matcher;
mod replies;
mod sweep;
mod task;
#[cfg(test)]
mod tests;
mod waiting_tickets;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use skirmish_proto::v1::TicketState;

use self::mode_matcher::ModeMatcher;
use super::explain::Why;
use super::keys;
use super::settings::MatchmakingConfig;
use crate::base::bug::Bug;
use crate::base::id::{Name, NodeId};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::registry::{CallNumbers, Compare, LeaseId, RegistryCommand, RegistryEvent};

/// Forms matches, while elected. See the [module](self).
#[derive(Debug)]
pub struct Matcher {
    modes: Vec<ModeMatcher>,
}

/// A decision of a matcher, for logs: the registry contains it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatcherDecision {
    /// This node is now the matcher of a mode.
    Elected {
        /// The mode.
        mode: Name,
        /// Revision of the election.
        epoch: u64,
    },
    /// This node is no longer the matcher of a mode.
    Deposed {
        /// The mode.
        mode: Name,
    },
    /// A match was formed.
    Formed {
        /// Name of the match.
        id: String,
        /// The mode.
        mode: Name,
        /// Players of the match, by team.
        teams: Vec<Vec<Name>>,
        /// Quality, per mille.
        quality: u16,
        /// Rules that permitted the match.
        explanation: String,
    },
    /// Free places of a running match were filled.
    Filled {
        /// Name of the match.
        id: String,
        /// The mode.
        mode: Name,
        /// The team.
        team: u8,
        /// Added players.
        players: Vec<Name>,
        /// Rules that permitted the match.
        explanation: String,
    },
    /// A ticket has ended without a match.
    TicketEnded {
        /// Player of the ticket.
        player: Name,
        /// The mode.
        mode: Name,
        /// Final state of the ticket.
        state: TicketState,
    },
    /// Players were removed from a match since they did not join in time.
    Missed {
        /// Name of the match.
        id: String,
        /// The mode.
        mode: Name,
        /// Players that did not join.
        players: Vec<Name>,
        /// True if too few players joined: the match is over before it has begun.
        over: bool,
    },
    /// A match has ended.
    MatchEnded {
        /// Name of the match.
        id: String,
        /// True if the room had no primary, or no player had joined in time; false if all players
        /// had left, or were notified that the match was over.
        abandoned: bool,
    },
}

/// Reason for which a player has no match yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The player's party is not complete.
    Gathers {
        /// Number of players of the party that have queued.
        here: usize,
        /// Size of the party.
        of: usize,
    },
    /// This player, or another one of its party, has no connection.
    Absent {
        /// The absent player.
        player: Name,
        /// Time since the loss of the connection.
        away: Duration,
        /// Remaining time for which the absent player's ticket is kept.
        left: Duration,
    },
    /// The ticket waits for other tickets.
    Waits(Why),
    /// A transaction on the ticket is under way.
    Decides,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gathers { here, of } => write!(f, "{here} of the {of} players of its party have queued"),
            Self::Absent { player, away, left } => write!(
                f,
                "absent: {player} has no connection for {} s, is not matched until it has one again, and is timed out in {} s",
                away.as_secs(),
                left.as_secs()
            ),
            Self::Waits(why) => why.fmt(f),
            Self::Decides => f.write_str("a match of it is being written"),
        }
    }
}

/// Counters since the start, for all modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Modes for which this node is the matcher.
    pub elected: usize,
    /// Elections won.
    pub elections: u64,
    /// Known tickets.
    pub tickets: usize,
    /// Open requests.
    pub under_way: usize,
    /// Matches formed.
    pub formed: u64,
    /// Tickets added to running matches.
    pub filled: u64,
    /// Matches and fillings that were refused, since the registry had changed.
    pub refused: u64,
    /// Tickets ended.
    pub ended: u64,
    /// Matches that a sweep has ended or deleted.
    pub swept: u64,
    /// Players removed from matches that they did not join in time.
    pub missed: u64,
    /// Requests that failed, or have an unknown outcome.
    pub failed: u64,
    /// Listings of the queue.
    pub listings: u64,
}

/// Identity of an election. Every write of a matcher is void after its election has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fence {
    mode: Name,
    /// Revision of the election.
    epoch: u64,
    lease: LeaseId,
    planted: Planted,
}

impl Fence {
    fn key(&self) -> Bytes {
        keys::matcher(&self.mode)
    }

    /// Adds the comparison that every transaction of a matcher must make.
    fn guard(&self, compares: &mut Vec<Compare>) {
        if !self.planted.is(Plant::MatcherUnfenced) {
            compares.push(Compare::same_life(self.key(), self.epoch));
        }
    }
}

impl Matcher {
    /// Returns a matcher of `node`. Its requests and watches have these numbers. A queue that is not [valid](MatchmakingConfig::validate) has no
    /// matcher.
    #[must_use]
    pub fn new(config: &MatchmakingConfig, node: NodeId, seed: Seed, numbers: CallNumbers) -> Self {
        let mut rng = Rng::new(seed);
        let numbers = numbers.split(config.queues.len() as u64);
        let mode = |(queue, numbers)| ModeMatcher::new(config, queue, node, rng.split(), numbers);
        let modes = config.queues.iter().zip(numbers).filter_map(mode).collect();
        Self { modes }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.modes.iter_mut().for_each(|mode| mode.plant(planted));
    }

    // Getters.

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut all = Stats::default();
        for stats in self.modes.iter().map(ModeMatcher::stats) {
            all.elected += stats.elected;
            all.elections += stats.elections;
            all.tickets += stats.tickets;
            all.under_way += stats.under_way;
            all.formed += stats.formed;
            all.filled += stats.filled;
            all.refused += stats.refused;
            all.ended += stats.ended;
            all.swept += stats.swept;
            all.missed += stats.missed;
            all.failed += stats.failed;
            all.listings += stats.listings;
        }
        all
    }

    /// Returns the modes for which this node is the matcher.
    pub fn elected(&self) -> impl Iterator<Item = &Name> {
        self.modes.iter().filter(|mode| mode.is_elected()).map(ModeMatcher::mode)
    }

    /// Explains why a player has no match yet; `None` if this matcher knows no waiting ticket of
    /// the player.
    #[must_use]
    pub fn explain(&self, now: Instant, player: &Name) -> Option<Standing> {
        self.modes.iter().find_map(|mode| mode.explain(now, player))
    }

    /// Checks the bounds, and that the tables agree with each other.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn audit(&self) -> Result<(), &'static str> {
        self.modes.iter().try_for_each(ModeMatcher::audit)
    }

    // Commands.

    /// Starts the matcher, together with [`Self::set_lease`]. Nothing happens before both calls.
    pub fn start(&mut self, now: Now) {
        self.modes.iter_mut().for_each(|mode| mode.handle_timeout(now));
    }

    /// Sets the lease of elections; `None` while the node holds none. A change of the lease ends
    /// every election at once.
    pub fn set_lease(&mut self, now: Now, lease: Option<LeaseId>) {
        self.modes.iter_mut().for_each(|mode| mode.set_lease(now, lease));
    }

    // Inputs.

    /// Handles an answer or a report of the registry. Those for a request or a watch that was given
    /// up are ignored.
    pub fn handle_event(&mut self, now: Now, event: RegistryEvent) {
        let mut event = Some(event);
        for mode in &mut self.modes {
            event = event.and_then(|event| mode.handle_event(now, event));
        }
    }

    /// Handles the deadlines that are due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.modes.iter_mut().for_each(|mode| mode.handle_timeout(now));
    }

    // Outputs.

    /// Returns the next command for the registry.
    #[must_use]
    pub fn poll_call(&mut self) -> Option<RegistryCommand> {
        self.modes.iter_mut().find_map(ModeMatcher::poll_call)
    }

    /// Returns the next decision.
    #[must_use]
    pub fn poll_decision(&mut self) -> Option<MatcherDecision> {
        self.modes.iter_mut().find_map(ModeMatcher::poll_decision)
    }

    /// Finds an invariant broken in each mode and in each engine, as in production.
    #[cfg(test)]
    pub(crate) fn find_bugs(&mut self, what: &'static str) {
        self.modes.iter_mut().for_each(|mode| mode.find_bugs(what));
    }

    /// Returns the next broken invariant, one for each place in each mode.
    pub(crate) fn poll_bug(&mut self) -> Option<Bug> {
        self.modes.iter_mut().find_map(ModeMatcher::poll_bug)
    }

    /// Returns the number of times that an invariant was found broken.
    pub(crate) fn bugs_found(&self) -> u64 {
        self.modes.iter().map(ModeMatcher::bugs_found).sum()
    }

    /// Returns the time at which to call [`Self::handle_timeout`], and the reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.modes.iter().map(ModeMatcher::poll_timeout).fold(None, Deadline::earliest)
    }
}
