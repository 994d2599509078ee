//! The two leases, the node's record, and the other nodes.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;

use super::bench::{Fate, ME, OTHER, at, name, session};
use super::*;
use crate::base::time::Duration;
use crate::registrar::keys::session_record;
use crate::registry::{Delete, LeaseId, Put, RegistryOp, Request, Span};

const NODE: &str = "/nodes/000000000000000a";

fn hold_session(bench: &mut Bench, player: &str) -> u64 {
    bench
        .registrar
        .claim_session(bench.now, 1, &name(player), None, session(1), DialNumber::default())
        .unwrap();
    bench.collect();
    bench.settle();
    bench.take();
    bench.registrar.holds_session(&name(player)).unwrap()
}

fn delete(bench: &mut Bench, key: &'static str) {
    bench.ask(&Request::Delete(Delete::of(Span::one(Bytes::from_static(key.as_bytes())))));
}

fn lease(bench: &mut Bench) -> Option<LeaseId> {
    bench.get(NODE)?.lease
}

#[test]
fn serves_once_both_leases_are_there_and_the_node_is_registered() {
    let mut bench = Bench::new(RegistrarConfig::default());
    assert!(!bench.registrar.may_serve(bench.now.instant));
    while bench.get(NODE).is_none() {
        assert_eq!(bench.take(), []);
        assert!(bench.step(Fate::Done));
    }
    bench.settle();
    assert_eq!(bench.take(), [Decision::Serving]);
    assert!(bench.registrar.may_serve(bench.now.instant));
    assert_eq!(bench.registrar.leases(), [LeaseState::Held; 2]);
    assert_eq!(bench.registrar.node(ME).unwrap().name, "a");
    assert_eq!(bench.registrar.nodes().count(), 1);
}

#[test]
fn goes_on_for_as_long_as_the_registry_answers() {
    let mut bench = Bench::serving();
    let before = lease(&mut bench);
    bench.pass(600_000, Fate::Done);
    assert_eq!((bench.take(), lease(&mut bench)), (vec![], before));
    let asked = bench.requests.iter().filter(|r| matches!(r, Request::KeepAlive(_))).count();
    assert!((180..=250).contains(&asked), "every third of a time to live: {asked}");
}

#[test]
fn stops_before_a_lease_can_be_over_by_the_registrys_clock_whatever_is_in_flight() {
    for fate in [Fate::Lost, Fate::Unavailable, Fate::Unheard] {
        let mut bench = Bench::serving();
        bench.pass(8_999, fate);
        let last = at(9_000).instant;
        assert!(bench.registrar.may_serve(Instant::from_micros(8_999_999)), "{fate:?}");
        assert!(!bench.registrar.may_serve(last), "nothing need be called for that");
        assert_eq!(bench.take(), []);
        bench.pass(1, fate);
        assert_eq!(bench.take(), [Decision::NotServing], "{fate:?}");
    }
}

#[test]
fn a_driver_that_was_paused_may_not_serve_though_nothing_was_said_yet() {
    let mut bench = Bench::serving();
    assert!(!bench.registrar.may_serve(at(30_000).instant));
    bench.now = at(30_000);
    bench.registrar.update_room(bench.now, &name("r"), 1, 1, 0);
    bench.collect();
    assert_eq!(bench.take(), [Decision::NotServing]);
}

#[test]
fn a_lease_counts_from_when_its_keep_alive_was_sent() {
    let mut bench = Bench::serving();
    bench.now = at(3_400);
    bench.registrar.handle_timeout(bench.now);
    bench.collect();
    // The answers take a second and a half.
    bench.now = at(4_900);
    bench.settle();
    assert!(bench.registrar.may_serve(at(12_399).instant));
    assert!(!bench.registrar.may_serve(at(12_400).instant));
}

