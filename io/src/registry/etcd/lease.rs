//! Keep-alives: one stream for all leases, on which answers come in the order of requests.

use std::collections::VecDeque;

use skirmish_core::registry::{CallId, LeaseId};

/// The keep-alives that wait for an answer, or to be sent. They may be sent again: that
/// starts the time to live anew once more, which does no harm.
#[derive(Debug, Default)]
pub(super) struct KeepAlives {
    waiting: VecDeque<(CallId, LeaseId)>,
    sent: VecDeque<(CallId, LeaseId)>,
}

/// An answer to something that was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfStep;

impl KeepAlives {
    pub(super) fn push(&mut self, id: CallId, lease: LeaseId) {
        self.waiting.push_back((id, lease));
    }

    /// The lease whose keep-alive is to be sent next.
    pub(super) fn to_send(&self) -> Option<LeaseId> {
        self.waiting.front().map(|(_, lease)| *lease)
    }

    /// That was sent. Whose it is.
    pub(super) fn handle_sent(&mut self) -> Option<CallId> {
        let sent = self.waiting.pop_front()?;
        self.sent.push_back(sent);
        Some(sent.0)
    }

    /// An answer came. Whose it is.
    ///
    /// # Errors
    /// If it is not of the lease that was asked for; the stream is of no use then.
    pub(super) fn handle_answer(&mut self, lease: LeaseId) -> Result<CallId, OutOfStep> {
        match self.sent.pop_front() {
            Some((id, asked)) if asked == lease => Ok(id),
            _ => Err(OutOfStep),
        }
    }

    /// The stream could not even be opened, since there is no such lease: whose keep-alive
    /// was to be the first.
    pub(super) fn take_first(&mut self, lease: LeaseId) -> Option<CallId> {
        let (id, first) = *self.waiting.front()?;
        if first != lease {
            return None;
        }
        self.waiting.pop_front();
        Some(id)
    }

    /// The stream has ended: what was not answered is to be sent again.
    pub(super) fn restart(&mut self) {
        while let Some(sent) = self.sent.pop_back() {
            self.waiting.push_front(sent);
        }
    }

    /// Nobody waits for this one any more. Whether its answer is still to come, so that the
    /// stream is of no use without it.
    pub(super) fn remove(&mut self, id: CallId) -> bool {
        // Requests expire in the order in which they came: it is near the front.
        let place = |queue: &VecDeque<(CallId, LeaseId)>| queue.iter().position(|(queued, _)| *queued == id);
        if let Some(at) = place(&self.waiting) {
            self.waiting.remove(at);
        }
        place(&self.sent).is_some_and(|at| self.sent.remove(at).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    #[test]
    fn answers_are_matched_in_the_order_of_requests() {
        let mut kept = KeepAlives::default();
        for (call, lease) in [(1, A), (2, B), (3, A)] {
            kept.push(CallId(call), lease);
        }
        while kept.to_send().is_some() {
            kept.handle_sent();
        }
        assert_eq!(kept.handle_answer(A), Ok(CallId(1)));
        assert_eq!(kept.handle_answer(A), Err(OutOfStep));
        let mut kept = KeepAlives::default();
        assert_eq!(kept.handle_answer(A), Err(OutOfStep));
        kept.push(CallId(4), B);
        assert_eq!((kept.take_first(A), kept.take_first(B)), (None, Some(CallId(4))));
    }

    #[test]
    fn a_broken_stream_sends_again_in_the_same_order() {
        let mut kept = KeepAlives::default();
        for (call, lease) in [(1, A), (2, B), (3, A)] {
            kept.push(CallId(call), lease);
        }
        kept.handle_sent();
        kept.handle_sent();
        assert!(kept.remove(CallId(2)), "its answer is still to come");
        assert!(!kept.remove(CallId(2)));
        kept.restart();
        let mut order = Vec::new();
        while let Some(lease) = kept.to_send() {
            kept.handle_sent();
            order.push(kept.handle_answer(lease).unwrap().0);
        }
        assert_eq!(order, [1, 3]);
    }
}
