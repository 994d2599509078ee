//! Writes the first inputs of the corpora, the same every time:
//! `cargo run -p skirmish-fuzz --example seeds`.
//!
//! The real encoders make the inputs, so that a fuzzer starts with accepted ones.

use std::fs;
use std::io;

use bytes::Bytes;
use prost::Message as _;
use skirmish_core::wire::{self, Zstd, seal};
use skirmish_fuzz::corpus;
use skirmish_proto::v1::{self, Kind};
use skirmish_sim::draw::generator;

fn main() -> io::Result<()> {
    let messages = messages();
    let all = [messages.clone(), link_messages(), backup_messages(), match_messages()].concat();
    let corpora = [("frame", frames(&messages)), ("machine", steps()), ("message", payloads(&all))];
    for (name, inputs) in corpora {
        let directory = corpus::directory(name);
        fs::create_dir_all(&directory)?;
        for (index, input) in inputs.iter().enumerate() {
            fs::write(directory.join(format!("seed-{index:02}")), input)?;
        }
    }
    Ok(())
}

/// Returns one message with content of every kind between clients and servers, in encoded form.
fn messages() -> Vec<(Kind, Vec<u8>)> {
    let room = || "arena-1".to_owned();
    let type_url = || "game.v1.Move".to_owned();
    let body = || Bytes::from_static(b"body of the message");
    let stamp = v1::Stamp { wall_ms: 1_700_000_000_000, count: 3, replica: 9 };
    let entry = v1::StateEntry {
        domain: v1::Domain::Property.into(),
        owner: "ada".into(),
        name: "colour".into(),
        stamp: Some(stamp),
        value: Bytes::from_static(b"red"),
        ..v1::StateEntry::default()
    };
    let counter = v1::StateEntry {
        domain: v1::Domain::Counter.into(),
        owner: "ada".into(),
        name: "score".into(),
        replica: 9,
        plus: 5,
        minus: 2,
        ..v1::StateEntry::default()
    };
    vec![
        (Kind::Application, b"application".to_vec()),
        (
            Kind::Hello,
            v1::Hello {
                token: Bytes::from_static(b"token"),
                resume: Some(v1::Resume {
                    session: Bytes::from_static(&[7; 16]),
                    rooms: vec![v1::RoomCursor { room: room(), epoch: 2, seq: 41, request: 3 }],
                    epoch: 4_097,
                }),
                seal_key: Bytes::from_static(&[8; 32]),
                seal_pinned: true,
                accept_zstd: true,
                agent: "fuzz/1".into(),
                joins: vec![v1::Join { room: room(), history: 3, request: 3 }],
                client: 10,
                dial: 2,
            }
            .encode_to_vec(),
        ),
        (
            Kind::Welcome,
            v1::Welcome {
                session: Bytes::from_static(&[7; 16]),
                epoch: 1,
                resumed: true,
                heartbeat_ms: 15_000,
                session_ttl_ms: 60_000,
                tombstone_horizon_ms: 600_000,
                answers_pings: true,
                limits: Some(v1::Limits {
                    frame_bytes: 65_536,
                    body_bytes: 16_384,
                    rooms: 8,
                    reliable_rate: 60,
                    reliable_burst: 120,
                    latest_rate: 120,
                    latest_burst: 240,
                    latest_keys: 8,
                    state_entries: 32,
                    control_rate: 20,
                    control_burst: 40,
                    bytes_rate: 262_144,
                    bytes_burst: 524_288,
                }),
                seal_key: Bytes::from_static(&[8; 32]),
                wall_ms: 1_700_000_000_000,
                replica: 9,
            }
            .encode_to_vec(),
        ),
        (
            Kind::Goodbye,
            v1::Goodbye {
                reason: v1::Reason::Draining.into(),
                message: "restart".into(),
                retry_after_ms: 500,
            }
            .encode_to_vec(),
        ),
        (Kind::Ping, v1::Ping { nonce: 77, rtt_us: 1_200 }.encode_to_vec()),
        (Kind::Pong, v1::Pong { nonce: 77 }.encode_to_vec()),
        (Kind::Join, v1::Join { room: room(), history: 10, request: 3 }.encode_to_vec()),
        (
            Kind::Joined,
            v1::Joined {
                room: room(),
                epoch: 2,
                member: 4,
                resumed: true,
                client_seq: 6,
                seq: 41,
                request: 3,
            }
            .encode_to_vec(),
        ),
        (Kind::Leave, v1::Leave { room: room(), request: 3 }.encode_to_vec()),
        (
            Kind::Left,
            v1::Left { room: room(), reason: v1::LeftReason::Kicked.into(), answers_leave: true, request: 4 }
                .encode_to_vec(),
        ),
        (
            Kind::Say,
            v1::Say { room: room(), client_seq: 7, body: body(), type_url: type_url(), ends_turn: Some(2) }
                .encode_to_vec(),
        ),
        (
            Kind::Entry,
            v1::Entry {
                room: room(),
                epoch: 2,
                seq: 42,
                kind: v1::EntryKind::Say.into(),
                member: 4,
                client_seq: 7,
                at_ms: 1_700_000_000_000,
                body: body(),
                type_url: type_url(),
                player: "ada".into(),
                turn: 3,
                turn_ends_ms: 1_700_000_030_000,
            }
            .encode_to_vec(),
        ),
        (Kind::Ack, v1::Ack { room: room(), epoch: 2, client_seq: 7 }.encode_to_vec()),
        (
            Kind::Throttle,
            v1::Throttle {
                room: room(),
                class: v1::Class::Reliable.into(),
                expected: 8,
                retry_after_ms: 250,
            }
            .encode_to_vec(),
        ),
        (
            Kind::Snapshot,
            v1::Snapshot {
                room: room(),
                epoch: 2,
                seq: 90,
                missing_from: 43,
                client_seq: 7,
                members: vec![v1::Member { member: 4, player: "ada".into() }],
                turn: 3,
                turn_ends_ms: 0,
            }
            .encode_to_vec(),
        ),
        (
            Kind::Latest,
            v1::Latest {
                room: room(),
                key: 1,
                body: body(),
                type_url: type_url(),
                member: 4,
                epoch: 2,
                version: 12,
            }
            .encode_to_vec(),
        ),
        (
            Kind::State,
            v1::State { room: room(), epoch: 2, entries: vec![entry, counter], ..v1::State::default() }
                .encode_to_vec(),
        ),
        (
            Kind::Reconcile,
            v1::Reconcile {
                room: room(),
                epoch: 2,
                level: 1,
                nodes: vec![v1::MerkleNode { index: 3, hash: 0x0123_4567_89AB_CDEF }],
                leaves: vec![48, 49],
            }
            .encode_to_vec(),
        ),
    ]
}

