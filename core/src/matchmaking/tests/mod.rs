//! Tests of the rules, of fairness, and of invariants.

mod arrivals;
mod brute;
mod explaining;
mod fairness;
mod rules;
mod vacancies;
mod world;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use super::{
    Condition, Engine, Formed, Limits, Quality, QueueConfig, QueueOutput, Test, Ticket, Traits, Vacancy,
    Value, Widening, WorkLimits,
};
use crate::base::id::Name;
use crate::base::time::{Duration, Instant};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn secs(seconds: u64) -> Instant {
    at(seconds * 1000)
}

/// Returns a queue with round numbers. The rating window is 100, plus 10 each second, up to 500;
/// the latency cap is 50, plus 5 each second, up to 200. The quality is 0 at a spread of 1000 or a
/// difference of 500, without a floor.
fn config(teams: u8, team_size: u8) -> QueueConfig {
    let regions = vec![name("eu"), name("us")];
    QueueConfig {
        rating: Widening { start: 100, per_second: 10, most: 500 },
        latency: Widening { start: 50, per_second: 5, most: 200 },
        quality: Quality { floor: 0, worst_spread: 1000, worst_difference: 500 },
        time_out: Duration::from_secs(120),
        interval: Duration::from_millis(100),
        ..QueueConfig::new(name("mode"), teams, team_size, regions)
    }
}

/// Returns the ticket of a single player in `eu`, 20 ms away.
fn ticket(leader: &str, rating: i32, queued: Instant) -> Ticket {
    Ticket {
        mode: name("mode"),
        leader: name(leader),
        others: Vec::new(),
        rating,
        latencies: vec![(name("eu"), 20)],
        traits: Traits::default(),
        queued,
    }
}

/// Returns the ticket of a party of this size.
fn party(leader: &str, size: usize, rating: i32, queued: Instant) -> Ticket {
    let others = (1..size).map(|n| name(&format!("{leader}.{n}"))).collect();
    Ticket { others, ..ticket(leader, rating, queued) }
}

fn engine(config: QueueConfig, tickets: &[Ticket]) -> Engine {
    let now = tickets.iter().map(|ticket| ticket.queued).max().unwrap_or_default();
    let mut engine = Engine::new(config).unwrap();
    for ticket in tickets {
        engine.insert(now, ticket.clone()).unwrap();
    }
    engine
}

/// Steps until `end`, at each deadline. Returns the outputs with their times.
fn run(engine: &mut Engine, start: Instant, end: Instant) -> Vec<(Instant, QueueOutput)> {
    let (mut now, mut outputs) = (start, Vec::new());
    for _ in 0..1_000_000 {
        let Some(deadline) = engine.poll_timeout().filter(|deadline| deadline.at <= end) else {
            return outputs;
        };
        now = now.max(deadline.at);
        engine.handle_timeout(now);
        while let Some(output) = engine.poll_output() {
            outputs.push((now, output));
        }
        engine.audit().unwrap();
    }
    panic!("the engine never rests");
}

/// Returns the leaders of a match by team, with sorted teams of sorted leaders.
fn leaders(formed: &Formed) -> Vec<Vec<&str>> {
    let mut teams: Vec<Vec<&str>> = Vec::new();
    for team in &formed.teams {
        let mut team: Vec<&str> = team.iter().map(|chosen| chosen.ticket.leader.as_str()).collect();
        team.sort_unstable();
        teams.push(team);
    }
    teams.sort_unstable();
    teams
}

/// Returns the matches among outputs, with their times.
fn matches(outputs: &[(Instant, QueueOutput)]) -> Vec<(Instant, &Formed)> {
    let formed = outputs.iter().filter_map(|(at, output)| match output {
        QueueOutput::Match(formed) => Some((*at, formed)),
        QueueOutput::Backfill(_) | QueueOutput::TimedOut(_) => None,
    });
    formed.collect()
}
