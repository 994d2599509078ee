//! The newest entries of a room, as the members agree on them.

use std::collections::VecDeque;

use skirmish_core::id::Cursor;

/// Entries kept for comparison. As many as the default window of a room's log: a member further
/// behind gets a snapshot in place of the entries.
const WINDOW: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct CheckedRoom {
    /// Cursor of the newest acknowledged message.
    pub acknowledged: Cursor,
    /// Epoch of the kept hashes.
    epoch: u64,
    /// Place of the first hash.
    first: u64,
    /// Hashes by place; `None` if no member has delivered that entry yet.
    hashes: VecDeque<Option<u64>>,
}

/// Result of comparing an entry with that of other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// The entry is the same, or the first at this place.
    Same,
    /// Another entry has this place.
    Different,
    /// The hash of this place is no longer kept.
    TooOld,
}

impl CheckedRoom {
    /// Compares an entry with other members' entry at the same place, and keeps its hash.
    pub(super) fn compare(&mut self, cursor: Cursor, hash: u64) -> Compared {
        if cursor.epoch < self.epoch {
            return Compared::TooOld;
        }
        if cursor.epoch > self.epoch || self.hashes.is_empty() {
            self.epoch = cursor.epoch;
            self.first = cursor.seq;
            self.hashes.clear();
        }
        let Some(index) = cursor.seq.checked_sub(self.first) else { return Compared::TooOld };
        let end = self.hashes.len() as u64;
        if index >= end {
            if index - end >= WINDOW as u64 {
                self.hashes.clear();
                self.first = cursor.seq;
            } else {
                self.hashes.extend((end..index).map(|_| None));
            }
            self.hashes.push_back(Some(hash));
            while self.hashes.len() > WINDOW {
                self.hashes.pop_front();
                self.first += 1;
            }
            return Compared::Same;
        }
        let Some(place) = usize::try_from(index).ok().and_then(|index| self.hashes.get_mut(index)) else {
            return Compared::TooOld;
        };
        if *place.get_or_insert(hash) == hash { Compared::Same } else { Compared::Different }
    }
}
