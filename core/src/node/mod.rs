//! A whole server node: connections, sessions and rooms as one state machine.
//!
//! A reliable message passes these steps: [`Node::handle_frame`] (`inbound`) finds the session and
//! the room, [`Room::say`](crate::room::Room::say) appends the message, the members' connections
//! are woken, and [`Node::poll_transmit`] (`outbound`) reads the entry from the log for each
//! member.
//!
//! The registry names the primary of a room (`decisions`, `rooms`). If another node is the primary,
//! the message is relayed to that node over its link. That node appends it, and the entry returns
//! with the tail of the log (`hosting`).

mod audit;
pub mod budget;
mod candidates;
mod clock;
pub mod clocks;
mod connection_inputs;
mod connections;
mod cx;
mod decisions;
mod event;
mod frame_queue;
mod handshake;
pub mod heartbeat;
mod inbound;
mod lifecycle;
mod links;
mod logins;
mod matchmaking;
mod outbound;
mod peers;
mod rooms;
mod sessions;
#[cfg(test)]
mod tests;
mod view;

use alloc::collections::VecDeque;
use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::base::agenda::Agenda;
use crate::base::bug::{Bug, Bugs};
use crate::base::id::{Address, ConnId, LinkId, Name, NodeId};
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::slab::Key;
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::config::Config;
use crate::crdt::Replica;
use crate::matchmaking::{Matcher, PlayerTickets};
use crate::node::clocks::Clocks;
use crate::node::connections::{Connections, Source};
use crate::registrar::Registrar;
use crate::registry::{CallOrigin, LeaseId, RegistryEvent};
use crate::wire;

use peers::{Caller, Peers, PeersTimer};
use rooms::RoomTable;
use sessions::Sessions;

pub use crate::hosting::Passage;
pub use crate::wire::Trace;
pub use connections::Overhead;
pub use event::{Event, Identity, Output, Refusal, Stats, Wrong};
pub use peers::{LinkClosure, Unreachable};

/// A node: one shard of a process, single-threaded.
#[derive(Debug)]
pub struct Node {
    config: Config,
    rng: Rng,
    planted: Planted,
    seal_key: Option<[u8; 32]>,
    zstd: wire::Zstd,
    connections: Connections,
    sessions: Sessions,
    rooms: RoomTable,
    id: NodeId,
    registrar: Registrar,
    player_tickets: PlayerTickets,
    matcher: Matcher,
    /// Lease last passed to `player_tickets` and `matcher`.
    matchmaking_lease: Option<LeaseId>,
    peers: Peers,
    clocks: Clocks,
    /// Address at which this node accepts links, as in its record; empty if the node accepts none.
    link_address: String,
    agenda: Agenda<Timer>,
    outputs: VecDeque<Output>,
    /// `Retry-After` of a node that drains; `None` before the drain.
    draining: Option<Duration>,
    /// Time of the last input: the deadline of queued outputs.
    now: Instant,
    stats: Stats,
    bugs: Bugs,
}

/// Kinds of deadlines, for things that have one deadline each. Equal deadlines are met in this
/// order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(Key),
    Session(Key),
    Room(Key),
    Peers(PeersTimer),
}

impl Timer {
    const fn reason(self) -> &'static str {
        match self {
            Self::Connection(_) => "a connection's handshake, heartbeat, pause or linger",
            Self::Session(_) => "a session without a connection expires",
            Self::Room(_) => "a room flushes, forgets tombstones or members, or waits for its tail",
            Self::Peers(timer) => timer.reason(),
        }
    }
}

