//! Revisions, versions, reads at a revision, compaction, caps.

use super::*;

#[test]
fn revisions_count_changes_and_nothing_else() {
    let mut bench = Bench::etcd();
    assert_eq!(bench.registry.revision(), 1);
    assert_eq!(bench.put("a", "1"), 2);
    assert_eq!(bench.delete(Span::one("b")), 2, "nothing was there to delete");
    assert_eq!(bench.put("b", "1"), 3);
    assert_eq!(bench.delete(Span::prefix("")), 4, "two keys go in one revision");
    bench.get("a");
    assert_eq!(bench.registry.revision(), 4);
}

#[test]
fn versions_start_anew_after_a_deletion() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    bench.put("a", "2");
    let kv = bench.get("a").unwrap();
    assert_eq!((kv.created, kv.modified, kv.version), (2, 3, 2));
    bench.delete(Span::one("a"));
    assert_eq!(bench.get("a"), None);
    bench.put("a", "3");
    let kv = bench.get("a").unwrap();
    assert_eq!((kv.created, kv.modified, kv.version), (5, 5, 1));
}

#[test]
fn reads_as_of_any_revision_that_is_there() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    bench.put("b", "1");
    bench.put("a", "2");
    bench.delete(Span::one("a"));
    let mut at = |revision| {
        let range = Range { revision, ..Range::of(Span::prefix("")) };
        bench.handle(Request::Range(range)).map(|response| {
            assert_eq!(response.revision, 5, "the newest, whichever was read");
            let Answer::Range { kvs, .. } = response.answer else { panic!("not a range") };
            kvs.iter()
                .map(|kv| alloc::format!("{}{}", text(&kv.key), text(&kv.value)))
                .collect::<Vec<_>>()
                .join(" ")
        })
    };
    assert_eq!(at(1).unwrap(), "");
    assert_eq!(at(2).unwrap(), "a1");
    assert_eq!(at(3).unwrap(), "a1 b1");
    assert_eq!(at(4).unwrap(), "a2 b1");
    assert_eq!(at(5).unwrap(), "b1");
    assert_eq!(at(0).unwrap(), "b1");
    assert_eq!(at(6), Err(Error::FutureRevision));
}

#[test]
fn spans_have_an_end_that_is_not_in_them() {
    let mut bench = Bench::etcd();
    for key in ["a", "aa", "ab", "b", "c"] {
        bench.put(key, "");
    }
    let mut of = |span| keys(&bench.range(Range::of(span))).join(" ");
    assert_eq!(of(Span::one("a")), "a");
    assert_eq!(of(span("a", "b")), "a aa ab");
    assert_eq!(of(Span::prefix("a")), "a aa ab");
    assert_eq!(of(Span::from("ab")), "ab b c");
    assert_eq!(of(Span::prefix("")), "a aa ab b c");
    assert_eq!(of(span("b", "a")), "", "it ends before it begins");
    assert_eq!(of(span("b", "b")), "");
}

#[test]
fn a_limit_leaves_out_keys_but_counts_them() {
    let mut bench = Bench::etcd();
    for key in ["a", "b", "c"] {
        bench.put(key, "x");
    }
    let all = Range::of(Span::prefix(""));
    let mut ask = |range: Range| match bench.ok(Request::Range(range)) {
        Answer::Range { kvs, more, count } => (keys(&kvs).join(" "), more, count),
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(Range { limit: 2, ..all.clone() }), ("a b".into(), true, 3));
    assert_eq!(ask(Range { limit: 3, ..all.clone() }), ("a b c".into(), false, 3));
    assert_eq!(ask(Range { count_only: true, limit: 1, ..all.clone() }), ("".into(), false, 3));
    let kvs = bench.range(Range { keys_only: true, ..all });
    assert!(kvs.iter().all(|kv| kv.value.is_empty() && kv.modified > 0));
}

