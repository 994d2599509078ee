//! A room on a node, driven by hand.

mod roles;
mod search;
mod sites;
