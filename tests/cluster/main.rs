//! Several nodes, each a process of its own, with a real etcd between them: what players
//! see of it, also while etcd fails, and what strangers do.

mod chaos;
mod clocks;
mod deployments;
mod evenings;
mod files;
mod goes_back;
mod holders;
mod links;
mod logins;
mod matches;
mod mutual_tls;
mod nodes;
mod refusals;
mod registry;
mod rooms;
mod sessions;
mod trace;
mod valve;
