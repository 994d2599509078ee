//! Counters and blind writes under faults: an acknowledged write was executed once, a refused or unavailable
//! one never, and one with an unknown outcome at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skirmish_core::registry::{
    Answer, CallId, Compare, Failure, Put, Range, RegistryOp, Request, Response, Span, Txn,
};
use skirmish_io::config::RegistryEtcd;
use skirmish_tests::etcd::{Cluster, Etcd, Version};
use skirmish_tests::pipe::Pipe;
use tokio::time::timeout;

use crate::asker::{Asker, Outcome, options};

/// Number of counters; twice as many workers contend for them.
const COUNTERS: u64 = 8;
const WORKERS: u64 = 2 * COUNTERS;
/// Workers that write without reading first, so that writes are always in flight.
const WRITERS: u64 = 8;
/// Operations that must succeed after all faults.
const AFTERWARDS: usize = 100;
/// Time limit of a request. Faults last longer.
const PATIENCE: Duration = Duration::from_millis(700);

fn hasty(endpoints: Vec<String>) -> RegistryEtcd {
    RegistryEtcd { request_timeout: PATIENCE, connect_timeout: PATIENCE, ..options(endpoints) }
}

/// State of a worker.
enum Waits {
    /// The worker reads its counter.
    Reading,
    /// The worker executes the operation of this number.
    Operating(u64),
}

/// Outcomes of the operations, by their numbers.
#[derive(Debug, Default)]
struct Record {
    acknowledged: Vec<u64>,
    /// Refused, not sent, or void because the counter had moved on.
    not_done: Vec<u64>,
    unknown: Vec<u64>,
    refused: usize,
    unavailable: usize,
}

struct Load {
    asker: Asker,
    waiting: BTreeMap<CallId, (u64, Waits)>,
    next: u64,
    record: Record,
}

impl Load {
    fn new(options: &RegistryEtcd) -> Self {
        let mut load =
            Self { asker: Asker::new(options), waiting: BTreeMap::new(), next: 0, record: Record::default() };
        for worker in 0..WORKERS + WRITERS {
            load.begin(worker);
        }
        load
    }

    fn begin(&mut self, worker: u64) {
        if worker >= WORKERS {
            let number = self.number();
            let put = Put::new(format!("operations/blind/{number}"), "0", None);
            let id = self.asker.ask(Request::Put(put));
            self.waiting.insert(id, (worker, Waits::Operating(number)));
            return;
        }
        let key = counter(worker);
        let id = self.asker.ask(Request::Range(Range::of(Span::one(key))));
        self.waiting.insert(id, (worker, Waits::Reading));
    }

    /// Runs the load until the faults end.
    async fn during<T>(&mut self, faults: impl Future<Output = T>) -> T {
        tokio::pin!(faults);
        loop {
            tokio::select! {
                biased;
                done = &mut faults => return done,
                () = self.step() => {}
            }
        }
    }

