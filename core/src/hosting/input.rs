//! Inputs of a room on a node.

use skirmish_proto::v1;

use crate::base::id::{Cursor, Name, NodeId, SessionId};
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::registrar::Reign;
use crate::wire::RoomMessage;

/// An input of a room.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "messages are given by value, once, and none is kept")]
pub(crate) enum RoomInput {
    /// A session of this node asks for a membership.
    Arrive(Arrival),
    /// A session of this node gives its membership up, or takes it to another node.
    Depart { session: Key, departure: Departure },
    /// A session of this node is registered with another epoch.
    Epoch { session: Key, epoch: u64 },
    /// A session of this node has another cursor while it is being admitted.
    Redirect { session: Key, resume: Cursor },
    /// The client of a session of this node connects, or its connection is lost.
    Presence { session: Key, present: bool },
    /// The registry names this node the primary.
    Led(Reign),
    /// The registry names another node the primary.
    LedBy(Reign),
    /// The registry names no primary any more: the life of the room that this node backs up is over.
    Vacant,
    /// Another node leads the room, which is new here, and asks this one to back it up.
    Recruited(Reign),
    /// The registry's record, which names this node the primary, names this backup.
    Paired { backup: Option<NodeId>, revision: u64 },
    /// The registry names another node, in a higher term of the same life of the room.
    Deposed(Reign),
    /// The registry did not say which node is the primary, or this node declines to be it.
    Unavailable,
    /// The registry cannot be asked, since too many requests are open.
    Unclaimed,
    /// The registry does not name this node the primary any more.
    Lost,
    /// The registry does not name a node any more that the room follows.
    NodeGone { node: NodeId },
    /// A link is open to a node that the room follows.
    Linked { link: Key, node: NodeId },
    /// A link to any other node is open.
    PeersChanged,
    /// A link has ended.
    Unlinked { link: Key, node: NodeId },
    /// A message of another node.
    From { link: Key, node: NodeId, message: RoomMessage, metadata: v1::Metadata },
    /// The players with a kept place in the room are known.
    PlacesKnown,
    /// The leases of the node live again.
    Leased,
    /// The room must be closed.
    Close(v1::LeftReason),
    /// A deadline of the room has passed.
    Timeout,
}

/// A session of this node that asks for a membership.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) session: Key,
    pub(crate) id: SessionId,
    pub(crate) epoch: u64,
    pub(crate) player: Name,
    /// Place in the log to go on from, as the member that the session was; `None`: as a new member.
    pub(crate) resume: Option<Cursor>,
    /// Number of entries before the membership to deliver.
    pub(crate) history: u32,
    /// Time until which a join is tried anew.
    pub(crate) until: Instant,
}

/// The end of a session's membership on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// The player leaves the room.
    Leaves,
    /// The session moves to another node, and the player stays a member.
    Moves,
}
