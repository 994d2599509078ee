//! Decisions of each role, one a test.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::sites::Sites;
use crate::base::plant::Planted;
use crate::hosting::{ATTACH_TIMEOUT, Role, RoomInput, SayVerdict};
use crate::wire::RoomMessage;

/// Nodes with a member each; the first is the primary of the room.
fn room_on(count: usize) -> Sites {
    let mut sites = Sites::new(count, Planted::default());
    for at in 0..count {
        sites.join(at);
        sites.settle();
    }
    assert!(sites.sites[0].hosted.as_ref().unwrap().is_primary());
    assert_eq!(sites.lives(), alloc::vec![2; count]);
    sites
}

fn held(expected: u64, retry_after_ms: u32) -> SayVerdict {
    SayVerdict::Held { expected, retry_after_ms }
}

#[test]
fn a_primary_judges_by_number_and_holds_everything_new_while_its_lease_may_have_ended() {
    let mut sites = room_on(1);
    assert_eq!((sites.judge(0, 1, true), sites.judge(0, 2, true)), (SayVerdict::Next, held(1, 0)));
    sites.say(0);
    assert_eq!((sites.judge(0, 1, true), sites.judge(0, 2, true)), (SayVerdict::Known, SayVerdict::Next));
    sites.lapse(0);
    assert_eq!((sites.judge(0, 1, true), sites.judge(0, 2, true)), (SayVerdict::Known, held(2, 500)));
}

#[test]
fn a_member_that_leaves_while_the_lease_may_have_ended_goes_when_it_lives_again() {
    let mut sites = room_on(2);
    sites.lapse(0);
    sites.leave(1);
    sites.settle();
    let members = |sites: &Sites| sites.sites[0].hosted.as_ref().unwrap().room().members().len();
    assert_eq!((members(&sites), sites.deadline(0)), (2, None), "the deadline waits for the lease");
    sites.lease(0);
    assert_eq!(members(&sites), 1);
}

#[test]
fn a_follower_passes_each_message_on_once_and_holds_those_that_have_no_way() {
    let mut sites = room_on(2);
    assert_eq!((sites.judge(1, 1, true), sites.judge(1, 1, false)), (SayVerdict::Next, held(1, 100)));
    sites.say(1);
    assert_eq!((sites.judge(1, 1, true), sites.judge(1, 3, true)), (SayVerdict::Passed, held(2, 0)));
    sites.settle();
    assert_eq!(sites.judge(1, 1, true), SayVerdict::Known);
    sites.cut(0, 1);
    assert_eq!(sites.judge(1, 2, true), held(2, 500));
    sites.connect(0, 1);
    assert_eq!(sites.judge(1, 2, true), held(2, 500), "the tail is not received yet");
    sites.settle();
    assert_eq!(sites.judge(1, 2, true), SayVerdict::Next);
}

#[test]
fn a_session_that_waits_for_a_tail_is_expelled_in_time_and_a_member_is_not() {
    let mut sites = room_on(2);
    sites.cut(0, 1);
    let until = sites.now.instant + ATTACH_TIMEOUT;
    assert_eq!(sites.deadline(1), Some(until));
    sites.time_out(1);
    assert_eq!((sites.sites[1].player.is_local, sites.sites[1].player.expelled), (true, None));
    // Another session that arrives meanwhile has no membership to wait with.
    let mut sites = Sites::new(2, Planted::default());
    sites.join(0);
    sites.settle();
    sites.cut(0, 1);
    sites.join(1);
    sites.settle();
    sites.time_out(1);
    assert_eq!(sites.sites[1].player.expelled, Some(v1::LeftReason::Gone));
    assert!(sites.sites[1].hosted.is_none(), "nobody needs the room any more");
}

/// Two nodes: the first is the primary and has a member, and the member of the second is on its way
/// in.
fn one_on_its_way() -> Sites {
    let mut sites = Sites::new(2, Planted::default());
    sites.join(0);
    sites.settle();
    // The member of the second node is being admitted when the room ends.
    sites.join(1);
    while !matches!(sites.sites[1].hosted.as_ref().unwrap().role(), Role::Following(_)) {
        if sites.registry.requests[1].is_empty() {
            sites.take_news(1)
        } else {
            sites.registry.take_request(1)
        }
    }
    sites
}

#[test]
fn a_life_that_ends_takes_its_members_and_leaves_those_who_want_any_life() {
    let mut sites = one_on_its_way();
    sites.leave(0);
    sites.settle();
    assert!(sites.sites[0].hosted.is_none());
    let hosted = sites.sites[1].hosted.as_ref().unwrap();
    assert!(matches!(hosted.role(), Role::Claiming(_)), "the registry is asked again");
    assert_eq!((hosted.locals().count(), sites.sites[1].player.expelled), (1, None));
    sites.time_out(1);
    sites.settle();
    assert!(sites.sites[1].hosted.as_ref().unwrap().is_primary());
    let lives: Vec<u64> = sites.lives();
    assert_eq!(lives, [3], "another life of the room");
}

#[test]
fn a_join_is_not_tried_anew_for_ever() {
    let mut sites = one_on_its_way();
    sites.pass(ATTACH_TIMEOUT);
    sites.leave(0);
    sites.settle();
    assert_eq!(sites.sites[1].player.expelled, Some(v1::LeftReason::Gone));
    assert!(sites.sites[1].hosted.is_none());
}

#[test]
fn a_session_that_is_registered_anew_enters_with_its_new_epoch_in_every_role() {
    let mut sites = room_on(2);
    let seat = |sites: &Sites, number| {
        sites.sites[0].hosted.as_ref().unwrap().room().member(number).unwrap().seat.epoch
    };
    sites.raise(0, 8);
    sites.raise(1, 9);
    sites.settle();
    assert_eq!((seat(&sites, 1), seat(&sites, 2)), (8, 9), "at the primary and at a follower");
    let mut sites = Sites::new(1, Planted::default());
    sites.join(0);
    sites.raise(0, 8);
    sites.settle();
    assert_eq!(seat(&sites, 1), 8, "while the room is claimed");
}

#[test]
fn a_refusal_of_an_older_session_epoch_does_not_expel_the_session() {
    let mut sites = one_on_its_way();
    sites.take_frame(1, 0);
    sites.take_frame(0, 1);
    sites.raise(1, 9);
    let hosted = sites.sites[1].hosted.as_ref().unwrap();
    let local = hosted.common.locals.iter().next().unwrap();
    let refusal = |session_epoch| v1::Entered {
        room: "arena".into(),
        epoch: hosted.room().epoch(),
        session: bytes::Bytes::copy_from_slice(local.id.as_bytes()),
        reason: v1::LeftReason::Gone.into(),
        session_epoch,
        attempt: local.attempt,
        ..v1::Entered::default()
    };
    let (late, newest) = (RoomMessage::Entered(refusal(0)), RoomMessage::Entered(refusal(9)));
    let from = |message| {
        let (link, metadata) = (hosted.upstream().unwrap(), v1::Metadata::default());
        RoomInput::From { link, node: super::record::node(0), message, metadata }
    };
    let (late, newest) = (from(late), from(newest));
    sites.input(1, late);
    assert_eq!(sites.sites[1].player.expelled, None);
    sites.input(1, newest);
    assert_eq!(sites.sites[1].player.expelled, Some(v1::LeftReason::Gone));
}
