//! The hosts, and what happens to them.
//!
//! The simulated runtime has habits that real hosts do not have; what follows from them:
//! * A kill closes the sockets of the process in an orderly way and runs its destructors.
//!   A host that vanishes is cut off and paused first, until everybody has given it up.
//! * A restart does not reset the network: the process is always killed before.
//! * The old life of a process may take a few more steps: a new one starts later.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use madsim::net::NetSim;
use madsim::runtime::{Handle as Runtime, NodeHandle};
use madsim::time::{Duration, sleep};
use skirmish_core::plant::{Plant, Planted};
use skirmish_core::rng::{Rng, Seed};
use skirmish_io::client::{Client, Credentials};
use skirmish_io::clock::Clock;
use skirmish_io::config::{Config, Rate};
use skirmish_io::server::{Handle, Message, Server};
use tokio::sync::{mpsc, oneshot};

use super::dial::Dialer;
use super::ledger::{AFTERMATH, Ledger, Shared, at};
use super::plan::{Act, Cut, Plan, ToClient, ToServer};
use super::player::{self, SERVER, keys, player_name, token};
use crate::draw::generator;
use crate::history::Lane;
use crate::oracle::Verdict;
use crate::scenario::Shape;

/// How often everybody is looked at, in microseconds.
const LOOK_EVERY: u64 = 100_000;

/// Latency after the last fault, in microseconds.
const CALM_US: u64 = 500;

/// The hosts of a run.
pub(super) struct Stage {
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Shared,
    pub(super) rng: Rng,
    runtime: Runtime,
    net: Arc<NetSim>,
    server: NodeHandle,
    hosts: Vec<NodeHandle>,
    planted: Planted,
    secret: Seed,
    next_look: u64,
}

