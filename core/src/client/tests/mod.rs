//! Scripts of hand-made server frames.

mod messages;
mod pending_leaves;
mod random;
mod rooms;
mod search;
mod session;
mod shared_state;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;
use skirmish_proto::v1;

use super::{Client, ClientConfig, ClientState, Event, Fault, MessageId, Outcome, Output};
use crate::base::time::{Duration, Instant, Now, Wall};
use crate::wire::{self, Frame, ToServer, WireError, encode};

const SESSION: [u8; 16] = [7; 16];
/// Reading of the server's clock when the test begins; the client's own clock is wrong.
const SERVER_WALL: u64 = 1_700_000_000_000;

/// A client, its driver and its clock.
struct Script {
    client: Client,
    now: Now,
    /// Outputs since the last request for them.
    outputs: Vec<Output>,
    /// Numbers of the client's requests, by room.
    requests: BTreeMap<String, Vec<u64>>,
}

impl Script {
    fn new(config: ClientConfig) -> Self {
        let now = Now { instant: Instant::from_micros(1_000_000), wall: Wall(5) };
        Self { client: Client::new(config, [3; 32]), now, outputs: Vec::new(), requests: BTreeMap::new() }
    }

    /// Creates a client that is connected in a fresh session.
    fn connected() -> Self {
        let mut script = Self::new(config());
        script.connect();
        script.welcome(false);
        script.outputs.clear();
        script
    }

    /// Creates a client that is in the room "a", as member 1 of epoch 5, at entry 10.
    fn in_room() -> Self {
        let mut script = Self::connected();
        script.client.join(script.now, "a", 0).unwrap();
        assert_eq!(script.sent(), [ToServer::Join(v1::Join { room: "a".into(), history: 0, request: 0 })]);
        script.joined(5, 10, 0, false);
        script.snapshot(5, 10, 0);
        script.settle_state();
        script.outputs.clear();
        script
    }

    /// Exchanges state that the test does not check.
    fn settle_state(&mut self) {
        for _ in 0..4 {
            let _ = self.sent();
            self.sleep(Duration::from_millis(50));
        }
    }

    fn connect(&mut self) {
        self.client.connect(self.now);
        self.established();
    }

    /// Makes the dial succeed.
    fn established(&mut self) {
        self.drain();
        assert_eq!(self.client.state(), ClientState::Connecting);
        self.client.handle_connected(self.now);
        self.drain();
    }

    /// Receives the `Hello` and answers it.
    fn welcome(&mut self, resumed: bool) -> v1::Hello {
        let hello = self.hello();
        self.tell(v1::Kind::Welcome, &welcome(resumed));
        hello
    }

    fn hello(&mut self) -> v1::Hello {
        match self.sent().as_slice() {
            [ToServer::Hello(hello)] => hello.clone(),
            other => panic!("not a Hello: {other:?}"),
        }
    }

    /// Cuts the connection, and opens another one after the back-off.
    fn cut(&mut self) {
        self.client.handle_disconnected(self.now);
        self.drain();
        self.reconnect();
    }

    fn reconnect(&mut self) {
        assert_eq!(self.client.state(), ClientState::Disconnected);
        self.sleep_to_deadline();
        self.established();
    }

    /// Delivers a frame from the server.
    fn tell(&mut self, kind: v1::Kind, message: &impl Message) {
        self.client.handle_frame(self.now, encode(kind, &v1::Metadata::default(), message));
        self.drain();
    }

    fn joined(&mut self, epoch: u64, seq: u64, client_seq: u64, resumed: bool) {
        let room = String::from("a");
        let request = self.request("a");
        let joined = v1::Joined { room, epoch, member: 1, resumed, client_seq, seq, request };
        self.tell(v1::Kind::Joined, &joined);
    }

    fn snapshot(&mut self, epoch: u64, seq: u64, client_seq: u64) {
        let room = String::from("a");
        let snapshot = v1::Snapshot { room, epoch, seq, client_seq, ..v1::Snapshot::default() };
        self.tell(v1::Kind::Snapshot, &snapshot);
    }

    /// Delivers an entry of the room "a"; member 1 is the client.
    fn entry(&mut self, seq: u64, member: u32, client_seq: u64) {
        self.tell(v1::Kind::Entry, &entry(5, seq, member, client_seq));
    }

    fn left(&mut self, reason: v1::LeftReason) {
        self.refused(reason, self.request("a"));
    }

    /// Delivers a `Left` of the room "a" that answers the request of a number.
    fn refused(&mut self, reason: v1::LeftReason, request: u64) {
        let answers_leave = reason == v1::LeftReason::Asked;
        let left = v1::Left { room: "a".into(), reason: reason.into(), answers_leave, request };
        self.tell(v1::Kind::Left, &left);
    }

