//! The reliable messages of a room that have no outcome yet.

use alloc::collections::VecDeque;
use alloc::string::String;

use bytes::Bytes;

use super::event::MessageId;
use crate::base::time::Instant;

/// A reliable message.
#[derive(Debug)]
pub(super) struct OutboxMessage {
    pub(super) id: MessageId,
    pub(super) body: Bytes,
    pub(super) type_url: String,
    pub(super) ends_turn: Option<u32>,
}

impl OutboxMessage {
    /// Returns the bytes that count against the cap.
    pub(super) fn size(&self) -> usize {
        self.body.len() + self.type_url.len()
    }
}

/// Error of an acknowledgement of a message that was never sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NeverSent;

/// Messages in the order in which the application has passed them, which is the order of sending,
/// of sending again, and of acknowledgement (G4). The first message has the number `acknowledged +
/// 1`. So messages that were never sent have no number of their own, and setting `acknowledged`
/// moves them to a new membership.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: VecDeque<OutboxMessage>,
    bytes: usize,
    /// Highest `client_seq` that the server has acknowledged.
    acknowledged: u64,
    /// Number of messages, from the first, that were ever sent in this membership.
    sent: usize,
    /// Number of messages, from the first, that were sent and need not be sent again.
    in_flight: usize,
    /// Earliest time for the next message, since the server throttles.
    pub(super) retry_at: Option<Instant>,
    /// Acknowledged messages whose entry was not delivered yet, with their numbers.
    unseen: VecDeque<(u64, MessageId)>,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Appends a message. The caller checks the caps, which count all rooms.
    pub(super) fn push(&mut self, message: OutboxMessage) {
        self.bytes += message.size();
        self.messages.push_back(message);
    }

    /// Returns the next message to be sent, with its `client_seq`.
    pub(super) fn send_next(&mut self, now: Instant) -> Option<(u64, &OutboxMessage)> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        let message = self.messages.get(self.in_flight)?;
        self.in_flight += 1;
        self.sent = self.sent.max(self.in_flight);
        Some((self.acknowledged + self.in_flight as u64, message))
    }

    /// Acknowledges every message up to `client_seq`, and returns the messages. A number that is
    /// acknowledged already has no effect. `remember` bounds the number of messages that are kept
    /// for [`Self::seen`].
    pub(super) fn acknowledge(
        &mut self,
        client_seq: u64,
        remember: usize,
    ) -> Result<impl Iterator<Item = MessageId> + '_, NeverSent> {
        let count = client_seq.saturating_sub(self.acknowledged);
        let count = usize::try_from(count).ok().filter(|n| *n <= self.sent).ok_or(NeverSent)?;
        let first = self.acknowledged + 1;
        self.acknowledged += count as u64;
        self.sent -= count;
        self.in_flight = self.in_flight.saturating_sub(count);
        let Self { messages, bytes, unseen, .. } = self;
        Ok((first..).zip(messages.drain(..count)).map(move |(client_seq, message)| {
            *bytes -= message.size();
            if unseen.len() >= remember {
                unseen.pop_front();
            }
            unseen.push_back((client_seq, message.id));
            message.id
        }))
    }

    /// Returns the own message to which a delivered entry belongs.
    pub(super) fn seen(&mut self, client_seq: u64) -> Option<MessageId> {
        while let Some((seq, id)) = self.unseen.front().copied() {
            if seq > client_seq {
                return None;
            }
            self.unseen.pop_front();
            if seq == client_seq {
                return Some(id);
            }
        }
        None
    }

    /// Goes back to the message `expected`, which the server accepts next, and not before
    /// `retry_at`. If acknowledgements have overtaken the notice, only the wait changes.
    pub(super) fn go_back(&mut self, expected: u64, retry_at: Instant) {
        let keep = expected.saturating_sub(self.acknowledged + 1);
        self.in_flight = self.in_flight.min(usize::try_from(keep).unwrap_or(usize::MAX));
        self.retry_at = Some(retry_at);
    }

    /// Marks all unacknowledged messages for sending again, on another connection of the same
    /// membership.
    pub(super) fn resend(&mut self, backwards: bool) {
        self.in_flight = 0;
        self.retry_at = None;
        if backwards {
            self.messages.make_contiguous()[..self.sent].reverse();
        }
    }

    /// Starts a new membership, whose next message is `client_seq + 1`. The caller settles the
    /// messages that were sent in the old membership before ([`Self::settle_sent`]).
    pub(super) fn renumber(&mut self, client_seq: u64) {
        self.acknowledged = client_seq;
        self.in_flight = 0;
        self.retry_at = None;
        self.unseen.clear();
    }

    /// Removes and returns the messages that were ever sent: their outcome is unknown.
    pub(super) fn settle_sent(&mut self) -> impl Iterator<Item = MessageId> + '_ {
        let count = core::mem::take(&mut self.sent);
        self.in_flight = 0;
        let Self { messages, bytes, .. } = self;
        messages.drain(..count).map(move |message| {
            *bytes -= message.size();
            message.id
        })
    }

    /// Removes and returns the messages that were never sent: they are refused.
    pub(super) fn settle_unsent(&mut self) -> impl Iterator<Item = MessageId> + '_ {
        let Self { messages, bytes, sent, .. } = self;
        messages.drain(*sent..).map(move |message| {
            *bytes -= message.size();
            message.id
        })
    }

    /// Removes and returns the messages that were never sent and have a larger body than the server
    /// accepts.
    pub(super) fn settle_larger(&mut self, body_bytes: usize) -> impl Iterator<Item = MessageId> + '_ {
        let Self { messages, bytes, sent, .. } = self;
        let mut index = *sent;
        core::iter::from_fn(move || {
            while messages.get(index)?.body.len() <= body_bytes {
                index += 1;
            }
            let message = messages.remove(index)?;
            *bytes -= message.size();
            Some(message.id)
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn outbox(messages: u64) -> Outbox {
        let mut outbox = Outbox::default();
        for id in 1..=messages {
            outbox.push(OutboxMessage {
                id: MessageId(id),
                body: Bytes::from_static(b"1234"),
                type_url: "t".into(),
                ends_turn: None,
            });
        }
        outbox
    }

    fn send_all(outbox: &mut Outbox) -> Vec<(u64, u64)> {
        core::iter::from_fn(|| outbox.send_next(Instant::ZERO).map(|(seq, m)| (seq, m.id.0))).collect()
    }

    fn ids(messages: impl Iterator<Item = MessageId>) -> Vec<u64> {
        messages.map(|m| m.0).collect()
    }

    #[test]
    fn numbers_start_after_what_the_server_has() {
        let mut outbox = outbox(2);
        outbox.renumber(7);
        assert_eq!(send_all(&mut outbox), [(8, 1), (9, 2)]);
    }

    #[test]
    fn acknowledgements_are_cumulative_and_only_for_what_was_sent() {
        let mut outbox = outbox(3);
        assert!(outbox.acknowledge(1, 9).is_err());
        outbox.send_next(Instant::ZERO);
        outbox.send_next(Instant::ZERO);
        assert!(outbox.acknowledge(3, 9).is_err());
        assert_eq!(ids(outbox.acknowledge(2, 9).unwrap()), [1, 2]);
        assert_eq!(ids(outbox.acknowledge(1, 9).unwrap()), [0; 0]);
        assert_eq!((outbox.len(), outbox.bytes(), outbox.in_flight()), (1, 5, 0));
        assert_eq!(send_all(&mut outbox), [(3, 3)]);
    }

    #[test]
    fn an_entry_finds_its_message_though_it_was_acknowledged_before() {
        let mut outbox = outbox(3);
        send_all(&mut outbox);
        assert_eq!(outbox.acknowledge(3, 2).unwrap().count(), 3);
        assert_eq!(outbox.seen(1), None, "only two are remembered");
        assert_eq!(outbox.seen(3), Some(MessageId(3)));
        assert_eq!(outbox.seen(2), None, "entries come in order");
    }

    #[test]
    fn a_throttled_outbox_goes_back_and_waits() {
        let mut outbox = outbox(4);
        send_all(&mut outbox);
        outbox.go_back(3, Instant::from_micros(10));
        assert!(outbox.send_next(Instant::from_micros(9)).is_none());
        assert_eq!(outbox.send_next(Instant::from_micros(10)).unwrap().0, 3);
        outbox.go_back(0, Instant::ZERO);
        assert_eq!(send_all(&mut outbox)[0], (1, 1));
        outbox.go_back(99, Instant::ZERO);
        assert_eq!(send_all(&mut outbox), []);
    }

    #[test]
    fn a_lost_membership_settles_what_was_sent_and_keeps_the_rest() {
        let mut outbox = outbox(3);
        outbox.send_next(Instant::ZERO);
        outbox.go_back(1, Instant::ZERO);
        assert_eq!(ids(outbox.settle_sent()), [1], "also if it would have been sent again");
        outbox.renumber(0);
        assert_eq!(send_all(&mut outbox), [(1, 2), (2, 3)]);
    }

    #[test]
    fn messages_that_became_too_large_are_taken_out() {
        let mut outbox = outbox(2);
        outbox.push(OutboxMessage {
            id: MessageId(3),
            body: Bytes::from_static(&[0; 9]),
            type_url: String::new(),
            ends_turn: None,
        });
        outbox.push(OutboxMessage {
            id: MessageId(4),
            body: Bytes::new(),
            type_url: String::new(),
            ends_turn: None,
        });
        assert_eq!(ids(outbox.settle_larger(8)), [3]);
        assert_eq!((outbox.len(), outbox.bytes()), (3, 10));
    }

    proptest! {
        /// In all runs, a message is sent under one number in a membership, in the order of the
        /// calls, and leaves the outbox once.
        #[test]
        fn order_and_numbers_never_change(steps in prop::collection::vec((0u8..6, 0u64..12), 0..60)) {
            let mut outbox = Outbox::default();
            let (mut said, mut gone) = (0, Vec::new());
            for (step, n) in steps {
                match step {
                    0 | 1 => {
                        said += 1;
                        outbox.push(OutboxMessage { id: MessageId(said), body: Bytes::new(), type_url: String::new(), ends_turn: None });
                    }
                    2 => if let Some((seq, message)) = outbox.send_next(Instant::ZERO) {
                        prop_assert_eq!(seq, message.id.0);
                    },
                    3 => if let Ok(acknowledged) = outbox.acknowledge(n, 4) {
                        gone.extend(ids(acknowledged));
                    },
                    4 => outbox.go_back(n, Instant::ZERO),
                    _ => outbox.resend(false),
                }
                prop_assert!(outbox.in_flight <= outbox.sent && outbox.sent <= outbox.len());
            }
            gone.extend(ids(outbox.settle_sent()));
            gone.extend(ids(outbox.settle_unsent()));
            prop_assert_eq!(gone, (1..=said).collect::<Vec<_>>());
        }
    }
}
