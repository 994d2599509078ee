//! Several nodes, each in a process of its own, with a real etcd: the view of players, also during failures
//! of etcd, and the actions of strangers.

mod bot_matches;
mod chaos;
mod clocks;
mod deployments;
mod files;
mod goes_back;
mod holders;
mod links;
mod logins;
mod matches;
mod mutual_tls;
mod nodes;
mod pairs;
mod refusals;
mod registry;
mod rooms;
mod sessions;
mod trace;
mod valve;
