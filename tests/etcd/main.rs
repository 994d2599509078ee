//! The shell's registry on real etcds, with and without faults.

mod asker;
mod auth;
mod chaos;
mod client;
mod grouped;
mod watches;
