//! Measures the cost of the matching engine as its queue grows. Prints a line of CSV for each size,
//! each measured in its own process. `matchmaking [TICKETS...]`.
//!
//! Matches are 5 against 5. Half of the parties are single players, a quarter are pairs, 15 % have
//! three players and 10 % five. Ratings have mean 1500 and deviation 300. Each party can play in
//! four of eight regions. Every tenth party requires that the others speak its language, one of
//! two. Times are of one core.
#![allow(clippy::print_stdout, reason = "the CSV is the result")]
#![allow(clippy::disallowed_methods, reason = "this measures time")]

use std::error::Error;
use std::process::Command;
use std::time::Instant as Clock;
use std::{env, fs};

use skirmish_core::id::Name;
use skirmish_core::matchmaking::{Condition, Engine, QueueConfig, QueueOutput, Test, Ticket, Traits, Value};
use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant};

const REGIONS: usize = 8;
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// Names of the columns; times are in nanoseconds, but those of steps in microseconds.
const HEADER: &str = "waiting,insert_ns,matched_per_s,ns_per_matched,looks_per_matched,step_us,step_us_p99,\
step_us_max,hopeless_search_ns,bytes_per_ticket";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, size] = arguments.as_slice()
        && flag == "--row"
    {
        println!("{}", row(size.parse()?)?);
        return Ok(());
    }
    println!("{HEADER}");
    let sizes = if arguments.is_empty() { SIZES.map(|size| size.to_string()).to_vec() } else { arguments };
    for size in sizes {
        let row = Command::new(env::current_exe()?).args(["--row", &size]).output()?;
        if !row.status.success() {
            return Err(String::from_utf8_lossy(&row.stderr).into());
        }
        print!("{}", String::from_utf8_lossy(&row.stdout));
    }
    Ok(())
}

fn row(waiting: usize) -> Outcome<String> {
    let mut source = Source::new()?;
    let resident = resident_bytes();
    let mut engine = Engine::new(config(waiting, &source))?;
    let begun = Clock::now();
    let mut making = Duration::ZERO;
    for _ in 0..waiting {
        let made = Clock::now();
        let ticket = source.ticket(Instant::ZERO)?;
        making += made.elapsed();
        engine.insert(Instant::ZERO, ticket)?;
    }
    let insert_ns = (begun.elapsed() - making).as_nanos() / waiting as u128;
    let bytes = resident_bytes().saturating_sub(resident) / waiting;

    let Steady { matched, elapsed, mut steps } = steady(&mut engine, &mut source, waiting)?;
    let looks = engine.stats().looks / matched;
    steps.sort_unstable();
    let micros = |nanos: u128| nanos / 1000;
    let mean = steps.iter().sum::<u128>() / steps.len() as u128;
    let p99 = steps[steps.len() * 99 / 100];
    let most = steps[steps.len() - 1];
    drop(engine);

    let per_second = u128::from(matched) * 1_000_000_000 / elapsed;
    Ok(format!(
        "{waiting},{insert_ns},{per_second},{},{looks},{},{},{},{},{bytes}",
        elapsed / u128::from(matched),
        micros(mean),
        micros(p99),
        micros(most),
        hopeless(waiting)?,
    ))
}

struct Steady {
    matched: u64,
    elapsed: u128,
    /// Durations of the steps, in nanoseconds.
    steps: Vec<u128>,
}

