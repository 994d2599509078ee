//! Backups in the records of rooms: their names, and the primaries that are deposed.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::bench::{Fate, ME, OTHER, name};
use super::rooms::{KEY, OTHERS_NODE, claim, delete, hold, record, told};
use super::*;
use crate::base::time::Duration;
use crate::registrar::keys::{RoomState, room_record};
use crate::registry::Request;

pub(super) const THIRD: NodeId = NodeId(0xC);

fn pair(bench: &mut Bench, backup: Option<NodeId>) {
    bench.registrar.pair_room(bench.now, &name("r"), backup);
    bench.collect();
}

fn paired(backup: Option<NodeId>, revision: u64) -> Decision {
    Decision::RoomPaired { room: name("r"), backup, revision }
}

/// Claims the room and names the other node as its backup. Returns the epoch.
fn hold_pair(bench: &mut Bench) -> u64 {
    let epoch = hold(bench);
    pair(bench, Some(OTHER));
    bench.settle();
    bench.take();
    epoch
}

/// Writes a record as other nodes would. Returns the reign.
pub(super) fn put(bench: &mut Bench, reign: Reign) -> Reign {
    let state = RoomState { players: 7, turn: 3, countdown_ms: 0 };
    let revision = bench.put(KEY, room_record(reign, 0, state));
    Reign { revision, ..reign }
}

/// Swaps the room as the other node. Returns the reign.
fn others_swap(bench: &mut Bench, epoch: u64, term: u32) -> Reign {
    put(bench, Reign { term, backup: Some(ME), ..Reign::first(epoch, OTHER) })
}

/// Returns epoch, term, primary, backup and players in the record, and its revision.
pub(super) fn found(bench: &mut Bench) -> (Reign, u32) {
    let kv = bench.get(KEY).unwrap();
    let owner = Subject::Room(name("r")).owner(&kv).unwrap();
    (owner.reign(), owner.state.players)
}

fn deposed(reign: Reign) -> Decision {
    Decision::RoomDeposed { room: name("r"), reign }
}

#[test]
fn a_backup_is_named_and_dropped_by_one_write_each_in_the_same_term() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    let lease = bench.get(KEY).unwrap().lease;
    for backup in [Some(OTHER), Some(THIRD), None] {
        let before = bench.registry.revision();
        pair(&mut bench, backup);
        bench.settle();
        let revision = bench.registry.revision();
        assert_eq!((bench.take(), revision), (vec![paired(backup, revision)], before + 1));
        let reign = Reign { backup, revision, ..Reign::first(epoch, ME) };
        assert_eq!((found(&mut bench), bench.registrar.reign(&name("r"))), ((reign, 1), Some(reign)));
        assert_eq!(record(&mut bench).unwrap().epoch, epoch, "spelled out");
        assert_eq!(bench.get(KEY).unwrap().lease, lease);
        // A repeated wish is answered without a request.
        pair(&mut bench, backup);
        assert!(bench.calls.is_empty());
        assert_eq!(bench.take(), [paired(backup, revision)]);
    }
}

#[test]
fn nobody_is_named_in_a_room_that_is_not_held() {
    let mut bench = Bench::serving();
    pair(&mut bench, Some(OTHER));
    assert!(bench.calls.is_empty());
    claim(&mut bench);
    bench.settle();
    bench.pass(10_000, Fate::Done);
    assert_eq!(record(&mut bench).unwrap().backup, 0);
}

