//! Explanations why a ticket still waits.

use alloc::vec::Vec;
use core::fmt;

use super::config::Widening;
use super::pool::{Nearest, Passed};
use super::search::{SearchView, Waiting};
use super::ticket::{Condition, Reach};
use super::tree::TreeEntry;
use crate::base::id::Name;
use crate::base::slab::Key;
use crate::base::time::Duration;

/// Explanation why a ticket still waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Waiting time of the ticket.
    pub waited: Duration,
    /// Rating window of the ticket, in points.
    pub rating: Width,
    /// Latency cap of the ticket, in milliseconds.
    pub latency: Width,
    /// Other tickets in the region with the most agreeing players; `None` without a region.
    pub seen: Option<Seen>,
    /// The reason.
    pub reason: WaitReason,
}

/// Width of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Current width.
    pub now: u32,
    /// Rule by which the bound widens.
    pub widening: Widening,
}

/// Counts of the tickets of one region. Each ticket is counted once: as agreeing, or under the
/// first rule that it breaks, in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The region.
    pub region: Name,
    /// Number of tickets looked at, the nearest by rating of each size.
    pub tickets: u32,
    /// True if these are all tickets that may play in the region.
    pub complete: bool,
    /// Tickets that agree with the explained ticket.
    pub agree: u32,
    /// Players of the agreeing tickets.
    pub players: u32,
    /// Tickets with which a match would be below the floor of quality.
    pub below_floor: u32,
    /// Tickets outside the rating window of the explained ticket.
    pub outside: u32,
    /// Tickets whose rating window excludes the explained ticket.
    pub outside_theirs: u32,
    /// Tickets whose latency in the region is above their own cap.
    pub too_far: u32,
    /// Conditions of the explained ticket, each with the number of tickets that fail it.
    pub failing: Vec<(Condition, u32)>,
    /// Tickets with a condition that the explained ticket fails.
    pub failed: u32,
}

/// Reason for which a ticket waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// The latency cap has not widened to the nearest region yet.
    NoRegion {
        /// The region.
        region: Name,
        /// The latency there, in milliseconds.
        latency: u32,
    },
    /// Too few players agree with the ticket.
    TooFew {
        /// Number of players that agree.
        players: u32,
        /// Number of players that are needed in addition to the ticket's own.
        needed: u32,
    },
    /// The best possible match was below the floor of quality.
    Quality {
        /// Its quality, per mille.
        best: u16,
        /// The floor.
        floor: u16,
    },
    /// The search was cut and continues in the next round.
    Searching,
    /// The ticket has not been searched for yet.
    NextRound,
    /// Enough players agree with the ticket, but not with each other, or their parties do not add
    /// up to full teams.
    NoSet,
}

impl Why {
    pub(super) fn of(view: &SearchView<'_>, key: Key, waiting: &Waiting) -> Self {
        let waited = view.now.since(waiting.ticket.queued);
        let width = |widening: Widening| Width { now: widening.after(waited), widening };
        let (rating, latency) = (width(view.config.rating), width(view.config.latency));
        let reached: Vec<&Reach> =
            waiting.reach.iter().filter(|reach| reach.latency <= latency.now).collect();
        let looks = view.config.work.search / u32::try_from(reached.len().max(1)).unwrap_or(u32::MAX);
        // Of several equal regions, the first is kept, which is the nearest.
        let all = reached.iter().filter_map(|reach| Seen::of(view, key, waiting, reach.region, looks));
        let seen = all.reduce(|best, seen| if seen.players > best.players { seen } else { best });
        let reason = Self::reason(view, waiting, seen.as_ref());
        Self { waited, rating, latency, seen, reason }
    }

    fn reason(view: &SearchView<'_>, waiting: &Waiting, seen: Option<&Seen>) -> WaitReason {
        let needed = view.config.players().saturating_sub(waiting.size().into());
        let Some(seen) = seen else {
            let nearest = waiting.reach.first();
            let (region, latency) = nearest.map_or((0, 0), |reach| (reach.region, reach.latency));
            let region = view.config.regions.get(usize::from(region));
            return WaitReason::NoRegion { region: region.unwrap_or(&view.config.mode).clone(), latency };
        };
        let floor = view.config.quality.floor;
        match waiting.best {
            _ if seen.players < needed => WaitReason::TooFew { players: seen.players, needed },
            _ if waiting.search.is_some() => WaitReason::Searching,
            _ if waiting.searched.is_none() => WaitReason::NextRound,
            Some(best) => WaitReason::Quality { best, floor },
            None => WaitReason::NoSet,
        }
    }
}

