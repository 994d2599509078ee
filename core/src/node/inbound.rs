//! What comes in: a frame to its session and its room.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;
use subtle::ConstantTimeEq as _;

use super::metering::Class;
use super::rooms::Surroundings;
use super::{Event, Node, Trace, Wrong};
use crate::base::id::{ConnId, Name};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::{Duration, Now};
use crate::crdt::{self, ReconcileAnswer, StateError};
use crate::hosting::{Hosted, STATE_FRAME_BYTES, SayVerdict};
use crate::node::connection::{Connection, Phase};
use crate::session::{Membership, SessionKey};
use crate::wire::{self, Frame, ToServer, WireError};

/// Longest name of a message, in bytes.
pub(super) const MAX_TYPE_URL: usize = 256;

/// How often a sender of latest messages is told that some were dropped.
const LATEST_THROTTLE: Duration = Duration::from_secs(1);

/// What a frame says.
struct Decoded {
    message: ToServer,
    metadata: v1::Metadata,
    /// Bytes of the frame with its payload inflated.
    inflated: usize,
}

impl Node {
    pub(super) fn take_frame(&mut self, now: Now, key: Key, bytes: Bytes) {
        // The node may have given it up, and the driver has not heard so yet.
        let Some(connection) = self.connections.get_mut(key) else { return };
        let fenced = connection.is_closing() && !self.planted.is(Plant::OldConnectionWrites);
        if fenced || matches!(connection.phase, Phase::Upgrading { .. }) {
            return;
        }
        self.stats.frames_in += 1;
        self.stats.bytes_in += bytes.len() as u64;
        if connection.heartbeat.handle_frame(&self.config.heartbeat) {
            self.stats.unhealthy -= 1;
        }
        let length = bytes.len() as u64;
        if !self.charge(now, key, Class::Bytes, length) {
            return;
        }
        match self.decode(key, bytes) {
            Ok(decoded) => {
                let more = (decoded.inflated as u64).saturating_sub(length);
                if more == 0 || self.charge(now, key, Class::Bytes, more) {
                    self.dispatch(now, key, decoded.message, decoded.metadata);
                }
            }
            Err(WireError::UnknownKind(kind)) if self.is_open(key) => {
                if self.charge(now, key, Class::Control, 1) {
                    self.unsupported(
                        now,
                        key,
                        v1::Unsupported { kind: kind.into(), type_url: String::new() },
                    );
                }
            }
            Err(error) => {
                let reason = match error.fault() {
                    wire::FaultSide::Incompatible => v1::Reason::Incompatible,
                    wire::FaultSide::Misbehaved | wire::FaultSide::Caller => v1::Reason::ProtocolError,
                };
                let wrong = match error {
                    WireError::FrameTooLong(_)
                    | WireError::InflatedTooLong(_)
                    | WireError::MetadataTooLong(_)
                    | WireError::TooManyItems(_) => Wrong::Size,
                    _ => Wrong::Protocol,
                };
                self.wronged(now, key, reason, error.to_string(), wrong);
            }
        }
    }

    fn is_open(&self, key: Key) -> bool {
        self.connections.get(key).is_some_and(Connection::is_open)
    }

    /// Tells a client that something it has sent was not understood.
    pub(super) fn unsupported(&mut self, now: Now, key: Key, what: v1::Unsupported) {
        self.stats.unsupported += 1;
        self.answer(now, key, wire::encode(v1::Kind::Unsupported, &v1::Metadata::default(), &what));
    }

    /// A message larger than the limits of the `Welcome`.
    fn too_large(&mut self, now: Now, key: Key) {
        let what = "a message larger than the limits allow";
        self.wronged(now, key, v1::Reason::ProtocolError, what.into(), Wrong::Size);
    }