#[test]
fn one_write_carries_the_backup_and_the_state() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    for players in [2, 3] {
        bench.registrar.update_room(bench.now, &name("r"), players, 0, 0);
        bench.collect();
        bench.settle();
    }
    assert_eq!(found(&mut bench).1, 2, "the second write waits");
    pair(&mut bench, Some(OTHER));
    bench.settle();
    let reign = Reign { backup: Some(OTHER), ..Reign::first(epoch, ME) };
    let revision = bench.registry.revision();
    assert_eq!(found(&mut bench), (Reign { revision, ..reign }, 3));
    bench.registrar.update_room(bench.now, &name("r"), 4, 9, 0);
    bench.collect();
    bench.pass(6_000, Fate::Done);
    let revision = bench.registry.revision();
    assert_eq!(found(&mut bench), (Reign { revision, ..reign }, 4));
    // The two in either order, before the first is written.
    bench.registrar.update_room(bench.now, &name("r"), 5, 9, 0);
    pair(&mut bench, None);
    bench.registrar.update_room(bench.now, &name("r"), 6, 9, 0);
    bench.collect();
    bench.pass(6_000, Fate::Done);
    assert_eq!((found(&mut bench).0.backup, found(&mut bench).1), (None, 6));
}

#[test]
fn a_write_without_an_answer_is_found_in_the_record() {
    for fate in [Fate::Unheard, Fate::Lost, Fate::Unavailable] {
        let mut bench = Bench::serving();
        hold(&mut bench);
        let before = bench.registry.revision();
        pair(&mut bench, Some(OTHER));
        bench.step(fate);
        bench.pass(2_000, Fate::Done);
        let revision = found(&mut bench).0.revision;
        assert_eq!(revision, before + 1, "{fate:?}: written once");
        assert_eq!(bench.take(), [paired(Some(OTHER), revision)]);
        assert_eq!(found(&mut bench).0.backup, Some(OTHER));
    }
}

#[test]
fn the_last_wish_counts() {
    for fate in [Fate::Done, Fate::Unheard, Fate::Lost] {
        let mut bench = Bench::serving();
        hold(&mut bench);
        pair(&mut bench, Some(OTHER));
        pair(&mut bench, None);
        bench.step(fate);
        pair(&mut bench, Some(THIRD));
        bench.pass(3_000, Fate::Done);
        let revision = found(&mut bench).0.revision;
        assert_eq!(bench.take(), [paired(Some(THIRD), revision)], "{fate:?}");
        assert_eq!(found(&mut bench).0.backup, Some(THIRD));
    }
}

/// The record names nobody, as is wished, but a request that names a backup may yet be executed.
#[test]
fn an_answer_excludes_every_earlier_request() {
    let mut bench = Bench::serving();
    hold(&mut bench);
    pair(&mut bench, Some(OTHER));
    let late = bench.requests.last().unwrap().clone();
    bench.step(Fate::Lost);
    pair(&mut bench, None);
    assert_eq!(bench.take(), []);
    bench.pass(3_000, Fate::Done);
    let (reign, _) = found(&mut bench);
    assert_eq!(bench.take(), [paired(None, reign.revision)]);
    bench.ask(&late);
    assert_eq!(found(&mut bench).0, reign);
}

#[test]
fn a_primary_is_deposed_by_a_higher_term() {
    let deposing: [fn(&mut Bench); 3] = [
        |bench| pair(bench, None),
        |bench| {
            bench.registrar.update_room(bench.now, &name("r"), 9, 9, 9);
            bench.collect();
        },
        // After the end of the node's lease, the record is checked.
        |bench| bench.pass(20_000, Fate::Unavailable),
    ];
    for depose in deposing {
        let mut bench = Bench::serving();
        bench.put(OTHERS_NODE, Bytes::new());
        let epoch = hold_pair(&mut bench);
        let reign = others_swap(&mut bench, epoch, 2);
        depose(&mut bench);
        bench.pass(9_000, Fate::Done);
        let decisions = bench.take();
        let of_room = |decision: &&Decision| !matches!(decision, Decision::Serving | Decision::NotServing);
        let of_room: Vec<_> = decisions.iter().filter(of_room).cloned().collect();
        let up = Decision::NodeUp { id: OTHER, record: v1::NodeRecord::default() };
        assert_eq!(of_room.iter().filter(|decision| **decision != up).collect::<Vec<_>>(), [&deposed(reign)]);
        assert_eq!(bench.registrar.reign(&name("r")), None);
        assert_eq!(bench.registrar.stats().rooms, 0);
        // From then on, this node sends nothing about the room.
        let before = bench.requests.len();
        bench.registrar.update_room(bench.now, &name("r"), 1, 1, 1);
        pair(&mut bench, Some(THIRD));
        bench.registrar.release_room(bench.now, &name("r"));
        bench.collect();
        assert_eq!(bench.requests.len(), before);
        bench.pass(90_000, Fate::Done);
        assert_eq!(found(&mut bench).0, reign);
        claim(&mut bench);
        bench.settle();
        assert_eq!(bench.take(), told(RoomClaim::Elsewhere(reign)));
    }
}

