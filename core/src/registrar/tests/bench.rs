//! One registrar and the registry machine; the test controls every request.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::base::id::{Name, NodeId, SessionId};
use crate::base::rng::Seed;
use crate::base::time::{Duration, Instant, Now, Wall};
use crate::registrar::{Decision, Registrar, RegistrarConfig};
use crate::registry::{
    Answer, CallId, CallNumbers, Failure, KeyValue, Put, Range, Registry, RegistryCommand, RegistryConfig,
    RegistryEvent, Request, Response, Span, WatchId,
};

pub(super) const ME: NodeId = NodeId(0xA);
pub(super) const OTHER: NodeId = NodeId(0xB);

/// Times of both clocks, `ms` after the start.
pub(super) fn at(ms: u64) -> Now {
    Now { instant: Instant::from_micros(ms * 1000), wall: Wall(ms) }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn session(byte: u8) -> SessionId {
    SessionId([byte; 16])
}

/// Fate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The registry executes and answers the request.
    Done,
    /// The registry executes the request, and the answer is lost.
    Unheard,
    /// The request is lost, with an unknown outcome.
    Lost,
    /// The request is lost, and the driver reports the loss.
    Unavailable,
}

pub(super) struct Bench {
    pub(super) registrar: Registrar,
    pub(super) registry: Registry,
    pub(super) now: Now,
    pub(super) decisions: Vec<Decision>,
    pub(super) calls: VecDeque<RegistryCommand>,
    /// All requests of the registrar so far.
    pub(super) requests: Vec<Request>,
}

impl Bench {
    pub(super) fn new(config: RegistrarConfig) -> Self {
        Self::seeded(config, [7; 32])
    }

    pub(super) fn seeded(config: RegistrarConfig, seed: Seed) -> Self {
        config.validate().unwrap();
        Self::of(config, seed, &[])
    }

    /// Creates a bench with a node that checks tokens with these keys and knows the store.
    pub(super) fn with_keys(keys: &[u64]) -> Self {
        let mut bench = Self::of(RegistrarConfig::default(), [7; 32], keys);
        while bench.registry.revision() == 1 {
            assert!(bench.step(Fate::Done));
        }
        bench
    }

    fn of(config: RegistrarConfig, seed: Seed, keys: &[u64]) -> Self {
        let token_keys = keys.to_vec();
        let record = v1::NodeRecord { name: "a".into(), token_keys, ..v1::NodeRecord::default() };
        let mut bench = Self {
            registrar: Registrar::new(config, ME, record, seed, CallNumbers::new(100, 1)),
            registry: Registry::new(RegistryConfig::etcd(), Instant::ZERO),
            now: at(0),
            decisions: Vec::new(),
            calls: VecDeque::new(),
            requests: Vec::new(),
        };
        bench.registrar.start(bench.now);
        bench.collect();
        bench
    }

    /// Creates a bench with a node that knows the store and has sent no other request.
    pub(super) fn joined(config: RegistrarConfig) -> Self {
        let mut bench = Self::new(config);
        while bench.registry.revision() == 1 {
            assert!(bench.step(Fate::Done));
        }
        bench
    }

    /// Creates a bench with a node that serves.
    pub(super) fn serving() -> Self {
        let mut bench = Self::new(RegistrarConfig::default());
        bench.settle();
        assert_eq!(bench.take(), [Decision::Serving]);
        bench
    }

    /// Collects the output of the registrar, and audits the registrar.
    pub(super) fn collect(&mut self) {
        self.collect_unchecked();
        self.registrar.audit().unwrap();
    }

    /// Collects the output without the audit, for calls in a loop.
    pub(super) fn collect_unchecked(&mut self) {
        while let Some(call) = self.registrar.poll_call() {
            if let RegistryCommand::Request { request, .. } = &call {
                self.requests.push(request.clone());
            }
            self.calls.push_back(call);
        }
        while let Some(decision) = self.registrar.poll_decision() {
            self.decisions.push(decision);
        }
    }

