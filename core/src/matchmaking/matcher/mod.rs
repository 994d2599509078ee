//! Who forms matches, and how: one node at a time for each mode (rows K1, K2; G8).
//!
//! A node's matcher campaigns for every mode. While it is the one that forms the matches of
//! a mode it knows the mode's tickets by a listing and a watch, gives them to the pairing
//! [`Engine`](super::Engine), and writes what that finds. Every transaction compares the
//! key by which it was elected, so whoever was deposed, and does not know yet, writes
//! nothing; and every ticket, so whatever it did not know yet makes the transaction fail as
//! a whole.
//!
//! # Parties
//!
//! * The tickets of equal mode, party, `party_size` and `party_key` are a party. It is complete when
//!   there are `party_size` of them; of more, those count that queued first.
//! * It waits since the first of its players does, and times out when that one would. A
//!   ticket of an incomplete party times out alone.
//! * If a ticket of a party is gone, taken back or timed out, and the party is not complete
//!   without it, the player has [`MatchmakingConfig::party_grace`] to queue again, as it
//!   does by itself when it moves to another node. Then the party is lost: its other
//!   tickets end as `PARTY_LOST`. What a matcher knows of lost players ends with it; the
//!   next one lets an incomplete party wait until its tickets time out.
//! * While a player of a party is absent, which is whose connection is lost, the party is not
//!   complete and waits. See below.
//! * To others a party has the mean of its players' ratings, their worst latency in each
//!   region that is open to all of them, the attributes that all have alike, and the
//!   conditions of all. If it cannot be matched like that, say since its players have no
//!   region in common, its tickets end as `REFUSED`.
//!
//! # Absent players
//!
//! The node that has a player's session writes into the player's ticket since when the player
//! has no connection, once that lasts for [`MatchmakingConfig::absence_delay`]; and takes that
//! back when there is one again. In between the ticket keeps its place and its waiting time,
//! and is in no match: the transaction of a match that has begun to form compares it. If the
//! player stays absent for [`MatchmakingConfig::absence_grace`] from the loss on, its ticket
//! ends as `TIMED_OUT`, and a party of it is treated as one that a player has left.
//!
//! # More tickets than places
//!
//! A matcher knows [`MatchmakingConfig::tickets`] players of a mode at most, a party counted
//! with all its players, be they queued or not. They are those whose tickets came to the
//! registry first, whatever the clocks say, and their parties.
//!
//! * A listing gives places to all who came before the first that finds none, and to nobody
//!   who came later, so that a party may leave free what is not enough for it. Until the next
//!   listing nobody gets a place but the rest of a party that has some.
//! * While tickets have no place, the next listing begins as soon as half of the places are
//!   free, and after five seconds if any are.
//!
//! So each time a ticket is listed and finds no place, fewer have one before it: those who have
//! a place all came before it, and until the next listing half of them leave, or five seconds
//! pass. Who has `n` players before it when it comes has a place after at most
//! `n / (tickets / 2 - team_size + 1) + 2` listings, if those who have places find matches, and
//! nobody who comes later makes it wait for longer. What is promised of matches
//! ([`Engine`](super::Engine)) is promised among those who have places. If so many of them find
//! nobody that hardly any leave, the others wait until these time out.
//!
//! # The end of matches
//!
//! From time to time the matcher looks at all matches of its mode. One whose players have
//! all left is deleted. One whose room nobody has claimed within
//! [`MatchmakingConfig::join_window`], or nobody has any more, is ended: its notices and its
//! room go with it.
//!
//! # Players who do not come
//!
//! Who has not joined the match's room within [`MatchmakingConfig::join_window`] of being put
//! into the match is put out of it when the matcher looks at the match next, and so later by
//! [`MatchmakingConfig::sweep_interval`] at most: the notice is deleted, and the match and the
//! notices of the others are written anew, so that these are told. The place is free then, for
//! queues that fill it. Without that the match begins when all of its players have come; if some
//! do not, or have left before, it goes on if two teams have anybody yet (one, of a queue with one
//! team), and is over otherwise. A match that is over so stays in the registry until all who are
//! left in it were told, for another `join_window` at most.
//!
//! # Free places
//!
//! Where the queue wants it ([`QueueConfig::backfill`](super::QueueConfig)), the janitor
//! offers the places of players who have left a match that goes on. They are filled before
//! new matches are formed, by the same rules; conditions of everybody who ever was in the
//! match hold, and the mean rating is that of when it was formed.

