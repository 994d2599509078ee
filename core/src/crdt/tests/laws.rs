//! Laws of a join-semilattice, checked for every type by one helper.

use alloc::vec::Vec;
use core::fmt::Debug;

use proptest::prelude::*;

use crate::crdt::{Counter, Crdt, LwwMap, LwwSet, Share, Stamp, Version};

fn joined<T: Crdt + Clone>(a: &T, b: &T) -> T {
    let mut joined = a.clone();
    joined.merge(b);
    joined
}

/// Checks every law with three values.
fn holds<T: Crdt + Clone + PartialEq + Debug>(a: &T, b: &T, c: &T) -> Result<(), TestCaseError> {
    let ab = joined(a, b);
    prop_assert_eq!(&ab, &joined(b, a), "commutative");
    prop_assert_eq!(joined(&ab, c), joined(a, &joined(b, c)), "associative");
    let mut again = a.clone();
    prop_assert!(!again.merge(a), "merging itself changes nothing");
    prop_assert_eq!(&again, a, "idempotent");
    for operand in [a, b] {
        let mut upper = ab.clone();
        prop_assert!(!upper.merge(operand), "the result is at least {:?}", operand);
        prop_assert_eq!(&upper, &ab);
        prop_assert!(ab.version().covers(operand.version()), "the version never goes back");
    }
    let mut changed = a.clone();
    prop_assert_eq!(changed.merge(b), changed != *a, "tells whether it changed");
    Ok(())
}

/// Checks that a value made by writes equals the join of the deltas of these writes, in any order.
fn deltas_add_up<T, W>(writes: &[W], apply: impl Fn(&mut T, &W) -> bool) -> Result<(), TestCaseError>
where
    T: Crdt + Default + Clone + PartialEq + Debug,
{
    let mut whole = T::default();
    let mut from_deltas = T::default();
    for write in writes {
        apply(&mut whole, write);
    }
    for write in writes.iter().rev().chain(writes) {
        let mut delta = T::default();
        apply(&mut delta, write);
        from_deltas.merge(&delta);
    }
    prop_assert_eq!(whole, from_deltas);
    Ok(())
}

type Write = (u8, Stamp, Option<u8>);

/// Few keys, stamps and values, so that they collide. Equal stamps with different values are
/// included.
fn writes() -> impl Strategy<Value = Vec<Write>> {
    let stamp = (0..4_u64, 0..2_u32, 0..3_u64);
    let stamp = stamp.prop_map(|(wall_ms, count, replica)| Stamp { wall_ms, count, replica });
    proptest::collection::vec((0..4_u8, stamp, proptest::option::of(0..3_u8)), 0..12)
}

type Raise = (u8, u64, Share);

fn raises() -> impl Strategy<Value = Vec<Raise>> {
    let amount = prop_oneof![0..6_u64, Just(u64::MAX)];
    let share = (amount.clone(), amount).prop_map(|(plus, minus)| Share { plus, minus });
    proptest::collection::vec((0..3_u8, 0..3_u64, share), 0..12)
}

fn put(map: &mut LwwMap<u8, u8>, &(key, stamp, value): &Write) -> bool {
    map.apply(key, stamp, value)
}

fn toggle(set: &mut LwwSet<u8>, &(key, stamp, value): &Write) -> bool {
    set.apply(key, stamp, value.is_some())
}

fn raise(counter: &mut Counter<u8>, &(key, replica, share): &Raise) -> bool {
    counter.apply(key, replica, share)
}

fn built<T: Default, W>(writes: &[W], apply: impl Fn(&mut T, &W) -> bool) -> T {
    let mut value = T::default();
    for write in writes {
        apply(&mut value, write);
    }
    value
}

proptest! {
    #[test]
    fn lww_map(a in writes(), b in writes(), c in writes()) {
        holds(&built(&a, put), &built(&b, put), &built(&c, put))?;
        deltas_add_up(&a, put)?;
    }

    #[test]
    fn lww_set(a in writes(), b in writes(), c in writes()) {
        holds(&built(&a, toggle), &built(&b, toggle), &built(&c, toggle))?;
        deltas_add_up(&a, toggle)?;
    }

    #[test]
    fn counter(a in raises(), b in raises(), c in raises()) {
        holds(&built(&a, raise), &built(&b, raise), &built(&c, raise))?;
        deltas_add_up(&a, raise)?;
    }
}

#[test]
fn versions_are_partially_ordered() {
    let version = |raised: &[(u64, u128)]| {
        let mut version = Version::default();
        for &(replica, to) in raised {
            version.raise(replica, to);
        }
        version
    };
    let (a, b) = (version(&[(1, 5), (2, 1)]), version(&[(1, 4), (2, 2)]));
    assert_eq!(a.partial_cmp(&b), None);
    let mut ab = a.clone();
    assert!(ab.join(&b) && !ab.join(&b));
    assert!(ab > a && ab > b);
    assert_eq!((ab.seen(1), ab.seen(2), ab.seen(3)), (5, 2, 0));
}

#[test]
fn a_version_is_bounded() {
    let mut version = Version::default();
    for replica in 0..2 * Version::MAX_REPLICAS as u64 {
        version.raise(replica, u128::from(replica) + 1);
    }
    let remembered = (0..2 * Version::MAX_REPLICAS as u64).filter(|&replica| version.seen(replica) > 0);
    assert_eq!(remembered.count(), Version::MAX_REPLICAS);
    assert_eq!(version.seen(2 * Version::MAX_REPLICAS as u64 - 1), 2 * Version::MAX_REPLICAS as u128);
}
