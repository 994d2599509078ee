//! Tests of the machine alone, and in front of a registry.

use alloc::collections::BTreeMap;
use alloc::{format, vec, vec::Vec};

use proptest::prelude::*;

use super::{CONFIG, claim};
use crate::base::time::{Duration, Instant};
use crate::registry::{
    Aftermath, Answer, CallId, Compare, CompareTarget, Delete, Error, Failure, Group, GroupCommit,
    GroupConfig, GroupFailure, GroupId, GroupOutput, KeyValue, LeaseId, MalformedResponse, Put, Range,
    Registry, RegistryConfig, RegistryOp, Relation, Request, Response, Span, Txn,
};

type Outcome = Result<Response, Failure>;

/// Machine that is audited after every call, and its clock.
struct Bench {
    machine: GroupCommit,
    now: Instant,
    asked: u64,
}

impl Bench {
    fn new(config: GroupConfig) -> Self {
        Self { machine: GroupCommit::new(config), now: Instant::ZERO, asked: 0 }
    }

    /// Passes a request to the machine; requests are numbered from 0.
    fn ask(&mut self, request: Request) {
        self.machine.handle_request(self.now, CallId(self.asked), request);
        self.asked += 1;
        self.machine.audit().unwrap();
    }

    fn group(&mut self) -> Option<Group> {
        let group = self.machine.poll_group(self.now);
        self.machine.audit().unwrap();
        group
    }

    fn respond(&mut self, id: GroupId, response: Response) -> Result<(), MalformedResponse> {
        let result = self.machine.handle_response(self.now, id, response);
        self.machine.audit().unwrap();
        result
    }

    fn fail(&mut self, id: GroupId, failure: GroupFailure) -> Aftermath {
        let aftermath = self.machine.handle_failure(self.now, id, failure);
        self.machine.audit().unwrap();
        aftermath
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.machine.handle_timeout(self.now);
        self.machine.audit().unwrap();
    }

    fn outputs(&mut self) -> Vec<GroupOutput> {
        core::iter::from_fn(|| self.machine.poll_output()).collect()
    }

    /// Returns the outcomes since the last call.
    fn outcomes(&mut self) -> Vec<(u64, Outcome)> {
        let replies = self.outputs().into_iter().filter_map(|output| match output {
            GroupOutput::Reply { id, outcome, .. } => Some((id.0, outcome)),
            GroupOutput::Overdue { .. } => None,
        });
        replies.collect()
    }

    /// Sends the next group to a registry. Returns false if there is none.
    fn serve(&mut self, registry: &mut Registry) -> bool {
        let Some(group) = self.group() else { return false };
        self.done(&group, registry.handle(self.now, &group.request));
        true
    }

    /// Reports the registry's outcome of a group to the machine.
    fn done(&mut self, group: &Group, outcome: Result<Response, Error>) {
        match outcome {
            Ok(response) => self.respond(group.id, response).unwrap(),
            Err(error) => {
                let aftermath = self.fail(group.id, GroupFailure::Outcome(Failure::Refused(error)));
                let expected = if group.members > 1 { Aftermath::Halved } else { Aftermath::Settled };
                assert_eq!(aftermath, expected);
            }
        }
    }
}

fn write(key: &'static str) -> Request {
    Request::Put(Put::new(key, "", None))
}

fn get(key: &'static str) -> Request {
    Request::Range(Range::of(Span::one(key)))
}

fn etcd() -> Registry {
    Registry::new(RegistryConfig::etcd(), Instant::ZERO)
}

const UNKNOWN: Outcome = Err(Failure::Unknown);
const UNAVAILABLE: Outcome = Err(Failure::Unavailable);

