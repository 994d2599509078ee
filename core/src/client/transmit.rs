//! Frames for the connection, made from the state of the client when the connection takes one.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;
use skirmish_proto::v1;

use super::link::OpenConnection;
use super::pacer::RateClass;
use super::room::{ClientRoom, RoomPhase};
use super::{Client, ClientState, Fault};
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::matchmaking::keys;
use crate::wire::MAX_JOINS;
use crate::wire::seal::Offer;
use crate::wire::{self, encode};

/// Minimum time between two frames of state, over all rooms. Changes are collected meanwhile, and
/// the server, which closes connections that send many control frames, receives at most 20 a
/// second.
const STATE_INTERVAL: Duration = Duration::from_millis(50);
/// Approximate size of a frame of state, in bytes.
const STATE_BYTES: usize = 16 * 1024;
/// Maximum length of the name and version for the server's logs, in bytes. A longer text is cut.
const MAX_AGENT: usize = 64;

/// Kinds of messages between which a room alternates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Reliable,
    Latest,
    State,
}

const LANES: [Lane; 3] = [Lane::Reliable, Lane::Latest, Lane::State];

/// Parameters for the next frame of a room.
struct RoomSend<'a> {
    now: Instant,
    name: &'a str,
    player: &'a str,
    /// True if another reliable message may be in flight.
    reliable: bool,
    /// True if another latest message may be sent.
    latest: bool,
    /// True if a frame of state may be sent.
    state: bool,
    state_bytes: usize,
}

