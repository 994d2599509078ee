//! Tests of the queue: the members, the order and the bounds of groups.

use alloc::collections::BTreeMap;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use alloc::{borrow::ToOwned as _, format, vec};

use bytes::Bytes;
use proptest::prelude::*;

use super::super::access_set::{AccessSet, accesses};
use super::super::bundle::{Bundle, BundleKind, steps};
use super::super::member::{GroupMember, is_groupable};
use super::super::queue::{GroupQueue, QueueFull, Selection};
use super::CONFIG;
use crate::registry::{
    CallId, Compare, Delete, GroupConfig, LeaseId, Put, Range, RegistryOp, Request, Span, Txn,
};

fn put(key: &str) -> Request {
    Request::Put(Put::new(key.to_owned(), "value", None))
}

fn queue_of(config: GroupConfig, requests: impl IntoIterator<Item = Request>) -> GroupQueue {
    let mut queue = GroupQueue::new(config);
    for (index, request) in requests.into_iter().enumerate() {
        queue.push(CallId(index as u64), request).unwrap();
    }
    queue
}

fn ids(group: &Selection) -> Vec<u64> {
    group.members.iter().map(|member| member.id.0).collect()
}

/// Takes groups one after the other; each one ends before the next is taken.
fn all(queue: &mut GroupQueue) -> Vec<Vec<u64>> {
    let mut taken = Vec::new();
    while let Some(group) = queue.take() {
        taken.push(ids(&group));
        queue.end(group.id);
    }
    taken
}

#[test]
fn requests_without_a_key_in_common_go_together_and_others_one_after_the_other() {
    let mut queue = queue_of(CONFIG, ["a", "b", "a", "c", "a", "b"].map(put));
    assert_eq!(all(&mut queue), [vec![0, 1, 3], vec![2, 5], vec![4]]);
}

#[test]
fn nothing_overtakes_what_it_depends_on() {
    let span = Request::Delete(Delete::of(Span::prefix("a")));
    let mut queue = queue_of(CONFIG, [put("a1"), span, put("a2"), put("b")]);
    // The deletion waits for the first write, and the second write waits for the deletion.
    assert_eq!(all(&mut queue), [vec![0, 3], vec![1], vec![2]]);
}

#[test]
fn what_is_in_flight_holds_back_only_what_depends_on_it() {
    let config = GroupConfig { in_flight: 2, members: 2, ..CONFIG };
    let mut queue = queue_of(config, ["a", "b", "a", "c", "b", "d"].map(put));
    let first = queue.take().unwrap();
    let second = queue.take().unwrap();
    assert_eq!((ids(&first), ids(&second)), (vec![0, 1], vec![3, 5]));
    assert!(queue.take().is_none(), "two are in flight");
    queue.end(second.id);
    assert!(queue.take().is_none(), "the rest depends on the first");
    queue.end(first.id);
    assert_eq!(all(&mut queue), [vec![2, 4]]);
}

#[test]
fn a_check_of_writes_goes_alone_and_holds_nothing_back() {
    let failure = ["a", "b"].map(|key| RegistryOp::Put(Put::new(key.to_owned(), "", None))).to_vec();
    let check = Request::Txn(Txn { failure, ..Txn::default() });
    let mut queue = queue_of(GroupConfig { in_flight: 2, ..CONFIG }, [check, put("a"), put("b")]);
    let [first, second] = [(); 2].map(|()| queue.take().unwrap());
    assert_eq!((ids(&first), ids(&second)), (vec![0], vec![1, 2]));
}

#[test]
fn groups_keep_to_their_bounds() {
    let members = GroupConfig { members: 3, ..CONFIG };
    let mut queue = queue_of(members, (0..8).map(|i| put(&i.to_string())));
    assert_eq!(all(&mut queue).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);

    let big = |key: &str| Request::Put(Put::new(key.to_owned(), vec![0; 40_000], None));
    let mut queue = queue_of(CONFIG, [big("a"), big("b"), put("c"), big("d")]);
    assert_eq!(all(&mut queue), [vec![0, 2], vec![1], vec![3]]);

    let mut queue = queue_of(GroupConfig { waiting: 2, ..CONFIG }, ["a", "b"].map(put));
    assert_eq!(queue.push(CallId(9), put("c")), Err(QueueFull));
    assert!(queue.remove(CallId(0)) && !queue.remove(CallId(0)));
    assert_eq!(queue.push(CallId(9), put("c")), Ok(()));
}

