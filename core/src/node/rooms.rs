//! The rooms of a node: whose each is, and how sessions come in and go.
//!
//! A room that somebody here wants to be in is claimed in the registry. Either this node
//! is its primary then, or it follows the node that is ([`follower`](super::follower)).

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::retry::join_deadline;
use super::{Event, Node, Timer};
use crate::base::id::{Cursor, Name};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Now};
use crate::hosting::{Following, Hosted, Leading, Place, Role};
use crate::matchmaking::keys;
use crate::registrar::RoomClaim;
use crate::room::{Room, RoomConfig, Seat};
use crate::session::{Joined, Membership, SessionKey};

/// Who wants to come into a room.
pub(super) struct Entrant {
    pub(super) seat: Seat,
    pub(super) place: Place,
    pub(super) player: Name,
    pub(super) resume: bool,
}

/// How a member came into a room of which this node is the primary.
pub(super) struct Admitted {
    pub(super) number: u32,
    pub(super) resumed: bool,
    /// The last entry before it was a member, or the last there is if it was one.
    pub(super) before: u64,
}

impl Node {
    // Coming in.

    pub(super) fn join(&mut self, now: Now, key: Key, session: SessionKey, join: &v1::Join) {
        let Ok(name) = Name::new(&join.room) else {
            return self.left(now, key, &join.room, v1::LeftReason::BadName, false);
        };
        if let Some(at) = self.membership(session, &join.room) {
            // The client did not hear the answer to its first Join, or forgot.
            let membership = self.sessions.get_mut(session).and_then(|s| s.memberships.get_mut(at));
            if let Some(membership) = membership.filter(|membership| membership.number > 0) {
                membership.joined = Some(Joined { resumed: true });
                membership.welcome_snapshot = true;
            }
            return self.wake(key);
        }
        if !self.come_in(now, session, &name, None, join.history) {
            self.left(now, key, &join.room, v1::LeftReason::Limit, false);
        }
    }

    /// Starts a session's way into a room. False if there is no place.
    pub(super) fn come_in(
        &mut self,
        now: Now,
        session: SessionKey,
        name: &Name,
        resume: Option<Cursor>,
        history: u32,
    ) -> bool {
        let in_rooms = self.sessions.get(session).map_or(usize::MAX, |s| s.memberships.len());
        if in_rooms >= self.config.sessions.rooms {
            return false;
        }
        let Some(room) = self.open_room(now, name) else { return false };
        self.attempts += 1;
        let membership = Membership::new(room, self.attempts, resume, history, join_deadline(now));
        self.begin_entry(session, room, membership);
        match self.rooms.get(room).map(|hosted| &hosted.role) {
            Some(Role::Claiming(_)) | None => {}
            Some(Role::Leading(_)) => self.seat_waiting(now, room),
            Some(Role::Following(_)) => self.enter_waiting(now, room),
        }
        true
    }

    /// Puts a session on its way into a room.
    pub(super) fn begin_entry(&mut self, session: SessionKey, room: Key, membership: Membership) {
        let (Some(s), Some(hosted)) = (self.sessions.get_mut(session), self.rooms.get_mut(room)) else {
            return self.bugs.found("a session, or the room that it wants to be in, is gone");
        };
        // Most sessions are in one room: no place is kept for more.
        s.memberships.reserve_exact(1);
        s.memberships.push(Membership { room, ..membership });
        hosted.locals.push(session);
        hosted.waiting.push(session);
    }

    /// The room of this name, claimed if it is not there; `None` if there is no place.
    fn open_room(&mut self, now: Now, name: &Name) -> Option<Key> {
        if let Some(room) = self.rooms_by_name.get(name) {
            return Some(*room);
        }
        let room = self.place_room(name)?;
        if self.registrar.claim_room(now, name).is_err() {
            self.rooms.remove(room);
            self.rooms_by_name.remove(name);
            return None;
        }
        Some(room)
    }

