//! Assembles the teams of a match around one ticket: a depth-first search over candidates,
//! complete, and resumable at any point.

use alloc::vec;
use alloc::vec::Vec;

use super::class::TicketClass;
use super::config::{MAX_TEAM_SIZE, QueueConfig};
use super::quality::{Part, even_out, quality};
use super::search::{Effort, SearchView};
use crate::base::bug::Bugs;
use crate::base::slab::Key;
use crate::base::time::Instant;

/// A ticket that agrees with the anchor, the ticket that is searched for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) key: Key,
    pub(super) queued: Instant,
    pub(super) rating: i32,
    pub(super) size: u8,
    pub(super) class: TicketClass,
    /// True if the ticket still waits.
    pub(super) waits: bool,
}

/// Position of a search. Sets are enumerated in an order that depends only on the list of kept
/// tickets.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    /// Index of the lowest rating.
    low: usize,
    /// True if the search with this lowest rating has begun.
    begun: bool,
    /// Picked candidates, as indexes into the list.
    path: Vec<usize>,
    /// Index of the next candidate.
    next: usize,
}

/// Outcome of an assembly.
#[derive(Debug)]
pub(super) enum Assembled {
    /// Teams of a match, the anchor in the first.
    Teams(Vec<Vec<Key>>),
    /// The candidates contain no legal match.
    Nothing,
    /// The limit of effort was reached at this position.
    Cut(Position),
}

/// A candidate, with its rating window at this moment.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    kept: Kept,
    /// Lowest and highest rating in the candidate's window.
    lowest: i32,
    highest: i32,
    /// True if the candidate can be picked: its window includes the lowest rating, and it is not
    /// picked yet.
    open: bool,
}

/// Ratings of a set, and the common window of its tickets.
#[derive(Clone, Copy, Debug)]
struct SetSpan {
    min: i32,
    max: i32,
    lowest: i32,
    highest: i32,
}

/// The state after a pick.
#[derive(Clone, Copy, Debug)]
struct Level {
    pick: Option<usize>,
    span: SetSpan,
    team: u8,
    /// Free places of `team`.
    free: u8,
    /// First pick of `team`.
    first: Option<usize>,
    /// Next candidate to try.
    next: usize,
}

