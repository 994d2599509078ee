//! Group commit, as nodes' drivers have it: requests that wait together and do not depend on
//! each other are done as one, and so share a revision.

use skirmish_core::registry::{
    Answer, CallId, Error, Failure, Op, Range, Registry, Request, Response, Span, Txn,
};
use skirmish_core::time::Instant;

use super::letters::Content;
use super::{Happening, World};
use crate::history::Lane;
use crate::oracle::Verdict;

/// Requests in a group, at most.
const MOST: usize = 16;

/// Keys that a read may answer with to be in a group.
const SMALL_READ: u64 = 16;

/// A group that was to end while the registry stands still is looked at again after so many
/// microseconds.
const LATER: u64 = 100_000;

/// Requests of one node that wait to be done together.
#[derive(Default)]
pub(super) struct Group {
    session: u64,
    calls: Vec<CallId>,
    ops: Vec<Op>,
    touches: Vec<KeyAccess>,
}

/// Keys that a request reads, or writes.
struct KeyAccess {
    span: Span,
    writes: bool,
}

impl Group {
    /// Whether a request that touches this may be done together with those that wait.
    fn has_room(&self, session: u64, touches: &[KeyAccess]) -> bool {
        let independent = |touch: &KeyAccess| !self.touches.iter().any(|other| touch.meets(other));
        self.session == session && self.ops.len() < MOST && touches.iter().all(independent)
    }
}

impl KeyAccess {
    /// Whether one writes what the other reads or writes.
    fn meets(&self, other: &Self) -> bool {
        let (one, two) = (&self.span, &other.span);
        (self.writes || other.writes) && (one.contains(&two.key) || two.contains(&one.key))
    }
}

/// The step that a request is in a transaction with others, if it may be one. Whether a lease
/// is there changes by requests only that are not.
fn step(request: &Request) -> Option<Op> {
    match request {
        Request::Put(put) => Some(Op::Put(put.clone())),
        Request::Delete(delete) => Some(Op::Delete(delete.clone())),
        // A check of writes goes alone.
        Request::Txn(txn) if txn.compares.is_empty() && !txn.failure.is_empty() => None,
        Request::Txn(txn) => Some(Op::Txn(txn.clone())),
        Request::Range(range) if range.revision == 0 && is_small(range) => Some(Op::Range(range.clone())),
        _ => None,
    }
}

fn is_small(range: &Range) -> bool {
    range.span.end.is_empty() || (1..=SMALL_READ).contains(&range.limit)
}

/// What a step may touch, whichever branch of a transaction is done.
fn touch(op: &Op, touches: &mut Vec<KeyAccess>) {
    let mut add = |span: Span, writes| touches.push(KeyAccess { span, writes });
    match op {
        Op::Range(range) => add(range.span.clone(), false),
        Op::Put(put) => add(Span::one(put.key.clone()), true),
        Op::Delete(delete) => add(delete.span.clone(), true),
        Op::Txn(txn) => {
            txn.compares.iter().for_each(|compare| add(compare.span.clone(), false));
            txn.success.iter().chain(&txn.failure).for_each(|op| touch(op, touches));
        }
    }
}

/// Whether a step that was answered so has written anything.
fn has_written(op: &Op, answer: &Answer) -> bool {
    match (op, answer) {
        (Op::Put(_), _) => true,
        (Op::Delete(_), Answer::Delete { deleted, .. }) => *deleted > 0,
        (Op::Txn(txn), Answer::Txn { succeeded, answers }) => {
            let ops = if *succeeded { &txn.success } else { &txn.failure };
            ops.iter().zip(answers).any(|(op, answer)| has_written(op, answer))
        }
        _ => false,
    }
}

/// Does steps that do not depend on each other as one transaction; if that is refused, each by
/// itself, since perhaps only one of them deserved it. Returns what came of each, and whether
/// several have written in one revision.
fn commit(machine: &mut Registry, now: Instant, ops: &[Op]) -> (Vec<Result<Response, Error>>, bool) {
    let together = Request::Txn(Txn { success: ops.to_vec(), ..Txn::default() });
    if ops.len() > 1
        && let Ok(Response { revision, answer: Answer::Txn { answers, .. } }) = machine.handle(now, &together)
    {
        let written = ops.iter().zip(&answers).filter(|(op, answer)| has_written(op, answer)).count();
        let outcomes = answers.into_iter().map(|answer| Ok(Response { revision, answer })).collect();
        return (outcomes, written > 1);
    }
    (ops.iter().map(|op| machine.handle(now, &request(op))).collect(), false)
}

