//! The machine world: one node and its clients as bare machines, on a network and on
//! clocks that obey the scenario.
//!
//! Every machine is driven exactly by the contract of the core: one input, outputs
//! drained, frames taken as far as the connection takes them, and no call again before
//! another input or the very moment of the deadline that the machine named.

mod client;
mod heal;
mod node;
mod steps;
mod traffic;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use skirmish_core::plant::{Plant, Planted};
use skirmish_core::rng::Rng;

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::draw::generator;
use crate::history::{History, Lane, Trouble};
use crate::network::{Conn, Link, Way};
use crate::oracle::{Guarantee, Observation, Oracles, Verdict, Violation};
use crate::scenario::Scenario;
use client::ClientProcess;
use node::NodeProcess;

/// How often the clients that nothing holds back are looked at, in microseconds.
const LOOK_EVERY: u64 = 100_000;

/// Most events of a run: far more than any scenario needs.
const MAX_EVENTS: u64 = 5_000_000;

/// Most calls of a machine at one moment of the world, and most rounds of draining it.
const MAX_ROUNDS: u32 = 10_000;

/// How a run is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Whether texts and pictures are kept.
    pub traced: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Hash of everything that happened.
    pub hash: u64,
    /// The first guarantee that was broken, and when.
    pub violation: Option<(u64, Violation)>,
    /// Length of the run in microseconds of the world's time.
    pub micros: u64,
    /// What was visited.
    pub coverage: Coverage,
    /// What happened, as far as it was kept.
    pub history: History,
}

/// Runs a scenario in the machine world.
#[must_use]
pub fn run(scenario: &Scenario, options: Options) -> Outcome {
    let mut world = World::new(scenario, options);
    let result = world.live();
    let violation = result.err().map(|violation| {
        world.history.record(world.at, Lane::World, format_args!("VIOLATION {violation}"));
        (world.at, violation)
    });
    world.retire_node_stats();
    world.end_troubles();
    Outcome {
        hash: world.history.hash(),
        violation,
        micros: world.at,
        coverage: world.coverage,
        history: world.history,
    }
}

/// Something that will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// The first flight of a connection's pipe may arrive.
    Arrive(u64, Way),
    /// A connection's upgrade has been checked.
    Upgrade(u64),
    /// A client goes on after a pause.
    ClientResumes(usize),
    /// A client reads again.
    ClientReads(usize),
    /// The node goes on after a pause.
    NodeResumes(u32),
    /// The node stops after its drain.
    NodeStops(u32),
    /// The node is started again.
    NodeStarts,
    /// The clients that nothing holds back are looked at.
    Look,
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Step(usize),
    Queued,
    NodeTimeout,
    ClientTimeout(usize),
}

