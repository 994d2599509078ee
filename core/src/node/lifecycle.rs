//! Beginnings and ends of sessions and memberships.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::claims::TAKEN_OVER;
use super::{Event, Node, Timer, Trace};
use crate::base::id::{ConnId, Cursor, Name};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Now;
use crate::hosting::RoomInput;
use crate::session::{Joined, Membership, SessionKey};

impl Node {
    // Sessions.

    /// Fences a connection that was taken over: it is no connection of the session any
    /// more, so nothing that it still sends is written.
    pub(super) fn cut_off(&mut self, now: Now, old: ConnId) {
        self.close(now, old.key(), v1::Reason::TakenOver, TAKEN_OVER);
        if self.planted.is(Plant::OldConnectionWrites) {
            return;
        }
        self.connections.part_from_session(&mut self.bugs, old.key());
    }

    pub(super) fn detach(&mut self, now: Now, key: SessionKey, conn: ConnId, trace: Trace) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.conn == Some(conn)) else {
            return;
        };
        session.conn = None;
        self.stats.detached += 1;
        let player = session.player.clone();
        self.start_expiry(now, key);
        self.lose(now, &player);
        self.set_present(now, key, false);
        self.event(Event::ConnectionLost { conn, player, trace });
    }

    /// A session without a connection waits to be resumed, and not for ever.
    pub(super) fn start_expiry(&mut self, now: Now, key: SessionKey) {
        let expires = now.instant + self.config.sessions.ttl;
        let Some(session) = self.sessions.get_mut(key) else {
            return self.bugs.found("a session that is gone is to expire");
        };
        session.expires = Some(expires);
        session.excused = false;
        self.agenda.book(Timer::Session(key), &mut session.booking, expires);
    }

    /// Ends a session: it leaves its rooms and cannot be resumed.
    pub(super) fn end_session(&mut self, now: Now, key: SessionKey, reason: v1::Reason) {
        let Some(player) = self.sessions.get(key).map(|session| session.player.clone()) else {
            return self.bugs.found("a session that is gone is to end");
        };
        self.end_local_session(now, key, reason, false);
        self.give_session_up(now, &player);
    }

    /// Has the registry forget the session of a player who has none here any more. Whoever
    /// claims it at the moment gets it, or else gives it up.
    pub(super) fn give_session_up(&mut self, now: Now, player: &Name) {
        if self.sessions.of_player(player).is_none() && !self.registrar.claims_session(player) {
            self.registrar.release_session(now, player);
        }
    }

    /// Forgets a session; the registry does not hear of it. If it was `handed_over` to
    /// another node, or to a session that takes its place here, its memberships wait to be
    /// taken up there; else it leaves its rooms. The player's match goes on if another session
    /// of the player has taken over.
    pub(super) fn end_local_session(
        &mut self,
        now: Now,
        key: SessionKey,
        reason: v1::Reason,
        handed_over: bool,
    ) {
        let Some(session) = self.sessions.get_mut(key) else {
            return self.bugs.found("a session that is gone is to be forgotten");
        };
        let memberships = core::mem::take(&mut session.memberships);
        let goes_on = reason == v1::Reason::TakenOver;
        for membership in memberships {
            if handed_over {
                self.hand_over(now, key, &membership);
            } else {
                self.vacate(now, key, &membership, !goes_on);
            }
        }
        let Some(mut session) = self.sessions.remove(key) else {
            return self.bugs.found("a session vanished while it left its rooms");
        };
        self.agenda.cancel(Timer::Session(key), &mut session.booking);
        self.stats.detached -= usize::from(session.conn.is_none());
        if let Some(conn) = session.conn {
            self.connections.part_from_session(&mut self.bugs, conn.key());
        }
        self.depart(now, &session.player, handed_over || goes_on);
        self.event(Event::SessionEnded { player: session.player, reason });
    }

    // Memberships.

    /// The place of a room among the memberships of a session.
    pub(super) fn membership(&self, session: SessionKey, room: &str) -> Option<usize> {
        let named = |m: &Membership| self.rooms.get(m.room).is_some_and(|h| h.room().name().as_str() == room);
        self.sessions.get(session)?.memberships.iter().position(named)
    }

    /// Goes on with the rooms of a resumed session from the cursors that the client names.
    /// It is a member of those rooms and no others. Rooms that this node does not know of
    /// are those of a session that was on another. A room that is not among those `named`, with
    /// a cursor or to be joined, is left, and with it the match whose room it is.
    pub(super) fn resume_rooms(
        &mut self,
        now: Now,
        key: Key,
        session: SessionKey,
        resumed: bool,
        cursors: &[v1::RoomCursor],
        named: &[Name],
    ) {
        let memberships = match self.sessions.get_mut(session) {
            Some(session) if resumed => core::mem::take(&mut session.memberships),
            _ => Vec::new(),
        };
        let mut kept = Vec::new();
        let mut ended = Vec::new();
        let mut redirected = Vec::new();
        let mut gone: Vec<&v1::RoomCursor> = cursors.iter().collect();
        for mut membership in memberships {
            let Some(hosted) = self.rooms.get(membership.room) else {
                self.bugs.found("a session is in a room that is not in the table");
                continue;
            };
            let name = hosted.room().name().as_str();
            if membership.number == 0 {
                // On its way in: from where the client is now. Into a room that it does not
                // name it asks to be let in again, if it still wants to.
                let Some(cursor) = cursors.iter().find(|cursor| cursor.room == name) else {
                    ended.push(membership);
                    continue;
                };
                let resume = Cursor { epoch: cursor.epoch, seq: cursor.seq };
                redirected.push((membership.room, resume));
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
            // Nothing beyond what may be read was ever sent, so a larger number is a lie
            // that harms only who tells it.
            let late = u64::from(self.planted.is(Plant::ResumeOffByOne));
            membership.seq = (cursor.seq + late).min(hosted.room().released());
            membership.latest = 0;
            membership.change = hosted.room().state.change();
            membership.forgotten = hosted.room().state.forgotten();
            membership.joined = Some(Joined { resumed: true });
            // If nothing was delivered yet, the snapshot of the join may be lost too.
            membership.welcome_snapshot = cursor.seq <= membership.start;
            membership.acknowledge = false;
            membership.throttle = None;
            membership.throttled = None;
            kept.push(membership);
        }
        if let Some(session) = self.sessions.get_mut(session).filter(|_| resumed) {
            session.memberships = kept;
        }
        for (room, resume) in redirected {
            self.room_input(now, room, RoomInput::Redirect { session, resume });
        }
        let ended_rooms: Vec<Key> = ended.iter().map(|membership| membership.room).collect();
        for membership in ended {
            let room = self.rooms.get(membership.room).map(|hosted| hosted.room().name());
            let is_named = room.is_some_and(|room| named.contains(room));
            // Who was on its way in may not know that it may come, and comes again.
            self.vacate(now, session, &membership, membership.number > 0 && !is_named);
        }
        for cursor in gone {
            let name = Name::new(&cursor.room).ok().filter(|name| {
                let known = self.rooms.named(name.as_str());
                resumed && !known.is_some_and(|room| ended_rooms.contains(&room))
            });
            let comes = name.is_some_and(|name| {
                self.come_in(now, session, &name, Some(Cursor { epoch: cursor.epoch, seq: cursor.seq }), 0)
            });
            if !comes {
                self.left(now, key, &cursor.room, v1::LeftReason::Gone, false);
            }
        }
    }
}
