//! Handling of the registry's answers and reports by the matcher of one mode.

use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use super::MatcherDecision;
use super::attendance::AttendanceUpdate;
use super::backfill::Backfilling;
use super::consuming::ConsumeOutcome;
use super::forming::Forming;
use super::mode_matcher::{LIST_AGAIN, Leadership, ModeMatcher};
use super::sweep::{Finding, SweptMatch};
use super::task::{MatcherTask, TaskKind, TicketEnd};
use crate::base::id::Name;
use crate::base::plant::Plant;
use crate::base::time::Now;
use crate::matchmaking::keys::{self, Kind};
use crate::matchmaking::record::decode;
use crate::registry::{Answer, Change, Error, Failure, KeyValue, News, RegistryEvent, Response, Span, Watch};

/// Broken invariant: the end of an election closes the requests that were made under it.
const UNELECTED: &str = "an answer has outlived the election of its matcher";

/// Returns true if the registry refuses requests of this size.
const fn is_too_large(failure: Failure) -> bool {
    matches!(failure, Failure::Refused(Error::TooManyOps | Error::TooLarge))
}

impl ModeMatcher {
    /// Handles an event of this matcher; returns any other event.
    pub(super) fn handle_event(&mut self, now: Now, event: RegistryEvent) -> Option<RegistryEvent> {
        match event {
            RegistryEvent::Reply { id, outcome } => {
                let Some(task) = self.calls.take(id) else {
                    return Some(RegistryEvent::Reply { id, outcome });
                };
                self.now = now;
                match outcome {
                    Ok(response) => self.answered(task.what, &response),
                    Err(failure) => self.failed(task, failure),
                }
            }
            RegistryEvent::Watched(watched) if self.key_watch == Some(watched.id) => {
                self.now = now;
                self.key_news(&watched.news);
            }
            RegistryEvent::Watched(watched) if self.queue_watch == Some(watched.id) => {
                self.now = now;
                self.queue_news(&watched.news);
            }
            event @ (RegistryEvent::Watched(_) | RegistryEvent::Connected { .. }) => return Some(event),
        }
        self.drive();
        None
    }

    fn answered(&mut self, what: TaskKind, response: &Response) {
        let Response { revision, answer } = response;
        match (what, answer) {
            (TaskKind::Claim, Answer::Txn { answers, .. }) => self.claimed(*revision, answers),
            (TaskKind::List { revision: at, again, .. }, Answer::Range { kvs, more, .. }) => {
                let at = if at == 0 { *revision } else { at };
                self.listed(at, kvs, *more, again);
            }
            (TaskKind::Form(forming), Answer::Txn { succeeded, answers }) => {
                self.decided(forming, *succeeded, answers);
            }
            (TaskKind::Backfill(backfilling), Answer::Txn { succeeded, answers }) => {
                self.backfilled(backfilling, *succeeded, answers);
            }
            (TaskKind::End(end), Answer::Txn { succeeded, answers }) => self.ended(end, *succeeded, answers),
            (TaskKind::SweepPage(_), Answer::Range { kvs, more, .. }) => {
                let mode = self.mode().clone();
                self.sweep.take(&mode, kvs, *more);
                self.sweep_on();
            }
            (TaskKind::SweepMatch(swept), Answer::Txn { answers, .. }) if swept.is_answered_by(answers) => {
                self.swept(swept, answers);
            }
            (TaskKind::SweepEnd { id, abandoned, .. }, Answer::Txn { succeeded, .. }) => {
                if *succeeded {
                    self.stats.swept += 1;
                    self.decisions.push_back(MatcherDecision::MatchEnded { id, abandoned });
                }
                self.sweep_on();
            }
            (TaskKind::SweepDate(_), Answer::Txn { .. }) => self.sweep_on(),
            (TaskKind::SweepAttendance(update), Answer::Txn { succeeded, .. }) => {
                self.attended(*update, *succeeded)
            }
            // The answer does not fit the request: it counts as no answer.
            (what, _) => self.retry(MatcherTask::new(what)),
        }
    }

    /// Handles a request that failed or has an unknown outcome. The same request is sent again,
    /// since each request reports if it was executed before.
    fn failed(&mut self, task: MatcherTask, failure: Failure) {
        self.stats.failed += 1;
        match task.what {
            TaskKind::SweepPage(_)
            | TaskKind::SweepMatch(_)
            | TaskKind::SweepEnd { .. }
            | TaskKind::SweepDate(_)
            | TaskKind::SweepAttendance(_) => {
                self.rest();
            }
            // No transaction of this size is accepted, and no repetition would be.
            TaskKind::Form(forming) if is_too_large(failure) => self.refuse(&forming),
            // The match is offered again if the next sweep finds its free places.
            TaskKind::Backfill(backfilling) if is_too_large(failure) => {
                self.forming = self.forming.saturating_sub(1);
                self.waiting.release(&backfilling.part.key, backfilling.serial, true);
                self.settle();
            }
            // The pages that were read so far cannot be completed.
            TaskKind::List { revision, .. }
                if revision > 0 && failure == Failure::Refused(Error::Compacted) =>
            {
                self.relist();
            }
            _ => self.retry(task),
        }
    }

