//! The bots' report, as a table and as JSON.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;
use skirmish_core::time::Duration;

use super::churn::ChurnResults;
use super::match_mode::MatchReport;
use super::options::{MessageClass, Mode, Options};
use super::stats::Stats;
use super::verdict::{Breaches, CheckedGuarantee, Counts, Findings};
use super::world::SharedBattle;

/// The report of one run. Times are in microseconds, memory in bytes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `battle`, `idle`, `churn` or `match`.
    pub mode: &'static str,
    /// `reliable` or `latest`.
    pub class: &'static str,
    /// Players.
    pub players: u32,
    /// Rooms of the players.
    pub rooms: u32,
    /// Offered load: messages per second of each player.
    pub rate: f64,
    /// Size of a message's body, in bytes.
    pub size: usize,
    /// Measured time, in seconds.
    pub seconds: f64,
    /// True if the run was interrupted before its end.
    pub interrupted: bool,
    /// Messages that were due in the window.
    pub sent: u64,
    /// Messages that the client has not accepted.
    pub not_taken: u64,
    /// Deliveries in the window.
    pub delivered: u64,
    /// Deliveries per second.
    pub deliveries_per_second: f64,
    /// Acknowledged reliable messages.
    pub acknowledged: u64,
    /// Reliable messages that were refused, and certainly not applied.
    pub refused: u64,
    /// Reliable messages with an unknown outcome: sent in a session that was lost.
    pub unknown: u64,
    /// Acknowledged messages that are missing at a member that stayed.
    pub lost: u64,
    /// Deliveries of an entry or message that was delivered before.
    pub duplicates: u64,
    /// Deliveries overtaken by a later one of the same sender.
    pub out_of_order: u64,
    /// Entries that a snapshot announced as missing.
    pub announced_missing: u64,
    /// Entries for which no other member's entry was left for comparison.
    pub uncompared: u64,
    /// Time from due time to delivery.
    pub latency: Latencies,
    /// Time from the due time to the call of the client: the delay that the bots themselves cause.
    pub lag: Latencies,
    /// Connections cut on purpose.
    pub cuts: u64,
    /// Connections after the first.
    pub reconnects: u64,
    /// Reconnects that resumed their session.
    pub resumes: u64,
    /// Reconnects that lost their session.
    pub sessions_lost: u64,
    /// Snapshots in place of entries.
    pub snapshots: u64,
    /// Times that the server asked to slow down.
    pub throttled: u64,
    /// Players that were away or behind at the end.
    pub unsettled: u32,
    /// Whole cycles of connect, join, leave, close.
    pub cycles: u64,
    /// Cycles that failed.
    pub cycles_failed: u64,
    /// Whole cycles per second.
    pub cycles_per_second: f64,
    /// Duration of a whole cycle.
    pub cycle: Latencies,
    /// Matches, in match mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<MatchReport>,
    /// Resources that the server's process has used.
    pub server: ServerReport,
    /// CPU time of the bots for each delivery (or cycle).
    pub bots_cpu_us_per_operation: f64,
    /// The first error during the run, if any.
    pub trouble: Option<String>,
    /// G1 to G5, and G8 in match mode; empty if they do not apply.
    pub guarantees: Vec<GuaranteeReport>,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// Number of values.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 99 of 100 are at most this.
    pub p99_us: u64,
    /// 999 of 1,000 are at most this.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Resources that the server's process has used; `None` if unknown.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ServerReport {
    /// Cores busy on average.
    pub cores: Option<f64>,
    /// CPU time for each delivery (or cycle), in microseconds.
    pub cpu_us_per_operation: Option<f64>,
    /// Resident memory for each connection, in bytes: in idle mode the memory that the connections
    /// have added, otherwise all of it.
    pub resident_per_connection: Option<u64>,
}

/// One guarantee as the bots saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuaranteeReport {
    /// Number and name.
    pub name: &'static str,
    /// Verdict of the bots.
    pub verdict: Verdict,
    /// Number of breaches.
    pub breaches: u64,
    /// Description of the first breach.
    pub first: Option<String>,
    /// Number of cases that were undecided when the players' patience was over.
    pub unknown: u64,
    /// Description of the first undecided case.
    pub first_unknown: Option<String>,
}

/// Verdict of the bots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The guarantee held.
    Held,
    /// The guarantee was broken.
    Broken,
    /// No breach was found, but something was still in flight when the players' patience was over.
    Unknown,
}

/// Measured resources of the processes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub measured: Duration,
    pub interrupted: bool,
    pub server_cpu: Option<Duration>,
    pub bots_cpu: Duration,
    pub resident_per_connection: Option<u64>,
}

impl GuaranteeReport {
    pub(super) fn new(name: &'static str, breaches: Breaches, unknown: Breaches) -> Self {
        let verdict = match (breaches.count, unknown.count) {
            (0, 0) => Verdict::Held,
            (0, _) => Verdict::Unknown,
            _ => Verdict::Broken,
        };
        Self {
            name,
            verdict,
            breaches: breaches.count,
            first: breaches.first,
            unknown: unknown.count,
            first_unknown: unknown.first,
        }
    }
}

