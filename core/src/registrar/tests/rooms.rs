//! Rooms: their primaries, and the writes of their records.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;

use super::bench::{Fate, ME, OTHER, at, name};
use super::*;
use crate::base::time::Duration;
use crate::registrar::keys::{RoomState, room_record};
use crate::registry::{Delete, Request, Span};

pub(super) const KEY: &str = "/rooms/r/state";
pub(super) const OTHERS_NODE: &str = "/nodes/000000000000000b";

pub(super) fn claim(bench: &mut Bench) {
    bench.registrar.claim_room(bench.now, &name("r")).unwrap();
    bench.collect();
}

pub(super) fn hold(bench: &mut Bench) -> u64 {
    claim(bench);
    bench.settle();
    bench.take();
    bench.registrar.holds_room(&name("r")).unwrap()
}

pub(super) fn told(outcome: RoomClaim) -> Vec<Decision> {
    vec![Decision::Room { room: name("r"), outcome }]
}

/// Outcome of a claim that wrote the record at this revision.
fn primary(epoch: u64) -> RoomClaim {
    RoomClaim::Primary(Reign { revision: epoch, ..Reign::first(epoch, ME) })
}

/// Outcome of a claim that found another node's record, written at this revision.
fn elsewhere(epoch: u64) -> RoomClaim {
    RoomClaim::Elsewhere(Reign { revision: epoch, ..Reign::first(epoch, OTHER) })
}

fn others(epoch: u64) -> Bytes {
    room_record(Reign::first(epoch, OTHER), 0, RoomState::default())
}

pub(super) fn record(bench: &mut Bench) -> Option<v1::RoomRecord> {
    Some(v1::RoomRecord::decode(bench.get(KEY)?.value).unwrap())
}

pub(super) fn delete(bench: &mut Bench, key: &'static str) {
    bench.ask(&Request::Delete(Delete::of(Span::one(Bytes::from_static(key.as_bytes())))));
}

#[test]
fn a_room_that_nobody_has_is_ours_with_the_revision_for_an_epoch() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    claim(&mut bench);
    bench.settle();
    let epoch = bench.registry.revision();
    assert_eq!(bench.take(), told(primary(epoch)), "one answer for both");
    assert_eq!(record(&mut bench).unwrap().primary, ME.0);
    let lease = bench.get(KEY).unwrap().lease;
    assert!(lease.is_some() && lease != bench.get("/nodes/000000000000000a").unwrap().lease);
    claim(&mut bench);
    assert!(bench.calls.is_empty());
    assert_eq!(bench.take(), told(primary(epoch)), "what is held is not asked for");
}

#[test]
fn a_room_of_a_node_that_lives_is_elsewhere() {
    let mut bench = Bench::serving();
    bench.put(OTHERS_NODE, Bytes::new());
    let epoch = bench.put(KEY, others(0));
    // Before and after the news of the node.
    for _ in 0..2 {
        claim(&mut bench);
        while bench.step(Fate::Done) {}
        assert_eq!(bench.take(), told(elsewhere(epoch)));
        bench.news();
        bench.take();
    }
    assert_eq!(bench.registrar.holds_room(&name("r")), None);
}

#[test]
fn a_room_of_a_node_that_does_not_live_is_taken_over() {
    let mut bench = Bench::serving();
    let before = bench.put(KEY, others(0));
    claim(&mut bench);
    bench.settle();
    let epoch = bench.registry.revision();
    assert!(epoch > before);
    assert_eq!(bench.take(), told(primary(epoch)));
}

#[test]
fn nobody_takes_a_room_over_from_a_node_that_came_back_or_wrote_meanwhile() {
    let mut bench = Bench::serving();
    bench.put(KEY, others(0));
    claim(&mut bench);
    bench.step(Fate::Done);
    bench.put(OTHERS_NODE, Bytes::new());
    let epoch = bench.put(KEY, others(0));
    bench.step(Fate::Done);
    assert_eq!(bench.take(), told(elsewhere(epoch)));
}

#[test]
fn what_nobody_can_read_is_written_over() {
    let mut bench = Bench::serving();
    bench.put(KEY, Bytes::from_static(b"\xff"));
    let epoch = hold(&mut bench);
    assert_eq!(bench.get(KEY).unwrap().modified, epoch);
}

