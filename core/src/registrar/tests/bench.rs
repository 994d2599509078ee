//! One registrar and the registry machine, with every call in the hands of the test.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use crate::base::id::{Name, NodeId, SessionId};
use crate::base::rng::Seed;
use crate::base::time::{Duration, Instant, Now, Wall};
use crate::registrar::{Decision, Registrar, RegistrarConfig};
use crate::registry::{
    Answer, CallId, Failure, KeyValue, Put, Range, Registry, RegistryCommand, RegistryConfig, RegistryEvent,
    Request, Response, Span, WatchId,
};

pub(super) const ME: NodeId = NodeId(0xA);
pub(super) const OTHER: NodeId = NodeId(0xB);

/// Both clocks, `ms` after the start.
pub(super) fn at(ms: u64) -> Now {
    Now { instant: Instant::from_micros(ms * 1000), wall: Wall(ms) }
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(super) fn session(byte: u8) -> SessionId {
    SessionId([byte; 16])
}

/// What the registry does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done and answered.
    Done,
    /// It is done, and the answer is lost.
    Unheard,
    /// It never arrives, and nobody can say so.
    Lost,
    /// It never arrives, and the driver says so.
    Unavailable,
}

pub(super) struct Bench {
    pub(super) registrar: Registrar,
    pub(super) registry: Registry,
    pub(super) now: Now,
    pub(super) decisions: Vec<Decision>,
    pub(super) calls: VecDeque<RegistryCommand>,
    /// Every request that the registrar made.
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

    /// One that checks tokens with these keys, and has found out which store it is.
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
            registrar: Registrar::new(config, ME, record, seed, 100, 1),
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

    /// One that has found out which store it is, and has asked for nothing else yet.
    pub(super) fn joined(config: RegistrarConfig) -> Self {
        let mut bench = Self::new(config);
        while bench.registry.revision() == 1 {
            assert!(bench.step(Fate::Done));
        }
        bench
    }

    /// One that serves.
    pub(super) fn serving() -> Self {
        let mut bench = Self::new(RegistrarConfig::default());
        bench.settle();
        assert_eq!(bench.take(), [Decision::Serving]);
        bench
    }

    /// Takes what the registrar has to say.
    pub(super) fn collect(&mut self) {
        self.collect_unchecked();
        self.registrar.audit().unwrap();
    }

    /// As [`Self::collect`], where looking at everything each time would take too long.
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

    /// The decisions since the last time.
    pub(super) fn take(&mut self) -> Vec<Decision> {
        core::mem::take(&mut self.decisions)
    }

    pub(super) fn tell(&mut self, id: CallId, outcome: Result<Response, Failure>) {
        self.registrar.handle_told(self.now, RegistryEvent::Reply { id, outcome });
        self.collect_unchecked();
    }

    /// Does the oldest call; false if there is none.
    pub(super) fn step(&mut self, fate: Fate) -> bool {
        let stepped = self.step_unchecked(fate);
        self.registrar.audit().unwrap();
        stepped
    }

    /// As [`Self::collect_unchecked`].
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

    /// Tells what the watches have to tell.
    pub(super) fn news(&mut self) {
        while let Some(watched) = self.registry.poll_output() {
            self.registrar.handle_told(self.now, RegistryEvent::Watched(watched));
            self.collect_unchecked();
        }
    }

    /// Does everything that is asked now.
    pub(super) fn settle(&mut self) {
        loop {
            self.news();
            if !self.step(Fate::Done) {
                break;
            }
        }
    }

    /// Lets the time pass, deadline by deadline; every request meets this fate.
    pub(super) fn pass(&mut self, ms: u64, fate: Fate) {
        let end = self.now.instant + Duration::from_millis(ms);
        for _ in 0..1_000_000 {
            self.news();
            while self.step(fate) {
                self.news();
            }
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

    /// As somebody else.
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

    /// The watches that the registrar has.
    pub(super) fn watch_ids(&self) -> Vec<WatchId> {
        (100..self.requests.len() as u64 + 110).map(WatchId).collect()
    }
}
