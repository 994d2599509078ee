//! The machine world: nodes, their registry and their clients as bare machines, on a network and on
//! clocks that obey the scenario.
//!
//! Every machine is driven exactly by the contract of the core: one input, then its outputs are
//! drained and its frames sent as far as the connection accepts them. The next call is another
//! input, or a time-out exactly at the machine's deadline.

mod answers;
mod client;
mod clocks;
mod connections;
mod faults;
mod fullness;
mod groups;
mod heal;
mod heard;
mod matches;
mod node;
mod node_faults;
mod node_links;
mod primary_watch;
mod registry;
mod registry_link;
mod registry_messages;
mod rooms;
mod steps;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use skirmish_core::id::{Name, NodeId};
use skirmish_core::plant::{Plant, Planted};
use skirmish_core::registry::{CallId, GroupId, Watched};
use skirmish_core::rng::Rng;

use crate::clock::SkewedClock;
use crate::coverage::Coverage;
use crate::draw::generator;
use crate::history::{Actor, History, Trouble};
use crate::network::{Conn, NetworkPath, NodeLink, Way};
use crate::oracle::l1_liveness::{deaf_to, found_out};
use crate::oracle::{ClientLife, Guarantee, Observation, Oracles, Verdict, Violation};
use crate::rooms::Rooms;
use crate::scenario::Scenario;
use client::ClientProcess;
use node::NodeProcess;
use primary_watch::PrimaryWatch;
use registry::RegistryProcess;
use registry_messages::UndeliveredMessage;

/// Interval of checks of the clients that no fault holds back, in microseconds.
const CHECK_INTERVAL: u64 = 100_000;

/// Most events of a run, far more than any scenario needs. A run that exceeds them breaks G11.
const MAX_EVENTS: u64 = 20_000_000;

/// Most calls of a machine at one moment of the world, and most rounds of draining it.
const MAX_ROUNDS: u32 = 10_000;

/// Options of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Bug to plant.
    pub plant: Option<Plant>,
    /// True if texts and pictures are kept.
    pub traced: bool,
}

/// Result of a run.
#[derive(Debug)]
pub struct RunOutcome {
    /// Hash of all recorded events.
    pub hash: u64,
    /// The first broken guarantee, with the time.
    pub violation: Option<(u64, Violation)>,
    /// Length of the run in microseconds of the world's time.
    pub micros: u64,
    /// Counts of the visited situations.
    pub coverage: Coverage,
    /// Events of the run, as far as they were kept.
    pub history: History,
}

/// Runs a scenario in the machine world.
#[must_use]
pub fn run(scenario: &Scenario, options: RunOptions) -> RunOutcome {
    let mut world = World::new(scenario, options);
    let result = world.live();
    let violation = result.err().map(|violation| {
        world.history.record(world.at, Actor::World, format_args!("VIOLATION {violation}"));
        (world.at, violation)
    });
    for node in 0..world.nodes.len() {
        world.retire_node_stats(node);
    }
    world.retire_match_counts();
    world.end_troubles();
    RunOutcome {
        hash: world.history.hash(),
        violation,
        micros: world.at,
        coverage: world.coverage,
        history: world.history,
    }
}

