//! Table of the sessions and rooms that a node owns or asks for, and the order of their requests.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use super::claim::{Attempt, Goal};
use super::event::Reign;
use super::keys::{Owner, RoomState, Subject};
use crate::base::bug::Bugs;
use crate::base::id::{DialNumber, NodeId, SessionId};
use crate::base::time::Instant;

/// State of the node about the record of a session or a room.
#[derive(Debug, Default)]
pub(super) struct OwnedRecord {
    /// Ownership, as far as is known; `None` if this node does not own the record.
    pub(super) held: Option<Held>,
    /// Attempt in progress. Boxed, because most entries have none most of the time.
    pub(super) work: Option<Box<ClaimAttempt>>,
    /// Tasks after that attempt, in order.
    pub(super) tasks: VecDeque<Task>,
    /// True if the record may have changed and has to be checked.
    pub(super) doubtful: bool,
    /// Newest change of the record that a watch reported.
    pub(super) report: Option<RecordReport>,
    /// Checks of the record still to make, since a request with an unknown outcome may yet be executed; and
    /// the time of the next check, once known.
    pub(super) rechecks: u32,
    pub(super) recheck_at: Option<Instant>,
    /// Writes of a room's record; unused for a session.
    pub(super) room: RoomWrites,
    pub(super) phase: ServicePhase,
}

/// Ownership of a record by this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) epoch: u64,
    /// Term, and backup in the record; unused for a session.
    pub(super) term: u32,
    pub(super) backup: Option<NodeId>,
    /// Revision of the last write of the record.
    pub(super) modified: u64,
    /// Identifier of the session, and its newest connection; unused for a room.
    pub(super) session: SessionId,
    pub(super) dial: DialNumber,
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct ClaimAttempt {
    pub(super) attempt: Attempt,
    /// Claim to answer at the end of the attempt.
    pub(super) claim: Option<Claim>,
    pub(super) sent: bool,
    /// True if the request in flight belongs to an earlier attempt, which this one replaces.
    pub(super) replaced: bool,
    /// Failures in a row.
    pub(super) failures: u32,
    /// Time of the first answer with an owner whose epoch is not above the held one.
    pub(super) contested: Option<Instant>,
}

impl Held {
    /// Returns the goal to keep this session.
    pub(super) const fn keep_session(&self) -> Goal {
        let Self { session, epoch, dial, .. } = *self;
        Goal::KeepSession { session, epoch, dial }
    }

    /// Returns the reign of this node in a room.
    pub(super) const fn reign(&self, primary: NodeId) -> Reign {
        let Self { epoch, term, backup, modified: revision, .. } = *self;
        Reign { epoch, term, primary, backup, revision }
    }
}

impl ClaimAttempt {
    pub(super) fn new(attempt: Attempt, claim: Option<Claim>) -> Box<Self> {
        Box::new(Self { attempt, claim, sent: false, replaced: false, failures: 0, contested: None })
    }

    pub(super) const fn is_swap(&self) -> bool {
        matches!(self.attempt.goal, Goal::SwapRoom { .. })
    }

    /// Creates an attempt that replaces another one, whose request may be in flight.
    pub(super) fn instead(attempt: Attempt, in_flight: bool) -> Box<Self> {
        Box::new(Self { replaced: in_flight, ..*Self::new(attempt, None) })
    }
}

/// Task for an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Claim(Claim),
    Swap(Swap),
    Release,
}

/// A wish to take over, as the backup, the room that the primary leads in this term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Swap {
    pub(super) epoch: u64,
    pub(super) term: u32,
    pub(super) primary: NodeId,
    /// Revision of the last write of the record, as far as is known; 0: unknown.
    pub(super) revision: u64,
}

/// A claim that waits for its outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) serial: u64,
    /// Deadline, after which the claim is answered as unavailable.
    pub(super) until: Instant,
    /// Token of the answer; like the fields below, for claims of sessions only.
    pub(super) token: u64,
    pub(super) named: Option<SessionId>,
    pub(super) fresh: SessionId,
    pub(super) dial: DialNumber,
}

