//! Knowledge of a run: the events of every client's application, in the form for the oracles, and
//! the state of every process.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madsim::time::TimeHandle;
use skirmish_core::client::{Event, Outcome};
use skirmish_core::rng::Rng;
use skirmish_io::clock::Clock;
use skirmish_proto::v1::{EntryKind, Reason};
use xxhash_rust::xxh3::Xxh3;

use super::dial::Cable;
use super::matches::MatchMarks;
use super::plan::RunPlan;
use super::processes::{HostedClient, HostedRegistry, HostedServer};
use super::registry_state::RegistryState;
use super::servers::config;
use super::write_watch::WriteWatch;
use crate::coverage::Coverage;
use crate::draw::generator;
use crate::history::{Actor, History};
use crate::oracle::{
    ClientLife, DeliveredEntry, Guarantee, Observation, Oracles, RoomNumber, Verdict, Violation,
};
use crate::rooms::Rooms;
use crate::scenario::Shape;

/// Aftermath of a cut link, in microseconds. Connections over the link are tried again with a
/// back-off of up to 10 s, so a mended link may still hold data back for this time.
pub(super) const AFTERMATH: u64 = 12_000_000;

/// Returns the time since the start of the run, in microseconds.
pub(super) fn at() -> u64 {
    u64::try_from(TimeHandle::current().elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The ledger, shared by all processes. Never locked over an await.
#[derive(Clone)]
pub(super) struct SharedLedger(Arc<Mutex<Ledger>>);

/// Knowledge of a run.
pub(super) struct Ledger {
    pub(super) history: History,
    pub(super) coverage: Coverage,
    pub(super) oracles: Oracles,
    /// The first violation that a client's task found.
    pub(super) violation: Option<Violation>,
    pub(super) clients: Vec<HostedClient>,
    pub(super) servers: Vec<HostedServer>,
    /// The registry, if it has a host of its own, and its data.
    pub(super) registry: HostedRegistry,
    pub(super) registry_state: Option<RegistryState>,
    /// Pairs of servers with a cut between them, the lower number first.
    pub(super) apart: BTreeSet<(usize, usize)>,
    /// True while packets take longer than usual or are lost.
    pub(super) stormy: bool,
    /// Time until which messages about an ended session may still be under way.
    pub(super) unsettled_until: u64,
    pub(super) rooms: Rooms,
    pub(super) write_watch: WriteWatch,
    pub(super) match_marks: MatchMarks,
    pub(super) shape: Shape,
    /// Percent of the dials that have another target than the dial before.
    wander_percent: u64,
    next_serial: u64,
    traced: bool,
}

impl SharedLedger {
    pub(super) fn new(plan: &RunPlan, traced: bool) -> Self {
        let mut routes = generator(plan.seed, "shell routes");
        let mut decisions = generator(plan.seed, "shell whims");
        let last = plan.servers() as u64 - 1;
        let mut process = |client| {
            let home = if last == 0 { 0 } else { routes.range(0..=last) };
            let home = usize::try_from(home).unwrap_or(0);
            HostedClient::new(
                plan.player(client),
                home,
                Rng::new(routes.split()),
                Rng::new(decisions.split()),
            )
        };
        let registry_state = plan.shape.has_remote_registry().then(|| {
            let rng = generator(plan.seed, "shell registry");
            let clock = Clock::drifting(plan.drifts.registry);
            RegistryState::new(plan.servers(), clock, rng, plan.shape.queues > 0)
        });
        Self(Arc::new(Mutex::new(Ledger {
            history: History::new(false),
            coverage: Coverage::default(),
            oracles: Oracles::new(&config(plan, 0).core().matchmaking),
            violation: None,
            clients: (0..plan.clients()).map(&mut process).collect(),
            servers: (0..plan.servers()).map(|_| HostedServer::default()).collect(),
            registry: HostedRegistry::default(),
            registry_state,
            apart: BTreeSet::new(),
            stormy: false,
            unsettled_until: 0,
            rooms: Rooms::new(plan.shape.rooms),
            write_watch: WriteWatch::default(),
            match_marks: MatchMarks::default(),
            shape: plan.shape,
            wander_percent: plan.shape.wander_percent,
            next_serial: 1,
            traced,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Records an event. A trace is printed at once, so that it is complete even if the run ends in
    /// a panic.
    pub(super) fn note(&mut self, lane: Actor, text: fmt::Arguments<'_>) {
        let at = at();
        self.history.record(at, lane, text);
        if self.traced {
            crate::outln!("{:>5}.{:06}  {:<9} {text}", at / 1_000_000, at % 1_000_000, lane.to_string());
        }
    }

    pub(super) fn client_life(&self, client: usize) -> ClientLife {
        ClientLife { client, life: self.clients[client].life }
    }

    /// Chooses the server of a client's next dial.
    pub(super) fn choose(&mut self, client: usize) -> usize {
        let count = self.servers.len();
        let process = &mut self.clients[client];
        if count > 1 {
            let wanders = process.route.range(0..=99) < self.wander_percent;
            // Until the client is connected, it counts as unwelcome.
            if std::mem::replace(&mut process.unwelcome, true) || wanders {
                let step = process.route.range(1..=count as u64 - 1);
                process.home = (process.home + usize::try_from(step).unwrap_or(1)) % count;
            }
        }
        let home = process.home;
        self.note(Actor::Client(client), format_args!("dials server {home}"));
        home
    }

    /// Returns true if no data gets from a client to a server.
    pub(super) fn is_blocked(&self, client: usize, server: usize) -> bool {
        self.clients[client].blocked.contains(&server) || self.servers[server].cut.0
    }

    /// Records a client's new connection.
    pub(super) fn plug(&mut self, client: usize, server: usize) -> Cable {
        let cable = Cable::default();
        let process = &mut self.clients[client];
        (process.reached, process.unwelcome) = (server, false);
        process.cable = Some(cable.clone());
        cable
    }

    /// Returns a room's number; a new one for an unknown room.
    pub(super) fn room(&mut self, name: &str) -> RoomNumber {
        u32::try_from(self.rooms.number(name)).unwrap_or(RoomNumber::MAX)
    }

    /// Returns all open rooms, with their names.
    pub(super) fn open_rooms(&self) -> Vec<(RoomNumber, Arc<str>)> {
        let number = |(number, name): (u64, _)| (u32::try_from(number).unwrap_or(RoomNumber::MAX), name);
        self.rooms.open().into_iter().map(number).collect()
    }

    /// Returns the name of a room.
    pub(super) fn room_name(&self, room: RoomNumber) -> Arc<str> {
        self.rooms.name(room.into())
    }

    /// Returns the serial of the next message.
    pub(super) fn serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }

    /// Records a message that the client has accepted.
    pub(super) fn said(&mut self, client_life: ClientLife, room: RoomNumber, message: u64, serial: u64) {
        self.note(
            Actor::Client(client_life.client),
            format_args!("says {serial} in room {room} as {message}"),
        );
        self.fence(client_life, room, serial);
        self.observe(&Observation::Said { client_life, room, message, serial });
    }

    /// Records a client's request to leave a room.
    pub(super) fn leaves(&mut self, client_life: ClientLife, room: RoomNumber) {
        self.observe(&Observation::Leaves { client_life, room });
    }

    /// Checks a client that has ended by itself: every message that its application said must have
    /// an outcome.
    pub(super) fn ended(&mut self, client_life: ClientLife) {
        let open = self.oracles.open_messages(client_life);
        if open > 0 {
            let description =
                format!("{client_life} has ended without telling the outcome of {open} messages");
            self.judge(Err(Violation { guarantee: Guarantee::Kept, description }));
        }
    }

    /// Ends the life of a client's process.
    pub(super) fn gone(&mut self, client: usize) {
        if !std::mem::take(&mut self.clients[client].running) {
            return;
        }
        let client_life = self.client_life(client);
        let process = &mut self.clients[client];
        process.life += 1;
        process.busy = false;
        process.state = skirmish_core::client::ClientState::Idle;
        (process.client, process.clock, process.commands, process.cable) = (None, None, None, None);
        (process.superseded, process.epoch) = (None, u64::MAX);
        (process.asking, process.search) = (false, None);
        process.matches.clear();
        process.invited.clear();
        self.oracles.matches.restarted(client);
        self.observe(&Observation::Gone { client_life });
    }

    /// Adds a server's counts to the coverage, at the end of its process or of the run.
    pub(super) fn retire(&mut self, server: usize) {
        if let Some(handle) = self.servers[server].handle.take() {
            self.coverage.add_stats(&handle.stats());
        }
    }

    /// Passes an observation to the oracles. The first violation is kept.
    pub(super) fn observe(&mut self, seen: &Observation) {
        let verdict = self.oracles.observe(at(), seen);
        self.judge(verdict);
    }

    /// Keeps the violation if it is the first.
    pub(super) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.violation.is_none()
        {
            self.note(Actor::World, format_args!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    /// Checks all clients and servers, at regular intervals.
    pub(super) fn check(&mut self, within: u64) {
        let at = at();
        let troubled = self.is_troubled();
        let mut free = Vec::new();
        for (client, process) in self.clients.iter_mut().enumerate() {
            let held = process.is_held() || troubled;
            if held {
                process.shaken_until = at + AFTERMATH;
            }
            if held
                || process.backlogged
                || at < process.shaken_until
                || !process.running
                || process.state != skirmish_core::client::ClientState::Connected
            {
                process.troubled = at;
            } else {
                free.push((ClientLife { client, life: process.life }, process.troubled));
            }
        }
        let verdict = self.oracles.check(at, &free, within);
        self.judge(verdict);
        for server in 0..self.servers.len() {
            let Some(handle) = self.servers[server].handle.clone() else { continue };
            let result = handle.inspect(|node| node.audit());
            self.history.frame(format!("{at} {:?}", handle.stats()).as_bytes());
            self.observe(&Observation::Audit { result });
        }
        if let Some(registry_state) = &self.registry_state {
            let result = registry_state.audit();
            self.history.frame(&registry_state.revision().to_be_bytes());
            self.observe(&Observation::Audit { result });
        }
        self.sample();
        self.forget_rooms();
    }

    /// Forgets rooms of matches that no server and no client has any more.
    fn forget_rooms(&mut self) {
        let Self { rooms, servers, clients, oracles, .. } = self;
        rooms.forget(|number, name| {
            let room = u32::try_from(number).unwrap_or(RoomNumber::MAX);
            let at_server = |server: &HostedServer| {
                server.handle.as_ref().is_some_and(|handle| handle.inspect(|node| node.head(name).is_some()))
            };
            let member = |(client, process): (usize, &HostedClient)| {
                oracles.is_member(ClientLife { client, life: process.life }, room)
            };
            servers.iter().any(at_server) || clients.iter().enumerate().any(member)
        });
    }

    /// Returns true if a fault may hold any client back.
    fn is_troubled(&self) -> bool {
        let registry = self
            .registry_state
            .as_ref()
            .is_some_and(|state| self.registry.is_troubled() || state.is_troubled());
        self.stormy
            || registry
            || !self.apart.is_empty()
            || self.servers.iter().any(HostedServer::is_troubled)
            || (self.servers.len() > 1 && self.is_disunited())
    }

    /// Records an event of a client's application.
    pub(super) fn event(&mut self, client_life: ClientLife, event: Event) {
        self.note(Actor::Client(client_life.client), format_args!("{event:?}"));
        self.sample();
        let seen = match event {
            Event::StateChanged { to, .. } => {
                let process = &mut self.clients[client_life.client];
                process.state = to;
                process.backlogged &= to != skirmish_core::client::ClientState::Connected;
                return;
            }
            Event::Session { epoch, resumed, lost } => {
                if !resumed {
                    self.coverage.hit("session opened");
                }
                self.holds(client_life.client, epoch);
                Observation::Session { client_life, resumed, lost }
            }
            Event::Joined { room, epoch, resumed, .. } => {
                self.coverage.hit(if resumed { "join resumed" } else { "joined" });
                let room = self.room(&room);
                self.note_joined(client_life, room, epoch);
                Observation::Joined { client_life, room, epoch, resumed }
            }
            Event::Left { room, reason } => {
                if self.oracles.matches.left(client_life.client, &room, reason) {
                    self.coverage.hit("match left");
                }
                Observation::Left { client_life, room: self.room(&room) }
            }
            Event::Snapshot { room, cursor, missing, .. } => {
                self.coverage.hit(match missing {
                    Some(_) => "snapshot with loss",
                    None => "snapshot without loss",
                });
                Observation::Snapshot { client_life, room: self.room(&room), cursor, missing }
            }
            Event::Latest { room, member, key, version, .. } => {
                self.coverage.hit("latest delivered");
                Observation::Latest { client_life, room: self.room(&room), member, key, version }
            }
            Event::Outcome { message, outcome, .. } => {
                self.coverage.hit(match outcome {
                    Outcome::Acknowledged => "acknowledged",
                    Outcome::Refused => "refused",
                    Outcome::Unknown => "unknown",
                });
                Observation::Outcome { client_life, message: message.0, outcome }
            }
            Event::Closed {
                reason: reason @ (Reason::ProtocolError | Reason::Incompatible | Reason::Unauthenticated),
                message,
                fault,
            } => {
                let description = format!(
                    "{client_life} was disconnected, though both sides are honest: {reason:?}, {message}"
                );
                self.judge(Err(Violation { guarantee: Guarantee::accused(fault), description }));
                return;
            }
            Event::Closed { reason, .. } => {
                self.clients[client_life.client].unwelcome |= reason == Reason::Draining;
                return;
            }
            entry @ Event::Entry { .. } => {
                let Some(entry) = self.digested(client_life, entry) else { return };
                self.coverage.hit("entry");
                self.delivered(&entry);
                Observation::Entry(entry)
            }
            Event::Ticket { search, state, .. } => return self.ticket_told(client_life, search, state),
            Event::Matched(matched) => return self.match_told(client_life, matched),
            Event::GivenUp { matched } => {
                self.coverage.hit("match given up");
                let verdict = self.oracles.matches.given_up(client_life.client, &matched);
                return self.judge(verdict);
            }
            Event::State { .. }
            | Event::StateRefused { .. }
            | Event::Throttled { .. }
            | Event::Application { .. }
            | Event::Unsupported { .. } => return,
        };
        self.observe(&seen);
    }

    /// Returns an entry in the form for the oracles.
    fn digested(&mut self, client_life: ClientLife, event: Event) -> Option<DeliveredEntry> {
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
            return None;
        };
        let mut digest = Xxh3::new();
        let (turn, turn_ends_ms) = turn.map_or((0, 0), |turn| (turn.number, turn.ends_ms));
        for number in [kind as u64, member.into(), client_seq, at_ms, turn.into(), turn_ends_ms] {
            digest.write_u64(number);
        }
        for bytes in [&body[..], type_url.as_bytes(), player.as_bytes()] {
            digest.write_u64(bytes.len() as u64);
            digest.write(bytes);
        }
        let head = || body.get(..8).and_then(|head| head.try_into().ok()).map_or(0, u64::from_be_bytes);
        Some(DeliveredEntry {
            client_life,
            room: self.room(&room),
            cursor,
            member,
            client_seq,
            serial: (kind == EntryKind::Say).then(head),
            own: message.map(|message| message.0),
            turn,
            digest: digest.finish(),
        })
    }
}
