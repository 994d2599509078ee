//! Configuration of a registrar.

use crate::base::backoff::Spread;
use crate::base::config_error::{ConfigError, Problem, check};
use crate::base::time::Duration;

/// Configuration of a [`super::Registrar`]. [`Default`] is fit for production.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrarConfig {
    /// Time to live of the lease for the node's record, in whole seconds. Default: 10 s.
    pub node_ttl: Duration,
    /// Time to live of the lease for sessions and rooms (row M1), in whole seconds. Default: 60 s.
    pub room_ttl: Duration,
    /// Share of a time to live that the node does not rely on, in percent. Covers a registry's clock that
    /// runs faster than the node's, and a pause between a look at the clock and the action that follows.
    /// Default: 10.
    pub margin_percent: u8,
    /// Time after which an unanswered request counts as [`crate::registry::Failure::Unknown`]. Default: 2 s.
    pub call_timeout: Duration,
    /// Time after which a claim without an outcome is answered as `Unavailable`. Default: 5 s.
    pub claim_timeout: Duration,
    /// Shortest wait before a retry. Default: 100 ms.
    pub backoff_min: Duration,
    /// Longest wait before a retry. Default: 3 s.
    pub backoff_max: Duration,
    /// Shortest time between two refreshes of the node's record. Default: 5 s.
    pub refresh: Duration,
    /// Shortest time between two writes of a room's record for its members and its turn, so that writes do
    /// not grow with play. Default: 5 s.
    pub room_refresh: Duration,
    /// Time between two checks that the registry takes writes. Default: 2 s.
    pub write_check: Duration,
    /// Requests about sessions and rooms in flight at once; further ones wait in the queue. Default: 256.
    pub in_flight: usize,
    /// Requests of `in_flight` that may check or restore existing registrations. Default: 64.
    pub batch: usize,
    /// Longest random wait before sessions are registered again, so that nodes that lost their leases
    /// together do not register together. Default: 1 s.
    pub jitter: Duration,
    /// Claims that may wait for their outcome; further ones are refused with [`super::Full`]. Default: 4,096.
    pub claims: usize,
    /// Sessions and rooms, held or asked for; further ones are refused with [`super::Full`]. Default: 65,536.
    pub keys: usize,
    /// Page size of directory reads, in records. Default: 500.
    pub page: u32,
}

impl RegistrarConfig {
    /// Returns the shortest time for which the records of sessions and rooms outlive a node that dies: the
    /// lease is renewed after a third of its time to live.
    pub(crate) fn outlives(&self) -> Duration {
        self.room_ttl * 2 / 3
    }

    /// Waits before a retry.
    pub(super) fn backoff(&self) -> Spread {
        Spread::new(self.backoff_min, self.backoff_max)
    }

    /// Checks that the values are consistent.
    ///
    /// # Errors
    /// Returns the first key whose value does not fit, and the condition that the value breaks.
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
            room_refresh: Duration::from_secs(5),
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
