//! Measures the rate at which etcd accepts state updates and registrations of sessions, in groups
//! and one by one, in the same run on the same etcd.
//!
//! The program starts no etcd: `registry_load --endpoints http://127.0.0.1:2379`. The requests do
//! not depend on time or chance; their keys are below `/load/`, and are not removed at the end.
//!
//! Groups and single requests alternate on one store, which grows equally for both: the cost of a
//! request depends on the size of the store, and the speed of machines varies.
//!
//! Without `--rate` each caller sends its next request after an answer (a closed loop): this shows
//! the highest rate of etcd. With `--rate` requests are sent on a schedule that does not wait for
//! etcd, and latency counts from the due time: this shows the time that a request takes.
#![allow(clippy::print_stdout, reason = "it is a program that prints a table")]

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use skirmish_core::registry::{
    Answer, CallId, Compare, Delete, LeaseId, Put, Range as Read, RegistryCommand, RegistryEvent, RegistryOp,
    Request, Span, Txn,
};
use skirmish_core::time::Instant;
use skirmish_io::clock::Clock;
use skirmish_io::config::RegistryEtcd;
use skirmish_io::registry::{NodeRegistry, etcd};
use tokio::time::sleep_until;

#[derive(Clone, Debug, Parser)]
#[command(about = "Measures etcd as the registry: group commit against single requests")]
struct Options {
    /// Members of the etcd to load.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Kinds of requests.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "update,register")]
    work: Vec<Work>,
    /// Requests in flight at any time; with `--rate`, the number of rooms that the requests belong
    /// to. One run for each value.
    #[arg(long, value_delimiter = ',', default_value = "1024", value_parser = clap::value_parser!(u64).range(1..))]
    callers: Vec<u64>,
    /// Requests per second, evenly spaced, instead of as fast as they are answered.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
    /// Requests of each kind of run, in groups or one by one.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Parts of each kind of run, alternating with the other kinds; the rate is the median of the
    /// parts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Single requests in flight at any time. One run for each value.
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    singles: Vec<usize>,
    /// Groups in flight at any time.
    #[arg(long, default_value_t = RegistryEtcd::default().groups)]
    groups: usize,
    /// Maximum number of requests in a group.
    #[arg(long, default_value_t = RegistryEtcd::default().group_requests)]
    group_requests: usize,
    /// Nodes that register the sessions: each has one lease for all of its sessions.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    nodes: u64,
    /// Bytes of a room's state.
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
}

/// Bytes of a `SessionRecord` at the claim of a session: the session's 16 and the node's 8, with
/// their tags and a length.
const SESSION_RECORD: usize = 27;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Work {
    /// Each caller writes the state of its own room again and again.
    Update,
    /// Each request registers a session of its own, as a node does: with the lease of the node, and
    /// with a read of an earlier registration.
    Register,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    work: Work,
    callers: u64,
    group_requests: usize,
    groups: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let Options { groups, group_requests, .. } = options;
    match options.rate {
        Some(rate) => println!("{rate} a second are asked, values of {} bytes", options.value_bytes),
        None => println!("as many as are answered, values of {} bytes", options.value_bytes),
    }
    println!(
        "{:<20}{:>8}{:>8}{:>10}{:>9}{:>12}{:>12}{:>7}{:>8}",
        "", "callers", "on way", "requests", "a second", "p50", "p99", "group", "failed"
    );
    for &work in &options.work {
        let name = if matches!(work, Work::Update) { "state updates" } else { "sessions" };
        for &callers in &options.callers {
            let single = |groups: &usize| Run { work, callers, group_requests: 1, groups: *groups };
            let mut runs: Vec<Run> = options.singles.iter().map(single).collect();
            runs.push(Run { work, callers, group_requests, groups });
            let mut figures = runs.iter().map(|_| Figures::new()).collect::<Result<Vec<_>, _>>()?;
            prepare(&mut connect(&options, runs[0])?, options.nodes).await?;
            let mut first = 0;
            for _ in 0..options.rounds {
                for (run, figures) in runs.iter().zip(&mut figures) {
                    let numbers = first..first + options.requests / options.rounds;
                    first = numbers.end;
                    measure(&options, *run, numbers, figures).await?;
                }
            }
            for (run, figures) in runs.iter().zip(&figures) {
                let how = if run.group_requests == 1 { "single" } else { "grouped" };
                figures.print(&format!("{name}, {how}"), run);
            }
            if let [singles @ .., grouped] = figures.as_slice() {
                for (single, on_way) in singles.iter().zip(&options.singles) {
                    println!("{:>46.1} times {on_way} on their way", grouped.rate() / single.rate());
                }
            }
        }
    }
    Ok(())
}

