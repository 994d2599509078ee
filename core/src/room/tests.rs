//! The way of ops through a room: log time, the machine's function, and the window.

use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use skirmish_proto::v1;

use super::*;
use crate::base::id::SessionId;
use crate::base::time::Wall;
use crate::config::Config;
use crate::wire::{Frame, Zstd};

const MEMBERS: u32 = 4;

fn machine() -> Machine {
    Machine::new(MachineConfig {
        turn_time: Duration::from_secs(30),
        remember: Duration::from_secs(60),
        remembered: 3,
        planted: Planted::default(),
    })
}

fn room(change: impl FnOnce(&mut RoomLimits), name: &str, compress_from: usize) -> Room {
    let mut limits = Config::default().rooms;
    change(&mut limits);
    let config = RoomConfig {
        limits: &limits,
        compress_from,
        remember: Duration::from_secs(60),
        replica: 1,
        seed: Seed::default(),
        planted: Planted::default(),
    };
    Room::new(Name::new(name).unwrap(), 7, &config)
}

fn at(ms: u64) -> Now {
    Now { instant: Instant::from_micros(ms * 1_000), wall: Wall(1_000_000 + ms) }
}

fn seat(session: u8, epoch: u64) -> Seat {
    Seat { session: SessionId([session; 16]), epoch }
}

fn player(number: u8) -> Name {
    Name::new(&alloc::format!("player-{number}")).unwrap()
}

fn say(client_seq: u64, bytes: usize) -> v1::Say {
    v1::Say { client_seq, body: vec![7; bytes].into(), ..v1::Say::default() }
}

/// Commits and applies everything that is appended.
fn commit(room: &mut Room, now: Now) -> Vec<Applied> {
    let zstd = &mut Zstd::default();
    core::iter::from_fn(|| room.commit_next(now, zstd)).collect()
}

fn join(room: &mut Room, now: Now, player: Name, seat: Seat) -> u32 {
    let number = room.join(now, player, seat);
    assert_eq!(commit(room, now), [Applied::Joined { number }]);
    number
}

/// Decodes an entry of the log.
fn entry(room: &Room, seq: u64) -> v1::Entry {
    let frame = Frame::decode(room.log().get(seq, false).unwrap().clone(), 1 << 20).unwrap();
    prost::Message::decode(frame.payload).unwrap()
}

fn input() -> impl Strategy<Value = Input> {
    let member = 0..=MEMBERS;
    prop_oneof![
        4 => (member.clone(), 0..6_u64, prop::option::of(0..3_u32)).prop_map(|(member, client_seq, ends_turn)| {
            Input::Say { member, client_seq, body: vec![1; 3].into(), type_url: "move".to_string(), ends_turn }
        }),
        2 => (0..4_u8).prop_map(|n| Input::Join { player: player(n), seat: seat(n, 1) }),
        1 => member.clone().prop_map(|member| Input::Leave { member }),
        1 => (member, 2..9_u64).prop_map(|(member, epoch)| Input::Seat { member, seat: seat(9, epoch) }),
        1 => (0..3_u32).prop_map(|turn| Input::EndTurn { turn }),
    ]
}

