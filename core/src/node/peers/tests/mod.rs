//! The machine of links alone, without a node around it.

mod frames;
mod links;
mod nodes;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec;

use bytes::Bytes;

use super::*;
use crate::base::bug::Bugs;
#[cfg(feature = "plant")]
use crate::base::plant::Plant;
use crate::base::plant::Planted;
use crate::base::rng::Rng;
use crate::base::time::Now;
use crate::node::Event;
use crate::wire::{Frame, ToNode, encode};

const OWN: NodeId = NodeId(5);
/// Dialed by this node.
const HIGHER: NodeId = NodeId(6);
/// Dials this node.
const LOWER: NodeId = NodeId(4);
const ADDRESS: Address = Address([7; 16]);
const WALL: Wall = Wall(1_700_000_000_000);

/// The machine and its surroundings.
struct Bench {
    peers: Peers,
    config: Config,
    rng: Rng,
    now: Now,
    out: VecDeque<Output>,
    bugs: Bugs,
    planted: Planted,
    /// Nodes that the registry names.
    named: BTreeSet<NodeId>,
}

impl Bench {
    fn new() -> Self {
        let config = Config::default();
        Self {
            peers: Peers::new(OWN, config.links.total),
            config,
            rng: Rng::new([3; 32]),
            now: Now { instant: Instant::from_micros(1_000), wall: WALL },
            out: VecDeque::new(),
            bugs: Bugs::new(),
            planted: Planted::default(),
            named: BTreeSet::new(),
        }
    }

    /// A machine that knows two other nodes from the registry, and has dialed one of them.
    fn acquainted() -> Self {
        let mut bench = Self::new();
        for node in [LOWER, HIGHER] {
            bench.record(node);
        }
        bench.advance(Duration::ZERO);
        bench.out.clear();
        bench
    }

