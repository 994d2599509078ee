//! Joins the other nodes, and the links to them, with the rest of the node.

use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::cx::Cx;
use super::peers::{Caller, LinkClosure, Peers, PeersEffect, PeersTimer, RoomFrame, Unreachable};
use super::{Event, Node};
use crate::base::id::{LinkId, NodeId};
use crate::base::slab::Key;
use crate::base::time::{Duration, Instant, Now};
use crate::hosting::RoomInput;

impl Node {
    // Getters.

    /// Nodes that the registry names and that no link has led to for longer than a time. A
    /// link counts once it has answered: what passes one way only is no link. A node that
    /// dies is not among them for longer than its record lives.
    #[must_use]
    pub fn unreachable(&self, now: Instant, longer_than: Duration) -> Vec<Unreachable> {
        let unlinked = self.peers.unlinked(now).filter(|(_, lasts)| *lasts > longer_than);
        let unreachable = |(node, lasts)| {
            let record = self.registrar.node(node)?;
            let (name, address) = (record.name.clone(), record.link.clone());
            Some(Unreachable { node, name, address, lasts, dials: self.id < node })
        };
        unlinked.filter_map(unreachable).collect()
    }

    /// Number of other nodes that the registry names.
    #[must_use]
    pub fn others(&self) -> usize {
        self.registrar.nodes().filter(|(node, _)| *node != self.id).count()
    }

    // Inputs.

    /// The registry names another node.
    pub(super) fn node_up(&mut self, now: Now, node: NodeId, record: &v1::NodeRecord) {
        if node == self.id {
            return;
        }
        let (peers, mut cx) = self.linking(now);
        peers.handle_record(&mut cx, node, record);
        self.expect_clock(node, record);
        // A node with an open link may have been without a name until now.
        self.offer_candidate(now);
    }

    /// The registry does not name a node any more.
    pub(super) fn node_down(&mut self, now: Now, node: NodeId) {
        let (peers, mut cx) = self.linking(now);
        // This node itself is none of its peers.
        if peers.handle_unnamed(&mut cx, node) {
            self.carry_out_peers(now);
        }
    }

    pub(super) fn dial_failed(&mut self, now: Now, node: NodeId) {
        let (peers, mut cx) = self.linking(now);
        peers.handle_dial_failed(&mut cx, node);
    }

    pub(super) fn link_up(&mut self, now: Now, caller: Caller) -> Option<LinkId> {
        let (peers, mut cx) = self.linking(now);
        let link = peers.handle_link(&mut cx, caller);
        self.carry_out_peers(now);
        link
    }

    pub(super) fn take_link_frame(&mut self, now: Now, key: Key, bytes: Bytes) {
        let Self { peers, clocks, registrar, config, rng, outputs, bugs, planted, .. } = self;
        let mut cx = Cx { now, config, rng, out: outputs, bugs, planted: *planted };
        let is_named = |node| registrar.node(node).is_some();
        let frame = peers.handle_frame(&mut cx, key, bytes, clocks.wall(), is_named);
        self.carry_out_peers(now);
        if let Some(RoomFrame { from, message, metadata }) = frame {
            self.take_room_message(now, key, from, message, metadata);
        }
    }

    /// Carries out a deadline of links and dials that has come.
    pub(super) fn peers_timeout(&mut self, now: Now, timer: PeersTimer) {
        let (peers, mut cx) = self.linking(now);
        peers.handle_timer(&mut cx, timer);
        self.carry_out_peers(now);
    }

    // Commands.

    /// Ends every link.
    pub(super) fn stop_links(&mut self, now: Now) {
        let (peers, mut cx) = self.linking(now);
        peers.stop(&mut cx);
        self.carry_out_peers(now);
    }

    /// Notes that a room is followed at a node.
    pub(super) fn follow(&mut self, now: Now, node: NodeId, room: Key) {
        let (peers, mut cx) = self.linking(now);
        peers.follow(&mut cx, node, room);
    }

    /// Ends a link from this side.
    pub(super) fn drop_link(&mut self, now: Now, key: Key, why: LinkClosure) {
        let (peers, mut cx) = self.linking(now);
        peers.drop_link(&mut cx, key, why);
        self.carry_out_peers(now);
    }

    /// Forgets a link that is gone.
    pub(super) fn forget_link(&mut self, now: Now, key: Key) {
        let (peers, mut cx) = self.linking(now);
        peers.forget_link(&mut cx, key);
        self.carry_out_peers(now);
    }

    /// Queues a frame for a link. A link whose peer does not read is dropped.
    pub(super) fn tell(&mut self, now: Now, key: Key, frame: Bytes) {
        let (peers, mut cx) = self.linking(now);
        peers.tell(&mut cx, key, frame);
        self.carry_out_peers(now);
    }

    // Polls.

    pub(super) fn next_link_frame(&mut self, key: Key) -> Option<Bytes> {
        if let Some(frame) = self.peers.next_queued(key) {
            return Some(frame);
        }
        while let Some(room) = self.peers.next_ready(key) {
            if let Some(frame) = self.next_of_room(key, room) {
                self.peers.handed_out(key, room);
                return Some(frame);
            }
        }
        self.peers.sleep(key);
        None
    }

    // Effects.

    /// The machine of links, and its surroundings. The effects of each input are to be
    /// [carried out](Self::carry_out_peers) at once.
    fn linking(&mut self, now: Now) -> (&mut Peers, Cx<'_>) {
        let Self { peers, config, rng, outputs, bugs, planted, .. } = self;
        (peers, Cx { now, config, rng, out: outputs, bugs, planted: *planted })
    }

    fn carry_out_peers(&mut self, now: Now) {
        for effect in self.peers.take_effects() {
            match effect {
                PeersEffect::Linked { node, link } => {
                    self.event(Event::LinkUp { node });
                    for room in self.peers.rooms_at(node) {
                        self.late_room_input(now, room, RoomInput::Linked { link, node });
                    }
                    self.offer_candidate(now);
                }
                PeersEffect::Unlinked { node, link, rooms, was_open } => {
                    for room in rooms {
                        // A room that was closed with its node stays among those that the link reads.
                        self.late_room_input(now, room, RoomInput::Unlinked { link, node });
                    }
                    if was_open {
                        self.event(Event::LinkDown { node });
                    }
                }
                PeersEffect::NodeGone { node, rooms } => {
                    self.clocks.remove(now.instant, node);
                    self.end_followed(now, node, rooms);
                }
                PeersEffect::RoomsOver { node, rooms } => self.end_followed(now, node, rooms),
                PeersEffect::ClockRead { node, sent, wall } => {
                    self.clocks.measure(now.instant, node, sent, wall);
                }
            }
        }
    }

    /// Ends rooms that were followed at a node.
    fn end_followed(&mut self, now: Now, node: NodeId, rooms: Vec<Key>) {
        for room in rooms {
            self.late_room_input(now, room, RoomInput::NodeGone { node });
        }
    }
}
