//! An etcd with an exhausted quota.

use etcd_client::{AlarmAction, AlarmType};
use skirmish_core::registry::{Delete, Error, LeaseId, Put, Range, RegistryOp, Request, Span, Txn};
use skirmish_tests::etcd::{Etcd, Version};

use crate::pair::Pair;

fn put(key: &'static str) -> RegistryOp {
    RegistryOp::Put(Put::new(key, "", None))
}

#[tokio::test]
async fn without_space_both_refuse_what_takes_some_and_nothing_else() {
    for version in Version::installed() {
        let etcd = Etcd::start_with(version, &[]).await;
        let mut pair = Pair::new(&etcd).await;
        let id = LeaseId(1);
        pair.ask(Request::Grant { id, ttl_s: 1000 }).await.unwrap();
        pair.put("a", "").await;
        etcd.client().await.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.unwrap();
        pair.set_full(true);

        let revision = pair.revision();
        let full = Err(Error::NoSpace);
        assert_eq!(pair.ask(Request::Put(Put::new("a", "", None))).await.map(drop), full);
        assert_eq!(pair.ask(Request::Grant { id: LeaseId(2), ttl_s: 1000 }).await.map(drop), full);
        // Both branches of a transaction count, regardless of the branch taken.
        let (success, failure) = (vec![put("b")], vec![put("c")]);
        let taken = Txn { success, ..Txn::default() };
        let never = Txn { failure, ..Txn::default() };
        assert_eq!(pair.txn(taken.clone()).await.map(drop), full);
        assert_eq!(pair.txn(never.clone()).await.map(drop), full);
        assert_eq!(pair.revision(), revision);
        pair.ask(Request::Range(Range::of(Span::prefix("")))).await.unwrap();
        pair.ask(Request::KeepAlive(id)).await.unwrap();
        // A nested transaction does not count.
        let success = vec![RegistryOp::Txn(taken), RegistryOp::Txn(never.clone())];
        pair.txn(Txn { success, ..Txn::default() }).await.unwrap();
        pair.ask(Request::Delete(Delete::of(Span::one("a")))).await.unwrap();
        pair.ask(Request::Revoke(id)).await.unwrap();

        etcd.client().await.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await.unwrap();
        pair.set_full(false);
        let revision = pair.revision();
        pair.txn(never).await.unwrap();
        assert_eq!(pair.revision(), revision, "a branch that is not done makes no revision");
        pair.put("a", "").await;
        pair.finish().await;
    }
}
