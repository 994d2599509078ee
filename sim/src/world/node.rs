//! Driver of the nodes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use skirmish_core::id::{ConnId, LinkId, Name, NodeId};
use skirmish_core::node::{Event, Node, Output};
use skirmish_core::plant::Planted;
use skirmish_core::registry::{Embedded, RegistryConfig, RegistryEvent, Watched};
use skirmish_core::rng::{Rng, Seed};
use skirmish_core::time::{Deadline, Now};
use skirmish_proto::v1;

use super::registry_link::RegistryLink;
use super::{MAX_ROUNDS, World, WorldEvent};
use crate::clock::SkewedClock;
use crate::history::Actor;
use crate::matches::NEWS;
use crate::network::{PipeItem, Way};
use crate::oracle::{Guarantee, Observation, Verdict, Violation};
use crate::scenario::Shape;

/// Process of a node: the machine while the process is up, and the parts that outlive the process.
pub(super) struct NodeProcess {
    pub(super) number: usize,
    pub(super) machine: Option<Node>,
    pub(super) life: u32,
    pub(super) clock: SkewedClock,
    pub(super) paused: bool,
    /// Time of the last resume after a pause.
    pub(super) resumed: u64,
    /// Time of the last check at which the process itself had a fault.
    pub(super) troubled: u64,
    /// True if nobody is notified that the process is down.
    pub(super) silent: bool,
    pub(super) wakes: Option<u64>,
    spins: (u64, u32),
    rng: Rng,
    pub(super) planted: Planted,
    pub(super) ids: BTreeMap<ConnId, u64>,
    /// The node's ends of links.
    pub(super) node_links: BTreeMap<LinkId, (u64, usize)>,
    pub(super) registry: Registration,
    /// Events that the registry's driver has for the node at this moment.
    pub(super) told: VecDeque<RegistryEvent>,
    /// Events that were due in the process while it was paused.
    pub(super) deferred: Vec<WorldEvent>,
    /// The connection of each player's session on this node.
    pub(super) holders: BTreeMap<Name, ConnId>,
    /// Connections that were taken over on this node and still exist.
    pub(super) fenced: Vec<ConnId>,
    /// Events that the registry in the process has for the oracle.
    pub(super) news: Vec<Watched>,
}

/// Registry of a node's process.
pub(super) enum Registration {
    /// In the process itself.
    Embedded(Box<Embedded>),
    /// Over the network.
    Remote(Box<RegistryLink>),
}

/// Work that a round of outputs leaves.
#[derive(Default)]
struct Todo {
    conns: Vec<u64>,
    links: Vec<(u64, usize)>,
    echoes: VecDeque<(ConnId, String, Bytes)>,
}

