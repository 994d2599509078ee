//! What happened in a run: a running hash of all of it and, on demand, the text and
//! the picture.

use std::fmt;
use std::hash::Hasher as _;

use xxhash_rust::xxh3::Xxh3;

/// Whose doing something is.
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

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, in microseconds of the world's time.
    pub at: u64,
    /// Whose doing.
    pub lane: Actor,
    /// What.
    pub text: String,
}

/// A frame that got from one process to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramePassage {
    /// Who sent it.
    pub from: Actor,
    /// Who got it.
    pub to: Actor,
    /// When it was sent.
    pub sent: u64,
    /// When it arrived.
    pub arrived: u64,
    /// What it was.
    pub label: String,
}

/// A time during which something was wrong with a link or a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub lane: Actor,
    /// Since when.
    pub from: u64,
    /// Until when.
    pub to: u64,
    /// What.
    pub label: &'static str,
}

/// Everything that happened, in order.
#[derive(Debug, Default)]
pub struct History {
    hasher: Hash,
    /// Whether texts and pictures are kept.
    pub traced: bool,
    /// What happened, if traced.
    pub records: Vec<Record>,
    /// Frames that arrived, if traced.
    pub passages: Vec<FramePassage>,
    /// Partitions, stalls, pauses and the like, if traced.
    pub troubles: Vec<Trouble>,
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new(traced: bool) -> Self {
        Self { traced, ..Self::default() }
    }

    /// Something happened.
    pub fn record(&mut self, at: u64, lane: Actor, what: fmt::Arguments<'_>) {
        self.hasher.0.write_u64(at);
        // A hash takes every text.
        let _ = fmt::Write::write_fmt(&mut self.hasher, format_args!("{lane} {what}\n"));
        if self.traced {
            self.records.push(Record { at, lane, text: what.to_string() });
        }
    }

    /// A frame was sent or arrived: what is in it is part of the history.
    pub fn frame(&mut self, bytes: &[u8]) {
        self.hasher.0.write(bytes);
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.0.finish()
    }
}

/// A hash that text can be written to.
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
