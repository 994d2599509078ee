//! The log of changes, which readers follow.

use alloc::collections::VecDeque;

use super::index::Slot;

/// Lines that may be stale however few entries there are.
const SLACK: usize = 8;

/// Which entry each change was of, oldest first. Only the last change of an entry
/// counts: the lines of earlier ones are stale. They are passed over by readers, and
/// cleared away once there are more than half as many as there are entries (and a few),
/// so that the log is bounded and a line costs constant time.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangeLog {
    lines: VecDeque<(u64, Slot)>,
    last: u64,
    forgotten: u64,
}

impl ChangeLog {
    /// The number of the last change; 0 if there was none.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// The number of the newest change that was forgotten.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// An entry changes. Returns the number of the change.
    pub(super) fn append(&mut self, slot: Slot) -> u64 {
        self.last += 1;
        self.lines.push_back((self.last, slot));
        self.last
    }

    /// An entry is forgotten whose last change this was.
    pub(super) fn forget(&mut self, change: u64) {
        self.forgotten = self.forgotten.max(change);
    }

    /// Changes after number `after`, oldest first; stale lines too.
    pub(super) fn since(&self, after: u64) -> impl Iterator<Item = (u64, Slot)> {
        let from = self.lines.partition_point(|&(change, _)| change <= after);
        self.lines.range(from..).copied()
    }

    /// Clears away stale lines if there are too many. `entries` is how many entries there
    /// are, and `is_last` tells whether a change is the last of its entry.
    pub(super) fn tidy(&mut self, entries: usize, is_last: impl Fn(u64, Slot) -> bool) {
        let stale = self.lines.len().saturating_sub(entries);
        if stale > entries / 2 + SLACK {
            self.lines.retain(|&(change, slot)| is_last(change, slot));
        }
    }
}
