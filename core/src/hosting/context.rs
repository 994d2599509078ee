//! The surroundings of a room on a node, as one input sees them.

use crate::base::bug::Bugs;
use crate::base::id::Name;
use crate::base::plant::Planted;
use crate::base::rng::Rng;
use crate::base::time::Now;
use crate::config::Config;
use crate::hosting::RoomEffects;
use crate::room::{Room, RoomConfig};
use crate::wire::Zstd;

/// Arguments that every input of a [`Hosted`](super::Hosted) has.
pub(crate) struct RoomContext<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a Config,
    /// True if the leases of the node surely live at this moment.
    pub(crate) leased: bool,
    pub(crate) places: &'a dyn KeptPlaces,
    /// Counter that numbers entries into rooms and requests for tails, over all rooms of the node.
    pub(crate) attempts: &'a mut u64,
    pub(crate) rng: &'a mut Rng,
    pub(crate) zstd: &'a mut Zstd,
    pub(crate) bugs: &'a mut Bugs,
    pub(crate) effects: &'a mut RoomEffects,
    pub(crate) planted: Planted,
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
