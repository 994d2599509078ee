//! Tests of desks and matchers together, on one registry.

mod clients;
mod cluster;
mod network;
mod oracle;
mod random;
mod rules;
