//! The matching engine of one queue.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;

use super::class::{TicketClass, TicketClasses};
use super::config::QueueConfig;
use super::explain::Why;
use super::formed::{Backfill, Binding, Chosen, Formed, QueueOutput};
use super::players::Players;
use super::pool::Pool;
use super::quality::{Part, quality};
use super::queue_order::QueueOrder;
use super::search::{Began, Effort, SearchOutcome, SearchRun, SearchView, Waiting};
use super::ticket::{Reach, Ticket, TicketRefusal, Vacancy};
use super::tree::TreeEntry;
use crate::base::bug::Bugs;
use crate::base::config_error::ConfigError;
use crate::base::id::Name;
use crate::base::slab::{Key, Slab};
use crate::base::time::{Deadline, Instant};

/// The tickets of a queue, and the search for matches. See the [module](super) for the rules and
/// the guarantees.
#[derive(Debug)]
pub struct Engine {
    config: QueueConfig,
    now: Instant,
    tickets: Slab<Waiting>,
    /// Tickets by player, leaders and others.
    players: Players,
    /// Waiting tickets, oldest first.
    order: BTreeMap<QueueOrder, Key>,
    /// Classes of tickets with equal traits.
    classes: TicketClasses,
    vacancies: Slab<Vacancy>,
    /// Vacancies by room, each with its region.
    rooms: BTreeMap<Name, (u8, Key)>,
    pool: Pool,
    round: Option<Round>,
    /// Start of the last round.
    started: Option<Instant>,
    /// Number of arrivals and departures of tickets and vacancies.
    changes: u64,
    /// True if a ticket or vacancy has arrived or left, or a search was cut, since the last round
    /// started.
    unsettled: bool,
    /// Time from which all bounds are at their maximum.
    widens_until: Instant,
    outputs: VecDeque<QueueOutput>,
    stats: Stats,
    pub(super) bugs: Bugs,
}

/// A round, which searches for every ticket that was queued by its start, oldest first.
#[derive(Debug)]
struct Round {
    started: Instant,
    /// Last ticket that was searched for.
    passed: Option<QueueOrder>,
}

/// A ticket that is about to be taken for a match in a region.
#[derive(Clone, Copy, Debug)]
struct TicketFit {
    key: Key,
    rating: i32,
    latency: u32,
}

/// Counters since the start. At any time
/// `inserted + restored = matched + backfilled + removed + timed_out + waiting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tickets inserted.
    pub inserted: u64,
    /// Tickets restored after a match that was not committed.
    pub restored: u64,
    /// Tickets in matches.
    pub matched: u64,
    /// Tickets for free places of rooms.
    pub backfilled: u64,
    /// Tickets cancelled.
    pub removed: u64,
    /// Tickets that timed out.
    pub timed_out: u64,
    /// Tickets that wait now.
    pub waiting: usize,
    /// Current offers of free places.
    pub vacancies: usize,
    /// Matches formed.
    pub matches: u64,
    /// Rounds started.
    pub rounds: u64,
    /// Searches, including resumed ones.
    pub searches: u64,
    /// Searches that were cut, to be resumed in the next round.
    pub cut: u64,
    /// Looks at tickets, in total.
    pub looks: u64,
    /// Looks at tickets in the longest step.
    pub longest_step: u32,
}

