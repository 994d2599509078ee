//! The client: one connection at a time to a server, a session that outlives the connection, and
//! the rooms of the session (rows R1, R2).
//!
//! The states and the transitions between them are the table in `state.rs`; its snapshot is
//! `transitions.txt`. The client guarantees to the application, as far as a client alone can:
//!
//! * The entries of a room are delivered once each, in order, without a gap that a snapshot does
//!   not announce (G1, G3, G5). If a server breaks this, the client closes the connection and
//!   resumes the session from the last delivered entry.
//! * Reliable messages of a room are sent in the order of the calls of [`Client::say`], and are
//!   sent again in that order until they are acknowledged (G2, G4). Each message gets exactly one
//!   [`Outcome`].
//! * Properties and counters may be changed at any time; replicas are reconciled after each
//!   `Joined` (G10).
//! * Every queue is bounded (G11).
//!
//! Frames are made from this state when `poll_transmit` asks for the next one; there is no queue of
//! frames.

mod commands;
mod config;
mod deliver;
mod event;
mod fault;
mod link;
mod liveness;
mod outbox;
mod pacer;
mod pending_leaves;
mod receive;
mod replicated;
mod room;
mod search;
mod state;
#[cfg(test)]
mod tests;
mod transmit;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::ops::Bound;

use bytes::Bytes;

pub use self::config::ClientConfig;
pub use self::event::{CommandError, Event, MessageId, Outcome, Output, StateRefusal};
pub use self::fault::Fault;
pub use self::state::ClientState;

use self::event::Outputs;
use self::link::{OpenConnection, WelcomedSession};
use self::pending_leaves::PendingLeaves;
use self::receive::Limits;
use self::room::{ClientRoom, RequestCounter};
use self::search::Search;
use self::state::StateTransition;
use crate::base::backoff::Backoff;
use crate::base::id::{Cursor, DialNumber};
use crate::base::plant::Planted;
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::crdt::Replica;
use crate::wire::Zstd;

/// The client as a machine. The driver follows the contract at the head of this crate's
/// documentation. After every input and command, it calls `poll_transmit` for as long as the
/// connection takes frames.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    rng: Rng,
    /// Seed of the hashes of names in the states of rooms, so that strangers cannot choose names
    /// that collide.
    names_seed: Seed,
    planted: Planted,
    /// Latest time that the driver has passed.
    now: Instant,
    state: ClientState,
    /// Time at which the state was entered.
    entered: Instant,
    /// End of the last back-off.
    retry_at: Instant,
    /// Earliest time for a dial, if the server has named one.
    limited_until: Option<Instant>,
    backoff: Backoff,
    /// The connection, while it is open. Boxed, because `poll_transmit` moves the connection.
    link: Option<Box<OpenConnection>>,
    /// The session, which outlives connections.
    session: Option<WelcomedSession>,
    limits: Limits,
    rooms: BTreeMap<String, ClientRoom>,
    /// Name of the room that sent last. The other rooms send before it sends again.
    served: String,
    /// Last frame of a connection that the client has closed.
    farewell: Option<Bytes>,
    /// Earliest time for the next frame of state.
    state_at: Option<Instant>,
    next_message: u64,
    search: Search,
    pending_leaves: PendingLeaves,
    requests: RequestCounter,
    /// Number of the last dial of this process.
    dial: DialNumber,
    outputs: Outputs,
    zstd: Zstd,
}

impl Client {
    /// Creates a client that is [`ClientState::Idle`]. The seed is the source of jitter and keys.
    #[must_use]
    pub fn new(config: ClientConfig, seed: Seed) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            config,
            names_seed: rng.split(),
            search: Search::new(rng.split()),
            dial: DialNumber { client: rng.u64(), dial: 0 },
            rng,
            planted: Planted::default(),
            now: Instant::ZERO,
            state: ClientState::Idle,
            entered: Instant::ZERO,
            retry_at: Instant::ZERO,
            limited_until: None,
            link: None,
            session: None,
            limits: Limits::default(),
            rooms: BTreeMap::new(),
            served: String::new(),
            farewell: None,
            state_at: None,
            next_message: 1,
            pending_leaves: PendingLeaves::default(),
            requests: RequestCounter::default(),
            outputs: Outputs::default(),
            zstd: Zstd::default(),
        }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.search.plant(planted);
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// Returns the replica of a room's state; `None` before the first `Welcome`, and for rooms that
    /// were not joined.
    #[must_use]
    pub fn replica(&self, room: &str) -> Option<&Replica> {
        self.rooms.get(room)?.replicated.replica()
    }

    /// Returns the rooms that the client is in or wants to be in, in the order of their names.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().filter(|(_, room)| room.is_wanted()).map(|(name, _)| name.as_str())
    }

    /// Returns the last entry of the room that was delivered or skipped by a snapshot.
    #[must_use]
    pub fn cursor(&self, room: &str) -> Option<Cursor> {
        self.rooms.get(room)?.cursor
    }

    /// Returns the number of reliable messages without an outcome, over all rooms.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.rooms.values().map(|room| room.outbox.len()).sum()
    }

    /// Returns the round-trip time: smoothed over the client's own pings, or else the last
    /// measurement of the server.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        let link = self.link.as_ref()?;
        link.liveness.rtt().or(link.rtt)
    }

    /// Returns the next output: an event, or an action for the driver. After every input and
    /// command, the driver calls this method until it returns `None`.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// Returns the time for the next call of `handle_timeout`, with the reason. Frames that wait
    /// for the socket have no deadline.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if self.outputs.len() > 0 {
            return Some(Deadline::new(self.now, "output is queued"));
        }
        let replicas = self
            .rooms
            .values()
            .filter_map(|room| room.replicated.poll_timeout())
            .fold(None, |a, b| Deadline::earliest(a, Some(b)));
        Deadline::earliest(self.state_deadline(), Deadline::earliest(self.send_deadline(), replicas))
    }

    /// Executes all deadlines that have passed. A spurious call is harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        self.observe(now);
        if self.is_congested() {
            return;
        }
        self.expire(now);
        self.release(now.instant);
        let clock = self.server_clock(now);
        for room in self.rooms.values_mut() {
            if room.replicated.poll_timeout().is_some_and(|deadline| deadline.at <= now.instant) {
                room.replicated.collect(clock);
            }
        }
    }

    fn observe(&mut self, now: Now) {
        self.now = self.now.max(now.instant);
    }

    /// Returns true if the driver has left so many outputs unpolled that none may be added.
    fn is_congested(&self) -> bool {
        self.outputs.len() >= self.config.events
    }

    /// Makes a transition of the table. Has no effect if the table has no row for it.
    fn step(&mut self, step: StateTransition) {
        if let Some(to) = self.state.after(step) {
            let from = core::mem::replace(&mut self.state, to);
            self.entered = self.now;
            self.outputs.event(Event::StateChanged { from, to });
        }
    }

    /// Returns the server's wall clock: its last reading, plus the time since then by the monotonic
    /// clock. The client's own wall clock may be wrong and may jump.
    fn server_clock(&self, now: Now) -> Now {
        match &self.session {
            Some(session) => session.clock.at(now),
            None => now,
        }
    }

    /// Returns the next room after the name `after`; after the last room, the first.
    fn next_room(&self, after: &str) -> Option<String> {
        self.rooms
            .range::<str, _>((Bound::Excluded(after), Bound::Unbounded))
            .next()
            .or_else(|| self.rooms.iter().next())
            .map(|(name, _)| name.clone())
    }
}
