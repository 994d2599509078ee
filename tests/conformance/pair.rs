//! The machine and a real etcd with the same inputs.

use std::collections::BTreeMap;

use etcd_client::{Client, DeleteOptions, WatchResponse, WatchStream};
use skirmish_core::registry::{
    Answer, Change, Error, News, Put, Registry, RegistryConfig, Request, Response, Span, Txn, Watch, WatchId,
};
use skirmish_core::time::Instant;
use skirmish_tests::etcd::{Etcd, Version};
use skirmish_tests::{eventually, http, within};

use crate::real;

/// Runs a sequence on both. Panics with the two results at a difference.
pub(crate) struct Pair<'a> {
    etcd: &'a Etcd,
    client: Client,
    machine: Registry,
    now: Instant,
    stream: Option<WatchStream>,
    watches: BTreeMap<WatchId, Watched>,
    next_watch: u64,
    outcomes: Outcomes,
}

/// Number of results of each kind.
pub(crate) type Outcomes = BTreeMap<String, u64>;

/// A watch on both.
struct Watched {
    watch: Watch,
    machine: Vec<Item>,
    real: Vec<Item>,
    /// True for a watch from the past that etcd may not have served so far.
    catching_up: bool,
}

/// News of a watch, change by change.
#[derive(Debug, PartialEq)]
enum Item {
    Created,
    Change(Change),
    Compacted(u64),
    Canceled,
}

impl<'a> Pair<'a> {
    /// Starts both without leases and with only the key `m`, at the same revision, which is compacted.
    pub(crate) async fn new(etcd: &'a Etcd) -> Self {
        let mut pair = Self::fresh(etcd).await;
        pair.put("m", "").await;
        let revision = pair.revision();
        pair.ask(Request::Compact { revision }).await.expect("there is such a revision");
        pair
    }

    /// Starts both without keys and leases, at the same revision.
    pub(crate) async fn fresh(etcd: &'a Etcd) -> Self {
        let mut client = etcd.client().await;
        let leases = client.leases().await.expect("etcd answers");
        for lease in leases.leases() {
            client.lease_revoke(lease.id()).await.expect("etcd answers");
        }
        let all = DeleteOptions::new().with_all_keys();
        let deleted = client.delete("", Some(all)).await.expect("etcd answers");
        let base_revision = real::unsigned(deleted.header().expect("a header").revision());
        let forgets_deletions = etcd.version() < Version::V3_5_16;
        let config = RegistryConfig { base_revision, forgets_deletions, ..RegistryConfig::etcd() };
        Self {
            etcd,
            client,
            machine: Registry::new(config, Instant::ZERO),
            now: Instant::ZERO,
            stream: None,
            watches: BTreeMap::new(),
            next_watch: 1,
            outcomes: Outcomes::new(),
        }
    }

    /// Version of the etcd.
    pub(crate) const fn version(&self) -> Version {
        self.etcd.version()
    }

    /// Returns the newest revision.
    pub(crate) fn revision(&self) -> u64 {
        self.machine.revision()
    }

    /// Returns the revision of the last compaction.
    pub(crate) fn compacted(&self) -> u64 {
        self.machine.compacted().expect("there was one at the start")
    }

    pub(crate) async fn put(&mut self, key: &'static str, value: &'static str) -> Answer {
        self.ask(Request::Put(Put::new(key, value, None))).await.expect("a plain write is done").answer
    }

    pub(crate) async fn txn(&mut self, txn: Txn) -> Result<Answer, Error> {
        Ok(self.ask(Request::Txn(txn)).await?.answer)
    }

    /// Sends a request to both, compares the answers, and returns the answer.
    pub(crate) async fn ask(&mut self, request: Request) -> Result<Response, Error> {
        if let Request::Compact { .. } = request {
            // A compaction must not remove changes that etcd still has to report.
            self.caught_up().await;
        }
        let real = within("etcd's answer", real::call(&mut self.client, &request)).await;
        let machine = self.machine.handle(self.now, &request);
        self.machine.audit().expect("the machine is in order");
        assert_eq!(comparable(&machine), comparable(&real), "machine, etcd: {request:?}");
        self.drain();
        self.note(&outcome(&request, &machine));
        machine
    }

