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

/// Group commit, between a node and the driver of its connection to a remote registry. Many small requests
/// are sent in one transaction.
///
/// The inputs are requests and the responses to groups. The outputs are groups, each as one request (usually
/// a transaction of nested transactions), and the outcomes of the single requests.
///
/// Requests that are independent of each other may share a group: none of them writes a key or lease that
/// another one reads or writes. In every order of execution such requests have the same results. Independence
/// is also necessary, since the registry evaluates the comparisons of nested transactions before any step.
/// Members of a group lose one property of single requests: a revision of their own.
///
/// Dependent requests are executed in the order of their arrival: the later one waits until the group of the
/// earlier one has ended. The machine does not wait for groups to fill. Requests gather while the maximum
/// number of groups is in flight, so groups are fuller under load.
///
/// The outcome of a group is the outcome of each member. A group without an answer leaves each member
/// [unknown](Failure::Unknown), since the registry may have executed the group, or may execute it later. A
/// refusal is the exception: perhaps only one member caused it, so the members are sent again in groups of
/// half the size.
///
/// The driver polls groups while it has a connection. It must report a response or a failure for each group
/// within a time limit of its own. Until then the group holds back the requests that depend on its members,
/// and these requests may run out of time.
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

/// Request without an outcome.
#[derive(Clone, Copy, Debug)]
struct OpenRequest {
    asked: Instant,
    due: Instant,
    /// Time of the last sending, if the request may have been executed.
    sent: Option<Instant>,
}

impl GroupCommit {
    /// Creates a machine without requests.
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

    /// Returns the number of requests that wait to be sent.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.waiting()
    }

    /// Returns the number of groups that were sent and have not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the maximum time from a request to its outcome.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.config.patience
    }

    /// Handles a request with an identifier that no earlier request has had.
    pub fn handle_request(&mut self, now: Instant, id: CallId, request: Request) {
        self.observe(now);
        let due = now + self.config.patience;
        self.open.insert(id, OpenRequest { asked: now, due, sent: None });
        self.due.insert((due, id));
        if self.queue.push(id, request).is_err() {
            self.reply(id, Err(Failure::Unavailable));
        }
    }

    /// Handles the response to a group. The response to a group that has ended is ignored.
    ///
    /// # Errors
    /// Returns an error if the response is malformed. Each member then has the outcome of
    /// [`GroupFailure::Lost`], and the driver should close the connection.
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
                let _aftermath = self.fail(group, GroupFailure::Lost);
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

    /// Handles the failure of a group. The failure of a group that has ended is ignored, and counts as
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

    /// Marks the members of a group as unsent, since nothing was executed, and drops members that have an
    /// outcome already.
    fn unsend(&mut self, group: &mut Selection) {
        group.members.retain(|member| {
            let open = self.open.get_mut(&member.id);
            open.map(|open| open.sent = None).is_some()
        });
    }

    /// Gives up the requests that have run out of time.
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

    /// Returns the next group to send, if one can be sent now. With a connection, the driver polls until
    /// `None` after every request, response and failure.
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

    /// Returns the time of the next [`Self::handle_timeout`], with the reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.outputs.is_empty() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        self.due.first().map(|(at, _)| Deadline::new(*at, "the registry has not answered a request"))
    }

    /// Checks the invariants that hold after every call; for tests and the simulator.
    ///
    /// # Errors
    /// Returns the condition that does not hold.
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

    /// Reports the outcome of a request, unless the request has run out of time and has an outcome.
    fn reply(&mut self, id: CallId, outcome: Result<Response, Failure>) {
        let Some(open) = self.open.remove(&id) else { return };
        self.due.remove(&(open.due, id));
        self.outputs.push_back(GroupOutput::Reply { id, outcome, asked: open.asked });
    }

    fn observe(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }
}
