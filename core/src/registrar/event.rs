//! Output of a registrar to its node.

use core::fmt;

use skirmish_proto::v1;

use super::keys::FIRST_TERM;
use crate::base::id::{Name, NodeId, SessionId};

/// Decision of the registrar that the node acts on.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The node may serve: both leases live, and every held room is confirmed. The rooms go on.
    Serving,
    /// The node must stop sequencing at once: a lease may be over by the registry's clock.
    NotServing,
    /// Answer to a claim of a session.
    Session {
        /// Token of the claim.
        token: u64,
        /// The player.
        player: Name,
        /// Outcome of the claim.
        outcome: SessionClaim,
    },
    /// Another node had claimed the session for an older connection. This node has claimed the session again.
    SessionKept {
        /// The player.
        player: Name,
        /// Epoch of the new claim.
        epoch: u64,
    },
    /// Another node owns the session now.
    SessionLost {
        /// The player.
        player: Name,
        /// Epoch of the new owner; at least the one after that of the lost session.
        epoch: u64,
    },
    /// Answer to all waiting claims of a room, or to [`super::Registrar::swap_room`].
    Room {
        /// The room.
        room: Name,
        /// Outcome of the claims.
        outcome: RoomClaim,
    },
    /// Answer to [`super::Registrar::pair_room`]: the record of a room that this node leads names this backup.
    /// No request with another wish can change the record any more.
    RoomPaired {
        /// The room.
        room: Name,
        /// The backup.
        backup: Option<NodeId>,
        /// Revision of the last write of the record.
        revision: u64,
    },
    /// This node does not lead the room any more, in an epoch that goes on: the room's record is of a later
    /// term, in which another node leads.
    RoomDeposed {
        /// The room.
        room: Name,
        /// The later reign.
        reign: Reign,
    },
    /// This node does not own the room any more: the room's record is of another epoch, or is gone.
    RoomLost {
        /// The room.
        room: Name,
        /// Epoch of the new owner, at least the one after that of the lost claim; or that of the lost claim
        /// if the room has no owner.
        epoch: u64,
    },
    /// The registry's store is not the known one: every session and every room is over, and the node begins
    /// anew.
    Anew {
        /// Evidence for the change.
        why: Anew,
    },
    /// Another node became live.
    NodeUp {
        /// The node.
        id: NodeId,
        /// The node's record; [`super::Registrar::node`] has the newest.
        record: v1::NodeRecord,
    },
    /// Another node does not live any more.
    NodeDown {
        /// The node.
        id: NodeId,
    },
}

/// Evidence that the registry's store is not the known one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    /// The store's revision went back.
    Revision {
        /// Revision before.
        had: u64,
        /// Revision now.
        has: u64,
    },
    /// The connection leads to another cluster.
    Cluster,
    /// The keys of this deployment are gone.
    Emptied,
    /// The node's own record is older than its last acknowledged write.
    Record,
    /// The newest acknowledged write is missing in the history of the store.
    Lost,
    /// Another node has noticed the change and written a new life.
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

/// Outcome of a claim of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionClaim {
    /// This node owns the session.
    Granted {
        /// The session.
        id: SessionId,
        /// Epoch of the session, above that of every earlier owner of a session of this player.
        epoch: u64,
        /// True if the session is the one that the claim named.
        resumed: bool,
        /// Previous owner of the player's session; may be this node.
        previous: Option<NodeId>,
    },
    /// The registry did not answer in time. If the registry executes the claim nevertheless, the registrar
    /// undoes the claim.
    Unavailable,
    /// The registry refused the claim.
    Refused,
    /// The session was claimed for a newer connection of the same client. Nothing was written.
    Superseded,
}

/// Content of a room's record: the nodes that have the room, in one term of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    /// Epoch: one life of the room. A new epoch is above all earlier ones.
    pub epoch: u64,
    /// Term within the epoch, from 1 on. One higher with every swap of primary and backup.
    pub term: u32,
    /// The primary.
    pub primary: NodeId,
    /// The backup, if the record names one. Only the backup can take the room over from the primary.
    pub backup: Option<NodeId>,
    /// Revision of the last write of the record.
    pub revision: u64,
}

impl Reign {
    /// Returns the first reign of an epoch, without a backup and with no known record.
    pub(super) const fn first(epoch: u64, primary: NodeId) -> Self {
        Self { epoch, term: FIRST_TERM, primary, backup: None, revision: 0 }
    }
}

/// Outcome of a claim of a room, or of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomClaim {
    /// This node is the room's primary.
    Primary(Reign),
    /// The record tells of a reign in which this node does not lead. A claim never takes a room over that
    /// has a backup, even if neither node lives: then the room is over at the end of the record's lease. A
    /// claim can find itself named as the primary of a reign with a backup, after a late swap.
    Elsewhere(Reign),
    /// The room to swap has no record any more: its epoch is over.
    Vacant,
    /// The registry did not answer in time, or refused. If the registry executes the claim nevertheless, the
    /// registrar undoes the claim.
    Unavailable,
}

/// Refusal of a claim: [`super::RegistrarConfig::claims`] claims wait already, or the registrar has
/// [`super::RegistrarConfig::keys`] sessions and rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many sessions and rooms, or claims of them")
    }
}

impl core::error::Error for Full {}

/// Figures of a registrar: gauges of the present, and counters of past events.
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
    /// Requests in the background: they check existing registrations or register them again.
    pub background: usize,
    /// Sessions and rooms whose ownership is uncertain until their record is checked.
    pub doubtful: usize,
    /// Requests sent.
    pub requests: u64,
    /// Requests with an unknown outcome.
    pub unknown: u64,
    /// Times at which the store was found to be another one, or an earlier state.
    pub generations: u64,
    /// Leases lost.
    pub leases_lost: u64,
    /// Unreadable records, and answers of the wrong type. Above 0, another program or another version writes
    /// to the registry.
    pub garbage: u64,
    /// Requests about sessions and rooms that the registry refused, except for a lost lease.
    pub refused: u64,
    /// Own records of sessions or rooms not held here, deleted.
    pub swept: u64,
}
