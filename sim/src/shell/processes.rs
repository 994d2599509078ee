//! The processes of a run and their hosts: their states and their faults.

use std::collections::BTreeSet;

use skirmish_core::client::ClientState;
use skirmish_core::rng::Rng;
use skirmish_io::client::Client;
use skirmish_io::clock::Clock;
use skirmish_io::server::Handle;
use tokio::sync::{mpsc, oneshot};

use super::actions::ClientCommand;
use super::dial::Cable;
use crate::oracle::RoomNumber;

/// A client's process and its host.
pub(super) struct HostedClient {
    pub(super) player: usize,
    pub(super) life: u32,
    /// True from the start of the process until it is killed or its client has ended.
    pub(super) running: bool,
    pub(super) paused: bool,
    /// True while the application executes a command.
    pub(super) busy: bool,
    /// Time that the application spends on each event, in milliseconds.
    pub(super) dawdles: u64,
    pub(super) skew_ms: i64,
    /// Servers that no data of the client reaches.
    pub(super) blocked: BTreeSet<usize>,
    /// Servers whose data does not reach the client.
    pub(super) deaf: BTreeSet<usize>,
    pub(super) state: ClientState,
    pub(super) client: Option<Client>,
    pub(super) clock: Option<Clock>,
    pub(super) commands: Option<mpsc::UnboundedSender<ClientCommand>>,
    /// Time of the last check at which a fault held the client back.
    pub(super) troubled: u64,
    /// Time until which the application may be notified late of its client's events.
    pub(super) late_until: u64,
    /// Time until which a fault that is over may still hold the client back.
    pub(super) shaken_until: u64,
    /// True while data that the connection accepted over a bad link arrives item by item, each with
    /// the latency of the link: a habit of the simulated network.
    pub(super) backlogged: bool,
    /// Server of the next dial, and the server of the last connection.
    pub(super) home: usize,
    pub(super) reached: usize,
    /// True if that server refused the client.
    pub(super) unwelcome: bool,
    pub(super) route: Rng,
    /// Generator of the application's decisions to play a match, and for how long.
    pub(super) decisions: Rng,
    /// True while the application has asked for a match and does not know the number of the search.
    pub(super) asking: bool,
    /// Number of the application's search, until the application is notified of the end.
    pub(super) search: Option<u64>,
    /// Matches that the application was notified of.
    pub(super) matches: BTreeSet<String>,
    /// Rooms of matches that the application will join, with the playing times in microseconds.
    pub(super) invited: Vec<(RoomNumber, u64)>,
    pub(super) cable: Option<Cable>,
    /// Epoch of the client's last session.
    pub(super) epoch: u64,
    /// Time since which another client of the player has the session.
    pub(super) superseded: Option<u64>,
}

impl HostedClient {
    pub(super) fn new(player: usize, home: usize, route: Rng, decisions: Rng) -> Self {
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
            commands: None,
            troubled: 0,
            late_until: 0,
            shaken_until: 0,
            backlogged: false,
            home,
            reached: home,
            unwelcome: false,
            route,
            decisions,
            asking: false,
            search: None,
            matches: BTreeSet::new(),
            invited: Vec::new(),
            cable: None,
            epoch: u64::MAX,
            superseded: None,
        }
    }

    /// Returns true if the application may not know its client's state yet.
    pub(super) fn is_late(&self, at: u64) -> bool {
        self.paused || self.dawdles > 0 || at < self.late_until
    }

    /// Returns true if a fault holds the client back now.
    pub(super) fn is_held(&self) -> bool {
        self.paused || !self.deaf.is_empty() || !self.blocked.is_empty() || self.dawdles > 0
    }
}

/// A server's process and its host.
#[derive(Default)]
pub(super) struct HostedServer {
    pub(super) life: u32,
    pub(super) handle: Option<Handle>,
    pub(super) clock: Option<Clock>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) paused: bool,
    /// True if no data gets to the host; true if no data gets from the host.
    pub(super) cut: (bool, bool),
    /// True if no data gets from the host to the registry, or in the other direction.
    pub(super) off_registry: bool,
    pub(super) skew_ms: i64,
}

impl HostedServer {
    /// Returns true if the server has a fault now.
    pub(super) fn is_troubled(&self) -> bool {
        self.handle.is_none() || self.paused || self.cut.0 || self.cut.1 || self.off_registry
    }
}

/// The registry's process and its host, if the registry has a host of its own.
#[derive(Default)]
pub(super) struct HostedRegistry {
    pub(super) running: bool,
    pub(super) paused: bool,
    pub(super) cut: bool,
}

impl HostedRegistry {
    /// Returns true if the registry has a fault now.
    pub(super) const fn is_troubled(&self) -> bool {
        !self.running || self.paused || self.cut
    }
}
