//! Oracle of the broadcast tree: each node has every entry once, in order, or has announced the gap.

use std::collections::BTreeMap;

use bytes::Bytes;
use skirmish_core::id::NodeId;

use super::message::TreeSeen;
use crate::oracle::{Guarantee, Violation, broken};

/// Watches the observable acts of the nodes of one tree.
#[derive(Clone, Debug, Default)]
pub struct TreeOracle {
    /// Entries of the primary.
    published: Vec<Bytes>,
    /// Next entry of each node.
    next: BTreeMap<NodeId, u64>,
    /// Entries in announced gaps.
    skipped: u64,
}

impl TreeOracle {
    /// Notes an entry of the primary.
    pub fn published(&mut self, frame: Bytes) {
        self.published.push(frame);
    }

    /// Returns the number of entries in announced gaps.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Checks an act of a node.
    ///
    /// # Errors
    /// The broken guarantee.
    pub fn observe(&mut self, node: NodeId, seen: &TreeSeen) -> Result<(), Violation> {
        match seen {
            TreeSeen::Started(base) => {
                if let Some(next) = self.next.insert(node, base + 1) {
                    return broken(
                        Guarantee::Gaps,
                        format_args!("node {} starts again, before entry {next}", node.0),
                    );
                }
            }
            TreeSeen::Announced(from, to) => {
                let next = self.next.get(&node).copied().unwrap_or_default();
                if *from != next || to < from {
                    return broken(
                        Guarantee::Gaps,
                        format_args!(
                            "node {} announces the gap {from}..={to}, and entry {next} is next",
                            node.0
                        ),
                    );
                }
                self.skipped += to + 1 - from;
                self.next.insert(node, to + 1);
            }
            TreeSeen::Delivered(seq, frame) => {
                let next = self.next.get(&node).copied().unwrap_or_default();
                if *seq > next {
                    return broken(
                        Guarantee::Gaps,
                        format_args!("node {} delivers entry {seq}, and entry {next} is next", node.0),
                    );
                }
                if *seq < next {
                    return broken(
                        Guarantee::Once,
                        format_args!("node {} delivers entry {seq} again", node.0),
                    );
                }
                let index = usize::try_from(*seq - 1).unwrap_or(usize::MAX);
                if self.published.get(index) != Some(frame) {
                    return broken(
                        Guarantee::Order,
                        format_args!("node {} delivers another entry {seq} than the primary has", node.0),
                    );
                }
                self.next.insert(node, seq + 1);
            }
            TreeSeen::Refed | TreeSeen::Gone => {}
        }
        Ok(())
    }

    /// Checks that a node has everything.
    ///
    /// # Errors
    /// The node lacks entries.
    pub fn rest(&self, node: NodeId) -> Result<(), Violation> {
        let all = self.published.len() as u64;
        match self.next.get(&node) {
            Some(next) if *next == all + 1 => Ok(()),
            next => {
                let has = next.map_or_else(|| "nothing".to_owned(), |next| (next - 1).to_string());
                broken(
                    Guarantee::Liveness,
                    format_args!("node {} has {has} of {all} entries when all is at rest", node.0),
                )
            }
        }
    }
}
