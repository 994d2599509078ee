//! What a request touches: which keys and leases it reads and writes.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use skirmish_core::registry::{LeaseId, Op, Put, Range, Request, Span, Txn};

/// How something is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    Read,
    Write,
}

/// What is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Key(Bytes),
    Span(Span),
    Lease(LeaseId),
}

/// Something, and how it is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) place: Place,
    pub(super) access: Access,
}

/// Everything that a request may touch, whichever branch of a transaction is done. What
/// is read as of a revision can change no more and is left out, and so is the branch for
/// comparisons that have not held where there is none.
pub(super) fn touched(request: &Request) -> Vec<Touch> {
    let mut touches = Vec::new();
    match request {
        Request::Range(range) => touch_range(range, &mut touches),
        Request::Put(put) => touch_put(put, &mut touches),
        Request::Delete(delete) => touch_span(&delete.span, Access::Write, &mut touches),
        Request::Txn(txn) => touch_txn(txn, &mut touches),
        Request::Grant { id, .. } | Request::Revoke(id) => touch_lease(*id, Access::Write, &mut touches),
        Request::KeepAlive(id) | Request::TimeToLive { id, .. } => {
            touch_lease(*id, Access::Read, &mut touches);
        }
        Request::Compact { .. } => {}
    }
    touches
}

fn touch_txn(txn: &Txn, touches: &mut Vec<Touch>) {
    for compare in &txn.compares {
        touch_span(&compare.span, Access::Read, touches);
    }
    let failure = if txn.compares.is_empty() { &[][..] } else { &txn.failure };
    for op in txn.success.iter().chain(failure) {
        match op {
            Op::Range(range) => touch_range(range, touches),
            Op::Put(put) => touch_put(put, touches),
            Op::Delete(delete) => touch_span(&delete.span, Access::Write, touches),
            Op::Txn(txn) => touch_txn(txn, touches),
        }
    }
}

fn touch_range(range: &Range, touches: &mut Vec<Touch>) {
    if range.revision == 0 {
        touch_span(&range.span, Access::Read, touches);
    }
}

fn touch_put(put: &Put, touches: &mut Vec<Touch>) {
    touches.push(Touch { place: Place::Key(put.key.clone()), access: Access::Write });
    if let Some(lease) = put.lease {
        touch_lease(lease, Access::Read, touches);
    }
}

fn touch_span(span: &Span, access: Access, touches: &mut Vec<Touch>) {
    let place = if span.end.is_empty() { Place::Key(span.key.clone()) } else { Place::Span(span.clone()) };
    touches.push(Touch { place, access });
}

fn touch_lease(lease: LeaseId, access: Access, touches: &mut Vec<Touch>) {
    touches.push(Touch { place: Place::Lease(lease), access });
}

/// What several requests touch together.
#[derive(Clone, Debug, Default)]
pub(super) struct Ground {
    keys: BTreeMap<Bytes, Access>,
    spans: Vec<(Span, Access)>,
    leases: BTreeMap<LeaseId, Access>,
}

impl Ground {
    /// Adds what another request touches.
    pub(super) fn add(&mut self, touches: &[Touch]) {
        for Touch { place, access } in touches {
            match place {
                Place::Key(key) => match self.keys.get_mut(key) {
                    Some(known) => *known = (*known).max(*access),
                    None => {
                        self.keys.insert(key.clone(), *access);
                    }
                },
                Place::Span(span) => self.spans.push((span.clone(), *access)),
                Place::Lease(lease) => {
                    let known = self.leases.entry(*lease).or_insert(*access);
                    *known = (*known).max(*access);
                }
            }
        }
    }

    /// Whether a request depends on those whose ground this is, or they on it: one of them
    /// writes what the other reads or writes. If not, their order does not matter.
    pub(super) fn meets(&self, touches: &[Touch]) -> bool {
        touches.iter().any(|touch| {
            let clash = |access: Access| access.max(touch.access) == Access::Write;
            match &touch.place {
                Place::Key(key) => {
                    self.keys.get(key).is_some_and(|access| clash(*access))
                        || self.spans.iter().any(|(span, access)| clash(*access) && span.contains(key))
                }
                Place::Span(span) => {
                    bounds(span).is_some_and(|bounds| {
                        self.keys.range::<[u8], _>(bounds).any(|(_, access)| clash(*access))
                    }) || self.spans.iter().any(|(other, access)| clash(*access) && overlap(span, other))
                }
                Place::Lease(lease) => self.leases.get(lease).is_some_and(|access| clash(*access)),
            }
        })
    }
}

type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The span as bounds; `None` if no key can be in it.
fn bounds(span: &Span) -> Option<KeyBounds<'_>> {
    let key = span.key.as_ref();
    match span.end.as_ref() {
        [] => Some((Bound::Included(key), Bound::Included(key))),
        [0] => Some((Bound::Included(key), Bound::Unbounded)),
        end => (key < end).then_some((Bound::Included(key), Bound::Excluded(end))),
    }
}

