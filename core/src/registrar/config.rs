//! What a registrar is told at its start.

use crate::base::backoff::Spread;
use crate::base::config_error::{ConfigError, Problem, check};
use crate::base::time::Duration;

/// Configuration of a [`super::Registrar`]. [`Default`] is fit for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrarConfig {
    /// Time to live of the lease that the node's record and its sessions have; whole seconds.
    pub node_ttl: Duration,
    /// Time to live of the lease that rooms have (row M1); whole seconds.
    pub room_ttl: Duration,
    /// How much of a time to live is not relied on, in percent: what the registry's clock
    /// may run faster than the node's, and a pause between a look at the clock and what
    /// is done then.
    pub margin_percent: u8,
    /// What is not answered within this time counts as [`crate::registry::Failure::Unknown`].
    pub call_timeout: Duration,
    /// A claim without an outcome within this time is `Unavailable`.
    pub claim_timeout: Duration,
    /// Shortest wait before something is tried again.
    pub backoff_min: Duration,
    /// Longest wait before something is tried again.
    pub backoff_max: Duration,
    /// Shortest time from one refreshing of the node's record to the next.
    pub refresh: Duration,
    /// Shortest time from one writing of a room's record to the next, but when the turn
    /// changes.
    pub room_refresh: Duration,
    /// Time from one check that the registry takes writes to the next.
    pub write_check: Duration,
    /// Requests about sessions and rooms that may be in flight.
    pub in_flight: usize,
    /// Those of them that register again what was registered before, or check it.
    pub batch: usize,
    /// Sessions are registered again after a random time up to this one, so that nodes that
    /// lost their leases together do not come back together.
    pub jitter: Duration,
    /// Claims that may wait for their outcome.
    pub claims: usize,
    /// Sessions and rooms, held or asked for.
    pub keys: usize,
    /// Records in an answer when all are read.
    pub page: u32,
}

impl RegistrarConfig {
    /// Waits before what failed is tried again.
    pub(super) fn backoff(&self) -> Spread {
        Spread::new(self.backoff_min, self.backoff_max)
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// The first key whose value does not fit, and the condition that it does not meet.
    pub fn validate(&self) -> Result<(), ConfigError> {
        use Problem::{Least, LeastOf, LeastTime, Range, ThirdOfLeases, WholeSeconds, Zero};
        let shortest = Duration::from_secs(2);
        for (key, ttl) in [("cluster.node_ttl", self.node_ttl), ("cluster.room_ttl", self.room_ttl)] {
            check(ttl >= shortest, key, LeastTime(shortest))?;
            check(ttl.subsec_nanos() == 0, key, WholeSeconds)?;
        }
        check((1..=50).contains(&self.margin_percent), "registrar.margin_percent", Range(1, 50))?;
        check(!self.call_timeout.is_zero(), "registrar.call_timeout", Zero)?;
        check(
            self.call_timeout.saturating_mul(3) <= self.node_ttl.min(self.room_ttl),
            "registrar.call_timeout",
            ThirdOfLeases,
        )?;
        check(!self.claim_timeout.is_zero(), "registrar.claim_timeout", Zero)?;
        check(!self.backoff_min.is_zero(), "registrar.backoff_min", Zero)?;
        check(
            self.backoff_max >= self.backoff_min,
            "registrar.backoff_max",
            LeastOf("registrar.backoff_min"),
        )?;
        check(!self.write_check.is_zero(), "registrar.write_check", Zero)?;
        check(self.batch > 0, "registrar.batch", Least(1))?;
        check(self.in_flight >= self.batch, "registrar.in_flight", LeastOf("registrar.batch"))?;
        check(self.claims > 0, "registrar.claims", Least(1))?;
        check(self.keys > 0, "registrar.keys", Least(1))?;
        check(self.page > 0, "registrar.page", Least(1))
    }
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            node_ttl: Duration::from_secs(10),
            room_ttl: Duration::from_secs(60),
            margin_percent: 10,
            call_timeout: Duration::from_secs(2),
            claim_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(3),
            refresh: Duration::from_secs(5),
            room_refresh: Duration::from_secs(1),
            write_check: Duration::from_secs(2),
            in_flight: 256,
            batch: 64,
            jitter: Duration::from_secs(1),
            claims: 4_096,
            keys: 65_536,
            page: 500,
        }
    }
}
