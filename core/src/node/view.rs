//! What can be seen of a node from outside: for operators, simulation and debugging.

use alloc::string::{String, ToString as _};

use super::Node;
use crate::base::id::{Cursor, Name, NodeId};
use crate::base::time::Instant;
use crate::hosting::{Hosted, Role};
use crate::registry::Failure;

impl Node {
    /// Its number.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.id
    }

    /// The epoch in which this node is the primary of a room, if it is.
    #[must_use]
    pub fn leads(&self, room: &str) -> Option<u64> {
        let hosted = self.hosted(room)?;
        hosted.is_primary().then(|| hosted.room().epoch())
    }

    /// The newest entry of a room's log, as this node has it.
    #[must_use]
    pub fn head(&self, room: &str) -> Option<Cursor> {
        let room = self.hosted(room)?.room();
        Some(Cursor { epoch: room.epoch(), seq: room.log().head() })
    }

    /// Whether the node takes what is for the rooms that it leads: the registry has confirmed
    /// lately enough that it lives.
    #[must_use]
    pub fn is_serving(&self, now: Instant) -> bool {
        self.registrar.may_serve(now)
    }

    /// Why the registry takes no writes, as the checks of the last seconds have shown; `None`
    /// if it does. Players who log in are turned away meanwhile.
    #[must_use]
    pub fn registry_failure(&self, now: Instant) -> Option<Failure> {
        self.registrar.write_failure(now)
    }

    /// A node of another deployment that uses the same registry, and keeps this one from
    /// serving: its identifier and its name.
    #[must_use]
    pub fn foreign_node(&self) -> Option<(NodeId, &str)> {
        self.registrar.foreign_node().map(|(id, record)| (id, record.name.as_str()))
    }

    /// How many other nodes it knows of.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.peers.nodes()
    }

    /// What another node calls itself in the registry, if that is known.
    #[must_use]
    pub fn peer_name(&self, node: NodeId) -> Option<&str> {
        self.peers.name(node).filter(|name| !name.is_empty())
    }

    /// How many rooms it follows, which other nodes lead. Looks at every room.
    #[must_use]
    pub fn rooms_followed(&self) -> usize {
        self.rooms.iter().filter(|hosted| matches!(hosted.role(), Role::Following(_))).count()
    }

    /// The epoch of the session that a player has here, if there is one.
    #[must_use]
    pub fn session_epoch(&self, player: &str) -> Option<u64> {
        let key = self.sessions.of_player(&Name::new(player).ok()?)?;
        Some(self.sessions.get(key)?.epoch())
    }

    /// Why a player's ticket has no match yet, for people; `None` if this node does not form
    /// the matches of its mode, or there is no ticket.
    #[must_use]
    pub fn explain(&self, now: Instant, player: &Name) -> Option<String> {
        Some(self.matcher.explain(now, player)?.to_string())
    }

    /// The modes that this node forms the matches of.
    pub fn elected(&self) -> impl Iterator<Item = &Name> {
        self.matcher.elected()
    }

    /// Whether there is a link to another node that both have greeted over.
    #[must_use]
    pub fn is_linked(&self, node: NodeId) -> bool {
        self.peers.link_to(node).is_some()
    }

    fn hosted(&self, room: &str) -> Option<&Hosted> {
        self.rooms.get(self.rooms.named(room)?)
    }
}