/// Planned event of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WorldEvent {
    /// The first flight of a connection's pipe may arrive.
    Arrive(u64, Way),
    /// A connection's upgrade has been checked.
    Upgrade(u64),
    /// A client's process resumes after a pause.
    ClientResumes(usize),
    /// A client reads again.
    ClientReads(usize),
    /// A node's process resumes after a pause in this life.
    NodeResumes(usize, u32),
    /// A node stops after its drain in this life.
    NodeStops(usize, u32),
    /// A node is started again.
    NodeStarts(usize),
    /// The first flight from an end of a link between nodes may arrive.
    NodeLinkArrives(u64, usize),
    /// The time of a dial between nodes is over.
    DialOver(u64),
    /// A message to or from the registry may arrive.
    RegistryMessageArrives(u64),
    /// The time of a keep-alive, sent in this life of a node, is over.
    KeepAliveOver(usize, u32, CallId),
    /// The time of a dial of the registry is over.
    RegistryDialOver(usize, u64),
    /// A node connects to the registry again, if the node is still in this life.
    RetryRegistry(usize, u32),
    /// A dead connection between a node and the registry is detected, if it has been dead since
    /// this moment.
    Silence(usize, u64),
    /// The registry detects that the process at the other end of a connection is gone.
    SessionOver(u64),
    /// The registry executes a request that it never answers.
    LateRequest(u64),
    /// A node's driver, in this life of the node, has gathered requests for long enough.
    Gathered(usize, u32),
    /// The time of a group of requests, sent in this life of a node, is over.
    GroupSilent(usize, u32, GroupId),
    /// The registry resumes after a pause.
    RegistryResumes,
    /// The registry is started again.
    RegistryStarts,
    /// The registry has a new leader.
    LeaderElected,
    /// The registry may have space again.
    RegistryEmptied,
    /// The clients that no fault holds back are checked.
    Check,
    /// The client's application, in this life, has played a match: the client leaves the room.
    MatchPlayed(usize, u32, u64),
    /// The fault between a node and the registry, made because the node is a matcher, is over.
    MatcherHeals(usize),
}

/// Owner of the next deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextDeadline {
    Step(usize),
    Queued,
    NodeTimeout(usize),
    RegistryTimeout,
    ClientTimeout(usize),
}

