//! The handshake of a client: from `Hello`, over the claim of the session, to `Welcome`.

use alloc::string::ToString as _;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::{Event, Node, inbound};
use crate::base::id::{ConnId, DialNumber, Name, SessionId};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Now};
use crate::hosting::RoomInput;
use crate::matchmaking::keys;
use crate::node::connections::UNAVAILABLE;
use crate::node::sessions::{Attachment, Known, Newcomer};
use crate::registrar::SessionClaim;
use crate::wire;

/// Text of the `Goodbye` to a client whose session the registry refused to write.
const REFUSED: &str = "the registry of sessions refuses writes";

/// Text of the `Goodbye` to a connection whose rooms another node has taken over for a moment.
const CLAIMED_ELSEWHERE: &str = "the session was claimed for an older connection meanwhile: resume it";

/// Text of the `Goodbye` to a connection that is not the newest of its session.
pub(super) const TAKEN_OVER: &str = "a newer connection of the player took over";

impl Node {
    pub(super) fn hello(&mut self, now: Now, key: Key, player: &Name, hello: v1::Hello) {
        let resume = hello.resume.as_ref();
        if resume.is_some_and(|resume| resume.rooms.len() > self.config.sessions.rooms) {
            let what = "a resume names more rooms than a session may be in";
            return self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
        }
        let named = resume.and_then(|resume| SessionId::from_wire(&resume.session));
        if let Err(wait) = self.sessions.take_login(now.instant, player) {
            let what = "the player logs in too often (rates.logins): wait for retry_after_ms";
            return self.close_until(now, key, v1::Reason::RateLimited, what, wait);
        }
        let newest = resume.map_or(0, |resume| resume.epoch);
        let dial = dial_of(&hello);
        if self.sessions.had_newer(player, dial) && !self.planted.is(Plant::DialUncompared) {
            // The client dials only after it has given up its last connection.
            return self.close(now, key, v1::Reason::TakenOver, TAKEN_OVER);
        }
        let registered = self.registrar.holds_session(player);
        match self.sessions.find(player, named, newest, registered) {
            Known::Here(session) => return self.welcome(now, key, session, true, hello),
            Known::Outdated(session) => self.replace_session(now, session, true),
            Known::No => {}
        }
        self.connections.start_claiming(&mut self.bugs, key, hello);
        let fresh = SessionId(self.rng.bytes());
        if self.registrar.claim_session(now, token(key), player, named, fresh, dial).is_err() {
            let what = "too many sessions wait for the registry";
            self.close(now, key, v1::Reason::Overloaded, what);
        }
    }

    pub(super) fn session_claimed(&mut self, now: Now, key: Key, player: &Name, outcome: &SessionClaim) {
        let hello = self.connections.take_hello(key);
        let SessionClaim::Granted { id, epoch, resumed, .. } = *outcome else {
            if !self.planted.is(Plant::UnknownIsFailure) {
                self.give_session_up(now, player);
            }
            if *outcome == SessionClaim::Superseded {
                return self.close(now, key, v1::Reason::TakenOver, TAKEN_OVER);
            }
            let (message, retry_after) = match outcome {
                // By then the next check has shown if the registry accepts writes again.
                SessionClaim::Refused => (REFUSED, self.config.registrar.write_check),
                _ => (UNAVAILABLE, Duration::ZERO),
            };
            return self.close_until(now, key, v1::Reason::Overloaded, message, retry_after);
        };
        let existing = self.sessions.of_player(player);
        let same = existing.filter(|key| self.sessions.get(*key).is_some_and(|session| session.id() == id));
        if let (None, Some(existing)) = (same, existing) {
            self.replace_session(now, existing, false);
        }
        let Some(session) = same.or_else(|| self.sessions.insert(id, player, epoch)) else {
            self.give_session_up(now, player);
            let what = "the server has no place for another session";
            return self.close(now, key, v1::Reason::Overloaded, what);
        };
        if same.is_some() {
            self.raise_epoch(now, session, epoch);
        }
        match hello {
            Some(hello) => self.welcome(now, key, session, resumed, hello),
            // The connection was closed meanwhile; the player may return.
            None if same.is_none() => {
                let expires = now.instant + self.config.sessions.ttl;
                self.sessions.start_expiry(&mut self.bugs, session, expires);
                self.arrive(now, player, epoch, None);
                self.lose(now, player);
            }
            None => {}
        }
    }

