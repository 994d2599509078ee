//! What becomes due in a room, and what the registry is told of it.

use super::{Node, Timer};
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::hosting::Role;

impl Node {
    /// Sees to it that the room is looked at when something in it is due next.
    pub(super) fn book_room(&mut self, key: Key) {
        // The change in the room may have closed it.
        let Some(hosted) = self.rooms.get_mut(key) else { return };
        let flush = hosted.room.flush_at();
        let collect = hosted.room.state.poll_timeout().map(|deadline| deadline.at);
        // While the node may not serve, nobody is let go and no turn ends: it looks when it
        // may again.
        let may_serve = self.registrar.may_serve(self.now);
        let turn = hosted.room.turn_ends_at().filter(|_| may_serve);
        let role = match &hosted.role {
            Role::Claiming(claiming) => claiming.ask_at(),
            Role::Leading(leading) => leading.next_expiry().map(|(until, _)| until).filter(|_| may_serve),
            Role::Following(following) => following.deadline(),
        };
        if let Some(at) = [flush, collect, turn, role].into_iter().flatten().min() {
            self.agenda.book(Timer::Room(key), &mut hosted.booking, at);
        }
    }

    pub(super) fn room_timeout(&mut self, now: Now, key: Key) {
        let Some(hosted) = self.rooms.get_mut(key) else {
            return self.bugs.found("a room that is not in the table is due");
        };
        hosted.booking.clear();
        if hosted.room.state.poll_timeout().is_some_and(|deadline| deadline.at <= now.instant) {
            hosted.room.state.collect(now);
        }
        if hosted.room.flush_at().is_some_and(|at| at <= now.instant) {
            self.release(key);
        }
        // From here on the room may be closed.
        self.claim_again(now, key);
        self.end_turn(now, key);
        self.attach_timeout(now, key);
        self.expire_away(now, key);
        self.book_room(key);
    }

    /// Ends a turn whose time is over.
    fn end_turn(&mut self, now: Now, key: Key) {
        let Self { rooms, registrar, zstd, stats, .. } = self;
        let Some(hosted) = rooms.get_mut(key) else { return };
        let is_over = hosted.room.turn_ends_at().is_some_and(|at| at <= now.instant);
        if is_over && registrar.may_serve(now.instant) {
            hosted.room.end_turn(now, zstd);
            stats.entries += 1;
            self.room_changed(now, key);
            self.turned(now, key);
        }
    }

    /// Another turn has begun.
    pub(super) fn turned(&mut self, now: Now, key: Key) {
        self.book_room(key);
        self.note_room(now, key);
    }

    /// Has the room's record in the registry say how many members it has, and which turn it
    /// is.
    pub(super) fn note_room(&mut self, now: Now, room: Key) {
        let Some(hosted) = self.rooms.get(room).filter(|hosted| hosted.is_primary()) else { return };
        if hosted.room.members().is_empty() {
            // Nothing is written of a room that is given up now.
            return;
        }
        let players = u32::try_from(hosted.room.members().len()).unwrap_or(u32::MAX);
        let (name, turn) = (hosted.room.name().clone(), hosted.room.turn());
        self.registrar.update_room(now, &name, players, turn.number, turn.ends_ms);
    }
}
