//! The network: ordered pipes that hold a bounded number of bytes, over links that
//! can be cut, slow or silent.
//!
//! A connection is like TCP: frames are neither lost nor reordered while it lives. A
//! partition holds them back; they go on when it ends. What dies is the connection.

use std::collections::VecDeque;

use bytes::Bytes;
use skirmish_core::id::{ConnId, LinkId, NodeId};
use skirmish_core::rng::Rng;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From whoever asked for the connection: from a client to a node, from a node to the
    /// registry, from the node that dialed to the other.
    Up,
    /// Back to whoever asked for it.
    Down,
}

impl Way {
    /// The way back.
    #[must_use]
    pub const fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// What travels.
#[derive(Clone, Debug)]
pub enum PipeItem {
    /// Up: the request for a connection. Down: the end of its upgrade.
    Open,
    /// A frame.
    Frame(Bytes),
    /// The sender has closed; nothing follows.
    Fin,
    /// The connection is no more.
    Reset,
}

impl PipeItem {
    fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Open | Self::Fin | Self::Reset => 0,
        }
    }
}

/// Something under way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// What.
    pub item: PipeItem,
    /// When it was sent.
    pub sent: u64,
    /// When it arrives, if nothing holds it back.
    pub due: u64,
}

/// One direction of a connection: the sender's buffer, the wire, the reader's buffer.
#[derive(Clone, Debug)]
pub struct Pipe {
    flights: VecDeque<Flight>,
    bytes: usize,
    capacity: usize,
    last_due: u64,
    /// Whether an arrival is scheduled for the first flight.
    pub scheduled: bool,
}

impl Pipe {
    fn new(capacity: usize) -> Self {
        Self { flights: VecDeque::new(), bytes: 0, capacity, last_due: 0, scheduled: false }
    }

    /// Whether a writer may write: like a socket, it takes a whole frame while it holds
    /// less than its capacity.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.bytes < self.capacity
    }

    /// Bytes that are in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts something in, to arrive at `due` or behind what is in already.
    pub fn push(&mut self, item: PipeItem, sent: u64, due: u64) {
        self.last_due = self.last_due.max(due);
        self.bytes += item.len();
        self.flights.push_back(Flight { item, sent, due: self.last_due });
    }

    /// When the first flight arrives, if nothing holds it back.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.flights.front().map(|flight| flight.due)
    }

    /// Takes the first flight out.
    pub fn pop(&mut self) -> Option<Flight> {
        let flight = self.flights.pop_front()?;
        self.bytes -= flight.item.len();
        Some(flight)
    }

    /// Loses everything behind the first `keep` flights.
    pub fn truncate(&mut self, keep: usize) {
        while self.flights.len() > keep {
            self.bytes -= self.flights.pop_back().map_or(0, |flight| flight.item.len());
        }
    }

    /// Flights in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}

/// A connection between a client and a node.
#[derive(Clone, Debug)]
pub struct Conn {
    /// Whose.
    pub client: usize,
    /// To which node.
    pub to: usize,
    /// To the node.
    pub up: Pipe,
    /// To the client.
    pub down: Pipe,
    /// Whether the client still has its end.
    pub client_open: bool,
    /// Whether the client was told that the connection stands.
    pub connected: bool,
    /// What the node calls it, while the node has its end.
    pub node: Option<ConnId>,
    /// When it came to the node, if the node stood still then and let it wait at the door.
    pub waited: Option<u64>,
    /// The epoch of the session that it has, or had last.
    pub epoch: u64,
    /// Whether the node has asked to close it after what is left to send.
    pub closing: bool,
    /// Whether the node has closed its direction and waits for the client to do the same.
    pub fin_sent: bool,
    /// Whether the node said that it has something to send.
    pub woken: bool,
    /// Nothing that the client sent arrives before.
    pub held_until: u64,
    /// What is held goes on as soon as another connection has taken over.
    pub released_by_takeover: bool,
    /// Since when nothing gets through any more, in silence.
    pub vanished: Option<u64>,
}

impl Conn {
    /// A connection that the client has just asked for.
    #[must_use]
    pub fn new(client: usize, to: usize, up: u64, down: u64) -> Self {
        Self {
            client,
            to,
            up: Pipe::new(capacity(up)),
            down: Pipe::new(capacity(down)),
            client_open: true,
            connected: false,
            node: None,
            waited: None,
            epoch: 0,
            closing: false,
            fin_sent: false,
            held_until: 0,
            released_by_takeover: false,
            woken: false,
            vanished: None,
        }
    }