#[test]
fn an_unheard_answer_is_read_from_the_record() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    bench.step(Fate::Unheard);
    let epoch = bench.registry.revision();
    bench.pass(1_000, Fate::Done);
    assert_eq!(bench.take(), told(primary(epoch)));
    assert_eq!(bench.get(KEY).unwrap().modified, epoch);
}

#[test]
fn a_record_of_ours_from_before_gets_a_new_epoch() {
    let mut bench = Bench::serving();
    let before = bench.put(KEY, room_record(Reign::first(1, ME), 0, RoomState::default()));
    let epoch = hold(&mut bench);
    assert!(epoch > before);
}

#[test]
fn an_overdue_claim_is_undone() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    bench.step(Fate::Unheard);
    bench.pass(6_000, Fate::Lost);
    assert_eq!(bench.take(), told(RoomClaim::Unavailable));
    bench.pass(4_000, Fate::Done);
    assert_eq!(record(&mut bench), None);
}

#[test]
fn the_newest_state_is_written_not_too_often() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    let mut written = Vec::new();
    for half in 0..50 {
        bench.registrar.update_room(bench.now, &name("r"), half, half / 2, 5);
        bench.collect();
        bench.pass(500, Fate::Done);
        let players = record(&mut bench).unwrap().players;
        if written.last() != Some(&players) {
            written.push(players);
        }
    }
    assert_eq!(written, [0, 9, 19, 29, 39, 49]);
    bench.pass(5_000, Fate::Done);
    let expected = v1::RoomRecord {
        epoch,
        primary: ME.0,
        players: 49,
        turn: 24,
        countdown_ms: 5,
        base: 0,
        term: 1,
        backup: 0,
    };
    assert_eq!(record(&mut bench), Some(expected));
    assert_eq!(bench.registrar.holds_room(&name("r")), Some(epoch));
    assert_eq!(bench.take(), []);
}

#[test]
fn an_update_is_never_blind() {
    let mut bench = Bench::serving();
    hold(&mut bench);
    let epoch = bench.put(KEY, others(0));
    bench.registrar.update_room(bench.now, &name("r"), 1, 1, 0);
    bench.collect();
    bench.settle();
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch }]);
    assert_eq!(bench.get(KEY).unwrap().modified, epoch);
    assert_eq!(bench.registrar.holds_room(&name("r")), None);
}

/// A store that went back would show such an epoch too, so the node looks at the store first.
#[test]
fn a_room_that_another_program_writes_over_with_a_low_epoch_is_lost_without_a_storm_of_requests() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    let theirs = bench.put(KEY, others(1));
    bench.registrar.update_room(bench.now, &name("r"), 1, 1, 0);
    bench.collect();
    let before = bench.requests.len();
    bench.settle();
    assert_eq!(bench.take(), []);
    bench.pass(1_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch: epoch + 1 }]);
    assert!(bench.requests.len() - before < 8, "{}", bench.requests.len() - before);
    assert_eq!(bench.get(KEY).unwrap().modified, theirs);
}

#[test]
fn an_update_that_was_done_unheard_does_not_lose_the_room() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    bench.registrar.update_room(bench.now, &name("r"), 1, 1, 0);
    bench.collect();
    bench.step(Fate::Unheard);
    bench.registrar.update_room(bench.now, &name("r"), 2, 1, 0);
    bench.collect();
    bench.pass(3_000, Fate::Done);
    assert_eq!(bench.take(), []);
    let record = record(&mut bench).unwrap();
    assert_eq!((record.players, record.epoch), (2, epoch));
}

#[test]
fn an_updated_room_that_is_gone_is_lost() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    delete(&mut bench, KEY);
    bench.registrar.update_room(bench.now, &name("r"), 1, 1, 0);
    bench.collect();
    bench.settle();
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch }]);
    assert_eq!(record(&mut bench), None);
}

