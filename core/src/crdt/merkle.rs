//! The hash tree by which two replicas find their differences.
//!
//! # Rules for clients in other languages
//!
//! `H(s, x)` is XXH3, 64 bits, of the bytes `x` with the seed `s`. Numbers are big-endian.
//!
//! * **Key** of an entry: domain (1 byte), length of the owner (1 byte), owner, name; for a counter
//!   also the replica (8 bytes). `k = H(0, key)`.
//! * **Bucket**, that is, index of the leaf: the top 8 bits of `k`. The index of the inner node
//!   above the leaf is the top 4 bits.
//! * **Hash of an entry** that has a stamp: `H(H(k, wall_ms (8) || count (4) || replica (8)),
//!   value)`, presence having an empty value; of a counter's share: `H(k, plus (8) || minus (8))`.
//!   A tombstone has none.
//! * **Leaf**: the sum, modulo 2^64, of the hashes of the entries in its bucket. The sum of an
//!   empty bucket is 0, the order of the entries does not matter, and a change costs one
//!   subtraction and one addition.
//! * **Inner node**: `H(0, the hashes of its 16 leaves (8 each), in order)`.
//! * **Root**: `H(0, the hashes of the 16 inner nodes (8 each), in order)`.
//!
//! Tombstones are left out, so that the tree compares only visible entries, and the collection of
//! tombstones does not change the tree (see [`super::tombstone`]). If one replica has an entry and
//! the other one has its tombstone, the trees differ, and the difference is found.
//!
//! The hash is not a cryptographic one. A writer can make its own entries collide, but this only
//! hides the writes of this writer.

use alloc::boxed::Box;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Share, Stamp};

/// Children of each node.
pub const FAN_OUT: usize = 16;
/// Number of leaves of the tree, and of buckets of keys.
pub const LEAVES: usize = FAN_OUT * FAN_OUT;

/// The tree. Only leaves are stored; the 16 leaves under an inner node are allocated when one of
/// them is first written. The 17 nodes above the leaves are computed on demand (2 KiB to hash),
/// which is rare.
#[derive(Clone, Debug, Default)]
pub(super) struct Merkle {
    leaves: [Option<Box<[u64; FAN_OUT]>>; FAN_OUT],
}

impl Merkle {
    /// Replaces the hash of an entry in its bucket: `from` by `to`. 0 stands for no hash.
    pub(super) fn change(&mut self, bucket: u8, from: u64, to: u64) {
        let (inner, child) = place(bucket);
        let leaf = &mut self.leaves[inner].get_or_insert_default()[child];
        *leaf = leaf.wrapping_sub(from).wrapping_add(to);
    }

    pub(super) fn root(&self) -> u64 {
        combine(core::array::from_fn(|index| self.inner(index)))
    }

    /// Returns a node of level 1; `index` is below [`FAN_OUT`].
    pub(super) fn inner(&self, index: usize) -> u64 {
        combine(core::array::from_fn(|child| self.leaf(index * FAN_OUT + child)))
    }

    /// Returns a node of level 2; 0 beyond [`LEAVES`].
    pub(super) fn leaf(&self, index: usize) -> u64 {
        let Ok(bucket) = u8::try_from(index) else { return 0 };
        let (inner, child) = place(bucket);
        self.leaves[inner].as_ref().map_or(0, |leaves| leaves[child])
    }
}

/// Returns the inner node of a leaf, and the index of the leaf under that node; both below
/// [`FAN_OUT`].
const fn place(bucket: u8) -> (usize, usize) {
    (bucket as usize / FAN_OUT, bucket as usize % FAN_OUT)
}

/// Returns the hash of a key.
pub(super) fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// Returns the bucket of a key with this hash.
pub(super) const fn bucket(key_hash: u64) -> u8 {
    (key_hash >> 56) as u8
}

/// Returns the hash of an entry with a stamp.
pub(super) fn stamped_hash(key_hash: u64, stamp: Stamp, value: &[u8]) -> u64 {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&stamp.wall_ms.to_be_bytes());
    bytes[8..12].copy_from_slice(&stamp.count.to_be_bytes());
    bytes[12..].copy_from_slice(&stamp.replica.to_be_bytes());
    xxh3_64_with_seed(value, xxh3_64_with_seed(&bytes, key_hash))
}

/// Returns the hash of a counter's share.
pub(super) fn share_hash(key_hash: u64, share: Share) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&share.plus.to_be_bytes());
    bytes[8..].copy_from_slice(&share.minus.to_be_bytes());
    xxh3_64_with_seed(&bytes, key_hash)
}

fn combine(children: [u64; FAN_OUT]) -> u64 {
    let mut bytes = [0; FAN_OUT * 8];
    for (place, child) in bytes.chunks_exact_mut(8).zip(children) {
        place.copy_from_slice(&child.to_be_bytes());
    }
    xxh3_64(&bytes)
}
