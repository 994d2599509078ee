//! Tests of the groups: who rides with whom, in which order, within which bounds.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use skirmish_core::registry::{LeaseId, Put};

use super::super::bundle::steps;
use super::*;

const LIMITS: Limits = Limits { waiting: 1000, members: 128, bytes: 1 << 16, in_flight: 1 };

fn put(key: &str) -> Request {
    Request::Put(Put::new(key.to_owned(), "value", None))
}

fn groups_of(limits: Limits, requests: impl IntoIterator<Item = Request>) -> Groups {
    let mut groups = Groups::new(limits);
    for (index, request) in requests.into_iter().enumerate() {
        groups.push(CallId(index as u64), request).unwrap();
    }
    groups
}

fn ids(group: &Group) -> Vec<u64> {
    group.members.iter().map(|member| member.id.0).collect()
}

/// Takes groups one after the other, each ended before the next.
fn all(groups: &mut Groups) -> Vec<Vec<u64>> {
    let mut taken = Vec::new();
    while let Some(group) = groups.take() {
        taken.push(ids(&group));
        groups.end(group.id);
    }
    taken
}

#[test]
fn those_that_share_no_key_go_together_and_those_that_do_one_after_the_other() {
    let mut groups = groups_of(LIMITS, ["a", "b", "a", "c", "a", "b"].map(put));
    assert_eq!(all(&mut groups), [vec![0, 1, 3], vec![2, 5], vec![4]]);
}

#[test]
fn nothing_overtakes_what_it_depends_on() {
    let span = Request::Delete(Delete::of(Span::prefix("a")));
    let mut groups = groups_of(LIMITS, [put("a1"), span, put("a2"), put("b")]);
    // The deletion waits for the first write, and the second write for the deletion.
    assert_eq!(all(&mut groups), [vec![0, 3], vec![1], vec![2]]);
}

#[test]
fn what_is_in_flight_holds_back_only_what_depends_on_it() {
    let limits = Limits { in_flight: 2, members: 2, ..LIMITS };
    let mut groups = groups_of(limits, ["a", "b", "a", "c", "b", "d"].map(put));
    let first = groups.take().unwrap();
    let second = groups.take().unwrap();
    assert_eq!((ids(&first), ids(&second)), (vec![0, 1], vec![3, 5]));
    assert!(groups.take().is_none(), "two are in flight");
    groups.end(second.id);
    assert!(groups.take().is_none(), "the rest depends on the first");
    groups.end(first.id);
    assert_eq!(all(&mut groups), [vec![2, 4]]);
}

#[test]
fn a_check_of_writes_goes_alone_and_holds_nothing_back() {
    let failure = ["a", "b"].map(|key| Op::Put(Put::new(key.to_owned(), "", None))).to_vec();
    let check = Request::Txn(Txn { failure, ..Txn::default() });
    let mut groups = groups_of(Limits { in_flight: 2, ..LIMITS }, [check, put("a"), put("b")]);
    let [first, second] = [(); 2].map(|()| groups.take().unwrap());
    assert_eq!((ids(&first), ids(&second)), (vec![0], vec![1, 2]));
}

#[test]
fn groups_keep_to_their_bounds() {
    let members = Limits { members: 3, ..LIMITS };
    let mut groups = groups_of(members, (0..8).map(|i| put(&i.to_string())));
    assert_eq!(all(&mut groups).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);

    let big = |key: &str| Request::Put(Put::new(key.to_owned(), vec![0; 40_000], None));
    let mut groups = groups_of(LIMITS, [big("a"), big("b"), put("c"), big("d")]);
    assert_eq!(all(&mut groups), [vec![0, 2], vec![1], vec![3]]);

    let mut groups = groups_of(Limits { waiting: 2, ..LIMITS }, ["a", "b"].map(put));
    assert_eq!(groups.push(CallId(9), put("c")), Err(Full));
    assert!(groups.remove(CallId(0)) && !groups.remove(CallId(0)));
    assert_eq!(groups.push(CallId(9), put("c")), Ok(()));
}

#[test]
fn groups_have_room_for_steps_in_all_their_bundles() {
    let txn = |name: usize, width: usize| {
        let ops = (0..width).map(|i| Op::Put(Put::new(format!("{name}/{i}"), "", None)));
        Request::Txn(Txn { success: ops.collect(), ..Txn::default() })
    };
    // Six of ten steps in each of 64 bundles.
    let limits = Limits { members: 1024, bytes: 1 << 20, ..LIMITS };
    let mut groups = groups_of(limits, (0..400).map(|name| txn(name, 10)));
    assert_eq!(all(&mut groups).iter().map(Vec::len).collect::<Vec<_>>(), [384, 16]);
    let mut groups = groups_of(LIMITS, [txn(0, 64), txn(1, 1), txn(2, 63)]);
    assert_eq!(all(&mut groups), [vec![0], vec![1, 2]]);
    let nested = Txn { success: vec![Op::Txn(Txn { failure: vec![], ..Txn::default() })], ..Txn::default() };
    assert_eq!(steps(&nested), 1);
}

