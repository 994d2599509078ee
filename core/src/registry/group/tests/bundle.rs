//! Tests of the bundles: the members of one transaction, and the bounds.

use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::super::bundle::{BUNDLES, Bundle, BundleKind, MAX_STEPS, Need, Packer, WIDTH, steps};
use super::super::member::GroupMember;
use super::super::transaction;
use super::{claim, put, read};
use crate::registry::{CallId, Compare, Delete, Range, RegistryOp, Request, Span, Txn};

pub(super) fn bare(key: &str) -> Request {
    let RegistryOp::Put(put) = put(key) else { unreachable!() };
    Request::Put(put)
}

fn kind(txn: Txn) -> BundleKind {
    Need::of(&Request::Txn(txn)).kind
}

#[test]
fn comparisons_are_shared_if_the_failure_branch_may_be_left_out() {
    assert_eq!(Need::of(&bare("a")).kind, BundleKind::Unconditional);
    assert_eq!(kind(Txn { success: vec![put("a"), read("a")], ..Txn::default() }), BundleKind::Unconditional);
    assert_eq!(kind(claim("a")), BundleKind::Shared);
    assert_eq!(kind(Txn { failure: vec![], ..claim("a") }), BundleKind::Shared);
    assert_eq!(kind(Txn { success: vec![], ..claim("a") }), BundleKind::Shared);
}

#[test]
fn members_that_could_be_refused_for_their_failure_branch_are_nested() {
    // etcd refuses this transaction to a user without the right to read `b`, although `b` is not read.
    assert_eq!(kind(Txn { failure: vec![read("b")], ..claim("a") }), BundleKind::Nested);
    assert_eq!(kind(Txn { failure: vec![put("a")], ..claim("a") }), BundleKind::Nested);
    assert_eq!(kind(Txn { compares: vec![], ..claim("a") }), BundleKind::Nested);
    let wider = RegistryOp::Range(Range::of(Span::prefix("a")));
    assert_eq!(kind(Txn { failure: vec![wider], ..claim("a") }), BundleKind::Nested);
    let past = RegistryOp::Range(Range { revision: 3, ..Range::of(Span::one("a")) });
    assert_eq!(kind(Txn { failure: vec![past], ..claim("a") }), BundleKind::Nested);
    let delete = RegistryOp::Delete(Delete::of(Span::one("a")));
    assert_eq!(kind(Txn { failure: vec![delete], ..claim("a") }), BundleKind::Nested);
    assert_eq!(kind(Txn { success: vec![RegistryOp::Txn(claim("b"))], ..claim("a") }), BundleKind::Nested);
}

pub(super) fn packed(shared: usize, requests: &[Request]) -> Vec<Bundle> {
    let mut packer = Packer::new(shared);
    assert!(requests.iter().all(|request| packer.add(Need::of(request))));
    packer.finish()
}

/// Returns the kind and the members of each bundle.
fn plain(bundles: &[Bundle]) -> Vec<(BundleKind, &[usize])> {
    bundles.iter().map(|bundle| (bundle.kind, &*bundle.members)).collect()
}

/// Returns one request of each kind, and a second shared one.
pub(super) fn mixed() -> Vec<Request> {
    let nested = Txn { failure: vec![put("c")], ..claim("c") };
    [Request::Txn(claim("a")), bare("b"), Request::Txn(nested), Request::Txn(claim("d"))].to_vec()
}

#[test]
fn members_go_with_those_of_their_kind() {
    let kinds = [BundleKind::Shared, BundleKind::Unconditional, BundleKind::Nested];
    let bundles = packed(64, &mixed());
    assert_eq!(plain(&bundles), [(kinds[0], &[0, 3][..]), (kinds[1], &[1]), (kinds[2], &[2])]);
    let bundles = packed(1, &mixed());
    assert_eq!(plain(&bundles), [(BundleKind::Nested, &[0, 2, 3][..]), (BundleKind::Unconditional, &[1])]);
    let bundles = packed(64, &mixed()[..2]);
    assert_eq!(
        plain(&bundles),
        [(BundleKind::Nested, &[0][..]), (BundleKind::Unconditional, &[1])],
        "nobody to be shared with"
    );
    let claims: Vec<_> = (0..5).map(|i| Request::Txn(claim(&i.to_string()))).collect();
    let sizes =
        |shared| packed(shared, &claims).iter().map(|bundle| bundle.members.len()).collect::<Vec<_>>();
    assert_eq!((sizes(2), sizes(4)), (vec![2, 2, 1], vec![4, 1]));
}

fn any_request() -> impl Strategy<Value = Request> {
    let txn = || {
        (0usize..30, 0usize..30, 0usize..3, any::<bool>()).prop_map(|(compares, success, failure, other)| {
            Txn {
                compares: vec![Compare::absent("k"); compares],
                success: vec![put("k"); success],
                failure: vec![read(if other { "other" } else { "k" }); failure],
            }
        })
    };
    prop_oneof![
        2 => Just(bare("k")),
        6 => txn().prop_map(Request::Txn),
        1 => (txn(), txn()).prop_map(|(inner, outer)| Request::Txn(Txn {
            success: vec![RegistryOp::Txn(inner)],
            ..outer
        })),
    ]
}

proptest! {
    /// etcd accepts the transaction, every member is in one bundle, and only members of compatible kinds
    /// share a bundle.
    #[test]
    fn bundles_are_sound(
        requests in prop::collection::vec(any_request(), 2..600),
        shared in 1usize..=WIDTH,
    ) {
        let mut packer = Packer::new(shared);
        let added = requests.iter().take_while(|request| packer.add(Need::of(request))).count();
        prop_assert!(added > 0);
        let packed = packer.finish();
        prop_assert!(packed.len() <= BUNDLES);
        let mut members: Vec<usize> = packed.iter().flat_map(|bundle| bundle.members.clone()).collect();
        members.sort_unstable();
        prop_assert_eq!(members, (0..added).collect::<Vec<_>>());
        for bundle in &packed {
            let size = bundle.members.len();
            prop_assert!(bundle.kind != BundleKind::Shared || (2..=shared).contains(&size));
            for &member in &bundle.members {
                let kind = Need::of(&requests[member]).kind;
                prop_assert!(kind == bundle.kind || (kind == BundleKind::Shared && bundle.kind == BundleKind::Nested));
            }
        }
        let members: Vec<_> =
            requests.into_iter().take(added).map(|request| GroupMember::new(CallId(0), request, 1024)).collect();
        if let Request::Txn(sent) = transaction::request(&members, &packed) {
            prop_assert!(steps(&sent) <= MAX_STEPS);
        }
    }
}
