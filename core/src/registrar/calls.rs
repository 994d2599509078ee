//! Requests on their way: what each is for, and when it counts as lost.

use alloc::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::RegistrarConfig;
use super::holder::Ticket;
use super::keys::Subject;
use crate::registry::{Call, CallId, LeaseId, Request, Watch, WatchId};
use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// One of the two leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Of the node's record and its sessions.
    Node,
    /// Of its rooms.
    Room,
}

/// One of the two directories that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Nodes,
    Sessions,
}

/// What a request is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// A lease.
    Lease(Which, Ticket),
    /// Writes the node's record.
    Register(Ticket),
    /// Refreshes the node's record.
    Refresh,
    /// About the generation of the store.
    Generation,
    /// Reads the newest acknowledged write again.
    Witness,
    /// Checks that the registry takes writes.
    WriteCheck,
    /// Ends a lease of another life; whatever comes of it.
    Stray,
    /// Reads a page.
    Read(Topic),
    /// About a session or a room, with this lease; whether somebody waits for it or not.
    Key { subject: Subject, lease: LeaseId, background: bool },
}

/// A request that is not answered yet.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) sent: Instant,
    /// Which registration of the node it was sent under.
    pub(super) registration: u64,
    /// The highest revision that the store had had by then.
    pub(super) seen: u64,
    /// Changes of the generation's key that were known by then.
    pub(super) turns: u64,
    /// The first key that it writes, if it does what it is sent for.
    pub(super) writes: Option<Bytes>,
}

/// The requests in flight and the calls that wait to be polled.
#[derive(Debug)]
pub(super) struct Calls {
    next: u64,
    step: u64,
    pending: BTreeMap<CallId, Pending>,
    queue: VecDeque<Call>,
}

impl Calls {
    pub(super) fn new(first: u64, step: u64) -> Self {
        Self { next: first, step: step.max(1), pending: BTreeMap::new(), queue: VecDeque::new() }
    }

    fn id(&mut self) -> u64 {
        let id = self.next;
        self.next = self.next.saturating_add(self.step);
        id
    }

    pub(super) fn send(&mut self, request: Request, pending: Pending) {
        let id = CallId(self.id());
        self.pending.insert(id, pending);
        self.queue.push_back(Call::Request { id, request });
    }

    pub(super) fn watch(&mut self, watch: Watch) -> WatchId {
        let id = WatchId(self.id());
        self.queue.push_back(Call::Watch { id, watch });
        id
    }

    pub(super) fn unwatch(&mut self, id: WatchId) {
        self.queue.push_back(Call::Unwatch(id));
    }

    pub(super) fn poll(&mut self) -> Option<Call> {
        self.queue.pop_front()
    }

    pub(super) fn is_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// What a request was for; `None` if it is answered already, or never was ours.
    pub(super) fn take(&mut self, id: CallId) -> Option<Pending> {
        self.pending.remove(&id)
    }

    /// When the oldest request counts as lost.
    pub(super) fn deadline(&self, timeout: Duration) -> Option<Instant> {
        self.pending.first_key_value().map(|(_, pending)| pending.sent + timeout)
    }

    /// A request that nothing was heard of for too long.
    pub(super) fn take_lost(&mut self, now: Instant, timeout: Duration) -> Option<Pending> {
        if self.deadline(timeout)? > now {
            return None;
        }
        self.pending.pop_first().map(|(_, pending)| pending)
    }

    /// Requests in flight.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Forgets everything that is in flight; an answer to it is nobody's.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
    }
}

/// Exponential back-off with jitter: the wait after so many failures in a row, from 1.
pub(super) fn backoff(config: &RegistrarConfig, failures: u32, rng: &mut Rng) -> Duration {
    let doubled = config.backoff_min.saturating_mul(1 << failures.min(16));
    rng.duration(config.backoff_min..=doubled.min(config.backoff_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_are_spread() {
        let config = RegistrarConfig::default();
        let mut rng = Rng::new([1; 32]);
        let mut most = [Duration::ZERO; 8];
        for (failures, most) in (1..).zip(&mut most) {
            for _ in 0..200 {
                let wait = backoff(&config, failures, &mut rng);
                assert!(wait >= config.backoff_min && wait <= config.backoff_max);
                *most = wait.max(*most);
            }
        }
        assert!(most[0] <= config.backoff_min * 2 && most[0] > config.backoff_min * 3 / 2);
        assert!(most[7] > config.backoff_max * 9 / 10);
    }

    #[test]
    fn what_is_lost_is_taken_in_the_order_in_which_it_was_sent() {
        let at = Instant::from_micros;
        let mut calls = Calls::new(7, 3);
        for sent in [0, 5] {
            let purpose = Purpose::Refresh;
            let pending =
                Pending { purpose, sent: at(sent), registration: 0, seen: 0, turns: 0, writes: None };
            calls.send(Request::Compact { revision: 1 }, pending);
        }
        let timeout = Duration::from_micros(10);
        assert!(calls.take_lost(at(9), timeout).is_none());
        assert_eq!(calls.take_lost(at(10), timeout).unwrap().sent, at(0));
        assert!(calls.take(CallId(7)).is_none(), "it is lost for good");
        assert_eq!(calls.take(CallId(10)).unwrap().sent, at(5));
        assert_eq!(calls.len(), 0);
    }
}
