//! Keep-alives: one stream for all leases, with answers in the order of the requests.

use std::collections::VecDeque;

use skirmish_core::registry::{CallId, LeaseId};
use skirmish_core::time::{Duration, Instant};

/// A keep-alive without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeepAlive {
    pub(super) id: CallId,
    lease: LeaseId,
    pub(super) asked: Instant,
    /// Time of the last sending.
    pub(super) sent: Option<Instant>,
}

/// The keep-alives that wait for an answer, or to be sent. A keep-alive may be sent twice: the
/// lease's time to live then starts once more, which is harmless.
#[derive(Debug)]
pub(super) struct KeepAlives {
    /// Maximum time from a keep-alive to its outcome.
    patience: Duration,
    // Both are in the order of the calls; all sent keep-alives are older than all waiting ones.
    waiting: VecDeque<KeepAlive>,
    sent: VecDeque<KeepAlive>,
}

/// An answer to a keep-alive that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnexpectedAnswer;

impl KeepAlives {
    pub(super) const fn new(patience: Duration) -> Self {
        Self { patience, waiting: VecDeque::new(), sent: VecDeque::new() }
    }

    pub(super) fn push(&mut self, now: Instant, id: CallId, lease: LeaseId) {
        self.waiting.push_back(KeepAlive { id, lease, asked: now, sent: None });
    }

    /// Returns the lease of the next keep-alive to send.
    pub(super) fn to_send(&self) -> Option<LeaseId> {
        self.waiting.front().map(|keep| keep.lease)
    }

    /// Notes that the next keep-alive was sent.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        if let Some(keep) = self.waiting.pop_front() {
            self.sent.push_back(KeepAlive { sent: Some(now), ..keep });
        }
    }

    /// Removes the keep-alive to which an answer belongs.
    ///
    /// # Errors
    /// If the answer is for another lease than the oldest sent keep-alive. The stream is then of no
    /// use, and the keep-alive still has no answer.
    pub(super) fn handle_answer(&mut self, lease: LeaseId) -> Result<KeepAlive, UnexpectedAnswer> {
        match self.sent.front() {
            Some(keep) if keep.lease == lease => self.sent.pop_front().ok_or(UnexpectedAnswer),
            _ => Err(UnexpectedAnswer),
        }
    }

    /// Removes the first waiting keep-alive, because its lease does not exist: the stream could not
    /// even be opened.
    pub(super) fn take_first(&mut self, lease: LeaseId) -> Option<KeepAlive> {
        if self.to_send()? != lease {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Queues the unanswered keep-alives again after the stream has ended.
    pub(super) fn restart(&mut self) {
        while let Some(sent) = self.sent.pop_back() {
            self.waiting.push_front(sent);
        }
    }

    /// Returns the time at which the first keep-alive runs out of time.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let first = self.sent.front().or_else(|| self.waiting.front())?;
        Some(first.asked + self.patience)
    }

    /// Removes the next keep-alive that has run out of time. Returns true with a keep-alive whose
    /// answer is still missing on the stream, so that the stream is of no use.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<(KeepAlive, bool)> {
        if self.poll_timeout()? > now {
            return None;
        }
        match self.sent.pop_front() {
            Some(keep) => Some((keep, true)),
            None => self.waiting.pop_front().map(|keep| (keep, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);
    const PATIENCE: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// Returns three keep-alives, a millisecond apart.
    fn three() -> KeepAlives {
        let mut kept = KeepAlives::new(PATIENCE);
        for (call, lease) in [(1, A), (2, B), (3, A)] {
            kept.push(at(call), CallId(call), lease);
        }
        kept
    }

    #[test]
    fn answers_are_matched_in_the_order_of_requests() {
        let mut kept = three();
        while kept.to_send().is_some() {
            kept.handle_sent(at(5));
        }
        assert_eq!(kept.handle_answer(A).map(|keep| keep.id), Ok(CallId(1)));
        assert_eq!(kept.handle_answer(A), Err(UnexpectedAnswer));
        assert_eq!(kept.handle_answer(B).map(|keep| keep.id), Ok(CallId(2)), "it waited on");
        let mut kept = KeepAlives::new(PATIENCE);
        assert_eq!(kept.handle_answer(A), Err(UnexpectedAnswer));
        kept.push(at(0), CallId(4), B);
        assert_eq!(kept.take_first(A), None);
        assert_eq!(kept.take_first(B).map(|keep| keep.id), Some(CallId(4)));
    }

    #[test]
    fn a_broken_stream_sends_again_in_the_same_order() {
        let mut kept = three();
        kept.handle_sent(at(5));
        kept.handle_sent(at(5));
        kept.restart();
        let mut order = Vec::new();
        while let Some(lease) = kept.to_send() {
            kept.handle_sent(at(9));
            order.push(kept.handle_answer(lease).unwrap().id.0);
        }
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn keep_alives_run_out_of_time_in_the_order_in_which_they_came() {
        let mut kept = three();
        kept.handle_sent(at(5));
        assert_eq!(kept.poll_timeout(), Some(at(2_001)));
        assert_eq!(kept.take_expired(at(2_000)), None);
        let mut expired =
            || kept.take_expired(at(2_002)).map(|(keep, pending)| (keep.id.0, keep.sent, pending));
        assert_eq!(expired(), Some((1, Some(at(5)), true)), "its answer is still to come");
        assert_eq!(expired(), Some((2, None, false)));
        assert_eq!(expired(), None);
        // A sent keep-alive may have arrived, though its stream has ended.
        kept.handle_sent(at(6));
        kept.restart();
        let (keep, is_pending) = kept.take_expired(at(2_003)).unwrap();
        assert_eq!((keep.id, keep.sent, is_pending), (CallId(3), Some(at(6)), false));
        assert_eq!(kept.poll_timeout(), None);
    }
}
