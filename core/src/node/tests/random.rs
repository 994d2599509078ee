//! Random input for a node, which never panics and never exceeds a bound.

use proptest::collection::vec as many;
use proptest::prelude::*;

use super::*;
use crate::crdt::Replica;

/// One input. The distribution makes it likely that the input refers to something that exists.
#[derive(Clone, Debug)]
enum Step {
    Accept { player: u8 },
    Hello { conn: usize, resume: Option<(usize, u64)> },
    Join { conn: usize, room: u8, history: u32 },
    Leave { conn: usize, room: u8 },
    Say { conn: usize, room: u8, ahead: u64, size: usize },
    Latest { conn: usize, room: u8, key: u32 },
    State { conn: usize, room: u8, owner: u8, wall_ms: u64, removed: bool },
    Reconcile { conn: usize, room: u8, level: u32, nodes: Vec<u32> },
    Bytes { conn: usize, bytes: Vec<u8> },
    Flip { conn: usize, at: usize, bit: u8 },
    Closed { conn: usize },
    Read { conn: usize, frames: usize },
    Sleep { ms: u64 },
    Kick { player: u8 },
    Send { conn: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (conn, room, player) = (0..6usize, 0..4u8, 0..4u8);
    prop_oneof![
        3 => player.clone().prop_map(|player| Step::Accept { player }),
        3 => (conn.clone(), prop::option::of((0..6usize, 0..30u64)))
            .prop_map(|(conn, resume)| Step::Hello { conn, resume }),
        3 => (conn.clone(), room.clone(), 0..9u32)
            .prop_map(|(conn, room, history)| Step::Join { conn, room, history }),
        1 => (conn.clone(), room.clone()).prop_map(|(conn, room)| Step::Leave { conn, room }),
        8 => (conn.clone(), room.clone(), prop_oneof![9 => Just(0), 1 => 0..3u64], 0..200usize)
            .prop_map(|(conn, room, ahead, size)| Step::Say { conn, room, ahead, size }),
        3 => (conn.clone(), room.clone(), 0..3u32).prop_map(|(conn, room, key)| Step::Latest { conn, room, key }),
        3 => (conn.clone(), room.clone(), player.clone(), 0..5000u64, any::<bool>())
            .prop_map(|(conn, room, owner, wall_ms, removed)| Step::State { conn, room, owner, wall_ms, removed }),
        2 => (conn.clone(), room, 0..4u32, many(0..300u32, 0..5))
            .prop_map(|(conn, room, level, nodes)| Step::Reconcile { conn, room, level, nodes }),
        1 => (conn.clone(), many(any::<u8>(), 0..40)).prop_map(|(conn, bytes)| Step::Bytes { conn, bytes }),
        1 => (conn.clone(), 0..60usize, 0..8u8).prop_map(|(conn, at, bit)| Step::Flip { conn, at, bit }),
        2 => conn.clone().prop_map(|conn| Step::Closed { conn }),
        4 => (conn.clone(), 0..20usize).prop_map(|(conn, frames)| Step::Read { conn, frames }),
        4 => prop_oneof![0..50u64, 0..30_000u64].prop_map(|ms| Step::Sleep { ms }),
        1 => player.prop_map(|player| Step::Kick { player }),
        1 => conn.prop_map(|conn| Step::Send { conn }),
    ]
}

/// The driver's notes on a connection.
struct Link {
    conn: ConnId,
    session: Bytes,
    epochs: [u64; 4],
    said: [u64; 4],
}

fn small(config: &mut Config) {
    config.connections.total = 5;
    config.connections.per_address = 5;
    config.connections.unauthenticated = 3;
    config.sessions = crate::config::SessionLimits { total: 3, ttl: Duration::from_secs(20), rooms: 2 };
    config.rooms.total = 3;
    config.rooms.members = 2;
    config.rooms.window_entries = 4;
    config.rooms.window_bytes = 400;
    config.rooms.latest_keys = 2;
    config.rooms.state_entries = 3;
    config.rooms.tombstone_horizon = Duration::from_secs(86);
    config.frames.compress_from = 100;
}

fn room_name(room: u8) -> String {
    ["red", "green", "blue", "no such name!"][usize::from(room) % 4].to_string()
}

fn run(steps: &[Step], flush_ms: u64) {
    let mut world = World::new(|config| {
        small(config);
        config.rooms.flush_interval = Duration::from_millis(flush_ms);
    });
    let mut links: Vec<Link> = vec![];
    for step in steps {
        apply(&mut world, &mut links, step);
        world.settle();
        world.closed.clear();
        world.events.clear();
    }
    world.node.drain(world.now, Duration::ZERO);
    world.settle();
    world.advance(HOUR);
    let stats = world.node.stats();
    assert_eq!((stats.connections, stats.sessions, stats.rooms, stats.members), (0, 0, 0, 0));
    assert_eq!((stats.unauthenticated, stats.closing, stats.unhealthy, stats.detached), (0, 0, 0, 0));
    assert!(RENEWALS.contains(&world.node.poll_timeout().unwrap().reason));
}

fn apply(world: &mut World, links: &mut Vec<Link>, step: &Step) {
    let at = |conn: &usize, links: &[Link]| links.len().checked_sub(1).map(|last| (*conn).min(last));
    match step {
        Step::Accept { player } => {
            let Ok(conn) = world.node.handle_accept(world.now, Address([*player; 16])) else { return };
            let player = Name::new(["ann", "bob", "cid", "dan"][usize::from(*player) % 4]).unwrap();
            let identity = Identity { player, token: Bytes::new(), trace: Trace::default() };
            world.node.handle_upgraded(world.now, conn, identity);
            links.push(Link { conn, session: Bytes::new(), epochs: [0; 4], said: [0; 4] });
            if links.len() > 6 {
                links.remove(0);
            }
        }
        Step::Sleep { ms } => world.advance(Duration::from_millis(*ms)),
        Step::Kick { player } => {
            world.node.kick(world.now, ["ann", "bob", "cid", "dan"][usize::from(*player) % 4]);
        }
        Step::Hello { conn, resume } => {
            let Some(i) = at(conn, links) else { return };
            let resume = resume.and_then(|(other, seq)| {
                let other = &links[at(&other, links)?];
                let cursor = |room: u8| v1::RoomCursor {
                    room: room_name(room),
                    epoch: other.epochs[usize::from(room)],
                    seq,
                    request: seq,
                };
                Some(v1::Resume {
                    session: other.session.clone(),
                    rooms: (0..2).map(cursor).collect(),
                    ..v1::Resume::default()
                })
            });
            let hello = v1::Hello { resume, accept_zstd: true, ..v1::Hello::default() };
            world.send(links[i].conn, v1::Kind::Hello, &hello);
        }
        Step::Join { conn, room, history } => {
            let Some(i) = at(conn, links) else { return };
            let join = v1::Join { room: room_name(*room), history: *history, request: 0 };
            world.send(links[i].conn, v1::Kind::Join, &join);
        }
        Step::Leave { conn, room } => {
            let Some(i) = at(conn, links) else { return };
            world.send(links[i].conn, v1::Kind::Leave, &v1::Leave { room: room_name(*room), request: 0 });
        }
        Step::Say { conn, room, ahead, size } => {
            let Some(i) = at(conn, links) else { return };
            let said = &mut links[i].said[usize::from(*room)];
            *said += 1;
            let (client_seq, body) = (*said + ahead, Bytes::from(vec![0; *size]));
            let say = v1::Say { room: room_name(*room), client_seq, body, ..v1::Say::default() };
            world.send(links[i].conn, v1::Kind::Say, &say);
        }
        Step::Latest { conn, room, key } => {
            let Some(i) = at(conn, links) else { return };
            let latest = v1::Latest { room: room_name(*room), key: *key, ..v1::Latest::default() };
            world.send(links[i].conn, v1::Kind::Latest, &latest);
        }
        Step::State { conn, room, owner, wall_ms, removed } => {
            let Some(i) = at(conn, links) else { return };
            let entry = v1::StateEntry {
                domain: v1::Domain::Property.into(),
                owner: ["ann", "bob", "cid", "dan"][usize::from(*owner) % 4].to_string(),
                name: (wall_ms % 5).to_string(),
                stamp: Some(v1::Stamp { wall_ms: world.now.wall.0 + wall_ms, count: 0, replica: 5 }),
                removed: *removed,
                ..v1::StateEntry::default()
            };
            let epoch = links[i].epochs[usize::from(*room)];
            let state =
                v1::State { room: room_name(*room), epoch, entries: vec![entry], ..v1::State::default() };
            world.send(links[i].conn, v1::Kind::State, &state);
        }
        Step::Reconcile { conn, room, level, nodes } => {
            let Some(i) = at(conn, links) else { return };
            let node = |index: &u32| v1::MerkleNode { index: *index, hash: 1 };
            let step = v1::Reconcile {
                room: room_name(*room),
                epoch: links[i].epochs[usize::from(*room)],
                level: *level,
                nodes: nodes.iter().map(node).collect(),
                leaves: nodes.clone(),
            };
            world.send(links[i].conn, v1::Kind::Reconcile, &step);
        }
        Step::Bytes { conn, bytes } => {
            let Some(i) = at(conn, links) else { return };
            world.node.handle_frame(world.now, links[i].conn, bytes.clone().into());
        }
        Step::Flip { conn, at: byte, bit } => {
            let Some(i) = at(conn, links) else { return };
            let mut frame = encode(v1::Kind::Say, &v1::Metadata::default(), &say(1, "flipped")).to_vec();
            let byte = byte % frame.len();
            frame[byte] ^= 1 << bit;
            world.node.handle_frame(world.now, links[i].conn, frame.into());
        }
        Step::Closed { conn } => {
            let Some(i) = at(conn, links) else { return };
            world.node.handle_closed(world.now, links[i].conn);
        }
        Step::Send { conn } => {
            let Some(i) = at(conn, links) else { return };
            let _ = world.node.send(world.now, links[i].conn, "game.Event", b"payload");
        }
        Step::Read { conn, frames } => {
            let Some(i) = at(conn, links) else { return };
            read(world, &mut links[i], *frames);
        }
    }
}

fn read(world: &mut World, link: &mut Link, frames: usize) {
    let mut zstd = wire::Zstd::default();
    for _ in 0..frames {
        let Some(frame) = world.node.poll_transmit(world.now, link.conn) else { return };
        let frame = zstd.inflate(Frame::decode(frame, 1 << 20).unwrap(), 1 << 20).unwrap();
        match ToClient::decode(&frame).unwrap() {
            ToClient::Welcome(welcome) => link.session = welcome.session,
            ToClient::Joined(joined) => {
                let room = (0..4u8).find(|room| room_name(*room) == joined.room).unwrap();
                link.epochs[usize::from(room)] = joined.epoch;
                link.said[usize::from(room)] = joined.client_seq;
            }
            ToClient::State(state) if state.refused => {
                assert!(state.entries.iter().all(|e| e.stamp.as_ref().unwrap().wall_ms > state.wall_ms));
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_node_takes_anything_within_its_bounds(steps in many(step(), 0..120), flush_ms in 0..3u64) {
        run(&steps, flush_ms * 20);
    }
}

/// The replica of a room without members ends with the room.
#[test]
fn a_closed_room_leaves_no_state() {
    let mut world = World::new(|_| {});
    let a = world.player("a");
    assert!(world.node.replica("arena").is_some_and(|replica: &Replica| replica.is_present("a")));
    world.node.kick(world.now, "a");
    world.settle();
    assert!(world.node.replica("arena").is_none());
    world.received(a.conn);
}
