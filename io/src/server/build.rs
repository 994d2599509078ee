//! Builds a listening server from a configuration.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use skirmish_core::id::NodeId;
use skirmish_core::node::Node;
use skirmish_core::registry::RegistryConfig;
use skirmish_core::rng::{Rng, Seed};
use skirmish_proto::v1;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::warn;

use super::application::{Handler, Routes};
use super::descriptors::{Excess, Plan, Shortage};
use super::links::Settings;
use super::peer::Proxies;
use super::refusals::Refusals;
use super::shared::SharedShard;
use super::upgrade::Policy;
use super::{Handle, HandleInner, Server};
use crate::clock::Clock;
use crate::config::{self, Config, RegistryKind};
use crate::log_queue::LogQueue;
#[cfg(not(madsim))]
use crate::registry::etcd;
use crate::registry::{EmbeddedRegistry, NodeRegistry};
use crate::token::{KeyError, Keys};

/// Read buffer of each connection, in bytes, unless a frame is larger. Typical messages of players
/// fit into the buffer several times.
const READ_BUFFER: usize = 512;
/// Bytes of answers to pings that wait for a peer that does not read. Beyond this number only the
/// newest ping is answered (RFC 6455, section 5.5.3).
const ANSWERS_BUFFER: usize = 1024;