fn request(op: &Op) -> Request {
    match op {
        Op::Range(range) => Request::Range(range.clone()),
        Op::Put(put) => Request::Put(put.clone()),
        Op::Delete(delete) => Request::Delete(delete.clone()),
        Op::Txn(txn) => Request::Txn(txn.clone()),
    }
}

impl World<'_> {
    /// A node's request has come: it is done, or waits for others to be done with.
    pub(super) fn take_request(
        &mut self,
        node: usize,
        session: u64,
        id: CallId,
        request: &Request,
    ) -> Verdict {
        let window = self.scenario.shape.group_us;
        let Some(op) = step(request).filter(|_| window > 0) else {
            self.end_group(node)?;
            let Some(registry) = self.registry.as_mut() else { return Ok(()) };
            let now = registry.clock.now(self.at).instant;
            let outcome = registry.machine.handle(now, request);
            self.answer(node, session, id, outcome);
            self.settle_registry();
            return Ok(());
        };
        let mut touches = Vec::new();
        touch(&op, &mut touches);
        let has_room = |group: &Group| group.has_room(session, &touches);
        if !self.registry.as_ref().is_some_and(|registry| has_room(&registry.groups[node])) {
            self.end_group(node)?;
        }
        let Some(registry) = self.registry.as_mut() else { return Ok(()) };
        let group = &mut registry.groups[node];
        let is_first = group.ops.is_empty();
        group.session = session;
        group.calls.push(id);
        group.ops.push(op);
        group.touches.append(&mut touches);
        if is_first {
            self.schedule(self.at + window, Happening::GroupOver(node));
        }
        Ok(())
    }

    /// No more requests are waited for.
    pub(super) fn group_over(&mut self, node: usize) -> Verdict {
        if self.registry.as_ref().is_some_and(|registry| registry.paused) {
            self.schedule(self.at + LATER, Happening::GroupOver(node));
            return Ok(());
        }
        self.end_group(node)
    }

    /// Does what waits of a node's requests.
    pub(super) fn end_group(&mut self, node: usize) -> Verdict {
        let at = self.at;
        let Some(registry) = self.registry.as_mut() else { return Ok(()) };
        let Group { session, calls, ops, .. } = std::mem::take(&mut registry.groups[node]);
        if ops.is_empty() {
            return Ok(());
        }
        if at < registry.leaderless {
            return calls
                .into_iter()
                .zip(&ops)
                .try_for_each(|(id, op)| self.blur(node, session, id, request(op)));
        }
        let now = registry.clock.now(at).instant;
        let (outcomes, shared) = commit(&mut registry.machine, now, &ops);
        if shared {
            self.coverage.hit("revision shared");
        }
        for (id, outcome) in calls.into_iter().zip(outcomes) {
            self.answer(node, session, id, outcome);
        }
        self.settle_registry();
        // Whose it was is known until something else is done.
        self.read_match_news()
    }

    fn answer(&mut self, node: usize, session: u64, id: CallId, outcome: Result<Response, Error>) {
        self.author = Some(self.author_of(session));
        let outcome = outcome.map_err(Failure::Refused);
        self.history.record(
            self.at,
            Lane::Registry,
            format_args!("answers node {node}'s {id:?}: {outcome:?}"),
        );
        self.post(node, session, Content::Reply(id, outcome));
    }
}

#[cfg(test)]
mod tests {
    use skirmish_core::registry::{Compare, Delete, LeaseId, Put, RegistryConfig};

    use super::*;
    use crate::draw::draw;
    use crate::world::{Options, run};

    const NOW: Instant = Instant::ZERO;

    fn put(key: &'static str) -> Op {
        Op::Put(Put::new(key, "new", None))
    }

    /// Writes a key if another one is not there.
    fn put_unless(key: &'static str, absent: &'static str) -> Op {
        let failure = vec![Op::Range(Range::of(Span::one(absent)))];
        Op::Txn(Txn { compares: vec![Compare::absent(absent)], success: vec![put(key)], failure })
    }

