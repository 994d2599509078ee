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

/// Token buckets of a connection, one for each class and one for the bytes.
#[derive(Debug)]
pub(super) struct Pacer {
    reliable: Bucket,
    latest: Bucket,
    control: Bucket,
    bytes: Bucket,
    /// Size of the largest frame, in bytes. A frame is made only if the bucket of bytes has tokens
    /// for this size.
    frame: u32,
    /// Time of the last look.
    now: Instant,
    /// Next time at which a frame may be sent that may not be sent yet.
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

    /// Creates a pacer with the default limits, for the time before the server has named its
    /// limits.
    pub(super) fn usual(now: Instant) -> Self {
        let usual = Config::default();
        Self::new(&usual.rates, usual.frames.frame_bytes, now)
    }

    /// Starts a search for a frame to send at this time.
    pub(super) fn look(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.until = None;
    }

    /// Returns true if a frame of a class may be sent. If not, [`Self::until`] returns the time for
    /// the next look.
    pub(super) fn takes(&mut self, class: RateClass) -> bool {
        let (now, frame) = (self.now, self.frame);
        let wait = self.bytes.wait(now, frame).max(self.bucket(class).wait(now, 1));
        if wait.is_zero() {
            return true;
        }
        self.wait(wait);
        false
    }

    /// Counts a frame of a class that is sent, after [`Self::takes`] has returned true.
    pub(super) fn take(&mut self, class: RateClass) {
        let now = self.now;
        self.bucket(class).drain(now, 1);
    }

    /// Counts the bytes of a sent frame of any class.
    pub(super) fn sent(&mut self, now: Instant, bytes: usize) {
        self.bytes.drain(now, u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Returns the time for the next look.
    pub(super) const fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Clears the time for the next look once it has passed.
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