#[test]
fn groups_have_room_for_steps_in_all_their_bundles() {
    let txn = |name: usize, width: usize| {
        let ops = (0..width).map(|i| RegistryOp::Put(Put::new(format!("{name}/{i}"), "", None)));
        Request::Txn(Txn { success: ops.collect(), ..Txn::default() })
    };
    // Each of the 64 bundles has six requests of ten steps.
    let config = GroupConfig { members: 1024, bytes: 1 << 20, ..CONFIG };
    let mut queue = queue_of(config, (0..400).map(|name| txn(name, 10)));
    assert_eq!(all(&mut queue).iter().map(Vec::len).collect::<Vec<_>>(), [384, 16]);
    let mut queue = queue_of(CONFIG, [txn(0, 64), txn(1, 1), txn(2, 63)]);
    assert_eq!(all(&mut queue), [vec![0], vec![1, 2]]);
    let nested =
        Txn { success: vec![RegistryOp::Txn(Txn { failure: vec![], ..Txn::default() })], ..Txn::default() };
    assert_eq!(steps(&nested), 1);
}

#[test]
fn groups_have_bounded_answers() {
    let config = GroupConfig { members: 1024, bytes: 1 << 20, ..CONFIG };
    let read = |prefix: u64, limit: u64| Range { limit, ..Range::of(Span::prefix(format!("{prefix}/"))) };
    let mut queue = queue_of(config, (0..200).map(|prefix| Request::Range(read(prefix, 16))));
    assert_eq!(all(&mut queue).iter().map(Vec::len).collect::<Vec<_>>(), [128, 72]);
    // A request with an unbounded number of keys in its answer is sent alone.
    let unbounded = [
        RegistryOp::Range(read(0, 0)),
        RegistryOp::Delete(Delete { prev: true, ..Delete::of(Span::prefix("0/")) }),
        RegistryOp::Txn(Txn { failure: vec![RegistryOp::Range(read(0, 0))], ..Txn::default() }),
    ];
    for op in unbounded {
        let txn = Request::Txn(Txn { success: vec![op], ..Txn::default() });
        let mut queue = queue_of(config, [put("a"), txn, put("b")]);
        assert_eq!(all(&mut queue), [vec![0, 2], vec![1]]);
    }
}

fn claim(key: &str) -> Request {
    let put = RegistryOp::Put(Put::new(key.to_owned(), "", None));
    let compares = vec![Compare::absent(key.to_owned())];
    Request::Txn(Txn { compares, success: vec![put], failure: vec![] })
}

/// Returns the kind and the members of each bundle of the group.
fn kinds(group: &Selection) -> Vec<(BundleKind, Vec<u64>)> {
    let of = |bundle: &Bundle| bundle.members.iter().map(|at| group.members[*at].id.0).collect();
    group.bundles.iter().map(|bundle| (bundle.kind, of(bundle))).collect()
}

#[test]
fn members_without_an_answer_go_again_nested_and_before_what_depends_on_them() {
    let requests = [claim("a"), put("b"), claim("c"), put("a"), put("d"), claim("e")];
    let mut queue = queue_of(CONFIG, requests);
    let mut group = queue.take().unwrap();
    assert_eq!(kinds(&group), [(BundleKind::Shared, vec![0, 2, 5]), (BundleKind::Unconditional, vec![1, 4])]);
    queue.push(CallId(6), claim("f")).unwrap();
    queue.push(CallId(7), put("c")).unwrap();
    queue.push(CallId(8), claim("g")).unwrap();
    queue.answered(&mut group, &[false, true, false, true, false]);
    assert_eq!(ids(&group), [0, 2, 5]);
    assert!(queue.take().is_none(), "it is still in flight");
    queue.again(group);

    let mut group = queue.take().unwrap();
    assert_eq!(kinds(&group), [(BundleKind::Nested, vec![0, 2, 5]), (BundleKind::Shared, vec![6, 8])]);
    queue.answered(&mut group, &[true; 5]);
    assert!(group.members.is_empty());
    queue.again(group);
    assert_eq!(all(&mut queue), [vec![3, 7]]);
}

