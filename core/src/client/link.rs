//! The life of a connection, and of the session across connections.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString as _};

use bytes::Bytes;
use skirmish_proto::v1;

use super::event::Outcome;
use super::liveness::Liveness;
use super::pacer::Pacer;
use super::room::{RequestKind, RoomPhase};
use super::state::{ClientState, StateTransition};
use super::{Client, Event, Fault, Output};
use crate::base::id::SessionId;
use crate::base::plant::Plant;
use crate::base::time::{Deadline, Duration, Instant, Now, Wall};
use crate::matchmaking::keys;
use crate::wire;
use crate::wire::seal::{Offer, Seal};

/// Heartbeat intervals of silence after which the client gives a connection up, if the server
/// answers no pings. One interval more than the server itself waits for, since the server can send
/// a reason when it closes the connection.
pub(super) const SILENT_HEARTBEATS: u32 = 4;
/// Nonces of pings that may wait for their answers to be sent; at the bound, the oldest nonce is
/// dropped.
const MAX_PONGS: usize = 8;

/// An open connection.
#[derive(Debug)]
pub(super) struct OpenConnection {
    /// True once `Hello` was sent.
    pub(super) greeted: bool,
    pub(super) welcomed: bool,
    pub(super) offer: Option<Offer>,
    pub(super) seal: Option<Seal>,
    /// Nonces to be sent back.
    pub(super) pongs: VecDeque<u64>,
    /// Application messages to be sent.
    pub(super) application: VecDeque<(String, Bytes)>,
    pub(super) rtt: Option<Duration>,
    pub(super) pacer: Pacer,
    pub(super) liveness: Liveness,
}

impl OpenConnection {
    fn new(now: Instant) -> Self {
        Self {
            greeted: false,
            welcomed: false,
            offer: None,
            seal: None,
            pongs: VecDeque::new(),
            application: VecDeque::new(),
            rtt: None,
            pacer: Pacer::usual(now),
            liveness: Liveness::new(now),
        }
    }

    pub(super) fn ping(&mut self, ping: &v1::Ping) {
        if self.pongs.len() >= MAX_PONGS {
            self.pongs.pop_front();
        }
        self.pongs.push_back(ping.nonce);
        if ping.rtt_us > 0 {
            self.rtt = Some(Duration::from_micros(ping.rtt_us));
        }
    }
}

/// The session, as described by the last `Welcome`.
#[derive(Debug)]
pub(super) struct WelcomedSession {
    pub(super) id: SessionId,
    pub(super) epoch: u64,
    pub(super) replica: u64,
    /// Time for which the server keeps tombstones.
    pub(super) horizon: Duration,
    pub(super) clock: ServerClock,
}

/// The server's wall clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerClock {
    /// Reading of the clock, Unix milliseconds.
    pub(super) wall_ms: u64,
    /// Time of the reading, by the client's monotonic clock.
    pub(super) heard: Instant,
}

impl ServerClock {
    pub(super) fn at(self, now: Now) -> Now {
        let elapsed = u64::try_from(now.instant.since(self.heard).as_millis()).unwrap_or(u64::MAX);
        Now { instant: now.instant, wall: Wall(self.wall_ms.saturating_add(elapsed)) }
    }
}

/// Returns true if dialling again would not help, or would fight the player's other device.
fn is_final(reason: v1::Reason) -> bool {
    use v1::Reason;
    matches!(reason, Reason::TakenOver | Reason::Kicked | Reason::Unauthenticated | Reason::Incompatible)
}

impl Client {
    /// Connects: dials, and cuts a back-off short, unless the server has refused the client until a
    /// later time. Has no effect if the client is connected or connects already, or if as many
    /// outputs wait as [`ClientConfig::events`](super::ClientConfig::events) allows.
    pub fn connect(&mut self, now: Now) {
        self.observe(now);
        if self.is_congested() {
            return;
        }
        // An impatient application is no reason to be refused again.
        let is_limited = self.limited_until.is_some_and(|until| now.instant < until);
        if self.state == ClientState::Disconnected && is_limited {
            return;
        }
        self.step(StateTransition::BackoffOver);
        self.dial();
    }

