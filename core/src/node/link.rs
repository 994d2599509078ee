//! A link between two nodes, from its connection to its end.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::base::agenda::Booking;
use crate::base::id::{Address, NodeId};
use crate::base::rng::Rng;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::config::Config;
use crate::node::heartbeat::Heartbeat;

/// Frames that may wait for a link beside what its cursors stand for. A link that is that
/// far behind is dropped, and both sides start afresh on the next.
pub(crate) const CONTROL_QUEUE: usize = 65_536;

/// Bytes of those frames from which on no other is queued.
pub(crate) const CONTROL_BYTES: usize = 16 * 1024 * 1024;

/// What members write is not passed on, and they are told to wait, while so many frames
/// or bytes wait for the link.
const RELAY_QUEUE: usize = 4_096;
const RELAY_BYTES: usize = 8 * 1024 * 1024;

/// How a link came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// This node has dialed that one.
    Dialed(NodeId),
    /// Somebody has connected from this address.
    Stranger(Address),
}

/// A link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) caller: Caller,
    /// Whom it leads to: known from the start to the one that dialed, and to the other
    /// from the `LinkHello`.
    pub(crate) peer: Option<NodeId>,
    /// Until when the peer must have said `LinkHello`; `None` when it has.
    pub(crate) greeting: Option<Instant>,
    /// Whether frames are known to pass both ways.
    pub(crate) proven: bool,
    /// Whether the greeting was given its time once more, since the node had stood still.
    pub(crate) excused: bool,
    pub(crate) heartbeat: Heartbeat,
    /// The ping whose answer measures the clock of the peer, and when it was sent. One at a time:
    /// it may be on its way for longer than it takes until the next ones are sent.
    pub(crate) probe: Option<(u64, Instant)>,
    pub(crate) booking: Booking,
    control: VecDeque<Bytes>,
    control_bytes: usize,
    /// Rooms that hear of the link's end, and whether each is among those that are ready.
    rooms: BTreeMap<Key, bool>,
    /// Rooms that may have something for the peer, each once.
    ready: VecDeque<Key>,
    /// Whether the driver knows that there is something to transmit.
    pub(crate) woken: bool,
}

impl Link {
    /// A link that was connected just now.
    pub(crate) fn new(config: &Config, caller: Caller, now: Instant, rng: &mut Rng) -> Self {
        let peer = match caller {
            Caller::Dialed(node) => Some(node),
            Caller::Stranger(_) => None,
        };
        Self {
            caller,
            peer,
            greeting: Some(now + config.links.handshake_timeout),
            proven: false,
            excused: false,
            heartbeat: Heartbeat::new(&config.links.heartbeat, now, rng),
            probe: None,
            booking: Booking::default(),
            control: VecDeque::new(),
            control_bytes: 0,
            rooms: BTreeMap::new(),
            ready: VecDeque::new(),
            woken: false,
        }
    }

    /// Whether both have said `LinkHello`.
    pub(crate) const fn is_open(&self) -> bool {
        self.greeting.is_none()
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Instant {
        let due = self.heartbeat.due();
        self.greeting.map_or(due, |until| until.min(due))
    }

    /// Whether what members write may be passed on.
    pub(crate) fn takes_more(&self) -> bool {
        self.control.len() < RELAY_QUEUE && self.control_bytes < RELAY_BYTES
    }

    /// Queues a frame. False if the peer is too far behind.
    pub(crate) fn queue(&mut self, frame: Bytes) -> bool {
        let fits = self.control.len() < CONTROL_QUEUE && self.control_bytes < CONTROL_BYTES;
        if fits {
            self.control_bytes += frame.len();
            self.control.push_back(frame);
        }
        fits
    }

    /// The next frame that was queued.
    pub(crate) fn next_queued(&mut self) -> Option<Bytes> {
        let frame = self.control.pop_front()?;
        self.control_bytes -= frame.len();
        Some(frame)
    }

    /// The rooms that hear of the link's end.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = Key> + '_ {
        self.rooms.keys().copied()
    }

    /// Begins to read a room for the peer.
    pub(crate) fn read(&mut self, room: Key) {
        self.rooms.entry(room).or_insert(false);
        self.mark(room);
    }

    /// Ends the reading of a room.
    pub(crate) fn forget(&mut self, room: Key) {
        if self.rooms.remove(&room) == Some(true) {
            self.ready.retain(|ready| *ready != room);
        }
    }

    /// Marks a room that may have something new. Returns false if the room is not read for the peer.
    pub(crate) fn mark(&mut self, room: Key) -> bool {
        let Some(is_ready) = self.rooms.get_mut(&room) else { return false };
        if !core::mem::replace(is_ready, true) {
            self.ready.push_back(room);
        }
        true
    }

    /// The next room to read for the peer. It is to be [marked](Self::mark) again unless it has
    /// nothing.
    pub(crate) fn next_ready(&mut self) -> Option<Key> {
        let room = self.ready.pop_front()?;
        if let Some(is_ready) = self.rooms.get_mut(&room) {
            *is_ready = false;
        }
        Some(room)
    }

    /// Checks the bounds of the queue, if no frame is larger than `largest`.
    pub(crate) fn audit(&self, largest: usize) -> Result<(), &'static str> {
        let bytes: usize = self.control.iter().map(Bytes::len).sum();
        if self.control.len() > CONTROL_QUEUE || bytes > CONTROL_BYTES + largest {
            return Err("queue of a link");
        }
        if bytes != self.control_bytes { Err("bytes in the queue of a link") } else { Ok(()) }
    }
}