#[test]
fn a_lease_that_lived_on_costs_nothing() {
    let mut bench = Bench::serving();
    let epoch = hold_session(&mut bench, "p");
    let before = lease(&mut bench);
    bench.pass(9_500, Fate::Unavailable);
    assert_eq!(bench.take(), [Decision::NotServing]);
    bench.registry.handle_leader_change(bench.now.instant);
    bench.pass(4_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
    assert_eq!((lease(&mut bench), bench.registrar.holds_session(&name("p"))), (before, Some(epoch)));
    assert_eq!(bench.registrar.stats().leases_lost, 0);
}

#[test]
fn everything_is_registered_afresh_after_a_lease_was_lost() {
    let mut bench = Bench::serving();
    let epoch = hold_session(&mut bench, "p");
    let before = lease(&mut bench);
    bench.pass(70_000, Fate::Unavailable);
    assert_eq!((lease(&mut bench), bench.registry.leases()), (None, 0));
    bench.take();
    bench.pass(5_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
    assert!(lease(&mut bench).is_some() && lease(&mut bench) != before);
    let now = bench.registrar.holds_session(&name("p")).unwrap();
    assert!(now > epoch, "the record was gone");
    let kv = bench.get("/sessions/player:p").unwrap();
    assert_eq!(kv.modified, now);
    assert!(kv.lease.is_some() && kv.lease != lease(&mut bench), "it has the longer lease");
}

#[test]
fn a_session_outlives_the_lease_of_its_node() {
    let mut bench = Bench::serving();
    let epoch = hold_session(&mut bench, "p");
    let before = bench.get("/sessions/player:p");
    bench.pass(20_000, Fate::Unavailable);
    assert_eq!((lease(&mut bench), bench.get("/sessions/player:p")), (None, before.clone()));
    bench.take();
    bench.pass(5_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
    assert_eq!(bench.registrar.holds_session(&name("p")), Some(epoch));
    assert_eq!(bench.get("/sessions/player:p"), before);
    // As long as it is promised, even if the node dies just before it renews its leases.
    let outlives = RegistrarConfig::default().outlives();
    bench.registry.handle_timeout(bench.now.instant + outlives);
    assert_eq!(bench.get("/sessions/player:p"), before);
}

#[test]
fn a_session_that_another_node_took_meanwhile_is_lost() {
    let mut bench = Bench::serving();
    hold_session(&mut bench, "p");
    bench.pass(20_000, Fate::Unavailable);
    bench.take();
    let ids = bench.watch_ids();
    ids.iter().for_each(|id| bench.registry.unwatch(*id));
    let epoch =
        bench.put("/sessions/player:p", session_record(session(1), DialNumber::default(), OTHER, 0, 0));
    bench.pass(5_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving, Decision::SessionLost { player: name("p"), epoch }]);
    assert_eq!(bench.get("/sessions/player:p").unwrap().modified, epoch);
}

#[test]
fn a_session_whose_record_outlived_the_registration_keeps_its_epoch() {
    let mut bench = Bench::serving();
    let epoch = hold_session(&mut bench, "p");
    let before = lease(&mut bench);
    let record = bench.get("/sessions/player:p");
    delete(&mut bench, NODE);
    bench.news();
    assert_eq!(bench.take(), [Decision::NotServing], "somebody deleted the node's record");
    bench.pass(3_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
    let after = lease(&mut bench);
    assert!(after.is_some() && after != before);
    assert_eq!(bench.registrar.holds_session(&name("p")), Some(epoch));
    bench.pass(100_000, Fate::Done);
    assert_eq!(bench.get("/sessions/player:p"), record, "it does not go with the old lease");
}

#[test]
fn a_lease_that_was_granted_unheard_ends_by_itself() {
    let mut bench = Bench::joined(RegistrarConfig::default());
    while bench.step(Fate::Unheard) {}
    assert_eq!(bench.registry.leases(), 2);
    bench.pass(1_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::Serving]);
    assert_eq!(bench.registry.leases(), 4, "it is not asked for again");
    bench.pass(70_000, Fate::Done);
    assert_eq!(bench.registry.leases(), 2);
    assert_eq!(bench.take(), [], "it serves all the time");
}

#[test]
fn the_record_is_refreshed_when_something_is_new_and_not_too_often() {
    let mut bench = Bench::serving();
    let mut written = Vec::new();
    for second in 0..60 {
        bench.registrar.set_metadata(bench.now, second, 1, false);
        bench.collect();
        bench.pass(1_000, Fate::Done);
        let modified = bench.get(NODE).unwrap().modified;
        if written.last() != Some(&modified) {
            written.push(modified);
        }
    }
    assert!((8..=13).contains(&written.len()), "{written:?}");
    bench.registrar.set_metadata(bench.now, 99, 2, true);
    bench.collect();
    bench.settle();
    let record = v1::NodeRecord::decode(bench.get(NODE).unwrap().value).unwrap();
    assert_eq!((record.connections, record.rooms, record.draining), (99, 2, true), "at once");
    assert_eq!(bench.registrar.node(ME), Some(&record));
    let newest = bench.get(NODE).unwrap().modified;
    bench.pass(60_000, Fate::Done);
    assert_eq!(bench.get(NODE).unwrap().modified, newest, "nothing is new");
}

#[test]
fn claims_wait_for_the_registration_and_are_unavailable_if_it_takes_too_long() {
    let mut bench = Bench::new(RegistrarConfig::default());
    bench.registrar.claim_session(bench.now, 1, &name("p"), None, session(1), DialNumber::default()).unwrap();
    bench.registrar.claim_room(bench.now, &name("r")).unwrap();
    bench.collect();
    bench.pass(5_000, Fate::Unavailable);
    let room = Decision::Room { room: name("r"), outcome: RoomClaim::Unavailable };
    let player = Decision::Session { token: 1, player: name("p"), outcome: SessionClaim::Unavailable };
    assert_eq!(bench.take(), [player, room]);
    bench.registrar.claim_session(bench.now, 2, &name("p"), None, session(1), DialNumber::default()).unwrap();
    bench.collect();
    bench.pass(3_000, Fate::Done);
    let decisions = bench.take();
    assert!(decisions.contains(&Decision::Serving));
    let is_granted =
        |d: &Decision| matches!(d, Decision::Session { token: 2, outcome: SessionClaim::Granted { .. }, .. });
    assert!(decisions.iter().any(is_granted), "{decisions:?}");
}

#[test]
fn other_nodes_come_and_go() {
    let mut bench = Bench::joined(RegistrarConfig::default());
    let record = v1::NodeRecord { name: "b".into(), ..v1::NodeRecord::default() };
    bench.put("/nodes/000000000000000b", record.encode_to_vec().into());
    bench.put("/nodes/who", Bytes::new());
    bench.settle();
    assert!(bench.take().contains(&Decision::NodeUp { id: OTHER, record: record.clone() }));
    let busy = v1::NodeRecord { connections: 7, ..record };
    bench.put("/nodes/000000000000000b", busy.encode_to_vec().into());
    bench.put("/nodes/000000000000000c", Bytes::from_static(b"\xff"));
    bench.settle();
    let unread = Decision::NodeUp { id: NodeId(0xC), record: v1::NodeRecord::default() };
    assert_eq!(bench.take(), [unread], "a node lives though its record cannot be read");
    assert_eq!(bench.registrar.node(OTHER), Some(&busy));
    delete(&mut bench, "/nodes/000000000000000b");
    bench.settle();
    assert_eq!(bench.take(), [Decision::NodeDown { id: OTHER }]);
    assert_eq!(bench.registrar.stats().garbage, 2);
}

#[test]
fn directories_are_read_page_by_page_and_watched_from_the_revision_of_the_read() {
    let mut bench = Bench::joined(RegistrarConfig { page: 3, ..RegistrarConfig::default() });
    for id in 0x20..0x2A {
        bench.put(&format!("/nodes/{id:016x}"), Bytes::new());
    }
    // One node starts and another one stops while the pages are read.
    let mut steps = 0;
    while bench.step(Fate::Done) {
        steps += 1;
        if steps == 5 {
            bench.put("/nodes/0000000000000001", Bytes::new());
            delete(&mut bench, "/nodes/0000000000000029");
        }
    }
    bench.settle();
    let known: Vec<u64> = bench.registrar.nodes().map(|(id, _)| id.0).collect();
    assert_eq!(known, [1, 0xA, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28]);
}

#[test]
fn the_end_is_graceful() {
    let mut bench = Bench::serving();
    hold_session(&mut bench, "p");
    bench.registrar.claim_session(bench.now, 2, &name("q"), None, session(1), DialNumber::default()).unwrap();
    bench.collect();
    bench.registrar.stop(bench.now);
    bench.collect();
    let unavailable = Decision::Session { token: 2, player: name("q"), outcome: SessionClaim::Unavailable };
    assert_eq!(bench.take(), [unavailable, Decision::NotServing]);
    while bench.step(Fate::Done) {}
    assert!(bench.get(NODE).is_none() && bench.get("/sessions/player:p").is_none());
    assert_eq!(bench.registry.leases(), 0);
    assert_eq!(bench.registrar.leases(), [LeaseState::Idle; 2]);
    assert_eq!(bench.registrar.poll_timeout(), None);
    bench.registrar.claim_session(bench.now, 3, &name("q"), None, session(1), DialNumber::default()).unwrap();
    bench.collect();
    assert!(matches!(
        bench.take()[..],
        [Decision::Session { token: 3, outcome: SessionClaim::Unavailable, .. }]
    ));
}

#[test]
fn nodes_that_lose_their_leases_together_do_not_register_sessions_again_together() {
    let jitter = RegistrarConfig::default().jitter;
    let mut waits = Vec::new();
    for seed in 0..20 {
        let mut bench = Bench::seeded(RegistrarConfig::default(), [seed; 32]);
        bench.pass(1_000, Fate::Done);
        bench
            .registrar
            .claim_session(bench.now, 1, &name("p"), None, session(1), DialNumber::default())
            .unwrap();
        bench.collect();
        bench.settle();
        bench.now.instant = bench.now.instant + Duration::from_secs(70);
        bench.registry.handle_timeout(bench.now.instant);
        bench.registrar.handle_timeout(bench.now);
        // Runs until the node is registered again, and then until the session is.
        let mut node_at = None;
        while bench.get("/sessions/player:p").is_none() {
            bench.collect();
            while bench.step(Fate::Done) {}
            if node_at.is_none() && bench.get(NODE).is_some() {
                node_at = Some(bench.now.instant);
            }
            if bench.get("/sessions/player:p").is_none() {
                bench.now.instant = bench.registrar.poll_timeout().unwrap().at;
                bench.registrar.handle_timeout(bench.now);
            }
        }
        waits.push(bench.now.instant.since(node_at.unwrap()));
    }
    assert!(waits.iter().all(|wait| *wait <= jitter), "{waits:?}");
    waits.sort();
    let spread = waits[waits.len() - 1].saturating_sub(waits[0]);
    assert!(spread > jitter / 2, "{waits:?}");
    waits.dedup();
    assert!(waits.len() > 15, "{waits:?}");
}

#[test]
fn many_sessions_are_registered_again_in_batches() {
    let mut bench = Bench::serving();
    let players: Vec<Name> = (0..20_000).map(|i| name(&format!("p{i}"))).collect();
    for group in players.chunks(4_000) {
        for player in group {
            bench
                .registrar
                .claim_session(bench.now, 1, player, None, session(1), DialNumber::default())
                .unwrap();
        }
        bench.collect_unchecked();
        while !bench.calls.is_empty() {
            let before = bench.calls.len();
            for _ in 0..before {
                bench.step_unchecked(Fate::Done);
            }
        }
        bench.news();
    }
    assert_eq!(bench.registrar.stats().sessions, 20_000);
    bench.take();
    bench.now.instant = bench.now.instant + Duration::from_secs(70);
    bench.registry.handle_timeout(bench.now.instant);
    bench.registrar.handle_timeout(bench.now);
    assert_eq!(bench.registry.keys(), 1, "that of the generation");
    let mut most = 0;
    for _ in 0..100_000 {
        bench.collect_unchecked();
        if bench.calls.is_empty() {
            if bench.registrar.stats().doubtful == 0 && bench.registrar.may_serve(bench.now.instant) {
                break;
            }
            bench.now.instant = bench.registrar.poll_timeout().unwrap().at;
            bench.registrar.handle_timeout(bench.now);
        }
        most = most.max(bench.registrar.stats().background);
        bench.step_unchecked(Fate::Done);
    }
    let stats = bench.registrar.stats();
    assert_eq!((stats.sessions, stats.doubtful, most), (20_000, 0, 64));
    assert_eq!(bench.registry.keys(), 20_002, "with the node's own and that of the generation");
    bench.registrar.audit().unwrap();
}

#[test]
fn a_registration_that_is_done_late_does_not_move_the_record_to_a_lease_that_was_given_up() {
    let mut bench = Bench::new(RegistrarConfig::default());
    // The first lease is granted, and the answer to the first write under this lease is late.
    let is_leased = |op: &RegistryOp| matches!(op, RegistryOp::Put(put) if put.lease.is_some());
    let registers =
        |request: &Request| matches!(request, Request::Txn(txn) if txn.success.iter().any(is_leased));
    while !bench.requests.iter().any(registers) {
        if !bench.step(Fate::Done) {
            bench.pass(10, Fate::Done);
        }
        bench.collect();
    }
    let late = bench.requests.iter().find(|request| registers(request)).unwrap().clone();
    let Request::Txn(txn) = &late else { unreachable!() };
    let first = txn
        .success
        .iter()
        .find_map(|op| if let RegistryOp::Put(put) = op { put.lease } else { None })
        .unwrap();
    // The registry prolongs that lease again and again, as after changes of its leader.
    let pass = |bench: &mut Bench, seconds, fate| {
        for _ in 0..seconds {
            bench.pass(1_000, fate);
            bench.ask(&Request::KeepAlive(first));
        }
    };
    pass(&mut bench, 12, Fate::Lost);
    // Another lease is granted, and the node serves under the new one.
    pass(&mut bench, 20, Fate::Done);
    assert!(bench.registrar.may_serve(bench.now.instant));
    let lease = bench.get(NODE).unwrap().lease;
    assert_eq!(lease, bench.registrar.lease());
    assert_ne!(lease, Some(first));
    bench.ask(&late);
    assert_eq!(bench.get(NODE).unwrap().lease, lease);
    // A late refresh changes nothing either, if the record was written under another lease meanwhile.
    bench.registrar.set_metadata(bench.now, 1, 1, true);
    bench.collect();
    let refresh = bench.requests.iter().rev().find(|request| registers(request)).unwrap().clone();
    let other = Put::new(NODE, "anew", Some(LeaseId(4242)));
    bench.ask(&Request::Grant { id: LeaseId(4242), ttl_s: 60 });
    bench.ask(&Request::Put(other));
    bench.ask(&refresh);
    assert_eq!(bench.get(NODE).unwrap().lease, Some(LeaseId(4242)));
}

#[test]
fn a_lease_that_is_granted_late_is_not_one_that_was_granted_and_has_ended() {
    let mut bench = Bench::joined(RegistrarConfig::default());
    // The answers to the first grants are lost.
    bench.pass(20_000, Fate::Lost);
    bench.pass(20_000, Fate::Done);
    assert!(bench.registrar.may_serve(bench.now.instant));
    let grants: Vec<Request> =
        bench.requests.iter().filter(|request| matches!(request, Request::Grant { .. })).cloned().collect();
    let ids =
        grants.iter().map(|request| if let Request::Grant { id, .. } = request { *id } else { LeaseId(0) });
    let ids: Vec<LeaseId> = ids.collect();
    assert!(ids.len() > 4, "{ids:?}");
    let mut distinct = ids.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    // All leases end, and then the registry executes all earlier grants again.
    bench.now.instant = bench.now.instant + Duration::from_secs(300);
    bench.registry.handle_timeout(bench.now.instant);
    let own = bench.registrar.lease();
    for grant in grants.iter().filter(|grant| !matches!(grant, Request::Grant { id, .. } if Some(*id) == own))
    {
        bench.ask(grant);
    }
    bench.pass(100, Fate::Done);
    assert!(bench.registrar.lease().is_none_or(|lease| !ids.contains(&lease)));
}
