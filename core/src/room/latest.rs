//! Latest messages: the newest message of a sender and key replaces the one before.

use alloc::collections::BTreeMap;
use bytes::Bytes;

use crate::base::plant::{Plant, Planted};

/// Bits of a version below the term: a primary counts less than 2^40 latest messages in its term.
const TERM_SHIFT: u32 = 40;

/// Newest message of every sender and key. A reader is only a number, the version that it has read
/// up to. So a slow reader skips replaced messages, and nothing is queued for it.
#[derive(Clone, Debug)]
pub struct LatestBoard {
    version: u64,
    slots: BTreeMap<(u32, u32), u64>,
    messages: BTreeMap<u64, Message>,
    /// Bytes of those messages. The cap is `most_bytes`.
    bytes: usize,
    most_bytes: usize,
    planted: Planted,
}

/// Result of putting a message up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// The message is the first of its member and key.
    New,
    /// The message replaced an older one.
    Replaced,
    /// The message was dropped: with it the board would exceed its bytes.
    Full,
}

#[derive(Clone, Debug)]
struct Message {
    member: u32,
    frame: Bytes,
}

impl LatestBoard {
    /// Creates an empty board for at most `most_bytes` bytes of messages.
    #[must_use]
    pub const fn new(most_bytes: usize, planted: Planted) -> Self {
        Self { version: 0, slots: BTreeMap::new(), messages: BTreeMap::new(), bytes: 0, most_bytes, planted }
    }

    /// Returns the version of the newest message; 0 before the first.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the version of the next message.
    #[must_use]
    pub const fn next_version(&self) -> u64 {
        self.version + 1
    }

    /// Makes the versions go on above those of the primaries of earlier terms.
    pub fn begin_term(&mut self, term: u32) {
        self.version = self.version.max(u64::from(term.saturating_sub(1)) << TERM_SHIFT);
    }

    /// Puts a message up, in place of the older one of the same member and key.
    pub fn put(&mut self, member: u32, key: u32, frame: Bytes) -> Posted {
        let old = self.slots.get(&(member, key)).and_then(|version| self.messages.get(version));
        let freed = old.map_or(0, |message| message.frame.len());
        if self.bytes - freed + frame.len() > self.most_bytes && !self.planted.is(Plant::LatestUnbounded) {
            return Posted::Full;
        }
        self.version += 1;
        let old = self.slots.insert((member, key), self.version);
        if let Some(old) = old.filter(|_| !self.planted.is(Plant::Unconflated)) {
            self.forget(old);
        }
        self.bytes += frame.len();
        self.messages.insert(self.version, Message { member, frame });
        if old.is_some() { Posted::Replaced } else { Posted::New }
    }

    fn forget(&mut self, version: u64) {
        if let Some(message) = self.messages.remove(&version) {
            self.bytes -= message.frame.len();
        }
    }

    /// Returns the oldest message after version `after` that another member than `reader` has sent,
    /// with its version.
    #[must_use]
    pub fn next(&self, after: u64, reader: u32) -> Option<(u64, &Bytes)> {
        let newer = self.messages.range(after.checked_add(1)?..);
        newer.filter(|(_, message)| message.member != reader).map(|(version, m)| (*version, &m.frame)).next()
    }

    /// Removes all messages of a member.
    pub fn remove_member(&mut self, member: u32) {
        let old = self.slots.range((member, 0)..=(member, u32::MAX));
        let old: alloc::vec::Vec<_> = old.map(|(slot, version)| (*slot, *version)).collect();
        for (slot, version) in old {
            self.slots.remove(&slot);
            self.forget(version);
        }
    }

    /// Returns the number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns the bytes of all messages, counted anew.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.messages.values().map(|message| message.frame.len()).sum()
    }

    /// Returns true if there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_gets_each_sender_and_key_once_in_its_newest_form() {
        let mut board = LatestBoard::new(1024, Planted::default());
        for n in 0..10u8 {
            board.put(1, 0, Bytes::copy_from_slice(&[n]));
            board.put(2, u32::from(n % 2), Bytes::copy_from_slice(&[100 + n]));
        }
        assert_eq!(board.len(), 3);
        let mut after = 0;
        let mut got = alloc::vec::Vec::new();
        while let Some((version, frame)) = board.next(after, 3) {
            got.push(frame[0]);
            after = version;
        }
        assert_eq!(got, [108, 9, 109]);
        assert!(board.next(after, 3).is_none());
        board.put(1, 0, Bytes::from_static(&[77]));
        assert_eq!(board.next(after, 3).unwrap().1[0], 77);
        assert!(board.next(after, 1).is_none(), "nobody gets back what it sent");
    }

    #[test]
    fn a_board_that_is_full_drops_what_does_not_fit() {
        let mut board = LatestBoard::new(10, Planted::default());
        let frame = |len: usize| Bytes::from(alloc::vec![7; len]);
        assert_eq!(board.put(1, 0, frame(6)), Posted::New);
        assert_eq!(board.put(2, 0, frame(5)), Posted::Full);
        assert_eq!(board.put(2, 0, frame(4)), Posted::New);
        // A message that replaces an older one may use the older one's bytes.
        assert_eq!(board.put(1, 0, frame(7)), Posted::Full);
        assert_eq!(board.put(1, 0, frame(2)), Posted::Replaced);
        assert_eq!(board.put(2, 0, frame(8)), Posted::Replaced);
        assert_eq!((board.bytes, board.bytes(), board.len()), (10, 10, 2));
        board.remove_member(2);
        assert_eq!((board.bytes, board.bytes()), (2, 2));
    }

    #[test]
    fn a_member_that_leaves_takes_its_messages_along() {
        let mut board = LatestBoard::new(1024, Planted::default());
        board.put(1, 0, Bytes::new());
        board.put(1, 7, Bytes::new());
        board.put(2, 0, Bytes::new());
        board.remove_member(1);
        assert_eq!((board.len(), board.slots.len()), (1, 1));
    }
}