    /// Ends the tickets of a match that cannot be written, and that would be found again. Tickets
    /// that have changed meanwhile stay.
    fn refuse(&mut self, forming: &Forming) {
        self.forming = self.forming.saturating_sub(1);
        for (key, seats) in forming.parties() {
            if self.waiting.release(key, forming.serial, false) {
                let seats = seats.iter().filter(|seat| self.waiting.is_unchanged(seat));
                let players: Vec<Name> = seats.map(|seat| seat.player.clone()).collect();
                self.end(key.clone(), TicketState::Refused, &players);
            }
        }
        self.settle();
    }

    // The election.

    fn claimed(&mut self, revision: u64, answers: &[Answer]) {
        self.claiming = false;
        if let Some(watch) = self.key_watch.take() {
            self.calls.unwatch(watch);
        }
        let found = answers.iter().rev().find_map(|answer| match answer {
            Answer::Range { kvs, .. } => kvs.first(),
            _ => None,
        });
        let (Some(kv), Some(lease)) = (found, self.lease) else { return self.claim_later() };
        let watch = Watch::of(Span::one(kv.key.clone()), revision + 1);
        self.key_watch = Some(self.calls.watch(watch));
        let holder: v1::MatcherRecord = decode(&kv.value);
        let epoch = self.fence().map(|fence| fence.epoch);
        if holder.node != self.node.0 || kv.lease != Some(lease) {
            let watch = self.key_watch.take();
            if epoch.is_some() {
                self.stop();
            }
            self.key_watch = watch;
            self.leadership = Leadership::Follows;
        } else if epoch != Some(kv.created) {
            self.lead(kv.created, lease);
        }
    }

    fn key_news(&mut self, news: &News) {
        match news {
            News::Created | News::Progress => {}
            News::Changes(changes) => {
                let epoch = self.fence().map(|fence| fence.epoch);
                let is_same = |change: &Change| match change {
                    Change::Put { kv, .. } => epoch.is_none_or(|epoch| kv.created == epoch),
                    Change::Delete { .. } => false,
                };
                if !changes.iter().all(is_same) {
                    self.depose();
                }
            }
            News::Compacted { .. } | News::Canceled => {
                self.key_watch = None;
                self.claim_later();
            }
        }
    }

    // Tickets.

    fn listed(&mut self, revision: u64, kvs: &[KeyValue], more: bool, again: bool) {
        for kv in kvs {
            self.note(kv);
        }
        let after = kvs.last().filter(|_| more).map(|last| {
            let mut after = last.key.to_vec();
            after.push(0);
            after.into()
        });
        if after.is_some() {
            self.ask(MatcherTask::new(TaskKind::List { revision, from: after, again }));
        } else if !again && self.waiting.lacks_members() {
            self.ask(MatcherTask::new(TaskKind::List { revision, from: None, again: true }));
        } else {
            self.watch_tickets(revision);
        }
        self.settle();
    }

    /// Starts the watch of tickets. All tickets with places are known.
    fn watch_tickets(&mut self, revision: u64) {
        self.stats.listings += 1;
        self.listed = true;
        self.list_at = self.now.instant + LIST_AGAIN;
        self.waiting.end_listing(&mut self.bugs, self.now);
        self.queue_watch = Some(self.calls.watch(Watch::of(keys::tickets(), revision + 1)));
    }

    fn queue_news(&mut self, news: &News) {
        match news {
            News::Created | News::Progress => {}
            News::Changes(changes) => {
                for change in changes {
                    match change {
                        Change::Put { kv, .. } => self.note(kv),
                        Change::Delete { key, .. } => {
                            if let Some((Kind::Ticket, player)) = keys::owner(key) {
                                self.waiting.set(&mut self.bugs, self.now, &player, None);
                            }
                        }
                    }
                }
                self.settle();
            }
            News::Compacted { .. } | News::Canceled => {
                self.queue_watch = None;
                self.relist();
            }
        }
    }

    /// Starts again with a listing, after a wait.
    fn relist(&mut self) {
        self.reload();
        self.retry(MatcherTask::list());
    }

    /// Notes the current state of a ticket in the registry. A record of no player, and one that
    /// cannot be decoded, is no ticket.
    fn note(&mut self, kv: &KeyValue) {
        let Some((Kind::Ticket, player)) = keys::owner(&kv.key) else { return };
        let mut record: v1::TicketRecord = decode(&kv.value);
        if self.planted.is(Plant::AbsentMatched) {
            record.absent_ms = 0;
        }
        let mode = record.queue.as_ref().map(|queue| queue.mode.as_str());
        let waits = record.state() == TicketState::Waiting && mode == Some(self.mode().as_str());
        self.waiting.set(&mut self.bugs, self.now, &player, waits.then_some((kv, record)));
    }

