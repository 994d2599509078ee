//! Registries that go back, are emptied, or are replaced.

use bytes::Bytes;
use prost::Message as _;

use super::bench::{Fate, name, session};
use super::*;
use crate::base::time::Duration;
use crate::registry::{Delete, Registry, RegistryConfig, Request, Response, Snapshot, Span};

const KEY: &str = "/generation";

/// Returns a serving bench with a session and a room, a snapshot from before both claims, and the room's
/// epoch.
fn holding() -> (Bench, Snapshot, u64) {
    let mut bench = Bench::serving();
    let copy = bench.registry.snapshot();
    bench.registrar.claim_session(bench.now, 1, &name("p"), None, session(1), DialNumber::default()).unwrap();
    bench.registrar.claim_room(bench.now, &name("r")).unwrap();
    bench.collect();
    bench.settle();
    bench.take();
    let epoch = bench.registrar.holds_room(&name("r")).unwrap();
    (bench, copy, epoch)
}

/// Returns the reason of a new beginning since the last call, and then checks that the node owns nothing.
fn anew(bench: &mut Bench) -> Option<Anew> {
    let decisions = bench.take();
    let why = decisions.iter().find_map(|d| if let Decision::Anew { why } = d { Some(*why) } else { None });
    if why.is_some() {
        assert!(decisions.contains(&Decision::NotServing), "{decisions:?}");
        assert_eq!(bench.registrar.holds_session(&name("p")), None);
        assert_eq!(bench.registrar.holds_room(&name("r")), None);
    }
    why
}

/// Checks that the node serves again within the time to live of rooms and some seconds, and claims the room with a
/// higher epoch.
fn recovers(bench: &mut Bench, before: u64) {
    bench.pass(75_000, Fate::Done);
    assert!(bench.registrar.may_serve(bench.now.instant));
    bench.registrar.claim_room(bench.now, &name("r")).unwrap();
    bench.collect();
    bench.pass(1_000, Fate::Done);
    let epoch = bench.registrar.holds_room(&name("r")).unwrap();
    assert!(epoch > before, "{before}, then {epoch}");
    assert_eq!(bench.registrar.nodes().count(), 1);
}

#[test]
fn a_registry_that_went_back_is_noticed_by_its_revision_and_no_epoch_is_given_twice() {
    for wiped in [false, true] {
        let (mut bench, copy, epoch) = holding();
        bench.registry.restore(bench.now.instant, Some(copy).filter(|_| !wiped));
        bench.pass(4_000, Fate::Done);
        assert!(matches!(anew(&mut bench), Some(Anew::Revision { .. })));
        bench.pass(2_000, Fate::Done);
        assert!(!bench.registrar.may_serve(bench.now.instant), "others may not have noticed");
        recovers(&mut bench, epoch);
    }
}

#[test]
fn a_registry_that_was_emptied_or_replaced_is_noticed() {
    let (mut bench, _, epoch) = holding();
    bench.ask(&Request::Delete(Delete::of(Span::from("/"))));
    bench.settle();
    assert_eq!(anew(&mut bench), Some(Anew::Emptied));
    recovers(&mut bench, epoch);

    let (mut bench, _, epoch) = holding();
    let config = RegistryConfig { base_revision: 5_000, ..RegistryConfig::etcd() };
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 7 });
    bench.collect();
    bench.settle();
    assert_eq!(anew(&mut bench), None, "the first cluster that it hears of");
    bench.registry = Registry::new(config, bench.now.instant);
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 8 });
    bench.collect();
    bench.settle();
    assert_eq!(anew(&mut bench), Some(Anew::Cluster));
    recovers(&mut bench, epoch);
}

#[test]
fn a_registry_that_lost_what_it_had_acknowledged_and_was_written_on_is_noticed() {
    let (mut bench, copy, epoch) = holding();
    bench.registrar.set_metadata(bench.now, 1, 1, true);
    bench.collect();
    bench.settle();
    let revision = bench.registry.revision();
    bench.registry.restore(bench.now.instant, Some(copy));
    while bench.registry.revision() <= revision {
        bench.put("/other", Bytes::new());
    }
    bench.pass(4_000, Fate::Done);
    assert_eq!(anew(&mut bench), Some(Anew::Record));
    recovers(&mut bench, epoch);
}

/// The change that the registry lost was the last thing that the node heard of it.
#[test]
fn a_registry_that_lost_a_change_of_the_key_that_was_only_watched_is_noticed() {
    let (mut bench, _, epoch) = holding();
    let copy = bench.registry.snapshot();
    let known = bench.get(KEY).unwrap();
    let record = v1::GenerationRecord::decode(known.value).unwrap();
    let raised = v1::GenerationRecord { base: record.base + 1, ..record };
    bench.put(KEY, raised.encode_to_vec().into());
    bench.news();
    bench.registry.restore(bench.now.instant, Some(copy));
    bench.pass(4_000, Fate::Done);
    assert!(matches!(anew(&mut bench), Some(Anew::Revision { .. })));
    recovers(&mut bench, epoch);
}

/// A later read would find no revision that is too low.
#[test]
fn a_write_with_a_revision_that_was_there_before_shows_that_the_registry_went_back() {
    let (mut bench, copy, epoch) = holding();
    let revision = bench.registry.revision();
    bench.registry.restore(bench.now.instant, Some(copy));
    while bench.registry.revision() < revision - 1 {
        bench.put("/other", Bytes::new());
    }
    bench.registrar.claim_room(bench.now, &name("s")).unwrap();
    bench.collect();
    bench.settle();
    assert_eq!(anew(&mut bench), Some(Anew::Revision { had: revision, has: revision - 1 }));
    recovers(&mut bench, epoch);
}

