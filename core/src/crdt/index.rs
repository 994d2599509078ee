//! Data of each entry beside its value, and the look-up of entries.

use alloc::collections::{BTreeMap, BTreeSet};
use core::hash::{BuildHasher as _, Hasher as _};

use hashbrown::HashTable;

use super::merkle::{bucket, key_hash};
use super::{KeyBuf, StateError, StateKey};
use crate::base::keyed_hasher::KeyedHasher;
use crate::base::rng::Seed;
use crate::base::slab::Slab;

/// Place of an entry, used as the key of its value: numbers compare faster than names. The place of
/// an entry that was removed finds nothing.
pub(super) use crate::base::slab::Key as Slot;

/// All entries of a replica, tombstones included. The number is not bounded here: the owner of the
/// index bounds it.
#[derive(Clone, Debug)]
pub(super) struct Index {
    entries: Slab<Meta>,
    hasher: KeyedHasher,
    /// Never iterated.
    by_hash: HashTable<Slot>,
    in_order: BTreeMap<StateKey, Slot>,
    buckets: BTreeSet<(u8, Slot)>,
}

/// Data of one entry beside its value.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) key: StateKey,
    pub(super) key_hash: u64,
    /// Summand of the entry in its leaf of the Merkle tree.
    pub(super) hash: u64,
    /// Number of the last change of the entry.
    pub(super) change: u64,
    /// For a tombstone: the last millisecond of wall time at which the entry is kept.
    pub(super) kept_ms: Option<u64>,
}

impl Index {
    /// Creates an empty index. Strangers choose the keys, so the hash of keys is keyed from the
    /// seed.
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            entries: Slab::new(usize::MAX),
            hasher: KeyedHasher::new(seed),
            by_hash: HashTable::new(),
            in_order: BTreeMap::new(),
            buckets: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(super) fn find(&self, key: &KeyBuf) -> Option<Slot> {
        let is_it = |slot: &Slot| self.key(*slot).is_some_and(|known| known.as_bytes() == key.as_bytes());
        self.by_hash.find(hash(&self.hasher, key.as_bytes()), is_it).copied()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Meta> {
        self.entries.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Meta> {
        self.entries.get_mut(slot)
    }

    pub(super) fn key(&self, slot: Slot) -> Option<&StateKey> {
        self.entries.get(slot).map(|meta| &meta.key)
    }

    /// Returns true if a change is the last change of an entry.
    pub(super) fn is_last(&self, change: u64, slot: Slot) -> bool {
        self.entries.get(slot).is_some_and(|meta| meta.change == change)
    }

    /// Adds an entry; the index must not have its key yet.
    ///
    /// # Errors
    /// [`StateError::TooMany`] at 2^32 entries.
    pub(super) fn insert(&mut self, key: &KeyBuf) -> Result<Slot, StateError> {
        let Self { entries, hasher, by_hash, in_order, buckets } = self;
        let key = StateKey::from(key.as_bytes());
        let key_hash = key_hash(key.as_bytes());
        let meta = Meta { key: key.clone(), key_hash, hash: 0, change: 0, kept_ms: None };
        let slot = entries.insert(meta).ok_or(StateError::TooMany)?;
        let hash_of = |slot: &Slot| entries.get(*slot).map_or(0, |meta| hash(hasher, meta.key.as_bytes()));
        by_hash.insert_unique(hash_of(&slot), slot, hash_of);
        in_order.insert(key, slot);
        buckets.insert((bucket(key_hash), slot));
        Ok(slot)
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<Meta> {
        let meta = self.entries.remove(slot)?;
        let hash = hash(&self.hasher, meta.key.as_bytes());
        if let Ok(found) = self.by_hash.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        self.in_order.remove(&meta.key);
        self.buckets.remove(&(bucket(meta.key_hash), slot));
        Some(meta)
    }

    /// Returns the entries with this prefix of the key, in the order of the keys, which is the same
    /// in all replicas.
    pub(super) fn starting_with(&self, prefix: KeyBuf) -> impl Iterator<Item = (&StateKey, Slot)> {
        let from = (core::ops::Bound::Included(prefix.as_bytes()), core::ops::Bound::Unbounded);
        let entries = self.in_order.range::<[u8], _>(from).map(|(key, slot)| (key, *slot));
        entries.take_while(move |(key, _)| key.as_bytes().starts_with(prefix.as_bytes()))
    }

    /// Returns the entries in a bucket.
    pub(super) fn in_bucket(&self, bucket: u8) -> impl Iterator<Item = Slot> {
        let first = (bucket, Slot { slot: 0, generation: 0 });
        self.buckets.range(first..).take_while(move |(other, _)| *other == bucket).map(|(_, slot)| *slot)
    }
}

fn hash(hasher: &KeyedHasher, key: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}
