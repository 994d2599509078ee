//! The sessions and rooms that a node has or asks for, and who is to be served next.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use super::claim::Attempt;
use super::keys::{Owner, RoomState, Subject};
use crate::base::id::SessionId;
use crate::base::time::Instant;

/// A session or a room.
#[derive(Debug, Default)]
pub(super) struct OwnedRecord {
    /// What is ours, as far as is known.
    pub(super) held: Option<Held>,
    /// What is being done about it: most of the time nothing, so it takes no place then.
    pub(super) work: Option<Box<ClaimAttempt>>,
    /// What is to be done after that, in order.
    pub(super) tasks: VecDeque<Task>,
    /// The record may not be what it was: it is to be looked at.
    pub(super) doubtful: bool,
    /// The newest change of the record that a watch told.
    pub(super) news: Option<RecordNews>,
    /// Looks at the record that are still to be made, since a request that nobody knows
    /// what came of may yet be done; and when the next is due, once that is known.
    pub(super) looks: u32,
    pub(super) look_at: Option<Instant>,
    /// Of a room.
    pub(super) room: RoomWrites,
    pub(super) phase: ServicePhase,
}

/// What is held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) epoch: u64,
    /// The revision that last wrote the record.
    pub(super) modified: u64,
    /// Of a session.
    pub(super) session: SessionId,
}

/// An attempt under way.
#[derive(Debug)]
pub(super) struct ClaimAttempt {
    pub(super) attempt: Attempt,
    /// The claim that it answers.
    pub(super) claim: Option<Claim>,
    pub(super) sent: bool,
    /// The attempt replaces the one that the request in flight is of.
    pub(super) replaced: bool,
    /// In a row.
    pub(super) failures: u32,
}

impl ClaimAttempt {
    pub(super) fn new(attempt: Attempt, claim: Option<Claim>) -> Box<Self> {
        Box::new(Self { attempt, claim, sent: false, replaced: false, failures: 0 })
    }

    /// An attempt in place of another, of which a request may be in flight.
    pub(super) fn instead(attempt: Attempt, in_flight: bool) -> Box<Self> {
        Box::new(Self { attempt, claim: None, sent: false, replaced: in_flight, failures: 0 })
    }
}

/// What is asked of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Claim(Claim),
    Release,
}

/// A claim that waits for its outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) serial: u64,
    /// When it is unavailable.
    pub(super) until: Instant,
    /// Of a session.
    pub(super) token: u64,
    pub(super) named: Option<SessionId>,
    pub(super) fresh: SessionId,
}

/// What a watch told last of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordNews {
    pub(super) revision: u64,
    /// `None` if it was deleted, or cannot be read.
    pub(super) owner: Option<Owner>,
}

/// What is written of a room, and when.
#[derive(Debug, Default)]
pub(super) struct RoomWrites {
    pub(super) wanted: RoomState,
    pub(super) written: RoomState,
    /// Not written before, unless the turn changes.
    pub(super) next: Instant,
}

impl RoomWrites {
    /// Of a room that was claimed just now.
    pub(super) fn opened() -> Self {
        Self { wanted: RoomState::OPENED, written: RoomState::OPENED, ..Self::default() }
    }
}

/// Who is served before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// What players wait for.
    Urgent,
    /// Rooms that are checked: nothing is sequenced before.
    Check,
    /// Sessions that are registered again.
    Again,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueuePosition {
    pub(super) lane: Priority,
    order: u64,
}

/// Whether an entry is waiting to be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ServicePhase {
    #[default]
    Idle,
    /// In the queue.
    Ready(QueuePosition),
    /// For a lease.
    Parked,
    /// Until a moment.
    Waiting(Instant),
    /// For an answer.
    Calling,
}

/// All entries, and those of them that can be served.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// Boxed, as the table has places that nobody is in.
    pub(super) entries: BTreeMap<Subject, Box<OwnedRecord>>,
    queue: BTreeMap<QueuePosition, Subject>,
    places: u64,
    parked: BTreeSet<Subject>,
    timers: BTreeSet<(Instant, Subject)>,
    /// Claims by when they are unavailable.
    pub(super) claims: BTreeMap<(Instant, u64), Subject>,
    /// Entries whose record has to be looked at, rooms apart from sessions.
    unchecked_rooms: BTreeSet<Subject>,
    unchecked_sessions: BTreeSet<Subject>,
    pub(super) sessions: usize,
    pub(super) rooms: usize,
    /// Requests in flight, and those among them that nobody waits for.
    pub(super) in_flight: usize,
    pub(super) background: usize,
}

impl Table {
    pub(super) fn set_phase(&mut self, subject: &Subject, phase: ServicePhase) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
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

