//! Random events in any order: every output is legal, no ticket is lost or answered twice, and
//! neither chance nor the order of arrivals changes the outputs.

use alloc::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::matchmaking::Stats;

/// Short form of a ticket.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) size: usize,
    pub(super) rating: i32,
    pub(super) eu: u32,
    pub(super) us: Option<u32>,
    pub(super) language: u8,
    pub(super) choosy: u8,
}

impl Draft {
    pub(super) fn ticket(&self, number: usize, queued: Instant) -> Ticket {
        let mut ticket = party(&format!("p{number}"), self.size, self.rating, queued);
        ticket.latencies = vec![(name("eu"), self.eu)];
        ticket.latencies.extend(self.us.map(|latency| (name("us"), latency)));
        let value = |n: u8| Value::Number(n.into());
        ticket.traits.attributes = vec![(name("language"), value(self.language))];
        let own = self.language;
        let test = match self.choosy {
            0 => Test::Is(value(own)),
            1 => Test::OneOf(vec![value(0), value(own)]),
            2 => Test::Between(0, 1),
            _ => return ticket,
        };
        ticket.traits.conditions = vec![Condition { attribute: name("language"), test }];
        ticket
    }
}

/// Tickets that are near enough to each other to be matched, but not always.
pub(super) fn draft(team_size: usize) -> impl Strategy<Value = Draft> {
    let sizes = 1..=team_size;
    (sizes, 0..12_i32, 0..3_u32, proptest::option::of(0..4_u32), 0..3_u8, 0..12_u8).prop_map(
        |(size, rating, eu, us, language, choosy)| Draft {
            size,
            rating: 1500 + 40 * rating,
            eu: 20 + 40 * eu,
            us: us.map(|latency| 20 + 60 * latency),
            language,
            choosy,
        },
    )
}

/// A random event.
#[derive(Clone, Debug)]
enum Event {
    /// Tickets arrive, some of them late: this long after they were queued.
    Come(Vec<(Draft, u64)>),
    Cancel(prop::sample::Index),
    Offer(u8, u8, Draft),
    Withdraw(u8),
    /// The matches of the next step are not committed.
    Undo,
    Pass(u64),
}

fn event(team_size: usize) -> impl Strategy<Value = Event> {
    let come = proptest::collection::vec((draft(team_size), prop_oneof![Just(0), 0..3_000_u64]), 1..6);
    let places = 1..=u8::try_from(team_size).unwrap();
    prop_oneof![
        6 => come.prop_map(Event::Come),
        1 => any::<prop::sample::Index>().prop_map(Event::Cancel),
        1 => (0..3_u8, places, draft(team_size)).prop_map(|(room, places, d)| Event::Offer(room, places, d)),
        1 => (0..3_u8).prop_map(Event::Withdraw),
        1 => Just(Event::Undo),
        6 => prop_oneof![0..200_u64, 0..20_000_u64].prop_map(Event::Pass),
    ]
}

/// The shape of a queue.
fn shape() -> impl Strategy<Value = QueueConfig> {
    let shapes =
        prop_oneof![Just((2, 1)), Just((2, 2)), Just((2, 3)), Just((2, 5)), Just((3, 2)), Just((6, 1))];
    (shapes, 0..900_u16, 2..200_u32, 1..100_u32).prop_map(|((teams, team_size), floor, search, step)| {
        let mut config = config(teams, team_size);
        config.quality.floor = floor;
        config.work = WorkLimits { step, search, candidates: 16 };
        config.time_out = Duration::from_secs(60);
        config.limits = Limits { tickets: 40, reserve: 10, vacancies: 2, ..config.limits };
        config
    })
}

/// Result of a run.
type Run = (Vec<(Instant, QueueOutput)>, Stats);

/// Executes the events; tickets that arrive together arrive in the order that `arrange` makes.
fn play(config: &QueueConfig, events: &[Event], arrange: fn(&mut Vec<Ticket>)) -> Result<Run, TestCaseError> {
    let mut engine = Engine::new(config.clone()).unwrap();
    let (mut now, mut number, mut undo, mut all) = (secs(10), 0, false, Vec::new());
    let mut waiting: BTreeMap<Name, Ticket> = BTreeMap::new();
    for event in events {
        match event {
            Event::Come(drafts) => {
                let queued = |late: u64| Instant::from_micros(now.as_micros() - late * 1000);
                let mut come: Vec<Ticket> =
                    drafts.iter().zip(number..).map(|((d, late), n)| d.ticket(n, queued(*late))).collect();
                number += drafts.len();
                // Inserts all or none, so that the order does not matter at the cap.
                if engine.stats().waiting + come.len() > config.limits.tickets {
                    continue;
                }
                arrange(&mut come);
                for ticket in come {
                    engine.insert(now, ticket.clone()).unwrap();
                    waiting.insert(ticket.leader.clone(), ticket);
                }
            }
            Event::Cancel(index) => {
                if !waiting.is_empty() {
                    let leader = waiting.keys().nth(index.index(waiting.len())).unwrap().clone();
                    prop_assert_eq!(engine.remove(&leader), waiting.remove(&leader));
                }
            }
            Event::Offer(room, places, draft) => {
                // A room that has an offer already may always replace it.
                let _ = engine.offer_vacancy(now, vacancy(*room, *places, draft, now));
            }
            Event::Withdraw(room) => drop(engine.withdraw_vacancy(&name(&format!("room{room}")))),
            Event::Undo => undo = true,
            Event::Pass(ms) => {
                let end = now + Duration::from_millis(*ms);
                let outputs = run_checked(&mut engine, &mut waiting, now, end)?;
                now = end;
                for (_, output) in &outputs {
                    if let (QueueOutput::Match(formed), true) = (output, undo) {
                        for ticket in formed.tickets() {
                            if engine.restore(now, ticket.clone()).is_ok() {
                                waiting.insert(ticket.leader.clone(), ticket.clone());
                            }
                        }
                    }
                }
                undo = undo && outputs.is_empty();
                all.extend(outputs);
            }
        }
        engine.audit().map_err(TestCaseError::fail)?;
        let left: Vec<Name> = waiting.keys().cloned().collect();
        let mut left_in_engine: Vec<Name> = engine.tickets().map(|ticket| ticket.leader.clone()).collect();
        left_in_engine.sort_unstable();
        prop_assert_eq!(left, left_in_engine);
    }
    Ok((all, engine.stats()))
}