struct World<'a> {
    scenario: &'a Scenario,
    at: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    next_step: usize,
    node: NodeProcess,
    clients: Vec<ClientProcess>,
    links: Vec<Link>,
    conns: BTreeMap<u64, Conn>,
    next_conn: u64,
    next_serial: u64,
    /// After the last fault: its moment.
    healed: Option<u64>,
    /// Clients that learn only after the last fault that they were taken over or kicked:
    /// their applications connect again.
    recalled: Vec<usize>,
    rng: Rng,
    history: History,
    open_troubles: BTreeMap<(Lane, &'static str), u64>,
    oracles: Oracles,
    coverage: Coverage,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, options: Options) -> Self {
        let shape = &scenario.shape;
        let planted = options.plant.map_or_else(Planted::default, Planted::with);
        let mut rng = generator(scenario.seed, "world");
        let mut clock = || {
            let drift = signed_up_to(&mut rng, shape.drift_ppm.min(500_000));
            Clock::new(0, drift, signed_up_to(&mut rng, shape.skew_ms))
        };
        let node_clock = clock();
        let count = shape.clients.clamp(1, 64);
        let clocks: Vec<Clock> = (0..count).map(|_| clock()).collect();
        let node = NodeProcess::new(shape, node_clock, rng.split(), planted);
        let mut clients = Vec::new();
        let mut links = Vec::new();
        for (number, clock) in clocks.into_iter().enumerate() {
            clients.push(ClientProcess::new(shape, number, clock, rng.split(), planted));
            links.push(Link::new(shape.latency_us, shape.jitter_us, Rng::new(rng.split())));
        }
        Self {
            scenario,
            at: 0,
            order: 0,
            queue: BinaryHeap::new(),
            next_step: 0,
            node,
            clients,
            links,
            conns: BTreeMap::new(),
            next_conn: 1,
            next_serial: 1,
            healed: None,
            recalled: Vec::new(),
            rng,
            history: History::new(options.traced),
            open_troubles: BTreeMap::new(),
            oracles: Oracles::default(),
            coverage: Coverage::default(),
        }
    }

    /// Both phases: safety under faults, then liveness without.
    fn live(&mut self) -> Verdict {
        self.schedule(LOOK_EVERY, Happening::Look);
        let last_step = self.scenario.steps.last().map_or(0, |step| step.at);
        let end = (self.scenario.shape.chaos_ms * 1_000).max(last_step);
        self.run_until(end)?;
        self.heal()
    }

    /// Lets everything happen that happens up to a moment.
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
                Next::Step(index) => self.step(index)?,
                Next::Queued => {
                    if let Some(Reverse((_, _, happening))) = self.queue.pop() {
                        self.happen(happening)?;
                    }
                }
                Next::NodeTimeout => self.node_timeout()?,
                Next::ClientTimeout(client) => self.client_timeout(client)?,
            }
        }
        self.at = self.at.max(end);
        Ok(())
    }

    /// What happens next. At the same moment steps come before arrivals, and arrivals
    /// before timeouts.
    fn next(&self) -> Option<(u64, Next)> {
        let mut best: Option<(u64, Next)> = None;
        let mut offer = |at: Option<u64>, next: Next| {
            if let Some(at) = at
                && best.is_none_or(|(earliest, _)| at < earliest)
            {
                best = Some((at, next));
            }
        };
        let step = self.scenario.steps.get(self.next_step).filter(|_| self.healed.is_none());
        offer(step.map(|step| step.at), Next::Step(self.next_step));
        offer(self.queue.peek().map(|Reverse((at, _, _))| *at), Next::Queued);
        offer(self.node.wakes(), Next::NodeTimeout);
        for (number, client) in self.clients.iter().enumerate() {
            offer(client.wakes(), Next::ClientTimeout(number));
        }
        best
    }

    fn happen(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Arrive(conn, way) => self.arrive(conn, way),
            Happening::Upgrade(conn) => self.upgrade(conn),
            Happening::ClientResumes(client) => self.resume_client(client),
            Happening::ClientReads(client) => self.unstall(client),
            Happening::NodeResumes(life) => self.resume_node(life),
            Happening::NodeStops(life) => self.stop_drained(life),
            Happening::NodeStarts => self.start_node(),
            Happening::Look => self.look(),
        }
    }

    fn schedule(&mut self, at: u64, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at.max(self.at), self.order, happening)));
    }

    fn observe(&mut self, seen: Observation) -> Verdict {
        self.oracles.observe(self.at, &seen)
    }

    fn broken(&self, guarantee: Guarantee, what: impl Into<String>) -> Verdict {
        Err(Violation { guarantee, what: what.into() })
    }

    /// Looks whether anybody waits for what others have although nothing holds it back.
    fn look(&mut self) -> Verdict {
        self.schedule(self.at + LOOK_EVERY, Happening::Look);
        let troubled_node = self.node.is_troubled();
        let mut free = Vec::new();
        for number in 0..self.clients.len() {
            let troubled = troubled_node || self.is_held_back(number);
            let client = &mut self.clients[number];
            if troubled {
                client.troubled = self.at;
            } else {
                free.push((client.who(), client.troubled));
            }
        }
        let shape = &self.scenario.shape;
        let slowest = self.links.iter().map(|link| link.latency + link.jitter).max().unwrap_or(0);
        let within = shape.flush_ms * 2_000 + slowest * 8 + 1_000_000;
        self.oracles.look(self.at, &free, within)
    }

    /// Something begins to be wrong somewhere; for the picture.
    fn trouble(&mut self, lane: Lane, label: &'static str) {
        self.open_troubles.entry((lane, label)).or_insert(self.at);
    }

    /// It is over.
    fn relief(&mut self, lane: Lane, label: &'static str) {
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
