//! The hosts, and the actions on them.
//!
//! The simulated runtime has habits that real hosts do not have. Their consequences:
//! * A kill closes the sockets of the process in an orderly way and runs its destructors. A host
//!   that vanishes is cut off and paused first, until every peer has given it up.
//! * A restart does not reset the network: the process is always killed before.
//! * The old life of a process may execute a few more steps: a new one starts later.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use madsim::net::NetSim;
use madsim::runtime::{Handle as Runtime, NodeHandle};
use madsim::time::{Duration, sleep};
use skirmish_core::plant::{Plant, Planted};
use skirmish_core::rng::{Rng, Seed};

use super::actions::{ClientAction, ShellAction};
use super::etcd::REGISTRY;
use super::ledger::{AFTERMATH, SharedLedger, at};
use super::plan::RunPlan;
use super::player::{player_name, server_host};
use crate::draw::generator;
use crate::history::Actor;
use crate::oracle::Verdict;
use crate::scenario::Shape;

/// Interval of checks of all clients and servers, in microseconds.
const CHECK_INTERVAL: u64 = 100_000;

/// Latency after the last fault, in microseconds.
const CALM_US: u64 = 500;

/// Hosts of a run.
pub(super) struct Hosts {
    pub(super) plan: Arc<RunPlan>,
    pub(super) shared: SharedLedger,
    pub(super) rng: Rng,
    pub(super) runtime: Runtime,
    pub(super) net: Arc<NetSim>,
    pub(super) servers: Vec<NodeHandle>,
    /// Host of the registry, if it has one of its own.
    pub(super) registry: Option<NodeHandle>,
    pub(super) clients: Vec<NodeHandle>,
    pub(super) planted: Planted,
    pub(super) secret: Seed,
    /// Count of tickets that had timed out beside another one when all players began to search for
    /// the same match.
    pub(super) passed_over: Option<u64>,
    next_check: u64,
    /// Actions that follow from events of the run, by time and order.
    later: BTreeMap<(u64, u64), ShellAction>,
    scheduled: u64,
}

impl Hosts {
    /// Creates the hosts, without processes.
    pub(super) fn new(plan: Arc<RunPlan>, shared: SharedLedger, plant: Option<Plant>) -> Self {
        let runtime = Runtime::current();
        let host = |name: String, ip: [u8; 4]| {
            runtime.create_node().name(name).ip(IpAddr::V4(Ipv4Addr::from(ip))).build()
        };
        let servers =
            (0..plan.servers()).map(|server| host(format!("server-{server}"), server_host(server))).collect();
        let registry = plan.shape.has_remote_registry().then(|| host("registry".to_owned(), REGISTRY.0));
        let clients = (0..plan.clients())
            .map(|client| {
                host(format!("client-{client}"), [10, 0, 1, u8::try_from(client + 1).unwrap_or(255)])
            })
            .collect();
        let mut rng = generator(plan.seed, "stage");
        let secret = rng.split();
        Self {
            plan,
            shared,
            rng,
            servers,
            registry,
            clients,
            runtime,
            net: NetSim::current(),
            planted: plant.map_or_else(Planted::default, Planted::with),
            secret,
            passed_over: None,
            next_check: CHECK_INTERVAL,
            later: BTreeMap::new(),
            scheduled: 0,
        }
    }

    /// Runs both phases: safety under faults, then liveness without faults.
    pub(super) async fn live(mut self) -> Verdict {
        let Shape { latency_us, jitter_us, .. } = self.plan.shape;
        self.weather(latency_us, latency_us + jitter_us, 0);
        self.start_registry().await;
        self.start_servers().await;
        self.pass_until(1_000).await?;
        let plan = Arc::clone(&self.plan);
        for &(at, act) in &plan.steps {
            self.pass_until(at).await?;
            self.act(act).await;
        }
        self.pass_until(plan.shape.chaos_ms * 1_000).await?;
        self.heal().await
    }

    /// Lets time pass up to a moment, with the checks at their intervals.
    pub(super) async fn pass_until(&mut self, end: u64) -> Verdict {
        loop {
            let now = at();
            let later = self.later.keys().next().map_or(u64::MAX, |(at, _)| *at);
            let next = end.min(self.next_check).min(later);
            if next > now {
                sleep(Duration::from_micros(next - now)).await;
            }
            self.act_later().await;
            let mut ledger = self.shared.lock();
            if at() >= self.next_check {
                self.next_check = at() + CHECK_INTERVAL;
                let shape = &self.plan.shape;
                // The way to another server and back is as long again.
                let ways = if self.plan.servers() > 1 { 24 } else { 8 };
                let slowest = shape.latency_us + shape.jitter_us;
                ledger.check(shape.flush_ms * 2_000 + slowest * ways + 1_000_000);
            }
            if let Some(violation) = ledger.violation.clone() {
                return Err(violation);
            }
            if at() >= end {
                return Ok(());
            }
        }
    }

