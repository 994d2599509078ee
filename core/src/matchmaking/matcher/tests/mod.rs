//! Tests of desks and matchers together, on one registry.

mod absence;
mod clients;
mod cluster;
mod crossing;
mod crowd;
mod filling;
mod largest;
mod missing;
mod network;
mod oracle;
mod random;
mod rules;
mod searches;
