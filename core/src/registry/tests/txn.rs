//! Transactions: comparisons, branches, checks, duplicates, limits.

use super::*;

fn compare(key: &'static str, relation: Relation, target: CompareTarget) -> Compare {
    Compare { span: Span::one(key), relation, target }
}

fn op_put(key: &'static str) -> RegistryOp {
    RegistryOp::Put(Put::new(key, "new", None))
}

fn op_delete(span: Span) -> RegistryOp {
    RegistryOp::Delete(Delete::of(span))
}

fn op_get(key: &'static str) -> RegistryOp {
    RegistryOp::Range(Range::of(Span::one(key)))
}

fn nested(compares: Vec<Compare>, success: Vec<RegistryOp>, failure: Vec<RegistryOp>) -> RegistryOp {
    RegistryOp::Txn(Txn { compares, success, failure })
}

fn run(bench: &mut Bench, ops: Vec<RegistryOp>) -> Result<Response, Error> {
    bench.handle(Request::Txn(Txn { success: ops, ..Txn::default() }))
}

fn answers(bench: &mut Bench, ops: Vec<RegistryOp>) -> Vec<Answer> {
    match run(bench, ops).unwrap().answer {
        Answer::Txn { succeeded: true, answers } => answers,
        other => panic!("{other:?}"),
    }
}

#[test]
fn compares_everything_that_a_key_has() {
    let mut bench = Bench::etcd();
    bench.grant(5, 10).unwrap();
    bench.put("a", "1");
    bench.ok(Request::Put(leased("a", "v", 5)));
    let mut holds = |key, relation, target| {
        let txn = Txn { compares: vec![compare(key, relation, target)], ..Txn::default() };
        match bench.ok(Request::Txn(txn)) {
            Answer::Txn { succeeded, .. } => succeeded,
            other => panic!("{other:?}"),
        }
    };
    let targets: [fn(u64) -> CompareTarget; 4] =
        [CompareTarget::Version, CompareTarget::Create, CompareTarget::Mod, |lease| {
            CompareTarget::Lease(Some(LeaseId(lease)))
        }];
    for (target, is) in targets.into_iter().zip([2, 2, 3, 5]) {
        for other in [is - 1, is, is + 1] {
            assert_eq!(holds("a", Relation::Equal, target(other)), is == other);
            assert_eq!(holds("a", Relation::NotEqual, target(other)), is != other);
            assert_eq!(holds("a", Relation::Greater, target(other)), is > other);
            assert_eq!(holds("a", Relation::Less, target(other)), is < other);
        }
        assert!(holds("none", Relation::Less, target(1)), "of a key that is not there it is 0");
    }
    assert!(holds("a", Relation::Greater, CompareTarget::Lease(None)));
    assert!(holds("none", Relation::Equal, CompareTarget::Lease(None)));
    for value in ["u", "v", "w"] {
        assert_eq!(holds("a", Relation::Equal, CompareTarget::Value(value.into())), "v" == value);
        assert_eq!(holds("a", Relation::NotEqual, CompareTarget::Value(value.into())), "v" != value);
        assert_eq!(holds("a", Relation::Greater, CompareTarget::Value(value.into())), "v" > value);
        assert_eq!(holds("a", Relation::Less, CompareTarget::Value(value.into())), "v" < value);
        assert!(!holds("none", Relation::NotEqual, CompareTarget::Value(value.into())));
    }
}

#[test]
fn a_span_is_compared_key_by_key() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    bench.put("b", "1");
    bench.put("b", "1");
    let mut holds = |span: Span, target: CompareTarget| {
        let compares = vec![Compare { span, relation: Relation::Equal, target }];
        bench.ok(Request::Txn(Txn { compares, ..Txn::default() }))
            == Answer::Txn { succeeded: true, answers: vec![] }
    };
    assert!(holds(span("a", "z"), CompareTarget::Value("1".into())));
    assert!(!holds(span("a", "z"), CompareTarget::Version(1)));
    assert!(holds(span("a", "b"), CompareTarget::Version(1)));
    assert!(
        holds(span("x", "z"), CompareTarget::Version(0)),
        "no key in it: as if there was one that is not there"
    );
    assert!(!holds(span("x", "z"), CompareTarget::Version(1)));
    assert!(!holds(span("x", "z"), CompareTarget::Value("".into())));
}

