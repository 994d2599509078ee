//! Each rule by itself.

use super::*;
use crate::matchmaking::{Binding, Rule, TicketRefusal, Used};

fn only(outputs: &[(Instant, QueueOutput)]) -> (Instant, &Formed) {
    let matches = matches(outputs);
    assert_eq!(matches.len(), 1, "{outputs:?}");
    matches[0]
}

#[test]
fn alike_tickets_are_matched_at_once() {
    let mut engine = engine(config(2, 1), &[ticket("a", 1500, at(0)), ticket("b", 1600, at(0))]);
    let outputs = run(&mut engine, at(0), secs(1));
    let (when, formed) = only(&outputs);
    assert_eq!((when, leaders(formed), formed.quality), (at(0), vec![vec!["a"], vec!["b"]], 800));
    assert_eq!(formed.region, name("eu"));
    assert_eq!(engine.stats().waiting, 0);
    assert_eq!(engine.poll_timeout(), None);
}

#[test]
fn the_narrower_rating_window_counts_and_widens_with_the_own_wait() {
    // The ratings are 150 apart: each ticket must have waited for 5 seconds.
    let mut engine = engine(config(2, 1), &[ticket("a", 1500, at(0)), ticket("b", 1650, secs(20))]);
    let outputs = run(&mut engine, secs(20), secs(60));
    let (when, formed) = only(&outputs);
    assert_eq!(when, secs(25), "b's window is what counts");
    assert_eq!(formed.binding, Binding { since: secs(25), rule: Rule::Rating(name("b")) });
    let used: Vec<Used> = formed.teams.iter().flatten().map(|chosen| chosen.rating).collect();
    assert_eq!(used, [Used { needed: 150, allowed: 350 }, Used { needed: 150, allowed: 150 }]);
}

#[test]
fn a_window_does_not_widen_for_ever() {
    let mut engine = engine(config(2, 1), &[ticket("a", 1000, at(0)), ticket("b", 1501, at(0))]);
    let outputs = run(&mut engine, at(0), secs(119));
    assert_eq!(outputs, []);
    assert_eq!(engine.poll_timeout().unwrap().reason, "the oldest ticket times out");
}

#[test]
fn the_latency_cap_widens() {
    let mut far = ticket("far", 1500, at(0));
    far.latencies = vec![(name("us"), 150), (name("eu"), 90)];
    let mut engine = engine(config(2, 1), &[far, ticket("near", 1500, at(0))]);
    let outputs = run(&mut engine, at(0), secs(60));
    let (when, formed) = only(&outputs);
    assert_eq!((when, formed.region.as_str()), (secs(8), "eu"));
    assert_eq!(formed.binding, Binding { since: secs(8), rule: Rule::Latency(name("far")) });
    let far = formed.teams.iter().flatten().find(|chosen| chosen.ticket.leader == name("far")).unwrap();
    assert_eq!(far.latency, Used { needed: 90, allowed: 90 });
}

#[test]
fn the_region_is_the_nearest_of_the_oldest_that_all_reach() {
    let reach =
        |ticket: Ticket, eu, us| Ticket { latencies: vec![(name("eu"), eu), (name("us"), us)], ..ticket };
    let a = reach(ticket("a", 1500, at(0)), 40, 10);
    let b = reach(ticket("b", 1500, at(0)), 10, 120);
    let mut queue = engine(config(2, 1), &[a.clone(), b]);
    assert_eq!(only(&run(&mut queue, at(0), secs(1))).1.region, name("eu"), "us is out of b's reach");
    let c = reach(ticket("c", 1500, at(0)), 10, 50);
    let mut queue = engine(config(2, 1), &[a, c]);
    assert_eq!(only(&run(&mut queue, at(0), secs(1))).1.region, name("us"), "a is first, by name");
}

#[test]
fn conditions_must_be_met_both_ways() {
    let speaks = |ticket: Ticket, language: &str| {
        let attributes = vec![(name("language"), Value::Text(language.to_string()))];
        Ticket { traits: Traits { attributes, ..ticket.traits }, ..ticket }
    };
    let wants = |mut ticket: Ticket, test: Test| {
        ticket.traits.conditions.push(Condition { attribute: name("language"), test });
        ticket
    };
    let french = || Value::Text("fr".to_string());
    let a = || wants(speaks(ticket("a", 1500, at(0)), "en"), Test::Is(french()));
    let b = speaks(ticket("b", 1500, at(0)), "fr");
    let matches = |one: Ticket, other: Ticket| {
        let mut engine = engine(config(2, 1), &[one, other]);
        matches(&run(&mut engine, at(0), secs(60))).len()
    };
    assert_eq!(matches(a(), b.clone()), 1);
    assert_eq!(matches(a(), speaks(b.clone(), "de")), 0);
    assert_eq!(matches(a(), ticket("b", 1500, at(0))), 0, "no attribute is no match");
    assert_eq!(matches(a(), wants(b.clone(), Test::Is(french()))), 0, "b wants what a is not");
    let both = Test::OneOf(vec![french(), Value::Text("en".to_string())]);
    assert_eq!(matches(a(), wants(b.clone(), both)), 1);
    assert_eq!(matches(a(), wants(b, Test::Between(0, 9))), 0, "a text is in no range");
}