#[test]
fn the_newest_write_is_looked_for_in_the_history_of_a_registry_that_was_written_on() {
    let (mut bench, copy, epoch) = holding();
    let revision = bench.registry.revision();
    bench.registry.restore(bench.now.instant, Some(copy));
    while bench.registry.revision() <= revision {
        bench.put("/other", Bytes::new());
    }
    bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 1 });
    bench.collect();
    assert!(bench.step(Fate::Unavailable), "it is asked again");
    bench.pass(2_000, Fate::Done);
    assert_eq!(anew(&mut bench), Some(Anew::Lost));
    recovers(&mut bench, epoch);
}

#[test]
fn a_connection_to_the_same_registry_changes_nothing_though_its_history_is_compacted() {
    for compacted in [false, true] {
        let (mut bench, _, epoch) = holding();
        bench.put("/other", Bytes::new());
        if compacted {
            let revision = bench.registry.revision();
            bench.ask(&Request::Compact { revision });
        }
        bench.registrar.handle_event(bench.now, RegistryEvent::Connected { cluster: 1 });
        bench.pass(4_000, Fate::Done);
        assert_eq!(bench.registrar.holds_room(&name("r")), Some(epoch));
        assert_eq!(anew(&mut bench), None);
        assert!(bench.registrar.may_serve(bench.now.instant));
    }
}

/// No live node knows the earlier epochs: the base alone keeps epochs apart.
#[test]
fn a_node_that_starts_on_a_copy_gives_no_epoch_that_was_given_since_the_copy() {
    let (mut bench, copy, epoch) = holding();
    let mut fresh = Bench::seeded(RegistrarConfig::default(), [9; 32]);
    fresh.now.wall = Wall(1_800_000_000_000);
    fresh.registry.restore(fresh.now.instant, Some(copy));
    recovers(&mut fresh, epoch);
    // A node that knows earlier epochs follows the base of the store, which is above its own.
    bench.registry.restore(bench.now.instant, Some(fresh.registry.snapshot()));
    recovers(&mut bench, fresh.registrar.holds_room(&name("r")).unwrap());
}

#[test]
fn a_member_that_lags_is_not_taken_for_a_registry_that_went_back() {
    let (mut bench, _, epoch) = holding();
    for _ in 0..40 {
        bench.pass(500, Fate::Done);
        while let Some(call) = bench.calls.pop_front() {
            let RegistryCommand::Request { id, request } = call else { continue };
            let answer = bench.registry.handle(bench.now.instant, &request);
            let lags = matches!(request, Request::KeepAlive(_));
            let behind = |response| Response { revision: 1, ..response };
            bench.tell(id, answer.map(|a| if lags { behind(a) } else { a }).map_err(Failure::Refused));
        }
    }
    assert_eq!((anew(&mut bench), bench.registrar.holds_room(&name("r"))), (None, Some(epoch)));
}

#[test]
fn what_another_life_has_written_is_not_touched_by_a_node_that_has_not_noticed() {
    let (mut bench, _, _) = holding();
    // Another node has begun anew. This node notices only by its own requests.
    for id in bench.watch_ids() {
        bench.registry.unwatch(id);
    }
    let record = v1::GenerationRecord { life: 42, base: 7, closed: false };
    bench.put(KEY, prost::Message::encode_to_vec(&record).into());
    bench.registrar.claim_room(bench.now, &name("s")).unwrap();
    bench.collect();
    bench.settle();
    assert_eq!(bench.get("/rooms/s/state"), None);
    assert_eq!(anew(&mut bench), Some(Anew::Life));
    bench.pass(3_000, Fate::Done);
    assert!(bench.registrar.may_serve(bench.now.instant), "that life is open");
}

#[test]
fn a_life_that_its_writer_left_closed_is_opened_by_whoever_is_there() {
    let mut bench = Bench::joined(RegistrarConfig::default());
    let record = v1::GenerationRecord { life: 42, base: 7, closed: true };
    bench.put(KEY, prost::Message::encode_to_vec(&record).into());
    bench.pass(59_000, Fate::Done);
    assert!(!bench.registrar.may_serve(bench.now.instant));
    bench.pass(6_000, Fate::Done);
    assert!(bench.registrar.may_serve(bench.now.instant));
    let ttl = RegistrarConfig::default().room_ttl;
    assert!(bench.now.instant.since(Instant::ZERO) >= ttl + Duration::from_secs(4));
}

/// A node without contact to the registry does not notice a new life, and goes on with its rooms that have
/// backups.
#[test]
fn no_room_is_claimed_in_a_new_life_while_a_room_of_the_life_before_may_go_on() {
    let (mut bench, _, _) = holding();
    bench.registrar.pair_room(bench.now, &name("r"), Some(NodeId(9)));
    bench.collect();
    bench.settle();
    let mut other = Bench::seeded(RegistrarConfig::default(), [9; 32]);
    other.settle();
    // Both nodes have heard of their stores just now. The other node notices that its own one is emptied.
    other.ask(&Request::Delete(Delete::of(Span::from("/"))));
    other.registrar.claim_room(other.now, &name("r")).unwrap();
    other.collect();
    for _ in 0..700 {
        other.registrar.claim_room(other.now, &name("r")).unwrap();
        other.collect();
        other.pass(100, Fate::Done);
        bench.pass(100, Fate::Unavailable);
        let leads = [&bench, &other].map(|bench| bench.registrar.holds_room(&name("r")).is_some());
        let keeps = bench.registrar.keeps_rooms(bench.now.instant);
        assert!(!(leads[1] && keeps), "at {:?}", bench.now.instant);
    }
    assert!(other.registrar.holds_room(&name("r")).is_some());
}
