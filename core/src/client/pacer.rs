//! Keeps a connection within the limits of the server's `Welcome`.

use crate::base::rate::Bucket;
use crate::base::time::{Duration, Instant};
use crate::config::{Config, Rates};

/// Classes of frames whose rate is limited. Answers to pings belong to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateClass {
    Reliable,
    Latest,
    Control,
}

/// How fast a connection has sent, and may.
#[derive(Debug)]
pub(super) struct Pacer {
    reliable: Bucket,
    latest: Bucket,
    control: Bucket,
    bytes: Bucket,
    /// The largest frame, in bytes: there is place for one before one is made.
    frame: u32,
    /// When it was looked at.
    now: Instant,
    /// The next moment at which something may be sent that may not be sent yet.
    until: Option<Instant>,
}

impl Pacer {
    pub(super) fn new(rates: &Rates, frame: usize, now: Instant) -> Self {
        Self {
            reliable: Bucket::new(rates.reliable, now),
            latest: Bucket::new(rates.latest, now),
            control: Bucket::new(rates.control, now),
            bytes: Bucket::new(rates.bytes, now),
            frame: u32::try_from(frame).unwrap_or(u32::MAX).min(rates.bytes.burst),
            now,
            until: None,
        }
    }

    /// Before the server has named its limits.
    pub(super) fn usual(now: Instant) -> Self {
        let usual = Config::default();
        Self::new(&usual.rates, usual.frames.frame_bytes, now)
    }

    /// Looks for something to send at this moment.
    pub(super) fn look(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.until = None;
    }

    /// Whether a frame of a class may be sent. If not, [`Self::until`] says when to look again.
    pub(super) fn takes(&mut self, class: RateClass) -> bool {
        let (now, frame) = (self.now, self.frame);
        let wait = self.bytes.wait(now, frame).max(self.bucket(class).wait(now, 1));
        if wait.is_zero() {
            return true;
        }
        self.wait(wait);
        false
    }

    /// A frame of a class is sent, after [`Self::takes`] has said that it may.
    pub(super) fn take(&mut self, class: RateClass) {
        let now = self.now;
        self.bucket(class).drain(now, 1);
    }

    /// A frame of so many bytes is sent, of whatever class.
    pub(super) fn sent(&mut self, now: Instant, bytes: usize) {
        self.bytes.drain(now, u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// When to look again.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Time has passed.
    pub(super) fn release(&mut self, now: Instant) {
        self.until = self.until.filter(|until| *until > now);
    }

    fn wait(&mut self, wait: Duration) {
        let at = self.now + wait;
        self.until = Some(self.until.map_or(at, |until| until.min(at)));
    }

    const fn bucket(&mut self, class: RateClass) -> &mut Bucket {
        match class {
            RateClass::Reliable => &mut self.reliable,
            RateClass::Latest => &mut self.latest,
            RateClass::Control => &mut self.control,
        }
    }
}