    /// A room that nobody has claimed yet; `None` if there is no place.
    pub(super) fn place_room(&mut self, name: &Name) -> Option<Key> {
        let config = RoomConfig {
            limits: &self.config.rooms,
            compress_from: self.config.frames.compress_from,
            // A node that has not heard of a newer session serves for as long as its lease lasts.
            remember: self.config.sessions.ttl.max(self.config.registrar.node_ttl * 2),
            replica: self.rng.u64(),
            seed: self.rng.split(),
            planted: self.planted,
        };
        let hosted = Hosted::new(Room::new(name.clone(), 0, &config));
        let room = self.rooms.insert(hosted)?;
        self.rooms_by_name.insert(name.clone(), room);
        Some(room)
    }

    /// The registry has said whose a room is.
    pub(super) fn room_claimed(&mut self, now: Now, name: &Name, outcome: &RoomClaim) {
        let room = self.rooms_by_name.get(name).copied();
        let hosted = room.and_then(|room| Some((room, self.rooms.get_mut(room)?)));
        let is_claimed = |hosted: &Hosted| matches!(hosted.role, Role::Claiming(_));
        let Some((room, hosted)) = hosted.filter(|(_, hosted)| is_claimed(hosted)) else {
            // Nobody waits for it any more.
            if matches!(outcome, RoomClaim::Primary { .. }) && room.is_none() {
                self.registrar.release_room(now, name);
            }
            return;
        };
        match *outcome {
            RoomClaim::Primary { epoch } => {
                let epoch = if self.planted.is(Plant::EpochReused) { 1 } else { epoch };
                let before = core::mem::replace(&mut hosted.role, Role::Leading(Leading::default()));
                hosted.room.start(epoch);
                self.event(Event::RoomOpened { room: name.clone(), epoch });
                self.host(now, name);
                self.answer_early(now, before);
                self.seat_waiting(now, room);
            }
            RoomClaim::Elsewhere { node, epoch } => {
                hosted.room.start(epoch);
                let following = Role::Following(Following::new(node, now.instant + ATTACH_TIMEOUT));
                let before = core::mem::replace(&mut hosted.role, following);
                self.follow(now, room, node);
                self.answer_early(now, before);
            }
            RoomClaim::Unavailable => self.close_room(now, room, v1::LeftReason::Gone),
        }
    }

    /// Lets everybody in who waits for a room of which this node is the primary.
    pub(super) fn seat_waiting(&mut self, now: Now, room: Key) {
        if !self.registrar.may_serve(now.instant) {
            return;
        }
        // Members whose time was over may have been its last.
        let Some(hosted) = self.rooms.get_mut(room) else { return };
        if self.desk.awaits_places(hosted.room.name()) {
            return;
        }
        for key in core::mem::take(&mut hosted.waiting) {
            self.seat(now, room, key);
        }
        self.close_if_idle(now, room);
    }

    fn seat(&mut self, now: Now, room: Key, key: SessionKey) {
        // An entrant before this one may have ended another session of its player.
        let Some(session) = self.sessions.get(key) else { return };
        let Some(wish) = session.memberships.iter().find(|m| m.room == room).map(|m| m.entry) else { return };
        let conn = session.conn;
        let epoch = self.rooms.get(room).map_or(0, |hosted| hosted.room.epoch());
        if wish.resume.is_some_and(|cursor| cursor.epoch != epoch) {
            return self.expel(now, room, key, v1::LeftReason::Gone);
        }
        let entrant = Entrant {
            seat: Seat { session: session.id, epoch: session.epoch },
            place: Place::Here(key),
            player: session.player.clone(),
            resume: wish.resume.is_some(),
        };
        let admitted = self.admit_member(now, room, entrant);
        let (Some(session), Some(hosted)) = (self.sessions.get_mut(key), self.rooms.get_mut(room)) else {
            return self.bugs.found("a session, or its room, vanished while it came in");
        };
        match admitted {
            Ok(Admitted { number, resumed, before }) => {
                let start = before.saturating_sub(wish.history.into()).max(hosted.room.log().first() - 1);
                let seq = wish.resume.map_or(start, |cursor| cursor.seq.min(hosted.room.released()));
                let forgotten = hosted.room.state.forgotten();
                if let Some(membership) = session.memberships.iter_mut().find(|m| m.room == room) {
                    membership.begin(number, seq, resumed, forgotten);
                }
                let (player, name) = (session.player.clone(), hosted.room.name().clone());
                if let Some(conn) = conn {
                    self.wake(conn.key());
                }
                self.join_match(now, &player, &name);
            }
            Err(reason) => self.expel(now, room, key, reason),
        }
    }