    /// Queues an entry up, unless it waits for an answer or stands no further behind.
    pub(super) fn enqueue(&mut self, subject: &Subject, lane: Priority) {
        match self.entries.get(subject).map(|entry| entry.phase) {
            None | Some(ServicePhase::Calling) => return,
            Some(ServicePhase::Ready(place)) if place.lane <= lane => return,
            Some(_) => {}
        }
        self.places += 1;
        self.set_phase(subject, ServicePhase::Ready(QueuePosition { lane, order: self.places }));
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<(Priority, &Subject)> {
        self.queue.first_key_value().map(|(place, subject)| (place.lane, subject))
    }

    /// When the next entry has waited long enough.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// An entry that has waited long enough; it waits no more.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Subject> {
        let (at, subject) = self.timers.first()?;
        if *at > now {
            return None;
        }
        let subject = subject.clone();
        self.set_phase(&subject, ServicePhase::Idle);
        Some(subject)
    }

    /// An entry that waits for a lease; it waits no more.
    pub(super) fn take_parked(&mut self) -> Option<Subject> {
        let subject = self.parked.first()?.clone();
        self.set_phase(&subject, ServicePhase::Idle);
        Some(subject)
    }

    /// The claim that is unavailable next, if it is time.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(u64, Subject)> {
        let ((until, _), _) = self.claims.first_key_value()?;
        if *until > now {
            return None;
        }
        self.claims.pop_first().map(|((_, serial), subject)| (serial, subject))
    }

    /// Something is ours: `held`, which has just been seen.
    pub(super) fn hold(&mut self, subject: &Subject, held: Held) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
        if entry.held.replace(held).is_none() {
            match subject {
                Subject::Session(_) => self.sessions += 1,
                Subject::Room(_) => self.rooms += 1,
            }
        }
        self.set_doubtful(subject, false);
    }

    /// What was ours is not any more.
    pub(super) fn let_go(&mut self, subject: &Subject) -> Option<Held> {
        let held = self.entries.get_mut(subject)?.held.take()?;
        match subject {
            Subject::Session(_) => self.sessions -= 1,
            Subject::Room(_) => self.rooms -= 1,
        }
        self.set_doubtful(subject, false);
        Some(held)
    }

    pub(super) fn set_doubtful(&mut self, subject: &Subject, doubtful: bool) {
        let Some(entry) = self.entries.get_mut(subject) else { return };
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

    /// Whether every room that is held was seen to be ours.
    pub(super) fn rooms_are_checked(&self) -> bool {
        self.unchecked_rooms.is_empty()
    }

    pub(super) fn doubtful(&self) -> usize {
        self.unchecked_rooms.len() + self.unchecked_sessions.len()
    }

    /// Forgets an entry of which nothing is held, wanted or on the way.
    pub(super) fn tidy(&mut self, subject: &Subject) {
        if self.entries.get(subject).is_some_and(|entry| entry.is_idle()) {
            self.set_phase(subject, ServicePhase::Idle);
            self.entries.remove(subject);
        }
    }

    /// Checks that every entry is where its phase says.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        let (mut ready, mut parked, mut waiting, mut calling, mut claims) = (0, 0, 0, 0, 0);
        let (mut sessions, mut rooms) = (0, 0);
        for (subject, entry) in &self.entries {
            match entry.phase {
                ServicePhase::Idle => check(entry.work.is_none(), "work that waits for nothing")?,
                ServicePhase::Ready(place) => {
                    check(self.queue.get(&place) == Some(subject), "place in the queue")?;
                    ready += 1;
                }
                ServicePhase::Parked => parked += usize::from(self.parked.contains(subject)),
                ServicePhase::Waiting(at) => {
                    waiting += usize::from(self.timers.contains(&(at, subject.clone())))
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
        check(ready == self.queue.len(), "queue")?;
        check(parked == self.parked.len(), "parked entries")?;
        check(waiting == self.timers.len(), "timers")?;
        check(calling == self.in_flight && self.background <= self.in_flight, "requests in flight")?;
        check(claims == self.claims.len(), "claims")?;
        check((sessions, rooms) == (self.sessions, self.rooms), "what is held")
    }
}

impl OwnedRecord {
    /// What is to be done next. No place is kept for what there is none of.
    pub(super) fn take_task(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front();
        if self.tasks.is_empty() {
            self.tasks = VecDeque::new();
        }
        task
    }

    fn is_idle(&self) -> bool {
        self.is_unused() && self.looks == 0
    }

    /// Nothing is held, wanted or on the way; its record may be looked at later.
    pub(super) fn is_unused(&self) -> bool {
        self.held.is_none()
            && self.work.is_none()
            && self.tasks.is_empty()
            && self.phase != ServicePhase::Calling
    }
}
