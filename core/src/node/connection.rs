//! A connection of a node, from its acceptance to its end (rows H1, H2, H3).

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use bytes::Bytes;
use skirmish_proto::v1;

use super::{Source, Trace};
use crate::base::agenda::Booking;
use crate::base::id::Name;
use crate::base::rate::Bucket;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::config::Config;
use crate::node::heartbeat::Heartbeat;
use crate::node::meter::{Allowance, Meter};
use crate::session::SessionKey;
use crate::wire::seal::Seal;

/// Frames that may wait for a connection beside what its cursors stand for. Answers to
/// requests, which are rate limited, and messages of the application.
pub(crate) const CONTROL_QUEUE: usize = 64;

/// Frames in the queue from which on another answer has no more requests read: a peer that does
/// not read is held by TCP. The rest of [`CONTROL_QUEUE`] is for a request with many answers, pings,
/// and in part for the application.
pub(crate) const BACKED_UP: usize = CONTROL_QUEUE / 2;
/// Bytes of those frames from which on no other is queued: with the last one, at most a frame
/// more. Whoever lets more answers pile up is closed; an application is told.
pub(crate) const CONTROL_BYTES: usize = 256 * 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Its number among the connections that the node has accepted.
    pub(crate) number: u64,
    pub(crate) source: Source,
    pub(crate) trace: Trace,
    pub(crate) phase: Phase,
    pub(crate) booking: Booking,
    /// Whether its phase was given its time once more, since the node had stood still.
    pub(crate) excused: bool,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) buckets: Buckets,
    pub(crate) meters: Meters,
    /// It is not read before.
    pub(crate) paused: Option<Instant>,
    /// It has been paused, and not everything that had come was read since.
    pub(crate) behind: bool,
    /// So many answers wait for the peer to read that no more requests are taken.
    pub(crate) backed_up: bool,
    /// The session that this connection is, or was, the newest of.
    pub(crate) session: Option<SessionKey>,
    /// The `Welcome`, which goes out before everything else and is never sealed.
    pub(crate) welcome: Option<Bytes>,
    /// Frames that no cursor stands for; at most [`CONTROL_QUEUE`] and [`CONTROL_BYTES`].
    control: VecDeque<Bytes>,
    control_bytes: usize,
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
    Greeting { until: Instant, identity: Box<AdmittedPlayer> },
    /// It has said `Hello`; the registry is asked for its session.
    Claiming { until: Instant, identity: Box<AdmittedPlayer>, hello: Box<v1::Hello> },
    /// Its session may write.
    Open,
    /// Its input is ignored; what is owed goes out, and then the `Goodbye`.
    Closing { until: Instant, goodbye: Option<Bytes>, owed: bool },
}

/// Whom the upgrade admitted.
#[derive(Debug)]
pub(crate) struct AdmittedPlayer {
    pub(crate) player: Name,
    pub(crate) token: Bytes,
}

/// How many of its messages are taken.
#[derive(Debug)]
pub(crate) struct Buckets {
    pub(crate) reliable: Bucket,
    pub(crate) latest: Bucket,
}

/// A value for each class of frames whose rate is limited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Classes<T> {
    pub(crate) reliable: T,
    pub(crate) latest: T,
    pub(crate) control: T,
    pub(crate) bytes: T,
}

/// How fast a connection sends, by class, taken or not.
pub(crate) type Meters = Classes<Meter>;

/// What connections are allowed.
pub(crate) type Allowances = Classes<Allowance>;

impl Allowances {
    pub(crate) fn new(config: &Config) -> Self {
        let rates = &config.rates;
        let of = |limit| Allowance::new(limit, config.heartbeat.longest_stall());
        Self {
            reliable: of(rates.reliable),
            latest: of(rates.latest),
            control: of(rates.control),
            bytes: of(rates.bytes),
        }
    }
}

impl Meters {
    fn new(allowances: &Allowances, now: Instant) -> Self {
        Self {
            reliable: Meter::new(&allowances.reliable, now),
            latest: Meter::new(&allowances.latest, now),
            control: Meter::new(&allowances.control, now),
            bytes: Meter::new(&allowances.bytes, now),
        }
    }
}