#[test]
fn an_ambiguous_outcome_of_a_group_is_that_of_each_member() {
    for failure in [GroupFailure::Lost, GroupFailure::Outcome(Failure::Unknown)] {
        let mut bench = Bench::new(CONFIG);
        for request in [write("a"), get("b"), Request::Txn(claim("c"))] {
            bench.ask(request);
        }
        let group = bench.group().unwrap();
        assert_eq!(group.members, 3);
        assert_eq!(bench.fail(group.id, failure), Aftermath::Settled);
        assert_eq!(bench.outcomes(), [(0, UNKNOWN), (1, UNKNOWN), (2, UNKNOWN)]);
        assert!(bench.group().is_none());
        // The group has ended: a later response is ignored.
        assert_eq!(bench.respond(group.id, Response { revision: 2, answer: Answer::Revoked }), Ok(()));
        assert_eq!(bench.outcomes(), []);
    }
}

#[test]
fn reads_are_sent_again_over_another_connection() {
    let mut bench = Bench::new(CONFIG);
    bench.ask(get("a"));
    bench.ask(get("b"));
    let first = bench.group().unwrap();
    assert_eq!(bench.fail(first.id, GroupFailure::Lost), Aftermath::Again);
    let second = bench.group().unwrap();
    assert_eq!((second.request, second.members), (first.request, 2));
    assert_ne!(second.id, first.id);
    // Over the same connection another attempt would probably fail too.
    assert_eq!(bench.fail(second.id, GroupFailure::Outcome(Failure::Unknown)), Aftermath::Settled);
    assert_eq!(bench.outcomes(), [(0, UNKNOWN), (1, UNKNOWN)]);
}

#[test]
fn a_group_that_was_not_done_waits_before_all_others() {
    let mut bench = Bench::new(GroupConfig { members: 2, ..CONFIG });
    for key in ["a", "b", "c"] {
        bench.ask(write(key));
    }
    let group = bench.group().unwrap();
    assert_eq!(bench.fail(group.id, GroupFailure::NotDone), Aftermath::Again);
    assert_eq!(bench.group().unwrap().request, group.request);
    assert_eq!(bench.outcomes(), []);
}