    fn decode(&mut self, key: Key, bytes: Bytes) -> Result<Decoded, WireError> {
        let mut frame = Frame::decode(bytes, self.config.frames.frame_bytes)?;
        if let Some(seal) = self.connections.get_mut(key).and_then(|c| c.seal.as_mut()) {
            frame = seal.open(frame)?;
        }
        let frame = self.zstd.inflate(frame, self.config.frames.frame_bytes)?;
        let inflated = wire::HEADER_LEN + frame.metadata.len() + frame.payload.len() + wire::TRAILER_LEN;
        Ok(Decoded { message: ToServer::decode(&frame)?, metadata: frame.metadata()?, inflated })
    }

    fn dispatch(&mut self, now: Now, key: Key, message: ToServer, metadata: v1::Metadata) {
        let Some(connection) = self.connections.get_mut(key) else {
            return self.bugs.found("a connection vanished while it was read");
        };
        if let Phase::Greeting { identity, .. } = &connection.phase {
            let ToServer::Hello(hello) = message else {
                let what = "the first frame must be Hello";
                return self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
            };
            let same = hello.token.is_empty() || bool::from(hello.token.ct_eq(&identity.token));
            if !same {
                let what = "the token in Hello is not that of the upgrade";
                return self.misbehaved(now, key, v1::Reason::Unauthenticated, what.into());
            }
            return self.hello(now, key, hello);
        }
        if matches!(connection.phase, Phase::Claiming { .. }) {
            let what = "a frame before the Welcome";
            return self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
        }
        let Some(session) = connection.session else {
            return self.bugs.found("an open connection has no session");
        };
        let class = match &message {
            ToServer::Say(_) => Some(Class::Reliable),
            ToServer::Latest(_) => Some(Class::Latest),
            ToServer::Pong(pong) if connection.heartbeat.handle_pong(now.instant, pong.nonce) => None,
            _ => Some(Class::Control),
        };
        if class.is_some_and(|class| !self.charge(now, key, class, 1)) {
            return;
        }
        match message {
            ToServer::Hello(_) => {
                self.misbehaved(now, key, v1::Reason::ProtocolError, "a second Hello".into());
            }
            ToServer::Ping(ping) => {
                let pong = v1::Pong { nonce: ping.nonce };
                self.answer(now, key, wire::encode(v1::Kind::Pong, &v1::Metadata::default(), &pong));
            }
            ToServer::Pong(_) => {}
            ToServer::Goodbye(_) => {
                self.end_session(now, session, v1::Reason::ClientLeft);
                self.close(now, key, v1::Reason::ClientLeft, "");
            }
            ToServer::Join(join) => self.join(now, key, session, &join),
            ToServer::Leave(leave) => self.leave(now, key, session, &leave.room),
            ToServer::Say(say) => self.say(now, key, session, say, &metadata),
            ToServer::Latest(latest) => self.latest(now, key, session, latest, &metadata),
            ToServer::State(state) => self.state(now, key, session, &state),
            ToServer::Reconcile(step) => self.reconcile(now, key, session, &step),
            ToServer::Queue(queue) => self.queue(now, session, queue),
            ToServer::Cancel(cancel) => self.cancel(now, session, cancel),
            ToServer::Application { type_url, payload } => {
                self.application(now, key, session, type_url, payload, &metadata);
            }
        }
    }

    pub(super) fn limits(&self) -> v1::Limits {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (rates, frames) = (&self.config.rates, &self.config.frames);
        v1::Limits {
            frame_bytes: count(frames.frame_bytes),
            body_bytes: count(frames.body_bytes),
            rooms: count(self.config.sessions.rooms),
            reliable_rate: rates.reliable.per_second,
            reliable_burst: rates.reliable.burst,
            latest_rate: rates.latest.per_second,
            latest_burst: rates.latest.burst,
            latest_keys: self.config.rooms.latest_keys,
            state_entries: count(self.config.rooms.state_entries),
            control_rate: rates.control.per_second,
            control_burst: rates.control.burst,
            bytes_rate: rates.bytes.per_second,
            bytes_burst: rates.bytes.burst,
        }
    }

