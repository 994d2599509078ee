//! Serves the table: selects the next request about a session or a room, and handles the answer.

use alloc::vec::Vec;

use super::claim::{Asker, Attempt, ClaimAnswer, Goal};
use super::keys::Subject;
use super::pending::Purpose;
use super::table::{Claim, ClaimAttempt, Held, OwnedRecord, Priority, RoomWrites, ServicePhase, Task};
use super::{Decision, Registrar, RoomClaim, SessionClaim};
use crate::base::plant::Plant;
use crate::base::time::{Duration, Instant};
use crate::registry::{Answer, Error, Failure, KeyValue, LeaseId, Request, Response};

/// Checks of a room's record after a request with an unknown outcome, once the room is released. The first
/// check follows after `FIRST_RECHECK`, each further one after twice the wait before, all within about a
/// minute. etcd gives a request up after seven seconds.
const RECHECKS: u32 = 5;
const FIRST_RECHECK: Duration = Duration::from_secs(2);

/// Outcome of a claim.
enum ClaimOutcome {
    /// This node is the owner, with this epoch.
    Ours(u64),
    /// Another node is the room's primary.
    Elsewhere(RoomClaim),
    Unavailable,
    Refused,
}

impl OwnedRecord {
    /// Returns true if a claim waits and no release is queued after the claim.
    pub(super) fn is_claimed(&self) -> bool {
        match self.tasks.back() {
            Some(Task::Claim(_)) => true,
            Some(Task::Release) => false,
            None => self.work.as_ref().is_some_and(|work| work.claim.is_some()),
        }
    }

