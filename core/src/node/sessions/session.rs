//! One session.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::membership::Membership;
use crate::base::agenda::Booking;
use crate::base::id::{ConnId, Name, SessionId};
use crate::base::slab::Key;
use crate::base::time::Instant;

/// Connections of a session on one node that its `Welcome`s tell apart.
const ATTACHES: u64 = 1 << 12;

/// A session.
#[derive(Debug)]
pub(in crate::node) struct Session {
    id: SessionId,
    player: Name,
    /// Revision at which this node claimed the session: fences other nodes.
    epoch: u64,
    /// Revision at which the session was registered when it got its newest connection: that of the
    /// claim, or a later one if the node's lease had ended in between.
    registered: u64,
    /// Number of connections that the session had on this node, [`ATTACHES`] at most: the newest
    /// fences the others.
    attached: u64,
    /// Number of the newest connection among those of the node.
    newest: u64,
    /// The connection that may write.
    conn: Option<ConnId>,
    /// Time at which the session ends, while it has no connection.
    pub(super) expires: Option<Instant>,
    pub(super) booking: Booking,
    /// Connections after an upgrade for this player: each may bring a resume. Connections that have
    /// sent `Hello` or are gone are removed when another is added.
    pub(super) knocking: Vec<ConnId>,
    /// True if the end was put off once since the session lost its connection.
    pub(super) excused: bool,
    /// Identifier of the replica as which the player writes the state of rooms.
    replica: u64,
    /// Rooms of the session, including those with an admission under way; at most `sessions.rooms`.
    pub(super) memberships: Vec<Membership>,
    /// Index of the membership that is served next, so that no room starves another.
    pub(super) served: usize,
}

/// A connection that a session has from now on.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::node) struct Attachment {
    /// The connection that has lost the session.
    pub(in crate::node) old: Option<ConnId>,
    /// True if the session had no connection before, on any node.
    pub(in crate::node) is_new: bool,
    /// Revision at which the session is registered.
    pub(in crate::node) registered: u64,
    /// Epoch that the client is told.
    pub(in crate::node) epoch: u64,
}

impl Session {
    /// A session without a connection, claimed at a revision.
    pub(super) fn new(id: SessionId, player: Name, epoch: u64) -> Self {
        Self {
            id,
            player,
            epoch,
            registered: epoch,
            attached: 0,
            newest: 0,
            conn: None,
            expires: None,
            booking: Booking::default(),
            knocking: Vec::new(),
            excused: false,
            replica: replica_of(id),
            memberships: Vec::new(),
            served: 0,
        }
    }

    // Getters.

    pub(in crate::node) const fn id(&self) -> SessionId {
        self.id
    }

    pub(in crate::node) const fn player(&self) -> &Name {
        &self.player
    }

    pub(in crate::node) const fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(in crate::node) const fn registered(&self) -> u64 {
        self.registered
    }

    pub(in crate::node) const fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    pub(in crate::node) const fn replica(&self) -> u64 {
        self.replica
    }

    pub(in crate::node) fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    /// Returns the rooms of the session.
    pub(in crate::node) fn rooms(&self) -> Vec<Key> {
        self.memberships.iter().map(|membership| membership.room).collect()
    }

    /// Returns the epoch in the last `Welcome` of the client.
    pub(super) const fn welcomed(&self) -> u64 {
        client_epoch(self.epoch).saturating_add(self.attached)
    }

    // Changes.

    /// Registers a claim at a higher revision.
    pub(super) const fn raise(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Gives the session to a connection, the node's `number`-th, with the revision at which the
    /// session is registered now, if it is. Returns `None` if the session has a newer connection:
    /// the `Hello` arrived late.
    pub(super) fn attach(
        &mut self,
        conn: ConnId,
        number: u64,
        registered: Option<u64>,
        resumed: bool,
    ) -> Option<Attachment> {
        if number < self.newest {
            return None;
        }
        let is_new = self.attached == 0 && !resumed;
        self.newest = number;
        self.attached = (self.attached + 1).min(ATTACHES - 1);
        self.registered = self.registered.max(self.epoch).max(registered.unwrap_or(0));
        self.expires = None;
        let (registered, epoch) = (self.registered, self.welcomed());
        Some(Attachment { old: self.conn.replace(conn), is_new, registered, epoch })
    }

    /// Takes the session from a connection. Returns false if the session has another one.
    pub(super) fn detach(&mut self, conn: ConnId) -> bool {
        self.conn.take_if(|own| *own == conn).is_some()
    }
}

/// Returns the replica as which a session writes the state of rooms, on every node: so counters have
/// no new share with every move. Others see it, and cannot find the session's identifier by it.
fn replica_of(session: SessionId) -> u64 {
    let digest =
        Sha256::new().chain_update(b"skirmish.v1 replica").chain_update(session.as_bytes()).finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Returns the epoch that a client is told for the revision at which its session was registered: above
/// every epoch of an earlier revision, and below every one of a later.
pub(in crate::node) const fn client_epoch(revision: u64) -> u64 {
    revision.saturating_mul(ATTACHES)
}

/// Returns the revision of an epoch that a client was told.
pub(in crate::node) const fn revision(client_epoch: u64) -> u64 {
    client_epoch / ATTACHES
}