    fn say(&mut self, now: Now, key: Key, session: SessionKey, say: v1::Say, metadata: &v1::Metadata) {
        if say.body.len() > self.config.frames.body_bytes || say.type_url.len() > MAX_TYPE_URL {
            return self.too_large(now, key);
        }
        let leased = self.registrar.may_serve(now.instant);
        let Self {
            connections, sessions, rooms, links, config, desk, rng, zstd, bugs, planted, stats, ..
        } = self;
        let Some(connection) = connections.get_mut(key) else {
            return bugs.found("a connection vanished while it was read");
        };
        let membership = sessions.get_mut(session).and_then(|session| {
            let is_named =
                |m: &&mut Membership| rooms.get(m.room).is_some_and(|h| h.room().name().as_str() == say.room);
            session.memberships.iter_mut().find(is_named)
        });
        let Some(membership) = membership else {
            return self.left(now, key, &say.room, v1::LeftReason::NotAMember, false);
        };
        let (room, number, client_seq) = (membership.room, membership.number, say.client_seq);
        let around = Surroundings { config, places: desk, rng, zstd, bugs, planted: *planted };
        let Some((hosted, mut cx)) = rooms.enter(now, room, leased, around) else {
            return self.bugs.found("a room that a session is in is not in the table");
        };
        let takes_more =
            hosted.upstream().is_none_or(|link| links.get(link).is_some_and(super::link::Link::takes_more));
        match hosted.judge(&mut cx, number, &say, takes_more) {
            // Only a message that is taken costs: those under way behind one that was not taken must
            // not use up what that one waits for.
            SayVerdict::Next => match connection.buckets.reliable.take(now.instant, 1) {
                Ok(()) => {
                    hosted.take(&mut cx, number, say, metadata);
                    return self.settle_room(now, room);
                }
                Err(wait) => {
                    stats.throttled += 1;
                    membership.hold(client_seq, client_seq, millis(wait));
                }
            },
            SayVerdict::Held { expected, retry_after_ms } => {
                membership.hold(client_seq, expected, retry_after_ms);
            }
            SayVerdict::Known => membership.acknowledge = true,
            SayVerdict::Passed | SayVerdict::Nobody => return,
        }
        self.settle_room(now, room);
        self.wake(key);
    }

    /// Returns true if the link takes another message over which a room's messages go to its
    /// primary.
    fn takes_more(&self, room: Key) -> bool {
        let upstream = self.rooms.get(room).and_then(Hosted::upstream);
        upstream.is_none_or(|link| self.links.get(link).is_some_and(super::link::Link::takes_more))
    }

    fn latest(
        &mut self,
        now: Now,
        key: Key,
        session: SessionKey,
        latest: v1::Latest,
        metadata: &v1::Metadata,
    ) {
        let limits = (&self.config.frames, &self.config.rooms);
        if latest.body.len() > limits.0.body_bytes || latest.type_url.len() > MAX_TYPE_URL {
            return self.too_large(now, key);
        }
        if latest.key >= limits.1.latest_keys {
            let what = "a latest message with a key that the limits do not allow";
            return self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
        }
        let Some(at) = self.membership(session, &latest.room) else {
            return self.left(now, key, &latest.room, v1::LeftReason::NotAMember, false);
        };
        let Self { connections, sessions, stats, .. } = self;
        let Some(connection) = connections.get_mut(key) else {
            return self.bugs.found("a connection vanished while it was read");
        };
        let Some(membership) = sessions.get_mut(session).and_then(|s| s.memberships.get_mut(at)) else {
            return self.bugs.found("a membership vanished while a message was read");
        };
        if let Err(wait) = connection.buckets.latest.take(now.instant, 1) {
            stats.throttled += 1;
            if membership.drop_latest(now.instant, millis(wait), LATEST_THROTTLE) {
                self.wake(key);
            }
            return;
        }
        let (room, number) = (membership.room, membership.number);
        let takes_more = self.takes_more(room);
        let taken = self
            .with_room(now, room, |hosted, cx| hosted.take_latest(cx, number, latest, metadata, takes_more));
        match taken {
            Some(true) => {}
            Some(false) => {
                let membership = self.sessions.get_mut(session).and_then(|s| s.memberships.get_mut(at));
                let wait = millis(LATEST_THROTTLE);
                if membership.is_some_and(|m| m.drop_latest(now.instant, wait, LATEST_THROTTLE)) {
                    self.wake(key);
                }
            }
            None => self.bugs.found("a room that a session is in is not in the table"),
        }
    }