/// Search for a legal set of candidates around one ticket.
#[derive(Debug)]
pub(super) struct Assembly<'a> {
    view: &'a SearchView<'a>,
    config: &'a QueueConfig,
    most_spread: u32,
    anchor: Candidate,
    /// Candidates: largest first, and nearest first among those of one size.
    list: Vec<Candidate>,
    /// Number of open candidates by size.
    left: [u32; MAX_TEAM_SIZE as usize + 1],
    /// Best quality that was below the floor.
    pub(super) best: Option<u16>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(view: &'a SearchView<'a>, anchor: Kept, kept: &[Kept]) -> Self {
        let SearchView { config, now, .. } = *view;
        let candidate = |kept: &Kept| {
            let window = i32::try_from(config.rating.at(now, kept.queued)).unwrap_or(i32::MAX);
            Candidate {
                kept: *kept,
                lowest: kept.rating.saturating_sub(window),
                highest: kept.rating.saturating_add(window),
                open: false,
            }
        };
        Self {
            view,
            config,
            most_spread: config.quality.most_spread(),
            anchor: candidate(&anchor),
            list: kept.iter().map(candidate).collect(),
            left: [0; MAX_TEAM_SIZE as usize + 1],
            best: None,
        }
    }

    /// Searches on from a position.
    ///
    /// A legal set has a lowest rating. For each possible lowest rating, from the anchor's own
    /// downwards, the search considers the candidates whose windows include it. So picks can
    /// disagree only about the upper ends of their windows.
    pub(super) fn run(&mut self, from: Position, effort: &mut Effort<'_>) -> Assembled {
        let enough = self.config.players();
        let all: u32 = self.list.iter().filter(|c| c.kept.waits).map(|c| u32::from(c.kept.size)).sum();
        if all + u32::from(self.anchor.kept.size) < enough {
            return Assembled::Nothing;
        }
        let Position { low: first, mut begun, mut path, mut next } = from;
        for (index, low) in self.lows().into_iter().enumerate().skip(first) {
            if effort.is_spent() {
                return Assembled::Cut(Position { low: index, begun, path, next });
            }
            // A resumed search is not charged again: with a small limit of effort it would never
            // advance.
            if !core::mem::take(&mut begun) {
                effort.spend(1 + u32::try_from(self.list.len() / 16).unwrap_or(u32::MAX));
            }
            self.open(low);
            let mut levels = vec![self.start()];
            let (path, next) = (core::mem::take(&mut path), core::mem::take(&mut next));
            if let Some(teams) = self.resume(&mut levels, &path, next, effort) {
                return Assembled::Teams(teams);
            }
            match self.descend(&mut levels, effort) {
                Descent::Done(teams) => return Assembled::Teams(teams),
                Descent::Exhausted => {}
                Descent::Cut => {
                    let path = levels.iter().filter_map(|level| level.pick).collect();
                    let next = levels.last().map_or(0, |level| level.next);
                    return Assembled::Cut(Position { low: index, begun: true, path, next });
                }
            }
        }
        Assembled::Nothing
    }

    /// Returns the lowest ratings that a set can have, highest first.
    fn lows(&self) -> Vec<i32> {
        let anchor = &self.anchor;
        let reached = |low: &i32| {
            *low <= anchor.kept.rating
                && *low >= anchor.lowest
                && low.abs_diff(anchor.kept.rating) <= self.most_spread
        };
        let ratings = self.list.iter().map(|candidate| candidate.kept.rating);
        let mut lows: Vec<i32> = ratings.chain([anchor.kept.rating]).filter(reached).collect();
        lows.sort_unstable_by_key(|low| core::cmp::Reverse(*low));
        lows.dedup();
        lows
    }

    /// Opens the candidates that can be in a set with the lowest rating `low`.
    fn open(&mut self, low: i32) {
        self.left.fill(0);
        for candidate in &mut self.list {
            let rating = candidate.kept.rating;
            candidate.open = candidate.kept.waits
                && rating >= low
                && candidate.lowest <= low
                && rating.abs_diff(low) <= self.most_spread;
            if let Some(left) = self.left.get_mut(usize::from(candidate.kept.size)).filter(|_| candidate.open)
            {
                *left += 1;
            }
        }
    }

    fn start(&self) -> Level {
        let Candidate { kept, lowest, highest, .. } = self.anchor;
        let span = SetSpan { min: kept.rating, max: kept.rating, lowest, highest };
        let whole = Level { pick: None, span, team: 0, free: self.config.team_size, first: None, next: 0 };
        self.joined(&whole, kept.size, None, span)
    }

    /// Returns the level after a ticket of this size has joined the team of `level`.
    ///
    /// All teams but the first are alike, and so are the places of a team. To divide no set twice
    /// in the same way, the picks of a team follow the order of the list, and so do the first picks
    /// of the teams.
    fn joined(&self, level: &Level, size: u8, pick: Option<usize>, span: SetSpan) -> Level {
        let free = level.free.saturating_sub(size);
        let after = |index: Option<usize>| index.map_or(0, |index| index + 1);
        if free > 0 {
            return Level { pick, span, free, first: level.first.or(pick), next: after(pick), ..*level };
        }
        let next = if level.team == 0 { 0 } else { after(level.first.or(pick)) };
        Level { pick, span, team: level.team + 1, free: self.config.team_size, first: None, next }
    }

    /// Repeats the picks of a cut search, as far as the candidates still wait and fit.
    fn resume(
        &mut self,
        levels: &mut Vec<Level>,
        path: &[usize],
        next: usize,
        effort: &mut Effort<'_>,
    ) -> Option<Vec<Vec<Key>>> {
        let mut uncharged = Effort::new(u32::MAX, &mut *effort.bugs);
        for &pick in path {
            let last = levels.last().copied();
            let fitting = last.and_then(|level| self.fit(levels, &level, pick, &mut uncharged));
            self.set_next(levels, pick + 1);
            if !fitting.is_some_and(|level| self.push(levels, pick, level, uncharged.bugs)) {
                return None;
            }
        }
        match levels.last_mut() {
            // The anchor alone fills all teams.
            Some(level) if level.team == self.config.teams => self.finish(levels, effort.bugs),
            Some(level) => {
                level.next = level.next.max(next);
                None
            }
            None => None,
        }
    }

    fn descend(&mut self, levels: &mut Vec<Level>, effort: &mut Effort<'_>) -> Descent {
        while let Some(level) = levels.last().copied() {
            let from = self.list.partition_point(|candidate| candidate.kept.size > level.free);
            let mut next = level.next.max(from);
            let mut picked = None;
            while picked.is_none() && next < self.list.len() {
                if effort.is_spent() {
                    self.set_next(levels, next);
                    return Descent::Cut;
                }
                effort.spend(1);
                if let Some(fitting) = self.fit(levels, &level, next, effort) {
                    picked = Some((next, fitting));
                }
                next += 1;
            }
            self.set_next(levels, next);
            match picked {
                None => self.pop(levels, effort.bugs),
                Some((pick, fitting)) => {
                    if self.push(levels, pick, fitting, effort.bugs) && fitting.team == self.config.teams {
                        if let Some(teams) = self.finish(levels, effort.bugs) {
                            return Descent::Done(teams);
                        }
                        self.pop(levels, effort.bugs);
                    }
                }
            }
        }
        Descent::Exhausted
    }

    fn set_next(&self, levels: &mut [Level], next: usize) {
        if let Some(level) = levels.last_mut() {
            level.next = next;
        }
    }

    /// Returns the level after `pick`, if the candidate may join.
    fn fit(&self, levels: &[Level], level: &Level, pick: usize, effort: &mut Effort<'_>) -> Option<Level> {
        let candidate = self.list.get(pick).filter(|candidate| candidate.open)?;
        if candidate.kept.size > level.free {
            return None;
        }
        let rating = candidate.kept.rating;
        let span = SetSpan {
            min: level.span.min.min(rating),
            max: level.span.max.max(rating),
            lowest: level.span.lowest.max(candidate.lowest),
            highest: level.span.highest.min(candidate.highest),
        };
        let agreed = span.lowest <= span.min
            && span.max <= span.highest
            && span.max.abs_diff(span.min) <= self.most_spread;
        if !agreed || !self.agrees(levels, candidate, effort) {
            return None;
        }
        Some(self.joined(level, candidate.kept.size, Some(pick), span))
    }

    /// Returns true if the candidate and the picked tickets meet the conditions of each other. The
    /// conditions of the anchor were checked when the candidate was kept.
    fn agrees(&self, levels: &[Level], candidate: &Candidate, effort: &mut Effort<'_>) -> bool {
        let picks = levels.iter().filter_map(|level| self.list.get(level.pick?));
        let (own, class) = (candidate.kept.key, candidate.kept.class);
        picks.filter(|pick| pick.kept.class.is_choosy() || class.is_choosy()).all(|pick| {
            effort.spend(1);
            let verdict = self.view.classes.agree(class, pick.kept.class);
            verdict.unwrap_or_else(|| self.view.traits_agree(effort.bugs, own, pick.kept.key))
        })
    }

    /// Picks the candidate, if the remaining candidates can still fill the team and the match.
    fn push(&mut self, levels: &mut Vec<Level>, pick: usize, level: Level, bugs: &mut Bugs) -> bool {
        self.set_open(pick, false, bugs);
        let places = u32::from(self.config.teams - level.team) * u32::from(self.config.team_size);
        let needed = places.saturating_sub(u32::from(self.config.team_size - level.free));
        let full = level.team == self.config.teams;
        if !full && !self.can_fill(level.free, needed) {
            self.set_open(pick, true, bugs);
            return false;
        }
        levels.push(level);
        true
    }

    /// Takes back the last pick. The level of the anchor alone has no pick.
    fn pop(&mut self, levels: &mut Vec<Level>, bugs: &mut Bugs) {
        if let Some(pick) = levels.pop().and_then(|level| level.pick) {
            self.set_open(pick, true, bugs);
        }
    }

    fn set_open(&mut self, pick: usize, open: bool, bugs: &mut Bugs) {
        let Some(candidate) = self.list.get_mut(pick) else {
            return bugs.found("a pick is not in the list of candidates");
        };
        let Some(left) = self.left.get_mut(usize::from(candidate.kept.size)) else {
            return bugs.found("a candidate is larger than a team");
        };
        candidate.open = open;
        *left = if open { *left + 1 } else { left.saturating_sub(1) };
    }

    /// Returns false only if no open candidates have exactly `free` players together, or all open
    /// candidates have fewer than `needed`. True is no proof that the teams can be filled.
    fn can_fill(&self, free: u8, needed: u32) -> bool {
        let sizes = || (0_u32..).zip(self.left.iter().copied());
        if sizes().map(|(size, left)| size * left).sum::<u32>() < needed {
            return false;
        }
        // Bit n: a set of candidates has n players.
        let mut sums = 1_u64;
        for (size, left) in sizes().skip(1).take(free.into()) {
            for _ in 0..left.min(u32::from(free) / size) {
                sums |= sums << size;
            }
        }
        sums >> free & 1 == 1
    }

    /// Returns the teams of a full set, evened out, if their quality reaches the floor.
    fn finish(&mut self, levels: &[Level], bugs: &mut Bugs) -> Option<Vec<Vec<Key>>> {
        let part = |kept: Kept| Part { what: kept.key, size: kept.size, rating: kept.rating };
        let picks = levels.iter().filter_map(|level| self.list.get(level.pick?));
        let (mut teams, mut team, mut free) = (Vec::new(), Vec::new(), self.config.team_size);
        for kept in core::iter::once(&self.anchor).chain(picks).map(|candidate| candidate.kept) {
            team.push(part(kept));
            free = free.saturating_sub(kept.size);
            if free == 0 {
                teams.push(core::mem::take(&mut team));
                free = self.config.team_size;
            }
        }
        if teams.len() != usize::from(self.config.teams) || !team.is_empty() {
            bugs.found("a full set of tickets does not fill the teams");
            return None;
        }
        even_out(&mut teams);
        let quality = quality(self.config, &teams);
        if quality < self.config.quality.floor {
            self.best = self.best.max(Some(quality));
            return None;
        }
        Some(teams.into_iter().map(|team| team.into_iter().map(|part| part.what).collect()).collect())
    }
}

enum Descent {
    Done(Vec<Vec<Key>>),
    Exhausted,
    Cut,
}