    /// Sends `Goodbye`, which ends the session, and changes to [`ClientState::Idle`] for good.
    /// Every message without an outcome gets one, and every room is left.
    pub fn disconnect(&mut self, now: Now) {
        self.observe(now);
        let goodbye = v1::Goodbye { reason: v1::Reason::ClientLeft.into(), ..v1::Goodbye::default() };
        if let Some(link) = self.link.as_mut().filter(|link| link.welcomed) {
            let frame = wire::encode(v1::Kind::Goodbye, &v1::Metadata::default(), &goodbye);
            // A connection that can seal no more frames ends without the `Goodbye`.
            self.farewell = match &mut link.seal {
                Some(seal) => seal.seal(&frame).ok(),
                None => Some(frame),
            };
        }
        self.end_session(v1::LeftReason::Asked);
        self.stop();
    }

    /// Reports that the dialled connection is open, upgrade included.
    pub fn handle_connected(&mut self, now: Now) {
        self.observe(now);
        if self.state == ClientState::Connecting {
            self.farewell = None;
            self.link = Some(Box::new(OpenConnection::new(now.instant)));
            self.step(StateTransition::Established);
        }
    }

    /// Reports that the connection is lost, or that the dial failed.
    pub fn handle_disconnected(&mut self, now: Now) {
        self.observe(now);
        self.farewell = None;
        self.lose(Duration::ZERO);
    }

    /// Reports that the dial failed because the server refused the connection, and named the time
    /// until another dial.
    pub fn handle_refused(&mut self, now: Now, retry_after: Duration) {
        self.observe(now);
        self.farewell = None;
        self.limit(retry_after);
        self.lose(retry_after);
    }

    fn limit(&mut self, retry_after: Duration) {
        self.limited_until = (!retry_after.is_zero()).then_some(self.now + retry_after);
    }

    /// Receives one whole frame of the connection. A frame that breaks the protocol closes the
    /// connection.
    pub fn handle_frame(&mut self, now: Now, frame: Bytes) {
        self.observe(now);
        if let Err(fault) = self.receive(now, frame) {
            self.give_up(fault);
        }
    }

    /// Handles the server's `Goodbye`.
    pub(super) fn goodbye(&mut self, goodbye: v1::Goodbye) {
        let reason = goodbye.reason();
        self.outputs.event(Event::Closed { reason, message: goodbye.message, fault: None });
        if reason == v1::Reason::Kicked {
            self.end_session(v1::LeftReason::Kicked);
        }
        if is_final(reason) {
            self.stop();
        } else {
            self.outputs.push(Output::Hangup);
            let retry_after = Duration::from_millis(goodbye.retry_after_ms.into());
            if reason == v1::Reason::RateLimited {
                self.limit(retry_after);
            }
            self.lose(retry_after);
        }
    }

    pub(super) fn give_up(&mut self, fault: Fault) {
        let reason = fault.reason();
        self.outputs.event(Event::Closed { reason, message: fault.to_string(), fault: Some(fault) });
        if is_final(reason) {
            self.stop();
        } else {
            self.outputs.push(Output::Hangup);
            self.lose(Duration::ZERO);
        }
    }

    /// Returns the deadline of the present state.
    pub(super) fn state_deadline(&self) -> Option<Deadline> {
        let timeout = self.entered + self.config.connect_timeout;
        match self.state {
            ClientState::Idle => None,
            ClientState::Connecting => Some(Deadline::new(timeout, "the dial takes too long")),
            ClientState::Syncing => Some(Deadline::new(timeout, "the handshake takes too long")),
            ClientState::Connected => {
                let link = self.link.as_ref();
                let silent = link.map_or(self.entered, |link| link.liveness.deadline(&self.config));
                Some(Deadline::new(silent, "the server is silent"))
            }
            ClientState::Disconnected => Some(Deadline::new(self.retry_at, "the back-off is over")),
        }
    }

    /// Executes the deadline of the present state, if it is due.
    pub(super) fn expire(&mut self, now: Now) {
        if self.state_deadline().is_none_or(|deadline| now.instant < deadline.at) {
            return;
        }
        if self.state == ClientState::Connected && !self.is_dead(now.instant) {
            return;
        }
        match self.state {
            ClientState::Idle => {}
            ClientState::Connecting | ClientState::Syncing | ClientState::Connected => {
                self.outputs.push(Output::Hangup);
                self.lose(Duration::ZERO);
            }
            ClientState::Disconnected => {
                self.step(StateTransition::BackoffOver);
                if !self.planted.is(Plant::BackoffForever) {
                    self.dial();
                }
            }
        }
    }

