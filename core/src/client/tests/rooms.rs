//! Memberships, and the delivery of entries.

use alloc::vec;

use super::super::CommandError;
use super::*;
use crate::base::id::Cursor;

fn delivered(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Entry { cursor, .. } => Some(cursor.seq),
            _ => None,
        })
        .collect()
}

#[test]
fn duplicates_are_dropped() {
    let mut script = Script::in_room();
    for seq in [11, 12, 11, 10, 12, 13] {
        script.entry(seq, 2, 1);
    }
    assert_eq!(delivered(&script.events()), [11, 12, 13]);
}

#[test]
fn a_gap_is_the_servers_fault_and_is_resumed_from_the_cursor() {
    let mut script = Script::in_room();
    script.entry(11, 2, 1);
    script.entry(13, 2, 3);
    assert!(script.outputs.contains(&Output::Hangup));
    let events = script.events();
    assert_eq!(delivered(&events), [11]);
    assert!(events.iter().any(|event| matches!(event, Event::Closed { fault: Some(Fault::Gap), .. })));
    script.reconnect();
    assert_eq!(script.welcome(true).resume.unwrap().rooms[0].seq, 11);
}

#[test]
fn who_leaves_is_not_told_of_a_join_that_is_answered_twice() {
    let mut script = Script::in_room();
    script.entry(11, 2, 1);
    script.client.leave(script.now, "a").unwrap();
    script.drain();
    script.events();
    // The join was sent again, since the answer was late.
    script.joined(5, 11, 0, true);
    script.snapshot(5, 11, 0);
    assert_eq!(script.events(), []);
    script.snapshot(5, 14, 0);
    assert!(matches!(script.events()[..], [Event::Snapshot { missing: Some((12, 14)), .. }]));
}

#[test]
fn a_refusal_that_crosses_a_leave_is_no_answer_to_the_next_join() {
    let mut script = Script::connected();
    script.client.join(script.now, "a", 0).unwrap();
    script.sent();
    script.client.leave(script.now, "a").unwrap();
    assert_eq!(script.sent(), [ToServer::Leave(v1::Leave { room: "a".into(), request: 0 })]);
    script.client.join(script.now, "a", 0).unwrap();
    assert_eq!(script.sent(), [], "the leave is not answered");
    let [join, leave] = script.requests["a"][..] else { panic!("{:?}", script.requests) };
    script.refused(v1::LeftReason::RoomFull, join);
    assert_eq!(script.sent(), []);
    assert_eq!(script.events(), []);
    script.refused(v1::LeftReason::Asked, leave);
    assert_eq!(script.sent(), [ToServer::Join(v1::Join { room: "a".into(), history: 0, request: 0 })]);
    let asked = Event::Left { room: "a".into(), reason: v1::LeftReason::Asked };
    assert_eq!(script.events(), [asked], "no refusal");
}

#[test]
fn answers_to_earlier_requests_are_ignored_wherever_they_cross() {
    // An answer that is late after a leave and another join.
    let mut script = Script::in_room();
    script.client.leave(script.now, "a").unwrap();
    script.sent();
    script.left(v1::LeftReason::Asked);
    script.client.join(script.now, "a", 0).unwrap();
    script.sent();
    let [join, leave, again] = script.requests["a"][..] else { panic!("{:?}", script.requests) };
    script.events();
    for request in [join, leave, 0, again + 1] {
        for reason in [v1::LeftReason::Gone, v1::LeftReason::Kicked, v1::LeftReason::NotAMember] {
            script.refused(reason, request);
        }
        let joined = v1::Joined { room: "a".into(), epoch: 5, member: 1, request, ..v1::Joined::default() };
        script.tell(v1::Kind::Joined, &joined);
        assert_eq!((script.events(), script.sent()), (vec![], vec![]), "{request}");
    }
    script.joined(5, 10, 0, false);
    assert!(matches!(script.events()[..], [Event::Joined { .. }]));
    // The end of the membership names the request for it; that of another one changes nothing.
    script.refused(v1::LeftReason::Kicked, join);
    assert_eq!(script.events(), []);
    script.refused(v1::LeftReason::Kicked, again);
    assert!(matches!(script.events()[..], [Event::Left { reason: v1::LeftReason::Kicked, .. }]));
}

