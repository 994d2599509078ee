//! Sessions: claimed, taken over, lost and given up.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message as _;

use super::bench::{Fate, ME, OTHER, name, session};
use super::*;
use crate::registrar::keys::session_record;
use crate::registry::{Delete, Request, Span};

const KEY: &str = "/sessions/player:p";

fn claim(bench: &mut Bench, token: u64, named: Option<u8>, fresh: u8) {
    bench
        .registrar
        .claim_session(
            bench.now,
            token,
            &name("p"),
            named.map(session),
            session(fresh),
            DialNumber::default(),
        )
        .unwrap();
    bench.collect();
}

fn granted(token: u64, id: u8, epoch: u64, resumed: bool, previous: Option<NodeId>) -> Decision {
    let outcome = SessionClaim::Granted { id: session(id), epoch, resumed, previous };
    Decision::Session { token, player: name("p"), outcome }
}

/// Owner of the session by the registry: node, session, epoch.
fn record(bench: &mut Bench) -> Option<(NodeId, u8, u64)> {
    let kv = bench.get(KEY)?;
    let record = v1::SessionRecord::decode(kv.value).unwrap();
    let epoch = if record.epoch == 0 { kv.modified } else { record.epoch };
    Some((NodeId(record.node), record.session[0], epoch))
}

#[test]
fn a_claim_of_nobodys_session_is_granted_with_its_revision_for_an_epoch() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, Some(9), 1);
    bench.settle();
    let epoch = bench.registry.revision();
    assert_eq!(bench.take(), [granted(1, 1, epoch, false, None)]);
    assert_eq!(record(&mut bench), Some((ME, 1, epoch)));
    assert_eq!(bench.registrar.holds_session(&name("p")), Some(epoch));
    assert!(bench.get(KEY).unwrap().lease.is_some(), "it goes with the node");
}

#[test]
fn a_session_that_another_program_writes_over_with_a_low_epoch_is_lost_at_its_next_check() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    bench.settle();
    let epoch = bench.registrar.holds_session(&name("p")).unwrap();
    let theirs = bench.put(KEY, session_record(session(2), DialNumber::default(), OTHER, 1, 0));
    bench.take();
    bench.pass(1_000, Fate::Done);
    assert_eq!(bench.take(), [], "the store may have gone back");
    bench.registrar.doubt(bench.now.instant, &Subject::Session(name("p")));
    bench.pass(6_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::SessionLost { player: name("p"), epoch: epoch + 1 }]);
    assert_eq!(bench.get(KEY).unwrap().modified, theirs);
}

#[test]
fn a_session_is_taken_over_and_goes_on_if_it_is_the_one_that_is_named() {
    for (named, resumed) in [(Some(5), true), (Some(6), false), (None, false)] {
        let mut bench = Bench::serving();
        let before = bench.put(KEY, session_record(session(5), DialNumber::default(), OTHER, 0, 0));
        claim(&mut bench, 1, named, 1);
        bench.settle();
        let epoch = bench.registry.revision();
        assert!(epoch > before);
        let id = if resumed { 5 } else { 1 };
        assert_eq!(bench.take(), [granted(1, id, epoch, resumed, Some(OTHER))]);
        assert_eq!(record(&mut bench), Some((ME, id, epoch)));
    }
}

#[test]
fn what_nobody_can_read_is_written_over() {
    let mut bench = Bench::serving();
    bench.put(KEY, Bytes::from_static(b"\xff\xff"));
    claim(&mut bench, 1, None, 1);
    bench.settle();
    let epoch = bench.registry.revision();
    assert_eq!(bench.take(), [granted(1, 1, epoch, false, None)]);
    assert!(bench.registrar.stats().garbage > 0);
}

#[test]
fn claims_of_a_player_are_answered_in_order_each_with_a_higher_epoch() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    claim(&mut bench, 2, Some(1), 2);
    claim(&mut bench, 3, Some(9), 3);
    bench.settle();
    let newest = bench.registry.revision();
    assert_eq!(
        bench.take(),
        [
            granted(1, 1, newest - 2, false, None),
            granted(2, 1, newest - 1, true, Some(ME)),
            granted(3, 3, newest, false, Some(ME)),
        ]
    );
}

#[test]
fn an_unheard_answer_is_read_from_the_record() {
    for taken in [false, true] {
        let mut bench = Bench::serving();
        if taken {
            bench.put(KEY, session_record(session(5), DialNumber::default(), OTHER, 0, 0));
        }
        claim(&mut bench, 1, Some(5), 1);
        if taken {
            bench.step(Fate::Done);
        }
        bench.step(Fate::Unheard);
        let epoch = bench.registry.revision();
        bench.pass(1_000, Fate::Done);
        let id = if taken { 5 } else { 1 };
        assert_eq!(bench.take(), [granted(1, id, epoch, taken, taken.then_some(OTHER))]);
        assert_eq!(record(&mut bench), Some((ME, id, epoch)), "it was not written twice");
    }
}

