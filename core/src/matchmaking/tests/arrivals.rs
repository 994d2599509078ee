//! Fairness while other tickets arrive and leave, and where a search sees only a small part of the
//! queue.

use proptest::prelude::*;

use super::fairness::{late, round};
use super::world::{Draft, draft};
use super::*;

const NOW: Instant = Instant::from_micros(300_000_000);

/// Returns a ticket that is so old that all its bounds are at their maximum.
fn old(leader: &str, rating: i32) -> Ticket {
    ticket(leader, rating, secs(10))
}

fn with(mut ticket: Ticket, own: i64, wanted: Option<i64>) -> Ticket {
    ticket.traits.attributes = vec![(name("x"), Value::Number(own))];
    let test = |wanted| Test::Is(Value::Number(wanted));
    let condition = |wanted| Condition { attribute: name("x"), test: test(wanted) };
    ticket.traits.conditions = wanted.into_iter().map(condition).collect();
    ticket
}

/// Returns three tickets that can play with each other, and with no other ticket. The oldest is
/// `a`. The searches of the other two see only tickets that accept them and that they accept.
fn trio(distance: i32, candidates: u16) -> Vec<Ticket> {
    let a = Ticket { queued: secs(9), ..with(old("a", 1500), 1, None) };
    let mut all = vec![a];
    for (n, side) in [(21, 1), (22, -1)] {
        all.push(with(old(&format!("b{n}"), 1500 + side * distance), n, None));
        let admirer = |k| {
            let rating = 1500 + side * (distance + 1 + i32::from(k));
            with(old(&format!("b{n}-{k}"), rating), 5, Some(n))
        };
        all.extend((0..candidates).map(admirer));
    }
    all
}

/// Returns a ticket that accepts only `a`, and that `a` accepts.
fn suitor(number: usize, offset: i32) -> Ticket {
    with(old(&format!("s{number}"), 1500 + offset), 3, Some(1))
}

/// Returns a ticket with a condition that no other ticket meets.
fn stranger(number: usize, offset: i32) -> Ticket {
    with(old(&format!("x{number}"), 1500 + offset), 4, Some(99))
}

/// Counts the rounds until a ticket of the trio is matched, up to `most`.
fn rounds_until_matched(engine: &mut Engine, most: u64, mut change: impl FnMut(&mut Engine, Instant)) -> u64 {
    let mut now = NOW;
    for passed in 0..most {
        round(engine, now);
        if ["a", "b21", "b22"].iter().any(|leader| engine.ticket(&name(leader)).is_none()) {
            return passed;
        }
        now = now + engine.config().interval;
        change(engine, now);
    }
    most
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// The bound on rounds holds while other tickets arrive and leave: strangers anywhere in the
    /// window, and suitors that take places among the candidates of the oldest ticket and are never
    /// matched.
    #[test]
    fn a_search_that_is_cut_comes_to_its_end_while_others_come_and_go(
        distance in 60..100_i32,
        strangers in proptest::collection::vec(-100..100_i32, 20..60),
        extra in 1..6_u16,
        slack in 1..10_u32,
        pace in 0..20_i32,
        seed in any::<u64>(),
    ) {
        let mut config = config(3, 1);
        config.time_out = Duration::from_secs(10_000);
        let candidates = 3 + extra;
        // The candidates have place for the trio.
        let suitors = usize::from(candidates) - 2;
        let changing = 3;
        // A round has two looks at most at each arriving ticket, fewer than a search may have.
        let arriving = 2 * u32::try_from(suitors + changing).unwrap();
        config.work = WorkLimits { step: 1, search: 1 + arriving + slack, candidates };
        let mut crowd: Vec<Ticket> =
            strangers.iter().zip(0..).map(|(offset, n)| stranger(n, *offset)).collect();
        crowd.extend(trio(distance, candidates));
        let mut engine = engine(config, &crowd);
        // Looks that pass all tickets, including those that arrive meanwhile, and that try all
        // pairs of candidates for each lowest rating.
        let kept = u32::from(candidates);
        let looks = 2 * u32::try_from(crowd.len()).unwrap() + arriving + kept * kept * (kept + 2);
        let bound = 2 * u64::from(looks / slack + 1);
        let (mut number, mut draw, mut far, mut there) = (strangers.len(), seed, 0, Vec::new());
        let waited = rounds_until_matched(&mut engine, bound, |engine, now| {
            let mut within = |most: u64| {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                i32::try_from((draw >> 33) % most).unwrap()
            };
            // Suitors arrive ever further away as the search proceeds, or anywhere.
            far = (far + pace) % 55;
            for leader in there.drain(..) {
                engine.remove(&leader);
            }
            for kind in 0..suitors + changing {
                number += 1;
                let side = 2 * within(2) - 1;
                let ticket = if kind < suitors {
                    suitor(number, side * if pace == 0 { within(55) } else { far + within(3) })
                } else {
                    stranger(number, side * within(100))
                };
                there.push(ticket.leader.clone());
                engine.insert(now, ticket).unwrap();
            }
        });
        prop_assert!(waited < bound, "all three wait after {bound} rounds");
    }
}

