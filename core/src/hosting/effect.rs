//! Effects of a room on the rest of its node.

use alloc::collections::VecDeque;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::base::id::{Name, NodeId};
use crate::base::slab::Key;
use crate::wire::Trace;

/// A step of a room on the way of one of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// The room's primary has appended the message, or put it on the board of latest messages.
    Taken,
    /// A follower has sent the message of its member to the room's primary.
    Relayed,
    /// A follower has received the message from the room's primary.
    Followed,
}

/// An effect of a room, carried out by its node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RoomEffect {
    /// The registry is asked for the primary of the room.
    Claim,
    /// The registry forgets this node as the primary of the room.
    Release,
    /// The registry names this backup of the room, or none.
    Pair { backup: Option<NodeId> },
    /// The registry names this node in place of the primary of a term, whose backup this node is.
    /// `record` is the revision of the record; 0 if unknown.
    Swap { term: u32, primary: NodeId, record: u64 },
    /// The registry notes the number of players and the turn of the room.
    Record { players: u32, turn: u32, turn_ends_ms: u64 },
    /// The node has become the primary of the room in this epoch.
    Opened { epoch: u64 },
    /// The room has ended, of which the node was the primary in this epoch.
    Closed { epoch: u64 },
    /// The node, a backup, has become the primary in this term of the epoch.
    TookOver { epoch: u64, term: u32 },
    /// Another node has become the primary in this term of the epoch.
    SteppedDown { epoch: u64, term: u32 },
    /// A frame is sent over a link.
    Tell { link: Key, frame: Bytes },
    /// The room is read over a link, or waits for the link. The room hears of the link's end.
    Read { link: Key },
    /// The room is not read over a link any more.
    Unread { link: Key },
    /// A link has lost an entry of the room's tail.
    Gap { link: Key },
    /// The room follows a node. The room hears of links to that node.
    Follow { node: NodeId },
    /// The room does not follow that node any more.
    Unfollow { node: NodeId },
    /// A session of this node is a member from now on.
    Seated { session: Key, seated: Seated },
    /// Messages of a session's member from `expected` on are to be sent again after a time.
    Hold { session: Key, hold: Hold },
    /// Messages of a session's member that were sent to the primary are lost: those from
    /// `expected` on are to be sent again at once.
    Resend { session: Key, expected: u64 },
    /// A session of this node is no member any more, and its client is told the reason.
    Expel { session: Key, reason: v1::LeftReason },
    /// A session of this node is no member any more.
    Drop { session: Key },
    /// A player has a session with this epoch on another node.
    Superseded { player: Name, epoch: u64 },
    /// A membership was granted to a session that does not want it. The node sends `exit` to the
    /// primary, with the information whether the session still is on this node.
    Unwanted { link: Key, session: Bytes, player: Name, exit: v1::Exit },
    /// The membership of an absent player has expired.
    Expired { player: Name },
    /// A traced message has passed the room.
    Passed { passage: Passage, trace: Trace },
}

/// Start of a session's membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seated {
    /// Number of the member.
    pub(crate) number: u32,
    /// Entry after which the member reads.
    pub(crate) seq: u64,
    /// True if the session continues an earlier membership.
    pub(crate) resumed: bool,
    /// Number of removals that the room's state has forgotten.
    pub(crate) forgotten: u64,
}

/// Refusal of a reliable message for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// The `client_seq` that was refused.
    pub(crate) client_seq: u64,
    /// The `client_seq` to go on from.
    pub(crate) expected: u64,
    /// Milliseconds to wait.
    pub(crate) retry_after_ms: u32,
}

/// An effect, and the room that has it.
pub(crate) type OfRoom = (Key, Name, RoomEffect);

/// Queue of effects, and the marks that one input leaves on its room.
#[derive(Debug)]
pub(crate) struct RoomEffects {
    queue: VecDeque<OfRoom>,
    room: Key,
    pub(crate) marks: Marks,
    pub(crate) counts: RoomCounts,
}

/// Effects of one input that need no order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Members on this node, and links, may read more.
    pub(crate) wake: bool,
    /// Links may read more.
    pub(crate) wake_links: bool,
    /// The room is closed.
    pub(crate) closed: bool,
}

/// Gauge of members, and counters of a node's rooms since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoomCounts {
    pub(crate) members: usize,
    pub(crate) entries: u64,
    pub(crate) latest: u64,
    pub(crate) conflated: u64,
    pub(crate) throttled: u64,
    pub(crate) duplicates: u64,
    pub(crate) expiries: u64,
    pub(crate) snapshots: u64,
    pub(crate) state_full: u64,
    pub(crate) rooms_lost: u64,
    pub(crate) fenced: u64,
    pub(crate) refused_epochs: u64,
    pub(crate) joins_retried: u64,
    pub(crate) rooms_taken_over: u64,
    pub(crate) backups_diverged: u64,
}

impl RoomEffects {
    /// An empty queue.
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            room: Key { slot: 0, generation: 0 },
            marks: Marks::default(),
            counts: RoomCounts::default(),
        }
    }

    /// Begins the input of a room: its effects are added behind those that are queued.
    pub(crate) fn begin(&mut self, room: Key) {
        self.room = room;
        self.marks = Marks::default();
    }

    /// Adds an effect of the room with this name, after the begin of its input.
    pub(super) fn push(&mut self, name: &Name, effect: RoomEffect) {
        self.queue.push_back((self.room, name.clone(), effect));
    }

    /// Takes out the oldest effect.
    pub(crate) fn poll(&mut self) -> Option<OfRoom> {
        self.queue.pop_front()
    }
}
