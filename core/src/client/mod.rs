//! The player's side: one connection at a time to a server, a session that outlives it,
//! and the rooms that the session is in (rows R1, R2).
//!
//! The states and every way between them are the table in `state.rs`; its snapshot is
//! `transitions.txt`. What the client guarantees towards the application, as far as it is
//! the client's to guarantee:
//!
//! * Entries of a room are delivered each once, in order, without a gap that a snapshot
//!   does not announce (G1, G3, G5). A server that sends something else is hung up on,
//!   and the session resumed from the last entry delivered.
//! * Reliable messages of a room are sent in the order in which they were said, and sent
//!   again in that order until they are acknowledged (G2, G4). Each gets exactly one
//!   [`Outcome`].
//! * Properties and counters may be changed at any time; replicas are reconciled when the
//!   client is back (G10).
//! * Everything that waits is bounded (G11).
//!
//! Frames to be sent are computed from this state when `poll_transmit` asks for the next
//! one; there is no queue of frames.

mod commands;
mod config;
mod deliver;
mod event;
mod fault;
mod link;
mod liveness;
mod outbox;
mod pacer;
mod parting;
mod receive;
mod replicated;
mod room;
mod search;
mod state;
#[cfg(test)]
mod tests;
mod transmit;

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
use self::parting::Parting;
use self::receive::Limits;
use self::room::ClientRoom;
use self::search::Search;
use self::state::StateTransition;
use crate::base::backoff::Backoff;
use crate::base::id::Cursor;
use crate::base::plant::Planted;
use crate::base::rng::{Rng, Seed};
use crate::base::time::{Deadline, Duration, Instant, Now};
use crate::crdt::Replica;
use crate::wire::Zstd;

/// The machine. Driven as the crate's documentation says; `poll_transmit` is to be asked
/// after every input and command for as long as the connection takes frames.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    rng: Rng,
    /// Keeps names in rooms' states from being chosen to collide.
    names_seed: Seed,
    planted: Planted,
    /// The latest time heard of.
    now: Instant,
    state: ClientState,
    /// When the state was entered.
    entered: Instant,
    /// When the back-off is over.
    retry_at: Option<Instant>,
    /// The server wants no connection before.
    limited_until: Option<Instant>,
    backoff: Backoff,
    /// The connection, while it is open.
    link: Option<OpenConnection>,
    /// The session, which survives connections.
    session: Option<WelcomedSession>,
    limits: Limits,
    rooms: BTreeMap<String, ClientRoom>,
    /// The room that sent last: the others come first.
    served: String,
    /// The last frame of a connection that the client has hung up on.
    farewell: Option<Bytes>,
    /// No state is sent before.
    state_at: Option<Instant>,
    next_message: u64,
    search: Search,
    parting: Parting,
    outputs: Outputs,
    zstd: Zstd,
}

impl Client {
    /// A client that is [`ClientState::Idle`]. The seed is what jitter and keys are drawn from.
    #[must_use]
    pub fn new(config: ClientConfig, seed: Seed) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            config,
            names_seed: rng.split(),
            search: Search::new(rng.split()),
            rng,
            planted: Planted::default(),
            now: Instant::ZERO,
            state: ClientState::Idle,
            entered: Instant::ZERO,
            retry_at: None,
            limited_until: None,
            link: None,
            session: None,
            limits: Limits::default(),
            rooms: BTreeMap::new(),
            served: String::new(),
            farewell: None,
            state_at: None,
            next_message: 1,
            parting: Parting::default(),
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

    /// The state.
    #[must_use]
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// The replica of a room's state; `None` before the first `Welcome`, and for rooms
    /// that were not joined.
    #[must_use]
    pub fn replica(&self, room: &str) -> Option<&Replica> {
        self.rooms.get(room)?.replicated.replica()
    }

    /// The rooms that the client is in or wants to be in, in the order of their names.
    pub fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.iter().filter(|(_, room)| room.is_wanted()).map(|(name, _)| name.as_str())
    }

    /// The last entry of the room that was delivered or skipped by a snapshot.
    #[must_use]
    pub fn cursor(&self, room: &str) -> Option<Cursor> {
        self.rooms.get(room)?.cursor
    }

    /// Reliable messages without an outcome, over all rooms.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.rooms.values().map(|room| room.outbox.len()).sum()
    }

    /// The round trip: smoothed over the client's own pings, or as the server measured it last.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        let link = self.link.as_ref()?;
        link.liveness.rtt().or(link.rtt)
    }

    /// What happened, and what is to be done. To be polled until there is nothing more
    /// after every input and command.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop()
    }

    /// When `handle_timeout` is to be called, and why. Never reports frames that wait to
    /// be sent: those wait for the socket.
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

    /// A deadline has come, or may have.
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

    /// Whether the driver has left so much unpolled that nothing may be added.
    fn is_congested(&self) -> bool {
        self.outputs.len() >= self.config.events
    }

    /// Makes a transition of the table; without a row for it, nothing.
    fn step(&mut self, step: StateTransition) {
        if let Some(to) = self.state.after(step) {
            let from = core::mem::replace(&mut self.state, to);
            self.entered = self.now;
            self.outputs.event(Event::StateChanged { from, to });
        }
    }

    /// The server's wall clock: what it said at the `Welcome`, and the time since then by
    /// the monotonic clock. The client's own wall clock may be wrong and may jump.
    fn server_clock(&self, now: Now) -> Now {
        match &self.session {
            Some(session) => session.clock.at(now),
            None => now,
        }
    }

    /// The room after the one of that name, and after the last the first.
    fn next_room(&self, after: &str) -> Option<String> {
        self.rooms
            .range::<str, _>((Bound::Excluded(after), Bound::Unbounded))
            .next()
            .or_else(|| self.rooms.iter().next())
            .map(|(name, _)| name.clone())
    }
}
