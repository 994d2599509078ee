//! The keep-alive machine of one lease (row S2).

use core::fmt;

use super::RegistrarConfig;
use crate::base::rng::Rng;
use crate::base::time::{Deadline, Duration, Instant};
use crate::registry::{Answer, Error, Failure, LeaseId, Request, Response};

/// State of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// No lease is wanted.
    Idle,
    /// The registry is asked for a lease until it grants one.
    Granting,
    /// The registry has granted the lease; the first write under the lease is in progress.
    Registering,
    /// The lease surely lives.
    Held,
    /// The lease surely lives, and its keep-alive is in flight.
    Renewing,
    /// The lease may be over by the registry's clock. The registry is asked until it confirms or denies the
    /// lease.
    Suspended,
    /// The lease is over. After a back-off, everything is registered again.
    Lost,
    /// The lease is being revoked.
    Ending,
}

/// Event that moves a lease from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseEvent {
    /// The lease is wanted.
    Start,
    /// The registry granted the lease.
    Granted,
    /// The first write under the lease is acknowledged.
    Registered,
    /// A keep-alive is due.
    Renew,
    /// A keep-alive was acknowledged.
    Renewed,
    /// The time in which the lease surely lived is over.
    Lapsed,
    /// The registry has lost the lease, or the record that was written under it.
    Gone,
    /// The back-off is over.
    Retry,
    /// The lease is not wanted any more.
    Stop,
    /// The lease is revoked, or will expire.
    Ended,
}

/// All transitions. An event without a row for a state changes nothing in that state.
pub(super) const TRANSITIONS: [(LeaseState, LeaseEvent, LeaseState); 22] = [
    (LeaseState::Idle, LeaseEvent::Start, LeaseState::Granting),
    (LeaseState::Granting, LeaseEvent::Granted, LeaseState::Registering),
    (LeaseState::Granting, LeaseEvent::Gone, LeaseState::Lost),
    (LeaseState::Granting, LeaseEvent::Stop, LeaseState::Ending),
    (LeaseState::Registering, LeaseEvent::Registered, LeaseState::Held),
    (LeaseState::Registering, LeaseEvent::Lapsed, LeaseState::Lost),
    (LeaseState::Registering, LeaseEvent::Gone, LeaseState::Lost),
    (LeaseState::Registering, LeaseEvent::Stop, LeaseState::Ending),
    (LeaseState::Held, LeaseEvent::Renew, LeaseState::Renewing),
    (LeaseState::Held, LeaseEvent::Lapsed, LeaseState::Suspended),
    (LeaseState::Held, LeaseEvent::Gone, LeaseState::Lost),
    (LeaseState::Held, LeaseEvent::Stop, LeaseState::Ending),
    (LeaseState::Renewing, LeaseEvent::Renewed, LeaseState::Held),
    (LeaseState::Renewing, LeaseEvent::Lapsed, LeaseState::Suspended),
    (LeaseState::Renewing, LeaseEvent::Gone, LeaseState::Lost),
    (LeaseState::Renewing, LeaseEvent::Stop, LeaseState::Ending),
    (LeaseState::Suspended, LeaseEvent::Renewed, LeaseState::Held),
    (LeaseState::Suspended, LeaseEvent::Gone, LeaseState::Lost),
    (LeaseState::Suspended, LeaseEvent::Stop, LeaseState::Ending),
    (LeaseState::Lost, LeaseEvent::Retry, LeaseState::Granting),
    (LeaseState::Lost, LeaseEvent::Stop, LeaseState::Idle),
    (LeaseState::Ending, LeaseEvent::Ended, LeaseState::Idle),
];

impl LeaseState {
    /// Returns the state after the event; `None` if the event changes nothing in this state.
    fn after(self, step: LeaseEvent) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| *from == self && *by == step).map(|(_, _, to)| *to)
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Request that the lease needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Grant,
    KeepAlive,
    /// First write under the lease.
    Register,
    Revoke,
}

/// Identifier of a request about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestTag(u64);

