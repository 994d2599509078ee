//! Checks that the registry takes writes.
//!
//! A registry can answer every read and keep every lease alive, and refuse each write: it is
//! out of space, the rights of the node were taken away, its data is corrupt. A node without
//! log-ins writes nothing and would not notice; and one to which nobody is sent any more since
//! it is not ready would not notice the end.
//!
//! A check is a transaction without comparisons, which have therefore held, and with reads
//! and writes below every prefix of a deployment in the branch for comparisons that have not held. So
//! nothing is ever written, and no revision made; but a registry checks rights and space
//! before it chooses a branch, and refuses the check as it refuses a real write. The check
//! decides: a real write that is refused only brings the next check forward, since it may be
//! refused for what is in it.

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
    /// Outcome of the last check, unless it was passed.
    failure: Option<Failure>,
    /// When the first of the checks in a row was sent that was not passed.
    since: Instant,
}

impl WriteCheck {
    pub(super) const fn start(&mut self, now: Instant) {
        *self = Self { asked: false, ask_at: now, failure: None, since: now };
    }

    /// Forgets a check that is under way.
    pub(super) const fn forget(&mut self) {
        self.asked = false;
    }

    /// When the next check is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.asked).then_some(self.ask_at)
    }

    /// Why the registry takes no writes. A refusal counts at once. A check that was not
    /// answered proves nothing, until no claim could have been answered for as long as one
    /// may wait.
    pub(super) fn failure(&self, config: &RegistrarConfig, now: Instant) -> Option<Failure> {
        self.failure.filter(|failure| {
            matches!(failure, Failure::Refused(_)) || now.since(self.since) >= config.claim_timeout
        })
    }

    /// Takes note of a real write that was refused.
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
            // While a registry is restarted to get more space, it still has none.
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

/// A transaction that does nothing and is refused wherever a read or a write is.
fn request() -> Request {
    let both = |key| [RegistryOp::Range(Range::of(Span::one(key))), RegistryOp::Put(Put::new(key, "", None))];
    let failure: Vec<RegistryOp> = keys::PLACES.into_iter().flat_map(both).collect();
    Request::Txn(Txn { compares: Vec::new(), success: Vec::new(), failure })
}

impl Registrar {
    /// Why the registry takes no writes, as far as is known; `None` if it does.
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

    /// Brings the next check forward if a real write was refused.
    pub(super) fn handle_refusal(&mut self, now: Instant, outcome: &Result<Response, Failure>) {
        match outcome {
            // Ordinary news of leases and of old revisions.
            Err(Failure::Refused(
                Error::LeaseNotFound | Error::LeaseExists | Error::Compacted | Error::FutureRevision,
            ))
            | Err(Failure::Unavailable | Failure::Unknown)
            | Ok(_) => {}
            Err(Failure::Refused(_)) => self.write_check.doubt(now),
        }
    }
}