struct World<'a> {
    scenario: &'a Scenario,
    at: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, WorldEvent)>>,
    next_step: usize,
    nodes: Vec<NodeProcess>,
    clients: Vec<ClientProcess>,
    /// Present if the registry is a process of its own.
    registry: Option<RegistryProcess>,
    /// Paths from each client to each node.
    client_paths: Vec<Vec<NetworkPath>>,
    /// Paths between nodes; the lower number is the first of the key.
    node_paths: BTreeMap<(usize, usize), NetworkPath>,
    /// Paths from each node to the registry.
    registry_paths: Vec<NetworkPath>,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    /// Links between nodes, by number.
    node_links: BTreeMap<u64, NodeLink>,
    next_node_link: u64,
    registry_messages: BTreeMap<u64, UndeliveredMessage>,
    next_registry_message: u64,
    /// Number of the next connection to the registry; the first is 1.
    next_session: u64,
    /// Node that dialed each of the connections to the registry.
    authors: BTreeMap<u64, NodeId>,
    /// Node whose request the registry has executed last, if the oracle was not notified of it yet.
    author: Option<NodeId>,
    next_serial: u64,
    /// The newest epoch of each player's session, with its connection.
    newest: BTreeMap<Name, (u64, u64)>,
    /// Processes of clients that have said `Hello`, by player: the clients' numbers and lives.
    greeters: BTreeMap<Name, BTreeSet<ClientLife>>,
    primary_watch: PrimaryWatch,
    /// True if any fault of nodes, links or registry has happened so far.
    faulted: bool,
    /// Time of the last fault, once faults have stopped.
    healed: Option<u64>,
    /// Clients that learn only after the last fault of a take-over or kick: their applications
    /// connect again.
    recalled: Vec<usize>,
    rooms: Rooms,
    /// Count of tickets that had timed out beside another one when, after the last fault, all
    /// players began to search for the same match.
    passed_over: Option<u64>,
    /// Changes in the registry's history of which the oracle of matches was not notified yet.
    news: Vec<Watched>,
    rng: Rng,
    history: History,
    open_troubles: BTreeMap<(Actor, &'static str), u64>,
    oracles: Oracles,
    coverage: Coverage,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, options: RunOptions) -> Self {
        let shape = &scenario.shape;
        let planted = options.plant.map_or_else(Planted::default, Planted::with);
        let mut rng = generator(scenario.seed, "world");
        let mut clock = || {
            let drift = signed_up_to(&mut rng, shape.drift_ppm.min(500_000));
            SkewedClock::new(0, drift, signed_up_to(&mut rng, shape.skew_ms))
        };
        let count = shape.node_count();
        let mut node_clocks: Vec<SkewedClock> = (0..count).map(|_| clock()).collect();
        let client_clocks: Vec<SkewedClock> = (0..shape.clients.clamp(1, 64)).map(|_| clock()).collect();
        let registry_clock = clock();
        if count > 1 {
            for clock in &mut node_clocks {
                *clock = clock.kept_within(shape.node_skew_ms);
            }
        }
        let mut nodes = Vec::new();
        let mut registry_paths = Vec::new();
        let mut node_paths = BTreeMap::new();
        for (number, clock) in node_clocks.into_iter().enumerate() {
            nodes.push(NodeProcess::new(shape, number, clock, rng.split(), planted));
            let path =
                |latency, jitter, rng: &mut Rng| NetworkPath::new(latency, jitter, Rng::new(rng.split()));
            registry_paths.push(path(shape.registry_latency_us, shape.registry_jitter_us, &mut rng));
            for other in 0..number {
                node_paths
                    .insert((other, number), path(shape.node_latency_us, shape.node_jitter_us, &mut rng));
            }
        }
        let mut clients = Vec::new();
        let mut client_paths = Vec::new();
        for (number, clock) in client_clocks.into_iter().enumerate() {
            clients.push(ClientProcess::new(shape, number, clock, rng.split(), planted));
            let path = |_| NetworkPath::new(shape.latency_us, shape.jitter_us, Rng::new(rng.split()));
            client_paths.push((0..count).map(path).collect());
        }
        let registry = shape.has_remote_registry().then(|| RegistryProcess::new(registry_clock, count));
        Self {
            scenario,
            at: 0,
            order: 0,
            queue: BinaryHeap::new(),
            next_step: 0,
            nodes,
            clients,
            registry,
            client_paths,
            node_paths,
            registry_paths,
            conns: BTreeMap::new(),
            next_conn: 1,
            node_links: BTreeMap::new(),
            next_node_link: 1,
            registry_messages: BTreeMap::new(),
            next_registry_message: 1,
            next_session: 1,
            authors: BTreeMap::new(),
            author: None,
            next_serial: 1,
            newest: BTreeMap::new(),
            greeters: BTreeMap::new(),
            primary_watch: PrimaryWatch::default(),
            faulted: false,
            healed: None,
            recalled: Vec::new(),
            rooms: Rooms::new(shape.rooms),
            passed_over: None,
            news: Vec::new(),
            rng,
            history: History::new(options.traced),
            open_troubles: BTreeMap::new(),
            oracles: Oracles::new(&shape.matchmaking()),
            coverage: Coverage::default(),
        }
    }

    /// Runs both phases: safety under faults, then liveness without faults.
    fn live(&mut self) -> Verdict {
        for node in 0..self.nodes.len() {
            self.start_node(node)?;
        }
        self.schedule(CHECK_INTERVAL, WorldEvent::Check);
        self.watch_matches(None);
        let last_step = self.scenario.steps.last().map_or(0, |step| step.at);
        let end = (self.scenario.shape.chaos_ms * 1_000).max(last_step);
        self.run_until(end)?;
        self.heal()
    }

    /// Executes all events up to a moment.
    fn run_until(&mut self, end: u64) -> Verdict {
        while let Some((at, next)) = self.next() {
            if at > end {
                break;
            }
            self.at = self.at.max(at);
            self.order += 1;
            if self.order > MAX_EVENTS {
                return self.broken(Guarantee::Bounded, "the world does not come to an end");
            }
            match next {
                NextDeadline::Step(index) => self.step(index)?,
                NextDeadline::Queued => {
                    if let Some(Reverse((_, _, event))) = self.queue.pop() {
                        self.handle_event(event)?;
                    }
                }
                NextDeadline::NodeTimeout(node) => self.node_timeout(node)?,
                NextDeadline::RegistryTimeout => self.registry_timeout()?,
                NextDeadline::ClientTimeout(client) => self.client_timeout(client)?,
            }
            self.read_match_news()?;
        }
        self.at = self.at.max(end);
        Ok(())
    }

    /// Returns the next deadline. At the same moment steps are before arrivals, and arrivals before
    /// time-outs.
    fn next(&self) -> Option<(u64, NextDeadline)> {
        let mut best: Option<(u64, NextDeadline)> = None;
        let mut offer = |at: Option<u64>, next: NextDeadline| {
            if let Some(at) = at
                && best.is_none_or(|(earliest, _)| at < earliest)
            {
                best = Some((at, next));
            }
        };
        let step = self.scenario.steps.get(self.next_step).filter(|_| self.healed.is_none());
        offer(step.map(|step| step.at), NextDeadline::Step(self.next_step));
        offer(self.queue.peek().map(|Reverse((at, _, _))| *at), NextDeadline::Queued);
        for node in &self.nodes {
            offer(node.wakes(), NextDeadline::NodeTimeout(node.number));
        }
        offer(self.registry.as_ref().and_then(RegistryProcess::wakes), NextDeadline::RegistryTimeout);
        for (number, client) in self.clients.iter().enumerate() {
            offer(client.wakes(), NextDeadline::ClientTimeout(number));
        }
        best
    }

    fn handle_event(&mut self, event: WorldEvent) -> Verdict {
        match event {
            WorldEvent::Arrive(conn, way) => self.arrive(conn, way),
            WorldEvent::Upgrade(conn) => self.upgrade(conn),
            WorldEvent::ClientResumes(client) => self.resume_client(client),
            WorldEvent::ClientReads(client) => self.unstall(client),
            WorldEvent::NodeResumes(node, life) => self.resume_node(node, life),
            WorldEvent::NodeStops(node, life) => self.stop_drained(node, life),
            WorldEvent::NodeStarts(node) => self.start_node(node),
            WorldEvent::NodeLinkArrives(node_link, end) => self.node_link_arrives(node_link, end),
            WorldEvent::DialOver(node_link) => self.dial_over(node_link),
            WorldEvent::RegistryMessageArrives(message) => self.deliver_message(message),
            WorldEvent::KeepAliveOver(node, life, call) => self.keep_alive_over(node, life, call),
            WorldEvent::RegistryDialOver(node, session) => self.registry_dial_over(node, session),
            WorldEvent::Silence(node, since) => self.silence(node, since),
            WorldEvent::GroupSilent(node, life, group) => self.group_silent(node, life, group),
            WorldEvent::Check => self.check(),
            WorldEvent::RegistryEmptied => self.empty_registry(),
            WorldEvent::MatchPlayed(client, life, room) => self.match_played(client, life, room),
            other => {
                self.handle_quiet_event(other);
                Ok(())
            }
        }
    }

    /// Executes an event that cannot break a guarantee by itself.
    fn handle_quiet_event(&mut self, event: WorldEvent) {
        match event {
            WorldEvent::RetryRegistry(node, life) => self.retry_registry(node, life),
            WorldEvent::Gathered(node, life) => self.gathered(node, life),
            WorldEvent::SessionOver(session) => self.session_over(session),
            WorldEvent::LateRequest(late) => self.late_request(late),
            WorldEvent::RegistryResumes => self.resume_registry(),
            WorldEvent::RegistryStarts => self.start_registry(),
            WorldEvent::LeaderElected => self.elect_leader(),
            WorldEvent::MatcherHeals(node) => self.heal_matcher(node),
            _ => {}
        }
    }

    fn schedule(&mut self, at: u64, event: WorldEvent) {
        self.order += 1;
        self.queue.push(Reverse((at.max(self.at), self.order, event)));
    }

    fn observe(&mut self, seen: Observation) -> Verdict {
        self.oracles.observe(self.at, &seen)
    }

    fn broken(&self, guarantee: Guarantee, description: impl Into<String>) -> Verdict {
        Err(Violation { guarantee, description: description.into() })
    }

    /// Checks that no client waits too long for entries that others have while no fault holds it
    /// back, and that no node keeps a connection that has long been dead.
    fn check(&mut self) -> Verdict {
        self.schedule(self.at + CHECK_INTERVAL, WorldEvent::Check);
        self.forget_rooms();
        for node in self.nodes.iter_mut().filter(|node| node.is_troubled()) {
            node.troubled = self.at;
        }
        for conn in self.conns.values() {
            let has = conn.node.is_some() && !conn.closing;
            let Some(vanished) = conn.vanished.filter(|_| has) else { continue };
            let dead_for = self.at.saturating_sub(vanished.max(self.nodes[conn.to].troubled));
            found_out(conn.to, conn.client, dead_for, self.scenario.shape.silence_bound() + CHECK_INTERVAL)?;
        }
        self.check_deaf_clients()?;
        self.check_clocks()?;
        let troubled_nodes = self.nodes.iter().any(NodeProcess::is_troubled) || self.is_apart();
        let mut free = Vec::new();
        for number in 0..self.clients.len() {
            let troubled = troubled_nodes || self.is_held_back(number);
            let client = &mut self.clients[number];
            if troubled {
                client.troubled = self.at;
            } else {
                free.push((client.client_life(), client.troubled));
            }
        }
        let shape = &self.scenario.shape;
        let slowest = |paths: &mut dyn Iterator<Item = &NetworkPath>| {
            paths.map(|path| path.latency + path.jitter).max().unwrap_or(0)
        };
        let slowest =
            slowest(&mut self.client_paths.iter().flatten()) + slowest(&mut self.node_paths.values()) * 2;
        let within = shape.flush_ms * 2_000 + slowest * 8 + 1_000_000;
        self.oracles.check(self.at, &free, within)
    }

    /// Checks that no client takes a connection for alive over which nothing has arrived for longer
    /// than the bound of detection.
    fn check_deaf_clients(&mut self) -> Verdict {
        for (number, client) in self.clients.iter_mut().enumerate() {
            if client.is_troubled() || !client.is_connected() {
                client.away = self.at;
                continue;
            }
            let Some(conn) = client.conn.and_then(|id| self.conns.get(&id)) else { continue };
            let Some(deaf) = conn.vanished.or(self.client_paths[number][conn.to].down_cut) else { continue };
            let dead_for = self.at.saturating_sub(deaf.max(client.away));
            let within = self.scenario.shape.deafness_bound() + CHECK_INTERVAL;
            deaf_to(number, conn.to, dead_for, within)?;
        }
        Ok(())
    }

    /// Records the start of a fault somewhere; for the picture.
    fn trouble(&mut self, lane: Actor, label: &'static str) {
        self.open_troubles.entry((lane, label)).or_insert(self.at);
    }

    /// Records the end of a fault.
    fn relief(&mut self, lane: Actor, label: &'static str) {
        if let Some(from) = self.open_troubles.remove(&(lane, label))
            && self.history.traced
        {
            self.history.troubles.push(Trouble { lane, from, to: self.at, label });
        }
    }

    fn end_troubles(&mut self) {
        for (lane, label) in self.open_troubles.keys().copied().collect::<Vec<_>>() {
            self.relief(lane, label);
        }
    }
}

fn signed_up_to(rng: &mut Rng, most: u64) -> i64 {
    let drawn = i64::try_from(rng.range(0..=most * 2)).unwrap_or(0);
    drawn - i64::try_from(most).unwrap_or(0)
}