/// Tickets that a search has gathered, and that have left since, take no place from waiting
/// tickets.
#[test]
fn who_has_gone_is_no_candidate() {
    let mut config = config(3, 1);
    config.time_out = Duration::from_secs(10_000);
    config.work = WorkLimits { step: 1, search: 4, candidates: 3 };
    // A round looks at two of these; one of them is always the suitor.
    let mut tickets = trio(60, 3);
    tickets.extend([stranger(1, 11), stranger(2, 21)]);
    tickets.push(suitor(0, 10));
    let mut engine = engine(config, &tickets);
    let mut number = 0;
    let waited = rounds_until_matched(&mut engine, 40, |engine, now| {
        engine.remove(&name(&format!("s{number}"))).unwrap();
        number += 1;
        engine.insert(now, suitor(number, [10, 20, 30][number % 3])).unwrap();
    });
    assert!(waited < 40, "all three wait for ever");
}

/// Returns the candidates in a region of a search around one of these tickets.
fn within_reach(
    config: &QueueConfig,
    now: Instant,
    region: &Name,
    all: &[Ticket],
    with: usize,
) -> Vec<Ticket> {
    let anchor = &all[with];
    let mut near: Vec<&Ticket> =
        all.iter().filter(|other| brute::pair(config, now, region, anchor, other)).collect();
    // First upwards, there by age and name; then downwards, in the reverse order.
    near.sort_by(|one, other| {
        let side = |ticket: &Ticket| (ticket.rating.abs_diff(anchor.rating), ticket.rating < anchor.rating);
        let age = |ticket: &Ticket| (ticket.queued, ticket.leader.clone());
        let order = age(one).cmp(&age(other));
        let order = if side(one).1 { order.reverse() } else { order };
        side(one).cmp(&side(other)).then(order)
    });
    let mut kept = vec![anchor.clone()];
    for size in 1..=usize::from(config.team_size) {
        let of_size = near.iter().filter(|ticket| ticket.size() == size);
        kept.extend(of_size.take(config.work.candidates.into()).map(|ticket| (*ticket).clone()));
    }
    kept
}

/// Returns the oldest ticket that has a legal match within its reach.
fn oldest(engine: &Engine, now: Instant) -> Option<Name> {
    oldest_after(engine, now, None)
}

/// Returns the oldest such ticket that is later in the order than `passed`.
fn oldest_after(engine: &Engine, now: Instant, passed: Option<&Ticket>) -> Option<Name> {
    let order = |ticket: &Ticket| (ticket.queued, ticket.leader.clone());
    let all: Vec<Ticket> = engine.tickets().cloned().collect();
    let config = engine.config();
    let has_match = |with: &usize| {
        config.regions.iter().any(|region| {
            let only = QueueConfig { regions: vec![region.clone()], ..config.clone() };
            brute::exists(&only, now, &within_reach(config, now, region, &all, *with), 0)
        })
    };
    let is_to_come = |with: &usize| passed.is_none_or(|passed| order(&all[*with]) > order(passed));
    (0..all.len()).filter(is_to_come).find(has_match).map(|with| all[with].leader.clone())
}

/// A shape, and more tickets than the candidates of a search.
fn crowd() -> impl Strategy<Value = (QueueConfig, Vec<Ticket>)> {
    let shapes = prop_oneof![Just((2, 1)), Just((3, 1)), Just((2, 2))];
    shapes.prop_flat_map(|(teams, team_size)| {
        let drafts = proptest::collection::vec((draft(usize::from(team_size)), 0..30_u64), 10..24);
        (drafts, 0..950_u16, 0..2_u16).prop_map(move |(drafts, floor, extra): (Vec<(Draft, u64)>, _, _)| {
            let mut config = config(teams, team_size);
            config.quality.floor = floor;
            config.time_out = Duration::from_secs(10_000);
            config.work.candidates = u16::try_from(config.players()).unwrap() + extra;
            (config, drafts.iter().zip(0..).map(|((d, waited), n)| late(d, n, *waited)).collect())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The fairness rules hold where a search does not see all tickets that would play with its
    /// own.
    #[test]
    fn within_its_reach_the_oldest_is_matched_first((config, tickets) in crowd(), search in 2..60_u32) {
        let mut whole = engine(config.clone(), &tickets);
        let now = secs(60);
        let mut rest = Engine::new(config.clone()).unwrap();
        for ticket in &tickets {
            rest.insert(now, ticket.clone()).unwrap();
        }
        let mut passed: Option<Ticket> = None;
        for formed in round(&mut whole, now) {
            let due = oldest_after(&rest, now, passed.as_ref());
            passed = formed.tickets().find(|ticket| Some(&ticket.leader) == due.as_ref()).cloned();
            prop_assert!(passed.is_some(), "{due:?} is passed over by {:?}", leaders(&formed));
            for ticket in formed.tickets() {
                rest.remove(&ticket.leader);
            }
        }
        prop_assert_eq!(whole.stats().cut, 0);
        // No ticket can be matched when the engine rests, even if searches are cut.
        let work = WorkLimits { search, ..config.work };
        let mut cut = engine(QueueConfig { work, ..config }, &tickets);
        for engine in [&mut whole, &mut cut] {
            let end = secs(5_000);
            run(engine, now, end);
            prop_assert_eq!(oldest(engine, end), None);
        }
    }
}
