//! Coverage marks: how often a run went where it is interesting to go.
//!
//! A path that a whole hunt never took is a hole in the workload; the marks make it
//! show, since the list of marks is fixed and zeros are printed.

use std::fmt;

/// The marks, in the order in which they are printed.
pub const MARKS: &[&str] = &[
    "session opened",
    "session resumed",
    "session lost",
    "session ended",
    "take-over",
    "fenced input",
    "connection refused",
    "connection lost",
    "connection vanished",
    "heartbeat timeout",
    "connection unhealthy",
    "node crash",
    "node drain",
    "client crash",
    "client roamed",
    "partition",
    "reader stalled",
    "back-pressure at node",
    "back-pressure at client",
    "room opened",
    "room closed",
    "joined",
    "join resumed",
    "join refused",
    "snapshot without loss",
    "snapshot with loss",
    "entry",
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
    "node suspended",
    "node known dead",
    "room lost",
    "relay fenced",
    "fenced relay",
    "stale epoch refused",
    "registry lost",
    "registry silent",
    "registry ambiguous",
    "registry cut off",
    "registry paused",
    "registry restarted",
    "registry leader lost",
    "registry compacted",
    "watch compacted",
    "lease ended",
    "matcher elected",
];

/// A count for each mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage([u64; MARKS.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; MARKS.len()])
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
        if let Some(count) = index.and_then(|index| self.0.get_mut(index)) {
            *count += times;
        }
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(other.0) {
            *ours += theirs;
        }
    }

    /// The marks and their counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        MARKS.iter().copied().zip(self.0)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.iter().collect();
        for row in all.chunks(3) {
            let cells = row.iter().map(|(mark, count)| format!("{mark:<24}{count:>9}"));
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("   "))?;
        }
        Ok(())
    }
}
