//! Group commit has the same results as single requests.

use skirmish_core::registry::{
    Answer, Compare, CompareTarget, Delete, Failure, KeyValue, LeaseId, Put, Range, RegistryOp, Relation,
    Request, Response, Span, Txn,
};
use skirmish_core::rng::Rng;
use skirmish_io::config::RegistryEtcd;
use skirmish_tests::etcd::{Etcd, Version};

use crate::asker::{Asker, Outcome, options};

/// Draws requests on few keys, so that they often conflict, and sometimes a request that is refused.
struct Draw(Rng);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0.range(0..=end - 1)
    }

    fn key(&mut self) -> String {
        format!("k{}", self.below(40))
    }

    fn put(&mut self) -> Put {
        let lease = match self.below(12) {
            0..3 => Some(LeaseId(1)),
            3 => Some(LeaseId(404)),
            _ => None,
        };
        let kept = self.below(10) == 0;
        let value = if kept { String::new() } else { format!("v{}", self.below(4)) };
        Put { prev: self.below(3) == 0, ignore_value: kept, ..Put::new(self.key(), value, lease) }
    }

    fn span(&mut self) -> Span {
        if self.below(4) == 0 { Span::prefix(format!("k{}", self.below(4))) } else { Span::one(self.key()) }
    }

    fn range(&mut self) -> Range {
        Range { limit: self.below(3), ..Range::of(self.span()) }
    }

    fn delete(&mut self) -> Delete {
        Delete { span: self.span(), prev: self.below(2) == 0 }
    }

    fn txn(&mut self, depth: u64) -> Txn {
        let compares = (0..self.below(3)).map(|_| self.compare()).collect();
        let ops = |draw: &mut Self| (0..draw.below(4)).map(|_| draw.op(depth)).collect();
        Txn { compares, success: ops(self), failure: ops(self) }
    }

    fn compare(&mut self) -> Compare {
        let relation = match self.below(4) {
            0 => Relation::Equal,
            1 => Relation::NotEqual,
            2 => Relation::Greater,
            _ => Relation::Less,
        };
        // Comparisons of revisions are left out: revisions differ in groups.
        let target = match self.below(4) {
            0 => CompareTarget::Version(self.below(5)),
            1 => CompareTarget::Value(format!("v{}", self.below(4)).into()),
            2 => CompareTarget::Lease(None),
            _ => return Compare::absent(self.key()),
        };
        Compare { span: self.span(), relation, target }
    }

    fn op(&mut self, depth: u64) -> RegistryOp {
        match self.below(6) {
            0 => RegistryOp::Range(self.range()),
            1 => RegistryOp::Delete(self.delete()),
            2 if depth > 0 => RegistryOp::Txn(self.txn(depth - 1)),
            _ => RegistryOp::Put(self.put()),
        }
    }

    fn request(&mut self) -> Request {
        match self.below(10) {
            0 => Request::Range(self.range()),
            1 => Request::Delete(self.delete()),
            2..6 => Request::Txn(self.txn(2)),
            _ => Request::Put(self.put()),
        }
    }
}

