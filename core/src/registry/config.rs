//! What a registry is told at its start: caps, and where etcd has options of its own.

use crate::base::time::Duration;

/// Configuration of a [`super::Registry`]. [`Default`] is fit for the embedded one;
/// [`RegistryConfig::etcd`] is etcd as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// The newest revision at the start, from 1. Above 1 it counts as compacted: a registry
    /// that starts empty above every revision of an earlier one is taken for one that has
    /// forgotten, and its watches are told so.
    pub base_revision: u64,
    /// Bytes stored: keys and values of every revision that can still be read, and 256 for
    /// each version of a key.
    pub bytes: usize,
    /// Changes remembered for reads at a revision and for watches; the oldest half is
    /// compacted when there are more. The changes of the newest compacted revision stay on
    /// top of them. `None`: all of them, until somebody compacts, as etcd does.
    pub history: Option<usize>,
    /// Leases in all.
    pub leases: usize,
    /// The shortest time to live that a lease gets, in seconds. etcd makes it one and a
    /// half election timeouts, rounded up: 2 if nothing is set.
    pub min_ttl_s: u64,
    /// What a new leader adds to the full time to live that it gives each lease.
    pub election_timeout: Duration,
    /// Watches in all.
    pub watches: usize,
    /// Changes that are told at once, but for the rest of the last one's revision.
    pub watch_batch: usize,
    /// Between two looks at which watches were told nothing since the last one.
    pub progress_interval: Duration,
    /// Steps or comparisons of a transaction, and of the longest path through those in it.
    pub ops: usize,
    /// Size of a request that writes: keys, values, and 8 for each step and comparison.
    pub request_bytes: usize,
    /// Whether a compaction that is asked for forgets the deletions of its own revision, so
    /// that a watch from that revision, which is allowed, misses them. etcd did before 3.5.16.
    pub forgets_deletions: bool,
    /// Whether leases end only in [`super::Registry::handle_timeout`], not when another request
    /// finds them due: for the registry in the process of its only node, which keeps them alive
    /// first when both have stood still.
    pub patient: bool,
}

impl RegistryConfig {
    /// etcd with its default options, but bounded in leases and watches: the simulated
    /// one, and the one that is compared to the real one.
    #[must_use]
    pub const fn etcd() -> Self {
        Self {
            base_revision: 1,
            bytes: 2 * 1024 * 1024 * 1024,
            history: None,
            leases: 1 << 20,
            min_ttl_s: 2,
            election_timeout: Duration::from_secs(1),
            watches: 1 << 16,
            watch_batch: 1000,
            progress_interval: Duration::from_secs(600),
            ops: 128,
            request_bytes: 3 * 512 * 1024,
            forgets_deletions: false,
            patient: false,
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            bytes: 256 * 1024 * 1024,
            history: Some(4 * 1024),
            leases: 64 * 1024,
            min_ttl_s: 1,
            watches: 1024,
            progress_interval: Duration::from_secs(30),
            patient: true,
            ..Self::etcd()
        }
    }
}
