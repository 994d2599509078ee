//! Figures for Prometheus, in the OpenMetrics text format.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use skirmish_core::node::{Refusal, Stats};

use super::readiness::Reason;
use crate::registry;

/// Counters of the shell, in addition to those of the node.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardCounters {
    refused_connections: RefusedConnections,
    /// Upgrades refused, by HTTP status.
    refused_upgrades: BTreeMap<u16, u64>,
    /// Application messages without a registered handler.
    pub(super) unrouted: u64,
    /// Connections that the operating system did not hand over.
    pub(super) accept_errors: u64,
    /// Connections that were refused because they had the last descriptor.
    pub(super) refused_for_files: u64,
    /// Connections of operators that were dropped for newer ones.
    pub(super) admin_dropped: u64,
}

impl ShardCounters {
    pub(super) fn refused_connection(&mut self, refusal: Refusal) {
        let number = match refusal {
            Refusal::Full => &mut self.refused_connections.full,
            Refusal::AddressFull => &mut self.refused_connections.address_full,
            Refusal::TooManyUnauthenticated => &mut self.refused_connections.unauthenticated,
            Refusal::Draining => &mut self.refused_connections.draining,
            Refusal::TooFast(_) => &mut self.refused_connections.too_fast,
            Refusal::ClockUnknown | Refusal::ClockOff => &mut self.refused_connections.clock,
        };
        *number += 1;
    }

    pub(super) fn refused_upgrade(&mut self, status: u16) {
        *self.refused_upgrades.entry(status).or_insert(0) += 1;
    }
}

/// Connections that were refused because of a cap, by cap.
#[derive(Clone, Copy, Debug, Default)]
struct RefusedConnections {
    full: u64,
    address_full: u64,
    unauthenticated: u64,
    draining: u64,
    too_fast: u64,
    clock: u64,
}

/// Everything that is exported, as of one moment.
#[derive(Debug)]
pub(super) struct MetricsSnapshot {
    pub(super) stats: Stats,
    pub(super) counters: ShardCounters,
    pub(super) accepting: bool,
    pub(super) cluster: ClusterMetrics,
    /// State of each readiness reason and each warning: true if it holds.
    pub(super) reasons: [(Reason, bool); Reason::ALL.len()],
    pub(super) driver_lateness: Duration,
    pub(super) log: LogCounters,
    /// Open descriptors of the process, if the system reports the number.
    pub(super) open_files: Option<usize>,
    pub(super) open_files_limit: Option<usize>,
}

/// Log lines that were not written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogCounters {
    /// Lines that found the queue full.
    pub(super) dropped: u64,
    /// Lines above the number that an address may cause.
    pub(super) suppressed: u64,
}

/// Exported figures of the node as a member of its cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ClusterMetrics {
    /// Other nodes that the node knows.
    pub(super) peers: usize,
    /// Rooms that other nodes lead.
    pub(super) followed: usize,
    /// True if the registry confirms that the node lives.
    pub(super) serving: bool,
    /// True if the registry can be reached.
    pub(super) connected: bool,
    pub(super) registry: registry::RegistryCounters,
}

