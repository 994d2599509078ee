//! Driver of the clients.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;

use bytes::Bytes;
use skirmish_core::client::{Client, ClientState, Event, Fault, Outcome, Output};
use skirmish_core::id::Name;
use skirmish_core::plant::Planted;
use skirmish_core::rng::{Rng, Seed};
use skirmish_core::time::Now;
use skirmish_core::wire::{self, Frame};
use skirmish_proto::v1::{EntryKind, Kind, LeftReason, Reason};
use xxhash_rust::xxh3::Xxh3;

use super::{MAX_ROUNDS, World};
use crate::clock::SkewedClock;
use crate::history::Actor;
use crate::network::{PipeItem, Way};
use crate::oracle::{ClientLife, DeliveredEntry, Guarantee, Observation, Verdict, Violation};
use crate::scenario::Shape;

/// Latest arrival of data that is held back until a take-over, in microseconds.
const MOST_LATE: u64 = 10_000_000;

/// A client's process.
pub(super) struct ClientProcess {
    pub(super) machine: Client,
    pub(super) player: Name,
    number: usize,
    life: u32,
    pub(super) clock: SkewedClock,
    pub(super) rng: Rng,
    planted: Planted,
    /// The connection that the client has or has asked for.
    pub(super) conn: Option<u64>,
    /// The node that the client connects to.
    pub(super) home: usize,
    /// True if that node refuses the client, or asks the client to leave.
    pub(super) unwelcome: bool,
    pub(super) paused: bool,
    /// Time until which the client reads nothing.
    pub(super) stalled_until: u64,
    /// Time between two frames that the client reads, in microseconds.
    pub(super) read_gap: u64,
    /// Number of the next reliable messages that are sent twice.
    pub(super) repeat: u64,
    /// Time of the last check at which a fault held the client back.
    pub(super) troubled: u64,
    /// Time of the last check at which the process read nothing or had no connection.
    pub(super) away: u64,
    wakes: Option<u64>,
    spins: (u64, u32),
    percent: u64,
    /// Rooms of matches that the application has not entered yet.
    pub(super) invited: Vec<String>,
    /// Matches that the application was notified of.
    pub(super) matches: BTreeSet<String>,
    /// The turns of rooms, as the application knows them.
    pub(super) turns: BTreeMap<String, u32>,
}

impl ClientProcess {
    pub(super) fn new(
        shape: &Shape,
        number: usize,
        clock: SkewedClock,
        seed: Seed,
        planted: Planted,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let percent = rng.range(0..=99);
        let player = player_name(number as u64 % shape.players.max(1));
        let machine = machine(shape, percent, &player, rng.split(), planted);
        let home = match shape.node_count() as u64 {
            1 => 0,
            nodes => usize::try_from(rng.range(0..=nodes - 1)).unwrap_or(0),
        };
        Self {
            machine,
            player,
            number,
            life: 0,
            clock,
            rng,
            planted,
            conn: None,
            home,
            unwelcome: false,
            paused: false,
            stalled_until: 0,
            read_gap: 0,
            repeat: 0,
            troubled: 0,
            away: 0,
            wakes: None,
            spins: (0, 0),
            percent,
            invited: Vec::new(),
            matches: BTreeSet::new(),
            turns: BTreeMap::new(),
        }
    }

    pub(super) fn client_life(&self) -> ClientLife {
        ClientLife { client: self.number, life: self.life }
    }

    pub(super) fn wakes(&self) -> Option<u64> {
        // The clock of a client that reads nothing stands still: input comes before time.
        self.wakes.filter(|_| !self.is_reading_nothing())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.machine.state() == ClientState::Connected
    }

    pub(super) fn is_reading_nothing(&self) -> bool {
        self.paused || self.stalled_until > 0
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.is_reading_nothing() || self.read_gap > 0
    }

    /// Chooses the node of the next dial.
    pub(super) fn choose(&mut self, shape: &Shape) -> usize {
        let nodes = shape.node_count();
        if nodes > 1 {
            let wanders = self.rng.range(0..=99) < shape.wander_percent;
            if std::mem::take(&mut self.unwelcome) || wanders {
                let step = self.rng.range(1..=nodes as u64 - 1);
                self.home = (self.home + usize::try_from(step).unwrap_or(1)) % nodes;
            }
        }
        self.home
    }
}

