//! Nodes of two deployments that were given the same registry.

use prost::Message as _;

use super::bench::{Fate, OTHER, name, session};
use super::*;
use crate::registry::{Delete, Request, Span};

const OTHERS: &str = "/nodes/000000000000000b";
const NODE: &str = "/nodes/000000000000000a";

/// Starts a node with the keys `mine`, on a registry with another node that has the keys `others`.
fn beside(mine: &[u64], others: &[u64]) -> Bench {
    let mut bench = Bench::with_keys(mine);
    let record = v1::NodeRecord { token_keys: others.to_vec(), ..v1::NodeRecord::default() };
    bench.put(OTHERS, record.encode_to_vec().into());
    bench.pass(3_000, Fate::Done);
    bench
}

#[test]
fn a_node_that_has_no_key_in_common_with_those_before_it_does_not_register_until_they_are_gone() {
    let mut bench = beside(&[1, 2], &[3]);
    assert!(!bench.registrar.may_serve(bench.now.instant) && bench.get(NODE).is_none());
    assert_eq!(bench.registrar.foreign_node().map(|(id, _)| id), Some(OTHER));
    assert_eq!(bench.registry.leases(), 0);
    bench.registrar.claim_session(bench.now, 1, &name("p"), None, session(1), DialNumber::default()).unwrap();
    bench.collect();
    bench.pass(3_000, Fate::Done);
    assert!(bench.get("/sessions/player:p").is_none());
    bench.ask(&Request::Delete(Delete::of(Span::one(OTHERS))));
    bench.pass(3_000, Fate::Done);
    assert!(bench.registrar.may_serve(bench.now.instant) && bench.registrar.foreign_node().is_none());
}

#[test]
fn keys_are_rotated_while_nodes_run() {
    for (mine, others) in [(&[1][..], &[1][..]), (&[1, 2], &[1]), (&[2], &[1, 2]), (&[], &[1]), (&[1], &[])] {
        let bench = beside(mine, others);
        assert!(bench.registrar.may_serve(bench.now.instant), "{mine:?} beside {others:?}");
    }
    // The node shares no key with the first node, but shares one with a node that shares a key with the
    // first.
    let mut bench = beside(&[3], &[1, 2]);
    assert!(!bench.registrar.may_serve(bench.now.instant));
    let between = v1::NodeRecord { token_keys: [2, 3].into(), ..v1::NodeRecord::default() };
    bench.put("/nodes/000000000000000c", between.encode_to_vec().into());
    bench.pass(3_000, Fate::Done);
    assert!(bench.registrar.may_serve(bench.now.instant));
}

#[test]
fn a_node_is_not_disturbed_by_foreign_nodes_that_come_later() {
    let mut bench = Bench::with_keys(&[1]);
    bench.pass(1_000, Fate::Done);
    let record = v1::NodeRecord { token_keys: [2].into(), ..v1::NodeRecord::default() };
    bench.put(OTHERS, record.encode_to_vec().into());
    bench.pass(20_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving, Decision::NodeUp { id: OTHER, record }]);
}

#[test]
fn fingerprints_tell_keys_apart_by_name_and_content() {
    let all = [key_fingerprint("a", b"x"), key_fingerprint("b", b"x"), key_fingerprint("a", b"y")];
    assert_eq!(all[0], key_fingerprint("a", b"x"));
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
}
