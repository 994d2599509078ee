//! A server in the test process.

use std::net::SocketAddr;

use skirmish_io::config::Config;
use skirmish_io::server::{Handle, Server, ServerBuilder};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{eventually, keys, within};

/// A server that runs on the test's own runtime.
#[derive(Debug)]
pub struct Running {
    /// Address for players.
    pub address: SocketAddr,
    /// Address for operators.
    pub admin: SocketAddr,
    /// Handle of the server.
    pub handle: Handle,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Running {
    /// Starts a server with a changed default configuration.
    pub async fn start(change: impl FnOnce(&mut Config)) -> Self {
        Self::build(change, |builder| builder).await
    }

    /// Starts a server with a changed default configuration and with handlers.
    ///
    /// # Panics
    /// If the server cannot start.
    pub async fn build(
        change: impl FnOnce(&mut Config),
        with: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let mut config = Config::default();
        config.listen.address.set_port(0);
        config.admin.address.set_port(0);
        change(&mut config);
        let builder = with(Server::builder(config).keys(keys()));
        let server = builder.bind().await.expect("a free port is free");
        let (stop, stopped) = oneshot::channel::<()>();
        Self {
            address: server.local_addr(),
            admin: server.admin_addr().expect("it is enabled by default"),
            handle: server.handle(),
            stop,
            done: tokio::spawn(server.run(async { drop(stopped.await) })),
        }
    }

    /// URL for the client library.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// Checks the invariants of all tables of the node.
    ///
    /// # Panics
    /// If an invariant does not hold.
    pub fn audit(&self) {
        self.handle.inspect(|node| node.audit()).expect("the node's tables agree");
    }

    /// Waits until the server has this number of connections.
    pub async fn connections(&self, number: usize) {
        let what = format!("{number} connections");
        eventually(&what, async || self.handle.stats().connections == number).await;
    }

    /// Drains the server and waits for its end.
    ///
    /// # Panics
    /// If the server does not end.
    pub async fn stop(self) {
        drop(self.stop);
        within("the end of the server", self.done).await.expect("the server does not panic");
    }
}