    /// Returns the decisions since the last call.
    pub(super) fn take(&mut self) -> Vec<Decision> {
        core::mem::take(&mut self.decisions)
    }

    pub(super) fn tell(&mut self, id: CallId, outcome: Result<Response, Failure>) {
        self.registrar.handle_event(self.now, RegistryEvent::Reply { id, outcome });
        self.collect_unchecked();
    }

    /// Executes the oldest command. Returns false if there is none.
    pub(super) fn step(&mut self, fate: Fate) -> bool {
        let stepped = self.step_unchecked(fate);
        self.registrar.audit().unwrap();
        stepped
    }

    /// Executes the oldest command without the audit.
    pub(super) fn step_unchecked(&mut self, fate: Fate) -> bool {
        let Some(call) = self.calls.pop_front() else { return false };
        match call {
            RegistryCommand::Request { id, request } => {
                let done = matches!(fate, Fate::Done | Fate::Unheard)
                    .then(|| self.registry.handle(self.now.instant, &request).map_err(Failure::Refused));
                match (fate, done) {
                    (Fate::Done, Some(outcome)) => self.tell(id, outcome),
                    (Fate::Unavailable, _) => self.tell(id, Err(Failure::Unavailable)),
                    _ => self.tell(id, Err(Failure::Unknown)),
                }
            }
            RegistryCommand::Watch { id, watch } => self.registry.watch(self.now.instant, id, watch).unwrap(),
            RegistryCommand::Unwatch(id) => self.registry.unwatch(id),
        }
        true
    }

    /// Passes the output of the watches to the registrar.
    pub(super) fn news(&mut self) {
        while let Some(watched) = self.registry.poll_output() {
            self.registrar.handle_event(self.now, RegistryEvent::Watched(watched));
            self.collect_unchecked();
        }
    }

    /// Executes all commands until none is left.
    pub(super) fn settle(&mut self) {
        self.news();
        self.step_all(Fate::Done);
    }

    /// Executes all commands with this fate, and passes on the news in between.
    fn step_all(&mut self, fate: Fate) {
        let most = self.requests.len() + 100_000;
        while self.step(fate) {
            assert!(self.requests.len() < most, "the registrar asks without a pause");
            self.news();
        }
    }

    /// Lets the time pass, deadline by deadline, with this fate for every request.
    pub(super) fn pass(&mut self, ms: u64, fate: Fate) {
        let end = self.now.instant + Duration::from_millis(ms);
        for _ in 0..1_000_000 {
            self.news();
            self.step_all(fate);
            let due = self.registrar.poll_timeout().map_or(end, |deadline| deadline.at);
            if due > end {
                self.now.instant = end;
                self.registry.handle_timeout(end);
                return;
            }
            self.now.instant = self.now.instant.max(due);
            self.registry.handle_timeout(self.now.instant);
            self.registrar.handle_timeout(self.now);
            self.collect();
        }
        panic!("the registrar never sleeps: {:?}", self.registrar.poll_timeout());
    }

    /// Writes a key as another program would, without a lease.
    pub(super) fn put(&mut self, key: &str, value: Bytes) -> u64 {
        let put = Put::new(Bytes::copy_from_slice(key.as_bytes()), value, None);
        self.registry.handle(self.now.instant, &Request::Put(put)).unwrap().revision
    }

    pub(super) fn get(&mut self, key: &str) -> Option<KeyValue> {
        let range = Range::of(Span::one(Bytes::copy_from_slice(key.as_bytes())));
        match self.registry.handle(self.now.instant, &Request::Range(range)).unwrap().answer {
            Answer::Range { kvs, .. } => kvs.into_iter().next(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ask(&mut self, request: &Request) -> Response {
        self.registry.handle(self.now.instant, request).unwrap()
    }

    /// Returns the identifiers that the registrar's watches can have.
    pub(super) fn watch_ids(&self) -> Vec<WatchId> {
        (100..self.requests.len() as u64 + 110).map(WatchId).collect()
    }
}
