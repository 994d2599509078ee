//! Group commit: which of the waiting requests go together in one.
//!
//! Requests that do not depend on each other (none writes what another reads or writes)
//! may ride in one transaction, made of bundles: whatever the order in which they would have
//! been done one by one, they would have found the same and answered the same. The registry
//! evaluates the comparisons of nested transactions before any step is done, so this is
//! also the least that must be asked. What is given up is that each has a revision of its
//! own.
//!
//! Requests that do depend on each other are done in the order in which they came: the
//! later one waits until the earlier one's group has ended. There is no timer: while
//! groups are in flight work gathers, so the more there is to do, the fuller groups are.

use std::collections::{BTreeMap, VecDeque};

use skirmish_core::registry::{CallId, Compare, Delete, Op, Range, Request, Span, Target, Txn};

use super::bundle::{Bundle, Need, Packer, Trust, WIDTH, Way};
use super::touch::{Ground, Touch, touched};

/// Requests in a group, at most, so that a burst does not become one long transaction.
pub(super) const MAX_MEMBERS: usize = 1024;

/// Most keys that a read may answer with and still ride with others.
const SMALL_READ: u64 = 16;

/// Most keys that a group of more than one may answer with, so that its answer is not larger
/// than what is taken.
const GROUP_READS: u64 = 2048;

/// Requests passed over in the search for a group's members, so that a search is short.
const PASSED_OVER: usize = 256;

/// What a step costs beside its keys and values, in bytes.
const AROUND_A_STEP: usize = 32;

/// Bounds of groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Requests waiting.
    pub(super) waiting: usize,
    /// Requests in a group; at most [`MAX_MEMBERS`].
    pub(super) members: usize,
    /// Bytes of a group of more than one.
    pub(super) bytes: usize,
    /// Groups in flight.
    pub(super) in_flight: usize,
}

/// A group's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(pub(super) u64);

/// A request on its way.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: CallId,
    pub(super) request: Request,
    touches: Vec<Touch>,
    bytes: usize,
    /// Keys that it may answer with.
    reads: u64,
    need: Need,
    /// Of how many a group with it may be at most.
    most: usize,
}

/// Requests that go together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) members: Vec<Member>,
    /// How they go.
    pub(super) bundles: Vec<Bundle>,
}

/// No more may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The requests that wait, and what those in flight touch.
#[derive(Debug)]
pub(super) struct Groups {
    limits: Limits,
    waiting: VecDeque<Member>,
    in_flight: BTreeMap<GroupId, Ground>,
    next: GroupId,
    trust: Trust,
}

impl Groups {
    pub(super) fn new(limits: Limits) -> Self {
        let members = limits.members.clamp(1, MAX_MEMBERS);
        let limits = Limits { members, in_flight: limits.in_flight.max(1), ..limits };
        Self {
            limits,
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            next: GroupId(0),
            trust: Trust::default(),
        }
    }

    /// Requests that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// If too many wait.
    pub(super) fn push(&mut self, id: CallId, request: Request) -> Result<(), Full> {
        if self.waiting.len() >= self.limits.waiting {
            return Err(Full);
        }
        let need = Need::of(&request);
        self.waiting.push_back(Member {
            id,
            touches: touched(&request),
            bytes: bytes_of(&request),
            reads: reads_of(&request),
            most: if rides(&request) && need.depth < WIDTH { self.limits.members } else { 1 },
            need,
            request,
        });
        Ok(())
    }

    /// Drops a request that still waits. Whether it did.
    pub(super) fn remove(&mut self, id: CallId) -> bool {
        let at = self.waiting.iter().position(|member| member.id == id);
        at.and_then(|at| self.waiting.remove(at)).is_some()
    }

    /// The next group to send, if there is something that may be sent now.
    pub(super) fn take(&mut self) -> Option<Group> {
        if self.in_flight.len() >= self.limits.in_flight {
            return None;
        }
        let mut members: Vec<Member> = Vec::new();
        let (mut bytes, mut reads, mut most) = (0, 0, self.limits.members);
        let mut packer = Packer::new(self.trust.size());
        // What must not be overtaken or joined: of members, and of those passed over.
        let mut barred = Ground::default();
        let mut passed_over = Vec::new();
        while passed_over.len() < PASSED_OVER && members.len() < most {
            let Some(member) = self.waiting.pop_front() else { break };
            let size = members.len() + 1;
            let fits = size == 1
                || (size <= member.most
                    && bytes + member.bytes <= self.limits.bytes
                    && member.reads.saturating_add(reads) <= GROUP_READS);
            let free = fits
                && !barred.meets(&member.touches)
                && !self.in_flight.values().any(|ground| ground.meets(&member.touches))
                && packer.add(member.need);
            barred.add(&member.touches);
            if free {
                bytes += member.bytes;
                reads = member.reads.saturating_add(reads);
                most = most.min(member.most);
                members.push(member);
            } else {
                passed_over.push(member);
            }
        }
        for member in passed_over.into_iter().rev() {
            self.waiting.push_front(member);
        }
        if members.is_empty() {
            return None;
        }
        let id = self.next;
        self.next = GroupId(id.0 + 1);
        let mut ground = Ground::default();
        for member in &members {
            ground.add(&member.touches);
        }
        self.in_flight.insert(id, ground);
        Some(Group { id, members, bundles: packer.finish() })
    }

