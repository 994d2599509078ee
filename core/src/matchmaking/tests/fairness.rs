//! Fairness, compared with trying every combination.

use proptest::prelude::*;

use super::world::{Draft, draft};
use super::*;

/// A shape, and tickets that suit it, each with its waiting time in seconds.
fn pool() -> impl Strategy<Value = (QueueConfig, Vec<Ticket>)> {
    let shapes =
        prop_oneof![Just((2, 1)), Just((2, 2)), Just((2, 3)), Just((3, 1)), Just((3, 2)), Just((1, 3))];
    shapes.prop_flat_map(|(teams, team_size)| {
        let drafts = proptest::collection::vec((draft(usize::from(team_size)), 0..30_u64), 1..9);
        (drafts, 0..950_u16).prop_map(move |(drafts, floor)| {
            let mut config = config(teams, team_size);
            config.quality.floor = floor;
            config.time_out = Duration::from_secs(10_000);
            (config, drafts.iter().zip(0..).map(|((d, waited), n)| late(d, n, *waited)).collect())
        })
    })
}

const NOW: u64 = 60;

pub(super) fn late(draft: &Draft, number: usize, waited: u64) -> Ticket {
    draft.ticket(number, secs(NOW - waited))
}

/// Steps through the due round, at one moment.
pub(super) fn round(engine: &mut Engine, now: Instant) -> Vec<Formed> {
    let (mut formed, rounds) = (Vec::new(), engine.stats().rounds + 1);
    while engine.stats().rounds <= rounds && engine.poll_timeout().is_some_and(|deadline| deadline.at <= now)
    {
        engine.handle_timeout(now);
        while let Some(output) = engine.poll_output() {
            let QueueOutput::Match(one) = output else { panic!("there is nothing else") };
            formed.push(one);
        }
    }
    formed
}

