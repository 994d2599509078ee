//! Connections of a node with its clients: one machine for their lives from accept to close.
//!
//! The machine admits connections, reads their frames as far as their limits allow, keeps their
//! deadlines, and queues the frames that no cursor of a session stands for. It knows sessions by
//! their keys only: the node tells it which session a connection has, and hears of input for that
//! session ([`ClientInput`]) and of its loss ([`LostConnection`]).

mod admission;
mod connection;
mod intake;
mod meter;
mod metering;
mod queue;
#[cfg(test)]
mod tests;
mod timeouts;
mod transmit;

use alloc::boxed::Box;
use alloc::string::String;

use skirmish_proto::v1;

use crate::base::agenda::Agenda;
use crate::base::bug::Bugs;
use crate::base::id::{Address, ConnId};
use crate::base::slab::{Key, Slab};
use crate::base::time::Duration;
use crate::config::Config;
use crate::node::cx::Cx;
use crate::node::heartbeat::Heartbeat;
use crate::node::inbound::millis;
use crate::node::logins::Logins;
use crate::node::{Event, Identity, Output, Trace, Wrong};
use crate::wire;
use crate::wire::seal::Seal;

use admission::Admission;
use connection::{AdmittedPlayer, Connection, Phase};
use metering::Allowances;

pub(crate) use admission::Source;
pub(crate) use intake::ClientInput;
pub(crate) use queue::CONTROL_BYTES;
pub(crate) use transmit::NextFrame;

pub use metering::Overhead;

/// Text of the `Goodbye` to a client if its session cannot be claimed now.
pub(crate) const UNAVAILABLE: &str = "the registry of sessions does not answer";

/// The connections of a node, those included that have no session yet.
#[derive(Debug)]
pub(crate) struct Connections {
    table: Slab<Connection>,
    admission: Admission,
    /// Log-ins by address.
    logins: Logins<Address>,
    allowances: Allowances,
    agenda: Agenda<Key>,
    /// Inflates frames that come in.
    zstd: wire::Zstd,
    stats: ConnectionStats,
}

/// Gauges, and counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ConnectionStats {
    /// Gauge: connections that are being closed.
    pub(crate) closing: usize,
    /// Gauge: connections that miss heartbeats.
    pub(crate) unhealthy: usize,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// Connections refused for the rate of their address.
    pub(crate) logins_limited: u64,
    pub(crate) displaced: u64,
    pub(crate) frames_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) bytes_out: u64,
    pub(crate) unsupported: u64,
    pub(crate) pauses: u64,
    pub(crate) protocol_errors: u64,
    pub(crate) heartbeat_timeouts: u64,
    pub(crate) handshake_timeouts: u64,
}

/// Loss of a connection, with the session that the connection belonged to. The session may have a
/// newer connection by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostConnection {
    pub(crate) session: Key,
    pub(crate) conn: ConnId,
    pub(crate) trace: Trace,
}

/// Input that breaks the protocol or its limits.
#[derive(Debug)]
pub(crate) struct Offence {
    /// Reason of the `Goodbye`.
    reason: v1::Reason,
    /// Description of the offence, for the client and for logs.
    what: String,
    wrong: Wrong,
}

impl Offence {
    /// An offence against the protocol.
    pub(crate) fn new(reason: v1::Reason, what: impl Into<String>) -> Self {
        Self { reason, what: what.into(), wrong: Wrong::Protocol }
    }

    /// The same offence, with another kind of wrong.
    pub(crate) fn with(self, wrong: Wrong) -> Self {
        Self { wrong, ..self }
    }
}

