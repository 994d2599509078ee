//! The shell of Skirmish: all code that does IO.
//!
//! The shell feeds the machines of [`skirmish_core`] with sockets, timers and configuration, and
//! leaves every decision to them: [`server`] drives a node, [`client`] drives a player, [`bots`]
//! drives many. The binary `skirmish` is the command line of this library.

pub mod bots;
#[cfg(not(madsim))]
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod log_queue;
pub mod registry;
mod rounds;
pub mod server;
pub mod token;
