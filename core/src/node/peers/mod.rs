//! The other nodes of the cluster, and the links to them, as one machine.
//!
//! It dials the nodes that the registry names, greets them, answers and sends heartbeats, and
//! carries frames. Of two nodes, the one with the lower number dials. Messages about rooms are
//! handed to the node, and rooms are read when a link takes more ([`LinkRooms`]). What else
//! follows from the end of a link, or from a new one, is a [`PeersEffect`].
//!
//! [`LinkRooms`]: rooms::LinkRooms

mod closure;
mod dials;
mod frames;
mod link;
mod named;
mod peer;
mod queue;
mod reach;
mod rooms;
mod strangers;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::Output;
use super::cx::Cx;
use crate::base::agenda::Agenda;
use crate::base::id::{Address, LinkId, NodeId};
use crate::base::slab::{Key, Slab};
use crate::base::time::{Duration, Instant, Wall};
use crate::config::Config;
use crate::wire;

use link::{Link, LinkStep};
use peer::Peer;
use strangers::{Stranger, displaced};

pub use closure::LinkClosure;
pub use reach::Unreachable;

pub(super) use frames::RoomFrame;
pub(super) use link::Caller;

/// The machine: every other node that is known, and every link.
#[derive(Debug)]
pub(super) struct Peers {
    /// This node.
    id: NodeId,
    links: Slab<Link>,
    nodes: BTreeMap<NodeId, Peer>,
    agenda: Agenda<PeersTimer>,
    effects: Vec<PeersEffect>,
    stats: LinkStats,
    /// True if the node gives up everything that it owns: no link opens any more.
    is_stopped: bool,
}

/// Kinds of deadline; of two at one moment, that of the smaller kind is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PeersTimer {
    Link(Key),
    Dial(NodeId),
}

impl PeersTimer {
    /// The description of the deadline, for logs.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Link(_) => "a link's handshake or heartbeat",
            Self::Dial(_) => "another node is dialed",
        }
    }
}

/// Consequence of an input for other machines of the node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PeersEffect {
    /// A link to a node is open.
    Linked { node: NodeId, link: Key },
    /// A link to a node is gone. `rooms` were read over the link, or were followed there.
    Unlinked {
        node: NodeId,
        link: Key,
        rooms: Vec<Key>,
        /// True if the link was the open one to a node that is known yet: none is left.
        was_open: bool,
    },
    /// A node is dead, and is forgotten. `rooms` were followed there.
    NodeGone { node: NodeId, rooms: Vec<Key> },
    /// Rooms are over that were followed at a node which the registry does not name, though the
    /// link to the node works.
    RoomsOver { node: NodeId, rooms: Vec<Key> },
    /// A node that was pinged at `sent` has answered with its wall clock.
    ClockRead { node: NodeId, sent: Instant, wall: Wall },
}

/// Counters of links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkStats {
    /// Frames taken.
    pub(super) frames_in: u64,
    /// Frames handed out.
    pub(super) frames_out: u64,
    /// Links dropped since too much waited for them.
    pub(super) overflows: u64,
}

impl Peers {
    /// The other nodes of node `id`, of which none is known yet. At most `most` links are taken.
    pub(super) const fn new(id: NodeId, most: usize) -> Self {
        Self {
            id,
            links: Slab::new(most),
            nodes: BTreeMap::new(),
            agenda: Agenda::new(),
            effects: Vec::new(),
            stats: LinkStats { frames_in: 0, frames_out: 0, overflows: 0 },
            is_stopped: false,
        }
    }

    // Getters.

    /// Number of links that are up or on their way.
    pub(super) const fn links(&self) -> usize {
        self.links.len()
    }

    /// Number of other nodes that are known.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Counters of links.
    pub(super) const fn stats(&self) -> LinkStats {
        self.stats
    }

    /// The name of a node in the registry; `None` if the node is not known, and empty if its
    /// record was not read.
    pub(super) fn name(&self, node: NodeId) -> Option<&str> {
        Some(self.nodes.get(&node)?.name())
    }

    /// The open link to a node.
    pub(super) fn link_to(&self, node: NodeId) -> Option<Key> {
        self.nodes.get(&node)?.link()
    }

