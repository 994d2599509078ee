//! Content of a bot's message: its sender, its number and its due time.

use bytes::{BufMut as _, Bytes, BytesMut};
use skirmish_core::time::Instant;

/// The tag at the head of every body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// The sending bot.
    pub sender: u32,
    /// Number of the message, counted for each bot: 1, 2, 3, ...
    pub number: u64,
    /// Time of the message by the schedule.
    pub due: Instant,
}

impl Tag {
    /// Size of the tag, and so of the smallest body, in bytes.
    pub(super) const SIZE: usize = 20;

    /// Returns a body of `size` bytes that begins with the tag.
    pub(super) fn body(self, size: usize) -> Bytes {
        let mut body = BytesMut::with_capacity(size.max(Self::SIZE));
        body.put_u32(self.sender);
        body.put_u64(self.number);
        body.put_u64(self.due.as_micros());
        body.put_bytes(0x5A, size.saturating_sub(Self::SIZE));
        body.freeze()
    }

    /// Returns the tag of a body; `None` if there is no tag.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (sender, rest) = body.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (due, _) = rest.split_first_chunk()?;
        Some(Self {
            sender: u32::from_be_bytes(*sender),
            number: u64::from_be_bytes(*number),
            due: Instant::from_micros(u64::from_be_bytes(*due)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_body() {
        let tag = Tag { sender: 7, number: 1 << 40, due: Instant::from_micros(123_456_789_012) };
        for size in [0, Tag::SIZE, 64] {
            let body = tag.body(size);
            assert_eq!(body.len(), size.max(Tag::SIZE));
            assert_eq!(Tag::read(&body), Some(tag));
        }
        assert_eq!(Tag::read(&[0; Tag::SIZE - 1]), None);
    }
}
