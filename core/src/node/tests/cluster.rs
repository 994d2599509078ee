//! Several nodes, their registry and their links, driven by hand.

use alloc::collections::{BTreeMap, VecDeque};

use super::*;
use crate::registry::{
    Answer, CallId, Failure, KeyValue, Range, RegistryCommand, Request, Response, Span, WatchId, Watched,
};

/// Nodes that share a registry, and links that deliver everything at once unless they are cut.
pub(super) struct Cluster {
    config: Config,
    pub(super) nodes: Vec<Option<Node>>,
    registry: Embedded,
    pub(super) now: Now,
    /// Offset of each node's wall clock, in milliseconds.
    pub(super) off: Vec<i64>,
    /// Both ends of each link.
    wires: BTreeMap<(usize, LinkId), (usize, LinkId)>,
    /// Pairs of nodes that do not reach each other.
    pub(super) cut: Vec<(usize, usize)>,
    /// True if frames on links vanish.
    pub(super) swallow: bool,
    /// Node whose frames on links are held back, in `held_back`.
    pub(super) slow: Option<usize>,
    held_back: Vec<(usize, LinkId, Bytes)>,
    /// Nodes that do not reach the registry.
    pub(super) unregistered: Vec<usize>,
    /// True if requests to the registry are held back, in `calls`.
    pub(super) slow_registry: bool,
    calls: Vec<(usize, RegistryCommand)>,
    /// Node for which answers of the registry are held back, in `unheard`.
    pub(super) deaf: Option<usize>,
    unheard: Vec<(usize, RegistryEvent)>,
    /// Messages under way, if a test delivers each of them.
    pub(super) under_way: Option<UnderWay>,
    /// Numbers of the nodes' starts: for the registry each start is a client of its own.
    starts: Vec<u64>,
    /// Bug that is planted in every node.
    #[cfg_attr(not(feature = "plant"), allow(dead_code, reason = "none can be planted"))]
    planted: Planted,
    pub(super) events: Vec<(usize, Event)>,
    pub(super) closed: Vec<(usize, ConnId, v1::Reason)>,
}

/// Undelivered messages of nodes and registry; each way is first in, first out.
#[derive(Default)]
pub(super) struct UnderWay {
    /// From a node to the registry.
    pub(super) calls: BTreeMap<usize, VecDeque<RegistryCommand>>,
    /// From the registry to a node.
    pub(super) told: BTreeMap<usize, VecDeque<RegistryEvent>>,
    /// To a node, over one of its links.
    pub(super) frames: BTreeMap<(usize, LinkId), VecDeque<Bytes>>,
}

/// Number of identifiers of calls and watches for one client of the registry.
const IDS: u64 = 1 << 32;

impl Cluster {
    pub(super) fn new(count: usize) -> Self {
        Self::with(count, Config::default())
    }

    /// Nodes whose leases end together.
    pub(super) fn with_short_leases(count: usize) -> Self {
        let mut config = Config::default();
        config.registrar.room_ttl = config.registrar.node_ttl;
        Self::with(count, config)
    }

    pub(super) fn with(count: usize, config: Config) -> Self {
        Self::planted(count, config, Planted::default())
    }

    pub(super) fn planted(count: usize, config: Config, planted: Planted) -> Self {
        let mut cluster = Self { planted, ..Self::unstarted(count, config) };
        for index in 0..count {
            cluster.start(index, index as u64 + 1);
        }
        // Time to dial the links.
        cluster.advance(Duration::from_secs(1));
        cluster
    }

    /// Nodes that are started later.
    pub(super) fn unstarted(count: usize, config: Config) -> Self {
        config.validate().unwrap();
        Self {
            config,
            nodes: (0..count).map(|_| None).collect(),
            registry: Embedded::new(RegistryConfig::default(), Instant::ZERO),
            now: Now { instant: Instant::ZERO, wall: Wall(1_700_000_000_000) },
            off: vec![0; count],
            wires: BTreeMap::new(),
            cut: vec![],
            swallow: false,
            slow: None,
            held_back: vec![],
            unregistered: vec![],
            slow_registry: false,
            calls: vec![],
            deaf: None,
            unheard: vec![],
            under_way: None,
            starts: vec![0; count],
            planted: Planted::default(),
            events: vec![],
            closed: vec![],
        }
    }

    /// Returns the clocks of a node.
    pub(super) fn time(&self, node: usize) -> Now {
        Now { wall: Wall(self.now.wall.0.saturating_add_signed(self.off[node])), ..self.now }
    }

