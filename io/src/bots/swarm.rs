//! The common needs of every mode: the servers, tokens, clock, randomness, and clients.

use std::sync::Arc;

use skirmish_core::client::ClientConfig;
use skirmish_core::rng::{Rng, Seed};

use super::Error;
use super::interrupt::Interruption;
use super::local::Local;
use super::options::Options;
use super::process::MonitoredServer;
use super::tokens::Tokens;
use crate::client::{Driver, Endpoint};
use crate::clock::Clock;

/// Creates the clients.
pub(super) struct Swarm {
    pub options: Options,
    pub clock: Clock,
    pub watched: Option<MonitoredServer>,
    pub interruption: Arc<Interruption>,
    /// Endpoint with all nodes.
    endpoint: Endpoint,
    nodes: usize,
    tokens: Tokens,
    /// Stops the server in this process when dropped.
    _local: Option<Local>,
}

impl Swarm {
    /// Creates a swarm. Starts a server if the options name none.
    pub(super) fn new(options: Options, interruption: Arc<Interruption>) -> Result<Self, Error> {
        let clock = Clock::new();
        let (local, urls, tokens) = if options.server.is_empty() {
            let local = Local::start(&options)?;
            let (url, tokens) = (local.url().to_owned(), local.tokens());
            (Some(local), vec![url], tokens)
        } else {
            (None, options.server.clone(), Tokens::from_options(&options)?)
        };
        let watched = match (options.server_pid, &local) {
            (Some(pid), _) => Some(MonitoredServer::Process(pid)),
            (None, Some(_)) => Some(MonitoredServer::Rest),
            (None, None) => None,
        };
        let (first, others) = urls.split_first().map_or(("", &[][..]), |(first, others)| (first, others));
        let endpoint = Endpoint::new(first, "", ClientConfig::default().max_frame)?.with_nodes(others)?;
        let nodes = urls.len();
        Ok(Self { options, clock, watched, interruption, endpoint, nodes, tokens, _local: local })
    }

    /// Returns the endpoint of a player. The players are distributed over the nodes, and each goes
    /// on to the next node after every lost connection.
    fn endpoint(&self, player: u32) -> Endpoint {
        self.endpoint.clone().starting_at(player as usize % self.nodes.max(1))
    }

    /// Returns a client for this player.
    pub(super) fn driver(&self, player: u32, rng: &mut Rng) -> Driver {
        let name = self.options.player(player);
        let credentials = self.tokens.credentials(&name, &self.clock);
        let config = ClientConfig { player: name, seal: self.options.seal, ..ClientConfig::default() };
        let endpoint = self.endpoint(player).with_credentials(credentials);
        Driver::new(endpoint, config, rng.split(), self.clock.clone())
    }

    /// Returns the randomness of player or cycle `index`.
    pub(super) fn rng(&self, index: u64) -> Rng {
        let mut seed = Seed::default();
        seed[..8].copy_from_slice(&self.options.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&index.to_be_bytes());
        Rng::new(seed)
    }
}
