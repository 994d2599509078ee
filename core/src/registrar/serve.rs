//! Serves the table: selects the next request about a session or a room, and handles the answer.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::claim::{Asker, Attempt, ClaimAnswer, Goal};
use super::event::Reign;
use super::generation::KnownKey;
use super::keys::{RoomState, Subject};
use super::pending::Purpose;
use super::table::{
    Claim, ClaimAttempt, Held, OwnedRecord, Priority, RoomWrites, ServicePhase, Swap, Table, Task,
};
use super::{Decision, Registrar, RoomClaim, SessionClaim};
use crate::base::id::NodeId;
use crate::base::plant::{Plant, Planted};
use crate::base::time::{Duration, Instant};
use crate::registry::{Answer, Error, Failure, KeyValue, LeaseId, Request, Response};

/// Checks of a room's record after a request with an unknown outcome, once the room is released. The first
/// check follows after `FIRST_RECHECK`, each further one after twice the wait before, all within about a
/// minute. etcd gives a request up after seven seconds.
const RECHECKS: u32 = 5;
const FIRST_RECHECK: Duration = Duration::from_secs(2);

/// Outcome of a claim.
pub(super) enum ClaimOutcome<'a> {
    /// This node became the owner by this attempt.
    Granted(&'a Attempt, Held),
    /// This node is the room's primary already.
    Held(Held),
    /// Another node is the room's primary.
    Elsewhere(Reign),
    Unavailable,
    Refused,
    /// The session was claimed for a newer connection of the same client.
    Superseded,
}

impl OwnedRecord {
    /// Returns true if a claim waits and no release is queued after the claim.
    pub(super) fn is_claimed(&self) -> bool {
        match self.tasks.back() {
            Some(Task::Claim(_)) => true,
            Some(Task::Swap(_) | Task::Release) => false,
            None => self.work.as_ref().is_some_and(|work| work.claim.is_some()),
        }
    }

    /// Selects the next action for the record.
    fn next(&mut self, me: NodeId, subject: &Subject, now: Instant, planted: Planted) -> NextTask {
        if let Some(work) = &self.work {
            return if matches!(self.phase, ServicePhase::Waiting(_)) {
                NextTask::Wait
            } else {
                NextTask::Queue(work.lane())
            };
        }
        let is_room = matches!(subject, Subject::Room(_));
        if let Some(held) = self.held.filter(|_| is_room && self.doubtful) {
            let Held { epoch, term, backup, .. } = held;
            return self.work_on(Attempt::held(Goal::CheckRoom { epoch, term, backup }, me, held), None);
        }
        match (self.take_task(), self.held) {
            (Some(Task::Release), _) => NextTask::Release,
            (Some(Task::Swap(swap)), Some(held)) if (held.epoch, held.term) > (swap.epoch, swap.term) => {
                NextTask::Swapped(held)
            }
            (Some(Task::Swap(swap)), Some(_)) => NextTask::StepDown(swap),
            (Some(Task::Swap(swap)), None) => {
                let Swap { epoch, term, primary, revision } = swap;
                self.work_on(Attempt::seen(Goal::SwapRoom { epoch, term, primary }, revision), None)
            }
            (Some(Task::Claim(claim)), Some(held)) if is_room => NextTask::Answer(claim, held),
            (Some(Task::Claim(claim)), Some(held))
                if claim.dial.is_behind(held.dial) && !planted.is(Plant::DialUncompared) =>
            {
                NextTask::Supersede(claim)
            }
            (Some(Task::Claim(claim)), held) => {
                let goal = if is_room {
                    Goal::TakeRoom
                } else {
                    Goal::TakeSession { named: claim.named, fresh: claim.fresh, dial: claim.dial }
                };
                let attempt = held.map_or_else(|| Attempt::new(goal), |held| Attempt::held(goal, me, held));
                self.work_on(attempt, Some(claim))
            }
            (None, Some(held)) if self.doubtful => {
                // Most uncertain records are gone, so the first attempt assumes an absent record.
                self.work_on(Attempt::new(held.keep_session()), None)
            }
            (None, Some(held)) if self.room.backup == Some(held.backup) => NextTask::Paired(held),
            (None, Some(held)) if self.room.backup.is_some() || self.room.wanted != self.room.written => {
                if now < self.room.next && self.room.backup.is_none() {
                    return NextTask::WaitUntil(self.room.next);
                }
                let Held { epoch, term, backup, .. } = held;
                let goal = Goal::WriteRoom { epoch, term, backup, state: self.room.wanted };
                self.work_on(Attempt::held(goal, me, held), None)
            }
            (None, None) if self.rechecks > 0 => {
                let wait = FIRST_RECHECK * 2_u32.pow(RECHECKS - self.rechecks);
                // A claim in between does not bring the check forward.
                let at = *self.recheck_at.get_or_insert(now + wait);
                if now < at {
                    return NextTask::WaitUntil(at);
                }
                (self.rechecks, self.recheck_at) = (self.rechecks - 1, None);
                self.work_on(Attempt::new(Goal::Drop { held: None }), None)
            }
            (None, _) => NextTask::Nothing,
        }
    }

