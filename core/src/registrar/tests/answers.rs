//! Answers of a wrong type or shape: of another program in the place of the registry.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::bench::{Fate, ME, name, session};
use super::*;
use crate::base::rng::Rng;
use crate::base::time::Duration;
use crate::registry::{Answer, News, Response, Watched};

/// Returns an answer that no request of this answer has.
fn garbled(rng: &mut Rng, answer: Answer) -> Answer {
    match (rng.range(0..=8), answer) {
        (0, _) => Answer::Compact,
        (1, _) => Answer::KeptAlive { ttl_s: 9 },
        (2, _) => Answer::Granted { ttl_s: 9 },
        (3, _) => Answer::Revoked,
        (4, _) => Answer::Range { kvs: vec![], more: true, count: 9 },
        (5, _) => Answer::Txn { succeeded: false, answers: vec![] },
        (6, answer) => Answer::Txn { succeeded: true, answers: vec![answer] },
        (7, Answer::Txn { succeeded, mut answers }) => {
            answers.pop();
            Answer::Txn { succeeded, answers }
        }
        (_, Answer::Txn { succeeded, answers }) => Answer::Txn { succeeded: !succeeded, answers },
        (_, answer) => Answer::Txn { succeeded: false, answers: vec![answer.clone(), answer] },
    }
}

#[test]
fn an_answer_of_a_wrong_type_leaves_the_outcome_unknown_whatever_its_revision_is() {
    for revision in [1, u64::MAX / 2] {
        let mut bench = Bench::serving();
        bench.registrar.claim_room(bench.now, &name("r")).unwrap();
        bench.collect();
        let Some(RegistryCommand::Request { id, .. }) = bench.calls.pop_front() else { panic!() };
        bench.tell(id, Ok(Response { revision, answer: Answer::KeptAlive { ttl_s: 9 } }));
        assert_eq!((bench.registrar.stats().garbage, bench.registrar.stats().in_flight), (1, 0));
        bench.pass(1_000, Fate::Done);
        let revision = bench.registry.revision();
        let outcome = RoomClaim::Primary(Reign { revision, ..Reign::first(revision, ME) });
        assert_eq!(bench.take(), [Decision::Room { room: name("r"), outcome }]);
    }
}

#[test]
fn a_page_without_keys_that_is_not_the_last_takes_no_node_away() {
    let mut bench = Bench::joined(RegistrarConfig::default());
    bench.put("/nodes/000000000000000b", Bytes::new());
    bench.settle();
    assert_eq!(bench.registrar.nodes().count(), 2);
    for id in bench.watch_ids() {
        bench.registrar.handle_event(
            bench.now,
            RegistryEvent::Watched(Watched { id, revision: 1, news: News::Compacted { oldest: 1 } }),
        );
    }
    let mut pages = 0;
    while pages < 2 {
        let Some(call) = bench.calls.pop_front() else {
            bench.now.instant = bench.registrar.poll_timeout().unwrap().at;
            bench.registrar.handle_timeout(bench.now);
            bench.collect();
            continue;
        };
        let RegistryCommand::Request { id, request } = call else { continue };
        let mut response = bench.ask(&request);
        if let Answer::Range { kvs, more, .. } = &mut response.answer {
            (*kvs, *more) = (Vec::new(), true);
            pages += 1;
        }
        bench.tell(id, Ok(response));
    }
    assert_eq!(bench.registrar.nodes().count(), 2);
    assert_eq!(bench.registrar.stats().garbage, 2);
    bench.pass(4_000, Fate::Done);
    assert_eq!(bench.registrar.nodes().count(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Garbled answers break no invariant of the node, and the node serves once answers are in order.
    #[test]
    fn a_node_outlives_garbled_answers(seed: u64) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::new(bytes);
        let mut bench = Bench::new(RegistrarConfig::default());
        for round in 0..60 {
            let (place, fresh) = (round % 5, session(1));
            let player = name(["p", "q", "r", "s", "t"][place]);
            match rng.range(0..=4) {
                0 => bench.registrar.claim_session(bench.now, 1, &player, None, fresh, DialNumber::default()).unwrap(),
                1 => bench.registrar.release_session(bench.now, &player),
                2 => bench.registrar.claim_room(bench.now, &player).unwrap(),
                3 => bench.registrar.release_room(bench.now, &player),
                _ => bench.registrar.update_room(bench.now, &player, 1, 1, 0),
            }
            bench.collect();
            for _ in 0..rng.range(0..=9) {
                bench.news();
                let Some(call) = bench.calls.pop_front() else { break };
                let RegistryCommand::Request { id, request } = call else {
                    bench.calls.push_front(call);
                    bench.step(Fate::Done);
                    continue;
                };
                let outcome = bench.registry.handle(bench.now.instant, &request).map_err(Failure::Refused);
                let is_garbled = rng.range(0..=2) == 0;
                let garble = |response: Response| {
                    let answer = garbled(&mut rng, response.answer);
                    let revision = if rng.range(0..=3) == 0 { 1 } else { response.revision };
                    Response { revision, answer }
                };
                bench.tell(id, if is_garbled { outcome.map(garble) } else { outcome });
                bench.registrar.audit().unwrap();
            }
            bench.now.instant = bench.now.instant + Duration::from_millis(rng.range(0..=500));
            bench.registry.handle_timeout(bench.now.instant);
            bench.registrar.handle_timeout(bench.now);
            bench.collect();
        }
        // A garbled answer can show another store, whose new life is closed for the time to live of rooms.
        bench.pass(90_000, Fate::Done);
        prop_assert!(bench.registrar.may_serve(bench.now.instant));
        let stats = bench.registrar.stats();
        prop_assert_eq!((stats.claims, stats.in_flight, stats.doubtful), (0, 0, 0));
    }
}
