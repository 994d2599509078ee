//! Sessions in the registry: from `Hello` to `Welcome`, and when another node takes one.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::{Event, Node, Output, inbound};
use crate::base::agenda::Booking;
use crate::base::id::{ConnId, Name, SessionId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Now};
use crate::hosting::RoomInput;
use crate::matchmaking::keys;
use crate::node::connections::UNAVAILABLE;
use crate::registrar::{Anew, Decision, SessionClaim};
use crate::session::{Session, SessionKey, replica_of, told};
use crate::wire;

/// Goodbye to a client whose session the registry refused to write.
const REFUSED: &str = "the registry of sessions refuses writes";

/// What a client is told whose session was in a registry that was restored or wiped.
const REPLACED: &str = "the registry of sessions was restored, wiped or replaced";

/// What a connection is told that is not its session's newest.
pub(super) const TAKEN_OVER: &str = "a newer connection of the player took over";

impl Node {
    pub(super) fn hello(&mut self, now: Now, key: Key, player: &Name, hello: v1::Hello) {
        let resume = hello.resume.as_ref();
        if resume.is_some_and(|resume| resume.rooms.len() > self.config.sessions.rooms) {
            let what = "a resume names more rooms than a session may be in";
            return self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
        }
        let named = resume.and_then(|resume| SessionId::from_wire(&resume.session));
        if let Err(wait) = self.logins.take(now.instant, player) {
            self.stats.logins_limited += 1;
            let what = "the player logs in too often (rates.logins): wait for retry_after_ms";
            return self.close_until(now, key, v1::Reason::RateLimited, what, wait);
        }
        // A session that this node has goes on without asking anybody.
        let existing = self
            .sessions
            .of_player(player)
            .filter(|existing| self.sessions.get(*existing).is_some_and(|session| Some(session.id) == named));
        let newest = resume.map_or(0, |resume| resume.epoch);
        // Only this node tells of the epoch with which it has registered the session anew;
        // but one between may be that of a node that had it before.
        let told = self.registrar.holds_session(player).map(told);
        match existing.and_then(|existing| Some((existing, self.sessions.get(existing)?.welcomed()))) {
            Some((session, welcomed)) if newest <= welcomed || Some(newest) == told => {
                return self.welcome(now, key, session, true, hello);
            }
            // It was on another node since, which is not known here yet.
            Some((session, _)) => self.replace_session(now, session, true),
            None => {}
        }
        self.connections.start_claiming(&mut self.bugs, key, hello);
        let fresh = SessionId(self.rng.bytes());
        if self.registrar.claim_session(now, token(key), player, named, fresh).is_err() {
            let what = "too many sessions wait for the registry";
            self.close(now, key, v1::Reason::Overloaded, what);
        }
    }

    /// Carries out what the registry has decided.
    pub(super) fn decide(&mut self, now: Now, decision: Decision) {
        match decision {
            Decision::Serving => {
                self.event(Event::Serving);
                self.serve_again(now);
            }
            Decision::NotServing => {
                self.stats.suspensions += 1;
                self.event(Event::NotServing);
            }
            Decision::Session { token, player, outcome } => {
                self.session_claimed(now, key_of(token), &player, &outcome);
            }
            Decision::SessionLost { player, epoch } => self.session_lost(now, &player, epoch),
            Decision::Room { room, outcome } => self.room_claimed(now, &room, &outcome),
            Decision::RoomLost { room, .. } => self.room_lost(now, &room),
            Decision::Anew { why } => self.begin_anew(now, why),
            Decision::NodeUp { id, record } => self.node_up(now, id, &record),
            Decision::NodeDown { id } => self.node_down(now, id),
        }
    }

