//! Checks that the registry takes writes.
//!
//! A registry can answer every read and keep every lease alive, and still refuse each write: the registry is
//! out of space, the node has lost its rights, or the data is corrupt. A node without log-ins writes nothing
//! and would not notice. A node that is not ready gets no log-ins, so without checks the node would not
//! notice the end of the problem either.
//!
//! A check is a transaction without comparisons, so its success branch is executed, and that branch is empty.
//! The failure branch has reads and writes below every prefix of a deployment. So nothing is ever written,
//! and no revision is made; but a registry checks rights and space before choosing a branch, and refuses the
//! check exactly as it refuses a real write. Only the check decides. A refused real write brings the next
//! check forward, since the refusal may be due to the content of that write.

use alloc::vec::Vec;

use super::pending::Purpose;
use super::{Registrar, RegistrarConfig, keys};
use crate::base::plant::Plant;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::registry::{Error, Failure, Put, Range, RegistryOp, Request, Response, Span, Txn};

/// State of the checks, and the finding of the last one.
#[derive(Debug, Default)]
pub(super) struct WriteCheck {
    asked: bool,
    ask_at: Instant,
    /// Outcome of the last check, unless that check was passed.
    failure: Option<Failure>,
    /// Sending time of the first failed check in the current row.
    since: Instant,
}

impl WriteCheck {
    pub(super) const fn start(&mut self, now: Instant) {
        *self = Self { asked: false, ask_at: now, failure: None, since: now };
    }

    /// Forgets a check in flight.
    pub(super) const fn forget(&mut self) {
        self.asked = false;
    }

    /// Time of the next check, unless one is in flight.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.asked).then_some(self.ask_at)
    }

    /// Returns the reason for which the registry takes no writes. A refusal counts at once. Unanswered checks
    /// count after `claim_timeout`, since no claim could have been answered in this time either.
    pub(super) fn failure(&self, config: &RegistrarConfig, now: Instant) -> Option<Failure> {
        self.failure.filter(|failure| {
            matches!(failure, Failure::Refused(_)) || now.since(self.since) >= config.claim_timeout
        })
    }

    /// Brings the next check forward after a refused real write.
    fn doubt(&mut self, now: Instant) {
        if self.failure.is_none() {
            self.ask_at = self.ask_at.min(now);
        }
    }

    fn handle_outcome(
        &mut self,
        config: &RegistrarConfig,
        sent: Instant,
        outcome: Result<(), Failure>,
        rng: &mut Rng,
    ) {
        self.asked = false;
        self.ask_at = sent + (config.write_check - rng.duration(Duration::ZERO..=config.write_check / 10));
        match (outcome, self.failure) {
            (Ok(()), _) => self.failure = None,
            // A registry that restarts to get more space is still out of space.
            (Err(Failure::Unavailable | Failure::Unknown), Some(Failure::Refused(_))) => {}
            (Err(failure), known) => {
                self.failure = Some(failure);
                if known.is_none() {
                    self.since = sent;
                }
            }
        }
    }
}

/// Returns a transaction that writes nothing and is refused if any read or write is refused.
fn request() -> Request {
    let both = |key| [RegistryOp::Range(Range::of(Span::one(key))), RegistryOp::Put(Put::new(key, "", None))];
    let failure: Vec<RegistryOp> = keys::PLACES.into_iter().flat_map(both).collect();
    Request::Txn(Txn { compares: Vec::new(), success: Vec::new(), failure })
}

impl Registrar {
    /// Returns the reason for which the registry takes no writes, as far as is known; `None` if it takes
    /// them.
    #[must_use]
    pub fn write_failure(&self, now: Instant) -> Option<Failure> {
        self.write_check.failure(&self.config, now).filter(|_| !self.planted.is(Plant::RefusalIgnored))
    }

    /// Sends the next check when it is due.
    pub(super) fn poll_write_check(&mut self, now: Instant) {
        if self.running && !self.write_check.asked && now >= self.write_check.ask_at {
            self.write_check.asked = true;
            self.send(now, Purpose::WriteCheck, request());
        }
    }

    pub(super) fn handle_write_check(&mut self, sent: Instant, outcome: Result<Response, Failure>) {
        let Self { write_check, config, rng, .. } = self;
        write_check.handle_outcome(config, sent, outcome.map(drop), rng);
    }

    /// Brings the next check forward after a refused real write.
    pub(super) fn handle_refusal(&mut self, now: Instant, outcome: &Result<Response, Failure>) {
        match outcome {
            // Normal refusals about leases and old revisions; they say nothing about writes.
            Err(Failure::Refused(
                Error::LeaseNotFound | Error::LeaseExists | Error::Compacted | Error::FutureRevision,
            ))
            | Err(Failure::Unavailable | Failure::Unknown)
            | Ok(_) => {}
            Err(Failure::Refused(_)) => self.write_check.doubt(now),
        }
    }
}
