//! What a registrar tells its node.

use core::fmt;

use skirmish_proto::v1;

use crate::base::id::{Name, NodeId, SessionId};

/// What a node has to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Both leases live, and every room that is held was seen to be ours still: they go on.
    Serving,
    /// Stop sequencing at once: a lease may be over by the registry's clock.
    NotServing,
    /// What came of a claim of a session.
    Session {
        /// The claim's.
        token: u64,
        /// The player.
        player: Name,
        /// What came of it.
        outcome: SessionClaim,
    },
    /// Another node has the session now.
    SessionLost {
        /// The player.
        player: Name,
        /// The epoch of whoever has it, above that of the session that is lost.
        epoch: u64,
    },
    /// What came of all claims of a room that wait.
    Room {
        /// The room.
        room: Name,
        /// What came of them.
        outcome: RoomClaim,
    },
    /// The room is not ours any more: its record is another node's, or is gone.
    RoomLost {
        /// The room.
        room: Name,
        /// The epoch of whoever has it; the lost one's if nobody has.
        epoch: u64,
    },
    /// The registry is not the one that it was: every session and every room is over, and
    /// everything begins anew.
    Anew {
        /// What shows it.
        why: Anew,
    },
    /// Another node lives that did not before.
    NodeUp {
        /// The node.
        id: NodeId,
        /// Its record; [`super::Registrar::node`] has the newest.
        record: v1::NodeRecord,
    },
    /// Another node does not live any more.
    NodeDown {
        /// The node.
        id: NodeId,
    },
}

/// What shows that the registry is not the one that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// Its revision is lower than it was.
    Revision {
        /// The revision that it had.
        had: u64,
        /// The revision that it has.
        has: u64,
    },
    /// The connection leads to another cluster.
    Cluster,
    /// What this deployment had in it is gone.
    Emptied,
    /// The node's own record is older than what was acknowledged.
    Record,
    /// The newest write that was acknowledged is not in its history.
    Lost,
    /// Another node has noticed, and begun anew.
    Life,
}

impl fmt::Display for Anew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revision { had, has } => {
                write!(f, "its revision went back from {had} to {has}: it was restored or wiped")
            }
            Self::Cluster => f.write_str("it is a cluster with another identifier"),
            Self::Emptied => f.write_str("the keys of this deployment are gone"),
            Self::Record | Self::Lost => f.write_str("it has lost writes that it had acknowledged"),
            Self::Life => f.write_str("another node has found that it was restored, wiped or replaced"),
        }
    }
}

/// What came of a claim of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionClaim {
    /// The session is this node's.
    Granted {
        /// The session.
        id: SessionId,
        /// Above that of everybody who had a session of this player before.
        epoch: u64,
        /// It is the session that was named.
        resumed: bool,
        /// The node that had the player's session before, this one included.
        previous: Option<NodeId>,
    },
    /// The registry did not answer in time. If the claim was done nevertheless it will be
    /// undone.
    Unavailable,
    /// The registry refused.
    Refused,
}

/// What came of a claim of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomClaim {
    /// This node is the room's primary.
    Primary {
        /// Above that of every primary that the room had before.
        epoch: u64,
    },
    /// Another node is.
    Elsewhere {
        /// The primary.
        node: NodeId,
        /// Its epoch.
        epoch: u64,
    },
    /// The registry did not answer in time, or refused. If the claim was done nevertheless
    /// it will be undone.
    Unavailable,
}

/// Nothing more can be claimed: [`super::RegistrarConfig::claims`] wait, or there are
/// [`super::RegistrarConfig::keys`] sessions and rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many sessions and rooms, or claims of them")
    }
}

impl core::error::Error for Full {}

/// Figures of a registrar: how much there is now, and how often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistrarStats {
    /// Sessions held.
    pub sessions: usize,
    /// Rooms held.
    pub rooms: usize,
    /// Claims without an outcome.
    pub claims: usize,
    /// Requests about sessions and rooms in flight, those in the background included.
    pub in_flight: usize,
    /// Those in the background: they register again, or check, what was registered before.
    pub background: usize,
    /// Sessions and rooms whose record may not be ours any more and will be looked at.
    pub doubtful: usize,
    /// Requests sent.
    pub requests: u64,
    /// Requests that nobody knows what came of.
    pub unknown: u64,
    /// Times that the registry was found to be another one, or an earlier one.
    pub generations: u64,
    /// Leases that were lost.
    pub leases_lost: u64,
    /// Records that could not be read, and answers that answered something else. Not 0:
    /// somebody else writes to the registry, or other versions do.
    pub garbage: u64,
    /// Requests about sessions and rooms that the registry refused; lost leases apart.
    pub refused: u64,
    /// Records of ours that nobody held, deleted.
    pub swept: u64,
}
