//! Frames from the server: decoding, the handshake, and dispatch by message.

use bytes::Bytes;
use skirmish_proto::v1;

use super::event::Outcome;
use super::link::{OpenConnection, SILENT_HEARTBEATS, ServerClock, WelcomedSession};
use super::pacer::Pacer;
use super::replicated::ReplicaIdentity;
use super::room::ClientRoom;
use super::state::{ClientState, StateTransition};
use super::{Client, ClientConfig, Event, Fault};
use crate::base::id::SessionId;
use crate::base::time::{Duration, Instant, Now};
use crate::config::{Config, Rate, Rates};
use crate::wire::{self, Frame, ToClient, WireError, Zstd};

/// Limits of the server, as named by the last `Welcome`; the defaults before the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) frame_bytes: usize,
    pub(super) body_bytes: usize,
    pub(super) rooms: usize,
    pub(super) latest_keys: u32,
    pub(super) state_entries: usize,
    /// Maximum number of reliable messages in flight: half of the number that the server accepts at
    /// once. More would mostly be throttled and sent again.
    pub(super) in_flight: usize,
    /// Rates of the frames that the client may send.
    pub(super) rates: Rates,
}

impl Default for Limits {
    fn default() -> Self {
        let usual = Config::default();
        Self {
            frame_bytes: usual.frames.frame_bytes,
            body_bytes: usual.frames.body_bytes,
            rooms: usual.sessions.rooms,
            latest_keys: usual.rooms.latest_keys,
            state_entries: usual.rooms.state_entries,
            in_flight: window(usual.rates.reliable.burst),
            rates: usual.rates,
        }
    }
}

impl Limits {
    /// Upper bounds of the numbers of rooms and keys, whatever the server allows.
    const MAX_ROOMS: usize = 64;
    const MAX_LATEST_KEYS: u32 = 256;

    /// Reads the limits of the server. A limit that the server leaves out gets its default.
    fn new(limits: &v1::Limits) -> Self {
        let usual = Self::default();
        let or = |limit: u32, usual: usize| match limit {
            0 => usual,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        Self {
            frame_bytes: or(limits.frame_bytes, usual.frame_bytes),
            body_bytes: or(limits.body_bytes, usual.body_bytes),
            rooms: or(limits.rooms, usual.rooms).min(Self::MAX_ROOMS),
            latest_keys: match limits.latest_keys {
                0 => usual.latest_keys,
                keys => keys.min(Self::MAX_LATEST_KEYS),
            },
            state_entries: or(limits.state_entries, usual.state_entries),
            in_flight: match limits.reliable_burst {
                0 => usual.in_flight,
                burst => window(burst),
            },
            rates: Rates {
                reliable: rate(limits.reliable_rate, limits.reliable_burst, usual.rates.reliable),
                latest: rate(limits.latest_rate, limits.latest_burst, usual.rates.latest),
                control: rate(limits.control_rate, limits.control_burst, usual.rates.control),
                bytes: rate(limits.bytes_rate, limits.bytes_burst, usual.rates.bytes),
                ..usual.rates
            },
        }
    }
}

/// Returns a rate, or the default if the server leaves a part of the rate out.
fn rate(per_second: u32, burst: u32, usual: Rate) -> Rate {
    if per_second == 0 || burst == 0 { usual } else { Rate { per_second, burst } }
}

fn window(burst: u32) -> usize {
    usize::try_from(burst / 2).unwrap_or(usize::MAX).clamp(1, 128)
}

/// Bounds of the server's heartbeat interval, in milliseconds; a value beyond a bound is set to
/// that bound.
const HEARTBEAT: (u32, u32) = (100, 3_600_000);

impl OpenConnection {
    /// Decodes the message of a frame; `None` if the server is newer and this client does not know
    /// the kind.
    fn decode(
        &mut self,
        config: &ClientConfig,
        zstd: &mut Zstd,
        bytes: Bytes,
    ) -> Result<Option<ToClient>, Fault> {
        let welcomed = self.welcomed;
        let decoded = (|| {
            let mut frame = Frame::decode(bytes, config.max_frame)?;
            if let Some(seal) = &mut self.seal {
                frame = seal.open(frame)?;
            }
            if frame.flags & wire::FLAG_ZSTD != 0 && config.accept_zstd {
                frame = zstd.inflate(frame, config.max_frame)?;
            }
            ToClient::decode(&frame)
        })();
        if welcomed && matches!(decoded, Err(WireError::UnknownKind(_))) {
            return Ok(None);
        }
        decoded.map(Some).map_err(|error| match error {
            // Only the first frame can tell another version from garbage.
            WireError::UnknownVersion(_) if !welcomed => Fault::UnknownVersion,
            error => error.into(),
        })
    }

