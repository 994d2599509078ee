//! Counts the frames of a WebSocket that no message shows: the WebSocket handles pings, pongs and
//! fragments silently.

use skirmish_core::node::Overhead;

/// Longest header of a frame (RFC 6455, section 5.2), in bytes.
const MAX_HEADER: usize = 14;

/// Follows the frames in the bytes of a stream, in chunks of any size.
#[derive(Debug, Default)]
pub(super) struct FrameCounter {
    /// The received part of a header.
    header: [u8; MAX_HEADER],
    length: usize,
    /// Bytes of the payload that are still missing.
    payload: u64,
    overhead: Overhead,
}

impl FrameCounter {
    /// Takes the next bytes of the stream, until `most` more frames are counted. Returns the number
    /// of bytes taken, which end with the header of the last counted frame.
    pub(super) fn feed(&mut self, bytes: &[u8], most: u32) -> usize {
        let full = self.counted().saturating_add(most);
        let mut rest = bytes;
        while self.counted() < full {
            let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(rest.len());
            self.payload -= skipped as u64;
            let Some((&next, after)) = rest.get(skipped..).and_then(<[u8]>::split_first) else {
                return bytes.len();
            };
            rest = after;
            if let Some(place) = self.header.get_mut(self.length) {
                *place = next;
                self.length += 1;
            }
            self.finish_header();
        }
        bytes.len() - rest.len()
    }

    /// Returns the number of frames that were counted since the last [`Self::take`].
    pub(super) const fn counted(&self) -> u32 {
        self.overhead.controls.saturating_add(self.overhead.fragments)
    }

    /// Returns the counted frames since the last call.
    pub(super) fn take(&mut self) -> Overhead {
        std::mem::take(&mut self.overhead)
    }

    fn finish_header(&mut self) {
        let [first, second, extended @ ..] = &self.header;
        let (extension, masks) = (second & 0x7f, second & 0x80 != 0);
        let width = match extension {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.length < 2 + width + if masks { 4 } else { 0 } {
            return;
        }
        self.payload = match width {
            0 => extension.into(),
            _ => extended.iter().take(width).fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        match first & 0x0f {
            0 => self.overhead.fragments = self.overhead.fragments.saturating_add(1),
            8.. => self.overhead.controls = self.overhead.controls.saturating_add(1),
            _ => {}
        }
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};

    use super::*;

    proptest! {
        #[test]
        fn every_frame_is_counted_whatever_the_chunks(
            frames in prop::collection::vec((0usize..5, any::<bool>(), 0usize..200), 0..40),
            long in 0usize..70_000,
            chunk in 1usize..300,
            most in 1u32..10,
        ) {
            let mut stream = Vec::new();
            let mut expected = Overhead::default();
            for (index, (kind, masks, mut length)) in frames.into_iter().enumerate() {
                let opcode = match kind {
                    0 => OpCode::Data(Data::Binary),
                    1 => OpCode::Data(Data::Continue),
                    2 => OpCode::Control(Control::Ping),
                    3 => OpCode::Control(Control::Pong),
                    _ => OpCode::Control(Control::Close),
                };
                expected.fragments += u32::from(kind == 1);
                expected.controls += u32::from(kind > 1);
                if index == 0 && kind < 2 {
                    length = long;
                }
                let mask = masks.then_some([1, 2, 3, 4]);
                let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
                // The content may look like headers.
                Frame::from_payload(header, vec![0x89; length].into()).format(&mut stream).expect("it is formatted");
            }
            let mut counter = FrameCounter::default();
            let mut all = Overhead::default();
            for mut chunk in stream.chunks(chunk) {
                while !chunk.is_empty() {
                    chunk = &chunk[counter.feed(chunk, most)..];
                    let overhead = counter.take();
                    prop_assert!(overhead.controls + overhead.fragments <= most);
                    all.controls += overhead.controls;
                    all.fragments += overhead.fragments;
                }
            }
            prop_assert_eq!(all, expected);
            prop_assert_eq!(counter.take(), Overhead::default());
        }
    }
}