#[test]
fn conditions_hold_among_those_who_are_picked() {
    // Both accept the old ticket, but not each other.
    let number = |leader: &str, own: i64, wanted: (i64, i64)| {
        let mut ticket = ticket(leader, 1500, at(1));
        ticket.traits.attributes = vec![(name("n"), Value::Number(own))];
        let test = Test::Between(wanted.0, wanted.1);
        ticket.traits.conditions = vec![Condition { attribute: name("n"), test }];
        ticket
    };
    let mut old = ticket("old", 1500, at(0));
    old.traits.attributes = vec![(name("n"), Value::Number(5))];
    let tickets = [old, number("low", 1, (0, 5)), number("high", 9, (5, 9)), number("high2", 8, (5, 9))];
    let mut engine = engine(config(3, 1), &tickets);
    let outputs = run(&mut engine, at(1), secs(1));
    assert_eq!(leaders(only(&outputs).1), [["high"], ["high2"], ["old"]]);
}

#[test]
fn a_party_stays_together_and_teams_are_full() {
    let tickets = [
        party("three", 3, 1500, at(0)),
        party("trio", 3, 1500, at(1)),
        party("pair", 2, 1500, at(2)),
        ticket("one", 1500, at(3)),
        party("four", 4, 1500, at(4)),
    ];
    let mut engine = engine(config(2, 5), &tickets);
    let outputs = run(&mut engine, at(4), secs(1));
    assert_eq!(leaders(only(&outputs).1), [vec!["four", "one"], vec!["pair", "three"]]);
    assert_eq!(engine.ticket(&name("trio")).map(Ticket::size), Some(3));
}

#[test]
fn a_free_for_all_and_a_team_against_the_machine() {
    let single = |n: u32| ticket(&format!("p{n}"), 1500, at(0));
    let mut all = engine(config(10, 1), &(0..10).map(single).collect::<Vec<_>>());
    assert_eq!(only(&run(&mut all, at(0), secs(1))).1.teams.len(), 10);
    let mut alone = engine(config(1, 3), &[party("a", 3, 1500, at(0))]);
    assert_eq!(leaders(only(&run(&mut alone, at(0), secs(1))).1), [["a"]]);
    let mut together = engine(config(1, 3), &[party("a", 2, 1500, at(0)), ticket("b", 1500, at(0))]);
    assert_eq!(leaders(only(&run(&mut together, at(0), secs(1))).1), [["a", "b"]]);
}

#[test]
fn the_floor_of_quality_never_widens() {
    let floor = |floor| QueueConfig { quality: Quality { floor, ..config(2, 1).quality }, ..config(2, 1) };
    // A difference of 200 points has the quality 600.
    let tickets = [ticket("a", 1500, at(0)), ticket("b", 1700, at(0))];
    let mut good = engine(floor(600), &tickets);
    assert_eq!(only(&run(&mut good, at(0), secs(119))).1.quality, 600);
    let mut bad = engine(floor(601), &tickets);
    assert_eq!(run(&mut bad, at(0), secs(119)), []);
}

#[test]
fn teams_are_evened_out() {
    let ratings = [1500, 1590, 1510, 1580].into_iter().enumerate();
    let tickets: Vec<Ticket> = ratings.map(|(n, r)| ticket(&format!("p{n}"), r, at(0))).collect();
    let mut engine = engine(config(2, 2), &tickets);
    let outputs = run(&mut engine, at(0), secs(1));
    assert_eq!(leaders(only(&outputs).1), [["p0", "p1"], ["p2", "p3"]]);
}

#[test]
fn a_ticket_times_out_to_the_microsecond() {
    let mut engine = engine(config(2, 1), &[ticket("a", 1500, at(7))]);
    let outputs = run(&mut engine, at(7), secs(500));
    assert_eq!(outputs, [(at(120_007), QueueOutput::TimedOut(name("a")))]);
    assert_eq!((engine.stats().timed_out, engine.stats().waiting), (1, 0));
}

#[test]
fn a_cancelled_ticket_is_gone_and_its_players_may_come_again() {
    let mut engine = engine(config(2, 2), &[party("a", 2, 1500, at(0))]);
    assert_eq!(engine.remove(&name("a.1")), None, "only the leader names it");
    assert_eq!(engine.ticket_of(&name("a.1")).map(|ticket| &ticket.leader), Some(&name("a")));
    assert_eq!(engine.remove(&name("a")), Some(party("a", 2, 1500, at(0))));
    assert_eq!(engine.remove(&name("a")), None);
    engine.insert(at(1), ticket("a.1", 1500, at(1))).unwrap();
    engine.audit().unwrap();
}

