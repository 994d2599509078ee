//! How connections, sessions and memberships begin and end.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::{Event, Hosted, Identity, Node, Output, Timer, Trace, inbound};
use crate::agenda::Booking;
use crate::connection::{Admitted, Phase};
use crate::id::{ConnId, Name, SessionId};
use crate::plant::Plant;
use crate::room::{Room, RoomConfig};
use crate::session::{Joined, Membership, Session, SessionKey};
use crate::slab::Key;
use crate::time::Now;
use crate::wire;

impl Node {
    // Connections.

    pub(super) fn admit(&mut self, key: Key, identity: Identity) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Phase::Upgrading { until } = connection.phase else { return };
        connection.trace = identity.trace;
        let identity = Box::new(Admitted { player: identity.player, token: identity.token });
        connection.phase = Phase::Greeting { until, identity };
    }

    /// The peer broke the protocol or its limits: says how, and closes the connection.
    pub(super) fn misbehaved(&mut self, now: Now, key: Key, reason: v1::Reason, what: String) {
        if self.connections.get(key).is_none_or(|connection| connection.is_closing()) {
            return;
        }
        self.stats.protocol_errors += 1;
        self.close(now, key, reason, &what);
        self.event(Event::Misbehaved { conn: ConnId::from_key(key), what });
    }

    /// Starts to close a connection. Its input is ignored from now on. Its session, if it
    /// still is the newest connection of one, loses it when the connection is gone.
    pub(super) fn close(&mut self, now: Now, key: Key, reason: v1::Reason, message: &str) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.is_closing() {
            return;
        }
        self.stats.unauthenticated -= usize::from(connection.is_unauthenticated());
        self.stats.closing += 1;
        let retry_after = match reason {
            v1::Reason::Draining => self.draining.unwrap_or_default(),
            _ => crate::time::Duration::ZERO,
        };
        let goodbye = v1::Goodbye {
            reason: reason.into(),
            message: message.into(),
            retry_after_ms: inbound::millis(retry_after),
        };
        let owed = reason == v1::Reason::Draining && connection.is_open();
        connection.start_closing(now.instant + self.config.connections.linger, Some(goodbye), owed);
        connection.woken = true;
        self.outputs.push_back(Output::Close(ConnId::from_key(key), reason));
        self.book_connection(key);
    }

    /// The connection is gone; its session, if it was the newest connection of one, waits
    /// to be resumed.
    pub(super) fn forget_connection(&mut self, now: Now, key: Key) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.agenda.cancel(Timer::Connection(key), &mut connection.booking);
        self.stats.unauthenticated -= usize::from(connection.is_unauthenticated());
        self.stats.closing -= usize::from(connection.is_closing());
        let unhealthy = connection.heartbeat.missed() >= self.config.heartbeat.unhealthy_after;
        self.stats.unhealthy -= usize::from(unhealthy);
        if let Some(count) = self.by_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&connection.address);
            }
        }
        if let Some(session) = connection.session {
            self.detach(now, session, ConnId::from_key(key), connection.trace);
        }
    }

    // Sessions.

    /// The session for the player of a connection that says `Hello`: the one it names, if
    /// it is there (true), else a new one (false). Whatever connection the player had is
    /// closed; a session of the player that was not named ends. `None` if there is no
    /// place for another.
    pub(super) fn take_session(
        &mut self,
        now: Now,
        key: Key,
        named: Option<SessionId>,
    ) -> Option<(SessionKey, bool)> {
        let player = self.connections.get(key)?.player()?;
        let existing = self.sessions.of_player(&player);
        let existing = existing.and_then(|key| Some((key, self.sessions.get(key)?)));
        let existing = existing.map(|(key, session)| (key, session.id, session.conn, session.epoch));
        let mut epoch = 1;
        let mut resumed = None;
        if let Some((session, id, conn, last_epoch)) = existing {
            epoch = last_epoch + 1;
            if named == Some(id) {
                resumed = Some(session);
            } else {
                self.end_session(now, session, v1::Reason::TakenOver);
            }
            if let Some(old) = conn {
                self.stats.takeovers += 1;
                self.cut_off(now, old);
            }
        }
        let conn = ConnId::from_key(key);
        let session = match resumed {
            Some(session) => {
                self.attach(now, session, conn, epoch);
                session
            }
            None => self.sessions.insert(Session {
                id: SessionId(self.rng.bytes()),
                player: player.clone(),
                epoch,
                conn: Some(conn),
                expires: None,
                booking: Booking::default(),
                replica: self.rng.u64(),
                memberships: Vec::new(),
                turn: 0,
            })?,
        };
        let connection = self.connections.get_mut(key)?;
        connection.phase = Phase::Open;
        connection.session = Some(session);
        connection.heartbeat =
            crate::heartbeat::Heartbeat::new(&self.config.heartbeat, now.instant, &mut self.rng);
        self.stats.unauthenticated -= 1;
        self.book_connection(key);
        self.event(match resumed {
            Some(_) => Event::SessionResumed { conn, player, epoch },
            None => Event::SessionOpened { conn, player, epoch },
        });
        Some((session, resumed.is_some()))
    }

    /// Fences a connection that was taken over: it is no connection of the session any
    /// more, so nothing that it still sends is written.
    fn cut_off(&mut self, now: Now, old: ConnId) {
        self.close(now, old.key(), v1::Reason::TakenOver, "a newer connection of the player took over");
        if self.planted.is(Plant::OldConnectionWrites) {
            return;
        }
        if let Some(connection) = self.connections.get_mut(old.key()) {
            connection.session = None;
        }
    }

    fn attach(&mut self, now: Now, key: SessionKey, conn: ConnId, epoch: u64) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.epoch = epoch;
        self.stats.detached -= usize::from(session.conn.is_none());
        self.stats.resumes += 1;
        session.conn = Some(conn);
        session.expires = None;
        self.set_present(now, key, true);
    }

    fn detach(&mut self, now: Now, key: SessionKey, conn: ConnId, trace: Trace) {
        let Some(session) = self.sessions.get_mut(key).filter(|session| session.conn == Some(conn)) else {
            return;
        };
        let expires = now.instant + self.config.sessions.ttl;
        session.conn = None;
        session.expires = Some(expires);
        self.stats.detached += 1;
        self.agenda.book(Timer::Session(key), &mut session.booking, expires);
        let player = session.player.clone();
        self.set_present(now, key, false);
        self.event(Event::ConnectionLost { conn, player, trace });
    }

    /// Ends a session: it leaves its rooms and cannot be resumed.
    pub(super) fn end_session(&mut self, now: Now, key: SessionKey, reason: v1::Reason) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let memberships = core::mem::take(&mut session.memberships);
        for membership in memberships {
            self.leave_room(now, key, &membership);
        }
        let Some(mut session) = self.sessions.remove(key) else { return };
        self.agenda.cancel(Timer::Session(key), &mut session.booking);
        self.stats.detached -= usize::from(session.conn.is_none());
        if let Some(connection) = session.conn.and_then(|conn| self.connections.get_mut(conn.key())) {
            connection.session = None;
        }
        self.event(Event::SessionEnded { player: session.player, reason });
    }

    // Memberships.

    /// The place of a room among the memberships of a session.
    pub(super) fn membership(&self, session: SessionKey, room: &str) -> Option<usize> {
        let named = |m: &Membership| self.rooms.get(m.room).is_some_and(|h| h.room.name().as_str() == room);
        self.sessions.get(session)?.memberships.iter().position(named)
    }

    /// Tells a client that it is not in a room.
    pub(super) fn left(&mut self, now: Now, key: Key, room: String, reason: v1::LeftReason) {
        let left = v1::Left { room, reason: reason.into() };
        self.answer(now, key, wire::encode(v1::Kind::Left, &v1::Metadata::default(), &left));
    }

    pub(super) fn join(&mut self, now: Now, key: Key, session: SessionKey, join: &v1::Join) {
        let Ok(name) = Name::new(&join.room) else {
            let shown = join.room.chars().take(crate::id::MAX_NAME).collect();
            return self.left(now, key, shown, v1::LeftReason::BadName);
        };
        if let Some(at) = self.membership(session, &join.room) {
            // The client did not hear the answer to its first Join, or forgot.
            let membership = self.sessions.get_mut(session).and_then(|s| s.memberships.get_mut(at));
            if let Some(membership) = membership {
                membership.joined = Some(Joined { resumed: true });
                membership.welcome_snapshot = true;
            }
            return self.wake(key);
        }
        let Some((player, in_rooms)) =
            self.sessions.get(session).map(|s| (s.player.clone(), s.memberships.len()))
        else {
            return;
        };
        if in_rooms >= self.config.sessions.rooms {
            return self.left(now, key, join.room.clone(), v1::LeftReason::Limit);
        }
        let Some(room) = self.open_room(&name) else {
            return self.left(now, key, join.room.clone(), v1::LeftReason::Limit);
        };
        let Self { rooms, sessions, zstd, config, stats, .. } = self;
        let Some(hosted) = rooms.get_mut(room) else { return };
        if hosted.room.members().len() >= config.rooms.members {
            return self.left(now, key, join.room.clone(), v1::LeftReason::RoomFull);
        }
        let number = hosted.room.join(now.wall, player, session, zstd);
        let forgotten = hosted.room.state.forgotten();
        let before = hosted.room.log().head() - 1;
        let seq = before.saturating_sub(join.history.into()).max(hosted.room.log().first() - 1);
        if let Some(session) = sessions.get_mut(session) {
            session.memberships.push(Membership::new(room, number, seq, forgotten));
        }
        stats.members += 1;
        self.set_present_in(now, room, session, true);
        self.release(room);
    }

    pub(super) fn leave(&mut self, now: Now, key: Key, session: SessionKey, room: &str) {
        let reason = match self.membership(session, room) {
            Some(at) => {
                if let Some(s) = self.sessions.get_mut(session) {
                    let membership = s.memberships.remove(at);
                    self.leave_room(now, session, &membership);
                }
                v1::LeftReason::Asked
            }
            None => v1::LeftReason::NotAMember,
        };
        let shown = room.chars().take(crate::id::MAX_NAME).collect();
        self.left(now, key, shown, reason);
    }

    /// Goes on with the rooms of a resumed session from the cursors that the client names.
    /// It is a member of those rooms and no others.
    pub(super) fn resume_rooms(
        &mut self,
        now: Now,
        key: Key,
        session: SessionKey,
        resumed: bool,
        cursors: &[v1::RoomCursor],
    ) {
        let memberships = match self.sessions.get_mut(session) {
            Some(session) if resumed => core::mem::take(&mut session.memberships),
            _ => Vec::new(),
        };
        let mut kept = Vec::new();
        for mut membership in memberships {
            let Some(hosted) = self.rooms.get(membership.room) else { continue };
            let (room, epoch) = (hosted.room.name().as_str(), hosted.room.epoch());
            let cursor = cursors.iter().find(|cursor| cursor.room == room && cursor.epoch == epoch);
            let Some(cursor) = cursor else {
                self.leave_room(now, session, &membership);
                continue;
            };
            // Nothing beyond what may be read was ever sent, so a larger number is a lie
            // that harms only who tells it.
            let late = u64::from(self.planted.is(Plant::ResumeOffByOne));
            membership.seq = (cursor.seq + late).min(hosted.room.released());
            membership.latest = 0;
            membership.change = hosted.room.state.change();
            membership.forgotten = hosted.room.state.forgotten();
            membership.joined = Some(Joined { resumed: true });
            // If nothing was delivered yet, the snapshot of the join may be lost too.
            membership.welcome_snapshot = cursor.seq <= membership.start;
            membership.acknowledge = false;
            membership.throttle = None;
            membership.throttled = None;
            kept.push(membership);
        }
        let gone = |cursor: &&v1::RoomCursor| {
            !kept
                .iter()
                .any(|m| self.rooms.get(m.room).is_some_and(|h| h.room.name().as_str() == cursor.room))
        };
        let gone: Vec<String> = cursors.iter().filter(gone).map(|cursor| cursor.room.clone()).collect();
        if let Some(session) = self.sessions.get_mut(session).filter(|_| resumed) {
            session.memberships = kept;
        }
        for room in gone {
            self.left(now, key, room.chars().take(crate::id::MAX_NAME).collect(), v1::LeftReason::Gone);
        }
    }

    /// The room of this name, made if it is not there; `None` if there is no place.
    fn open_room(&mut self, name: &Name) -> Option<Key> {
        if let Some(room) = self.rooms_by_name.get(name) {
            return Some(*room);
        }
        let epoch = self.incarnation + self.epochs;
        let config = RoomConfig {
            limits: &self.config.rooms,
            compress_from: self.config.frames.compress_from,
            replica: self.rng.u64(),
            seed: self.rng.split(),
            planted: self.planted,
        };
        let hosted = Hosted { room: Room::new(name.clone(), epoch, &config), booking: Booking::default() };
        let room = self.rooms.insert(hosted)?;
        self.epochs += u64::from(!self.planted.is(Plant::EpochReused));
        self.rooms_by_name.insert(name.clone(), room);
        self.event(Event::RoomOpened { room: name.clone(), epoch });
        Some(room)
    }

    /// Takes a membership out of its room, which is closed with its last member.
    fn leave_room(&mut self, now: Now, session: SessionKey, membership: &Membership) {
        self.set_present_in(now, membership.room, session, false);
        let Self { rooms, zstd, stats, .. } = self;
        let Some(hosted) = rooms.get_mut(membership.room) else { return };
        hosted.room.leave(now, membership.number, zstd);
        stats.members -= 1;
        if !hosted.room.members().is_empty() {
            self.release(membership.room);
            return self.book_room(membership.room);
        }
        let Some(mut hosted) = self.rooms.remove(membership.room) else { return };
        self.agenda.cancel(Timer::Room(membership.room), &mut hosted.booking);
        self.rooms_by_name.remove(hosted.room.name());
        self.event(Event::RoomClosed { room: hosted.room.name().clone(), epoch: hosted.room.epoch() });
    }

    // Presence: who is connected.

    fn set_present(&mut self, now: Now, session: SessionKey, present: bool) {
        let Some(rooms) =
            self.sessions.get(session).map(|s| s.memberships.iter().map(|m| m.room).collect::<Vec<_>>())
        else {
            return;
        };
        for room in rooms {
            self.set_present_in(now, room, session, present);
            self.room_changed(now, room);
        }
    }

    fn set_present_in(&mut self, now: Now, room: Key, session: SessionKey, present: bool) {
        let (Some(session), Some(hosted)) = (self.sessions.get(session), self.rooms.get_mut(room)) else {
            return;
        };
        if hosted.room.state.set_present(now, session.player.as_str(), present).is_err() {
            self.stats.state_full += 1;
        }
        self.book_room(room);
    }
}
