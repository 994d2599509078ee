//! The processes of a run and their hosts: how they are, and what is wrong with them.

use std::collections::BTreeSet;

use skirmish_core::client::ClientState;
use skirmish_core::rng::Rng;
use skirmish_io::client::Client;
use skirmish_io::clock::Clock;
use skirmish_io::server::Handle;
use tokio::sync::{mpsc, oneshot};

use super::act::Deed;
use super::dial::Cable;
use crate::oracle::RoomNumber;

/// A client's process and its host.
pub(super) struct HostedClient {
    pub(super) player: usize,
    pub(super) life: u32,
    /// From the start of the process until it is killed or its client has ended.
    pub(super) running: bool,
    pub(super) paused: bool,
    /// The application is in the middle of a command.
    pub(super) busy: bool,
    /// What the application takes for each event, in milliseconds.
    pub(super) dawdles: u64,
    pub(super) skew_ms: i64,
    /// The servers that nothing gets to from the client.
    pub(super) blocked: BTreeSet<usize>,
    /// The servers that nothing gets from to the client.
    pub(super) deaf: BTreeSet<usize>,
    pub(super) state: ClientState,
    pub(super) client: Option<Client>,
    pub(super) clock: Option<Clock>,
    pub(super) orders: Option<mpsc::UnboundedSender<Deed>>,
    /// When something last held it back.
    pub(super) troubled: u64,
    /// Until when its application may be told late what its client knows.
    pub(super) late_until: u64,
    /// Until when something that is over may still hold it back.
    pub(super) shaken_until: u64,
    /// What its connection was given while the link was bad comes in one by one, at the
    /// latency of the link each: a habit of the simulated network.
    pub(super) backlogged: bool,
    /// The server that it dials next, and the one that it was connected to last.
    pub(super) home: usize,
    pub(super) reached: usize,
    /// That server did not let it in.
    pub(super) unwelcome: bool,
    pub(super) route: Rng,
    /// Whether and how long its application plays a match.
    pub(super) whims: Rng,
    /// Its application has just asked for a match, and not learned the number of the search.
    pub(super) asking: bool,
    /// The search of its application that goes on, as far as it was told.
    pub(super) search: Option<u64>,
    /// Matches that the application was told of.
    pub(super) matches: BTreeSet<String>,
    /// Rooms of matches that it will go to, and for how many microseconds.
    pub(super) invited: Vec<(RoomNumber, u64)>,
    pub(super) cable: Option<Cable>,
    /// The epoch of its last session.
    pub(super) epoch: u64,
    /// Since when another client of the player has the session.
    pub(super) superseded: Option<u64>,
}

impl HostedClient {
    pub(super) fn new(player: usize, home: usize, route: Rng, whims: Rng) -> Self {
        Self {
            player,
            life: 0,
            running: false,
            paused: false,
            busy: false,
            dawdles: 0,
            skew_ms: 0,
            blocked: BTreeSet::new(),
            deaf: BTreeSet::new(),
            state: ClientState::Idle,
            client: None,
            clock: None,
            orders: None,
            troubled: 0,
            late_until: 0,
            shaken_until: 0,
            backlogged: false,
            home,
            reached: home,
            unwelcome: false,
            route,
            whims,
            asking: false,
            search: None,
            matches: BTreeSet::new(),
            invited: Vec::new(),
            cable: None,
            epoch: u64::MAX,
            superseded: None,
        }
    }

    /// Whether the application may not know yet what its client does.
    pub(super) fn is_late(&self, at: u64) -> bool {
        self.paused || self.dawdles > 0 || at < self.late_until
    }

    /// Whether something holds the client back now.
    pub(super) fn is_held(&self) -> bool {
        self.paused || !self.deaf.is_empty() || !self.blocked.is_empty() || self.dawdles > 0
    }
}

/// A server's process and its host.
#[derive(Default)]
pub(super) struct ServerSeat {
    pub(super) life: u32,
    pub(super) handle: Option<Handle>,
    pub(super) clock: Option<Clock>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) paused: bool,
    /// Nothing gets to the host, nothing gets from it.
    pub(super) cut: (bool, bool),
    /// Nothing gets from the host to the registry, or the other way.
    pub(super) off_registry: bool,
    pub(super) skew_ms: i64,
}

impl ServerSeat {
    /// Whether something is wrong with it now.
    pub(super) fn is_troubled(&self) -> bool {
        self.handle.is_none() || self.paused || self.cut.0 || self.cut.1 || self.off_registry
    }
}

/// The registry's process and its host, if it has one.
#[derive(Default)]
pub(super) struct RegistrySeat {
    pub(super) running: bool,
    pub(super) paused: bool,
    pub(super) cut: bool,
}

impl RegistrySeat {
    /// Whether something is wrong with it now.
    pub(super) const fn is_troubled(&self) -> bool {
        !self.running || self.paused || self.cut
    }
}
