//! The server: a node behind a listener.
//!
//! One node is one shard, and the whole shard runs on one thread: a current-thread runtime. Each
//! connection has a task that reads; one writer sends to all connections, and one driver has the
//! only timer. `Shared::write` documents the order of reads and writes, and the reason for the
//! order.
//!
//! ```
//! use skirmish_io::config::Config;
//! use skirmish_io::server::{ApplicationMessage, Handle, Server};
//! use skirmish_io::token::{Keys, new_secret};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::default();
//! config.listen.address = "127.0.0.1:0".parse()?;
//! config.admin.enabled = false;
//!
//! let server = Server::builder(config)
//!     .keys(Keys::from_secret("main", new_secret()?.as_bytes())?)
//!     .route("mygame.v1.Attack", |attack: ApplicationMessage, server: &Handle| {
//!         server.send(attack.conn, "mygame.v1.Attacked", &attack.payload);
//!     })
//!     .bind()
//!     .await?;
//! println!("players connect to ws://{}/", server.local_addr());
//!
//! let shutdown = async { /* wait for a signal here */ };
//! server.run(shutdown).await;
//! # Ok(())
//! # }
//! ```

mod accept;
#[cfg(not(madsim))]
mod admin;
mod application;
mod audit;
mod build;
mod checks;
mod connection;
mod descriptors;
mod http;
mod links;
mod logging;
#[cfg_attr(madsim, allow(dead_code, reason = "the admin listener is not simulated"))]
mod metrics;
mod overhead;
mod peer;
mod places;
mod readiness;
mod refusals;
mod shard;
mod shared;
mod socket;
mod stream;
#[cfg(not(madsim))]
mod tls;
mod trace;
mod upgrade;

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skirmish_core::id::ConnId;
use skirmish_core::node::budget::Budget;
use skirmish_core::node::{Node, Refusal, Stats};
use skirmish_core::time::Now;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::{info, info_span, warn};

pub use application::{ApplicationMessage, Handler};
pub use build::{ServerBuilder, StartError};
pub use descriptors::{Excess, Shortage};
pub use readiness::{Cause, NotReady, Reason};
pub use upgrade::{SUBPROTOCOL, TOKEN_PREFIX};

use crate::config::{Config, Drain};
use accept::{Accepted, Acceptor};
use application::Routes;
use peer::Proxies;
use refusals::Refusals;
use shard::Shard;
use shared::SharedShard;
use stream::ServerStream;
use upgrade::Policy;

/// Longest time between two runs of the driver.
const DRIVER_PULSE: Duration = Duration::from_secs(1);
/// Maximum time to refuse a connection that has the last descriptor.
const SCARCE_REFUSAL_TIMEOUT: Duration = Duration::from_millis(50);
/// Maximum time to wait for the registry's answers when the node stops.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that is bound to its addresses. [`Server::run`] serves.
#[derive(Debug)]
pub struct Server {
    listener: (TcpListener, SocketAddr),
    admin: Option<(TcpListener, SocketAddr)>,
    links: Option<(TcpListener, SocketAddr)>,
    budget: Budget,
    handle: Handle,
    drain: Drain,
}

/// Access to a running server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(Arc<HandleInner>);

struct HandleInner {
    shared: SharedShard,
    routes: Routes,
    policy: Policy,
    /// Longest request head of players, in bytes.
    head_bytes: usize,
    proxies: Proxies,
    refusals: Refusals,
    web_socket: WebSocketConfig,
    links: links::Settings,
    #[cfg(not(madsim))]
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Server {
    /// Returns a builder for a server.
    #[must_use]
    pub fn builder(config: Config) -> ServerBuilder {
        ServerBuilder::new(config)
    }

    /// Returns the address for players: the bound address, with the real port.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.listener.1
    }

    /// Returns an upper bound of the memory that the server needs.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Returns the address of the admin listener, if enabled.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// Returns the bound address for links of other nodes, if the server accepts links.
    #[must_use]
    pub fn link_addr(&self) -> Option<SocketAddr> {
        self.links.as_ref().map(|(_, address)| *address)
    }