    /// Handles the server's `Welcome`. Returns the session and the limits.
    fn welcome(
        &mut self,
        now: Instant,
        welcome: &v1::Welcome,
        has_session: bool,
    ) -> Result<(SessionId, Limits), Fault> {
        if let Some(offer) = self.offer.take() {
            if welcome.seal_key.is_empty() {
                return Err(Fault::NoSeal);
            }
            self.seal = Some(offer.finish(&welcome.seal_key, &welcome.session)?);
        }
        let id =
            SessionId::from_wire(&welcome.session).ok_or(WireError::BadFieldLength("Welcome.session"))?;
        if welcome.resumed && !has_session {
            return Err(Fault::ResumedUnasked);
        }
        self.welcomed = true;
        let limits = Limits::new(&welcome.limits.unwrap_or_default());
        self.pacer = Pacer::new(&limits.rates, limits.frame_bytes, now);
        let (shortest, longest) = HEARTBEAT;
        let heartbeat = match welcome.heartbeat_ms {
            0 => Config::default().heartbeat.interval,
            ms => Duration::from_millis(ms.clamp(shortest, longest).into()),
        };
        if !welcome.answers_pings {
            self.liveness.expect(heartbeat.saturating_mul(SILENT_HEARTBEATS));
        }
        Ok((id, limits))
    }
}

impl Client {
    /// Handles a frame. The frame of a connection that was closed meanwhile has no effect.
    pub(super) fn receive(&mut self, now: Now, frame: Bytes) -> Result<(), Fault> {
        let is_congested = self.is_congested();
        let Self { link: Some(link), session, config, zstd, .. } = self else { return Ok(()) };
        link.liveness.handle_frame(now.instant);
        if is_congested {
            return Err(Fault::NotPolled);
        }
        let Some(message) = link.decode(config, zstd, frame)? else { return Ok(()) };
        match message {
            ToClient::Welcome(welcome) if link.greeted && !link.welcomed => {
                let (id, limits) = link.welcome(now.instant, &welcome, session.is_some())?;
                self.welcome(now, &welcome, id, limits);
            }
            ToClient::Welcome(_) => return Err(Fault::SecondWelcome),
            ToClient::Goodbye(goodbye) => self.goodbye(goodbye),
            _ if !link.welcomed => return Err(Fault::BeforeWelcome),
            ToClient::Ping(ping) => link.ping(&ping),
            ToClient::Pong(pong) => link.liveness.handle_pong(now.instant, pong.nonce),
            ToClient::Application { type_url, payload } => {
                self.outputs.event(Event::Application { type_url, payload });
            }
            ToClient::Joined(joined) => self.joined(now, joined)?,
            ToClient::Left(left) => self.left(now, left),
            ToClient::Entry(entry) => self.entry(entry)?,
            ToClient::Ack(ack) => self.ack(&ack)?,
            ToClient::Throttle(throttle) => self.throttle(now, throttle),
            ToClient::Snapshot(snapshot) => self.snapshot(snapshot)?,
            ToClient::Latest(latest) => self.latest_received(latest),
            ToClient::State(state) => self.state_received(now, &state)?,
            ToClient::Reconcile(step) => self.reconcile(&step)?,
            ToClient::Queued(queued) => self.queued(queued)?,
            ToClient::Matched(matched) => self.matched(matched),
            ToClient::Unsupported(what) => {
                self.outputs.event(Event::Unsupported { kind: what.kind, type_url: what.type_url });
            }
        }
        self.finish_sync();
        Ok(())
    }

    fn welcome(&mut self, now: Now, welcome: &v1::Welcome, id: SessionId, limits: Limits) {
        let lost = self.session.is_some() && !welcome.resumed;
        // A lost ticket may have named a higher epoch.
        let known = self.session.as_ref().filter(|_| welcome.resumed).map_or(0, |session| session.epoch);
        let clock = ServerClock { wall_ms: welcome.wall_ms, heard: now.instant };
        let session = WelcomedSession {
            id,
            epoch: welcome.epoch.max(known),
            replica: welcome.replica,
            horizon: match welcome.tombstone_horizon_ms {
                0 => Config::default().rooms.tombstone_horizon,
                ms => Duration::from_millis(ms.into()),
            },
            clock,
        };
        self.limits = limits;
        let identity = self.identity_in(&session);
        self.session = Some(session);
        self.backoff.reset();
        self.outputs.event(Event::Session { epoch: welcome.epoch, resumed: welcome.resumed, lost });
        if lost {
            self.lose_session();
        }
        self.adapt(clock.at(now), &identity);
    }

    /// Adapts the kept messages and replicas to the limits and the clock of the server.
    fn adapt(&mut self, clock: Now, identity: &ReplicaIdentity) {
        let Self { rooms, outputs, config, limits, .. } = self;
        for (name, room) in rooms {
            let larger = room.outbox.settle_larger(limits.body_bytes);
            outputs.outcomes(name, larger, Outcome::Refused);
            room.latest.retain(|key, (body, _)| *key < limits.latest_keys && body.len() <= limits.body_bytes);
            let (_, refused) = room.replicated.open(clock, &config.player, identity);
            outputs.no_place(name, refused);
        }
    }

    /// Returns the parameters of the replicas of this session; `None` without a session.
    pub(super) fn identity(&self) -> Option<ReplicaIdentity> {
        self.session.as_ref().map(|session| self.identity_in(session))
    }

    fn identity_in(&self, session: &WelcomedSession) -> ReplicaIdentity {
        let (names, entries) = (self.limits.state_entries, self.config.state_entries);
        ReplicaIdentity::new(session.replica, names, entries, session.horizon, self.names_seed, self.planted)
    }

    /// Changes to connected once the server has answered for every room of the resume.
    fn finish_sync(&mut self) {
        let welcomed = self.link.as_ref().is_some_and(|link| link.welcomed);
        if self.state == ClientState::Syncing && welcomed && !self.rooms.values().any(ClientRoom::is_resuming)
        {
            self.step(StateTransition::Synced);
        }
    }
}