/// State machine of one lease. At most one request is in flight.
#[derive(Debug)]
pub(super) struct LeaseMachine {
    state: LeaseState,
    id: LeaseId,
    ttl: Duration,
    /// Time to live that the registry granted.
    granted: Duration,
    /// Sending time of the last acknowledged request.
    renewed: Instant,
    /// End of the time in which the lease surely lives, by the registry's clock too.
    until: Instant,
    /// Earliest time of the next request.
    ask_at: Instant,
    /// Request in flight.
    asked: Option<RequestTag>,
    tags: u64,
    failures: u32,
    /// Leases that ended before they were released.
    pub(super) lost: u64,
}

impl LeaseMachine {
    pub(super) const fn new(ttl: Duration) -> Self {
        Self {
            state: LeaseState::Idle,
            id: LeaseId(0),
            ttl,
            granted: ttl,
            renewed: Instant::ZERO,
            until: Instant::ZERO,
            ask_at: Instant::ZERO,
            asked: None,
            tags: 0,
            failures: 0,
            lost: 0,
        }
    }

    pub(super) const fn state(&self) -> LeaseState {
        self.state
    }

    pub(super) const fn id(&self) -> LeaseId {
        self.id
    }

    /// Returns true if the first write under the lease was acknowledged, although the lease may be over
    /// already.
    pub(super) const fn is_registered(&self) -> bool {
        matches!(self.state, LeaseState::Held | LeaseState::Renewing | LeaseState::Suspended)
    }

    /// Returns true if the lease surely lives, by the registry's clock too.
    pub(super) fn surely_lives(&self, now: Instant) -> bool {
        matches!(self.state, LeaseState::Held | LeaseState::Renewing) && now < self.until
    }

    /// Returns true if the request is the one in flight.
    pub(super) fn awaits(&self, tag: RequestTag) -> bool {
        self.asked == Some(tag)
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        let ask = |reason| self.asked.is_none().then(|| Deadline::new(self.ask_at, reason));
        let lapse = Deadline::new(self.until, "a lease may be over");
        match self.state {
            LeaseState::Idle => None,
            LeaseState::Held => Deadline::earliest(Some(lapse), ask("a keep-alive is due")),
            LeaseState::Registering | LeaseState::Renewing => {
                Deadline::earliest(Some(lapse), ask("what is registered is tried again"))
            }
            LeaseState::Granting | LeaseState::Suspended | LeaseState::Lost | LeaseState::Ending => {
                ask("a lease is asked for again")
            }
        }
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.ask_at = now;
        self.step(LeaseEvent::Start);
    }

    /// Releases the lease. The answer to a request in flight is ignored.
    pub(super) fn stop(&mut self, now: Instant) {
        self.ask_at = now;
        self.asked = None;
        self.failures = 0;
        self.step(LeaseEvent::Stop);
    }

    /// Handles the loss of the lease, or of the record that was written under it.
    pub(super) fn handle_gone(&mut self, config: &RegistrarConfig, now: Instant, rng: &mut Rng) {
        if self.step(LeaseEvent::Gone) {
            self.give_up(config, now, rng);
        }
    }

    /// Handles the acknowledgement of the first write under the lease.
    pub(super) fn handle_registered(&mut self, rng: &mut Rng) {
        if self.step(LeaseEvent::Registered) {
            self.asked = None;
            self.failures = 0;
            self.wait_for_renewal(rng);
        }
    }