/// Whether a key can be in both.
fn overlap(a: &Span, b: &Span) -> bool {
    let within = |key: &Span, span: &Span| span.contains(&key.key);
    bounds(a).is_some() && bounds(b).is_some() && (within(a, b) || within(b, a))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use skirmish_core::registry::{Compare, Delete};

    use super::*;

    fn meet(a: &Request, b: &Request) -> bool {
        let mut ground = Ground::default();
        ground.add(&touched(a));
        let meets = ground.meets(&touched(b));
        let mut ground = Ground::default();
        ground.add(&touched(b));
        assert_eq!(meets, ground.meets(&touched(a)), "{a:?} {b:?}");
        meets
    }

    fn put(key: &'static str) -> Request {
        Request::Put(Put::new(key, "", None))
    }

    fn read(key: &'static str) -> Request {
        Request::Range(Range::of(Span::one(key)))
    }

    #[test]
    fn a_write_meets_what_touches_its_key_and_nothing_else() {
        assert!(meet(&put("a"), &put("a")));
        assert!(meet(&put("a"), &read("a")));
        assert!(!meet(&put("a"), &put("ab")));
        assert!(!meet(&read("a"), &read("a")));
        assert!(meet(&put("ab"), &Request::Range(Range::of(Span::prefix("a")))));
        assert!(meet(&put("ab"), &Request::Delete(Delete::of(Span::prefix("a")))));
        assert!(meet(&put("ab"), &Request::Delete(Delete::of(Span::from("a")))));
        assert!(!meet(&put("a"), &Request::Delete(Delete::of(Span::from("aa")))));
        assert!(meet(
            &Request::Delete(Delete::of(Span::prefix("a"))),
            &Request::Range(Range::of(Span::prefix("ab")))
        ));
        assert!(!meet(
            &Request::Delete(Delete::of(Span::prefix("a"))),
            &Request::Range(Range::of(Span::prefix("b")))
        ));
        let past = Request::Range(Range { revision: 3, ..Range::of(Span::one("a")) });
        assert!(!meet(&put("a"), &past));
        let backwards = Span { key: "b".into(), end: "a".into() };
        assert!(!meet(&put("b"), &Request::Delete(Delete::of(backwards))));
    }

    #[test]
    fn a_transaction_touches_what_either_branch_or_a_comparison_does() {
        let inner = Txn { success: vec![Op::Delete(Delete::of(Span::prefix("d")))], ..Txn::default() };
        let txn = Request::Txn(Txn {
            compares: vec![Compare::absent("c")],
            success: vec![Op::Put(Put::new("s", "", None))],
            failure: vec![Op::Range(Range::of(Span::one("f"))), Op::Txn(inner)],
        });
        for key in ["c", "s", "f", "dd"] {
            assert!(meet(&txn, &put(key)), "{key}");
        }
        assert!(!meet(&txn, &read("c")));
        assert!(meet(&txn, &read("s")) && meet(&txn, &read("dx")) && !meet(&txn, &put("e")));
    }

    #[test]
    fn a_branch_that_is_never_taken_touches_nothing() {
        let failure = vec![Op::Put(Put::new("a", "", None))];
        let never = Request::Txn(Txn { failure: failure.clone(), ..Txn::default() });
        assert_eq!(touched(&never), []);
        let compares = vec![Compare::absent("b")];
        assert_eq!(touched(&Request::Txn(Txn { compares, failure, ..Txn::default() })).len(), 2);
    }

    #[test]
    fn leases_are_granted_before_they_are_used() {
        let used = |key: &'static str| Request::Put(Put::new(key, "", Some(LeaseId(7))));
        let grant = Request::Grant { id: LeaseId(7), ttl_s: 5 };
        assert!(meet(&grant, &used("a")) && meet(&Request::Revoke(LeaseId(7)), &used("a")));
        assert!(!meet(&used("a"), &used("b")));
        assert!(!meet(&Request::Revoke(LeaseId(8)), &used("a")));
    }

    fn any_span() -> impl Strategy<Value = Span> {
        (prop::collection::vec(0u8..3, 1..3), prop::collection::vec(0u8..3, 0..3))
            .prop_map(|(key, end)| Span { key: key.into(), end: end.into() })
    }

    proptest! {
        /// Against what spans say of themselves, key by key.
        #[test]
        fn spans_meet_where_they_share_a_key(a in any_span(), b in any_span()) {
            let mut keys = vec![vec![]];
            for length in 0..4 {
                let longer: Vec<Vec<u8>> = keys.iter().filter(|key| key.len() == length)
                    .flat_map(|key| (0..4).map(|byte| [key.as_slice(), &[byte]].concat())).collect();
                keys.extend(longer);
            }
            let shared = keys.iter().any(|key| a.contains(key) && b.contains(key));
            let meets = meet(
                &Request::Delete(Delete::of(a.clone())),
                &Request::Range(Range::of(b.clone())),
            );
            prop_assert_eq!(meets, shared, "{:?} {:?}", a, b);
        }
    }
}
