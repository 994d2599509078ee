//! Beginnings and ends of sessions and memberships.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::connection_inputs::Answered;
use super::handshake::TAKEN_OVER;
use super::rooms::WayIn;
use super::sessions::{Door, EndedSession, Membership};
use super::{Event, Node, Trace};
use crate::base::id::{ConnId, Cursor, Name};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::hosting::RoomInput;

impl Node {
    // Sessions.

    /// Fences a connection that was taken over. The connection is parted from its session, so
    /// nothing that the client still sends on this connection is written.
    pub(super) fn cut_off(&mut self, now: Now, old: ConnId) {
        self.close(now, old.key(), v1::Reason::TakenOver, TAKEN_OVER);
        if self.planted.is(Plant::OldConnectionWrites) {
            return;
        }
        self.connections.part_from_session(&mut self.bugs, old.key());
    }

    /// Parts a session from a closed connection. The session waits to be resumed, for the
    /// time-to-live of sessions at most.
    pub(super) fn detach(&mut self, now: Now, session: Key, conn: ConnId, trace: Trace) {
        let expires = now.instant + self.config.sessions.ttl;
        // The session may have a newer connection.
        let Some(player) = self.sessions.detach(&mut self.bugs, session, conn, expires) else { return };
        self.lose(now, &player);
        self.set_present(now, session, false);
        self.event(Event::ConnectionLost { conn, player, trace });
    }

    pub(super) fn session_timeout(&mut self, now: Now, key: Key) {
        let Self { sessions, connections, config, bugs, planted, .. } = self;
        let is_greeting = |conn: ConnId| connections.is_greeting(conn.key());
        let door = Door { is_greeting: &is_greeting, has_strangers: connections.unauthenticated() > 0 };
        if sessions.is_over(bugs, now.instant, config, *planted, key, door) {
            self.end_session(now, key, v1::Reason::Unspecified);
        }
    }

    /// Handles the admission of a player to a room from another node, for a session with this epoch.
    /// If clients number their connections, only the registry knows which of two is newer.
    pub(super) fn session_superseded(&mut self, now: Now, player: &Name, epoch: u64) {
        let session = self.sessions.of_player(player).and_then(|key| self.sessions.get(key));
        let Some(session) = session.filter(|session| session.epoch() < epoch) else { return };
        if session.dial().is_numbered() && self.registrar.holds_session(player).is_some() {
            self.registrar.check_session(now, player);
        } else {
            self.session_lost(now, player, epoch);
        }
    }

    /// Ends the session of a player whose session another node owns now. The node ignores further
    /// input for the ended session.
    pub(super) fn session_lost(&mut self, now: Now, player: &Name, epoch: u64) {
        let Some(key) = self.sessions.of_player(player) else { return };
        let Some(session) = self.sessions.get(key).filter(|session| session.epoch() < epoch) else { return };
        let conn = session.conn();
        self.end_local_session(now, key, v1::Reason::TakenOver, true);
        if let Some(conn) = conn {
            self.sessions.count_takeover();
            self.close(now, conn.key(), v1::Reason::TakenOver, TAKEN_OVER);
        }
    }

    /// Ends a session. The player leaves all rooms, and the session cannot be resumed.
    pub(super) fn end_session(&mut self, now: Now, key: Key, reason: v1::Reason) {
        let Some(player) = self.sessions.get(key).map(|session| session.player().clone()) else {
            return self.bugs.found("a session that is gone is to end");
        };
        self.end_local_session(now, key, reason, false);
        self.give_session_up(now, &player);
    }

    /// Releases a player's session in the registry, unless the player has a session here or a claim
    /// of one is under way. That claim decides then: if it fails, the session is released as well.
    pub(super) fn give_session_up(&mut self, now: Now, player: &Name) {
        if self.sessions.of_player(player).is_none() && !self.registrar.claims_session(player) {
            self.registrar.release_session(now, player);
        }
    }

