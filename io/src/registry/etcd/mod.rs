//! etcd as the registry: the task that owns the connection.

mod connect;
mod driver;
mod lease;
mod link;
mod outcome;
mod request;
mod response;
mod send;
mod watch;

use skirmish_core::backoff::Backoff;
use skirmish_core::registry::{GroupCommit, GroupConfig};
use skirmish_core::rng::{Rng, Seed};

use self::connect::Dialer;
use self::driver::EtcdDriver;
use super::Remote;
use crate::clock::Clock;
use crate::config::RegistryEtcd;

pub use self::connect::OptionsError;

/// Starts the task on the current runtime. The task connects by itself, however long that takes,
/// and ends when the registry is dropped.
///
/// # Errors
/// If the options are unusable. An unreachable etcd is no error here.
pub fn start(options: &RegistryEtcd, clock: Clock, seed: Seed) -> Result<Remote, OptionsError> {
    let dialer = Dialer::new(options)?;
    let groups = GroupCommit::new(GroupConfig {
        waiting: options.requests,
        members: options.group_requests,
        bytes: options.group_bytes,
        in_flight: options.groups,
        patience: options.request_timeout,
    });
    let (remote, backend) = Remote::new(options.requests, options.watches);
    let driver = EtcdDriver::new(
        clock,
        Rng::new(seed),
        dialer,
        Backoff::new(options.backoff_min, options.backoff_max),
        groups,
        backend,
    );
    tokio::spawn(driver.run());
    Ok(remote)
}