impl NodeProcess {
    pub(super) fn new(
        shape: &Shape,
        number: usize,
        clock: SkewedClock,
        seed: Seed,
        planted: Planted,
    ) -> Self {
        Self {
            number,
            machine: None,
            life: 0,
            clock,
            paused: false,
            resumed: 0,
            troubled: 0,
            silent: false,
            wakes: None,
            spins: (0, 0),
            rng: Rng::new(seed),
            planted,
            ids: BTreeMap::new(),
            node_links: BTreeMap::new(),
            registry: Self::registration(shape, 0, clock, 0),
            told: VecDeque::new(),
            deferred: Vec::new(),
            holders: BTreeMap::new(),
            fenced: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Makes a machine in a new life; the caller starts it.
    pub(super) fn start(&mut self, shape: &Shape, at: u64) {
        self.life += 1;
        let seal_key = self.rng.bytes();
        let id = NodeId(self.rng.u64().max(1));
        let record = v1::NodeRecord {
            name: format!("node {}", self.number),
            link: link_address(self.number),
            ..v1::NodeRecord::default()
        };
        let mut node = Node::new(shape.node_config(), self.rng.split(), id, record, Some(seal_key));
        node.plant(self.planted);
        self.machine = Some(node);
        self.silent = false;
        self.registry = Self::registration(shape, self.life, self.clock, at);
    }

    fn registration(shape: &Shape, life: u32, clock: SkewedClock, at: u64) -> Registration {
        if shape.has_remote_registry() {
            return Registration::Remote(Box::new(RegistryLink::new(shape)));
        }
        // Epochs are revisions: those of one life must not occur in the next.
        let config =
            RegistryConfig { base_revision: u64::from(life.max(1)) << 40, ..RegistryConfig::default() };
        Registration::Embedded(Box::new(Embedded::new(config, clock.now(at).instant)))
    }

    pub(super) fn wakes(&self) -> Option<u64> {
        self.wakes.filter(|_| !self.paused)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Returns true if the machine wants nothing read from the connection.
    pub(super) fn holds(&self, conn: Option<ConnId>) -> bool {
        conn.is_some_and(|conn| self.machine.as_ref().is_some_and(|machine| machine.is_held(conn)))
    }

    /// Returns true if the process itself has a fault.
    pub(super) fn is_troubled(&self) -> bool {
        self.paused || self.machine.is_none()
    }

    /// Returns the next deadline of the machine, or of its registry in the process or driver.
    fn due(&self) -> Option<Deadline> {
        let machine = self.machine.as_ref()?.poll_timeout();
        match &self.registry {
            Registration::Embedded(embedded) => Deadline::earliest(machine, embedded.poll_timeout()),
            Registration::Remote(link) => Deadline::earliest(machine, link.groups.poll_timeout()),
        }
    }

    /// Returns the registry's next event for the node.
    fn poll_event(&mut self) -> Option<RegistryEvent> {
        match &mut self.registry {
            Registration::Embedded(embedded) => loop {
                match embedded.poll_event()? {
                    RegistryEvent::Watched(watched) if watched.id == NEWS => self.news.push(watched),
                    event => return Some(event),
                }
            },
            Registration::Remote(_) => self.told.pop_front(),
        }
    }
}

/// Returns the address at which other nodes dial a node.
fn link_address(number: usize) -> String {
    format!("node-{number}")
}

/// Returns the node that is dialed at an address.
fn node_at(address: &str) -> Option<usize> {
    address.strip_prefix("node-")?.parse().ok()
}

impl World<'_> {
    /// Gives one input to a node, and executes everything that follows at this moment.
    pub(super) fn node_input<T>(
        &mut self,
        node: usize,
        input: impl FnOnce(&mut Node, Now) -> T,
    ) -> Result<Option<T>, Violation> {
        let process = &mut self.nodes[node];
        let now = process.clock.now(self.at);
        let Some(machine) = process.machine.as_mut() else { return Ok(None) };
        let result = input(machine, now);
        self.settle_node(node)?;
        Ok(Some(result))
    }

    pub(super) fn node_timeout(&mut self, node: usize) -> Verdict {
        let process = &mut self.nodes[node];
        let spins = &mut process.spins;
        *spins = if spins.0 == self.at { (self.at, spins.1 + 1) } else { (self.at, 0) };
        if spins.1 > MAX_ROUNDS {
            let reason = process.due().map(|due| due.reason);
            return self.broken(
                Guarantee::Bounded,
                format!("node {node}'s deadline ({reason:?}) does not go away when it is served"),
            );
        }
        let now = process.clock.now(self.at);
        let is_due = |deadline: Option<Deadline>| deadline.is_some_and(|deadline| deadline.at <= now.instant);
        if is_due(process.machine.as_ref().and_then(Node::poll_timeout)) {
            self.node_input(node, Node::handle_timeout)?;
        }
        // After the node, which may just renew a lease that would end now.
        match &mut self.nodes[node].registry {
            Registration::Embedded(embedded) if is_due(embedded.poll_timeout()) => {
                embedded.handle_timeout(now.instant);
            }
            Registration::Remote(link) if is_due(link.groups.poll_timeout()) => self.groups_timeout(node),
            Registration::Embedded(_) | Registration::Remote(_) => {}
        }
        self.settle_node(node)
    }

    /// Drains a node: outputs, then frames, until neither is left.
    pub(super) fn settle_node(&mut self, node: usize) -> Verdict {
        let mut closed = VecDeque::new();
        let mut todo = Todo::default();
        for round in 0.. {
            if round > MAX_ROUNDS {
                return self.broken(Guarantee::Bounded, format!("node {node}'s output has no end"));
            }
            let mut outputs = 0;
            while let Some(output) = self.nodes[node].machine.as_mut().and_then(Node::poll_output) {
                outputs += 1;
                if outputs > 100_000 {
                    return self.broken(Guarantee::Bounded, format!("node {node}'s output has no end"));
                }
                self.node_output(node, output, &mut todo)?;
            }
            let (conns, links) = (std::mem::take(&mut todo.conns), std::mem::take(&mut todo.links));
            let idle = conns.is_empty() && links.is_empty();
            for id in conns {
                self.pump_node(id, &mut closed);
            }
            for (node_link, end) in links {
                self.pump_node_link(node_link, end);
            }
            if !idle {
                continue;
            }
            // The last input is handled: now the next one.
            let process = &mut self.nodes[node];
            let now = process.clock.now(self.at);
            let event = process.poll_event();
            let Some(machine) = process.machine.as_mut() else { break };
            if let Some(event) = event {
                machine.handle_registry_event(now, event);
            } else if let Some(conn) = closed.pop_front() {
                machine.handle_closed(now, conn);
            } else if let Some((conn, type_url, payload)) = todo.echoes.pop_front() {
                if machine.send(now, conn, &type_url, &payload) {
                    self.coverage.hit("application echoed");
                }
            } else {
                break;
            }
        }
        let process = &mut self.nodes[node];
        let due = process.due();
        let Some(machine) = process.machine.as_ref() else { return Ok(()) };
        process.wakes = due.map(|due| process.clock.world(due.at).max(self.at));
        let result = machine.audit();
        let driver = match &process.registry {
            Registration::Embedded(_) => Ok(()),
            Registration::Remote(link) => link.groups.audit(),
        };
        self.observe(Observation::Audit { result })?;
        self.observe(Observation::Audit { result: driver })?;
        self.inspect(node)
    }

    fn node_output(&mut self, node: usize, output: Output, todo: &mut Todo) -> Verdict {
        let lane = Actor::Node(node);
        match output {
            Output::Wake(conn) => {
                if let Some(&id) = self.nodes[node].ids.get(&conn) {
                    todo.conns.push(id);
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.woken = true;
                    }
                }
            }
            Output::Resume(conn) => {
                if let Some(&id) = self.nodes[node].ids.get(&conn) {
                    self.schedule_arrival(id, Way::Up, self.at);
                }
            }
            Output::Close(conn, reason) => {
                self.history.record(self.at, lane, format_args!("closes {conn}: {reason:?}"));
                self.check_heard(node, conn, reason)?;
                if let Some(&id) = self.nodes[node].ids.get(&conn)
                    && let Some(conn) = self.conns.get_mut(&id)
                {
                    conn.closing = true;
                    conn.woken = true;
                    todo.conns.push(id);
                    // Input of a closing connection is not held back any more.
                    self.schedule_arrival(id, Way::Up, self.at);
                }
            }
            Output::Abort(conn) => {
                self.history.record(self.at, lane, format_args!("aborts {conn}"));
                if let Some(id) = self.detach(node, conn) {
                    self.send(id, Way::Down, PipeItem::Reset);
                }
            }
            Output::Registry(call) => self.call_registry(node, call),
            Output::Dial { node: to, address, limit } => {
                self.history.record(self.at, lane, format_args!("dials {to} at {address}"));
                if let Some(number) = node_at(&address) {
                    self.dial_node(node, number, to, limit);
                }
            }
            Output::WakeLink(link) => {
                if let Some(&(node_link, end)) = self.nodes[node].node_links.get(&link) {
                    todo.links.push((node_link, end));
                    if let Some(node_link) = self.node_links.get_mut(&node_link) {
                        node_link.ends[end].woken = true;
                    }
                }
            }
            Output::CloseLink(link, why) => {
                self.history.record(self.at, lane, format_args!("closes {link}: {why}"));
                self.check_link_heard(node, link, why)?;
                self.close_link(node, link);
            }
            Output::Event(event) => {
                self.history.record(self.at, lane, format_args!("{event:?}"));
                self.node_event(node, event, todo)?;
            }
        }
        Ok(())
    }

    fn node_event(&mut self, node: usize, event: Event, todo: &mut Todo) -> Verdict {
        match event {
            Event::SessionOpened { conn, player, epoch } => {
                self.coverage.hit("session opened");
                self.lets_in(node)?;
                self.hold(node, conn, player, epoch);
            }
            Event::SessionResumed { conn, player, epoch } => {
                self.lets_in(node)?;
                self.hold(node, conn, player, epoch);
            }
            Event::SessionKept { conn, player, epoch } => {
                self.coverage.hit("session registered anew");
                if let Some(conn) = conn {
                    self.hold(node, conn, player, epoch);
                }
            }
            Event::SessionEnded { player, reason } => {
                self.coverage.hit("session ended");
                if reason == v1::Reason::Unspecified {
                    self.check_door(node, &player)?;
                }
            }
            Event::ConnectionLost { .. } => self.coverage.hit("connection lost"),
            Event::Displaced { .. } => self.coverage.hit("connection displaced"),
            Event::Unhealthy { .. } => self.coverage.hit("connection unhealthy"),
            Event::RoomOpened { room, .. } => {
                self.coverage.hit("room opened");
                self.rooms.number(room.as_str());
            }
            Event::RoomClosed { .. } => self.coverage.hit("room closed"),
            Event::TookOver { .. } => self.coverage.hit("room taken over"),
            Event::SteppedDown { .. } => self.coverage.hit("primary stepped down"),
            Event::NodeDown { .. } => self.coverage.hit("node known dead"),
            Event::LinkUp { .. } => self.coverage.hit("link up"),
            Event::LinkDown { .. } => self.coverage.hit("link lost"),
            Event::MatchFilled { .. } => self.coverage.hit("match filled"),
            Event::Elected { .. } => self.coverage.hit("matcher elected"),
            Event::Deposed { .. } => self.coverage.hit("matcher deposed"),
            Event::MatchEnded { abandoned: true, .. } => self.coverage.hit("match abandoned"),
            Event::MatchEnded { .. } => self.coverage.hit("match over"),
            Event::ClockJudged { verdict } => self.coverage.hit(match verdict {
                skirmish_core::node::clocks::ClockVerdict::Agrees => "clock right",
                _ => "clock off",
            }),
            // A node panics at a broken invariant, unless a bug is planted in it.
            Event::Bug { .. }
            | Event::Serving
            | Event::PlayersMissed { .. }
            | Event::MatchFormed { .. }
            | Event::NotServing
            | Event::Anew { .. }
            | Event::NodeUp { .. }
            | Event::Passed { .. }
            | Event::TicketEnded { .. } => {}
            Event::Application { conn, type_url, payload, .. } => {
                todo.echoes.push_back((conn, type_url, payload));
            }
            Event::Misbehaved { conn, what, .. } => {
                // Every client of the world is honest and never misbehaves.
                let id = self.nodes[node].ids.get(&conn);
                let client = id.and_then(|id| self.conns.get(id)).map(|c| c.client);
                return self.broken(
                    Guarantee::Liveness,
                    format!("node {node} accuses client {client:?}, which is honest: {what}"),
                );
            }
        }
        Ok(())
    }

    pub(super) fn kick(&mut self, player: &Name) -> Verdict {
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_paused() {
                self.node_input(node, |machine, now| machine.kick(now, player.as_str()))?;
            }
        }
        Ok(())
    }

    /// Adds a node's counts to the coverage, at the end of its life.
    pub(super) fn retire_node_stats(&mut self, node: usize) {
        if let Some(machine) = self.nodes[node].machine.as_ref() {
            self.coverage.add_stats(&machine.stats());
        }
    }
}
