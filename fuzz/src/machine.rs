//! Target `machine`: bytes as steps of the simulator's machine world.
//!
//! Input: eight bytes for the seed that determines sizes, limits and the network, then six bytes for each
//! step; see [`skirmish_sim::draw::from_bytes`].

use skirmish_sim::draw;
use skirmish_sim::world::{RunOptions, run};

/// Maximum number of steps; longer runs find little more and slow a fuzzer down.
const MAX_STEPS: usize = 100;

/// Checks that every oracle accepts the run, for any input of one node and its clients.
///
/// # Panics
///
/// If a guarantee is broken. The message contains the scenario: written to a file, the scenario can be run
/// again and shrunk with `cargo sim replay --schedule FILE --shrink`.
pub fn machine(input: &[u8]) {
    let scenario = draw::from_bytes(&input[..input.len().min(8 + 6 * MAX_STEPS)]);
    let outcome = run(&scenario, RunOptions::default());
    if let Some((at, violation)) = outcome.violation {
        panic!("{violation} (at {at} us)\n{scenario}");
    }
}
