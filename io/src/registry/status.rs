//! Status and counters of a registry, for readiness, metrics and logs.

use skirmish_core::registry::Failure;
use skirmish_core::time::Instant;

/// State of the connection to the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// True if the registry can be reached, as far as known.
    pub connected: bool,
    /// Time since which `connected` has its value, by the shell's clock.
    pub since: Instant,
    /// The last error, if any, without secrets. Kept after the registry has recovered.
    pub error: Option<String>,
    /// With a connection: the last request that the registry has not executed. Without one: the
    /// refusal of the last attempt to connect, if the registry has refused it.
    pub refusal: Option<RegistryRefusal>,
}

/// A request, or a log-in, that the registry has not executed, for a reason outside the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRefusal {
    /// Outcome of the request.
    pub failure: Failure,
    /// Message of the registry, without secrets.
    pub words: String,
}

/// Counters of a registry, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryCounters {
    /// Answered requests, with any outcome.
    pub calls: u64,
    /// Of these, refused requests.
    pub refused: u64,
    /// Of these, requests that never reached the registry.
    pub unavailable: u64,
    /// Of these, requests with an unknown outcome.
    pub unknown: u64,
    /// Time from call to answer in microseconds, summed over `calls`.
    pub latency_us: u64,
    /// Requests sent to etcd without keep-alives, one for each group.
    pub groups: u64,
    /// Requests in these groups, repetitions included. Divided by `groups`: the mean size of
    /// groups.
    pub members: u64,
    /// Groups that were refused as a whole and sent again in halves.
    pub halved: u64,
    /// Connections opened.
    pub connections: u64,
    /// Messages received for watches.
    pub news: u64,
}

impl RegistryCounters {
    /// Returns the sum of both, for a process with several nodes.
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