    /// A group has ended, whatever came of it.
    pub(super) fn end(&mut self, id: GroupId) {
        self.in_flight.remove(&id);
    }

    /// A group was answered, except for those of its members whose bundles failed: they are
    /// what is left of it, to be sent again, each as a nested transaction of its own.
    pub(super) fn answered(&mut self, group: &mut Group, has_answer: &[bool]) {
        let has_answer = |at: usize| has_answer.get(at) == Some(&true);
        let tied = || group.bundles.iter().filter(|bundle| bundle.way == Way::Tied);
        let failed = tied().filter(|bundle| bundle.members.iter().any(|at| !has_answer(*at)));
        self.trust.handle_answered(tied().count(), failed.count());
        let mut places = 0..;
        group.members.retain(|_| places.next().is_some_and(|at| !has_answer(at)));
        for member in &mut group.members {
            member.need.way = Way::Apart;
        }
    }

    /// A group was refused as a whole though perhaps only one of its members deserved it;
    /// nothing was done. They go again in groups of half the size, so that in the end those
    /// that are to blame are alone.
    pub(super) fn halve(&mut self, group: Group) {
        let half = (group.members.len() / 2).max(1);
        self.put_back(group, half);
    }

    /// Nothing of a group was done: its members wait again, before all others.
    pub(super) fn again(&mut self, group: Group) {
        self.put_back(group, usize::MAX);
    }

    fn put_back(&mut self, group: Group, most: usize) {
        self.end(group.id);
        for mut member in group.members.into_iter().rev() {
            member.most = member.most.min(most);
            self.waiting.push_front(member);
        }
    }
}

/// Whether a request may be a step of a transaction with others.
fn rides(request: &Request) -> bool {
    match request {
        Request::Put(_) | Request::Delete(_) => true,
        // One that does nothing, and asks whether it might, is not answered as a step: etcd looks
        // neither for space nor for rights in nested transactions.
        Request::Txn(txn) => !txn.compares.is_empty() || txn.failure.is_empty(),
        Request::Range(range) => range.revision == 0 && reads_of_range(range) <= SMALL_READ,
        _ => false,
    }
}

/// With how many keys a request may answer.
fn reads_of(request: &Request) -> u64 {
    match request {
        Request::Range(range) => reads_of_range(range),
        Request::Delete(delete) => reads_of_delete(delete),
        Request::Txn(txn) => reads_of_txn(txn),
        Request::Put(put) => u64::from(put.prev),
        _ => 0,
    }
}

fn reads_of_txn(txn: &Txn) -> u64 {
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Range(range) => reads_of_range(range),
        Op::Delete(delete) => reads_of_delete(delete),
        Op::Txn(txn) => reads_of_txn(txn),
        Op::Put(put) => u64::from(put.prev),
    });
    ops.fold(0, u64::saturating_add)
}

const fn reads_of_delete(delete: &Delete) -> u64 {
    match delete.prev {
        false => 0,
        true if delete.span.end.is_empty() => 1,
        true => u64::MAX,
    }
}

const fn reads_of_range(range: &Range) -> u64 {
    match range.limit {
        _ if range.span.end.is_empty() => 1,
        0 => u64::MAX,
        limit => limit,
    }
}

fn bytes_of(request: &Request) -> usize {
    AROUND_A_STEP
        + match request {
            Request::Range(range) => bytes_of_span(&range.span),
            Request::Put(put) => put.key.len() + put.value.len(),
            Request::Delete(delete) => bytes_of_span(&delete.span),
            Request::Txn(txn) => bytes_of_txn(txn),
            _ => 0,
        }
}

fn bytes_of_txn(txn: &Txn) -> usize {
    let compares: usize = txn.compares.iter().map(bytes_of_compare).sum();
    let ops = txn.success.iter().chain(&txn.failure).map(|op| {
        AROUND_A_STEP
            + match op {
                Op::Range(range) => bytes_of_span(&range.span),
                Op::Put(put) => put.key.len() + put.value.len(),
                Op::Delete(delete) => bytes_of_span(&delete.span),
                Op::Txn(txn) => bytes_of_txn(txn),
            }
    });
    compares + ops.sum::<usize>()
}

fn bytes_of_compare(compare: &Compare) -> usize {
    let value = if let Target::Value(value) = &compare.target { value.len() } else { 0 };
    AROUND_A_STEP + bytes_of_span(&compare.span) + value
}

fn bytes_of_span(span: &Span) -> usize {
    span.key.len() + span.end.len()
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
