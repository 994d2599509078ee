//! Rooms of the machine world.

use super::World;
use super::node::NodeProcess;
use crate::oracle::RoomNumber;

impl World<'_> {
    /// Returns the number of a room by its name, for the oracles.
    pub(super) fn room(&mut self, name: &str) -> RoomNumber {
        u32::try_from(self.rooms.number(name)).unwrap_or(RoomNumber::MAX)
    }

    /// Forgets rooms of matches that no node and no client has any more.
    pub(super) fn forget_rooms(&mut self) {
        let Self { rooms, nodes, clients, .. } = self;
        rooms.forget(|_, name| {
            let at_node =
                |node: &NodeProcess| node.machine.as_ref().is_some_and(|node| node.head(name).is_some());
            nodes.iter().any(at_node) || clients.iter().any(|client| client.machine.cursor(name).is_some())
        });
    }
}
