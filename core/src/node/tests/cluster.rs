//! Several nodes, their registry and their links, driven by hand.

use alloc::collections::BTreeMap;

use super::*;
use crate::registry::{Call, CallId, Failure, WatchId, Watched};

/// Nodes that share a registry, and links that carry everything at once unless they are
/// cut.
pub(super) struct Cluster {
    config: Config,
    nodes: Vec<Option<Node>>,
    registry: Embedded,
    pub(super) now: Now,
    /// Both ends of each link.
    wires: BTreeMap<(usize, LinkId), (usize, LinkId)>,
    /// Pairs of nodes that do not reach each other.
    cut: Vec<(usize, usize)>,
    /// Whether frames on links vanish.
    swallow: bool,
    /// The node whose frames on links are held back, and those.
    slow: Option<usize>,
    held_back: Vec<(usize, LinkId, Bytes)>,
    /// Nodes that do not reach the registry.
    unregistered: Vec<usize>,
    /// Starts of nodes: each is a client of the registry of its own.
    starts: Vec<u64>,
    events: Vec<(usize, Event)>,
    closed: Vec<(usize, ConnId, v1::Reason)>,
}

/// Identifiers of calls and watches that a client of the registry has.
const IDS: u64 = 1 << 32;

impl Cluster {
    fn new(count: usize) -> Self {
        Self::with(count, Config::default())
    }

    pub(super) fn with(count: usize, config: Config) -> Self {
        config.validate().unwrap();
        let mut cluster = Self {
            config,
            nodes: vec![],
            registry: Embedded::new(RegistryConfig::default(), Instant::ZERO),
            now: Now { instant: Instant::ZERO, wall: Wall(1_700_000_000_000) },
            wires: BTreeMap::new(),
            cut: vec![],
            swallow: false,
            slow: None,
            held_back: vec![],
            unregistered: vec![],
            starts: vec![],
            events: vec![],
            closed: vec![],
        };
        for index in 0..count {
            cluster.nodes.push(None);
            cluster.starts.push(0);
            cluster.start(index, index as u64 + 1);
        }
        // The links are dialed.
        cluster.advance(Duration::from_secs(1));
        cluster
    }

    fn start(&mut self, index: usize, id: u64) {
        let record = v1::NodeRecord { link: alloc::format!("{index}"), ..v1::NodeRecord::default() };
        let mut node = Node::new(self.config.clone(), [index as u8; 32], NodeId(id), record, None);
        node.start(self.now);
        self.nodes[index] = Some(node);
        self.starts[index] = id;
        self.settle();
    }

    /// The node is gone from one moment to the next.
    pub(super) fn kill(&mut self, index: usize) {
        self.nodes[index] = None;
        let dead: Vec<_> = self.wires.keys().copied().filter(|(node, _)| *node == index).collect();
        for end in dead {
            self.unplug(end);
        }
        self.settle();
    }

    fn unplug(&mut self, end: (usize, LinkId)) {
        let Some(other) = self.wires.remove(&end) else { return };
        self.wires.remove(&other);
        if let Some(node) = &mut self.nodes[other.0] {
            node.handle_link_closed(self.now, other.1);
        }
    }

    /// Links between two nodes are lost, and there is no other for now.
    fn cut(&mut self, a: usize, b: usize) {
        self.cut.push((a.min(b), a.max(b)));
        let ends: Vec<_> =
            self.wires.iter().filter(|(x, y)| x.0 == a && y.0 == b).map(|(x, y)| (*x, *y)).collect();
        for (x, y) in ends {
            self.wires.remove(&x);
            self.wires.remove(&y);
            for (node, link) in [x, y] {
                let now = self.now;
                self.node(node).handle_link_closed(now, link);
            }
        }
        self.settle();
    }

    /// What was held back arrives.
    fn release(&mut self) {
        self.slow = None;
        for (to, link, frame) in core::mem::take(&mut self.held_back) {
            let now = self.now;
            self.node(to).handle_link_frame(now, link, frame);
        }
        self.settle();
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.unregistered.clear();
    }

