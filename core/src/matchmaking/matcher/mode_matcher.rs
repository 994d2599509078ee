//! The matcher of one mode, elected or not.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use super::backfill::{Backfilling, Offers};
use super::consuming::MatchedGroup;
use super::forming::Forming;
use super::sweep::{Running, Sweep};
use super::task::{MatcherTask, TaskKind, TicketEnd};
use super::waiting_tickets::{Due, GroupKey, GroupPlace, WaitingTickets};
use super::{Fence, MatcherDecision, Standing, Stats};
use crate::base::backoff::Spread;
use crate::base::bug::{Bug, Bugs};
use crate::base::id::{Name, NodeId};
use crate::base::plant::Planted;
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::matchmaking::config::QueueConfig;
use crate::matchmaking::engine::Engine;
use crate::matchmaking::formed::{Backfill, Formed, QueueOutput};
use crate::matchmaking::record::{self, MAX_ITEMS};
use crate::matchmaking::settings::MatchmakingConfig;
use crate::matchmaking::ticket::{Ticket, TicketRefusal};
use crate::registry::{CallNumbers, Calls, LeaseId, RegistryCommand, WatchId};

/// Maximum number of groups with due deadlines in one step.
const STEP: usize = 256;

/// Time from one listing to the next, while tickets have no place and some places are free. With
/// half of the places free, the next listing starts earlier.
pub(super) const LIST_AGAIN: Duration = Duration::from_secs(5);

/// Forms the matches of one mode, while elected.
#[derive(Debug)]
pub(super) struct ModeMatcher {
    pub(super) config: MatchmakingConfig,
    pub(super) rules: QueueConfig,
    pub(super) node: NodeId,
    pub(super) now: Now,
    pub(super) lease: Option<LeaseId>,
    pub(super) leadership: Leadership,
    /// True if the key of elections is being read, or must be.
    pub(super) claiming: bool,
    pub(super) key_watch: Option<WatchId>,
    pub(super) queue_watch: Option<WatchId>,
    /// True if all tickets are known and watched.
    pub(super) listed: bool,
    /// Time of the next listing, if some tickets have no place.
    pub(super) list_at: Instant,
    pub(super) waiting: WaitingTickets,
    engine: Engine,
    pub(super) calls: Calls<MatcherTask>,
    pub(super) rng: Rng,
    /// Wait before a failed request is repeated.
    pub(super) backoff: Spread,
    /// Requests to be sent when the number of open requests permits.
    backlog: VecDeque<MatcherTask>,
    /// Requests to be repeated, by time.
    retries: BTreeMap<(Instant, u64), MatcherTask>,
    /// Matches whose transactions are under way.
    pub(super) forming: usize,
    /// Tickets that are still to end, by the transaction of their group.
    pub(super) ending: BTreeMap<u64, usize>,
    serial: u64,
    matches: u64,
    offers: Offers,
    pub(super) sweep: Sweep,
    pub(super) decisions: VecDeque<MatcherDecision>,
    pub(super) stats: Stats,
    pub(super) planted: Planted,
    pub(super) bugs: Bugs,
}

/// Role of this node in its mode.
#[derive(Debug)]
pub(super) enum Leadership {
    /// None, or not known yet.
    None,
    /// Another node is the matcher.
    Follows,
    /// This node is the matcher.
    Leads(Fence),
}

impl ModeMatcher {
    /// Returns the matcher of a mode; `None` if the queue's configuration is not valid.
    pub(super) fn new(
        config: &MatchmakingConfig,
        queue: &QueueConfig,
        node: NodeId,
        seed: Seed,
        numbers: CallNumbers,
    ) -> Option<Self> {
        let mut rules = queue.clone();
        // Caps for the joined traits of a party's players, or of a running match.
        let most = MAX_ITEMS * rules.players() as usize;
        rules.limits.conditions = rules.limits.conditions.max(most);
        rules.limits.attributes = rules.limits.attributes.max(MAX_ITEMS);
        rules.limits.tickets = config.tickets;
        let engine = Engine::new(rules.clone()).ok()?;
        let waiting = WaitingTickets::new(&rules, config);
        let backoff = Spread::new(config.backoff_min, config.backoff_max);
        Some(Self {
            config: config.clone(),
            rules,
            node,
            now: Now::default(),
            lease: None,
            leadership: Leadership::None,
            claiming: false,
            key_watch: None,
            queue_watch: None,
            listed: false,
            list_at: Instant::ZERO,
            waiting,
            engine,
            calls: Calls::new(numbers),
            rng: Rng::new(seed),
            backoff,
            backlog: VecDeque::new(),
            retries: BTreeMap::new(),
            forming: 0,
            ending: BTreeMap::new(),
            serial: 0,
            matches: 0,
            offers: Offers::default(),
            sweep: Sweep::default(),
            decisions: VecDeque::new(),
            stats: Stats::default(),
            planted: Planted::default(),
            bugs: Bugs::new(),
        })
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(super) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.bugs.plant(planted);
        self.engine.bugs.plant(planted);
    }

