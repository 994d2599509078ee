//! Work for `scripts/instructions` to count: one kind of work, repeated. `instructions NAME TIMES`;
//! without arguments the names.
#![allow(clippy::print_stdout, reason = "the names are for the script")]

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use bytes::Bytes;
use prost::Message;
use skirmish_core::config::{Config, Rate};
use skirmish_core::id::{Address, ConnId, Name, NodeId};
use skirmish_core::node::{Identity, Node, Output, Trace};
use skirmish_core::registry::{Embedded, RegistryConfig};
use skirmish_core::time::{Instant, Now, Wall};
use skirmish_core::wire::{Frame, ToServer, encode, encode_bytes};
use skirmish_proto::v1::{Hello, Join, Kind, Metadata, NodeRecord, Say};

const MAX_FRAME: usize = 64 * 1024;
const MEMBERS: usize = 10;

/// Repeats one kind of work this many times.
type Work = fn(u64);

const WORK: [(&str, Work); 6] = [
    ("decode_64", |times| decode(64, times)),
    ("decode_1k", |times| decode(1024, times)),
    ("encode_64", |times| encode_payload(64, times)),
    ("encode_1k", |times| encode_payload(1024, times)),
    ("decode_say_64", decode_say),
    ("node_say_to_10", node_say),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, times] = arguments.as_slice() else {
        for (name, _) in WORK {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let work = WORK.iter().find(|(known, _)| known == name);
    let (Some((_, work)), Ok(times)) = (work, times.parse()) else {
        eprintln!("usage: instructions [NAME TIMES]");
        return ExitCode::from(2);
    };
    work(times);
    ExitCode::SUCCESS
}

fn payload(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn decode(len: usize, times: u64) {
    let frame = encode_bytes(Kind::Application, &Metadata::default(), &payload(len));
    for _ in 0..times {
        let _ = black_box(Frame::decode(black_box(&frame).clone(), MAX_FRAME));
    }
}

fn encode_payload(len: usize, times: u64) {
    let payload = payload(len);
    for _ in 0..times {
        black_box(encode_bytes(Kind::Application, &Metadata::default(), black_box(&payload)));
    }
}

fn decode_say(times: u64) {
    let frame = frame(Kind::Say, &say(7, payload(64).into()));
    for _ in 0..times {
        let frame = Frame::decode(black_box(&frame).clone(), MAX_FRAME);
        let _ = black_box(frame.map(|frame| ToServer::decode(&frame)));
    }
}

/// One member sends a message; ten members, the sender among them, receive it.
fn node_say(times: u64) {
    let limitless = Rate { per_second: u32::MAX, burst: u32::MAX };
    let mut config = Config::default();
    config.rates.reliable = limitless;
    config.rates.bytes = limitless;
    let now = Now { instant: Instant::ZERO, wall: Wall(1_700_000_000_000) };
    let mut driven = Driven {
        node: Node::new(config, [1; 32], NodeId(1), NodeRecord::default(), None),
        registry: Embedded::new(RegistryConfig::default(), now.instant),
    };
    driven.node.start(now);
    driven.drive(now);
    let members: Vec<ConnId> = (0..MEMBERS).map(|member| driven.member(now, member)).collect();
    driven.drive(now);
    let body = Bytes::from(payload(64));
    for client_seq in 1..=times {
        driven.node.handle_frame(now, members[0], frame(Kind::Say, &say(client_seq, body.clone())));
        let sent = driven.drive(now);
        assert!(sent == MEMBERS, "{sent} frames went out for message {client_seq}");
    }
}

/// A node and its registry.
struct Driven {
    node: Node,
    registry: Embedded,
}

impl Driven {
    /// Returns a connection that has sent `Hello` and has joined the room.
    fn member(&mut self, now: Now, member: usize) -> ConnId {
        let player = Name::new(&format!("player-{member}")).expect("it is a name");
        let conn = self.node.handle_accept(now, Address([0; 16])).expect("there is a place");
        let identity = Identity { player, token: Bytes::new(), trace: Trace::default() };
        self.node.handle_upgraded(now, conn, identity);
        self.node.handle_frame(now, conn, frame(Kind::Hello, &Hello::default()));
        self.drive(now);
        self.node.handle_frame(
            now,
            conn,
            frame(Kind::Join, &Join { room: "arena".into(), history: 0, request: 1 }),
        );
        self.drive(now);
        conn
    }

    /// Drains both, like a driver; returns the number of frames that the node sent.
    fn drive(&mut self, now: Now) -> usize {
        let mut sent = 0;
        loop {
            while let Some(output) = self.node.poll_output() {
                match output {
                    Output::Registry(call) => self.registry.handle_call(now.instant, call),
                    Output::Wake(conn) => {
                        while let Some(frame) = self.node.poll_transmit(now, conn) {
                            black_box(frame);
                            sent += 1;
                        }
                    }
                    _ => {}
                }
            }
            let Some(event) = self.registry.poll_event() else { return sent };
            self.node.handle_registry_event(now, event);
        }
    }
}

fn say(client_seq: u64, body: Bytes) -> Say {
    Say { room: "arena".into(), client_seq, body, ..Say::default() }
}

fn frame(kind: Kind, message: &impl Message) -> Bytes {
    encode(kind, &Metadata::default(), message)
}