    /// Checks the deadlines, and returns the request that is due, if any.
    pub(super) fn poll(
        &mut self,
        config: &RegistrarConfig,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<(Ask, RequestTag)> {
        if now >= self.until {
            let registering = self.state == LeaseState::Registering;
            if self.step(LeaseEvent::Lapsed) && registering {
                self.give_up(config, now, rng);
            }
        }
        if self.asked.is_some() || now < self.ask_at {
            return None;
        }
        self.step(LeaseEvent::Retry);
        self.step(LeaseEvent::Renew);
        let ask = match self.state {
            LeaseState::Idle | LeaseState::Held | LeaseState::Lost => return None,
            LeaseState::Granting => {
                // Each grant gets a new identifier. A late duplicate of a grant with the same identifier
                // could make an ended lease again, as if it had never ended. A granted lease whose answer is
                // lost expires.
                self.id = draw(rng);
                Ask::Grant
            }
            LeaseState::Registering => Ask::Register,
            LeaseState::Renewing | LeaseState::Suspended => Ask::KeepAlive,
            LeaseState::Ending => Ask::Revoke,
        };
        self.tags += 1;
        let tag = RequestTag(self.tags);
        self.asked = Some(tag);
        Some((ask, tag))
    }

    /// Returns the request for a need of the lease; `None` for [`Ask::Register`], which the caller builds.
    pub(super) fn request(&self, ask: Ask) -> Option<Request> {
        match ask {
            Ask::Grant => Some(Request::Grant { id: self.id, ttl_s: self.ttl.as_secs() }),
            Ask::KeepAlive => Some(Request::KeepAlive(self.id)),
            Ask::Revoke => Some(Request::Revoke(self.id)),
            Ask::Register => None,
        }
    }

    /// Handles the answer to a request sent at `sent`. A successful [`Ask::Register`] is reported to
    /// [`Self::handle_registered`] instead.
    pub(super) fn handle_outcome(
        &mut self,
        config: &RegistrarConfig,
        now: Instant,
        (tag, sent): (RequestTag, Instant),
        outcome: Result<&Response, Failure>,
        rng: &mut Rng,
    ) {
        if !self.awaits(tag) {
            return;
        }
        self.asked = None;
        if self.state == LeaseState::Ending {
            match outcome {
                Ok(_) | Err(Failure::Refused(_)) => self.step(LeaseEvent::Ended),
                Err(_) if self.failures >= 3 => self.step(LeaseEvent::Ended),
                Err(_) => return self.back_off(config, now, rng),
            };
            return;
        }
        match outcome.map(|response| &response.answer) {
            Ok(Answer::KeptAlive { ttl_s: 0 }) | Err(Failure::Refused(Error::LeaseNotFound)) => {
                self.handle_gone(config, now, rng);
            }
            Ok(Answer::Granted { ttl_s } | Answer::KeptAlive { ttl_s }) => {
                self.handle_acknowledged(config, now, sent, Duration::from_secs(*ttl_s), rng);
            }
            Ok(_) | Err(_) => self.back_off(config, now, rng),
        }
    }

    fn handle_acknowledged(
        &mut self,
        config: &RegistrarConfig,
        now: Instant,
        sent: Instant,
        ttl: Duration,
        rng: &mut Rng,
    ) {
        // The registry counts the time to live from its receipt of the request, which is after the sending.
        let relied_on = ttl * (100 - u32::from(config.margin_percent.min(99))) / 100;
        self.until = self.until.max(sent + relied_on);
        self.granted = ttl;
        self.renewed = sent;
        self.failures = 0;
        if self.step(LeaseEvent::Granted) {
            self.ask_at = now;
        } else if self.step(LeaseEvent::Renewed) {
            self.wait_for_renewal(rng);
        }
    }

    /// Plans the next keep-alive, so that three of them fit into a time to live.
    fn wait_for_renewal(&mut self, rng: &mut Rng) {
        let third = self.granted / 3;
        self.ask_at = self.renewed + (third - rng.duration(Duration::ZERO..=third / 10));
    }

    fn give_up(&mut self, config: &RegistrarConfig, now: Instant, rng: &mut Rng) {
        self.lost += 1;
        self.until = Instant::ZERO;
        self.asked = None;
        self.back_off(config, now, rng);
    }

    fn back_off(&mut self, config: &RegistrarConfig, now: Instant, rng: &mut Rng) {
        self.failures = self.failures.saturating_add(1);
        self.ask_at = now + config.backoff().after(self.failures, rng);
    }

    fn step(&mut self, step: LeaseEvent) -> bool {
        let after = self.state.after(step);
        self.state = after.unwrap_or(self.state);
        after.is_some()
    }
}

/// Draws the identifier of a lease: 63 bits, never 0.
fn draw(rng: &mut Rng) -> LeaseId {
    LeaseId(rng.range(1..=u64::MAX >> 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_was_reviewed_and_each_step_leads_to_one_state() {
        crate::transitions::check(&TRANSITIONS, include_str!("transitions.txt"));
    }
}
