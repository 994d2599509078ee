//! The network: ordered pipes that hold a bounded number of bytes, over links that can be cut, slow
//! or silent.
//!
//! A connection is like TCP: no frame is lost or reordered while the connection lives. A partition
//! holds frames back until the partition ends. Only a connection can die.

use std::collections::VecDeque;

use bytes::Bytes;
use skirmish_core::id::{ConnId, LinkId, NodeId};
use skirmish_core::rng::Rng;

/// Direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the end that dialed: from a client to a node, from a node to the registry, or from the
    /// dialing node to the other.
    Up,
    /// Back to the end that dialed.
    Down,
}

impl Way {
    /// Returns the opposite direction.
    #[must_use]
    pub const fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// Item in a pipe.
#[derive(Clone, Debug)]
pub enum PipeItem {
    /// Up: the request for a connection. Down: the end of its upgrade.
    Open,
    /// A frame.
    Frame(Bytes),
    /// The sender has closed; no item follows.
    Fin,
    /// The connection was reset.
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

/// An item under way.
#[derive(Clone, Debug)]
pub struct Flight {
    /// The item.
    pub item: PipeItem,
    /// Time of the sending.
    pub sent: u64,
    /// Time of the arrival, if no fault holds the item back.
    pub due: u64,
}

/// One direction of a connection: the sender's buffer, the network, the reader's buffer.
#[derive(Clone, Debug)]
pub struct Pipe {
    flights: VecDeque<Flight>,
    bytes: usize,
    capacity: usize,
    last_due: u64,
    /// True if an arrival is scheduled for the first flight.
    pub scheduled: bool,
}

impl Pipe {
    fn new(capacity: usize) -> Self {
        Self { flights: VecDeque::new(), bytes: 0, capacity, last_due: 0, scheduled: false }
    }

    /// Returns true if a writer may write. Like a socket, the pipe accepts a whole frame as long as
    /// its content is smaller than its capacity.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.bytes < self.capacity
    }

    /// Bytes in the pipe.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an item that arrives at `due`, or after the items before it.
    pub fn push(&mut self, item: PipeItem, sent: u64, due: u64) {
        self.last_due = self.last_due.max(due);
        self.bytes += item.len();
        self.flights.push_back(Flight { item, sent, due: self.last_due });
    }

    /// Returns the time of the first flight's arrival, if no fault holds the flight back.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        self.flights.front().map(|flight| flight.due)
    }

    /// Removes the first flight and returns it.
    pub fn pop(&mut self) -> Option<Flight> {
        let flight = self.flights.pop_front()?;
        self.bytes -= flight.item.len();
        Some(flight)
    }

    /// Drops everything behind the first `keep` flights.
    pub fn truncate(&mut self, keep: usize) {
        while self.flights.len() > keep {
            self.bytes -= self.flights.pop_back().map_or(0, |flight| flight.item.len());
        }
    }

    /// Number of flights in the pipe.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Returns true if the pipe is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}

/// A connection between a client and a node.
#[derive(Clone, Debug)]
pub struct Conn {
    /// Number of the client.
    pub client: usize,
    /// Number of the node.
    pub to: usize,
    /// Pipe to the node.
    pub up: Pipe,
    /// Pipe to the client.
    pub down: Pipe,
    /// True if the client still has its end.
    pub client_open: bool,
    /// True if the client was notified that the connection stands.
    pub connected: bool,
    /// The node's identifier of the connection, while the node has its end.
    pub node: Option<ConnId>,
    /// Time of the arrival at the node, if the connection arrived during a pause and had to wait.
    pub waited: Option<u64>,
    /// Epoch of the connection's current or last session.
    pub epoch: u64,
    /// True if the node closes the connection after its remaining frames.
    pub closing: bool,
    /// True if the node has closed its direction and waits for the client to do the same.
    pub fin_sent: bool,
    /// True if the node has reported frames to send.
    pub woken: bool,
    /// Time before which no data of the client arrives.
    pub held_until: u64,
    /// True if held data passes as soon as another connection has taken over.
    pub released_by_takeover: bool,
    /// Time since which nothing gets through, in silence.
    pub vanished: Option<u64>,
}

impl Conn {
    /// Creates a connection that the client has just dialed.
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

    /// Returns the pipe of a direction.
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

/// One end of a [`NodeLink`].
#[derive(Clone, Debug)]
pub struct NodeLinkEnd {
    /// The node at this end.
    pub node: usize,
    /// True if the process of the node has this end.
    pub open: bool,
    /// The machine's identifier of the link, if the machine knows of the link.
    pub link: Option<LinkId>,
    /// True if the machine has reported frames to send.
    pub woken: bool,
}

/// A link between two nodes, as a byte stream.
#[derive(Clone, Debug)]
pub struct NodeLink {
    /// End of the node that dialed, and the other end.
    pub ends: [NodeLinkEnd; 2],
    /// Node that the dial was meant for.
    pub dialed: NodeId,
    /// Pipes from each end.
    pub pipes: [Pipe; 2],
    /// True if nothing gets through any more, in silence.
    pub vanished: bool,
}

impl NodeLink {
    /// Creates a link that a node has just dialed.
    #[must_use]
    pub fn new(from: usize, to: usize, dialed: NodeId, bytes: u64) -> Self {
        let end = |node, open| NodeLinkEnd { node, open, link: None, woken: false };
        let pipe = || Pipe::new(capacity(bytes));
        Self { ends: [end(from, true), end(to, false)], dialed, pipes: [pipe(), pipe()], vanished: false }
    }

    /// Returns true if both machines know the link and the stream carries their frames.
    #[must_use]
    pub fn stands(&self) -> bool {
        self.ends.iter().all(|end| end.link.is_some()) && !self.vanished
    }
}

/// Path between a client and a node, two nodes, or a node and the registry, under all their
/// connections.
#[derive(Clone, Debug)]
pub struct NetworkPath {
    /// Time since which nothing gets through on the way up.
    pub up_cut: Option<u64>,
    /// Time since which nothing gets through on the way down.
    pub down_cut: Option<u64>,
    /// One-way latency, in microseconds.
    pub latency: u64,
    /// Largest random addition to the latency, in microseconds.
    pub jitter: u64,
    rng: Rng,
}

impl NetworkPath {
    /// Creates a path without faults.
    #[must_use]
    pub fn new(latency: u64, jitter: u64, rng: Rng) -> Self {
        Self { up_cut: None, down_cut: None, latency, jitter, rng }
    }

    /// Returns true if nothing passes in this direction.
    #[must_use]
    pub fn is_cut(&self, way: Way) -> bool {
        match way {
            Way::Up => self.up_cut.is_some(),
            Way::Down => self.down_cut.is_some(),
        }
    }

    /// Returns true if a cut holds data back in one direction or the other.
    #[must_use]
    pub const fn is_hurt(&self) -> bool {
        self.up_cut.is_some() || self.down_cut.is_some()
    }

    /// Cuts the path at a moment: 0 in both directions, 1 up, 2 down.
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

    /// Draws the time of the next flight on its way.
    pub fn travel(&mut self) -> u64 {
        self.latency + self.rng.range(0..=self.jitter)
    }

    /// Draws a number up to `most`.
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
