//! A server in this process, so that bots need no other program.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::Error;
use super::options::{Mode, Options};
use super::tokens::Tokens;
use crate::config::{Config, QueueSection, RateLimit};
use crate::server::Server;
use crate::token::{Keys, new_secret};

/// A server on a thread of its own. Stops when dropped.
pub(super) struct Local {
    url: String,
    keys: Arc<Keys>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Local {
    /// Starts a server on a free loopback port, with limits that fit the load.
    pub(super) fn start(options: &Options) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::LocalServer(error.to_string());
        let secret = new_secret().map_err(|error| failed(&error))?;
        let keys = || Keys::from_secret("bots", secret.as_bytes()).map_err(|error| failed(&error));
        let (server_keys, keys) = (keys()?, Arc::new(keys()?));
        let config = config(options);
        let (stop, stopped) = oneshot::channel();
        let (started, start) = mpsc::channel();
        let serve = move || {
            let report = started.clone();
            let run = async move {
                match Server::builder(config).keys(server_keys).bind().await {
                    Ok(server) => {
                        // If this fails, `stopped` is ready, too.
                        let _ = started.send(Ok(server.local_addr()));
                        tokio::select! {
                            biased;
                            // The sender was used or dropped: no bot is left for a drain.
                            _ = stopped => {}
                            () = server.run(std::future::pending()) => {}
                        }
                    }
                    Err(error) => {
                        let _ = started.send(Err(error.to_string()));
                    }
                }
            };
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(run),
                Err(error) => {
                    let _ = report.send(Err(error.to_string()));
                }
            }
        };
        let thread = thread::Builder::new().name("server".to_owned()).spawn(serve)?;
        let address = start
            .recv()
            .map_err(|_| Error::LocalServer("its thread ended".to_owned()))?
            .map_err(Error::LocalServer)?;
        Ok(Self { url: format!("ws://{address}/"), keys, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the server's address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the source of tokens that the server accepts.
    pub(super) fn tokens(&self) -> Tokens {
        Tokens::Signed(Arc::clone(&self.keys))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the server has already stopped.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread panicked");
        }
    }
}

/// Returns a configuration whose limits are far above the load; all other settings are those of
/// production.
fn config(options: &Options) -> Config {
    let mut config = Config::default();
    config.listen.address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.admin.enabled = false;
    let connections = match options.mode {
        Mode::Battle | Mode::Idle => options.players,
        Mode::Churn => options.inflight,
    } as usize;
    // The server notices a cut connection only later.
    let connections = 2 * connections + 1_024;
    config.connections.total = connections;
    config.connections.per_address = connections;
    config.connections.unauthenticated = connections;
    config.sessions.total = config.sessions.total.max(2 * connections);
    config.rooms.total = config.rooms.total.max(2 * options.rooms() as usize);
    config.rooms.members = config.rooms.members.max(2 * options.room_size as usize);
    if let Some(mode) = &options.matches.queue {
        let (teams, team_size) = options.matches.shape();
        config.rooms.total = config.rooms.total.max(2 * options.players as usize);
        config.matchmaking.tickets = config.matchmaking.tickets.max(options.players as usize);
        config.matchmaking.queues = vec![QueueSection::new(mode, teams, team_size, "local")];
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be at most 100000"
    )]
    let rate = options.rate.ceil() as u32;
    let at_least = |rate: RateLimit, per_second: u32| RateLimit {
        per_second: rate.per_second.max(per_second),
        burst: rate.burst.max(4 * per_second),
    };
    config.rates.reliable = at_least(config.rates.reliable, 2 * rate);
    config.rates.latest = at_least(config.rates.latest, 2 * rate);
    let bytes =
        u32::try_from(options.size + 256).unwrap_or(u32::MAX).saturating_mul(2 * rate).min(u32::MAX / 4);
    config.rates.bytes = at_least(config.rates.bytes, bytes);
    config.rates.logins = RateLimit { per_second: 1_000_000, burst: 1_000_000 };
    config.rates.logins_per_address = config.rates.logins;
    config.frames.body_bytes = config.frames.body_bytes.max(options.size);
    config.frames.frame_bytes = config.frames.frame_bytes.max(options.size + 4_096);
    config
}
