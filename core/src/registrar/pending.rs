//! Open requests of the registrar: the purpose of each, and the registrar's knowledge at its sending time.

use bytes::Bytes;

use super::keys::Subject;
use super::lease_machine::RequestTag;
use crate::base::time::Instant;
use crate::registry::LeaseId;

/// Selects one of the two leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Lease of the node's record and its sessions.
    Node,
    /// Lease of the node's rooms.
    Room,
}

/// Selects one of the two watched directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Nodes,
    Sessions,
}

/// Purpose of a request.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// Grants, keeps alive or revokes a lease.
    Lease(Which, RequestTag),
    /// Writes the node's record.
    Register(RequestTag),
    /// Refreshes the node's record.
    Refresh,
    /// Reads or writes the generation's key.
    Generation,
    /// Reads the newest acknowledged write again.
    Witness,
    /// Checks that the registry takes writes.
    WriteCheck,
    /// Ends a lease of another life; the outcome is ignored.
    Stray,
    /// Reads a page of a directory.
    Read(Topic),
    /// Reads or writes the record of a session or a room, under this lease; `background` if no player waits.
    Key { subject: Subject, lease: LeaseId, background: bool },
}

/// A request without an answer so far.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) sent: Instant,
    /// Number of the node's registration at the sending time.
    pub(super) registration: u64,
    /// Highest revision of the store that was known at the sending time.
    pub(super) seen: u64,
    /// Changes of the generation's key that were known at the sending time.
    pub(super) key_changes: u64,
    /// First key that the request writes if its comparisons hold.
    pub(super) writes: Option<Bytes>,
}
