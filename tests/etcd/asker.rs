//! A program that sends requests to a registry like a node.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use skirmish_core::registry::{Answer, News};
use skirmish_core::registry::{
    CallId, Failure, KeyValue, Range, Registry as Machine, RegistryCommand, RegistryConfig, RegistryEvent,
    Request, Response, Span, Watch, WatchId, Watched,
};
use skirmish_io::clock::Clock;
use skirmish_io::config::RegistryEtcd;
use skirmish_io::registry::{EmbeddedRegistry, NodeRegistry, etcd};
use skirmish_tests::{eventually, within};

pub(crate) type Outcome = Result<Response, Failure>;

/// Returns options with shorter waits than production needs.
pub(crate) fn options(endpoints: Vec<String>) -> RegistryEtcd {
    RegistryEtcd {
        endpoints,
        request_timeout: Duration::from_secs(20),
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(100),
        ..RegistryEtcd::default()
    }
}

/// Sends requests to a registry and collects the answers.
pub(crate) struct Asker {
    clock: Clock,
    pub(crate) registry: NodeRegistry,
    next: u64,
    outcomes: BTreeMap<CallId, Outcome>,
    news: VecDeque<Watched>,
}

impl Asker {
    pub(crate) fn new(options: &RegistryEtcd) -> Self {
        let clock = Clock::new();
        let remote = etcd::start(options, clock.clone(), [1; 32]).expect("the options are sound");
        Self::of(clock, NodeRegistry::Remote(remote))
    }

    /// Creates an asker of the machine, configured like etcd.
    pub(crate) fn embedded() -> Self {
        let clock = Clock::new();
        let machine = EmbeddedRegistry::new(RegistryConfig::etcd(), clock.now().instant);
        Self::of(clock, NodeRegistry::Embedded(Box::new(machine)))
    }

    fn of(clock: Clock, registry: NodeRegistry) -> Self {
        Self { clock, registry, next: 0, outcomes: BTreeMap::new(), news: VecDeque::new() }
    }

    pub(crate) fn machine(&self) -> &Machine {
        match &self.registry {
            NodeRegistry::Embedded(embedded) => embedded.machine(),
            NodeRegistry::Remote(_) => panic!("it asks etcd"),
        }
    }

    pub(crate) fn ask(&mut self, request: Request) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        self.call(RegistryCommand::Request { id, request });
        id
    }

    pub(crate) fn call(&mut self, call: RegistryCommand) {
        self.registry.handle(self.clock.now().instant, call);
    }

    pub(crate) fn watch(&mut self, id: u64, watch: Watch) {
        self.call(RegistryCommand::Watch { id: WatchId(id), watch });
    }

    /// Waits for an event of the registry, and sorts all events.
    pub(crate) async fn pump(&mut self) {
        within("the registry to tell something", self.registry.ready()).await;
        self.sort();
    }

    /// Sorts the events of the registry into outcomes and news.
    pub(crate) fn sort(&mut self) {
        while let Some(event) = self.registry.poll_event() {
            match event {
                RegistryEvent::Reply { id, outcome } => {
                    assert!(self.outcomes.insert(id, outcome).is_none(), "{id:?}")
                }
                RegistryEvent::Watched(watched) => self.news.push_back(watched),
                RegistryEvent::Connected { .. } => {}
            }
        }
    }

    /// Removes and returns an outcome, if the request has one.
    pub(crate) fn take(&mut self, id: CallId) -> Option<Outcome> {
        self.outcomes.remove(&id)
    }

    pub(crate) async fn outcome(&mut self, id: CallId) -> Outcome {
        self.sort();
        loop {
            match self.take(id) {
                Some(outcome) => return outcome,
                None => self.pump().await,
            }
        }
    }

    pub(crate) async fn done(&mut self, request: Request) -> Outcome {
        let id = self.ask(request);
        self.outcome(id).await
    }

    /// Returns the next news of any watch.
    pub(crate) async fn news(&mut self) -> Watched {
        self.sort();
        loop {
            match self.news.pop_front() {
                Some(watched) => return watched,
                None => self.pump().await,
            }
        }
    }

    /// Returns the next news with changes.
    pub(crate) async fn changes(&mut self) -> Vec<skirmish_core::registry::Change> {
        loop {
            if let News::Changes(changes) = self.news().await.news {
                return changes;
            }
        }
    }

    /// Returns the keys below a prefix, and their revision.
    pub(crate) async fn list(&mut self, prefix: &str) -> (u64, Vec<KeyValue>) {
        // During faults, the registry answers in the end.
        let mut listed = None;
        let request = Request::Range(Range::of(Span::prefix(prefix.to_owned())));
        eventually("a listing", async || {
            if let Ok(Response { revision, answer: Answer::Range { kvs, .. } }) =
                self.done(request.clone()).await
            {
                listed = Some((revision, kvs));
            }
            listed.is_some()
        })
        .await;
        listed.expect("it was waited for")
    }
}