    fn ended(&mut self, end: TicketEnd, succeeded: bool, answers: &[Answer]) {
        if succeeded {
            self.stats.ended += 1;
            let mode = self.mode().clone();
            self.decisions.push_back(MatcherDecision::TicketEnded {
                player: end.player,
                mode,
                state: end.state,
            });
        } else if self.is_deposed(answers) {
            return self.depose();
        }
        let Some(left) = self.ending.get_mut(&end.serial) else {
            return self.bugs.found("a ticket has ended twice");
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.ending.remove(&end.serial);
            self.waiting.release(&end.key, end.serial, false);
            self.settle();
        }
    }

    /// Returns true if the first key of an answer is not that of this matcher's election.
    fn is_deposed(&self, answers: &[Answer]) -> bool {
        let Some(Answer::Range { kvs, .. }) = answers.first() else { return false };
        let created = kvs.first().map(|kv| kv.created);
        created != self.fence().map(|fence| fence.epoch)
    }

    // Matches.

    fn decided(&mut self, forming: Forming, succeeded: bool, answers: &[Answer]) {
        let Leadership::Leads(fence) = &self.leadership else {
            return self.bugs.found(UNELECTED);
        };
        let verdict = forming.judge(fence, succeeded, answers);
        self.forming = self.forming.saturating_sub(1);
        let groups: Vec<_> = forming.groups().cloned().collect();
        let same = match verdict {
            ConsumeOutcome::Deposed => return self.depose(),
            ConsumeOutcome::Formed => {
                self.stats.formed += 1;
                let Forming { id, mode, teams, quality, explanation, .. } = forming;
                self.decisions.push_back(MatcherDecision::Formed { id, mode, teams, quality, explanation });
                None
            }
            ConsumeOutcome::Refused(same) => {
                self.stats.refused += 1;
                Some(same)
            }
        };
        for key in groups {
            let unchanged = same.as_ref().is_some_and(|same| same.contains(&key));
            self.waiting.release(&key, forming.serial, unchanged);
        }
        self.settle();
    }

    fn backfilled(&mut self, backfilling: Backfilling, succeeded: bool, answers: &[Answer]) {
        let Leadership::Leads(fence) = &self.leadership else {
            return self.bugs.found(UNELECTED);
        };
        let verdict = backfilling.judge(fence, succeeded, answers);
        self.forming = self.forming.saturating_sub(1);
        let (key, serial) = (backfilling.part.key.clone(), backfilling.serial);
        let unchanged = match verdict {
            ConsumeOutcome::Deposed => return self.depose(),
            ConsumeOutcome::Formed => {
                self.stats.filled += 1;
                let (mode, players) = (self.mode().clone(), backfilling.players().cloned().collect());
                let Backfilling { id, team, explanation, .. } = backfilling;
                self.decisions.push_back(MatcherDecision::Filled { id, mode, team, players, explanation });
                false
            }
            ConsumeOutcome::Refused(same) => {
                self.stats.refused += 1;
                same.contains(&key)
            }
        };
        self.waiting.release(&key, serial, unchanged);
        self.settle();
    }

    // The sweep.

    fn swept(&mut self, swept: SweptMatch, answers: &[Answer]) {
        let Leadership::Leads(fence) = &self.leadership else {
            return self.bugs.found(UNELECTED);
        };
        let (id, room) = (swept.id.clone(), swept.room.clone());
        match swept.judge(fence, self.now.wall, self.config.join_window, &self.rules, answers) {
            Finding::Lives(running) => {
                self.offer(*running);
                self.sweep_on();
            }
            Finding::Over(txn, abandoned) => {
                self.withdraw(&room);
                self.ask_later(MatcherTask::new(TaskKind::SweepEnd { id, abandoned, txn }));
            }
            Finding::Attendance(update) => {
                self.withdraw(&room);
                self.ask_later(MatcherTask::new(TaskKind::SweepAttendance(update)));
            }
            Finding::Told => self.sweep_on(),
            Finding::Ahead(txn) => self.ask_later(MatcherTask::new(TaskKind::SweepDate(txn))),
        }
    }

    fn attended(&mut self, update: AttendanceUpdate, succeeded: bool) {
        let AttendanceUpdate { id, players, over, .. } = update;
        if succeeded && !players.is_empty() {
            self.stats.missed += players.len() as u64;
            let mode = self.mode().clone();
            self.decisions.push_back(MatcherDecision::Missed { id, mode, players, over });
        }
        self.sweep_on();
    }

    /// Continues the sweep with the next match or the next page, or ends it.
    fn sweep_on(&mut self) {
        if let Some(swept) = self.sweep.next_match() {
            self.ask_later(MatcherTask::new(TaskKind::SweepMatch(swept)));
        } else if let Some(request) = self.sweep.next_page() {
            self.ask_later(MatcherTask::new(TaskKind::SweepPage(request)));
        } else {
            self.rest();
        }
    }

    fn rest(&mut self) {
        self.sweep.next = Some(self.now.instant + self.config.sweep_interval);
    }
}