/// Last report of a watch about a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordReport {
    pub(super) revision: u64,
    /// `None` if the record was deleted or is unreadable.
    pub(super) owner: Option<Owner>,
}

/// Pending writes of a room's record.
#[derive(Debug, Default)]
pub(super) struct RoomWrites {
    pub(super) wanted: RoomState,
    pub(super) written: RoomState,
    /// Backup to name, or none to name none, until the record is known to do so.
    pub(super) backup: Option<Option<NodeId>>,
    /// Earliest time of the next write for the state alone.
    pub(super) next: Instant,
}

impl RoomWrites {
    /// Returns no pending writes, for a record that was written just now.
    pub(super) fn of(state: RoomState) -> Self {
        Self { wanted: state, written: state, ..Self::default() }
    }
}

/// Lane of the queue, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Requests that players wait for.
    Urgent,
    /// Checks of rooms: the node sequences nothing before they end.
    Check,
    /// Sessions that are registered again.
    Again,
}

/// Position in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePosition {
    pub(super) lane: Priority,
    order: u64,
}

/// Waiting state of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ServicePhase {
    #[default]
    Idle,
    /// Waits in the queue.
    Ready(QueuePosition),
    /// Waits for a lease.
    Parked,
    /// Waits until a time.
    Waiting(Instant),
    /// Waits for an answer.
    Calling,
}

/// All entries, with indexes by their state.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Boxed, because a B-tree has unused slots.
    pub(super) entries: BTreeMap<Subject, Box<OwnedRecord>>,
    pub(super) index: TableIndex,
    /// Claims by their deadlines.
    pub(super) claims: BTreeMap<(Instant, u64), Subject>,
    /// Requests in flight, and the part of them that no player waits for.
    pub(super) in_flight: usize,
    pub(super) background: usize,
}

/// Indexes of the entries by their state. The methods change an entry and its place in the indexes together.
#[derive(Debug, Default)]
pub(super) struct TableIndex {
    queue: BTreeMap<QueuePosition, Subject>,
    places: u64,
    parked: BTreeSet<Subject>,
    timers: BTreeSet<(Instant, Subject)>,
    /// Entries whose record has to be checked: rooms, then sessions.
    unchecked_rooms: BTreeSet<Subject>,
    unchecked_sessions: BTreeSet<Subject>,
    pub(super) sessions: usize,
    pub(super) rooms: usize,
}

impl TableIndex {
    pub(super) fn set_phase(&mut self, subject: &Subject, entry: &mut OwnedRecord, phase: ServicePhase) {
        match core::mem::replace(&mut entry.phase, phase) {
            ServicePhase::Ready(place) => {
                self.queue.remove(&place);
            }
            ServicePhase::Parked => {
                self.parked.remove(subject);
            }
            ServicePhase::Waiting(at) => {
                self.timers.remove(&(at, subject.clone()));
            }
            ServicePhase::Idle | ServicePhase::Calling => {}
        }
        match phase {
            ServicePhase::Ready(place) => {
                self.queue.insert(place, subject.clone());
            }
            ServicePhase::Parked => {
                self.parked.insert(subject.clone());
            }
            ServicePhase::Waiting(at) => {
                self.timers.insert((at, subject.clone()));
            }
            ServicePhase::Idle | ServicePhase::Calling => {}
        }
    }

    /// Ends the wait of an entry, unless the entry waits for an answer.
    pub(super) fn interrupt(&mut self, subject: &Subject, entry: &mut OwnedRecord) {
        if entry.phase != ServicePhase::Calling {
            self.set_phase(subject, entry, ServicePhase::Idle);
        }
    }

