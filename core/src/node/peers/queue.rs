//! Frames that wait for a link.

use bytes::Bytes;

use crate::base::plant::{Plant, Planted};
use crate::node::frame_queue::FrameQueue;

/// Most frames that may wait for a link, beside the rooms that are read over it. A link whose
/// queue is full is dropped, and both sides start afresh on the next.
const CONTROL_QUEUE: usize = 65_536;

/// Number of frames in the queue of a link from which on messages of members are not relayed over
/// it, as from half of its bytes on. The members are told to wait.
const RELAY_QUEUE: usize = 4_096;

/// Cap in bytes of the queue's part that is not checked: [`LinkQueue`] has a cap of its own.
const NO_CAP: usize = usize::MAX / 2;

/// The frames that wait for a link, in order. No frame is added while
/// [`queue_bytes`](crate::config::LinkLimits::queue_bytes) or more wait: the queue holds at most one
/// frame more.
#[derive(Debug)]
pub(super) struct LinkQueue {
    frames: FrameQueue<CONTROL_QUEUE, NO_CAP>,
    bytes: usize,
}

impl LinkQueue {
    /// An empty queue that takes frames while fewer than `bytes` bytes wait.
    pub(super) fn new(bytes: usize, planted: Planted) -> Self {
        let bytes = if planted.is(Plant::LinkQueueUncapped) { NO_CAP } else { bytes };
        Self { frames: FrameQueue::default(), bytes }
    }

    /// Returns true if messages of members may be relayed over the link.
    pub(super) fn takes_more(&self) -> bool {
        self.frames.is_below(RELAY_QUEUE, self.bytes / 2)
    }

    /// Queues a frame. False if the peer is too far behind.
    pub(super) fn push(&mut self, frame: Bytes) -> bool {
        self.frames.is_below(CONTROL_QUEUE, self.bytes) && self.frames.push(frame)
    }

    /// Takes out the oldest frame.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.frames.pop()
    }

    /// Checks the bounds of the queue, whose cap is `bytes`.
    pub(super) fn audit(&self, bytes: usize) -> Result<(), &'static str> {
        let before = self.frames.bytes_before_last();
        if before > 0 && before >= bytes {
            return Err("bytes in the queue of a link");
        }
        self.frames.audit(0, "queue of a link", "count of bytes in the queue of a link")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 1024 * 1024;

    fn push(queue: &mut LinkQueue, bytes: usize) -> bool {
        queue.push(Bytes::from(alloc::vec![0; bytes]))
    }

    fn filled(frames: usize, bytes: usize) -> LinkQueue {
        let mut queue = LinkQueue::new(BYTES, Planted::default());
        for _ in 0..frames {
            assert!(push(&mut queue, bytes));
        }
        queue
    }

    #[test]
    fn a_full_queue_takes_no_frame_until_one_is_read() {
        for mut queue in [filled(CONTROL_QUEUE, 1), filled(16, BYTES / 16)] {
            assert!(!push(&mut queue, 1));
            assert_eq!(queue.audit(BYTES), Ok(()), "a frame that does not fit changes nothing");
            queue.pop();
            assert!(push(&mut queue, 1));
        }
    }

    #[test]
    fn the_queue_holds_at_most_one_frame_more_than_its_cap() {
        let mut queue = filled(1, BYTES - 1);
        assert!(push(&mut queue, 3 * BYTES));
        assert_eq!((queue.audit(BYTES), push(&mut queue, 0)), (Ok(()), false));
        assert_eq!(queue.audit(BYTES - 1), Err("bytes in the queue of a link"));
    }

    #[cfg(feature = "plant")]
    #[test]
    fn the_audit_finds_a_queue_without_a_cap() {
        let mut queue = LinkQueue::new(BYTES, Planted::with(Plant::LinkQueueUncapped));
        assert!(push(&mut queue, BYTES) && queue.takes_more() && push(&mut queue, 1));
        assert_eq!(queue.audit(BYTES), Err("bytes in the queue of a link"));
    }

    #[test]
    fn relayed_messages_leave_place_for_everything_else() {
        for (frames, bytes) in [(RELAY_QUEUE, 1), (8, BYTES / 2 / 8)] {
            let mut queue = filled(frames - 1, bytes);
            assert!(queue.takes_more());
            assert!(push(&mut queue, bytes));
            assert!(!queue.takes_more());
            assert!(push(&mut queue, 1), "only relayed messages wait");
        }
    }
}