impl Latencies {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

impl Report {
    /// Returns the verdict of the whole run, which decides the exit code. Broken if a guarantee was
    /// broken, or if the players' actions failed: a cycle failed, or no match was formed. Unknown
    /// if at the end a player was away, behind, or waited for a notification.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let any = |verdict| self.guarantees.iter().any(|guarantee| guarantee.verdict == verdict);
        if any(Verdict::Broken) || self.cycles_failed > 0 {
            return Verdict::Broken;
        }
        if any(Verdict::Unknown) || self.unsettled > 0 {
            return Verdict::Unknown;
        }
        let works = (self.mode != "churn" || self.cycles > 0)
            && self.matches.as_ref().is_none_or(|matches| matches.formed > 0);
        if works { Verdict::Held } else { Verdict::Broken }
    }

    /// Returns true if the verdict is [`Verdict::Held`].
    #[must_use]
    pub fn held(&self) -> bool {
        self.verdict() == Verdict::Held
    }

    /// Returns the report as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, texts and lists have a JSON form")
    }

    pub(super) fn of_battle(options: &Options, shared: &mut SharedBattle, usage: &Usage) -> Self {
        let (unsettled, settled) = (shared.unsettled(), shared.is_settled());
        let bots = &shared.bots;
        let mut found = shared.checker.finish(|player| bots[player as usize].connected, settled);
        if shared.outstanding > 0 {
            found
                .unknown
                .add(|| format!("{} messages were without an outcome at the end", shared.outstanding));
        }
        let mut report = Self::empty(options, usage, shared.stats.delivered);
        report.add_messages(&shared.stats, found.counts);
        report.unsettled = unsettled;
        report.trouble = shared.trouble.clone();
        report.add_guarantees(found);
        report
    }

    /// Adds the counters of messages.
    pub(super) fn add_messages(&mut self, stats: &Stats, counts: Counts) {
        self.sent = stats.sent;
        self.not_taken = stats.not_taken;
        self.delivered = stats.delivered;
        self.deliveries_per_second = float(stats.delivered) / self.seconds.max(f64::EPSILON);
        self.acknowledged = stats.acknowledged;
        self.refused = stats.refused;
        self.unknown = stats.unknown;
        self.lost = counts.lost;
        self.duplicates = counts.duplicates;
        self.out_of_order = counts.out_of_order;
        self.announced_missing = counts.announced;
        self.uncompared = counts.uncompared;
        self.latency = Latencies::of(&stats.latency);
        self.lag = Latencies::of(&stats.lag);
        self.cuts = stats.cuts;
        self.reconnects = stats.reconnects;
        self.resumes = stats.resumes;
        self.sessions_lost = stats.sessions_lost;
        self.snapshots = stats.snapshots;
        self.throttled = stats.throttled;
    }

    /// Adds G1 to G5.
    pub(super) fn add_guarantees(&mut self, found: Findings) {
        let Findings { breaches, mut unknown, .. } = found;
        self.guarantees.extend(CheckedGuarantee::ALL.iter().zip(breaches).map(|(guarantee, breaches)| {
            let is_open = *guarantee == CheckedGuarantee::NoLoss;
            let unknown = if is_open { std::mem::take(&mut unknown) } else { Breaches::default() };
            GuaranteeReport::new(guarantee.title(), breaches, unknown)
        }));
    }

    pub(super) fn of_churn(options: &Options, churned: &ChurnResults, usage: &Usage) -> Self {
        let mut report = Self::empty(options, usage, churned.whole);
        report.cycles = churned.whole;
        report.cycles_failed = churned.failed;
        report.cycles_per_second = per_second(churned.whole, usage);
        report.cycle = Latencies::of(&churned.took);
        report.trouble = churned.trouble.clone();
        report
    }

    /// Creates a report with all fields that need no counters.
    pub(super) fn empty(options: &Options, usage: &Usage, operations: u64) -> Self {
        let each = |cpu: Duration| micros(cpu) / float(operations.max(1));
        let seconds = usage.measured.as_secs_f64();
        Self {
            mode: match options.mode {
                Mode::Battle => "battle",
                Mode::Idle => "idle",
                Mode::Churn => "churn",
            },
            class: match options.class {
                MessageClass::Reliable => "reliable",
                MessageClass::Latest => "latest",
            },
            players: options.players,
            rooms: options.rooms(),
            rate: options.rate,
            size: options.size,
            seconds,
            interrupted: usage.interrupted,
            sent: 0,
            not_taken: 0,
            delivered: 0,
            deliveries_per_second: 0.0,
            acknowledged: 0,
            refused: 0,
            unknown: 0,
            lost: 0,
            duplicates: 0,
            out_of_order: 0,
            announced_missing: 0,
            uncompared: 0,
            latency: Latencies::default(),
            lag: Latencies::default(),
            cuts: 0,
            reconnects: 0,
            resumes: 0,
            sessions_lost: 0,
            snapshots: 0,
            throttled: 0,
            unsettled: 0,
            cycles: 0,
            cycles_failed: 0,
            cycles_per_second: 0.0,
            cycle: Latencies::default(),
            matches: None,
            server: ServerReport {
                cores: usage.server_cpu.map(|cpu| cpu.as_secs_f64() / seconds.max(f64::EPSILON)),
                cpu_us_per_operation: usage.server_cpu.filter(|_| operations > 0).map(each),
                resident_per_connection: usage.resident_per_connection,
            },
            bots_cpu_us_per_operation: if operations > 0 { each(usage.bots_cpu) } else { 0.0 },
            trouble: None,
            guarantees: Vec::new(),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
const fn float(number: u64) -> f64 {
    number as f64
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(super) fn per_second(count: u64, usage: &Usage) -> f64 {
    float(count) / usage.measured.as_secs_f64().max(f64::EPSILON)
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| float(us) / 1e3;
        write!(
            f,
            "p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  max {:.2} ms",
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us)
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<34}{value}");
        let mode =
            self.matches.as_ref().map_or_else(|| self.mode.to_owned(), |m| format!("match {}", m.mode));
        row("mode", format!("{mode}, {} players in {} rooms", self.players, self.rooms))?;
        let interrupted = if self.interrupted { " (interrupted)" } else { "" };
        row("measured", format!("{:.1} s{interrupted}", self.seconds))?;
        for (name, value) in self.matches.iter().flat_map(MatchReport::rows) {
            row(name, value)?;
        }
        match self.mode {
            "churn" => {
                row("cycles", format!("{} whole, {} failed", self.cycles, self.cycles_failed))?;
                row("cycles/s", format!("{:.0}", self.cycles_per_second))?;
                row("cycle time", self.cycle.to_string())?;
            }
            "idle" => {}
            _ => {
                row("offered", format!("{} msg/s each, {} bytes, {}", self.rate, self.size, self.class))?;
                row("sent", format!("{} ({} not taken)", self.sent, self.not_taken))?;
                row("delivered", self.delivered.to_string())?;
                row("deliveries/s", format!("{:.0}", self.deliveries_per_second))?;
                row("latency from due time", self.latency.to_string())?;
                row("  of which the bots' own", self.lag.to_string())?;
                row(
                    "outcomes",
                    format!(
                        "{} acknowledged, {} refused, {} unknown",
                        self.acknowledged, self.refused, self.unknown
                    ),
                )?;
                row(
                    "lost / dup / out of order",
                    format!("{} / {} / {}", self.lost, self.duplicates, self.out_of_order),
                )?;
                row(
                    "connections",
                    format!(
                        "{} cut, {} reconnects, {} resumed, {} sessions lost",
                        self.cuts, self.reconnects, self.resumes, self.sessions_lost
                    ),
                )?;
                row(
                    "snapshots",
                    format!("{} for {} entries announced as missing", self.snapshots, self.announced_missing),
                )?;
                if self.throttled > 0 {
                    row("throttled", format!("{} times", self.throttled))?;
                }
                if self.uncompared > 0 {
                    row("not compared", format!("{} entries older than the window", self.uncompared))?;
                }
            }
        }
        let operation = if self.mode == "churn" { "cycle" } else { "delivery" };
        if let Some(cpu) = self.server.cpu_us_per_operation {
            let cores = self.server.cores.unwrap_or_default();
            row(&format!("server CPU/{operation}"), format!("{cpu:.2} us ({cores:.2} cores)"))?;
        }
        if let Some(bytes) = self.server.resident_per_connection {
            row("server memory/connection", format!("{:.1} KiB", float(bytes) / 1024.0))?;
        }
        if self.bots_cpu_us_per_operation > 0.0 {
            row(&format!("bots CPU/{operation}"), format!("{:.2} us", self.bots_cpu_us_per_operation))?;
        }
        if self.unsettled > 0 {
            row("not settled", format!("{} players were away or behind at the end", self.unsettled))?;
        }
        if let Some(trouble) = &self.trouble {
            row("first trouble", trouble.clone())?;
        }
        for guarantee in &self.guarantees {
            let first = |first: &Option<String>| first.clone().unwrap_or_default();
            let verdict = match guarantee.verdict {
                Verdict::Held => "held".to_owned(),
                Verdict::Broken => {
                    format!("BROKEN {} times, first: {}", guarantee.breaches, first(&guarantee.first))
                }
                Verdict::Unknown => {
                    format!("unknown {} times, first: {}", guarantee.unknown, first(&guarantee.first_unknown))
                }
            };
            row(guarantee.name, verdict)?;
        }
        let verdict = match self.verdict() {
            Verdict::Held => "all held",
            Verdict::Broken => "FAILED",
            Verdict::Unknown => "unknown",
        };
        write!(f, "{:<34}{verdict}", "verdict")
    }
}
