//! The registry in the process: the core's machine, which answers at once.

use std::collections::VecDeque;

use skirmish_core::registry::{
    Failure, News, Registry, RegistryCommand, RegistryConfig, RegistryEvent, Watched,
};
use skirmish_core::time::{Deadline, Instant};

use super::{RegistryCounters, Status};

/// The registry of a single process, lost when the process ends. The queue of events is bounded by
/// the number of calls since the last drain.
#[derive(Debug)]
pub struct EmbeddedRegistry {
    machine: Registry,
    events: VecDeque<RegistryEvent>,
    counters: RegistryCounters,
    since: Instant,
}

impl EmbeddedRegistry {
    /// Creates an empty registry.
    #[must_use]
    pub fn new(config: RegistryConfig, now: Instant) -> Self {
        Self {
            machine: Registry::new(config, now),
            events: VecDeque::new(),
            counters: RegistryCounters::default(),
            since: now,
        }
    }

    /// Executes a call and queues the answer.
    pub fn handle(&mut self, now: Instant, call: RegistryCommand) {
        match call {
            RegistryCommand::Request { id, request } => {
                let outcome = self.machine.handle(now, &request).map_err(Failure::Refused);
                self.counters.calls += 1;
                self.counters.refused += u64::from(outcome.is_err());
                self.events.push_back(RegistryEvent::Reply { id, outcome });
            }
            RegistryCommand::Watch { id, watch } => {
                if self.machine.watch(now, id, watch).is_err() {
                    let revision = self.machine.revision();
                    self.events.push_back(RegistryEvent::Watched(Watched {
                        id,
                        revision,
                        news: News::Canceled,
                    }));
                }
            }
            RegistryCommand::Unwatch(id) => self.machine.unwatch(id),
        }
    }

    /// Returns the next event for the node.
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        self.events.pop_front().or_else(|| {
            let watched = self.machine.poll_output()?;
            self.counters.news += 1;
            Some(RegistryEvent::Watched(watched))
        })
    }

    /// Returns true if an answer is queued.
    #[must_use]
    pub fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Returns the next deadline for [`Self::handle_timeout`], with its reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let queued = (!self.events.is_empty()).then_some(Deadline::new(Instant::ZERO, "answers are queued"));
        Deadline::earliest(queued, self.machine.poll_timeout())
    }

    /// Handles deadlines that are due. May be called early.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
    }

    /// Returns the status, which is always "connected".
    #[must_use]
    pub const fn status(&self) -> Status {
        Status { connected: true, since: self.since, error: None, refusal: None }
    }

    /// Returns the counters.
    #[must_use]
    pub const fn counters(&self) -> RegistryCounters {
        self.counters
    }

    /// Returns the machine, for its getters.
    #[must_use]
    pub const fn machine(&self) -> &Registry {
        &self.machine
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use skirmish_core::registry::{CallId, Change, LeaseId, Put, Request, Span, Watch, WatchId};
    use skirmish_core::time::Duration;

    use super::*;

    #[test]
    fn answers_in_the_same_turn_and_ends_leases_by_its_timeouts() {
        let start = Instant::from_micros(1);
        let mut registry = EmbeddedRegistry::new(RegistryConfig::default(), start);
        let mut events = Vec::new();
        let request = |id, request| RegistryCommand::Request { id: CallId(id), request };
        let key = Bytes::from_static(b"k");
        for call in [
            RegistryCommand::Watch { id: WatchId(5), watch: Watch::of(Span::one(key.clone()), 0) },
            request(1, Request::Grant { id: LeaseId(9), ttl_s: 2 }),
            request(2, Request::Put(Put::new(key.clone(), "v", Some(LeaseId(9))))),
            request(3, Request::Revoke(LeaseId(8))),
        ] {
            registry.handle(start, call);
            events.extend(std::iter::from_fn(|| registry.poll_event()));
        }
        let kinds: Vec<_> = events
            .iter()
            .map(|event| match event {
                RegistryEvent::Reply { id, outcome } => (id.0, outcome.is_ok()),
                RegistryEvent::Watched(watched) => (watched.id.0, true),
                RegistryEvent::Connected { .. } => (0, true),
            })
            .collect();
        assert_eq!(kinds, [(5, true), (1, true), (2, true), (5, true), (3, false)]);

        // Sleeps exactly until each requested deadline.
        let mut now = start;
        let news = loop {
            let due = registry.poll_timeout().expect("there is a lease");
            now = now.max(due.at);
            assert!(now <= start + Duration::from_secs(4));
            registry.handle_timeout(now);
            if let Some(event) = registry.poll_event() {
                break event;
            }
        };
        let RegistryEvent::Watched(Watched { news: News::Changes(changes), .. }) = news else {
            panic!("{news:?}")
        };
        assert!(matches!(&changes[..], [Change::Delete { key: gone, .. }] if *gone == key));
        assert_eq!((registry.counters().calls, registry.counters().refused), (3, 1));
        assert!(registry.status().connected);
    }
}
