//! The network: ordered pipes that hold a bounded number of bytes, over links that
//! can be cut, slow or silent.
//!
//! A connection is like TCP: frames are neither lost nor reordered while it lives. A
//! partition holds them back; they go on when it ends. What dies is the connection.

use std::collections::VecDeque;

use bytes::Bytes;
use skirmish_core::id::ConnId;
use skirmish_core::rng::Rng;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the client to the node.
    Up,
    /// From the node to the client.
    Down,
}

/// What travels.
#[derive(Clone, Debug)]
pub enum Item {
    /// Up: the request for a connection. Down: the end of its upgrade.
    Open,
    /// A frame.
    Frame(Bytes),
    /// The sender has closed; nothing follows.
    Fin,
    /// The connection is no more.
    Reset,
}

impl Item {
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
    pub item: Item,
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
    pub fn push(&mut self, item: Item, sent: u64, due: u64) {
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

/// A connection between a client and the node.
#[derive(Clone, Debug)]
pub struct Conn {
    /// Whose.
    pub client: usize,
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
    /// Whether nothing gets through any more, in silence.
    pub vanished: bool,
}

impl Conn {
    /// A connection that the client has just asked for.
    #[must_use]
    pub fn new(client: usize, up: u64, down: u64) -> Self {
        let capacity = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).max(1);
        Self {
            client,
            up: Pipe::new(capacity(up)),
            down: Pipe::new(capacity(down)),
            client_open: true,
            connected: false,
            node: None,
            closing: false,
            fin_sent: false,
            held_until: 0,
            released_by_takeover: false,
            woken: false,
            vanished: false,
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

/// What lies between one client and the node; its connections go over it.
#[derive(Clone, Debug)]
pub struct Link {
    /// Nothing gets to the node, and since when.
    pub up_cut: Option<u64>,
    /// Nothing gets to the client, and since when.
    pub down_cut: Option<u64>,
    /// Time one way, in microseconds.
    pub latency: u64,
    /// Added at random, up to this.
    pub jitter: u64,
    rng: Rng,
}

impl Link {
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
        pipe.push(Item::Frame(Bytes::from_static(b"a")), 0, 50);
        pipe.push(Item::Frame(Bytes::from_static(b"b")), 1, 20);
        assert_eq!(pipe.pop().map(|flight| flight.due), Some(50));
        assert_eq!(pipe.pop().map(|flight| flight.due), Some(50));
        assert!(pipe.is_empty());
    }

    #[test]
    fn a_full_pipe_takes_no_more_until_something_arrives() {
        let mut pipe = Pipe::new(4);
        pipe.push(Item::Frame(Bytes::from_static(b"12345")), 0, 0);
        assert!(!pipe.is_writable());
        assert!(pipe.pop().is_some());
        assert!(pipe.is_writable());
        pipe.push(Item::Frame(Bytes::from_static(b"12345")), 0, 0);
        pipe.truncate(0);
        assert_eq!((pipe.bytes(), pipe.len()), (0, 0));
    }
}