#[test]
fn a_membership_that_ends_before_the_leave_is_sent_needs_none() {
    let mut script = Script::in_room();
    script.client.leave(script.now, "a").unwrap();
    script.drain();
    script.events();
    script.left(v1::LeftReason::Gone);
    assert_eq!(script.events(), [Event::Left { room: "a".into(), reason: v1::LeftReason::Asked }]);
    assert_eq!((script.sent(), script.client.rooms().count()), (vec![], 0));
}

#[test]
fn a_message_to_a_room_without_membership_ends_the_membership_only_of_a_member() {
    let mut script = Script::in_room();
    script.refused(v1::LeftReason::NotAMember, 0);
    assert!(script.events().contains(&Event::Left { room: "a".into(), reason: v1::LeftReason::NotAMember }));
    assert!(matches!(script.sent()[..], [ToServer::Join(_)]));
    // Other messages of the earlier membership are answered as well.
    script.refused(v1::LeftReason::NotAMember, 0);
    assert_eq!((script.events(), script.sent()), (vec![], vec![]));
    script.joined(5, 12, 0, false);
    assert!(matches!(script.events()[..], [Event::Joined { .. }]));
}

#[test]
fn a_snapshot_moves_the_cursor_and_tells_what_is_missing() {
    let mut script = Script::in_room();
    script.snapshot(5, 20, 0);
    script.entry(21, 2, 1);
    let events = script.events();
    assert!(matches!(&events[0], Event::Snapshot { missing: Some((11, 20)), .. }));
    assert_eq!(delivered(&events), [21]);
    assert_eq!(script.client.cursor("a"), Some(Cursor { epoch: 5, seq: 21 }));
    script.snapshot(5, 15, 0);
    assert_eq!(script.fault(), Some(Fault::SnapshotWentBack));
}

#[test]
fn entries_of_another_epoch_or_of_rooms_left_are_not_delivered() {
    let mut script = Script::in_room();
    script.tell(v1::Kind::Entry, &v1::Entry { room: "b".into(), ..entry(5, 11, 2, 1) });
    assert_eq!(script.events(), []);
    script.tell(v1::Kind::Entry, &entry(6, 11, 2, 1));
    assert_eq!(script.fault(), Some(Fault::EntryOfAnotherEpoch));
}

#[test]
fn an_entry_that_closes_the_connection_was_not_delivered() {
    let mut script = Script::in_room();
    script.events();
    // The entry acknowledges a message that was never sent.
    script.entry(11, 1, 7);
    assert_eq!(script.fault(), Some(Fault::NeverSent));
    assert_eq!(delivered(&script.events()), []);
    assert_eq!(script.client.cursor("a"), Some(Cursor { epoch: 5, seq: 10 }), "it is asked for again");
}

#[test]
fn a_room_that_is_gone_is_joined_again_in_its_new_epoch() {
    let mut script = Script::in_room();
    let sent = script.say("sent");
    script.sent();
    let unsent = script.say("unsent");
    script.left(v1::LeftReason::Gone);
    assert_eq!(script.outcomes(), [(sent, Outcome::Unknown)]);
    assert_eq!(script.sent(), [ToServer::Join(v1::Join { room: "a".into(), history: 0, request: 0 })]);
    script.joined(6, 0, 0, false);
    script.snapshot(6, 0, 0);
    assert_eq!(script.said(), [(1, "unsent".into())]);
    script.tell(v1::Kind::Entry, &entry(6, 1, 1, 1));
    assert_eq!(script.outcomes(), [(unsent, Outcome::Acknowledged)]);
}

#[test]
fn without_rejoin_a_room_that_is_gone_is_left() {
    let mut script = Script::in_room();
    script.client.config.rejoin = false;
    let unsent = script.say("unsent");
    script.left(v1::LeftReason::Gone);
    assert_eq!(script.outcomes(), [(unsent, Outcome::Refused)]);
    assert_eq!(script.client.rooms().count(), 0);
}