mod book;
mod consuming;
mod filling;
mod forming;
mod keeper;
mod missing;
mod replies;
mod sweep;
mod task;
#[cfg(test)]
mod tests;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use skirmish_proto::v1::TicketState;

use self::keeper::Keeper;
use super::explain::Why;
use super::keys;
use super::settings::MatchmakingConfig;
use crate::base::id::{Name, NodeId};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::registry::{Compare, LeaseId, RegistryCommand, RegistryEvent};

/// Forms matches, while it is elected. See the [module](self).
#[derive(Debug)]
pub struct Matcher {
    keepers: Vec<Keeper>,
}

/// What a matcher has decided; for logs, since the registry has it already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatcherDecision {
    /// This node forms the matches of a mode from now on.
    Elected {
        /// The mode.
        mode: Name,
        /// The revision at which it was elected.
        epoch: u64,
    },
    /// It does not any more.
    Deposed {
        /// The mode.
        mode: Name,
    },
    /// A match is formed.
    Formed {
        /// Its name.
        id: String,
        /// The mode.
        mode: Name,
        /// Its players, by team.
        teams: Vec<Vec<Name>>,
        /// Per mille.
        quality: u16,
        /// What let it form.
        explanation: String,
    },
    /// Free places of a match that goes on are filled.
    Filled {
        /// Its name.
        id: String,
        /// The mode.
        mode: Name,
        /// The team.
        team: u8,
        /// Who comes.
        players: Vec<Name>,
        /// What let them.
        explanation: String,
    },
    /// A ticket has ended without a match.
    TicketEnded {
        /// Whose.
        player: Name,
        /// The mode.
        mode: Name,
        /// How.
        state: TicketState,
    },
    /// Players are out of a match since they did not come.
    Missed {
        /// The match's name.
        id: String,
        /// The mode.
        mode: Name,
        /// Who did not come.
        players: Vec<Name>,
        /// Too few came: the match is over before it has begun.
        over: bool,
    },
    /// A match is over.
    MatchEnded {
        /// Its name.
        id: String,
        /// Whether it was since nobody had its room; else all players had left it.
        abandoned: bool,
    },
}

/// Why a player has no match yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its party is not complete.
    Gathers {
        /// Players of the party who have queued.
        here: usize,
        /// Players of the party.
        of: usize,
    },
    /// This player, or one of its party, is absent: it has no connection.
    Absent {
        /// Who is absent.
        player: Name,
        /// For how long.
        away: Duration,
        /// How long the ticket of the absent player is kept yet.
        left: Duration,
    },
    /// It waits for others.
    Waits(Why),
    /// Its ticket is being decided in the registry.
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

/// Counts since the start, of all modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Modes that this node forms the matches of.
    pub elected: usize,
    /// Elections won.
    pub elections: u64,
    /// Tickets known.
    pub tickets: usize,
    /// Requests under way.
    pub under_way: usize,
    /// Matches formed.
    pub formed: u64,
    /// Tickets put into matches that went on.
    pub filled: u64,
    /// Matches, and tickets for free places, that were refused since something had changed.
    pub refused: u64,
    /// Tickets ended.
    pub ended: u64,
    /// Matches ended or deleted.
    pub swept: u64,
    /// Players put out of matches that they did not come to.
    pub missed: u64,
    /// Requests that came to nothing, or to nobody knows what.
    pub failed: u64,
    /// Listings of the queue.
    pub listings: u64,
}