/// The reason for which a server does not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration makes no sense: the key, and the problem.
    Config(String, String),
    /// No key to check tokens with.
    NoKeys,
    /// A key cannot be used.
    Key(KeyError),
    /// A certificate, its key, the sealing key or the way to etcd cannot be used.
    File(String),
    /// The server cannot listen at an address.
    Bind {
        /// The key of the address in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        error: io::Error,
    },
    /// The limit of open files may be too low for the connections.
    OpenFiles(Shortage),
    /// The system has no randomness.
    Randomness(getrandom::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(key, problem) => write!(f, "configuration: {key}: {problem}"),
            Self::NoKeys => f.write_str("auth.keys: there is no key to check tokens with"),
            Self::Key(error) => write!(f, "auth.keys: {error}"),
            Self::File(problem) => f.write_str(problem),
            Self::Bind { key, address, error } => write!(f, "{key}: cannot listen at {address}: {error}"),
            Self::OpenFiles(shortage) => write!(f, "connections.total: {shortage}"),
            Self::Randomness(error) => write!(f, "no randomness: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Builder of a [`Server`].
#[derive(Debug)]
pub struct ServerBuilder {
    config: Config,
    keys: Option<Keys>,
    clock: Option<Clock>,
    seed: Option<Seed>,
    incarnation: Option<u64>,
    registry: Option<NodeRegistry>,
    log: Option<LogQueue>,
    open_files: Option<(usize, Excess)>,
    routes: Routes,
    #[cfg(feature = "plant")]
    planted: skirmish_core::plant::Planted,
}

impl ServerBuilder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            keys: None,
            clock: None,
            seed: None,
            incarnation: None,
            registry: None,
            log: None,
            open_files: None,
            routes: Routes::default(),
            #[cfg(feature = "plant")]
            planted: skirmish_core::plant::Planted::default(),
        }
    }

    /// Checks tokens with these keys instead of the keys that the configuration names.
    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Sends application messages of this type to a handler. A message without a handler is a
    /// violation of the protocol and closes its connection.
    #[must_use]
    pub fn route(mut self, type_url: impl Into<String>, handler: impl Handler) -> Self {
        self.routes.insert(type_url.into(), handler);
        self
    }

    /// Sends application messages that have no handler of their own to this handler.
    #[must_use]
    pub fn fallback(mut self, handler: impl Handler) -> Self {
        self.routes.set_fallback(handler);
        self
    }

    /// Draws all randomness from this seed instead of the system's randomness: for simulation.
    /// Session identifiers are drawn from the seed too, so outside a simulation the seed must be
    /// secret.
    #[must_use]
    pub const fn seed(mut self, seed: Seed) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the number of this start, which must be unique among all starts of the same server. The
    /// default is made from the clock and randomness.
    #[must_use]
    pub const fn incarnation(mut self, incarnation: u64) -> Self {
        self.incarnation = Some(incarnation);
        self
    }

    /// Sets the registry, in place of the one that the configuration names: for a registry that is
    /// neither in the process nor etcd. Nodes that have to find each other use the same registry,
    /// each by a [`Remote`](crate::registry::Remote) of its own.
    #[must_use]
    pub fn registry(mut self, registry: NodeRegistry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Watches the queue through which the process logs. Lines that the queue loses are counted in
    /// the metrics and keep the server from being ready.
    #[must_use]
    pub fn log(mut self, queue: LogQueue) -> Self {
        self.log = Some(queue);
        self
    }

    /// Sets the limit of open files. Some are kept for operators, other nodes and the registry; the
    /// others are for players. Without this call the process's limit is assumed to be high enough.
    #[must_use]
    pub const fn open_files(mut self, limit: usize, excess: Excess) -> Self {
        self.open_files = Some((limit, excess));
        self
    }

    /// Sets the clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Plants a bug in the node.
    #[cfg(feature = "plant")]
    #[must_use]
    pub const fn plant(mut self, planted: skirmish_core::plant::Planted) -> Self {
        self.planted = planted;
        self
    }

    /// Binds the addresses. Connections are accepted once [`Server::run`] is polled.
    ///
    /// # Errors
    /// If the configuration makes no sense, a key or certificate cannot be used, or the server
    /// cannot listen at an address.
    pub async fn bind(self) -> Result<Server, StartError> {
        let Self { mut config, routes, .. } = self;
        if matches!(self.registry, Some(NodeRegistry::Remote(_))) {
            // The rest of the configuration must fit a registry that nodes can share.
            config.registry =
                config::RegistryBackend { kind: RegistryKind::Etcd, ..config::RegistryBackend::default() };
        }
        config.validate().map_err(|(key, problem)| StartError::Config(key, problem))?;
        let keys = match self.keys {
            Some(keys) => keys,
            None => Keys::load(&config.auth).map_err(StartError::Key)?,
        };
        if keys.is_empty() {
            return Err(StartError::NoKeys);
        }
        let seal_key = config.seal.key_file.as_deref().map(seal_key).transpose().map_err(StartError::File)?;
        let mut seed = Seed::default();
        match self.seed {
            Some(given) => seed = given,
            None => getrandom::fill(&mut seed).map_err(StartError::Randomness)?,
        }
        let mut rng = Rng::new(seed);
        let clock = self.clock.unwrap_or_default();
        let drawn = rng.u64();
        let incarnation =
            self.incarnation.unwrap_or_else(|| clock.now().wall.0 << 20 | drawn & ((1 << 20) - 1));
        let mut core = config.core();
        if let Some((limit, excess)) = self.open_files {
            let plan = Plan::new(&config, core.links.total, limit, excess).map_err(StartError::OpenFiles)?;
            let Plan { connections, links, kept } = plan;
            if connections < core.connections.total {
                let configured = core.connections.total;
                warn!(
                    configured,
                    connections,
                    limit,
                    kept,
                    "connections.total is lowered to what the limit on open files allows (ulimit -n, LimitNOFILE)"
                );
                core.connections.total = connections;
            }
            if links > 0 {
                core.links.total = links;
            }
        }
        let frame = config.frames.frame_bytes;
        let web_socket = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(ANSWERS_BUFFER)
            .max_message_size(Some(frame))
            .max_frame_size(Some(frame));
        #[cfg(not(madsim))]
        let tls = super::tls::acceptor(&config.tls).map_err(StartError::File)?;
        #[cfg(not(madsim))]
        let mutual_tls = super::tls::MutualTls::new(&config.cluster.tls).map_err(StartError::File)?;
        let listener = listen("listen.address", config.listen.address).await?;
        let admin = match config.admin.enabled {
            true => Some(listen("admin.address", config.admin.address).await?),
            false => None,
        };
        let links = match config.cluster.link.address {
            Some(address) => Some(listen("cluster.link.address", address).await?),
            None => None,
        };
        let record = v1::NodeRecord {
            name: config.cluster.name.clone().unwrap_or_else(host_name),
            link: advertised(&config, links.as_ref().map(|(_, address)| *address)),
            started_ms: clock.now().wall.0,
            token_keys: keys.fingerprints(),
            ..v1::NodeRecord::default()
        };
        #[allow(unused_mut, reason = "changed where bugs are planted")]
        let mut node = Node::new(core.clone(), rng.split(), NodeId(incarnation), record, seal_key);
        #[cfg(feature = "plant")]
        node.plant(self.planted);
        let registry = match self.registry {
            Some(registry) => registry,
            None => registry(&config.registry, &clock, &mut rng)?,
        };
        let refusals = Refusals::new(clock.now().instant, config.drain.retry_after);
        let inner = HandleInner {
            shared: SharedShard::new(node, registry, clock, rng, (&config.log, self.log)),
            routes,
            policy: Policy::new(&config, keys),
            head_bytes: config.listen.head_bytes,
            proxies: Proxies::new(&config.listen),
            refusals,
            web_socket,
            links: Settings {
                #[cfg(not(madsim))]
                tls: mutual_tls,
                insecure: config.cluster.insecure,
                frame_bytes: core.links.frame_bytes,
            },
            #[cfg(not(madsim))]
            tls,
        };
        let budget = config.budget_of(&core);
        Ok(Server { listener, admin, links, budget, handle: Handle(Arc::new(inner)), drain: config.drain })
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|error| StartError::Bind { key, address, error })
}

