//! A token for each player.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use skirmish_core::id::Name;

use super::Error;
use super::options::Options;
use crate::client::Credentials;
use crate::clock::Clock;
use crate::config::{Algorithm, Auth, Config, Sources, TokenKey};
use crate::token::Keys;

/// Lifetime of a token. A new one is signed for each connection.
const TTL: Duration = Duration::from_secs(3_600);

/// Source of the players' tokens.
#[derive(Clone)]
pub(super) enum Tokens {
    /// One token for all players.
    Fixed(String),
    /// A token for each player, signed with these keys.
    Signed(Arc<Keys>),
}

impl Tokens {
    /// Creates the source that the options name.
    pub(super) fn from_options(options: &Options) -> Result<Self, Error> {
        if let Some(token) = &options.token {
            return Ok(Self::Fixed(token.clone()));
        }
        let auth = match (&options.config, &options.key_file) {
            (Some(file), _) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| Error::Tokens(format!("{}: {error}", file.display())))?;
                let sources = Sources { file: Some((file.clone(), text)), ..Sources::default() };
                Config::load(&sources).map_err(|error| Error::Tokens(error.to_string()))?.auth
            }
            (None, file) => {
                let key = TokenKey {
                    id: options.key_id.clone(),
                    algorithm: Algorithm::HS256,
                    secret: None,
                    secret_file: file.clone(),
                    public_key_file: None,
                    private_key_file: None,
                };
                Auth { keys: vec![key], ..Auth::default() }
            }
        };
        let keys = Keys::load(&auth).map_err(|error| Error::Tokens(error.to_string()))?;
        Ok(Self::Signed(Arc::new(keys)))
    }

    /// Returns the credentials of this player.
    pub(super) fn credentials(&self, player: &str, clock: &Clock) -> Credentials {
        match self {
            Self::Fixed(token) => Credentials::fixed(token),
            Self::Signed(keys) => {
                let (keys, clock, player) = (Arc::clone(keys), clock.clone(), Name::new(player));
                Credentials::provider(move || {
                    let token = player
                        .clone()
                        .map_err(|error| error.to_string())
                        .and_then(|name| {
                            keys.sign(&name, TTL, clock.now().wall, None).map_err(|error| error.to_string())
                        })
                        .map_err(io::Error::other);
                    std::future::ready(token)
                })
            }
        }
    }
}