    /// Plans an action that follows from an event of the run.
    pub(super) fn schedule(&mut self, at: u64, act: ShellAction) {
        self.scheduled += 1;
        self.later.insert((at, self.scheduled), act);
    }

    async fn act_later(&mut self) {
        self.kill_after_last_matches();
        while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= at()) {
            let act = entry.remove();
            self.act(act).await;
        }
    }

    async fn act(&mut self, act: ShellAction) {
        match act {
            ShellAction::Client(client, ClientAction::Do(command)) => {
                // A client without a process ignores commands.
                if let Some(commands) = &self.shared.lock().clients[client].commands {
                    let _ = commands.send(command);
                }
            }
            ShellAction::Client(client, action) => {
                self.shared.lock().note(Actor::Client(client), format_args!("# {action:?}"));
                self.act_on_client(client, action).await;
            }
            ShellAction::Server(server, action) => {
                self.shared.lock().note(Actor::Node(server), format_args!("# {action:?}"));
                self.act_on_server(server, action).await;
            }
            ShellAction::Registry(action) => {
                self.shared.lock().note(Actor::Registry, format_args!("# {action:?}"));
                self.act_on_registry(action).await;
            }
            other => {
                self.shared.lock().note(Actor::World, format_args!("# {other:?}"));
                self.act_on_all(other).await;
            }
        }
    }

    async fn act_on_all(&mut self, act: ShellAction) {
        match act {
            ShellAction::CutNodes(one, other, cut) => self.cut_nodes(one, other, cut),
            ShellAction::HealNodes(one, other) => self.heal_nodes(one, other),
            ShellAction::KillPrimary(room) => self.kill_primary(room).await,
            ShellAction::FailMatcher { mode, how, millis } => self.fail_matcher(mode, how, millis),
            ShellAction::StartAll => self.start_servers().await,
            ShellAction::Kick { player } => self.kick(player),
            ShellAction::Weather { low, high, loss } => {
                self.backlog_all();
                self.weather(low, high, loss);
                let usual = low == self.plan.shape.latency_us && loss == 0;
                self.shared.lock().stormy = !usual;
            }
            ShellAction::Client(..) | ShellAction::Server(..) | ShellAction::Registry(_) => {}
        }
    }

    fn kick(&self, player: usize) {
        let handles: Vec<_> = {
            let mut ledger = self.shared.lock();
            ledger.unsettled_until = at() + AFTERMATH;
            ledger.servers.iter().map(|server| server.handle.clone().filter(|_| !server.paused)).collect()
        };
        for (server, handle) in handles.into_iter().enumerate() {
            let kicked = handle.is_some_and(|handle| handle.kick(player_name(player).as_str()));
            self.shared.lock().note(Actor::Node(server), format_args!("kicked: {kicked}"));
        }
    }

    /// Ends every fault.
    pub(super) fn calm(&mut self) {
        // Data that bad links have held back arrives packet by packet, each with the packet's
        // latency. This time must not count against the bound.
        self.backlog_all();
        self.weather(CALM_US, CALM_US * 2, 0);
        self.shared.lock().stormy = false;
        self.later.clear();
        self.calm_registry();
        for server in 0..self.servers.len() {
            self.mend_server(server);
            self.resume_server(server);
            for other in 0..server {
                self.heal_nodes(other, server);
            }
        }
        for client in 0..self.clients.len() {
            self.mend_client(client);
            self.resume_client(client);
            let process = &mut self.shared.lock().clients[client];
            if std::mem::take(&mut process.dawdles) > 0 {
                process.late_until = at() + AFTERMATH;
            }
        }
    }

    pub(super) fn backlog_all(&self) {
        self.shared.lock().clients.iter_mut().for_each(|process| process.backlogged = true);
    }

    fn weather(&self, low: u64, high: u64, loss: u32) {
        self.net.update_config(|config| {
            config.send_latency = Duration::from_micros(low)..Duration::from_micros(high);
            config.packet_loss_rate = f64::from(loss) / 1_000.0;
        });
    }

    /// Prepares a host for a new process.
    pub(super) async fn stop_host(&self, host: &NodeHandle) {
        self.runtime.kill(host.id());
        sleep(Duration::from_micros(500)).await;
        self.runtime.restart(host.id());
    }

    pub(super) fn spawn(&self, host: &NodeHandle, life: impl Future<Output = ()> + Send + 'static) {
        // A restarted node is reached by its new handle only.
        if let Some(host) = self.runtime.get_node(host.id()) {
            drop(host.spawn(life));
        }
    }
}
