//! Free places of running rooms.

use super::*;
use crate::matchmaking::{Backfill, Rule, TicketRefusal};

fn vacancy(room: &str, places: u8, rating: i32, offered: Instant) -> Vacancy {
    let (room, region) = (name(room), name("eu"));
    Vacancy { room, team: 1, places, rating, region, traits: Traits::default(), offered, barred: Vec::new() }
}

fn filled(outputs: &[(Instant, QueueOutput)]) -> Vec<(Instant, &Backfill)> {
    let filled = outputs.iter().filter_map(|(at, output)| match output {
        QueueOutput::Backfill(filled) => Some((*at, filled.as_ref())),
        QueueOutput::Match(_) | QueueOutput::TimedOut(_) => None,
    });
    filled.collect()
}

#[test]
fn free_places_come_before_a_new_match_and_go_to_the_oldest() {
    let mut engine = engine(config(2, 1), &[ticket("old", 1500, at(0)), ticket("young", 1500, at(1))]);
    engine.offer_vacancy(at(1), vacancy("room", 1, 1550, at(1))).unwrap();
    let outputs = run(&mut engine, at(1), secs(1));
    let (_, backfill) = filled(&outputs)[0];
    assert_eq!((backfill.chosen.ticket.leader.as_str(), backfill.quality), ("old", 950));
    assert_eq!(backfill.binding.rule, Rule::Offer);
    assert_eq!((engine.stats().backfilled, engine.stats().waiting, engine.stats().vacancies), (1, 1, 0));
    assert!(engine.withdraw_vacancy(&name("room")).is_none(), "the offer is gone");
}

#[test]
fn the_nearest_room_with_enough_places_is_filled() {
    let mut engine = engine(config(2, 3), &[party("pair", 2, 1500, at(0))]);
    for (room, places, rating) in [("near", 1, 1500), ("far", 3, 1570), ("middle", 2, 1440)] {
        engine.offer_vacancy(at(0), vacancy(room, places, rating, at(0))).unwrap();
    }
    let outputs = run(&mut engine, at(0), secs(1));
    let filled = filled(&outputs);
    assert_eq!(filled.iter().map(|(_, f)| f.vacancy.room.as_str()).collect::<Vec<_>>(), ["middle"]);
}

#[test]
fn the_rules_are_those_of_a_match() {
    let when = |spoil: &dyn Fn(&mut Vacancy)| {
        let mut config = config(2, 1);
        config.quality.floor = 700;
        let mut engine = engine(config, &[ticket("a", 1500, at(0))]);
        let mut offer = vacancy("room", 1, 1500, at(0));
        spoil(&mut offer);
        engine.offer_vacancy(at(0), offer).unwrap();
        filled(&run(&mut engine, at(0), secs(100)))
            .first()
            .map(|(at, filled)| (*at, filled.binding.rule.clone()))
    };
    assert_eq!(when(&|_| {}), Some((at(0), Rule::Arrival(name("a")))));
    assert_eq!(when(&|v| v.rating = 1650), Some((secs(5), Rule::Rating(name("a")))));
    assert_eq!(when(&|v| v.rating = 1801), None, "below the floor");
    assert_eq!(when(&|v| v.region = name("us")), None, "out of reach");
    let condition = Condition { attribute: name("x"), test: Test::Between(0, 1) };
    assert_eq!(when(&|v| v.traits.conditions = vec![condition.clone()]), None);
}

#[test]
fn the_window_of_an_offer_widens_too() {
    let mut engine = engine(config(2, 1), &[ticket("a", 1500, at(0))]);
    engine.offer_vacancy(secs(20), vacancy("room", 1, 1620, secs(20))).unwrap();
    let outputs = run(&mut engine, secs(20), secs(100));
    let (at, backfill) = filled(&outputs)[0];
    assert_eq!((at, &backfill.binding.rule), (secs(22), &Rule::OfferRating));
}

#[test]
fn an_offer_is_replaced_withdrawn_and_capped() {
    let mut config = config(2, 2);
    config.limits.vacancies = 1;
    let mut engine = engine(config, &[]);
    let offer = |room, places| vacancy(room, places, 1500, at(0));
    engine.offer_vacancy(at(0), offer("room", 1)).unwrap();
    engine.offer_vacancy(at(0), offer("room", 2)).unwrap();
    assert_eq!(engine.offer_vacancy(at(0), offer("other", 1)), Err(TicketRefusal::Full));
    assert_eq!(engine.offer_vacancy(at(0), offer("room", 0)), Err(TicketRefusal::WrongSize));
    assert_eq!(engine.offer_vacancy(at(0), offer("room", 3)), Err(TicketRefusal::WrongSize));
    let elsewhere = Vacancy { region: name("asia"), ..offer("room", 1) };
    assert_eq!(engine.offer_vacancy(at(0), elsewhere), Err(TicketRefusal::UnknownRegion(name("asia"))));
    engine.audit().unwrap();
    assert_eq!(engine.withdraw_vacancy(&name("room")), Some(offer("room", 2)));
    engine.audit().unwrap();
    engine.insert(at(0), ticket("a", 1500, at(0))).unwrap();
    assert_eq!(run(&mut engine, at(0), secs(1)), []);
}

#[test]
fn whoever_has_left_a_room_does_not_come_back_into_it() {
    let mut engine = engine(config(2, 2), &[party("left", 2, 1500, at(0)), ticket("new", 1500, at(1))]);
    let barred = vec![name("left.1")];
    engine.offer_vacancy(at(1), Vacancy { barred, ..vacancy("room", 2, 1500, at(1)) }).unwrap();
    let outputs = run(&mut engine, at(1), secs(1));
    let leaders: Vec<_> = filled(&outputs).iter().map(|(_, f)| f.chosen.ticket.leader.clone()).collect();
    assert_eq!(leaders, [name("new")], "a party whole or not at all");
}
