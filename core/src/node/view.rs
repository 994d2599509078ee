//! Views of a node for operators, simulation and debugging.

use alloc::string::{String, ToString as _};

use super::Node;
use crate::base::id::{Cursor, Name, NodeId};
use crate::base::time::Instant;
use crate::hosting::{Hosted, Role};
use crate::registry::Failure;

impl Node {
    /// Returns the number of this node.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// Returns the epoch in which this node is the primary of a room; `None` if it is not the
    /// primary.
    #[must_use]
    pub fn leads(&self, room: &str) -> Option<u64> {
        let hosted = self.hosted(room)?;
        hosted.is_primary().then(|| hosted.room().epoch())
    }

    /// Returns the epoch of a room that this node leads, and the node's term in that epoch; `None` if
    /// the node does not lead the room.
    #[must_use]
    pub fn reign(&self, room: &str) -> Option<(u64, u32)> {
        let hosted = self.hosted(room)?;
        hosted.is_primary().then(|| (hosted.room().epoch(), hosted.room().term()))
    }

    /// Returns true if the node leads a room and may change it: its leases surely live that the room
    /// needs.
    #[must_use]
    pub fn may_change(&self, now: Instant, room: &str) -> bool {
        self.hosted(room).is_some_and(|hosted| hosted.may_serve(self.leases(now)))
    }

    /// Returns true if the node may commit changes of a room without a backup.
    #[must_use]
    pub fn commits_alone(&self, now: Instant, room: &str) -> bool {
        self.hosted(room).is_some_and(|hosted| hosted.commits_alone() && hosted.may_serve(self.leases(now)))
    }

    /// Returns the node that may take over a room which this node leads, with the epoch of the room and
    /// the number of its ops that are committed.
    #[must_use]
    pub fn committed(&self, room: &str) -> Option<(NodeId, u64, u64)> {
        let hosted = self.hosted(room)?;
        let (peer, committed) = hosted.committed()?;
        Some((peer, hosted.room().epoch(), committed))
    }

    /// Returns the epoch of a room, and the number of its ops that this node has as the primary or the
    /// backup.
    #[must_use]
    pub fn stored(&self, room: &str) -> Option<(u64, u64)> {
        let hosted = self.hosted(room)?;
        Some((hosted.room().epoch(), hosted.stored()?))
    }

    /// Returns the backup of a room that this node leads, once the registry names it.
    #[must_use]
    pub fn backup(&self, room: &str) -> Option<NodeId> {
        self.hosted(room)?.backup()
    }

    /// Returns the cursor of the newest entry in this node's copy of a room's log.
    #[must_use]
    pub fn head(&self, room: &str) -> Option<Cursor> {
        let room = self.hosted(room)?.room();
        Some(Cursor { epoch: room.epoch(), seq: room.log().head() })
    }

    /// Returns true if the node accepts messages for the rooms that it leads: the registry has
    /// confirmed recently that the node lives.
    #[must_use]
    pub fn is_serving(&self, now: Instant) -> bool {
        self.registrar.may_serve(now)
    }

    /// Returns the reason for which the registry accepts no writes, found by the checks of the last
    /// seconds; `None` if the registry accepts them. Without writes, the node refuses players that
    /// log in.
    #[must_use]
    pub fn registry_failure(&self, now: Instant) -> Option<Failure> {
        self.registrar.write_failure(now)
    }

    /// Returns the identifier and the name of a node of another deployment that uses the same
    /// registry. Such a node keeps this one from serving.
    #[must_use]
    pub fn foreign_node(&self) -> Option<(NodeId, &str)> {
        self.registrar.foreign_node().map(|(id, record)| (id, record.name.as_str()))
    }

    /// Returns the number of other nodes that are known.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.nodes()
    }

    /// Returns the name of another node from its record in the registry, if that is known.
    #[must_use]
    pub fn peer_name(&self, node: NodeId) -> Option<&str> {
        self.peers.name(node).filter(|name| !name.is_empty())
    }

    /// Returns the number of rooms that this node follows and others lead. Reads every room.
    #[must_use]
    pub fn rooms_followed(&self) -> usize {
        self.rooms.iter().filter(|hosted| matches!(hosted.role(), Role::Following(_))).count()
    }

    /// Returns the epoch of a player's session on this node; `None` if there is none.
    #[must_use]
    pub fn session_epoch(&self, player: &str) -> Option<u64> {
        let key = self.sessions.of_player(&Name::new(player).ok()?)?;
        Some(self.sessions.get(key)?.epoch())
    }

    /// Explains, for people, the missing match of a player's ticket; `None` if this node does not
    /// form the matches of the ticket's mode, or there is no ticket.
    #[must_use]
    pub fn explain(&self, now: Instant, player: &Name) -> Option<String> {
        Some(self.matcher.explain(now, player)?.to_string())
    }

    /// Returns the modes for which this node is the matcher.
    pub fn elected(&self) -> impl Iterator<Item = &Name> {
        self.matcher.elected()
    }

    /// Returns true if a link to another node is up, with the greetings of both.
    #[must_use]
    pub fn is_linked(&self, node: NodeId) -> bool {
        self.peers.link_to(node).is_some()
    }

    fn hosted(&self, room: &str) -> Option<&Hosted> {
        self.rooms.get(self.rooms.named(room)?)
    }
}
