//! Bounded queue of the frames that wait in a connection.

use bytes::Bytes;

use crate::node::frame_queue::FrameQueue;

/// Most frames in the queue of a connection: answers to requests, which are rate limited, and
/// messages of the application. Nothing that a session reads by its cursors is in the queue.
const CONTROL_QUEUE: usize = 64;

/// Number of queued frames from which on another answer has no more requests read: TCP holds a
/// peer that does not read. The rest of [`CONTROL_QUEUE`] is for a request with many answers, for
/// pings, and in part for the application.
const BACKED_UP: usize = CONTROL_QUEUE / 2;

/// Number of queued bytes from which on no other frame is queued: with the last one, the queue
/// holds at most one frame more. Beyond that, a peer is closed for too many answers, and an
/// application is told of the full queue.
pub(crate) const CONTROL_BYTES: usize = 256 * 1024;

/// Frames that no cursor stands for; at most [`CONTROL_QUEUE`], and [`CONTROL_BYTES`] with a frame
/// more.
#[derive(Debug, Default)]
pub(super) struct ControlQueue {
    frames: FrameQueue<CONTROL_QUEUE, CONTROL_BYTES>,
    /// So many answers wait for the peer to read that no more requests are read.
    backed_up: bool,
}

impl ControlQueue {
    /// Returns true if no more requests are to be read until the peer has read its answers.
    #[inline]
    pub(super) const fn is_backed_up(&self) -> bool {
        self.backed_up
    }

    /// Queues an answer to a request. Returns false if the queue is full.
    pub(super) fn push_answer(&mut self, frame: Bytes) -> bool {
        self.backed_up |= self.has_piled_up();
        self.push(frame)
    }

    /// Queues a message of the application. False if the queue is three quarters full: the rest is
    /// for answers, as the peer cannot be blamed for frames that it has not asked for.
    pub(super) fn push_message(&mut self, frame: Bytes) -> bool {
        self.frames.is_below(CONTROL_QUEUE / 4 * 3, CONTROL_BYTES / 4 * 3) && self.push(frame)
    }

    /// Queues a frame. Returns false if the queue is full.
    pub(super) fn push(&mut self, frame: Bytes) -> bool {
        self.frames.push(frame)
    }

    /// Takes out the frame that was queued first.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop()?;
        self.backed_up &= self.has_piled_up();
        Some(frame)
    }

    /// Returns the newest queued frame.
    pub(super) fn last(&self) -> Option<&Bytes> {
        self.frames.last()
    }

    /// Drops every frame, and the memory of the queue. Requests are not read after that.
    pub(super) fn clear(&mut self) {
        self.frames = FrameQueue::default();
    }

    /// Returns true if the queue holds half of its bound, in frames or in bytes.
    #[inline]
    fn has_piled_up(&self) -> bool {
        !self.frames.is_below(BACKED_UP, CONTROL_BYTES / 2)
    }

    /// Checks the bounds of the queue, if no frame is larger than `largest` bytes.
    ///
    /// # Errors
    /// Names the bound that does not hold.
    pub(super) fn audit(&self, largest: usize) -> Result<(), &'static str> {
        self.frames.audit(largest, "queue of a connection", "bytes in the queue of a connection")
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn frame(len: usize) -> Bytes {
        vec![0; len].into()
    }

    /// Number of frames of `len` bytes that `push` queues.
    fn fill(queue: &mut ControlQueue, len: usize, push: fn(&mut ControlQueue, Bytes) -> bool) -> usize {
        let count = (0..1_000).take_while(|_| push(queue, frame(len))).count();
        queue.audit(len).unwrap();
        count
    }

    #[test]
    fn the_queue_is_bounded_in_frames_and_in_bytes() {
        let mut queue = ControlQueue::default();
        assert_eq!(fill(&mut queue, 1, ControlQueue::push), CONTROL_QUEUE);
        // A frame of any size is queued while the queued bytes are below the bound.
        let mut queue = ControlQueue::default();
        assert_eq!(fill(&mut queue, CONTROL_BYTES / 4 + 1, ControlQueue::push), 4);
        assert_eq!(queue.audit(0), Err("queue of a connection"));
    }

    #[test]
    fn an_application_leaves_a_quarter_for_answers() {
        let mut queue = ControlQueue::default();
        assert_eq!(fill(&mut queue, 1, ControlQueue::push_message), 48);
        assert_eq!(fill(&mut queue, 1, ControlQueue::push_answer), 16);
        let mut queue = ControlQueue::default();
        assert_eq!(fill(&mut queue, CONTROL_BYTES / 4, ControlQueue::push_message), 3);
        assert!(queue.push_answer(frame(1)));
    }

    #[test]
    fn requests_are_held_from_an_answer_at_half_to_the_first_frame_below() {
        for (len, half) in [(1, BACKED_UP), (CONTROL_BYTES / 16, 8)] {
            let mut queue = ControlQueue::default();
            for _ in 0..half {
                assert!(queue.push_answer(frame(len)) && !queue.is_backed_up());
            }
            // A message of the application answers no request.
            assert!(queue.push_message(frame(len)) && !queue.is_backed_up());
            assert!(queue.push_answer(frame(len)) && queue.is_backed_up());
            assert!(queue.pop().is_some() && queue.is_backed_up());
            assert!(queue.pop().is_some() && queue.is_backed_up());
            assert!(queue.pop().is_some() && !queue.is_backed_up());
        }
    }

    #[test]
    fn a_queue_that_is_cleared_is_empty() {
        let mut queue = ControlQueue::default();
        for len in 1..4 {
            assert!(queue.push(frame(len)));
        }
        assert_eq!(queue.last(), Some(&frame(3)));
        assert_eq!(queue.pop(), Some(frame(1)));
        queue.audit(3).unwrap();
        queue.clear();
        queue.audit(0).unwrap();
        assert_eq!((queue.pop(), queue.last()), (None, None));
    }
}
