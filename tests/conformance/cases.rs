//! Named sequences: surprising behaviour of etcd, former differences of the machine, and requests that are
//! too large or too rare for the generator.

use skirmish_core::registry::{
    Answer, Change, Compare, CompareTarget, Delete, Error, LeaseId, Put, Range, RegistryOp, Relation,
    Request, Span, Txn, Watch,
};
use skirmish_tests::etcd::{Etcd, Version};
use skirmish_tests::eventually;

use crate::pair::Pair;
use crate::real;

/// Runs a sequence on every installed etcd.
async fn on_each(sequence: impl AsyncFn(&mut Pair<'_>)) {
    for version in Version::installed() {
        let etcd = Etcd::start_with(version, &[]).await;
        let mut pair = Pair::new(&etcd).await;
        sequence(&mut pair).await;
        pair.finish().await;
    }
}

fn op_put(key: &'static str) -> RegistryOp {
    RegistryOp::Put(Put::new(key, "new", None))
}

fn op_delete(span: Span) -> RegistryOp {
    RegistryOp::Delete(Delete { prev: true, ..Delete::of(span) })
}

fn op_get(span: Span) -> RegistryOp {
    RegistryOp::Range(Range::of(span))
}

fn inner(success: Vec<RegistryOp>) -> RegistryOp {
    RegistryOp::Txn(Txn { success, ..Txn::default() })
}

fn all(success: Vec<RegistryOp>) -> Txn {
    Txn { success, ..Txn::default() }
}

fn compare(span: Span, relation: Relation, target: CompareTarget) -> Txn {
    Txn { compares: vec![Compare { span, relation, target }], ..Txn::default() }
}

fn succeeded(answer: Result<Answer, Error>) -> bool {
    matches!(answer, Ok(Answer::Txn { succeeded: true, .. }))
}

#[tokio::test]
async fn comparisons_in_inner_transactions_are_with_the_state_before_all() {
    on_each(async |pair| {
        let not_yet = Txn {
            compares: vec![Compare::absent("a")],
            success: vec![op_put("b")],
            failure: vec![op_put("c")],
        };
        let answer = pair
            .txn(all(vec![op_put("a"), RegistryOp::Txn(not_yet), op_get(Span::prefix(""))]))
            .await
            .unwrap();
        let Answer::Txn { answers, .. } = answer else { panic!("{answer:?}") };
        assert!(matches!(answers[1], Answer::Txn { succeeded: true, .. }));
    })
    .await;
}

#[tokio::test]
async fn a_span_without_keys_is_compared_like_a_key_that_is_not_there() {
    on_each(async |pair| {
        let none = || Span { key: "x".into(), end: "z".into() };
        assert!(succeeded(pair.txn(compare(none(), Relation::Equal, CompareTarget::Version(0))).await));
        assert!(succeeded(pair.txn(compare(none(), Relation::Less, CompareTarget::Create(1))).await));
        assert!(!succeeded(pair.txn(compare(none(), Relation::Greater, CompareTarget::Mod(0))).await));
        assert!(succeeded(pair.txn(compare(none(), Relation::Equal, CompareTarget::Lease(None))).await));
        assert!(!succeeded(
            pair.txn(compare(none(), Relation::NotEqual, CompareTarget::Value("v".into()))).await
        ));
        let backwards = Span { key: "z".into(), end: "a".into() };
        assert!(succeeded(pair.txn(compare(backwards, Relation::Equal, CompareTarget::Version(0))).await));
    })
    .await;
}

#[tokio::test]
async fn a_deletion_without_end_does_not_clash_and_a_key_changes_twice_in_a_revision() {
    on_each(async |pair| {
        pair.put("b", "old").await;
        let watch = pair.watch(Watch { prev: true, ..Watch::of(Span::prefix(""), 0) }).await;
        pair.txn(all(vec![op_delete(Span::from("a")), op_put("b")])).await.unwrap();
        pair.txn(all(vec![op_put("b"), op_delete(Span::from("a")), op_get(Span::one("b"))])).await.unwrap();
        let told = pair.changes(watch).await;
        assert_eq!(told.len(), 5, "m and b, b; b, b: {told:?}");
        let newest = pair.revision();
        for back in 0..3 {
            let range = Range { revision: newest - back, ..Range::of(Span::prefix("")) };
            pair.ask(Request::Range(range)).await.unwrap();
        }
        pair.ask(Request::Compact { revision: newest }).await.unwrap();
        pair.watch(Watch { prev: true, ..Watch::of(Span::prefix(""), newest) }).await;
        pair.put("b", "again").await;
    })
    .await;
}

#[tokio::test]
async fn inner_transactions_clash_in_one_order_only() {
    on_each(async |pair| {
        let (put, delete) = (|| inner(vec![op_put("a")]), || inner(vec![op_delete(Span::one("a"))]));
        assert!(succeeded(pair.txn(all(vec![put(), delete()])).await));
        assert_eq!(pair.txn(all(vec![delete(), put()])).await, Err(Error::DuplicateKey));
        let branches =
            Txn { success: vec![op_put("a")], failure: vec![op_put("a"), op_put("b")], ..Txn::default() };
        assert!(succeeded(pair.txn(all(vec![RegistryOp::Txn(branches.clone())])).await));
        assert_eq!(
            pair.txn(all(vec![RegistryOp::Txn(branches), op_put("b")])).await,
            Err(Error::DuplicateKey)
        );
        let span = Span { key: "c".into(), end: "a".into() };
        assert!(succeeded(pair.txn(all(vec![op_delete(span), op_put("b")])).await), "it is of nothing");
    })
    .await;
}

/// In a transaction a missing key is found before a missing lease, unlike in a single write, and every write
/// is checked before any read.
#[tokio::test]
async fn what_is_missing_is_found_in_an_order() {
    on_each(async |pair| {
        let put = Put { ignore_value: true, ..Put::new("a", "", Some(LeaseId(9))) };
        assert_eq!(pair.ask(Request::Put(put.clone())).await, Err(Error::LeaseNotFound));
        assert_eq!(pair.txn(all(vec![RegistryOp::Put(put.clone())])).await, Err(Error::KeyNotFound));
        let future = RegistryOp::Range(Range { revision: pair.revision() + 1, ..Range::of(Span::one("a")) });
        let ops = vec![op_put("b"), future.clone(), inner(vec![RegistryOp::Put(put.clone())])];
        assert_eq!(pair.txn(all(ops)).await, Err(Error::KeyNotFound));
        assert_eq!(pair.txn(all(vec![op_put("b"), future.clone()])).await, Err(Error::FutureRevision));
        let not_taken = Txn { failure: vec![RegistryOp::Put(put), future], ..Txn::default() };
        assert!(succeeded(pair.txn(not_taken).await));
    })
    .await;
}

#[tokio::test]
async fn the_longest_lists_on_a_path_are_128_together() {
    on_each(async |pair| {
        let gets = |n| vec![op_get(Span::one("m")); n];
        assert!(succeeded(pair.txn(all(gets(128))).await));
        assert_eq!(pair.txn(all(gets(129))).await, Err(Error::TooManyOps));
        let group = |outer, n| all(vec![inner(gets(n)); outer]);
        assert!(succeeded(pair.txn(group(100, 28)).await));
        assert_eq!(pair.txn(group(100, 29)).await, Err(Error::TooManyOps));
        let compares = vec![Compare::absent("a"); 129];
        assert_eq!(pair.txn(Txn { compares, ..Txn::default() }).await, Err(Error::TooManyOps));
    })
    .await;
}

/// Only etcd knows the limit to the byte: it counts the message to the other members.
#[tokio::test]
async fn the_largest_request_has_a_mebibyte_and_a_half() {
    on_each(async |pair| {
        const LARGEST: usize = 3 * 512 * 1024;
        let put = |size| Put::new("a", vec![b'x'; size], None);
        pair.ask(Request::Put(put(LARGEST - 64))).await.unwrap();
        assert_eq!(pair.ask(Request::Put(put(LARGEST + 64))).await, Err(Error::TooLarge));
        let halves = |size| {
            all(vec![RegistryOp::Put(put(size)), RegistryOp::Put(Put::new("b", vec![b'x'; size], None))])
        };
        assert!(succeeded(pair.txn(halves(LARGEST / 2 - 64)).await));
        assert_eq!(pair.txn(halves(LARGEST / 2 + 64)).await, Err(Error::TooLarge));
        let other = Txn { failure: vec![RegistryOp::Put(put(LARGEST + 64))], ..Txn::default() };
        assert_eq!(pair.txn(other).await, Err(Error::TooLarge), "the branch that is not taken counts");
    })
    .await;
}

#[tokio::test]
async fn a_compaction_forgets_the_deletions_of_its_own_revision_before_3_5_16() {
    on_each(async |pair| {
        pair.put("a", "1").await;
        pair.txn(all(vec![op_delete(Span::one("a")), op_put("b")])).await.unwrap();
        let both = pair.revision();
        pair.put("c", "1").await;
        pair.ask(Request::Compact { revision: both }).await.unwrap();
        let watch = pair.watch(Watch::of(Span::prefix(""), both)).await;
        let told = pair.changes(watch).await;
        let told = if pair.version() < Version::V3_5_16 {
            told.as_slice()
        } else {
            let Some((Change::Delete { key, .. }, told)) = told.split_first() else { panic!("{told:?}") };
            assert_eq!(key, "a");
            told
        };
        let [Change::Put { kv: b, .. }, Change::Put { .. }] = told else { panic!("{told:?}") };
        assert_eq!(b.key, "b");
    })
    .await;
}

#[tokio::test]
async fn compacting_nothing_is_done_once() {
    for version in Version::installed() {
        let etcd = Etcd::start_with(version, &[]).await;
        let mut pair = Pair::fresh(&etcd).await;
        assert_eq!(pair.revision(), 1);
        pair.ask(Request::Compact { revision: 0 }).await.unwrap();
        assert_eq!(pair.ask(Request::Compact { revision: 0 }).await, Err(Error::Compacted));
        assert_eq!(pair.ask(Request::Compact { revision: 2 }).await, Err(Error::FutureRevision));
        pair.ask(Request::Compact { revision: 1 }).await.unwrap();
        pair.ask(Request::Range(Range { revision: 1, ..Range::of(Span::prefix("")) })).await.unwrap();
        pair.finish().await;
    }
}

#[tokio::test]
async fn watches_of_nothing_are_refused_and_of_the_empty_key_are_not() {
    on_each(async |pair| {
        let span = |key: &'static str, end: &'static str| Span { key: key.into(), end: end.into() };
        pair.watch(Watch::of(span("b", "a"), 0)).await;
        pair.watch(Watch::of(span("b", "b"), 0)).await;
        let smallest = pair.watch(Watch::of(span("", ""), 0)).await;
        let every = pair.watch(Watch::of(span("", "\0"), 0)).await;
        pair.put("\0", "1").await;
        pair.put("a", "1").await;
        assert_eq!(pair.changes(smallest).await.len(), 1);
        assert_eq!(pair.changes(every).await.len(), 2);
    })
    .await;
}

/// More changes than etcd sends in one message.
#[tokio::test]
async fn a_long_past_is_told_whole() {
    on_each(async |pair| {
        let start = pair.revision() + 1;
        for _ in 0..20 {
            pair.put("a", "1").await;
        }
        let keys: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        let ops = keys.iter().map(|key| RegistryOp::Put(Put::new(key.clone(), "x", None)));
        pair.txn(all(ops.collect())).await.unwrap();
        for _ in 0..1100 {
            pair.put("a", "2").await;
        }
        let watch = pair.watch(Watch { prev: true, ..Watch::of(Span::prefix(""), start) }).await;
        assert_eq!(pair.changes(watch).await.len(), 1220);
        let delete = Delete { prev: true, ..Delete::of(Span { key: "0".into(), end: "1".into() }) };
        pair.ask(Request::Delete(delete)).await.unwrap();
        assert_eq!(pair.changes(watch).await.len(), 1320);
    })
    .await;
}

#[tokio::test]
async fn a_lease_revoked_deletes_its_keys_in_order_and_has_none_when_granted_again() {
    on_each(async |pair| {
        let id = LeaseId(1);
        let grant = Request::Grant { id, ttl_s: 1000 };
        let keys = Request::TimeToLive { id, keys: true };
        pair.ask(grant.clone()).await.unwrap();
        for key in ["c", "a", "d", "b"] {
            pair.ask(Request::Put(Put::new(key, "", Some(id)))).await.unwrap();
        }
        pair.put("d", "without").await;
        pair.ask(keys.clone()).await.unwrap();
        let watch = pair.watch(Watch { prev: true, ..Watch::of(Span::prefix(""), 0) }).await;
        pair.ask(Request::Revoke(id)).await.unwrap();
        assert_eq!(pair.changes(watch).await.len(), 3);
        pair.put("a", "").await;
        pair.ask(grant).await.unwrap();
        pair.ask(keys.clone()).await.unwrap();
        pair.ask(Request::Put(Put::new("a", "", Some(id)))).await.unwrap();
        pair.ask(keys).await.unwrap();
        pair.ask(Request::Revoke(id)).await.unwrap();
        pair.ask(Request::Range(Range::of(Span::prefix("")))).await.unwrap();
    })
    .await;
}

/// The one request that the machine refuses and etcd accepts: etcd crashes, and crashes again at every start
/// on the same data.
#[tokio::test]
async fn keeping_what_the_transaction_deletes_is_the_end_of_etcd() {
    for version in Version::installed() {
        let mut etcd = Etcd::start_with(version, &[]).await;
        let mut client = etcd.client().await;
        let put = Request::Put(Put::new("a", "1", None));
        real::call(&mut client, &put).await.unwrap();
        let keep = RegistryOp::Put(Put { ignore_value: true, ..Put::new("a", "", None) });
        let request = Request::Txn(all(vec![op_delete(Span::from("a")), keep]));
        assert!(crate::generate::crashes_etcd(&request));
        let asked = tokio::spawn(async move { real::call(&mut client, &request).await });
        eventually("the end of etcd", async || etcd.has_ended()).await;
        assert!(etcd.log().contains("unexpected error during txn"), "{}", etcd.log());
        asked.abort();
    }
}
