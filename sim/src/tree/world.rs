//! Runs a scenario of the broadcast tree.

mod rest;

use std::collections::BTreeMap;

use bytes::Bytes;
use skirmish_core::id::NodeId;
use skirmish_core::plant::Planted;
use skirmish_core::rng::Rng;

use super::message::{TreeMessage, TreeSeen};
use super::network::TreeNetwork;
use super::oracle::TreeOracle;
use super::primary::TreePrimary;
use super::scenario::{TreeAction, TreeScenario};
use super::stub::TreeStub;
use crate::draw::generator;
use crate::oracle::{Guarantee, Violation, broken};
use crate::world::RunOptions;

/// The room's primary, which outlives every run.
const ROOT: NodeId = NodeId(0);

/// Time between two reports of round trips by a node, in microseconds.
const REPORTS: u64 = 500_000;

/// Shortest and longest silence after which a node counts as dead, in microseconds.
const SILENCE: std::ops::RangeInclusive<u64> = 62_000..=70_000;

/// Most microseconds from the last fault to the rest of the plan.
const REST: u64 = 120_000_000;

/// Time between two looks for the rest of the plan, in microseconds.
const LOOK: u64 = 10_000;

/// Time of broadcasts that are measured at rest, in microseconds.
const CALM: u64 = 1_000_000;

/// Most microseconds from the last entry until all nodes have all entries.
const DELIVERY: u64 = 5_000_000;

/// Outcome of a run.
#[derive(Clone, Debug)]
pub struct TreeOutcome {
    /// Time of the first breach, in microseconds, and the breach.
    pub violation: Option<(u64, Violation)>,
    /// Time that passed in the run, in microseconds.
    pub micros: u64,
    /// Measured figures.
    pub stats: TreeStats,
    /// Everything that happened, with its time, if the run is traced.
    pub trace: Vec<(u64, String)>,
}

/// Figures of a run.
#[derive(Clone, Debug, Default)]
pub struct TreeStats {
    /// Nodes at rest, the root included.
    pub nodes: usize,
    /// Levels at rest.
    pub levels: usize,
    /// Mean number of children of the nodes that have any, at rest.
    pub fan_out: f64,
    /// Greatest weight of an inner node, the root excepted, as a multiple of their mean.
    pub skew: f64,
    /// Moves of each change of the plan.
    pub moves: Vec<usize>,
    /// Frames that the root sends for an entry, at rest.
    pub root_frames: f64,
    /// Frames that the busiest node sends for an entry, at rest.
    pub busiest_frames: f64,
    /// Microseconds until the last node has an entry, for each entry during faults.
    pub busy: Vec<u64>,
    /// The same at rest.
    pub calm: Vec<u64>,
    /// Entries in announced gaps of all nodes.
    pub skipped: u64,
    /// Microseconds from the last fault to the rest of the plan.
    pub rest: u64,
}

/// Event of a run.
#[derive(Clone, Debug)]
enum TreeEvent {
    Step(TreeAction),
    Arrive {
        from: NodeId,
        to: NodeId,
        message: TreeMessage,
    },
    /// A node notices that another one is dead or has left.
    Lose {
        node: NodeId,
        lost: NodeId,
    },
    Report(NodeId),
    Publish,
}

/// All state of a run.
struct TreeWorld<'a> {
    scenario: &'a TreeScenario,
    now: u64,
    queue: BTreeMap<(u64, u64), TreeEvent>,
    queued: u64,
    network: TreeNetwork,
    rng: Rng,
    primary: TreePrimary,
    /// Living nodes.
    stubs: BTreeMap<NodeId, TreeStub>,
    joined: u64,
    oracle: TreeOracle,
    /// Times of each entry: of its broadcast, and of the last delivery.
    entries: Vec<(u64, u64)>,
    publish_until: u64,
    planted: Planted,
    trace: Option<Vec<(u64, String)>>,
}

/// Runs a scenario.
#[must_use]
pub fn run(scenario: &TreeScenario, options: RunOptions) -> TreeOutcome {
    let mut world = TreeWorld::new(scenario, options);
    let mut stats = TreeStats::default();
    let result = world.play(&mut stats);
    TreeOutcome {
        violation: result.err().map(|violation| (world.now, violation)),
        micros: world.now,
        stats,
        trace: world.trace.unwrap_or_default(),
    }
}

impl<'a> TreeWorld<'a> {
    fn new(scenario: &'a TreeScenario, options: RunOptions) -> Self {
        let planted = options.plant.map_or_else(Planted::default, Planted::with);
        let mut rng = generator(scenario.seed, "tree world");
        let network = TreeNetwork::new(scenario.zones, scenario.hosts, scenario.far, Rng::new(rng.split()));
        let mut world = Self {
            scenario,
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            network,
            rng,
            primary: TreePrimary::new(ROOT, scenario.fan_out, planted),
            stubs: BTreeMap::from([(ROOT, TreeStub::new(ROOT, ROOT, scenario.window, planted))]),
            joined: 0,
            oracle: TreeOracle::default(),
            entries: Vec::new(),
            publish_until: scenario.end,
            planted,
            trace: options.traced.then(Vec::new),
        };
        for step in &scenario.steps {
            world.schedule(step.at, TreeEvent::Step(step.action));
        }
        world.schedule(0, TreeEvent::Publish);
        world
    }

