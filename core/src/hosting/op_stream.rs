//! Ops on their way from a room's primary to its backup.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use skirmish_proto::v1;

/// Ops that the backup has not stored, in order and without gaps. The backup reads them by cursor, as
/// its link takes more.
#[derive(Clone, Debug)]
pub(super) struct OpStream {
    ops: VecDeque<v1::Op>,
    /// Number of the last op that the backup has stored: the op before `ops[0]`.
    stored: u64,
    /// Number of the last op that was sent over the link.
    sent: u64,
    /// Number of the last op that the backup was told to release.
    released: u64,
    /// True if the backup has the state to which the ops belong.
    is_installed: bool,
}

impl OpStream {
    /// Creates a stream for a backup that has applied all ops up to a number.
    pub(super) fn after(applied: u64) -> Self {
        Self { is_installed: true, ..Self::installing(applied) }
    }

    /// Creates a stream for a candidate that is sent the state after an op.
    pub(super) const fn installing(applied: u64) -> Self {
        Self { ops: VecDeque::new(), stored: applied, sent: applied, released: applied, is_installed: false }
    }

    /// Returns true if the backup has stored all ops of the stream.
    pub(super) fn is_through(&self) -> bool {
        self.is_installed && self.ops.is_empty()
    }

    /// Returns true if the backup has the state to which the ops belong.
    pub(super) const fn is_installed(&self) -> bool {
        self.is_installed
    }

    /// Returns the number of the last op that the backup has stored.
    pub(super) const fn stored(&self) -> u64 {
        self.stored
    }

    /// Returns the number of the newest op.
    pub(super) fn newest(&self) -> u64 {
        self.stored + self.ops.len() as u64
    }

    /// Returns the number of ops that the backup has not stored.
    pub(super) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Adds the next op.
    pub(super) fn push(&mut self, op: v1::Op) {
        self.ops.push_back(op);
    }

    /// Takes the backup's word that it has stored all ops up to a number. Returns true if that is news.
    pub(super) fn store(&mut self, number: u64) -> bool {
        let was_installed = core::mem::replace(&mut self.is_installed, true);
        let news = number.min(self.sent).saturating_sub(self.stored);
        self.ops.drain(..usize::try_from(news).unwrap_or(usize::MAX).min(self.ops.len()));
        self.stored += news;
        news > 0 || !was_installed
    }

    /// Goes on after a loss of the link: with the ops that the backup does not have, behind those that it
    /// has applied and those that it has stored, by their terms. Returns false if it lacks an op that is
    /// not in the stream any more.
    pub(super) fn rejoin(&mut self, applied: u64, runs: &[v1::OpRun]) -> bool {
        let newest_there = runs.last().map_or(applied, |run| run.last);
        if newest_there < self.stored {
            return false;
        }
        let is_there = |op: &v1::Op| {
            let run = runs.iter().find(|run| op.number <= run.last);
            op.number <= applied || run.is_some_and(|run| run.term == op.term)
        };
        let same = self.ops.iter().take_while(|op| is_there(op)).count();
        self.sent = self.stored + same as u64;
        self.store(self.sent);
        self.released = applied.min(self.released);
        true
    }

    /// Returns the next ops to send, of about so many bytes at most, if there are any or if there is a
    /// newer op to release.
    pub(super) fn next(&mut self, released: u64, bytes: usize) -> Option<Vec<v1::Op>> {
        let skipped = usize::try_from(self.sent - self.stored).unwrap_or(usize::MAX);
        let mut size = 0;
        let fits = |op: &&v1::Op| {
            let is_first = size == 0;
            size += prost::Message::encoded_len(*op);
            is_first || size <= bytes
        };
        let ops: Vec<v1::Op> = self.ops.iter().skip(skipped).take_while(fits).cloned().collect();
        self.sent += ops.len() as u64;
        // An op is released only after it was sent.
        let released = released.min(self.sent);
        if ops.is_empty() && released <= self.released {
            return None;
        }
        self.released = self.released.max(released);
        Some(ops)
    }

    /// Returns the number of the last op that the backup was told to release.
    pub(super) const fn released(&self) -> u64 {
        self.released
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn op(number: u64, term: u32) -> v1::Op {
        v1::Op { number, term, ..v1::Op::default() }
    }

    fn stream(ops: &[(u64, u32)]) -> OpStream {
        let mut stream = OpStream::after(ops[0].0 - 1);
        ops.iter().for_each(|(number, term)| stream.push(op(*number, *term)));
        stream
    }

    fn numbers(ops: Option<Vec<v1::Op>>) -> Vec<u64> {
        ops.unwrap_or_default().into_iter().map(|op| op.number).collect()
    }

    #[test]
    fn ops_are_sent_once_and_kept_until_they_are_stored() {
        let mut stream = stream(&[(4, 1), (5, 1), (6, 1)]);
        assert_eq!(numbers(stream.next(3, 1)), [4], "the first op is sent, large as it is");
        assert_eq!(numbers(stream.next(3, usize::MAX)), [5, 6]);
        assert_eq!(stream.next(3, usize::MAX), None);
        assert!(stream.store(5) && !stream.store(5) && !stream.store(4));
        assert_eq!((stream.stored(), stream.len(), stream.newest()), (5, 1, 6));
        assert_eq!(numbers(stream.next(5, usize::MAX)), [0; 0], "only the number to release is new");
        assert_eq!(stream.next(5, usize::MAX), None);
        assert!(stream.store(9), "no more is stored than was sent");
        assert_eq!(stream.stored(), 6);
    }

    #[test]
    fn a_backup_that_comes_back_gets_the_ops_it_lacks() {
        let run = |term, last| v1::OpRun { term, last };
        for (applied, runs, sent) in [
            (3, vec![], vec![4, 5, 6, 7]),
            (3, vec![run(1, 4)], vec![5, 6, 7]),
            (4, vec![run(1, 5)], vec![6, 7]),
            // Its ops 6 and 7 are those of a primary that was deposed.
            (4, vec![run(1, 7)], vec![6, 7]),
            (4, vec![run(1, 5), run(2, 7)], vec![]),
            (7, vec![], vec![]),
        ] {
            let mut stream = stream(&[(4, 1), (5, 1), (6, 2), (7, 2)]);
            stream.next(0, usize::MAX);
            assert!(stream.rejoin(applied, &runs));
            assert_eq!(numbers(stream.next(0, usize::MAX)), sent, "{applied} {runs:?}");
        }
    }

    #[test]
    fn a_candidate_has_stored_nothing_before_it_has_the_state() {
        let mut stream = OpStream::installing(4);
        assert!(!stream.is_through());
        assert!(stream.store(4) && stream.is_through() && !stream.store(4));
    }

    #[test]
    fn a_backup_that_has_lost_ops_is_none() {
        let mut stream = stream(&[(4, 1), (5, 1)]);
        assert!(!stream.rejoin(2, &[]));
    }
}
