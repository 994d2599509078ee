//! Leases: grants, keep-alives, ends, and the keys that end with them.

use super::*;

fn keys_of(bench: &mut Bench, id: u64) -> alloc::string::String {
    match bench.ok(Request::TimeToLive { id: LeaseId(id), keys: true }) {
        Answer::TimeToLive { keys, .. } => keys.iter().map(text).collect::<Vec<_>>().join(" "),
        other => panic!("{other:?}"),
    }
}

fn left(bench: &mut Bench, id: u64) -> Result<(u64, u64), Error> {
    let response = bench.handle(Request::TimeToLive { id: LeaseId(id), keys: false })?;
    match response.answer {
        Answer::TimeToLive { left_s, granted_s, .. } => Ok((left_s, granted_s)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_grant_has_bounds() {
    let mut bench = Bench::etcd();
    assert_eq!(bench.grant(1, 60).unwrap().answer, Answer::Granted { ttl_s: 60 });
    assert_eq!(bench.grant(1, 60), Err(Error::LeaseExists));
    assert_eq!(bench.grant(2, 0).unwrap().answer, Answer::Granted { ttl_s: 2 });
    assert_eq!(bench.grant(0, 60), Err(Error::LeaseNotFound));
    assert_eq!(bench.grant(1 << 63, 60), Err(Error::LeaseNotFound));
    assert_eq!(bench.grant(3, 9_000_000_001), Err(Error::LeaseTtlTooLarge));
    assert_eq!(bench.grant(1, 9_000_000_001), Err(Error::LeaseTtlTooLarge), "looked at first");
    bench.grant(3, 9_000_000_000).unwrap();
    assert_eq!(bench.registry.revision(), 1, "a lease makes no revision");
    bench.ok(Request::Revoke(LeaseId(1)));
    bench.grant(1, 5).unwrap();
}

#[test]
fn leases_are_bounded() {
    let mut bench = Bench::new(RegistryConfig { leases: 1, ..RegistryConfig::default() });
    bench.grant(1, 60).unwrap();
    assert_eq!(bench.grant(2, 60), Err(Error::NoSpace));
    bench.ok(Request::Revoke(LeaseId(1)));
    bench.grant(2, 60).unwrap();
}

#[test]
fn keys_end_with_their_lease_in_order_and_in_one_revision() {
    let mut bench = Bench::etcd();
    bench.grant(1, 10).unwrap();
    bench.grant(2, 10).unwrap();
    bench.grant(3, 10).unwrap();
    for (key, lease) in [("c", 1), ("a", 1), ("b", 2), ("d", 1)] {
        bench.ok(Request::Put(leased(key, "", lease)));
    }
    bench.watch(1, Watch::of(Span::prefix(""), 0));
    bench.told();
    assert_eq!(keys_of(&mut bench, 1), "a c d");
    let response = bench.handle(Request::Revoke(LeaseId(1))).unwrap();
    assert_eq!((response.revision, response.answer), (6, Answer::Revoked));
    assert_eq!(bench.news(), ["1 to 6: -a@6 -c@6 -d@6"]);
    assert_eq!(bench.handle(Request::Revoke(LeaseId(1))), Err(Error::LeaseNotFound));
    assert_eq!(bench.handle(Request::Revoke(LeaseId(3))).unwrap().revision, 6, "it had no key");
    bench.sleep(9_999);
    assert!(bench.get("b").is_some());
    bench.sleep(1);
    assert_eq!(bench.news(), ["1 to 7: -b@7"]);
    assert_eq!(left(&mut bench, 2), Err(Error::LeaseNotFound));
    assert_eq!(bench.registry.poll_timeout().map(|d| d.reason), Some("watches hear of progress"));
}

#[test]
fn leases_that_are_over_end_each_in_its_revision_the_oldest_first() {
    let mut bench = Bench::etcd();
    for (id, ttl_s, key) in [(1, 10, "a"), (2, 20, "b"), (3, 15, "c")] {
        bench.grant(id, ttl_s).unwrap();
        bench.ok(Request::Put(leased(key, "", id)));
    }
    bench.watch(1, Watch::of(Span::prefix(""), 0));
    bench.told();
    bench.sleep(9_000);
    bench.ok(Request::KeepAlive(LeaseId(1)));
    // The lease 1 is booked for 10 s but ends at 19 s, after the lease that ends at 15 s.
    bench.sleep(60_000);
    assert_eq!(bench.news(), ["1 to 7: -c@5 -a@6 -b@7"]);
}

#[test]
fn whoever_asks_first_finds_a_lease_over() {
    let mut bench = Bench::etcd();
    bench.grant(1, 10).unwrap();
    bench.ok(Request::Put(leased("a", "", 1)));
    bench.now = bench.now + Duration::from_secs(10);
    assert_eq!(bench.registry.handle(bench.now, &Request::KeepAlive(LeaseId(1))), Err(Error::LeaseNotFound));
    let late = Request::Put(leased("a", "", 1));
    assert_eq!(bench.registry.handle(bench.now, &late), Err(Error::LeaseNotFound));
    assert_eq!(bench.get("a"), None);
}

#[test]
fn keeping_alive_starts_the_time_anew() {
    let mut bench = Bench::etcd();
    bench.grant(1, 10).unwrap();
    bench.sleep(9_500);
    assert_eq!(left(&mut bench, 1), Ok((0, 10)));
    assert_eq!(bench.ok(Request::KeepAlive(LeaseId(1))), Answer::KeptAlive { ttl_s: 10 });
    assert_eq!(left(&mut bench, 1), Ok((10, 10)));
    bench.sleep(9_999);
    assert_eq!(left(&mut bench, 1), Ok((0, 10)));
    bench.sleep(1);
    assert_eq!(bench.handle(Request::KeepAlive(LeaseId(1))), Err(Error::LeaseNotFound));
    assert_eq!(bench.registry.poll_timeout(), None);
}

#[test]
fn a_key_goes_from_lease_to_lease() {
    let mut bench = Bench::etcd();
    bench.grant(1, 60).unwrap();
    bench.grant(2, 60).unwrap();
    assert_eq!(bench.handle(Request::Put(leased("a", "", 9))), Err(Error::LeaseNotFound));
    bench.ok(Request::Put(leased("a", "", 1)));
    bench.ok(Request::Put(leased("b", "", 1)));
    bench.ok(Request::Put(leased("c", "", 1)));
    bench.ok(Request::Put(leased("a", "", 2)));
    bench.put("b", "");
    bench.delete(Span::one("c"));
    bench.put("c", "");
    assert_eq!((keys_of(&mut bench, 1), keys_of(&mut bench, 2)), ("".into(), "a".into()));
    bench.ok(Request::Revoke(LeaseId(1)));
    bench.ok(Request::Revoke(LeaseId(2)));
    assert_eq!(keys(&bench.everything()), ["b", "c"]);
}

#[test]
fn a_lease_granted_again_does_not_have_the_keys_of_its_earlier_life() {
    let mut bench = Bench::etcd();
    bench.grant(1, 60).unwrap();
    bench.ok(Request::Put(leased("a", "", 1)));
    bench.ok(Request::Revoke(LeaseId(1)));
    bench.put("a", "");
    bench.grant(1, 60).unwrap();
    assert_eq!(keys_of(&mut bench, 1), "");
    bench.ok(Request::Put(leased("a", "", 1)));
    assert_eq!(keys_of(&mut bench, 1), "a");
}

#[test]
fn a_new_leader_gives_every_lease_its_whole_time() {
    let mut bench = Bench::etcd();
    bench.grant(1, 10).unwrap();
    bench.grant(2, 20).unwrap();
    bench.now = bench.now + Duration::from_secs(15);
    // Lease 1 is over, but no leader was there to end it.
    bench.registry.handle_leader_change(bench.now);
    bench.registry.audit().unwrap();
    assert_eq!((left(&mut bench, 1), left(&mut bench, 2)), (Ok((11, 10)), Ok((21, 20))));
    bench.sleep(10_999);
    assert!(left(&mut bench, 1).is_ok());
    bench.sleep(1);
    assert_eq!(left(&mut bench, 1), Err(Error::LeaseNotFound));
}

#[test]
fn tells_when_a_lease_may_be_over() {
    let mut bench = Bench::etcd();
    bench.grant(1, 10).unwrap();
    assert_eq!(bench.registry.poll_timeout().unwrap().at, Instant::from_micros(10_000_000));
    bench.sleep(4_000);
    bench.ok(Request::KeepAlive(LeaseId(1)));
    bench.sleep(6_000);
    assert_eq!(bench.registry.poll_timeout().unwrap().at, Instant::from_micros(14_000_000));
}
