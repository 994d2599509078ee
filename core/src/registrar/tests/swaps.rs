//! Swaps of primary and backup in the records of rooms.

use alloc::vec;

use bytes::Bytes;

use super::bench::{Fate, ME, OTHER, name};
use super::pairs::{THIRD, found, put};
use super::rooms::{KEY, OTHERS_NODE, claim, delete, record, told};
use super::*;
use crate::registry::{Compare, Request};

const NODE: &str = "/nodes/000000000000000a";

/// Reign of the other node, with this node as the backup.
fn led(term: u32) -> Reign {
    Reign { term, backup: Some(ME), ..Reign::first(5, OTHER) }
}

/// The reign after a swap by this node.
fn swapped(term: u32, revision: u64) -> Reign {
    Reign { term, backup: Some(OTHER), revision, ..Reign::first(5, ME) }
}

fn swap(bench: &mut Bench, term: u32, revision: u64) {
    bench.registrar.swap_room(bench.now, &name("r"), 5, term, OTHER, revision).unwrap();
    bench.collect();
}

#[test]
fn a_backup_swaps_with_one_request_if_it_knows_the_record() {
    let mut bench = Bench::serving();
    let reign = put(&mut bench, led(3));
    let before = bench.requests.len();
    swap(&mut bench, 3, reign.revision);
    let Some(Request::Txn(txn)) = bench.requests.last() else { panic!("a transaction") };
    let lease = bench.registrar.lease().unwrap();
    assert!(txn.compares.contains(&Compare::unchanged(KEY, reign.revision)));
    assert!(txn.compares.contains(&Compare::leased(NODE, lease)));
    bench.settle();
    assert_eq!(bench.requests.len(), before + 1);
    let after = swapped(4, bench.registry.revision());
    assert_eq!(bench.take(), told(RoomClaim::Primary(after)));
    assert_eq!((found(&mut bench).0, bench.registrar.reign(&name("r"))), (after, Some(after)));
    assert_eq!(record(&mut bench).unwrap().epoch, 5, "spelled out");
    let lease = bench.get(KEY).unwrap().lease;
    assert!(lease.is_some() && lease != bench.get(NODE).unwrap().lease, "the lease for rooms");
    // The new primary writes the state at once, and drops the backup in its own term.
    bench.registrar.update_room(bench.now, &name("r"), 7, 3, 0);
    bench.collect();
    bench.settle();
    let revision = bench.registry.revision();
    assert_eq!(found(&mut bench), (Reign { revision, ..after }, 7));
    bench.registrar.pair_room(bench.now, &name("r"), None);
    bench.collect();
    bench.settle();
    let revision = bench.registry.revision();
    assert_eq!(found(&mut bench), (Reign { backup: None, revision, ..after }, 7));
    assert_eq!(bench.take(), [Decision::RoomPaired { room: name("r"), backup: None, revision }]);
}

#[test]
fn a_swap_reads_the_record_first_if_it_does_not_know_it_and_keeps_the_state() {
    for off in [None, Some(0), Some(1)] {
        let mut bench = Bench::serving();
        let earlier = bench.put(KEY, Bytes::new());
        let reign = put(&mut bench, led(1));
        swap(&mut bench, 1, off.map_or(0, |off| earlier + off));
        bench.settle();
        let after = swapped(2, bench.registry.revision());
        assert_eq!(after.revision, reign.revision + 1);
        assert_eq!(bench.take(), told(RoomClaim::Primary(after)));
        let players = if off == Some(1) { 0 } else { 7 };
        assert_eq!(found(&mut bench), (after, players), "{off:?}");
    }
}

#[test]
fn a_swap_goes_on_while_the_record_names_the_same_reign() {
    let mut bench = Bench::serving();
    let mut reign = put(&mut bench, led(1));
    swap(&mut bench, 1, reign.revision);
    for _ in 0..10 {
        // The primary writes the state faster than this node reads it.
        reign = put(&mut bench, led(1));
        bench.step(Fate::Done);
        if bench.calls.is_empty() {
            bench.now.instant = bench.registrar.poll_timeout().unwrap().at.max(bench.now.instant);
            bench.registrar.handle_timeout(bench.now);
            bench.collect();
        }
    }
    assert_eq!((bench.take(), found(&mut bench).0), (vec![], reign));
    bench.pass(4_000, Fate::Done);
    let after = swapped(2, reign.revision + 1);
    assert_eq!(bench.take(), told(RoomClaim::Primary(after)));
}

#[test]
fn a_swap_without_an_answer_is_found_in_the_record() {
    for fate in [Fate::Unheard, Fate::Lost, Fate::Unavailable] {
        let mut bench = Bench::serving();
        let reign = put(&mut bench, led(1));
        swap(&mut bench, 1, reign.revision);
        bench.step(fate);
        // Far beyond the time of a claim.
        bench.pass(5_000, Fate::Done);
        let after = swapped(2, reign.revision + 1);
        assert_eq!((bench.take(), found(&mut bench).0), (told(RoomClaim::Primary(after)), after), "{fate:?}");
    }
}