#[test]
fn a_take_over_that_came_too_late_sees_who_was_first() {
    let mut bench = Bench::serving();
    bench.put(KEY, session_record(session(5), DialNumber::default(), OTHER, 0, 0));
    claim(&mut bench, 1, Some(5), 1);
    bench.step(Fate::Done);
    let third = NodeId(0xC);
    bench.put(KEY, session_record(session(6), DialNumber::default(), third, 0, 0));
    bench.settle();
    let epoch = bench.registry.revision();
    assert_eq!(bench.take(), [granted(1, 1, epoch, false, Some(third))], "not the session that was named");
}

#[test]
fn another_nodes_claim_is_told_by_the_watch_however_late_it_is() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    bench.settle();
    bench.take();
    let epoch = bench.put(KEY, session_record(session(1), DialNumber::default(), OTHER, 0, 0));
    bench.news();
    assert_eq!(bench.take(), [Decision::SessionLost { player: name("p"), epoch }]);
    assert_eq!(bench.registrar.holds_session(&name("p")), None);
    bench.registrar.release_session(bench.now, &name("p"));
    bench.collect();
    bench.settle();
    assert_eq!(record(&mut bench), Some((OTHER, 1, epoch)), "it is not ours to delete");
}

#[test]
fn news_from_before_the_claim_do_not_take_it_away() {
    let mut bench = Bench::serving();
    bench.put(KEY, session_record(session(5), DialNumber::default(), OTHER, 0, 0));
    claim(&mut bench, 1, None, 1);
    while bench.step(Fate::Done) {}
    assert_eq!(bench.take().len(), 1);
    bench.news();
    assert_eq!(bench.take(), []);
    assert!(bench.registrar.holds_session(&name("p")).is_some());
}

#[test]
fn news_that_overtake_the_answer_are_not_forgotten() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    let Some(RegistryCommand::Request { id, request }) = bench.calls.pop_front() else {
        panic!("a claim is asked for")
    };
    let response = bench.ask(&request);
    let granted_at = response.revision;
    let epoch = bench.put(KEY, session_record(session(7), DialNumber::default(), OTHER, 0, 0));
    bench.news();
    assert_eq!(bench.take(), []);
    bench.tell(id, Ok(response));
    assert_eq!(
        bench.take(),
        [granted(1, 1, granted_at, false, None), Decision::SessionLost { player: name("p"), epoch }]
    );
}

#[test]
fn a_release_deletes_the_record_if_it_is_ours_and_does_not_give_up() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    bench.settle();
    bench.registrar.release_session(bench.now, &name("p"));
    bench.collect();
    assert_eq!(bench.registrar.holds_session(&name("p")), None);
    for fate in [Fate::Lost, Fate::Unavailable, Fate::Unavailable, Fate::Unheard] {
        assert!(record(&mut bench).is_some());
        assert!(bench.step(fate));
        bench.now.instant = bench.registrar.poll_timeout().unwrap().at;
        bench.registrar.handle_timeout(bench.now);
        bench.collect();
    }
    bench.settle();
    assert_eq!(record(&mut bench), None);
    assert_eq!(bench.registrar.stats().sessions, 0);
    bench.take();
    claim(&mut bench, 2, None, 2);
    bench.settle();
    let epoch = bench.registry.revision();
    assert_eq!(bench.take(), [granted(2, 2, epoch, false, None)]);
}

#[test]
fn a_claim_that_is_overdue_is_unavailable_and_undone() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    bench.step(Fate::Unheard);
    bench.pass(6_000, Fate::Lost);
    let unavailable = Decision::Session { token: 1, player: name("p"), outcome: SessionClaim::Unavailable };
    assert_eq!(bench.take(), [unavailable]);
    assert!(record(&mut bench).is_some());
    bench.pass(4_000, Fate::Done);
    assert_eq!(record(&mut bench), None);
}

#[test]
fn a_claim_that_is_done_long_after_is_swept() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    let Some(RegistryCommand::Request { id, request }) = bench.calls.pop_front() else {
        panic!("a claim is asked for")
    };
    bench.tell(id, Err(Failure::Unknown));
    bench.pass(5_500, Fate::Unavailable);
    bench.pass(4_000, Fate::Done);
    assert_eq!(bench.take().len(), 1);
    bench.ask(&request);
    assert!(record(&mut bench).is_some(), "nobody holds it");
    bench.settle();
    assert_eq!(record(&mut bench), None);
    assert_eq!(bench.registrar.stats().swept, 1);
}

