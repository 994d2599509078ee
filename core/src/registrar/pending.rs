//! Open requests of the registrar: the purpose of each, and what was known when it was sent.

use bytes::Bytes;

use super::holder::RequestTag;
use super::keys::Subject;
use crate::base::time::Instant;
use crate::registry::LeaseId;

/// One of the two leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Of the node's record and its sessions.
    Node,
    /// Of its rooms.
    Room,
}

/// One of the two directories that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Nodes,
    Sessions,
}

/// Purpose of a request.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A lease.
    Lease(Which, RequestTag),
    /// Writes the node's record.
    Register(RequestTag),
    /// Refreshes the node's record.
    Refresh,
    /// About the generation of the store.
    Generation,
    /// Reads the newest acknowledged write again.
    Witness,
    /// Checks that the registry takes writes.
    WriteCheck,
    /// Ends a lease of another life; whatever comes of it.
    Stray,
    /// Reads a page.
    Read(Topic),
    /// About a session or a room, with this lease; whether somebody waits for it or not.
    Key { subject: Subject, lease: LeaseId, background: bool },
}

/// A request that is not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) sent: Instant,
    /// Which registration of the node it was sent under.
    pub(super) registration: u64,
    /// The highest revision that the store had had by then.
    pub(super) seen: u64,
    /// Changes of the generation's key that were known by then.
    pub(super) turns: u64,
    /// The first key that it writes, if it does what it is sent for.
    pub(super) writes: Option<Bytes>,
}
