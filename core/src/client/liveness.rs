//! Liveness of a connection: the pings of the client (row R1).
//!
//! The client detects a dead path or a frozen server by silence. After some time without a frame
//! the client sends a `Ping`. If no frame arrives for a few round trips after that, the client
//! gives the connection up. Every frame counts, not only the `Pong`: a server that throttles, or
//! whose room waits for the registry, still answers.

use core::fmt;

use super::ClientConfig;
use crate::base::time::{Duration, Instant, LATE};

/// Minimum silence after which a client that waits for an answer sends a ping.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// Round-trip time-out before the first measurement (RFC 6298, section 2.1).
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Round-trip time-outs that the answer to a ping may take.
const TIMEOUTS: u32 = 4;
/// Maximum time for the answer to a ping, in multiples of [`ClientConfig::ping_timeout`].
const MOST_TIMEOUTS: u32 = 4;

/// States of a connection, by the frames that it delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// A frame has arrived lately.
    Lively,
    /// A ping waits to be sent.
    Asking,
    /// A ping was sent, and no frame has arrived since.
    Asked,
    /// No frame has arrived for too long.
    Dead,
}

/// Events that move a connection from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEvent {
    /// No frame has arrived for some time.
    Silent,
    /// The ping was passed to the connection.
    Sent,
    /// A frame has arrived.
    Heard,
    /// The time for an answer is over, but this side stood still, so it sends another ping.
    Late,
    /// The time for an answer is over.
    Over,
}

/// All transitions. A step without a row for a state has no effect in that state.
pub(super) const TRANSITIONS: [(Pulse, ConnectionEvent, Pulse); 8] = [
    (Pulse::Lively, ConnectionEvent::Silent, Pulse::Asking),
    (Pulse::Asking, ConnectionEvent::Sent, Pulse::Asked),
    (Pulse::Asking, ConnectionEvent::Heard, Pulse::Lively),
    (Pulse::Asking, ConnectionEvent::Late, Pulse::Asking),
    (Pulse::Asking, ConnectionEvent::Over, Pulse::Dead),
    (Pulse::Asked, ConnectionEvent::Heard, Pulse::Lively),
    (Pulse::Asked, ConnectionEvent::Late, Pulse::Asking),
    (Pulse::Asked, ConnectionEvent::Over, Pulse::Dead),
];

impl Pulse {
    fn after(self, step: ConnectionEvent) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| *from == self && *by == step).map(|(_, _, to)| *to)
    }
}

impl fmt::Display for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Liveness of one connection.
#[derive(Debug)]
pub(super) struct Liveness {
    pulse: Pulse,
    /// `None` if the server answers pings; else the silence after which the connection is dead.
    unasked: Option<Duration>,
    /// Time at which the last frame arrived.
    heard: Instant,
    /// Time at which the first frame since the last received one was sent.
    waits: Option<Instant>,
    /// While a ping has no answer: the deadline for a frame.
    until: Instant,
    nonce: u64,
    /// Time at which the ping with this nonce was sent.
    sent: Option<Instant>,
    /// True once the silence was attributed to a late call of this side.
    excused: bool,
    /// Smoothed round trip, and its deviation.
    rtt: Option<(Duration, Duration)>,
}

