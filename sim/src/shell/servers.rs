//! Hosts of the servers and of the registry, and the actions on them.

use madsim::time::{Duration, sleep};
use skirmish_core::id::NodeId;
use skirmish_core::matchmaking::QueueConfig;
use skirmish_core::rng::Rng;
use skirmish_io::clock::Clock;
use skirmish_io::config::{Config, Matchmaking, QualityRules, QueueSection, RateLimit, RatingWindow};
use skirmish_io::registry::{NodeRegistry, Remote};
use skirmish_io::server::{ApplicationMessage, Handle, Server};
use tokio::sync::oneshot;

use super::actions::{Cut, RegistryAction, ServerAction};
use super::etcd;
use super::hosts::Hosts;
use super::ledger::{AFTERMATH, at};
use super::plan::RunPlan;
use super::player::{keys, link_address, player_address};
use super::registry_link::RegistryTask;
use crate::history::Actor;
use crate::scenario::Shape;

/// Most requests to the registry, and most watches, that a server has under way.
const REQUESTS: usize = 256;
const WATCHES: usize = 64;

impl Hosts {
    pub(super) async fn act_on_server(&mut self, server: usize, action: ServerAction) {
        let host = self.servers[server].id();
        match action {
            ServerAction::Start => self.start_server(server).await,
            ServerAction::Kill => self.kill_server(server).await,
            ServerAction::Drain => {
                if let Some(stop) = self.shared.lock().servers[server].stop.take() {
                    // A server that has already ended ignores the order.
                    let _ = stop.send(());
                }
            }
            ServerAction::Pause => {
                self.shared.lock().servers[server].paused = true;
                self.runtime.pause(host);
            }
            ServerAction::Resume => self.resume_server(server),
            ServerAction::Cut(cut) => {
                self.backlog_all();
                let cut_ways = &mut self.shared.lock().servers[server].cut;
                if cut.is_up() {
                    cut_ways.0 = true;
                    self.net.clog_node_in(host);
                }
                if cut.is_down() {
                    cut_ways.1 = true;
                    self.net.clog_node_out(host);
                }
            }
            ServerAction::Mend => self.mend_server(server),
            ServerAction::Skew(skew_ms) => {
                let process = &mut self.shared.lock().servers[server];
                process.skew_ms = skew_ms;
                process.clock.iter().for_each(|clock| clock.set_skew_ms(skew_ms));
            }
            ServerAction::CutRegistry(cut) => self.cut_registry(server, cut),
            ServerAction::HealRegistry => self.heal_registry(server),
            ServerAction::LagWatches(millis) => {
                self.shared.lock().registry_state.iter().for_each(|state| state.lag(server, millis));
            }
            ServerAction::BlurRegistry(count) => {
                self.shared.lock().registry_state.iter().for_each(|state| state.blur(server, count));
            }
        }
    }

    pub(super) async fn act_on_registry(&mut self, action: RegistryAction) {
        let Some(host) = self.registry.as_ref().map(madsim::runtime::NodeHandle::id) else { return };
        let Some(registry_state) = self.shared.lock().registry_state.clone() else { return };
        match action {
            RegistryAction::Start => self.start_registry().await,
            RegistryAction::Kill => {
                self.runtime.kill(host);
                let mut ledger = self.shared.lock();
                (ledger.registry.running, ledger.registry.paused) = (false, false);
                ledger.coverage.hit("registry restarted");
            }
            RegistryAction::Pause => {
                self.runtime.pause(host);
                let mut ledger = self.shared.lock();
                ledger.registry.paused = true;
                ledger.coverage.hit("registry paused");
            }
            RegistryAction::Resume => self.resume_registry(),
            RegistryAction::Cut => {
                self.shared.lock().registry.cut = true;
                self.net.clog_node(host);
            }
            RegistryAction::Mend => self.mend_registry(),
            RegistryAction::Depose => {
                self.shared.lock().coverage.hit("registry leader lost");
                registry_state.depose();
            }
            RegistryAction::Elect => registry_state.elect(),
            RegistryAction::Compact(keep) => {
                let mut ledger = self.shared.lock();
                if !ledger.registry.is_troubled() {
                    ledger.coverage.hit("registry compacted");
                    registry_state.compact(keep);
                }
            }
        }
    }

    // Links.

    pub(super) fn cut_nodes(&self, one: usize, other: usize, cut: Cut) {
        let (first, second) = (self.servers[one].id(), self.servers[other].id());
        if cut.is_up() {
            self.net.clog_link(first, second);
        }
        if cut.is_down() {
            self.net.clog_link(second, first);
        }
        let mut ledger = self.shared.lock();
        ledger.coverage.hit("nodes cut off");
        ledger.apart.insert((one.min(other), one.max(other)));
    }

    pub(super) fn heal_nodes(&self, one: usize, other: usize) {
        let (first, second) = (self.servers[one].id(), self.servers[other].id());
        self.net.unclog_link(first, second);
        self.net.unclog_link(second, first);
        self.shared.lock().apart.remove(&(one.min(other), one.max(other)));
    }

