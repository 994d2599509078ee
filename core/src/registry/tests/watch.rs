//! Watches: their starts, their filters, their order, and their ends.

use super::*;

fn all(start: u64) -> Watch {
    Watch::of(Span::prefix(""), start)
}

#[test]
fn tells_what_happens_after_it_began() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    bench.watch(1, all(0));
    assert_eq!(bench.news(), ["1 to 2: Created"]);
    bench.put("a", "2");
    bench.delete(Span::one("a"));
    assert_eq!(bench.news(), ["1 to 4: +a=2@3 -a@4"]);
    assert_eq!(bench.news(), Vec::<&str>::new());
}

#[test]
fn tells_the_past_from_any_revision_that_is_there() {
    let mut bench = Bench::etcd();
    for value in ["1", "2", "3", "4"] {
        bench.put("a", value);
    }
    bench.watch(1, all(4));
    assert_eq!(bench.news(), ["1 to 3: Created", "1 to 5: +a=3@4 +a=4@5"]);
    bench.ok(Request::Compact { revision: 4 });
    bench.watch(2, all(4));
    assert_eq!(bench.news(), ["2 to 3: Created", "2 to 5: +a=3@4 +a=4@5"]);
    bench.watch(3, all(3));
    assert_eq!(bench.news(), ["3 to 2: Created", "3 to 2: Compacted { oldest: 4 }"]);
    assert_eq!(bench.registry.watches(), 2, "it has ended");
}

#[test]
fn waits_for_a_revision_that_is_to_come() {
    let mut bench = Bench::etcd();
    bench.watch(1, all(4));
    assert_eq!(bench.news(), ["1 to 3: Created"]);
    for value in ["1", "2", "3", "4"] {
        bench.put("a", value);
    }
    assert_eq!(bench.news(), ["1 to 5: +a=3@4 +a=4@5"]);
}

#[test]
fn tells_only_of_its_keys_and_only_what_it_wants() {
    let mut bench = Bench::etcd();
    bench.watch(1, Watch::of(Span::prefix("a"), 0));
    bench.watch(2, Watch { no_put: true, ..all(0) });
    bench.watch(3, Watch { no_delete: true, ..Watch::of(Span::one("b"), 0) });
    bench.told();
    bench.put("ab", "1");
    assert_eq!(bench.news(), ["1 to 2: +ab=1@2"]);
    bench.put("b", "1");
    bench.delete(span("a", "c"));
    assert_eq!(bench.news(), ["2 to 4: -ab@4 -b@4", "3 to 4: +b=1@3", "1 to 4: -ab@4"], "they take turns");
}

#[test]
fn an_idle_watch_is_not_overtaken_by_compaction() {
    let mut bench = Bench::etcd();
    bench.watch(1, Watch::of(Span::one("b"), 0));
    bench.told();
    for _ in 0..5 {
        bench.put("a", "1");
    }
    bench.ok(Request::Compact { revision: 6 });
    let revision = bench.put("b", "1");
    assert_eq!(bench.news(), [alloc::format!("1 to {revision}: +b=1@7")]);
}

#[test]
fn a_watch_that_nobody_reads_is_told_that_it_missed_something() {
    let mut bench = Bench::new(RegistryConfig { history: Some(10), ..RegistryConfig::default() });
    bench.watch(1, all(0));
    bench.told();
    for _ in 0..50 {
        bench.put("a", "1");
    }
    let oldest = bench.registry.compacted().unwrap();
    assert_eq!(bench.news(), [alloc::format!("1 to 1: Compacted {{ oldest: {oldest} }}")]);
}

#[test]
fn previous_values_are_those_before_the_revision_and_not_compacted() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    bench.put("a", "2");
    bench.delete(Span::one("a"));
    bench.watch(1, Watch { prev: true, ..all(2) });
    assert_eq!(bench.news(), ["1 to 1: Created", "1 to 4: +a=1@2 +a=2(1)@3 -a(2)@4"]);
    bench.ok(Request::Compact { revision: 3 });
    bench.watch(2, Watch { prev: true, ..all(3) });
    assert_eq!(bench.news(), ["2 to 2: Created", "2 to 4: +a=2@3 -a(2)@4"]);
}

#[test]
fn a_compaction_may_forget_its_own_deletions_but_not_those_told() {
    for (forgets_deletions, news) in [(false, "2 to 4: -a@3 +c=1@3 +d=1@4"), (true, "2 to 4: +c=1@3 +d=1@4")]
    {
        let mut bench = Bench::new(RegistryConfig { forgets_deletions, ..RegistryConfig::etcd() });
        bench.put("a", "1");
        let ops =
            vec![RegistryOp::Delete(Delete::of(Span::one("a"))), RegistryOp::Put(Put::new("c", "1", None))];
        bench.ok(Request::Txn(Txn { success: ops, ..Txn::default() }));
        bench.put("d", "1");
        bench.ok(Request::Compact { revision: 3 });
        bench.watch(2, all(3));
        assert_eq!(bench.news(), ["2 to 2: Created", news]);
    }
}