#[test]
fn where_sharing_fails_again_and_again_members_are_nested_at_once() {
    let mut queue = GroupQueue::new(CONFIG);
    let mut sent = Vec::new();
    for round in 0..20 {
        for key in ["a", "b"] {
            queue.push(CallId(round), claim(key)).unwrap();
        }
        while let Some(mut group) = queue.take() {
            let nested = group.bundles.iter().all(|bundle| bundle.kind == BundleKind::Nested);
            queue.answered(&mut group, &[nested; 2]);
            queue.again(group);
            sent.push(nested);
        }
    }
    // Sharing fails six times, since the first bundles may have 64 members: 64, 32, 16, 8, 4, 2.
    assert_eq!(sent.iter().filter(|nested| !**nested).count(), 6, "{sent:?}");
    assert!(sent.ends_with(&[true; 10]));
}

#[test]
fn requests_that_cannot_be_a_step_go_alone() {
    let grant = Request::Grant { id: LeaseId(1), ttl_s: 5 };
    let listing = Request::Range(Range::of(Span::prefix("x")));
    let small = Request::Range(Range::of(Span::one("x")));
    let mut queue =
        queue_of(CONFIG, [put("a"), grant, put("b"), listing, small, Request::Compact { revision: 1 }]);
    assert_eq!(all(&mut queue), [vec![0, 2, 4], vec![1], vec![3], vec![5]]);
}

#[test]
fn a_refused_group_goes_again_in_halves_until_each_is_alone() {
    let mut queue = queue_of(CONFIG, (0..5).map(|i| put(&i.to_string())));
    let mut alone = Vec::new();
    let mut sent = 0;
    // Only the request 3 causes the refusal.
    while let Some(group) = queue.take() {
        sent += 1;
        if !ids(&group).contains(&3) {
            queue.end(group.id);
        } else if group.members.len() > 1 {
            queue.halve(group);
        } else {
            alone.extend(ids(&group));
            queue.end(group.id);
        }
    }
    assert_eq!(alone, [3]);
    assert!(sent <= 6, "{sent}");
}

#[test]
fn members_put_back_come_before_later_requests() {
    let mut queue = queue_of(GroupConfig { members: 2, ..CONFIG }, ["a", "b", "a", "c"].map(put));
    let group = queue.take().unwrap();
    queue.again(group);
    assert_eq!(all(&mut queue), [vec![0, 1], vec![2, 3]]);
}

fn any_request() -> impl Strategy<Value = Request> {
    let key = || "[a-d]{1,2}".prop_map(Bytes::from);
    let span = move || {
        prop_oneof![key().prop_map(Span::one), key().prop_map(Span::prefix), key().prop_map(Span::from)]
    };
    let op = move || {
        prop_oneof![
            (key(), 0usize..300).prop_map(|(key, length)| RegistryOp::Put(Put::new(
                key,
                vec![0; length],
                None
            ))),
            span().prop_map(|span| RegistryOp::Range(Range::of(span))),
            span().prop_map(|span| RegistryOp::Delete(Delete::of(span))),
        ]
    };
    let txn = (prop::collection::vec(key(), 0..3), prop::collection::vec(op(), 0..5)).prop_map(
        |(compares, success)| Txn {
            compares: compares.into_iter().map(Compare::absent).collect(),
            success,
            failure: Vec::new(),
        },
    );
    prop_oneof![
        3 => key().prop_map(|key| Request::Put(Put::new(key, "", None))),
        1 => span().prop_map(|span| Request::Range(Range::of(span))),
        1 => span().prop_map(|span| Request::Delete(Delete::of(span))),
        2 => txn.prop_map(Request::Txn),
        1 => (0u64..3).prop_map(|id| Request::Revoke(LeaseId(id))),
    ]
}