    /// Selects the next action for the record.
    fn next(&mut self, me: crate::base::id::NodeId, subject: &Subject, now: Instant) -> NextTask {
        if let Some(work) = &self.work {
            return if matches!(self.phase, ServicePhase::Waiting(_)) {
                NextTask::Wait
            } else {
                NextTask::Queue(work.lane())
            };
        }
        let is_room = matches!(subject, Subject::Room(_));
        if let Some(held) = self.held.filter(|_| is_room && self.doubtful) {
            let attempt =
                Attempt::held(Goal::CheckRoom { epoch: held.epoch }, me, held.session, held.modified);
            return self.work_on(attempt, None);
        }
        match (self.take_task(), self.held) {
            (Some(Task::Release), held) => NextTask::Release(held),
            (Some(Task::Claim(claim)), Some(held)) if is_room => NextTask::Answer(claim, held.epoch),
            (Some(Task::Claim(claim)), held) => {
                let goal = if is_room {
                    Goal::TakeRoom
                } else {
                    Goal::TakeSession { named: claim.named, fresh: claim.fresh }
                };
                let attempt = held.map_or_else(
                    || Attempt::new(goal),
                    |held| Attempt::held(goal, me, held.session, held.modified),
                );
                self.work_on(attempt, Some(claim))
            }
            (None, Some(held)) if self.doubtful => {
                // Most uncertain records are gone, so the first attempt assumes an absent record.
                let goal = Goal::KeepSession { session: held.session, epoch: held.epoch };
                self.work_on(Attempt::new(goal), None)
            }
            (None, Some(held)) if self.room.wanted != self.room.written => {
                let RoomWrites { wanted, written, next } = self.room;
                if now < next && wanted.turn == written.turn {
                    return NextTask::WaitUntil(next);
                }
                let goal = Goal::WriteRoom { epoch: held.epoch, state: wanted };
                self.work_on(Attempt::held(goal, me, held.session, held.modified), None)
            }
            (None, None) if self.rechecks > 0 => {
                let wait = FIRST_RECHECK * 2_u32.pow(RECHECKS - self.rechecks);
                // A claim in between does not bring the check forward.
                let at = *self.recheck_at.get_or_insert(now + wait);
                if now < at {
                    return NextTask::WaitUntil(at);
                }
                (self.rechecks, self.recheck_at) = (self.rechecks - 1, None);
                self.work_on(Attempt::new(Goal::Drop), None)
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
    Answer(Claim, u64),
    /// Delete the record if this node owned it.
    Release(Option<Held>),
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
    /// Continues with a session or a room, unless the entry waits for an answer.
    pub(super) fn advance(&mut self, now: Instant, subject: &Subject) {
        loop {
            let Some(entry) = self.table.entries.get_mut(subject) else { return };
            if entry.phase == ServicePhase::Calling {
                return;
            }
            match entry.next(self.me, subject, now) {
                NextTask::Queue(lane) => return self.table.enqueue(subject, lane),
                NextTask::Wait => return,
                NextTask::WaitUntil(at) => return self.table.set_phase(subject, ServicePhase::Waiting(at)),
                NextTask::Answer(claim, epoch) => {
                    self.answer(subject, claim, None, ClaimOutcome::Ours(epoch));
                }
                NextTask::Release(held) => {
                    self.table.let_go(subject);
                    // A planned write of the room's record is void now.
                    self.table.set_phase(subject, ServicePhase::Idle);
                    let attempt =
                        held.map(|held| Attempt::held(Goal::Drop, self.me, held.session, held.modified));
                    if let (Some(attempt), Some(entry)) = (attempt, self.table.entries.get_mut(subject)) {
                        entry.work = Some(ClaimAttempt::new(attempt, None));
                    }
                }
                NextTask::Nothing => {
                    self.table.set_phase(subject, ServicePhase::Idle);
                    return self.table.tidy(subject);
                }
            }
        }
    }

    /// Sends queued requests until the limits are reached.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.node_lease.is_registered()
            && self.generation.open().is_some()
            && self.table.in_flight < self.config.in_flight
        {
            let Some((lane, subject)) = self.table.first() else { return };
            let background = lane != Priority::Urgent;
            if background && self.table.background >= self.config.batch
                || lane == Priority::Again && now < self.again_at
            {
                return;
            }
            let subject = subject.clone();
            if self.can_ask(&subject) {
                self.ask(now, &subject, background);
            } else {
                self.table.set_phase(&subject, ServicePhase::Parked);
            }
        }
    }

    /// Returns the time at which sessions are registered again, if the queue waits for this time.
    pub(super) fn again_deadline(&self) -> Option<Instant> {
        let first = self.table.first().is_some_and(|(lane, _)| lane == Priority::Again);
        (first && self.node_lease.is_registered() && self.now < self.again_at).then_some(self.again_at)
    }

    fn ask(&mut self, now: Instant, subject: &Subject, background: bool) {
        let lease = self.lease_of(subject);
        let Some(generation) = self.generation.open() else { return };
        let asker = Asker { node: self.me, lease, generation };
        let Some(entry) = self.table.entries.get_mut(subject) else { return };
        let Some(work) = &mut entry.work else {
            return self.table.set_phase(subject, ServicePhase::Idle);
        };
        if matches!(work.attempt.goal, Goal::WriteRoom { .. }) {
            work.attempt.set_state(entry.room.wanted);
            entry.room.next = now + self.config.room_refresh;
        }
        work.sent = true;
        let mut request = work.attempt.request(subject, asker);
        if let (Goal::TakeRoom, Request::Txn(txn)) = (work.attempt.goal, &mut request)
            && self.planted.is(Plant::ClaimUncompared)
        {
            txn.compares.clear();
        }
        self.table.set_phase(subject, ServicePhase::Calling);
        self.table.in_flight += 1;
        self.table.background += usize::from(background);
        self.send(now, Purpose::Key { subject: subject.clone(), lease, background }, request);
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
        self.table.set_phase(subject, ServicePhase::Idle);
        // A late claim that compares with an absent record succeeds again once a later record was deleted.
        // For sessions, the watch reports such a record.
        if matches!((&outcome, subject), (Err(Failure::Unknown), Subject::Room(_)))
            && let Some(entry) = self.table.entries.get_mut(subject)
        {
            (entry.rechecks, entry.recheck_at) = (RECHECKS, None);
        }
        if matches!(outcome, Err(Failure::Refused(Error::LeaseNotFound))) {
            self.handle_lease_not_found(now, lease);
        }
        let found = outcome.as_ref().ok().and_then(found_generation);
        if !outdated && found.is_some_and(|found| self.handle_found_generation(now, found)) {
            return;
        }
        let generation = self.generation.open();
        let asker = generation.filter(|_| !outdated).map(|generation| Asker {
            node: self.me,
            lease: self.lease_of(subject),
            generation,
        });
        let Self { table, directory, stats, planted, .. } = self;
        let Some(work) = table.entries.get_mut(subject).and_then(|entry| entry.work.as_mut()) else {
            return self.advance(now, subject);
        };
        if core::mem::take(&mut work.replaced) {
            return self.advance(now, subject);
        }
        match outcome {
            Err(Failure::Refused(Error::LeaseNotFound)) => self.advance(now, subject),
            Err(Failure::Refused(_)) => {
                stats.refused += 1;
                if work.claim.is_some() {
                    self.refuse(now, subject);
                } else {
                    self.try_later(now, subject);
                }
            }
            Err(Failure::Unknown) if planted.is(Plant::UnknownIsFailure) && work.claim.is_some() => {
                work.sent = false;
                self.refuse(now, subject);
            }
            // The next answer will show the outcome.
            Err(Failure::Unavailable | Failure::Unknown) => self.try_later(now, subject),
            Ok(response) => {
                let Some(asker) = asker else { return self.advance(now, subject) };
                let lives = |node| directory.get(node).is_some();
                let verdict = work.attempt.conclude(subject, asker, &response, lives, &mut stats.garbage);
                self.handle_verdict(now, subject, verdict, response.revision);
            }
        }
    }

    fn handle_verdict(&mut self, now: Instant, subject: &Subject, verdict: ClaimAnswer, revision: u64) {
        let Some(entry) = self.table.entries.get_mut(subject) else { return };
        match verdict {
            ClaimAnswer::Again => {
                let Some(work) = &mut entry.work else { return };
                work.failures = work.failures.saturating_add(1);
                // Another node may write the record faster than this node reads it.
                if work.failures > 3 { self.try_later(now, subject) } else { self.advance(now, subject) }
            }
            ClaimAnswer::Garbled => {
                self.stats.garbage += 1;
                self.try_later(now, subject);
            }
            ClaimAnswer::Ours { epoch, modified } => {
                let Some(work) = entry.work.take() else { return };
                if let Goal::WriteRoom { state, .. } = work.attempt.goal {
                    entry.room.written = state;
                } else if matches!(work.attempt.goal, Goal::TakeRoom) {
                    entry.room = RoomWrites::opened();
                }
                let session = work.attempt.session();
                self.table.hold(subject, Held { epoch, modified, session });
                if let Some(claim) = work.claim {
                    self.answer(subject, claim, Some(&work.attempt), ClaimOutcome::Ours(epoch));
                }
                self.catch_up(now, subject, modified);
            }
            ClaimAnswer::Others { node, epoch } => {
                let Some(work) = entry.work.take() else { return };
                match work.claim {
                    Some(claim) => {
                        let elsewhere = ClaimOutcome::Elsewhere(RoomClaim::Elsewhere { node, epoch });
                        self.answer(subject, claim, None, elsewhere);
                    }
                    None => self.lose(now, subject, epoch),
                }
                self.advance(now, subject);
            }
            ClaimAnswer::Gone => {
                entry.work = None;
                if let Some(held) = self.table.let_go(subject) {
                    self.say_lost(subject, held.epoch);
                }
                self.catch_up(now, subject, revision);
            }
        }
    }

    /// Compares an answer, as of `revision`, with the last report of the watch, which may be newer.
    fn catch_up(&mut self, now: Instant, subject: &Subject, revision: u64) {
        let Some(entry) = self.table.entries.get_mut(subject) else { return };
        let held = entry.held.is_some();
        match entry.report.take_if(|report| report.revision > revision).map(|report| report.owner) {
            Some(Some(owner)) if owner.node != self.me => self.lose(now, subject, owner.epoch),
            Some(_) if held => self.table.set_doubtful(subject, true),
            Some(Some(_)) => entry.work = Some(ClaimAttempt::new(Attempt::new(Goal::Drop), None)),
            Some(None) | None => {}
        }
        self.advance(now, subject);
    }

    fn try_later(&mut self, now: Instant, subject: &Subject) {
        let Self { table, config, rng, .. } = self;
        let Some(work) = table.entries.get_mut(subject).and_then(|entry| entry.work.as_mut()) else { return };
        work.failures = work.failures.saturating_add(1);
        let at = now + config.backoff().after(work.failures, rng);
        table.set_phase(subject, ServicePhase::Waiting(at));
    }

    /// Handles an overdue claim, whose deadline is removed already.
    pub(super) fn expire_claim(&mut self, now: Instant, serial: u64, subject: &Subject) {
        let Some(entry) = self.table.entries.get_mut(subject) else { return };
        let working = entry.work.as_ref().and_then(|work| work.claim);
        if let Some(claim) = working.filter(|claim| claim.serial == serial) {
            self.answer(subject, claim, None, ClaimOutcome::Unavailable);
            self.undo(now, subject);
            return;
        }
        let is_it = |task: &Task| matches!(task, Task::Claim(claim) if claim.serial == serial);
        let place = entry.tasks.iter().position(is_it);
        if let Some(Task::Claim(claim)) = place.and_then(|place| entry.tasks.remove(place)) {
            self.answer(subject, claim, None, ClaimOutcome::Unavailable);
            self.advance(now, subject);
        }
    }

    /// Answers the claim of an entry as refused by the registry.
    fn refuse(&mut self, now: Instant, subject: &Subject) {
        let work = self.table.entries.get(subject).and_then(|entry| entry.work.as_ref());
        if let Some(claim) = work.and_then(|work| work.claim) {
            self.answer(subject, claim, None, ClaimOutcome::Refused);
            self.undo(now, subject);
        }
    }

    /// Undoes a claim that was not granted, since the registry may still execute it: deletes the record, or
    /// restores the session that this node owned before.
    fn undo(&mut self, now: Instant, subject: &Subject) {
        let Some(entry) = self.table.entries.get_mut(subject) else { return };
        let held = entry.held;
        let calling = entry.phase == ServicePhase::Calling;
        let Some(work) = entry.work.take() else { return };
        if work.sent
            && let Some(entry) = self.table.entries.get_mut(subject)
        {
            let goal = held
                .map_or(Goal::Drop, |held| Goal::KeepSession { session: held.session, epoch: held.epoch });
            entry.work = Some(ClaimAttempt::instead(Attempt::new(goal), calling));
            self.table.set_doubtful(subject, held.is_some());
        }
        self.resume(now, subject);
    }

    /// Cancels the work on a record that this node lost. A record that this work may have written is deleted.
    pub(super) fn abandon_work(&mut self, now: Instant, subject: &Subject) {
        let Some(entry) = self.table.entries.get_mut(subject) else { return };
        let calling = entry.phase == ServicePhase::Calling;
        let goal = entry.work.as_ref().map(|work| work.attempt.goal);
        match goal {
            Some(Goal::KeepSession { .. }) => {
                entry.work = Some(ClaimAttempt::instead(Attempt::new(Goal::Drop), calling));
            }
            Some(Goal::CheckRoom { .. } | Goal::WriteRoom { .. }) => entry.work = None,
            Some(Goal::TakeSession { .. } | Goal::TakeRoom | Goal::Drop) => return,
            None => {}
        }
        self.resume(now, subject);
    }

    /// Continues after the work of an entry was replaced.
    fn resume(&mut self, now: Instant, subject: &Subject) {
        let Some(entry) = self.table.entries.get(subject) else { return };
        if entry.phase != ServicePhase::Calling {
            self.table.set_phase(subject, ServicePhase::Idle);
            self.advance(now, subject);
        }
    }

    fn answer(&mut self, subject: &Subject, claim: Claim, attempt: Option<&Attempt>, outcome: ClaimOutcome) {
        self.table.claims.remove(&(claim.until, claim.serial));
        self.decisions.push_back(match subject.clone() {
            Subject::Session(player) => {
                let outcome = match (outcome, attempt) {
                    (ClaimOutcome::Ours(epoch), Some(attempt)) => SessionClaim::Granted {
                        id: attempt.session(),
                        epoch,
                        resumed: attempt.is_resumed(),
                        previous: attempt.previous,
                    },
                    (ClaimOutcome::Refused, _) => SessionClaim::Refused,
                    _ => SessionClaim::Unavailable,
                };
                Decision::Session { token: claim.token, player, outcome }
            }
            Subject::Room(room) => {
                let outcome = match outcome {
                    ClaimOutcome::Ours(epoch) => RoomClaim::Primary { epoch },
                    ClaimOutcome::Elsewhere(claim) => claim,
                    ClaimOutcome::Refused | ClaimOutcome::Unavailable => RoomClaim::Unavailable,
                };
                Decision::Room { room, outcome }
            }
        });
    }

    /// Marks every owned record as uncertain: the node was registered again.
    pub(super) fn doubt_everything(&mut self, now: Instant) {
        let held: Vec<Subject> = self.held_subjects(|_, _| true);
        for subject in held {
            self.table.set_doubtful(&subject, true);
            self.advance(now, &subject);
        }
    }

    /// Continues with the entries that wait for a lease.
    pub(super) fn unpark(&mut self, now: Instant) {
        while let Some(subject) = self.table.take_parked() {
            self.advance(now, &subject);
        }
    }

    pub(super) fn rooms_held(&self) -> Vec<Subject> {
        self.held_subjects(|subject, _| matches!(subject, Subject::Room(_)))
    }

    /// Returns the owned sessions whose key and ownership meet the condition.
    pub(super) fn sessions_held(&self, holds: impl Fn(&[u8], &Held) -> bool) -> Vec<Subject> {
        self.held_subjects(|subject, held| {
            matches!(subject, Subject::Session(_)) && holds(&subject.key(), held)
        })
    }

    fn held_subjects(&self, is_wanted: impl Fn(&Subject, &Held) -> bool) -> Vec<Subject> {
        let held =
            self.table.entries.iter().filter_map(|(subject, entry)| Some((subject, entry.held.as_ref()?)));
        held.filter(|(subject, held)| is_wanted(subject, held)).map(|(subject, _)| subject.clone()).collect()
    }

    /// Answers all claims as unavailable, and forgets all entries.
    pub(super) fn forget_entries(&mut self) {
        while let Some((_, subject)) = self.table.claims.first_key_value() {
            let subject = subject.clone();
            let Some(entry) = self.table.entries.get_mut(&subject) else { return };
            let mut claims: Vec<Claim> = entry.work.take().and_then(|work| work.claim).into_iter().collect();
            claims.extend(entry.tasks.drain(..).filter_map(|task| match task {
                Task::Claim(claim) => Some(claim),
                Task::Release => None,
            }));
            for claim in claims {
                self.answer(&subject, claim, None, ClaimOutcome::Unavailable);
            }
        }
        self.table = super::Table::default();
    }
}