/// The figures of a kind of run.
struct Figures {
    /// Requests per second of each part.
    rates: Vec<f64>,
    requests: u64,
    groups: u64,
    latency: Histogram<u64>,
    failed: u64,
}

impl Figures {
    fn new() -> Result<Self, Box<dyn Error>> {
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self { rates: Vec::new(), requests: 0, groups: 0, latency, failed: 0 })
    }

    /// Returns the requests per second: the median of the parts.
    fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    }

    fn print(&self, name: &str, run: &Run) {
        let ms = |quantile| as_f64(self.latency.value_at_quantile(quantile)) / 1000.0;
        println!(
            "{name:<20}{:>8}{:>8}{:>10}{:>9.0}{:>9.2} ms{:>9.2} ms{:>7.1}{:>8}",
            run.callers,
            run.groups,
            self.requests,
            self.rate(),
            ms(0.5),
            ms(0.99),
            as_f64(self.requests) / as_f64(self.groups.max(1)),
            self.failed
        );
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures to be read")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

struct Client {
    clock: Clock,
    registry: NodeRegistry,
    next: u64,
}

impl Client {
    fn now(&self) -> Instant {
        self.clock.now().instant
    }

    fn ask(&mut self, request: Request) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        self.registry.handle(self.now(), RegistryCommand::Request { id, request });
        id
    }

    /// Returns the next answer. Cancel-safe.
    async fn told(&mut self) -> (CallId, Result<Answer, String>) {
        loop {
            self.registry.ready().await;
            if let Some(RegistryEvent::Reply { id, outcome }) = self.registry.poll_event() {
                let answer = outcome.map(|response| response.answer).map_err(|failure| failure.to_string());
                return (id, answer);
            }
        }
    }
}

/// Chooses the caller of the next request, and the time from which its latency counts.
enum Schedule {
    /// Callers that have been answered.
    Closed(Vec<u64>),
    /// A fixed number of requests per second from `start` on, the callers in turn.
    Open { rate: u64, start: Instant, callers: u64 },
}

impl Schedule {
    /// Returns the due time of request `number`; `None` if that depends on an answer.
    fn due(&self, number: u64) -> Option<Instant> {
        match self {
            Self::Closed(_) => None,
            Self::Open { rate, start, .. } => Some(*start + Duration::from_micros(number * 1_000_000 / rate)),
        }
    }

    /// Returns the caller of request `number`, if one is due now, and the time from which its
    /// latency counts.
    fn next(&mut self, number: u64, now: Instant) -> Option<(u64, Instant)> {
        let due = self.due(number);
        match self {
            Self::Closed(idle) => idle.pop().map(|caller| (caller, now)),
            Self::Open { callers, .. } => due.filter(|due| *due <= now).map(|due| (number % *callers, due)),
        }
    }

    fn answered(&mut self, caller: u64) {
        if let Self::Closed(idle) = self {
            idle.push(caller);
        }
    }
}