    fn state(&mut self, now: Now, key: Key, session: SessionKey, state: &v1::State) {
        let Some((room, player)) = self.state_of(session, &state.room, state.epoch) else { return };
        match self.write(now, room, &player, &state.entries) {
            Ok(()) => {}
            Err(StateError::ClockTooFarAhead) => self.refuse_clock(now, key, room, state, &state.entries),
            Err(StateError::TooMany | StateError::BehindTheFuture) => {
                self.refuse_state(now, key, room, &player, state);
            }
            Err(StateError::NotOwner) => {
                let what = "a write to an entry of the state that another owns";
                self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
            }
            Err(StateError::Malformed) => {
                let what = "a malformed entry of the state";
                self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
            }
        }
    }

    /// Writes entries of a room's state for a player.
    fn write(
        &mut self,
        now: Now,
        room: Key,
        player: &Name,
        entries: &[v1::StateEntry],
    ) -> Result<(), StateError> {
        let written = self.with_room(now, room, |hosted, cx| hosted.write(cx, player, entries));
        written.unwrap_or_else(|| {
            self.bugs.found("a room that a session is in is not in the table");
            Ok(())
        })
    }

    /// Tells a client that its clock is ahead.
    fn refuse_clock(&mut self, now: Now, key: Key, room: Key, state: &v1::State, entries: &[v1::StateEntry]) {
        let Some((wall_ms, latest_ms)) = self.with_room(now, room, |hosted, cx| hosted.believes(cx.now))
        else {
            return self.bugs.found("a room vanished while a write to its state was refused");
        };
        self.stats.clock_refusals += 1;
        let (room, epoch, entries) = (state.room.clone(), state.epoch, entries.to_vec());
        let refused =
            v1::State { room, epoch, entries, refused: true, wall_ms, latest_ms, ..v1::State::default() };
        self.answer(now, key, wire::encode(v1::Kind::State, &v1::Metadata::default(), &refused));
    }

    /// Some of a client's entries find no place, or writes from the future: takes the others,
    /// and names these.
    fn refuse_state(&mut self, now: Now, key: Key, room: Key, player: &Name, state: &v1::State) {
        let (mut full, mut superseded, mut ahead) = (Vec::new(), Vec::new(), Vec::new());
        for entry in &state.entries {
            match self.write(now, room, player, core::slice::from_ref(entry)) {
                Ok(()) => {}
                Err(StateError::TooMany) => full.push(entry.clone()),
                Err(StateError::BehindTheFuture) => superseded.push(entry.clone()),
                Err(StateError::ClockTooFarAhead) => ahead.push(entry.clone()),
                Err(StateError::NotOwner | StateError::Malformed) => {
                    let what = "a write to the state that is malformed, or to what another owns";
                    return self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
                }
            }
        }
        self.stats.state_full += u64::from(!full.is_empty());
        self.stats.clock_refusals += u64::from(!superseded.is_empty());
        for (entries, superseded) in [(full, false), (superseded, true)] {
            if entries.is_empty() {
                continue;
            }
            let (room, epoch) = (state.room.clone(), state.epoch);
            let common = v1::State { room, epoch, entries, refused: true, ..v1::State::default() };
            let refused = v1::State { full: true, superseded, ..common };
            self.answer(now, key, wire::encode(v1::Kind::State, &v1::Metadata::default(), &refused));
        }
        if !ahead.is_empty() {
            self.refuse_clock(now, key, room, state, &ahead);
        }
    }