    /// Runs the load until `enough` returns true.
    async fn until(&mut self, mut enough: impl FnMut(&Record) -> bool) {
        while !enough(&self.record) {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        // Fails if no outcome arrives in time at all.
        self.asker.pump().await;
        let ids: Vec<CallId> = self.waiting.keys().copied().collect();
        for id in ids {
            let Some(outcome) = self.asker.take(id) else { continue };
            let Some((worker, waits)) = self.waiting.remove(&id) else { continue };
            match waits {
                Waits::Reading => self.increment(worker, outcome),
                Waits::Operating(number) => {
                    self.note(number, outcome);
                    self.begin(worker);
                }
            }
        }
    }

    fn increment(&mut self, worker: u64, read: Outcome) {
        let Ok(Response { answer: Answer::Range { kvs, .. }, .. }) = read else {
            return self.begin(worker);
        };
        let (value, modified) = kvs.first().map_or((0, 0), |kv| (number(&kv.value), kv.modified));
        let key = counter(worker);
        let number = self.number();
        let puts = [
            (key.clone(), (value + 1).to_string()),
            (format!("operations/{}/{number}", worker % COUNTERS), (value + 1).to_string()),
        ];
        let txn = Txn {
            compares: vec![Compare::unchanged(key, modified)],
            success: puts
                .into_iter()
                .map(|(key, value)| RegistryOp::Put(Put::new(key, value, None)))
                .collect(),
            failure: vec![],
        };
        let id = self.asker.ask(Request::Txn(txn));
        self.waiting.insert(id, (worker, Waits::Operating(number)));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn note(&mut self, number: u64, outcome: Outcome) {
        let record = &mut self.record;
        match outcome {
            Ok(Response { answer: Answer::Txn { succeeded: true, .. } | Answer::Put { .. }, .. }) => {
                record.acknowledged.push(number)
            }
            Ok(_) => record.not_done.push(number),
            Err(failure) => match failure {
                Failure::Unknown => record.unknown.push(number),
                Failure::Refused(_) => {
                    record.refused += 1;
                    record.not_done.push(number);
                }
                Failure::Unavailable => {
                    record.unavailable += 1;
                    record.not_done.push(number);
                }
            },
        }
    }

    /// Continues for a while after the faults, ends, and compares the outcomes with the keys in the registry.
    async fn check(mut self, url: String) -> Record {
        let enough = self.record.acknowledged.len() + AFTERWARDS;
        self.until(|record| record.acknowledged.len() >= enough).await;
        // Operations still in flight have no outcome: each of them may be executed or not.
        let under_way: Vec<u64> = self
            .waiting
            .values()
            .filter_map(|(_, waits)| if let Waits::Operating(number) = waits { Some(*number) } else { None })
            .collect();
        self.record.unknown.extend(under_way);
        drop(self.asker);

        let mut reader = Asker::new(&options(vec![url]));
        let counters = reader.list("counters/").await.1;
        let mut there = BTreeSet::new();
        for counter in &counters {
            let index = text(&counter.key).trim_start_matches("counters/");
            let operations = reader.list(&format!("operations/{index}/")).await.1;
            // An operation written after the read of its counter was in flight.
            let mut values: Vec<u64> = Vec::new();
            for operation in &operations {
                assert_eq!(operation.version, 1, "{operation:?} was done twice");
                there.insert(self::operation(&operation.key));
                values.push(number(&operation.value));
            }
            values.sort_unstable();
            let counted: Vec<u64> = (1..=values.len() as u64).collect();
            assert_eq!(values, counted, "of counter {index}");
            assert!(number(&counter.value) <= values.len() as u64);
        }
        for blind in reader.list("operations/blind/").await.1 {
            assert_eq!(blind.version, 1, "{blind:?} was done twice");
            there.insert(operation(&blind.key));
        }
        let record = self.record;
        for number in &record.acknowledged {
            assert!(there.contains(number), "{number} was acknowledged and is not there");
        }
        for number in &record.not_done {
            assert!(!there.contains(number), "{number} was not done and is there");
        }
        let told = record.acknowledged.len() + record.unknown.len();
        assert!(there.len() <= told, "{} are there, of {told} that may be", there.len());
        record
    }
}

fn counter(worker: u64) -> String {
    format!("counters/{}", worker % COUNTERS)
}

fn number(value: &[u8]) -> u64 {
    text(value).parse().expect("a number")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("it is text")
}

/// Returns the number of an operation, the last part of its key.
fn operation(key: &[u8]) -> u64 {
    text(key).rsplit('/').next().map_or(0, |number| number.parse().expect("a number"))
}

/// Waits longer than the time limit of a request.
async fn long() {
    tokio::time::sleep(3 * PATIENCE).await;
}

/// Waits for a time in which some requests are in flight.
async fn short() {
    tokio::time::sleep(PATIENCE / 4).await;
}

#[tokio::test]
async fn an_etcd_that_is_killed_and_started_again() {
    let mut etcd = Etcd::start_with(Version::durable(), &[]).await;
    let url = etcd.url();
    let mut load = Load::new(&hasty(vec![url.clone()]));
    for _ in 0..3 {
        let enough = load.record.acknowledged.len() + 20;
        load.until(|record| record.acknowledged.len() >= enough).await;
        load.during(async {
            etcd.kill().await;
            long().await;
            etcd.restart().await;
        })
        .await;
    }
    let record = load.check(url).await;
    assert_eq!(record.refused, 0);
    assert!(record.unavailable > 0);
}

#[tokio::test]
async fn an_etcd_that_pauses_for_longer_than_a_request_has() {
    let etcd = Etcd::start().await;
    let mut load = Load::new(&hasty(vec![etcd.url()]));
    for _ in 0..3 {
        let enough = load.record.acknowledged.len() + 20;
        load.until(|record| record.acknowledged.len() >= enough).await;
        let unknown = load.record.unknown.len();
        load.during(async {
            etcd.pause();
            long().await;
        })
        .await;
        assert!(load.record.unknown.len() > unknown, "nothing was under way");
        assert!(!load.asker.registry.status().connected);
        etcd.resume();
    }
    let record = load.check(etcd.url()).await;
    assert_eq!(record.refused, 0);
}

#[tokio::test]
async fn a_link_that_goes_dead_or_breaks() {
    let etcd = Etcd::start().await;
    let pipe = Pipe::start(etcd.address()).await;
    let mut load = Load::new(&hasty(vec![pipe.url()]));
    for round in 0..6 {
        let enough = load.record.acknowledged.len() + 20;
        load.until(|record| record.acknowledged.len() >= enough).await;
        load.during(async {
            if round % 2 == 0 {
                pipe.hold();
                long().await;
            } else {
                pipe.cut();
                short().await;
            }
        })
        .await;
        pipe.open();
    }
    let record = load.check(etcd.url()).await;
    assert_eq!(record.refused, 0);
    assert!(!record.unknown.is_empty() && record.unavailable > 0, "{record:?}");
}

#[tokio::test]
async fn a_cluster_that_loses_its_leaders() {
    let mut cluster = Cluster::start_with(Version::durable(), &[]).await;
    let urls = cluster.urls();
    let mut load = Load::new(&hasty(urls.clone()));
    for round in 0..4 {
        let enough = load.record.acknowledged.len() + 20;
        load.until(|record| record.acknowledged.len() >= enough).await;
        load.during(async {
            let leader = cluster.leader().await;
            if round % 2 == 0 {
                cluster.members[leader].kill().await;
            } else {
                cluster.members[leader].pause();
            }
            // An election takes less time, but nothing depends on this.
            long().await;
            // The other members continue without this one.
        })
        .await;
        let enough = load.record.acknowledged.len() + 20;
        load.until(|record| record.acknowledged.len() >= enough).await;
        load.during(async {
            for member in &mut cluster.members {
                if round % 2 == 1 {
                    member.resume();
                } else if member.has_ended() {
                    member.restart().await;
                }
            }
        })
        .await;
    }
    let record = load.check(urls[0].clone()).await;
    assert_eq!(record.refused, 0);
}

/// An unanswered ping ends the connection, even without a request.
#[tokio::test]
async fn a_dead_link_is_noticed_without_a_request() {
    let etcd = Etcd::start().await;
    let pipe = Pipe::start(etcd.address()).await;
    let pinging = RegistryEtcd {
        keep_alive_interval: Duration::from_secs(5),
        keep_alive_timeout: Duration::from_millis(500),
        ..hasty(vec![pipe.url()])
    };
    let mut asker = Asker::new(&pinging);
    asker.watch(1, skirmish_core::registry::Watch::of(Span::one("a"), 0));
    asker.news().await;
    pipe.hold();
    skirmish_tests::eventually("the loss of the link", async || !asker.registry.status().connected).await;
    pipe.open();
    let mut writer = Asker::new(&options(vec![etcd.url()]));
    writer.done(Request::Put(Put::new("a", "", None))).await.unwrap();
    assert_eq!(asker.changes().await.len(), 1);
    let none = timeout(Duration::from_millis(100), asker.news()).await;
    assert!(none.is_err(), "{none:?}");
}
