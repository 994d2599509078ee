//! Tests of player tickets and matchers together, on one registry.

mod absence;
mod answers;
mod attendance;
mod backfill;
mod clients;
mod cluster;
mod crossing;
mod crowd;
mod largest;
mod network;
mod oracle;
mod quits;
mod random;
mod rules;
mod searches;