#[test]
fn compaction_forgets_what_was_before_it() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    bench.put("a", "2");
    bench.put("b", "1");
    bench.delete(Span::one("b"));
    let compact = |revision| Request::Compact { revision };
    assert_eq!(bench.handle(compact(6)), Err(Error::FutureRevision));
    assert_eq!(bench.ok(compact(4)), Answer::Compact);
    assert_eq!(bench.handle(compact(4)), Err(Error::Compacted));
    let at = |revision| Range { revision, ..Range::of(Span::prefix("")) };
    assert_eq!(bench.handle(Request::Range(at(3))), Err(Error::Compacted));
    assert_eq!(keys(&bench.range(at(4))), ["a", "b"]);
    assert_eq!(bench.registry.history(), 2, "the compacted revision's own and the newer ones");
    let bytes = bench.registry.bytes();
    bench.ok(compact(5));
    assert!(bench.registry.bytes() < bytes);
    assert_eq!(keys(&bench.range(at(5))), ["a"]);
}

#[test]
fn revision_zero_can_be_compacted_once() {
    let mut bench = Bench::etcd();
    assert_eq!(bench.ok(Request::Compact { revision: 0 }), Answer::Compact);
    assert_eq!(bench.handle(Request::Compact { revision: 0 }), Err(Error::Compacted));
}

#[test]
fn a_later_life_starts_above_the_earlier_ones_and_has_forgotten_them() {
    let mut bench = Bench::new(RegistryConfig { base_revision: 1000, ..RegistryConfig::default() });
    assert_eq!(bench.put("a", "1"), 1001);
    let at = |revision| Request::Range(Range { revision, ..Range::of(Span::one("a")) });
    assert_eq!(bench.handle(at(999)), Err(Error::Compacted));
    assert!(bench.handle(at(1000)).is_ok());
    bench.watch(1, Watch::of(Span::one("a"), 17));
    assert_eq!(bench.news(), ["1 to 16: Created", "1 to 16: Compacted { oldest: 1000 }"]);
}

#[test]
fn history_is_bounded_and_keys_stay() {
    let mut bench = Bench::new(RegistryConfig { history: Some(10), ..RegistryConfig::default() });
    bench.put("old", "1");
    for _ in 0..100 {
        bench.put("a", "1");
        assert!(bench.registry.history() <= 10);
    }
    assert!(bench.registry.history() >= 5);
    assert_eq!(bench.get("old").unwrap().modified, 2);
    assert_eq!(bench.get("a").unwrap().version, 100);
}

#[test]
fn a_revision_larger_than_the_history_is_kept_whole() {
    let mut bench = Bench::new(RegistryConfig { history: Some(4), ..RegistryConfig::default() });
    for key in ["a", "b", "c", "d", "e", "f"] {
        bench.put(key, "1");
    }
    bench.watch(1, Watch::of(Span::prefix(""), 0));
    assert_eq!(bench.delete(Span::prefix("")), 8);
    assert_eq!(bench.news(), ["1 to 7: Created", "1 to 8: -a@8 -b@8 -c@8 -d@8 -e@8 -f@8"]);
    for _ in 0..10 {
        bench.put("a", "1");
    }
    assert!(bench.registry.history() <= 4);
}

#[test]
fn a_full_store_refuses_writes_and_frees_what_is_deleted() {
    let limits = RegistryConfig { bytes: 1000, ..RegistryConfig::etcd() };
    let mut bench = Bench::new(limits.clone());
    for key in ["a", "b", "c"] {
        bench.put(key, "1");
    }
    assert_eq!(bench.handle(put("d", "1")), Err(Error::NoSpace));
    let txn = Txn { success: vec![RegistryOp::Put(Put::new("d", "1", None))], ..Txn::default() };
    assert_eq!(bench.handle(Request::Txn(txn)), Err(Error::NoSpace));
    let revision = bench.delete(Span::one("a"));
    assert_eq!(bench.handle(put("d", "1")), Err(Error::NoSpace), "the old version can still be read");
    bench.ok(Request::Compact { revision });
    bench.put("d", "1");

    let mut bench = Bench::new(RegistryConfig { history: Some(100), ..limits });
    for _ in 0..10 {
        bench.put("a", "1");
        bench.put("b", "1");
    }
    assert!(bench.registry.compacted().is_some(), "history makes place before anything is refused");
    bench.put("c", "1");
    assert_eq!(bench.handle(put("d", "1")), Err(Error::NoSpace));
}