#[test]
fn a_released_room_is_gone_and_can_be_claimed_again() {
    let mut bench = Bench::serving();
    let before = hold(&mut bench);
    bench.registrar.update_room(bench.now, &name("r"), 1, 1, 0);
    bench.registrar.release_room(bench.now, &name("r"));
    claim(&mut bench);
    bench.settle();
    let epoch = bench.registrar.holds_room(&name("r")).unwrap();
    assert!(epoch > before);
    assert_eq!(bench.take(), told(primary(epoch)));
    bench.registrar.release_room(bench.now, &name("r"));
    bench.collect();
    bench.settle();
    assert_eq!((record(&mut bench), bench.registrar.stats().rooms), (None, 0));
}

#[test]
fn a_release_does_not_wait_for_a_write_that_waits_for_its_time() {
    let mut bench = Bench::serving();
    hold(&mut bench);
    assert_eq!(record(&mut bench).unwrap().players, 1, "as the claim has written it");
    let claimed = bench.registrar.stats().requests;
    bench.registrar.update_room(bench.now, &name("r"), 1, 0, 0);
    bench.collect();
    assert_eq!(bench.registrar.stats().requests, claimed, "that is written already");
    for players in [2, 3] {
        bench.registrar.update_room(bench.now, &name("r"), players, 0, 0);
        bench.collect();
        bench.settle();
    }
    assert_eq!(record(&mut bench).unwrap().players, 2, "the second write waits");
    bench.registrar.release_room(bench.now, &name("r"));
    bench.collect();
    bench.settle();
    assert_eq!(record(&mut bench), None);
}

#[test]
fn rooms_that_are_ours_go_on_after_the_nodes_lease_was_lost_and_others_do_not() {
    let mut bench = Bench::serving();
    let kept = hold(&mut bench);
    bench.registrar.claim_room(bench.now, &name("s")).unwrap();
    bench.collect();
    bench.settle();
    bench.pass(20_000, Fate::Unavailable);
    assert_eq!(bench.take().last(), Some(&Decision::NotServing));
    let epoch = bench.put("/rooms/s/state", others(0));
    bench.pass(5_000, Fate::Done);
    // The loss is reported before `Serving`: the room has another primary.
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("s"), epoch }, Decision::Serving]);
    assert_eq!(bench.registrar.holds_room(&name("r")), Some(kept));
    bench.registrar.update_room(bench.now, &name("r"), 3, 0, 0);
    bench.collect();
    bench.settle();
    assert_eq!(record(&mut bench).unwrap().players, 3);
}

#[test]
fn does_not_serve_before_every_room_was_checked() {
    let mut bench = Bench::serving();
    hold(&mut bench);
    bench.pass(20_000, Fate::Unavailable);
    bench.take();
    while bench.registrar.stats().doubtful == 0 {
        if !bench.step(Fate::Done) {
            bench.now.instant = bench.registrar.poll_timeout().unwrap().at;
            bench.registrar.handle_timeout(bench.now);
            bench.collect();
        }
    }
    assert_eq!(bench.registrar.leases(), [LeaseState::Held; 2]);
    assert!(!bench.registrar.may_serve(bench.now.instant));
    bench.pass(4_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
}

#[test]
fn all_rooms_are_lost_with_their_lease() {
    let mut bench = Bench::serving();
    let epoch = hold(&mut bench);
    bench.pass(70_000, Fate::Unavailable);
    assert_eq!(bench.take(), [Decision::NotServing]);
    bench.pass(5_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::RoomLost { room: name("r"), epoch }, Decision::Serving]);
    assert_eq!(record(&mut bench), None);
    let again = hold(&mut bench);
    assert!(again > epoch);
    assert_eq!(bench.registrar.stats().leases_lost, 2);
    assert!(bench.registrar.may_serve(at(75_000).instant));
}

