//! Behaviour of etcd over time: leases end, members die or are paused.

use std::time::Duration;

use skirmish_core::registry::{Answer, Change, Error, LeaseId, Put, Range, Request, Span, Watch};
use skirmish_tests::etcd::{Cluster, Etcd, Version};

use crate::pair::Pair;
use crate::real;

#[tokio::test]
async fn a_lease_that_is_over_deletes_its_keys_in_order_and_in_one_revision() {
    for version in Version::installed() {
        let etcd = Etcd::start_with(version, &[]).await;
        let mut pair = Pair::new(&etcd).await;
        let id = LeaseId(1);
        let granted = pair.ask(Request::Grant { id, ttl_s: 1 }).await.unwrap();
        assert_eq!(granted.answer, Answer::Granted { ttl_s: 2 }, "the shortest there is");
        for key in ["c", "a", "b"] {
            pair.ask(Request::Put(Put::new(key, "", Some(id)))).await.unwrap();
        }
        pair.put("b", "stays").await;
        let watch = pair.watch(Watch { prev: true, ..Watch::of(Span::prefix(""), 0) }).await;
        pair.sleep(Duration::from_secs(2));
        let told = pair.changes(watch).await;
        let [Change::Delete { key: first, .. }, Change::Delete { key: second, .. }] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!((first.as_ref(), second.as_ref()), (b"a".as_slice(), b"c".as_slice()));
        let late = Request::Put(Put::new("a", "", Some(id)));
        assert_eq!(pair.ask(late).await, Err(Error::LeaseNotFound));
        assert_eq!(pair.ask(Request::KeepAlive(id)).await, Err(Error::LeaseNotFound));
        assert_eq!(pair.ask(Request::TimeToLive { id, keys: true }).await, Err(Error::LeaseNotFound));
        assert_eq!(pair.ask(Request::Revoke(id)).await, Err(Error::LeaseNotFound));
        pair.ask(Request::Grant { id, ttl_s: 1000 }).await.unwrap();
        pair.finish().await;
    }
}

#[tokio::test]
async fn leases_end_each_in_its_own_revision() {
    for version in Version::installed() {
        let etcd = Etcd::start_with(version, &[]).await;
        let mut pair = Pair::new(&etcd).await;
        for (id, key) in [(1, "a"), (2, "b")] {
            pair.ask(Request::Grant { id: LeaseId(id), ttl_s: 2 }).await.unwrap();
            pair.ask(Request::Put(Put::new(key, "", Some(LeaseId(id))))).await.unwrap();
        }
        pair.ask(Request::Grant { id: LeaseId(3), ttl_s: 2 }).await.unwrap();
        let one = pair.watch(Watch::of(Span::prefix(""), 0)).await;
        pair.sleep(Duration::from_secs(2));
        // etcd may end the two leases in either order.
        let before = pair.revision() - 2;
        let revisions: Vec<_> = pair.changes_in_any_order(one).await.iter().map(Change::revision).collect();
        assert_eq!(revisions, [before + 1, before + 2]);
    }
}

#[tokio::test]
async fn a_cluster_goes_on_without_its_leader_and_with_a_member_stopped() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let mut client = cluster.members[other].client().await;
    let id = LeaseId(1);
    real::call(&mut client, &Request::Grant { id, ttl_s: 1000 }).await.unwrap();
    real::call(&mut client, &Request::Put(Put::new("a", "1", Some(id)))).await.unwrap();

    cluster.members[leader].kill().await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.members[other].ready().await;
    let mut client = cluster.members[other].client().await;
    let asked = real::call(&mut client, &Request::TimeToLive { id, keys: true }).await;
    let Answer::TimeToLive { keys, .. } = asked.unwrap().answer else { panic!("not a time to live") };
    assert_eq!(keys, ["a"], "the new leader knows the lease");

    cluster.members[leader].restart().await;
    let stopped = cluster.leader().await;
    cluster.members[stopped].pause();
    assert!(!cluster.members[stopped].answers().await);
    assert_ne!(cluster.leader().await, stopped);
    cluster.members[stopped].resume();
    cluster.members[stopped].ready().await;
    let mut client = cluster.members[stopped].client().await;
    let range = Request::Range(Range::of(Span::one("a")));
    let Answer::Range { kvs, .. } = real::call(&mut client, &range).await.unwrap().answer else {
        panic!("not a range")
    };
    assert_eq!(kvs[0].value, "1");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill() {
    for version in Version::installed() {
        let mut etcd = Etcd::start_with(version, &[]).await;
        let mut client = etcd.client().await;
        let put = Request::Put(Put::new("a", "1", None));
        let written = real::call(&mut client, &put).await.unwrap().revision;
        etcd.restart().await;
        let mut client = etcd.client().await;
        let range = Request::Range(Range::of(Span::one("a")));
        assert_eq!(real::call(&mut client, &range).await.unwrap().revision, written);
    }
}
