//! The shell world: servers and the client library of the shell, compiled with
//! `--cfg madsim`, as processes on simulated hosts: real tasks, timers, WebSocket
//! handshakes, links, kills and restarts, on a simulated runtime and network. One server
//! has its registry in the process, or it is on a host of its own, and there are up to
//! three of them.
//!
//! It checks the same guarantees as the machine world, from what the applications of
//! the clients are told, and covers what bare machines have none of: the driver loops,
//! the order of their wake-ups, queues between tasks, cancellation. What the simulated
//! network does not do like a real one is written at [`dial`] and [`stage`].
//!
//! A run is wholly decided by its seed if it is the only one of its process: the
//! runtime's libraries keep some state for the whole process. [`hunt`] therefore starts
//! one process for each run.

mod act;
mod agreement;
mod clients;
mod cluster;
mod dial;
mod etcd;
mod guard;
mod heal;
pub mod hunt;
mod ledger;
mod line;
mod matches;
mod plan;
mod player;
mod queues;
mod seats;
mod servers;
mod stage;
mod store;

use std::sync::Arc;

use madsim::runtime::Runtime;

use crate::history::Actor;
use crate::world::{RunOptions, RunOutcome};
use ledger::SharedLedger;
use stage::Hosts;

/// Runs the scenario of a seed. Only the first run of a process is the one that the seed
/// stands for.
#[must_use]
pub fn run(seed: u64, options: RunOptions) -> RunOutcome {
    let plan = Arc::new(plan::draw(seed));
    let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    let (shared, micros, result) = runtime.block_on(async {
        let shared = SharedLedger::new(&plan, options.traced);
        let result = Hosts::new(plan, shared.clone(), options.plant).live().await;
        // Says of two runs whether as many packets were sent.
        let packets = madsim::net::NetSim::current().stat().msg_count;
        shared.lock().note(Actor::World, format_args!("the end, after {packets} packets"));
        (shared.clone(), ledger::at(), result)
    });
    let mut ledger = shared.lock();
    (0..ledger.servers.len()).for_each(|server| ledger.retire(server));
    ledger.retire_match_counts();
    let violation = result.err().map(|violation| (micros, violation));
    let (hash, coverage) = (ledger.history.hash(), std::mem::take(&mut ledger.coverage));
    let history = std::mem::take(&mut ledger.history);
    RunOutcome { hash, violation, micros, coverage, history }
}