    pub(super) fn node(&mut self, index: usize) -> &mut Node {
        self.nodes[index].as_mut().unwrap()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn settle(&mut self) {
        loop {
            let mut idle = true;
            for index in 0..self.nodes.len() {
                while let Some(output) = self.nodes[index].as_mut().and_then(Node::poll_output) {
                    idle = false;
                    self.output(index, output);
                }
            }
            while let Some(told) = self.registry.poll_told() {
                idle = false;
                let (start, told) = match told {
                    Told::Reply { id, outcome } => {
                        (id.0 / IDS, Told::Reply { id: CallId(id.0 % IDS), outcome })
                    }
                    Told::Watched(watched) => {
                        let id = WatchId(watched.id.0 % IDS);
                        (watched.id.0 / IDS, Told::Watched(Watched { id, ..watched }))
                    }
                };
                let Some(index) = self.starts.iter().position(|known| *known == start) else { continue };
                let now = self.now;
                if let Some(node) = self.nodes[index].as_mut().filter(|_| !self.unregistered.contains(&index))
                {
                    node.handle_told(now, told);
                }
            }
            if idle {
                break;
            }
        }
        for node in self.nodes.iter().flatten() {
            node.audit().unwrap();
        }
    }

    fn output(&mut self, index: usize, output: Output) {
        let now = self.now;
        match output {
            Output::Event(event) => self.events.push((index, event)),
            Output::Close(conn, reason) => self.closed.push((index, conn, reason)),
            Output::Abort(_) | Output::Wake(_) => {}
            Output::Registry(call) => {
                if self.unregistered.contains(&index) {
                    if let Call::Request { id, .. } = call {
                        let outcome = Err(Failure::Unknown);
                        self.node(index).handle_told(now, Told::Reply { id, outcome });
                    }
                    return;
                }
                let base = self.starts[index] * IDS;
                let call = match call {
                    Call::Request { id, request } => Call::Request { id: CallId(base + id.0), request },
                    Call::Watch { id, watch } => Call::Watch { id: WatchId(base + id.0), watch },
                    Call::Unwatch(id) => Call::Unwatch(WatchId(base + id.0)),
                };
                self.registry.handle_call(now.instant, call);
            }
            Output::Dial { node, address } => {
                let to: usize = address.parse().unwrap();
                if self.is_cut(index, to) || self.nodes[to].is_none() {
                    return self.node(index).handle_dial_failed(now, node);
                }
                let here = self.node(index).handle_link(now, Some(node)).unwrap();
                let there = self.node(to).handle_link(now, None).unwrap();
                self.wires.insert((index, here), (to, there));
                self.wires.insert((to, there), (index, here));
            }
            Output::WakeLink(link) => {
                while let Some(frame) = self.node(index).poll_link_transmit(now, link) {
                    match self.wires.get(&(index, link)).copied().filter(|_| !self.swallow) {
                        Some((to, other)) if self.slow == Some(index) => {
                            self.held_back.push((to, other, frame));
                        }
                        Some((to, other)) => self.node(to).handle_link_frame(now, other, frame),
                        None => {}
                    }
                }
            }
            Output::CloseLink(link, _) => self.unplug((index, link)),
        }
    }

    /// Sleeps exactly to each reported deadline on the way.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now.instant + by;
        loop {
            let nodes = self.nodes.iter().flatten().filter_map(Node::poll_timeout);
            let due = nodes.chain(self.registry.poll_timeout()).min().filter(|due| due.at <= end);
            let at = due.map_or(end, |due| due.at.max(self.now.instant));
            self.now.wall.0 += u64::try_from((at - self.now.instant).as_millis()).unwrap();
            self.now.instant = at;
            if due.is_none() {
                break;
            }
            for node in self.nodes.iter_mut().flatten() {
                if node.poll_timeout().is_some_and(|due| due.at <= at) {
                    node.handle_timeout(self.now);
                }
            }
            self.settle();
            self.registry.handle_timeout(at);
            self.settle();
        }
    }

    // Players.

    pub(super) fn connect(&mut self, node: usize, player: &str, resume: Option<v1::Resume>) -> Member {
        let now = self.now;
        let conn = self.node(node).handle_accept(now, Address([0; 16])).unwrap();
        let identity = Identity {
            player: Name::new(player).unwrap(),
            token: Bytes::from_static(b"token"),
            trace: Trace::default(),
        };
        self.node(node).handle_upgraded(now, conn, identity);
        let mut member = Member {
            node,
            conn,
            session: Bytes::new(),
            welcomed: 0,
            epoch: 0,
            seq: 0,
            said: 0,
            told: vec![],
        };
        self.send(&member, v1::Kind::Hello, &v1::Hello { resume, ..v1::Hello::default() });
        let messages = self.received(&member);
        let ToClient::Welcome(welcome) = &messages[0] else { panic!("no Welcome: {messages:?}") };
        member.session = welcome.session.clone();
        member.welcomed = welcome.epoch;
        member.learn(&messages);
        member.told = messages;
        member
    }

