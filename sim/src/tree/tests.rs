//! The simulation of the tree: it holds, it repeats, and it sees planted bugs.

use skirmish_core::id::NodeId;
use skirmish_core::plant::{Plant, Planted};

use super::*;
use crate::oracle::Guarantee;
use crate::plants::{Simulation, broken_by, simulation};
use crate::world::RunOptions;

fn outcome(seed: u64, plant: Option<Plant>, traced: bool) -> TreeOutcome {
    run(&draw(seed, 24, None), RunOptions { plant, traced })
}

#[test]
fn seeds_hold_and_repeat() {
    for seed in 0..12 {
        let first = outcome(seed, None, true);
        assert!(first.violation.is_none(), "seed {seed}: {:?}", first.violation);
        assert!(!first.stats.calm.is_empty() && first.stats.moves.iter().all(|moves| *moves <= 16));
        assert_eq!(first.trace, outcome(seed, None, true).trace, "seed {seed}");
    }
}

#[test]
fn every_planted_bug_of_the_tree_is_caught() {
    for plant in Plant::ALL.into_iter().filter(|plant| simulation(*plant) == Simulation::Tree) {
        let found = (0..200).find_map(|seed| outcome(seed, Some(plant), false).violation);
        let (_, violation) = found.unwrap_or_else(|| panic!("{plant:?} is not caught"));
        assert!(broken_by(plant).contains(&violation.guarantee), "{plant:?}: {violation}");
    }
}

#[test]
fn a_row_is_measured() {
    let row = measure(1, 10, 4).unwrap().to_string();
    let figures: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((&figures[..2], figures.len()), (&["4", "10"][..], 13), "{row}");
}

fn sent(stub: &mut TreeStub) -> Vec<(u64, String)> {
    stub.take_sent().into_iter().map(|(to, message)| (to.0, format!("{message:?}"))).collect()
}

/// Node 5 with the parent 1, the spare 2 and the entries 1 to 10, in a window of 4.
fn fed() -> TreeStub {
    let mut stub = TreeStub::new(NodeId(5), NodeId(0), 4, Planted::default());
    stub.handle(NodeId(0), TreeMessage::Place { parent: NodeId(1), spare: Some(NodeId(2)) });
    stub.handle(NodeId(1), TreeMessage::Feeding { attempt: 1, base: 0 });
    for seq in 1..=10 {
        stub.handle(NodeId(1), TreeMessage::Entry { seq, frame: vec![7].into() });
    }
    stub.take_sent();
    stub.take_seen();
    stub
}

#[test]
fn a_new_parent_feeds_before_the_old_one_is_detached() {
    let mut stub = fed();
    stub.handle(NodeId(0), TreeMessage::Place { parent: NodeId(3), spare: None });
    assert_eq!(sent(&mut stub), [(3, "Attach { attempt: 2, cursor: Some(10), gap: false }".to_owned())]);
    assert!(stub.parents().eq([NodeId(1)]));
    stub.handle(NodeId(1), TreeMessage::Entry { seq: 11, frame: vec![7].into() });
    stub.handle(NodeId(3), TreeMessage::Feeding { attempt: 2, base: 10 });
    assert_eq!(
        sent(&mut stub),
        [(1, "Detach".to_owned()), (0, "Placed { parent: 0000000000000003 }".to_owned())]
    );
    stub.handle(NodeId(3), TreeMessage::Entry { seq: 11, frame: vec![7].into() });
    stub.handle(NodeId(1), TreeMessage::Entry { seq: 12, frame: vec![7].into() });
    assert_eq!(stub.head(), 11, "a copy counts once, and a detached parent does not count");
}

#[test]
fn an_orphan_pulls_the_gap_from_its_spare() {
    let mut stub = fed();
    stub.lose(NodeId(1));
    assert_eq!(sent(&mut stub), [(2, "Attach { attempt: 2, cursor: Some(10), gap: true }".to_owned())]);
    stub.handle(NodeId(2), TreeMessage::Feeding { attempt: 2, base: 13 });
    let seen: Vec<String> = stub.take_seen().iter().map(|seen| format!("{seen:?}")).collect();
    assert!(seen.contains(&"Announced(11, 13)".to_owned()), "{seen:?}");
    stub.lose(NodeId(2));
    assert!(sent(&mut stub)[0].1.starts_with("Attach"), "the root is left");
}

#[test]
fn a_parent_ahead_is_asked_again_once_the_old_one_has_caught_up() {
    let mut stub = fed();
    stub.handle(NodeId(0), TreeMessage::Place { parent: NodeId(3), spare: None });
    stub.take_sent();
    stub.handle(NodeId(3), TreeMessage::OutOfWindow { attempt: 2, first: 12 });
    assert_eq!(sent(&mut stub), []);
    stub.handle(NodeId(1), TreeMessage::Entry { seq: 11, frame: vec![7].into() });
    assert_eq!(sent(&mut stub), [(3, "Attach { attempt: 3, cursor: Some(11), gap: false }".to_owned())]);
}

#[test]
fn a_child_gets_what_it_lacks_or_a_gap_that_it_accepts() {
    let mut stub = fed();
    let attach = |cursor, gap| TreeMessage::Attach { attempt: 1, cursor: Some(cursor), gap };
    stub.handle(NodeId(6), attach(8, false));
    let texts = sent(&mut stub);
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert_eq!(texts[0], (6, "Feeding { attempt: 1, base: 8 }".to_owned()));
    stub.handle(NodeId(7), attach(2, false));
    assert_eq!(sent(&mut stub), [(7, "OutOfWindow { attempt: 1, first: 7 }".to_owned())]);
    stub.handle(NodeId(7), attach(2, true));
    assert_eq!(sent(&mut stub)[0], (7, "Feeding { attempt: 1, base: 6 }".to_owned()));
    stub.handle(NodeId(8), attach(12, false));
    stub.take_sent();
    stub.handle(NodeId(1), TreeMessage::Entry { seq: 11, frame: vec![7].into() });
    assert!(sent(&mut stub).iter().all(|(to, _)| *to != 8), "the child has this entry");
}

#[test]
fn the_oracle_accepts_announced_gaps_and_nothing_else() {
    let seen = |acts: &[TreeSeen]| {
        let mut oracle = TreeOracle::default();
        (1..=9).for_each(|seq: u8| oracle.published(vec![seq].into()));
        acts.iter().try_for_each(|act| oracle.observe(NodeId(1), act))?;
        oracle.rest(NodeId(1))
    };
    let entry = |seq: u8| TreeSeen::Delivered(seq.into(), vec![seq].into());
    let code = |acts: &[TreeSeen]| seen(acts).map_err(|violation| violation.guarantee);
    let start = TreeSeen::Started(6);
    assert_eq!(code(&[start.clone(), entry(7), entry(8), entry(9)]), Ok(()));
    assert_eq!(code(&[start.clone(), TreeSeen::Announced(7, 8), entry(9)]), Ok(()));
    assert_eq!(code(&[start.clone(), entry(7), entry(9)]), Err(Guarantee::Gaps));
    assert_eq!(code(&[start.clone(), entry(7), TreeSeen::Announced(7, 8)]), Err(Guarantee::Gaps));
    assert_eq!(code(&[start.clone(), entry(7), entry(7)]), Err(Guarantee::Once));
    assert_eq!(code(&[start.clone(), TreeSeen::Delivered(7, vec![1].into())]), Err(Guarantee::Order));
    assert_eq!(code(&[start.clone(), start.clone()]), Err(Guarantee::Gaps));
    assert_eq!(code(&[start, entry(7)]), Err(Guarantee::Liveness));
}