impl Liveness {
    /// Creates the liveness of a connection that was just opened.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            pulse: Pulse::Lively,
            unasked: None,
            heard: now,
            waits: None,
            until: now,
            nonce: 0,
            sent: None,
            excused: false,
            rtt: None,
        }
    }

    /// Expects a server that does not answer pings, but sends at least one frame within `silence`.
    pub(super) const fn expect(&mut self, silence: Duration) {
        self.unasked = Some(silence);
    }

    /// Returns the smoothed round trip.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt.map(|(smoothed, _)| smoothed)
    }

    fn step(&mut self, step: ConnectionEvent) -> bool {
        let to = self.pulse.after(step);
        self.pulse = to.unwrap_or(self.pulse);
        to.is_some()
    }

    /// Resets the silence when a frame has arrived.
    pub(super) fn handle_frame(&mut self, now: Instant) {
        self.heard = now;
        self.waits = None;
        self.excused = false;
        self.step(ConnectionEvent::Heard);
    }

    /// Measures the round trip by the answer to a ping.
    pub(super) fn handle_pong(&mut self, now: Instant, nonce: u64) {
        let Some(sent) = self.sent.filter(|_| nonce == self.nonce) else { return };
        self.sent = None;
        let sample = now.since(sent);
        // RFC 6298, section 2: alpha 1/8, beta 1/4.
        self.rtt = Some(match self.rtt {
            None => (sample, sample / 2),
            Some((smoothed, deviation)) => {
                let off = smoothed.abs_diff(sample);
                (smoothed - smoothed / 8 + sample / 8, deviation - deviation / 4 + off / 4)
            }
        });
    }

    /// Notes that a frame was passed to the connection that the server may answer.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.waits.get_or_insert(now);
    }

    /// Returns the nonce of a ping to be sent, if any.
    pub(super) fn take_ping(&mut self, config: &ClientConfig, now: Instant) -> Option<u64> {
        if !self.step(ConnectionEvent::Sent) {
            return None;
        }
        self.until = self.until.min(now + self.patience(config));
        self.nonce += 1;
        self.sent = Some(now);
        Some(self.nonce)
    }

    /// Returns the next deadline.
    pub(super) fn deadline(&self, config: &ClientConfig) -> Instant {
        match (self.unasked, self.pulse) {
            (Some(_), _) if self.excused => self.until,
            (Some(silence), _) => self.heard + silence,
            (None, Pulse::Lively) => {
                let idle = self.heard + config.ping_interval;
                self.waits.map_or(idle, |since| idle.min(since + self.impatience(config)))
            }
            (None, Pulse::Asking | Pulse::Asked | Pulse::Dead) => self.until,
        }
    }

    /// Handles a deadline. Returns true if the connection is dead.
    pub(super) fn handle_timeout(&mut self, config: &ClientConfig, now: Instant) -> bool {
        let due = self.deadline(config);
        if now < due {
            return false;
        }
        if self.unasked.is_none() && self.step(ConnectionEvent::Silent) {
            self.ask(config, now);
            return false;
        }
        if now.since(due) > LATE && !core::mem::replace(&mut self.excused, true) {
            self.step(ConnectionEvent::Late);
            self.ask(config, now);
            return false;
        }
        self.step(ConnectionEvent::Over);
        true
    }

    fn ask(&mut self, config: &ClientConfig, now: Instant) {
        // A connection that does not accept the ping at once gets twice the time in all.
        self.until = now + self.patience(config) * 2;
    }

    /// Returns the round-trip time-out by RFC 6298, section 2.
    fn timeout(&self) -> Duration {
        self.rtt.map_or(FIRST_TIMEOUT, |(smoothed, deviation)| smoothed + deviation * 4)
    }

    fn patience(&self, config: &ClientConfig) -> Duration {
        let least = config.ping_timeout;
        (self.timeout() * TIMEOUTS).clamp(least, least * MOST_TIMEOUTS)
    }

    fn impatience(&self, config: &ClientConfig) -> Duration {
        (self.timeout() * 2).max(IMPATIENCE).min(config.ping_interval)
    }
}

impl ClientConfig {
    /// Returns the longest time for which a silent connection goes unnoticed while the client
    /// itself runs: the silence before the ping, and the time for a ping that the connection does
    /// not even accept.
    #[must_use]
    pub fn longest_deafness(&self) -> Duration {
        self.ping_interval + self.ping_timeout * (MOST_TIMEOUTS * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1_000)
    }

    fn config() -> ClientConfig {
        ClientConfig::default()
    }

    /// Runs to each deadline exactly, and sends the ping if `writable`. Returns the time at which
    /// the connection is dead.
    fn end(liveness: &mut Liveness, writable: bool) -> Instant {
        loop {
            let now = liveness.deadline(&config());
            if liveness.handle_timeout(&config(), now) {
                return now;
            }
            if writable {
                liveness.take_ping(&config(), now);
            }
        }
    }

    #[test]
    fn the_table_is_the_one_that_was_reviewed_and_each_step_leads_to_one_state() {
        crate::transitions::check(&TRANSITIONS, include_str!("liveness.txt"));
    }

