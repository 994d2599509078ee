//! The shell world: servers and the client library of the shell, compiled with `--cfg madsim`, as
//! processes on simulated hosts: real tasks, timers, WebSocket handshakes, links, kills and
//! restarts, on a simulated runtime and network. One server has its registry in the process. Or the
//! registry has a host of its own, and there are up to three servers.
//!
//! The world checks the same guarantees as the machine world, from the events of the clients'
//! applications. It covers parts that bare machines do not have: the driver loops, the order of
//! their wake-ups, queues between tasks, cancellation. The differences between the simulated
//! network and a real one are described at [`dial`] and [`hosts`].
//!
//! The seed decides a run wholly only if the run is the first of its process: the runtime's
//! libraries keep some state for the whole process. [`hunt`] therefore starts one process for each
//! run.

mod actions;
mod agreement;
mod clients;
mod cluster;
mod dial;
mod etcd;
mod heal;
mod hosts;
pub mod hunt;
mod ledger;
mod matches;
mod plan;
mod player;
mod processes;
mod queues;
mod registry_link;
mod registry_state;
mod servers;
mod write_watch;

use std::sync::Arc;

use madsim::runtime::Runtime;

use crate::history::Actor;
use crate::world::{RunOptions, RunOutcome};
use hosts::Hosts;
use ledger::SharedLedger;

/// Runs the scenario of a seed. Only the first run of a process is reproducible from the seed.
#[must_use]
pub fn run(seed: u64, options: RunOptions) -> RunOutcome {
    let plan = Arc::new(plan::draw(seed));
    let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    let (shared, micros, result) = runtime.block_on(async {
        let shared = SharedLedger::new(&plan, options.traced);
        let result = Hosts::new(plan, shared.clone(), options.plant).live().await;
        // The count of packets shows a difference between two runs.
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