impl Engine {
    /// Returns an empty queue.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn new(config: QueueConfig) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self::empty(config, Bugs::new()))
    }

    fn empty(config: QueueConfig, bugs: Bugs) -> Self {
        let limits = config.limits;
        Self {
            now: Instant::ZERO,
            tickets: Slab::new(limits.tickets + limits.reserve),
            players: Players::default(),
            order: BTreeMap::new(),
            classes: TicketClasses::default(),
            vacancies: Slab::new(limits.vacancies),
            rooms: BTreeMap::new(),
            pool: Pool::new(config.regions.len(), config.team_size),
            round: None,
            started: None,
            changes: 0,
            unsettled: false,
            widens_until: Instant::ZERO,
            outputs: VecDeque::new(),
            stats: Stats::default(),
            bugs,
            config,
        }
    }

    // Getters.

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> &QueueConfig {
        &self.config
    }

    /// Returns the waiting ticket of this leader.
    #[must_use]
    pub fn ticket(&self, leader: &Name) -> Option<&Ticket> {
        self.find(leader).map(|(_, waiting)| &waiting.ticket)
    }

    /// Returns the waiting ticket of this player, as leader or not.
    #[must_use]
    pub fn ticket_of(&self, player: &Name) -> Option<&Ticket> {
        self.tickets.get(self.key_of(player)?).map(|waiting| &waiting.ticket)
    }

    /// Returns the waiting tickets, oldest first.
    pub fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.order.values().filter_map(|key| self.tickets.get(*key)).map(|waiting| &waiting.ticket)
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { waiting: self.tickets.len(), vacancies: self.vacancies.len(), ..self.stats }
    }

    /// Explains why the ticket of this leader still waits; `None` if it does not wait. Looks at no
    /// more tickets than one search.
    #[must_use]
    pub fn explain(&self, now: Instant, leader: &Name) -> Option<Why> {
        let (key, waiting) = self.find(leader)?;
        Some(Why::of(&self.view(now), key, waiting))
    }

    /// Checks the bounds, and that the tables agree with each other.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, error: &'static str| if holds { Ok(()) } else { Err(error) };
        let Self { config, tickets, stats, .. } = self;
        let (mut players, mut reaches, mut classed) = (0, 0, 0);
        let candidates = usize::from(config.work.candidates) * usize::from(config.team_size);
        for waiting in tickets.keys().filter_map(|key| tickets.get(key)) {
            players += waiting.ticket.size();
            reaches += waiting.reach.len();
            classed += usize::from(waiting.class.is_known());
            let kept = waiting.search.as_ref().map_or(0, |search| search.kept());
            check(kept <= candidates, "a search remembers more than its candidates")?;
        }
        check(tickets.len() <= config.limits.tickets + config.limits.reserve, "too many tickets wait")?;
        check(self.vacancies.len() <= config.limits.vacancies, "too many vacancies are offered")?;
        check(self.order.len() == tickets.len(), "the order has other tickets than the table")?;
        check(self.players.len() == players, "a player is missing, or waits twice")?;
        check(self.classes.len() == classed, "a class counts other tickets than it has")?;
        check(self.rooms.len() == self.vacancies.len(), "a vacancy has no room, or a room two")?;
        check(self.pool.len() == (reaches, self.vacancies.len()), "the trees differ from the tables")?;
        let most = config.work.step.saturating_add(config.work.search);
        // The last look may be one at several tickets: the conditions of a whole match.
        check(
            stats.longest_step
                <= most.saturating_add(config.players() + u32::from(config.work.candidates) * 4),
            "a step was longer than it may be",
        )?;
        let came = stats.inserted + stats.restored;
        let left = stats.matched + stats.backfilled + stats.removed + stats.timed_out;
        check(came == left + tickets.len() as u64, "a ticket was lost, or answered twice")
    }

    // Commands.

    /// Starts again with an empty queue. Broken invariants are still reported.
    pub(super) fn clear(&mut self) {
        let bugs = core::mem::replace(&mut self.bugs, Bugs::new());
        *self = Self::empty(self.config.clone(), bugs);
    }

    /// Adds a ticket.
    ///
    /// # Errors
    /// The reason of the refusal; nothing has changed.
    pub fn insert(&mut self, now: Instant, ticket: Ticket) -> Result<(), TicketRefusal> {
        self.add(now, ticket, self.config.limits.tickets)?;
        self.stats.inserted += 1;
        Ok(())
    }

    /// Adds a ticket again, after a match that could not be committed. The ticket keeps its place
    /// in the order. A reserve of places beyond the cap of new tickets is kept for restored
    /// tickets.
    ///
    /// # Errors
    /// The reason of the refusal; nothing has changed.
    pub fn restore(&mut self, now: Instant, ticket: Ticket) -> Result<(), TicketRefusal> {
        self.add(now, ticket, self.config.limits.tickets + self.config.limits.reserve)?;
        self.stats.restored += 1;
        Ok(())
    }

    /// Removes the ticket of this leader; returns `None` if it does not wait.
    pub fn remove(&mut self, leader: &Name) -> Option<Ticket> {
        let (key, _) = self.find(leader)?;
        let ticket = self.take(key)?.ticket;
        self.stats.removed += 1;
        Some(ticket)
    }

    /// Adds an offer of free places of a room, in place of an earlier offer of the room.
    ///
    /// # Errors
    /// The reason of the refusal; nothing has changed.
    pub fn offer_vacancy(&mut self, now: Instant, vacancy: Vacancy) -> Result<(), TicketRefusal> {
        self.now = self.now.max(now);
        let region = vacancy.admit(&self.config, self.now)?;
        // The new offer has the place of the earlier one, if there is one.
        self.withdraw_vacancy(&vacancy.room);
        let (room, rating, queued) = (vacancy.room.clone(), vacancy.rating, vacancy.offered);
        let class = TicketClass::none(&vacancy.traits);
        let key = self.vacancies.insert(vacancy).ok_or(TicketRefusal::Full)?;
        self.notice(queued);
        match self.pool.vacancies_mut(region) {
            Some(tree) => tree.insert(TreeEntry::new(key, (rating, queued), 0, class), &self.vacancies),
            None => self.bugs.found("a region has no tree of vacancies"),
        }
        self.rooms.insert(room, (region, key));
        Ok(())
    }

    /// Removes the offer of a room that has no free places any more or admits nobody; returns
    /// `None` if the room had no offer.
    pub fn withdraw_vacancy(&mut self, room: &Name) -> Option<Vacancy> {
        let (region, key) = self.rooms.remove(room)?;
        let Some(Vacancy { rating, offered, .. }) = self.vacancies.get(key) else {
            self.bugs.found("a vacancy of a room is not in the table");
            return None;
        };
        let tree = self.pool.vacancies_mut(region);
        if !tree.is_some_and(|tree| tree.remove(key, (*rating, *offered), &self.vacancies)) {
            self.bugs.found("a vacancy is not in the tree of its region");
        }
        self.vacancies.remove(key)
    }

    // Inputs.

    /// Executes one bounded step, if a deadline is due. Does nothing while output is queued.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if !self.outputs.is_empty() {
            return;
        }
        let mut looks = self.time_out();
        if self.round.is_none() && self.next_round().is_some_and(|at| at <= self.now) {
            self.round = Some(Round { started: self.now, passed: None });
            self.started = Some(self.now);
            self.unsettled = false;
            self.stats.rounds += 1;
        }
        while looks < self.config.work.step {
            let Some(key) = self.next_in_round() else { break };
            looks = looks.saturating_add(self.search(key));
        }
        self.stats.looks += u64::from(looks);
        self.stats.longest_step = self.stats.longest_step.max(looks);
    }

    // Outputs.

    /// Returns the next decision.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<QueueOutput> {
        self.outputs.pop_front()
    }

    /// Returns the time at which to call [`Self::handle_timeout`], and the reason. `None` while the
    /// passing of time can change nothing.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.outputs.is_empty() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        if self.round.is_some() {
            return Some(Deadline::new(self.now, "searches are left in this round"));
        }
        let next = self.next_round().map(|at| Deadline::new(at, "the next round of searches"));
        let oldest = self.order.first_key_value().map(|(order, _)| order.queued);
        let time_out =
            oldest.map(|queued| Deadline::new(queued + self.config.time_out, "the oldest ticket times out"));
        Deadline::earliest(next, time_out)
    }

    // Parts.

    fn view(&self, now: Instant) -> SearchView<'_> {
        let Self { config, tickets, classes, vacancies, pool, .. } = self;
        SearchView { config, tickets, classes, vacancies, pool, now }
    }

    fn find(&self, leader: &Name) -> Option<(Key, &Waiting)> {
        let key = self.key_of(leader)?;
        let waiting = self.tickets.get(key)?;
        (waiting.ticket.leader == *leader).then_some((key, waiting))
    }

    /// Returns the ticket that this player waits with.
    fn key_of(&self, player: &Name) -> Option<Key> {
        let holds = |waiting: &Waiting| waiting.ticket.players().any(|other| other == player);
        self.players.get(player, |key| self.tickets.get(key).is_some_and(holds))
    }

    fn change(&mut self) {
        self.changes += 1;
        self.unsettled = true;
    }

    /// Returns true if no new match can have become possible since a search began.
    fn still_holds(&self, began: Began) -> bool {
        began.changes == self.changes && began.at >= self.widens_until
    }

    /// Notes the arrival of a ticket or vacancy that waits since `queued`.
    fn notice(&mut self, queued: Instant) {
        self.change();
        let Self { config, widens_until, .. } = self;
        *widens_until = config.rating.done(queued).max(config.latency.done(queued)).max(*widens_until);
    }

    fn add(&mut self, now: Instant, mut ticket: Ticket, cap: usize) -> Result<(), TicketRefusal> {
        self.now = self.now.max(now);
        let reach = ticket.admit(&self.config, self.now)?;
        if let Some(player) = ticket.players().find(|player| self.key_of(player).is_some()) {
            return Err(TicketRefusal::AlreadyQueued(player.clone()));
        }
        if self.tickets.len() >= cap {
            return Err(TicketRefusal::Full);
        }
        let class = self.classes.join(&ticket.traits);
        let waiting = Waiting { ticket, reach, class, search: None, searched: None, best: None };
        let (size, rank) = (waiting.size(), waiting.rank());
        let place = self.tickets.insert(waiting);
        let Some((key, waiting)) = place.and_then(|key| Some((key, self.tickets.get(key)?))) else {
            self.bugs.found("a table of tickets is full that has a place");
            self.classes.leave(class);
            return Err(TicketRefusal::Full);
        };
        for player in waiting.ticket.players() {
            self.players.insert(player, key);
        }
        for Reach { region, latency } in &waiting.reach {
            match self.pool.tickets_mut(*region, size) {
                Some(tree) => tree.insert(TreeEntry::new(key, rank, *latency, class), &self.tickets),
                None => self.bugs.found("a region has no tree of tickets"),
            }
        }
        self.order.insert(waiting.queue_order(), key);
        self.notice(waiting.ticket.queued);
        Ok(())
    }

    /// Removes a ticket, which must wait, from all tables. Other tickets may come into reach of
    /// searches by that.
    fn take(&mut self, key: Key) -> Option<Waiting> {
        let Some(waiting) = self.tickets.get(key) else {
            self.bugs.found("a ticket that is taken is not in the table");
            return None;
        };
        let (rank, size) = (waiting.rank(), waiting.size());
        for reach in &waiting.reach {
            let tree = self.pool.tickets_mut(reach.region, size);
            if !tree.is_some_and(|tree| tree.remove(key, rank, &self.tickets)) {
                self.bugs.found("a ticket is not in the tree of a region");
            }
        }
        for player in waiting.ticket.players() {
            self.players.remove(player);
        }
        self.order.remove(&waiting.queue_order());
        if !self.classes.leave(waiting.class) {
            self.bugs.found("a class of tickets has lost a ticket");
        }
        self.change();
        self.tickets.remove(key)
    }

    /// Times out tickets that have waited for too long, as many as a step permits. Returns their
    /// number.
    fn time_out(&mut self) -> u32 {
        let mut given_up = 0;
        while given_up < self.config.work.step
            && let Some(oldest) = self.order.first_entry()
            && oldest.key().queued + self.config.time_out <= self.now
        {
            let key = oldest.remove();
            if let Some(waiting) = self.take(key) {
                self.outputs.push_back(QueueOutput::TimedOut(waiting.ticket.leader));
                self.stats.timed_out += 1;
            }
            given_up += 1;
        }
        given_up
    }

    /// Returns the start of the next round; `None` if the round could find nothing that the last
    /// one did not find.
    fn next_round(&self) -> Option<Instant> {
        if self.tickets.len() == 0 {
            return None;
        }
        match self.started {
            None => Some(self.now),
            Some(started) if self.unsettled || started < self.widens_until => {
                Some(started + self.config.interval)
            }
            Some(_) => None,
        }
    }

    /// Returns the next ticket of the round; `None` if there is no round, or the round is over.
    fn next_in_round(&mut self) -> Option<Key> {
        let round = self.round.as_mut()?;
        let from = round.passed.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.order.range((from, Bound::Unbounded)).next();
        match next.filter(|(order, _)| order.queued <= round.started) {
            Some((order, key)) => {
                round.passed = Some(order.clone());
                Some(*key)
            }
            None => {
                self.round = None;
                None
            }
        }
    }

    /// Searches for one ticket. Returns the number of looks at tickets.
    fn search(&mut self, key: Key) -> u32 {
        let Some(waiting) = self.waiting(key) else { return 1 };
        let (resumed, searched) = (waiting.search.take(), waiting.searched);
        if resumed.is_none() && searched.is_some_and(|began| self.still_holds(began)) {
            return 1;
        }
        let Self { config, tickets, classes, vacancies, pool, bugs, now, changes, .. } = self;
        let view = SearchView { config, tickets, classes, vacancies, pool, now: *now };
        let Some(waiting) = tickets.get(key) else { return 1 };
        let fresh = || SearchRun::new(Began { at: *now, changes: *changes });
        let search = resumed.map_or_else(fresh, |search| *search);
        let began = search.began();
        let mut effort = Effort::new(config.work.search, bugs);
        let outcome = view.search((key, waiting), search, &mut effort);
        let looks = effort.spent();
        self.stats.searches += 1;
        match outcome {
            SearchOutcome::Match(region, teams) => self.form(region, &teams),
            SearchOutcome::Vacancy(region, vacancy) => self.backfill(key, region, vacancy),
            SearchOutcome::Nothing(best) => {
                // A ticket that arrived while the search was cut may be in a part that the search
                // has passed.
                self.unsettled |= !self.still_holds(began);
                if let Some(waiting) = self.waiting(key) {
                    (waiting.searched, waiting.best) = (Some(began), best);
                }
            }
            SearchOutcome::Cut(search) => self.cut(key, search),
        }
        looks
    }

    /// Returns a ticket that the order or a search names.
    #[track_caller]
    fn waiting(&mut self, key: Key) -> Option<&mut Waiting> {
        let waiting = self.tickets.get_mut(key);
        if waiting.is_none() {
            self.bugs.found("a ticket of the order is not in the table");
        }
        waiting
    }

    fn cut(&mut self, key: Key, search: Box<SearchRun>) {
        self.stats.cut += 1;
        self.unsettled = true;
        if let Some(waiting) = self.waiting(key) {
            waiting.search = Some(search);
        }
    }

    fn form(&mut self, region: u8, teams: &[Vec<Key>]) {
        let Some(name) = self.config.regions.get(usize::from(region)).cloned() else {
            return self.bugs.found("a match is in no region of its queue");
        };
        let fits = teams.iter().map(|team| team.iter().map(|key| self.fit_of(*key, region)).collect());
        let Some(fits) = fits.collect::<Option<Vec<Vec<TicketFit>>>>() else {
            return self.bugs.found("a ticket of a match does not wait, or not for its region");
        };
        let ratings = || fits.iter().flatten().map(|fit| fit.rating);
        let (Some(least), Some(most)) = (ratings().min(), ratings().max()) else {
            return self.bugs.found("a match has no tickets");
        };
        let mut chosen: Vec<Vec<Chosen>> = Vec::with_capacity(teams.len());
        for team in &fits {
            chosen.push(team.iter().filter_map(|fit| self.choose(*fit, (least, most))).collect());
        }
        let part = |chosen: &Chosen| Part {
            what: (),
            size: u8::try_from(chosen.ticket.size()).unwrap_or(u8::MAX),
            rating: chosen.ticket.rating,
        };
        let parts: Vec<Vec<_>> = chosen.iter().map(|team| team.iter().map(part).collect()).collect();
        let Some(binding) = Binding::of(&self.config, chosen.iter().flatten()) else {
            return self.bugs.found("a match has no tickets");
        };
        self.stats.matches += 1;
        self.stats.matched += chosen.iter().map(Vec::len).sum::<usize>() as u64;
        let quality = quality(&self.config, &parts);
        self.outputs.push_back(QueueOutput::Match(Formed { teams: chosen, region: name, quality, binding }));
    }

    fn backfill(&mut self, key: Key, region: u8, vacancy: Key) {
        let Some(fit) = self.fit_of(key, region) else {
            return self.bugs.found("a ticket for a vacancy does not wait, or not for its region");
        };
        let room = self.vacancies.get(vacancy).map(|vacancy| vacancy.room.clone());
        let Some(vacancy) = room.and_then(|room| self.withdraw_vacancy(&room)) else {
            return self.bugs.found("a vacancy that was found is not offered");
        };
        let range = (vacancy.rating, vacancy.rating);
        let Some(chosen) = self.choose(fit, range) else { return };
        let binding = Binding::of_backfill(&self.config, &vacancy, &chosen);
        self.stats.backfilled += 1;
        let quality = self.config.quality.of(chosen.rating.needed, 0, self.config.team_size);
        self.outputs.push_back(QueueOutput::Backfill(Box::new(Backfill {
            vacancy,
            chosen,
            quality,
            binding,
        })));
    }

    /// Returns the fit of a ticket in a region; `None` if the ticket does not wait, or the region is
    /// out of its reach.
    fn fit_of(&self, key: Key, region: u8) -> Option<TicketFit> {
        let Waiting { ticket, reach, .. } = self.tickets.get(key)?;
        let reach = reach.iter().find(|reach| reach.region == region)?;
        Some(TicketFit { key, rating: ticket.rating, latency: reach.latency })
    }

    /// Takes a ticket for a match with ratings in a range.
    fn choose(&mut self, fit: TicketFit, range: (i32, i32)) -> Option<Chosen> {
        let Waiting { ticket, .. } = self.take(fit.key)?;
        Some(Chosen::new(&self.config, self.now, ticket, range, fit.latency))
    }
}
