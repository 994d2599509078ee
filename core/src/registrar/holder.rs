//! The keep-alive machine of one lease (row S2).

use core::fmt;

use super::RegistrarConfig;
use crate::base::rng::Rng;
use crate::base::time::{Deadline, Duration, Instant};
use crate::registry::{Answer, Error, Failure, LeaseId, Request, Response};

/// How it stands with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// Not wanted.
    Idle,
    /// The registry is asked for a lease until it has made one.
    Granting,
    /// The lease is there; what comes first with it is being written.
    Registering,
    /// It surely lives.
    Held,
    /// It surely lives, and its keep-alive is on the way.
    Renewing,
    /// It may be over by the registry's clock; the registry is asked until it says so.
    Suspended,
    /// It is over. Waits out the back-off, then everything is registered afresh.
    Lost,
    /// It is being revoked.
    Ending,
}

/// What moves it from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseEvent {
    /// It is wanted.
    Start,
    /// The registry has made it.
    Granted,
    /// What comes first with it is written.
    Registered,
    /// A keep-alive is due.
    Renew,
    /// A keep-alive was acknowledged.
    Renewed,
    /// The time for which it surely lived is over.
    Lapsed,
    /// The registry does not have it any more, or what was written with it.
    Gone,
    /// The back-off is over.
    Retry,
    /// It is not wanted any more.
    Stop,
    /// It is revoked, or will end by itself.
    Ended,
}

/// Every transition there is. A step that has no row for a state does nothing in it.
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
    /// The state after the step; `None` if the step does nothing here.
    fn after(self, step: LeaseEvent) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| *from == self && *by == step).map(|(_, _, to)| *to)
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a holder asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Grant,
    KeepAlive,
    /// To write what comes first with the lease.
    Register,
    Revoke,
}

/// Names a request of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestTag(u64);

/// The holder of one lease. It has at most one request in flight.
#[derive(Debug)]
pub(super) struct Holder {
    state: LeaseState,
    id: LeaseId,
    ttl: Duration,
    /// What the registry made of it.
    granted: Duration,
    /// When what the registry acknowledged last was sent.
    renewed: Instant,
    /// The lease surely lives before this moment, by the registry's clock too.
    until: Instant,
    /// Not asked before.
    ask_at: Instant,
    /// The request in flight.
    asked: Option<RequestTag>,
    tickets: u64,
    failures: u32,
    /// Leases that were over before they were given up.
    pub(super) lost: u64,
}

impl Holder {
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
            tickets: 0,
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

    /// What was written with the lease is there, unless the lease is over already.
    pub(super) const fn is_registered(&self) -> bool {
        matches!(self.state, LeaseState::Held | LeaseState::Renewing | LeaseState::Suspended)
    }

    /// Whether it surely lives, by the registry's clock too.
    pub(super) fn surely_lives(&self, now: Instant) -> bool {
        matches!(self.state, LeaseState::Held | LeaseState::Renewing) && now < self.until
    }

    /// Whether the request is the one in flight.
    pub(super) fn awaits(&self, ticket: RequestTag) -> bool {
        self.asked == Some(ticket)
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

    /// Gives the lease up. If a request is in flight, its answer is not of interest.
    pub(super) fn stop(&mut self, now: Instant) {
        self.ask_at = now;
        self.asked = None;
        self.failures = 0;
        self.step(LeaseEvent::Stop);
    }

    /// The registry does not have the lease, or not what was written with it.
    pub(super) fn handle_gone(&mut self, config: &RegistrarConfig, now: Instant, rng: &mut Rng) {
        if self.step(LeaseEvent::Gone) {
            self.give_up(config, now, rng);
        }
    }

    /// What comes first with the lease is written.
    pub(super) fn handle_registered(&mut self, rng: &mut Rng) {
        if self.step(LeaseEvent::Registered) {
            self.asked = None;
            self.failures = 0;
            self.wait_for_renewal(rng);
        }
    }

    /// Looks at the clock, and says what is to be asked now, if anything.
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
                // Asked for twice, a lease could be granted once more when it is over, as if it
                // had never been. One that nobody hears of ends by itself.
                self.id = draw(rng);
                Ask::Grant
            }
            LeaseState::Registering => Ask::Register,
            LeaseState::Renewing | LeaseState::Suspended => Ask::KeepAlive,
            LeaseState::Ending => Ask::Revoke,
        };
        self.tickets += 1;
        let ticket = RequestTag(self.tickets);
        self.asked = Some(ticket);
        Some((ask, ticket))
    }

    /// The request that asks for it; [`Ask::Register`] is somebody else's.
    pub(super) fn request(&self, ask: Ask) -> Option<Request> {
        match ask {
            Ask::Grant => Some(Request::Grant { id: self.id, ttl_s: self.ttl.as_secs() }),
            Ask::KeepAlive => Some(Request::KeepAlive(self.id)),
            Ask::Revoke => Some(Request::Revoke(self.id)),
            Ask::Register => None,
        }
    }

    /// The answer to what was asked at `sent`. Registering is answered by
    /// [`Self::handle_registered`], unless it failed.
    pub(super) fn handle_outcome(
        &mut self,
        config: &RegistrarConfig,
        now: Instant,
        (ticket, sent): (RequestTag, Instant),
        outcome: Result<&Response, Failure>,
        rng: &mut Rng,
    ) {
        if self.asked != Some(ticket) {
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
        // The registry counts from when it got the request, which is after it was sent.
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

    /// Three keep-alives fit into a time to live.
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

/// A lease's identifier: 63 bits, never 0.
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
