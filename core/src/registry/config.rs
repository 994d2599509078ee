//! Configuration of a registry: caps, and the options in which etcds differ.

use crate::base::time::Duration;

/// Configuration of a [`super::Registry`]. [`Default`] fits the embedded registry; [`RegistryConfig::etcd`]
/// has etcd's default options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Newest revision at the start, from 1. Default: 1. A higher value counts as compacted: an empty
    /// registry that starts above all revisions of an earlier one then counts as one that has forgotten its
    /// past, and its watches are notified of the compaction.
    pub base_revision: u64,
    /// Stored bytes: keys and values of all readable revisions, plus 256 for each version of a key. Default:
    /// 256 MiB. Above the bound a write compacts the history, if `history` has a bound, or is refused with
    /// [`super::Error::NoSpace`].
    pub bytes: usize,
    /// Changes in the history, for reads at a revision and for watches. Default: 4,096. Above the bound the
    /// oldest half is compacted. The changes of the newest compacted revision come on top. `None`: all
    /// changes until a compaction is requested, as in etcd.
    pub history: Option<usize>,
    /// Leases in total. Default: 65,536. Further ones are refused with [`super::Error::NoSpace`].
    pub leases: usize,
    /// Shortest time to live of a lease, in seconds; shorter ones are raised. Default: 1. etcd's is one and a
    /// half election timeouts, rounded up: 2 by default.
    pub min_ttl_s: u64,
    /// Time that a new leader adds to the full time to live of each lease. Default: 1 s.
    pub election_timeout: Duration,
    /// Watches in total. Default: 1,024. Further ones are refused with [`super::Error::NoSpace`].
    pub watches: usize,
    /// Changes in one report of a watch. Default: 1,000. The rest of the last change's revision comes on top.
    pub watch_batch: usize,
    /// Time between two searches for watches without news, which then get [`super::News::Progress`]. Default:
    /// 30 s.
    pub progress_interval: Duration,
    /// Number of steps or comparisons of a transaction, along the longest path through nested transactions.
    /// Default: 128. Larger transactions are refused with [`super::Error::TooManyOps`].
    pub ops: usize,
    /// Size of a request that writes, in bytes: keys, values, and 8 for each step and comparison. Default:
    /// 1.5 MiB. Larger requests are refused with [`super::Error::TooLarge`].
    pub request_bytes: usize,
    /// True if a requested compaction forgets the deletions of its own revision, so that a watch from that
    /// revision, which is allowed, misses these deletions. Default: false. etcd before 3.5.16 forgets them.
    pub forgets_deletions: bool,
    /// True if leases end only in [`super::Registry::handle_timeout`], and not when another request finds
    /// them due. Default: true. Fits a registry in the process of its only node: after a standstill of both,
    /// the node first keeps its leases alive.
    pub patient: bool,
}

impl RegistryConfig {
    /// Returns etcd's default options, with bounds for leases and watches. Used for the simulated etcd and
    /// for the comparison with real ones.
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
