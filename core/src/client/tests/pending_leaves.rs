//! Matches that the player has left or given up, until the server confirms that.

use alloc::vec;

use skirmish_proto::v1::TicketState;

use super::*;
use crate::client::CommandError;

const ROOM: &str = "match:m1";

/// Creates a client that is in the room of its match "m1".
fn in_match() -> Script {
    let mut script = told();
    script.client.join(script.now, ROOM, 0).unwrap();
    script.sent();
    script.joins(ROOM);
    script.settle_state();
    script.events();
    script
}

/// Creates a client that was sent the match "m1", the answer to its search 7.
fn told() -> Script {
    let mut script = Script::connected();
    script.tell(v1::Kind::Matched, &matched("m1", 7));
    assert_eq!(script.events().len(), 1);
    script
}

fn matched(id: &str, search: u64) -> v1::Matched {
    let room = alloc::format!("match:{id}");
    v1::Matched { r#match: id.into(), mode: "duel".into(), room, search, ..v1::Matched::default() }
}

fn leave() -> ToServer {
    ToServer::Leave(v1::Leave { room: ROOM.into(), request: 0 })
}

fn cancel() -> ToServer {
    ToServer::Cancel(v1::Cancel { search: 7, r#match: "m1".into() })
}

impl Script {
    fn joins(&mut self, room: &str) {
        let request = self.request(room);
        let joined = v1::Joined { room: room.into(), epoch: 5, member: 1, request, ..v1::Joined::default() };
        self.tell(v1::Kind::Joined, &joined);
        let snapshot = v1::Snapshot { room: room.into(), epoch: 5, ..v1::Snapshot::default() };
        self.tell(v1::Kind::Snapshot, &snapshot);
    }

    /// Delivers a `Left` of the room of the match, which answers the newest request or none.
    fn is_out(&mut self, reason: v1::LeftReason, answers_leave: bool) {
        let request = if answers_leave { self.request(ROOM) } else { 0 };
        let left = v1::Left { room: ROOM.into(), reason: reason.into(), answers_leave, request };
        self.tell(v1::Kind::Left, &left);
    }

    fn given_up(&mut self, search: u64) {
        let state = TicketState::GivenUp.into();
        let queued = v1::Queued { state, search, r#match: "m1".into(), ..v1::Queued::default() };
        self.tell(v1::Kind::Queued, &queued);
    }

    /// Returns the reason of each `Left` event of the room.
    fn outs(&mut self) -> Vec<v1::LeftReason> {
        let left = |event| match event {
            Event::Left { room, reason } => Some(reason).filter(|_| room == ROOM),
            _ => None,
        };
        self.events().into_iter().filter_map(left).collect()
    }

    /// Checks that the application is not notified when the server sends the match once more.
    fn hears_no_more_of_it(&mut self) {
        self.events();
        self.tell(v1::Kind::Matched, &matched("m1", 7));
        self.tell(v1::Kind::Matched, &v1::Matched { fills: 1, ..matched("m1", 7) });
        assert_eq!(self.events(), []);
    }
}

#[test]
fn a_leave_is_said_on_every_connection_until_it_is_answered() {
    let mut script = in_match();
    script.client.handle_disconnected(script.now);
    script.client.leave(script.now, ROOM).unwrap();
    script.drain();
    for resumed in [true, false, true] {
        script.reconnect();
        let hello = script.welcome(resumed);
        assert_eq!((hello.resume.unwrap().rooms, hello.joins), (vec![], vec![]));
        assert_eq!(script.sent(), [leave()]);
        // A `Left` about the membership is no answer.
        script.is_out(v1::LeftReason::Gone, false);
        script.is_out(v1::LeftReason::NotAMember, false);
        assert_eq!(script.outs(), []);
        script.hears_no_more_of_it();
        script.client.handle_disconnected(script.now);
        script.drain();
    }
    script.reconnect();
    script.welcome(true);
    assert_eq!(script.sent(), [leave()]);
    script.is_out(v1::LeftReason::NotAMember, true);
    assert_eq!(script.outs(), [v1::LeftReason::Asked]);
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), []);
    // From then on a match that the server sends is reported.
    script.tell(v1::Kind::Matched, &matched("m1", 7));
    assert!(script.events().contains(&Event::Matched(matched("m1", 7))));
}

#[test]
fn a_room_of_a_match_that_was_never_asked_for_is_left_at_the_server_too() {
    let mut script = told();
    script.client.handle_disconnected(script.now);
    script.client.join(script.now, ROOM, 0).unwrap();
    script.client.leave(script.now, ROOM).unwrap();
    script.drain();
    assert_eq!(script.outs(), []);
    script.reconnect();
    script.welcome(true);
    assert_eq!(script.sent(), [leave()]);
    script.is_out(v1::LeftReason::Asked, true);
    assert_eq!(script.outs(), [v1::LeftReason::Asked]);
    // The leave of a room without a match is not kept.
    script.client.handle_disconnected(script.now);
    script.client.join(script.now, "a", 0).unwrap();
    script.client.leave(script.now, "a").unwrap();
    script.drain();
    script.reconnect();
    script.welcome(true);
    assert_eq!(script.sent(), []);
}

#[test]
fn a_room_that_was_left_with_the_session_is_left_in_the_next_one() {
    for kicked in [false, true] {
        let mut script = in_match();
        if kicked {
            let reason = v1::Reason::Kicked.into();
            script.tell(v1::Kind::Goodbye, &v1::Goodbye { reason, ..v1::Goodbye::default() });
            assert_eq!(script.outs(), [v1::LeftReason::Kicked]);
        } else {
            // The `Goodbye` of the client is lost.
            script.client.handle_disconnected(script.now);
            script.client.disconnect(script.now);
            script.drain();
            assert_eq!(script.outs(), [v1::LeftReason::Asked]);
        }
        for _ in 0..2 {
            script.connect();
            script.welcome(false);
            assert_eq!(script.sent(), [leave()]);
            script.hears_no_more_of_it();
            script.client.disconnect(script.now);
            script.drain();
        }
        script.connect();
        script.welcome(false);
        script.sent();
        script.is_out(v1::LeftReason::NotAMember, true);
        assert_eq!(script.outs(), [], "it was told before");
        // A room that the application joins again is joined after the answer.
        script.client.disconnect(script.now);
        script.drain();
        script.connect();
        script.welcome(false);
        assert_eq!(script.sent(), []);
    }
}

#[test]
fn a_room_that_is_joined_again_is_left_first() {
    let mut script = in_match();
    script.client.disconnect(script.now);
    script.drain();
    script.client.join(script.now, ROOM, 0).unwrap();
    script.connect();
    assert_eq!(script.welcome(false).joins, []);
    assert_eq!(script.sent(), [leave()]);
    script.is_out(v1::LeftReason::NotAMember, true);
    assert_eq!(script.sent(), [ToServer::Join(v1::Join { room: ROOM.into(), history: 0, request: 0 })]);
}

#[test]
fn a_room_that_is_asked_for_is_named_when_the_session_is_resumed() {
    for seal in [false, true] {
        let mut script = Script::new(ClientConfig { seal, ..config() });
        script.connect();
        script.hello();
        let mut rooms: Vec<String> = (0..18).map(|n| alloc::format!("a{n:02}")).collect();
        rooms.push(ROOM.into());
        script.client.limits.rooms = rooms.len();
        for room in &rooms {
            script.client.join(script.now, room, 0).unwrap();
            script.client.rooms.get_mut(room).unwrap().asked = true;
        }
        // The state after a `Welcome`; another test covers the sealing.
        let (id, heard) = (crate::base::id::SessionId(SESSION), script.now.instant);
        let clock = super::super::link::ServerClock { wall_ms: SERVER_WALL, heard };
        let second = Duration::from_secs(1);
        script.client.session =
            Some(super::super::link::WelcomedSession { id, epoch: 1, replica: 9, horizon: second, clock });
        script.cut();
        let joins = script.hello().joins;
        assert_eq!((joins.len(), joins[0].room.as_str()), (16, ROOM), "it is no less than others");
    }
}

#[test]
fn a_match_is_given_up_on_every_connection_until_that_is_answered() {
    let mut script = told();
    script.client.give_up_match(script.now).unwrap();
    assert_eq!(script.client.give_up_match(script.now), Err(CommandError::NotMatched));
    let request = v1::Queue { mode: "duel".into(), ..v1::Queue::default() };
    let search = script.client.queue(script.now, request.clone()).unwrap();
    let asks = ToServer::Queue(v1::Queue { search, ..request });
    assert_eq!(script.sent(), [cancel(), asks.clone()]);
    for _ in 0..2 {
        script.cut();
        script.welcome(true);
        assert_eq!(script.sent(), [cancel(), asks.clone()]);
        script.hears_no_more_of_it();
    }
    script.given_up(7);
    assert_eq!(script.events(), [Event::GivenUp { matched: "m1".into() }]);
    script.given_up(7);
    assert_eq!(script.events(), [], "once");
    script.tell(v1::Kind::Matched, &matched("m2", search));
    assert_eq!(script.events().len(), 1);
    assert!(!script.client.is_searching());
}

#[test]
fn a_match_that_the_player_did_not_come_to_is_given_up_unasked() {
    let mut script = told();
    script.given_up(7);
    assert_eq!(script.events(), [Event::GivenUp { matched: "m1".into() }]);
    assert_eq!(script.client.give_up_match(script.now), Err(CommandError::NotMatched));
    script.given_up(7);
    assert_eq!(script.events(), [], "once");
}

#[test]
fn whoever_gives_up_the_match_whose_room_it_is_in_leaves_that() {
    let mut script = in_match();
    script.client.give_up_match(script.now).unwrap();
    assert_eq!(script.sent(), [leave(), cancel()]);
    script.is_out(v1::LeftReason::Asked, true);
    script.given_up(7);
    let events = script.events();
    assert!(events.contains(&Event::GivenUp { matched: "m1".into() }), "{events:?}");
    assert!(events.contains(&Event::Left { room: ROOM.into(), reason: v1::LeftReason::Asked }));
    // A match that was left cannot be given up.
    let mut script = in_match();
    script.client.leave(script.now, ROOM).unwrap();
    assert_eq!(script.client.give_up_match(script.now), Err(CommandError::NotMatched));
    script.is_out(v1::LeftReason::Asked, true);
    assert_eq!(script.client.give_up_match(script.now), Err(CommandError::NotMatched));
}

#[test]
fn a_search_that_is_given_up_does_not_end_in_a_match() {
    let mut script = Script::connected();
    let request = v1::Queue { mode: "duel".into(), ..v1::Queue::default() };
    let search = script.client.queue(script.now, request).unwrap();
    script.sent();
    script.client.cancel(script.now).unwrap();
    assert_eq!(script.sent(), [ToServer::Cancel(v1::Cancel { search, r#match: String::new() })]);
    script.events();
    // The messages cross, and another node does not know the number.
    let named = ToServer::Cancel(v1::Cancel { search, r#match: "m1".into() });
    script.tell(v1::Kind::Matched, &matched("m1", search));
    assert_eq!((script.events(), script.sent()), (vec![], vec![named.clone()]));
    script.tell(v1::Kind::Matched, &matched("m1", search));
    assert_eq!((script.events(), script.sent()), (vec![], vec![]));
    script.cut();
    script.welcome(true);
    assert_eq!(script.sent(), [named]);
    script.events();
    script.given_up(search);
    let events = script.events();
    assert!(
        matches!(&events[..], [Event::GivenUp { .. }, Event::Ticket { state: TicketState::GivenUp, search: number, .. }]
            if *number == search),
        "{events:?}"
    );
    assert!(!script.client.is_searching());
    script.given_up(search);
    assert_eq!(script.events(), [], "once");
}

#[test]
fn a_search_that_is_answered_with_the_match_that_is_left_has_ended() {
    let mut script = in_match();
    let request = v1::Queue { mode: "duel".into(), ..v1::Queue::default() };
    let search = script.client.queue(script.now, request).unwrap();
    script.sent();
    script.client.leave(script.now, ROOM).unwrap();
    script.events();
    script.tell(v1::Kind::Matched, &matched("m1", search));
    let events = script.events();
    assert!(
        matches!(&events[..], [Event::Ticket { state: TicketState::None, search: number, .. }] if *number == search),
        "{events:?}"
    );
    assert!(!script.client.is_searching());
}
