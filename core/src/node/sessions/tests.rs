//! Sessions, without a node.

use super::*;

const ANN: &str = "ann";
const ROOM: Key = Key { slot: 7, generation: 1 };

fn conn(slot: u32) -> ConnId {
    ConnId::from_key(Key { slot, generation: 0 })
}

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

fn ann() -> Name {
    Name::new(ANN).unwrap()
}

/// A table with ann's session, claimed at revision 10.
fn table() -> (Sessions, Key, Bugs) {
    let mut sessions = Sessions::new(&Config::default(), [1; 32]);
    let key = sessions.insert(SessionId([3; 16]), &ann(), 10).unwrap();
    (sessions, key, Bugs::new())
}

#[test]
fn the_newest_connection_has_the_session_whichever_hello_comes_first() {
    let (mut sessions, key, mut bugs) = table();
    assert_eq!((sessions.stats().detached, sessions.conn(key)), (1, None));
    let first = sessions.attach(&mut bugs, key, conn(1), 5, Some(10), false).unwrap();
    assert_eq!((first.old, first.is_new, first.registered), (None, true, 10));
    let second = sessions.attach(&mut bugs, key, conn(2), 6, Some(12), true).unwrap();
    assert_eq!((second.old, second.is_new, second.registered), (Some(conn(1)), false, 12));
    assert!(first.epoch < second.epoch && second.epoch < client_epoch(11));
    assert_eq!(sessions.attach(&mut bugs, key, conn(3), 4, Some(12), true), None, "its Hello was late");
    let stats = sessions.stats();
    assert_eq!((stats.detached, stats.takeovers, stats.resumes), (0, 1, 1));
    assert_eq!(sessions.detach(&mut bugs, key, conn(1), at(50)), None, "it has lost the session already");
    assert_eq!(sessions.detach(&mut bugs, key, conn(2), at(50)), Some(ann()));
    assert_eq!((sessions.next_timer(), sessions.stats().detached), (Some((at(50), key)), 1));
}

#[test]
fn a_session_goes_on_here_unless_its_client_knows_of_a_later_one() {
    let (mut sessions, key, mut bugs) = table();
    let attachment = sessions.attach(&mut bugs, key, conn(1), 1, Some(10), false).unwrap();
    let named = Some(SessionId([3; 16]));
    let find = |newest, registered| sessions.find(&ann(), named, newest, registered);
    assert_eq!(find(attachment.epoch, None), Known::Here(key));
    assert_eq!(find(attachment.epoch + 1, None), Known::Outdated(key));
    // The node has registered the session anew, and nobody else has told of that.
    assert_eq!(find(client_epoch(15), Some(15)), Known::Here(key));
    assert_eq!(find(client_epoch(14), Some(15)), Known::Outdated(key));
    assert_eq!(sessions.find(&ann(), Some(SessionId([4; 16])), 0, None), Known::No);
    assert_eq!(sessions.find(&Name::new("bob").unwrap(), named, 0, None), Known::No);
    assert_eq!(revision(attachment.epoch), 10);
}

#[test]
fn the_end_of_a_session_is_put_off_while_its_player_may_be_at_the_door() {
    let config = Config::default();
    let handshake = config.connections.handshake_timeout;
    let look = |knocks: bool, has_strangers: bool, after: Duration, times: usize| {
        let (mut sessions, key, mut bugs) = table();
        sessions.start_expiry(&mut bugs, key, at(1_000));
        sessions.knock(&ann(), conn(9), |_| true);
        let mut now = at(1_000);
        let mut ends = Vec::new();
        for _ in 0..times {
            now = now + after;
            assert_eq!(sessions.take_due(now), Some(key));
            let door = Door { is_greeting: &|_| knocks, has_strangers };
            ends.push(sessions.is_over(&mut bugs, now, &config, Planted::default(), key, door));
            now = now + handshake;
        }
        assert_eq!(sessions.stats().expiries, u64::from(ends.last() == Some(&true)));
        ends
    };
    let (on_time, late) = (Duration::ZERO, LATE + Duration::from_micros(1));
    assert_eq!(look(false, false, on_time, 1), [true]);
    assert_eq!(look(true, false, on_time, 3), [false; 3], "a handshake is under way");
    assert_eq!(look(false, true, on_time, 2), [false, true], "a stranger may be the player, once");
    assert_eq!(look(false, false, late, 2), [false, true], "the node stood still, once");
    assert_eq!(look(false, true, late, 3), [false; 3], "both, each time");
}

#[test]
fn a_session_is_in_as_many_rooms_as_it_may_be() {
    let (mut sessions, key, _) = table();
    assert!(sessions.begin_membership(key, ROOM, 1, 1));
    let other = Key { slot: 8, generation: 1 };
    assert!(!sessions.begin_membership(key, other, 2, 1) && sessions.begin_membership(key, other, 3, 2));
    assert!(sessions.membership(key, ROOM).is_some_and(|membership| !membership.is_seated()));
    assert_eq!(sessions.end_membership(key, ROOM).map(|membership| membership.room()), Some(ROOM));
    assert!(sessions.end_membership(key, ROOM).is_none() && sessions.membership(key, ROOM).is_none());
    assert_eq!(sessions.get(key).unwrap().rooms(), [other]);
    sessions.audit(&Config::default()).unwrap();
    assert_eq!(sessions.take_memberships(key).len(), 1);
    assert_eq!(sessions.remove(key).unwrap().player, ann());
    assert_eq!((sessions.len(), sessions.of_player(&ann()), sessions.stats().detached), (0, None, 0));
}
