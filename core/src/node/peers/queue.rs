//! Frames that wait for a link.

use bytes::Bytes;

use crate::node::frame_queue::FrameQueue;

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
pub(super) struct LinkQueue(FrameQueue<CONTROL_QUEUE, CONTROL_BYTES>);

impl LinkQueue {
    /// Returns true if messages of members may be relayed over the link.
    pub(super) fn takes_more(&self) -> bool {
        self.0.is_below(RELAY_QUEUE, RELAY_BYTES)
    }

    /// Queues a frame. False if the peer is too far behind.
    pub(super) fn push(&mut self, frame: Bytes) -> bool {
        self.0.push(frame)
    }

    /// Takes out the oldest frame.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.0.pop()
    }

    /// Checks the bounds of the queue, if no frame is larger than `largest` bytes.
    pub(super) fn audit(&self, largest: usize) -> Result<(), &'static str> {
        self.0.audit(largest, "queue of a link", "bytes in the queue of a link")
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
}