/// A claim is executed, the node's record is deleted, another node claims the room, the node registers again,
/// and only then gets the answer to its claim.
#[test]
fn an_answer_from_before_the_registration_is_not_believed() {
    let backoff_max = Duration::from_millis(200);
    let mut bench = Bench::joined(RegistrarConfig { backoff_max, ..RegistrarConfig::default() });
    bench.put(OTHERS_NODE, Bytes::new());
    bench.settle();
    bench.pass(9_950, Fate::Unavailable);
    claim(&mut bench);
    let Some(RegistryCommand::Request { id, request }) = bench.calls.pop_back() else {
        panic!("a claim is asked for")
    };
    let claimed = bench.ask(&request);
    bench.pass(100, Fate::Unavailable);
    let epoch = bench.put(KEY, others(0));
    bench.take();
    bench.pass(1_500, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
    bench.tell(id, Ok(claimed));
    assert_eq!(bench.take(), []);
    bench.settle();
    assert_eq!(bench.take(), told(elsewhere(epoch)));
}

#[test]
fn a_late_claim_that_was_given_up_is_found_by_the_next() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    let Some(RegistryCommand::Request { id, request }) = bench.calls.pop_front() else {
        panic!("a claim is asked for")
    };
    bench.tell(id, Err(Failure::Unknown));
    bench.pass(5_500, Fate::Unavailable);
    bench.pass(4_000, Fate::Done);
    assert_eq!(bench.take(), told(RoomClaim::Unavailable));
    let epoch = bench.ask(&request).revision;
    bench.settle();
    assert_eq!(hold(&mut bench), epoch, "nobody was told of this epoch");
}

#[test]
fn a_claim_that_is_done_after_the_room_was_given_up_is_found_and_undone() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    let late = bench.requests.last().unwrap().clone();
    bench.step(Fate::Lost);
    bench.pass(1_000, Fate::Done);
    bench.registrar.release_room(bench.now, &name("r"));
    bench.collect();
    bench.pass(1_000, Fate::Done);
    assert_eq!(record(&mut bench), None);
    bench.ask(&late);
    assert!(record(&mut bench).is_some(), "it takes the room for one that never was");
    bench.pass(30_000, Fate::Done);
    assert_eq!(record(&mut bench), None);
}

#[test]
fn a_room_that_comes_and_goes_is_looked_at_for_as_long() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    let late = bench.requests.last().unwrap().clone();
    bench.step(Fate::Lost);
    bench.pass(1_000, Fate::Done);
    for _ in 0..10 {
        bench.registrar.release_room(bench.now, &name("r"));
        bench.collect();
        bench.pass(50, Fate::Done);
        claim(&mut bench);
        bench.pass(50, Fate::Done);
    }
    bench.registrar.release_room(bench.now, &name("r"));
    bench.collect();
    bench.pass(1_000, Fate::Done);
    assert_eq!(record(&mut bench), None);
    bench.ask(&late);
    assert!(record(&mut bench).is_some());
    bench.pass(70_000, Fate::Done);
    assert_eq!(record(&mut bench), None);
}

#[test]
fn a_room_that_nobody_has_is_swept_without_being_claimed() {
    let mut bench = Bench::serving();
    claim(&mut bench);
    let late = bench.requests.last().unwrap().clone();
    bench.step(Fate::Done);
    bench.registrar.release_room(bench.now, &name("r"));
    bench.collect();
    bench.settle();
    assert_eq!(record(&mut bench), None);
    bench.take();
    // No record exists, and the sweep writes none that other nodes could find.
    bench.registrar.sweep_room(bench.now, &name("r"));
    bench.collect();
    let revision = bench.registry.revision();
    bench.settle();
    assert_eq!(bench.registry.revision(), revision);
    // A late claim writes a record.
    bench.ask(&late);
    assert!(record(&mut bench).is_some());
    bench.registrar.sweep_room(bench.now, &name("r"));
    bench.collect();
    bench.settle();
    assert_eq!(record(&mut bench), None);
    assert_eq!(bench.take(), []);
    // The sweep keeps the record of a room that this node owns, and that of another node's room.
    claim(&mut bench);
    bench.registrar.sweep_room(bench.now, &name("r"));
    bench.settle();
    bench.registrar.sweep_room(bench.now, &name("r"));
    bench.settle();
    assert!(record(&mut bench).is_some());
    let theirs = bench.put("/rooms/others/state", others(0));
    bench.registrar.sweep_room(bench.now, &name("others"));
    bench.collect();
    bench.settle();
    assert_eq!(bench.get("/rooms/others/state").map(|kv| kv.modified), Some(theirs));
}