/// What makes every write of a matcher void when it is not the matcher any more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fence {
    mode: Name,
    /// The revision at which it was elected.
    epoch: u64,
    lease: LeaseId,
    planted: Planted,
}

impl Fence {
    fn key(&self) -> Bytes {
        keys::matcher(&self.mode)
    }

    /// Every transaction of a matcher makes this comparison.
    fn guard(&self, compares: &mut Vec<Compare>) {
        if !self.planted.is(Plant::MatcherUnfenced) {
            compares.push(Compare::same_life(self.key(), self.epoch));
        }
    }
}

impl Matcher {
    /// A matcher of `node`. Its requests and watches have the identifiers `first_call +
    /// n * call_step`.
    #[must_use]
    pub fn new(
        config: &MatchmakingConfig,
        node: NodeId,
        seed: Seed,
        first_call: u64,
        call_step: u64,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let count = config.queues.len() as u64;
        let ids = |index: u64| (first_call + index * call_step, call_step * count.max(1));
        let keeper = |(queue, index)| Keeper::new(config, queue, node, rng.split(), ids(index));
        let keepers = config.queues.iter().zip(0..).filter_map(keeper).collect();
        Self { keepers }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(crate) fn plant(&mut self, planted: Planted) {
        self.keepers.iter_mut().for_each(|keeper| keeper.planted = planted);
    }

    // Getters.

    /// What has happened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut all = Stats::default();
        for stats in self.keepers.iter().map(Keeper::stats) {
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

    /// The modes that this node forms the matches of.
    pub fn elected(&self) -> impl Iterator<Item = &Name> {
        self.keepers.iter().filter(|keeper| keeper.is_elected()).map(Keeper::mode)
    }

    /// Why a player has no match yet; `None` if this matcher knows no ticket of it that
    /// waits.
    #[must_use]
    pub fn explain(&self, now: Instant, player: &Name) -> Option<Standing> {
        self.keepers.iter().find_map(|keeper| keeper.explain(now, player))
    }

    /// Checks the bounds, and that the tables agree with each other.
    ///
    /// # Errors
    /// Says what is not as it must be.
    pub fn audit(&self) -> Result<(), &'static str> {
        self.keepers.iter().try_for_each(Keeper::audit)
    }

    // Commands.

    /// Begins, with [`Self::set_lease`]; before that it does nothing.
    pub fn start(&mut self, now: Now) {
        self.keepers.iter_mut().for_each(|keeper| keeper.handle_timeout(now));
    }

    /// The lease by which it is elected; `None` while the node holds none. Without it, or
    /// with another one, it stops at once.
    pub fn set_lease(&mut self, now: Now, lease: Option<LeaseId>) {
        self.keepers.iter_mut().for_each(|keeper| keeper.set_lease(now, lease));
    }

    // Inputs.

    /// The registry has answered, or tells something.
    pub fn handle_told(&mut self, now: Now, told: RegistryEvent) {
        let mut told = Some(told);
        for keeper in &mut self.keepers {
            told = told.and_then(|told| keeper.handle_told(now, told));
        }
    }

    /// The time of something may have come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.keepers.iter_mut().for_each(|keeper| keeper.handle_timeout(now));
    }

    // Outputs.

    /// What is to be asked of the registry.
    #[must_use]
    pub fn poll_call(&mut self) -> Option<RegistryCommand> {
        self.keepers.iter_mut().find_map(Keeper::poll_call)
    }

    /// What was decided.
    #[must_use]
    pub fn poll_decision(&mut self) -> Option<MatcherDecision> {
        self.keepers.iter_mut().find_map(Keeper::poll_decision)
    }

    /// When to call [`Self::handle_timeout`], and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.keepers.iter().map(Keeper::poll_timeout).fold(None, Deadline::earliest)
    }
}