    pub(super) fn node_ttl(&self) -> Duration {
        self.config.registrar.node_ttl
    }

    pub(super) fn start(&mut self, index: usize, id: u64) {
        let record = v1::NodeRecord { link: alloc::format!("{index}"), ..v1::NodeRecord::default() };
        let mut node = Node::new(self.config.clone(), [index as u8; 32], NodeId(id), record, None);
        #[cfg(feature = "plant")]
        node.plant(self.planted);
        node.start(self.time(index));
        self.nodes[index] = Some(node);
        self.starts[index] = id;
        self.settle();
    }

    /// Kills a node, without any message of the node.
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
        let now = self.time(other.0);
        if let Some(node) = &mut self.nodes[other.0] {
            node.handle_link_closed(now, other.1);
        }
    }

    /// Cuts the links between two nodes, and keeps them from connecting again.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cut.push((a.min(b), a.max(b)));
        let ends: Vec<_> =
            self.wires.iter().filter(|(x, y)| x.0 == a && y.0 == b).map(|(x, y)| (*x, *y)).collect();
        for (x, y) in ends {
            self.wires.remove(&x);
            self.wires.remove(&y);
            for (node, link) in [x, y] {
                let now = self.time(node);
                self.node(node).handle_link_closed(now, link);
            }
        }
        self.settle();
    }

    /// Delivers all frames that were held back.
    pub(super) fn release(&mut self) {
        self.slow = None;
        for (to, link, frame) in core::mem::take(&mut self.held_back) {
            let now = self.time(to);
            self.node(to).handle_link_frame(now, link, frame);
        }
        self.settle();
    }

    /// Delivers the first frame that was held back.
    pub(super) fn release_next(&mut self) {
        let (to, link, frame) = self.held_back.remove(0);
        let now = self.time(to);
        self.node(to).handle_link_frame(now, link, frame);
        self.settle();
    }

    /// Delivers the registry's answers that were held back.
    pub(super) fn hear(&mut self) {
        self.deaf = None;
        for (index, told) in core::mem::take(&mut self.unheard) {
            let now = self.time(index);
            self.node(index).handle_registry_event(now, told);
        }
        self.settle();
    }

    /// Stops a node, which releases its records in the registry.
    pub(super) fn stop(&mut self, index: usize) {
        let now = self.time(index);
        self.node(index).stop(now);
        self.settle();
    }

    /// Delivers the requests to the registry that were held back.
    pub(super) fn ask(&mut self) {
        self.slow_registry = false;
        for (index, call) in core::mem::take(&mut self.calls) {
            self.output(index, Output::Registry(call));
        }
        self.settle();
    }

    /// Delivers the requests to the registry that were held back; later ones are held back again.
    pub(super) fn ask_once(&mut self) {
        self.slow_registry = false;
        for (index, call) in core::mem::take(&mut self.calls) {
            self.output(index, Output::Registry(call));
        }
        self.slow_registry = true;
        self.settle();
    }

    /// Delivers the next call of a node to the registry. With `lost` the node does not receive the
    /// answer.
    pub(super) fn deliver_call(&mut self, index: usize, lost: bool) {
        let calls = self.under_way.as_mut().unwrap().calls.get_mut(&index).unwrap();
        let call = calls.pop_front().unwrap();
        let request = match &call {
            RegistryCommand::Request { id, .. } => Some(*id),
            RegistryCommand::Watch { .. } | RegistryCommand::Unwatch(_) => None,
        };
        self.call(index, call);
        self.settle();
        if let Some(id) = request.filter(|_| lost) {
            let told = self.under_way.as_mut().unwrap().told.entry(index).or_default();
            for told in told.iter_mut() {
                if matches!(told, RegistryEvent::Reply { id: answered, .. } if *answered == id) {
                    *told = RegistryEvent::Reply { id, outcome: Err(Failure::Unknown) };
                }
            }
        }
    }

    /// Delivers the registry's next event to a node.
    pub(super) fn deliver_told(&mut self, index: usize) {
        let told = self.under_way.as_mut().unwrap().told.get_mut(&index).unwrap().pop_front().unwrap();
        let now = self.time(index);
        if let Some(node) = &mut self.nodes[index] {
            node.handle_registry_event(now, told);
        }
        self.settle();
    }

    /// Delivers the next frame of a link to a node.
    pub(super) fn deliver_frame(&mut self, index: usize, link: LinkId) {
        let frames = self.under_way.as_mut().unwrap().frames.get_mut(&(index, link)).unwrap();
        let frame = frames.pop_front().unwrap();
        let now = self.time(index);
        if let Some(node) = &mut self.nodes[index] {
            node.handle_link_frame(now, link, frame);
        }
        self.settle();
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.unregistered.clear();
    }

    /// Keeps nodes from the registry until both their leases have ended. Then all except `still` reach
    /// the registry and register anew.
    pub(super) fn lapse(&mut self, nodes: &[usize], still: &[usize]) {
        self.unregistered = nodes.to_vec();
        self.advance(self.config.registrar.room_ttl + Duration::from_secs(5));
        self.unregistered = still.to_vec();
        self.advance(Duration::from_secs(8));
    }

    /// Returns the registry's value of a key, when nothing is under way.
    pub(super) fn get(&mut self, key: &'static str) -> Option<KeyValue> {
        let request = Request::Range(Range::of(Span::one(Bytes::from_static(key.as_bytes()))));
        self.registry
            .handle_call(self.now.instant, RegistryCommand::Request { id: CallId(u64::MAX), request });
        match self.registry.poll_event() {
            Some(RegistryEvent::Reply {
                outcome: Ok(Response { answer: Answer::Range { kvs, .. }, .. }),
                ..
            }) => kvs.into_iter().next(),
            told => panic!("{told:?}"),
        }
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
            while let Some(told) = self.registry.poll_event() {
                idle = false;
                let (start, told) = match told {
                    RegistryEvent::Reply { id, outcome } => {
                        (id.0 / IDS, RegistryEvent::Reply { id: CallId(id.0 % IDS), outcome })
                    }
                    RegistryEvent::Watched(watched) => {
                        let id = WatchId(watched.id.0 % IDS);
                        (watched.id.0 / IDS, RegistryEvent::Watched(Watched { id, ..watched }))
                    }
                    RegistryEvent::Connected { .. } => continue,
                };
                let Some(index) = self.starts.iter().position(|known| *known == start) else { continue };
                if let Some(under_way) = &mut self.under_way {
                    under_way.told.entry(index).or_default().push_back(told);
                    continue;
                }
                if self.deaf == Some(index) && matches!(told, RegistryEvent::Reply { .. }) {
                    self.unheard.push((index, told));
                    continue;
                }
                let now = self.time(index);
                if let Some(node) = self.nodes[index].as_mut().filter(|_| !self.unregistered.contains(&index))
                {
                    node.handle_registry_event(now, told);
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

    /// Passes a call of a node to the registry.
    fn call(&mut self, index: usize, call: RegistryCommand) {
        let base = self.starts[index] * IDS;
        let call = match call {
            RegistryCommand::Request { id, request } => {
                RegistryCommand::Request { id: CallId(base + id.0), request }
            }
            RegistryCommand::Watch { id, watch } => {
                RegistryCommand::Watch { id: WatchId(base + id.0), watch }
            }
            RegistryCommand::Unwatch(id) => RegistryCommand::Unwatch(WatchId(base + id.0)),
        };
        self.registry.handle_call(self.now.instant, call);
    }

    fn output(&mut self, index: usize, output: Output) {
        let now = self.time(index);
        match output {
            Output::Event(event) => self.events.push((index, event)),
            Output::Close(conn, reason) => self.closed.push((index, conn, reason)),
            Output::Abort(_) | Output::Wake(_) => {}
            Output::Registry(call) if self.slow_registry => self.calls.push((index, call)),
            Output::Registry(call) if self.under_way.is_some() => {
                let under_way = self.under_way.as_mut().unwrap();
                under_way.calls.entry(index).or_default().push_back(call);
            }
            Output::Registry(call) => {
                if self.unregistered.contains(&index) {
                    if let RegistryCommand::Request { id, .. } = call {
                        let outcome = Err(Failure::Unknown);
                        self.node(index).handle_registry_event(now, RegistryEvent::Reply { id, outcome });
                    }
                    return;
                }
                self.call(index, call);
            }
            Output::Dial { node, address, .. } => {
                let to: usize = address.parse().unwrap();
                if self.is_cut(index, to) || self.nodes[to].is_none() {
                    return self.node(index).handle_dial_failed(now, node);
                }
                let here = self.node(index).handle_link(now, node).unwrap();
                let called = self.time(to);
                let there = self.node(to).handle_caller(called, Address([0; 16])).unwrap();
                self.wires.insert((index, here), (to, there));
                self.wires.insert((to, there), (index, here));
            }
            Output::WakeLink(link) => {
                while let Some(frame) = self.node(index).poll_link_transmit(now, link) {
                    match self.wires.get(&(index, link)).copied().filter(|_| !self.swallow) {
                        Some((to, other)) if self.under_way.is_some() => {
                            let under_way = self.under_way.as_mut().unwrap();
                            under_way.frames.entry((to, other)).or_default().push_back(frame);
                        }
                        Some((to, other)) if self.slow == Some(index) => {
                            self.held_back.push((to, other, frame));
                        }
                        Some((to, other)) => {
                            let now = self.time(to);
                            self.node(to).handle_link_frame(now, other, frame);
                        }
                        None => {}
                    }
                }
            }
            Output::CloseLink(link, _) => self.unplug((index, link)),
            Output::Resume(_) => {}
        }
    }

    /// Advances the time, with a stop at each reported deadline.
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
            for index in 0..self.nodes.len() {
                let now = self.time(index);
                if let Some(node) = &mut self.nodes[index]
                    && node.poll_timeout().is_some_and(|due| due.at <= at)
                {
                    node.handle_timeout(now);
                }
            }
            self.settle();
            self.registry.handle_timeout(at);
            self.settle();
        }
    }

    // Players.

    pub(super) fn connect(&mut self, node: usize, player: &str, resume: Option<v1::Resume>) -> Member {
        let mut member = self.accept(node, player);
        self.send(&member, v1::Kind::Hello, &v1::Hello { resume, ..v1::Hello::default() });
        let messages = self.received(&member);
        let ToClient::Welcome(welcome) = &messages[0] else { panic!("no Welcome: {messages:?}") };
        member.session = welcome.session.clone();
        member.welcomed = welcome.epoch;
        member.learn(&messages);
        member.told = messages;
        member
    }

    /// Accepts a connection that has sent nothing yet.
    pub(super) fn accept(&mut self, node: usize, player: &str) -> Member {
        let now = self.time(node);
        let conn = self.node(node).handle_accept(now, Address([0; 16])).unwrap();
        let identity = Identity {
            player: Name::new(player).unwrap(),
            token: Bytes::from_static(b"token"),
            trace: Trace::default(),
        };
        self.node(node).handle_upgraded(now, conn, identity);
        Member { node, conn, session: Bytes::new(), welcomed: 0, epoch: 0, seq: 0, said: 0, told: vec![] }
    }

    pub(super) fn join(&mut self, node: usize, player: &str) -> Member {
        let mut member = self.connect(node, player, None);
        self.send(&member, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
        let messages = self.received(&member);
        assert!(matches!(&messages[0], ToClient::Joined(_)), "{messages:?}");
        member.learn(&messages);
        member
    }

    pub(super) fn send(&mut self, member: &Member, kind: v1::Kind, message: &impl Message) {
        let now = self.time(member.node);
        let frame = encode(kind, &v1::Metadata::default(), message);
        self.node(member.node).handle_frame(now, member.conn, frame);
        self.settle();
    }

    pub(super) fn say(&mut self, member: &mut Member, body: &str) {
        member.said += 1;
        self.send(member, v1::Kind::Say, &say(member.said, body));
    }

    pub(super) fn received(&mut self, member: &Member) -> Vec<ToClient> {
        let now = self.time(member.node);
        let mut messages = vec![];
        while let Some(frame) = self.node(member.node).poll_transmit(now, member.conn) {
            messages.push(ToClient::decode(&Frame::decode(frame, 1 << 20).unwrap()).unwrap());
        }
        self.settle();
        messages
    }

    /// Returns the bodies that a member has received since the last call, in order.
    pub(super) fn heard(&mut self, member: &mut Member) -> Vec<String> {
        let messages = self.received(member);
        member.learn(&messages);
        said(&messages).into_iter().map(|(_, body)| body).collect()
    }
}

pub(super) struct Member {
    pub(super) node: usize,
    pub(super) conn: ConnId,
    pub(super) session: Bytes,
    /// Epoch of the session in its `Welcome`.
    pub(super) welcomed: u64,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) said: u64,
    /// Messages received with the `Welcome`.
    pub(super) told: Vec<ToClient>,
}

impl Member {
    pub(super) fn learn(&mut self, messages: &[ToClient]) {
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
        let room = v1::RoomCursor { room: "arena".into(), epoch: self.epoch, seq: self.seq, request: 0 };
        Some(v1::Resume { session: self.session.clone(), rooms: vec![room], epoch: self.welcomed })
    }
}
