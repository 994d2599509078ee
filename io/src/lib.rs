//! The shell of Skirmish: everything that touches the world.
//!
//! It feeds the machines of [`skirmish_core`] sockets, timers and configuration, and
//! decides nothing that they could: [`server`] drives a node, [`client`] drives a
//! player, [`bots`] drives many. The binary `skirmish` is this library's command line.

pub mod bots;
#[cfg(not(madsim))]
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod log_queue;
pub mod registry;
pub mod server;
pub mod token;
mod turns;
