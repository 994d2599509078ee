//! Parts of every machine: times, identifiers, randomness, tables, timers and rates.

pub(crate) mod agenda;
pub mod backoff;
pub(crate) mod bug;
pub(crate) mod config_error;
pub mod id;
pub(crate) mod keyed_hasher;
pub mod plant;
pub mod rate;
pub mod rng;
pub(crate) mod slab;
pub mod time;