    /// Ends a session that a newer one replaces. `goes_on` is true if it is the same session,
    /// continued elsewhere.
    fn replace_session(&mut self, now: Now, session: Key, goes_on: bool) {
        let old = self.sessions.conn(session);
        self.end_local_session(now, session, v1::Reason::TakenOver, goes_on);
        if let Some(old) = old {
            self.sessions.count_takeover();
            self.cut_off(now, old);
        }
    }

    /// Goes on with a session that another node has claimed for an older connection. Memberships that other nodes have taken over
    /// meanwhile are lost to a connection, so its client has to resume them.
    pub(super) fn session_kept(&mut self, now: Now, player: &Name, epoch: u64) {
        let Some(key) = self.sessions.of_player(player) else { return };
        let Some(session) = self.sessions.get(key).filter(|session| session.epoch() < epoch) else { return };
        let (conn, has_lost) = (session.conn(), session.has_lost_memberships());
        self.raise_epoch(now, key, epoch);
        self.event(Event::SessionKept { conn, player: player.clone(), epoch });
        if let Some(conn) = conn.filter(|_| has_lost) {
            self.close(now, conn.key(), v1::Reason::Overloaded, CLAIMED_ELSEWHERE);
        }
    }

    /// Registers the new claim of a session that is on this node. From now on the session writes
    /// with this epoch, which the primaries of its rooms must know.
    fn raise_epoch(&mut self, now: Now, session: Key, epoch: u64) {
        for room in self.sessions.raise(&mut self.bugs, session, epoch) {
            self.room_input(now, room, RoomInput::Epoch { session, epoch });
        }
    }

    /// Gives a session to a connection, and sends the `Welcome`.
    fn welcome(&mut self, now: Now, key: Key, session: Key, resumed: bool, hello: v1::Hello) {
        let conn = ConnId::from_key(key);
        let number = self.connections.number(key).unwrap_or(0);
        let Some(s) = self.sessions.get(session) else {
            return self.bugs.found("a session that is gone is welcomed");
        };
        let (id, player, replica) = (s.id(), s.player().clone(), s.replica());
        let (dial, number) = match self.planted.is(Plant::DialUncompared) {
            true => (DialNumber::default(), u64::MAX),
            false => (dial_of(&hello), number),
        };
        let newcomer = Newcomer { conn, dial, number };
        let held = self.registrar.holds_session(&player);
        let attached = self.sessions.attach(&mut self.bugs, session, newcomer, held, resumed);
        if let Some(session) = self.sessions.get(session) {
            self.registrar.renew_session(&player, session.dial());
        }
        let Some(Attachment { old, is_new, registered, epoch }) = attached else {
            return self.close(now, key, v1::Reason::TakenOver, TAKEN_OVER);
        };
        let name = player.clone();
        if let Some(old) = old {
            self.cut_off(now, old);
        }
        let (connections, mut cx) = self.connections(now);
        connections.open(&mut cx, key, session, hello.accept_zstd);
        self.event(if is_new {
            Event::SessionOpened { conn, player, epoch }
        } else {
            Event::SessionResumed { conn, player, epoch }
        });
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
            session_ttl_ms: inbound::millis(self.config.promised_absence()),
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
}

/// Returns the number of a connection among those of its client.
const fn dial_of(hello: &v1::Hello) -> DialNumber {
    DialNumber { client: hello.client, dial: hello.dial }
}

/// Returns the rooms of matches that a client is in or wants to join.
fn named_matches(hello: &v1::Hello) -> Vec<Name> {
    let resumed = hello.resume.iter().flat_map(|resume| &resume.rooms).map(|cursor| &cursor.room);
    let named = resumed.chain(hello.joins.iter().map(|join| &join.room));
    named.filter(|room| keys::match_of(room).is_some()).filter_map(|room| Name::new(room).ok()).collect()
}

/// Returns a connection as a token of the registrar; [`key_of`] is the inverse.
const fn token(key: Key) -> u64 {
    (key.slot as u64) << 32 | key.generation as u64
}

pub(super) const fn key_of(token: u64) -> Key {
    Key { slot: (token >> 32) as u32, generation: token as u32 }
}