    fn join(&mut self, node: usize, player: &str) -> Member {
        let mut member = self.connect(node, player, None);
        self.send(&member, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0 });
        let messages = self.received(&member);
        assert!(matches!(&messages[0], ToClient::Joined(_)), "{messages:?}");
        member.learn(&messages);
        member
    }

    pub(super) fn send(&mut self, member: &Member, kind: v1::Kind, message: &impl Message) {
        let now = self.now;
        let frame = encode(kind, &v1::Metadata::default(), message);
        self.node(member.node).handle_frame(now, member.conn, frame);
        self.settle();
    }

    pub(super) fn say(&mut self, member: &mut Member, body: &str) {
        member.said += 1;
        self.send(member, v1::Kind::Say, &say(member.said, body));
    }

    pub(super) fn received(&mut self, member: &Member) -> Vec<ToClient> {
        let now = self.now;
        let mut messages = vec![];
        while let Some(frame) = self.node(member.node).poll_transmit(now, member.conn) {
            messages.push(ToClient::decode(&Frame::decode(frame, 1 << 20).unwrap()).unwrap());
        }
        self.settle();
        messages
    }

    /// The bodies that a member has got since it looked last, in order.
    pub(super) fn heard(&mut self, member: &mut Member) -> Vec<String> {
        let messages = self.received(member);
        member.learn(&messages);
        said(&messages).into_iter().map(|(_, body)| body).collect()
    }
}

pub(super) struct Member {
    pub(super) node: usize,
    pub(super) conn: ConnId,
    session: Bytes,
    /// What the `Welcome` said of the session's epoch.
    welcomed: u64,
    epoch: u64,
    seq: u64,
    said: u64,
    /// What came with the `Welcome`.
    pub(super) told: Vec<ToClient>,
}

impl Member {
    fn learn(&mut self, messages: &[ToClient]) {
        for message in messages {
            match message {
                ToClient::Joined(joined) => (self.epoch, self.seq) = (joined.epoch, joined.seq),
                ToClient::Snapshot(snapshot) => self.seq = snapshot.seq,
                ToClient::Entry(entry) => self.seq = entry.seq,
                _ => {}
            }
        }
    }

    pub(super) fn resume(&self) -> Option<v1::Resume> {
        let room = v1::RoomCursor { room: "arena".into(), epoch: self.epoch, seq: self.seq };
        Some(v1::Resume { session: self.session.clone(), rooms: vec![room], epoch: self.welcomed })
    }
}

#[test]
fn members_on_different_nodes_hear_the_same_in_the_same_order() {
    let mut cluster = Cluster::new(3);
    let mut members: Vec<Member> = (0..3).map(|n| cluster.join(n, ["ann", "bob", "cid"][n])).collect();
    assert_eq!(members[0].epoch, members[2].epoch);
    for member in &mut members {
        cluster.heard(member);
    }
    for round in 0..5 {
        for n in 0..3 {
            let mut member = members.remove(n);
            cluster.say(&mut member, &alloc::format!("{n} says {round}"));
            members.insert(n, member);
        }
    }
    let heard: Vec<Vec<String>> = members.iter_mut().map(|member| cluster.heard(member)).collect();
    assert_eq!(heard[0].len(), 15);
    assert_eq!(heard[0], heard[1]);
    assert_eq!(heard[0], heard[2]);
}

#[test]
fn a_session_goes_on_at_another_node_and_the_old_connection_is_closed() {
    let mut cluster = Cluster::new(3);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.say(&mut bob, "one");
    cluster.heard(&mut bob);
    cluster.heard(&mut ann);
    let resume = bob.resume();
    cluster.say(&mut ann, "two");
    // bob's first connection has not read "two"; the second goes on where he was.
    let mut moved = cluster.connect(2, "bob", resume);
    assert_eq!(moved.session, bob.session);
    moved.said = 1;
    cluster.say(&mut moved, "three");
    let all = cluster.heard(&mut ann);
    assert_eq!(all, ["two", "three"]);
    assert!(
        cluster
            .closed
            .iter()
            .any(|(node, conn, reason)| { (*node, *conn, *reason) == (1, bob.conn, v1::Reason::TakenOver) })
    );
    // What still comes over the old connection is not written.
    bob.said = 2;
    cluster.say(&mut bob, "late");
    assert_eq!(cluster.heard(&mut ann), Vec::<String>::new());
}

