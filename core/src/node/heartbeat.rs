//! Liveness of a connection (row H1): a peer that does not answer pings is gone.

use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant, LATE};
use crate::config;

/// Heartbeat of one connection.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    due: Instant,
    sent: Instant,
    nonce: u64,
    /// Pings that were answered, in time or late.
    answered: u64,
    waiting: bool,
    missed: u8,
    /// True if a miss was excused by this side's own lateness since the last frame.
    excused: bool,
    rtt_us: u32,
}

/// Action of a heartbeat at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// The deadline is not reached yet.
    Early,
    /// Send a ping with this nonce.
    Ping {
        /// Number that the pong must return.
        nonce: u64,
        /// True if the connection has just become unhealthy.
        unhealthy: bool,
    },
    /// Too many pings were missed: close the connection.
    Dead,
}

impl Heartbeat {
    /// Creates a heartbeat. The first ping is due one jittered interval from now.
    #[must_use]
    pub fn new(config: &config::HeartbeatConfig, now: Instant, rng: &mut Rng) -> Self {
        Self {
            due: now + jittered(config, rng),
            sent: now,
            nonce: 0,
            answered: 0,
            waiting: false,
            missed: 0,
            excused: false,
            rtt_us: 0,
        }
    }

    /// Returns the deadline of the next ping.
    #[must_use]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Makes the first ping due at once.
    pub(crate) const fn hurry(&mut self, now: Instant) {
        self.due = now;
    }

    /// Returns the number of successive pings that were not answered within their interval.
    #[must_use]
    pub const fn missed(&self) -> u8 {
        self.missed
    }

    /// Returns the smoothed round trip (RFC 6298, alpha 1/8); `None` before the first pong.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        if self.rtt_us == 0 { None } else { Some(Duration::from_micros(self.rtt_us as u64)) }
    }

    /// Sends the next ping if its time has come. A ping without an answer is no miss if this call
    /// is [`LATE`], once in a silence: this side stood still, and may have sent the ping just
    /// before.
    pub fn handle_timeout(&mut self, config: &config::HeartbeatConfig, now: Instant, rng: &mut Rng) -> Beat {
        if now < self.due {
            return Beat::Early;
        }
        let late = now.since(self.due) > LATE;
        let missed = self.waiting && (!late || self.excused);
        self.excused |= self.waiting && late;
        if missed {
            self.missed = self.missed.saturating_add(1);
            if self.missed >= config.close_after {
                return Beat::Dead;
            }
        }
        let unhealthy = missed && self.missed == config.unhealthy_after;
        self.nonce += 1;
        self.waiting = true;
        self.sent = now;
        self.due = now + jittered(config, rng);
        Beat::Ping { nonce: self.nonce, unhealthy }
    }

    /// Handles any frame: the peer lives. Returns true if the connection had been unhealthy.
    pub fn handle_frame(&mut self, config: &config::HeartbeatConfig) -> bool {
        let was_unhealthy = self.missed >= config.unhealthy_after;
        self.missed = 0;
        self.excused = false;
        was_unhealthy
    }

    /// Handles a pong. A pong that answers an older ping, or none, does not change the round trip.
    /// Returns true if there was a ping without an answer before.
    pub fn handle_pong(&mut self, now: Instant, nonce: u64) -> bool {
        let owed = self.answered < self.nonce;
        self.answered += u64::from(owed);
        if !self.waiting || nonce != self.nonce {
            return owed;
        }
        self.waiting = false;
        let sample = u32::try_from(now.since(self.sent).as_micros()).unwrap_or(u32::MAX).max(1);
        self.rtt_us =
            if self.rtt_us == 0 { sample } else { self.rtt_us - self.rtt_us / 8 + sample / 8 }.max(1);
        owed
    }
}

fn jittered(config: &config::HeartbeatConfig, rng: &mut Rng) -> Duration {
    let most = config.interval * u32::from(config.jitter_percent) / 100;
    config.interval - rng.duration(Duration::ZERO..=most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn closes_after_three_misses_and_warns_after_two() {
        let config = Config::default().heartbeat;
        let mut rng = Rng::new([1; 32]);
        let mut heartbeat = Heartbeat::new(&config, Instant::ZERO, &mut rng);
        let mut beats = [Beat::Early; 4];
        for beat in &mut beats {
            *beat = heartbeat.handle_timeout(&config, heartbeat.due(), &mut rng);
        }
        assert_eq!(
            beats,
            [
                Beat::Ping { nonce: 1, unhealthy: false },
                Beat::Ping { nonce: 2, unhealthy: false },
                Beat::Ping { nonce: 3, unhealthy: true },
                Beat::Dead,
            ]
        );
    }

    #[test]
    fn an_answer_clears_the_misses_and_measures() {
        let config = Config::default().heartbeat;
        let mut rng = Rng::new([1; 32]);
        let mut heartbeat = Heartbeat::new(&config, Instant::ZERO, &mut rng);
        for _ in 0..100 {
            let due = heartbeat.due();
            let Beat::Ping { nonce, .. } = heartbeat.handle_timeout(&config, due, &mut rng) else {
                panic!("a peer that answers is never dead")
            };
            let then = due + Duration::from_millis(40);
            heartbeat.handle_frame(&config);
            assert!(heartbeat.handle_pong(then, nonce));
            assert!(!heartbeat.handle_pong(then, nonce), "one pong for each ping");
        }
        assert_eq!(heartbeat.rtt().unwrap().as_millis(), 40);
    }

    #[test]
    fn stays_within_the_interval_and_its_jitter() {
        let config = Config::default().heartbeat;
        let mut rng = Rng::new([2; 32]);
        for _ in 0..1000 {
            let wait = jittered(&config, &mut rng);
            assert!(wait <= config.interval && wait >= config.interval * 9 / 10);
        }
    }

    #[test]
    fn a_side_that_stood_still_blames_its_peer_once_less() {
        let config = Config::default().heartbeat;
        let mut rng = Rng::new([1; 32]);
        let mut heartbeat = Heartbeat::new(&config, Instant::ZERO, &mut rng);
        let mut late = |heartbeat: &mut Heartbeat| {
            let now = heartbeat.due() + Duration::from_secs(3600);
            let beat = heartbeat.handle_timeout(&config, now, &mut rng);
            (heartbeat.missed(), beat == Beat::Dead)
        };
        // The first ping; then one excuse, after any number of standstills.
        let said: [_; 5] = core::array::from_fn(|_| late(&mut heartbeat));
        assert_eq!(said, [(0, false), (0, false), (1, false), (2, false), (3, true)]);
        heartbeat.handle_frame(&config);
        assert_eq!([(); 2].map(|()| late(&mut heartbeat)), [(0, false), (1, false)]);
    }

    #[test]
    fn a_spurious_timeout_changes_nothing() {
        let config = Config::default().heartbeat;
        let mut rng = Rng::new([1; 32]);
        let mut heartbeat = Heartbeat::new(&config, Instant::ZERO, &mut rng);
        for _ in 0..10 {
            assert_eq!(heartbeat.handle_timeout(&config, Instant::ZERO, &mut rng), Beat::Early);
        }
        assert_eq!(heartbeat.missed(), 0);
    }
}