#[test]
fn only_the_member_to_blame_is_refused() {
    let mut bench = Bench::new(CONFIG);
    let mut registry = etcd();
    for key in ["a", "b", "c", "d", "e"] {
        bench.ask(write(key));
    }
    bench.ask(Request::Put(Put::new("f", "", Some(LeaseId(404)))));
    while bench.serve(&mut registry) {}
    let mut outcomes = bench.outcomes();
    outcomes.sort_unstable_by_key(|(id, _)| *id);
    assert_eq!(outcomes.pop(), Some((5, Err(Failure::Refused(Error::LeaseNotFound)))));
    assert!(outcomes.len() == 5 && outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
}

#[test]
fn members_of_a_group_share_a_revision() {
    let mut bench = Bench::new(CONFIG);
    let mut registry = etcd();
    for key in ["a", "b", "c"] {
        bench.ask(write(key));
    }
    assert!(bench.serve(&mut registry) && !bench.serve(&mut registry));
    let revisions: Vec<_> =
        bench.outcomes().into_iter().map(|(_, outcome)| outcome.unwrap().revision).collect();
    assert_eq!(revisions, [2, 2, 2]);
    assert_eq!(registry.revision(), 2);
}

#[test]
fn requests_run_out_of_time_as_they_were_sent_or_not() {
    let mut bench = Bench::new(CONFIG);
    assert_eq!(bench.machine.poll_timeout(), None);
    bench.ask(write("a"));
    let due = Instant::ZERO + CONFIG.patience;
    assert_eq!(bench.machine.poll_timeout().map(|deadline| deadline.at), Some(due));
    bench.pass(500);
    let sent = bench.now;
    let group = bench.group().unwrap();
    // This request waits for the first one, which writes the same key.
    bench.ask(write("a"));
    bench.ask(write("b"));
    assert!(bench.group().is_none(), "one is in flight");
    bench.pass(1_499);
    assert_eq!(bench.outputs(), []);
    bench.pass(1);
    let reply = |id, outcome, asked| GroupOutput::Reply { id: CallId(id), outcome, asked };
    let queued = bench.machine.poll_timeout().map(|deadline| deadline.at);
    assert_eq!(queued, Some(bench.now), "queued output is due now");
    assert_eq!(bench.outputs(), [reply(0, UNKNOWN, Instant::ZERO), GroupOutput::Overdue { sent }]);
    bench.pass(500);
    assert_eq!(bench.outputs(), [reply(1, UNAVAILABLE, sent), reply(2, UNAVAILABLE, sent)]);
    assert_eq!((bench.machine.waiting(), bench.machine.in_flight()), (0, 1));
    // No request waits any more, so nothing is sent again.
    assert_eq!(bench.fail(group.id, GroupFailure::NotDone), Aftermath::Again);
    assert_eq!((bench.group(), bench.machine.in_flight()), (None, 0));
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn members_in_time_have_their_answers_beside_one_that_is_late() {
    let mut bench = Bench::new(CONFIG);
    bench.ask(write("a"));
    bench.pass(1_000);
    bench.ask(write("b"));
    let group = bench.group().unwrap();
    bench.pass(1_000);
    assert_eq!(bench.outcomes(), [(0, UNKNOWN)]);
    let response = etcd().handle(bench.now, &group.request).unwrap();
    bench.respond(group.id, response).unwrap();
    let outcomes = bench.outcomes();
    assert!(matches!(*outcomes, [(1, Ok(_))]), "{outcomes:?}");
}

#[test]
fn a_request_too_many_is_unavailable_at_once() {
    let mut bench = Bench::new(GroupConfig { waiting: 2, ..CONFIG });
    for key in ["a", "b", "c"] {
        bench.ask(write(key));
    }
    assert_eq!(bench.outcomes(), [(2, UNAVAILABLE)]);
}

#[test]
fn a_malformed_response_leaves_its_members_unknown() {
    let mut bench = Bench::new(CONFIG);
    for key in ["a", "b"] {
        bench.ask(write(key));
    }
    let group = bench.group().unwrap();
    let answer = Answer::Txn { succeeded: true, answers: vec![Answer::Put { prev: None }] };
    assert_eq!(bench.respond(group.id, Response { revision: 2, answer }), Err(MalformedResponse));
    assert_eq!(bench.outcomes(), [(0, UNKNOWN), (1, UNKNOWN)]);
    assert_eq!(bench.machine.in_flight(), 0);
}

fn any_key() -> impl Strategy<Value = bytes::Bytes> {
    "k[0-5]{1,2}".prop_map(bytes::Bytes::from)
}

fn any_span() -> impl Strategy<Value = Span> {
    prop_oneof![3 => any_key().prop_map(Span::one), 1 => any_key().prop_map(Span::prefix)]
}

fn any_put() -> impl Strategy<Value = Put> {
    (any_key(), 0..3u8, prop::option::of(prop_oneof![4 => Just(1u64), 1 => Just(404)]), any::<bool>())
        .prop_map(|(key, value, lease, prev)| Put {
            prev,
            ..Put::new(key, format!("v{value}"), lease.map(LeaseId))
        })
}

fn any_compare() -> impl Strategy<Value = Compare> {
    // Comparisons of revisions are left out, since revisions differ in groups.
    let target = prop_oneof![
        Just(CompareTarget::Create(0)),
        (0..4u64).prop_map(CompareTarget::Version),
        (0..3u8).prop_map(|value| CompareTarget::Value(format!("v{value}").into())),
        Just(CompareTarget::Lease(None)),
    ];
    let relation = prop_oneof![Just(Relation::Equal), Just(Relation::NotEqual), Just(Relation::Greater)];
    (any_span(), relation, target).prop_map(|(span, relation, target)| {
        let relation = if target == CompareTarget::Create(0) { Relation::Equal } else { relation };
        Compare { span, relation, target }
    })
}

fn any_op() -> impl Strategy<Value = RegistryOp> {
    prop_oneof![
        3 => any_put().prop_map(RegistryOp::Put),
        1 => (any_span(), 0..3u64).prop_map(|(span, limit)| RegistryOp::Range(Range { limit, ..Range::of(span) })),
        1 => (any_span(), any::<bool>()).prop_map(|(span, prev)| RegistryOp::Delete(Delete { span, prev })),
    ]
}

fn any_txn(op: impl Strategy<Value = RegistryOp> + Clone) -> impl Strategy<Value = Txn> {
    let ops = prop::collection::vec(op, 0..4);
    (prop::collection::vec(any_compare(), 0..3), ops.clone(), ops)
        .prop_map(|(compares, success, failure)| Txn { compares, success, failure })
}

fn any_request() -> impl Strategy<Value = Request> {
    let op = any_op().boxed();
    let nested = prop_oneof![4 => op.clone(), 1 => any_txn(op).prop_map(RegistryOp::Txn)].boxed();
    prop_oneof![
        3 => any_put().prop_map(Request::Put),
        1 => any_span().prop_map(|span| Request::Range(Range::of(span))),
        1 => (any_span(), any::<bool>()).prop_map(|(span, prev)| Request::Delete(Delete { span, prev })),
        2 => (any_key()).prop_map(|key| Request::Txn(claim(core::str::from_utf8(&key).unwrap()))),
        2 => any_txn(nested).prop_map(Request::Txn),
    ]
}

/// Returns an outcome without revisions, because the members of a group share one.
fn without_revisions(outcome: Outcome) -> Result<Answer, Failure> {
    fn plain(answer: Answer) -> Answer {
        let kv = |kv: KeyValue| KeyValue { created: 0, modified: 0, ..kv };
        match answer {
            Answer::Range { kvs, more, count } => {
                Answer::Range { kvs: kvs.into_iter().map(kv).collect(), more, count }
            }
            Answer::Put { prev } => Answer::Put { prev: prev.map(kv) },
            Answer::Delete { deleted, prev } => {
                Answer::Delete { deleted, prev: prev.into_iter().map(kv).collect() }
            }
            Answer::Txn { succeeded, answers } => {
                Answer::Txn { succeeded, answers: answers.into_iter().map(plain).collect() }
            }
            other => other,
        }
    }
    outcome.map(|response| plain(response.answer))
}

fn with_lease() -> Registry {
    let mut registry = etcd();
    registry.handle(Instant::ZERO, &Request::Grant { id: LeaseId(1), ttl_s: 600 }).unwrap();
    registry
}

/// Event of a run with groups.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ask,
    Send,
    /// The registry executes and answers the group.
    Do(usize),
    /// The registry executes the group, and the answer is lost with the connection.
    DoSilently(usize),
    Lose(usize),
    NotDone(usize),
    Unavailable(usize),
    Pass(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Ask),
        4 => Just(Event::Send),
        3 => (0..4usize).prop_map(Event::Do),
        1 => (0..4usize).prop_map(Event::DoSilently),
        1 => (0..4usize).prop_map(Event::Lose),
        1 => (0..4usize).prop_map(Event::NotDone),
        1 => (0..4usize).prop_map(Event::Unavailable),
        1 => (1..900u64).prop_map(Event::Pass),
    ]
}

