//! Tests of the laws, of the replica's behaviour, and of convergence.

mod batches;
mod convergence;
mod index;
mod laws;
mod replica;
mod star;

use alloc::string::ToString as _;

use bytes::Bytes;
use skirmish_proto::v1;

use super::{ReconcileAnswer, Replica, ReplicaLimits};
use crate::base::plant::Planted;
use crate::base::time::{Duration, Instant, Now, Wall};

/// Returns both clocks, `ms` after the start.
fn at(ms: u64) -> Now {
    Now { instant: Instant::from_micros(ms * 1000), wall: Wall(1_000_000 + ms) }
}

/// Returns both clocks, with the wall clock off by `skew_ms`.
fn skewed(ms: u64, skew_ms: i64) -> Now {
    let now = at(ms);
    Now { wall: Wall(now.wall.0.saturating_add_signed(skew_ms)), ..now }
}

fn limits() -> ReplicaLimits {
    ReplicaLimits {
        entries_per_owner: 32,
        entries: 1000,
        clock_bound: Duration::from_secs(2),
        tombstone_horizon: Duration::from_secs(600),
        planted: Planted::default(),
    }
}

fn replica(id: u64) -> Replica {
    Replica::new(id, limits(), [0; 32])
}

fn property(owner: &str, name: &str, wall_ms: u64, value: Option<&'static str>) -> v1::StateEntry {
    v1::StateEntry {
        domain: v1::Domain::Property.into(),
        owner: owner.to_string(),
        name: name.to_string(),
        stamp: Some(v1::Stamp { wall_ms: 1_000_000 + wall_ms, count: 0, replica: 77 }),
        removed: value.is_none(),
        value: Bytes::from_static(value.unwrap_or_default().as_bytes()),
        ..v1::StateEntry::default()
    }
}

/// Cost of a reconciliation.
#[derive(Debug, Default, PartialEq)]
struct ReconciliationCost {
    messages: usize,
    entries: usize,
    buckets: alloc::collections::BTreeSet<u32>,
    largest: usize,
}

/// Runs one reconciliation that `a` starts with `b`. Both trust each other.
fn reconcile(now: (Now, Now), a: &mut Replica, b: &mut Replica) -> ReconciliationCost {
    let mut cost = ReconciliationCost::default();
    let mut step = Some(a.start_reconcile());
    let (mut from, mut to) = ((now.0, a), (now.1, b));
    while let Some(message) = step.take() {
        cost.messages += 1;
        assert!(cost.messages <= 4 + 2 * 256, "the reconciliation does not end");
        cost.buckets.extend(&message.leaves);
        let ReconcileAnswer { reconcile, entries } = to.1.reconcile(&message).expect("a step of our own");
        cost.entries += entries.len();
        cost.largest = cost.largest.max(entries.len());
        for run in super::split(&entries, 4096) {
            from.1.merge(from.0, None, run).expect("entries of our own");
        }
        step = reconcile;
        core::mem::swap(&mut from, &mut to);
    }
    cost
}
