//! How fast etcd takes state updates and registrations of sessions, in groups and one by
//! one, in the same run on the same etcd.
//!
//! It starts nothing: `registry_load --endpoints http://127.0.0.1:2379`. What is asked for
//! does not depend on time or chance; keys are below `/load/`, and are left there.
#![allow(clippy::print_stdout, reason = "it is a program that prints a table")]

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use clap::Parser;
use hdrhistogram::Histogram;
use skirmish_core::registry::{
    Answer, Call, CallId, Compare, Delete, LeaseId, Op, Put, Request, Span, Told, Txn,
};
use skirmish_core::time::Instant;
use skirmish_io::clock::Clock;
use skirmish_io::config::RegistryEtcd;
use skirmish_io::registry::{Registry, etcd};

#[derive(Clone, Debug, Parser)]
#[command(about = "Measures etcd as the registry: group commit against single requests")]
struct Options {
    /// Members of the etcd to load.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Requests that are under way at any time.
    #[arg(long, default_value_t = 1024)]
    callers: u64,
    /// Requests of each run in groups.
    #[arg(long, default_value_t = 300_000)]
    requests: u64,
    /// Requests of each run one by one.
    #[arg(long, default_value_t = 40_000)]
    single_requests: u64,
    /// Groups under way at any time.
    #[arg(long, default_value_t = 2)]
    groups: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 128)]
    value_bytes: usize,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Each caller writes the state of its own room again and again.
    Update,
    /// Each request registers a session of its own, with the lease of its caller.
    Register,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    println!("{} callers, values of {} bytes", options.callers, options.value_bytes);
    println!(
        "{:<30}{:>9}{:>9}{:>12}{:>12}{:>10}{:>9}",
        "", "requests", "a second", "p50", "p99", "group", "failed"
    );
    for (name, work) in [("state updates", Work::Update), ("sessions registered", Work::Register)] {
        let single = run(&options, work, false).await?;
        single.print(&format!("{name}, alone"));
        let grouped = run(&options, work, true).await?;
        grouped.print(&format!("{name}, grouped"));
        println!("{:<30}{:>17.1}x", "", grouped.per_second() / single.per_second());
    }
    Ok(())
}

/// The figures of a run.
struct Figures {
    requests: u64,
    took: Duration,
    latency: Histogram<u64>,
    group: f64,
    failed: u64,
}

impl Figures {
    fn per_second(&self) -> f64 {
        as_f64(self.requests) / self.took.as_secs_f64()
    }

    fn print(&self, name: &str) {
        let ms = |quantile| as_f64(self.latency.value_at_quantile(quantile)) / 1000.0;
        println!(
            "{name:<30}{:>9}{:>9.0}{:>9.2} ms{:>9.2} ms{:>10.1}{:>9}",
            self.requests,
            self.per_second(),
            ms(0.5),
            ms(0.99),
            self.group,
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
    registry: Registry,
    next: u64,
}

impl Client {
    fn ask(&mut self, request: Request) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        self.registry.handle(self.clock.now().instant, Call::Request { id, request });
        id
    }

    async fn told(&mut self) -> (CallId, Result<Answer, String>) {
        loop {
            self.registry.ready().await;
            if let Some(Told::Reply { id, outcome }) = self.registry.poll_told() {
                let answer = outcome.map(|response| response.answer).map_err(|failure| failure.to_string());
                return (id, answer);
            }
        }
    }
}

async fn run(options: &Options, work: Work, grouped: bool) -> Result<Figures, Box<dyn Error>> {
    let callers = options.callers.max(1);
    let options_of_etcd = RegistryEtcd {
        endpoints: options.endpoints.clone(),
        request_timeout: Duration::from_secs(10),
        group_requests: if grouped { 128 } else { 1 },
        // One by one, as many as a client of its own would have under way at once.
        groups: if grouped { options.groups } else { 64 },
        ..RegistryEtcd::default()
    };
    let clock = Clock::new();
    let registry = Registry::Remote(etcd::start(&options_of_etcd, clock.clone(), [7; 32])?);
    let mut client = Client { clock, registry, next: 0 };
    prepare(&mut client, callers).await?;

    let before = client.registry.counters();
    let total = if grouped { options.requests } else { options.single_requests };
    let mut under_way: BTreeMap<CallId, (u64, Instant)> = BTreeMap::new();
    let mut figures = Figures {
        requests: total,
        took: Duration::ZERO,
        latency: Histogram::new_with_bounds(1, 60_000_000, 3)?,
        group: 0.0,
        failed: 0,
    };
    let start = client.clock.now().instant;
    let mut asked = 0;
    let mut idle: Vec<u64> = (0..callers).collect();
    while asked < total || !under_way.is_empty() {
        while asked < total
            && let Some(caller) = idle.pop()
        {
            let id = client.ask(request(options, work, caller, asked));
            under_way.insert(id, (caller, client.clock.now().instant));
            asked += 1;
        }
        let (id, answer) = client.told().await;
        if let Some((caller, since)) = under_way.remove(&id) {
            let latency = client.clock.now().instant.since(since);
            figures.latency.saturating_record(u64::try_from(latency.as_micros())?);
            idle.push(caller);
        }
        let done = matches!(answer, Ok(Answer::Put { .. } | Answer::Txn { succeeded: true, .. }));
        figures.failed += u64::from(!done);
    }
    figures.took = client.clock.now().instant.since(start);
    let counters = client.registry.counters();
    figures.group =
        as_f64(counters.members - before.members) / as_f64((counters.groups - before.groups).max(1));
    Ok(figures)
}

/// Removes what the last run left, and grants a lease to each caller.
async fn prepare(client: &mut Client, callers: u64) -> Result<(), Box<dyn Error>> {
    client.ask(Request::Delete(Delete::of(Span::prefix("/load/"))));
    client.told().await.1?;
    for caller in 0..callers {
        client.ask(Request::Revoke(LeaseId(1 + caller)));
    }
    for _ in 0..callers {
        // The first run finds none.
        let _ = client.told().await;
    }
    for caller in 0..callers {
        client.ask(Request::Grant { id: LeaseId(1 + caller), ttl_s: 3600 });
    }
    for _ in 0..callers {
        client.told().await.1?;
    }
    Ok(())
}

fn request(options: &Options, work: Work, caller: u64, number: u64) -> Request {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(options.value_bytes, b'.');
    match work {
        Work::Update => Request::Put(Put::new(format!("/load/rooms/{caller}/state"), value, None)),
        Work::Register => {
            let key = format!("/load/sessions/player:{number}");
            let put = Put::new(key.clone(), value, Some(LeaseId(1 + caller)));
            let txn =
                Txn { compares: vec![Compare::absent(key)], success: vec![Op::Put(put)], failure: vec![] };
            Request::Txn(txn)
        }
    }
}
