//! Other nodes that the registry names and no link leads to.

use alloc::string::String;

use super::Node;
use super::links::Peer;
use crate::base::id::NodeId;
use crate::base::time::{Duration, Instant};

/// Another node that cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Which.
    pub node: NodeId,
    /// Its name, as its record says; may be empty.
    pub name: String,
    /// Where it takes links, as its record says; empty if it takes none.
    pub address: String,
    /// How long no link to it has worked.
    pub lasts: Duration,
    /// Whether this node is the one of the two that dials.
    pub dials: bool,
}

impl Node {
    /// Nodes that the registry names and that no link has led to for longer than a time. A
    /// link counts once it has answered: what passes one way only is no link. A node that
    /// dies is not among them for longer than its record lives.
    #[must_use]
    pub fn unreachable(&self, now: Instant, longer_than: Duration) -> alloc::vec::Vec<Unreachable> {
        let unreachable = |(node, peer): (&NodeId, &Peer)| {
            let record = self.registrar.node(*node)?;
            let lasts = now.since(peer.unlinked);
            (!self.is_proven(peer) && lasts > longer_than).then(|| Unreachable {
                node: *node,
                name: record.name.clone(),
                address: record.link.clone(),
                lasts,
                dials: self.id < *node,
            })
        };
        self.peers.iter().filter_map(unreachable).collect()
    }

    /// How many other nodes the registry names.
    #[must_use]
    pub fn others(&self) -> usize {
        self.registrar.nodes().filter(|(node, _)| *node != self.id).count()
    }

    /// Whether the link to another node is known to work both ways.
    pub(super) fn is_proven(&self, peer: &Peer) -> bool {
        let link = peer.link.and_then(|key| self.links.get(key));
        link.is_some_and(|link| link.proven)
    }

    /// The link to another node, if there is one, is about to go.
    pub(super) fn note_unlinked(&mut self, now: Instant, node: NodeId) {
        let worked = self.peers.get(&node).is_some_and(|peer| self.is_proven(peer));
        if let Some(peer) = self.peers.get_mut(&node).filter(|_| worked) {
            peer.unlinked = now;
        }
    }
}
