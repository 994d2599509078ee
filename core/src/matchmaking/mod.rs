//! Matchmaking (rows K1 and K2): forms matches from tickets, with a region and teams for each
//! match. One [`Engine`] serves one queue, which has one mode and one shape of match.
//!
//! # A legal match
//!
//! A set of tickets is a legal match in a region at a moment if
//!
//! * the tickets fill the teams exactly, and every party is whole in one team;
//! * every rating is within the *rating window* of every other ticket, so the narrower window of
//!   two tickets counts. A ticket's window widens with its own waiting time;
//! * the region is in reach of each ticket: within its *latency cap*, which widens the same way;
//! * each ticket meets the *conditions* of all the others;
//! * the *quality* (see [`Quality`]) reaches the floor. The floor never widens.
//!
//! Free places of running rooms ([`Vacancy`]) are filled under the same rules, by one ticket at a
//! time. The rating window of an offer widens with the age of the offer. The balance of the teams
//! is not judged for an offer: the room asks for the rating that suits its teams.
//!
//! # Order of matching
//!
//! The engine works in *rounds*. A round searches for a match around each ticket that was queued
//! by the start of the round, **the longest-waiting first**; equally old tickets are ordered by
//! name. The search around a ticket visits the ticket's regions, the nearest first. In each region
//! the search considers the candidates *within reach*: free places of rooms, and, for each size of
//! party, the [`candidates`](WorkLimits::candidates) tickets nearest by rating that agree with the
//! ticket. The search enumerates all sets of these candidates, and takes the first legal match. The
//! next round starts an interval after the start of the last one, and only if it can find a match
//! that the last round could not find.
//!
//! **Fairness.** As long as no search is cut,
//!
//! 1. the first match of a round contains the oldest of the tickets that can be in a legal match
//!    within their reach. Each later match contains the oldest of the tickets whose place in the
//!    order is still ahead and that have a legal match at that time. So no ticket is ever passed
//!    over, at its place in the order, for a younger ticket that competes with it. A ticket that
//!    sees only part of the queue may see further once its nearest candidates are matched; such a
//!    ticket is searched for again in the next round;
//! 2. of the tickets that have a legal match within the reach of the oldest of them at the start of
//!    a round, at least one no longer waits at the end of the round.
//!
//! A search is cut after [`WorkLimits::search`] looks, so that no ticket delays the others. The
//! next round resumes the search where it was cut, whichever tickets have arrived or left since.
//! Let `n` be the number of looks that a search takes from start to end, including looks at tickets
//! that arrive meanwhile. Of tickets that have a legal match within the reach of the oldest of
//! them, and keep it, some are matched within `2 * (n / (search - 1) + 1)` rounds. The factor 2
//! counts two passes: one that may have begun before the match was legal, and one that began later.
//! No ticket is skipped in a round, and no ticket joins a round after its start. So a round ends
//! after as many searches as tickets waited at its start, each in a step or less. When the engine
//! rests, so that [`Engine::poll_timeout`] names only time-outs, no ticket has a legal match within
//! its reach.
//!
//! All this holds among the tickets that the engine knows. If more players wait than the
//! [`matcher`] has places for, the matcher passes the tickets of the first players to the engine.
//!
//! # Costs
//!
//! A step looks at [`WorkLimits::step`] + [`WorkLimits::search`] tickets at most, however many
//! wait. A ticket has an entry in one tree for each of its regions. Only a search that is cut
//! remembers its gathered candidates: up to [`WorkLimits::candidates`] for each size of party.
//!
//! The main cost of a large queue is access to distant memory, not computation. So the trees hold
//! the data that a look needs, next to the data of neighbouring tickets. A search seldom reads the
//! ticket itself: for a condition of a rare kind, or for a tie that the name decides.
//!
//! # Determinism
//!
//! The same inputs give the same outputs. Tickets that arrive between two steps may arrive in any
//! order: ties are broken by name.

mod assemble;
mod class;
mod config;
mod engine;
mod explain;
mod formed;
pub mod keys;
pub mod matcher;
pub mod player_tickets;
mod players;
mod pool;
mod quality;
mod queue_order;
mod record;
mod search;
mod settings;
mod ticket;
mod tree;

#[cfg(test)]
mod tests;

pub use config::{
    Limits, MAX_MATCH_PLAYERS, MAX_RATING, MAX_REGIONS, MAX_TEAM_SIZE, MAX_TEAMS, PERFECT, Quality,
    QueueConfig, Widening, WorkLimits,
};
pub use engine::{Engine, Stats};
pub use explain::{Seen, WaitReason, Why, Width};
pub use formed::{Backfill, Binding, Chosen, Formed, QueueOutput, Rule, Used};
pub use matcher::Matcher;
pub use player_tickets::PlayerTickets;
pub use record::{Refused, decode, encode};
pub use settings::{MAX_FORMED_PLAYERS, MatchmakingConfig};
pub use ticket::{Condition, Test, Ticket, TicketRefusal, Traits, Vacancy, Value};
