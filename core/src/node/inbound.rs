//! Input of clients: passes each frame to the session and the room that it is for.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::candidates::LinkedNodes;
use super::connection_inputs::Answered;
use super::rooms::Surroundings;
use super::{Event, Node, Trace, Wrong};
use crate::base::id::{ConnId, Name};
use crate::base::slab::Key;
use crate::base::time::{Duration, Now};
use crate::crdt::{self, ReconcileAnswer, StateError};
use crate::hosting::{Hold, Hosted, STATE_FRAME_BYTES, SayVerdict};
use crate::wire::{self, ToServer};

/// Longest type name of a message, in bytes.
pub(super) const MAX_TYPE_URL: usize = 256;

/// Shortest time between two reports to a sender that latest messages were dropped.
const LATEST_THROTTLE: Duration = Duration::from_secs(1);

impl Node {
    /// Closes a connection for a message larger than the limits of the `Welcome`.
    fn too_large(&mut self, now: Now, key: Key) {
        let what = "a message larger than the limits allow";
        self.wronged(now, key, v1::Reason::ProtocolError, what.into(), Wrong::Size);
    }

    /// Executes a message of a session.
    pub(super) fn dispatch(
        &mut self,
        now: Now,
        key: Key,
        session: Key,
        message: ToServer,
        metadata: &v1::Metadata,
    ) {
        match message {
            ToServer::Hello(_) | ToServer::Ping(_) | ToServer::Pong(_) => {
                self.bugs.found("a message of a connection has come to its session");
            }
            ToServer::Goodbye(_) => {
                self.end_session(now, session, v1::Reason::ClientLeft);
                self.close(now, key, v1::Reason::ClientLeft, "");
            }
            ToServer::Join(join) => self.join(now, key, session, &join),
            ToServer::Leave(leave) => self.leave(now, key, session, &leave),
            ToServer::Say(say) => self.say(now, key, session, say, metadata),
            ToServer::Latest(latest) => self.latest(now, key, session, latest, metadata),
            ToServer::State(state) => self.state(now, key, session, &state),
            ToServer::Reconcile(step) => self.reconcile(now, key, session, &step),
            ToServer::Queue(queue) => self.queue(now, session, queue),
            ToServer::Cancel(cancel) => self.cancel(now, session, cancel),
            ToServer::Application { type_url, payload } => {
                self.application(now, key, session, type_url, payload, metadata);
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

    fn say(&mut self, now: Now, key: Key, session: Key, say: v1::Say, metadata: &v1::Metadata) {
        if say.body.len() > self.config.frames.body_bytes || say.type_url.len() > MAX_TYPE_URL {
            return self.too_large(now, key);
        }
        let (node, leases) = (self.id, self.leases(now.instant));
        let Self {
            connections,
            sessions,
            rooms,
            peers,
            registrar,
            config,
            player_tickets,
            rng,
            zstd,
            bugs,
            planted,
            stats,
            ..
        } = self;
        let is_named = |room| rooms.get(room).is_some_and(|hosted| hosted.room().name().as_str() == say.room);
        let Some(membership) = sessions.membership_if(session, is_named) else {
            return self.left(now, key, &say.room, v1::LeftReason::NotAMember, Answered::Message);
        };
        let (room, number, client_seq) = (membership.room(), membership.number(), say.client_seq);
        let (candidates, places, planted) = (&LinkedNodes { peers, registrar }, player_tickets, *planted);
        let around = Surroundings { node, leases, candidates, config, places, rng, zstd, bugs, planted };
        let Some((hosted, mut cx)) = rooms.enter(now, room, around) else {
            return self.bugs.found("a room that a session is in is not in the table");
        };
        let takes_more = hosted.upstream().is_none_or(|link| peers.takes_more(link));
        match hosted.judge(&mut cx, number, &say, takes_more) {
            // Only an accepted message is charged. Messages under way behind a refused one must not
            // use up the tokens for which that one waits.
            SayVerdict::Next => match connections.take_reliable(cx.bugs, now.instant, key) {
                Ok(()) => {
                    hosted.take(&mut cx, number, say, metadata);
                    return self.settle_room(now, room);
                }
                Err(wait) => {
                    stats.throttled += 1;
                    let expected = client_seq;
                    membership.hold(Hold { client_seq, expected, retry_after_ms: millis(wait) });
                }
            },
            SayVerdict::Held { expected, retry_after_ms } => {
                membership.hold(Hold { client_seq, expected, retry_after_ms });
            }
            SayVerdict::Known => membership.acknowledge(),
            SayVerdict::Passed | SayVerdict::Nobody => return,
        }
        self.settle_room(now, room);
        self.wake(key);
    }

    /// Returns true if a room's primary is this node, or if the link to the primary accepts another
    /// message.
    fn takes_more(&self, room: Key) -> bool {
        let upstream = self.rooms.get(room).and_then(Hosted::upstream);
        upstream.is_none_or(|link| self.peers.takes_more(link))
    }

    fn latest(&mut self, now: Now, key: Key, session: Key, latest: v1::Latest, metadata: &v1::Metadata) {
        let limits = (&self.config.frames, &self.config.rooms);
        if latest.body.len() > limits.0.body_bytes || latest.type_url.len() > MAX_TYPE_URL {
            return self.too_large(now, key);
        }
        if latest.key >= limits.1.latest_keys {
            let what = "a latest message with a key that the limits do not allow";
            return self.misbehaved(now, key, v1::Reason::ProtocolError, what.into());
        }
        let Self { connections, sessions, rooms, stats, bugs, .. } = self;
        let is_named =
            |room| rooms.get(room).is_some_and(|hosted| hosted.room().name().as_str() == latest.room);
        let Some(membership) = sessions.membership_if(session, is_named) else {
            return self.left(now, key, &latest.room, v1::LeftReason::NotAMember, Answered::Message);
        };
        if let Err(wait) = connections.take_latest(bugs, now.instant, key) {
            stats.throttled += 1;
            if membership.drop_latest(now.instant, millis(wait), LATEST_THROTTLE) {
                self.wake(key);
            }
            return;
        }
        let (room, number) = (membership.room(), membership.number());
        let takes_more = self.takes_more(room);
        let taken = self
            .with_room(now, room, |hosted, cx| hosted.take_latest(cx, number, latest, metadata, takes_more));
        match taken {
            Some(true) => {}
            Some(false) => {
                let membership = self.sessions.membership(session, room);
                let wait = millis(LATEST_THROTTLE);
                if membership.is_some_and(|m| m.drop_latest(now.instant, wait, LATEST_THROTTLE)) {
                    self.wake(key);
                }
            }
            None => self.bugs.found("a room that a session is in is not in the table"),
        }
    }

    fn state(&mut self, now: Now, key: Key, session: Key, state: &v1::State) {
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

    /// Tells a client that its clock is ahead of the room's.
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

    /// Writes the acceptable entries of a message whose state entries were refused in part, and
    /// names the refused ones: they find no place, or the room has a later write.
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

    fn reconcile(&mut self, now: Now, key: Key, session: Key, step: &v1::Reconcile) {
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
        session: Key,
        type_url: String,
        payload: Bytes,
        metadata: &v1::Metadata,
    ) {
        if payload.len() > self.config.frames.body_bytes || type_url.len() > MAX_TYPE_URL {
            return self.too_large(now, key);
        }
        let Some(player) = self.sessions.get(session).map(|session| session.player().clone()) else {
            return self.bugs.found("a session vanished while its connection was read");
        };
        let Some(of_connection) = self.connections.trace(key) else {
            return self.bugs.found("a connection vanished while it was read");
        };
        let trace = Trace::from_metadata(metadata).unwrap_or(of_connection);
        self.event(Event::Application { conn: ConnId::from_key(key), player, type_url, payload, trace });
    }

    /// Returns the room of a session, if the session is a member and the epoch is the room's, with
    /// the session's player. Messages of another epoch are late: their room is gone, and the client
    /// learns that by other means.
    fn state_of(&self, session: Key, room: &str, epoch: u64) -> Option<(Key, Name)> {
        let key = self.rooms.named(room)?;
        let session = self.sessions.get(session)?;
        let is_in = session.memberships().iter().any(|membership| membership.room() == key);
        let is_epoch = self.rooms.get(key)?.room().epoch() == epoch;
        (is_in && is_epoch).then(|| (key, session.player().clone()))
    }
}

/// Returns milliseconds, rounded up, so that no client returns too early.
pub(super) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}
