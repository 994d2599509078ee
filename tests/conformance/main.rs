//! The core's registry and real etcds give the same answers, errors, revisions and news of watches, for
//! generated sequences ([`random`]) and named ones ([`cases`]).
//!
//! Sequences run one after the other on one etcd, each from a state without keys and leases, with the
//! machine's revisions starting at etcd's. Not compared are: the progress of watches and the split of changes
//! into messages, which etcd leaves open; the remaining time of a lease, except for its bounds; requests
//! within a few bytes of the limit; and requests that crash etcd ([`crashes_etcd`](generate::crashes_etcd)).

mod cases;
mod expiry;
mod full;
mod generate;
mod pair;
mod random;
mod real;