    fn cut_registry(&self, server: usize, cut: Cut) {
        let Some(registry) = &self.registry else { return };
        let host = self.servers[server].id();
        if cut.is_up() {
            self.net.clog_link(host, registry.id());
        }
        if cut.is_down() {
            self.net.clog_link(registry.id(), host);
        }
        let mut ledger = self.shared.lock();
        ledger.coverage.hit("registry cut off");
        ledger.servers[server].off_registry = true;
    }

    fn heal_registry(&self, server: usize) {
        let Some(registry) = &self.registry else { return };
        let host = self.servers[server].id();
        self.net.unclog_link(host, registry.id());
        self.net.unclog_link(registry.id(), host);
        self.shared.lock().servers[server].off_registry = false;
    }

    pub(super) fn mend_server(&self, server: usize) {
        self.shared.lock().servers[server].cut = (false, false);
        self.net.unclog_node(self.servers[server].id());
        self.backlog_all();
    }

    fn mend_registry(&self) {
        if let Some(registry) = &self.registry {
            self.shared.lock().registry.cut = false;
            self.net.unclog_node(registry.id());
        }
    }

    // Processes.

    pub(super) fn resume_server(&self, server: usize) {
        if std::mem::take(&mut self.shared.lock().servers[server].paused) {
            self.runtime.resume(self.servers[server].id());
        }
    }

    fn resume_registry(&self) {
        if let Some(registry) = &self.registry
            && std::mem::take(&mut self.shared.lock().registry.paused)
        {
            self.runtime.resume(registry.id());
        }
    }

    /// Ends all faults of the registry, but does not start the process.
    pub(super) fn calm_registry(&self) {
        self.mend_registry();
        self.resume_registry();
        (0..self.servers.len()).for_each(|server| self.heal_registry(server));
        let registry_state = self.shared.lock().registry_state.clone();
        registry_state.iter().for_each(super::registry_state::RegistryState::calm);
    }

    /// Starts the registry, if it has a host of its own, unless it runs.
    pub(super) async fn start_registry(&mut self) {
        let registry_state = {
            let mut ledger = self.shared.lock();
            let runs = std::mem::replace(&mut ledger.registry.running, true);
            ledger.registry.paused &= runs;
            ledger.registry_state.clone().filter(|_| !runs)
        };
        let (Some(registry_state), Some(host)) = (registry_state, &self.registry) else { return };
        self.stop_host(host).await;
        registry_state.restart();
        self.spawn(host, etcd::serve(registry_state, self.shared.clone()));
    }

    /// Starts every server that does not run.
    pub(super) async fn start_servers(&mut self) {
        for server in 0..self.servers.len() {
            self.start_server(server).await;
        }
    }

    /// Starts a server, unless it runs.
    pub(super) async fn start_server(&mut self, server: usize) {
        let running = {
            let ledger = self.shared.lock();
            ledger.servers[server].handle.is_some()
        };
        if running {
            return;
        }
        // The kill is needed even after an orderly end, since the sockets would live on.
        self.stop_host(&self.servers[server]).await;
        let (stop, stopped) = oneshot::channel();
        let clock = Clock::drifting(self.plan.drifts.servers[server]);
        let (life, remote) = {
            let mut ledger = self.shared.lock();
            let remote = ledger.registry_state.is_some();
            if !remote {
                ledger.unsettled_until = at() + AFTERMATH;
            }
            let process = &mut ledger.servers[server];
            process.life += 1;
            process.paused = false;
            (process.stop, process.clock) = (Some(stop), Some(clock.clone()));
            clock.set_skew_ms(process.skew_ms);
            (process.life, remote)
        };
        // Epochs count from the incarnation if the registry is in the process: those of one life
        // must not occur in the next.
        let incarnation = u64::from(life) << 32 | server as u64;
        let mut builder = Server::builder(config(&self.plan, server))
            .keys(keys(&self.secret))
            .seed(self.rng.split())
            .incarnation(incarnation)
            .clock(clock.clone())
            .fallback(echo)
            .plant(self.planted);
        let link = remote.then(|| {
            let (remote, backend) = Remote::new(REQUESTS, WATCHES);
            let rng = Rng::new(self.rng.split());
            (
                remote,
                RegistryTask::new(
                    backend,
                    self.shared.clone(),
                    (server, NodeId(incarnation)),
                    clock,
                    rng,
                    &self.plan.shape,
                ),
            )
        });
        let shared = self.shared.clone();
        self.spawn(&self.servers[server], async move {
            if let Some((remote, task)) = link {
                builder = builder.registry(NodeRegistry::Remote(remote));
                tokio::spawn(task.run());
            }
            let bound = builder.bind().await.expect("the address is free and the configuration good");
            let handle = bound.handle();
            let id = handle.inspect(|node| node.id());
            {
                let mut ledger = shared.lock();
                ledger.note(Actor::Node(server), format_args!("starts as {id}"));
                ledger.servers[server].handle = Some(handle);
            }
            bound.run(async { drop(stopped.await) }).await;
            let mut ledger = shared.lock();
            ledger.note(Actor::Node(server), format_args!("has ended"));
            ledger.retire(server);
        });
    }