impl MetricsSnapshot {
    /// Encodes the figures as text.
    pub(super) fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("skirmish");
        registry.register_collector(Box::new(self));
        let mut text = String::with_capacity(4 * 1024);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Content type of the text from [`MetricsSnapshot::encode`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Collector for MetricsSnapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self { stats: s, counters, accepting, cluster, reasons, driver_lateness, log, .. } = self;
        let settled = s.connections.saturating_sub(s.unauthenticated).saturating_sub(s.closing);
        let by_state = [
            ("unauthenticated", s.unauthenticated),
            ("open", settled.saturating_sub(s.unhealthy)),
            ("unhealthy", s.unhealthy),
            ("closing", s.closing),
        ];
        let mut family =
            encoder.encode_descriptor("connections", "Connections by state", None, MetricType::Gauge)?;
        for (state, number) in by_state {
            ConstGauge::new(signed(number)).encode(family.encode_family(&[("state", state)])?)?;
        }
        for (name, warning, help) in [
            ("not_ready", false, "1 while this reason keeps the node from being ready"),
            ("warning", true, "1 while this holds, which does not keep the node from being ready"),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (reason, holds) in reasons.iter().filter(|(reason, _)| reason.is_warning() == warning) {
                let gauge = ConstGauge::new(i64::from(*holds));
                gauge.encode(family.encode_family(&[("reason", reason.name())])?)?;
            }
        }
        let help = "How late the event loop has come at worst in the last seconds";
        let gauge = ConstGauge::new(driver_lateness.as_secs_f64());
        gauge.encode(encoder.encode_descriptor(
            "driver_lateness",
            help,
            Some(&prometheus_client::registry::Unit::Seconds),
            MetricType::Gauge,
        )?)?;
        let gauges = [
            ("sessions", "Sessions, with and without a connection", s.sessions),
            ("sessions_detached", "Sessions without a connection", s.detached),
            ("rooms", "Rooms", s.rooms),
            ("members", "Memberships of rooms", s.members),
            ("accepting", "1 while new connections are taken", usize::from(*accepting)),
            ("links", "Links to other nodes, up or on their way", s.links),
            ("nodes", "Other nodes that are known", cluster.peers),
            ("rooms_led", "Rooms that this node leads", s.rooms.saturating_sub(cluster.followed)),
            ("rooms_followed", "Rooms that other nodes lead", cluster.followed),
            ("serving", "1 while the registry confirms that this node lives", usize::from(cluster.serving)),
            ("registry_connected", "1 while the registry can be reached", usize::from(cluster.connected)),
        ];
        for (name, help, number) in gauges {
            let gauge = ConstGauge::new(signed(number));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let of_process = [
            ("resident_memory_bytes", "Memory of the process that is resident", resident_bytes()),
            ("open_files", "Files and connections that the process has open", self.open_files),
            ("open_files_limit", "How many it may have open", self.open_files_limit),
        ];
        for (name, help, number) in of_process {
            let Some(number) = number else { continue };
            let gauge = ConstGauge::new(signed(number));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let r = &cluster.registry;
        let count = [
            ("accepted", "Connections accepted", s.accepted),
            ("refused", "Connections refused for a cap", s.refused),
            ("logins_limited", "Log-ins refused for their rate", s.logins_limited),
            ("displaced", "Connections dropped before their Hello to make room for others", s.displaced),
            ("accept_errors", "Connections that the system did not hand over", counters.accept_errors),
            ("frames_in", "Frames taken", s.frames_in),
            ("in_bytes", "Bytes of the frames taken", s.bytes_in),
            ("frames_out", "Frames sent", s.frames_out),
            ("out_bytes", "Bytes of the frames sent", s.bytes_out),
            ("entries", "Reliable messages appended to a log", s.entries),
            ("deliveries", "Entries sent, one for each member", s.deliveries),
            ("snapshots", "Snapshots for members that fell out of a window", s.snapshots),
            ("latest", "Latest messages taken", s.latest),
            ("conflated", "Latest messages that replaced one", s.conflated),
            ("unsupported", "Frames of a kind or type that is not known here", s.unsupported),
            ("throttled", "Messages not taken for their rate", s.throttled),
            (
                "pauses",
                "Times that a connection faster than its limits was not read on for a while",
                s.pauses,
            ),
            ("duplicates", "Reliable messages that came again", s.duplicates),
            ("takeovers", "Connections closed because a newer one came", s.takeovers),
            ("resumes", "Sessions resumed", s.resumes),
            ("expiries", "Sessions that nobody resumed", s.expiries),
            ("protocol_errors", "Connections closed for breaking the protocol", s.protocol_errors),
            ("heartbeat_timeouts", "Connections closed for missing heartbeats", s.heartbeat_timeouts),
            ("handshake_timeouts", "Connections closed for not saying Hello", s.handshake_timeouts),
            ("clock_refusals", "Writes to a state refused for their clock", s.clock_refusals),
            ("clock_stops", "Times that the node turned everybody away for its clock", s.clock_stops),
            ("state_full", "Writes to a state that found it full", s.state_full),
            ("rooms_lost", "Rooms that another node took, or that vanished", s.rooms_lost),
            ("suspensions", "Times that the node had to stop serving", s.suspensions),
            ("fenced", "Messages from nodes that had lost the session", s.fenced),
            (
                "joins_retried",
                "Joins that asked the registry again after a race between nodes",
                s.joins_retried,
            ),
            ("rooms_taken_over", "Rooms that this node, as the backup, has gone on with", s.rooms_taken_over),
            (
                "backups_diverged",
                "Times that this node was no backup any more since its state differed",
                s.backups_diverged,
            ),
            ("refused_epochs", "Requests for a room that is not led here in that epoch", s.refused_epochs),
            ("link_frames_in", "Frames taken from links", s.link_frames_in),
            ("link_overflows", "Links dropped since too much waited for them", s.link_overflows),
            ("link_frames_out", "Frames sent over links", s.link_frames_out),
            ("registry_calls", "Requests that the registry has answered", r.calls),
            ("registry_refused", "Of these, refused", r.refused),
            ("registry_unavailable", "Of these, that never reached it", r.unavailable),
            ("registry_unknown", "Of these, whose fate is unknown", r.unknown),
            ("registry_latency_microseconds", "From asking to the answer, in all", r.latency_us),
            ("registry_groups", "Requests to etcd, each with one group in it", r.groups),
            ("registry_group_members", "Requests in these groups", r.members),
            ("registry_connections", "Connections to etcd", r.connections),
            ("registry_news", "Messages heard of watches", r.news),
            ("bugs", "Broken invariants of the server itself", s.bugs),
            ("unrouted", "Application messages without a handler", counters.unrouted),
            ("refused_for_files", "Connections refused for want of open files", counters.refused_for_files),
            ("admin_dropped", "Connections of operators dropped for newer ones", counters.admin_dropped),
            ("log_lines_dropped", "Log lines lost because they could not be written", log.dropped),
            ("log_lines_suppressed", "Log lines beyond what an address may cause", log.suppressed),
        ];
        for (name, help, number) in count {
            let counter = ConstCounter::new(number);
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let help = "Connections refused, by why";
        let mut family = encoder.encode_descriptor("refusals", help, None, MetricType::Counter)?;
        let RefusedConnections { full, address_full, unauthenticated, draining, too_fast, clock } =
            counters.refused_connections;
        for (reason, number) in [
            ("full", full),
            ("address_full", address_full),
            ("unauthenticated", unauthenticated),
            ("draining", draining),
            ("too_fast", too_fast),
            ("clock", clock),
        ] {
            ConstCounter::new(number).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        let help = "Upgrades refused, by HTTP status";
        let mut family = encoder.encode_descriptor("upgrades_refused", help, None, MetricType::Counter)?;
        for (status, number) in &counters.refused_upgrades {
            ConstCounter::new(*number).encode(family.encode_family(&[("status", u64::from(*status))])?)?;
        }
        Ok(())
    }
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the resident memory of this process in bytes, if the system reports it.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_in_the_text() {
        let mut counters = ShardCounters::default();
        counters.refused_upgrade(401);
        counters.refused_connection(Refusal::AddressFull);
        counters.refused_upgrade(401);
        let stats = Stats {
            connections: 10,
            unauthenticated: 1,
            closing: 2,
            unhealthy: 3,
            rooms: 5,
            entries: 7,
            bugs: 2,
            ..Stats::default()
        };
        let cluster = ClusterMetrics {
            peers: 2,
            followed: 1,
            serving: true,
            registry: registry::RegistryCounters { calls: 9, ..registry::RegistryCounters::default() },
            ..ClusterMetrics::default()
        };
        let reasons = Reason::ALL.map(|reason| (reason, reason == Reason::DriverLate));
        let driver_lateness = Duration::from_millis(2500);
        let log = LogCounters { dropped: 3, suppressed: 4 };
        let snapshot = MetricsSnapshot {
            stats,
            counters,
            accepting: true,
            cluster,
            reasons,
            driver_lateness,
            log,
            open_files: Some(17),
            open_files_limit: None,
        };
        let text = snapshot.encode().unwrap();
        for line in [
            "skirmish_connections{state=\"open\"} 4",
            "skirmish_connections{state=\"unhealthy\"} 3",
            "skirmish_entries_total 7",
            "skirmish_bugs_total 2",
            "skirmish_upgrades_refused_total{status=\"401\"} 2",
            "skirmish_refusals_total{reason=\"address_full\"} 1",
            "skirmish_refusals_total{reason=\"full\"} 0",
            "skirmish_accepting 1",
            "skirmish_not_ready{reason=\"draining\"} 0",
            "skirmish_not_ready{reason=\"driver_late\"} 1",
            "skirmish_warning{reason=\"peer_unreachable\"} 0",
            "skirmish_driver_lateness_seconds 2.5",
            "skirmish_nodes 2",
            "skirmish_rooms_led 4",
            "skirmish_rooms_followed 1",
            "skirmish_serving 1",
            "skirmish_registry_connected 0",
            "skirmish_registry_calls_total 9",
            "skirmish_log_lines_dropped_total 3",
            "skirmish_open_files 17",
            "skirmish_log_lines_suppressed_total 4",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