    fn reconcile(&mut self, now: Now, key: Key, session: SessionKey, step: &v1::Reconcile) {
        let Some((room, _)) = self.state_of(session, &step.room, step.epoch) else { return };
        let Some(hosted) = self.rooms.get(room) else {
            return self.bugs.found("a room that a session is in is not in the table");
        };
        let epoch = hosted.room().epoch();
        match hosted.room().state.reconcile(step) {
            Ok(ReconcileAnswer { reconcile, entries }) => {
                for entries in crdt::split(&entries, STATE_FRAME_BYTES) {
                    let (room, entries) = (step.room.clone(), entries.to_vec());
                    let state = v1::State { room, epoch, entries, ..v1::State::default() };
                    self.answer(now, key, wire::encode(v1::Kind::State, &v1::Metadata::default(), &state));
                }
                if let Some(reconcile) = reconcile {
                    let reconcile = v1::Reconcile { room: step.room.clone(), epoch, ..reconcile };
                    self.answer(
                        now,
                        key,
                        wire::encode(v1::Kind::Reconcile, &v1::Metadata::default(), &reconcile),
                    );
                }
            }
            Err(_) => {
                let what = "a malformed step of a reconciliation";
                self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
            }
        }
    }

    fn application(
        &mut self,
        now: Now,
        key: Key,
        session: SessionKey,
        type_url: String,
        payload: Bytes,
        metadata: &v1::Metadata,
    ) {
        if payload.len() > self.config.frames.body_bytes || type_url.len() > MAX_TYPE_URL {
            return self.too_large(now, key);
        }
        let Some(player) = self.sessions.get(session).map(|session| session.player.clone()) else {
            return self.bugs.found("a session vanished while its connection was read");
        };
        let Some(connection) = self.connections.get(key) else {
            return self.bugs.found("a connection vanished while it was read");
        };
        let trace = Trace::from_metadata(metadata).unwrap_or(connection.trace);
        self.event(Event::Application { conn: ConnId::from_key(key), player, type_url, payload, trace });
    }

    /// A room of a session, if the epoch is the room's, and the session's player. Messages
    /// of another epoch are late: what they are about is gone, and the client is told so
    /// by other means.
    fn state_of(&self, session: SessionKey, room: &str, epoch: u64) -> Option<(Key, Name)> {
        let at = self.membership(session, room)?;
        let session = self.sessions.get(session)?;
        let key = session.memberships.get(at)?.room;
        (self.rooms.get(key)?.room().epoch() == epoch).then(|| (key, session.player.clone()))
    }

    /// Answers a request of the connection. Whoever lets answers pile up is closed.
    pub(super) fn answer(&mut self, now: Now, key: Key, frame: Bytes) {
        let Some(connection) = self.connections.get_mut(key) else {
            return self.bugs.found("an answer is for a connection that is not in the table");
        };
        if connection.queue_answer(frame) {
            self.wake(key);
        } else {
            let what = "requests without reading the answers";
            self.misbehaved(now, key, v1::Reason::RateLimited, what.into());
        }
    }
}

impl Connection {
    /// The identity that the upgrade admitted, taken out.
    pub(super) fn player(&self) -> Option<Name> {
        match &self.phase {
            Phase::Greeting { identity, .. } | Phase::Claiming { identity, .. } => {
                Some(identity.player.clone())
            }
            Phase::Upgrading { .. } | Phase::Open | Phase::Closing { .. } => None,
        }
    }
}

/// Milliseconds, rounded up, so that nobody comes back too early.
pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}
