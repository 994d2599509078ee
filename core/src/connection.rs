//! A connection of a node, from its acceptance to its end (rows H1, H2, H3).

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::agenda::Booking;
use crate::config::Config;
use crate::heartbeat::Heartbeat;
use crate::id::{Address, Name};
use crate::node::Trace;
use crate::rate::Bucket;
use crate::rng::Rng;
use crate::session::SessionKey;
use crate::time::Instant;
use crate::wire::seal::Seal;

/// Frames that may wait for a connection beside what its cursors stand for. Answers to
/// requests, which are rate limited, and messages of the application.
pub(crate) const CONTROL_QUEUE: usize = 64;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its number among the connections that the node has accepted.
    pub(crate) number: u64,
    pub(crate) address: Address,
    pub(crate) trace: Trace,
    pub(crate) phase: Phase,
    pub(crate) booking: Booking,
    /// Whether its phase was given its time once more, since the node had stood still.
    pub(crate) excused: bool,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) buckets: Buckets,
    /// The session that this connection is, or was, the newest of.
    pub(crate) session: Option<SessionKey>,
    /// The `Welcome`, which goes out before everything else and is never sealed.
    pub(crate) welcome: Option<Bytes>,
    /// Frames that no cursor stands for; at most [`CONTROL_QUEUE`].
    pub(crate) control: VecDeque<Bytes>,
    /// Whether the driver knows that there is something to transmit.
    pub(crate) woken: bool,
    pub(crate) accept_zstd: bool,
    pub(crate) seal: Option<Box<Seal>>,
}

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// Accepted; the shell checks the upgrade.
    Upgrading { until: Instant },
    /// The upgrade passed; the first frame must be `Hello`.
    Greeting { until: Instant, identity: Box<Admitted> },
    /// It has said `Hello`; the registry is asked for its session.
    Claiming { until: Instant, identity: Box<Admitted>, hello: Box<v1::Hello> },
    /// Its session may write.
    Open,
    /// Its input is ignored; what is owed goes out, and then the `Goodbye`.
    Closing { until: Instant, goodbye: Option<Bytes>, owed: bool },
}

/// Whom the upgrade admitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) player: Name,
    pub(crate) token: Bytes,
}

/// How fast the connection may send, by class.
#[derive(Debug)]
pub(crate) struct Buckets {
    pub(crate) reliable: Bucket,
    pub(crate) latest: Bucket,
    pub(crate) control: Bucket,
    pub(crate) bytes: Bucket,
}

impl Connection {
    /// A connection that was accepted just now, as the node's `number`-th.
    pub(crate) fn new(number: u64, config: &Config, address: Address, now: Instant, rng: &mut Rng) -> Self {
        let rates = &config.rates;
        Self {
            number,
            address,
            trace: Trace::default(),
            phase: Phase::Upgrading { until: now + config.connections.handshake_timeout },
            booking: Booking::default(),
            excused: false,
            heartbeat: Heartbeat::new(&config.heartbeat, now, rng),
            buckets: Buckets {
                reliable: Bucket::new(rates.reliable, now),
                latest: Bucket::new(rates.latest, now),
                control: Bucket::new(rates.control, now),
                bytes: Bucket::new(rates.bytes, now),
            },
            session: None,
            welcome: None,
            control: VecDeque::new(),
            woken: false,
            accept_zstd: false,
            seal: None,
        }
    }

    /// Whether its player has not been admitted to a session yet.
    pub(crate) const fn is_unauthenticated(&self) -> bool {
        matches!(self.phase, Phase::Upgrading { .. } | Phase::Greeting { .. } | Phase::Claiming { .. })
    }

    /// Whether its player is known and its `Hello` is awaited or being served.
    pub(crate) const fn is_greeting(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. } | Phase::Claiming { .. })
    }

    /// Whether frames of its session are taken from it.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether it is being closed.
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    /// When something is due, whatever it is.
    pub(crate) const fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::Upgrading { until }
            | Phase::Greeting { until, .. }
            | Phase::Claiming { until, .. }
            | Phase::Closing { until, .. } => *until,
            Phase::Open => self.heartbeat.due(),
        }
    }

    /// Gives its phase time until `later`, once, if the phase has a deadline of its own.
    pub(crate) const fn excuse(&mut self, later: Instant) -> bool {
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

    /// Queues a frame that no cursor stands for. False if the queue is full.
    pub(crate) fn queue(&mut self, frame: Bytes) -> bool {
        let fits = self.control.len() < CONTROL_QUEUE;
        if fits {
            self.control.push_back(frame);
        }
        fits
    }

    /// Starts to close: the queue goes, unless what is `owed` is still to be sent.
    pub(crate) fn start_closing(&mut self, until: Instant, goodbye: Option<v1::Goodbye>, owed: bool) {
        let told = matches!(self.phase, Phase::Greeting { .. } | Phase::Claiming { .. } | Phase::Open);
        if !owed {
            self.control = VecDeque::new();
        }
        let goodbye = goodbye
            .filter(|_| told)
            .map(|goodbye| crate::wire::encode(v1::Kind::Goodbye, &v1::Metadata::default(), &goodbye));
        self.phase = Phase::Closing { until, goodbye, owed };
        self.excused = false;
    }
}