/// Returns one message of every kind for searches of matches.
fn match_messages() -> Vec<(Kind, Vec<u8>)> {
    let mode = || "duel".to_owned();
    let search = 44_798_605_483_128;
    let queue = v1::Queue {
        mode: mode(),
        party: "friends".into(),
        party_size: 2,
        party_key: b"a secret of friends"[..].into(),
        rating: 1_700,
        latencies: vec![v1::RegionLatency { region: "eu".into(), millis: 20 }],
        attributes: vec![v1::Attribute {
            name: "level".into(),
            value: Some(v1::attribute::Value::Number(3)),
        }],
        conditions: vec![v1::Condition {
            name: "mood".into(),
            value: Some(v1::condition::Value::Set(v1::TextSet { texts: vec!["calm".into(), "wild".into()] })),
        }],
        search,
        session_epoch: 61_441,
    };
    let queued = v1::Queued {
        state: v1::TicketState::Refused.into(),
        mode: mode(),
        reason: "there is no queue of this mode".into(),
        waited_ms: 60_000,
        search,
        session_epoch: 61_441,
        r#match: "m1".into(),
    };
    let team = |player: &str| v1::Team { players: vec![player.into()] };
    let matched = v1::Matched {
        r#match: "1a-2-0123456789abcdef".into(),
        mode: mode(),
        room: "match:1a-2-0123456789abcdef".into(),
        team: 1,
        teams: vec![team("ada"), team("bob")],
        quality: 970,
        explanation: "quality 970 of 1000 in eu".into(),
        fills: 1,
        search,
        over: true,
    };
    vec![
        (Kind::Queue, queue.encode_to_vec()),
        (Kind::Cancel, v1::Cancel { search, r#match: "1a-2-0123456789abcdef".into() }.encode_to_vec()),
        (Kind::Queued, queued.encode_to_vec()),
        (Kind::Matched, matched.encode_to_vec()),
    ]
}

/// Returns one message with content of every kind between nodes.
fn link_messages() -> Vec<(Kind, Vec<u8>)> {
    let room = || "arena".to_owned();
    let session = || Bytes::from_static(&[7; 16]);
    let member = v1::TailMember { member: 4, player: "ada".into(), client_seq: 7 };
    vec![
        (Kind::LinkHello, v1::LinkHello { node: 1, to: 2 }.encode_to_vec()),
        (
            Kind::Attach,
            v1::Attach {
                room: room(),
                epoch: 2,
                seq: 41,
                number: 5,
                applied: 50,
                runs: vec![v1::OpRun { term: 1, last: 52 }, v1::OpRun { term: 2, last: 53 }],
                stores: true,
            }
            .encode_to_vec(),
        ),
        (
            Kind::Attached,
            v1::Attached {
                room: room(),
                epoch: 2,
                seq: 41,
                afresh: true,
                members: vec![member],
                turn: 3,
                turn_ends_ms: 0,
                number: 5,
                term: 2,
                backup: 7,
                replicates: false,
            }
            .encode_to_vec(),
        ),
        (
            Kind::Enter,
            v1::Enter {
                room: room(),
                epoch: 2,
                session: session(),
                session_epoch: 9,
                player: "ada".into(),
                resume: true,
                attempt: 12,
            }
            .encode_to_vec(),
        ),
        (
            Kind::Entered,
            v1::Entered { room: room(), epoch: 2, session: session(), member: 4, ..v1::Entered::default() }
                .encode_to_vec(),
        ),
        (
            Kind::Relay,
            v1::Relay {
                room: room(),
                epoch: 2,
                member: 4,
                session_epoch: 9,
                client_seq: 7,
                body: Bytes::from_static(b"move"),
                type_url: "game.v1.Move".into(),
                ends_turn: Some(0),
            }
            .encode_to_vec(),
        ),
        (
            Kind::Hold,
            v1::Hold { room: room(), epoch: 2, member: 4, expected: 7, retry_after_ms: 9 }.encode_to_vec(),
        ),
        (
            Kind::Exit,
            v1::Exit { room: room(), epoch: 2, member: 4, session_epoch: 9, away: true }.encode_to_vec(),
        ),
        (
            Kind::Exited,
            v1::Exited { room: room(), epoch: 2, member: 0, reason: v1::LeftReason::Gone.into() }
                .encode_to_vec(),
        ),
        (Kind::Detach, v1::Detach { room: room(), epoch: 2 }.encode_to_vec()),
    ]
}

/// Returns one message with content of every kind between a room's primary and its backup.
fn backup_messages() -> Vec<(Kind, Vec<u8>)> {
    let room = || "arena".to_owned();
    let session = || Bytes::from_static(&[7; 16]);
    let (epoch, term) = (2, 3);
    let say = v1::op::Message {
        member: 4,
        client_seq: 7,
        body: Bytes::from_static(b"move"),
        type_url: "game.v1.Move".into(),
        ends_turn: Some(0),
    };
    let arrival = |member, player: &str| v1::op::Arrival {
        member,
        player: player.into(),
        session: session(),
        session_epoch: 9,
    };
    let inputs = [
        v1::op::Input::Say(say),
        v1::op::Input::Join(arrival(0, "ada")),
        v1::op::Input::Leave(4),
        v1::op::Input::Seat(arrival(4, "")),
        v1::op::Input::EndTurn(5),
    ];
    let op = |(number, input)| v1::Op { number, term, at_ms: 9, input: Some(input), metadata: Bytes::new() };
    let ops = (41..).zip(inputs).map(op).collect();
    let member = v1::InstalledMember {
        member: 4,
        player: "ada".into(),
        session: session(),
        session_epoch: 9,
        client_seq: 7,
    };
    let left = v1::InstalledDeparture { player: "bob".into(), session_epoch: 8, until_ms: 99 };
    let install = v1::Install {
        room: room(),
        epoch,
        term,
        applied: 40,
        at_ms: 8,
        seq: 38,
        members: vec![member],
        next_member: 5,
        turn: 5,
        turn_ends_ms: 90,
        left: vec![left],
        digest: 77,
    };
    let replicate = v1::Replicate { room: room(), epoch, term, ops, released: 40, digest: 77, record: 12 };
    vec![
        (Kind::Recruit, v1::Recruit { room: room(), epoch, term }.encode_to_vec()),
        (Kind::Install, install.encode_to_vec()),
        (Kind::Replicate, replicate.encode_to_vec()),
        (Kind::Stored, v1::Stored { room: room(), epoch, term, number: 45, refused: true }.encode_to_vec()),
        (Kind::Lead, v1::Lead { room: room(), epoch, term, primary: 6, backup: 7 }.encode_to_vec()),
    ]
}

/// Inputs of the target `message`: each message of clients, servers and nodes, complete and truncated.
fn payloads(messages: &[(Kind, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    let kinds: Vec<Kind> = (0..64).filter_map(|number| Kind::try_from(number).ok()).collect();
    for (kind, payload) in messages {
        let index = kinds.iter().position(|known| known == kind).expect("it is a kind");
        let type_url: &[u8] = if *kind == Kind::Application { b"game.v1.Move" } else { b"" };
        let number = u8::try_from(index).expect("there are few kinds");
        let length = u8::try_from(type_url.len()).expect("the name is short");
        let input = [&[number, length], type_url, payload].concat();
        inputs.push(input[..input.len() / 2].to_vec());
        inputs.push(input);
    }
    inputs
}

/// Inputs of the target `frame`: each message as a frame; several in a stream; compressed, sealed, damaged.
fn frames(messages: &[(Kind, Vec<u8>)]) -> Vec<Vec<u8>> {
    let metadata = v1::Metadata {
        trace_id: Bytes::from_static(&[1; 16]),
        span_id: Bytes::from_static(&[2; 8]),
        trace_flags: 1,
        type_url: "game.v1.Move".into(),
    };
    let plain: Vec<Bytes> = messages
        .iter()
        .map(|(kind, payload)| wire::encode_bytes(*kind, &v1::Metadata::default(), payload))
        .collect();
    let large = wire::encode_bytes(Kind::Application, &metadata, &[b'a'; 600]);
    let small = Zstd::default().deflate(&large).expect("one byte 600 times can be compressed");
    let offer = seal::Offer::new([1; 32], None);
    let (_, mut sealer) =
        seal::answer([2; 32], None, &offer.public(), &[3; 16]).expect("the key of the offer is a good one");
    let sealed = sealer.seal(&large).expect("a plain frame can be sealed");

    // Options and chunk sizes in the format of the target.
    let with = |options: u8, sizes: &[u8], stream: &[u8]| {
        let count = u8::try_from(sizes.len()).expect("there are at most 15 sizes");
        [&[options, count], sizes, stream].concat()
    };
    let mut inputs: Vec<Vec<u8>> = plain.iter().map(|frame| with(0, &[], frame)).collect();
    inputs.push(with(2, &[], &plain[1]));
    inputs.push(with(3, &[], &large));
    inputs.push(with(0, &[16, 0, 3], &plain.concat()));
    inputs.push(with(2, &[99], &[&large[..], &plain[4][..]].concat()));
    inputs.push(with(0, &[7], &[&small[..], &sealed[..], &plain[5][..]].concat()));
    inputs.push(with(1, &[], &small));
    let mut damaged = large.to_vec();
    damaged[30] ^= 4;
    inputs.push(with(0, &[20], &damaged));
    inputs.push(with(1, &[20], &damaged));
    inputs.push(with(0, &[], &large[..40]));
    inputs
}

/// Inputs of the target `machine`: steps of every kind, close together and far apart.
fn steps() -> Vec<Vec<u8>> {
    (0..24_u64)
        .map(|seed| {
            let mut rng = generator(seed, "corpus");
            let mut byte = |last: u64| u8::try_from(rng.range(0..=last)).expect("the range ends at 255");
            let mut input = seed.to_be_bytes().to_vec();
            let longest_wait = [10, 40, 80][usize::try_from(seed % 3).expect("it is below 3")];
            for _ in 0..10 + seed * 3 {
                input.extend([byte(longest_wait), byte(255), byte(5), byte(255), byte(255), byte(255)]);
            }
            input
        })
        .collect()
}