#[test]
fn all_writes_share_a_revision_and_reads_see_the_earlier_ones() {
    let mut bench = Bench::etcd();
    bench.put("a", "old");
    let got = answers(&mut bench, vec![op_put("a"), op_put("b"), op_get("a"), op_delete(Span::one("c"))]);
    assert_eq!(bench.registry.revision(), 3);
    let [_, _, Answer::Range { kvs, .. }, Answer::Delete { deleted: 0, .. }] = got.as_slice() else {
        panic!("{got:?}")
    };
    assert_eq!((text(&kvs[0].value), kvs[0].modified, kvs[0].version), ("new", 3, 2));
    assert_eq!(bench.get("b").unwrap().modified, 3);
}

#[test]
fn a_transaction_without_changes_makes_no_revision() {
    let mut bench = Bench::etcd();
    let response =
        run(&mut bench, vec![op_get("a"), op_delete(Span::prefix("")), nested(vec![], vec![], vec![])]);
    assert_eq!(response.unwrap().revision, 1);
}

#[test]
fn inner_comparisons_are_with_the_state_before() {
    let mut bench = Bench::etcd();
    let inner = nested(vec![Compare::absent("a")], vec![op_put("yes")], vec![op_put("no")]);
    let got = answers(&mut bench, vec![op_put("a"), inner]);
    assert!(matches!(&got[1], Answer::Txn { succeeded: true, .. }));
    assert!(bench.get("yes").is_some() && bench.get("no").is_none());
}

#[test]
fn only_the_branch_taken_is_checked_against_the_state() {
    let mut bench = Bench::etcd();
    let bad = RegistryOp::Put(leased("a", "1", 99));
    let future = RegistryOp::Range(Range { revision: 9, ..Range::of(Span::one("a")) });
    let kept = RegistryOp::Put(Put { ignore_value: true, ..Put::new("b", "", None) });
    for (op, error) in [
        (bad.clone(), Error::LeaseNotFound),
        (future.clone(), Error::FutureRevision),
        (kept, Error::KeyNotFound),
    ] {
        assert_eq!(run(&mut bench, vec![op_put("x"), op.clone()]), Err(error));
        assert_eq!(run(&mut bench, vec![op_put("x"), nested(vec![], vec![op.clone()], vec![])]), Err(error));
        let not_taken = Txn { failure: vec![op], ..Txn::default() };
        assert!(bench.handle(Request::Txn(not_taken)).is_ok());
    }
    assert_eq!(bench.registry.revision(), 1);
    // All writes are checked before any read, and the key before the lease.
    assert_eq!(run(&mut bench, vec![future, bad]), Err(Error::LeaseNotFound));
    let both = RegistryOp::Put(Put { ignore_value: true, ..leased("b", "", 99) });
    assert_eq!(run(&mut bench, vec![both]), Err(Error::KeyNotFound));
    let alone = Put { ignore_value: true, ..leased("b", "", 99) };
    assert_eq!(bench.handle(Request::Put(alone)), Err(Error::LeaseNotFound));
    // The revision of the transaction itself is in the future too, even after a write in an earlier step.
    let own = RegistryOp::Range(Range { revision: 2, ..Range::of(Span::one("x")) });
    assert_eq!(run(&mut bench, vec![op_put("x"), own]), Err(Error::FutureRevision));
}

#[test]
fn both_branches_are_checked_for_their_form() {
    let mut bench = Bench::etcd();
    let txn = |failure| Request::Txn(Txn { failure, ..Txn::default() });
    assert_eq!(bench.handle(txn(vec![op_put("")])), Err(Error::EmptyKey));
    assert_eq!(bench.handle(txn(vec![op_put("a"), op_put("a")])), Err(Error::DuplicateKey));
    let deep = vec![nested(
        vec![],
        vec![nested(vec![compare("", Relation::Equal, CompareTarget::Mod(0))], vec![], vec![])],
        vec![],
    )];
    assert_eq!(bench.handle(txn(deep)), Err(Error::EmptyKey));
}