    fn work_on(&mut self, attempt: Attempt, claim: Option<Claim>) -> NextTask {
        let work = self.work.insert(ClaimAttempt::new(attempt, claim));
        NextTask::Queue(work.lane())
    }
}

/// Next action for an entry.
enum NextTask {
    /// Queue the entry for a request.
    Queue(Priority),
    /// Answer a claim of a record that this node owns.
    Answer(Claim, Held),
    /// Refuse the claim of a session for an older connection than the newest one here.
    Supersede(Claim),
    /// Answer a swap of a room that this node leads in a later term.
    Swapped(Held),
    /// Give up a room that another node leads by now, and then swap.
    StepDown(Swap),
    /// Report that the room's record names the wanted backup.
    Paired(Held),
    /// Delete the record if this node owned it.
    Release,
    WaitUntil(Instant),
    /// The entry already waits until a time.
    Wait,
    Nothing,
}

impl ClaimAttempt {
    const fn lane(&self) -> Priority {
        match self.attempt.goal {
            Goal::CheckRoom { .. } => Priority::Check,
            Goal::KeepSession { .. } => Priority::Again,
            _ => Priority::Urgent,
        }
    }
}

/// Returns the generation's key as read by a transaction whose comparisons did not hold.
fn found_generation(response: &Response) -> Option<Option<&KeyValue>> {
    match &response.answer {
        Answer::Txn { succeeded: false, answers } => match answers.last()? {
            Answer::Range { kvs, .. } => Some(kvs.first()),
            _ => None,
        },
        _ => None,
    }
}

impl Registrar {
    /// Continues with a session or a room, unless the entry waits for an answer. May remove the entry.
    pub(super) fn advance(&mut self, now: Instant, subject: &Subject) {
        loop {
            let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
            if entry.phase == ServicePhase::Calling {
                return;
            }
            match entry.next(self.me, subject, now, self.planted) {
                NextTask::Queue(lane) => return index.enqueue(subject, entry, lane),
                NextTask::Wait => return,
                NextTask::WaitUntil(at) => return index.set_phase(subject, entry, ServicePhase::Waiting(at)),
                NextTask::Supersede(claim) => self.answer(subject, claim, ClaimOutcome::Superseded),
                NextTask::Answer(claim, held) => self.answer(subject, claim, ClaimOutcome::Held(held)),
                NextTask::Swapped(held) => {
                    let outcome = RoomClaim::Primary(held.reign(self.me));
                    self.answer_swap(subject, outcome);
                }
                NextTask::StepDown(swap) => {
                    index.let_go(subject, entry);
                    entry.tasks.push_front(Task::Swap(swap));
                }
                NextTask::Paired(held) => {
                    entry.room.backup = None;
                    self.say_paired(subject, held);
                }
                NextTask::Release => {
                    let held = index.let_go(subject, entry);
                    // A planned write of the room's record is void now.
                    index.set_phase(subject, entry, ServicePhase::Idle);
                    entry.work = held.map(|held| {
                        let goal = Goal::Drop { held: Some((held.epoch, held.term)) };
                        ClaimAttempt::new(Attempt::held(goal, self.me, held), None)
                    });
                }
                NextTask::Nothing => {
                    index.set_phase(subject, entry, ServicePhase::Idle);
                    if entry.is_idle() {
                        self.table.entries.remove(subject);
                    }
                    return;
                }
            }
        }
    }

