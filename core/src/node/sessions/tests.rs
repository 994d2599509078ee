//! Sessions, without a node.

use super::*;

const ANN: &str = "ann";
const ROOM: Key = Key { slot: 7, generation: 1 };

fn conn(slot: u32) -> ConnId {
    ConnId::from_key(Key { slot, generation: 0 })
}

fn newcomer(slot: u32, dial: DialNumber, number: u64) -> Newcomer {
    Newcomer { conn: conn(slot), dial, number }
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

/// The number of a connection of client `client`.
fn dial(client: u64, dial: u64) -> DialNumber {
    DialNumber { client, dial }
}

#[test]
fn the_newest_connection_of_a_client_has_the_session_whichever_hello_comes_first() {
    let (mut sessions, key, mut bugs) = table();
    assert_eq!((sessions.stats().detached, sessions.conn(key)), (1, None));
    let first = sessions.attach(&mut bugs, key, newcomer(1, dial(7, 2), 5), Some(10), false).unwrap();
    assert_eq!((first.old, first.is_new, first.registered), (None, true, 10));
    assert!(sessions.had_newer(&ann(), dial(7, 1)) && !sessions.had_newer(&ann(), dial(7, 3)));
    let second = sessions.attach(&mut bugs, key, newcomer(2, dial(7, 4), 4), Some(12), true).unwrap();
    assert_eq!((second.old, second.is_new, second.registered), (Some(conn(1)), false, 12));
    assert_eq!((first.epoch, second.epoch), (10, 10));
    assert_eq!(
        sessions.attach(&mut bugs, key, newcomer(3, dial(7, 3), 6), Some(12), true),
        None,
        "its Hello was late"
    );
    let stats = sessions.stats();
    assert_eq!((stats.detached, stats.takeovers, stats.resumes), (0, 1, 1));
    assert_eq!(sessions.detach(&mut bugs, key, conn(1), at(50)), None, "it has lost the session already");
    assert_eq!(sessions.detach(&mut bugs, key, conn(2), at(50)), Some(ann()));
    assert_eq!((sessions.next_timer(), sessions.stats().detached), (Some((at(50), key)), 1));
    assert_eq!(
        sessions.attach(&mut bugs, key, newcomer(4, dial(7, 1), 7), Some(12), true),
        None,
        "it is remembered"
    );
}

#[test]
fn of_two_clients_the_later_hello_has_the_session() {
    let (mut sessions, key, mut bugs) = table();
    for (number, dial) in
        [(5, dial(7, 9)), (4, dial(8, 1)), (3, dial(7, 1)), (2, dial(0, 0)), (1, dial(7, 1))]
    {
        assert!(!sessions.had_newer(&ann(), dial));
        assert!(
            sessions.attach(&mut bugs, key, newcomer(1, dial, number), Some(10), true).is_some(),
            "{dial:?}"
        );
    }
}

#[test]
fn connections_without_numbers_of_the_client_are_compared_by_those_of_the_node() {
    let (mut sessions, key, mut bugs) = table();
    let mut attach = |number| {
        sessions.attach(&mut bugs, key, newcomer(1, DialNumber::default(), number), Some(10), true).is_some()
    };
    assert_eq!([5, 4, 6].map(&mut attach), [true, false, true]);
}

#[test]
fn a_session_goes_on_here_unless_its_client_knows_of_a_later_one() {
    let (mut sessions, key, mut bugs) = table();
    let named = Some(SessionId([3; 16]));
    let find = |sessions: &Sessions, newest| sessions.find(&ann(), named, newest, Some(15));
    assert_eq!([9, 10].map(|newest| find(&sessions, newest)), [Known::Here(key); 2]);
    assert_eq!(find(&sessions, 11), Known::Outdated(key));
    // The node has registered the session anew, and nobody else has told of that.
    assert_eq!([14, 15].map(|newest| find(&sessions, newest)), [Known::Outdated(key), Known::Here(key)]);
    assert!(sessions.raise(&mut bugs, key, 14).is_empty());
    assert_eq!(find(&sessions, 14), Known::Here(key));
    assert_eq!(sessions.find(&ann(), Some(SessionId([4; 16])), 0, None), Known::No);
    assert_eq!(sessions.find(&Name::new("bob").unwrap(), named, 0, None), Known::No);
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
