//! Input before time: a node that gives a peer up has read everything that had arrived from that
//! peer. Only while the node is paused can input wait there that no fault holds back.

use skirmish_core::id::{ConnId, LinkId, Name};
use skirmish_core::node::LinkClosure;
use skirmish_proto::v1;

use super::World;
use crate::network::Way;
use crate::oracle::Verdict;
use crate::oracle::l1_liveness::heard_first;

impl World<'_> {
    /// Checks the close of a connection: a close for silence is right only if no input of the
    /// connection waits.
    pub(super) fn check_heard(&mut self, node: usize, name: ConnId, reason: v1::Reason) -> Verdict {
        if !matches!(reason, v1::Reason::HandshakeTimeout | v1::Reason::HeartbeatTimeout) {
            return Ok(());
        }
        self.coverage.hit("given up for silence");
        let Some(conn) = self.nodes[node].ids.get(&name).and_then(|id| self.conns.get(id)) else {
            return Ok(());
        };
        let held = conn.up.scheduled
            || conn.vanished.is_some()
            || self.client_paths[conn.client][node].is_cut(Way::Up)
            || self.nodes[node].resumed != self.at;
        let due = conn.up.due().map(|due| due.max(conn.held_until)).filter(|due| !held && *due < self.at);
        heard_first(node, conn.client, &format!("{reason:?}"), due.map(|due| self.at - due))
    }

    /// Checks the close of a link: a close for silence is right only if no input of the link waits.
    pub(super) fn check_link_heard(&mut self, node: usize, link: LinkId, why: LinkClosure) -> Verdict {
        if !matches!(why, LinkClosure::HandshakeTimeout | LinkClosure::HeartbeatTimeout) {
            return Ok(());
        }
        let Some((node_link, end)) = self.nodes[node].node_links.get(&link).copied() else { return Ok(()) };
        let Some((from, due)) = self.node_links.get(&node_link).and_then(|node_link| {
            let from = 1 - end;
            let held =
                node_link.vanished || node_link.pipes[from].scheduled || self.nodes[node].resumed != self.at;
            let due = node_link.pipes[from].due().filter(|due| !held && *due < self.at);
            Some((node_link.ends[from].node, due?))
        }) else {
            return Ok(());
        };
        if self.is_node_path_cut(from, node) {
            return Ok(());
        }
        heard_first(node, from, &why.to_string(), Some(self.at - due))
    }

    /// Checks the end of a session whose player did not come back. A player that connected during a
    /// pause of the node has a handshake's time to resume the session.
    pub(super) fn check_door(&mut self, node: usize, player: &Name) -> Verdict {
        let process = &self.nodes[node];
        let Some(machine) = process.machine.as_ref() else { return Ok(()) };
        let patience = machine.config().connections.handshake_timeout;
        let until = process.clock.world(process.clock.now(process.resumed).instant + patience);
        if self.at >= until {
            return Ok(());
        }
        let waits = self.conns.values().find_map(|conn| {
            let greets = conn.to == node && conn.node.is_some() && conn.epoch == 0 && !conn.closing;
            let arrived = conn.waited.filter(|_| greets && conn.client_open && conn.vanished.is_none())?;
            (self.clients[conn.client].player == *player).then_some((conn.client, arrived))
        });
        let Some((client, arrived)) = waits else { return Ok(()) };
        heard_first(node, client, "its session", Some(self.at - arrived))
    }
}
