//! Coverage marks: counts of a run's visits to interesting situations.
//!
//! A situation that a whole hunt never visited is a hole in the workload. The list of marks is
//! fixed and zeros are printed, so the hole shows.

use std::fmt;

use skirmish_core::node::Stats;

/// The marks, in the order in which they are printed.
pub const MARKS: &[&str] = &[
    "session opened",
    "session registered anew",
    "session resumed",
    "session lost",
    "session ended",
    "take-over",
    "fenced input",
    "connection refused",
    "connection displaced",
    "connection lost",
    "connection vanished",
    "heartbeat timeout",
    "given up for silence",
    "deadline in a pause",
    "connection unhealthy",
    "node crash",
    "node drain",
    "client crash",
    "client roamed",
    "partition",
    "reader stalled",
    "back-pressure at node",
    "back-pressure at client",
    "connection held",
    "room opened",
    "room closed",
    "room backed up",
    "room taken over",
    "primary stepped down",
    "backup diverged",
    "joined",
    "join resumed",
    "join refused",
    "snapshot without loss",
    "snapshot with loss",
    "entry",
    "turn ended",
    "turn over",
    "duplicate said",
    "throttled at node",
    "throttled told",
    "acknowledged",
    "refused",
    "unknown",
    "command refused",
    "latest delivered",
    "latest conflated",
    "state changed",
    "state refused",
    "state written offline",
    "application echoed",
    "protocol error",
    "client moved",
    "link up",
    "link lost",
    "link vanished",
    "back-pressure at link",
    "nodes cut off",
    "clock off",
    "clock right",
    "node suspended",
    "link overflowed",
    "node known dead",
    "room lost",
    "relay fenced",
    "fenced relay",
    "stale epoch refused",
    "join tried anew",
    "registry lost",
    "registry silent",
    "registry ambiguous",
    "registry cut off",
    "registry paused",
    "registry restarted",
    "registry restored",
    "registry wiped",
    "registry leader lost",
    "registry compacted",
    "registry full",
    "registry full noticed",
    "watch compacted",
    "revision shared",
    "group halved",
    "group unknown",
    "lease ended",
    "lease ended adrift",
    "matcher elected",
    "matcher deposed",
    "matcher failed over",
    "matcher made to fail",
    "search begun",
    "search moved",
    "match formed",
    "match filled",
    "match told",
    "match joined",
    "match left",
    "match given up",
    "match over",
    "match abandoned",
    "party matched",
    "search timed out",
    "ticket cancelled",
    "party lost",
    "player absent",
    "absent player back",
    "player came",
    "player missed",
    "match not begun",
    "ticket unavailable",
    "ticket lost",
    "ended search asked for",
];

/// A count for each mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    visits: [u64; MARKS.len()],
    /// Number of the added runs with a visit.
    runs: [u64; MARKS.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        Self { visits: [0; MARKS.len()], runs: [0; MARKS.len()] }
    }
}

impl Coverage {
    /// Counts a visit.
    pub fn hit(&mut self, mark: &'static str) {
        self.add(mark, 1);
    }

    /// Counts visits.
    pub fn add(&mut self, mark: &'static str, times: u64) {
        let index = MARKS.iter().position(|known| *known == mark);
        debug_assert!(index.is_some(), "no mark is called {mark}");
        if let Some(count) = index.and_then(|index| self.visits.get_mut(index)) {
            *count += times;
        }
    }

    /// Adds the counts of a node in one life.
    pub fn add_stats(&mut self, stats: &Stats) {
        for (mark, times) in [
            ("session resumed", stats.resumes),
            ("take-over", stats.takeovers),
            ("heartbeat timeout", stats.heartbeat_timeouts),
            ("duplicate said", stats.duplicates),
            ("throttled at node", stats.throttled),
            ("latest conflated", stats.conflated),
            ("protocol error", stats.protocol_errors),
            ("room lost", stats.rooms_lost),
            ("node suspended", stats.suspensions),
            ("link overflowed", stats.link_overflows),
            ("relay fenced", stats.fenced),
            ("stale epoch refused", stats.refused_epochs),
            ("join tried anew", stats.joins_retried),
            ("backup diverged", stats.backups_diverged),
            ("match formed", stats.matches),
        ] {
            self.add(mark, times);
        }
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.visits.iter_mut().zip(other.visits) {
            *ours += theirs;
        }
        for (runs, visits) in self.runs.iter_mut().zip(other.visits) {
            *runs += u64::from(visits > 0);
        }
    }

    /// Returns the marks, their counts, and the numbers of added runs with a visit.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let counts = self.visits.into_iter().zip(self.runs);
        MARKS.iter().zip(counts).map(|(mark, (visits, runs))| (*mark, visits, runs))
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.iter().collect();
        for row in all.chunks(3) {
            let cells = row.iter().map(|(mark, visits, runs)| format!("{mark:<24}{visits:>9}{runs:>7}"));
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("   "))?;
        }
        Ok(())
    }
}