#[test]
fn a_release_keeps_the_record_of_a_later_term() {
    for fate in [Fate::Done, Fate::Lost] {
        let mut bench = Bench::serving();
        bench.put(OTHERS_NODE, Bytes::new());
        let epoch = hold_pair(&mut bench);
        let reign = others_swap(&mut bench, epoch, 2);
        bench.registrar.release_room(bench.now, &name("r"));
        bench.collect();
        bench.step(fate);
        bench.pass(90_000, Fate::Done);
        assert_eq!(found(&mut bench).0, reign);
        // Even if a later term is one of this node.
        let mut bench = Bench::serving();
        bench.put(OTHERS_NODE, Bytes::new());
        let epoch = hold_pair(&mut bench);
        let reign = put(&mut bench, Reign { term: 3, backup: Some(OTHER), ..Reign::first(epoch, ME) });
        bench.registrar.release_room(bench.now, &name("r"));
        bench.collect();
        bench.step(fate);
        bench.pass(90_000, Fate::Done);
        assert_eq!(found(&mut bench).0, reign);
    }
}

#[test]
fn a_release_deletes_the_record_of_its_own_term_with_its_backup() {
    let mut bench = Bench::serving();
    bench.put(OTHERS_NODE, Bytes::new());
    hold_pair(&mut bench);
    // A write that nobody has heard of changes the revision.
    pair(&mut bench, Some(THIRD));
    bench.step(Fate::Unheard);
    bench.registrar.release_room(bench.now, &name("r"));
    bench.collect();
    bench.pass(9_000, Fate::Done);
    assert_eq!(record(&mut bench), None);
}

#[test]
fn a_pair_is_lost_to_another_epoch_and_without_a_record() {
    let mut bench = Bench::serving();
    let epoch = hold_pair(&mut bench);
    let later = put(&mut bench, Reign::first(epoch + 90, OTHER));
    pair(&mut bench, None);
    bench.settle();
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch: later.epoch }]);
    delete(&mut bench, KEY);
    let epoch = hold_pair(&mut bench);
    delete(&mut bench, KEY);
    pair(&mut bench, None);
    bench.settle();
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch }]);
}

/// Another program, or a store that went back. The store is looked at first.
#[test]
fn a_lower_term_deposes_nobody() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    others_swap(&mut bench, epoch, 1);
    pair(&mut bench, Some(OTHER));
    bench.settle();
    assert_eq!(bench.take(), []);
    bench.pass(1_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch: epoch + 1 }]);
}

#[test]
fn nobody_takes_a_room_over_that_has_a_backup_even_if_neither_node_lives() {
    let mut bench = Bench::serving();
    let reign = put(&mut bench, Reign { term: 4, backup: Some(THIRD), ..Reign::first(2, OTHER) });
    let written = |bench: &mut Bench| bench.get(KEY).map(|kv| kv.modified);
    for _ in 0..2 {
        claim(&mut bench);
        bench.settle();
        assert_eq!(bench.take(), told(RoomClaim::Elsewhere(reign)));
        assert_eq!(written(&mut bench), Some(reign.revision));
        bench.pass(20_000, Fate::Done);
    }
    // A room without a backup is taken over, in whatever term it is.
    put(&mut bench, Reign { term: 4, ..Reign::first(2, OTHER) });
    let epoch = hold(&mut bench);
    assert!(epoch > 2);
    assert_eq!(bench.registrar.reign(&name("r")).unwrap().term, 1, "of the new epoch");
}

