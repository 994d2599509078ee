//! `skirmish bots`: many players through the real client over real sockets (row O2).
//!
//! Each bot is a [`Driver`](crate::client::Driver) in a task of its own, without a channel in
//! between: the driver calls the bot for each event. All bots share one thread, so that they can be
//! pinned to one core beside the server. They also share one `world`, which has the counters and
//! the checks of the guarantees (`verdict`).
//!
//! Load is offered on a schedule that does not wait for the server (open loop): each message has a
//! due time, and its latency counts from then. A server that stalls is charged for all of the
//! delay; so is a bot that is cut off.
//!
//! ```text
//! skirmish bots --players 1000 --room-size 10 --rate 2 --duration 30s --disconnect-rate 0.01
//! skirmish bots --match duel --players 200 --duration 30s --cancel-rate 0.1
//! ```

mod battle;
mod body;
mod churn;
mod cuts;
mod gather;
mod interrupt;
mod local;
mod match_mode;
mod options;
mod player;
mod process;
mod progress;
mod report;
mod stats;
mod swarm;
mod tokens;
mod verdict;
mod world;

use std::io;
use std::sync::Arc;

pub use interrupt::Interrupts;
pub use match_mode::{MatchOptions, MatchReport};
pub use options::{MessageClass, Mode, Options, SchedulePhase};
pub use report::{GuaranteeReport, Latencies, Report, ServerReport, Verdict};

use skirmish_core::time::Duration;

use crate::client::DialError;
use interrupt::Interruption;

/// Maximum time for ending the sessions.
const FAREWELL: Duration = Duration::from_secs(5);

/// The reason for a missing report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that makes no sense.
    #[error("{option}: {problem}")]
    Option {
        /// The option.
        option: &'static str,
        /// The problem with its value.
        problem: String,
    },
    /// The limit on file descriptors is too low for so many players.
    #[error(
        "so many players need {needed} file descriptors, the limit is {limit}: take fewer players, raise the \
         limit (ulimit -n), or run the server in a process of its own"
    )]
    Descriptors {
        /// Needed descriptors.
        needed: u64,
        /// Allowed descriptors.
        limit: u64,
    },
    /// The address of the server is invalid.
    #[error(transparent)]
    Address(#[from] DialError),
    /// Tokens cannot be signed.
    #[error("tokens: {0}")]
    Tokens(String),
    /// The server in this process did not start.
    #[error("cannot start a server: {0}")]
    LocalServer(String),
    /// Not every player got into its room.
    #[error("only {arrived} of {players} players got into their rooms{}", because(.trouble.as_deref()))]
    NotGathered {
        /// Players that got into their rooms.
        arrived: u32,
        /// All players.
        players: u32,
        /// The first error.
        trouble: Option<String>,
    },
    /// Interrupted before anything was measured.
    #[error("interrupted before anything was measured")]
    Interrupted,
    /// The runtime could not be started.
    #[error("cannot start the runtime: {0}")]
    Runtime(#[from] io::Error),
}

fn because(trouble: Option<&str>) -> String {
    trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default()
}

/// Runs the bots on this thread until they are done or interrupted, and reports the measurements so
/// far. To be called outside of any runtime; `interrupts` is called inside, before anything else.
///
/// # Errors
/// If an option is wrong, or the players cannot get in. A broken guarantee is not an error: see
/// [`Report::verdict`].
pub fn run<I: Interrupts>(options: Options, interrupts: impl FnOnce() -> I) -> Result<Report, Error> {
    options.check()?;
    let local = options.server.is_empty();
    let connections = match options.mode {
        Mode::Battle | Mode::Idle => u64::from(options.players),
        Mode::Churn => u64::from(options.inflight),
    };
    process::reserve_descriptors(if local { 2 * connections } else { connections })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (interrupts, interruption) = (interrupts(), Arc::<Interruption>::default());
        let heard = Arc::clone(&interruption);
        let hearing = tokio::spawn(async move { heard.hear(interrupts).await });
        let spinning = options.spin.then(|| tokio::spawn(spin()));
        let report = conduct(options, interruption).await;
        hearing.abort();
        if let Some(spinning) = spinning {
            spinning.abort();
        }
        report
    })
}

async fn conduct(options: Options, interruption: Arc<Interruption>) -> Result<Report, Error> {
    let swarm = swarm::Swarm::new(options, interruption)?;
    if swarm.options.matches.queue.is_some() {
        return match_mode::run(&swarm).await;
    }
    match swarm.options.mode {
        Mode::Battle | Mode::Idle => battle::run(&swarm).await,
        Mode::Churn => churn::run(&swarm).await,
    }
}

/// Never lets the runtime sleep: it polls the sockets again and again.
async fn spin() {
    loop {
        tokio::task::yield_now().await;
    }
}