impl Client {
    /// Returns the next frame for the connection; `None` if no frame can be sent now.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Now) -> Option<Bytes> {
        self.observe(now);
        if let Some(frame) = self.farewell.take() {
            return Some(frame);
        }
        let mut link = self.link.take()?;
        let sealed = self.next_frame(&mut link, now.instant).map(|frame| match &mut link.seal {
            None => Ok(frame),
            Some(seal) => seal.seal(&frame),
        });
        if let Some(Ok(frame)) = &sealed {
            link.pacer.sent(now.instant, frame.len());
        }
        self.link = Some(link);
        match sealed? {
            Ok(frame) => Some(frame),
            Err(error) => {
                self.give_up(Fault::from(error));
                None
            }
        }
    }

    /// Returns the time at which the next delayed frame may be sent.
    pub(super) fn send_deadline(&self) -> Option<Deadline> {
        if self.state != ClientState::Connected {
            return None;
        }
        let earliest = |at: Option<Instant>, reason, sofar| {
            Deadline::earliest(sofar, at.map(|at| Deadline::new(at, reason)))
        };
        let mut deadline = None;
        for room in self.rooms.values() {
            deadline = earliest(room.not_before(), "a room may be joined", deadline);
            deadline = earliest(room.outbox.retry_at, "the throttle is over", deadline);
        }
        let paced = self.link.as_ref().and_then(|link| link.pacer.until());
        deadline = earliest(paced, "the limits let more be sent", deadline);
        earliest(self.state_at, "state may be sent", deadline)
    }

    /// Ends the delays that are over.
    pub(super) fn release(&mut self, now: Instant) {
        let over = |at: &mut Option<Instant>| {
            if at.is_some_and(|at| at <= now) {
                *at = None;
            }
        };
        over(&mut self.state_at);
        if let Some(link) = &mut self.link {
            link.pacer.release(now);
        }
        for room in self.rooms.values_mut() {
            over(&mut room.outbox.retry_at);
            if let RoomPhase::Wanted { not_before } = &mut room.phase {
                over(not_before);
            }
        }
    }

    /// Returns the next frame before it is sealed. The connection is taken out of `self`.
    fn next_frame(&mut self, link: &mut OpenConnection, now: Instant) -> Option<Bytes> {
        if !link.greeted {
            return Some(self.hello(link, now));
        }
        if !link.welcomed {
            return None;
        }
        if let Some(nonce) = link.pongs.pop_front() {
            return Some(plain(v1::Kind::Pong, &v1::Pong { nonce }));
        }
        if self.state != ClientState::Connected {
            return None;
        }
        link.pacer.look(now);
        let control = link.pacer.takes(RateClass::Control);
        if control && let Some(nonce) = link.liveness.take_ping(&self.config, now) {
            link.pacer.take(RateClass::Control);
            let rtt = link.liveness.rtt().unwrap_or_default();
            let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
            return Some(plain(v1::Kind::Ping, &v1::Ping { nonce, rtt_us }));
        }
        let frame = self.request(link, now, control)?;
        link.liveness.handle_sent(now);
        Some(frame)
    }

    /// Returns the next frame that the server may answer: a control frame if `control` allows one,
    /// otherwise a message of a room.
    fn request(&mut self, link: &mut OpenConnection, now: Instant, control: bool) -> Option<Bytes> {
        if control
            && let Some(frame) =
                self.membership(now).or_else(|| self.search.next_frame()).or_else(|| application(link))
        {
            link.pacer.take(RateClass::Control);
            return Some(frame);
        }
        self.room_message(link, now)
    }

    /// For a harness that sends a reliable message twice: counts the second one, if the limits have
    /// place for it. Returns true if they have.
    #[cfg(feature = "plant")]
    pub fn repeats(&mut self, now: Now, bytes: usize) -> bool {
        let Some(link) = &mut self.link else { return false };
        let takes = link.pacer.takes(RateClass::Reliable);
        if takes {
            link.pacer.take(RateClass::Reliable);
            link.pacer.sent(now.instant, bytes);
        }
        takes
    }

    fn hello(&mut self, link: &mut OpenConnection, now: Instant) -> Bytes {
        self.search.reconnect();
        self.pending_leaves.reconnect();
        let (requests, dial) = (&mut self.requests, self.dial);
        let seal = self.config.seal.then(|| Offer::new(self.rng.bytes(), self.config.pinned));
        let resume = self.session.as_ref().map(|session| v1::Resume {
            session: Bytes::copy_from_slice(session.id.as_bytes()),
            rooms: self
                .rooms
                .iter_mut()
                .filter(|(_, room)| matches!(room.phase, RoomPhase::Member { .. }))
                .map(|(name, room)| room.resume(name, requests))
                .collect(),
            epoch: session.epoch,
        });
        // With a seal, joins wait until they can be sealed, since `Hello` is not sealed. One
        // exception: a resumed session keeps only the rooms that `Hello` names, and loses its match
        // if the match's room is not named, so a join that was sent before is repeated here.
        let (seals, resumes) = (self.config.seal, resume.is_some());
        let at_once = |room: &ClientRoom| room.may_be_joined(now) && (!seals || resumes && room.asked);
        let mut joins: Vec<_> = self.rooms.iter_mut().filter(|(_, room)| at_once(room)).collect();
        joins.sort_by_key(|(name, _)| keys::match_of(name).is_none());
        let joins = joins.into_iter().take(MAX_JOINS).map(|(name, room)| room.join(name, requests));
        let joins = joins.collect();
        let mut agent = self.config.agent.clone();
        while agent.len() > MAX_AGENT {
            agent.pop();
        }
        let hello = v1::Hello {
            token: Bytes::new(),
            resume,
            seal_key: seal.as_ref().map_or_else(Bytes::new, |seal| Bytes::copy_from_slice(&seal.public())),
            seal_pinned: seal.is_some() && self.config.pinned.is_some(),
            accept_zstd: self.config.accept_zstd,
            agent,
            joins,
            client: dial.client,
            dial: dial.dial,
        };
        link.greeted = true;
        link.offer = seal;
        plain(v1::Kind::Hello, &hello)
    }

    /// Returns the next `Leave` or `Join`. Leaves are first, since the server counts the rooms of a
    /// session.
    fn membership(&mut self, now: Instant) -> Option<Bytes> {
        let Self { rooms, requests, pending_leaves, .. } = self;
        if let Some(leave) = rooms.iter_mut().find_map(|(name, room)| room.next_leave(name, requests)) {
            return Some(plain(v1::Kind::Leave, &leave));
        }
        if let Some(frame) = pending_leaves.next_frame(requests) {
            return Some(frame);
        }
        let (name, room) = rooms.iter_mut().find(|(_, room)| room.may_be_joined(now))?;
        Some(plain(v1::Kind::Join, &room.join(name, requests)))
    }

    /// Returns one frame of the next room that has a frame. Rooms alternate, and within a room the
    /// kinds of messages alternate.
    fn room_message(&mut self, link: &mut OpenConnection, now: Instant) -> Option<Bytes> {
        let in_flight: usize = self.rooms.values().map(|room| room.outbox.in_flight()).sum();
        let pacer = &mut link.pacer;
        let (reliable_next, latest_next) = (pacer.takes(RateClass::Reliable), pacer.takes(RateClass::Latest));
        let control_next = pacer.takes(RateClass::Control);
        let mut name = self.served.clone();
        for _ in 0..self.rooms.len() {
            name = self.next_room(&name)?;
            let Some(room) = self.rooms.get_mut(&name).filter(|room| room.is_open()) else { continue };
            let turn = RoomSend {
                now,
                name: &name,
                player: &self.config.player,
                reliable: reliable_next && in_flight < self.limits.in_flight,
                latest: latest_next,
                state: control_next && self.state_at.is_none_or(|at| at <= now),
                state_bytes: STATE_BYTES.min(self.limits.frame_bytes / 2),
            };
            for (index, lane) in LANES.iter().enumerate().cycle().skip(room.lane).take(LANES.len()) {
                let frame = match lane {
                    Lane::Reliable => reliable(room, &turn),
                    Lane::Latest => latest(room, &turn),
                    Lane::State => state(room, &turn),
                };
                if frame.is_some() {
                    let class = match lane {
                        Lane::Reliable => RateClass::Reliable,
                        Lane::Latest => RateClass::Latest,
                        Lane::State => RateClass::Control,
                    };
                    room.lane = (index + 1) % LANES.len();
                    if *lane == Lane::State {
                        self.state_at = Some(now + STATE_INTERVAL);
                    }
                    self.served = name;
                    pacer.take(class);
                    return frame;
                }
            }
        }
        None
    }
}

