//! Skirmish over real sockets, as seen by clients, operators and strangers.

mod abuse;
mod admin;
mod application;
mod command_line;
mod cut;
mod dev_key;
mod drain;
mod files;
mod frames;
mod handshake;
mod log;
mod matchmaking;
mod memory;
mod output;
mod proxies;
mod refusals;
mod restart;
mod shared_state;
mod signals;
mod silence;
mod slow_reader;
mod stalls;
mod takeover;
mod tls;
mod trace;
mod turns;