/// Creates the node's registry.
#[cfg_attr(madsim, allow(unused_variables, reason = "etcd is not simulated"))]
fn registry(
    config: &config::RegistryBackend,
    clock: &Clock,
    rng: &mut Rng,
) -> Result<NodeRegistry, StartError> {
    let seed = rng.split();
    match config.kind {
        RegistryKind::Embedded => {
            let now = clock.now().instant;
            Ok(NodeRegistry::Embedded(Box::new(EmbeddedRegistry::new(RegistryConfig::default(), now))))
        }
        #[cfg(not(madsim))]
        RegistryKind::Etcd => etcd::start(&config.etcd, clock.clone(), seed)
            .map(|remote| NodeRegistry::Remote(remote.below(&config.prefix)))
            .map_err(|error| StartError::File(format!("registry.etcd: {error}"))),
        #[cfg(madsim)]
        RegistryKind::Etcd => Err(StartError::File("registry.kind: etcd is not simulated".to_owned())),
    }
}

/// Returns the address that other nodes dial, or an empty text if this node accepts no links.
fn advertised(config: &Config, bound: Option<SocketAddr>) -> String {
    match (&config.cluster.link.advertise, bound) {
        (Some(advertised), Some(_)) => advertised.clone(),
        (None, Some(address)) => address.to_string(),
        (_, None) => String::new(),
    }
}

/// Returns the host's name, as far as the name is text and within the limits of a node's name.
#[cfg(all(unix, not(madsim)))]
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_str().unwrap_or_default();
    let longest = name.len().min(config::MAX_NODE_NAME);
    (0..=longest).rev().find_map(|end| name.get(..end)).unwrap_or_default().to_owned()
}

/// Simulated hosts have no name.
#[cfg(not(all(unix, not(madsim))))]
const fn host_name() -> String {
    String::new()
}

/// Reads a static X25519 secret: 64 hexadecimal digits.
fn seal_key(file: &Path) -> Result<[u8; 32], String> {
    let wrong = |problem: &str| format!("seal.key_file: {}: {problem}", file.display());
    let text = std::fs::read_to_string(file).map_err(|e| wrong(&e.to_string()))?;
    super::trace::hex(text.trim()).ok_or_else(|| wrong("it must have 64 hexadecimal digits"))
}
