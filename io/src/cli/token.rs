//! `skirmish token`.

use std::time::Duration;

use clap::Args;
use skirmish_core::id::Name;

use super::{ConfigArgs, Failure, dev, load, output};
use crate::clock::Clock;
use crate::token::Keys;

const EXAMPLES: &str = "\
Examples:
  skirmish token --dev --player alice
      A token for a server that was started with `skirmish serve --dev` in this directory.
  skirmish token --config skirmish.toml --player alice --player bob --ttl 10m
      Two tokens, one a line, signed with a key of the file.

A client sends the token in the header X-Game-Token of the upgrade request; a browser,
which cannot, offers the subprotocols `skirmish.v1` and `token.TOKEN`.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Token {
    /// The player's name: 1 to 64 of A-Z a-z 0-9 . _ : -. May be repeated.
    #[arg(long, value_name = "NAME", required = true, value_parser = Name::new)]
    player: Vec<Name>,
    /// How long the token is good.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Sign with the key of this id, instead of `auth.signing`.
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// Sign with the key of a development server (.skirmish/dev.key).
    #[arg(long)]
    dev: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Token {
    pub(super) fn run(self, environment: &[(String, String)]) -> Result<(), Failure> {
        let mut config = load(&self.config.sources(environment, Vec::new())?)?;
        if self.dev {
            dev::prepare(&mut config)?;
        }
        if config.auth.keys.is_empty() {
            let help = "name a file with --config, or use --dev";
            return Err(Failure::Usage(format!("auth.keys: there is no key to sign with: {help}")));
        }
        let failed = |error: crate::token::KeyError| Failure::Failed(format!("auth.keys: {error}"));
        let keys = Keys::load(&config.auth).map_err(failed)?;
        let wall = Clock::new().now().wall;
        for player in &self.player {
            let token = keys.sign(player, self.ttl, wall, self.kid.as_deref()).map_err(failed)?;
            output::print(&format!("{token}\n"))?;
        }
        Ok(())
    }
}
