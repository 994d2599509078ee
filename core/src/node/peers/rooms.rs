//! Rooms that are read over a link.

use alloc::collections::{BTreeMap, VecDeque};

use crate::base::slab::Key;

/// The rooms that are read over one link, and those of them that are ready.
#[derive(Debug, Default)]
pub(super) struct LinkRooms {
    /// Each room, and whether it is among those that are ready.
    rooms: BTreeMap<Key, bool>,
    /// Rooms that may have something for the peer, each once.
    ready: VecDeque<Key>,
}

impl LinkRooms {
    /// The rooms.
    pub(super) fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        self.rooms.keys().copied()
    }

    /// Begins to read a room, which is ready.
    pub(super) fn insert(&mut self, room: Key) {
        self.rooms.entry(room).or_insert(false);
        self.mark(room);
    }

    /// Ends the reading of a room.
    pub(super) fn remove(&mut self, room: Key) {
        if self.rooms.remove(&room) == Some(true) {
            self.ready.retain(|ready| *ready != room);
        }
    }

    /// Marks a room that may have something new. False if the room is not read over the link.
    pub(super) fn mark(&mut self, room: Key) -> bool {
        let Some(is_ready) = self.rooms.get_mut(&room) else { return false };
        if !core::mem::replace(is_ready, true) {
            self.ready.push_back(room);
        }
        true
    }

    /// Takes the next room that is ready. A room that had something is to be [marked](Self::mark)
    /// again.
    pub(super) fn next_ready(&mut self) -> Option<Key> {
        let room = self.ready.pop_front()?;
        if let Some(is_ready) = self.rooms.get_mut(&room) {
            *is_ready = false;
        }
        Some(room)
    }

    /// Checks that each room is ready once at most.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let ready = self.rooms.values().filter(|is_ready| **is_ready).count();
        if ready == self.ready.len() { Ok(()) } else { Err("rooms that are ready for a link") }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const fn room(slot: u32) -> Key {
        Key { slot, generation: 0 }
    }

    fn reading(slots: &[u32]) -> LinkRooms {
        let mut rooms = LinkRooms::default();
        slots.iter().for_each(|slot| rooms.insert(room(*slot)));
        rooms
    }

    fn drain(rooms: &mut LinkRooms) -> Vec<u32> {
        assert_eq!(rooms.audit(), Ok(()));
        core::iter::from_fn(|| rooms.next_ready()).map(|room| room.slot).collect()
    }

    #[test]
    fn rooms_are_read_in_the_order_in_which_they_were_marked_each_once() {
        let mut rooms = reading(&[3, 1, 2, 3]);
        assert_eq!(drain(&mut rooms), [3, 1, 2], "a new room has everything to read");
        for slot in [2, 3, 2] {
            assert!(rooms.mark(room(slot)));
        }
        assert_eq!(drain(&mut rooms), [2, 3]);
        assert!(!rooms.mark(room(9)), "it is not read");
        assert_eq!(drain(&mut rooms), []);
        rooms.insert(room(1));
        assert_eq!(drain(&mut rooms), [1], "it is read afresh");
    }

    #[test]
    fn a_room_that_is_not_read_any_more_is_not_ready() {
        let mut rooms = reading(&[3, 2, 1]);
        rooms.remove(room(2));
        assert_eq!(drain(&mut rooms), [3, 1]);
        rooms.remove(room(1));
        rooms.insert(room(2));
        assert_eq!(rooms.iter().collect::<Vec<_>>(), [room(2), room(3)]);
    }

    #[test]
    fn the_audit_finds_a_room_that_is_ready_twice() {
        let mut rooms = reading(&[1]);
        rooms.ready.push_back(room(1));
        assert_eq!(rooms.audit(), Err("rooms that are ready for a link"));
    }
}