    fn session_claimed(&mut self, now: Now, key: Key, player: &Name, outcome: &SessionClaim) {
        let hello = self.connections.take_hello(key);
        let SessionClaim::Granted { id, epoch, resumed, .. } = *outcome else {
            if !self.planted.is(Plant::UnknownIsFailure) {
                self.give_session_up(now, player);
            }
            let (message, retry_after) = match outcome {
                // It is known by then whether writes are taken again.
                SessionClaim::Refused => (REFUSED, self.config.registrar.write_check),
                _ => (UNAVAILABLE, Duration::ZERO),
            };
            return self.close_until(now, key, v1::Reason::Overloaded, message, retry_after);
        };
        let existing = self.sessions.of_player(player);
        let same = existing.filter(|key| self.sessions.get(*key).is_some_and(|session| session.id == id));
        if let (None, Some(existing)) = (same, existing) {
            self.replace_session(now, existing, false);
        }
        let session = match same {
            Some(session) => Some(session),
            None => self.sessions.insert(Session {
                id,
                player: player.clone(),
                epoch,
                registered: epoch,
                attached: 0,
                newest: 0,
                conn: None,
                expires: None,
                booking: Booking::default(),
                knocking: Vec::new(),
                excused: false,
                replica: replica_of(id),
                memberships: Vec::new(),
                turn: 0,
            }),
        };
        let Some(session) = session else {
            self.give_session_up(now, player);
            return self.close(
                now,
                key,
                v1::Reason::Overloaded,
                "the server has no place for another session",
            );
        };
        if same.is_some() {
            self.raise_epoch(now, session, epoch);
        }
        if same.is_none() {
            self.stats.detached += 1;
        }
        match hello {
            Some(hello) => self.welcome(now, key, session, resumed, hello),
            // The connection has gone meanwhile; the player may come back.
            None if same.is_none() => {
                self.start_expiry(now, session);
                self.arrive(now, player, epoch, None);
                self.lose(now, player);
            }
            None => {}
        }
    }

    /// Ends a session of which there is a newer one, or which `goes_on` from elsewhere.
    fn replace_session(&mut self, now: Now, session: SessionKey, goes_on: bool) {
        let old = self.sessions.get(session).and_then(|session| session.conn);
        self.end_local_session(now, session, v1::Reason::TakenOver, goes_on);
        if let Some(old) = old {
            self.stats.takeovers += 1;
            self.cut_off(now, old);
        }
    }

    /// A session that is here was claimed once more: whoever sequences its rooms must know
    /// of the epoch that it writes with from now on.
    fn raise_epoch(&mut self, now: Now, session: SessionKey, epoch: u64) {
        let Some(s) = self.sessions.get_mut(session) else {
            return self.bugs.found("the epoch rises of a session that is gone");
        };
        s.epoch = epoch;
        let rooms: Vec<Key> = s.memberships.iter().map(|membership| membership.room).collect();
        for room in rooms {
            self.room_input(now, room, RoomInput::Epoch { session, epoch });
        }
    }

    /// Opens a connection for a session and says so.
    fn welcome(&mut self, now: Now, key: Key, session: SessionKey, resumed: bool, hello: v1::Hello) {
        let conn = ConnId::from_key(key);
        let number = self.connections.number(key).unwrap_or(0);
        let Some(s) = self.sessions.get_mut(session) else {
            return self.bugs.found("a session that is gone is welcomed");
        };
        // Whoever has the session dials a connection when it has given up the one before,
        // whose `Hello` may be late.
        if number < s.newest {
            return self.close(now, key, v1::Reason::TakenOver, TAKEN_OVER);
        }
        let (id, player, replica) = (s.id, s.player.clone(), s.replica);
        let name = player.clone();
        let is_new = s.attached == 0 && !resumed;
        s.attach(number, self.registrar.holds_session(&player));
        let (registered, epoch) = (s.registered, s.welcomed());
        let old = s.conn.replace(conn);
        s.expires = None;
        self.stats.detached -= usize::from(old.is_none());
        if let Some(old) = old {
            self.stats.takeovers += 1;
            self.cut_off(now, old);
        }
        let (connections, mut cx) = self.connections(now);
        connections.open(&mut cx, key, session, hello.accept_zstd);
        self.event(if is_new {
            Event::SessionOpened { conn, player, epoch }
        } else {
            Event::SessionResumed { conn, player, epoch }
        });
        self.stats.resumes += u64::from(!is_new);
        let named = named_matches(&hello);
        self.arrive(now, &name, registered, resumed.then(|| named.clone()));
        self.set_present(now, session, true);
        let (mut seal_key, mut seal) = (Bytes::new(), None);
        if !hello.seal_key.is_empty() {
            let statik = if hello.seal_pinned { self.seal_key } else { None };
            if hello.seal_pinned && statik.is_none() {
                let what = "the server has no static key for sealing";
                return self.misbehaved(now, key, v1::Reason::Incompatible, what.into());
            }
            match wire::seal::answer(self.rng.bytes(), statik, &hello.seal_key, id.as_bytes()) {
                Ok((public, agreed)) => {
                    seal_key = Bytes::copy_from_slice(&public);
                    seal = Some(agreed);
                }
                Err(error) => {
                    return self.misbehaved(now, key, v1::Reason::ProtocolError, error.to_string());
                }
            }
        }
        let welcome = v1::Welcome {
            session: Bytes::copy_from_slice(id.as_bytes()),
            epoch,
            resumed,
            heartbeat_ms: inbound::millis(self.config.heartbeat.interval),
            session_ttl_ms: inbound::millis(self.config.sessions.ttl),
            tombstone_horizon_ms: inbound::millis(self.config.rooms.tombstone_horizon),
            limits: Some(self.limits()),
            seal_key,
            wall_ms: now.wall.0,
            replica,
            answers_pings: true,
        };
        self.connections.welcome(&mut self.bugs, key, &welcome, seal);
        if let Some(resume) = hello.resume {
            self.resume_rooms(now, key, session, resumed, &resume.rooms, &named);
        }
        for join in &hello.joins {
            self.join(now, key, session, join);
        }
        self.wake(key);
    }

