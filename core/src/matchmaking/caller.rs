//! Requests under way: which identifier belongs to what, and how long to wait after one
//! that came to nothing.

use alloc::collections::{BTreeMap, VecDeque};

use crate::registry::{Call, CallId, Request, Txn, Watch, WatchId};
use crate::rng::{Rng, Seed};
use crate::time::Duration;

/// What one sub-machine has asked of a registry that it shares with others.
#[derive(Debug)]
pub(super) struct Caller<T> {
    next: u64,
    step: u64,
    waiting: BTreeMap<CallId, T>,
    calls: VecDeque<Call>,
    rng: Rng,
    backoff: (Duration, Duration),
}

impl<T> Caller<T> {
    /// Its identifiers are `first`, `first + step` and so on.
    pub(super) fn new(seed: Seed, first: u64, step: u64, backoff: (Duration, Duration)) -> Self {
        Self {
            next: first,
            step,
            waiting: BTreeMap::new(),
            calls: VecDeque::new(),
            rng: Rng::new(seed),
            backoff,
        }
    }

    /// Asks; the answer's identifier will stand for `what`.
    pub(super) fn request(&mut self, what: T, request: Request) {
        let id = CallId(self.number());
        self.waiting.insert(id, what);
        self.calls.push_back(Call::Request { id, request });
    }

    pub(super) fn txn(&mut self, what: T, txn: Txn) {
        self.request(what, Request::Txn(txn));
    }

    pub(super) fn watch(&mut self, watch: Watch) -> WatchId {
        let id = WatchId(self.number());
        self.calls.push_back(Call::Watch { id, watch });
        id
    }

    pub(super) fn unwatch(&mut self, id: Option<WatchId>) {
        self.calls.extend(id.map(Call::Unwatch));
    }

    /// What an answer is about; `None` if it is not awaited here, or not any more.
    pub(super) fn take(&mut self, id: CallId) -> Option<T> {
        self.waiting.remove(&id)
    }

    /// Awaits no answer any more. What was asked may be done all the same.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Requests under way.
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn poll(&mut self) -> Option<Call> {
        self.calls.pop_front()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.calls.is_empty()
    }

    /// How long to wait after so many failures in a row, from 1: exponential, with full
    /// jitter above the shortest wait, since many nodes lose a registry at once.
    pub(super) fn pause(&mut self, failures: u32) -> Duration {
        let (min, max) = self.backoff;
        let ceiling = min.saturating_mul(1 << failures.min(16)).min(max);
        self.rng.duration(min..=ceiling)
    }

    pub(super) fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(self.step);
        number
    }
}