    /// Plays faults, rest, and broadcasts at rest.
    fn play(&mut self, stats: &mut TreeStats) -> Result<(), Violation> {
        self.observe(ROOT, &TreeSeen::Started(0))?;
        self.run_until(self.scenario.end)?;
        let busy = self.entries.len();
        self.rest()?;
        stats.rest = self.now - self.scenario.end;
        self.shape(stats);
        let before: BTreeMap<NodeId, u64> =
            self.stubs.iter().map(|(node, stub)| (*node, stub.frames())).collect();
        self.publish_until = self.now + CALM;
        self.schedule(self.now, TreeEvent::Publish);
        self.run_until(self.publish_until)?;
        self.deliver()?;
        self.count(stats, busy, &before);
        Ok(())
    }

    fn run_until(&mut self, end: u64) -> Result<(), Violation> {
        while let Some(next) = self.queue.first_entry().filter(|next| next.key().0 <= end) {
            self.now = next.key().0;
            let event = next.remove();
            self.handle(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn schedule(&mut self, at: u64, event: TreeEvent) {
        self.queued += 1;
        self.queue.insert((at, self.queued), event);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push((self.now, text()));
        }
    }

    fn handle(&mut self, event: TreeEvent) -> Result<(), Violation> {
        match event {
            TreeEvent::Step(action) => self.act(action),
            TreeEvent::Publish => self.publish(),
            TreeEvent::Report(node) => {
                self.report(node);
                Ok(())
            }
            TreeEvent::Arrive { from, to, message } => self.arrive(from, to, message),
            TreeEvent::Lose { node, lost } => {
                let Some(stub) = self.stubs.get_mut(&node) else { return Ok(()) };
                stub.lose(lost);
                self.flush(node)?;
                if node == ROOT {
                    let moves = self.primary.lose(lost)?;
                    self.send_all(ROOT, moves);
                }
                Ok(())
            }
        }
    }

    // Workload and faults.

    fn publish(&mut self) -> Result<(), Violation> {
        if self.now >= self.publish_until {
            return Ok(());
        }
        let seq = self.entries.len() as u64 + 1;
        let frame = Bytes::from([self.scenario.seed.to_be_bytes(), seq.to_be_bytes()].concat());
        self.oracle.published(frame.clone());
        self.entries.push((self.now, self.now));
        if let Some(root) = self.stubs.get_mut(&ROOT) {
            root.publish(frame);
        }
        self.schedule(self.now + self.scenario.interval, TreeEvent::Publish);
        self.flush(ROOT)
    }

    /// Returns a living node other than the root.
    fn pick(&self, which: u64) -> Option<NodeId> {
        let below = self.stubs.len() as u64 - 1;
        let index = usize::try_from(which.checked_rem(below)?).ok()?;
        self.stubs.keys().copied().filter(|node| *node != ROOT).nth(index)
    }

    fn act(&mut self, action: TreeAction) -> Result<(), Violation> {
        self.note(|| format!("{action:?}"));
        let (TreeAction::Leave { node }
        | TreeAction::Die { node, .. }
        | TreeAction::DieHost { node }
        | TreeAction::Slow { node, .. }
        | TreeAction::Weigh { node, .. }) = action
        else {
            if let TreeAction::Join(weight) = action {
                self.joined += 1;
                let node = NodeId(self.joined);
                let mut stub = TreeStub::new(node, ROOT, self.scenario.window, self.planted);
                stub.join(weight);
                self.stubs.insert(node, stub);
                let first = self.rng.range(0..=REPORTS);
                self.schedule(self.now + first, TreeEvent::Report(node));
                self.flush(node)?;
            }
            if let TreeAction::Far { from, to, latency } = action {
                self.network.set_far(from, to, latency);
            }
            return Ok(());
        };
        let Some(node) = self.pick(node) else { return Ok(()) };
        match action {
            TreeAction::Leave { .. } => {
                if let Some(stub) = self.stubs.get_mut(&node) {
                    stub.leave();
                }
                self.flush(node)?;
            }
            TreeAction::Die { silent, .. } => self.die(node, silent),
            TreeAction::DieHost { .. } => {
                let host: Vec<NodeId> = self.stubs.keys().copied().collect();
                for other in host {
                    if other != ROOT && self.network.is_same_host(node, other) {
                        self.die(other, true);
                    }
                }
            }
            TreeAction::Slow { addition, .. } => self.network.set_slow(node, addition),
            TreeAction::Weigh { weight, .. } => self.send(node, ROOT, TreeMessage::Weight(weight)),
            TreeAction::Join(_) | TreeAction::Far { .. } => {}
        }
        Ok(())
    }

    fn die(&mut self, node: NodeId, silent: bool) {
        self.note(|| format!("{} dies", node.0));
        self.stubs.remove(&node);
        for other in self.stubs.keys().copied().collect::<Vec<_>>() {
            let silence = if silent { self.rng.range(SILENCE) } else { 0 };
            let at = self.now + silence + self.network.latency(node, other);
            self.schedule(at, TreeEvent::Lose { node: other, lost: node });
        }
    }

    /// Reports the round trips to the parent, the spare and a random node.
    fn report(&mut self, node: NodeId) {
        let Some(stub) = self.stubs.get(&node) else { return };
        let mut peers: Vec<NodeId> =
            stub.sources().into_iter().flat_map(|(parent, spare)| [Some(parent), spare]).flatten().collect();
        let probe = self.rng.u64();
        peers.extend(self.pick(probe));
        for peer in peers {
            let rtt = u32::try_from(2 * self.network.latency(node, peer)).unwrap_or(u32::MAX);
            self.send(node, ROOT, TreeMessage::Rtt { peer, rtt });
        }
        self.schedule(self.now + REPORTS, TreeEvent::Report(node));
    }

    // Messages.

    fn send(&mut self, from: NodeId, to: NodeId, message: TreeMessage) {
        let at = self.network.arrival(self.now, from, to);
        self.schedule(at, TreeEvent::Arrive { from, to, message });
    }

    fn send_all(&mut self, from: NodeId, messages: Vec<(NodeId, TreeMessage)>) {
        for (to, message) in messages {
            self.send(from, to, message);
        }
    }

    fn arrive(&mut self, from: NodeId, to: NodeId, message: TreeMessage) -> Result<(), Violation> {
        if !matches!(message, TreeMessage::Entry { .. } | TreeMessage::Rtt { .. }) {
            self.note(|| format!("{} -> {}: {message:?}", from.0, to.0));
        }
        if !self.stubs.contains_key(&to) {
            // Nothing answers there.
            let at = self.now + SILENCE.end();
            self.schedule(at, TreeEvent::Lose { node: from, lost: to });
            return Ok(());
        }
        if to == ROOT && self.stubs.contains_key(&from) {
            let rtt = u32::try_from(2 * self.network.latency(from, ROOT)).unwrap_or(u32::MAX);
            let answers = self.primary.handle(from, &message, rtt)?;
            self.send_all(ROOT, answers);
        }
        if let Some(stub) = self.stubs.get_mut(&to) {
            stub.handle(from, message);
        }
        self.flush(to)
    }

    /// Sends the messages of a node, and observes its acts.
    fn flush(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(stub) = self.stubs.get_mut(&node) else { return Ok(()) };
        let (sent, seen) = (stub.take_sent(), stub.take_seen());
        self.send_all(node, sent);
        for act in &seen {
            self.observe(node, act)?;
        }
        Ok(())
    }

    fn observe(&mut self, node: NodeId, seen: &TreeSeen) -> Result<(), Violation> {
        self.oracle.observe(node, seen)?;
        match seen {
            TreeSeen::Delivered(seq, _) => {
                let index = usize::try_from(*seq - 1).unwrap_or(usize::MAX);
                if let Some((_, last)) = self.entries.get_mut(index) {
                    *last = self.now;
                }
            }
            TreeSeen::Started(_) | TreeSeen::Announced(..) => self.note(|| format!("{}: {seen:?}", node.0)),
            TreeSeen::Refed => self.look_for_circle(node)?,
            TreeSeen::Gone => {
                self.die(node, false);
            }
        }
        Ok(())
    }

    /// Breaks L1 if only nodes that a node feeds itself feed that node.
    fn look_for_circle(&self, node: NodeId) -> Result<(), Violation> {
        let mut above: Vec<NodeId> = Vec::new();
        let mut ahead = vec![node];
        while let Some(at) = ahead.pop() {
            // Entries come from the root; from a dead node or without a parent, none come until others notice.
            let Some(stub) = self.stubs.get(&at).filter(|_| at != ROOT) else { return Ok(()) };
            let before = ahead.len();
            ahead.extend(stub.parents().filter(|parent| !above.contains(parent)));
            if ahead.len() == before && stub.parents().next().is_none() {
                return Ok(());
            }
            above.push(at);
        }
        above.sort_unstable();
        above.dedup();
        let names: Vec<String> = above.iter().map(|node| node.0.to_string()).collect();
        broken(
            Guarantee::Liveness,
            format_args!("the nodes {} feed each other in a circle", names.join(", ")),
        )
    }
}
