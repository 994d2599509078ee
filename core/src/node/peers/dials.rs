//! Dials of other nodes.
//!
//! A node that cannot be reached is dialed again after a back-off. Members wait for a node with which
//! a room is shared, so that node is dialed in haste for [`HASTE`](super::peer::HASTE).

use super::peer::DialStep;
use super::{Peers, PeersTimer};
use crate::base::backoff::Spread;
use crate::base::id::NodeId;
use crate::base::slab::Key;
use crate::node::Output;
use crate::node::cx::Cx;

impl Peers {
    /// Notes that a room is followed at a node. The node is known from then on. Without a link, it
    /// is dialed in haste, once after each link.
    pub(in crate::node) fn follow(&mut self, cx: &mut Cx<'_>, node: NodeId, room: Key) {
        let now = cx.now.instant;
        let peer = self.peer(now, node);
        peer.follow(room);
        // A dial in haste is for a path that is known.
        if peer.link().is_none() && peer.is_measured() && peer.make_haste(now) {
            self.handle_dial_failed(cx, node);
        }
    }

    /// Notes that a room is not followed at a node any more.
    pub(in crate::node) fn unfollow(&mut self, node: NodeId, room: Key) {
        // The room may end because its node is dead.
        if let Some(peer) = self.nodes.get_mut(&node) {
            peer.unfollow(room);
        }
    }

    /// Notes that a node could not be dialed, or that a link to it is gone: it is dialed again
    /// if this side dials and no link is open.
    pub(in crate::node) fn handle_dial_failed(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        if self.is_stopped {
            return;
        }
        let Self { nodes, agenda, .. } = self;
        // The node may be dead meanwhile.
        let Some(peer) = nodes.get_mut(&node) else { return };
        let spread = Spread::new(cx.config.links.backoff_min, cx.config.links.backoff_max);
        let back_off = |failures| spread.after(failures, cx.rng);
        let Some(at) = peer.handle_failure(cx.now.instant, back_off) else { return };
        agenda.cancel(PeersTimer::Dial(node), peer.booking());
        agenda.book(PeersTimer::Dial(node), peer.dial_at(at), at);
    }

    pub(super) fn dial_timeout(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        let Self { nodes, agenda, .. } = self;
        let now = cx.now.instant;
        let Some(peer) = nodes.get_mut(&node) else {
            return cx.bugs.found("a node that is not known is due to be dialed");
        };
        if !peer.is_named() {
            return self.rooms_overdue(cx, node);
        }
        let again = match peer.handle_timeout(now, cx.config.links.handshake_timeout) {
            DialStep::Dial { address, limit, again } => {
                cx.out.push_back(Output::Dial { node, address, limit });
                now + again
            }
            DialStep::Later(at) => at,
            DialStep::Nothing => return,
        };
        agenda.book(PeersTimer::Dial(node), peer.dial_at(again), again);
    }
}