    fn delete(prefix: &'static str) -> Op {
        Op::Delete(Delete::of(Span::prefix(prefix)))
    }

    fn read(prefix: &'static str) -> Op {
        Op::Range(Range { limit: 2, ..Range::of(Span::prefix(prefix)) })
    }

    fn filled() -> Registry {
        let mut machine = Registry::new(RegistryConfig::etcd(), NOW);
        for key in ["a1", "a2", "b1"] {
            machine.handle(NOW, &request(&put(key))).unwrap();
        }
        machine
    }

    fn go_together(one: &Op, two: &Op) -> bool {
        let touches = |op: &Op| {
            let mut touches = Vec::new();
            touch(op, &mut touches);
            touches
        };
        let waiting =
            |op: &Op| Group { session: 7, ops: vec![op.clone()], touches: touches(op), ..Group::default() };
        let (forth, back) =
            (waiting(one).has_room(7, &touches(two)), waiting(two).has_room(7, &touches(one)));
        assert_eq!(forth, back, "{one:?} {two:?}");
        assert!(!waiting(one).has_room(8, &touches(two)));
        forth
    }

    #[test]
    fn requests_go_together_if_neither_writes_what_the_other_touches() {
        assert!(go_together(&put("a"), &put("b")) && !go_together(&put("a"), &put("a")));
        assert!(!go_together(&put("a1"), &read("a")) && go_together(&read("a"), &read("a")));
        assert!(!go_together(&put("a1"), &delete("a")) && go_together(&put("b1"), &delete("a")));
        assert!(
            !go_together(&put("c"), &put_unless("x", "c")) && !go_together(&put("x"), &put_unless("x", "c"))
        );
        assert!(go_together(&put_unless("x", "c"), &put_unless("y", "c")));
        assert!(!go_together(&put_unless("x", "y"), &put_unless("y", "x")));
    }

    #[test]
    fn a_group_answers_as_its_requests_do_one_by_one_but_in_one_revision() {
        let ops = [
            put_unless("c1", "a1"),
            put_unless("c2", "c3"),
            put("d"),
            delete("b"),
            read("a"),
            put_unless("e", "e"),
        ];
        let (mut machine, mut other) = (filled(), filled());
        let before = machine.revision();
        let (outcomes, shared) = commit(&mut machine, NOW, &ops);
        assert!(shared && outcomes.len() == ops.len());
        for (op, outcome) in ops.iter().zip(outcomes) {
            let (outcome, alone) = (outcome.unwrap(), other.handle(NOW, &request(op)).unwrap());
            assert_eq!(outcome.answer, alone.answer);
            assert_eq!(outcome.revision, before + 1);
        }
        assert_eq!((machine.revision(), other.revision()), (before + 1, before + 4));
    }

    #[test]
    fn of_a_group_that_is_refused_only_who_deserves_it_is() {
        let leased = Op::Put(Put::new("z", "", Some(LeaseId(9))));
        let mut machine = filled();
        let before = machine.revision();
        let (outcomes, shared) = commit(&mut machine, NOW, &[put("x"), leased, put("y")]);
        assert!(!shared && outcomes[0].is_ok() && outcomes[2].is_ok());
        assert_eq!(outcomes[1], Err(Error::LeaseNotFound));
        assert_eq!(machine.revision(), before + 2);
    }

    #[test]
    fn reads_and_writes_that_do_nothing_share_no_revision() {
        let mut machine = filled();
        assert!(!commit(&mut machine, NOW, &[put("x"), read("a"), put_unless("y", "a1"), delete("q")]).1);
        assert!(commit(&mut machine, NOW, &[put("x"), put_unless("y", "q")]).1);
    }

    #[test]
    fn some_seeds_have_requests_that_share_a_revision() {
        let shares = |seed| {
            let scenario = draw(seed);
            let outcome = (scenario.shape.group_us > 0).then(|| run(&scenario, Options::default()));
            outcome.is_some_and(|outcome| {
                outcome.coverage.iter().any(|(mark, visits, _)| mark == "revision shared" && visits > 0)
            })
        };
        assert!((0..100).any(shares));
    }
}