impl Connection {
    /// A connection that was accepted just now, as the node's `number`-th.
    pub(crate) fn new(
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
            backed_up: false,
            session: None,
            welcome: None,
            control: VecDeque::new(),
            control_bytes: 0,
            woken: false,
            accept_zstd: false,
            seal: None,
        }
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

    /// Whether its input waits: for a pause to end, or for the peer to read its answers.
    pub(crate) fn is_held(&self) -> bool {
        !self.is_closing() && (self.paused.is_some() || self.backed_up)
    }

    /// Queues an answer to a request. False if the queue is full.
    pub(crate) fn queue_answer(&mut self, frame: Bytes) -> bool {
        self.backed_up |= self.has_piled_up();
        self.queue(frame)
    }

    /// Everything that had come was read.
    pub(crate) fn caught_up(&mut self, allowances: &Allowances, now: Instant) {
        self.behind = false;
        self.meters.reliable.caught_up(&allowances.reliable, now);
        self.meters.latest.caught_up(&allowances.latest, now);
        self.meters.control.caught_up(&allowances.control, now);
        self.meters.bytes.caught_up(&allowances.bytes, now);
    }

    /// When something is due, whatever it is.
    pub(crate) fn deadline(&self) -> Instant {
        let due = self.phase_deadline();
        self.paused.map_or(due, |paused| due.min(paused))
    }

    /// When its phase is over, or its next heartbeat is due.
    pub(crate) const fn phase_deadline(&self) -> Instant {
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

    /// Queues a message of the application. False if the queue is three quarters full: the rest is
    /// for answers, as the peer cannot be blamed for what it has not asked for.
    pub(crate) fn queue_message(&mut self, frame: Bytes) -> bool {
        let has_place =
            self.control.len() < CONTROL_QUEUE / 4 * 3 && self.control_bytes < CONTROL_BYTES / 4 * 3;
        has_place && self.queue(frame)
    }

    /// Queues a frame that no cursor stands for. False if the queue is full.
    pub(crate) fn queue(&mut self, frame: Bytes) -> bool {
        let fits = self.control.len() < CONTROL_QUEUE && self.control_bytes < CONTROL_BYTES;
        if fits {
            self.control_bytes += frame.len();
            self.control.push_back(frame);
        }
        fits
    }

    /// The next frame that was queued.
    pub(crate) fn next_queued(&mut self) -> Option<Bytes> {
        let frame = self.control.pop_front()?;
        self.control_bytes -= frame.len();
        self.backed_up &= self.has_piled_up();
        Some(frame)
    }

    /// Whether the queue holds half of what it may, in frames or in bytes.
    fn has_piled_up(&self) -> bool {
        self.control.len() >= BACKED_UP || self.control_bytes >= CONTROL_BYTES / 2
    }

    /// The frame that was queued last.
    pub(crate) fn last_queued(&self) -> Option<&Bytes> {
        self.control.back()
    }

    /// Checks the bounds of the queue, if no frame is larger than `largest`.
    pub(crate) fn audit(&self, largest: usize) -> Result<(), &'static str> {
        let bytes: usize = self.control.iter().map(Bytes::len).sum();
        if self.control.len() > CONTROL_QUEUE || bytes > CONTROL_BYTES + largest {
            return Err("queue of a connection");
        }
        if bytes != self.control_bytes { Err("bytes in the queue of a connection") } else { Ok(()) }
    }

    /// Starts to close: the queue goes, unless what is `owed` is still to be sent.
    pub(crate) fn start_closing(&mut self, until: Instant, goodbye: Option<v1::Goodbye>, owed: bool) {
        let told = matches!(self.phase, Phase::Greeting { .. } | Phase::Claiming { .. } | Phase::Open);
        if !owed {
            self.control = VecDeque::new();
            self.control_bytes = 0;
        }
        self.paused = None;
        let goodbye = goodbye
            .filter(|_| told)
            .map(|goodbye| crate::wire::encode(v1::Kind::Goodbye, &v1::Metadata::default(), &goodbye));
        self.phase = Phase::Closing { until, goodbye, owed };
        self.excused = false;
    }
}
