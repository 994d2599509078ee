//! A registrar that finds an invariant of its own broken.

use super::bench::{Fate, name};
use super::*;

/// Removes a room from the table, and leaves it in the indexes.
fn lose_entry(bench: &mut Bench, room: &str) {
    bench.registrar.table.entries.remove(&Subject::Room(name(room))).unwrap();
}

fn rooms(bench: &mut Bench) -> usize {
    bench.take().iter().filter(|decision| matches!(decision, Decision::Room { .. })).count()
}

#[test]
fn a_room_that_vanishes_from_the_table_is_told_and_the_others_go_on() {
    let config = RegistrarConfig { in_flight: 1, batch: 1, ..RegistrarConfig::default() };
    let mut bench = Bench::new(config.clone());
    bench.settle();
    bench.registrar.bugs = Bugs::lenient();
    bench.take();
    for room in ["a", "b", "c"] {
        bench.registrar.claim_room(bench.now, &name(room)).unwrap();
    }
    bench.collect();
    // The first room waits for an answer, the others are in the queue.
    lose_entry(&mut bench, "b");
    while bench.step_unchecked(Fate::Done) {}
    assert_eq!(rooms(&mut bench), 2);
    // The deadline of its claim is still there.
    bench.now.instant = bench.now.instant + config.claim_timeout;
    bench.registrar.handle_timeout(bench.now);
    while bench.step_unchecked(Fate::Done) {}
    assert!(bench.registrar.bugs_found() >= 2, "{}", bench.registrar.bugs_found());
    let bug = bench.registrar.poll_bug().unwrap();
    assert_eq!(bug.what, "a session or a room is not in the table");
    assert!(bug.place.file().ends_with(".rs") && !bug.place.file().contains("bug"), "{}", bug.place);
}

#[test]
fn a_room_that_vanishes_while_it_waits_is_told_and_the_others_go_on() {
    let mut bench = Bench::serving();
    bench.registrar.bugs = Bugs::lenient();
    for room in ["a", "b", "c"] {
        bench.registrar.claim_room(bench.now, &name(room)).unwrap();
    }
    bench.collect();
    while bench.step_unchecked(Fate::Unavailable) {}
    lose_entry(&mut bench, "a");
    bench.now.instant = bench.now.instant + RegistrarConfig::default().backoff_max;
    bench.registrar.handle_timeout(bench.now);
    bench.collect_unchecked();
    while bench.step_unchecked(Fate::Done) {}
    assert_eq!(rooms(&mut bench), 2);
    assert!(bench.registrar.bugs_found() > 0);
    assert_eq!(bench.registrar.poll_timeout().unwrap().reason, "output is queued");
    while bench.registrar.poll_bug().is_some() {}
    assert_ne!(bench.registrar.poll_timeout().unwrap().reason, "output is queued");
}

#[test]
#[should_panic(expected = "broken invariant: a session or a room is not in the table")]
fn a_test_fails_at_a_broken_invariant() {
    let mut bench = Bench::serving();
    bench.registrar.claim_room(bench.now, &name("a")).unwrap();
    lose_entry(&mut bench, "a");
    bench.collect_unchecked();
    while bench.step_unchecked(Fate::Done) {}
}