    /// Queues an entry, unless the entry has a position in the same or a better lane.
    pub(super) fn enqueue(&mut self, subject: &Subject, entry: &mut OwnedRecord, lane: Priority) {
        if matches!(entry.phase, ServicePhase::Ready(place) if place.lane <= lane) {
            return;
        }
        self.places += 1;
        self.set_phase(subject, entry, ServicePhase::Ready(QueuePosition { lane, order: self.places }));
    }

    /// Records that this node owns a session or a room, as just confirmed by the registry. A newer connection
    /// may have resumed the session since the request was sent.
    pub(super) fn hold(&mut self, subject: &Subject, entry: &mut OwnedRecord, mut held: Held) {
        if let Some(known) = entry.held.filter(|known| held.dial.is_behind(known.dial)) {
            held.dial = known.dial;
        }
        if entry.held.replace(held).is_none() {
            *self.count_of(subject) += 1;
        }
        self.set_doubtful(subject, entry, false);
    }

    /// Records that this node does not own a session or a room any more. Returns the former ownership.
    pub(super) fn let_go(&mut self, subject: &Subject, entry: &mut OwnedRecord) -> Option<Held> {
        let held = entry.held.take()?;
        *self.count_of(subject) -= 1;
        self.set_doubtful(subject, entry, false);
        Some(held)
    }

    const fn count_of(&mut self, subject: &Subject) -> &mut usize {
        match subject {
            Subject::Session(_) => &mut self.sessions,
            Subject::Room(_) => &mut self.rooms,
        }
    }

    pub(super) fn set_doubtful(&mut self, subject: &Subject, entry: &mut OwnedRecord, doubtful: bool) {
        entry.doubtful = doubtful && entry.held.is_some();
        let set = match subject {
            Subject::Session(_) => &mut self.unchecked_sessions,
            Subject::Room(_) => &mut self.unchecked_rooms,
        };
        if entry.doubtful {
            set.insert(subject.clone());
        } else {
            set.remove(subject);
        }
    }

    /// Returns the lane of the first entry of the queue.
    pub(super) fn first_lane(&self) -> Option<Priority> {
        self.queue.first_key_value().map(|(place, _)| place.lane)
    }

    /// Returns the earliest time at which an entry ends its wait.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns true if every held room is confirmed.
    pub(super) fn rooms_are_checked(&self) -> bool {
        self.unchecked_rooms.is_empty()
    }

    pub(super) fn doubtful(&self) -> usize {
        self.unchecked_rooms.len() + self.unchecked_sessions.len()
    }
}

impl Table {
    /// Returns an entry that must be in the table, and the indexes for a change of its state.
    #[track_caller]
    pub(super) fn entry(
        &mut self,
        bugs: &mut Bugs,
        subject: &Subject,
    ) -> Option<(&mut OwnedRecord, &mut TableIndex)> {
        let Some(entry) = self.entries.get_mut(subject) else {
            bugs.found("a session or a room is not in the table");
            return None;
        };
        Some((entry, &mut self.index))
    }

    /// Pops the first entry of the queue, if an entry of its lane may go.
    pub(super) fn take_first(
        &mut self,
        bugs: &mut Bugs,
        may_go: impl FnOnce(Priority) -> bool,
    ) -> Option<(Priority, Subject)> {
        let first = self.index.queue.first_entry()?;
        let lane = first.key().lane;
        if !may_go(lane) {
            return None;
        }
        let subject = first.remove();
        self.end_wait(bugs, &subject);
        Some((lane, subject))
    }

    /// Pops an entry whose waiting time is over.
    pub(super) fn take_due(&mut self, bugs: &mut Bugs, now: Instant) -> Option<Subject> {
        if self.index.next_timer()? > now {
            return None;
        }
        let (_, subject) = self.index.timers.pop_first()?;
        self.end_wait(bugs, &subject);
        Some(subject)
    }