#[test]
fn groups_have_bounded_answers() {
    let limits = Limits { members: 1024, bytes: 1 << 20, ..LIMITS };
    let read = |prefix: u64, limit: u64| Range { limit, ..Range::of(Span::prefix(format!("{prefix}/"))) };
    let mut groups = groups_of(limits, (0..200).map(|prefix| Request::Range(read(prefix, 16))));
    assert_eq!(all(&mut groups).iter().map(Vec::len).collect::<Vec<_>>(), [128, 72]);
    // What answers with who knows how many keys goes alone.
    let unbounded = [
        Op::Range(read(0, 0)),
        Op::Delete(Delete { prev: true, ..Delete::of(Span::prefix("0/")) }),
        Op::Txn(Txn { failure: vec![Op::Range(read(0, 0))], ..Txn::default() }),
    ];
    for op in unbounded {
        let txn = Request::Txn(Txn { success: vec![op], ..Txn::default() });
        let mut groups = groups_of(limits, [put("a"), txn, put("b")]);
        assert_eq!(all(&mut groups), [vec![0, 2], vec![1]]);
    }
}

fn claim(key: &str) -> Request {
    let put = Op::Put(Put::new(key.to_owned(), "", None));
    let compares = vec![Compare::absent(key.to_owned())];
    Request::Txn(Txn { compares, success: vec![put], failure: vec![] })
}

/// The group's bundles by way, with whom they carry.
fn ways(group: &Group) -> Vec<(Way, Vec<u64>)> {
    let of = |bundle: &Bundle| bundle.members.iter().map(|at| group.members[*at].id.0).collect();
    group.bundles.iter().map(|bundle| (bundle.way, of(bundle))).collect()
}

#[test]
fn those_without_an_answer_go_again_apart_and_before_what_depends_on_them() {
    let requests = [claim("a"), put("b"), claim("c"), put("a"), put("d"), claim("e")];
    let mut groups = groups_of(LIMITS, requests);
    let mut group = groups.take().unwrap();
    assert_eq!(ways(&group), [(Way::Tied, vec![0, 2, 5]), (Way::Sure, vec![1, 4])]);
    groups.push(CallId(6), claim("f")).unwrap();
    groups.push(CallId(7), put("c")).unwrap();
    groups.push(CallId(8), claim("g")).unwrap();
    groups.answered(&mut group, &[false, true, false, true, false]);
    assert_eq!(ids(&group), [0, 2, 5]);
    assert!(groups.take().is_none(), "it is still in flight");
    groups.again(group);

    let mut group = groups.take().unwrap();
    assert_eq!(ways(&group), [(Way::Apart, vec![0, 2, 5]), (Way::Tied, vec![6, 8])]);
    groups.answered(&mut group, &[true; 5]);
    assert!(group.members.is_empty());
    groups.again(group);
    assert_eq!(all(&mut groups), [vec![3, 7]]);
}

#[test]
fn where_tying_fails_again_and_again_members_go_apart_at_once() {
    let mut groups = Groups::new(LIMITS);
    let mut sent = Vec::new();
    for round in 0..20 {
        for key in ["a", "b"] {
            groups.push(CallId(round), claim(key)).unwrap();
        }
        while let Some(mut group) = groups.take() {
            let apart = group.bundles.iter().all(|bundle| bundle.way == Way::Apart);
            groups.answered(&mut group, &[apart; 2]);
            groups.again(group);
            sent.push(apart);
        }
    }
    // Six times in vain, for the first bundles are of up to 64: 64, 32, 16, 8, 4, 2.
    assert_eq!(sent.iter().filter(|apart| !**apart).count(), 6, "{sent:?}");
    assert!(sent.ends_with(&[true; 10]));
}

#[test]
fn what_cannot_be_a_step_goes_alone() {
    let grant = Request::Grant { id: LeaseId(1), ttl_s: 5 };
    let listing = Request::Range(Range::of(Span::prefix("x")));
    let small = Request::Range(Range::of(Span::one("x")));
    let mut groups =
        groups_of(LIMITS, [put("a"), grant, put("b"), listing, small, Request::Compact { revision: 1 }]);
    assert_eq!(all(&mut groups), [vec![0, 2, 4], vec![1], vec![3], vec![5]]);
}

#[test]
fn a_refused_group_goes_again_in_halves_until_each_is_alone() {
    let mut groups = groups_of(LIMITS, (0..5).map(|i| put(&i.to_string())));
    let mut alone = Vec::new();
    let mut sent = 0;
    // Only the request 3 is to blame.
    while let Some(group) = groups.take() {
        sent += 1;
        if !ids(&group).contains(&3) {
            groups.end(group.id);
        } else if group.members.len() > 1 {
            groups.halve(group);
        } else {
            alone.extend(ids(&group));
            groups.end(group.id);
        }
    }
    assert_eq!(alone, [3]);
    assert!(sent <= 6, "{sent}");
}