    /// Sets or ends the lack of space in the machine, like the alarm of etcd.
    pub(crate) const fn set_full(&mut self, full: bool) {
        self.machine.set_full(full);
    }

    /// Starts a watch on both.
    pub(crate) async fn watch(&mut self, watch: Watch) -> WatchId {
        self.note("Watch");
        let id = WatchId(self.next_watch);
        self.next_watch += 1;
        self.machine.watch(self.now, id, watch.clone()).expect("there is place");
        let catching_up = watch.start > 0 && watch.start <= self.revision();
        let watched = Watched { watch: watch.clone(), machine: Vec::new(), real: Vec::new(), catching_up };
        self.watches.insert(id, watched);
        self.drain();
        let options = real::watch_options(real::signed(id.0), &watch);
        match &mut self.stream {
            Some(stream) => stream.watch(watch.span.key, Some(options)).await.expect("etcd watches"),
            None => {
                let stream = self.client.watch(watch.span.key, Some(options)).await.expect("etcd watches");
                self.stream = Some(stream);
            }
        }
        while self.watches[&id].real.is_empty() {
            self.read().await;
        }
        id
    }

    /// Ends a watch on both.
    pub(crate) async fn unwatch(&mut self, id: WatchId) {
        self.changes(id).await;
        let watched = &self.watches[&id];
        if matches!(watched.real.last(), Some(Item::Canceled | Item::Compacted(_))) {
            return;
        }
        self.note("Unwatch");
        self.machine.unwatch(id);
        let stream = self.stream.as_mut().expect("there is a watch");
        stream.cancel(real::signed(id.0)).await.expect("etcd listens");
        while self.watches[&id].real.last() != Some(&Item::Canceled) {
            self.read().await;
        }
        let watched = self.watches.remove(&id).expect("it was there");
        assert_eq!(watched.machine, watched.real[..watched.real.len() - 1], "{:?}", watched.watch);
    }

    /// Returns the watches, including those that ended by themselves.
    pub(crate) fn watches(&self) -> Vec<WatchId> {
        self.watches.keys().copied().collect()
    }

    /// Waits until etcd has reported to a watch exactly the changes that the machine has reported.
    pub(crate) async fn changes(&mut self, id: WatchId) -> Vec<Change> {
        loop {
            let watched = &self.watches[&id];
            let both = watched.machine.len().min(watched.real.len());
            assert_eq!(watched.machine[..both], watched.real[..both], "machine, etcd: {:?}", watched.watch);
            assert_eq!(watched.real.len(), both, "etcd tells more: {:?}", watched.real);
            if watched.machine.len() == both {
                let changes = watched.machine.iter().filter_map(|item| match item {
                    Item::Change(change) => Some(change.clone()),
                    Item::Created | Item::Compacted(_) | Item::Canceled => None,
                });
                return changes.collect();
            }
            self.read().await;
        }
    }

    /// Waits like [`Self::changes`], but only for the same number of changes of the same keys. Returns etcd's
    /// changes.
    pub(crate) async fn changes_in_any_order(&mut self, id: WatchId) -> Vec<Change> {
        while self.watches[&id].real.len() < self.watches[&id].machine.len() {
            self.read().await;
        }
        let Watched { machine, real, .. } = &self.watches[&id];
        let changes = |items: &[Item]| {
            let changes = items.iter().filter_map(|item| match item {
                Item::Change(change) => Some(change.clone()),
                Item::Created | Item::Compacted(_) | Item::Canceled => None,
            });
            changes.collect::<Vec<_>>()
        };
        let keys = |items: &[Item]| {
            let mut keys: Vec<_> = changes(items).iter().map(|change| change.key().clone()).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(machine), keys(real));
        changes(real)
    }