fn application(link: &mut OpenConnection) -> Option<Bytes> {
    let (type_url, payload) = link.application.pop_front()?;
    let metadata = v1::Metadata { type_url, ..v1::Metadata::default() };
    Some(wire::encode_bytes(v1::Kind::Application, &metadata, &payload))
}

fn reliable(room: &mut ClientRoom, turn: &RoomSend<'_>) -> Option<Bytes> {
    if !turn.reliable {
        return None;
    }
    let (client_seq, message) = room.outbox.send_next(turn.now)?;
    Some(plain(
        v1::Kind::Say,
        &v1::Say {
            room: String::from(turn.name),
            client_seq,
            body: message.body.clone(),
            type_url: message.type_url.clone(),
            ends_turn: message.ends_turn,
        },
    ))
}

fn latest(room: &mut ClientRoom, turn: &RoomSend<'_>) -> Option<Bytes> {
    if !turn.latest {
        return None;
    }
    let (key, (body, type_url)) = room.latest.pop_first()?;
    let latest = v1::Latest { room: String::from(turn.name), key, body, type_url, ..v1::Latest::default() };
    Some(plain(v1::Kind::Latest, &latest))
}

fn state(room: &mut ClientRoom, turn: &RoomSend<'_>) -> Option<Bytes> {
    if !turn.state {
        return None;
    }
    let (name, epoch) = (String::from(turn.name), room.epoch());
    let entries = room.replicated.next_entries(turn.player, turn.state_bytes);
    if !entries.is_empty() {
        let state = v1::State { room: name, epoch, entries, ..v1::State::default() };
        return Some(plain(v1::Kind::State, &state));
    }
    let step = room.replicated.next_step()?;
    Some(plain(v1::Kind::Reconcile, &v1::Reconcile { room: name, epoch, ..step }))
}

pub(super) fn plain(kind: v1::Kind, message: &impl Message) -> Bytes {
    encode(kind, &v1::Metadata::default(), message)
}