#[test]
fn a_refusal_is_told_at_once() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    let Some(RegistryCommand::Request { id, .. }) = bench.calls.pop_front() else {
        panic!("a claim is asked for")
    };
    bench.tell(id, Err(Failure::Refused(crate::registry::Error::PermissionDenied)));
    let refused = Decision::Session { token: 1, player: name("p"), outcome: SessionClaim::Refused };
    assert_eq!(bench.take(), [refused]);
}

#[test]
fn a_record_that_vanished_is_written_again_with_a_new_epoch() {
    let mut bench = Bench::serving();
    claim(&mut bench, 1, None, 1);
    bench.settle();
    bench.take();
    let before = bench.registrar.holds_session(&name("p")).unwrap();
    bench.ask(&Request::Delete(Delete::of(Span::one(Bytes::from_static(KEY.as_bytes())))));
    bench.settle();
    let epoch = bench.registrar.holds_session(&name("p")).unwrap();
    assert!(epoch > before);
    assert_eq!((record(&mut bench), bench.take()), (Some((ME, 1, epoch)), vec![]));
}

#[test]
fn a_compacted_watch_is_made_up_for_by_reading() {
    let mut bench = Bench::serving();
    for (token, player) in [(1, "p"), (2, "q"), (3, "r")] {
        bench
            .registrar
            .claim_session(bench.now, token, &name(player), None, session(1), DialNumber::default())
            .unwrap();
        bench.collect();
    }
    bench.settle();
    bench.take();
    // The watches miss every change from here on.
    let ids = bench.watch_ids();
    ids.iter().for_each(|id| bench.registry.unwatch(*id));
    let epoch = bench.put(KEY, session_record(session(5), DialNumber::default(), OTHER, 0, 0));
    bench.ask(&Request::Delete(Delete::of(Span::one(Bytes::from_static(b"/sessions/player:q")))));
    let oldest = bench.registry.revision();
    for id in ids {
        let news = crate::registry::News::Compacted { oldest };
        let watched = crate::registry::Watched { id, revision: oldest, news };
        bench.registrar.handle_event(bench.now, RegistryEvent::Watched(watched));
        bench.collect();
    }
    bench.pass(1_000, Fate::Done);
    assert_eq!(bench.take(), [Decision::SessionLost { player: name("p"), epoch }]);
    assert!(bench.registrar.holds_session(&name("q")).unwrap() > epoch, "it was gone");
    assert!(bench.registrar.holds_session(&name("r")).unwrap() < epoch, "nothing happened to it");
}

#[test]
fn more_claims_than_may_wait_are_refused() {
    let config = RegistrarConfig { claims: 2, keys: 3, ..RegistrarConfig::default() };
    let mut bench = Bench::new(config);
    bench.settle();
    let mut outcomes = Vec::new();
    for (token, player) in [(1, "p"), (2, "q"), (3, "r")] {
        outcomes.push(bench.registrar.claim_session(
            bench.now,
            token,
            &name(player),
            None,
            session(1),
            DialNumber::default(),
        ));
    }
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(Full)]);
    bench.collect();
    bench.settle();
    bench.registrar.claim_room(bench.now, &name("room")).unwrap();
    assert_eq!(bench.registrar.claim_room(bench.now, &name("other")), Err(Full), "three keys are there");
}

/// Connection `dial` of client 7.
const fn numbered(dial: u64) -> DialNumber {
    DialNumber { client: 7, dial }
}

fn claim_for(bench: &mut Bench, token: u64, dial: DialNumber) {
    let fresh = session(u8::try_from(token).unwrap());
    bench.registrar.claim_session(bench.now, token, &name("p"), Some(session(5)), fresh, dial).unwrap();
    bench.collect();
}

#[test]
fn a_claim_for_an_older_connection_than_the_records_is_superseded_and_writes_nothing() {
    let superseded = Decision::Session { token: 1, player: name("p"), outcome: SessionClaim::Superseded };
    for (dial, wins) in [
        (numbered(3), false),
        (numbered(4), true),
        (numbered(5), true),
        (DialNumber { client: 8, dial: 1 }, true),
        (DialNumber::default(), true),
    ] {
        let mut bench = Bench::serving();
        let before = bench.put(KEY, session_record(session(5), numbered(4), OTHER, 0, 0));
        claim_for(&mut bench, 1, dial);
        bench.settle();
        let record = bench.get(KEY).unwrap();
        if wins {
            assert_eq!(bench.take(), [granted(1, 5, record.modified, true, Some(OTHER))], "{dial:?}");
            let record = v1::SessionRecord::decode(record.value).unwrap();
            assert_eq!(DialNumber { client: record.client, dial: record.dial }, dial);
        } else {
            assert_eq!((bench.take(), record.modified), (vec![superseded.clone()], before), "{dial:?}");
            assert_eq!(bench.registrar.holds_session(&name("p")), None);
        }
    }
}