/// Replaces every matched ticket, so that the number of waiting tickets is constant. Measures the
/// engine's time: steps, outputs, and insertions.
fn steady(engine: &mut Engine, source: &mut Source, waiting: usize) -> Outcome<Steady> {
    let target = 2 * waiting.clamp(50_000, 200_000) as u64;
    let (mut now, mut matched, mut elapsed) = (Instant::ZERO, 0, 0);
    let mut steps = Vec::new();
    while matched < target {
        let due = engine.poll_timeout().ok_or("the engine rests")?;
        now = due.at.max(now + Duration::from_millis(1));
        let begun = Clock::now();
        engine.handle_timeout(now);
        let step = begun.elapsed().as_nanos();
        steps.push(step);
        let mut left = 0;
        while let Some(output) = engine.poll_output() {
            left += match output {
                QueueOutput::Match(formed) => formed.tickets().count() as u64,
                QueueOutput::Backfill(_) | QueueOutput::TimedOut(_) => 1,
            };
        }
        elapsed += step;
        matched += left;
        for _ in 0..left {
            let ticket = source.ticket(now)?;
            let begun = Clock::now();
            engine.insert(now, ticket)?;
            elapsed += begun.elapsed().as_nanos();
        }
    }
    let stats = engine.stats();
    let matched = stats.matched;
    if stats.waiting != waiting {
        return Err("the pool did not stay as large as it was".into());
    }
    Ok(Steady { matched, elapsed, steps })
}

/// Measures a search that finds nothing: parties of three never fill teams of five.
fn hopeless(waiting: usize) -> Outcome<u128> {
    let mut source = Source::new()?;
    let mut engine = Engine::new(config(waiting, &source))?;
    for _ in 0..waiting {
        let ticket = source.party(Instant::ZERO, 3)?;
        engine.insert(Instant::ZERO, ticket)?;
    }
    let begun = Clock::now();
    while engine.stats().searches < waiting as u64 {
        engine.handle_timeout(Instant::ZERO);
    }
    Ok(begun.elapsed().as_nanos() / waiting as u128)
}

fn config(waiting: usize, source: &Source) -> QueueConfig {
    let mut config = QueueConfig::new(source.mode.clone(), 2, 5, source.regions.clone());
    config.limits.tickets = waiting;
    config
}

/// Source of random tickets.
struct Source {
    rng: Rng,
    mode: Name,
    regions: Vec<Name>,
    language: Name,
    made: u64,
}

impl Source {
    fn new() -> Outcome<Self> {
        let regions = (0..REGIONS).map(|n| Name::new(&format!("region-{n}"))).collect::<Result<_, _>>()?;
        let (mode, language) = (Name::new("five")?, Name::new("language")?);
        Ok(Self { rng: Rng::new([7; 32]), mode, regions, language, made: 0 })
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.range(0..=bound - 1)
    }

    fn ticket(&mut self, queued: Instant) -> Outcome<Ticket> {
        let size = match self.below(20) {
            0..10 => 1,
            10..15 => 2,
            15..18 => 3,
            _ => 5,
        };
        self.party(queued, size)
    }

    fn party(&mut self, queued: Instant, size: u64) -> Outcome<Ticket> {
        self.made += 1;
        let made = self.made;
        let player = |n| Name::new(&format!("player-{made}-{n}"));
        // The sum of twelve uniform numbers is nearly normal.
        let sum: u64 = (0..12).map(|_| self.below(301)).sum();
        let rating = 1500 + i32::try_from(sum)? - 1800;
        let home = usize::try_from(self.below(REGIONS as u64))?;
        let mut latencies = Vec::new();
        for n in 0..4 {
            // Like a name from a request of its own, which shares no memory with other names.
            let name = Name::new(self.regions[(home + n) % REGIONS].as_str())?;
            latencies.push((name, 20 + 40 * u32::try_from(n)? + u32::try_from(self.below(30))?));
        }
        let text = Value::Text(if self.below(4) == 0 { "fr" } else { "en" }.to_owned());
        let mut traits =
            Traits { attributes: vec![(self.language.clone(), text.clone())], conditions: Vec::new() };
        if self.below(10) == 0 {
            traits.conditions.push(Condition { attribute: self.language.clone(), test: Test::Is(text) });
        }
        let others = (1..size).map(player).collect::<Result<_, _>>()?;
        let mode = self.mode.clone();
        Ok(Ticket { mode, leader: player(0)?, others, rating, latencies, traits, queued })
    }
}

/// Returns the resident memory in bytes; 0 where it is not known.
fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}
