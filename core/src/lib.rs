//! The core of Skirmish: a whole server node, and a whole client, as pure state
//! machines.
//!
//! The crate reads no clock, opens no socket, starts no thread and draws no ambient randomness. It
//! is `no_std`, so the compiler proves this. The production program feeds the machines sockets,
//! timers and configuration; the simulator feeds them the same things from a seed.
//!
//! # The driving contract
//!
//! Every machine has four classes of method: getters; inputs (`handle_*`, which
//! take the time as [`time::Now`]); commands; and polls (`poll_*`). A driver
//!
//! 1. gives the machine **one** input or command,
//! 2. drains `poll_output` until it returns `None`,
//! 3. asks `poll_transmit` for the frames of every connection that was woken, as far as the
//!    connection's socket accepts them,
//! 4. asks `poll_timeout` for the deadline (and its reason) and sleeps until the deadline or until
//!    another input, whichever is first,
//! 5. calls `handle_timeout` when the deadline is due. A call that is early or repeated is
//!    harmless.
//!
//! **Input comes before time.** A call of `handle_timeout` with the time `t` says that the driver
//! has already passed on everything that had arrived until `t`: from sockets, from queues of
//! connections to accept, and from the registry. After a pause of its process a driver reads first.
//! The driver postpones a deadline for a fixed number of rounds at most, so endless input starves
//! no deadline. A machine judges the silence of a peer in `handle_timeout` only, never in another
//! input. A machine that finds such a deadline [late](time::LATE) postpones the deadline once,
//! since the peer may need a round trip with a driver that stood still.
//!
//! Time must not go backwards from input to input; `handle_timeout` may be given the
//! time at which the reading before it began. Output that is queued counts as a
//! deadline that is due now. After a fatal error the error is the state: every
//! later input is ignored.
//!
//! # Where things are
//!
//! A message from one player to another passes [`wire`] (bytes to message), [`node`] (connection
//! and session), [`room`] (the log), and [`wire`] again; [`client`] is the other end. [`crdt`] is
//! the part of a room's state that every member may change at any time.
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
#[cfg(test)]
mod transitions;
pub mod wire;

pub use base::{backoff, id, plant, rate, rng, time};