#[test]
fn a_swap_has_no_time_limit() {
    let mut bench = Bench::serving();
    let reign = put(&mut bench, led(1));
    swap(&mut bench, 1, reign.revision);
    bench.pass(45_000, Fate::Unavailable);
    assert_eq!(bench.take(), [Decision::NotServing]);
    bench.pass(9_000, Fate::Done);
    let decisions = bench.take();
    assert!(decisions.contains(&told(RoomClaim::Primary(found(&mut bench).0))[0]), "{decisions:?}");
    let (after, _) = found(&mut bench);
    assert_eq!((after.term, after.primary), (2, ME));
}

#[test]
fn a_swap_is_refused_if_the_record_tells_of_another_reign() {
    let third = |reign| Reign { backup: Some(THIRD), ..reign };
    let others = [
        Reign { backup: None, ..led(3) },
        third(led(3)),
        led(2),
        led(4),
        Reign { primary: THIRD, ..led(3) },
        Reign { epoch: 6, ..led(3) },
        Reign { primary: THIRD, backup: Some(OTHER), ..led(4) },
        third(swapped(4, 0)),
        Reign { epoch: 6, ..swapped(4, 0) },
    ];
    for other in others {
        for knows in [false, true] {
            let mut bench = Bench::serving();
            let before = if knows { put(&mut bench, led(3)).revision } else { 0 };
            let other = put(&mut bench, other);
            swap(&mut bench, 3, before);
            bench.settle();
            assert_eq!(bench.take(), told(RoomClaim::Elsewhere(other)));
            assert_eq!((found(&mut bench).0, bench.registrar.reign(&name("r"))), (other, None));
            bench.pass(70_000, Fate::Done);
            assert_eq!(found(&mut bench).0, other, "nothing is written later");
        }
    }
}

#[test]
fn a_swap_of_a_room_without_a_record_finds_the_end_of_its_life() {
    for revision in [0, 4] {
        let mut bench = Bench::serving();
        swap(&mut bench, 3, revision);
        bench.settle();
        assert_eq!(bench.take(), told(RoomClaim::Vacant));
        assert_eq!((record(&mut bench), bench.registrar.stats().rooms), (None, 0));
    }
}

#[test]
fn a_node_without_its_own_record_does_not_swap_before_it_has_one() {
    let mut bench = Bench::serving();
    let reign = put(&mut bench, led(1));
    delete(&mut bench, NODE);
    swap(&mut bench, 1, reign.revision);
    for _ in 0..3 {
        bench.step(Fate::Done);
        assert_eq!(found(&mut bench).0, reign);
    }
    bench.pass(5_000, Fate::Done);
    let (after, _) = found(&mut bench);
    assert_eq!((after.term, bench.registrar.reign(&name("r"))), (2, Some(after)));
    assert!(bench.get(NODE).is_some_and(|kv| kv.created < after.revision));
}

#[test]
fn a_swap_in_an_outdated_generation_is_not_executed() {
    let mut bench = Bench::serving();
    let reign = put(&mut bench, led(1));
    swap(&mut bench, 1, reign.revision);
    let late = bench.requests.last().unwrap().clone();
    delete(&mut bench, "/generation");
    bench.ask(&late);
    assert_eq!(found(&mut bench).0, reign);
}

#[test]
fn a_repeated_swap_has_one_answer_and_an_outdated_one_is_answered_at_once() {
    let mut bench = Bench::serving();
    let reign = put(&mut bench, led(3));
    swap(&mut bench, 3, reign.revision);
    swap(&mut bench, 3, reign.revision);
    bench.settle();
    let after = swapped(4, bench.registry.revision());
    assert_eq!(bench.take(), told(RoomClaim::Primary(after)));
    for term in [1, 3] {
        swap(&mut bench, term, 0);
        assert!(bench.calls.is_empty());
        assert_eq!(bench.take(), told(RoomClaim::Primary(after)));
    }
    // A claim of a room that is swapped waits for the swap.
    let reign = put(&mut bench, led(5));
    swap(&mut bench, 5, reign.revision);
    claim(&mut bench);
    bench.settle();
    let after = swapped(6, bench.registry.revision());
    let answer = told(RoomClaim::Primary(after)).remove(0);
    assert_eq!(bench.take(), [answer.clone(), answer]);
}