    #[test]
    fn a_dead_path_is_found_in_seconds_and_sooner_by_who_waits_for_an_answer() {
        let mut idle = Liveness::new(at(0));
        assert_eq!(end(&mut idle, true), at(5_000 + 4_000));
        let mut busy = Liveness::new(at(0));
        busy.handle_sent(at(100));
        assert_eq!(end(&mut busy, true), at(100 + 2_000 + 4_000));
        // With a measured round trip of 40 ms.
        let mut near = Liveness::new(at(0));
        for n in 0..20 {
            let now = at(n * 5_000);
            assert!(!near.handle_timeout(&config(), near.deadline(&config())));
            let nonce = near.take_ping(&config(), now).unwrap();
            near.handle_frame(now + Duration::from_millis(40));
            near.handle_pong(now + Duration::from_millis(40), nonce);
        }
        assert_eq!(near.rtt().unwrap().as_millis(), 40);
        let heard = near.heard;
        near.handle_sent(heard);
        assert_eq!(end(&mut near, true), heard + IMPATIENCE + config().ping_timeout);
        let mut stuck = Liveness::new(at(0));
        assert!(end(&mut stuck, false) <= at(0) + config().longest_deafness());
    }

    #[test]
    fn a_ping_that_is_taken_late_begins_no_new_time() {
        let mut liveness = Liveness::new(at(0));
        let silent = liveness.deadline(&config());
        assert!(!liveness.handle_timeout(&config(), silent));
        let until = liveness.deadline(&config());
        let taken = silent + until.since(silent) * 3 / 4;
        assert!(liveness.take_ping(&config(), taken).is_some());
        assert_eq!(liveness.deadline(&config()), until);
        assert!(until <= at(0) + config().longest_deafness());
        assert!(liveness.handle_timeout(&config(), until));
    }

    #[test]
    fn any_frame_is_an_answer() {
        let mut liveness = Liveness::new(at(0));
        for _ in 0..100 {
            let now = liveness.deadline(&config());
            assert!(!liveness.handle_timeout(&config(), now));
            assert!(liveness.take_ping(&config(), now).is_some());
            assert_eq!(liveness.take_ping(&config(), now), None, "one ping for a silence");
            liveness.handle_sent(now);
            liveness.handle_frame(now + Duration::from_millis(1_999));
        }
        assert_eq!(liveness.rtt(), None);
    }

    #[test]
    fn whoever_stood_still_asks_once_more() {
        let hour = Duration::from_secs(3_600);
        let mut liveness = Liveness::new(at(0));
        assert!(!liveness.handle_timeout(&config(), at(0) + hour));
        liveness.take_ping(&config(), at(0) + hour);
        assert!(!liveness.handle_timeout(&config(), at(0) + hour * 2));
        assert!(liveness.take_ping(&config(), at(0) + hour * 2).is_some());
        assert!(liveness.handle_timeout(&config(), at(0) + hour * 3), "once");
    }

    #[test]
    fn a_server_that_answers_no_pings_is_asked_for_none() {
        let mut liveness = Liveness::new(at(0));
        liveness.expect(Duration::from_secs(60));
        assert_eq!(liveness.deadline(&config()), at(60_000));
        assert!(!liveness.handle_timeout(&config(), at(59_999)));
        liveness.handle_frame(at(30_000));
        assert_eq!(end(&mut liveness, true), at(90_000));
        assert_eq!(liveness.take_ping(&config(), at(90_000)), None);
    }

    #[test]
    fn an_answer_to_an_older_ping_measures_nothing() {
        let mut liveness = Liveness::new(at(0));
        liveness.handle_timeout(&config(), at(5_000));
        let first = liveness.take_ping(&config(), at(5_000)).unwrap();
        liveness.handle_frame(at(5_500));
        liveness.handle_timeout(&config(), at(10_500));
        let second = liveness.take_ping(&config(), at(10_500)).unwrap();
        liveness.handle_pong(at(10_501), first);
        assert_eq!(liveness.rtt(), None);
        liveness.handle_pong(at(10_600), second);
        liveness.handle_pong(at(10_900), second);
        assert_eq!(liveness.rtt().unwrap().as_millis(), 100);
    }
}
