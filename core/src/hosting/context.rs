//! The surroundings of a room on a node, as one input sees them.

use alloc::collections::BTreeMap;

use crate::base::bug::Bugs;
use crate::base::id::{Name, NodeId};
use crate::base::plant::Planted;
use crate::base::rng::Rng;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::config::Config;
use crate::hosting::RoomEffects;
use crate::room::{Room, RoomConfig};
use crate::wire::Zstd;

/// LiveLeases of the node that surely live at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveLeases {
    /// True if both leases live: no other node may take a room from this one.
    pub(crate) lone: bool,
    /// True if the lease of rooms lives: only the backup may take a room that has one.
    pub(crate) rooms: bool,
}

/// Arguments that every input of a [`Hosted`](super::Hosted) has.
pub(crate) struct RoomContext<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a Config,
    /// This node.
    pub(crate) node: NodeId,
    pub(crate) leases: LiveLeases,
    pub(crate) candidates: &'a dyn Candidates,
    pub(crate) places: &'a dyn KeptPlaces,
    /// Counter that numbers entries into rooms and requests for tails, over all rooms of the node.
    pub(crate) attempts: &'a mut u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) zstd: &'a mut Zstd,
    pub(crate) bugs: &'a mut Bugs,
    pub(crate) effects: &'a mut RoomEffects,
    pub(crate) planted: Planted,
}

/// Nodes that may become the backup of a room.
pub(crate) trait Candidates {
    /// Chooses a node with an open link, and returns the link: one with many `members` of the room,
    /// otherwise any, but not the `shunned` one.
    fn choose(
        &self,
        rng: &mut Rng,
        shunned: Option<NodeId>,
        members: &BTreeMap<NodeId, usize>,
    ) -> Option<(NodeId, Key)>;

    /// Returns the open link to a node.
    fn link_to(&self, node: NodeId) -> Option<Key>;
}

/// Places of rooms that are kept for the players of matches.
pub(crate) trait KeptPlaces {
    /// Returns true if the players with a kept place in the room are not known yet.
    fn are_awaited(&self, room: &Name) -> bool;

    /// Number of places in the room that the player cannot have, since they are kept for players
    /// that are not among the `members`.
    fn kept_from(&self, room: &Name, player: &Name, members: &mut dyn Iterator<Item = &Name>) -> usize;
}

impl RoomContext<'_> {
    /// Returns the next number for an entry into a room or for a request for a tail.
    pub(super) const fn next_attempt(&mut self) -> u64 {
        *self.attempts += 1;
        *self.attempts
    }

    /// Creates an empty room with an unknown epoch.
    pub(super) fn new_room(&mut self, name: Name) -> Room {
        let Config { rooms, frames, sessions, registrar, .. } = self.config;
        let config = RoomConfig {
            limits: rooms,
            compress_from: frames.compress_from,
            // A node that has not heard of a newer session serves for as long as its lease lasts.
            remember: sessions.ttl.max(registrar.node_ttl * 2),
            replica: self.rng.u64(),
            seed: self.rng.split(),
            planted: self.planted,
        };
        Room::new(name, 0, &config)
    }
}
