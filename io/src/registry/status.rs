//! What a registry says of itself: for readiness, metrics and logs.

use skirmish_core::registry::Failure;
use skirmish_core::time::Instant;

/// Whether the registry can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it can be reached, so far as is known.
    pub connected: bool,
    /// Since when, by the shell's clock.
    pub since: Instant,
    /// The last thing that went wrong, if any, in words without secrets. Kept while all is
    /// well again.
    pub error: Option<String>,
    /// The last request that the registry did not do, though there is a connection; without
    /// one, the refusal of the last attempt to open it, if it was refused.
    pub refusal: Option<RegistryRefusal>,
}

/// A request, or a log-in, that the registry did not do, for a reason that is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRefusal {
    /// The outcome of it.
    pub failure: Failure,
    /// The registry's own words, without secrets.
    pub words: String,
}

/// What a registry counts, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryCounters {
    /// Requests answered, whatever the outcome.
    pub calls: u64,
    /// Of these, refused.
    pub refused: u64,
    /// Of these, that never reached the registry.
    pub unavailable: u64,
    /// Of these, whose fate is unknown.
    pub unknown: u64,
    /// Microseconds from being asked to being answered, summed over `calls`.
    pub latency_us: u64,
    /// Requests sent to etcd that are not keep-alives, each with one group in it.
    pub groups: u64,
    /// Requests in these groups, those sent again included: divided by `groups`, the size
    /// of groups.
    pub members: u64,
    /// Groups that were refused as a whole and sent again in halves.
    pub halved: u64,
    /// Connections opened.
    pub connections: u64,
    /// Messages heard of watches.
    pub news: u64,
}

impl RegistryCounters {
    /// The sum of both, for a process of several nodes.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls + other.calls,
            refused: self.refused + other.refused,
            unavailable: self.unavailable + other.unavailable,
            unknown: self.unknown + other.unknown,
            latency_us: self.latency_us + other.latency_us,
            groups: self.groups + other.groups,
            members: self.members + other.members,
            halved: self.halved + other.halved,
            connections: self.connections + other.connections,
            news: self.news + other.news,
        }
    }
}