#[test]
fn requests_are_refused_by_their_form() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    bench.grant(1, 10).unwrap();
    let mut refused = |request| bench.handle(request).unwrap_err();
    assert_eq!(refused(put("", "1")), Error::EmptyKey);
    assert_eq!(refused(Request::Range(Range::of(Span::one("")))), Error::EmptyKey);
    assert_eq!(refused(Request::Delete(Delete::of(span("", "b")))), Error::EmptyKey);
    let with_value = Put { ignore_value: true, ..Put::new("a", "2", None) };
    assert_eq!(refused(Request::Put(with_value)), Error::ValueProvided);
    let with_lease = Put { ignore_lease: true, ..leased("a", "2", 1) };
    assert_eq!(refused(Request::Put(with_lease)), Error::LeaseProvided);
    let large = Put::new("a", vec![0; 1_600_000], None);
    assert_eq!(refused(Request::Put(large.clone())), Error::TooLarge);
    let txn = Txn { failure: vec![RegistryOp::Put(large)], ..Txn::default() };
    assert_eq!(refused(Request::Txn(txn)), Error::TooLarge, "the branch that is not taken counts too");
}

#[test]
fn a_write_may_keep_the_value_or_the_lease() {
    let mut bench = Bench::etcd();
    bench.grant(1, 10).unwrap();
    let keep_value = Put { ignore_value: true, ..leased("a", "", 1) };
    assert_eq!(bench.handle(Request::Put(keep_value.clone())), Err(Error::KeyNotFound));
    bench.put("a", "1");
    bench.ok(Request::Put(keep_value));
    let kv = bench.get("a").unwrap();
    assert_eq!((text(&kv.value), kv.lease, kv.version), ("1", Some(LeaseId(1)), 2));
    let keep_lease = Put { ignore_lease: true, prev: true, ..Put::new("a", "2", None) };
    assert_eq!(bench.ok(Request::Put(keep_lease)), Answer::Put { prev: Some(kv) });
    let kv = bench.get("a").unwrap();
    assert_eq!((text(&kv.value), kv.lease, kv.version), ("2", Some(LeaseId(1)), 3));
    let prev = Delete { prev: true, ..Delete::of(Span::prefix("")) };
    assert_eq!(bench.ok(Request::Delete(prev)), Answer::Delete { deleted: 1, prev: vec![kv] });
}

#[test]
fn what_is_stored_does_not_hold_on_to_a_larger_buffer() {
    let mut bench = Bench::etcd();
    let buffer = Bytes::from(vec![b'x'; 1000]);
    bench.ok(Request::Put(Put::new(buffer.slice(0..3), buffer.slice(3..6), None)));
    assert!(buffer.is_unique());
}

#[test]
fn a_full_registry_refuses_what_takes_space_and_nothing_else() {
    let mut bench = Bench::etcd();
    bench.handle(put("a", "1")).unwrap();
    bench.registry.set_full(true);
    let op = |key: &'static str| RegistryOp::Put(Put::new(key, "", None));
    let either = [
        Txn { success: vec![op("b")], ..Txn::default() },
        // This put would not be executed.
        Txn { failure: vec![op("c")], ..Txn::default() },
    ];
    for txn in either.clone() {
        assert_eq!(bench.handle(Request::Txn(txn)), Err(Error::NoSpace));
    }
    assert_eq!(bench.handle(put("a", "2")), Err(Error::NoSpace));
    assert_eq!(bench.handle(Request::Grant { id: LeaseId(1), ttl_s: 5 }), Err(Error::NoSpace));
    bench.handle(Request::Range(Range::of(Span::one("a")))).unwrap();
    // Nested transactions are not checked, as in etcd.
    bench
        .handle(Request::Txn(Txn { success: either.map(RegistryOp::Txn).to_vec(), ..Txn::default() }))
        .unwrap();
    bench.handle(Request::Delete(Delete::of(Span::one("a")))).unwrap();
    bench.registry.set_full(false);
    bench.handle(put("a", "3")).unwrap();
}