/// Returns the oldest waiting ticket that has a legal match.
fn oldest(engine: &Engine, now: Instant) -> Option<Name> {
    let waiting: Vec<Ticket> = engine.tickets().cloned().collect();
    let found = (0..waiting.len()).find(|index| brute::exists(engine.config(), now, &waiting, *index));
    found.map(|index| waiting[index].leader.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The first and the second rule of fairness.
    #[test]
    fn every_match_holds_the_oldest_that_has_one((mut config, tickets) in pool(), step in 1..50_u32) {
        config.work.step = step;
        let mut engine = engine(config, &tickets);
        let now = secs(NOW);
        // A second engine forms one match at a time.
        let mut rest = Engine::new(engine.config().clone()).unwrap();
        for ticket in &tickets {
            rest.insert(now, ticket.clone()).unwrap();
        }
        for formed in round(&mut engine, now) {
            let due = oldest(&rest, now);
            prop_assert!(due.is_some(), "brute force finds it too");
            let holds = formed.tickets().any(|ticket| Some(&ticket.leader) == due.as_ref());
            prop_assert!(holds, "{due:?} is passed over by {:?}", leaders(&formed));
            for ticket in formed.tickets() {
                rest.remove(&ticket.leader);
            }
        }
        prop_assert_eq!(oldest(&engine, now), None, "somebody could still be matched");
        prop_assert_eq!(engine.stats().cut, 0);
    }

    /// The bound on rounds, if searches are cut: of a set that has a legal match all the time, some
    /// ticket is matched.
    #[test]
    fn a_search_that_is_cut_comes_to_its_end((mut config, tickets) in pool(), search in 2..12_u32) {
        // All bounds are at their maximum, so a legal match stays legal.
        let now = secs(NOW + 200);
        config.work.step = 1;
        let mut whole = engine(config.clone(), &tickets);
        let mut looks = 0;
        let set = loop {
            let before = whole.stats();
            whole.handle_timeout(now);
            if let Some(QueueOutput::Match(formed)) = whole.poll_output() {
                looks = looks.max(whole.stats().looks - before.looks);
                break formed.tickets().map(|ticket| ticket.leader.clone()).collect::<Vec<_>>();
            }
            if whole.poll_timeout().is_none_or(|deadline| deadline.at > now) {
                break Vec::new();
            }
        };
        config.work.search = search;
        let mut cut = engine(config, &tickets);
        let mut now = now;
        for _ in 0..=looks / u64::from(search - 1) {
            round(&mut cut, now);
            now = now + cut.config().interval;
        }
        let still = set.iter().filter(|leader| cut.ticket(leader).is_some()).count();
        prop_assert!(set.is_empty() || still < set.len(), "{set:?} all still wait after {looks} looks");
    }

    /// After any events, no ticket can be matched when the engine rests.
    #[test]
    fn when_the_engine_rests_nothing_can_be_matched(
        (mut config, tickets) in pool(), search in 2..40_u32, gaps in proptest::collection::vec(0..9_000_u64, 9),
    ) {
        let mut now = at(0);
        config.work.search = search;
        let mut engine = Engine::new(config).unwrap();
        for (ticket, gap) in tickets.iter().zip(gaps) {
            run(&mut engine, now, now + Duration::from_millis(gap));
            now = now + Duration::from_millis(gap);
            engine.insert(now, Ticket { queued: now, ..ticket.clone() }).unwrap();
        }
        let end = secs(5_000);
        run(&mut engine, now, end);
        let rests = engine.poll_timeout();
        prop_assert!(rests.is_none_or(|deadline| deadline.reason == "the oldest ticket times out"));
        prop_assert_eq!(oldest(&engine, end), None);
        let ended = engine.stats().rounds;
        engine.handle_timeout(end);
        prop_assert_eq!(engine.stats().rounds, ended, "a spurious call does nothing");
    }
}

#[test]
fn the_oldest_gets_whom_a_younger_one_would_like_better() {
    let tickets = [ticket("old", 1500, at(0)), ticket("young", 1590, at(1)), ticket("between", 1580, at(2))];
    let mut engine = engine(config(2, 1), &tickets);
    let formed = round(&mut engine, at(2));
    assert_eq!(leaders(&formed[0]), [["between"], ["old"]]);
}

#[test]
fn those_who_find_nobody_hold_up_nobody() {
    // Thirty tickets that are never matched, older than two that suit each other, and little work
    // in each step.
    let mut tickets: Vec<Ticket> =
        (0..30).map(|n| ticket(&format!("odd{n}"), 9_000 + 600 * n, at(0))).collect();
    tickets.extend([ticket("a", 1500, at(1)), ticket("b", 1500, at(1))]);
    let mut config = config(2, 1);
    (config.work.step, config.work.search) = (1, 20);
    let mut engine = engine(config, &tickets);
    let mut steps = 0;
    while engine.stats().matches == 0 && steps < 1_000 {
        engine.handle_timeout(at(1));
        steps += 1;
    }
    assert!(steps <= tickets.len(), "a round has as many steps as tickets: {steps}");
}

#[test]
fn the_only_two_who_suit_find_each_other_in_a_crowd() {
    // A crowd that suits neither lies between the two, and a search has few looks in a round.
    let wants = |mut ticket: Ticket, own: i64, wanted: i64| {
        ticket.traits.attributes = vec![(name("x"), Value::Number(own))];
        let test = Test::Is(Value::Number(wanted));
        ticket.traits.conditions = vec![Condition { attribute: name("x"), test }];
        ticket
    };
    let mut tickets: Vec<Ticket> =
        (0..300).map(|n| wants(ticket(&format!("c{n}"), 1500 + n % 50, at(1)), 0, 99)).collect();
    tickets.push(wants(ticket("a", 1500, at(0)), 1, 2));
    tickets.push(wants(ticket("b", 1560, at(2)), 2, 1));
    let mut config = config(2, 1);
    config.work.search = 50;
    let mut engine = engine(config, &tickets);
    let outputs = run(&mut engine, at(2), secs(3));
    assert_eq!(
        matches(&outputs).iter().map(|(_, formed)| leaders(formed)).collect::<Vec<_>>(),
        [[["a"], ["b"]]]
    );
    assert!(engine.stats().cut > 0);
}
