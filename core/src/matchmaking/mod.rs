//! Matchmaking (rows K1 and K2): which tickets play with each other, where, and in
//! which teams. One [`Engine`] serves one queue: one mode, one shape of match.
//!
//! # A legal match
//!
//! A set of tickets is a legal match in a region at a moment if
//!
//! * they fill the teams exactly, every party whole in one team;
//! * every rating is within the *rating window* of every other ticket: so of two tickets
//!   the narrower window counts. A ticket's window widens with its own waiting time;
//! * each has the region in reach: within its *latency cap*, which widens the same way;
//! * each meets the *conditions* of all the others;
//! * the *quality* (see [`Quality`]) reaches the floor. The floor never widens.
//!
//! Free places of running rooms ([`Vacancy`]) are filled under the same rules, by one
//! ticket at a time; the offer's window widens with the time since it was made. The
//! balance of the teams is not judged there: the room asks for the rating that suits it.
//!
//! # Who is matched first
//!
//! The engine works in *rounds*. A round searches for a match around each ticket that
//! was queued by its start, **the longest-waiting first**; of equals, by name. The search
//! around a ticket looks at its regions, the nearest first, and in each at what is
//! *within reach*: free places of rooms, and of each size of party the
//! [`candidates`](WorkLimits::candidates) tickets nearest by rating that agree with it. Those it
//! enumerates to the end, and takes the first match that it finds. The next round starts
//! an interval after the last one did, and only if it can find something that the last
//! could not.
//!
//! **Fairness.** As long as no search is cut,
//!
//! 1. what a round forms first holds the oldest ticket of those that can be in a legal
//!    match within its reach; what it forms next the oldest of those whose turn is still to
//!    come and that then can; so no older ticket is ever passed over at its turn for a younger
//!    one that is in the way. A ticket that sees only part of the queue, and sees further once
//!    its nearest candidates are matched, has its next turn in the next round;
//! 2. tickets that have a legal match within the reach of the oldest of them, at the
//!    start of a round, do not all wait any more at its end.
//!
//! A search is cut after [`WorkLimits::search`] looks, so that no ticket holds up the others. It
//! is not started anew but goes on in the next round where it was cut, whatever has come
//! and gone since. So if a search takes `n` looks from start to end, those counted that it
//! takes at who comes meanwhile, then of tickets that have a legal match within the reach of
//! the oldest of them, and keep it, some are matched within `2 * (n / (search - 1) + 1)`
//! rounds: one pass that may have begun before the match was legal, and one that did not. No ticket is skipped in a round, and no ticket
//! that comes in a round joins it: a round ends after as many searches as tickets waited
//! at its start, each in a step or less. When the engine rests, which is when
//! [`Engine::poll_timeout`] names nothing but time-outs, no ticket has a legal match
//! within its reach.
//!
//! All this holds among the tickets that the engine is given. Of more players than there are
//! places for, the [`matcher`] gives it those who came first.
//!
//! # Costs
//!
//! A step looks at [`WorkLimits::step`] + [`WorkLimits::search`] tickets at most, however many wait. A
//! ticket is in one tree for each of its regions. A search that is cut remembers whom it
//! has gathered: [`WorkLimits::candidates`] for each size of party, and only then.
//!
//! What costs time in a large queue is memory that is far away, not work. So what a look
//! needs of a ticket lies in the trees, next to that of its neighbours: a search seldom opens
//! the ticket itself, as for a condition of a rare kind or a tie that the name decides.
//!
//! # Determinism
//!
//! The same inputs give the same outputs, and tickets that come between two steps may
//! come in any order: what is equally old and equally rated goes by name.

mod class;
mod config;
pub mod desk;
mod engine;
mod explain;
mod fill;
mod formed;
pub mod keys;
pub mod matcher;
mod players;
mod pool;
mod quality;
mod record;
mod search;
mod settings;
mod ticket;
mod tree;
mod turn;

#[cfg(test)]
mod tests;

pub use config::{
    Limits, MAX_MATCH_PLAYERS, MAX_RATING, MAX_REGIONS, MAX_TEAM_SIZE, MAX_TEAMS, PERFECT, Quality,
    QueueConfig, Widening, WorkLimits,
};
pub use desk::Desk;
pub use engine::{Engine, Stats};
pub use explain::{Seen, WaitReason, Why, Width};
pub use formed::{Backfill, Binding, Chosen, Formed, QueueOutput, Rule, Used};
pub use matcher::Matcher;
pub use record::{Refused, decode, encode};
pub use settings::{MAX_FORMED_PLAYERS, MatchmakingConfig};
pub use ticket::{Condition, Test, Ticket, TicketRefusal, Traits, Vacancy, Value};