fn machine(shape: &Shape, percent: u64, player: &Name, seed: Seed, planted: Planted) -> Client {
    let mut config = shape.client_config(percent);
    config.player = player.as_str().into();
    let mut machine = Client::new(config, seed);
    machine.plant(planted);
    machine
}

fn player_name(player: u64) -> Name {
    Name::new(&format!("player-{player}")).expect("it is short and has letters, digits and a dash only")
}

/// Returns true if the frame is a reliable message without a seal.
fn is_plain_say(frame: &Bytes) -> bool {
    let frame = Frame::decode(frame.clone(), usize::MAX);
    frame.is_ok_and(|frame| frame.message() == Ok(Kind::Say) && frame.flags & wire::FLAG_SEALED == 0)
}

impl World<'_> {
    /// Gives one input to a client, and executes everything that follows at this moment.
    pub(super) fn client_input<T>(
        &mut self,
        client: usize,
        input: impl FnOnce(&mut Client, Now) -> T,
    ) -> Result<T, Violation> {
        let process = &mut self.clients[client];
        let now = process.clock.now(self.at);
        let result = input(&mut process.machine, now);
        self.settle_client(client)?;
        Ok(result)
    }

    pub(super) fn client_timeout(&mut self, client: usize) -> Verdict {
        let spins = &mut self.clients[client].spins;
        *spins = if spins.0 == self.at { (self.at, spins.1 + 1) } else { (self.at, 0) };
        if spins.1 > MAX_ROUNDS {
            let reason = self.clients[client].machine.poll_timeout().map(|due| due.reason);
            return self.broken(
                Guarantee::Bounded,
                format!("client {client}'s deadline ({reason:?}) does not go away when it is served"),
            );
        }
        self.client_input(client, Client::handle_timeout)
    }

    /// Drains a client: outputs, then frames, until neither is left.
    pub(super) fn settle_client(&mut self, client: usize) -> Verdict {
        for round in 0.. {
            if round > MAX_ROUNDS {
                return self.broken(Guarantee::Bounded, format!("client {client}'s output has no end"));
            }
            let mut quiet = true;
            while let Some(output) = self.clients[client].machine.poll_output() {
                quiet = false;
                match output {
                    Output::Dial => self.dial(client),
                    Output::Hangup => self.hang_up(client)?,
                    Output::Event(event) => self.client_event(client, event)?,
                }
            }
            if !self.pump_client(client)? && quiet && !self.accept_match(client)? {
                break;
            }
        }
        let process = &mut self.clients[client];
        let due = process.machine.poll_timeout();
        process.wakes = due.map(|due| process.clock.world(due.at).max(self.at));
        Ok(())
    }

    /// Asks the client for frames as long as its connection accepts them. Returns true if frames
    /// were sent.
    fn pump_client(&mut self, client: usize) -> Result<bool, Violation> {
        let Some(id) = self.clients[client].conn else { return Ok(false) };
        let mut any = false;
        loop {
            let Some(conn) = self.conns.get(&id).filter(|conn| conn.connected) else { return Ok(any) };
            if !conn.up.is_writable() {
                self.coverage.hit("back-pressure at client");
                return Ok(any);
            }
            let process = &mut self.clients[client];
            let now = process.clock.now(self.at);
            let Some(frame) = process.machine.poll_transmit(now) else { return Ok(any) };
            any = true;
            let repeat = process.repeat > 0 && is_plain_say(&frame);
            process.repeat -= u64::from(repeat);
            // A message that is sent twice counts twice.
            let repeat = repeat && process.machine.repeats(now, frame.len());
            self.note_asked(id, &frame)?;
            if repeat {
                self.send(id, Way::Up, PipeItem::Frame(frame.clone()));
            }
            self.send(id, Way::Up, PipeItem::Frame(frame));
        }
    }

    /// Closes the client's connection after the client's remaining frames.
    fn hang_up(&mut self, client: usize) -> Verdict {
        self.pump_client(client)?;
        let Some(id) = self.clients[client].conn.take() else { return Ok(()) };
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.client_open = false;
            self.clients[client].unwelcome |= !conn.connected;
        }
        self.send(id, Way::Up, PipeItem::Fin);
        self.forget_if_over(id);
        Ok(())
    }

    /// Notifies a client that a pipe to the node has room again.
    pub(super) fn client_can_write(&mut self, id: u64) -> Verdict {
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let client = conn.client;
        if self.clients[client].conn != Some(id) || self.clients[client].paused || !conn.connected {
            return Ok(());
        }
        self.settle_client(client)
    }

    pub(super) fn arrive_at_client(&mut self, id: u64, item: PipeItem) -> Verdict {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let client = conn.client;
        if !conn.client_open || self.clients[client].conn != Some(id) {
            return Ok(());
        }
        match item {
            PipeItem::Open => {
                conn.connected = true;
                self.client_input(client, Client::handle_connected)
            }
            PipeItem::Frame(frame) => {
                self.note_told(client, id, &frame)?;
                self.client_input(client, |machine, now| machine.handle_frame(now, frame))
            }
            PipeItem::Fin | PipeItem::Reset => {
                conn.client_open = false;
                self.clients[client].unwelcome |= !conn.connected;
                self.clients[client].conn = None;
                self.send(id, Way::Up, PipeItem::Fin);
                self.client_input(client, Client::handle_disconnected)
            }
        }
    }

    /// Gives the client's connection up. Data that was sent over it arrives late.
    pub(super) fn roam(&mut self, client: usize, millis: u64) -> Verdict {
        let Some(id) = self.clients[client].conn.take() else { return Ok(()) };
        self.coverage.hit("client roamed");
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.client_open = false;
            let late = if millis == 0 { MOST_LATE } else { millis * 1_000 };
            conn.held_until = self.at + late;
            conn.released_by_takeover = millis == 0;
        }
        self.send(id, Way::Up, PipeItem::Fin);
        self.client_input(client, Client::handle_disconnected)
    }

    /// Kills the client's process and starts a new one with an empty memory.
    pub(super) fn crash_client(&mut self, client: usize) -> Verdict {
        self.coverage.hit("client crash");
        self.observe(Observation::Gone { client_life: self.clients[client].client_life() })?;
        if let Some(id) = self.clients[client].conn.take() {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.client_open = false;
            }
            self.send(id, Way::Up, PipeItem::Reset);
            self.forget_if_over(id);
        }
        self.oracles.matches.restarted(client);
        let process = &mut self.clients[client];
        process.life += 1;
        process.clock = process.clock.restarted(self.at);
        process.invited.clear();
        process.matches.clear();
        process.turns.clear();
        let seed = process.rng.split();
        process.machine =
            machine(&self.scenario.shape, process.percent, &process.player, seed, process.planted);
        self.settle_client(client)
    }

    pub(super) fn resume_client(&mut self, client: usize) -> Verdict {
        if !self.clients[client].paused {
            return Ok(());
        }
        self.clients[client].paused = false;
        self.relief(Actor::Client(client), "paused");
        self.schedule_arrivals(client, self.at);
        if let Some(id) = self.clients[client].conn {
            self.client_can_write(id)?;
        }
        Ok(())
    }

    pub(super) fn unstall(&mut self, client: usize) -> Verdict {
        if self.clients[client].stalled_until <= self.at {
            self.clients[client].stalled_until = 0;
            self.relief(Actor::Client(client), "stalled");
            self.schedule_arrivals(client, self.at);
        }
        Ok(())
    }

    fn client_event(&mut self, client: usize, event: Event) -> Verdict {
        self.history.record(self.at, Actor::Client(client), format_args!("{event:?}"));
        let client_life = self.clients[client].client_life();
        match event {
            Event::StateChanged { .. } => Ok(()),
            Event::Session { resumed, lost, .. } => {
                if lost {
                    self.coverage.hit("session lost");
                }
                self.observe(Observation::Session { client_life, resumed, lost })
            }
            Event::Joined { room, epoch, resumed, member } => {
                if let Some(conn) = self.clients[client].conn {
                    self.note_joined(conn, &room, epoch, member);
                }
                self.coverage.hit(if resumed { "join resumed" } else { "joined" });
                let player = self.clients[client].player.clone();
                self.oracles.matches.joined(self.at, &player, &room);
                let room = self.room(&room);
                self.observe(Observation::Joined { client_life, room, epoch, resumed })
            }
            Event::Left { room, reason } => {
                if matches!(reason, LeftReason::RoomFull | LeftReason::Limit) {
                    self.coverage.hit("join refused");
                }
                if self.oracles.matches.left(client, &room, reason) {
                    self.coverage.hit("match left");
                }
                let room = self.room(&room);
                self.observe(Observation::Left { client_life, room })
            }
            Event::Snapshot { room, cursor, missing, .. } => {
                self.coverage.hit(match missing {
                    Some(_) => "snapshot with loss",
                    None => "snapshot without loss",
                });
                let room = self.room(&room);
                self.observe(Observation::Snapshot { client_life, room, cursor, missing })
            }
            Event::Latest { room, member, key, version, .. } => {
                self.coverage.hit("latest delivered");
                let room = self.room(&room);
                self.observe(Observation::Latest { client_life, room, member, key, version })
            }
            Event::Outcome { message, outcome, .. } => {
                self.coverage.hit(match outcome {
                    Outcome::Acknowledged => "acknowledged",
                    Outcome::Refused => "refused",
                    Outcome::Unknown => "unknown",
                });
                self.observe(Observation::Outcome { client_life, message: message.0, outcome })
            }
            Event::State { .. } => {
                self.coverage.hit("state changed");
                Ok(())
            }
            Event::StateRefused { .. } => {
                self.coverage.hit("state refused");
                Ok(())
            }
            Event::Throttled { .. } => {
                self.coverage.hit("throttled told");
                Ok(())
            }
            Event::Ticket { search, state, .. } => self.ticket_told(client, search, state),
            Event::Matched(matched) => self.match_told(client, matched),
            Event::GivenUp { matched } => {
                self.coverage.hit("match given up");
                self.oracles.matches.given_up(client, &matched)
            }
            Event::Application { .. } | Event::Unsupported { .. } => Ok(()),
            Event::Closed { reason, message, fault } => self.closed(client, reason, &message, fault),
            entry @ Event::Entry { .. } => self.entry(client_life, entry),
        }
    }

    fn entry(&mut self, client_life: ClientLife, event: Event) -> Verdict {
        let Event::Entry {
            room,
            cursor,
            kind,
            member,
            message,
            client_seq,
            at_ms,
            body,
            type_url,
            player,
            turn,
        } = event
        else {
            return Ok(());
        };
        self.coverage.hit("entry");
        let mut digest = Xxh3::new();
        let (turn, turn_ends_ms) = turn.map_or((0, 0), |turn| (turn.number, turn.ends_ms));
        for number in [kind as u64, member.into(), client_seq, at_ms, turn.into(), turn_ends_ms] {
            digest.write_u64(number);
        }
        if turn > 0 {
            self.coverage.hit(if kind == EntryKind::Turn { "turn over" } else { "turn ended" });
            self.clients[client_life.client].turns.insert(room.clone(), turn);
        }
        for bytes in [&body[..], type_url.as_bytes(), player.as_bytes()] {
            digest.write_u64(bytes.len() as u64);
            digest.write(bytes);
        }
        let serial = (kind == EntryKind::Say)
            .then(|| body.get(..8).and_then(|head| head.try_into().ok()).map_or(0, u64::from_be_bytes));
        let room = self.room(&room);
        self.observe(Observation::Entry(DeliveredEntry {
            client_life,
            room,
            cursor,
            member,
            client_seq,
            serial,
            own: message.map(|message| message.0),
            turn,
            digest: digest.finish(),
        }))
    }

    /// Handles the close of a connection for a reason. Both sides are honest, so neither ever has
    /// cause to accuse the other of breaking the protocol. The client's accusation tells which
    /// guarantee the client found broken.
    fn closed(&mut self, client: usize, reason: Reason, message: &str, fault: Option<Fault>) -> Verdict {
        if reason == Reason::TakenOver {
            let greeters = self.greeters.get(&self.clients[client].player);
            let by_another = greeters.is_some_and(|greeters| greeters.len() > 1);
            let client_life = self.clients[client].client_life();
            self.observe(Observation::TakenOver { client_life, by_another })?;
        }
        match reason {
            Reason::ProtocolError | Reason::Incompatible | Reason::Unauthenticated => self.broken(
                Guarantee::accused(fault),
                format!(
                    "client {client} was disconnected although both sides are honest: {reason:?}, {message}"
                ),
            ),
            Reason::Draining => {
                self.clients[client].unwelcome = true;
                Ok(())
            }
            Reason::TakenOver | Reason::Kicked if self.healed.is_some() => {
                self.recalled.push(client);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