    fn say(&mut self, text: &'static str) -> MessageId {
        let id = self.client.say(self.now, "a", Bytes::from_static(text.as_bytes()), "").unwrap();
        self.drain();
        id
    }

    /// Returns all messages that the client sends now, with their numbers of requests taken out.
    fn sent(&mut self) -> Vec<ToServer> {
        let mut sent: Vec<ToServer> = core::iter::from_fn(|| self.client.poll_transmit(self.now))
            .map(|frame| ToServer::decode(&Frame::decode(frame, 1 << 20).unwrap()).unwrap())
            .collect();
        for message in &mut sent {
            self.take_numbers(message);
        }
        sent
    }

    /// Takes the numbers of requests out of a message. Each is higher than all before.
    fn take_numbers(&mut self, message: &mut ToServer) {
        let newest = self.requests.values().flatten().copied().max().unwrap_or(0);
        let taken: Vec<(String, &mut u64)> = match message {
            ToServer::Join(join) => vec![(join.room.clone(), &mut join.request)],
            ToServer::Leave(leave) => vec![(leave.room.clone(), &mut leave.request)],
            ToServer::Hello(hello) => {
                let joins = hello.joins.iter_mut().map(|join| (join.room.clone(), &mut join.request));
                let cursors = hello.resume.iter_mut().flat_map(|resume| &mut resume.rooms);
                cursors.map(|cursor| (cursor.room.clone(), &mut cursor.request)).chain(joins).collect()
            }
            _ => Vec::new(),
        };
        for (room, number) in taken {
            assert!(*number > newest, "request {number} after {newest}");
            self.requests.entry(room).or_default().push(core::mem::take(number));
        }
    }

    /// Returns the number of the newest request for a room; 0 if there was none.
    fn request(&self, room: &str) -> u64 {
        self.requests.get(room).and_then(|numbers| numbers.last()).copied().unwrap_or(0)
    }

    /// Returns the numbers and bodies of the reliable messages that the client sends now.
    fn said(&mut self) -> Vec<(u64, String)> {
        let text = |body: &Bytes| String::from_utf8(body.to_vec()).unwrap();
        self.sent()
            .iter()
            .filter_map(|message| match message {
                ToServer::Say(say) => Some((say.client_seq, text(&say.body))),
                _ => None,
            })
            .collect()
    }

    fn sleep(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.client.handle_timeout(self.now);
        self.drain();
    }

    /// Sleeps exactly until the reported deadline. Returns its reason.
    fn sleep_to_deadline(&mut self) -> &'static str {
        let deadline = self.client.poll_timeout().expect("a deadline");
        self.sleep(deadline.at - self.now.instant);
        deadline.reason
    }

    /// Polls all outputs; while outputs are queued, a deadline is due now.
    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            self.outputs.push(output);
        }
    }

    fn events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.outputs)
            .into_iter()
            .filter_map(|output| match output {
                Output::Event(event) => Some(event),
                Output::Dial | Output::Hangup => None,
            })
            .collect()
    }

    fn outcomes(&mut self) -> Vec<(MessageId, Outcome)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::Outcome { message, outcome, .. } => Some((message, outcome)),
                _ => None,
            })
            .collect()
    }

    fn closed(&mut self) -> Option<v1::Reason> {
        self.events().into_iter().find_map(|event| match event {
            Event::Closed { reason, .. } => Some(reason),
            _ => None,
        })
    }

    /// Returns the fault for which the client has closed the connection. The event also has a text
    /// for people, and the reason for applications that need no more.
    fn fault(&mut self) -> Option<Fault> {
        self.events().into_iter().find_map(|event| match event {
            Event::Closed { reason, message, fault: Some(fault) } => {
                assert_eq!((reason, message), (fault.reason(), fault.to_string()));
                Some(fault)
            }
            _ => None,
        })
    }
}

fn config() -> ClientConfig {
    ClientConfig { player: "alice".into(), ..ClientConfig::default() }
}

fn welcome(resumed: bool) -> v1::Welcome {
    v1::Welcome {
        session: Bytes::from_static(&SESSION),
        epoch: 1,
        resumed,
        heartbeat_ms: 1_000,
        session_ttl_ms: 60_000,
        wall_ms: SERVER_WALL,
        replica: 9,
        ..v1::Welcome::default()
    }
}

fn entry(epoch: u64, seq: u64, member: u32, client_seq: u64) -> v1::Entry {
    let kind = v1::EntryKind::Say.into();
    v1::Entry { room: "a".into(), epoch, seq, kind, member, client_seq, ..v1::Entry::default() }
}