    /// Checks that no watch has further news: writes and deletes a key of each watch, and waits for these
    /// changes. Returns the number of results of each kind.
    pub(crate) async fn finish(mut self) -> Outcomes {
        for id in self.watches() {
            let Watched { watch, .. } = &self.watches[&id];
            let Span { key, .. } = watch.span.clone();
            let tells = !watch.no_put || !watch.no_delete;
            let starts = watch.start.saturating_sub(self.revision());
            if tells && starts < 20 && watch.span.contains(&key) && !key.is_empty() {
                for _ in 0..=starts {
                    self.ask(Request::Put(Put::new(key.clone(), "", None))).await.expect("a write is done");
                    let delete = skirmish_core::registry::Delete::of(Span::one(key.clone()));
                    self.ask(Request::Delete(delete)).await.expect("a deletion is done");
                }
            }
        }
        for id in self.watches() {
            self.changes(id).await;
            let name = match self.watches[&id].machine.last() {
                Some(Item::Compacted(_)) => "Watch: Compacted",
                Some(Item::Canceled) => "Watch: Canceled",
                _ => continue,
            };
            self.note(name);
        }
        self.outcomes
    }

    /// Advances the machine's time, after the same real time has passed for etcd.
    pub(crate) fn sleep(&mut self, duration: std::time::Duration) {
        self.now = self.now + duration;
        self.machine.handle_timeout(self.now);
        self.drain();
    }

    /// Waits until etcd has reported the past to every watch.
    async fn caught_up(&mut self) {
        if self.watches.values().any(|watched| watched.catching_up) {
            let address = self.etcd.address();
            eventually("etcd to have looked at the past for every watch", async || {
                let request = "GET /metrics HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n";
                let metrics = http::exchange(address, request).await;
                metrics.contains("\netcd_debugging_mvcc_slow_watcher_total 0\n")
            })
            .await;
        }
        for id in self.watches() {
            self.changes(id).await;
        }
        self.watches.values_mut().for_each(|watched| watched.catching_up = false);
    }

    fn drain(&mut self) {
        while let Some(told) = self.machine.poll_output() {
            let items = &mut self.watches.get_mut(&told.id).expect("it was asked for").machine;
            match told.news {
                News::Created => items.push(Item::Created),
                News::Changes(changes) => items.extend(changes.into_iter().map(Item::Change)),
                News::Progress => {}
                News::Compacted { oldest } => items.push(Item::Compacted(oldest)),
                News::Canceled => items.push(Item::Canceled),
            }
            self.machine.audit().expect("the machine is in order");
        }
    }

    fn note(&mut self, outcome: &str) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
    }

    async fn read(&mut self) {
        let stream = self.stream.as_mut().expect("there is a watch");
        let message = within("etcd to tell more", stream.message()).await.expect("etcd watches");
        let message = message.expect("etcd does not end a stream");
        // A refused watch has no identifier: it is the newest one.
        let id =
            if message.watch_id() < 0 { self.next_watch - 1 } else { real::unsigned(message.watch_id()) };
        if let Some(watched) = self.watches.get_mut(&WatchId(id)) {
            watched.real.extend(items(&message));
        }
    }
}

fn items(message: &WatchResponse) -> Vec<Item> {
    match (message.created(), message.canceled(), message.compact_revision()) {
        (_, true, oldest @ 1..) => vec![Item::Compacted(real::unsigned(oldest))],
        (_, true, _) => vec![Item::Canceled],
        (true, ..) => vec![Item::Created],
        _ => message.events().iter().map(|event| Item::Change(real::change(event))).collect(),
    }
}

fn outcome(request: &Request, result: &Result<Response, Error>) -> String {
    let request = format!("{request:?}");
    let name = request.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    match result {
        Ok(_) => name.to_owned(),
        Err(error) => format!("{name}: {error:?}"),
    }
}

/// Removes the parts of an answer that depend on the speed of the computer.
fn comparable(result: &Result<Response, Error>) -> Result<Response, Error> {
    let mut result = result.clone();
    if let Ok(Response { answer: Answer::TimeToLive { left_s, granted_s, .. }, .. }) = &mut result {
        assert!(*left_s <= *granted_s && *left_s + 900 >= *granted_s, "{left_s} of {granted_s}");
        *left_s = 0;
    }
    result
}
