//! Target `machine`: bytes as steps of the simulator's machine world.
//!
//! Input: eight bytes for the seed that draws sizes, limits and the network, then six
//! bytes for each step; see [`skirmish_sim::draw::from_bytes`].

use skirmish_sim::draw;
use skirmish_sim::world::{RunOptions, run};

/// Most steps; longer runs find little more and cost a fuzzer its speed.
const MAX_STEPS: usize = 100;

/// Whatever is done to one node and its clients, every oracle is content.
///
/// # Panics
///
/// A guarantee is broken. The message holds the scenario: written to a file, it can be
/// run again and made shorter with `cargo sim replay --schedule FILE --shrink`.
pub fn machine(input: &[u8]) {
    let scenario = draw::from_bytes(&input[..input.len().min(8 + 6 * MAX_STEPS)]);
    let outcome = run(&scenario, RunOptions::default());
    if let Some((at, violation)) = outcome.violation {
        panic!("{violation} (at {at} us)\n{scenario}");
    }
}