/// Input of the queue.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Take,
    End(usize),
    Halve(usize),
    Again(usize),
    /// Answers all members except those of shared bundles.
    Unshare(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Push),
        3 => Just(Step::Take),
        2 => (0usize..4).prop_map(Step::End),
        1 => (0usize..4).prop_map(Step::Halve),
        1 => (0usize..4).prop_map(Step::Again),
        1 => (0usize..4).prop_map(Step::Unshare),
    ]
}

proptest! {
    /// Members are independent of each other and of all groups in flight, bounds are kept, dependent requests
    /// end in the order of their arrival, and each request ends once.
    #[test]
    fn groups_are_sound(
        requests in prop::collection::vec(any_request(), 1..60),
        steps in prop::collection::vec(any_step(), 1..200),
        in_flight in 1usize..4,
        members in 1usize..8,
    ) {
        let config = GroupConfig { members, bytes: 600, in_flight, ..CONFIG };
        let mut queue = GroupQueue::new(config);
        let mut fresh = requests.iter().cloned().enumerate();
        let mut flying: Vec<Selection> = Vec::new();
        let mut ended: Vec<u64> = Vec::new();
        // In the end all requests are sent and end.
        let finish = (0..400).map(|i| if i % 2 == 0 { Step::Take } else { Step::End(i) });
        let pushes = core::iter::repeat_n(Step::Push, requests.len());
        for step in steps.into_iter().chain(pushes).chain(finish) {
            let chosen = |index: usize, flying: &mut Vec<Selection>| {
                (!flying.is_empty()).then(|| flying.remove(index % flying.len()))
            };
            match step {
                Step::Push => if let Some((index, request)) = fresh.next() {
                    queue.push(CallId(index as u64), request).unwrap();
                },
                Step::Take => if let Some(group) = queue.take() {
                    flying.push(group);
                },
                Step::End(index) => if let Some(group) = chosen(index, &mut flying) {
                    ended.extend(ids(&group));
                    queue.end(group.id);
                },
                Step::Halve(index) => if let Some(group) = chosen(index, &mut flying) {
                    queue.halve(group);
                },
                Step::Again(index) => if let Some(group) = chosen(index, &mut flying) {
                    queue.again(group);
                },
                Step::Unshare(index) => if let Some(mut group) = chosen(index, &mut flying) {
                    let shared = group.bundles.iter().filter(|bundle| bundle.kind == BundleKind::Shared);
                    let shared: Vec<usize> = shared.flat_map(|bundle| bundle.members.clone()).collect();
                    let has_answer: Vec<bool> =
                        (0..group.members.len()).map(|at| !shared.contains(&at)).collect();
                    let answered = ids(&group).into_iter().zip(&has_answer).filter(|(_, has)| **has);
                    ended.extend(answered.map(|(id, _)| id));
                    queue.answered(&mut group, &has_answer);
                    queue.again(group);
                },
            }
            prop_assert!(flying.len() <= in_flight);
            let together: Vec<&GroupMember> = flying.iter().flat_map(|group| &group.members).collect();
            for (at, member) in together.iter().enumerate() {
                let mut set = AccessSet::default();
                set.add(&member.accesses);
                for other in together.iter().skip(at + 1) {
                    prop_assert!(!set.conflicts_with(&other.accesses), "{:?} {:?}", member, other);
                }
            }
            for group in &flying {
                let size = group.members.len();
                prop_assert!((1..=members).contains(&size));
                let bytes: usize = group.members.iter().map(|member| member.bytes).sum();
                prop_assert!(size == 1 || bytes <= 600);
                prop_assert!(size == 1 || group.members.iter().all(|member| is_groupable(&member.request)));
            }
        }
        prop_assert!(flying.is_empty() && queue.waiting() == 0);
        let place: BTreeMap<u64, usize> = ended.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        prop_assert_eq!(place.len(), requests.len());
        prop_assert_eq!(ended.len(), requests.len());
        for (a, first) in requests.iter().enumerate() {
            let mut set = AccessSet::default();
            set.add(&accesses(first));
            for (b, second) in requests.iter().enumerate().skip(a + 1) {
                if set.conflicts_with(&accesses(second)) {
                    prop_assert!(place[&(a as u64)] < place[&(b as u64)], "{:?} {:?}", first, second);
                }
            }
        }
    }
}
