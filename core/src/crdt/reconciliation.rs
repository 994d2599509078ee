//! Reconciliation: two replicas find their differences and exchange the differing entries.
//!
//! Each message answers the message before, and is made from that message and the state alone;
//! nothing is remembered between messages.
//!
//! 1. The client sends its root. If the root of the server differs,
//! 2. the server answers with its 16 nodes of level 1,
//! 3. the client answers with its leaves under the nodes that differ,
//! 4. the server answers with its entries in the buckets that differ, and with the numbers of these
//!    buckets (`leaves`), and
//! 5. the client answers with its own entries of these buckets.
//!
//! An answer holds whole buckets, at least one, until [`ANSWER_BYTES`] are reached. Buckets that do
//! not fit go back as nodes of level 2 in the same message, and the roles change. So a
//! reconciliation continues until all buckets are settled, at the speed of the slower side. Each
//! message settles at least one bucket, or is the first message that asks for that bucket: a
//! reconciliation has at most `4 + 2 * 256` messages, whatever the other side sends.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::merkle::{FAN_OUT, LEAVES};
use super::replica::framed_len;
use super::{Replica, StateError};

/// Bytes of entries at which an answer takes no further bucket. With the last bucket an answer may
/// exceed this size; see [`split`].
pub const ANSWER_BYTES: usize = 32 * 1024;

/// Answer to a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReconcileAnswer {
    /// Next step. The caller fills in `room` and `epoch`.
    pub reconcile: Option<v1::Reconcile>,
    /// Entries, to be sent before the step, in one message or in several (see [`split`]).
    pub entries: Vec<v1::StateEntry>,
}

impl ReconcileAnswer {
    /// Drops entries of other owners, and presence. For clients, which may not write these entries.
    pub fn keep_owner(&mut self, owner: &str) {
        self.entries.retain(|entry| entry.owner == owner && entry.domain() != v1::Domain::Presence);
    }
}

/// Splits entries into runs of about `max_bytes` at most when encoded. A run has at least one
/// entry.
pub fn split(entries: &[v1::StateEntry], max_bytes: usize) -> impl Iterator<Item = &[v1::StateEntry]> {
    let mut rest = entries;
    core::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fit = rest.iter().take_while(|entry| {
            bytes = bytes.saturating_add(framed_len(entry));
            bytes <= max_bytes
        });
        let count = fit.count().max(1).min(rest.len());
        let (run, later) = rest.split_at(count);
        rest = later;
        (!run.is_empty()).then_some(run)
    })
}

impl Replica {
    /// Returns the hash of the Merkle root. Two roots are equal if and only if the visible entries
    /// of the two replicas are equal, as far as 64 bits can tell.
    #[must_use]
    pub fn root(&self) -> u64 {
        self.merkle.root()
    }

    /// Returns the first step of a reconciliation: our root.
    #[must_use]
    pub fn start_reconcile(&self) -> v1::Reconcile {
        step(0, [v1::MerkleNode { index: 0, hash: self.root() }].into(), Vec::new())
    }

    /// Returns the answer to a step.
    ///
    /// # Errors
    /// [`StateError::Malformed`] if there is no such level or node, if nodes or leaves are not in
    /// ascending order, or if there are leaves at another level than 2.
    pub fn reconcile(&self, theirs: &v1::Reconcile) -> Result<ReconcileAnswer, StateError> {
        check(theirs)?;
        let differing = |ours: &dyn Fn(usize) -> u64| -> Vec<usize> {
            let nodes = theirs.nodes.iter().map(|node| (node.index as usize, node.hash));
            nodes.filter(|&(index, hash)| ours(index) != hash).map(|(index, _)| index).collect()
        };
        let nodes = match theirs.level {
            0 => {
                let differs = !differing(&|_| self.root()).is_empty();
                let children = 0..if differs { FAN_OUT } else { 0 };
                children.map(|index| node(index, self.merkle.inner(index))).collect::<Vec<_>>()
            }
            1 => {
                let differ = differing(&|index| self.merkle.inner(index));
                let children = differ.iter().flat_map(|index| index * FAN_OUT..(index + 1) * FAN_OUT);
                children.map(|index| self.leaf_node(index)).collect()
            }
            _ => return Ok(self.exchange(&theirs.leaves, &differing(&|index| self.merkle.leaf(index)))),
        };
        let reconcile = (!nodes.is_empty()).then(|| step(theirs.level + 1, nodes, Vec::new()));
        Ok(ReconcileAnswer { reconcile, entries: Vec::new() })
    }

    /// Returns the answer at the leaves. `asked` are buckets whose entries the other side has sent
    /// and asks for. `differing` are buckets that differ and that neither side has sent.
    fn exchange(&self, asked: &[u32], differing: &[usize]) -> ReconcileAnswer {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut open = Vec::new();
        let mut leaves = Vec::new();
        for &index in asked {
            if bytes < ANSWER_BYTES {
                bytes += self.put_bucket(index as usize, &mut entries);
            } else {
                open.push(self.leaf_node(index as usize));
            }
        }
        for &index in differing {
            if bytes < ANSWER_BYTES {
                bytes += self.put_bucket(index, &mut entries);
                leaves.push(index as u32);
            } else {
                open.push(self.leaf_node(index));
            }
        }
        open.sort_by_key(|node| node.index);
        open.dedup_by_key(|node| node.index);
        let more = !open.is_empty() || !leaves.is_empty();
        ReconcileAnswer { reconcile: more.then(|| step(2, open, leaves)), entries }
    }

    /// Appends the entries of a bucket, tombstones included. Returns their size in bytes.
    fn put_bucket(&self, index: usize, entries: &mut Vec<v1::StateEntry>) -> usize {
        let Ok(bucket) = u8::try_from(index) else { return 0 };
        let mut bytes = 0;
        for entry in self.index.in_bucket(bucket).filter_map(|slot| self.entry(slot)) {
            bytes += framed_len(&entry);
            entries.push(entry);
        }
        bytes
    }

    fn leaf_node(&self, index: usize) -> v1::MerkleNode {
        node(index, self.merkle.leaf(index))
    }
}

fn check(step: &v1::Reconcile) -> Result<(), StateError> {
    let width = match step.level {
        0 => 1,
        1 => FAN_OUT,
        2 => LEAVES,
        _ => return Err(StateError::Malformed),
    };
    let nodes = step.nodes.iter().map(|node| node.index);
    let sound = ascending(nodes, width)
        && ascending(step.leaves.iter().copied(), LEAVES)
        && (step.level == 2 || step.leaves.is_empty());
    if sound { Ok(()) } else { Err(StateError::Malformed) }
}

fn ascending(indexes: impl Iterator<Item = u32> + Clone, width: usize) -> bool {
    indexes.clone().is_sorted_by(|a, b| a < b) && indexes.last().is_none_or(|last| (last as usize) < width)
}

fn node(index: usize, hash: u64) -> v1::MerkleNode {
    // Indexes are below 256.
    v1::MerkleNode { index: index as u32, hash }
}

fn step(level: u32, nodes: Vec<v1::MerkleNode>, leaves: Vec<u32>) -> v1::Reconcile {
    v1::Reconcile { level, nodes, leaves, ..v1::Reconcile::default() }
}