    /// Pops an entry that waits for a lease.
    pub(super) fn take_parked(&mut self, bugs: &mut Bugs) -> Option<Subject> {
        let subject = self.index.parked.pop_first()?;
        self.end_wait(bugs, &subject);
        Some(subject)
    }

    /// Ends the wait of an entry that was popped from an index.
    fn end_wait(&mut self, bugs: &mut Bugs, subject: &Subject) {
        if let Some((entry, _)) = self.entry(bugs, subject) {
            entry.phase = ServicePhase::Idle;
        }
    }

    /// Pops the earliest claim past its deadline.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(u64, Subject)> {
        let first = self.claims.first_entry()?;
        let (until, serial) = *first.key();
        (until <= now).then(|| (serial, first.remove()))
    }

    /// Checks that every entry is in the index of its phase.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        let (mut ready, mut parked, mut waiting, mut calling, mut claims) = (0, 0, 0, 0, 0);
        let (mut sessions, mut rooms) = (0, 0);
        for (subject, entry) in &self.entries {
            match entry.phase {
                ServicePhase::Idle => check(entry.work.is_none(), "work that waits for nothing")?,
                ServicePhase::Ready(place) => {
                    check(self.index.queue.get(&place) == Some(subject), "place in the queue")?;
                    ready += 1;
                }
                ServicePhase::Parked => parked += usize::from(self.index.parked.contains(subject)),
                ServicePhase::Waiting(at) => {
                    waiting += usize::from(self.index.timers.contains(&(at, subject.clone())))
                }
                ServicePhase::Calling => calling += 1,
            }
            check(!entry.is_idle(), "entry of nothing")?;
            claims += entry.tasks.iter().filter(|task| matches!(task, Task::Claim(_))).count();
            claims += usize::from(entry.work.as_ref().is_some_and(|work| work.claim.is_some()));
            match subject {
                Subject::Session(_) => sessions += usize::from(entry.held.is_some()),
                Subject::Room(_) => rooms += usize::from(entry.held.is_some()),
            }
        }
        check(ready == self.index.queue.len(), "queue")?;
        check(parked == self.index.parked.len(), "parked entries")?;
        check(waiting == self.index.timers.len(), "timers")?;
        check(calling == self.in_flight && self.background <= self.in_flight, "requests in flight")?;
        check(claims == self.claims.len(), "claims")?;
        check((sessions, rooms) == (self.index.sessions, self.index.rooms), "what is held")
    }
}

impl OwnedRecord {
    /// Pops the next task. Frees the memory of an empty queue.
    pub(super) fn take_task(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front();
        if self.tasks.is_empty() {
            self.tasks = VecDeque::new();
        }
        task
    }

    /// Removes a claim, which is answered elsewhere. Returns the claim, and the attempt if it is made for the
    /// claim; `None` if the entry does not have the claim.
    pub(super) fn take_claim(&mut self, serial: u64) -> Option<(Claim, Option<Box<ClaimAttempt>>)> {
        let is_it = |claim: &Claim| claim.serial == serial;
        let at_work = self.work.as_ref().and_then(|work| work.claim).filter(is_it);
        if let Some(claim) = at_work {
            return Some((claim, self.work.take()));
        }
        let place = self.tasks.iter().position(|task| matches!(task, Task::Claim(claim) if is_it(claim)))?;
        match self.tasks.remove(place)? {
            Task::Claim(claim) => Some((claim, None)),
            Task::Swap(_) | Task::Release => None,
        }
    }

    /// Returns true if the entry is not owned and has no attempt, task, request or check.
    pub(super) fn is_idle(&self) -> bool {
        self.is_unused() && self.rechecks == 0
    }

    /// Returns true if the entry is not owned and has no attempt, task or request. A later check of its
    /// record may remain.
    pub(super) fn is_unused(&self) -> bool {
        self.held.is_none()
            && self.work.is_none()
            && self.tasks.is_empty()
            && self.phase != ServicePhase::Calling
    }
}