/// Returns an outcome without revisions, because the members of a group share one.
fn without_revisions(outcome: Outcome) -> Result<Answer, Failure> {
    fn kv(kv: KeyValue) -> KeyValue {
        KeyValue { created: 0, modified: 0, ..kv }
    }
    fn plain(answer: Answer) -> Answer {
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
    outcome.map(|Response { answer, .. }| plain(answer))
}

#[tokio::test]
async fn what_rides_together_has_the_outcomes_of_one_after_the_other() {
    const REQUESTS: usize = 3000;
    for version in Version::installed() {
        for groups in [1, 4] {
            let etcd = Etcd::start_with(version, &[]).await;
            // All requests are sent at once, and wait for each other.
            let request_timeout = std::time::Duration::from_secs(300);
            let options = RegistryEtcd { groups, request_timeout, ..options(vec![etcd.url()]) };
            let mut real = Asker::new(&options);
            let mut machine = Asker::embedded();
            let mut draw = Draw(Rng::new([groups as u8; 32]));
            let grant = Request::Grant { id: LeaseId(1), ttl_s: 600 };
            real.done(grant.clone()).await.unwrap();
            machine.done(grant).await.unwrap();

            let requests: Vec<_> = (0..REQUESTS).map(|_| draw.request()).collect();
            let calls: Vec<_> = requests.iter().map(|request| real.ask(request.clone())).collect();
            let mut refused = 0;
            for (request, call) in requests.iter().zip(calls) {
                let expected = without_revisions(machine.done(request.clone()).await);
                let outcome = without_revisions(real.outcome(call).await);
                assert_eq!(outcome, expected, "{version:?} {request:?}");
                refused += usize::from(expected.is_err());
            }
            let everything = Request::Range(Range::of(Span::prefix("")));
            let expected = without_revisions(machine.done(everything.clone()).await);
            assert_eq!(without_revisions(real.done(everything).await), expected);
            assert!(machine.machine().keys() > 0);

            let counters = real.registry.counters();
            assert!(refused > 100 && counters.halved > 10, "{refused} {counters:?}");
            assert!(counters.groups < counters.members, "{counters:?}");
        }
    }
}

/// Executed in sequence, only one of the two finds the other one's key absent.
#[tokio::test]
async fn requests_that_look_at_each_others_keys_do_not_both_win() {
    let etcd = Etcd::start().await;
    let mut asker = Asker::new(&options(vec![etcd.url()]));
    asker.list("").await;
    for round in 0..50 {
        let claim = |own: &str, other: &str| {
            let (own, other) = (format!("{round}/{own}"), format!("{round}/{other}"));
            let put = RegistryOp::Put(Put::new(own, "", None));
            Request::Txn(Txn { compares: vec![Compare::absent(other)], success: vec![put], failure: vec![] })
        };
        let calls = [asker.ask(claim("a", "b")), asker.ask(claim("b", "a"))];
        let mut won = Vec::new();
        for call in calls {
            let Ok(Response { answer: Answer::Txn { succeeded, .. }, .. }) = asker.outcome(call).await else {
                panic!("it is sound")
            };
            won.push(succeeded);
        }
        assert_eq!(won, [true, false]);
    }
}

/// Most claims find their key absent, some do not, and each gets its own outcome.
#[tokio::test]
async fn whoever_finds_its_key_taken_costs_no_other_its_own() {
    const CLAIMS: usize = 2000;
    for version in Version::installed() {
        let etcd = Etcd::start_with(version, &[]).await;
        let mut asker = Asker::new(&options(vec![etcd.url()]));
        let key = |i: usize| format!("k{i:04}");
        let is_taken = |i: usize| i % 97 == 3;
        for i in (0..CLAIMS).filter(|i| is_taken(*i)) {
            asker.done(Request::Put(Put::new(key(i), "old", None))).await.unwrap();
        }
        let before = asker.registry.counters();
        let claim = |i: usize| {
            let read = RegistryOp::Range(Range::of(Span::one(key(i))));
            let put = RegistryOp::Put(Put::new(key(i), format!("new{i}"), None));
            let compares = vec![Compare::absent(key(i))];
            Request::Txn(Txn { compares, success: vec![put], failure: vec![read] })
        };
        let calls: Vec<_> = (0..CLAIMS).map(|i| (asker.ask(claim(i)), asker.ask(claim(i)))).collect();
        for (i, (first, second)) in calls.into_iter().enumerate() {
            let first = asker.outcome(first).await.unwrap();
            let Answer::Txn { succeeded, answers } = first.answer else { panic!("{first:?}") };
            assert_eq!((succeeded, answers.len()), (!is_taken(i), 1), "{version:?} {i}");
            // The second request reads the key that the first one wrote, or the older key that made the first
            // one fail.
            let second = asker.outcome(second).await.unwrap();
            let Answer::Txn { succeeded: false, answers } = &second.answer else { panic!("{second:?}") };
            let [Answer::Range { kvs, .. }] = &**answers else { panic!("{second:?}") };
            let [kv] = &**kvs else { panic!("{second:?}") };
            let value = if is_taken(i) { "old".to_owned() } else { format!("new{i}") };
            assert_eq!((&*kv.value, kv.version), (value.as_bytes(), 1), "{version:?} {i}");
            if !is_taken(i) {
                assert_eq!(kv.modified, first.revision);
            }
        }
        let counters = asker.registry.counters();
        let (members, groups) = (counters.members - before.members, counters.groups - before.groups);
        assert!(members > 2 * CLAIMS as u64, "nothing was ever shared: {members}");
        assert!(groups * 10 < members, "{groups} groups of {members}");
    }
}

/// All writes of a group have one revision, and every member gets this revision: a watch from the next one
/// neither misses nor repeats a change.
#[tokio::test]
async fn a_member_is_told_the_revision_of_what_it_wrote() {
    let etcd = Etcd::start().await;
    let mut asker = Asker::new(&options(vec![etcd.url()]));
    asker.list("").await;
    let calls: Vec<_> =
        (0..500).map(|i| asker.ask(Request::Put(Put::new(format!("k{i:03}"), "", None)))).collect();
    let mut told = Vec::new();
    for call in calls {
        told.push(asker.outcome(call).await.unwrap().revision);
    }
    let (newest, kvs) = asker.list("k").await;
    assert_eq!(kvs.iter().map(|kv| kv.modified).collect::<Vec<_>>(), told);
    assert_eq!(told.iter().max(), Some(&newest));
    assert!(newest < 100, "{newest}: hardly anything rode together");
}