    /// Returns a handle to the server.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` is ready. Then drains: the server runs on until every connection has
    /// received its last frames and is closed, or until the drain's timeout has passed. Dropping
    /// the future stops everything at once.
    ///
    /// Made for a current-thread runtime. A multi-thread runtime works too, but is no faster.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { listener: (listener, _), admin, links, budget: _, handle, drain } = self;
        let mut running = RunningTasks::start(&handle, admin, links);
        tokio::select! {
            biased;
            () = shutdown => {}
            () = accept(listener, &handle) => {}
            () = running.failed() => {}
        }
        info!(connections = handle.stats().connections, "draining");
        handle.drain(drain.retry_after);
        if tokio::time::timeout(drain.timeout, handle.0.shared.idle()).await.is_err() {
            warn!(connections = handle.stats().connections, "drain timed out, connections are dropped");
        }
        handle.input(|shard, now| {
            shard.stopping = true;
            shard.node.stop(now);
        });
        if tokio::time::timeout(FAREWELL_TIMEOUT, handle.0.shared.answered()).await.is_err() {
            warn!("the registry does not answer: what this node has there stays until its leases end");
        }
    }
}

/// Tasks that run beside [`Server::run`] and end with it.
struct RunningTasks {
    handle: Handle,
    /// Driver and writer. Without them the server would look alive and do nothing.
    vital: [JoinHandle<()>; 2],
    others: Vec<JoinHandle<()>>,
}

impl RunningTasks {
    /// Starts the tasks that do not belong to a connection.
    fn start(
        handle: &Handle,
        admin: Option<(TcpListener, SocketAddr)>,
        links: Option<(TcpListener, SocketAddr)>,
    ) -> Self {
        let (driven, written) = (handle.clone(), handle.clone());
        let vital = [
            tokio::spawn(async move { driven.0.shared.drive().await }),
            tokio::spawn(async move { written.0.shared.write().await }),
        ];
        let links = links.map(|(listener, _)| listener);
        let mut others = vec![tokio::spawn(links::serve(links, handle.clone()))];
        #[cfg(not(madsim))]
        if let Some((listener, _)) = admin {
            others.push(tokio::spawn(admin::serve(listener, handle.clone())));
        }
        #[cfg(madsim)]
        drop(admin);
        others.shrink_to_fit();
        Self { handle: handle.clone(), vital, others }
    }

    /// Waits for a panic of a vital task and resumes the panic here. A vital task ends in no other
    /// way.
    async fn failed(&mut self) {
        let [driver, writer] = &mut self.vital;
        let ended = tokio::select! {
            biased;
            ended = driver => ended,
            ended = writer => ended,
        };
        #[cfg(not(madsim))]
        if let Err(error) = ended
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
        // In a simulation a panic ends everything.
        #[cfg(madsim)]
        drop(ended);
    }
}

impl Drop for RunningTasks {
    fn drop(&mut self) {
        for task in self.vital.iter().chain(&self.others) {
            task.abort();
        }
        self.handle.0.shared.abandon();
    }
}

/// Accepts connections for as long as the future is polled.
async fn accept(listener: TcpListener, server: &Handle) {
    let refusals = &server.0.refusals;
    let mut acceptor = Acceptor::new(listener);
    loop {
        let accepted = acceptor.next(server, || refusals.end_oldest()).await;
        let Accepted { stream, address: peer, scarce } = accepted;
        if scarce {
            // One at a time, and each briefly: the next connection waits for the same descriptor.
            server.0.shared.command(|shard, now| {
                shard.counters.refused_for_files += 1;
                logging::refused_for_files(shard, now.instant, peer);
            });
            let told = refusals.tell(server, stream, Refusal::Full);
            let _ = crate::rounds::within(SCARCE_REFUSAL_TIMEOUT, told).await;
            continue;
        }
        let proxied = server.0.proxies.names_clients(peer);
        match server.0.shared.command(|shard, now| shard.accept(now, peer, proxied)) {
            Ok(conn) => {
                tokio::spawn(connection::serve(server.clone(), stream, conn, peer));
            }
            Err(refusal) => {
                server.0.shared.command(|shard, now| {
                    logging::refused_at_accept(shard, now.instant, peer, refusal);
                });
                refusals.turn_away(server, stream, refusal).await;
            }
        }
    }
}