    /// Calls a method of the machine.
    fn call<T>(&mut self, method: impl FnOnce(&mut Peers, &mut Cx<'_>) -> T) -> T {
        let Self { peers, config, rng, now, out, bugs, planted, .. } = self;
        method(peers, &mut Cx { now: *now, config, rng, out, bugs, planted: *planted })
    }

    fn record(&mut self, node: NodeId) {
        self.named.insert(node);
        let link = alloc::format!("node-{}:1", node.0);
        let record = v1::NodeRecord { name: String::from("name"), link, ..v1::NodeRecord::default() };
        self.call(|peers, cx| peers.handle_record(cx, node, &record));
    }

    fn follow(&mut self, node: NodeId, room: Key) {
        self.call(|peers, cx| peers.follow(cx, node, room));
    }

    /// Sleeps to each deadline on the way.
    fn advance(&mut self, by: Duration) {
        let end = self.now.instant + by;
        while let Some((at, _)) = self.peers.next_timer().filter(|(at, _)| *at <= end) {
            self.now.instant = self.now.instant.max(at);
            self.due();
        }
        self.now.instant = end;
    }

    /// Carries out the earliest deadline. False if none is due.
    fn due(&mut self) -> bool {
        let due = self.peers.take_due(self.now.instant);
        due.map(|timer| self.call(|peers, cx| peers.handle_timer(cx, timer))).is_some()
    }

    fn connect(&mut self, caller: Caller) -> Key {
        self.call(|peers, cx| peers.handle_link(cx, caller)).unwrap().key()
    }

    fn frame(&mut self, link: Key, kind: v1::Kind, message: &impl prost::Message) -> Option<RoomFrame> {
        self.raw(link, encode(kind, &v1::Metadata::default(), message))
    }

    fn raw(&mut self, link: Key, frame: Bytes) -> Option<RoomFrame> {
        let named = self.named.clone();
        self.call(|peers, cx| peers.handle_frame(cx, link, frame, WALL, |node| named.contains(&node)))
    }

    fn hello(&mut self, link: Key, from: NodeId) {
        let hello = v1::LinkHello { node: from.0, to: OWN.0 };
        assert!(self.frame(link, v1::Kind::LinkHello, &hello).is_none());
    }

    /// An open link to a node.
    fn link(&mut self, node: NodeId) -> Key {
        let caller = if node > OWN { Caller::Dialed(node) } else { Caller::Stranger(ADDRESS) };
        let link = self.connect(caller);
        self.hello(link, node);
        link
    }

    /// Messages that are handed out to a link.
    fn sent(&mut self, link: Key) -> Vec<ToNode> {
        let frames = core::iter::from_fn(|| self.peers.next_queued(link));
        let decode = |bytes: Bytes| {
            let frame = Frame::decode(bytes.clone(), 1 << 20).unwrap();
            ToNode::decode(&frame, bytes).unwrap()
        };
        let messages = frames.map(decode).collect();
        self.peers.sleep(link);
        messages
    }

    /// Takes the outputs. Events are among them.
    fn outputs(&mut self) -> Vec<Output> {
        self.out.drain(..).collect()
    }

    /// Takes the links that were closed, with the reasons.
    fn closed(&mut self) -> Vec<(Key, LinkClosure)> {
        let closed = |output| match output {
            Output::CloseLink(link, why) => Some((link.key(), why)),
            _ => None,
        };
        self.out.drain(..).filter_map(closed).collect()
    }

    /// Takes the nodes that are dialed.
    fn dialed(&mut self) -> Vec<NodeId> {
        let dialed = |output| match output {
            Output::Dial { node, .. } => Some(node),
            _ => None,
        };
        self.out.drain(..).filter_map(dialed).collect()
    }

    fn effects(&mut self) -> Vec<PeersEffect> {
        let effects = self.peers.take_effects();
        assert_eq!(self.peers.audit(&self.config), Ok(()));
        effects
    }
}

const fn room(slot: u32) -> Key {
    Key { slot, generation: 3 }
}

const fn linked(node: NodeId, link: Key) -> PeersEffect {
    PeersEffect::Linked { node, link }
}

fn unlinked(node: NodeId, link: Key, rooms: &[Key], was_open: bool) -> PeersEffect {
    PeersEffect::Unlinked { node, link, rooms: rooms.to_vec(), was_open }
}

const fn wake(link: Key) -> Output {
    Output::WakeLink(LinkId::from_key(link))
}

#[test]
fn of_two_deadlines_at_one_moment_that_of_the_link_is_first() {
    let mut bench = Bench::acquainted();
    let (at, dial) = bench.peers.next_timer().unwrap();
    assert_eq!((dial, dial.reason()), (PeersTimer::Dial(HIGHER), "another node is dialed"));
    bench.now.instant = at;
    let link = PeersTimer::Link(bench.link(LOWER));
    assert_eq!(bench.peers.next_timer(), Some((at, link)));
    assert_eq!(link.reason(), "a link's handshake or heartbeat");
    bench.out.clear();
    assert_eq!((bench.due(), bench.dialed()), (true, vec![]));
    assert_eq!((bench.due(), bench.dialed()), (true, vec![HIGHER]));
    let before = bench.peers.next_timer();
    assert_eq!((bench.due(), bench.peers.next_timer()), (false, before), "nothing is due");
}

#[test]
fn the_audit_names_the_bound_that_does_not_hold() {
    let mut bench = Bench::acquainted();
    let link = bench.link(LOWER);
    bench.peers.read(&mut bench.out, link, room(1));
    assert_eq!(bench.peers.audit(&bench.config), Err("effects of links"));
    bench.effects();
    assert_eq!(bench.peers.audit(&bench.config), Ok(()));
    assert_eq!(bench.peers.reads().count(), 1);
    let mut small = bench.config.clone();
    small.links.total = 0;
    assert_eq!(bench.peers.audit(&small), Err("links"));
    bench.peers.nodes.get_mut(&LOWER).unwrap().linked(room(9));
    assert_eq!(bench.peers.audit(&bench.config), Err("open link to a node"));
    bench.peers.nodes.clear();
    bench.peers.links = Slab::new(0);
    assert_eq!(bench.peers.audit(&bench.config), Err("deadlines of links and dials"));
}

#[cfg(feature = "plant")]
#[test]
fn a_dead_node_is_followed_for_ever_when_that_is_planted() {
    let mut bench = Bench::acquainted();
    bench.planted = Planted::with(Plant::DeadFollowed);
    bench.follow(HIGHER, room(1));
    bench.call(|peers, cx| peers.handle_unnamed(cx, HIGHER));
    assert_eq!(bench.effects(), [PeersEffect::NodeGone { node: HIGHER, rooms: vec![] }]);
}
