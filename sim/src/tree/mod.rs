//! Simulation of the broadcast tree: one primary that plans with the machine [`BroadcastTree`], and
//! followers that are only a window of the log with a parent, a spare and children.
//!
//! The followers are [`TreeStub`]s on a network in memory with a latency for each pair of nodes. The
//! primary broadcasts entries while nodes join, leave and die and while latencies and weights
//! change. Afterwards everything must come to rest. [`TreeOracle`] watches.
//!
//! [`BroadcastTree`]: skirmish_core::room::tree::BroadcastTree

mod message;
mod network;
mod oracle;
mod primary;
mod scenario;
mod stub;
mod table;
#[cfg(test)]
mod tests;
mod world;

pub use message::{TreeMessage, TreeSeen};
pub use network::TreeNetwork;
pub use oracle::TreeOracle;
pub use primary::TreePrimary;
pub use scenario::{TreeAction, TreeScenario, TreeStep, draw};
pub use stub::TreeStub;
pub use table::{TreeRow, measure};
pub use world::{TreeOutcome, TreeStats, run};