    /// Makes somebody a member of a room of which this node is the primary, or lets him
    /// go on as the one he was.
    pub(super) fn admit_member(
        &mut self,
        now: Now,
        room: Key,
        entrant: Entrant,
    ) -> Result<Admitted, v1::LeftReason> {
        self.end_other_sessions(now, room, &entrant)?;
        let Self { rooms, zstd, config, stats, desk, bugs, .. } = self;
        let Some(hosted) = rooms.get_mut(room) else {
            bugs.found("a room vanished while somebody came in");
            return Err(v1::LeftReason::Gone);
        };
        let Entrant { seat, place, player, resume } = entrant;
        let members = hosted.room.members();
        let kept = desk.kept_from(hosted.room.name(), &player, members.iter().map(|member| &member.player));
        let is_full = members.len() + kept >= config.rooms.members;
        let known = hosted.room.members().iter().find(|member| member.seat.session == seat.session);
        let known = known.map(|member| (member.number, member.seat));
        let admitted = match known {
            // A newer connection of the session is known already. Who asks will hear of that
            // from the registry, or may ask again when the other has gone.
            Some((_, old)) if old.epoch > seat.epoch => return Err(v1::LeftReason::Gone),
            Some((number, old)) => {
                if old != seat {
                    hosted.room.seat(now, number, seat, zstd);
                }
                let before = hosted.leading().and_then(|leading| leading.place_of(number));
                hosted.place(number, place);
                let admitted = Admitted { number, resumed: true, before: hosted.room.released() };
                if let Some(Place::Here(key)) = before.filter(|before| *before != place) {
                    self.drop_membership(key, room);
                }
                admitted
            }
            None if resume => return Err(v1::LeftReason::Gone),
            None if is_full => return Err(v1::LeftReason::RoomFull),
            None => {
                let Some(number) = hosted.room.join(now, player.clone(), seat, zstd) else {
                    bugs.found("a join makes nobody a member");
                    return Err(v1::LeftReason::Gone);
                };
                hosted.place(number, place);
                stats.members += 1;
                Admitted { number, resumed: false, before: hosted.room.log().head() - 1 }
            }
        };
        self.set_present_in(now, room, &player, true);
        self.release(room);
        self.note_room(now, room);
        Ok(admitted)
    }

    /// A player has one session: memberships of older ones that nobody has ended yet are
    /// over, and an older one cannot come in behind a newer.
    fn end_other_sessions(&mut self, now: Now, room: Key, entrant: &Entrant) -> Result<(), v1::LeftReason> {
        // The session that was lost to the entrant may have been all that kept the room.
        let Some(hosted) = self.rooms.get(room) else { return Err(v1::LeftReason::Gone) };
        let seat = entrant.seat;
        let others = hosted
            .room
            .members()
            .iter()
            .filter(|member| member.player == entrant.player && member.seat.session != seat.session);
        let others: Vec<(u32, Seat)> = others.map(|member| (member.number, member.seat)).collect();
        let is_older = hosted.room.has_outlived(now, &entrant.player, seat.epoch);
        if is_older || others.iter().any(|(_, other)| other.epoch > seat.epoch) {
            return Err(v1::LeftReason::Gone);
        }
        for (number, _) in others {
            let leading = self.rooms.get(room).and_then(Hosted::leading);
            let place = leading.and_then(|leading| leading.place_of(number));
            if let Some(Place::Here(key)) = place {
                self.expel(now, room, key, v1::LeftReason::Gone);
            }
            self.remove_member(now, room, number);
        }
        Ok(())
    }

    // Going.

    pub(super) fn leave(&mut self, now: Now, key: Key, session: SessionKey, room: &str) {
        let membership = self.membership(session, room);
        let Some(s) = self.sessions.get_mut(session) else {
            return self.bugs.found("a session that is gone leaves a room");
        };
        let player = s.player.clone();
        let left = membership.map(|at| s.memberships.remove(at));
        if let Some(membership) = &left {
            self.vacate(now, session, membership, false);
        }
        if self.leave_match(now, &player, room, left.is_some()) {
            return;
        }
        let reason = if left.is_some() { v1::LeftReason::Asked } else { v1::LeftReason::NotAMember };
        // A match that nobody looks after here may go on.
        let is_known = !self.makes_matches() || keys::match_of(room).is_none();
        let answers = is_known || self.planted.is(Plant::LeaveUnheard);
        self.left(now, key, room, reason, answers);
    }