    /// Forgets a session without a change in the registry. If the session was `handed_over` to
    /// another node, or to a session that replaces it here, its memberships are kept for the new
    /// owner; else the player leaves the rooms. The player's match continues if another session of
    /// the player has taken over.
    pub(super) fn end_local_session(&mut self, now: Now, key: Key, reason: v1::Reason, handed_over: bool) {
        let memberships = self.sessions.take_memberships(key);
        let goes_on = reason == v1::Reason::TakenOver;
        for membership in memberships {
            if handed_over {
                self.hand_over(now, key, &membership);
            } else {
                self.vacate(now, key, &membership, !goes_on);
            }
        }
        let Some(EndedSession { player, conn }) = self.sessions.remove(key) else {
            return self.bugs.found("a session that is gone is to be forgotten");
        };
        if let Some(conn) = conn {
            self.connections.part_from_session(&mut self.bugs, conn.key());
        }
        self.depart(now, &player, handed_over || goes_on);
        self.event(Event::SessionEnded { player, reason });
    }

    // Memberships.

    /// Continues the rooms of a resumed session from the client's cursors. The session is a member
    /// of those rooms and no others. Rooms that are unknown here belonged to the session on another
    /// node. The player leaves every room that is not among those `named`, with a cursor or to be
    /// joined, and leaves the room's match with the room.
    pub(super) fn resume_rooms(
        &mut self,
        now: Now,
        key: Key,
        session: Key,
        resumed: bool,
        cursors: &[v1::RoomCursor],
        named: &[Name],
    ) {
        let memberships = if resumed { self.sessions.take_memberships(session) } else { Vec::new() };
        let mut kept = Vec::new();
        let mut ended = Vec::new();
        let mut redirected = Vec::new();
        let mut gone: Vec<&v1::RoomCursor> = cursors.iter().collect();
        for mut membership in memberships {
            let Some(hosted) = self.rooms.get(membership.room()) else {
                self.bugs.found("a session is in a room that is not in the table");
                continue;
            };
            let name = hosted.room().name().as_str();
            if !membership.is_seated() {
                // A session that is still being admitted continues from the client's new cursor. If
                // the client names no cursor for that room, it has to ask for admission again.
                let Some(cursor) = cursors.iter().find(|cursor| cursor.room == name) else {
                    ended.push(membership);
                    continue;
                };
                let resume = Cursor { epoch: cursor.epoch, seq: cursor.seq };
                membership.redirect(cursor.request);
                redirected.push((membership.room(), resume));
                gone.retain(|cursor| cursor.room != name);
                kept.push(membership);
                continue;
            }
            let epoch = hosted.room().epoch();
            let Some(cursor) = cursors.iter().find(|cursor| cursor.room == name && cursor.epoch == epoch)
            else {
                ended.push(membership);
                continue;
            };
            gone.retain(|cursor| cursor.room != name);
            membership.resume(hosted.room(), cursor.seq, cursor.request, self.planted);
            kept.push(membership);
        }
        if resumed {
            self.sessions.keep_memberships(session, kept);
        }
        for (room, resume) in redirected {
            self.room_input(now, room, RoomInput::Redirect { session, resume });
        }
        let ended_rooms: Vec<Key> = ended.iter().map(Membership::room).collect();
        for membership in ended {
            let room = self.rooms.get(membership.room()).map(|hosted| hosted.room().name());
            let is_named = room.is_some_and(|room| named.contains(room));
            // A client whose session was being admitted may not know that it may join, and joins
            // again.
            self.vacate(now, session, &membership, membership.is_seated() && !is_named);
        }
        for cursor in gone {
            let name = Name::new(&cursor.room).ok().filter(|name| {
                let known = self.rooms.named(name.as_str());
                resumed && !known.is_some_and(|room| ended_rooms.contains(&room))
            });
            let comes = name.is_some_and(|name| {
                let resume = Cursor { epoch: cursor.epoch, seq: cursor.seq };
                let way_in = WayIn { resume: Some(resume), history: 0, request: cursor.request };
                self.come_in(now, session, &name, way_in)
            });
            if !comes {
                self.left(now, key, &cursor.room, v1::LeftReason::Gone, Answered::Join(cursor.request));
            }
        }
    }
}
