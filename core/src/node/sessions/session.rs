//! One session.

use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::membership::Membership;
use crate::base::agenda::Booking;
use crate::base::id::{ConnId, DialNumber, Name, SessionId};
use crate::base::slab::Key;
use crate::base::time::Instant;

/// A session.
#[derive(Debug)]
pub(in crate::node) struct Session {
    id: SessionId,
    player: Name,
    /// Epoch with which this node has claimed the session: fences other nodes.
    epoch: u64,
    /// Epoch with which the session was registered when it got its newest connection: that of the
    /// claim, or a later one if the node's lease had ended in between.
    registered: u64,
    /// True once the session has had a connection on this node.
    attached: bool,
    /// The newest connection: its number among those of the client, and among those of the node.
    dial: DialNumber,
    number: u64,
    /// True if a room has taken a membership of the session for one on another node.
    pub(super) dropped: bool,
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

/// A connection that is to have a session.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Newcomer {
    pub(in crate::node) conn: ConnId,
    /// Number of the connection among those of its client.
    pub(in crate::node) dial: DialNumber,
    /// Number of the connection among those of the node.
    pub(in crate::node) number: u64,
}

/// A connection that a session has from now on.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::node) struct Attachment {
    /// The connection that has lost the session.
    pub(in crate::node) old: Option<ConnId>,
    /// True if the session had no connection before, on any node.
    pub(in crate::node) is_new: bool,
    /// Epoch with which the session is registered.
    pub(in crate::node) registered: u64,
    /// Epoch with which the session was claimed, which the client is told.
    pub(in crate::node) epoch: u64,
}

impl Session {
    /// A session without a connection, claimed with an epoch.
    pub(super) fn new(id: SessionId, player: Name, epoch: u64) -> Self {
        Self {
            id,
            player,
            epoch,
            registered: epoch,
            attached: false,
            dial: DialNumber::default(),
            number: 0,
            dropped: false,
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

    pub(in crate::node) const fn dial(&self) -> DialNumber {
        self.dial
    }

    pub(in crate::node) const fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    pub(in crate::node) const fn replica(&self) -> u64 {
        self.replica
    }

    /// Returns true if a room has taken a membership for one on another node, since the session got
    /// its newest connection.
    pub(in crate::node) const fn has_lost_memberships(&self) -> bool {
        self.dropped
    }

    pub(in crate::node) fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    /// Returns the rooms of the session.
    pub(in crate::node) fn rooms(&self) -> Vec<Key> {
        self.memberships.iter().map(|membership| membership.room).collect()
    }

    // Changes.

    /// Registers a claim with a higher epoch.
    pub(super) const fn raise(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Gives the session to a connection. `registered` is the epoch with
    /// which the session is registered now, if it is. Returns `None` if the session has a newer
    /// connection: the `Hello` arrived late.
    pub(super) fn attach(
        &mut self,
        newcomer: Newcomer,
        registered: Option<u64>,
        resumed: bool,
    ) -> Option<Attachment> {
        let Newcomer { conn, dial, number } = newcomer;
        // Only connections without numbers of the client are compared by those of the node.
        let unnumbered = !dial.is_numbered() && !self.dial.is_numbered();
        if dial.is_behind(self.dial) || unnumbered && number < self.number {
            return None;
        }
        let is_new = !self.attached && !resumed;
        (self.attached, self.dropped) = (true, false);
        (self.dial, self.number) = (dial, number);
        self.registered = self.registered.max(self.epoch).max(registered.unwrap_or(0));
        self.expires = None;
        let (registered, epoch) = (self.registered, self.epoch);
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
