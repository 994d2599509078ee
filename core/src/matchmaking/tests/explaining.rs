//! Explanations of waiting tickets.

use super::*;
use crate::matchmaking::{WaitReason, Why};

fn why(engine: &Engine, now: Instant) -> Why {
    engine.explain(now, &name("me")).unwrap()
}

#[test]
fn each_ticket_is_counted_under_the_rule_it_breaks() {
    let mut me = ticket("me", 1500, at(0));
    me.traits.attributes = vec![(name("x"), Value::Number(1))];
    let one = |low, high| vec![Condition { attribute: name("x"), test: Test::Between(low, high) }];
    me.traits.conditions = one(1, 1);
    let other = |leader: &str, rating, queued, latency, conditions| {
        let latencies = vec![(name("eu"), latency)];
        let traits = Traits { conditions, ..me.traits.clone() };
        Ticket { latencies, traits, ..ticket(leader, rating, queued) }
    };
    let mut deaf = other("deaf", 1500, at(0), 20, vec![]);
    deaf.traits.attributes.clear();
    let tickets = [
        me.clone(),
        other("suits", 1500, at(0), 20, vec![]),
        other("worse", 2301, at(0), 20, vec![]),
        other("away", 1700, at(0), 20, vec![]),
        other("fresh", 1610, secs(5), 20, vec![]),
        other("slow", 1500, at(0), 199, vec![]),
        other("picky", 1500, at(0), 20, one(7, 7)),
        deaf,
    ];
    let mut config = config(4, 1);
    config.quality.floor = 200;
    let mut engine = engine(config, &tickets);
    run(&mut engine, secs(5), secs(5));
    let why = why(&engine, secs(5));
    let seen = why.seen.clone().unwrap();
    assert_eq!((seen.region.as_str(), seen.tickets, seen.complete), ("eu", 7, true));
    assert_eq!((seen.agree, seen.players, seen.below_floor, seen.outside), (1, 1, 1, 1));
    assert_eq!((seen.outside_theirs, seen.too_far, seen.failed, seen.failing[0].1), (1, 1, 1, 1));
    assert_eq!(why.reason, WaitReason::TooFew { players: 1, needed: 3 });
    assert_eq!((why.rating.now, why.latency.now), (150, 75));
    assert_eq!(
        why.to_string(),
        "waits for 5 s: 1 of 3 other players agree; rating window 150 (+10 a second, up to 500) points, \
         latency cap 75 (+5 a second, up to 200) ms; of all 7 other tickets in eu, 1 agree, 1 would be below \
         the floor of quality, 1 are outside its rating window, 1 have it outside theirs, 1 are too far from \
         the region, 1 do not accept it, 1 fail \"x in 1..=1\""
    );
}

#[test]
fn the_reason_is_what_keeps_it() {
    let mut far = ticket("me", 1500, at(0));
    far.latencies = vec![(name("us"), 100), (name("eu"), 90)];
    let reason = |mut config: QueueConfig, tickets: &[Ticket], search: u32| {
        config.work.search = search;
        let mut engine = engine(config, tickets);
        let before = why(&engine, at(0)).reason;
        run(&mut engine, at(0), at(0));
        (before, why(&engine, at(0)).reason)
    };
    let no_region = WaitReason::NoRegion { region: name("eu"), latency: 90 };
    assert_eq!(reason(config(2, 1), &[far], 4000).1, no_region);
    let trios = [party("me", 3, 1500, at(0)), party("a", 3, 1500, at(0)), party("b", 5, 1500, at(0))];
    assert_eq!(reason(config(2, 5), &trios, 4000), (WaitReason::NextRound, WaitReason::NoSet));
    let mut strict = config(2, 2);
    strict.quality.floor = 950;
    let uneven = [party("me", 2, 1500, at(0)), party("a", 2, 1550, at(0))];
    assert_eq!(reason(strict, &uneven, 4000).1, WaitReason::Quality { best: 900, floor: 950 });
    let singles: Vec<Ticket> =
        ["me", "a", "b", "c"].into_iter().map(|leader| ticket(leader, 1500, at(0))).collect();
    assert_eq!(reason(config(2, 2), &singles, 8).1, WaitReason::Searching);
}

#[test]
fn who_does_not_wait_has_no_reason() {
    let engine = engine(config(2, 2), &[party("a", 2, 1500, at(0))]);
    assert_eq!(engine.explain(at(0), &name("b")), None);
    assert_eq!(engine.explain(at(0), &name("a.1")), None);
}
