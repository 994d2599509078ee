//! Search for a match, or for free places, around one ticket.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::assemble::{Assembled, Assembly, Kept, Position};
use super::class::{TicketClass, TicketClasses};
use super::config::QueueConfig;
use super::pool::{Nearest, Passed, Pool};
use super::queue_order::QueueOrder;
use super::ticket::{Reach, Ticket, Vacancy};
use super::tree::{Names, TreeEntry, TreeRank};
use crate::base::bug::Bugs;
use crate::base::id::Name;
use crate::base::slab::{Key, Slab};
use crate::base::time::Instant;

/// A waiting ticket.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    /// Regions that can come into reach of the ticket, nearest first.
    pub(super) reach: Vec<Reach>,
    /// Class of the ticket's traits.
    pub(super) class: TicketClass,
    /// Search that was cut, to be resumed.
    pub(super) search: Option<Box<SearchRun>>,
    /// Start of the last complete search.
    pub(super) searched: Option<Began>,
    /// Best quality below the floor that the last complete search found.
    pub(super) best: Option<u16>,
}

impl Waiting {
    /// Returns the party's size, which is at most that of a team and so fits.
    pub(super) fn size(&self) -> u8 {
        u8::try_from(self.ticket.size()).unwrap_or(u8::MAX)
    }

    pub(super) const fn rank(&self) -> TreeRank {
        (self.ticket.rating, self.ticket.queued)
    }

    pub(super) fn queue_order(&self) -> QueueOrder {
        QueueOrder::new(self.ticket.queued, &self.ticket.leader)
    }
}

impl Names for Slab<Waiting> {
    fn name(&self, key: Key) -> Option<&Name> {
        self.get(key).map(|waiting| &waiting.ticket.leader)
    }
}

impl Names for Slab<Vacancy> {
    fn name(&self, key: Key) -> Option<&Name> {
        self.get(key).map(|vacancy| &vacancy.room)
    }
}

/// Counter of a search's looks at tickets, with a limit, and recorder of the broken invariants that
/// the search finds.
#[derive(Debug)]
pub(super) struct Effort<'a> {
    spent: u32,
    most: u32,
    pub(super) bugs: &'a mut Bugs,
}

impl<'a> Effort<'a> {
    pub(super) const fn new(most: u32, bugs: &'a mut Bugs) -> Self {
        Self { spent: 0, most, bugs }
    }

    pub(super) const fn spend(&mut self, looks: u32) {
        self.spent = self.spent.saturating_add(looks);
    }

    pub(super) const fn is_spent(&self) -> bool {
        self.spent >= self.most
    }

    pub(super) const fn spent(&self) -> u32 {
        self.spent
    }
}

/// The state of the queue when a search began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Began {
    pub(super) at: Instant,
    /// Number of arrivals and departures until then.
    pub(super) changes: u64,
}

/// State of a search.
#[derive(Clone, Debug)]
pub(super) struct SearchRun {
    began: Began,
    /// Index into the ticket's regions.
    region: usize,
    stage: SearchStage,
    /// Tickets that agree with the ticket there: by size, the largest first, and by distance.
    kept: Vec<Kept>,
    best: Option<u16>,
}

#[derive(Clone, Debug)]
enum SearchStage {
    /// Running rooms are searched first: players already wait in them.
    Vacancies(Passed),
    /// Gathers the candidates of one size.
    Gather(u8, Passed),
    /// Fills the teams.
    Assemble(Position),
}

impl SearchRun {
    pub(super) const fn new(began: Began) -> Self {
        let stage = SearchStage::Vacancies(Passed { up: None, down: None });
        Self { began, region: 0, stage, kept: Vec::new(), best: None }
    }

    pub(super) const fn began(&self) -> Began {
        self.began
    }

    /// Marks remembered tickets that no longer wait. This is necessary only when a search is
    /// resumed: no ticket leaves during a search. While the search gathers, such tickets are
    /// forgotten. Otherwise tickets that arrive and leave would use up the places of candidates
    /// that keep waiting. While the search fills teams, such tickets stay, since the search's
    /// position consists of indexes into the list.
    fn mark_gone(&mut self, tickets: &Slab<Waiting>) {
        for kept in &mut self.kept {
            kept.waits = tickets.get(kept.key).is_some();
        }
        if matches!(self.stage, SearchStage::Gather(..)) {
            self.kept.retain(|kept| kept.waits);
        }
    }

