//! The log of changes, which readers follow.

use alloc::collections::VecDeque;

use super::index::Slot;

/// Stale lines that are always allowed, even with no entries at all.
const SLACK: usize = 8;

/// Numbered changes, oldest first, each with the slot of the changed entry. Only the last change of
/// an entry counts; the lines of earlier changes are stale. Readers skip stale lines.
/// [`Self::tidy`] removes stale lines once they exceed half the number of entries plus [`SLACK`],
/// so the log is bounded and a line costs constant time.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangeLog {
    lines: VecDeque<(u64, Slot)>,
    last: u64,
    forgotten: u64,
}

impl ChangeLog {
    /// Returns the number of the last change; 0 if there was none.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Returns the number of the newest change that was forgotten.
    pub(super) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Appends a change of an entry. Returns the number of the change.
    pub(super) fn append(&mut self, slot: Slot) -> u64 {
        self.last += 1;
        self.lines.push_back((self.last, slot));
        self.last
    }

    /// Notes that an entry with this last change is forgotten.
    pub(super) fn forget(&mut self, change: u64) {
        self.forgotten = self.forgotten.max(change);
    }

    /// Returns the changes after number `after`, oldest first, stale lines included.
    pub(super) fn since(&self, after: u64) -> impl Iterator<Item = (u64, Slot)> {
        let from = self.lines.partition_point(|&(change, _)| change <= after);
        self.lines.range(from..).copied()
    }

    /// Removes the stale lines if there are too many. `entries` is the number of entries. `is_last`
    /// returns true if a change is the last change of the entry.
    pub(super) fn tidy(&mut self, entries: usize, is_last: impl Fn(u64, Slot) -> bool) {
        let stale = self.lines.len().saturating_sub(entries);
        if stale > entries / 2 + SLACK {
            self.lines.retain(|&(change, slot)| is_last(change, slot));
        }
    }
}
