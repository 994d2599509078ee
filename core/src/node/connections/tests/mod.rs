//! Connections without a node: one test for each decision of the machine.

mod admission;
mod intake;
mod phases;
mod timeouts;
mod transmit;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::base::id::Name;
use crate::base::plant::Planted;
use crate::base::rng::Rng;
use crate::base::time::{Instant, Now};
use crate::node::Refusal;
use crate::wire::{Frame, ToClient, encode};

/// The session of every connection that is opened.
const SESSION: Key = Key { slot: 5, generation: 6 };

const SECOND: Duration = Duration::from_secs(1);

/// The connections, and everything that a node shares with them.
struct World {
    connections: Connections,
    config: Config,
    rng: Rng,
    out: VecDeque<Output>,
    bugs: Bugs,
    now: Now,
    planted: Planted,
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap();
        Self {
            connections: Connections::new(&config),
            config,
            rng: Rng::new([7; 32]),
            out: VecDeque::new(),
            bugs: Bugs::new(),
            now: Now::default(),
            planted: Planted::default(),
        }
    }

    /// Gives the machine one input, and checks its bounds.
    fn input<R>(&mut self, input: impl FnOnce(&mut Connections, &mut Cx<'_>) -> R) -> R {
        let Self { connections, config, rng, out, bugs, now, planted } = self;
        let mut cx = Cx { now: *now, config, rng, out, bugs, planted: *planted };
        let result = input(connections, &mut cx);
        connections.audit(config).unwrap();
        result
    }

    /// Returns the outputs since the last call.
    fn outputs(&mut self) -> Vec<Output> {
        self.out.drain(..).collect()
    }

    fn accept(&mut self) -> Key {
        self.accept_from(1).unwrap()
    }

    fn accept_from(&mut self, address: u8) -> Result<Key, Refusal> {
        self.input(|connections, cx| connections.accept(cx, Source::Client(Address([address; 16]))))
    }

    /// Accepts a connection, and admits a player with the token "token".
    fn admit(&mut self) -> Key {
        let key = self.accept();
        let player = Name::new("ann").unwrap();
        let identity = Identity { player, token: Bytes::from_static(b"token"), trace: trace(1) };
        assert!(self.input(|connections, cx| connections.admit(cx.bugs, key, identity)));
        key
    }

    /// Opens a connection until the claim of its session.
    fn claim(&mut self) -> Key {
        let key = self.admit();
        self.input(|connections, cx| connections.start_claiming(cx.bugs, key, v1::Hello::default()));
        key
    }

    /// Opens a connection for [`SESSION`].
    fn open(&mut self) -> Key {
        let key = self.claim();
        self.input(|connections, cx| connections.open(cx, key, SESSION, false));
        key
    }

    fn close(&mut self, key: Key, reason: v1::Reason) {
        self.input(|connections, cx| connections.close_until(cx, key, reason, "why", SECOND));
    }

    fn send(&mut self, key: Key, kind: v1::Kind, message: &impl Message) -> Option<ClientInput> {
        self.send_frame(key, encode(kind, &v1::Metadata::default(), message))
    }

    fn send_frame(&mut self, key: Key, frame: Bytes) -> Option<ClientInput> {
        self.input(|connections, cx| connections.handle_frame(cx, key, frame))
    }

    /// Asks for the next frame, as a node without frames of sessions does.
    fn transmit(&mut self, key: Key) -> Option<Bytes> {
        self.input(|connections, cx| {
            let frame = match connections.next_frame(cx.out, key)? {
                NextFrame::Clear(frame) => return Some(connections.count_out(frame)),
                NextFrame::Own(frame) => Some(frame),
                NextFrame::Session { .. } | NextFrame::Last => connections.take_goodbye(key),
            };
            connections.transmit(cx, key, frame)
        })
    }

    /// Returns every message that is sent.
    fn received(&mut self, key: Key) -> Vec<ToClient> {
        let mut messages = Vec::new();
        while let Some(frame) = self.transmit(key) {
            messages.push(ToClient::decode(&Frame::decode(frame, 1 << 20).unwrap()).unwrap());
        }
        messages
    }

    /// Fires the deadlines until a time has passed, each at its time, and returns the lost
    /// connections.
    fn advance(&mut self, by: Duration) -> Vec<LostConnection> {
        let end = self.now.instant + by;
        let mut lost = Vec::new();
        while let Some((at, _)) = self.connections.next_timer().filter(|(at, _)| *at <= end) {
            self.now.instant = at.max(self.now.instant);
            lost.extend(self.fire());
        }
        self.now.instant = end;
        lost
    }

    /// Fires the earliest deadline, which must have come.
    fn fire(&mut self) -> Option<LostConnection> {
        self.input(|connections, cx| {
            let key = connections.take_due(cx.now.instant).expect("a deadline has come");
            connections.handle_timeout(cx, key)
        })
    }

    fn stats(&self) -> ConnectionStats {
        *self.connections.stats()
    }
}

fn trace(id: u8) -> Trace {
    Trace { trace_id: [id; 16], ..Trace::default() }
}

/// Returns the reasons with which the outputs close connections.
fn closed(outputs: &[Output]) -> Vec<v1::Reason> {
    let reason = |output: &Output| match output {
        Output::Close(_, reason) => Some(*reason),
        _ => None,
    };
    outputs.iter().filter_map(reason).collect()
}

/// Returns the offences among the outputs.
fn offences(outputs: &[Output]) -> Vec<(&str, Wrong)> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Event(Event::Misbehaved { what, wrong, .. }) => Some((what.as_str(), *wrong)),
            _ => None,
        })
        .collect()
}