#[test]
fn a_claim_is_not_executed_if_a_backup_is_named_meanwhile() {
    let mut bench = Bench::serving();
    put(&mut bench, Reign::first(2, OTHER));
    claim(&mut bench);
    // The record is read. The claim that follows compares it.
    bench.step(Fate::Done);
    let reign = put(&mut bench, Reign { backup: Some(THIRD), ..Reign::first(2, OTHER) });
    bench.settle();
    assert_eq!(bench.take(), told(RoomClaim::Elsewhere(reign)));
}

#[test]
fn a_room_with_a_backup_outlives_the_nodes_lease_and_ends_with_its_own() {
    let mut bench = Bench::serving();
    let epoch = hold_pair(&mut bench);
    let (reign, _) = found(&mut bench);
    bench.pass(20_000, Fate::Unavailable);
    assert_eq!(bench.take(), [Decision::NotServing]);
    let at = bench.now.instant;
    assert!(bench.registrar.keeps_rooms(at) && !bench.registrar.may_serve(at));
    assert_eq!(bench.registrar.reign(&name("r")), Some(reign));
    bench.pass(5_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
    assert_eq!(bench.registrar.reign(&name("r")), Some(reign));
    bench.pass(48_000, Fate::Unavailable);
    assert!(bench.registrar.keeps_rooms(bench.now.instant));
    bench.pass(8_000, Fate::Unavailable);
    assert!(!bench.registrar.keeps_rooms(bench.now.instant), "the margin");
    bench.pass(10_000, Fate::Unavailable);
    bench.take();
    bench.pass(5_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch }, Decision::Serving]);
    assert!(bench.registrar.keeps_rooms(bench.now.instant));
}

#[test]
fn rooms_are_not_kept_without_a_lease_a_store_or_a_registrar_that_runs() {
    let mut bench = Bench::new(RegistrarConfig::default());
    assert!(!bench.registrar.keeps_rooms(bench.now.instant), "no lease yet");
    bench.settle();
    assert!(bench.registrar.keeps_rooms(bench.now.instant));
    // A new connection to the same store.
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 1 });
    bench.collect();
    assert!(bench.registrar.keeps_rooms(bench.now.instant));
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 2 });
    bench.collect();
    assert!(!bench.registrar.keeps_rooms(bench.now.instant), "another store");
    let mut bench = Bench::serving();
    bench.registrar.stop(bench.now);
    assert!(!bench.registrar.keeps_rooms(bench.now.instant));
}

#[test]
fn the_state_is_written_at_most_once_in_its_time_even_if_the_turn_changes() {
    let mut bench = Bench::serving();
    hold_pair(&mut bench);
    bench.pass(6_000, Fate::Done);
    let before = bench.registry.revision();
    for turn in 1..=60 {
        bench.registrar.update_room(bench.now, &name("r"), turn, turn, 0);
        bench.collect();
        bench.pass(500, Fate::Done);
    }
    let writes = bench.registry.revision() - before;
    assert!((6..=7).contains(&writes), "{writes} writes in 30 seconds");
    let refresh = RegistrarConfig::default().room_refresh;
    assert_eq!(refresh, Duration::from_secs(5));
    bench.pass(5_000, Fate::Done);
    assert_eq!(record(&mut bench).unwrap().turn, 60);
}

#[test]
fn a_request_of_a_pair_compares_the_revision_of_the_record() {
    let mut bench = Bench::serving();
    hold(&mut bench);
    let modified = found(&mut bench).0.revision;
    pair(&mut bench, Some(OTHER));
    let Some(Request::Txn(txn)) = bench.requests.last() else { panic!("a transaction") };
    assert!(txn.compares.contains(&crate::registry::Compare::unchanged(KEY, modified)));
}
