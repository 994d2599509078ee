//! The machine: requests and their deadlines, groups in flight, outcomes.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::member::GroupMember;
use super::queue::{GroupQueue, Selection};
use super::{
    Aftermath, Group, GroupConfig, GroupFailure, GroupId, GroupOutput, MalformedResponse, transaction,
};
use crate::base::time::{Deadline, Duration, Instant};
use crate::registry::{CallId, Failure, Request, Response};

/// Group commit, between a node and the driver of its connection to a remote registry: many
/// small requests ride in one transaction.
///
/// Requests go in and groups come out, each as one request: usually a transaction of nested
/// transactions. Responses to groups go in and the outcomes of single requests come out.
///
/// Requests that do not depend on each other may ride in one group: none writes what another
/// reads or writes. In whichever order such requests were done one by one, they would find and
/// answer the same. The registry evaluates the comparisons of nested transactions before any
/// step is done, so independence is also necessary. What is given up is that each request has a
/// revision of its own.
///
/// Requests that depend on each other are done in the order in which they came: the later one
/// waits until the group of the earlier one has ended. The machine does not wait for groups to
/// fill. Requests gather while as many groups are in flight as may be, so groups are fuller the
/// more there is to do.
///
/// An outcome of a group is that of each member. A group without an answer leaves each member
/// [unknown](Failure::Unknown), since the group may have been done, or will be. A refusal is the
/// exception: perhaps only one member deserves it, so the members are sent again in groups of
/// half the size.
///
/// The driver polls groups while it has a connection, and owes each one a response or a failure
/// within a time of its own. Until then the group holds back the requests that depend on it,
/// which run out of time if it takes too long.
#[derive(Debug)]
pub struct GroupCommit {
    config: GroupConfig,
    now: Instant,
    queue: GroupQueue,
    in_flight: BTreeMap<GroupId, Selection>,
    /// Requests without an outcome.
    open: BTreeMap<CallId, OpenRequest>,
    due: BTreeSet<(Instant, CallId)>,
    outputs: VecDeque<GroupOutput>,
}

/// A request without an outcome.
#[derive(Clone, Copy, Debug)]
struct OpenRequest {
    asked: Instant,
    due: Instant,
    /// The time at which it was last sent, if it may have been done.
    sent: Option<Instant>,
}