    /// Returns the number of tickets that the search remembers.
    pub(super) const fn kept(&self) -> usize {
        self.kept.len()
    }
}

/// Outcome of a search.
#[derive(Debug)]
pub(super) enum SearchOutcome {
    /// A match in this region.
    Match(u8, Vec<Vec<Key>>),
    /// A place in the room of this offer, in this region.
    Vacancy(u8, Key),
    /// No match; with the best quality that was below the floor.
    Nothing(Option<u16>),
    /// The limit of effort was reached.
    Cut(Box<SearchRun>),
}

/// Tables that a search reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct SearchView<'a> {
    pub(super) config: &'a QueueConfig,
    pub(super) tickets: &'a Slab<Waiting>,
    pub(super) classes: &'a TicketClasses,
    pub(super) vacancies: &'a Slab<Vacancy>,
    pub(super) pool: &'a Pool,
    pub(super) now: Instant,
}

/// The ticket that is searched for, at this moment.
struct Anchor<'a> {
    key: Key,
    waiting: &'a Waiting,
    /// Maximum distance of another ticket's rating: by the rating window, and by the floor.
    most: u32,
    region: u8,
}

impl SearchView<'_> {
    /// Searches for a ticket, from the state of the search.
    pub(super) fn search(
        &self,
        (key, waiting): (Key, &Waiting),
        mut search: SearchRun,
        effort: &mut Effort<'_>,
    ) -> SearchOutcome {
        effort.spend(1);
        search.mark_gone(self.tickets);
        let waited = self.now.since(waiting.ticket.queued);
        let window = self.config.rating.after(waited);
        let most = window.min(self.config.quality.most_spread());
        let cap = self.config.latency.after(waited);
        while let Some(reach) = waiting.reach.get(search.region).filter(|reach| reach.latency <= cap) {
            let anchor = Anchor { key, waiting, most, region: reach.region };
            match self.search_region(&anchor, &mut search, effort) {
                Region::Found(outcome) => return outcome,
                Region::Cut => return SearchOutcome::Cut(Box::new(search)),
                Region::Nothing => {
                    let (region, best) = (search.region + 1, search.best);
                    search = SearchRun { region, best, ..SearchRun::new(search.began) };
                }
            }
        }
        SearchOutcome::Nothing(search.best)
    }

    fn search_region(&self, anchor: &Anchor<'_>, search: &mut SearchRun, effort: &mut Effort<'_>) -> Region {
        loop {
            let next = match &mut search.stage {
                SearchStage::Vacancies(passed) => match self.find_vacancy(anchor, passed, effort) {
                    Found::One(key) => return Region::Found(SearchOutcome::Vacancy(anchor.region, key)),
                    Found::Cut => return Region::Cut,
                    Found::None => SearchStage::Gather(self.largest(anchor), Passed::default()),
                },
                SearchStage::Gather(0, _) => SearchStage::Assemble(Position::default()),
                SearchStage::Gather(size, passed) => {
                    if !self.gather(anchor, *size, passed, &mut search.kept, effort) {
                        return Region::Cut;
                    }
                    SearchStage::Gather(*size - 1, Passed::default())
                }
                SearchStage::Assemble(position) => {
                    let ticket = &anchor.waiting.ticket;
                    let own = Kept {
                        key: anchor.key,
                        queued: ticket.queued,
                        rating: ticket.rating,
                        size: anchor.waiting.size(),
                        class: anchor.waiting.class,
                        waits: true,
                    };
                    let mut assembly = Assembly::new(self, own, &search.kept);
                    let assembled = assembly.run(core::mem::take(position), effort);
                    search.best = search.best.max(assembly.best);
                    match assembled {
                        Assembled::Teams(teams) => {
                            return Region::Found(SearchOutcome::Match(anchor.region, teams));
                        }
                        Assembled::Nothing => return Region::Nothing,
                        Assembled::Cut(at) => {
                            *position = at;
                            return Region::Cut;
                        }
                    }
                }
            };
            search.stage = next;
        }
    }

    /// Returns the size of the largest party that can be in a match with the anchor.
    fn largest(&self, anchor: &Anchor<'_>) -> u8 {
        let own_team = self.config.team_size.saturating_sub(anchor.waiting.size());
        if self.config.teams > 1 { self.config.team_size } else { own_team }
    }

    /// Looks for free places in running rooms, the nearest by rating first.
    fn find_vacancy(&self, anchor: &Anchor<'_>, passed: &mut Passed, effort: &mut Effort<'_>) -> Found {
        let Some(tree) = self.pool.vacancies(anchor.region) else {
            effort.bugs.found("a region has no tree of vacancies");
            return Found::None;
        };
        let from = core::mem::take(passed);
        let ticket = &anchor.waiting.ticket;
        let mut walk = Nearest::new(tree, self.vacancies, ticket.rating, anchor.most, &from);
        loop {
            if effort.is_spent() {
                *passed = walk.passed();
                return Found::Cut;
            }
            let Some(entry) = walk.next() else { return Found::None };
            effort.spend(1);
            let Some(vacancy) = self.vacancies.get(entry.key) else {
                effort.bugs.found("a vacancy of a tree is not in the table");
                continue;
            };
            let distance = entry.rating.abs_diff(ticket.rating);
            if anchor.waiting.size() <= vacancy.places
                && self.config.rating.allows(distance, entry.queued, self.now)
                && vacancy.traits.agree(&ticket.traits)
                && !ticket.players().any(|player| vacancy.barred.contains(player))
            {
                return Found::One(entry.key);
            }
        }
    }

    /// Gathers the tickets of one size that agree with the anchor, the nearest by rating first.
    /// Returns true if all were seen.
    fn gather(
        &self,
        anchor: &Anchor<'_>,
        size: u8,
        passed: &mut Passed,
        kept: &mut Vec<Kept>,
        effort: &mut Effort<'_>,
    ) -> bool {
        let Some(tree) = self.pool.tickets(anchor.region, size) else {
            effort.bugs.found("a region has no tree of tickets");
            return true;
        };
        let from = core::mem::take(passed);
        let rating = anchor.waiting.ticket.rating;
        let mut walk = Nearest::new(tree, self.tickets, rating, anchor.most, &from);
        let mut found = kept.iter().rev().take_while(|kept| kept.size == size).count();
        while found < self.config.work.candidates.into() {
            if effort.is_spent() {
                *passed = walk.passed();
                return false;
            }
            let Some(entry) = walk.next() else { return true };
            effort.spend(1);
            if entry.key != anchor.key && self.agrees(anchor, entry, effort) {
                found += 1;
                let TreeEntry { key, queued, rating, .. } = *entry;
                kept.push(Kept { key, queued, rating, size, class: entry.class(), waits: true });
            }
        }
        true
    }

    /// Returns true if a ticket within the anchor's window also accepts the anchor, and the
    /// conditions of both are met.
    fn agrees(&self, anchor: &Anchor<'_>, entry: &TreeEntry, effort: &mut Effort<'_>) -> bool {
        let QueueConfig { rating, latency, .. } = self.config;
        let distance = entry.rating.abs_diff(anchor.waiting.ticket.rating);
        if !rating.allows(distance, entry.queued, self.now)
            || !latency.allows(entry.latency(), entry.queued, self.now)
        {
            return false;
        }
        let (one, other) = (anchor.waiting.class, entry.class());
        if !one.is_choosy() && !other.is_choosy() {
            return true;
        }
        effort.spend(1);
        let verdict = self.classes.agree(one, other);
        verdict.unwrap_or_else(|| self.traits_agree(effort.bugs, anchor.key, entry.key))
    }

    /// Returns true if two tickets meet the conditions of each other.
    pub(super) fn traits_agree(&self, bugs: &mut Bugs, one: Key, other: Key) -> bool {
        let (Some(one), Some(other)) = (self.tickets.get(one), self.tickets.get(other)) else {
            bugs.found("a ticket of a tree is not in the table");
            return false;
        };
        one.ticket.traits.agree(&other.ticket.traits)
    }
}

/// Outcome of the search in one region.
enum Region {
    Found(SearchOutcome),
    Nothing,
    Cut,
}

/// Outcome of the search over the vacancies.
enum Found {
    One(Key),
    None,
    Cut,
}
