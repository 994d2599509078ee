//! The registry of the core and real etcds do the same: answers, errors, revisions, and
//! what watches tell, for generated sequences ([`random`]) and named ones ([`cases`]).
//!
//! Sequences run one after the other on one etcd, each from a state without keys and
//! leases, with the machine's revisions starting at etcd's. What is not compared: progress
//! of watches and the cut of changes into messages, which etcd leaves open; what is left of
//! a lease, but for its bounds; requests within a few bytes of the largest; and those that
//! etcd does not survive ([`crashes_etcd`](generate::crashes_etcd)).

mod cases;
mod expiry;
mod full;
mod generate;
mod pair;
mod random;
mod real;