fn vacancy(room: u8, places: u8, draft: &Draft, offered: Instant) -> Vacancy {
    let Ticket { rating, traits, .. } = draft.ticket(0, offered);
    let room = name(&format!("room{room}"));
    Vacancy { room, team: 0, places, rating, region: name("eu"), traits, offered, barred: Vec::new() }
}

/// Steps until `end`, and checks every output.
fn run_checked(
    engine: &mut Engine,
    waiting: &mut BTreeMap<Name, Ticket>,
    start: Instant,
    end: Instant,
) -> Result<Vec<(Instant, QueueOutput)>, TestCaseError> {
    let outputs = run(engine, start, end);
    for (at, output) in &outputs {
        let answered: Vec<&Ticket> = match output {
            QueueOutput::Match(formed) => {
                let teams = formed.teams.iter().map(|t| t.iter().map(|c| &c.ticket).collect());
                let teams: Vec<Vec<&Ticket>> = teams.collect();
                let quality = brute::legal(engine.config(), *at, &formed.region, &teams);
                prop_assert_eq!(quality, Ok(formed.quality));
                binding_is_tight(engine.config(), formed)?;
                formed.tickets().collect()
            }
            QueueOutput::Backfill(filled) => {
                let ticket = &filled.chosen.ticket;
                prop_assert_eq!(brute::legal_backfill(engine.config(), *at, &filled.vacancy, ticket), Ok(()));
                vec![ticket]
            }
            QueueOutput::TimedOut(leader) => {
                let ticket = waiting.remove(leader);
                let due = ticket.map(|ticket| ticket.queued + engine.config().time_out);
                prop_assert_eq!(due.map(|due| due.max(start)), Some(*at), "neither early nor late");
                continue;
            }
        };
        for ticket in answered {
            let waited = waiting.remove(&ticket.leader);
            prop_assert_eq!(waited.as_ref(), Some(ticket), "once, and unchanged");
        }
    }
    Ok(outputs)
}

/// Checks that the match was legal from the time that the binding names, and not before.
fn binding_is_tight(config: &QueueConfig, formed: &Formed) -> Result<(), TestCaseError> {
    let teams = formed.teams.iter().map(|t| t.iter().map(|c| &c.ticket).collect());
    let teams: Vec<Vec<&Ticket>> = teams.collect();
    let since = formed.binding.since;
    prop_assert!(brute::legal(config, since, &formed.region, &teams).is_ok());
    let before = Instant::from_micros(since.as_micros() - 1);
    let arrived = formed.tickets().all(|ticket| ticket.queued <= before);
    prop_assert!(!arrived || brute::legal(config, before, &formed.region, &teams).is_err());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn all_that_comes_out_is_legal_and_nothing_is_lost(
        config in shape(), events in proptest::collection::vec(event(2), 1..40),
    ) {
        let events: Vec<Event> = events.into_iter().filter(|event| fits(&config, event)).collect();
        let run = play(&config, &events, |_| {})?;
        prop_assert_eq!(&run, &play(&config, &events, |_| {})?, "the same again");
        let reversed = play(&config, &events, |tickets| tickets.reverse())?;
        prop_assert_eq!(&run, &reversed, "in another order");
        let players: Vec<&Name> = run.0.iter().filter_map(|(_, output)| match output {
            QueueOutput::TimedOut(leader) => Some(leader),
            QueueOutput::Match(_) | QueueOutput::Backfill(_) => None,
        }).collect();
        prop_assert_eq!(players.iter().collect::<BTreeSet<_>>().len(), players.len());
    }
}

/// Returns true if the events suit the queue: parties of two cannot queue for single players.
fn fits(config: &QueueConfig, event: &Event) -> bool {
    let size = usize::from(config.team_size);
    match event {
        Event::Come(drafts) => drafts.iter().all(|(draft, _)| draft.size <= size),
        Event::Offer(_, places, _) => usize::from(*places) <= size,
        Event::Cancel(_) | Event::Withdraw(_) | Event::Undo | Event::Pass(_) => true,
    }
}