    // Getters.

    pub(super) const fn mode(&self) -> &Name {
        &self.rules.mode
    }

    pub(super) const fn fence(&self) -> Option<&Fence> {
        if let Leadership::Leads(fence) = &self.leadership { Some(fence) } else { None }
    }

    pub(super) const fn is_elected(&self) -> bool {
        self.fence().is_some()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            elected: self.is_elected().into(),
            tickets: self.waiting.len(),
            under_way: self.calls.len(),
            ..self.stats
        }
    }

    pub(super) fn explain(&self, now: Instant, player: &Name) -> Option<Standing> {
        let key = self.waiting.key_of(player)?;
        let group = self.waiting.group(key)?;
        if let GroupPlace::Out = group.place
            && let Some((absent, since, until)) = self.waiting.absent(key, player)
        {
            let (away, left) = (now.since(since), until.since(now));
            return Some(Standing::Absent { player: absent.clone(), away, left });
        }
        match &group.place {
            GroupPlace::Engine(leader) => self.engine.explain(now, leader).map(Standing::Waits),
            GroupPlace::Busy(_) | GroupPlace::Awaited => Some(Standing::Decides),
            GroupPlace::Out => {
                let (here, of) = group.filled();
                Some(Standing::Gathers { here, of })
            }
        }
    }

    pub(super) fn audit(&self) -> Result<(), &'static str> {
        self.engine.audit()?;
        self.waiting.audit()?;
        if self.calls.len() > self.config.calls {
            return Err("the matcher has too many requests under way");
        }
        Ok(())
    }

    // Inputs and outputs; answers and reports of the registry are handled in `replies`.

    pub(super) fn set_lease(&mut self, now: Now, lease: Option<LeaseId>) {
        self.now = now;
        if self.lease != lease {
            self.stop();
            self.lease = lease;
            self.claim();
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        while let Some(entry) = self.retries.first_entry() {
            if entry.key().0 > now.instant {
                break;
            }
            let task = entry.remove();
            self.ask_again(task);
        }
        if self.is_elected() {
            self.settle();
            self.sweep_on_time();
            for _ in 0..STEP {
                let due = self.waiting.take_due(&mut self.bugs, now.instant);
                let Some(Due { key, state, players }) = due else { break };
                self.end(key, state, &players);
            }
            if self.can_search() && self.engine.poll_timeout().is_some_and(|next| next.at <= now.instant) {
                self.engine.handle_timeout(now.instant);
                self.take_outputs();
            }
        }
        self.drive();
    }

    pub(super) fn poll_call(&mut self) -> Option<RegistryCommand> {
        self.calls.poll()
    }

    pub(super) fn poll_decision(&mut self) -> Option<MatcherDecision> {
        self.decisions.pop_front()
    }

    #[cfg(test)]
    pub(super) fn find_bugs(&mut self, what: &'static str) {
        for bugs in [&mut self.bugs, &mut self.engine.bugs] {
            *bugs = Bugs::lenient();
            bugs.found(what);
        }
    }

    pub(super) fn poll_bug(&mut self) -> Option<Bug> {
        self.bugs.poll().or_else(|| self.engine.bugs.poll())
    }

    pub(super) const fn bugs_found(&self) -> u64 {
        self.bugs.count() + self.engine.bugs.count()
    }

    pub(super) fn poll_timeout(&self) -> Option<Deadline> {
        let has_bugs = self.bugs.has_news() || self.engine.bugs.has_news();
        if self.calls.is_queued() || !self.decisions.is_empty() || has_bugs {
            return Some(Deadline::new(self.now.instant, "output is queued"));
        }
        let retry = self.retries.keys().next();
        let retry = retry.map(|(at, _)| Deadline::new(*at, "a request of the matcher is made again"));
        if !self.is_elected() {
            return retry;
        }
        let search = if self.can_search() { self.engine.poll_timeout() } else { None };
        let due = self.waiting.next().map(|at| Deadline::new(at, "a ticket times out, or a party is lost"));
        let sweep = self.sweep.next.map(|at| Deadline::new(at, "matches that are over are looked for"));
        let list = self.listed && self.waiting.has_place_again();
        let list = list.then(|| Deadline::new(self.list_at, "tickets that had no place are looked for"));
        [search, due, sweep, list].into_iter().fold(retry, Deadline::earliest)
    }

    // The election.

    /// Claims the election, or reads the elected node.
    pub(super) fn claim(&mut self) {
        if self.lease.is_some() && !self.claiming {
            self.claiming = true;
            self.ask(MatcherTask::new(TaskKind::Claim));
        }
    }

    /// Claims after a wait.
    pub(super) fn claim_later(&mut self) {
        if !self.claiming {
            self.claiming = true;
            self.retry(MatcherTask::new(TaskKind::Claim));
        }
    }

    /// Starts after the election of this node.
    pub(super) fn lead(&mut self, epoch: u64, lease: LeaseId) {
        let mode = self.mode().clone();
        self.decisions.push_back(MatcherDecision::Elected { mode: mode.clone(), epoch });
        self.stats.elections += 1;
        self.leadership = Leadership::Leads(Fence { mode, epoch, lease, planted: self.planted });
        self.sweep.next = Some(self.now.instant + self.config.sweep_interval);
        self.reload();
        self.ask(MatcherTask::list());
    }

    /// Stops and claims again, after another election was found.
    pub(super) fn depose(&mut self) {
        self.stop();
        self.claim();
    }

    /// Stops at once, and drops all state.
    pub(super) fn stop(&mut self) {
        if self.is_elected() {
            self.decisions.push_back(MatcherDecision::Deposed { mode: self.mode().clone() });
        }
        self.leadership = Leadership::None;
        self.claiming = false;
        if let Some(watch) = self.key_watch.take() {
            self.calls.unwatch(watch);
        }
        self.reload();
    }

    /// Drops all tickets and their open requests. A listing must follow.
    pub(super) fn reload(&mut self) {
        self.calls.forget();
        self.backlog.clear();
        self.retries.clear();
        if let Some(watch) = self.queue_watch.take() {
            self.calls.unwatch(watch);
        }
        self.listed = false;
        self.waiting = WaitingTickets::new(&self.rules, &self.config);
        self.engine.clear();
        self.forming = 0;
        self.ending.clear();
        self.offers = Offers::default();
        // An interrupted sweep starts again.
        self.sweep.next.get_or_insert(self.now.instant);
        if core::mem::take(&mut self.claiming) {
            self.claim();
        }
    }

    // Tickets.

    /// Passes changed groups to the engine, or takes them back.
    pub(super) fn settle(&mut self) {
        while let Some(leader) = self.waiting.take_displaced() {
            self.take_from_engine(&leader);
        }
        // Every changed group leaves the engine before one of them enters: a player may have moved
        // from one to another, and one may have the place of another.
        let changed: Vec<GroupKey> = core::iter::from_fn(|| self.waiting.take_dirty()).collect();
        changed.iter().for_each(|key| self.take_out(key));
        changed.into_iter().for_each(|key| self.settle_group(key));
        let is_due = self.waiting.has_place_again() && self.list_at <= self.now.instant;
        if self.listed && (is_due || self.waiting.is_half_empty()) {
            if let Some(watch) = self.queue_watch.take() {
                self.calls.unwatch(watch);
            }
            self.listed = false;
            self.waiting.begin_listing();
            self.ask(MatcherTask::list());
        }
    }

    fn take_from_engine(&mut self, leader: &Name) {
        if self.engine.remove(leader).is_none() {
            self.bugs.found("a group of tickets is not in the engine");
        }
    }

    /// Takes a changed group out of the engine.
    fn take_out(&mut self, key: &GroupKey) {
        let Some(group) = self.waiting.reopen(&mut self.bugs, key) else { return };
        if let GroupPlace::Engine(leader) = &group.place {
            let leader = leader.clone();
            group.place = GroupPlace::Out;
            self.take_from_engine(&leader);
        }
    }

    /// Passes a changed group to the engine, if the group is complete.
    fn settle_group(&mut self, key: GroupKey) {
        let Some(group) = self.waiting.reopen(&mut self.bugs, &key) else { return };
        let (is_free, returns) = (group.place == GroupPlace::Out, core::mem::take(&mut group.returns));
        if self.waiting.drop_empty(&key) || !is_free {
            return;
        }
        let Some(members) = self.waiting.complete(&key) else {
            return self.waiting.keep(&mut self.bugs, &key);
        };
        let parts: Vec<(&Name, &v1::Queue)> = members
            .iter()
            .filter_map(|(name, ticket)| Some((*name, ticket.record.queue.as_ref()?)))
            .collect();
        let queued = members.first().map_or(self.now.instant, |(_, ticket)| ticket.queued);
        let players: Vec<Name> = members.iter().map(|(name, _)| (*name).clone()).collect();
        let ticket = match record::ticket(&self.config, &self.rules, &parts, queued) {
            Ok(ticket) if ticket.size() == players.len() => ticket,
            _ => return self.end(key, TicketState::Refused, &players),
        };
        let leader = ticket.leader.clone();
        let now = self.now.instant;
        let taken = if returns { self.engine.restore(now, ticket) } else { self.engine.insert(now, ticket) };
        match taken {
            Ok(()) => {
                if let Some(group) = self.waiting.reopen(&mut self.bugs, &key) {
                    group.place = GroupPlace::Engine(leader);
                }
            }
            Err(TicketRefusal::Full) => {
                self.bugs.found("the engine has fewer places than its matcher");
                self.waiting.keep(&mut self.bugs, &key);
            }
            Err(_) => self.end(key, TicketState::Refused, &players),
        }
    }

    /// Ends tickets of a group, as far as these players still have tickets in the group.
    pub(super) fn end(&mut self, key: GroupKey, state: TicketState, players: &[Name]) {
        self.serial += 1;
        let serial = self.serial;
        let end = |player: &Name| {
            let ticket = self.waiting.member(&key, player)?;
            let record = v1::TicketRecord { state: state.into(), ..ticket.record.clone() };
            let (key, player) = (key.clone(), player.clone());
            Some(MatcherTask::new(TaskKind::End(TicketEnd {
                serial,
                key,
                player,
                state,
                modified: ticket.modified,
                record,
            })))
        };
        let ends: Vec<MatcherTask> = players.iter().filter_map(end).collect();
        if ends.is_empty() {
            return;
        }
        self.waiting.engage(&mut self.bugs, &key, serial);
        self.ending.insert(serial, ends.len());
        self.backlog.extend(ends);
    }

    // Matches.

    /// Returns true if a search may start: not too many matches wait for their transactions.
    fn can_search(&self) -> bool {
        self.listed && self.is_elected() && self.forming < self.config.calls
    }

    fn take_outputs(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                QueueOutput::Match(formed) => self.form(&formed),
                QueueOutput::TimedOut(leader) => self.time_out(&leader),
                QueueOutput::Backfill(backfill) => self.backfill(&backfill),
            }
        }
        self.settle();
    }

    fn time_out(&mut self, leader: &Name) {
        let key = self.waiting.key_of(leader);
        let found = key.and_then(|key| Some((key.clone(), self.waiting.complete(key)?)));
        let Some((key, members)) = found else {
            return self.bugs.found("a group that times out in the engine is not complete");
        };
        let players: Vec<Name> = members.into_iter().map(|(name, _)| name.clone()).collect();
        self.end(key, TicketState::TimedOut, &players);
    }

    /// Returns the group of a ticket that the engine has chosen.
    fn chosen(&self, ticket: &Ticket) -> Option<MatchedGroup> {
        MatchedGroup::of(ticket, &self.waiting, self.now.wall)
    }

    fn form(&mut self, formed: &Formed) {
        let Leadership::Leads(fence) = &self.leadership else {
            return self.bugs.found("a match is found by a node that is not the matcher");
        };
        let Some(groups) = formed.tickets().map(|ticket| self.chosen(ticket)).collect() else {
            return self.bugs.found("the engine has chosen a ticket that is not known");
        };
        self.serial += 1;
        self.matches += 1;
        // The first two parts are unique as long as the registry keeps its data, and the third
        // makes the name unique even after that.
        let id = format!("{:x}-{:x}-{:016x}", fence.epoch, self.matches, self.rng.u64());
        let (wall, backfill) = (self.now.wall, self.rules.backfill);
        let forming = Forming::new(formed, groups, fence, wall, self.serial, id, backfill);
        for key in forming.groups() {
            self.waiting.engage(&mut self.bugs, key, forming.serial);
        }
        self.forming += 1;
        self.backlog.push_back(MatcherTask::new(TaskKind::Form(forming)));
    }

    fn backfill(&mut self, backfill: &Backfill) {
        let Leadership::Leads(fence) = &self.leadership else {
            return self.bugs.found("places are filled by a node that is not the matcher");
        };
        let Some(group) = self.chosen(&backfill.chosen.ticket) else {
            return self.bugs.found("the engine has chosen a ticket that is not known");
        };
        let Some(of_match) = self.offers.withdraw(&backfill.vacancy.room) else {
            self.bugs.found("the engine has chosen a room that is not offered");
            return self.waiting.take_back(&mut self.bugs, &group.key);
        };
        self.serial += 1;
        let key = group.key.clone();
        let Some(backfilling) = Backfilling::new(backfill, &of_match, group, fence, self.serial) else {
            return self.waiting.take_back(&mut self.bugs, &key);
        };
        self.waiting.engage(&mut self.bugs, &key, backfilling.serial);
        self.forming += 1;
        self.backlog.push_back(MatcherTask::new(TaskKind::Backfill(backfilling)));
    }

    /// Offers the free places of a running match, in place of an earlier offer of the match.
    pub(super) fn offer(&mut self, running: Running) {
        if !self.rules.backfill {
            return;
        }
        let (room, now) = (running.swept.room.clone(), self.now.instant);
        self.engine.withdraw_vacancy(&room);
        // A match that the engine refuses is offered again by the next sweep.
        if let Some(vacancy) = self.offers.offer(&self.rules, now, running)
            && self.engine.offer_vacancy(now, vacancy).is_err()
        {
            self.offers.withdraw(&room);
        }
    }

    /// Withdraws the offer of a match that is over.
    pub(super) fn withdraw(&mut self, room: &Name) {
        self.engine.withdraw_vacancy(room);
        self.offers.withdraw(room);
    }

    fn sweep_on_time(&mut self) {
        if self.sweep.next.is_some_and(|at| at <= self.now.instant) {
            let request = self.sweep.begin();
            self.backlog.push_back(MatcherTask::new(TaskKind::SweepPage(request)));
        }
    }

    // Requests.

    /// Sends requests, as far as their number permits. Two are reserved for elections and listings.
    pub(super) fn drive(&mut self) {
        while self.calls.len() + 2 < self.config.calls {
            let Some(task) = self.backlog.pop_front() else { return };
            self.ask(task);
        }
    }

    pub(super) fn ask_later(&mut self, task: MatcherTask) {
        self.backlog.push_back(task);
    }

    /// Repeats a request after a wait.
    pub(super) fn retry(&mut self, mut task: MatcherTask) {
        task.failures = task.failures.saturating_add(1);
        let at = self.now.instant + self.backoff.after(task.failures, &mut self.rng);
        self.serial += 1;
        self.retries.insert((at, self.serial), task);
    }

    fn ask_again(&mut self, task: MatcherTask) {
        match task.what {
            TaskKind::Claim | TaskKind::List { .. } => self.ask(task),
            _ => self.backlog.push_front(task),
        }
    }

    pub(super) fn ask(&mut self, task: MatcherTask) {
        let Some(request) = self.request(&task.what) else {
            return self.bugs.found("a request of a matcher lacks the lease or the election");
        };
        self.calls.send(request, task);
    }
}
