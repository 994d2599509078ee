//! Random actions of the server, the network, the application and the clock, in any order.

use alloc::collections::BTreeMap;
use alloc::vec;

use proptest::prelude::*;

use super::super::state::TRANSITIONS;
use super::*;

#[derive(Clone, Debug)]
enum Op {
    Connect,
    Disconnect,
    Join(u8, u32),
    Leave(u8),
    Say(u8, u8),
    Latest(u8, u32),
    Property(u8, u8, bool),
    Add(u8, i64),
    Established,
    Lost,
    /// All steps up to `Welcome`, with a resumed session or a lost one.
    Up(bool),
    /// The server answers for a room as it should: with the earlier membership, or with a new one
    /// in this epoch.
    Joined(u8, bool, u64),
    /// The next entry of a room: the client's own, if asked for and the client has sent one.
    Entry(u8, bool),
    /// A frame with small numbers, so that many frames fit the state.
    Frame(u8, u8, u64, u64, u64, bool),
    Garbage(Vec<u8>),
    Transmit(u8),
    Timeout(u64),
    /// Sleeps until the reported deadline.
    Deadline,
}

fn op() -> impl Strategy<Value = Op> {
    let room = 0u8..3;
    prop_oneof![
        1 => Just(Op::Connect),
        1 => Just(Op::Disconnect),
        8 => (room.clone(), 0u32..3).prop_map(|(r, h)| Op::Join(r, h)),
        1 => room.clone().prop_map(Op::Leave),
        16 => (room.clone(), 0u8..20).prop_map(|(r, n)| Op::Say(r, n)),
        2 => (room.clone(), 0u32..10).prop_map(|(r, k)| Op::Latest(r, k)),
        2 => (room.clone(), 0u8..40, any::<bool>()).prop_map(|(r, n, s)| Op::Property(r, n, s)),
        1 => (room.clone(), any::<i64>()).prop_map(|(r, d)| Op::Add(r, d)),
        4 => Just(Op::Established),
        1 => Just(Op::Lost),
        8 => any::<bool>().prop_map(Op::Up),
        20 => (room.clone(), any::<bool>(), 1u64..3).prop_map(|(r, o, e)| Op::Joined(r, o, e)),
        40 => (room.clone(), any::<bool>()).prop_map(|(r, o)| Op::Entry(r, o)),
        6 => (0u8..12, room, 0u64..3, 0u64..6, 0u64..4, any::<bool>())
            .prop_map(|(kind, r, epoch, seq, n, flag)| Op::Frame(kind, r, epoch, seq, n, flag)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Op::Garbage),
        24 => (1u8..8).prop_map(Op::Transmit),
        2 => (0u64..1_000_000).prop_map(Op::Timeout),
        3 => Just(Op::Deadline),
    ]
}

/// Makes a frame. Messages about the room answer the client's newest request for it, or, if `flag`
/// is not set, the message of a client that is no member.
fn frame(client: &Client, kind: u8, room: u8, epoch: u64, seq: u64, n: u64, flag: bool) -> Bytes {
    fn plain(kind: v1::Kind, message: &impl Message) -> Bytes {
        encode(kind, &v1::Metadata::default(), message)
    }
    let room = name(room);
    let request = client.rooms.get(&room).and_then(|room| room.request).filter(|_| flag);
    let request = request.map_or(0, |request| request.number);
    let small = u32::try_from(n).unwrap();
    match kind {
        0 => plain(v1::Kind::Welcome, &v1::Welcome { resumed: flag && n > 0, ..welcome(false) }),
        1 => {
            let joined = v1::Joined { room, epoch, member: 1, resumed: flag, client_seq: n, seq, request };
            plain(v1::Kind::Joined, &joined)
        }
        2 => plain(
            v1::Kind::Left,
            &v1::Left { room, reason: i32::try_from(seq).unwrap(), answers_leave: false, request },
        ),
        3 | 4 => plain(v1::Kind::Entry, &v1::Entry { room, ..entry(epoch, seq, small, n) }),
        5 => plain(v1::Kind::Ack, &v1::Ack { room, epoch, client_seq: n }),
        6 => plain(
            v1::Kind::Throttle,
            &v1::Throttle { room, class: 1 + i32::from(flag), expected: n, retry_after_ms: small * 100 },
        ),
        7 => plain(
            v1::Kind::Snapshot,
            &v1::Snapshot { room, epoch, seq, missing_from: n, client_seq: n, ..v1::Snapshot::default() },
        ),
        8 => plain(
            v1::Kind::Latest,
            &v1::Latest { room, epoch, key: small, member: small, version: seq, ..v1::Latest::default() },
        ),
        9 => plain(
            v1::Kind::State,
            &v1::State {
                room,
                epoch,
                refused: flag,
                wall_ms: n,
                latest_ms: n,
                full: n.is_multiple_of(7),
                superseded: flag,
                entries: Vec::new(),
            },
        ),
        10 => plain(v1::Kind::Ping, &v1::Ping { nonce: n, rtt_us: seq }),
        _ => plain(
            v1::Kind::Goodbye,
            &v1::Goodbye { reason: i32::try_from(seq + n).unwrap(), ..v1::Goodbye::default() },
        ),
    }
}

