//! Access sets: the keys and leases that requests read and write, and the conflicts between requests.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use bytes::Bytes;

use crate::registry::{LeaseId, Put, Range, RegistryOp, Request, Span, Txn};

/// Kind of access to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AccessMode {
    Read,
    Write,
}

/// Part of the registry that a request reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Key(Bytes),
    Span(Span),
    Lease(LeaseId),
}

/// Access of a request to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) resource: Resource,
    pub(super) mode: AccessMode,
}

/// Returns all accesses that a request may make, in every branch of a transaction. Reads at a revision are
/// left out, since their results cannot change. The failure branch of a transaction without comparisons is
/// left out, since the branch is never taken.
pub(super) fn accesses(request: &Request) -> Vec<Access> {
    let mut accesses = Vec::new();
    match request {
        Request::Range(range) => add_range(range, &mut accesses),
        Request::Put(put) => add_put(put, &mut accesses),
        Request::Delete(delete) => add_span(&delete.span, AccessMode::Write, &mut accesses),
        Request::Txn(txn) => add_txn(txn, &mut accesses),
        Request::Grant { id, .. } | Request::Revoke(id) => add_lease(*id, AccessMode::Write, &mut accesses),
        Request::KeepAlive(id) | Request::TimeToLive { id, .. } => {
            add_lease(*id, AccessMode::Read, &mut accesses)
        }
        Request::Compact { .. } => {}
    }
    accesses
}

fn add_txn(txn: &Txn, accesses: &mut Vec<Access>) {
    for compare in &txn.compares {
        add_span(&compare.span, AccessMode::Read, accesses);
    }
    let failure = if txn.compares.is_empty() { &[][..] } else { &txn.failure };
    for op in txn.success.iter().chain(failure) {
        match op {
            RegistryOp::Range(range) => add_range(range, accesses),
            RegistryOp::Put(put) => add_put(put, accesses),
            RegistryOp::Delete(delete) => add_span(&delete.span, AccessMode::Write, accesses),
            RegistryOp::Txn(txn) => add_txn(txn, accesses),
        }
    }
}

fn add_range(range: &Range, accesses: &mut Vec<Access>) {
    if range.revision == 0 {
        add_span(&range.span, AccessMode::Read, accesses);
    }
}

fn add_put(put: &Put, accesses: &mut Vec<Access>) {
    accesses.push(Access { resource: Resource::Key(put.key.clone()), mode: AccessMode::Write });
    if let Some(lease) = put.lease {
        add_lease(lease, AccessMode::Read, accesses);
    }
}

fn add_span(span: &Span, mode: AccessMode, accesses: &mut Vec<Access>) {
    let is_key = span.end.is_empty();
    let resource = if is_key { Resource::Key(span.key.clone()) } else { Resource::Span(span.clone()) };
    accesses.push(Access { resource, mode });
}

fn add_lease(lease: LeaseId, mode: AccessMode, accesses: &mut Vec<Access>) {
    accesses.push(Access { resource: Resource::Lease(lease), mode });
}

/// Accesses of several requests together.
#[derive(Clone, Debug, Default)]
pub(super) struct AccessSet {
    keys: BTreeMap<Bytes, AccessMode>,
    spans: Vec<(Span, AccessMode)>,
    leases: BTreeMap<LeaseId, AccessMode>,
}

impl AccessSet {
    /// Adds the accesses of another request.
    pub(super) fn add(&mut self, accesses: &[Access]) {
        for Access { resource, mode } in accesses {
            match resource {
                Resource::Key(key) => match self.keys.get_mut(key) {
                    Some(known) => *known = (*known).max(*mode),
                    None => {
                        self.keys.insert(key.clone(), *mode);
                    }
                },
                Resource::Span(span) => self.spans.push((span.clone(), *mode)),
                Resource::Lease(lease) => {
                    let known = self.leases.entry(*lease).or_insert(*mode);
                    *known = (*known).max(*mode);
                }
            }
        }
    }

    /// Returns true if one side writes a resource that the other side reads or writes. If not,
    /// the order of the two sides does not matter.
    pub(super) fn conflicts_with(&self, accesses: &[Access]) -> bool {
        accesses.iter().any(|access| {
            let clash = |mode: AccessMode| mode.max(access.mode) == AccessMode::Write;
            match &access.resource {
                Resource::Key(key) => {
                    self.keys.get(key).is_some_and(|mode| clash(*mode))
                        || self.spans.iter().any(|(span, mode)| clash(*mode) && span.contains(key))
                }
                Resource::Span(span) => {
                    bounds(span).is_some_and(|bounds| {
                        self.keys.range::<[u8], _>(bounds).any(|(_, mode)| clash(*mode))
                    }) || self.spans.iter().any(|(other, mode)| clash(*mode) && overlap(span, other))
                }
                Resource::Lease(lease) => self.leases.get(lease).is_some_and(|mode| clash(*mode)),
            }
        })
    }
}

type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Converts a span to bounds; `None` if no key can be in the span.
fn bounds(span: &Span) -> Option<KeyBounds<'_>> {
    let key = span.key.as_ref();
    match span.end.as_ref() {
        [] => Some((Bound::Included(key), Bound::Included(key))),
        [0] => Some((Bound::Included(key), Bound::Unbounded)),
        end => (key < end).then_some((Bound::Included(key), Bound::Excluded(end))),
    }
}