    /// One of its pipes.
    pub fn pipe(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

fn capacity(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
}

/// One end of a [`Wire`].
#[derive(Clone, Debug)]
pub struct WireEnd {
    /// The node at this end.
    pub node: usize,
    /// Whether its process has the end.
    pub open: bool,
    /// What its machine calls it, if it knows of it.
    pub link: Option<LinkId>,
    /// Whether its machine said that it has something to send.
    pub woken: bool,
}

/// A byte stream between two nodes.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The end of the node that dialed, and the other.
    pub ends: [WireEnd; 2],
    /// Whom it meant.
    pub dialed: NodeId,
    /// What each end has sent.
    pub pipes: [Pipe; 2],
    /// Whether nothing gets through any more, in silence.
    pub vanished: bool,
}

impl Wire {
    /// A stream that a node has just asked for.
    #[must_use]
    pub fn new(from: usize, to: usize, dialed: NodeId, bytes: u64) -> Self {
        let end = |node, open| WireEnd { node, open, link: None, woken: false };
        let pipe = || Pipe::new(capacity(bytes));
        Self { ends: [end(from, true), end(to, false)], dialed, pipes: [pipe(), pipe()], vanished: false }
    }

    /// Whether both machines know of it and it carries what they send.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.ends.iter().all(|end| end.link.is_some()) && !self.vanished
    }
}

/// What lies between a client and a node, two nodes, or a node and the registry; their
/// connections go over it.
#[derive(Clone, Debug)]
pub struct NetworkPath {
    /// Nothing gets through on the way up, and since when.
    pub up_cut: Option<u64>,
    /// Nothing gets through on the way down, and since when.
    pub down_cut: Option<u64>,
    /// Time one way, in microseconds.
    pub latency: u64,
    /// Added at random, up to this.
    pub jitter: u64,
    rng: Rng,
}

impl NetworkPath {
    /// A link in order.
    #[must_use]
    pub fn new(latency: u64, jitter: u64, rng: Rng) -> Self {
        Self { up_cut: None, down_cut: None, latency, jitter, rng }
    }

    /// Whether nothing passes this way.
    #[must_use]
    pub fn is_cut(&self, way: Way) -> bool {
        match way {
            Way::Up => self.up_cut.is_some(),
            Way::Down => self.down_cut.is_some(),
        }
    }

    /// Whether something is held back, one way or the other.
    #[must_use]
    pub const fn is_hurt(&self) -> bool {
        self.up_cut.is_some() || self.down_cut.is_some()
    }

    /// Cuts it at a moment: 0 both ways, 1 up, 2 down.
    pub fn cut(&mut self, way: i64, at: u64) {
        if way.rem_euclid(3) != 2 {
            self.up_cut.get_or_insert(at);
        }
        if way.rem_euclid(3) != 1 {
            self.down_cut.get_or_insert(at);
        }
    }

    /// Ends every cut.
    pub const fn heal(&mut self) {
        self.up_cut = None;
        self.down_cut = None;
    }

    /// How long the next flight takes.
    pub fn travel(&mut self) -> u64 {
        self.latency + self.rng.range(0..=self.jitter)
    }

    /// A random number up to `most`.
    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.rng.range(0..=most as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_keeps_order_whatever_each_flight_takes() {
        let mut pipe = Pipe::new(100);
        pipe.push(PipeItem::Frame(Bytes::from_static(b"a")), 0, 50);
        pipe.push(PipeItem::Frame(Bytes::from_static(b"b")), 1, 20);
        assert_eq!(pipe.pop().map(|flight| flight.due), Some(50));
        assert_eq!(pipe.pop().map(|flight| flight.due), Some(50));
        assert!(pipe.is_empty());
    }

    #[test]
    fn a_full_pipe_takes_no_more_until_something_arrives() {
        let mut pipe = Pipe::new(4);
        pipe.push(PipeItem::Frame(Bytes::from_static(b"12345")), 0, 0);
        assert!(!pipe.is_writable());
        assert!(pipe.pop().is_some());
        assert!(pipe.is_writable());
        pipe.push(PipeItem::Frame(Bytes::from_static(b"12345")), 0, 0);
        pipe.truncate(0);
        assert_eq!((pipe.bytes(), pipe.len()), (0, 0));
    }
}