/// Acts as a server that follows the protocol, as far as a server without memory can.
fn polite(client: &mut Client, now: Now, op: &Op) {
    fn tell(client: &mut Client, now: Now, kind: v1::Kind, message: &impl Message) {
        client.handle_frame(now, encode(kind, &v1::Metadata::default(), message));
    }
    match *op {
        Op::Up(resumed) => {
            client.connect(now);
            client.handle_connected(now);
            let resumed = resumed && client.session.is_some();
            if client.state() == ClientState::Syncing && client.poll_transmit(now).is_some() {
                tell(client, now, v1::Kind::Welcome, &welcome(resumed));
            }
        }
        Op::Joined(room, resumed, epoch) => {
            let room = name(room);
            let Some(known) = client.rooms.get(&room) else { return };
            let cursor = known.cursor.unwrap_or_default();
            let client_seq = known.outbox.acknowledged();
            let epoch = if resumed { cursor.epoch } else { epoch };
            let seq = if epoch == cursor.epoch { cursor.seq } else { 0 };
            let request = known.request.map_or(0, |request| request.number);
            let joined = v1::Joined { room, epoch, member: 1, resumed, client_seq, seq, request };
            tell(client, now, v1::Kind::Joined, &joined);
        }
        Op::Entry(room, own) => {
            let room = name(room);
            let Some(known) = client.rooms.get(&room) else { return };
            let cursor = known.cursor.unwrap_or_default();
            let own = own && known.outbox.in_flight() > 0;
            let (member, client_seq) = if own { (1, known.outbox.acknowledged() + 1) } else { (2, 1) };
            let entry = v1::Entry { room, ..entry(cursor.epoch, cursor.seq + 1, member, client_seq) };
            tell(client, now, v1::Kind::Entry, &entry);
        }
        _ => {}
    }
}

fn name(room: u8) -> String {
    String::from(["a", "b", "c"][usize::from(room) % 3])
}

/// Invariants, checked after every step.
#[derive(Default)]
struct Oracle {
    /// Accepted messages, with their outcome.
    messages: BTreeMap<MessageId, Option<Outcome>>,
    state: Option<ClientState>,
    /// Last entry or snapshot of each room, in this membership.
    cursors: BTreeMap<String, crate::base::id::Cursor>,
}

impl Oracle {
    fn observe(&mut self, output: Output) {
        let Output::Event(event) = output else { return };
        match event {
            Event::StateChanged { from, to } => {
                assert_eq!(from, self.state.unwrap_or(ClientState::Idle));
                assert!(TRANSITIONS.iter().any(|(f, _, t)| (*f, *t) == (from, to)), "{from} to {to}");
                self.state = Some(to);
            }
            Event::Outcome { message, outcome, .. } => {
                let before = self.messages.insert(message, Some(outcome));
                assert_eq!(before, Some(None), "{message:?}: one outcome, after it was said");
            }
            Event::Entry { room, cursor, .. } => {
                if let Some(before) = self.cursors.insert(room, cursor)
                    && before.epoch == cursor.epoch
                {
                    assert_eq!(before.seq + 1, cursor.seq, "each entry once and in order");
                }
            }
            Event::Snapshot { room, cursor, .. } => {
                self.cursors.insert(room, cursor);
            }
            Event::Joined { room, resumed: false, .. } | Event::Left { room, .. } => {
                self.cursors.remove(&room);
            }
            _ => {}
        }
    }

    fn check(&self, client: &Client) {
        assert_eq!(client.state(), self.state.unwrap_or(ClientState::Idle));
        let open = self.messages.values().filter(|outcome| outcome.is_none()).count();
        assert_eq!(open, client.outstanding(), "every message is kept until its outcome is told");
        assert!(client.outstanding() <= 16 && client.rooms().count() <= 8);
        if matches!(
            client.state(),
            ClientState::Connecting
                | ClientState::Syncing
                | ClientState::Connected
                | ClientState::Disconnected
        ) {
            assert!(client.poll_timeout().is_some(), "{} for ever", client.state());
        }
    }
}

