//! The window of a room's log: the entries that can still be read.

use alloc::collections::VecDeque;
use bytes::Bytes;

/// Newest entries of a log, each as the frame for all members, which is encoded once. Bounded in
/// entries and in bytes; the oldest entries are dropped first.
#[derive(Clone, Debug)]
pub struct Log {
    entries: VecDeque<Entry>,
    /// The number of `entries[0]`; the next number while there is none.
    first: u64,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    plain: Bytes,
    zstd: Option<Bytes>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.plain.len() + self.zstd.as_ref().map_or(0, Bytes::len)
    }
}

impl Log {
    /// Creates an empty log whose first entry will be number 1.
    #[must_use]
    pub const fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), first: 1, bytes: 0, max_entries, max_bytes }
    }

    /// Returns the number of the newest entry; 0 before the first.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }

    /// Returns the number of the oldest entry in the window; `head() + 1` if the window is empty.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Appends the next entry: the frame, and the compressed frame if that is smaller. Drops the
    /// oldest entries while the window exceeds its bounds; the newest entry always stays. Returns
    /// the bytes of the new entry.
    pub fn append(&mut self, plain: Bytes, zstd: Option<Bytes>) -> usize {
        let entry = Entry { plain, zstd };
        let bytes = entry.bytes();
        self.bytes += bytes;
        self.entries.push_back(entry);
        while self.entries.len() > 1 && !self.is_bounded() {
            if let Some(oldest) = self.entries.pop_front() {
                self.bytes -= oldest.bytes();
                self.first += 1;
            }
        }
        bytes
    }

    /// Returns true if a window of `entries` entries and `bytes` bytes is within the bounds.
    #[must_use]
    pub const fn fits(&self, entries: usize, bytes: usize) -> bool {
        entries <= self.max_entries && bytes <= self.max_bytes
    }

    /// Restarts, empty, after entry `seq`.
    pub fn restart(&mut self, seq: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.first = seq + 1;
    }

    /// Returns the frame of entry `seq`, if the window has that entry.
    #[must_use]
    pub fn get(&self, seq: u64, accept_zstd: bool) -> Option<&Bytes> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        let entry = self.entries.get(index)?;
        Some(entry.zstd.as_ref().filter(|_| accept_zstd).unwrap_or(&entry.plain))
    }

    /// Returns true if the window is within its bounds. Always true after [`Self::append`], unless
    /// the newest entry alone is too large.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.fits(self.entries.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: usize, max_entries: usize, max_bytes: usize) -> Log {
        let mut log = Log::new(max_entries, max_bytes);
        for n in 0..entries {
            log.append(Bytes::from(alloc::vec![n as u8; 10]), None);
            assert!(log.is_bounded());
        }
        log
    }

    #[test]
    fn numbers_from_one_and_keeps_the_newest() {
        let log = log(10, 4, 1000);
        assert_eq!((log.first(), log.head()), (7, 10));
        assert!(log.get(6, false).is_none());
        assert_eq!(log.get(7, false).unwrap()[0], 6);
        assert_eq!(log.get(10, false).unwrap()[0], 9);
        assert!(log.get(11, false).is_none());
        assert!(log.get(0, false).is_none());
    }

    #[test]
    fn bytes_bound_the_window_too() {
        let log = log(10, 100, 35);
        assert_eq!((log.first(), log.head()), (8, 10));
    }

    #[test]
    fn the_newest_entry_stays_however_large() {
        let mut log = log(3, 100, 35);
        log.append(Bytes::from_static(&[0; 50]), None);
        assert_eq!((log.first(), log.head()), (4, 4));
        log.append(Bytes::from_static(&[0; 10]), None);
        assert_eq!((log.first(), log.head()), (5, 5));
    }

    #[test]
    fn compressed_frames_go_to_those_who_accept_them() {
        let mut log = Log::new(4, 1000);
        log.append(Bytes::from_static(b"plain"), Some(Bytes::from_static(b"z")));
        log.append(Bytes::from_static(b"short"), None);
        assert_eq!(log.get(1, true).unwrap(), "z");
        assert_eq!(log.get(1, false).unwrap(), "plain");
        assert_eq!(log.get(2, true).unwrap(), "short");
    }
}