    /// A membership that a session had is over. If the room is a match's and the player is out
    /// of that, `ends_match`.
    pub(super) fn vacate(
        &mut self,
        now: Now,
        session: SessionKey,
        membership: &Membership,
        ends_match: bool,
    ) {
        let room = membership.room;
        let (Some(s), Some(hosted)) = (self.sessions.get(session), self.rooms.get_mut(room)) else {
            return self.bugs.found("a session that is gone, or is in a room that is, leaves it");
        };
        let (player, epoch) = (s.player.clone(), s.epoch);
        let name = hosted.room.name().clone();
        hosted.forget_local(session);
        if ends_match && self.makes_matches() {
            self.desk.leave_match(now, &player, &name);
        }
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room vanished while it was left");
        };
        if membership.number > 0 {
            match &hosted.role {
                Role::Leading(_) => self.remove_member(now, room, membership.number),
                Role::Following(following) => {
                    let primary = following.primary();
                    self.set_present_in(now, room, &player, false);
                    self.exit(now, room, primary, membership.number, epoch, false);
                }
                Role::Claiming(_) => {}
            }
        }
        self.close_if_idle(now, room);
    }

    /// A session went to another node: its memberships there go on as if it were away.
    pub(super) fn hand_over(&mut self, now: Now, session: SessionKey, membership: &Membership) {
        let room = membership.room;
        let (Some(s), Some(hosted)) = (self.sessions.get(session), self.rooms.get_mut(room)) else {
            return self.bugs.found("a session that is gone, or is in a room that is, is handed over");
        };
        let (player, epoch) = (s.player.clone(), s.epoch);
        hosted.forget_local(session);
        if membership.number > 0 {
            match &hosted.role {
                Role::Leading(_) => self.set_away(now, room, membership.number),
                Role::Following(following) => {
                    let primary = following.primary();
                    self.exit(now, room, primary, membership.number, epoch, true);
                }
                Role::Claiming(_) => {}
            }
            self.set_present_in(now, room, &player, false);
        }
        self.close_if_idle(now, room);
    }

    /// A member's session is nowhere that is known: it is kept for as long as sessions are.
    pub(super) fn set_away(&mut self, now: Now, room: Key, number: u32) {
        let until = now.instant + self.config.sessions.ttl;
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a member is away of a room that is not in the table");
        };
        hosted.place(number, Place::Away(until));
        self.book_room(room);
    }

    /// Takes a member out of a room of which this node is the primary. While it may not
    /// serve, the member is only marked, and goes when it may again.
    pub(super) fn remove_member(&mut self, now: Now, room: Key, number: u32) {
        let serves = self.registrar.may_serve(now.instant);
        let Self { rooms, zstd, stats, .. } = self;
        let Some(hosted) = rooms.get_mut(room) else {
            return self.bugs.found("a member goes of a room that is not in the table");
        };
        let Some(member) = hosted.room.member(number) else {
            // Else whoever waits for it to go would wait for ever.
            hosted.forget_place(number);
            return self.bugs.found("somebody goes who is no member");
        };
        let player = member.player.clone();
        if !serves {
            hosted.place(number, Place::Away(now.instant));
            return self.book_room(room);
        }
        hosted.forget_place(number);
        if hosted.room.state.set_present(now, player.as_str(), false).is_err() {
            stats.state_full += 1;
        }
        hosted.room.leave(now, number, zstd);
        stats.members -= 1;
        self.release(room);
        self.book_room(room);
        self.note_room(now, room);
    }

    /// Ends the memberships of those who were away for too long.
    pub(super) fn expire_away(&mut self, now: Now, room: Key) {
        while let Some(hosted) = self.rooms.get_mut(room)
            && let Some((until, number)) = hosted.leading().and_then(Leading::next_expiry)
            && until <= now.instant
            && self.registrar.may_serve(now.instant)
        {
            self.stats.expiries += 1;
            let name = hosted.room.name().clone();
            let player = hosted.room.member(number).map(|member| member.player.clone());
            self.remove_member(now, room, number);
            if let Some(player) = player.filter(|_| self.makes_matches()) {
                self.desk.expire_match(now, &player, &name);
            }
        }
        self.close_if_idle(now, room);
    }

    /// Forgets what a session knows of a room, without a word to anybody.
    pub(super) fn drop_membership(&mut self, session: SessionKey, room: Key) {
        if let Some(session) = self.sessions.get_mut(session) {
            session.memberships.retain(|membership| membership.room != room);
        }
        if let Some(hosted) = self.rooms.get_mut(room) {
            hosted.forget_local(session);
        }
    }

    /// Ends the membership of a session of this node, and tells it why.
    pub(super) fn expel(&mut self, now: Now, room: Key, session: SessionKey, reason: v1::LeftReason) {
        let Some(name) = self.rooms.get(room).map(|hosted| hosted.room.name().clone()) else {
            return self.bugs.found("a session is expelled from a room that is not in the table");
        };
        self.drop_membership(session, room);
        if let Some(conn) = self.sessions.get(session).and_then(|session| session.conn) {
            self.left(now, conn.key(), name.as_str(), reason, false);
        }
    }

    // The end of a room.

    /// A room that nobody is in is closed.
    pub(super) fn close_if_idle(&mut self, now: Now, room: Key) {
        if self.rooms.get(room).is_some_and(Hosted::is_idle) {
            self.close_room(now, room, v1::LeftReason::Gone);
        }
    }

    /// Closes a room here: it was left by all, or is another's now.
    pub(super) fn close_room(&mut self, now: Now, room: Key, reason: v1::LeftReason) {
        let Some(hosted) = self.rooms.get_mut(room) else {
            return self.bugs.found("a room that is not in the table is to be closed");
        };
        for session in core::mem::take(&mut hosted.locals) {
            self.expel(now, room, session, reason);
        }
        let Some(mut hosted) = self.rooms.remove(room) else {
            return self.bugs.found("a room vanished while it was closed");
        };
        self.agenda.cancel(Timer::Room(room), &mut hosted.booking);
        self.rooms_by_name.remove(hosted.room.name());
        let (name, epoch) = (hosted.room.name().clone(), hosted.room.epoch());
        match hosted.role {
            Role::Claiming(claiming) => self.refuse_early(now, &name, claiming.finish()),
            Role::Leading(_) => {
                self.stats.members -= hosted.room.members().len();
                for link in hosted.readers {
                    self.exited(now, link, &name, epoch, 0, reason);
                    if let Some(link) = self.links.get_mut(link) {
                        link.forget(room);
                    }
                }
                self.registrar.release_room(now, &name);
                self.desk.unhost(&name);
                self.event(Event::RoomClosed { room: name, epoch });
            }
            Role::Following(following) => self.unfollow(now, room, &name, epoch, following.primary()),
        }
    }

    /// Another node is the primary of a room now, or nobody knows of it any more.
    pub(super) fn room_lost(&mut self, now: Now, name: &Name) {
        let Some(&room) = self.rooms_by_name.get(name) else { return };
        if self.rooms.get(room).is_some_and(Hosted::is_primary) {
            self.stats.rooms_lost += 1;
            self.room_over(now, room, v1::LeftReason::Gone);
        }
    }

    /// The leases live again: what waited for that goes on.
    pub(super) fn serve_again(&mut self, now: Now) {
        for room in self.rooms.keys().collect::<Vec<_>>() {
            if self.rooms.get(room).is_some_and(Hosted::is_primary) {
                self.attach_again(now, room);
                self.expire_away(now, room);
                self.seat_waiting(now, room);
                self.book_room(room);
            }
        }
    }
}

/// How long sessions wait for the tail of a room before they are told that it is gone, and
/// try again. Half of what a client waits for the answer to its resume, before it takes the
/// connection for a dead one: one room that cannot be had must not keep it from the others.
pub(super) const ATTACH_TIMEOUT: Duration = Duration::from_secs(5);
