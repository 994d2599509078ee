//! The queue of requests, and the choice of the next group from it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use super::access_set::AccessSet;
use super::bundle::{Bundle, BundleKind, Packer};
use super::member::GroupMember;
use super::share_limit::ShareLimit;
use super::{GroupConfig, GroupId, MAX_GROUP_MEMBERS};
use crate::registry::{CallId, Request};

/// Maximum number of keys in the answer to a group of several members, so that the answer is not larger than
/// drivers accept.
const GROUP_READS: u64 = 2048;

/// Maximum number of requests passed over in the search for members, so that a search is short.
const PASSED_OVER: usize = 256;

/// Members and bundles of one group.
#[derive(Debug)]
pub(super) struct Selection {
    pub(super) id: GroupId,
    pub(super) members: Vec<GroupMember>,
    pub(super) bundles: Vec<Bundle>,
}

/// Refusal of a request, because the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

/// Waiting requests, and the access sets of the groups in flight.
#[derive(Debug)]
pub(super) struct GroupQueue {
    config: GroupConfig,
    waiting: VecDeque<GroupMember>,
    in_flight: BTreeMap<GroupId, AccessSet>,
    next: GroupId,
    share_limit: ShareLimit,
}

impl GroupQueue {
    pub(super) fn new(config: GroupConfig) -> Self {
        let members = config.members.clamp(1, MAX_GROUP_MEMBERS);
        let config = GroupConfig { members, in_flight: config.in_flight.max(1), ..config };
        Self {
            config,
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            next: GroupId(0),
            share_limit: ShareLimit::default(),
        }
    }

    /// Returns the number of waiting requests.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the number of groups in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Appends a request.
    ///
    /// # Errors
    /// Returns an error if the queue is full.
    pub(super) fn push(&mut self, id: CallId, request: Request) -> Result<(), QueueFull> {
        if self.waiting.len() >= self.config.waiting {
            return Err(QueueFull);
        }
        self.waiting.push_back(GroupMember::new(id, request, self.config.members));
        Ok(())
    }

    /// Removes a waiting request. Returns true if there was one.
    pub(super) fn remove(&mut self, id: CallId) -> bool {
        let at = self.waiting.iter().position(|member| member.id == id);
        at.and_then(|at| self.waiting.remove(at)).is_some()
    }

    /// Removes and returns the next group, if one can be sent now.
    pub(super) fn take(&mut self) -> Option<Selection> {
        if self.in_flight.len() >= self.config.in_flight {
            return None;
        }
        let mut members: Vec<GroupMember> = Vec::new();
        let (mut bytes, mut reads, mut most) = (0, 0, self.config.members);
        let mut packer = Packer::new(self.share_limit.size());
        // Accesses of members and of requests passed over. A later request that conflicts with any of them
        // may neither overtake nor join.
        let mut barred = AccessSet::default();
        let mut passed_over = Vec::new();
        while passed_over.len() < PASSED_OVER && members.len() < most {
            let Some(member) = self.waiting.pop_front() else { break };
            let size = members.len() + 1;
            let fits = size == 1
                || (size <= member.most
                    && bytes + member.bytes <= self.config.bytes
                    && member.reads.saturating_add(reads) <= GROUP_READS);
            let free = fits
                && !barred.conflicts_with(&member.accesses)
                && !self.in_flight.values().any(|set| set.conflicts_with(&member.accesses))
                && packer.add(member.need);
            barred.add(&member.accesses);
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
        let mut set = AccessSet::default();
        for member in &members {
            set.add(&member.accesses);
        }
        self.in_flight.insert(id, set);
        Some(Selection { id, members, bundles: packer.finish() })
    }

    /// Ends a group, regardless of its outcome.
    pub(super) fn end(&mut self, id: GroupId) {
        self.in_flight.remove(&id);
    }

    /// Handles the answer to a group. Keeps only the members without an answer: their shared bundles failed,
    /// and they are sent again as nested transactions.
    pub(super) fn answered(&mut self, group: &mut Selection, has_answer: &[bool]) {
        let has_answer = |at: usize| has_answer.get(at) == Some(&true);
        let shared = || group.bundles.iter().filter(|bundle| bundle.kind == BundleKind::Shared);
        let failed = shared().filter(|bundle| bundle.members.iter().any(|at| !has_answer(*at)));
        self.share_limit.handle_answered(shared().count(), failed.count());
        let mut places = 0..;
        group.members.retain(|_| places.next().is_some_and(|at| !has_answer(at)));
        group.members.iter_mut().for_each(GroupMember::unshare);
    }

    /// Queues the members of a refused group again, for groups of half the size. Nothing was executed, and
    /// perhaps only one member caused the refusal; this member is alone in the end.
    pub(super) fn halve(&mut self, group: Selection) {
        let half = (group.members.len() / 2).max(1);
        self.put_back(group, half);
    }

    /// Queues the members of a group that was not executed again, before all other requests.
    pub(super) fn again(&mut self, group: Selection) {
        self.put_back(group, usize::MAX);
    }

    fn put_back(&mut self, group: Selection, most: usize) {
        self.end(group.id);
        for mut member in group.members.into_iter().rev() {
            member.most = member.most.min(most);
            self.waiting.push_front(member);
        }
    }
}
