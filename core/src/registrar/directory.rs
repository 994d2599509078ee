//! Directory of the nodes in the registry.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use prost::Message as _;
use skirmish_proto::v1;

use super::directory_watch::Page;
use super::keys;
use crate::base::id::NodeId;
use crate::registry::{Change, KeyValue};

/// Known nodes, as of the last news. A node with an unreadable record is listed with an empty one.
#[derive(Debug, Default)]
pub(super) struct Directory {
    nodes: BTreeMap<NodeId, KnownNode>,
}

/// Record of a node, with its revisions.
#[derive(Debug)]
struct KnownNode {
    created: u64,
    modified: u64,
    record: v1::NodeRecord,
}

/// Change of the set of nodes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NodeChange {
    Up(NodeId, v1::NodeRecord),
    Down(NodeId),
}

impl Directory {
    pub(super) fn get(&self, id: NodeId) -> Option<&v1::NodeRecord> {
        self.nodes.get(&id).map(|known| &known.record)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &v1::NodeRecord)> {
        self.nodes.iter().map(|(id, known)| (*id, &known.record))
    }

    /// Returns the nodes, with the revisions that created their records.
    pub(super) fn lives(&self) -> impl Iterator<Item = (NodeId, u64, &v1::NodeRecord)> {
        self.nodes.iter().map(|(id, known)| (*id, known.created, &known.record))
    }

    /// Forgets all nodes, and returns their identifiers.
    pub(super) fn forget(&mut self) -> Vec<NodeId> {
        core::mem::take(&mut self.nodes).into_keys().collect()
    }

    /// Handles a page. Counts unreadable keys and records in `garbage`.
    pub(super) fn handle_page(&mut self, page: &Page, garbage: &mut u64) -> Vec<NodeChange> {
        let gone = |(id, known): (&NodeId, &KnownNode)| {
            (page.lacks(&keys::node_key(*id)) && known.modified <= page.revision).then_some(*id)
        };
        let gone: Vec<NodeId> = self.nodes.iter().filter_map(gone).collect();
        let mut changes = Vec::new();
        for id in gone {
            self.nodes.remove(&id);
            changes.push(NodeChange::Down(id));
        }
        changes.extend(page.kvs.iter().filter_map(|kv| self.put(kv, garbage)));
        changes
    }

    /// Handles a change. Counts unreadable keys and records in `garbage`. The deletion of an unknown key, or of
    /// a record that was written again since, changes nothing.
    pub(super) fn handle_change(&mut self, change: &Change, garbage: &mut u64) -> Option<NodeChange> {
        match change {
            Change::Put { kv, .. } => self.put(kv, garbage),
            Change::Delete { key, revision, .. } => {
                let id = keys::node_of(key)?;
                if self.nodes.get(&id)?.modified > *revision {
                    return None;
                }
                self.nodes.remove(&id);
                Some(NodeChange::Down(id))
            }
        }
    }

    fn put(&mut self, kv: &KeyValue, garbage: &mut u64) -> Option<NodeChange> {
        let Some(id) = keys::node_of(&kv.key) else {
            *garbage += 1;
            return None;
        };
        let record = v1::NodeRecord::decode(kv.value.clone()).unwrap_or_else(|_| {
            *garbage += 1;
            v1::NodeRecord::default()
        });
        match self.nodes.get_mut(&id) {
            Some(known) => {
                if known.modified <= kv.modified {
                    *known = KnownNode { created: kv.created, modified: kv.modified, record };
                }
                None
            }
            None => {
                let (created, modified) = (kv.created, kv.modified);
                self.nodes.insert(id, KnownNode { created, modified, record: record.clone() });
                Some(NodeChange::Up(id, record))
            }
        }
    }
}
