//! Frames of links, in and out.

use alloc::collections::VecDeque;

use bytes::Bytes;
use skirmish_proto::v1;

use super::link::Link;
use super::{LinkClosure, Peers, PeersEffect};
use crate::base::id::{LinkId, NodeId};
use crate::base::slab::Key;
use crate::base::time::Wall;
use crate::node::Output;
use crate::node::cx::Cx;
use crate::wire::{self, Frame, RoomMessage, ToNode};

/// Message of another node about a room.
#[derive(Debug)]
pub(in crate::node) struct RoomFrame {
    /// The node at the other end of the link.
    pub(in crate::node) from: NodeId,
    pub(in crate::node) message: RoomMessage,
    pub(in crate::node) metadata: v1::Metadata,
}

impl Peers {
    // In.

    /// Takes one whole frame. Returns what concerns a room. `wall` is the wall clock of this
    /// node as it is told to others; `is_named` returns true for nodes that the registry names.
    pub(in crate::node) fn handle_frame(
        &mut self,
        cx: &mut Cx<'_>,
        link: Key,
        bytes: Bytes,
        wall: Wall,
        is_named: impl Fn(NodeId) -> bool,
    ) -> Option<RoomFrame> {
        // This side may have dropped the link, and the driver has not heard so yet.
        self.links.get_mut(link)?.handle_frame(&cx.config.links);
        self.stats.frames_in += 1;
        let frame = Frame::decode(bytes.clone(), cx.config.links.frame_bytes);
        let message = frame.and_then(|frame| Ok((ToNode::decode(&frame, bytes)?, frame.metadata()?)));
        match message {
            Ok((message, metadata)) => self.dispatch(cx, link, message, metadata, wall, is_named),
            Err(error) => {
                self.drop_link(cx, link, LinkClosure::Wire(error));
                None
            }
        }
    }

    fn dispatch(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        message: ToNode,
        metadata: v1::Metadata,
        wall: Wall,
        is_named: impl Fn(NodeId) -> bool,
    ) -> Option<RoomFrame> {
        let Some(link) = self.links.get_mut(key) else {
            cx.bugs.found("a link vanished while it was read");
            return None;
        };
        let (Some(from), true) = (link.node(), link.is_open()) else {
            match message {
                ToNode::Hello(hello) => self.handle_hello(cx, key, &hello, is_named),
                _ => self.drop_link(cx, key, LinkClosure::NoHello),
            }
            return None;
        };
        link.prove();
        match message {
            ToNode::Hello(_) => {
                self.drop_link(cx, key, LinkClosure::SecondHello);
                None
            }
            ToNode::Ping(ping) => {
                let pong = v1::LinkPong { nonce: ping.nonce, wall_ms: wall.0 };
                self.tell(cx, key, wire::encode(v1::Kind::Pong, &v1::Metadata::default(), &pong));
                None
            }
            ToNode::Pong(pong) => {
                if let Some(sent) = link.handle_pong(cx.now.instant, pong.nonce) {
                    let wall = Wall(pong.wall_ms);
                    self.effects.push(PeersEffect::ClockRead { node: from, sent, wall });
                }
                None
            }
            ToNode::Room(message) => Some(RoomFrame { from, message, metadata }),
        }
    }

    // Out.

    /// Queues a frame for a link. A link whose peer does not read is dropped.
    pub(in crate::node) fn tell(&mut self, cx: &mut Cx<'_>, key: Key, frame: Bytes) {
        // The link goes when its peer does not read, also between two frames of one input.
        let Some(link) = self.links.get_mut(key) else { return };
        if link.queue(frame) {
            self.wake(cx.out, key);
        } else {
            self.stats.overflows += 1;
            self.drop_link(cx, key, LinkClosure::NotReading);
        }
    }

    /// Has the driver ask for the frames of a link, unless the driver knows.
    pub(in crate::node) fn wake(&mut self, out: &mut VecDeque<Output>, key: Key) {
        // Frames queued before the wake may have been too much for its peer.
        if self.links.get_mut(key).is_some_and(Link::wake) {
            out.push_back(Output::WakeLink(LinkId::from_key(key)));
        }
    }

    /// Takes the oldest frame that was queued for a link.
    pub(in crate::node) fn next_queued(&mut self, key: Key) -> Option<Bytes> {
        // The driver may ask for a link that this side has dropped.
        let frame = self.links.get_mut(key)?.next_queued()?;
        self.stats.frames_out += 1;
        Some(frame)
    }

    /// Takes the next room that may have something for the peer of a link. A room that had is to
    /// be noted with [`Self::handed_out`].
    pub(in crate::node) fn next_ready(&mut self, key: Key) -> Option<Key> {
        // The link may be gone, as above.
        self.links.get_mut(key)?.next_ready()
    }

    /// Notes that a frame of a room was handed out to a link, and that there may be another.
    pub(in crate::node) fn handed_out(&mut self, key: Key, room: Key) {
        if let Some(link) = self.links.get_mut(key) {
            link.mark(room);
        }
        self.stats.frames_out += 1;
    }

    /// Notes that the driver was told that there is no frame for a link.
    pub(in crate::node) fn sleep(&mut self, key: Key) {
        // The link may be gone, as above.
        if let Some(link) = self.links.get_mut(key) {
            link.sleep();
        }
    }
}