proptest! {
    /// Grouped requests have the same outcomes as single ones, in any order of the groups' ends, and leave
    /// the same keys.
    #[test]
    fn grouped_requests_have_the_outcomes_of_one_by_one(
        requests in prop::collection::vec(any_request(), 1..80),
        order in prop::collection::vec(0..4usize, 1..50),
        in_flight in 1..4usize,
        members in 1..40usize,
    ) {
        let mut bench = Bench::new(GroupConfig { in_flight, members, ..CONFIG });
        let (mut registry, mut alone) = (with_lease(), with_lease());
        for request in &requests {
            bench.ask(request.clone());
        }
        let mut flying: Vec<Group> = Vec::new();
        let mut order = order.iter().cycle();
        loop {
            while let Some(group) = bench.group() {
                flying.push(group);
            }
            if flying.is_empty() {
                break;
            }
            let group = flying.remove(order.next().unwrap() % flying.len());
            bench.done(&group, registry.handle(bench.now, &group.request));
        }
        let outcomes: BTreeMap<u64, Outcome> = bench.outcomes().into_iter().collect();
        prop_assert_eq!(outcomes.len(), requests.len());
        for (request, (_, outcome)) in requests.iter().zip(outcomes) {
            let expected = alone.handle(bench.now, request).map_err(Failure::Refused);
            prop_assert_eq!(without_revisions(outcome), without_revisions(expected), "{:?}", request);
        }
        let everything = Request::Range(Range::of(Span::prefix("")));
        let everything = [registry, alone].map(|mut registry| {
            without_revisions(registry.handle(bench.now, &everything).map_err(Failure::Refused))
        });
        prop_assert_eq!(&everything[0], &everything[1]);
    }

    /// Each request has one outcome in time, and the outcome is true: a request with a response was executed
    /// once, a refused or unavailable one not at all, and an unknown one at most once.
    #[test]
    fn outcomes_are_true_whatever_comes_of_groups(
        events in prop::collection::vec(any_event(), 1..150),
        in_flight in 1..4usize,
        members in 1..8usize,
    ) {
        let config = GroupConfig { in_flight, members, waiting: 20, ..CONFIG };
        let mut bench = Bench::new(config);
        let mut registry = etcd();
        let mut flying: Vec<Group> = Vec::new();
        let mut outcomes = BTreeMap::new();
        let finish = [Event::Pass(2_000)];
        for event in events.into_iter().chain(finish) {
            let chosen = |index: usize, flying: &mut Vec<Group>| {
                (!flying.is_empty()).then(|| flying.remove(index % flying.len()))
            };
            match event {
                Event::Ask => {
                    // The request's own key counts its executions; the common key makes it depend on every
                    // fourth request.
                    let id = bench.asked;
                    let own = RegistryOp::Put(Put::new(format!("own/{id}"), "", None));
                    let lease = (id % 7 == 3).then_some(LeaseId(404));
                    let common = RegistryOp::Put(Put::new(format!("common/{}", id % 4), "", lease));
                    let compares =
                        if id.is_multiple_of(3) { vec![Compare::absent(format!("own/{id}"))] } else { vec![] };
                    bench.ask(Request::Txn(Txn { compares, success: vec![own, common], failure: vec![] }));
                }
                Event::Send => flying.extend(bench.group()),
                Event::Do(index) => if let Some(group) = chosen(index, &mut flying) {
                    let outcome = registry.handle(bench.now, &group.request);
                    bench.done(&group, outcome);
                },
                Event::DoSilently(index) => if let Some(group) = chosen(index, &mut flying) {
                    let _ = registry.handle(bench.now, &group.request);
                    prop_assert_eq!(bench.fail(group.id, GroupFailure::Lost), Aftermath::Settled);
                },
                Event::Lose(index) => if let Some(group) = chosen(index, &mut flying) {
                    prop_assert_eq!(bench.fail(group.id, GroupFailure::Lost), Aftermath::Settled);
                },
                Event::NotDone(index) => if let Some(group) = chosen(index, &mut flying) {
                    prop_assert_eq!(bench.fail(group.id, GroupFailure::NotDone), Aftermath::Again);
                },
                Event::Unavailable(index) => if let Some(group) = chosen(index, &mut flying) {
                    let failure = GroupFailure::Outcome(Failure::Unavailable);
                    prop_assert_eq!(bench.fail(group.id, failure), Aftermath::Settled);
                },
                Event::Pass(millis) => bench.pass(millis),
            }
            for (id, outcome) in bench.outcomes() {
                prop_assert_eq!(outcomes.insert(id, outcome), None, "{} has two outcomes", id);
            }
            prop_assert!(flying.len() <= in_flight);
        }
        prop_assert_eq!(outcomes.len() as u64, bench.asked);
        for (id, outcome) in outcomes {
            let own = Request::Range(Range::of(Span::one(format!("own/{id}"))));
            let Ok(Response { answer: Answer::Range { kvs, .. }, .. }) = registry.handle(bench.now, &own) else {
                panic!("a read is answered")
            };
            let times = kvs.first().map_or(0, |kv| kv.version);
            match outcome {
                Ok(response) => prop_assert_eq!(times, u64::from(response.wrote())),
                Err(Failure::Refused(_) | Failure::Unavailable) => prop_assert_eq!(times, 0),
                Err(Failure::Unknown) => prop_assert!(times <= 1),
            }
        }
    }
}