impl Handle {
    /// Sends an application message to a connection. Returns false, and keeps nothing, if the
    /// connection is gone, its queue is full, or the message is too large.
    pub fn send(&self, conn: ConnId, type_url: &str, payload: &[u8]) -> bool {
        self.input(|shard, now| shard.node.send(now, conn, type_url, payload))
    }

    /// Ends the session of a player. Returns false if the player has no session.
    pub fn kick(&self, player: &str) -> bool {
        self.input(|shard, now| shard.node.kick(now, player))
    }

    /// Accepts no more connections, and closes the open ones after their last frames. Clients are
    /// asked to come back after `retry_after`. [`Server::run`] drains in the same way at its
    /// shutdown.
    pub fn drain(&self, retry_after: Duration) {
        self.input(|shard, now| {
            shard.accepting = false;
            shard.node.drain(now, retry_after);
        });
    }

    /// Returns the gauges and counters of the node.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.shared.lock().node.stats()
    }

    /// Calls `look` with the node. `look` must not use the handle.
    pub fn inspect<R>(&self, look: impl FnOnce(&Node) -> R) -> R {
        look(&self.0.shared.lock().node)
    }

    /// Returns `Ok` if the server is ready for players, as far as it can know.
    ///
    /// # Errors
    /// Every cause that keeps the server from being ready.
    pub fn ready(&self) -> Result<(), NotReady> {
        let now = self.0.shared.clock().now().instant;
        let mut shard = self.0.shared.lock();
        checks::run(&mut shard, now);
        shard.readiness.verdict()
    }

    /// Gives the node an input, and passes the resulting application messages to their handlers.
    fn input<R>(&self, f: impl FnOnce(&mut Shard, Now) -> R) -> R {
        let mut mail = Vec::new();
        let result = self.0.shared.input(&mut mail, f);
        for message in mail {
            self.deliver(message);
        }
        result
    }

    fn deliver(&self, message: ApplicationMessage) {
        let ApplicationMessage { conn, player, trace, .. } = &message;
        match self.0.routes.find(&message.type_url) {
            Some(handler) => {
                let trace_id = logging::TraceId(*trace);
                let span = info_span!("application", %trace_id, %conn, %player);
                span.in_scope(|| handler.handle(message, self));
            }
            None => {
                self.0.shared.command(|shard, now| {
                    logging::unrouted(shard, now.instant, &message);
                    shard.counters.unrouted += 1;
                    shard.node.refuse_application(now, message.conn, &message.type_url);
                });
            }
        }
    }
}

impl fmt::Debug for HandleInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { routes, policy, .. } = self;
        f.debug_struct("HandleInner").field("routes", routes).field("policy", policy).finish_non_exhaustive()
    }
}

impl HandleInner {
    /// Returns true if players connect over TLS.
    #[cfg(not(madsim))]
    const fn uses_tls(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(madsim)]
    const fn uses_tls(&self) -> bool {
        false
    }

    /// Does the TLS handshake, if TLS is configured.
    #[cfg(not(madsim))]
    async fn secure(&self, stream: TcpStream) -> io::Result<ServerStream> {
        Ok(match &self.tls {
            Some(acceptor) => ServerStream::Tls(Box::new(acceptor.accept(stream).await?.into())),
            None => ServerStream::Plain(stream),
        })
    }

    #[cfg(madsim)]
    #[allow(clippy::unused_async, reason = "TLS is not simulated")]
    async fn secure(&self, stream: TcpStream) -> io::Result<ServerStream> {
        Ok(ServerStream::Plain(stream))
    }
}
