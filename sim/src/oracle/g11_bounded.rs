//! G11: every cap holds, and a slow reader delays nobody else.

use std::collections::{BTreeMap, BTreeSet};

use skirmish_core::id::Cursor;

use super::{ClientLife, Guarantee, Observation, RoomNumber, Verdict, broken};

/// Cursor of each member, and the time since which another member has been ahead.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    /// Time of the first delivery of each entry.
    first: BTreeMap<(RoomNumber, Cursor), u64>,
    /// Cursor of each member, and the start of the membership.
    reached: BTreeMap<(ClientLife, RoomNumber), (Cursor, u64)>,
    /// Members that have asked to leave.
    leaving: BTreeSet<(ClientLife, RoomNumber)>,
}

impl Bounded {
    pub(super) fn observe(&mut self, at: u64, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Audit { result: Err(description) } => {
                broken(Guarantee::Bounded, format_args!("a cap was passed: {description}"))
            }
            Observation::Entry(entry) => {
                self.first.entry((entry.room, entry.cursor)).or_insert(at);
                if let Some(reached) = self.reached.get_mut(&(entry.client_life, entry.room)) {
                    reached.0 = entry.cursor;
                }
                Ok(())
            }
            Observation::Snapshot { client_life, room, cursor, .. } => {
                self.reached.insert((client_life, room), (cursor, at));
                Ok(())
            }
            Observation::Joined { client_life, room, .. } => {
                self.leaving.remove(&(client_life, room));
                if let Some(reached) = self.reached.get_mut(&(client_life, room)) {
                    reached.1 = at;
                }
                Ok(())
            }
            Observation::Leaves { client_life, room } => {
                self.leaving.insert((client_life, room));
                Ok(())
            }
            Observation::Left { client_life, room } => {
                self.leaving.remove(&(client_life, room));
                self.reached.remove(&(client_life, room));
                Ok(())
            }
            Observation::Session { client_life, resumed: false, .. } | Observation::Gone { client_life } => {
                self.leaving.retain(|(member, _)| *member != client_life);
                self.reached.retain(|(member, _), _| *member != client_life);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check(&mut self, at: u64, free: &[(ClientLife, u64)], within: u64) -> Verdict {
        let owed = self.reached.iter().filter(|(member, _)| !self.leaving.contains(member));
        for (&(client_life, room), &(cursor, member_since)) in owed {
            let Some(&(_, free_since)) = free.iter().find(|(other, _)| *other == client_life) else {
                continue;
            };
            let next = Cursor { epoch: cursor.epoch, seq: cursor.seq + 1 };
            let Some(&first) = self.first.get(&(room, next)) else { continue };
            let since = first.max(free_since).max(member_since);
            if at.saturating_sub(since) > within {
                return broken(
                    Guarantee::Bounded,
                    format_args!(
                        "nothing holds {client_life} back, but it has waited {} ms for {next:?} of room {room}, \
                         which others have",
                        (at - since) / 1_000
                    ),
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{ANN, BOB, entry, joined, snapshot};
    use super::*;

    #[test]
    fn a_passed_cap_is_caught() {
        let mut bounded = Bounded::default();
        assert!(bounded.observe(0, &Observation::Audit { result: Ok(()) }).is_ok());
        assert!(bounded.observe(0, &Observation::Audit { result: Err("window") }).is_err());
    }

    #[test]
    fn a_member_that_waits_for_what_others_have_is_caught() {
        let mut bounded = Bounded::default();
        for client_life in [ANN, BOB] {
            assert!(bounded.observe(0, &joined(client_life, false)).is_ok());
            assert!(bounded.observe(0, &snapshot(client_life, 0, None)).is_ok());
        }
        assert!(bounded.observe(10, &Observation::Entry(entry(ANN, 1, 1))).is_ok());
        assert!(bounded.check(60, &[(BOB, 0)], 50).is_ok());
        assert!(bounded.check(61, &[(BOB, 0)], 50).is_err());
        assert!(bounded.check(61, &[(BOB, 20)], 50).is_ok());
        assert!(bounded.check(61, &[], 50).is_ok());
        let room = entry(BOB, 1, 1).room;
        assert!(bounded.observe(61, &Observation::Leaves { client_life: BOB, room }).is_ok());
        assert!(bounded.check(61, &[(BOB, 0)], 50).is_ok(), "it does not want it any more");
        assert!(bounded.observe(61, &joined(BOB, true)).is_ok());
        assert!(bounded.check(112, &[(BOB, 0)], 50).is_err());
        assert!(bounded.observe(62, &Observation::Entry(entry(BOB, 1, 1))).is_ok());
        assert!(bounded.check(900, &[(BOB, 0)], 50).is_ok());
    }
}
