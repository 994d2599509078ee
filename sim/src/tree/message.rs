//! Messages between nodes of a broadcast tree, and observations of these nodes.

use bytes::Bytes;
use skirmish_core::id::NodeId;

/// Message between two nodes.
#[derive(Clone, Debug)]
pub enum TreeMessage {
    /// To the primary: a node wants to follow the room.
    Join {
        /// Weight of the node.
        weight: u32,
    },
    /// To the primary: a node follows the room no longer.
    Leave,
    /// From the primary: the node that left is not part of the tree any more.
    Farewell,
    /// To the primary: the weight of a node has changed.
    Weight(u32),
    /// To the primary: measured round trip to another node, in microseconds.
    Rtt {
        /// The other node.
        peer: NodeId,
        /// Microseconds.
        rtt: u32,
    },
    /// From the primary: sources of a node.
    Place {
        /// The parent.
        parent: NodeId,
        /// Node to attach to after the death of the parent.
        spare: Option<NodeId>,
    },
    /// To the primary: the node is attached to this parent, and to no other node.
    Placed {
        /// The parent.
        parent: NodeId,
    },
    /// To a parent: send the entries after a cursor.
    Attach {
        /// Number of the request at the child.
        attempt: u64,
        /// Last entry that the child has; `None` for a child that starts with the next entry.
        cursor: Option<u64>,
        /// True if the child accepts the loss of entries that are out of the window.
        gap: bool,
    },
    /// To a child: the entries after `base` follow.
    Feeding {
        /// Number of the request.
        attempt: u64,
        /// Last entry that is not sent.
        base: u64,
    },
    /// To a child: the entries after its cursor are out of the window.
    OutOfWindow {
        /// Number of the request.
        attempt: u64,
        /// First entry of the window.
        first: u64,
    },
    /// To a child that is fed: the entries up to this one are missing at the parent.
    Skipped {
        /// The last missing entry.
        to: u64,
    },
    /// To a parent: no more entries.
    Detach,
    /// To a child: the next entry.
    Entry {
        /// Number of the entry.
        seq: u64,
        /// The entry.
        frame: Bytes,
    },
}

/// Observable act of a node.
#[derive(Clone, Debug)]
pub enum TreeSeen {
    /// The node starts after this entry.
    Started(u64),
    /// The node delivers an entry to its members.
    Delivered(u64, Bytes),
    /// The node announces a gap to its members: the first and the last missing entry.
    Announced(u64, u64),
    /// The node has changed its parents.
    Refed,
    /// The node has left.
    Gone,
}
