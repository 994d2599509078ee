//! Links to other nodes: dialing, greeting, liveness, and what goes over them.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::{Event, LinkClosure, Node, Output, Timer};
use crate::base::agenda::Booking;
use crate::base::backoff::Spread;
use crate::base::id::{Address, LinkId, NodeId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Instant, LATE, Now, Wall};
use crate::hosting::RoomInput;
use crate::node::heartbeat::{Beat, Heartbeat};
use crate::node::link::{Caller, Link};
use crate::wire::{self, Frame, ToNode};

/// Another node, as long as the registry names it or rooms are followed there.
#[derive(Debug)]
pub(super) struct Peer {
    /// The link to it, once both have said `LinkHello`.
    pub(super) link: Option<Key>,
    /// Rooms that it is the primary of and this node follows.
    pub(super) rooms: BTreeSet<Key>,
    /// What its record in the registry calls it; empty as long as that was not read.
    pub(super) name: String,
    /// Where to dial; `None` if the other side dials, or it takes no links.
    address: Option<String>,
    /// When to dial, or, while a dial is under way, when to give it up.
    dial_at: Option<Instant>,
    booking: Booking,
    /// Dials in a row that failed.
    failures: u32,
    /// Since when no link has worked, unless one does.
    pub(super) unlinked: Instant,
}

impl Node {
    // Peers.

    /// What is known of another node.
    pub(super) fn peer(&mut self, now: Now, node: NodeId) -> &mut Peer {
        self.peers.entry(node).or_insert_with(|| Peer {
            link: None,
            rooms: BTreeSet::new(),
            name: String::new(),
            address: None,
            dial_at: None,
            booking: Booking::default(),
            failures: 0,
            unlinked: now.instant,
        })
    }

    /// The registry names another node. Of two, the one with the lower number dials.
    pub(super) fn node_up(&mut self, now: Now, node: NodeId, record: &v1::NodeRecord) {
        if node == self.id {
            return;
        }
        let dials = self.id < node && !record.link.is_empty();
        let address = record.link.clone();
        let peer = self.peer(now, node);
        peer.address = dials.then_some(address);
        peer.name.clone_from(&record.name);
        if peer.link.is_none() && peer.dial_at.is_none() && dials {
            self.book_dial(node, now.instant);
        }
        self.expect_clock(node, record);
        self.event(Event::NodeUp { node });
    }

    /// The registry does not name a node any more: it is dead, and the rooms that it led are
    /// gone with it.
    pub(super) fn node_down(&mut self, now: Now, node: NodeId) {
        self.clocks.remove(now.instant, node);
        // This node itself is none of its peers.
        let Some(mut peer) = self.peers.remove(&node) else { return };
        self.agenda.cancel(Timer::Peer(node), &mut peer.booking);
        for room in core::mem::take(&mut peer.rooms) {
            if self.planted.is(Plant::DeadFollowed) {
                continue;
            }
            self.late_room_input(now, room, RoomInput::PrimaryGone);
        }
        if let Some(link) = peer.link {
            self.drop_link(now, link, LinkClosure::NodeGone);
        }
        self.event(Event::NodeDown { node });
    }

