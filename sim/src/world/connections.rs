//! A node's ends of its clients' connections.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use skirmish_core::id::{Address, ConnId, Name};
use skirmish_core::node::{Identity, Node, Trace};

use super::{World, WorldEvent};
use crate::history::Actor;
use crate::network::{PipeItem, Way};
use crate::oracle::{Observation, Verdict};

impl World<'_> {
    /// Makes this connection the one of the player's session, and fences the session's earlier
    /// connection.
    pub(super) fn hold(&mut self, node: usize, conn: ConnId, player: Name, epoch: u64) {
        let process = &mut self.nodes[node];
        let Some(&id) = process.ids.get(&conn) else { return };
        if let Some(before) = process.holders.insert(player.clone(), conn)
            && before != conn
            && process.ids.contains_key(&before)
        {
            process.fenced.push(before);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.epoch = epoch;
        }
        let newest = self.newest.entry(player).or_default();
        if epoch >= newest.0 {
            let before = std::mem::replace(newest, (epoch, id)).1;
            if before != id {
                self.release_behind(before);
            }
        } else if epoch < newest.0 {
            self.release_behind(id);
        }
    }

    /// Lets the data arrive that was held back until the take-over of its connection.
    fn release_behind(&mut self, before: u64) {
        let Some(conn) = self.conns.get_mut(&before).filter(|conn| conn.released_by_takeover) else { return };
        conn.held_until = self.at;
        // The arrival that was scheduled for later finds the data of that time, or nothing.
        conn.up.scheduled = false;
        self.schedule_arrival(before, Way::Up, self.at);
    }

    /// Asks the node for frames as long as the connection accepts them.
    pub(super) fn pump_node(&mut self, id: u64, closed: &mut VecDeque<ConnId>) {
        let Some(node) = self.conns.get(&id).map(|conn| conn.to) else { return };
        let now = self.nodes[node].clock.now(self.at);
        loop {
            let Some(conn) = self.conns.get(&id) else { return };
            let Some(name) = conn.node.filter(|_| conn.woken) else { return };
            if !conn.down.is_writable() {
                self.coverage.hit("back-pressure at node");
                return;
            }
            let (closing, fin_sent) = (conn.closing, conn.fin_sent);
            let waits = self.scenario.shape.close_waits > 0 && conn.client_open;
            match self.nodes[node].machine.as_mut().and_then(|machine| machine.poll_transmit(now, name)) {
                Some(frame) => {
                    self.note_joined_frame(id, &frame);
                    self.send(id, Way::Down, PipeItem::Frame(frame));
                }
                None => {
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.woken = false;
                        conn.fin_sent = closing;
                    }
                    if closing && !fin_sent {
                        self.send(id, Way::Down, PipeItem::Fin);
                        if !waits {
                            self.detach(node, name);
                            closed.push_back(name);
                        }
                    }
                    return;
                }
            }
        }
    }

    /// Continues to send, since a pipe to a client has room again.
    pub(super) fn node_can_write(&mut self, id: u64) -> Verdict {
        let Some(node) = self.conns.get(&id).filter(|conn| conn.woken).map(|conn| conn.to) else {
            return Ok(());
        };
        if self.nodes[node].is_paused() {
            return Ok(());
        }
        let mut closed = VecDeque::new();
        self.pump_node(id, &mut closed);
        self.settle_node(node)?;
        for conn in closed {
            self.node_input(node, |machine, now| machine.handle_closed(now, conn))?;
        }
        Ok(())
    }

    /// Removes the node's end of the connection.
    pub(super) fn detach(&mut self, node: usize, conn: ConnId) -> Option<u64> {
        let process = &mut self.nodes[node];
        let id = process.ids.remove(&conn)?;
        process.fenced.retain(|fenced| *fenced != conn);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.node = None;
            conn.woken = false;
        }
        Some(id)
    }

    pub(super) fn arrive_at_node(&mut self, id: u64, item: PipeItem) -> Verdict {
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let (client, node, name) = (conn.client, conn.to, conn.node);
        if self.nodes[node].machine.is_none() && self.nodes[node].silent {
            return Ok(());
        }
        match (item, name) {
            (PipeItem::Open, None) => self.accept(id, client, node),
            (PipeItem::Frame(frame), Some(conn)) => self.node_frame(id, conn, frame),
            (PipeItem::Fin | PipeItem::Reset, Some(conn)) => {
                self.detach(node, conn);
                self.node_input(node, |machine, now| machine.handle_closed(now, conn))?;
                Ok(())
            }
            // The node's end is gone, and the node's host says so.
            (PipeItem::Frame(_), None) => {
                self.send(id, Way::Down, PipeItem::Reset);
                Ok(())
            }
            (PipeItem::Open, Some(_)) | (PipeItem::Fin | PipeItem::Reset, None) => Ok(()),
        }
    }

    fn accept(&mut self, id: u64, client: usize, node: usize) -> Verdict {
        let process = &mut self.nodes[node];
        let now = process.clock.now(self.at);
        let accepted = process.machine.as_mut().map(|machine| machine.handle_accept(now, address(client)));
        match accepted {
            Some(Ok(name)) => {
                process.ids.insert(name, id);
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.node = Some(name);
                }
                let upgrade = self.rng.range(0..=self.scenario.shape.upgrade_us);
                self.schedule(self.at + upgrade, WorldEvent::Upgrade(id));
                self.settle_node(node)
            }
            Some(Err(refusal)) => {
                self.coverage.hit("connection refused");
                let lane = Actor::Node(node);
                self.history.record(self.at, lane, format_args!("refuses {id}: {refusal:?}"));
                self.send(id, Way::Down, PipeItem::Reset);
                self.settle_node(node)
            }
            None => {
                self.send(id, Way::Down, PipeItem::Reset);
                Ok(())
            }
        }
    }

    /// Ends the upgrade of a connection whose token was checked.
    pub(super) fn upgrade(&mut self, id: u64) -> Verdict {
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let node = conn.to;
        if self.nodes[node].is_paused() {
            self.nodes[node].deferred.push(WorldEvent::Upgrade(id));
            return Ok(());
        }
        let Some(name) = conn.node.filter(|_| !conn.closing) else { return Ok(()) };
        let player = self.clients[conn.client].player.clone();
        self.send(id, Way::Down, PipeItem::Open);
        let token = Bytes::copy_from_slice(player.as_str().as_bytes());
        let identity = Identity { player, token, trace: Trace::default() };
        self.node_input(node, |machine, now| machine.handle_upgraded(now, name, identity))?;
        Ok(())
    }

    fn node_frame(&mut self, id: u64, conn: ConnId, frame: Bytes) -> Verdict {
        let Some((client, node)) = self.conns.get(&id).map(|conn| (conn.client, conn.to)) else {
            return Ok(());
        };
        if self.scenario.shape.queues > 0 && !self.nodes[node].fenced.contains(&conn) {
            self.note_search(client, &frame);
        }
        let rooms = self.rooms.open();
        let written = if self.nodes[node].fenced.contains(&conn) {
            self.coverage.hit("fenced input");
            self.node_input(node, |machine, now| {
                let before = written(machine, &rooms);
                machine.handle_frame(now, conn, frame);
                (before, written(machine, &rooms))
            })?
        } else {
            // Another node has the session now. In the rooms that the session has joined there,
            // nothing more may be written from here.
            let left: Vec<(Arc<str>, u64)> =
                self.rooms_left(id).into_iter().map(|(room, epoch)| (self.rooms.name(room), epoch)).collect();
            self.node_input(node, |machine, now| {
                let before = heads(machine, &left);
                machine.handle_frame(now, conn, frame);
                (before, heads(machine, &left))
            })?
        };
        match written {
            Some(written) => self.observe(Observation::Fenced { client, written }),
            None => Ok(()),
        }
    }
}

/// Returns a number that grows with every write of clients.
fn written(machine: &Node, rooms: &[(u64, Arc<str>)]) -> u64 {
    let changes = rooms.iter().filter_map(|(_, room)| machine.replica(room));
    machine.stats().entries + changes.map(skirmish_core::crdt::Replica::change).sum::<u64>()
}

/// Returns a number that grows with every entry that the node appends to these rooms in these
/// epochs.
fn heads(machine: &Node, rooms: &[(Arc<str>, u64)]) -> u64 {
    let led = |(name, epoch): &(Arc<str>, u64)| {
        machine.leads(name).filter(|led| led == epoch).and_then(|_| machine.head(name))
    };
    rooms.iter().filter_map(led).map(|head| head.seq).sum()
}

/// Returns the address of a client, or of a node among nodes: each has an IPv4 address of its own.
pub(super) fn address(number: usize) -> Address {
    let last = u8::try_from(number).unwrap_or(u8::MAX);
    Address::from(std::net::IpAddr::from([10, 0, 0, last]))
}