#[test]
fn what_is_put_back_comes_before_what_came_later() {
    let mut groups = groups_of(Limits { members: 2, ..LIMITS }, ["a", "b", "a", "c"].map(put));
    let group = groups.take().unwrap();
    groups.again(group);
    assert_eq!(all(&mut groups), [vec![0, 1], vec![2, 3]]);
}

fn any_request() -> impl Strategy<Value = Request> {
    let key = || "[a-d]{1,2}".prop_map(Bytes::from);
    let span = move || {
        prop_oneof![key().prop_map(Span::one), key().prop_map(Span::prefix), key().prop_map(Span::from)]
    };
    let op = move || {
        prop_oneof![
            (key(), 0usize..300).prop_map(|(key, length)| Op::Put(Put::new(key, vec![0; length], None))),
            span().prop_map(|span| Op::Range(Range::of(span))),
            span().prop_map(|span| Op::Delete(Delete::of(span))),
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

/// What happens to the groups.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Take,
    End(usize),
    Halve(usize),
    Again(usize),
    /// All but those that are tied have an answer.
    Untie(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Push),
        3 => Just(Step::Take),
        2 => (0usize..4).prop_map(Step::End),
        1 => (0usize..4).prop_map(Step::Halve),
        1 => (0usize..4).prop_map(Step::Again),
        1 => (0usize..4).prop_map(Step::Untie),
    ]
}

proptest! {
    /// Whatever happens to groups: their members are independent of each other and of all
    /// that is in flight, bounds are kept, dependent requests end in the order they came,
    /// and each ends once.
    #[test]
    fn groups_are_sound(
        requests in prop::collection::vec(any_request(), 1..60),
        steps in prop::collection::vec(any_step(), 1..200),
        in_flight in 1usize..4,
        members in 1usize..8,
    ) {
        let limits = Limits { waiting: 1000, members, bytes: 600, in_flight };
        let mut groups = Groups::new(limits);
        let mut fresh = requests.iter().cloned().enumerate();
        let mut flying: Vec<Group> = Vec::new();
        let mut ended: Vec<u64> = Vec::new();
        // At the end everything is sent and ends.
        let finish = (0..400).map(|i| if i % 2 == 0 { Step::Take } else { Step::End(i) });
        let pushes = std::iter::repeat_n(Step::Push, requests.len());
        for step in steps.into_iter().chain(pushes).chain(finish) {
            let chosen = |index: usize, flying: &mut Vec<Group>| {
                (!flying.is_empty()).then(|| flying.remove(index % flying.len()))
            };
            match step {
                Step::Push => if let Some((index, request)) = fresh.next() {
                    groups.push(CallId(index as u64), request).unwrap();
                },
                Step::Take => if let Some(group) = groups.take() {
                    flying.push(group);
                },
                Step::End(index) => if let Some(group) = chosen(index, &mut flying) {
                    ended.extend(ids(&group));
                    groups.end(group.id);
                },
                Step::Halve(index) => if let Some(group) = chosen(index, &mut flying) {
                    groups.halve(group);
                },
                Step::Again(index) => if let Some(group) = chosen(index, &mut flying) {
                    groups.again(group);
                },
                Step::Untie(index) => if let Some(mut group) = chosen(index, &mut flying) {
                    let tied = group.bundles.iter().filter(|bundle| bundle.way == Way::Tied);
                    let tied: Vec<usize> = tied.flat_map(|bundle| bundle.members.clone()).collect();
                    let has_answer: Vec<bool> =
                        (0..group.members.len()).map(|at| !tied.contains(&at)).collect();
                    let answered = ids(&group).into_iter().zip(&has_answer).filter(|(_, has)| **has);
                    ended.extend(answered.map(|(id, _)| id));
                    groups.answered(&mut group, &has_answer);
                    groups.again(group);
                },
            }
            prop_assert!(flying.len() <= in_flight);
            let together: Vec<&Member> = flying.iter().flat_map(|group| &group.members).collect();
            for (at, member) in together.iter().enumerate() {
                let mut ground = Ground::default();
                ground.add(&member.touches);
                for other in together.iter().skip(at + 1) {
                    prop_assert!(!ground.meets(&other.touches), "{:?} {:?}", member, other);
                }
            }
            for group in &flying {
                let size = group.members.len();
                prop_assert!((1..=members).contains(&size));
                let bytes: usize = group.members.iter().map(|member| member.bytes).sum();
                prop_assert!(size == 1 || bytes <= 600);
                prop_assert!(size == 1 || group.members.iter().all(|member| rides(&member.request)));
            }
        }
        prop_assert!(flying.is_empty() && groups.waiting() == 0);
        let place: BTreeMap<u64, usize> = ended.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        prop_assert_eq!(place.len(), requests.len());
        prop_assert_eq!(ended.len(), requests.len());
        for (a, first) in requests.iter().enumerate() {
            let mut ground = Ground::default();
            ground.add(&touched(first));
            for (b, second) in requests.iter().enumerate().skip(a + 1) {
                if ground.meets(&touched(second)) {
                    prop_assert!(place[&(a as u64)] < place[&(b as u64)], "{:?} {:?}", first, second);
                }
            }
        }
    }
}