impl Connections {
    /// Creates the machine, without connections.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            table: Slab::new(config.connections.total),
            admission: Admission::default(),
            logins: Logins::new(config.rates.logins_per_address, config.connections.total),
            allowances: Allowances::new(config),
            agenda: Agenda::new(),
            zstd: wire::Zstd::default(),
            stats: ConnectionStats::default(),
        }
    }

    // Getters.

    /// Returns the number of connections.
    pub(crate) const fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns the number of connections without an open session.
    pub(crate) const fn unauthenticated(&self) -> usize {
        self.admission.waiting()
    }

    /// Returns gauges and counters.
    pub(crate) const fn stats(&self) -> &ConnectionStats {
        &self.stats
    }

    /// Returns the smoothed round trip of a connection; `None` before the first pong, or if the
    /// connection is gone.
    pub(crate) fn rtt(&self, key: Key) -> Option<Duration> {
        self.table.get(key)?.heartbeat.rtt()
    }

    /// Returns the trace of a connection; `None` if the connection is gone.
    pub(crate) fn trace(&self, key: Key) -> Option<Trace> {
        Some(self.table.get(key)?.trace)
    }

    /// Returns the number of a connection among all accepted ones; `None` if the connection is
    /// gone.
    pub(crate) fn number(&self, key: Key) -> Option<u64> {
        Some(self.table.get(key)?.number)
    }

    /// Returns true if the player of a connection is known, and the `Hello` is awaited or being
    /// served.
    pub(crate) fn is_greeting(&self, key: Key) -> bool {
        self.table.get(key).is_some_and(Connection::is_greeting)
    }

    // The way to a session.

    /// Notes the player that the upgrade of a connection has admitted. Returns false if the
    /// connection is gone, or is not in its upgrade.
    pub(crate) fn admit(&mut self, bugs: &mut Bugs, key: Key, identity: Identity) -> bool {
        // The node may have dropped the connection, and the driver does not know that yet.
        let Some(Phase::Upgrading { until }) = self.table.get(key).map(|connection| &connection.phase) else {
            return false;
        };
        let until = *until;
        self.change_phase(bugs, key, |connection| {
            connection.trace = identity.trace;
            let identity = Box::new(AdmittedPlayer { player: identity.player, token: identity.token });
            connection.phase = Phase::Greeting { until, identity };
        });
        true
    }

    /// Keeps the `Hello` of a connection while the session is claimed.
    pub(crate) fn start_claiming(&mut self, bugs: &mut Bugs, key: Key, hello: v1::Hello) {
        let Some(Phase::Greeting { until, .. }) = self.table.get(key).map(|connection| &connection.phase)
        else {
            return bugs.found("a session is claimed for a connection that does not greet");
        };
        let until = *until;
        self.change_phase(bugs, key, |connection| {
            connection.phase = Phase::Claiming { until, hello: Box::new(hello) };
        });
    }

    /// Takes the `Hello` of a connection after the claim of its session. Returns `None` if the
    /// connection is gone or is being closed.
    pub(crate) fn take_hello(&mut self, key: Key) -> Option<v1::Hello> {
        match &mut self.table.get_mut(key)?.phase {
            Phase::Claiming { hello, .. } => Some(core::mem::take(&mut **hello)),
            Phase::Upgrading { .. } | Phase::Greeting { .. } | Phase::Open | Phase::Closing { .. } => None,
        }
    }

    /// Opens a connection for a session.
    pub(crate) fn open(&mut self, cx: &mut Cx<'_>, key: Key, session: Key, accept_zstd: bool) {
        self.change_phase(cx.bugs, key, |connection| {
            connection.phase = Phase::Open;
            connection.session = Some(session);
            connection.heartbeat = Heartbeat::new(&cx.config.heartbeat, cx.now.instant, cx.rng);
            connection.accept_zstd = accept_zstd;
        });
        self.book(key);
    }

    /// Sends the `Welcome` of a connection before all other frames, and seals the later ones if the
    /// client has asked for a seal.
    pub(crate) fn welcome(&mut self, bugs: &mut Bugs, key: Key, welcome: &v1::Welcome, seal: Option<Seal>) {
        let Some(connection) = self.table.get_mut(key) else {
            return bugs.found("a connection vanished while it was welcomed");
        };
        connection.welcome = Some(wire::encode(v1::Kind::Welcome, &v1::Metadata::default(), welcome));
        connection.seal = seal.map(Box::new);
    }

    /// Parts a connection from its session. Input of the connection does not reach that session any
    /// more.
    pub(crate) fn part_from_session(&mut self, bugs: &mut Bugs, key: Key) {
        let Some(connection) = self.table.get_mut(key) else {
            return bugs.found("a connection that is not in the table has a session");
        };
        connection.session = None;
    }

    // The end.

    /// Closes a connection after a violation of the protocol or the limits, and tells the peer the
    /// reason. Ignored if the connection is gone or is being closed.
    pub(crate) fn punish(&mut self, cx: &mut Cx<'_>, key: Key, offence: Offence) {
        if self.table.get(key).is_none_or(Connection::is_closing) {
            return;
        }
        let Offence { reason, what, wrong } = offence;
        self.stats.protocol_errors += 1;
        self.close(cx, key, reason, &what);
        cx.event(Event::Misbehaved { conn: ConnId::from_key(key), what, wrong });
    }

    /// [Closes](Self::close_until) a connection, and lets the client return at once.
    pub(crate) fn close(&mut self, cx: &mut Cx<'_>, key: Key, reason: v1::Reason, message: &str) {
        self.close_until(cx, key, reason, message, Duration::ZERO);
    }

    /// Starts to close a connection, lets the client return after a time, and ignores further
    /// input. Ignored if the connection is gone or is being closed.
    pub(crate) fn close_until(
        &mut self,
        cx: &mut Cx<'_>,
        key: Key,
        reason: v1::Reason,
        message: &str,
        retry_after: Duration,
    ) {
        if self.table.get(key).is_none_or(Connection::is_closing) {
            return;
        }
        self.stats.closing += 1;
        let retry_after_ms = millis(retry_after);
        let goodbye = v1::Goodbye { reason: reason.into(), message: message.into(), retry_after_ms };
        let until = cx.now.instant + cx.config.connections.linger;
        self.change_phase(cx.bugs, key, |connection| {
            let owed = reason == v1::Reason::Draining && connection.is_open();
            connection.start_closing(until, &goodbye, owed);
        });
        cx.out.push_back(Output::Close(ConnId::from_key(key), reason));
        self.book(key);
    }

    /// [Closes](Self::close_until) every connection.
    pub(crate) fn close_all(
        &mut self,
        cx: &mut Cx<'_>,
        reason: v1::Reason,
        message: &str,
        retry_after: Duration,
    ) {
        for key in self.table.keys().collect::<alloc::vec::Vec<Key>>() {
            self.close_until(cx, key, reason, message, retry_after);
        }
    }

    /// Forgets a closed connection. Returns the session of the connection, if there was one.
    pub(crate) fn forget(&mut self, cx: &Cx<'_>, key: Key) -> Option<LostConnection> {
        // The driver may report the end of a connection that the node has dropped.
        let mut connection = self.table.remove(key)?;
        self.agenda.cancel(key, &mut connection.booking);
        self.stats.closing -= usize::from(connection.is_closing());
        let unhealthy = connection.heartbeat.missed() >= cx.config.heartbeat.unhealthy_after;
        self.stats.unhealthy -= usize::from(unhealthy);
        self.admission.remove(&connection);
        let (session, trace) = (connection.session?, connection.trace);
        Some(LostConnection { session, conn: ConnId::from_key(key), trace })
    }

    // Shared by the parts.

    /// Arms the next deadline of a connection.
    fn book(&mut self, key: Key) {
        // The connection may be gone since.
        if let Some(connection) = self.table.get_mut(key) {
            let at = connection.deadline();
            self.agenda.book(key, &mut connection.booking, at);
        }
    }

    /// Checks every bound of the machine (G11), and its gauges.
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub(crate) fn audit(&self, config: &Config) -> Result<(), &'static str> {
        let check = |holds: bool, bound| if holds { Ok(()) } else { Err(bound) };
        let count = |counts: fn(&Connection, &Config) -> bool| {
            self.table.keys().filter_map(|key| self.table.get(key)).filter(|c| counts(c, config)).count()
        };
        check(self.table.len() <= config.connections.total, "connections")?;
        self.admission.audit(&config.connections, self.table.len())?;
        check(self.logins.len() <= config.connections.total, "addresses whose log-ins are counted")?;
        check(self.agenda.len() <= self.table.len(), "deadlines of connections")?;
        let closing = count(|connection, _| connection.is_closing());
        check(closing == self.stats.closing, "connections that are being closed")?;
        let unhealthy =
            count(|connection, config| connection.heartbeat.missed() >= config.heartbeat.unhealthy_after);
        check(unhealthy == self.stats.unhealthy, "connections that miss heartbeats")?;
        for connection in self.table.keys().filter_map(|key| self.table.get(key)) {
            connection.queue.audit(config.frames.frame_bytes)?;
        }
        Ok(())
    }

    /// Gives a connection another session, or none, and returns the one before.
    #[cfg(test)]
    pub(crate) fn swap_session(&mut self, key: Key, session: Option<Key>) -> Option<Key> {
        let connection = self.table.get_mut(key).expect("the connection is in the table");
        core::mem::replace(&mut connection.session, session)
    }
}
