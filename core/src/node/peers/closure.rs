//! Reasons for which a node closes a link to another node.

use core::fmt;

use crate::wire::WireError;

/// The reason for which a node closes a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkClosure {
    /// The registry does not name the other node any more.
    NodeGone,
    /// This node stops.
    Stopping,
    /// The registry does not name the node that the other side says to be.
    NodeUnknown,
    /// The other side is another node than was meant, or means another node.
    WrongNode,
    /// The other side had not said who it is, and its place was needed.
    Displaced,
    /// A newer link to the same node took over.
    Superseded,
    /// Another link to the same node opened while this one was being dialed.
    Surplus,
    /// No `LinkHello` came within the handshake deadline.
    HandshakeTimeout,
    /// Too many heartbeats were missed.
    HeartbeatTimeout,
    /// The other side does not read: [`queue_bytes`](crate::config::LinkLimits::queue_bytes) or more
    /// wait for it, or too many frames.
    NotReading,
    /// A frame cannot be read.
    Wire(WireError),
    /// The first frame was no `LinkHello`.
    NoHello,
    /// A second `LinkHello`.
    SecondHello,
    /// An entry does not follow the last one of its room's tail.
    Gap,
}

impl fmt::Display for LinkClosure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeGone => "the registry does not name the node any more",
            Self::Stopping => "this node stops",
            Self::NodeUnknown => "the registry does not name the node",
            Self::WrongNode => "the link leads to another node than was meant",
            Self::Displaced => "others came, and it had not said who it is",
            Self::Superseded => "a newer link to the node took over",
            Self::Surplus => "another link to the node opened first",
            Self::HandshakeTimeout => "no LinkHello within the handshake deadline",
            Self::HeartbeatTimeout => "too many heartbeats were missed",
            Self::NotReading => "too much waits for the node at the other end, which does not read",
            Self::Wire(error) => return error.fmt(f),
            Self::NoHello => "the first frame of a link must be LinkHello",
            Self::SecondHello => "a second LinkHello",
            Self::Gap => "a gap in the tail of a room",
        })
    }
}