#[test]
fn a_claim_for_an_older_connection_than_one_of_this_node_is_superseded() {
    let mut bench = Bench::serving();
    claim_for(&mut bench, 1, numbered(2));
    bench.settle();
    let epoch = bench.registrar.holds_session(&name("p")).unwrap();
    bench.registrar.renew_session(&name("p"), numbered(4));
    claim_for(&mut bench, 2, numbered(3));
    bench.settle();
    let superseded = Decision::Session { token: 2, player: name("p"), outcome: SessionClaim::Superseded };
    assert_eq!(bench.take(), [granted(1, 1, epoch, false, None), superseded]);
    assert_eq!(record(&mut bench), Some((ME, 1, epoch)));
}

#[test]
fn a_claim_that_ends_late_does_not_hide_a_newer_connection_of_this_node() {
    let mut bench = Bench::serving();
    claim_for(&mut bench, 1, numbered(2));
    bench.settle();
    bench.take();
    claim_for(&mut bench, 2, numbered(3));
    claim_for(&mut bench, 3, numbered(4));
    // Dial 3 is asked for, and dial 4 waits; then dial 6 resumes here.
    bench.registrar.renew_session(&name("p"), numbered(6));
    bench.settle();
    let superseded = Decision::Session { token: 3, player: name("p"), outcome: SessionClaim::Superseded };
    assert!(bench.take().contains(&superseded));
    bench.put(KEY, session_record(session(1), numbered(5), OTHER, 0, 0));
    bench.pass(3_000, Fate::Done);
    let epoch = bench.registrar.holds_session(&name("p")).unwrap();
    assert_eq!(bench.take(), [Decision::SessionKept { player: name("p"), epoch }]);
}

#[test]
fn a_session_that_is_claimed_elsewhere_for_an_older_connection_is_claimed_again() {
    for (late, kept) in
        [(numbered(3), true), (numbered(5), false), (DialNumber { client: 8, dial: 1 }, false)]
    {
        let mut bench = Bench::serving();
        claim_for(&mut bench, 1, numbered(2));
        bench.settle();
        bench.take();
        // The record does not say so: the connection was welcomed without a claim.
        bench.registrar.renew_session(&name("p"), numbered(4));
        let theirs = bench.put(KEY, session_record(session(9), late, OTHER, 0, 0));
        bench.pass(3_000, Fate::Done);
        if kept {
            let epoch = bench.registrar.holds_session(&name("p")).unwrap();
            assert!(epoch > theirs);
            assert_eq!(bench.take(), [Decision::SessionKept { player: name("p"), epoch }], "{late:?}");
            assert_eq!(record(&mut bench), Some((ME, 1, epoch)));
        } else {
            assert_eq!(bench.take(), [Decision::SessionLost { player: name("p"), epoch: theirs }]);
            assert_eq!(record(&mut bench), Some((OTHER, 9, theirs)), "{late:?}");
        }
    }
}

#[test]
fn a_session_is_claimed_again_although_the_answer_is_lost_and_its_newer_connection_came_late() {
    let mut bench = Bench::serving();
    claim_for(&mut bench, 1, numbered(2));
    bench.settle();
    bench.take();
    bench.put(KEY, session_record(session(9), numbered(3), OTHER, 0, 0));
    bench.registrar.check_session(bench.now, &name("p"));
    // The node asks for dial 2; then dial 4 resumes here.
    bench.registrar.renew_session(&name("p"), numbered(4));
    bench.collect();
    bench.step(Fate::Done);
    bench.step(Fate::Unheard);
    bench.pass(3_000, Fate::Done);
    let epoch = bench.registrar.holds_session(&name("p")).unwrap();
    assert_eq!(bench.take(), [Decision::SessionKept { player: name("p"), epoch }]);
    assert_eq!(record(&mut bench), Some((ME, 1, epoch)));
}

#[test]
fn a_session_that_nobody_else_has_claimed_passes_a_check() {
    let mut bench = Bench::serving();
    claim_for(&mut bench, 1, numbered(2));
    bench.settle();
    bench.take();
    let before = bench.get(KEY);
    bench.registrar.check_session(bench.now, &name("p"));
    bench.pass(3_000, Fate::Done);
    assert_eq!((bench.take(), bench.get(KEY)), (vec![], before));
}
