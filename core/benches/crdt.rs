//! Merges per second: deltas of one entry, each newer than the current entry, into a state of 1,000
//! keys.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skirmish_core::crdt::{Counter, Crdt, LwwMap, Replica, ReplicaLimits, Share, Stamp};
use skirmish_core::plant::Planted;
use skirmish_core::time::{Duration, Instant, Now, Wall};
use skirmish_proto::v1;

const KEYS: u64 = 1_000;

/// Returns the `n`th key to visit, in scattered order.
fn scattered(n: u64) -> u64 {
    n.wrapping_mul(7_919) % KEYS
}

/// Merges deltas of one entry into a map. Each delta is newer, and is made outside the measured time.
fn lww_map_merge(c: &mut Criterion) {
    let stamp = |n| Stamp { wall_ms: n, count: 0, replica: n % 16 };
    let mut map = LwwMap::default();
    for key in 0..KEYS {
        map.apply(key, stamp(0), Some(key));
    }
    let mut n = 0;
    let mut group = c.benchmark_group("crdt");
    group.throughput(Throughput::Elements(1));
    group.bench_function("lww_map_merge", |b| {
        b.iter_batched_ref(
            || {
                n += 1;
                let mut delta = LwwMap::default();
                delta.apply(scattered(n), stamp(n), Some(n));
                delta
            },
            |delta| assert!(map.merge(black_box(delta))),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn counter_merge(c: &mut Criterion) {
    let mut counter = Counter::default();
    for key in 0..KEYS {
        counter.apply(key, 0, Share::default());
    }
    let mut n = 0;
    let mut group = c.benchmark_group("crdt");
    group.throughput(Throughput::Elements(1));
    group.bench_function("counter_merge", |b| {
        b.iter_batched_ref(
            || {
                n += 1;
                let mut delta = Counter::default();
                delta.apply(scattered(n), n % 16, Share { plus: n, minus: 0 });
                delta
            },
            |delta| assert!(counter.merge(black_box(delta))),
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The whole path of an entry from a client: checks, rights, caps, merge, Merkle tree,
/// log of changes.
fn replica_merge(c: &mut Criterion) {
    let now = Now { instant: Instant::ZERO, wall: Wall(1 << 40) };
    let limits = ReplicaLimits {
        entries_per_owner: 32,
        entries: 10_000,
        clock_bound: Duration::from_secs(2),
        tombstone_horizon: Duration::from_secs(600),
        planted: Planted::default(),
    };
    let mut replica = Replica::new(1, limits, [7; 32]);
    let entry = |n: u64| v1::StateEntry {
        domain: v1::Domain::Property.into(),
        owner: format!("player-{}", scattered(n) / 10),
        name: format!("p{}", scattered(n) % 10),
        stamp: Some(v1::Stamp { wall_ms: n, count: 0, replica: 2 + scattered(n) / 10 }),
        value: Bytes::from_static(b"somewhere in the north"),
        ..v1::StateEntry::default()
    };
    let mut n = 0;
    let mut group = c.benchmark_group("crdt");
    group.throughput(Throughput::Elements(1));
    group.bench_function("replica_merge", |b| {
        b.iter_batched_ref(
            || {
                n += 1;
                [entry(n)]
            },
            |delta| {
                let owner = delta[0].owner.as_str();
                assert_eq!(replica.merge(now, Some(owner), black_box(delta)), Ok(true));
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, lww_map_merge, counter_merge, replica_merge);
criterion_main!(benches);
