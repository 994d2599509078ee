//! G5: a member gets every entry, or a snapshot that names the missing entries.

use std::collections::{BTreeMap, BTreeSet};

use skirmish_core::id::Cursor;

use super::{ClientLife, Guarantee, Observation, RoomNumber, Verdict, broken};

/// Progress of a member in a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadPosition {
    /// A member of this epoch without a cursor, since no snapshot has set one yet.
    Unplaced(u64),
    /// A member that has every entry up to this cursor.
    At(Cursor),
}

/// Cursors of all members.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    members: BTreeMap<(ClientLife, RoomNumber), ReadPosition>,
    /// Members whose last join no snapshot or entry has answered yet.
    fresh: BTreeSet<(ClientLife, RoomNumber)>,
}

impl Gaps {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Joined { client_life, room, epoch, resumed } => {
                self.joined((client_life, room), epoch, resumed)
            }
            Observation::Snapshot { client_life, room, cursor, missing } => {
                self.snapshot((client_life, room), cursor, missing)
            }
            Observation::Entry(entry) => self.entry((entry.client_life, entry.room), entry.cursor),
            Observation::Left { client_life, room } => {
                self.members.remove(&(client_life, room));
                Ok(())
            }
            Observation::Session { client_life, resumed: false, .. } | Observation::Gone { client_life } => {
                self.members.retain(|(member, _), _| *member != client_life);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_member(&self, client_life: ClientLife, room: RoomNumber) -> bool {
        self.members.contains_key(&(client_life, room))
    }

    fn joined(&mut self, member: (ClientLife, RoomNumber), epoch: u64, resumed: bool) -> Verdict {
        let (client_life, room) = member;
        self.fresh.insert(member);
        if !resumed {
            self.members.insert(member, ReadPosition::Unplaced(epoch));
            return Ok(());
        }
        let before = match self.members.get(&member) {
            Some(ReadPosition::Unplaced(epoch)) => *epoch,
            Some(ReadPosition::At(cursor)) => cursor.epoch,
            // The answer to the join was lost with a connection.
            None => {
                self.members.insert(member, ReadPosition::Unplaced(epoch));
                return Ok(());
            }
        };
        if before == epoch {
            return Ok(());
        }
        broken(
            Guarantee::Gaps,
            format_args!("{client_life} resumed room {room} in epoch {epoch}, but was a member in {before}"),
        )
    }

    fn snapshot(
        &mut self,
        member: (ClientLife, RoomNumber),
        cursor: Cursor,
        missing: Option<(u64, u64)>,
    ) -> Verdict {
        let (client_life, room) = member;
        let Some(reading) = self.members.get_mut(&member) else {
            return broken(
                Guarantee::Gaps,
                format_args!("{client_life} got a snapshot of room {room} without joining"),
            );
        };
        let before = std::mem::replace(reading, ReadPosition::At(cursor));
        let ReadPosition::At(before) = before else {
            self.fresh.remove(&member);
            return Ok(());
        };
        let expected = self.fresh.remove(&member);
        let right = match missing {
            // A snapshot without missing entries that answers no join is one too many.
            None => cursor == before && expected,
            Some((from, to)) => cursor.epoch == before.epoch && from == before.seq + 1 && to == cursor.seq,
        };
        if right {
            return Ok(());
        }
        broken(
            Guarantee::Gaps,
            format_args!(
                "{client_life} was at {before:?} of room {room}; the snapshot at {cursor:?} says that \
                 {missing:?} is missing"
            ),
        )
    }

    fn entry(&mut self, member: (ClientLife, RoomNumber), cursor: Cursor) -> Verdict {
        let (client_life, room) = member;
        match self.members.get_mut(&member) {
            Some(ReadPosition::At(at)) if at.epoch == cursor.epoch && at.seq + 1 == cursor.seq => {
                *at = cursor;
                self.fresh.remove(&member);
                Ok(())
            }
            other => broken(
                Guarantee::Gaps,
                format_args!("{client_life} delivered {cursor:?} of room {room} standing at {other:?}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{ANN, entry, joined, snapshot};
    use super::*;

    fn run(history: &[Observation]) -> Verdict {
        let mut gaps = Gaps::default();
        history.iter().try_for_each(|seen| gaps.observe(seen))
    }

    fn got(seq: u64) -> Observation {
        Observation::Entry(entry(ANN, seq, seq))
    }

    #[test]
    fn every_entry_in_turn_passes_and_one_left_out_is_caught() {
        let start = [joined(ANN, false), snapshot(ANN, 3, None)];
        assert!(run(&[start[0], start[1], got(4), got(5)]).is_ok());
        assert!(run(&[start[0], start[1], got(4), got(6)]).is_err());
        assert!(run(&[start[0], start[1], got(4), joined(ANN, true), got(5)]).is_ok());
        assert!(run(&[start[0], start[1], got(4), joined(ANN, true), got(6)]).is_err());
    }

    #[test]
    fn a_snapshot_must_say_exactly_what_is_missing() {
        let start = [joined(ANN, false), snapshot(ANN, 3, None), got(4)];
        let then = |last| run(&[start[0], start[1], start[2], last]);
        assert!(then(snapshot(ANN, 9, Some((5, 9)))).is_ok());
        assert!(then(snapshot(ANN, 9, None)).is_err());
        assert!(then(snapshot(ANN, 4, None)).is_err());
        assert!(then(snapshot(ANN, 9, Some((6, 9)))).is_err());
        assert!(then(snapshot(ANN, 9, Some((5, 8)))).is_err());
    }

    #[test]
    fn an_entry_without_a_membership_is_caught() {
        assert!(run(&[got(1)]).is_err());
        assert!(run(&[joined(ANN, false), got(1)]).is_err());
        assert!(
            run(&[
                joined(ANN, false),
                snapshot(ANN, 0, None),
                Observation::Gone { client_life: ANN },
                got(1)
            ])
            .is_err()
        );
    }
}
