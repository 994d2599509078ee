//! Other nodes, as the registry names them.
//!
//! That the registry names a node, and that a link to the node works, are two facts. A node whose
//! lease has ended may live: etcd may have lost its leases, or only that node does not reach etcd. The
//! node knows by its own clock whether it may lead rooms, and is named again when it registers anew.
//! So a link that works is kept, and so are the rooms that are followed over it: their primary decides
//! whether they can be changed. No dial, and no new link, leads to a node without a name.
//!
//! Its wall clock still counts: others are no more right because their registry is out of reach.
//!
//! The rooms are not kept for ever: another [`node_ttl`](crate::registrar::RegistrarConfig::node_ttl)
//! later they are over here, unless the node was named again. A node that alone does not reach etcd
//! leads them no more, and others may.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::peer::Peer;
use super::{LinkClosure, Peers, PeersEffect, PeersTimer};
use crate::base::id::NodeId;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::node::Event;
use crate::node::cx::Cx;

impl Peers {
    /// Reads the record of a node that the registry names.
    pub(in crate::node) fn handle_record(&mut self, cx: &mut Cx<'_>, node: NodeId, record: &v1::NodeRecord) {
        let dials = self.id < node && !record.link.is_empty();
        let address = dials.then(|| record.link.clone());
        let now = cx.now.instant;
        self.peer(now, node);
        let Self { nodes, agenda, .. } = self;
        let Some(peer) = nodes.get_mut(&node) else { return };
        if !peer.is_named() {
            // Its rooms are kept.
            agenda.cancel(PeersTimer::Dial(node), peer.booking());
        }
        if peer.handle_record(&record.name, address) {
            agenda.book(PeersTimer::Dial(node), peer.dial_at(now), now);
        }
        cx.event(Event::NodeUp { node });
    }

    /// Handles that the registry does not name a node any more. A node without a link that works is
    /// forgotten. False if the node was not known.
    pub(in crate::node) fn handle_unnamed(&mut self, cx: &mut Cx<'_>, node: NodeId) -> bool {
        let Some(peer) = self.nodes.get(&node) else { return false };
        let is_linked = self.is_proven(peer);
        cx.event(Event::NodeDown { node, is_linked });
        if !is_linked {
            self.forget_node(cx, node);
            return true;
        }
        let Self { nodes, agenda, .. } = self;
        if let Some(peer) = nodes.get_mut(&node) {
            peer.lose_name(cx.now.instant);
            agenda.cancel(PeersTimer::Dial(node), peer.booking());
            agenda.book(
                PeersTimer::Dial(node),
                peer.booking(),
                cx.now.instant + cx.config.registrar.node_ttl,
            );
        }
        true
    }

    /// Ends the rooms that are followed at a node that has been without a name for long.
    pub(super) fn rooms_overdue(&mut self, cx: &Cx<'_>, node: NodeId) {
        if let Some(peer) = self.nodes.get_mut(&node) {
            peer.booking().clear();
            let rooms = ended(cx, peer);
            self.effects.push(PeersEffect::RoomsOver { node, rooms });
        }
    }

    /// Forgets a node that is dead, and ends the rooms that were followed there.
    pub(super) fn forget_node(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        let Some(mut peer) = self.nodes.remove(&node) else { return };
        self.agenda.cancel(PeersTimer::Dial(node), peer.booking());
        self.effects.push(PeersEffect::NodeGone { node, rooms: ended(cx, &peer) });
        if let Some(link) = peer.link() {
            self.drop_link(cx, link, LinkClosure::NodeGone);
        }
    }

    pub(super) fn peer(&mut self, now: Instant, node: NodeId) -> &mut Peer {
        self.nodes.entry(node).or_insert_with(|| Peer::new(now))
    }
}

/// The rooms that were followed at a node which is dead.
fn ended(cx: &Cx<'_>, peer: &Peer) -> Vec<Key> {
    let is_kept = cx.planted.is(Plant::DeadFollowed);
    peer.rooms().iter().copied().filter(|_| !is_kept).collect()
}