proptest! {
    #[test]
    fn replicas_that_apply_the_same_ops_are_the_same_and_followers_know_what_is_visible(
        inputs in prop::collection::vec((input(), 0..50_u64), 0..60),
    ) {
        let (mut one, mut other, mut follower) = (machine(), machine(), machine());
        // The same entry, even if the buffer held another one before.
        let mut left_over = v1::Entry { turn: 99, player: "nobody".to_string(), ..v1::Entry::default() };
        let mut at_ms = 0;
        for (number, (input, later)) in inputs.into_iter().enumerate() {
            at_ms += later;
            let op = Op { number: number as u64 + 1, term: 1, at_ms, input };
            let mut entry = v1::Entry::default();
            let applied = one.apply(op.clone(), &mut entry);
            prop_assert_eq!(&other.apply(op, &mut left_over), &applied);
            if applied != Applied::Silent {
                prop_assert_eq!(&left_over, &entry);
                follower.follow(&entry);
            }
            prop_assert_eq!(one.members(), other.members());
            prop_assert_eq!((one.turn(), one.applied()), (other.turn(), number as u64 + 1));
        }
        let visible = |m: &Member| (m.number, m.player.clone(), m.client_seq);
        let known = |machine: &Machine| machine.members().iter().map(visible).collect::<Vec<_>>();
        prop_assert_eq!(known(&one), known(&follower));
        prop_assert_eq!(one.turn(), follower.turn());
        prop_assert!(one.recently_left().len() <= 3);
    }

    #[test]
    fn no_entry_is_lost_that_was_not_released(
        name in "[a-z]{1,64}",
        compress_from in prop_oneof![Just(0), Just(100)],
        window in (1..6_usize, 200..1_500_usize),
        steps in prop::collection::vec((0..6_u8, 0..900_usize), 1..60),
    ) {
        let limits = |limits: &mut RoomLimits| (limits.window_entries, limits.window_bytes) = window;
        let mut room = room(limits, &name, compress_from);
        let number = join(&mut room, at(0), player(0), seat(0, 1));
        let trace = v1::Metadata {
            trace_id: vec![1; 16].into(), span_id: vec![2; 8].into(), trace_flags: 1, ..v1::Metadata::default()
        };
        let mut said = 0;
        for (step, size) in steps {
            match step {
                0 => room.release(),
                1 => room.end_turn(at(1)),
                2 => {
                    let guest = room.join(at(1), player(1), seat(1, 1));
                    room.leave(at(1), guest);
                }
                3 => drop(commit(&mut room, at(1))),
                _ => {
                    let message = say(said + 1, size);
                    match room.judge(number, &message).unwrap() {
                        Judged::Next => {
                            room.say(at(1), number, message, trace.clone());
                            said += 1;
                        }
                        Judged::Full => {
                            commit(&mut room, at(1));
                            room.release();
                            prop_assert_eq!(room.judge(number, &message), Some(Judged::Next));
                        }
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert!(room.released() + 1 >= room.log().first());
        }
    }
}

#[test]
fn log_time_never_goes_back_and_a_turn_lasts_as_long_as_it_should() {
    let mut room = room(|limits| limits.turn_time = Duration::from_secs(30), "arena", 0);
    join(&mut room, at(5_000), player(0), seat(0, 1));
    assert_eq!(entry(&room, 1).at_ms, 1_005_000);
    // The wall clock was set back by an hour.
    let set_back = Now { wall: Wall(1_000), ..at(6_000) };
    room.end_turn(set_back);
    room.end_turn(set_back);
    assert_eq!(commit(&mut room, set_back), [Applied::Entry { turned: true }], "once");
    let ended = entry(&room, 2);
    assert_eq!((ended.at_ms, ended.turn, ended.turn_ends_ms), (1_005_000, 1, 1_035_000));
    assert_eq!(room.turn_ends_at(), Some(at(36_000).instant));
}

#[test]
fn a_message_is_judged_once_and_applied_once() {
    let mut room = room(|_| {}, "arena", 0);
    assert_eq!(room.judge(1, &say(1, 3)), None, "nobody is a member");
    let number = join(&mut room, at(0), player(0), seat(0, 1));
    assert_eq!(room.judge(number, &say(2, 3)), Some(Judged::Gap { expected: 1 }));
    room.say(at(1), number, say(1, 3), v1::Metadata::default());
    assert_eq!(room.judge(number, &say(1, 3)), Some(Judged::Pending));
    assert_eq!(room.judge(number, &say(2, 3)), Some(Judged::Next), "it follows what is appended");
    // The second message is appended in spite of the judgement: it makes no entry.
    room.say(at(1), number, say(1, 3), v1::Metadata::default());
    assert_eq!(commit(&mut room, at(1)), [Applied::Entry { turned: false }, Applied::Silent]);
    assert_eq!((room.log().head(), room.judge(number, &say(1, 3))), (2, Some(Judged::Duplicate)));
    assert_eq!((room.released(), room.member(number).map(|member| member.client_seq)), (1, Some(1)));
}

#[test]
fn a_session_that_was_outrun_is_known_after_its_player_has_left() {
    let mut room = room(|_| {}, "arena", 0);
    let number = join(&mut room, at(0), player(0), seat(0, 4));
    room.seat(at(1), number, seat(0, 6));
    assert_eq!(commit(&mut room, at(1)), [Applied::Silent]);
    assert_eq!((room.log().head(), room.member(number).map(|member| member.seat)), (1, Some(seat(0, 6))));
    room.leave(at(2), number);
    commit(&mut room, at(2));
    let outlived = |ms, epoch| room.has_outlived(at(ms), &player(0), epoch);
    assert_eq!([outlived(3, 5), outlived(3, 6), outlived(60_002, 5)], [true, false, false]);
    assert_eq!(entry(&room, 2).player, String::from(player(0)));
}

#[test]
fn what_is_appended_is_looked_through_and_shows_to_nobody_before_it_is_committed() {
    let mut room = room(|_| {}, "arena", 0);
    let ann = join(&mut room, at(0), player(0), seat(0, 1));
    room.say(at(1), ann, say(1, 3), v1::Metadata::default());
    room.seat(at(1), ann, seat(0, 4));
    let bob = room.join(at(2), player(1), seat(1, 2));
    room.say(at(2), bob, say(1, 3), v1::Metadata::default());
    room.leave(at(3), ann);
    let cid = room.join(at(3), player(2), seat(2, 3));
    assert_eq!((ann, bob, cid, room.applied(), room.appended()), (1, 2, 3, 1, 7));
    let known = |room: &Room| {
        let known = |member: FutureMember<'_>| (member.number, member.seat, member.client_seq);
        room.future_members().map(known).collect::<Vec<_>>()
    };
    let future = [(bob, seat(1, 2), 1), (cid, seat(2, 3), 0)];
    assert_eq!(known(&room), future);
    assert_eq!(room.future_member(ann), None);
    assert_eq!((room.members().len(), room.log().head()), (1, 1));
    assert_eq!(room.member(ann).map(|member| (member.seat, member.client_seq)), Some((seat(0, 1), 0)));
    // One after the other, each with its entry.
    let mut half = room.clone();
    assert_eq!(half.commit_next(at(4), &mut Zstd::default()), Some(Applied::Entry { turned: false }));
    assert_eq!((half.applied(), half.log().head(), known(&half)), (2, 2, future.to_vec()));
    commit(&mut room, at(4));
    assert_eq!((room.applied(), room.log().head()), (7, 6));
    assert_eq!(room.members().iter().map(|member| member.number).collect::<Vec<_>>(), [bob, cid]);
    assert_eq!(known(&room), future);
}

proptest! {
    #[test]
    fn the_future_is_what_applying_makes_of_it(
        inputs in prop::collection::vec(input(), 0..40),
        early in 0..40_usize,
    ) {
        let mut room = room(|_| {}, "arena", 0);
        for input in inputs {
            match input {
                Input::Say { member, client_seq, .. } => {
                    if let Some(Judged::Next) = room.judge(member, &say(client_seq, 3)) {
                        room.say(at(1), member, say(client_seq, 3), v1::Metadata::default());
                    }
                }
                Input::Join { player, seat } => drop(room.join(at(1), player, seat)),
                Input::Leave { member } => room.leave(at(1), member),
                Input::Seat { member, seat } => room.seat(at(1), member, seat),
                Input::EndTurn { .. } => room.end_turn(at(1)),
            }
        }
        let future = |room: &Room| {
            let known = |m: FutureMember<'_>| (m.number, m.player.clone(), m.seat, m.client_seq);
            room.future_members().map(known).collect::<Vec<_>>()
        };
        let expected = future(&room);
        for _ in 0..early {
            room.commit_next(at(2), &mut Zstd::default());
        }
        prop_assert_eq!(&future(&room), &expected);
        commit(&mut room, at(2));
        let applied: Vec<_> =
            room.members().iter().map(|m| (m.number, m.player.clone(), m.seat, m.client_seq)).collect();
        prop_assert_eq!(applied, expected);
    }
}

/// Returns a room with a member, and a backup of it that has the entry of the join.
fn with_backup() -> (Room, Room) {
    let mut primary = room(|_| {}, "arena", 0);
    primary.join(at(1), player(1), seat(1, 5));
    commit(&mut primary, at(1));
    primary.begin_digest();
    let mut backup = room(|_| {}, "arena", 0);
    let (entry, frame) = entry_of(&primary, 1);
    backup.follow(&entry, frame, &mut Zstd::default());
    backup.install(at(2), primary.installed()).unwrap();
    (primary, backup)
}

fn entry_of(room: &Room, seq: u64) -> (v1::Entry, Bytes) {
    let bytes = room.log().get(seq, false).unwrap().clone();
    let frame = Frame::decode(bytes.clone(), 1 << 20).unwrap();
    match wire::ToNode::decode(&frame, bytes).unwrap() {
        wire::ToNode::Room(wire::RoomMessage::Entry(entry, bytes)) => (entry, bytes),
        other => panic!("the log has {other:?}"),
    }
}

#[test]
fn a_backup_that_applies_the_same_ops_has_the_same_entries_members_and_digest() {
    let (mut primary, mut backup) = with_backup();
    primary.say(at(3), 1, say(1, 10), v1::Metadata::default());
    primary.join(at(4), player(2), seat(2, 6));
    primary.seat(at(5), 1, seat(1, 8));
    primary.leave(at(6), 2);
    for op in primary.ops_after(0) {
        assert_eq!(backup.store(op), Ok(OpStored::Stored));
    }
    commit(&mut primary, at(7));
    assert_ne!(primary.applied_op(), backup.applied_op());
    commit(&mut backup, at(9));
    assert_eq!(primary.applied_op(), backup.applied_op());
    assert_eq!((primary.members(), primary.turn()), (backup.members(), backup.turn()));
    for seq in 1..=primary.log().head() {
        assert_eq!(primary.log().get(seq, false), backup.log().get(seq, false));
    }
    assert!(backup.has_outlived(at(8), &player(2), 5), "who left is known");
}

#[test]
fn an_op_of_a_later_term_replaces_the_one_in_its_place_and_all_behind() {
    let (mut primary, mut backup) = with_backup();
    for client_seq in 1..=3 {
        primary.say(at(3), 1, say(client_seq, 10), v1::Metadata::default());
    }
    let ops: Vec<v1::Op> = primary.ops_after(0).collect();
    assert_eq!(backup.store(ops[1].clone()), Ok(OpStored::Gap));
    for op in &ops {
        assert_eq!(backup.store(op.clone()), Ok(OpStored::Stored));
    }
    assert_eq!(backup.runs(), [v1::OpRun { term: 1, last: 4 }]);
    let other = v1::Op { term: 2, ..ops[1].clone() };
    assert_eq!(backup.store(other), Ok(OpStored::Stored));
    assert_eq!(backup.runs(), [v1::OpRun { term: 1, last: 2 }, v1::OpRun { term: 2, last: 3 }]);
    let malformed = v1::Op { number: 4, term: 2, ..v1::Op::default() };
    assert_eq!(backup.store(malformed), Err(MalformedOp));
    commit(&mut backup, at(9));
    assert_eq!(backup.store(ops[0].clone()), Ok(OpStored::Applied));
}