    /// The rooms that are read over links, and the links.
    pub(super) fn reads(&self) -> impl Iterator<Item = (Key, Key)> + '_ {
        let links = self.links.keys().filter_map(|key| Some((key, self.links.get(key)?)));
        links.flat_map(|(key, link)| link.rooms().iter().map(move |room| (key, room)))
    }

    /// The nodes with an open link, and the links.
    pub(super) fn linked(&self) -> impl Iterator<Item = (NodeId, Key)> {
        self.nodes.iter().filter_map(|(node, peer)| Some((*node, peer.link()?)))
    }

    /// The rooms that are followed at a node.
    pub(super) fn rooms_at(&self, node: NodeId) -> Vec<Key> {
        self.nodes.get(&node).map_or_else(Vec::new, |peer| peer.rooms().iter().copied().collect())
    }

    /// Returns true if a link is in the table.
    pub(super) fn is_up(&self, link: Key) -> bool {
        self.links.get(link).is_some()
    }

    /// Returns true if messages of members may be relayed over a link: it is in the table, and
    /// not too much waits for it.
    pub(super) fn takes_more(&self, link: Key) -> bool {
        self.links.get(link).is_some_and(Link::takes_more)
    }

    /// The nodes to which no link works both ways, each with the time for which none has.
    pub(super) fn unlinked(&self, now: Instant) -> impl Iterator<Item = (NodeId, Duration)> {
        let unlinked = self.nodes.iter().filter(|(_, peer)| !self.is_proven(peer));
        unlinked.map(move |(node, peer)| (*node, now.since(peer.unlinked())))
    }

    fn is_proven(&self, peer: &Peer) -> bool {
        let link = peer.link().and_then(|link| self.links.get(link));
        link.is_some_and(Link::is_proven)
    }

    // Links.

    /// Adds a link that was connected just now; `None` if there is no place for it. A stranger may
    /// take the place of another.
    pub(super) fn handle_link(&mut self, cx: &mut Cx<'_>, caller: Caller) -> Option<LinkId> {
        if let Caller::Stranger(address) = caller {
            self.make_place(cx, address);
        }
        let link = Link::new(&cx.config.links, caller, cx.now.instant, cx.rng, cx.planted);
        let key = self.links.insert(link)?;
        if let Caller::Dialed(to) = caller {
            if self.link_to(to).is_some() {
                // In haste there may be two dials under way.
                self.drop_link(cx, key, LinkClosure::Surplus);
                return Some(LinkId::from_key(key));
            }
            self.greet(cx, key, to);
        }
        self.book_link(key);
        Some(LinkId::from_key(key))
    }

    /// Makes place for a stranger from an address.
    fn make_place(&mut self, cx: &mut Cx<'_>, comes: Address) {
        let strangers = self.links.keys().filter_map(|key| {
            let (address, until) = self.links.get(key)?.stranger()?;
            Some(Stranger { address, until, link: key })
        });
        if let Some(displaced) = displaced(strangers, comes, cx.config.links.total) {
            self.drop_link(cx, displaced, LinkClosure::Displaced);
        }
    }

    fn greet(&mut self, cx: &mut Cx<'_>, link: Key, to: NodeId) {
        let hello = v1::LinkHello { node: self.id.0, to: to.0 };
        self.tell(cx, link, wire::encode(v1::Kind::LinkHello, &v1::Metadata::default(), &hello));
    }

    /// Takes the peer's `LinkHello`. The peer must be a node that the registry names, and the
    /// right one.
    fn handle_hello(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        hello: &v1::LinkHello,
        is_named: impl Fn(NodeId) -> bool,
    ) {
        let now = cx.now.instant;
        let Some(link) = self.links.get_mut(key) else {
            return cx.bugs.found("a link vanished while it was read");
        };
        let from = match link.check_hello(self.id, hello) {
            Ok(_) if self.is_stopped => return self.drop_link(cx, key, LinkClosure::Stopping),
            Ok(from) if is_named(from) => from,
            Ok(_) => return self.drop_link(cx, key, LinkClosure::NodeUnknown),
            Err(closure) => return self.drop_link(cx, key, closure),
        };
        if link.open(&cx.config.links, from, now, cx.rng) {
            self.greet(cx, key, from);
        }
        self.book_link(key);
        self.note_unlinked(now, from);
        if let Some(old) = self.peer(now, from).linked(key) {
            self.drop_link(cx, old, LinkClosure::Superseded);
        }
        self.effects.push(PeersEffect::Linked { node: from, link: key });
    }

    /// Ends a link from this side.
    pub(super) fn drop_link(&mut self, cx: &mut Cx<'_>, link: Key, why: LinkClosure) {
        if self.is_up(link) {
            cx.out.push_back(Output::CloseLink(LinkId::from_key(link), why));
            self.forget_link(cx, link);
        }
    }

    /// Ends every link, since this node gives up what it owns. Followers need not wait for it.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        self.is_stopped = true;
        for link in self.links.keys().collect::<Vec<_>>() {
            self.drop_link(cx, link, LinkClosure::Stopping);
        }
    }

    /// Forgets a link that is gone.
    pub(super) fn forget_link(&mut self, cx: &mut Cx<'_>, key: Key) {
        if let Some(node) = self.links.get(key).and_then(Link::node)
            && self.link_to(node) == Some(key)
        {
            self.note_unlinked(cx.now.instant, node);
        }
        // The driver may tell of a link that this side has dropped.
        let Some(mut link) = self.links.remove(key) else { return };
        self.agenda.cancel(PeersTimer::Link(key), link.booking());
        // Over a link from a stranger no room is read.
        let Some(node) = link.node() else { return };
        let mut rooms: BTreeSet<Key> = link.rooms().iter().collect();
        // The link may go because its node is dead.
        let peer = self.nodes.get_mut(&node);
        let was_open = peer.is_some_and(|peer| {
            let was_open = peer.lose(key, link.rtt());
            rooms.extend(peer.rooms().iter().filter(|_| was_open));
            if was_open && !rooms.is_empty() {
                let _is_first = peer.make_haste(cx.now.instant);
            }
            was_open
        });
        if was_open || !rooms.is_empty() {
            self.effects.push(PeersEffect::Unlinked {
                node,
                link: key,
                rooms: rooms.into_iter().collect(),
                was_open,
            });
        }
        if was_open && self.nodes.get(&node).is_some_and(|peer| !peer.is_named()) {
            return self.forget_node(cx, node);
        }
        self.handle_dial_failed(cx, node);
    }

    /// Notes that the link to a node, if there is one, is about to go.
    fn note_unlinked(&mut self, now: Instant, node: NodeId) {
        // The node may say LinkHello before its record was read.
        let worked = self.nodes.get(&node).is_some_and(|peer| self.is_proven(peer));
        if let Some(peer) = self.nodes.get_mut(&node).filter(|_| worked) {
            peer.set_unlinked(now);
        }
    }

    fn book_link(&mut self, key: Key) {
        // A frame that was queued for it may have been too much.
        if let Some(link) = self.links.get_mut(key) {
            let at = link.deadline();
            self.agenda.book(PeersTimer::Link(key), link.booking(), at);
        }
    }

    // Rooms that are read over links. A link may be gone when its rooms change.

    /// Begins to read a room over a link, and has the driver ask for its frames.
    pub(super) fn read(&mut self, out: &mut VecDeque<Output>, key: Key, room: Key) {
        if let Some(link) = self.links.get_mut(key) {
            link.read(room);
            self.wake(out, key);
        }
    }

    /// Ends the reading of a room over a link.
    pub(super) fn unread(&mut self, link: Key, room: Key) {
        if let Some(link) = self.links.get_mut(link) {
            link.unread(room);
        }
    }

    /// Marks a room that may have something new for a link, and has the driver ask for the frames
    /// of the link if the room is read over it.
    pub(super) fn mark(&mut self, out: &mut VecDeque<Output>, key: Key, room: Key) {
        if self.links.get_mut(key).is_some_and(|link| link.mark(room)) {
            self.wake(out, key);
        }
    }

    // Time.

    /// The earliest deadline.
    pub(super) fn next_timer(&self) -> Option<(Instant, PeersTimer)> {
        self.agenda.next()
    }

    /// Takes out the timer with the earliest deadline, if the deadline has come. The timer is to
    /// be [handled](Self::handle_timer) at once.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<PeersTimer> {
        self.agenda.take_due(now)
    }

    /// Carries out a deadline that has come.
    pub(super) fn handle_timer(&mut self, cx: &mut Cx<'_>, timer: PeersTimer) {
        match timer {
            PeersTimer::Link(key) => self.link_timeout(cx, key),
            PeersTimer::Dial(node) => self.dial_timeout(cx, node),
        }
    }

    fn link_timeout(&mut self, cx: &mut Cx<'_>, key: Key) {
        let Some(link) = self.links.get_mut(key) else {
            return cx.bugs.found("a link that is not in the table is due");
        };
        match link.handle_timeout(&cx.config.links, cx.now.instant, cx.rng) {
            LinkStep::Wait => {}
            LinkStep::Ping(nonce) => {
                let ping = v1::Ping { nonce, rtt_us: 0 };
                self.tell(cx, key, wire::encode(v1::Kind::Ping, &v1::Metadata::default(), &ping));
            }
            LinkStep::Close(why) => return self.drop_link(cx, key, why),
        }
        self.book_link(key);
    }

    // Effects.

    /// Takes the effects of the last input, in order. They are to be carried out before the next
    /// input.
    pub(super) fn take_effects(&mut self) -> Vec<PeersEffect> {
        core::mem::take(&mut self.effects)
    }

    /// Checks every bound of the machine, with `rooms` rooms on this node.
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub(super) fn audit(&self, config: &Config) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        check(self.links.len() <= config.links.total, "links")?;
        check(self.agenda.len() <= self.links.len() + self.nodes.len(), "deadlines of links and dials")?;
        check(self.effects.is_empty(), "effects of links")?;
        for link in self.links.keys().filter_map(|key| self.links.get(key)) {
            link.audit(&config.links)?;
        }
        let is_open = |link| self.links.get(link).is_some_and(Link::is_open);
        check(self.nodes.values().filter_map(Peer::link).all(is_open), "open link to a node")
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