    /// Sends queued requests until the limits are reached.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.node_lease.is_registered()
            && self.table.in_flight < self.config.in_flight
            && let Some(generation) = self.generation.open()
        {
            let (is_full, is_early) = (self.table.background >= self.config.batch, now < self.again_at);
            let may_go = |lane| match lane {
                Priority::Urgent => true,
                Priority::Check => !is_full,
                Priority::Again => !is_full && !is_early,
            };
            let Some((lane, subject)) = self.table.take_first(&mut self.bugs, may_go) else { return };
            if self.can_ask() {
                self.ask(now, &subject, generation, lane != Priority::Urgent);
            } else if let Some((entry, index)) = self.table.entry(&mut self.bugs, &subject) {
                index.set_phase(&subject, entry, ServicePhase::Parked);
            }
        }
    }

    /// Returns the time at which sessions are registered again, if the queue waits for this time.
    pub(super) fn again_deadline(&self) -> Option<Instant> {
        let first = self.table.index.first_lane() == Some(Priority::Again);
        (first && self.node_lease.is_registered() && self.now < self.again_at).then_some(self.again_at)
    }

    fn ask(&mut self, now: Instant, subject: &Subject, generation: KnownKey, background: bool) {
        let lease = self.held_lease();
        let (node, node_lease, planted) = (self.me, self.node_lease.id(), self.planted);
        let asker = Asker { node, lease, node_lease, generation, planted };
        let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
        let Some(work) = &mut entry.work else {
            return self.bugs.found("a session or a room without work was in the queue");
        };
        if let Goal::WriteRoom { state, backup, .. } = &mut work.attempt.goal {
            *state = entry.room.wanted;
            *backup = entry.room.backup.unwrap_or(*backup);
            entry.room.next = now + self.config.room_refresh;
        }
        work.sent = true;
        let mut txn = work.attempt.request(subject, asker);
        if matches!(work.attempt.goal, Goal::TakeRoom) && self.planted.is(Plant::ClaimUncompared) {
            txn.compares.clear();
        }
        index.set_phase(subject, entry, ServicePhase::Calling);
        self.table.in_flight += 1;
        self.table.background += usize::from(background);
        let purpose = Purpose::Key { subject: subject.clone(), lease, background };
        self.send(now, purpose, Request::Txn(txn));
    }

    /// Handles the answer to a request about a session or a room. `outdated` is true if the request belongs
    /// to an earlier registration, lease or generation: then its effect may be undone already.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        subject: &Subject,
        lease: LeaseId,
        outdated: bool,
        outcome: Result<Response, Failure>,
    ) {
        if matches!(outcome, Err(Failure::Refused(Error::LeaseNotFound))) {
            self.handle_lease_not_found(now, lease);
        }
        let found = outcome.as_ref().ok().and_then(found_generation);
        if !outdated && found.is_some_and(|found| self.handle_found_generation(now, found)) {
            return;
        }
        let (node, lease, node_lease) = (self.me, self.held_lease(), self.node_lease.id());
        let generation = self.generation.open().filter(|_| !outdated);
        let planted = self.planted;
        let asker = generation.map(|generation| Asker { node, lease, node_lease, generation, planted });
        let Self { table, directory, stats, bugs, .. } = self;
        let Some((entry, index)) = table.entry(bugs, subject) else { return };
        index.set_phase(subject, entry, ServicePhase::Idle);
        // A late claim that compares with an absent record succeeds again once a later record was deleted.
        // For sessions, the watch reports such a record.
        if matches!((&outcome, subject), (Err(Failure::Unknown), Subject::Room(_))) {
            (entry.rechecks, entry.recheck_at) = (RECHECKS, None);
        }
        let asked = entry.work.take_if(|work| !core::mem::take(&mut work.replaced));
        let Some(mut work) = asked else {
            // The attempt of this request was given up or replaced.
            return self.advance(now, subject);
        };
        match (outcome, asker) {
            (Err(Failure::Refused(Error::LeaseNotFound)), _) | (Ok(_), None) => {
                entry.work = Some(work);
                self.advance(now, subject);
            }
            (Err(Failure::Refused(_)), _) => {
                stats.refused += 1;
                self.refuse(now, subject, work);
            }
            (Err(Failure::Unknown), _) if planted.is(Plant::UnknownIsFailure) && work.claim.is_some() => {
                work.sent = false;
                self.refuse(now, subject, work);
            }
            // The next answer will show the outcome.
            (Err(Failure::Unavailable | Failure::Unknown), _) => self.try_later(now, subject, work),
            (Ok(response), Some(asker)) => {
                let lives = |node| directory.get(node).is_some();
                let verdict = work.attempt.conclude(subject, asker, &response, lives, &mut stats.garbage);
                self.handle_verdict(now, subject, work, verdict, response.revision);
            }
        }
    }

    /// Handles the meaning of an answer to an attempt, which the caller has taken out of its entry.
    fn handle_verdict(
        &mut self,
        now: Instant,
        subject: &Subject,
        mut work: Box<ClaimAttempt>,
        verdict: ClaimAnswer,
        revision: u64,
    ) {
        let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
        match verdict {
            ClaimAnswer::Again => {
                work.failures = work.failures.saturating_add(1);
                // Another node may write the record faster than this node reads it.
                if work.failures > 3 {
                    return self.try_later(now, subject, work);
                }
                entry.work = Some(work);
                self.advance(now, subject);
            }
            ClaimAnswer::Garbled => {
                self.stats.garbage += 1;
                self.try_later(now, subject, work);
            }
            ClaimAnswer::Ours(held) => {
                let is_swap = work.is_swap();
                match work.attempt.goal {
                    Goal::WriteRoom { state, .. } => entry.room.written = state,
                    Goal::TakeRoom => entry.room = RoomWrites::of(RoomState::OPENED),
                    Goal::SwapRoom { .. } => entry.room = RoomWrites::of(work.attempt.state),
                    Goal::TakeSession { .. } | Goal::KeepSession { .. } => {}
                    Goal::CheckRoom { .. } | Goal::Drop { .. } => {}
                }
                let is_new = entry.held.is_some_and(|known| known.epoch != held.epoch);
                index.hold(subject, entry, held);
                if work.attempt.overrides && is_new {
                    self.say_kept(subject, held.epoch);
                }
                if let Some(claim) = work.claim {
                    self.answer(subject, claim, ClaimOutcome::Granted(&work.attempt, held));
                }
                if is_swap {
                    self.answer_swap(subject, RoomClaim::Primary(held.reign(self.me)));
                }
                self.catch_up(now, subject, held.modified);
            }
            ClaimAnswer::Others(owner) => match work.claim {
                Some(claim) => {
                    self.answer(subject, claim, ClaimOutcome::Elsewhere(owner.reign()));
                    self.advance(now, subject);
                }
                None if work.is_swap() => {
                    self.answer_swap(subject, RoomClaim::Elsewhere(owner.reign()));
                    self.advance(now, subject);
                }
                None => self.contest(now, subject, work, owner.epoch),
            },
            ClaimAnswer::Superseded => {
                if let Some(claim) = work.claim {
                    self.answer(subject, claim, ClaimOutcome::Superseded);
                }
                self.catch_up(now, subject, revision);
            }
            ClaimAnswer::Deposed(owner) => {
                if index.let_go(subject, entry).is_some() {
                    self.say_deposed(subject, owner.reign());
                }
                self.advance(now, subject);
            }
            ClaimAnswer::Gone => {
                if let Some(held) = index.let_go(subject, entry) {
                    self.say_lost(subject, held.epoch);
                } else if work.is_swap() {
                    self.answer_swap(subject, RoomClaim::Vacant);
                }
                self.catch_up(now, subject, revision);
            }
        }
    }

    /// Handles an answer that shows another owner of a record that this node owns. With an epoch that is not
    /// above the held one, the store may have gone back: then the generation's key is read and the record
    /// asked for again. If the store is the known one, another program has written the record.
    fn contest(&mut self, now: Instant, subject: &Subject, mut work: Box<ClaimAttempt>, epoch: u64) {
        let Some((entry, _)) = self.table.entry(&mut self.bugs, subject) else { return };
        let Some(held) = entry.held else {
            return self.bugs.found("a record is kept that this node does not own");
        };
        let since = *work.contested.get_or_insert(now);
        if epoch > held.epoch || since < now && self.generation.is_confirmed_since(since) {
            return self.give_up(now, subject, epoch.max(held.epoch.saturating_add(1)));
        }
        work.attempt = match work.attempt.goal {
            goal @ Goal::KeepSession { .. } => Attempt::new(goal),
            goal => Attempt::held(goal, self.me, held),
        };
        self.generation.plan_read(now);
        self.try_later(now, subject, work);
    }

    /// Compares an answer, as of `revision`, with the last report of the watch, which may be newer.
    fn catch_up(&mut self, now: Instant, subject: &Subject, revision: u64) {
        let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
        let newer = entry.report.take_if(|report| report.revision > revision);
        match (newer.map(|report| report.owner), entry.held.is_some()) {
            (Some(Some(owner)), true) if owner.node != self.me => {
                return self.handle_other_owner(now, subject, owner);
            }
            (Some(_), true) => index.set_doubtful(subject, entry, true),
            (Some(Some(owner)), false) if owner.node == self.me => {
                entry.work = Some(ClaimAttempt::new(Attempt::new(Goal::Drop { held: None }), None));
            }
            (Some(_), false) | (None, _) => {}
        }
        self.advance(now, subject);
    }

    fn try_later(&mut self, now: Instant, subject: &Subject, mut work: Box<ClaimAttempt>) {
        let Self { table, config, rng, bugs, .. } = self;
        let Some((entry, index)) = table.entry(bugs, subject) else { return };
        work.failures = work.failures.saturating_add(1);
        let at = now + config.backoff().after(work.failures, rng);
        entry.work = Some(work);
        index.set_phase(subject, entry, ServicePhase::Waiting(at));
    }

    /// Handles an overdue claim, whose deadline is removed already.
    pub(super) fn expire_claim(&mut self, now: Instant, serial: u64, subject: &Subject) {
        let Some((entry, _)) = self.table.entry(&mut self.bugs, subject) else { return };
        let Some((claim, work)) = entry.take_claim(serial) else {
            return self.bugs.found("a claim is overdue that its session or room does not have");
        };
        self.answer(subject, claim, ClaimOutcome::Unavailable);
        match work {
            Some(work) => self.undo(now, subject, work.sent),
            None => self.advance(now, subject),
        }
    }

    /// Handles the registry's refusal of an attempt, which the caller has taken out of its entry.
    fn refuse(&mut self, now: Instant, subject: &Subject, work: Box<ClaimAttempt>) {
        match work.claim {
            Some(claim) => {
                self.answer(subject, claim, ClaimOutcome::Refused);
                self.undo(now, subject, work.sent);
            }
            None => self.try_later(now, subject, work),
        }
    }

    /// Undoes a claim that was not granted. If the claim was sent, the registry may still execute it: deletes
    /// the record, or restores the session that this node owned before.
    pub(super) fn undo(&mut self, now: Instant, subject: &Subject, was_sent: bool) {
        let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
        if was_sent {
            let held = entry.held;
            let goal = held.map_or(Goal::Drop { held: None }, |held| held.keep_session());
            let calling = entry.phase == ServicePhase::Calling;
            entry.work = Some(ClaimAttempt::instead(Attempt::new(goal), calling));
            index.set_doubtful(subject, entry, held.is_some());
        }
        index.interrupt(subject, entry);
        self.advance(now, subject);
    }

    /// Gives up an owned record that this node has lost, and cancels the work on the record. A record that
    /// this work may have written is deleted. `epoch` is that of the new owner, if there is one.
    pub(super) fn give_up(&mut self, now: Instant, subject: &Subject, epoch: u64) {
        let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
        if index.let_go(subject, entry).is_none() {
            return self.bugs.found("a session or a room is lost that this node does not own");
        }
        match entry.work.as_ref().map(|work| work.attempt.goal) {
            Some(Goal::KeepSession { .. }) => {
                let calling = entry.phase == ServicePhase::Calling;
                entry.work = Some(ClaimAttempt::instead(Attempt::new(Goal::Drop { held: None }), calling));
                index.interrupt(subject, entry);
            }
            Some(Goal::CheckRoom { .. } | Goal::WriteRoom { .. }) | None => {
                entry.work = None;
                index.interrupt(subject, entry);
            }
            Some(Goal::TakeSession { .. } | Goal::TakeRoom) => {}
            Some(Goal::SwapRoom { .. } | Goal::Drop { .. }) => {}
        }
        self.say_lost(subject, epoch);
        self.advance(now, subject);
    }

    pub(super) fn answer(&mut self, subject: &Subject, claim: Claim, outcome: ClaimOutcome<'_>) {
        self.table.claims.remove(&(claim.until, claim.serial));
        self.decisions.push_back(match subject.clone() {
            Subject::Session(player) => {
                let outcome = match outcome {
                    ClaimOutcome::Granted(attempt, held) => SessionClaim::Granted {
                        id: attempt.session(),
                        epoch: held.epoch,
                        resumed: attempt.is_resumed(),
                        previous: attempt.previous,
                    },
                    ClaimOutcome::Refused => SessionClaim::Refused,
                    ClaimOutcome::Superseded => SessionClaim::Superseded,
                    ClaimOutcome::Unavailable => SessionClaim::Unavailable,
                    ClaimOutcome::Held(_) | ClaimOutcome::Elsewhere(..) => {
                        self.bugs.found("the claim of a session has an outcome of a room's");
                        SessionClaim::Unavailable
                    }
                };
                Decision::Session { token: claim.token, player, outcome }
            }
            Subject::Room(room) => {
                let outcome = match outcome {
                    ClaimOutcome::Granted(_, held) | ClaimOutcome::Held(held) => {
                        RoomClaim::Primary(held.reign(self.me))
                    }
                    ClaimOutcome::Elsewhere(reign) => RoomClaim::Elsewhere(reign),
                    ClaimOutcome::Refused | ClaimOutcome::Unavailable => RoomClaim::Unavailable,
                    ClaimOutcome::Superseded => {
                        self.bugs.found("the claim of a room has an outcome of a session's");
                        RoomClaim::Unavailable
                    }
                };
                Decision::Room { room, outcome }
            }
        });
    }

    /// Marks every owned record as uncertain: the node was registered again.
    pub(super) fn doubt_everything(&mut self, now: Instant) {
        for (subject, _) in self.held(|_, _| true) {
            self.doubt(now, &subject);
        }
    }

    /// Marks an owned record as uncertain.
    pub(super) fn doubt(&mut self, now: Instant, subject: &Subject) {
        let Some((entry, index)) = self.table.entry(&mut self.bugs, subject) else { return };
        index.set_doubtful(subject, entry, true);
        self.advance(now, subject);
    }

    /// Continues with the entries that wait for a lease.
    pub(super) fn unpark(&mut self, now: Instant) {
        while let Some(subject) = self.table.take_parked(&mut self.bugs) {
            self.advance(now, &subject);
        }
    }

    /// Returns the owned records that meet the condition.
    pub(super) fn held(&self, is_wanted: impl Fn(&Subject, &Held) -> bool) -> Vec<(Subject, Held)> {
        let entries = self.table.entries.iter();
        let held = entries.filter_map(|(subject, entry)| Some((subject, entry.held?)));
        let wanted = held.filter(|(subject, held)| is_wanted(subject, held));
        wanted.map(|(subject, held)| (subject.clone(), held)).collect()
    }

    /// Answers all claims and swaps as unavailable, and forgets all entries.
    pub(super) fn forget_entries(&mut self) {
        let Table { mut entries, claims, .. } = core::mem::take(&mut self.table);
        for (subject, entry) in &entries {
            let is_swap = |task: &&Task| matches!(task, Task::Swap(_));
            let at_work = entry.work.as_ref().is_some_and(|work| work.is_swap());
            for _ in 0..usize::from(at_work) + entry.tasks.iter().filter(is_swap).count() {
                self.answer_swap(subject, RoomClaim::Unavailable);
            }
        }
        for ((_, serial), subject) in claims {
            match entries.get_mut(&subject).and_then(|entry| entry.take_claim(serial)) {
                Some((claim, _)) => self.answer(&subject, claim, ClaimOutcome::Unavailable),
                None => self.bugs.found("a claim is not among the tasks of its session or room"),
            }
        }
    }
}