#[test]
fn of_what_the_compacted_revision_did_to_a_key_the_last_is_told() {
    let mut bench = Bench::etcd();
    bench.put("a", "1");
    let put = |key| RegistryOp::Put(Put::new(key, "2", None));
    let ops = vec![put("a"), put("b"), RegistryOp::Delete(Delete::of(Span::from("a")))];
    bench.ok(Request::Txn(Txn { success: ops, ..Txn::default() }));
    bench.put("c", "1");
    bench.watch(1, all(3));
    assert_eq!(bench.news(), ["1 to 2: Created", "1 to 4: +a=2@3 +b=2@3 -a@3 -b@3 +c=1@4"]);
    bench.ok(Request::Compact { revision: 3 });
    bench.watch(2, all(3));
    assert_eq!(bench.news(), ["2 to 2: Created", "2 to 4: -a@3 -b@3 +c=1@4"]);
}

#[test]
fn batches_end_with_a_revision() {
    let mut bench = Bench::new(RegistryConfig { watch_batch: 2, ..RegistryConfig::etcd() });
    for value in ["1", "2", "3"] {
        bench.put("a", value);
    }
    let ops = ["a", "b", "c"].map(|key| RegistryOp::Put(Put::new(key, "x", None)));
    bench.ok(Request::Txn(Txn { success: ops.into(), ..Txn::default() }));
    bench.watch(1, all(2));
    let news = ["1 to 1: Created", "1 to 3: +a=1@2 +a=2@3", "1 to 5: +a=3@4 +a=x@5 +b=x@5 +c=x@5"];
    assert_eq!(bench.news(), news);
}

#[test]
fn tells_of_progress_when_there_is_nothing_else() {
    let mut bench = Bench::etcd();
    bench.watch(1, Watch::of(Span::one("a"), 0));
    bench.watch(2, Watch { progress: false, ..Watch::of(Span::one("a"), 0) });
    bench.watch(3, Watch::of(Span::one("a"), 9));
    bench.told();
    bench.put("b", "1");
    assert_eq!(bench.registry.poll_timeout().unwrap().reason, "watches hear of progress");
    bench.sleep(600_000);
    assert_eq!(bench.news(), ["1 to 2: Progress", "3 to 8: Progress"]);
    bench.put("a", "1");
    bench.told();
    bench.sleep(600_000);
    assert_eq!(bench.news(), ["3 to 8: Progress"], "the others were told something");
    bench.sleep(600_000);
    assert_eq!(bench.news(), ["1 to 3: Progress", "3 to 8: Progress"]);
    bench.registry.unwatch(WatchId(1));
    bench.registry.unwatch(WatchId(3));
    assert_eq!(bench.registry.poll_timeout(), None);
}

#[test]
fn ends_when_asked_and_says_nothing_more() {
    let mut bench = Bench::etcd();
    bench.watch(1, all(0));
    bench.put("a", "1");
    assert_eq!(bench.registry.poll_timeout().unwrap().reason, "output is queued");
    bench.registry.unwatch(WatchId(1));
    assert_eq!(bench.told(), []);
    bench.registry.unwatch(WatchId(1));
}

#[test]
fn a_watch_takes_the_place_of_one_with_its_identifier() {
    let mut bench = Bench::etcd();
    bench.watch(1, all(0));
    bench.watch(1, Watch::of(Span::one("b"), 0));
    bench.put("a", "1");
    bench.put("b", "1");
    assert_eq!(bench.news(), ["1 to 2: Created", "1 to 3: +b=1@3"]);
}

#[test]
fn of_no_key_at_all_it_is_cancelled() {
    let mut bench = Bench::etcd();
    bench.watch(1, Watch::of(span("b", "a"), 0));
    bench.watch(2, Watch::of(span("b", "b"), 0));
    assert_eq!(bench.news(), ["1 to 1: Canceled", "2 to 1: Canceled"]);
    assert_eq!(bench.registry.watches(), 0);
}

#[test]
fn of_the_empty_key_it_is_of_the_smallest() {
    let mut bench = Bench::etcd();
    bench.watch(1, Watch::of(Span::one(""), 0));
    bench.watch(2, Watch::of(span("", "\0"), 0));
    bench.put("\0", "1");
    bench.put("a", "1");
    let news = ["1 to 1: Created", "2 to 1: Created", "1 to 3: +\0=1@2", "2 to 3: +\0=1@2 +a=1@3"];
    assert_eq!(bench.news(), news);
}

#[test]
fn watches_are_bounded() {
    let mut bench = Bench::new(RegistryConfig { watches: 1, ..RegistryConfig::default() });
    bench.watch(1, all(0));
    let more = bench.registry.watch(bench.now, WatchId(2), all(0));
    assert_eq!(more, Err(Error::NoSpace));
    bench.watch(1, all(0));
}
