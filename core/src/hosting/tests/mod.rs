//! A room on a node, driven by hand.

mod pairs;
mod record;
mod roles;
mod search;
mod sites;
