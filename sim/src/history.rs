//! Events of a run: a running hash of all of them and, on demand, the text and the picture.

use std::fmt;
use std::hash::Hasher as _;

use xxhash_rust::xxh3::Xxh3;

/// Origin of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// The scenario and the network.
    World,
    /// The registry, if it is a process of its own.
    Registry,
    /// A node, by number.
    Node(usize),
    /// A client, by number.
    Client(usize),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::World => f.write_str("world"),
            Self::Registry => f.write_str("registry"),
            Self::Node(number) => write!(f, "node {number}"),
            Self::Client(number) => write!(f, "client {number}"),
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time, in microseconds of the world's time.
    pub at: u64,
    /// Origin of the event.
    pub lane: Actor,
    /// Description of the event.
    pub text: String,
}

/// A frame that passed from one process to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramePassage {
    /// Sender.
    pub from: Actor,
    /// Receiver.
    pub to: Actor,
    /// Time of the sending.
    pub sent: u64,
    /// Time of the arrival.
    pub arrived: u64,
    /// Description of the frame.
    pub label: String,
}

/// Duration of a fault of a link or a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Lane in which the fault is drawn.
    pub lane: Actor,
    /// Start of the fault.
    pub from: u64,
    /// End of the fault.
    pub to: u64,
    /// Name of the fault.
    pub label: &'static str,
}

/// All events, in order.
#[derive(Debug, Default)]
pub struct History {
    hasher: Hash,
    /// True if texts and pictures are kept.
    pub traced: bool,
    /// Events, if traced.
    pub records: Vec<Record>,
    /// Frames that arrived, if traced.
    pub passages: Vec<FramePassage>,
    /// Partitions, stalls, pauses and the like, if traced.
    pub troubles: Vec<Trouble>,
}

impl History {
    /// Creates an empty history.
    #[must_use]
    pub fn new(traced: bool) -> Self {
        Self { traced, ..Self::default() }
    }

    /// Records an event.
    pub fn record(&mut self, at: u64, lane: Actor, text: fmt::Arguments<'_>) {
        self.hasher.0.write_u64(at);
        // A hash accepts every text.
        let _ = fmt::Write::write_fmt(&mut self.hasher, format_args!("{lane} {text}\n"));
        if self.traced {
            self.records.push(Record { at, lane, text: text.to_string() });
        }
    }

    /// Adds the content of a frame that was sent or has arrived to the hash.
    pub fn frame(&mut self, bytes: &[u8]) {
        self.hasher.0.write(bytes);
    }

    /// Returns the hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.0.finish()
    }
}

/// Hash that text can be written to.
#[derive(Default)]
struct Hash(Xxh3);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.finish())
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
