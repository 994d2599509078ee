//! The command line: `skirmish serve`, `skirmish token`.

mod bots;
mod descriptors;
mod dev;
mod log;
mod output;
mod serve;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::bots::Interrupts;
use crate::config::{Config, Sources};

/// A real-time battle server.
#[derive(Debug, Parser)]
#[command(name = "skirmish", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server.
    Serve(serve::Serve),
    /// Make a token for a player.
    Token(token::Token),
    Bots(bots::Bots),
}

/// Sources of the configuration; the same for every command that has one.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Configuration")]
struct ConfigArgs {
    /// Read this TOML file; also set by SKIRMISH_CONFIG.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set any key, such as `heartbeat.interval=20s` or
    /// `auth.origins=["https://game.example"]`. May be repeated; wins over everything else.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

/// The reason for which a command has failed.
#[derive(Debug)]
enum CommandFailure {
    /// The arguments were wrong: exit code 2.
    Usage(String),
    /// The command has failed: exit code 1.
    Failed(String),
    /// The result is unknown: exit code 3.
    Unknown(String),
}

impl fmt::Display for CommandFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Failed(text) | Self::Unknown(text)) = self;
        f.write_str(text)
    }
}

/// Executes a command line. A server calls `shutdown` once, and bots call `interrupts`, before
/// anything else and inside their runtime: signals are received from then on. The future of
/// `shutdown` is ready when the server has to stop.
pub fn run<S, I>(
    arguments: impl IntoIterator<Item = OsString>,
    shutdown: impl FnOnce() -> S,
    interrupts: impl FnOnce() -> I,
) -> ExitCode
where
    S: Future<Output = ()>,
    I: Interrupts,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too, and are no errors.
            let printed = output::printed(error.print().and_then(|()| std::io::stdout().flush()));
            return match (error.exit_code(), printed) {
                (0, printed) => end(printed),
                (code, _) => ExitCode::from(u8::try_from(code).unwrap_or(2)),
            };
        }
    };
    end(match cli.command {
        Command::Serve(serve) => serve.run(&environment(), shutdown),
        Command::Token(token) => token.run(&environment()),
        Command::Bots(bots) => bots.run(interrupts),
    })
}

/// Prints the reason of a failure, if any. Returns the exit code.
fn end(done: Result<(), CommandFailure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::say(&format!("error: {failure}"));
            ExitCode::from(match failure {
                CommandFailure::Usage(_) => 2,
                CommandFailure::Failed(_) => 1,
                CommandFailure::Unknown(_) => 3,
            })
        }
    }
}

/// Waits until the last log lines are written, for a bounded time. For code that ends the process
/// at once.
pub fn flush_log() {
    log::flush();
}

/// Returns the environment variables that are text.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl ConfigArgs {
    /// Collects the sources of the configuration: the file, the environment and the flags. `named`
    /// are flags with a name of their own (key, value, flag); `--set` comes after them.
    fn sources(
        &self,
        environment: &[(String, String)],
        named: Vec<(&str, String, &str)>,
    ) -> Result<Sources, CommandFailure> {
        let from_environment = environment.iter().find(|(name, _)| name == "SKIRMISH_CONFIG");
        let path = self.config.clone().or_else(|| from_environment.map(|(_, path)| path.into()));
        let file = path.map(|path| match std::fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(CommandFailure::Usage(format!("{}: {error}", path.display()))),
        });
        let named = named.into_iter().map(|(key, value, flag)| (key.to_owned(), value, flag.to_owned()));
        let set = self.set.iter().map(|(key, value)| (key.clone(), value.clone(), "--set".to_owned()));
        Ok(Sources {
            file: file.transpose()?,
            environment: environment.to_vec(),
            flags: named.chain(set).collect(),
        })
    }
}

/// Loads the configuration from its sources.
fn load(sources: &Sources) -> Result<Config, CommandFailure> {
    Config::load(sources).map_err(|error| CommandFailure::Usage(error.to_string()))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
