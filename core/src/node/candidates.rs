//! The nodes that may become backups of this node's rooms.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::peers::Peers;
use crate::base::id::NodeId;
use crate::base::rng::Rng;
use crate::base::slab::Key;
use crate::hosting::Candidates;
use crate::registrar::Registrar;

/// Nodes with an open link that the registry names.
#[derive(Clone, Copy)]
pub(super) struct LinkedNodes<'a> {
    pub(super) peers: &'a Peers,
    pub(super) registrar: &'a Registrar,
}

impl Candidates for LinkedNodes<'_> {
    fn choose(
        &self,
        rng: &mut Rng,
        shunned: Option<NodeId>,
        members: &BTreeMap<NodeId, usize>,
    ) -> Option<(NodeId, Key)> {
        let stays = |node: &NodeId| self.registrar.node(*node).is_some_and(|record| !record.draining);
        let may = self.peers.linked().filter(|(node, _)| Some(*node) != shunned && stays(node));
        let count = |node: &NodeId| members.get(node).copied().unwrap_or(0);
        let mut best: Vec<(NodeId, Key)> = Vec::new();
        for candidate in may {
            match best.first().map(|(node, _)| count(&candidate.0).cmp(&count(node))) {
                Some(core::cmp::Ordering::Less) => {}
                Some(core::cmp::Ordering::Equal) => best.push(candidate),
                Some(core::cmp::Ordering::Greater) | None => best = Vec::from([candidate]),
            }
        }
        let last = (best.len() as u64).checked_sub(1)?;
        best.get(usize::try_from(rng.range(0..=last)).ok()?).copied()
    }

    fn link_to(&self, node: NodeId) -> Option<Key> {
        self.peers.link_to(node)
    }
}