    fn book_dial(&mut self, node: NodeId, at: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.dial_at = Some(at);
            self.agenda.book(Timer::Peer(node), &mut peer.booking, at);
        }
    }

    pub(super) fn peer_timeout(&mut self, now: Now, node: NodeId) {
        let timeout = self.config.links.handshake_timeout;
        let Some(peer) = self.peers.get_mut(&node) else {
            return self.bugs.found("a node that is not known is due to be dialed");
        };
        peer.booking.clear();
        let Some(at) = peer.dial_at.take() else { return };
        if at > now.instant {
            return self.book_dial(node, at);
        }
        let Some(address) = peer.address.clone().filter(|_| peer.link.is_none()) else { return };
        self.outputs.push_back(Output::Dial { node, address });
        // If nothing comes of it, again.
        self.book_dial(node, now.instant + timeout * 2);
    }

    pub(super) fn dial_failed(&mut self, now: Now, node: NodeId) {
        let backoff = Spread::new(self.config.links.backoff_min, self.config.links.backoff_max);
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.link.is_none()) else { return };
        if peer.address.is_none() {
            return;
        }
        peer.failures = peer.failures.saturating_add(1);
        let failures = peer.failures;
        self.agenda.cancel(Timer::Peer(node), &mut peer.booking);
        let wait = backoff.after(failures, &mut self.rng);
        self.book_dial(node, now.instant + wait);
    }

    // Links.

    pub(super) fn link_up(&mut self, now: Now, caller: Caller) -> Option<LinkId> {
        if let Caller::Stranger(address) = caller {
            self.make_place_for_stranger(now, address);
        }
        let link = Link::new(&self.config, caller, now.instant, &mut self.rng);
        let key = self.links.insert(link)?;
        if let Caller::Dialed(to) = caller {
            self.greet(now, key, to);
        }
        self.book_link(key);
        Some(LinkId::from_key(key))
    }

    /// Makes room for a stranger. Links that have not said which node they come from have a
    /// quarter of all places; when these are taken, the oldest link of the address with most
    /// of them goes. So an address that only connects keeps no node out.
    fn make_place_for_stranger(&mut self, now: Now, comes: Address) {
        let mut strangers: BTreeMap<Address, Vec<(Instant, Key)>> = BTreeMap::new();
        for key in self.links.keys() {
            if let Some(link) = self.links.get(key).filter(|link| link.peer.is_none())
                && let (Caller::Stranger(address), Some(until)) = (link.caller, link.greeting)
            {
                strangers.entry(address).or_default().push((until, key));
            }
        }
        if strangers.values().map(Vec::len).sum::<usize>() < (self.config.links.total / 4).max(1) {
            return;
        }
        let most =
            |(address, links): &(Address, Vec<_>)| (links.len() + usize::from(*address == comes), *address);
        let biggest = strangers.into_iter().max_by_key(most);
        if let Some((_, first)) = biggest.and_then(|(_, links)| links.into_iter().min()) {
            self.drop_link(now, first, LinkClosure::Displaced);
        }
    }

    fn greet(&mut self, now: Now, key: Key, to: NodeId) {
        let hello = v1::LinkHello { node: self.id.0, to: to.0 };
        self.tell(now, key, wire::encode(v1::Kind::LinkHello, &v1::Metadata::default(), &hello));
    }

    pub(super) fn take_link_frame(&mut self, now: Now, key: Key, bytes: Bytes) {
        // This side may have dropped it, and the driver has not heard so yet.
        let Some(link) = self.links.get_mut(key) else { return };
        link.heartbeat.handle_frame(&self.config.links.heartbeat);
        self.stats.link_frames_in += 1;
        let frame = Frame::decode(bytes.clone(), self.config.links.frame_bytes);
        let message = frame.and_then(|frame| Ok((ToNode::decode(&frame, bytes)?, frame.metadata()?)));
        match message {
            Ok((message, metadata)) => self.dispatch_link(now, key, message, metadata),
            Err(error) => self.drop_link(now, key, LinkClosure::Wire(error)),
        }
    }

    fn dispatch_link(&mut self, now: Now, key: Key, message: ToNode, metadata: v1::Metadata) {
        let Some(link) = self.links.get_mut(key) else {
            return self.bugs.found("a link vanished while it was read");
        };
        let (Some(from), true) = (link.peer, link.is_open()) else {
            let ToNode::Hello(hello) = message else {
                return self.drop_link(now, key, LinkClosure::NoHello);
            };
            return self.link_hello(now, key, &hello);
        };
        // The other side says nothing else before it has heard this side's LinkHello.
        link.proven = true;
        match message {
            ToNode::Hello(_) => self.drop_link(now, key, LinkClosure::SecondHello),
            ToNode::Ping(ping) => {
                let pong = v1::LinkPong { nonce: ping.nonce, wall_ms: self.clocks.wall().0 };
                self.tell(now, key, wire::encode(v1::Kind::Pong, &v1::Metadata::default(), &pong));
            }
            ToNode::Pong(pong) => {
                if let Some((_, sent)) = link.probe.take_if(|(nonce, _)| *nonce == pong.nonce) {
                    self.clocks.measure(now.instant, from, sent, Wall(pong.wall_ms));
                }
                link.heartbeat.handle_pong(now.instant, pong.nonce);
            }
            ToNode::Room(message) => self.take_room_message(now, key, from, message, metadata),
        }
    }

    /// The peer says who it is. It must be one that the registry names, and the right one.
    fn link_hello(&mut self, now: Now, key: Key, hello: &v1::LinkHello) {
        let from = NodeId(hello.node);
        let Some(link) = self.links.get_mut(key) else {
            return self.bugs.found("a link vanished while it was read");
        };
        let accepted = link.peer.is_none();
        let right = hello.to == self.id.0 && from != self.id && link.peer.is_none_or(|peer| peer == from);
        if !right {
            return self.drop_link(now, key, LinkClosure::WrongNode);
        }
        if self.registrar.node(from).is_none() {
            return self.drop_link(now, key, LinkClosure::NodeUnknown);
        }
        link.peer = Some(from);
        link.greeting = None;
        // To the one that has dialed it is the answer.
        link.proven = !accepted;
        link.heartbeat = Heartbeat::new(&self.config.links.heartbeat, now.instant, &mut self.rng);
        // The clock of the peer is to be measured at once.
        link.heartbeat.hurry(now.instant);
        if accepted {
            self.greet(now, key, from);
        }
        self.book_link(key);
        self.note_unlinked(now.instant, from);
        let peer = self.peer(now, from);
        let old = peer.link.replace(key);
        peer.failures = 0;
        peer.dial_at = None;
        if let Some(old) = old {
            self.drop_link(now, old, LinkClosure::Superseded);
        }
        self.event(Event::LinkUp { node: from });
        let rooms: Vec<Key> =
            self.peers.get(&from).map_or_else(Vec::new, |peer| peer.rooms.iter().copied().collect());
        for room in rooms {
            self.late_room_input(now, room, RoomInput::Linked { link: key });
        }
    }

    /// Ends a link from this side.
    pub(super) fn drop_link(&mut self, now: Now, key: Key, why: LinkClosure) {
        if self.links.get(key).is_some() {
            self.outputs.push_back(Output::CloseLink(LinkId::from_key(key), why));
            self.forget_link(now, key);
        }
    }

    /// A link is gone; what was read over it starts afresh on the next.
    pub(super) fn forget_link(&mut self, now: Now, key: Key) {
        if let Some(node) = self.links.get(key).and_then(|link| link.peer)
            && self.peers.get(&node).is_some_and(|peer| peer.link == Some(key))
        {
            self.note_unlinked(now.instant, node);
        }
        // The driver may tell of a link that this side has dropped.
        let Some(mut link) = self.links.remove(key) else { return };
        self.agenda.cancel(Timer::Link(key), &mut link.booking);
        let Some(node) = link.peer else { return };
        let followed = self.peers.get(&node).filter(|peer| peer.link == Some(key)).map(|peer| &peer.rooms);
        let rooms: BTreeSet<Key> = followed.into_iter().flatten().copied().chain(link.rooms()).collect();
        for room in rooms {
            // A room that was closed with its node stays among those that the link reads.
            self.late_room_input(now, room, RoomInput::Unlinked { link: key, node });
        }
        // A link may go because its node is dead.
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.link == Some(key) {
            peer.link = None;
            self.event(Event::LinkDown { node });
        }
        self.dial_failed(now, node);
    }

    pub(super) fn link_timeout(&mut self, now: Now, key: Key) {
        let Some(link) = self.links.get_mut(key) else {
            return self.bugs.found("a link that is not in the table is due");
        };
        link.booking.clear();
        if let Some(until) = link.greeting.filter(|until| *until <= now.instant)
            && now.instant.since(until) > LATE
            && !core::mem::replace(&mut link.excused, true)
        {
            link.greeting = Some(now.instant + self.config.links.handshake_timeout);
        }
        if link.greeting.is_some_and(|until| until <= now.instant) {
            return self.drop_link(now, key, LinkClosure::HandshakeTimeout);
        }
        match link.heartbeat.handle_timeout(&self.config.links.heartbeat, now.instant, &mut self.rng) {
            Beat::Early => {}
            Beat::Ping { nonce, .. } if link.is_open() => {
                link.probe.get_or_insert((nonce, now.instant));
                let ping = v1::Ping { nonce, rtt_us: 0 };
                self.tell(now, key, wire::encode(v1::Kind::Ping, &v1::Metadata::default(), &ping));
            }
            Beat::Ping { .. } => {}
            Beat::Dead => return self.drop_link(now, key, LinkClosure::HeartbeatTimeout),
        }
        self.book_link(key);
    }

    fn book_link(&mut self, key: Key) {
        if let Some(link) = self.links.get_mut(key) {
            let at = link.deadline();
            self.agenda.book(Timer::Link(key), &mut link.booking, at);
        }
    }

    /// Queues a frame for a link. One whose peer does not read is dropped.
    pub(super) fn tell(&mut self, now: Now, key: Key, frame: Bytes) {
        // It goes when its peer does not read, also between two frames that are told at once.
        let Some(link) = self.links.get_mut(key) else { return };
        if link.queue(frame) {
            self.wake_link(key);
        } else {
            self.drop_link(now, key, LinkClosure::NotReading);
        }
    }

    pub(super) fn wake_link(&mut self, key: Key) {
        // Frames queued before the wake may have been too much for its peer.
        let Some(link) = self.links.get_mut(key) else { return };
        wake(link, key, &mut self.outputs);
    }

    pub(super) fn next_link_frame(&mut self, key: Key) -> Option<Bytes> {
        let link = self.links.get_mut(key)?;
        if let Some(frame) = link.next_queued() {
            self.stats.link_frames_out += 1;
            return Some(frame);
        }
        while let Some(link) = self.links.get_mut(key).filter(|link| link.is_open())
            && let Some(room) = link.next_ready()
        {
            if let Some(frame) = self.next_of_room(key, room) {
                self.links.get_mut(key)?.mark(room);
                self.stats.link_frames_out += 1;
                return Some(frame);
            }
        }
        self.links.get_mut(key)?.woken = false;
        None
    }
}

/// Tells the driver that there is something to transmit over a link, unless it knows.
pub(super) fn wake(link: &mut Link, key: Key, outputs: &mut VecDeque<Output>) {
    if !core::mem::replace(&mut link.woken, true) {
        outputs.push_back(Output::WakeLink(LinkId::from_key(key)));
    }
}

impl LinkId {
    pub(super) const fn from_key(key: Key) -> Self {
        Self { slot: key.slot, generation: key.generation }
    }

    pub(super) const fn key(self) -> Key {
        Key { slot: self.slot, generation: self.generation }
    }
}
