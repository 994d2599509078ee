//! Presence: which members of a room are connected.

use alloc::vec::Vec;

use super::Node;
use crate::base::id::Name;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::session::SessionKey;

impl Node {
    pub(super) fn set_present(&mut self, now: Now, session: SessionKey, present: bool) {
        let Some(session) = self.sessions.get(session) else {
            return self.bugs.found("a session that is gone comes or goes");
        };
        let player = session.player.clone();
        let rooms: Vec<Key> = session.memberships.iter().filter(|m| m.number > 0).map(|m| m.room).collect();
        for room in rooms {
            self.set_present_in(now, room, &player, present);
            self.room_changed(now, room);
        }
    }

    pub(super) fn set_present_in(&mut self, now: Now, room: Key, player: &Name, present: bool) {
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a member comes or goes in a room that is not in the table");
        };
        if hosted.room.state.set_present(now, player.as_str(), present).is_err() {
            self.stats.state_full += 1;
        }
        self.mark_upstream(room);
        self.book_room(room);
    }
}
