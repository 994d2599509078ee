//! The same seed gives the same run, after any other runs in the process.

use skirmish_sim::draw::draw;
use skirmish_sim::scenario::Scenario;
use skirmish_sim::world::{RunOptions, run};

fn hash(scenario: &Scenario) -> u64 {
    run(scenario, RunOptions::default()).hash
}

#[test]
fn the_same_seed_twice_gives_the_same_event_log() {
    for seed in 0..20 {
        let scenario = draw(seed);
        assert_eq!(hash(&scenario), hash(&scenario), "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_event_log_alone_and_as_the_fortieth_of_a_batch() {
    let alone = hash(&draw(39));
    let batch: Vec<u64> = (0..40).map(|seed| hash(&draw(seed))).collect();
    assert_eq!(batch.last(), Some(&alone));
}

#[test]
fn a_printed_schedule_gives_the_same_event_log() {
    let scenario = draw(7);
    let parsed: Scenario = scenario.to_string().parse().expect("a printed scenario parses");
    assert_eq!(hash(&scenario), hash(&parsed));
}

#[test]
fn keeping_the_texts_changes_nothing() {
    let scenario = draw(11);
    let traced = run(&scenario, RunOptions { traced: true, ..RunOptions::default() });
    assert_eq!(hash(&scenario), traced.hash);
    assert!(!traced.history.records.is_empty());
}

#[test]
fn different_seeds_give_different_event_logs() {
    assert_ne!(hash(&draw(1)), hash(&draw(2)));
}