impl Node {
    /// Creates a node.
    ///
    /// `id` is a number that no other start of any node has ever had. `record` is the record of
    /// this node in the registry, for other nodes. `seal_key` is the static X25519 secret that
    /// clients may have pinned. [`Self::start`] must be the first call.
    #[must_use]
    pub fn new(
        config: Config,
        seed: Seed,
        id: NodeId,
        record: v1::NodeRecord,
        seal_key: Option<[u8; 32]>,
    ) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            link_address: record.link.clone(),
            id,
            registrar: Registrar::new(
                config.registrar.clone(),
                id,
                record,
                rng.split(),
                CallOrigin::Registrar.numbers(),
            ),
            player_tickets: PlayerTickets::new(
                config.matchmaking.clone(),
                id,
                rng.split(),
                CallOrigin::PlayerTickets.numbers(),
            ),
            matcher: Matcher::new(&config.matchmaking, id, rng.split(), CallOrigin::Matcher.numbers()),
            matchmaking_lease: None,
            peers: Peers::new(id, config.links.total),
            clocks: clock::clocks(&config),
            planted: Planted::default(),
            seal_key,
            zstd: wire::Zstd::default(),
            connections: Connections::new(&config),
            sessions: Sessions::new(&config, rng.split()),
            rooms: RoomTable::new(config.rooms.total, rng.split()),
            agenda: Agenda::new(),
            outputs: VecDeque::new(),
            draining: None,
            now: Instant::ZERO,
            stats: Stats::default(),
            bugs: Bugs::new(),
            rng,
            config,
        }
    }

    /// Plants a bug. Must be called before the first input.
    #[cfg(feature = "plant")]
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.bugs.plant(planted);
        self.registrar.plant(planted);
        self.player_tickets.plant(planted);
        self.matcher.plant(planted);
        self.clocks.plant(planted);
    }

    // Getters.

    /// Returns gauges and counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let own = &self.stats;
        let of_rooms = self.rooms.counts();
        let of_connections = self.connections.stats();
        let of_sessions = self.sessions.stats();
        Stats {
            connections: self.connections.len(),
            unauthenticated: self.connections.unauthenticated(),
            closing: of_connections.closing,
            unhealthy: of_connections.unhealthy,
            accepted: of_connections.accepted,
            refused: of_connections.refused,
            logins_limited: of_sessions.logins_limited + of_connections.logins_limited,
            detached: of_sessions.detached,
            takeovers: of_sessions.takeovers,
            resumes: of_sessions.resumes,
            deliveries: of_sessions.deliveries,
            displaced: of_connections.displaced,
            frames_in: of_connections.frames_in,
            bytes_in: of_connections.bytes_in,
            frames_out: of_connections.frames_out,
            bytes_out: of_connections.bytes_out,
            unsupported: of_connections.unsupported,
            pauses: of_connections.pauses,
            protocol_errors: of_connections.protocol_errors,
            heartbeat_timeouts: of_connections.heartbeat_timeouts,
            handshake_timeouts: of_connections.handshake_timeouts,
            sessions: self.sessions.len(),
            rooms: self.rooms.len(),
            links: self.peers.links(),
            link_frames_in: self.peers.stats().frames_in,
            link_frames_out: self.peers.stats().frames_out,
            link_overflows: self.peers.stats().overflows,
            members: of_rooms.members,
            entries: of_rooms.entries,
            latest: of_rooms.latest,
            conflated: of_rooms.conflated,
            throttled: own.throttled + of_rooms.throttled,
            duplicates: of_rooms.duplicates,
            expiries: of_sessions.expiries + of_rooms.expiries,
            snapshots: of_sessions.snapshots + of_rooms.snapshots,
            state_full: own.state_full + of_rooms.state_full,
            rooms_lost: of_rooms.rooms_lost,
            fenced: of_rooms.fenced,
            refused_epochs: of_rooms.refused_epochs,
            joins_retried: of_rooms.joins_retried,
            rooms_taken_over: of_rooms.rooms_taken_over,
            backups_diverged: of_rooms.backups_diverged,
            bugs: self.bugs.count()
                + self.registrar.bugs_found()
                + self.player_tickets.bugs_found()
                + self.matcher.bugs_found(),
            ..*own
        }
    }

    /// Returns the configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the smoothed round trip of a connection; `None` before its first pong.
    #[must_use]
    pub fn rtt(&self, conn: ConnId) -> Option<Duration> {
        self.connections.rtt(conn.key())
    }

    /// Returns the trace of a connection.
    #[must_use]
    pub fn trace(&self, conn: ConnId) -> Option<Trace> {
        self.connections.trace(conn.key())
    }

    /// Returns this node's replica of a room's state.
    #[must_use]
    pub fn replica(&self, room: &str) -> Option<&Replica> {
        Some(&self.rooms.get(self.rooms.named(room)?)?.room().state)
    }

    // Inputs.

    /// Registers the node. Must be the first input.
    pub fn start(&mut self, now: Now) {
        let now = self.begin(now);
        self.registrar.start(now);
        if self.makes_matches() {
            self.player_tickets.start(now);
            self.matcher.start(now);
        }
        self.consult_registrar(now);
    }

    /// Handles an answer or an unasked event of the registry.
    pub fn handle_registry_event(&mut self, now: Now, event: RegistryEvent) {
        let now = self.begin(now);
        self.pass_on(now, event);
        self.consult_registrar(now);
    }

    /// Accepts a link that this node has dialed. Returns `None` if the table of links is full; then
    /// the driver drops the link.
    pub fn handle_link(&mut self, now: Now, dialed: NodeId) -> Option<LinkId> {
        let now = self.begin(now);
        self.link_up(now, Caller::Dialed(dialed))
    }

    /// Accepts a link that another node has dialed. The new link may displace one whose node has
    /// not named itself. Returns `None` if the table of links is full; then the driver drops the
    /// link.
    pub fn handle_caller(&mut self, now: Now, address: Address) -> Option<LinkId> {
        let now = self.begin(now);
        self.link_up(now, Caller::Stranger(address.counted(self.config.connections.ipv6_prefix)))
    }

    /// Handles a failed dial of another node.
    pub fn handle_dial_failed(&mut self, now: Now, node: NodeId) {
        let now = self.begin(now);
        self.dial_failed(now, node);
    }

    /// Handles one whole frame from another node.
    pub fn handle_link_frame(&mut self, now: Now, link: LinkId, frame: Bytes) {
        let now = self.begin(now);
        self.take_link_frame(now, link.key(), frame);
        self.consult_registrar(now);
    }

    /// Handles the end of a link.
    pub fn handle_link_closed(&mut self, now: Now, link: LinkId) {
        let now = self.begin(now);
        self.forget_link(now, link.key());
        self.consult_registrar(now);
    }

    /// Accepts a connection of which only the address is known, and starts the deadline of its
    /// handshake. The new connection may displace one that has not said `Hello`.
    ///
    /// # Errors
    /// If a cap is reached. Then the node keeps no state for the connection, and the driver drops
    /// it.
    pub fn handle_accept(&mut self, now: Now, address: Address) -> Result<ConnId, Refusal> {
        let now = self.begin(now);
        self.accept(now, Source::Client(address))
    }

    /// Handles an upgrade that passed its checks. Ignored if the connection is being closed
    /// already.
    pub fn handle_upgraded(&mut self, now: Now, conn: ConnId, identity: Identity) {
        self.begin(now);
        self.admit(conn.key(), identity);
    }

    /// Handles one whole frame of a client. Ignored if the connection is being closed.
    pub fn handle_frame(&mut self, now: Now, conn: ConnId, frame: Bytes) {
        let now = self.begin(now);
        self.take_frame(now, conn.key(), frame);
        self.consult_registrar(now);
    }

    /// Handles a message that is no frame, such as a text message: closes the connection.
    pub fn handle_violation(&mut self, now: Now, conn: ConnId, what: &'static str, wrong: Wrong) {
        let now = self.begin(now);
        self.wronged(now, conn.key(), v1::Reason::ProtocolError, what.into(), wrong);
        self.consult_registrar(now);
    }

    /// Handles the end of a connection.
    pub fn handle_closed(&mut self, now: Now, conn: ConnId) {
        let now = self.begin(now);
        self.forget_connection(now, conn.key());
        self.consult_registrar(now);
    }

    /// Executes all deadlines up to `now`. The driver must have handed in everything that had
    /// arrived until then. A deadline for an action of a peer that is found
    /// [late](crate::base::time::LATE) is put off once: this node stood still, and the peer may
    /// still need a round trip.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = self.begin(now);
        while let Some(timer) = self.take_due(now.instant) {
            match timer {
                Timer::Connection(key) => self.connection_timeout(now, key),
                Timer::Session(key) => self.session_timeout(now, key),
                Timer::Room(key) => self.room_timeout(now, key),
                Timer::Peers(timer) => self.peers_timeout(now, timer),
            }
        }
        self.registrar.handle_timeout(now);
        if self.makes_matches() {
            self.player_tickets.handle_timeout(now);
            self.matcher.handle_timeout(now);
        }
        self.consult_registrar(now);
    }

    // Commands.

    /// Refuses new connections and closes all others. Each client first receives the frames that
    /// are owed to it, and then is told to return, here or to another node, after `retry_after`.
    pub fn drain(&mut self, now: Now, retry_after: Duration) {
        let now = self.begin(now);
        if self.draining.replace(retry_after).is_some() {
            return;
        }
        let (connections, mut cx) = self.connections(now);
        connections.close_all(&mut cx, v1::Reason::Draining, "the server is about to stop", retry_after);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.registrar.set_metadata(now, count(self.connections.len()), count(self.rooms.len()), true);
        self.consult_registrar(now);
    }

    /// Releases everything that the node owns in the registry, and ends its links, so that other
    /// nodes need not wait until its leases end. Must be the last command.
    pub fn stop(&mut self, now: Now) {
        let now = self.begin(now);
        // First: a room that loses its links here must not be taken over any more.
        self.registrar.stop(now);
        self.stop_links(now);
        self.consult_registrar(now);
    }

    /// Ends the session of a player. Returns false if the player has no session here.
    pub fn kick(&mut self, now: Now, player: &str) -> bool {
        let now = self.begin(now);
        let Some(key) = Name::new(player).ok().and_then(|name| self.sessions.of_player(&name)) else {
            return false;
        };
        let conn = self.sessions.conn(key);
        self.end_session(now, key, v1::Reason::Kicked);
        if let Some(conn) = conn {
            self.close(now, conn.key(), v1::Reason::Kicked, "removed by an operator or by the application");
        }
        self.consult_registrar(now);
        true
    }

    /// Tells a client that this server does not handle application messages of a type. The
    /// connection stays open.
    pub fn refuse_application(&mut self, now: Now, conn: ConnId, type_url: &str) {
        let now = self.begin(now);
        let kind = v1::Kind::Application as u32;
        if self.connections.is_open(conn.key()) {
            self.unsupported(now, conn.key(), v1::Unsupported { kind, type_url: type_url.into() });
        }
    }

    /// Sends an application message to a connection. Returns false, and keeps nothing, if the
    /// connection is closed, its queue is full, or the message is too large.
    pub fn send(&mut self, now: Now, conn: ConnId, type_url: &str, payload: &[u8]) -> bool {
        let now = self.begin(now);
        if payload.len() > self.config.frames.body_bytes || type_url.len() > inbound::MAX_TYPE_URL {
            return false;
        }
        let metadata = v1::Metadata { type_url: String::from(type_url), ..v1::Metadata::default() };
        let frame = wire::encode_bytes(v1::Kind::Application, &metadata, payload);
        let (connections, mut cx) = self.connections(now);
        connections.send(&mut cx, conn.key(), frame)
    }

    // Polls.

    /// Returns the next task for the driver.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        let Self { outputs, bugs, registrar, player_tickets, matcher, .. } = self;
        let event = |Bug { what, place }| Output::Event(Event::Bug { what, place });
        let of_machines =
            || registrar.poll_bug().or_else(|| player_tickets.poll_bug()).or_else(|| matcher.poll_bug());
        outputs.pop_front().or_else(|| bugs.poll().or_else(of_machines).map(event))
    }

    /// Returns the next frame for a connection. The driver should ask only while the socket accepts
    /// more: a frame that was not asked for stays in its log and costs nothing.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Now, conn: ConnId) -> Option<Bytes> {
        self.now = self.now.max(now.instant);
        self.next_frame(now, conn.key())
    }

    /// Returns the next frame for a link, as [`Self::poll_transmit`] does for a connection.
    #[must_use]
    pub fn poll_link_transmit(&mut self, now: Now, link: LinkId) -> Option<Bytes> {
        self.now = self.now.max(now.instant);
        self.next_link_frame(link.key())
    }

    /// Returns the deadline of the next [`Self::handle_timeout`], with the reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.outputs.is_empty() || self.bugs.has_news() {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        let booked = self.next_timer().map(|(at, timer)| Deadline::new(at, timer.reason()));
        let own = Deadline::earliest(booked, self.registrar.poll_timeout());
        let own = Deadline::earliest(own, self.clock_deadline());
        if !self.makes_matches() {
            return own;
        }
        let matches = Deadline::earliest(self.player_tickets.poll_timeout(), self.matcher.poll_timeout());
        Deadline::earliest(own, matches)
    }

    // Shared by the parts.

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Returns the earliest deadline of a timer. Among equals, connections come first, then sessions.
    fn next_timer(&self) -> Option<(Instant, Timer)> {
        let connection = self.connections.next_timer().map(|(at, key)| (at, Timer::Connection(key)));
        let session = self.sessions.next_timer().map(|(at, key)| (at, Timer::Session(key)));
        let peers = self.peers.next_timer().map(|(at, timer)| (at, Timer::Peers(timer)));
        [connection, session, self.agenda.next(), peers].into_iter().flatten().min()
    }

    /// Takes out the timer with the earliest deadline, if the deadline has come.
    fn take_due(&mut self, now: Instant) -> Option<Timer> {
        match self.next_timer()?.1 {
            Timer::Connection(_) => self.connections.take_due(now).map(Timer::Connection),
            Timer::Session(_) => self.sessions.take_due(now).map(Timer::Session),
            Timer::Room(_) => self.agenda.take_due(now),
            Timer::Peers(_) => self.peers.take_due(now).map(Timer::Peers),
        }
    }

    /// Wakes the members of a room whose sessions are on this node.
    fn wake_members(&mut self, room: Key) {
        let Self { rooms, sessions, connections, outputs, bugs, planted, .. } = self;
        let Some(hosted) = rooms.get(room) else {
            return self.bugs.found("a room that is not in the table is read");
        };
        for session in hosted.locals() {
            let Some(conn) = sessions.conn(session) else { continue };
            let was_woken = connections.wake(bugs, outputs, conn.key());
            if was_woken && planted.is(Plant::SlowReaderStalls) {
                break;
            }
        }
    }
}

impl ConnId {
    const fn from_key(key: Key) -> Self {
        Self { slot: key.slot, generation: key.generation }
    }

    const fn key(self) -> Key {
        Key { slot: self.slot, generation: self.generation }
    }
}