fn connect(options: &Options, run: Run) -> Result<Client, Box<dyn Error>> {
    let options_of_etcd = RegistryEtcd {
        endpoints: options.endpoints.clone(),
        request_timeout: Duration::from_secs(10),
        group_requests: run.group_requests,
        groups: run.groups,
        ..RegistryEtcd::default()
    };
    let clock = Clock::new();
    let registry = NodeRegistry::Remote(etcd::start(&options_of_etcd, clock.clone(), [7; 32])?);
    Ok(Client { clock, registry, next: 0 })
}

/// Sends the requests with these numbers, and adds the results to the figures.
async fn measure(
    options: &Options,
    run: Run,
    numbers: Range<u64>,
    figures: &mut Figures,
) -> Result<(), Box<dyn Error>> {
    let mut client = connect(options, run)?;
    // The connection is open once the first lease is known to exist.
    client.ask(Request::TimeToLive { id: LeaseId(1), keys: false });
    client.told().await.1?;
    let requests = numbers.end - numbers.start;
    let before = client.registry.counters();
    let mut under_way: BTreeMap<CallId, (u64, Instant)> = BTreeMap::new();
    let mut asked = 0;
    let start = client.now();
    let mut schedule = match options.rate {
        Some(rate) => Schedule::Open { rate, start, callers: run.callers },
        None => Schedule::Closed((0..run.callers).collect()),
    };
    while asked < requests || !under_way.is_empty() {
        let now = client.now();
        while asked < requests
            && let Some((caller, since)) = schedule.next(asked, now)
        {
            let id = client.ask(request(options, run.work, caller, numbers.start + asked));
            under_way.insert(id, (caller, since));
            asked += 1;
        }
        let due = schedule.due(asked).filter(|_| asked < requests);
        let due = due.map(|due| client.clock.deadline(due));
        let told = tokio::select! {
            biased;
            told = client.told() => told,
            () = sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => continue,
        };
        let (id, answer) = told;
        if let Some((caller, since)) = under_way.remove(&id) {
            let took = client.now().since(since);
            figures.latency.saturating_record(u64::try_from(took.as_micros())?);
            schedule.answered(caller);
        }
        let done = matches!(answer, Ok(Answer::Put { .. } | Answer::Txn { succeeded: true, .. }));
        figures.failed += u64::from(!done);
    }
    figures.rates.push(as_f64(requests) / client.now().since(start).as_secs_f64());
    figures.requests += requests;
    figures.groups += client.registry.counters().groups - before.groups;
    Ok(())
}

/// Removes the keys of the last run, and grants a lease to each node.
async fn prepare(client: &mut Client, nodes: u64) -> Result<(), Box<dyn Error>> {
    client.ask(Request::Delete(Delete::of(Span::prefix("/load/"))));
    client.told().await.1?;
    for node in 0..nodes {
        client.ask(Request::Revoke(LeaseId(1 + node)));
    }
    for _ in 0..nodes {
        // The first run finds no leases.
        let _ = client.told().await;
    }
    for node in 0..nodes {
        client.ask(Request::Grant { id: LeaseId(1 + node), ttl_s: 3600 });
    }
    for _ in 0..nodes {
        client.told().await.1?;
    }
    Ok(())
}

fn request(options: &Options, work: Work, caller: u64, number: u64) -> Request {
    let value = |bytes| {
        let mut value = number.to_be_bytes().to_vec();
        value.resize(bytes, b'.');
        value
    };
    match work {
        Work::Update => {
            Request::Put(Put::new(format!("/load/rooms/{caller}/state"), value(options.value_bytes), None))
        }
        Work::Register => {
            let key = format!("/load/sessions/player:{number}");
            let put = Put::new(key.clone(), value(SESSION_RECORD), Some(LeaseId(1 + caller % options.nodes)));
            let failure = vec![RegistryOp::Range(Read::of(Span::one(key.clone())))];
            let txn =
                Txn { compares: vec![Compare::absent(key)], success: vec![RegistryOp::Put(put)], failure };
            Request::Txn(txn)
        }
    }
}
