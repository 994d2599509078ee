//! The newest entries of a room, as the members agree on them.

use std::collections::VecDeque;

use skirmish_core::id::Cursor;

/// Entries remembered for comparison. As many as the window of a room's log by default:
/// whoever is further behind gets a snapshot and not the entries.
const WINDOW: usize = 1_024;

/// A room.
#[derive(Debug, Default)]
pub(super) struct CheckedRoom {
    /// The newest acknowledged message.
    pub acknowledged: Cursor,
    /// The life of the room that is remembered.
    epoch: u64,
    /// Place of the first hash.
    first: u64,
    /// Hashes by place; `None` where nobody delivered yet.
    hashes: VecDeque<Option<u64>>,
}

/// How an entry compares with that of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// The same, or the first.
    Same,
    /// Another entry has this place.
    Different,
    /// Nothing is remembered of this place any more.
    TooOld,
}

impl CheckedRoom {
    /// Compares an entry with what others delivered at its place, and remembers it.
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