fn run(ops: Vec<Op>) {
    let small = ClientConfig { outbox_messages: 16, outbox_bytes: 200, events: 64, ..config() };
    let mut script = Script::new(small);
    let mut oracle = Oracle::default();
    for op in ops {
        let Script { client, now, .. } = &mut script;
        match op {
            Op::Connect => client.connect(*now),
            Op::Disconnect => client.disconnect(*now),
            Op::Join(room, history) => {
                let _ = client.join(*now, &name(room), history);
            }
            Op::Leave(room) => {
                let _ = client.leave(*now, &name(room));
            }
            Op::Say(room, len) => {
                let body = Bytes::from(vec![0; len.into()]);
                if let Ok(id) = client.say(*now, &name(room), body, "t") {
                    assert_eq!(oracle.messages.insert(id, None), None);
                }
            }
            Op::Latest(room, key) => {
                let _ = client.latest(*now, &name(room), key, Bytes::new(), "");
            }
            Op::Property(room, property, set) => {
                let value = set.then(|| Bytes::from_static(b"v"));
                let _ = client.set_property(*now, &name(room), &alloc::format!("p{property}"), value);
            }
            Op::Add(room, delta) => {
                let _ = client.add(*now, &name(room), "count", delta);
            }
            Op::Established => client.handle_connected(*now),
            Op::Lost => client.handle_disconnected(*now),
            Op::Up(_) | Op::Joined(..) | Op::Entry(..) => polite(client, *now, &op),
            Op::Frame(kind, room, epoch, seq, n, flag) => {
                let frame = frame(client, kind, room, epoch, seq, n, flag);
                client.handle_frame(*now, frame);
            }
            Op::Garbage(bytes) => client.handle_frame(*now, Bytes::from(bytes)),
            Op::Transmit(frames) => {
                for _ in 0..frames {
                    let Some(frame) = client.poll_transmit(*now) else { break };
                    ToServer::decode(&Frame::decode(frame, 1 << 16).unwrap()).unwrap();
                }
            }
            Op::Timeout(micros) => {
                now.instant = now.instant + Duration::from_micros(micros);
                client.handle_timeout(*now);
            }
            Op::Deadline => {
                if let Some(deadline) = client.poll_timeout() {
                    now.instant = now.instant.max(deadline.at);
                    client.handle_timeout(*now);
                }
            }
        }
        script.drain();
        for output in core::mem::take(&mut script.outputs) {
            oracle.observe(output);
        }
        oracle.check(&script.client);
        // A due deadline was executed, or never will be: a driver must not spin.
        let due = script.client.poll_timeout().filter(|deadline| deadline.at <= script.now.instant);
        if due.is_some() {
            script.client.handle_timeout(script.now);
            script.drain();
            for output in core::mem::take(&mut script.outputs) {
                oracle.observe(output);
            }
            let still = script.client.poll_timeout().filter(|deadline| deadline.at <= script.now.instant);
            assert_eq!(still, None);
        }
    }
    script.client.disconnect(script.now);
    script.drain();
    for output in core::mem::take(&mut script.outputs) {
        oracle.observe(output);
    }
    assert!(oracle.messages.values().all(Option::is_some), "an outcome for every message");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_the_client(ops in prop::collection::vec(op(), 0..120)) {
        run(ops);
    }

    /// Commands and frames without a poll between them: the queue of outputs stays bounded.
    #[test]
    fn unpolled_outputs_are_bounded(ops in prop::collection::vec(op(), 0..400)) {
        let mut client = Client::new(ClientConfig { outbox_messages: 16, events: 20, ..config() }, [1; 32]);
        let mut now = Now::default();
        for op in ops {
            match op {
                Op::Join(room, history) => { let _ = client.join(now, &name(room), history); }
                Op::Leave(room) => { let _ = client.leave(now, &name(room)); }
                Op::Say(room, _) => { let _ = client.say(now, &name(room), Bytes::new(), ""); }
                Op::Connect => client.connect(now),
                Op::Disconnect => client.disconnect(now),
                Op::Lost => client.handle_disconnected(now),
                Op::Up(_) | Op::Joined(..) | Op::Entry(..) => polite(&mut client, now, &op),
                Op::Frame(kind, room, epoch, seq, n, flag) => {
                    let frame = frame(&client, kind, room, epoch, seq, n, flag);
                    client.handle_frame(now, frame);
                }
                Op::Timeout(micros) => {
                    now.instant = now.instant + Duration::from_micros(micros);
                    client.handle_timeout(now);
                }
                _ => {
                    client.handle_connected(now);
                    let _ = client.poll_transmit(now);
                }
            }
            prop_assert!(client.outputs.len() <= 20 + 16 + 3 * 4 + 8, "{}", client.outputs.len());
        }
    }
}