#[test]
fn refusals_of_a_room_are_final() {
    for reason in [v1::LeftReason::RoomFull, v1::LeftReason::Limit, v1::LeftReason::Kicked] {
        let mut script = Script::connected();
        script.client.join(script.now, "a", 0).unwrap();
        let id = script.say("early");
        script.sent();
        script.left(reason);
        assert_eq!(script.outcomes(), [(id, Outcome::Refused)]);
        assert_eq!((script.client.rooms().count(), script.sent().len()), (0, 0));
    }
}

#[test]
fn leaving_ends_with_the_servers_word_and_may_be_followed_by_another_join() {
    let mut script = Script::in_room();
    script.client.leave(script.now, "a").unwrap();
    assert_eq!(script.client.leave(script.now, "a"), Err(CommandError::NotInRoom));
    assert_eq!(script.sent(), [ToServer::Leave(v1::Leave { room: "a".into(), request: 0 })]);
    script.client.join(script.now, "a", 3).unwrap();
    let id = script.say("again");
    assert_eq!(script.sent(), []);
    script.left(v1::LeftReason::Asked);
    assert_eq!(script.sent(), [ToServer::Join(v1::Join { room: "a".into(), history: 3, request: 0 })]);
    script.joined(5, 8, 4, false);
    assert_eq!(script.said(), [(5, "again".into())]);
    script.tell(v1::Kind::Ack, &v1::Ack { room: "a".into(), epoch: 5, client_seq: 5 });
    assert_eq!(script.outcomes(), [(id, Outcome::Acknowledged)]);
}

#[test]
fn a_lost_session_ends_memberships_and_rooms_are_joined_anew() {
    let mut script = Script::in_room();
    let sent = script.say("sent");
    script.sent();
    let unsent = script.say("unsent");
    script.cut();
    script.outputs.clear();
    script.welcome(false);
    assert_eq!(script.client.state(), ClientState::Connected);
    let events = script.events();
    assert!(events.contains(&Event::Session { epoch: 1, resumed: false, lost: true }));
    assert!(events.contains(&Event::Left { room: "a".into(), reason: v1::LeftReason::Gone }));
    let unknown = Event::Outcome { room: "a".into(), message: sent, outcome: Outcome::Unknown };
    assert!(events.contains(&unknown));
    assert!(matches!(script.sent().as_slice(), [ToServer::Join(_)]));
    // A `Left` about the old membership is no answer to the join.
    let [_, resume, _] = script.requests["a"][..] else { panic!("{:?}", script.requests) };
    script.refused(v1::LeftReason::Gone, resume);
    assert_eq!(script.sent(), []);
    script.joined(5, 14, 0, false);
    script.snapshot(5, 14, 0);
    let missed = script
        .events()
        .into_iter()
        .any(|event| matches!(event, Event::Snapshot { missing: Some((11, 14)), .. }));
    assert!(missed, "the log is the one from before, and entries are missing");
    assert_eq!(script.said(), [(1, "unsent".into())]);
    script.entry(15, 1, 1);
    assert_eq!(script.outcomes(), [(unsent, Outcome::Acknowledged)]);
}

#[test]
fn latest_messages_are_delivered_only_if_they_are_newer() {
    let mut script = Script::in_room();
    let mut versions = Vec::new();
    for (member, version) in [(2, 5), (2, 4), (3, 1), (2, 5), (2, 6)] {
        let latest = v1::Latest { room: "a".into(), member, epoch: 5, version, ..v1::Latest::default() };
        script.tell(v1::Kind::Latest, &latest);
        for event in script.events() {
            if let Event::Latest { member, version, .. } = event {
                versions.push((member, version));
            }
        }
    }
    assert_eq!(versions, [(2, 5), (3, 1), (2, 6)]);
}

#[test]
fn rooms_are_bounded_and_names_checked() {
    let mut script = Script::connected();
    assert_eq!(script.client.join(script.now, "no room", 0), Err(CommandError::BadName));
    for room in ["1", "2", "3", "4", "5", "6", "7", "8", "8"] {
        script.client.join(script.now, room, 0).unwrap();
    }
    assert_eq!(script.client.join(script.now, "9", 0), Err(CommandError::TooManyRooms));
    assert_eq!(script.client.say(script.now, "9", Bytes::new(), ""), Err(CommandError::NotInRoom));
}