    /// Returns true if the connection was silent for too long, or is not there.
    fn is_dead(&mut self, now: Instant) -> bool {
        let Self { link, config, planted, .. } = self;
        let Some(link) = link else { return true };
        let dead = link.liveness.handle_timeout(config, now);
        if dead && planted.is(Plant::ClientBlind) {
            link.liveness = Liveness::new(now);
            return false;
        }
        dead
    }

    fn dial(&mut self) {
        if self.state == ClientState::Idle {
            self.step(StateTransition::Dial);
            self.dial.dial += 1;
            self.outputs.push(Output::Dial);
        }
    }

    /// Drops the connection. The client dials again after the back-off, or almost at once after the
    /// loss of a healthy connection. Has no effect if the connection was given up meanwhile.
    fn lose(&mut self, retry_after: Duration) {
        if self.state.after(StateTransition::Lost).is_none() {
            return;
        }
        let was_healthy = self.was_healthy();
        self.drop_link();
        let wait = if was_healthy && retry_after.is_zero() {
            // Clients that lost the same server do not come back at the same moment.
            self.rng.duration(Duration::ZERO..=self.config.backoff_min / 2)
        } else {
            self.backoff.next(&mut self.rng, retry_after)
        };
        self.retry_at = self.now + wait;
        self.step(StateTransition::Lost);
    }

    /// Returns true if the connection lasted for at least the longest back-off since it was ready. So
    /// dials at once are never more frequent than those after back-offs.
    fn was_healthy(&self) -> bool {
        self.state == ClientState::Connected && self.now.since(self.entered) >= self.config.backoff_max
    }

    /// Gives the connection up. The client does not dial again by itself.
    fn stop(&mut self) {
        if !matches!(self.state, ClientState::Idle | ClientState::Disconnected) {
            self.outputs.push(Output::Hangup);
        }
        self.drop_link();
        self.backoff.reset();
        self.step(StateTransition::Stop);
    }

    fn drop_link(&mut self) {
        self.link = None;
        self.state_at = None;
        for room in self.rooms.values_mut() {
            room.disconnected(self.now);
        }
    }

    /// Ends the session; no other one is wanted.
    fn end_session(&mut self, reason: v1::LeftReason) {
        self.session = None;
        // The player may still be in the match; the next session will be sent the match again.
        self.search.forget_match();
        let forgets = self.planted.is(Plant::LeaveForgotten);
        for (name, mut room) in core::mem::take(&mut self.rooms) {
            room.close(&name, reason, &mut self.outputs);
            if !forgets {
                self.pending_leaves.left(&name);
            }
        }
    }

    /// Handles the loss of the session at the server: memberships are gone, and wanted rooms are
    /// joined anew.
    pub(super) fn lose_session(&mut self) {
        let Self { rooms, outputs, config, now, planted, .. } = self;
        rooms.retain(|name, room| {
            // A join in the `Hello` is a request to the new session; all others were to the old one.
            room.request = room.request.filter(|request| request.kind == RequestKind::Join);
            room.asked = room.request.is_some();
            let left = |reason| Event::Left { room: name.clone(), reason };
            match room.phase {
                RoomPhase::Wanted { .. } | RoomPhase::Joining => true,
                RoomPhase::Leaving { .. } if room.asked => true,
                RoomPhase::Member { .. } if config.rejoin => {
                    room.rejoin(*now, name, None, outputs);
                    outputs.event(left(v1::LeftReason::Gone));
                    true
                }
                RoomPhase::Member { .. } => {
                    room.close(name, v1::LeftReason::Gone, outputs);
                    false
                }
                RoomPhase::Leaving { again, .. }
                    if keys::match_of(name).is_some() && !planted.is(Plant::LeaveForgotten) =>
                {
                    outputs.outcomes(name, room.outbox.settle_sent(), Outcome::Unknown);
                    room.phase = RoomPhase::Leaving { sent: false, live: false, again };
                    true
                }
                RoomPhase::Leaving { again, .. } => {
                    room.end(name, again, outputs);
                    again
                }
            }
        });
    }
}