    /// Kills a server's process.
    pub(super) async fn kill_server(&mut self, server: usize) {
        self.runtime.kill(self.servers[server].id());
        {
            let mut ledger = self.shared.lock();
            ledger.coverage.hit("node crash");
            ledger.retire(server);
        }
        sleep(Duration::from_micros(500)).await;
    }

    /// Kills the primary of a room.
    pub(super) async fn kill_primary(&mut self, room: u32) {
        let primary = {
            let ledger = self.shared.lock();
            let name = ledger.room_name(room);
            let leads = |handle: &Handle| handle.inspect(|node| node.leads(&name).is_some());
            ledger.servers.iter().position(|server| server.handle.as_ref().is_some_and(leads))
        };
        if let Some(server) = primary {
            self.kill_server(server).await;
        }
    }
}

/// Sends application messages back.
fn echo(message: ApplicationMessage, server: &Handle) {
    server.send(message.conn, &message.type_url, &message.payload);
}

/// Returns a server's configuration.
pub(super) fn config(plan: &RunPlan, server: usize) -> Config {
    let shape = &plan.shape;
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let rate = |per_second, burst| RateLimit { per_second: small(per_second), burst: small(burst) };
    let mut config = Config::default();
    config.listen.address = player_address(server);
    config.admin.enabled = false;
    config.drain.timeout = Duration::from_millis(shape.linger_ms * 2);
    config.connections.handshake_timeout = Duration::from_millis(shape.handshake_ms);
    config.connections.linger = Duration::from_millis(shape.linger_ms);
    config.heartbeat.interval = Duration::from_millis(shape.heartbeat_ms);
    config.rates.reliable = rate(shape.reliable_rate, shape.reliable_burst);
    config.rates.latest = rate(shape.latest_rate, shape.latest_burst);
    config.rates.control = rate(100_000, 100_000);
    config.sessions.ttl = Duration::from_millis(shape.session_ttl_ms);
    config.rooms.window_entries = size(shape.window_entries);
    config.rooms.flush_interval = Duration::from_millis(shape.flush_ms);
    config.rooms.tombstone_horizon = Duration::from_millis(shape.tombstone_ms);
    config.frames.compress_from = size(shape.compress_from);
    config.matchmaking = matchmaking(shape);
    if shape.has_remote_registry() {
        let cluster = &mut config.cluster;
        cluster.node_ttl = Duration::from_secs(shape.node_lease_s);
        cluster.room_ttl = Duration::from_secs(shape.room_lease_s);
    }
    if plan.servers() > 1 {
        let cluster = &mut config.cluster;
        cluster.insecure = true;
        cluster.link.address = Some(link_address(server));
        cluster.heartbeat.interval = Duration::from_millis(shape.link_heartbeat_ms);
        cluster.replicas = u32::try_from(shape.replicas).unwrap_or(1);
    }
    config
}

/// Returns the machine world's settings of matchmaking as a section of a configuration.
fn matchmaking(shape: &Shape) -> Matchmaking {
    let core = shape.matchmaking();
    let queue = |queue: &QueueConfig| {
        let QueueConfig { rating, quality, backfill, time_out, interval, .. } = *queue;
        QueueSection {
            rating: RatingWindow { start: rating.start, per_second: rating.per_second, most: rating.most },
            quality: QualityRules {
                floor: quality.floor,
                worst_spread: quality.worst_spread,
                worst_difference: quality.worst_difference,
            },
            backfill,
            time_out,
            interval,
            ..QueueSection::new(queue.mode.as_str(), queue.teams, queue.team_size, queue.regions[0].as_str())
        }
    };
    Matchmaking {
        trust_rating: core.trust_rating,
        join_window: core.join_window,
        party_grace: core.party_grace,
        absence_delay: core.absence_delay,
        absence_grace: Some(core.absence_grace),
        sweep_interval: core.sweep_interval,
        queues: core.queues.iter().map(queue).collect(),
        ..Matchmaking::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::plan::draw;

    #[test]
    fn a_configuration_has_the_queues_of_its_shape() {
        let plans = (0..100).map(draw).filter(|plan| plan.shape.queues > 0);
        for plan in plans {
            let (core, wanted) = (config(&plan, 0).core().matchmaking, plan.shape.matchmaking());
            assert_eq!(core.queues, wanted.queues);
            assert_eq!(
                (core.trust_rating, core.join_window, core.party_grace, core.sweep_interval),
                (wanted.trust_rating, wanted.join_window, wanted.party_grace, wanted.sweep_interval)
            );
        }
    }
}
