//! Frames that wait for a link.

use alloc::collections::VecDeque;

use bytes::Bytes;

/// Most frames that may wait for a link, beside the rooms that are read over it. A link whose
/// queue is full is dropped, and both sides start afresh on the next.
const CONTROL_QUEUE: usize = 65_536;

/// Bytes in the queue of a link from which on no further frame is queued.
pub(crate) const CONTROL_BYTES: usize = 16 * 1024 * 1024;

/// Frames or bytes in the queue of a link from which on messages of members are not relayed
/// over it. The members are told to wait.
const RELAY_QUEUE: usize = 4_096;
const RELAY_BYTES: usize = 8 * 1024 * 1024;

/// The frames that wait for a link, in order.
#[derive(Debug, Default)]
pub(super) struct LinkQueue {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl LinkQueue {
    /// Returns true if messages of members may be relayed over the link.
    pub(super) fn takes_more(&self) -> bool {
        self.frames.len() < RELAY_QUEUE && self.bytes < RELAY_BYTES
    }

    /// Queues a frame. False if the peer is too far behind.
    pub(super) fn push(&mut self, frame: Bytes) -> bool {
        let fits = self.frames.len() < CONTROL_QUEUE && self.bytes < CONTROL_BYTES;
        if fits {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
        fits
    }

    /// Takes out the oldest frame.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    /// Checks the bounds of the queue, if no frame is larger than `largest` bytes.
    pub(super) fn audit(&self, largest: usize) -> Result<(), &'static str> {
        let bytes: usize = self.frames.iter().map(Bytes::len).sum();
        if self.frames.len() > CONTROL_QUEUE || bytes > CONTROL_BYTES + largest {
            return Err("queue of a link");
        }
        if bytes != self.bytes { Err("bytes in the queue of a link") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(frames: usize, bytes: usize) -> LinkQueue {
        let mut queue = LinkQueue::default();
        let frame = Bytes::from(alloc::vec![0; bytes]);
        for _ in 0..frames {
            assert!(queue.push(frame.clone()));
        }
        queue
    }

    #[test]
    fn frames_come_out_in_order_and_free_their_bytes() {
        let mut queue = LinkQueue::default();
        assert!(queue.push(Bytes::from_static(b"one")) && queue.push(Bytes::from_static(b"two!")));
        assert_eq!(queue.bytes, 7);
        assert_eq!(queue.pop(), Some(Bytes::from_static(b"one")));
        assert_eq!(queue.bytes, 4);
        assert_eq!(queue.pop(), Some(Bytes::from_static(b"two!")));
        assert_eq!((queue.pop(), queue.bytes), (None, 0));
    }

    #[test]
    fn a_full_queue_takes_no_frame_until_one_is_read() {
        for mut queue in [filled(CONTROL_QUEUE, 1), filled(16, CONTROL_BYTES / 16)] {
            assert!(!queue.push(Bytes::from_static(b"x")));
            assert_eq!(queue.audit(1), Ok(()), "a frame that does not fit changes nothing");
            queue.pop();
            assert!(queue.push(Bytes::from_static(b"x")));
        }
    }

    #[test]
    fn relayed_messages_leave_place_for_everything_else() {
        for (frames, bytes) in [(RELAY_QUEUE, 1), (8, RELAY_BYTES / 8)] {
            let mut queue = filled(frames - 1, bytes);
            assert!(queue.takes_more());
            assert!(queue.push(Bytes::from(alloc::vec![0; bytes])));
            assert!(!queue.takes_more());
            assert!(queue.push(Bytes::from_static(b"x")), "only relayed messages wait");
        }
    }

    #[test]
    fn the_audit_counts_bytes_anew() {
        let mut queue = filled(3, 5);
        assert_eq!(queue.audit(0), Ok(()));
        queue.bytes += 1;
        assert_eq!(queue.audit(0), Err("bytes in the queue of a link"));
        queue.frames.clear();
        queue.frames.push_back(Bytes::from(alloc::vec![0; CONTROL_BYTES + 3]));
        queue.bytes = CONTROL_BYTES + 3;
        assert_eq!(queue.audit(2), Err("queue of a link"));
        assert_eq!(queue.audit(3), Ok(()), "the last frame may go beyond the bound");
    }
}