impl Stage {
    /// The hosts, with nothing running on them.
    pub(super) fn new(plan: Arc<Plan>, shared: Shared, plant: Option<Plant>) -> Self {
        let runtime = Runtime::current();
        let host = |name: String, ip: [u8; 4]| {
            runtime.create_node().name(name).ip(IpAddr::V4(Ipv4Addr::from(ip))).build()
        };
        let server = host("server".to_owned(), [10, 0, 0, 1]);
        let hosts = (0..plan.clients())
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
            server,
            hosts,
            runtime,
            net: NetSim::current(),
            planted: plant.map_or_else(Planted::default, Planted::with),
            secret,
            next_look: LOOK_EVERY,
        }
    }

    /// Both phases: safety under faults, then liveness without.
    pub(super) async fn live(mut self) -> Verdict {
        let Shape { latency_us, jitter_us, .. } = self.plan.shape;
        self.weather(latency_us, latency_us + jitter_us, 0);
        self.start_server().await;
        self.pass_until(1_000).await?;
        let plan = Arc::clone(&self.plan);
        for &(at, act) in &plan.steps {
            self.pass_until(at).await?;
            self.act(act).await;
        }
        self.pass_until(plan.shape.chaos_ms * 1_000).await?;
        self.heal().await
    }

    /// Lets the time pass up to a moment, and looks at everybody now and then.
    pub(super) async fn pass_until(&mut self, end: u64) -> Verdict {
        loop {
            let now = at();
            let next = end.min(self.next_look);
            if next > now {
                sleep(Duration::from_micros(next - now)).await;
            }
            let mut ledger = self.shared.lock();
            if at() >= self.next_look {
                self.next_look = at() + LOOK_EVERY;
                let shape = &self.plan.shape;
                let slowest = shape.latency_us + shape.jitter_us;
                ledger.look(shape.flush_ms * 2_000 + slowest * 8 + 1_000_000);
            }
            if let Some(violation) = ledger.violation.clone() {
                return Err(violation);
            }
            if at() >= end {
                return Ok(());
            }
        }
    }

    async fn act(&mut self, act: Act) {
        let lane = match act {
            Act::Client(client, ToClient::Do(deed)) => {
                // Whoever is not running does nothing.
                if let Some(orders) = &self.shared.lock().seats[client].orders {
                    let _ = orders.send(deed);
                }
                return;
            }
            Act::Client(client, what) => {
                self.shared.lock().note(Lane::Client(client), format_args!("# {what:?}"));
                return self.act_on_client(client, what).await;
            }
            Act::Server(_) => Lane::Node(0),
        };
        let Act::Server(what) = act else { return };
        self.shared.lock().note(lane, format_args!("# {what:?}"));
        self.act_on_server(what).await;
    }

    async fn act_on_client(&mut self, client: usize, what: ToClient) {
        match what {
            ToClient::Start => self.start_client(client).await,
            ToClient::Do(_) => {}
            ToClient::Kill => self.kill_client(client).await,
            ToClient::Pause => {
                self.until_idle(client).await;
                self.shared.lock().seats[client].paused = true;
                self.runtime.pause(self.hosts[client].id());
            }
            ToClient::Resume => self.resume_client(client),
            ToClient::Dawdle(millis) => self.shared.lock().seats[client].dawdles = millis,
            ToClient::Cut(cut) => self.cut_client(client, cut),
            ToClient::Mend => self.mend_client(client),
            ToClient::Skew(skew_ms) => {
                let mut ledger = self.shared.lock();
                let seat = &mut ledger.seats[client];
                seat.skew_ms = skew_ms;
                seat.clock.iter().for_each(|clock| clock.set_skew_ms(skew_ms));
            }
        }
    }

    async fn act_on_server(&mut self, what: ToServer) {
        match what {
            ToServer::Start => self.start_server().await,
            ToServer::Kill => self.kill_server().await,
            ToServer::Drain => {
                if let Some(stop) = self.shared.lock().server.stop.take() {
                    // A server that has ended already needs not be told.
                    let _ = stop.send(());
                }
            }
            ToServer::Pause => {
                self.shared.lock().server.paused = true;
                self.runtime.pause(self.server.id());
            }
            ToServer::Resume => self.resume_server(),
            ToServer::Cut(cut) => {
                self.backlog_all();
                self.shared.lock().server.cut = true;
                match cut {
                    Cut::Both => self.net.clog_node(self.server.id()),
                    Cut::Up => self.net.clog_node_in(self.server.id()),
                    Cut::Down => self.net.clog_node_out(self.server.id()),
                }
            }
            ToServer::Mend => self.mend_server(),
            ToServer::Skew(skew_ms) => {
                let server = &mut self.shared.lock().server;
                server.skew_ms = skew_ms;
                server.clock.iter().for_each(|clock| clock.set_skew_ms(skew_ms));
            }
            ToServer::Kick { player } => {
                let handle = self.shared.lock().server.handle.clone();
                self.shared.lock().server.unsettled_until = at() + AFTERMATH;
                let kicked = handle.is_some_and(|handle| handle.kick(player_name(player).as_str()));
                self.shared.lock().note(Lane::Node(0), format_args!("kicked: {kicked}"));
            }
            ToServer::Weather { low, high, loss } => {
                self.backlog_all();
                self.weather(low, high, loss);
                let usual = low == self.plan.shape.latency_us && loss == 0;
                self.shared.lock().server.stormy = !usual;
            }
        }
    }

    /// Everything is well again.
    pub(super) fn calm(&mut self) {
        // What bad links have held back comes in at the latency of each packet, one after
        // the other: that is not to count against the bound.
        self.backlog_all();
        self.weather(CALM_US, CALM_US * 2, 0);
        self.shared.lock().server.stormy = false;
        self.mend_server();
        self.resume_server();
        for client in 0..self.hosts.len() {
            self.mend_client(client);
            self.resume_client(client);
            self.shared.lock().seats[client].dawdles = 0;
        }
    }

    fn backlog_all(&self) {
        self.shared.lock().seats.iter_mut().for_each(|seat| seat.backlogged = true);
    }

    fn weather(&self, low: u64, high: u64, loss: u32) {
        self.net.update_config(|config| {
            config.send_latency = Duration::from_micros(low)..Duration::from_micros(high);
            config.packet_loss_rate = f64::from(loss) / 1_000.0;
        });
    }

    fn cut_client(&self, client: usize, cut: Cut) {
        let (host, server) = (self.hosts[client].id(), self.server.id());
        let mut ledger = self.shared.lock();
        ledger.coverage.hit("partition");
        let seat = &mut ledger.seats[client];
        seat.backlogged = true;
        if cut != Cut::Down {
            seat.blocked.store(true, Ordering::Relaxed);
            self.net.clog_link(host, server);
        }
        if cut != Cut::Up {
            seat.deaf = true;
            self.net.clog_link(server, host);
        }
    }

    fn mend_client(&self, client: usize) {
        let (host, server) = (self.hosts[client].id(), self.server.id());
        let mut ledger = self.shared.lock();
        let seat = &mut ledger.seats[client];
        seat.blocked.store(false, Ordering::Relaxed);
        seat.deaf = false;
        self.net.unclog_link(host, server);
        self.net.unclog_link(server, host);
    }

    fn mend_server(&self) {
        self.shared.lock().server.cut = false;
        self.net.unclog_node(self.server.id());
    }

    fn resume_client(&self, client: usize) {
        if std::mem::take(&mut self.shared.lock().seats[client].paused) {
            self.runtime.resume(self.hosts[client].id());
        }
    }

    fn resume_server(&self) {
        if std::mem::take(&mut self.shared.lock().server.paused) {
            self.runtime.resume(self.server.id());
        }
    }

    /// Waits until the application is not in the middle of a command: the ledger must
    /// know of a message that the client has taken.
    async fn until_idle(&self, client: usize) {
        let busy = |ledger: &Ledger| {
            let seat = &ledger.seats[client];
            seat.busy && seat.running && !seat.paused
        };
        while busy(&self.shared.lock()) {
            sleep(Duration::from_micros(20)).await;
        }
    }

    /// Starts a client's process, unless it runs.
    pub(super) async fn start_client(&mut self, client: usize) {
        if self.shared.lock().seats[client].running {
            return;
        }
        self.stop_host(&self.hosts[client]).await;
        let seed = self.rng.split();
        let chopping = self.plan.chopped.then(|| self.rng.split());
        let percent = self.rng.range(0..=99);
        let clock = Clock::new();
        let (orders, inbox) = mpsc::unbounded_channel();
        let (who, dialer) = {
            let mut ledger = self.shared.lock();
            let who = ledger.who(client);
            let seat = &mut ledger.seats[client];
            (seat.running, seat.paused, seat.orders) = (true, false, Some(orders));
            clock.set_skew_ms(seat.skew_ms);
            (who, Dialer::new(Arc::clone(&seat.blocked), chopping))
        };
        let keys = Arc::new(keys(&self.secret));
        let player = self.plan.player(client);
        // The issuer's clock is right.
        let issuer = Clock::new();
        let credentials = Credentials::provider(move || {
            let token = token(&keys, player, issuer.now().wall);
            async move { Ok(token) }
        });
        let builder = Client::builder(&format!("ws://{SERVER}/"), credentials)
            .config(self.plan.shape.client_config(percent))
            .player(player_name(player).as_str())
            .seed(seed)
            .clock(clock.clone())
            .dialer(Arc::new(dialer))
            .event_capacity(self.plan.event_capacity);
        let life = player::live(self.shared.clone(), who, builder, clock, self.plan.patient, inbox);
        self.spawn(&self.hosts[client], life);
    }

    /// Kills a client's process.
    pub(super) async fn kill_client(&mut self, client: usize) {
        self.until_idle(client).await;
        self.runtime.kill(self.hosts[client].id());
        let mut ledger = self.shared.lock();
        ledger.coverage.hit("client crash");
        ledger.gone(client);
    }

    /// Starts the server, unless it runs.
    pub(super) async fn start_server(&mut self) {
        let running = {
            let ledger = self.shared.lock();
            ledger.server.handle.is_some()
        };
        if running {
            return;
        }
        // It is killed even if it has ended by itself: its sockets live on otherwise.
        self.stop_host(&self.server).await;
        let (stop, stopped) = oneshot::channel();
        let clock = Clock::new();
        let life = {
            let server = &mut self.shared.lock().server;
            server.life += 1;
            server.paused = false;
            server.unsettled_until = at() + AFTERMATH;
            (server.stop, server.clock) = (Some(stop), Some(clock.clone()));
            clock.set_skew_ms(server.skew_ms);
            server.life
        };
        let builder = Server::builder(config(&self.plan))
            .keys(keys(&self.secret))
            .seed(self.rng.split())
            // Epochs count from the incarnation: those of one life must not reach the next.
            .incarnation(life << 32)
            .clock(clock)
            .fallback(echo)
            .plant(self.planted);
        let shared = self.shared.clone();
        self.spawn(&self.server, async move {
            let server = builder.bind().await.expect("the address is free and the configuration good");
            let handle = server.handle();
            shared.lock().server.handle = Some(handle);
            server.run(async { drop(stopped.await) }).await;
            let mut ledger = shared.lock();
            ledger.note(Lane::Node(0), format_args!("has ended"));
            ledger.server.handle = None;
        });
    }

    /// Kills the server's process.
    pub(super) async fn kill_server(&mut self) {
        self.runtime.kill(self.server.id());
        let old = self.shared.lock().server.handle.take();
        drop(old);
        sleep(Duration::from_micros(500)).await;
    }

    /// Makes a host ready for a new process.
    async fn stop_host(&self, host: &NodeHandle) {
        self.runtime.kill(host.id());
        sleep(Duration::from_micros(500)).await;
        self.runtime.restart(host.id());
    }

    fn spawn(&self, host: &NodeHandle, life: impl Future<Output = ()> + Send + 'static) {
        // A node that was restarted is reached by its new handle only.
        if let Some(host) = self.runtime.get_node(host.id()) {
            drop(host.spawn(life));
        }
    }
}

/// Sends application messages back.
fn echo(message: Message, server: &Handle) {
    server.send(message.conn, &message.type_url, &message.payload);
}

/// The server's configuration.
fn config(plan: &Plan) -> Config {
    let shape = &plan.shape;
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let rate = |per_second, burst| Rate { per_second: small(per_second), burst: small(burst) };
    let mut config = Config::default();
    config.listen.address = SERVER.parse::<SocketAddr>().expect("it is an address");
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
    config
}
