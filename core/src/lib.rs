//! The core of Skirmish: a whole server node, and a whole client, as pure state
//! machines.
//!
//! Nothing in here reads a clock, opens a socket, starts a thread or draws on
//! ambient randomness; the crate is `no_std`, so the compiler is the proof. The
//! production program feeds the machines sockets, timers and configuration; the
//! simulator feeds them the same things from a seed.
//!
//! # The driving contract
//!
//! Every machine has four classes of method: getters; inputs (`handle_*`, which
//! take the time as [`time::Now`]); commands; and polls (`poll_*`). A driver
//!
//! 1. gives the machine **one** input or command,
//! 2. drains `poll_output` until it returns `None`,
//! 3. asks `poll_transmit` for the frames of every connection that was woken, as
//!    far as that connection's socket takes them,
//! 4. asks `poll_timeout` for the deadline (and its reason) and sleeps until then
//!    or until there is another input, whichever is first,
//! 5. calls `handle_timeout` when the deadline has come. Calling it early or twice
//!    is harmless.
//!
//! **Input comes before time.** `handle_timeout` with the time `t` says that everything that
//! had arrived until `t` was given before: in sockets, queues of connections to accept, and
//! answers of the registry. After a pause of its process a driver reads first. It puts a
//! deadline off for a fixed number of turns at most, so endless input starves none. A machine
//! judges how long others take in `handle_timeout` only, never in another input; and it puts
//! such a deadline off once if it finds it [late](time::LATE), since whoever it waits for may
//! need a round trip with a driver that stood still.
//!
//! Time must not go backwards from input to input; `handle_timeout` may be given the
//! time at which the reading before it began. Output that is queued counts as a
//! deadline that is due now. After a fatal error the error is the state: every
//! later input is ignored.
//!
//! # Where things are
//!
//! A message on its way from one player to another passes [`wire`] (bytes to
//! message), [`node`] (which connection, which session), [`room`] (the log), and
//! [`wire`] again; [`client`] is the other end. [`crdt`] is the part of a room's
//! state that everybody may change at any time.
#![no_std]

extern crate alloc;

mod base;
pub mod client;
pub mod config;
pub mod crdt;
mod hosting;
pub mod matchmaking;
pub mod node;
pub mod registrar;
pub mod registry;
pub mod room;
mod session;
#[cfg(test)]
mod transitions;
pub mod wire;

pub use base::{backoff, id, plant, rate, rng, time};