#[test]
fn no_key_is_written_twice() {
    let mut bench = Bench::etcd();
    let mut is_duplicate = |ops| match run(&mut bench, ops) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error, Error::DuplicateKey);
            true
        }
    };
    let inner = |op: RegistryOp| nested(vec![], vec![op], vec![]);
    let other = |op: RegistryOp| nested(vec![], vec![], vec![op]);
    assert!(is_duplicate(vec![op_put("a"), op_put("a")]));
    assert!(is_duplicate(vec![op_put("a"), op_delete(Span::one("a"))]));
    assert!(is_duplicate(vec![op_delete(span("a", "c")), op_put("b")]));
    assert!(!is_duplicate(vec![op_delete(span("a", "c")), op_delete(Span::one("b")), op_put("c")]));
    assert!(!is_duplicate(vec![op_delete(span("c", "a")), op_put("b")]), "it ends before it begins");
    assert!(is_duplicate(vec![op_put("a"), inner(op_put("a"))]));
    assert!(is_duplicate(vec![inner(op_put("a")), other(op_put("a"))]), "not branches of one transaction");
    assert!(is_duplicate(vec![op_delete(Span::one("a")), other(op_put("a"))]));
    assert!(is_duplicate(vec![other(op_delete(Span::one("a"))), op_put("a")]));
    assert!(is_duplicate(vec![inner(op_delete(Span::one("a"))), inner(op_put("a"))]));
    assert!(!is_duplicate(vec![nested(vec![], vec![op_put("a")], vec![op_put("a")])]));
    assert!(!is_duplicate(vec![nested(vec![], vec![op_delete(Span::one("a"))], vec![op_put("a")])]));
    // etcd accepts these.
    assert!(!is_duplicate(vec![inner(op_put("a")), inner(op_delete(Span::one("a")))]));
    assert!(!is_duplicate(vec![op_delete(Span::from("a")), op_put("b")]));
    // This one crashes etcd.
    let keeps = RegistryOp::Put(Put { ignore_value: true, ..Put::new("b", "", None) });
    assert!(is_duplicate(vec![op_delete(Span::from("a")), keeps]));
}

#[test]
fn a_key_may_change_twice_in_one_revision() {
    let mut bench = Bench::etcd();
    bench.put("b", "old");
    bench.watch(1, Watch { prev: true, ..Watch::of(Span::prefix(""), 0) });
    bench.told();
    answers(&mut bench, vec![op_delete(Span::from("a")), op_put("b")]);
    let kv = bench.get("b").unwrap();
    assert_eq!((kv.created, kv.modified, kv.version), (3, 3, 1));
    assert_eq!(bench.news(), ["1 to 3: -b(old)@3 +b=new@3"]);
    answers(&mut bench, vec![op_put("b"), op_delete(Span::from("a"))]);
    assert_eq!(bench.get("b"), None);
    assert_eq!(bench.news(), ["1 to 4: +b=new(new)@4 -b(new)@4"]);
    bench.ok(Request::Compact { revision: 4 });
    assert_eq!((bench.registry.keys(), bench.registry.bytes()), (0, 0));
}

#[test]
fn the_longest_lists_on_a_path_are_128_together() {
    let mut bench = Bench::etcd();
    let gets = |n| vec![op_get("a"); n];
    assert!(run(&mut bench, gets(128)).is_ok());
    assert_eq!(run(&mut bench, gets(129)), Err(Error::TooManyOps));
    let compares = Txn { compares: vec![Compare::absent("a"); 129], ..Txn::default() };
    assert_eq!(bench.handle(Request::Txn(compares)), Err(Error::TooManyOps));
    let deep = |outer: usize, inner| {
        let mut ops = gets(outer - 1);
        ops.push(nested(vec![], vec![], gets(inner)));
        ops
    };
    assert!(run(&mut bench, deep(100, 28)).is_ok());
    assert_eq!(run(&mut bench, deep(100, 29)), Err(Error::TooManyOps));
    let wide = vec![nested(vec![], gets(64), gets(64)); 64];
    assert!(run(&mut bench, wide).is_ok(), "siblings do not add up");
}

#[test]
fn previous_values_and_nested_answers_come_back() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    let put = RegistryOp::Put(Put { prev: true, ..Put::new("a", "2", None) });
    let got = answers(&mut bench, vec![nested(vec![Compare::absent("a")], vec![], vec![put])]);
    let [Answer::Txn { succeeded: false, answers }] = got.as_slice() else { panic!("{got:?}") };
    let [Answer::Put { prev: Some(prev) }] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!((text(&prev.value), prev.modified), ("1", 2));
}
