//! Answers name the requests of clients.

use super::cluster::Cluster;
use super::*;

/// Returns the kind, the number and the reason of each answer about a membership, by number: rooms
/// have no order among each other.
fn answers(messages: &[ToClient]) -> Vec<(&'static str, u64, v1::LeftReason)> {
    let answer = |message: &ToClient| match message {
        ToClient::Joined(joined) if joined.resumed => {
            Some(("resumed", joined.request, v1::LeftReason::Unspecified))
        }
        ToClient::Joined(joined) => Some(("joined", joined.request, v1::LeftReason::Unspecified)),
        ToClient::Left(left) if left.answers_leave => Some(("out", left.request, left.reason())),
        ToClient::Left(left) => Some(("left", left.request, left.reason())),
        _ => None,
    };
    let mut answers: Vec<_> = messages.iter().filter_map(answer).collect();
    answers.sort_unstable_by_key(|(_, number, _)| *number);
    answers
}

fn join(room: &str, request: u64) -> v1::Join {
    v1::Join { room: room.into(), history: 0, request }
}

const fn yes(kind: &'static str, request: u64) -> (&'static str, u64, v1::LeftReason) {
    (kind, request, v1::LeftReason::Unspecified)
}

#[test]
fn every_answer_names_the_newest_request_for_its_room() {
    let mut world = World::new(|config| config.sessions.rooms = 2);
    let conn = world.accept("ann");
    let resume = world.hello(conn, None).0.session;
    let mut ask = |expected: Vec<_>, messages: &dyn Fn(&mut World)| {
        messages(&mut world);
        assert_eq!(answers(&world.received(conn)), expected);
    };
    ask(vec![yes("joined", 1)], &|world| world.send(conn, v1::Kind::Join, &join("arena", 1)));
    // A second join of a member is answered with its own number, and the first is not answered late.
    ask(vec![yes("resumed", 3)], &|world| {
        world.send(conn, v1::Kind::Join, &join("arena", 2));
        world.send(conn, v1::Kind::Join, &join("arena", 3));
    });
    ask(vec![yes("joined", 4), ("left", 5, v1::LeftReason::Limit)], &|world| {
        world.send(conn, v1::Kind::Join, &join("yard", 4));
        world.send(conn, v1::Kind::Join, &join("hall", 5));
    });
    ask(vec![("left", 6, v1::LeftReason::BadName)], &|world| {
        world.send(conn, v1::Kind::Join, &join("no room", 6));
    });
    ask(vec![("left", 0, v1::LeftReason::NotAMember)], &|world| {
        world.send(conn, v1::Kind::Say, &v1::Say { room: "hall".into(), ..say(1, "") });
    });
    ask(vec![("out", 7, v1::LeftReason::NotAMember)], &|world| {
        world.send(conn, v1::Kind::Leave, &v1::Leave { room: "hall".into(), request: 7 });
    });
    // Answers that differ only in the number are no repetition.
    ask(vec![("out", 8, v1::LeftReason::Asked), ("out", 9, v1::LeftReason::NotAMember)], &|world| {
        world.send(conn, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 8 });
        world.send(conn, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 9 });
    });
    ask(vec![yes("joined", 10)], &|world| world.send(conn, v1::Kind::Join, &join("arena", 10)));
    let epoch = world.node.leads("arena").expect("the room");
    // A resume of the room, and one of a room that is unknown.
    let cursor = |room: &str, request| v1::RoomCursor { room: room.into(), epoch, seq: 0, request };
    let rooms = vec![cursor("arena", 11), cursor("hall", 12)];
    let conn = world.accept("ann");
    let (_, messages) = world.hello(conn, Some(v1::Resume { session: resume, rooms, epoch: 0 }));
    assert_eq!(answers(&messages), [yes("resumed", 11), ("left", 12, v1::LeftReason::Gone)]);
}

#[test]
fn the_end_of_a_membership_names_the_request_for_it_at_every_node() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, "ann");
    let bob = cluster.connect(1, "bob", None);
    cluster.send(&bob, v1::Kind::Join, &join("arena", 4));
    assert_eq!(answers(&cluster.received(&bob)), [yes("joined", 4)]);
    cluster.kill(0);
    cluster.advance(Duration::from_secs(20));
    assert_eq!(answers(&cluster.received(&bob)), [("left", 4, v1::LeftReason::Gone)]);
}
