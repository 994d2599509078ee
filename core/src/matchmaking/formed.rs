//! Decisions of a queue, with the rules that permitted them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::config::{QueueConfig, Widening};
use super::ticket::{Ticket, Vacancy};
use crate::base::id::Name;
use crate::base::time::{Duration, Instant};

/// Decision of a queue. Its tickets no longer wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueOutput {
    /// A match. If it cannot be committed, return the tickets with
    /// [`restore`](super::Engine::restore).
    Match(Formed),
    /// A ticket for free places of a running room.
    Backfill(Box<Backfill>),
    /// The ticket of this leader has waited for the maximum time.
    TimedOut(Name),
}

/// A match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Formed {
    /// The tickets of each team.
    pub teams: Vec<Vec<Chosen>>,
    /// Region in which to play the match.
    pub region: Name,
    /// Quality, per mille; see [`Quality`](super::Quality).
    pub quality: u16,
    /// Time since which the match would have been legal, and the rule that was met last.
    pub binding: Binding,
}

/// A ticket for free places of a running room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The offer, which has ended. Places that the ticket leaves free must be offered anew.
    pub vacancy: Vacancy,
    /// The ticket.
    pub chosen: Chosen,
    /// Closeness of the ratings, per mille; the balance of the teams is not known here.
    pub quality: u16,
    /// Time since which the match would have been legal, and the rule that was met last.
    pub binding: Binding,
}

/// A chosen ticket, with the widths of its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The ticket, as it was inserted.
    pub ticket: Ticket,
    /// Waiting time of the ticket.
    pub waited: Duration,
    /// Rating window, and the distance to the furthest rating in the match; points.
    pub rating: Used,
    /// Latency cap, and latency in the region; milliseconds.
    pub latency: Used,
}

/// Use of a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Width that was needed.
    pub needed: u32,
    /// Width of the bound.
    pub allowed: u32,
}

/// Largest waiting time of the chosen tickets, and their largest use of each bound. The text is as
/// long for two players as for many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Widths {
    waited: Duration,
    /// Use by the ticket that needed the widest rating window.
    rating: Used,
    /// Use by the ticket that needed the widest latency cap.
    latency: Used,
}

/// The rule that was met last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Time at which the rule was met.
    pub since: Instant,
    /// The rule.
    pub rule: Rule,
}

/// A rule that must be met before a match is legal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The ticket of this leader had to arrive.
    Arrival(Name),
    /// The room's offer had to arrive.
    Offer,
    /// The rating window of this leader's ticket had to widen.
    Rating(Name),
    /// The rating window of the room's offer had to widen.
    OfferRating,
    /// The latency cap of this leader's ticket had to widen.
    Latency(Name),
}

impl Formed {
    /// Returns all tickets.
    pub fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.teams.iter().flatten().map(|chosen| &chosen.ticket)
    }
}

impl Chosen {
    /// Returns a ticket chosen for a match in a region with ratings from `min` to `max`.
    pub(super) fn new(
        config: &QueueConfig,
        now: Instant,
        ticket: Ticket,
        (min, max): (i32, i32),
        latency: u32,
    ) -> Self {
        let waited = now.since(ticket.queued);
        let distance = ticket.rating.abs_diff(min).max(ticket.rating.abs_diff(max));
        Self {
            waited,
            rating: Used { needed: distance, allowed: config.rating.after(waited) },
            latency: Used { needed: latency, allowed: config.latency.after(waited) },
            ticket,
        }
    }

    fn rules(&self, config: &QueueConfig) -> [(Instant, Rule); 3] {
        let queued = self.ticket.queued;
        let name = || self.ticket.leader.clone();
        [
            (queued, Rule::Arrival(name())),
            (met(&config.rating, queued, self.rating.needed), Rule::Rating(name())),
            (met(&config.latency, queued, self.latency.needed), Rule::Latency(name())),
        ]
    }
}

impl Widths {
    /// Returns the widths of these tickets.
    pub(super) fn of<'a>(chosen: impl Iterator<Item = &'a Chosen>) -> Self {
        // Of several tickets with equal needs, the one with the narrowest bound counts.
        let wider = |one: Used, other: Used| {
            let order = |used: Used| (used.needed, core::cmp::Reverse(used.allowed));
            if order(other) > order(one) { other } else { one }
        };
        let of = |chosen: &Chosen| {
            let Chosen { waited, rating, latency, .. } = *chosen;
            Self { waited, rating, latency }
        };
        let join = |one: Self, other: Self| Self {
            waited: one.waited.max(other.waited),
            rating: wider(one.rating, other.rating),
            latency: wider(one.latency, other.latency),
        };
        chosen.map(of).reduce(join).unwrap_or_default()
    }
}

/// Returns the time at which a bound is `width` wide, for a ticket that waits since `queued`.
fn met(widening: &Widening, queued: Instant, width: u32) -> Instant {
    widening.reaches(width).map_or(queued, |wait| queued + wait)
}

impl Binding {
    /// Returns the binding rule of a match; `None` without tickets.
    pub(super) fn of<'a>(config: &QueueConfig, chosen: impl Iterator<Item = &'a Chosen>) -> Option<Self> {
        chosen.flat_map(|chosen| chosen.rules(config)).map(Self::new).reduce(Self::later)
    }

    /// Returns the binding rule of a backfill.
    pub(super) fn of_backfill(config: &QueueConfig, vacancy: &Vacancy, chosen: &Chosen) -> Self {
        let widened = met(&config.rating, vacancy.offered, chosen.rating.needed);
        let rules = chosen.rules(config).into_iter().chain([(widened, Rule::OfferRating)]);
        rules.map(Self::new).fold(Self::new((vacancy.offered, Rule::Offer)), Self::later)
    }

    fn new((since, rule): (Instant, Rule)) -> Self {
        Self { since, rule }
    }

    /// Returns the rule that was met later. Of two at once, the first in the order of [`Rule`]
    /// counts, so that a bound that did not have to widen is not named.
    fn later(self, other: Self) -> Self {
        let order = other.since.cmp(&self.since).then_with(|| self.rule.cmp(&other.rule));
        if order.is_gt() { other } else { self }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrival(name) => write!(f, "{name} had to come"),
            Self::Offer => f.write_str("the room had to have free places"),
            Self::Rating(name) => write!(f, "the rating window of {name} had to widen"),
            Self::OfferRating => f.write_str("the rating window of the room had to widen"),
            Self::Latency(name) => write!(f, "the latency cap of {name} had to widen"),
        }
    }
}

impl fmt::Display for Widths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, rating, latency } = self;
        write!(
            f,
            "waited up to {} s, ratings within {} of {} points, latency {} of {} ms",
            waited.as_secs(),
            rating.needed,
            rating.allowed,
            latency.needed,
            latency.allowed
        )
    }
}

impl fmt::Display for Formed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, quality, binding, .. } = self;
        write!(
            f,
            "quality {quality} of 1000 in {region}, possible since {}: {}",
            binding.since, binding.rule
        )?;
        for (chosen, team) in self.teams.iter().zip(1_u32..).flat_map(|(t, n)| t.iter().map(move |c| (c, n)))
        {
            let Chosen { ticket, rating, latency, waited } = chosen;
            write!(
                f,
                "\nteam {team}: {} ({} players) after {} s, rating {} within {} of {} points, latency {} of {} ms",
                ticket.leader,
                ticket.size(),
                waited.as_secs(),
                ticket.rating,
                rating.needed,
                rating.allowed,
                latency.needed,
                latency.allowed,
            )?;
        }
        Ok(())
    }
}
