//! The shell's registry on real etcds: what a node gets when all is well, and when it is not.

mod asker;
mod auth;
mod chaos;
mod client;
mod grouped;
mod watches;