#[test]
fn members_are_told_plainly_when_the_primary_of_their_room_dies() {
    let mut cluster = Cluster::new(3);
    let ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.heard(&mut bob);
    cluster.kill(0);
    drop(ann);
    // For as long as the registry names the dead node, nobody takes its place.
    cluster.say(&mut bob, "anybody?");
    let held = cluster.received(&bob);
    assert!(held.iter().any(|m| matches!(m, ToClient::Throttle(_))), "{held:?}");
    cluster.advance(Duration::from_secs(30));
    let told = cluster.received(&bob);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(told.iter().any(gone), "{told:?}");
    let before = bob.epoch;
    cluster.send(&bob, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0 });
    let messages = cluster.received(&bob);
    bob.learn(&messages);
    assert!(bob.epoch > before);
    bob.said = 0;
    cluster.say(&mut bob, "again");
    assert_eq!(cluster.heard(&mut bob), ["again"]);
}

#[test]
fn what_was_lost_with_a_link_is_asked_for_again() {
    let mut cluster = Cluster::new(2);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.heard(&mut ann);
    cluster.heard(&mut bob);
    cluster.say(&mut bob, "one");
    cluster.swallow = true;
    cluster.say(&mut bob, "two");
    cluster.swallow = false;
    cluster.cut(0, 1);
    cluster.heard(&mut bob);
    cluster.heal();
    cluster.advance(Duration::from_secs(10));
    let messages = cluster.received(&bob);
    let asked = |m: &ToClient| matches!(m, ToClient::Throttle(throttle) if throttle.expected == 2);
    assert!(messages.iter().any(asked), "{messages:?}");
    cluster.send(&bob, v1::Kind::Say, &say(2, "two"));
    assert_eq!(cluster.heard(&mut ann), ["one", "two"]);
}

#[test]
fn a_node_that_the_registry_does_not_confirm_takes_nothing_and_goes_on_when_it_does() {
    let mut cluster = Cluster::new(1);
    let mut ann = cluster.join(0, "ann");
    cluster.heard(&mut ann);
    cluster.unregistered.push(0);
    cluster.advance(Duration::from_secs(12));
    assert!(cluster.events.contains(&(0, Event::NotServing)));
    cluster.say(&mut ann, "held");
    let messages = cluster.received(&ann);
    assert!(
        matches!(&messages[..], [ToClient::Throttle(throttle)] if throttle.expected == 1),
        "{messages:?}"
    );
    // By the registry's clock its leases may have ended; nobody has taken the room.
    cluster.heal();
    cluster.advance(Duration::from_secs(5));
    assert_eq!(cluster.events.last(), Some(&(0, Event::Serving)));
    cluster.received(&ann);
    cluster.send(&ann, v1::Kind::Say, &say(1, "held"));
    assert_eq!(cluster.heard(&mut ann), ["held"]);
}

#[test]
fn a_short_silence_of_the_registry_loses_nothing() {
    let mut cluster = Cluster::new(2);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.heard(&mut ann);
    cluster.unregistered.push(0);
    cluster.advance(Duration::from_secs(5));
    cluster.say(&mut bob, "on");
    assert_eq!(cluster.heard(&mut ann), ["on"]);
    cluster.heal();
    cluster.advance(Duration::from_secs(20));
    cluster.say(&mut bob, "and on");
    assert_eq!(cluster.heard(&mut ann), ["and on"]);
}

#[test]
fn state_converges_over_nodes() {
    let mut cluster = Cluster::new(3);
    let members: Vec<Member> = (0..3).map(|n| cluster.join(n, ["ann", "bob", "cid"][n])).collect();
    for (n, member) in members.iter().enumerate() {
        let entry = v1::StateEntry {
            domain: v1::Domain::Property.into(),
            owner: ["ann", "bob", "cid"][n].into(),
            name: "colour".into(),
            stamp: Some(v1::Stamp { wall_ms: cluster.now.wall.0, count: 0, replica: n as u64 + 1 }),
            value: Bytes::from_static(b"red"),
            ..v1::StateEntry::default()
        };
        let entries = vec![entry];
        let state = v1::State { room: "arena".into(), epoch: member.epoch, entries, ..v1::State::default() };
        cluster.send(member, v1::Kind::State, &state);
    }
    for node in cluster.nodes.iter().flatten() {
        let replica = node.replica("arena").unwrap();
        assert_eq!(replica.properties().count(), 3);
        assert_eq!(replica.present().count(), 3);
    }
}