impl GroupCommit {
    /// A machine without requests.
    #[must_use]
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            now: Instant::ZERO,
            queue: GroupQueue::new(config),
            in_flight: BTreeMap::new(),
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Requests that wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Groups that were sent and have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Time from a request to its outcome at most.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.config.patience
    }

    /// Takes a request, of an identifier that no earlier one has had.
    pub fn handle_request(&mut self, now: Instant, id: CallId, request: Request) {
        self.observe(now);
        let due = now + self.config.patience;
        self.open.insert(id, OpenRequest { asked: now, due, sent: None });
        self.due.insert((due, id));
        if self.queue.push(id, request).is_err() {
            self.reply(id, Err(Failure::Unavailable));
        }
    }

    /// Takes the response to a group; the response to one that has ended is ignored.
    ///
    /// # Errors
    /// If the response is malformed. Each member then has the outcome of
    /// [`GroupFailure::Lost`], and the connection should be given up.
    pub fn handle_response(
        &mut self,
        now: Instant,
        id: GroupId,
        response: Response,
    ) -> Result<(), MalformedResponse> {
        self.observe(now);
        let Some(mut group) = self.in_flight.remove(&id) else { return Ok(()) };
        let responses = match transaction::responses(response, &group.members, &group.bundles) {
            Ok(responses) => responses,
            Err(malformed) => {
                let _ = self.fail(group, GroupFailure::Lost);
                return Err(malformed);
            }
        };
        let mut has_answer = Vec::with_capacity(responses.len());
        for (member, response) in group.members.iter().zip(responses) {
            has_answer.push(response.is_some());
            if let Some(response) = response {
                self.reply(member.id, Ok(response));
            }
        }
        self.queue.answered(&mut group, &has_answer);
        self.unsend(&mut group);
        self.queue.again(group);
        Ok(())
    }

    /// Takes the failure of a group. That of one that has ended is ignored, and counts as
    /// settled.
    pub fn handle_failure(&mut self, now: Instant, id: GroupId, failure: GroupFailure) -> Aftermath {
        self.observe(now);
        match self.in_flight.remove(&id) {
            Some(group) => self.fail(group, failure),
            None => Aftermath::Settled,
        }
    }

    fn fail(&mut self, mut group: Selection, failure: GroupFailure) -> Aftermath {
        let failure = match failure {
            GroupFailure::Outcome(Failure::Refused(_)) if group.members.len() > 1 => {
                self.unsend(&mut group);
                self.queue.halve(group);
                return Aftermath::Halved;
            }
            GroupFailure::NotDone => return self.send_again(group),
            GroupFailure::Lost if group.members.iter().all(GroupMember::is_read) => {
                return self.send_again(group);
            }
            GroupFailure::Lost => Failure::Unknown,
            GroupFailure::Outcome(failure) => failure,
        };
        self.queue.end(group.id);
        for member in group.members {
            self.reply(member.id, Err(failure));
        }
        Aftermath::Settled
    }

    fn send_again(&mut self, mut group: Selection) -> Aftermath {
        self.unsend(&mut group);
        self.queue.again(group);
        Aftermath::Again
    }

    /// Notes that nothing was done of a group's members, and drops those that have their outcome
    /// already.
    fn unsend(&mut self, group: &mut Selection) {
        group.members.retain(|member| {
            let open = self.open.get_mut(&member.id);
            open.map(|open| open.sent = None).is_some()
        });
    }

    /// Gives the requests up whose time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        let mut overdue = None;
        while let Some(&(at, id)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let sent = self.open.get(&id).and_then(|open| open.sent);
            if sent.is_none() {
                self.queue.remove(id);
            }
            let failure = if sent.is_some() { Failure::Unknown } else { Failure::Unavailable };
            self.reply(id, Err(failure));
            overdue = overdue.max(sent);
        }
        if let Some(sent) = overdue {
            self.outputs.push_back(GroupOutput::Overdue { sent });
        }
    }

    /// Returns the next group to send, if anything can be sent now. The driver polls until
    /// `None` whenever it has a connection: after requests, responses and failures.
    #[must_use]
    pub fn poll_group(&mut self, now: Instant) -> Option<Group> {
        self.observe(now);
        let group = self.queue.take()?;
        for member in &group.members {
            if let Some(open) = self.open.get_mut(&member.id) {
                open.sent = Some(now);
            }
        }
        let request = transaction::request(&group.members, &group.bundles);
        let (id, members) = (group.id, group.members.len());
        self.in_flight.insert(id, group);
        Some(Group { id, request, members })
    }

    /// Returns the next output.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<GroupOutput> {
        self.outputs.pop_front()
    }

    /// Returns the time at which [`Self::handle_timeout`] is to be called, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.outputs.is_empty() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        self.due.first().map(|(at, _)| Deadline::new(*at, "the registry has not answered a request"))
    }

    /// Checks what must hold after every call; for tests and the simulator.
    ///
    /// # Errors
    /// The condition that does not hold.
    pub fn audit(&self) -> Result<(), &'static str> {
        let waits = |request: &OpenRequest| request.sent.is_none();
        if self.open.values().filter(|request| waits(request)).count() != self.queue.waiting() {
            return Err("requests that were not sent are not those that wait");
        }
        let sent = self.in_flight.values().map(|group| group.members.len()).sum::<usize>();
        if self.open.len() > self.queue.waiting() + sent {
            return Err("a request neither waits nor is in flight");
        }
        if self.due.len() != self.open.len() {
            return Err("a request has no deadline, or more than one");
        }
        if self.in_flight.len() != self.queue.in_flight()
            || self.in_flight.len() > self.config.in_flight.max(1)
        {
            return Err("too many groups are in flight");
        }
        let longest = self.config.members.max(1);
        if self.in_flight.values().any(|group| group.members.len() > longest) {
            return Err("a group is too large");
        }
        Ok(())
    }

    fn reply(&mut self, id: CallId, outcome: Result<Response, Failure>) {
        let Some(open) = self.open.remove(&id) else { return };
        self.due.remove(&(open.due, id));
        self.outputs.push_back(GroupOutput::Reply { id, outcome, asked: open.asked });
    }

    fn observe(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}