impl Seen {
    fn of(view: &SearchView<'_>, key: Key, waiting: &Waiting, region: u8, looks: u32) -> Option<Self> {
        let conditions = waiting.ticket.traits.conditions.iter();
        let mut seen = Self {
            region: view.config.regions.get(usize::from(region))?.clone(),
            tickets: 0,
            complete: true,
            agree: 0,
            players: 0,
            below_floor: 0,
            outside: 0,
            outside_theirs: 0,
            too_far: 0,
            failing: conditions.map(|condition| (condition.clone(), 0)).collect(),
            failed: 0,
        };
        // Each size has its share of the looks.
        let share = looks / u32::from(view.config.team_size);
        for size in 1..=view.config.team_size {
            let from = Passed::default();
            let Some(tree) = view.pool.tickets(region, size) else { continue };
            let mut others = Nearest::new(tree, view.tickets, waiting.ticket.rating, u32::MAX - 1, &from)
                .filter(|entry| entry.key != key);
            for _ in 0..share {
                let Some(entry) = others.next() else { break };
                seen.count(view, waiting, size, entry);
            }
            seen.complete &= others.next().is_none();
        }
        Some(seen)
    }

    fn count(&mut self, view: &SearchView<'_>, waiting: &Waiting, size: u8, entry: &TreeEntry) {
        let Some(other) = view.tickets.get(entry.key) else { return };
        let ticket = &waiting.ticket;
        let distance = entry.rating.abs_diff(ticket.rating);
        let (own, theirs) = (view.now.since(ticket.queued), view.now.since(entry.queued));
        self.tickets += 1;
        if distance > view.config.quality.most_spread() {
            self.below_floor += 1;
        } else if distance > view.config.rating.after(own) {
            self.outside += 1;
        } else if distance > view.config.rating.after(theirs) {
            self.outside_theirs += 1;
        } else if entry.latency() > view.config.latency.after(theirs) {
            self.too_far += 1;
        } else if let Err(condition) = ticket.traits.accept(&other.ticket.traits) {
            if let Some((_, failing)) = self.failing.get_mut(condition) {
                *failing += 1;
            }
        } else if other.ticket.traits.accept(&ticket.traits).is_err() {
            self.failed += 1;
        } else {
            self.agree += 1;
            self.players += u32::from(size);
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegion { region, latency } => {
                write!(f, "the nearest region, {region}, is {latency} ms away")
            }
            Self::TooFew { players, needed } => write!(f, "{players} of {needed} other players agree"),
            Self::Quality { best, floor } => {
                write!(f, "the best match had quality {best} of 1000, the floor is {floor}")
            }
            Self::Searching => f.write_str("the search goes on in the next round"),
            Self::NextRound => f.write_str("it is searched for in the next round"),
            Self::NoSet => f.write_str("those who agree with it do not make full teams with each other"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waits for {} s: {}; rating window ", self.waited.as_secs(), self.reason)?;
        self.rating.fmt(f)?;
        f.write_str(" points, latency cap ")?;
        self.latency.fmt(f)?;
        f.write_str(" ms")?;
        let Some(seen) = &self.seen else { return Ok(()) };
        let all = if seen.complete { "all" } else { "the nearest" };
        write!(f, "; of {all} {} other tickets in {}, {} agree", seen.tickets, seen.region, seen.agree)?;
        let counts = [
            (seen.below_floor, "would be below the floor of quality"),
            (seen.outside, "are outside its rating window"),
            (seen.outside_theirs, "have it outside theirs"),
            (seen.too_far, "are too far from the region"),
            (seen.failed, "do not accept it"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        for (condition, count) in seen.failing.iter().filter(|(_, count)| *count > 0) {
            write!(f, ", {count} fail \"{condition}\"")?;
        }
        Ok(())
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Widening { per_second, most, .. } = self.widening;
        if self.now >= most {
            return write!(f, "{} (widest)", self.now);
        }
        write!(f, "{} (+{per_second} a second, up to {most})", self.now)
    }
}
