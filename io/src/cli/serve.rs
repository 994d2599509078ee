//! `skirmish serve`.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use skirmish_core::id::Name;
use skirmish_core::node::budget::Size;
use tracing::{info, warn};

use super::{CommandFailure, ConfigArgs, descriptors, dev, load, log, output};
use crate::clock::Clock;
use crate::config::Sources;
use crate::server::{Excess, Server, StartError};
use crate::token::Keys;

/// Lifetime of the token that is printed at the start of a development server.
const DEV_TTL: Duration = Duration::from_secs(24 * 3600);

const EXAMPLES: &str = "\
Examples:
  skirmish serve --dev
      Play on this machine at once: a key of its own, and a token to connect with.
  skirmish serve --config skirmish.toml --listen 0.0.0.0:9500
      Serve with the keys and limits of a file.
  SKIRMISH_ROOMS__FLUSH_INTERVAL=50ms skirmish serve --config skirmish.toml
      Change one key by the environment: SKIRMISH_, sections set apart by two underscores.
  skirmish serve --config skirmish.toml --print-config
      See every key with its value, secrets redacted, and whether they are good.

The first SIGTERM or SIGINT drains the server: it takes no more connections, sends
everybody what they are owed and closes. The second stops it at once. SIGHUP, SIGUSR1 and
SIGUSR2 are logged and change nothing: the configuration is read at the start.

Exit code: 0 after a drain, 1 if it could not start, 2 if it was asked wrongly.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// For development: make a key (kept in .skirmish/dev.key), print a token, and listen
    /// on a loopback address only.
    #[arg(long)]
    dev: bool,
    /// Address for players; the same as `listen.address`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Address for health and metrics; the same as `admin.address`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin: Option<SocketAddr>,
    /// Log level or directives, such as `info,audit=warn`; the same as `log.level`.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Format of log lines; the same as `log.format`.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Print the configuration as it would be used, with secrets redacted, and stop.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl Serve {
    pub(super) fn run<F, S>(self, environment: &[(String, String)], shutdown: F) -> Result<(), CommandFailure>
    where
        F: FnOnce() -> S,
        S: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| CommandFailure::Failed(format!("cannot start the runtime: {e}")))?;
        // Before anything that takes time: until then a signal kills.
        let shutdown = {
            let _inside = runtime.enter();
            shutdown()
        };
        let sources = self.sources(environment)?;
        let mut config = load(&sources)?;
        if self.print_config {
            let text = config.to_toml().map_err(|e| CommandFailure::Failed(e.to_string()))?;
            return output::print(&(text + &config.budget_comments()));
        }
        keep_no_core_dump();
        let dev_key = if self.dev { Some(dev::prepare(&mut config)?) } else { None };
        let files = descriptors::raise_limit();
        // A configured number is kept, or refused with an error. The default is lowered to the
        // limit.
        let excess = if sources.sets("connections.total") { Excess::Refuse } else { Excess::Lower };
        let log = log::start(&config.log, environment)?;
        if config.auth.keys.is_empty() {
            let help = "configure auth.keys, or use --dev to try it out on this machine";
            return Err(CommandFailure::Usage(format!(
                "auth.keys: there is no key to check tokens with: {help}"
            )));
        }
        runtime.block_on(async {
            let keys = Keys::load(&config.auth).map_err(|e| start_error(StartError::Key(e)))?;
            let token = match &dev_key {
                Some(_) => Some(dev_token(&keys)?),
                None => None,
            };
            let scheme = if config.tls.certificate_file.is_some() { "wss" } else { "ws" };
            let path = config.listen.paths.first().cloned().unwrap_or_default();
            let builder = Server::builder(config).keys(keys).log(log.queue()).open_files(files, excess);
            let server = builder.bind().await.map_err(start_error)?;
            let url = format!("{scheme}://{}{path}", server.local_addr());
            let budget = server.budget();
            let (admin, link) = (server.admin_addr(), server.link_addr());
            let node = server.handle().inspect(skirmish_core::node::Node::id);
            info!(url, admin = admin.map(tracing::field::display), link = link.map(tracing::field::display), %node, "listening");
            let largest: Vec<String> = budget.items().iter().take(3).map(ToString::to_string).collect();
            info!(
                total = %Size(budget.total()),
                address = %Size(budget.of_address()),
                largest = largest.join("; "),
                "memory that the limits allow at most, in all and to one address"
            );
            if let (Some(file), Some(token)) = (dev_key, token) {
                print_aside(format!(
                    "Development server at {url}\n\
                     A token for the player `dev`, good for a day:\n\n  {token}\n\n\
                     More of them: skirmish token --dev --player NAME   (key: {})\n",
                    file.display()
                ));
            }
            server.run(shutdown).await;
            info!("stopped");
            Ok(())
        })
    }

    fn sources(&self, environment: &[(String, String)]) -> Result<Sources, CommandFailure> {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let format = self.log_format.map(|format| match format {
            Format::Human => "human".to_owned(),
            Format::Json => "json".to_owned(),
        });
        let named = [
            ("listen.address", self.listen.map(|a| a.to_string()), "--listen"),
            ("admin.address", self.admin.map(|a| a.to_string()), "--admin"),
            ("log.level", self.log.clone(), "--log"),
            ("log.format", format, "--log-format"),
        ];
        let named = named.into_iter().filter_map(|(key, value, flag)| Some((key, quoted(&value?), flag)));
        self.config.sources(environment, named.collect())
    }
}

/// Keeps the system from writing a core dump of this process, since keys and tokens are in memory.
/// An operator can allow core dumps from outside (`prlimit`), since the hard limit stays.
fn keep_no_core_dump() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    let none = rustix::process::Rlimit { current: Some(0), ..limit };
    // Lowering a soft limit is always allowed.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}

fn dev_token(keys: &Keys) -> Result<String, CommandFailure> {
    let player = Name::new("dev").map_err(|e| CommandFailure::Failed(e.to_string()))?;
    let wall = Clock::new().now().wall;
    keys.sign(&player, DEV_TTL, wall, None).map_err(|e| CommandFailure::Failed(e.to_string()))
}

fn start_error(error: StartError) -> CommandFailure {
    match error {
        StartError::Config(..) | StartError::NoKeys | StartError::OpenFiles(_) => {
            CommandFailure::Usage(error.to_string())
        }
        StartError::Key(_) | StartError::File(_) | StartError::Bind { .. } | StartError::Randomness(_) => {
            CommandFailure::Failed(error.to_string())
        }
    }
}

/// Prints a text on a thread of its own: the server must not wait for the reader of standard
/// output, and can serve players without one.
fn print_aside(text: String) {
    let print = move || {
        if let Err(error) = output::print(&text) {
            warn!("the token is not printed: {error}; `skirmish token --dev` prints one");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("output".to_owned()).spawn(print) {
        warn!("the token is not printed: {error}; `skirmish token --dev` prints one");
    }
}
