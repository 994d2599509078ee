//! One connection, from accept to close.

use alloc::boxed::Box;

use bytes::Bytes;
use skirmish_proto::v1;

use super::admission::Source;
use super::metering::{Allowances, Class, Meters};
use super::queue::ControlQueue;
use crate::base::agenda::Booking;
use crate::base::id::Name;
use crate::base::rate::Bucket;
use crate::base::rng::Rng;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::config::Config;
use crate::node::Trace;
use crate::node::heartbeat::Heartbeat;
use crate::wire;
use crate::wire::seal::Seal;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Number of the connection among those that the node has accepted.
    pub(super) number: u64,
    pub(super) source: Source,
    pub(super) trace: Trace,
    pub(super) phase: Phase,
    pub(super) booking: Booking,
    /// True if the deadline of the phase was put off already, since the node had stood still.
    excused: bool,
    pub(super) heartbeat: Heartbeat,
    pub(super) buckets: Buckets,
    meters: Meters,
    /// End of the pause, before which the connection is not read.
    pub(super) paused: Option<Instant>,
    /// True from a pause until the driver has read everything that had arrived.
    pub(super) behind: bool,
    /// The session of which this connection is, or was, the newest.
    pub(super) session: Option<Key>,
    /// The `Welcome`, which is sent before all other frames and never sealed.
    pub(super) welcome: Option<Bytes>,
    pub(super) queue: ControlQueue,
    /// True if the driver knows of frames to transmit.
    pub(super) woken: bool,
    /// True if the client accepts compressed payloads.
    pub(super) accept_zstd: bool,
    pub(super) seal: Option<Box<Seal>>,
}

/// Phases of a connection, in their order.
#[derive(Debug)]
pub(super) enum Phase {
    /// Accepted; the shell checks the upgrade.
    Upgrading { until: Instant },
    /// The upgrade passed; the first frame must be `Hello`.
    Greeting { until: Instant, identity: Box<AdmittedPlayer> },
    /// The client has said `Hello`; the registry is asked for the player's session.
    Claiming { until: Instant, hello: Box<v1::Hello> },
    /// The session of the connection may write.
    Open,
    /// Input is ignored; frames that are owed go out, and then the `Goodbye`.
    Closing { until: Instant, goodbye: Option<Bytes>, owed: bool },
}

/// The player that the upgrade admitted.
#[derive(Debug)]
pub(super) struct AdmittedPlayer {
    pub(super) player: Name,
    pub(super) token: Bytes,
}

/// Rates at which messages of a connection are accepted.
#[derive(Debug)]
pub(super) struct Buckets {
    pub(super) reliable: Bucket,
    pub(super) latest: Bucket,
}

impl Connection {
    /// A connection that was accepted just now, as the node's `number`-th.
    pub(super) fn new(
        number: u64,
        config: &Config,
        allowances: &Allowances,
        source: Source,
        now: Instant,
        rng: &mut Rng,
    ) -> Self {
        let rates = &config.rates;
        Self {
            number,
            source,
            trace: Trace::default(),
            phase: Phase::Upgrading { until: now + config.connections.handshake_timeout },
            booking: Booking::default(),
            excused: false,
            heartbeat: Heartbeat::new(&config.heartbeat, now, rng),
            buckets: Buckets {
                reliable: Bucket::new(rates.reliable, now),
                latest: Bucket::new(rates.latest, now),
            },
            meters: Meters::new(allowances, now),
            paused: None,
            behind: false,
            session: None,
            welcome: None,
            queue: ControlQueue::default(),
            woken: false,
            accept_zstd: false,
            seal: None,
        }
    }

    /// Returns true if the player is known and its `Hello` is awaited or being served.
    pub(super) const fn is_greeting(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. } | Phase::Claiming { .. })
    }

    /// Returns true if frames of its session are accepted.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Returns true if the connection is being closed.
    pub(super) const fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// Returns true if the input of the connection waits: for a pause to end, or for the peer to
    /// read its answers.
    #[inline]
    pub(super) const fn is_held(&self) -> bool {
        !self.is_closing() && (self.paused.is_some() || self.queue.is_backed_up())
    }

    /// Charges the meter of a class for `tokens` that were read.
    pub(super) fn charge(
        &mut self,
        allowances: &Allowances,
        now: Instant,
        class: Class,
        tokens: u64,
    ) -> super::meter::Charge {
        self.meters.of_mut(class).charge(allowances.of(class), now, tokens, self.behind)
    }

    /// Notes that the driver has read all received input.
    pub(super) fn caught_up(&mut self, allowances: &Allowances, now: Instant) {
        self.behind = false;
        self.meters.caught_up(allowances, now);
    }

    /// Returns the time of the next thing that is due.
    pub(super) fn deadline(&self) -> Instant {
        let due = self.phase_deadline();
        self.paused.map_or(due, |paused| due.min(paused))
    }

    /// Returns the end of the phase, or the time of the next heartbeat.
    pub(super) const fn phase_deadline(&self) -> Instant {
        match &self.phase {
            Phase::Upgrading { until }
            | Phase::Greeting { until, .. }
            | Phase::Claiming { until, .. }
            | Phase::Closing { until, .. } => *until,
            Phase::Open => self.heartbeat.due(),
        }
    }

    /// Postpones the deadline of the phase until `later`. Returns false if it was postponed before,
    /// or the phase has no deadline of its own.
    pub(super) const fn excuse(&mut self, later: Instant) -> bool {
        if self.excused {
            return false;
        }
        match &mut self.phase {
            Phase::Upgrading { until }
            | Phase::Greeting { until, .. }
            | Phase::Claiming { until, .. }
            | Phase::Closing { until, .. } => *until = later,
            Phase::Open => return false,
        }
        self.excused = true;
        true
    }

    /// Starts closing. Drops queued frames unless they are `owed`. A client that was not admitted
    /// gets no `Goodbye`.
    pub(super) fn start_closing(&mut self, until: Instant, goodbye: &v1::Goodbye, owed: bool) {
        let admitted = self.is_greeting() || self.is_open();
        if !owed {
            self.queue.clear();
        }
        self.paused = None;
        let goodbye = admitted.then(|| wire::encode(v1::Kind::Goodbye, &v1::Metadata::default(), goodbye));
        self.phase = Phase::Closing { until, goodbye, owed };
        self.excused = false;
        self.woken = true;
    }
}