/// Returns true if a key can be in both spans.
fn overlap(a: &Span, b: &Span) -> bool {
    let within = |key: &Span, span: &Span| span.contains(&key.key);
    bounds(a).is_some() && bounds(b).is_some() && (within(a, b) || within(b, a))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::registry::{Compare, Delete};

    fn conflict(a: &Request, b: &Request) -> bool {
        let mut set = AccessSet::default();
        set.add(&accesses(a));
        let conflicts = set.conflicts_with(&accesses(b));
        let mut set = AccessSet::default();
        set.add(&accesses(b));
        assert_eq!(conflicts, set.conflicts_with(&accesses(a)), "{a:?} {b:?}");
        conflicts
    }

    fn put(key: &'static str) -> Request {
        Request::Put(Put::new(key, "", None))
    }

    fn read(key: &'static str) -> Request {
        Request::Range(Range::of(Span::one(key)))
    }

    #[test]
    fn a_write_conflicts_with_accesses_to_its_key_only() {
        assert!(conflict(&put("a"), &put("a")));
        assert!(conflict(&put("a"), &read("a")));
        assert!(!conflict(&put("a"), &put("ab")));
        assert!(!conflict(&read("a"), &read("a")));
        assert!(conflict(&put("ab"), &Request::Range(Range::of(Span::prefix("a")))));
        assert!(conflict(&put("ab"), &Request::Delete(Delete::of(Span::prefix("a")))));
        assert!(conflict(&put("ab"), &Request::Delete(Delete::of(Span::from("a")))));
        assert!(!conflict(&put("a"), &Request::Delete(Delete::of(Span::from("aa")))));
        assert!(conflict(
            &Request::Delete(Delete::of(Span::prefix("a"))),
            &Request::Range(Range::of(Span::prefix("ab")))
        ));
        assert!(!conflict(
            &Request::Delete(Delete::of(Span::prefix("a"))),
            &Request::Range(Range::of(Span::prefix("b")))
        ));
        let past = Request::Range(Range { revision: 3, ..Range::of(Span::one("a")) });
        assert!(!conflict(&put("a"), &past));
        let backwards = Span { key: "b".into(), end: "a".into() };
        assert!(!conflict(&put("b"), &Request::Delete(Delete::of(backwards))));
    }

    #[test]
    fn a_transaction_accesses_the_keys_of_both_branches_and_of_comparisons() {
        let inner =
            Txn { success: vec![RegistryOp::Delete(Delete::of(Span::prefix("d")))], ..Txn::default() };
        let txn = Request::Txn(Txn {
            compares: vec![Compare::absent("c")],
            success: vec![RegistryOp::Put(Put::new("s", "", None))],
            failure: vec![RegistryOp::Range(Range::of(Span::one("f"))), RegistryOp::Txn(inner)],
        });
        for key in ["c", "s", "f", "dd"] {
            assert!(conflict(&txn, &put(key)), "{key}");
        }
        assert!(!conflict(&txn, &read("c")));
        assert!(conflict(&txn, &read("s")) && conflict(&txn, &read("dx")) && !conflict(&txn, &put("e")));
    }

    #[test]
    fn a_branch_that_is_never_taken_accesses_nothing() {
        let failure = vec![RegistryOp::Put(Put::new("a", "", None))];
        let never = Request::Txn(Txn { failure: failure.clone(), ..Txn::default() });
        assert_eq!(accesses(&never), []);
        let compares = vec![Compare::absent("b")];
        assert_eq!(accesses(&Request::Txn(Txn { compares, failure, ..Txn::default() })).len(), 2);
    }

    #[test]
    fn leases_are_granted_before_they_are_used() {
        let used = |key: &'static str| Request::Put(Put::new(key, "", Some(LeaseId(7))));
        let grant = Request::Grant { id: LeaseId(7), ttl_s: 5 };
        assert!(conflict(&grant, &used("a")) && conflict(&Request::Revoke(LeaseId(7)), &used("a")));
        assert!(!conflict(&used("a"), &used("b")));
        assert!(!conflict(&Request::Revoke(LeaseId(8)), &used("a")));
    }

    fn any_span() -> impl Strategy<Value = Span> {
        (prop::collection::vec(0u8..3, 1..3), prop::collection::vec(0u8..3, 0..3))
            .prop_map(|(key, end)| Span { key: key.into(), end: end.into() })
    }

    proptest! {
        /// Compares with `Span::contains`, key by key.
        #[test]
        fn spans_conflict_if_they_share_a_key(a in any_span(), b in any_span()) {
            let mut keys = vec![vec![]];
            for length in 0..4 {
                let longer: Vec<Vec<u8>> = keys.iter().filter(|key| key.len() == length)
                    .flat_map(|key| (0..4).map(|byte| [key.as_slice(), &[byte]].concat())).collect();
                keys.extend(longer);
            }
            let shared = keys.iter().any(|key| a.contains(key) && b.contains(key));
            let conflicts = conflict(
                &Request::Delete(Delete::of(a.clone())),
                &Request::Range(Range::of(b.clone())),
            );
            prop_assert_eq!(conflicts, shared, "{:?} {:?}", a, b);
        }
    }
}
