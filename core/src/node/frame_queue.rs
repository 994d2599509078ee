//! Frames that wait to be sent, bounded in number and in bytes.

use alloc::collections::VecDeque;

use bytes::Bytes;

/// A queue of frames, of which at most `FRAMES` wait. No frame is added while `BYTES` or more wait: the
/// queue holds at most one frame more.
#[derive(Debug, Default)]
pub(super) struct FrameQueue<const FRAMES: usize, const BYTES: usize> {
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl<const FRAMES: usize, const BYTES: usize> FrameQueue<FRAMES, BYTES> {
    /// Returns true if fewer frames, and fewer bytes, wait.
    #[inline]
    pub(super) fn is_below(&self, frames: usize, bytes: usize) -> bool {
        self.frames.len() < frames && self.bytes < bytes
    }

    /// Adds a frame. Returns false if the queue is full.
    #[inline]
    pub(super) fn push(&mut self, frame: Bytes) -> bool {
        let fits = self.is_below(FRAMES, BYTES);
        if fits {
            self.bytes += frame.len();
            self.frames.push_back(frame);
        }
        fits
    }

    /// Takes out the oldest frame.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.len();
        Some(frame)
    }

    /// Bytes of the frames before the newest.
    pub(super) fn bytes_before_last(&self) -> usize {
        self.bytes - self.frames.back().map_or(0, Bytes::len)
    }

    /// The newest frame.
    pub(super) fn last(&self) -> Option<&Bytes> {
        self.frames.back()
    }

    /// Checks the bounds, if no frame is larger than `largest` bytes.
    ///
    /// # Errors
    /// `bound` if a bound does not hold, `count` if the bytes were not counted right.
    pub(super) fn audit(
        &self,
        largest: usize,
        bound: &'static str,
        count: &'static str,
    ) -> Result<(), &'static str> {
        let bytes: usize = self.frames.iter().map(Bytes::len).sum();
        if self.frames.len() > FRAMES || bytes > BYTES + largest {
            return Err(bound);
        }
        if bytes != self.bytes { Err(count) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = FrameQueue<3, 10>;

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(alloc::vec![0; bytes])
    }

    #[test]
    fn frames_come_out_in_order_and_free_their_bytes() {
        let mut queue = Small::default();
        assert!(queue.push(frame(3)) && queue.push(frame(4)));
        assert_eq!((queue.bytes, queue.last()), (7, Some(&frame(4))));
        assert_eq!((queue.pop(), queue.bytes), (Some(frame(3)), 4));
        assert_eq!((queue.pop(), queue.pop(), queue.bytes), (Some(frame(4)), None, 0));
    }

    #[test]
    fn a_full_queue_takes_no_frame_until_one_is_read() {
        for frames in [&[1, 1, 1][..], &[9, 1], &[100]] {
            let mut queue = Small::default();
            assert!(frames.iter().all(|bytes| queue.push(frame(*bytes))), "{frames:?}");
            assert!(!queue.push(frame(0)));
            queue.pop();
            assert!(queue.push(frame(0)));
        }
    }

    #[test]
    fn the_audit_counts_anew() {
        let mut queue = Small::default();
        assert!(queue.push(frame(9)) && queue.push(frame(4)));
        let audit = |queue: &Small, largest| queue.audit(largest, "bound", "count");
        assert_eq!((audit(&queue, 2), audit(&queue, 3)), (Err("bound"), Ok(())));
        queue.bytes += 1;
        assert_eq!(audit(&queue, 3), Err("count"));
        queue.bytes -= 1;
        queue.frames.extend([frame(0), frame(0)]);
        assert_eq!(audit(&queue, 3), Err("bound"));
    }
}