    /// Another node has the session: nothing that comes here for it counts any more.
    pub(super) fn session_lost(&mut self, now: Now, player: &Name, epoch: u64) {
        let Some(key) = self.sessions.of_player(player) else { return };
        let Some(session) = self.sessions.get(key).filter(|session| session.epoch < epoch) else { return };
        let conn = session.conn;
        self.end_local_session(now, key, v1::Reason::TakenOver, true);
        if let Some(conn) = conn {
            self.stats.takeovers += 1;
            self.close(now, conn.key(), v1::Reason::TakenOver, TAKEN_OVER);
        }
    }

    /// The registry is not the one that it was: others may be given what is held here, so
    /// every room is closed and every session ends. Clients come back for new ones.
    fn begin_anew(&mut self, now: Now, why: Anew) {
        self.event(Event::Anew { why });
        if self.makes_matches() {
            self.desk.begin_anew(now);
        }
        for room in self.rooms.keys() {
            self.late_room_input(now, room, RoomInput::Close(v1::LeftReason::Gone));
        }
        for key in self.sessions.keys().collect::<Vec<_>>() {
            let conn = self.sessions.get(key).and_then(|session| session.conn);
            self.end_local_session(now, key, v1::Reason::RegistryReplaced, false);
            if let Some(conn) = conn {
                self.close(now, conn.key(), v1::Reason::RegistryReplaced, REPLACED);
            }
        }
    }

    /// Outputs what the registry is to be asked, and carries out what it has decided, until
    /// there is nothing more of either.
    pub(super) fn consult_registrar(&mut self, now: Now) {
        while let Some(decision) = self.registrar.poll_decision() {
            self.decide(now, decision);
        }
        while let Some(call) = self.registrar.poll_call() {
            self.outputs.push_back(Output::Registry(call));
        }
        self.reconsider_clock(now);
        self.consult_matchmaking(now);
    }
}

/// RoomTable of matches that a client is in or wants to be in.
fn named_matches(hello: &v1::Hello) -> Vec<Name> {
    let resumed = hello.resume.iter().flat_map(|resume| &resume.rooms).map(|cursor| &cursor.room);
    let named = resumed.chain(hello.joins.iter().map(|join| &join.room));
    named.filter(|room| keys::match_of(room).is_some()).filter_map(|room| Name::new(room).ok()).collect()
}

/// A connection as a token of the registrar, and back.
const fn token(key: Key) -> u64 {
    (key.slot as u64) << 32 | key.generation as u64
}

const fn key_of(token: u64) -> Key {
    Key { slot: (token >> 32) as u32, generation: token as u32 }
}