#[test]
fn a_deposed_primary_swaps_back() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    bench.settle();
    let epoch = bench.registrar.holds_room(&name("r")).unwrap();
    bench.take();
    let led = Reign { term: 2, backup: Some(ME), ..Reign::first(epoch, OTHER) };
    // The node has heard of the later term over a link; the registrar has not.
    let reign = put(&mut bench, led);
    bench.registrar.swap_room(bench.now, &name("r"), epoch, 2, OTHER, reign.revision).unwrap();
    bench.collect();
    bench.settle();
    let (after, _) = found(&mut bench);
    assert_eq!((after.term, after.primary, after.backup), (3, ME, Some(OTHER)));
    assert_eq!(bench.take(), told(RoomClaim::Primary(after)));
    assert_eq!(bench.registrar.stats().rooms, 1);
    // The registrar finds a still later term by itself, with a write in progress.
    bench.registrar.pair_room(bench.now, &name("r"), None);
    bench.collect();
    let reign = put(&mut bench, Reign { term: 4, ..led });
    bench.registrar.swap_room(bench.now, &name("r"), epoch, 4, OTHER, reign.revision).unwrap();
    bench.collect();
    bench.settle();
    let (after, _) = found(&mut bench);
    let deposed = Decision::RoomDeposed { room: name("r"), reign };
    let answer = told(RoomClaim::Primary(after)).remove(0);
    assert_eq!((bench.take(), after.term), (vec![deposed, answer], 5));
}

/// The registry executes a swap after this node gave it up. The former primary has the room.
#[test]
fn a_late_swap_that_was_given_up_is_left_to_the_backup_while_that_lives() {
    let mut bench = Bench::serving();
    bench.put(OTHERS_NODE, Bytes::new());
    let reign = put(&mut bench, led(1));
    bench.settle();
    bench.take();
    swap(&mut bench, 1, reign.revision);
    let late = bench.requests.last().unwrap().clone();
    bench.step(Fate::Lost);
    bench.registrar.release_room(bench.now, &name("r"));
    bench.collect();
    bench.pass(500, Fate::Done);
    assert_eq!((bench.take(), found(&mut bench).0), (vec![], reign), "no answer");
    bench.ask(&late);
    let stray = swapped(2, reign.revision + 1);
    bench.pass(1_000, Fate::Done);
    bench.registrar.sweep_room(bench.now, &name("r"));
    bench.collect();
    claim(&mut bench);
    bench.pass(1_000, Fate::Done);
    // A claim of the room finds it as well.
    assert_eq!((bench.take(), found(&mut bench).0), (told(RoomClaim::Elsewhere(stray)), stray));
    // Neither node has the room any more.
    delete(&mut bench, OTHERS_NODE);
    bench.settle();
    bench.registrar.sweep_room(bench.now, &name("r"));
    bench.collect();
    bench.settle();
    assert_eq!(record(&mut bench), None);
}

#[test]
fn a_swap_is_given_up_before_it_is_sent_and_while_it_is() {
    for sent in [false, true] {
        let mut bench = Bench::new(RegistrarConfig::default());
        if sent {
            bench.settle();
        }
        bench.put(OTHERS_NODE, Bytes::new());
        bench.settle();
        bench.take();
        let reign = put(&mut bench, led(1));
        if !sent {
            bench.pass(20_000, Fate::Unavailable);
            bench.take();
        }
        swap(&mut bench, 1, reign.revision);
        bench.registrar.release_room(bench.now, &name("r"));
        bench.collect();
        bench.pass(5_000, Fate::Done);
        let decisions = bench.take();
        assert!(decisions.iter().all(|d| !matches!(d, Decision::Room { .. })), "{decisions:?}");
        let term = if sent { 2 } else { 1 };
        assert_eq!(found(&mut bench).0.term, term, "the other node has the room");
        assert_eq!(bench.registrar.stats().rooms, 0);
    }
}

#[test]
fn swaps_are_answered_at_the_end_of_the_registrar_and_of_the_store() {
    let mut bench = Bench::serving();
    swap(&mut bench, 1, 0);
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 1 });
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 2 });
    bench.collect();
    assert!(bench.take().contains(&told(RoomClaim::Unavailable)[0]));
    swap(&mut bench, 1, 0);
    bench.registrar.stop(bench.now);
    bench.collect();
    assert!(bench.take().contains(&told(RoomClaim::Unavailable)[0]));
    swap(&mut bench, 1, 0);
    assert_eq!(bench.take(), told(RoomClaim::Unavailable));
}

#[test]
fn swaps_beyond_the_cap_of_rooms_are_refused() {
    let mut bench = Bench::joined(RegistrarConfig { keys: 1, ..RegistrarConfig::default() });
    bench.settle();
    swap(&mut bench, 1, 0);
    assert_eq!(bench.registrar.swap_room(bench.now, &name("s"), 5, 1, OTHER, 0), Err(Full));
    swap(&mut bench, 2, 0);
    bench.settle();
    bench.take();
    assert_eq!(bench.registrar.swap_room(bench.now, &name("s"), 5, 1, OTHER, 0), Ok(()));
}

#[test]
fn a_claim_before_a_swap_has_no_answer() {
    let mut bench = Bench::serving();
    let reign = put(&mut bench, led(1));
    claim(&mut bench);
    bench.step(Fate::Unavailable);
    swap(&mut bench, 1, reign.revision);
    bench.pass(6_000, Fate::Unavailable);
    assert_eq!(bench.take(), []);
    bench.pass(3_000, Fate::Done);
    assert!(bench.take().contains(&told(RoomClaim::Primary(swapped(2, reign.revision + 1)))[0]));
}