#[test]
fn a_node_does_not_go_on_with_a_session_that_was_elsewhere_since() {
    let mut cluster = Cluster::new(2);
    let ann = cluster.join(0, "ann");
    // The first node does not hear that the session moves.
    cluster.unregistered.push(0);
    let moved = cluster.connect(1, "ann", ann.resume());
    let now = cluster.now;
    let conn = cluster.node(0).handle_accept(now, Address([1; 16])).unwrap();
    let player = Name::new("ann").unwrap();
    let identity = Identity { player, token: Bytes::from_static(b"token"), trace: Trace::default() };
    cluster.node(0).handle_upgraded(now, conn, identity);
    let back = Member { node: 0, conn, ..moved };
    let hello = v1::Hello { resume: back.resume(), ..v1::Hello::default() };
    cluster.send(&back, v1::Kind::Hello, &hello);
    assert_eq!(cluster.received(&back), [], "it has to ask first");
    cluster.advance(Duration::from_secs(6));
    assert!(cluster.closed.contains(&(0, conn, v1::Reason::Overloaded)), "{:?}", cluster.closed);
}

#[test]
fn a_primary_that_hears_of_a_newer_session_from_its_node_fences_the_older_one() {
    let mut cluster = Cluster::new(2);
    let mut old = cluster.join(0, "ann");
    cluster.join(0, "bob");
    cluster.unregistered.push(0);
    // The newest connection comes into the room at another node, and leaves it.
    let new = cluster.join(1, "ann");
    cluster.send(&new, v1::Kind::Leave, &v1::Leave { room: "arena".into() });
    let fenced = (0, old.conn, v1::Reason::TakenOver);
    assert!(cluster.closed.contains(&fenced), "{:?}", cluster.closed);
    let before = cluster.node(0).stats().entries;
    cluster.send(&old, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0 });
    old.said = 0;
    cluster.say(&mut old, "late");
    assert_eq!(cluster.node(0).stats().entries, before);
}

#[test]
fn who_goes_while_he_is_on_his_way_in_leaves_no_member_behind() {
    let mut cluster = Cluster::new(2);
    cluster.join(0, "ann");
    cluster.join(1, "cid");
    let bob = cluster.connect(1, "bob", None);
    cluster.slow = Some(0);
    cluster.send(&bob, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0 });
    cluster.send(&bob, v1::Kind::Leave, &v1::Leave { room: "arena".into() });
    cluster.release();
    assert_eq!(cluster.node(0).stats().members, 2);
}

#[test]
fn who_comes_back_while_he_is_on_his_way_in_is_let_in_once() {
    let mut cluster = Cluster::new(1);
    let ann = cluster.connect(0, "ann", None);
    // Longer than the node may serve without the registry, shorter than its leases live.
    cluster.unregistered.push(0);
    cluster.advance(Duration::from_millis(9_500));
    cluster.send(&ann, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0 });
    let resume = v1::Resume { rooms: vec![], ..ann.resume().unwrap() };
    let ann = cluster.connect(0, "ann", Some(resume));
    cluster.heal();
    cluster.advance(Duration::from_secs(4));
    assert_eq!(cluster.node(0).stats().members, 0, "he has not asked again");
    cluster.received(&ann);
    cluster.send(&ann, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0 });
    let messages = cluster.received(&ann);
    let snapshots = messages.iter().filter(|m| matches!(m, ToClient::Snapshot(_))).count();
    assert_eq!((cluster.node(0).stats().members, snapshots), (1, 1), "{messages:?}");
}

#[test]
fn an_older_session_that_has_not_heard_of_a_newer_one_is_told_to_ask_again() {
    let mut cluster = Cluster::new(3);
    cluster.join(0, "bob");
    cluster.join(1, "cid");
    let old = cluster.connect(1, "ann", None);
    cluster.unregistered.push(1);
    cluster.join(2, "ann");
    cluster.send(&old, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0 });
    let messages = cluster.received(&old);
    // What a client that waits for the answer to a join takes for one.
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    assert!(messages.iter().any(gone), "{messages:?}");
}
