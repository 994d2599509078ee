//! `skirmish token`.

use std::time::Duration;

use clap::Args;
use skirmish_core::id::Name;

use super::{CommandFailure, ConfigArgs, dev, load, output};
use crate::clock::Clock;
use crate::token::Keys;

/// Longest lifetime of a token: ten years of humantime.
const LONGEST_TTL: Duration = Duration::from_secs(10 * 31_557_600);

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
    /// Lifetime of the token: from 1s to 10years, such as 90s, 10m or "1h 30m".
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_ttl)]
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
    pub(super) fn run(self, environment: &[(String, String)]) -> Result<(), CommandFailure> {
        let mut config = load(&self.config.sources(environment, Vec::new())?)?;
        if self.dev {
            dev::prepare(&mut config)?;
        }
        if config.auth.keys.is_empty() {
            let help = "name a file with --config, or use --dev";
            return Err(CommandFailure::Usage(format!("auth.keys: there is no key to sign with: {help}")));
        }
        let failed = |error: crate::token::KeyError| CommandFailure::Failed(format!("auth.keys: {error}"));
        let keys = Keys::load(&config.auth).map_err(failed)?;
        let wall = Clock::new().now().wall;
        for player in &self.player {
            let token = keys.sign(player, self.ttl, wall, self.kid.as_deref()).map_err(failed)?;
            output::print(&format!("{token}\n"))?;
        }
        Ok(())
    }
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl < Duration::from_secs(1) {
        return Err("a token must be good for at least 1s, such as 10m".to_owned());
    }
    if ttl > LONGEST_TTL {
        return Err("a token may be good for at most 10years: it cannot be called back".to_owned());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_which_no_token_is_good_is_refused() {
        for (text, says) in [
            ("0s", "at least 1s"),
            ("0", "at least 1s"),
            ("999ms", "at least 1s"),
            ("10years 1day", "at most 10years"),
            ("300000000000years", "at most 10years"),
        ] {
            let error = parse_ttl(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        for bad in ["", "-1h", "1e400s", "tomorrow", "99999999999999999999s"] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_ttl("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_ttl("10years"), Ok(LONGEST_TTL));
    }
}
