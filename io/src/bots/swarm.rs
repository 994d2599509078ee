//! What every mode needs: the server, tokens, clock, randomness, and clients.

use skirmish_core::client::ClientConfig;
use skirmish_core::rng::{Rng, Seed};

use super::Error;
use super::local::Local;
use super::options::Options;
use super::process::Watched;
use super::tokens::Tokens;
use crate::client::{Driver, Endpoint};
use crate::clock::Clock;

/// Ready to make clients.
pub(super) struct Swarm {
    pub options: Options,
    pub clock: Clock,
    pub watched: Option<Watched>,
    endpoint: Endpoint,
    tokens: Tokens,
    /// Stops the server in this process when dropped.
    _local: Option<Local>,
}

impl Swarm {
    /// Starts a server if none was named.
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let clock = Clock::new();
        let (local, url, tokens) = match &options.server {
            Some(url) => (None, url.clone(), Tokens::from_options(&options)?),
            None => {
                let local = Local::start(&options)?;
                let tokens = local.tokens();
                let url = local.url().to_owned();
                (Some(local), url, tokens)
            }
        };
        let watched = match (options.server_pid, &local) {
            (Some(pid), _) => Some(Watched::Process(pid)),
            (None, Some(_)) => Some(Watched::Rest),
            (None, None) => None,
        };
        let endpoint = Endpoint::new(&url, "", ClientConfig::default().max_frame)?;
        Ok(Self { options, clock, watched, endpoint, tokens, _local: local })
    }

    /// A client of this player.
    pub(super) fn driver(&self, player: u32, rng: &mut Rng) -> Driver {
        let name = self.options.player(player);
        let credentials = self.tokens.credentials(&name, &self.clock);
        let config = ClientConfig { player: name, seal: self.options.seal, ..ClientConfig::default() };
        Driver::new(
            self.endpoint.clone().with_credentials(credentials),
            config,
            rng.split(),
            self.clock.clone(),
        )
    }

    /// The randomness of player or cycle `index`.
    pub(super) fn rng(&self, index: u64) -> Rng {
        let mut seed = Seed::default();
        seed[..8].copy_from_slice(&self.options.seed.to_be_bytes());
        seed[8..16].copy_from_slice(&index.to_be_bytes());
        Rng::new(seed)
    }
}