#[test]
fn a_restored_ticket_keeps_its_place_and_has_a_reserve() {
    let mut config = config(2, 1);
    (config.limits.tickets, config.limits.reserve) = (2, 1);
    let mut engine = engine(config, &[ticket("a", 1500, at(0)), ticket("b", 1500, at(1))]);
    let outputs = run(&mut engine, at(1), at(50));
    for leader in ["c", "d"] {
        engine.insert(at(60), ticket(leader, 3000, at(60))).unwrap();
    }
    assert_eq!(engine.insert(at(60), ticket("e", 0, at(60))), Err(TicketRefusal::Full));
    let back: Vec<Ticket> = only(&outputs).1.tickets().cloned().collect();
    engine.restore(at(60), back[0].clone()).unwrap();
    assert_eq!(
        engine.restore(at(60), back[1].clone()),
        Err(TicketRefusal::Full),
        "the reserve is bounded too"
    );
    assert_eq!(engine.tickets().next(), Some(&back[0]));
    engine.audit().unwrap();
}

#[test]
fn what_breaks_a_cap_is_refused_and_changes_nothing() {
    let mut config = config(2, 2);
    config.limits = Limits { attributes: 1, conditions: 1, values: 1, text: 3, ..config.limits };
    let mut engine = engine(config, &[party("a", 2, 1500, at(0))]);
    let text = |text: &str| Value::Text(text.to_string());
    let attribute = |key: &str| (name(key), Value::Number(1));
    let condition = |test| Condition { attribute: name("x"), test };
    type Spoil<'a> = (&'a dyn Fn(&mut Ticket), TicketRefusal);
    let cases: [Spoil<'_>; 19] = [
        (&|t| t.mode = name("other"), TicketRefusal::WrongMode),
        (&|t| t.others = vec![name("x"), name("y")], TicketRefusal::WrongSize),
        (&|t| t.others = vec![name("b")], TicketRefusal::AlreadyQueued(name("b"))),
        (&|t| t.others = vec![name("a.1")], TicketRefusal::AlreadyQueued(name("a.1"))),
        (&|t| t.leader = name("a"), TicketRefusal::AlreadyQueued(name("a"))),
        (&|t| t.rating = 1_000_001, TicketRefusal::RatingOutOfRange),
        (&|t| t.rating = -1_000_001, TicketRefusal::RatingOutOfRange),
        (&|t| t.queued = at(2), TicketRefusal::QueuedInFuture),
        (&|t| t.latencies = vec![], TicketRefusal::NoRegionInReach),
        (&|t| t.latencies = vec![(name("eu"), 201)], TicketRefusal::NoRegionInReach),
        (&|t| t.latencies.push((name("eu"), 1)), TicketRefusal::ListedTwice(name("eu"))),
        (&|t| t.latencies.push((name("asia"), 1)), TicketRefusal::UnknownRegion(name("asia"))),
        (&|t| t.traits.attributes = vec![attribute("x"), attribute("y")], TicketRefusal::TooMany),
        (&|t| t.traits.attributes = vec![(name("x"), text("long"))], TicketRefusal::TextTooLong),
        (&|t| t.traits.conditions = vec![condition(Test::Between(0, 1)); 2], TicketRefusal::TooMany),
        (&|t| t.traits.conditions = vec![condition(Test::OneOf(vec![text("a"); 2]))], TicketRefusal::TooMany),
        (&|t| t.traits.conditions = vec![condition(Test::Is(text("long")))], TicketRefusal::TextTooLong),
        (
            &|t| t.traits.conditions = vec![condition(Test::OneOf(vec![]))],
            TicketRefusal::Unmeetable(name("x")),
        ),
        (
            &|t| t.traits.conditions = vec![condition(Test::Between(1, 0))],
            TicketRefusal::Unmeetable(name("x")),
        ),
    ];
    for (spoil, refusal) in cases {
        let mut bad = ticket("b", 1500, at(1));
        spoil(&mut bad);
        assert_eq!(engine.insert(at(1), bad), Err(refusal.clone()));
        assert!(!refusal.to_string().is_empty());
        engine.audit().unwrap();
        assert_eq!(engine.stats().waiting, 1);
    }
    engine.insert(at(1), ticket("b", 1500, at(1))).unwrap();
}

#[test]
fn an_attribute_is_listed_once() {
    let mut engine = engine(config(2, 1), &[]);
    let mut twice = ticket("a", 1500, at(0));
    twice.traits.attributes = vec![(name("x"), Value::Number(1)), (name("x"), Value::Number(2))];
    assert_eq!(engine.insert(at(0), twice), Err(TicketRefusal::ListedTwice(name("x"))));
}

#[test]
fn the_match_tells_what_it_took() {
    let mut engine = engine(config(2, 1), &[ticket("a", 1500, at(0)), ticket("b", 1500, secs(1))]);
    let outputs = run(&mut engine, secs(1), secs(2));
    let formed = only(&outputs).1;
    assert_eq!(formed.binding, Binding { since: secs(1), rule: Rule::Arrival(name("b")) });
    let text = formed.to_string();
    assert!(
        text.starts_with("quality 1000 of 1000 in eu, possible since 1.000000s: b had to come\n"),
        "{text}"
    );
    assert!(text.contains("a (1 players) after 1 s, rating 1500 within 0 of 110 points"), "{text}");
}
