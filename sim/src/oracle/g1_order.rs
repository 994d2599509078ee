//! G1: any two members deliver the same entries in the same order, and a place in a
//! log never names two entries. Turns begin in their order, each once.

use std::collections::BTreeMap;

use skirmish_core::id::Cursor;

use super::{ClientLife, DeliveredEntry, Guarantee, Observation, RoomNumber, Verdict, broken};

/// One digest for each place, and one direction for each member: together they prove the order.
#[derive(Debug, Default)]
pub(super) struct Order {
    digests: BTreeMap<(RoomNumber, Cursor), u64>,
    reached: BTreeMap<(ClientLife, RoomNumber), Cursor>,
    newest: BTreeMap<RoomNumber, Cursor>,
    /// Places where turns begin.
    turns: BTreeMap<(RoomNumber, Cursor), u32>,
}

impl Order {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        let entry = match seen {
            Observation::Entry(entry) => entry,
            // A new membership reads from the start of its own history.
            Observation::Joined { client_life, room, resumed: false, .. } => {
                self.reached.remove(&(*client_life, *room));
                return Ok(());
            }
            _ => return Ok(()),
        };
        let place = entry.cursor;
        let digest = *self.digests.entry((entry.room, place)).or_insert(entry.digest);
        if digest != entry.digest {
            return broken(
                Guarantee::Order,
                format_args!(
                    "{} delivered another entry at {place:?} of room {} than somebody before",
                    entry.client_life, entry.room
                ),
            );
        }
        let reached = self.reached.entry((entry.client_life, entry.room)).or_default();
        if place <= *reached {
            return broken(
                Guarantee::Order,
                format_args!(
                    "{} delivered {place:?} of room {} after {:?}",
                    entry.client_life, entry.room, *reached
                ),
            );
        }
        *reached = place;
        if entry.turn > 0 {
            self.turn(entry)?;
        }
        let newest = self.newest.entry(entry.room).or_default();
        *newest = place.max(*newest);
        Ok(())
    }

    fn turn(&mut self, entry: &DeliveredEntry) -> Verdict {
        let (place, turn) = ((entry.room, entry.cursor), entry.turn);
        let first = (entry.room, Cursor { epoch: entry.cursor.epoch, seq: 0 });
        let last = (entry.room, Cursor { epoch: entry.cursor.epoch, seq: u64::MAX });
        let before = self.turns.range(first..place).next_back().map(|(_, turn)| *turn);
        let after = self.turns.range(place..=last).find(|(at, _)| **at != place).map(|(_, turn)| *turn);
        if before.is_some_and(|before| before >= turn) || after.is_some_and(|after| after <= turn) {
            return broken(
                Guarantee::Order,
                format_args!(
                    "turn {turn} of room {} begins at {:?}, between {before:?} and {after:?}",
                    entry.room, entry.cursor
                ),
            );
        }
        self.turns.insert(place, turn);
        Ok(())
    }

    pub(super) fn newest(&self, room: RoomNumber) -> Option<Cursor> {
        self.newest.get(&room).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{ANN, BOB, entry, joined};
    use super::*;

    #[test]
    fn two_entries_at_one_place_are_caught() {
        let mut order = Order::default();
        assert!(order.observe(&Observation::Entry(entry(ANN, 1, 10))).is_ok());
        assert!(order.observe(&Observation::Entry(entry(BOB, 1, 11))).is_err());
    }

    #[test]
    fn turns_that_do_not_follow_each_other_are_caught() {
        let turn = |seq, turn| Observation::Entry(DeliveredEntry { turn, ..entry(ANN, seq, seq) });
        let mut order = Order::default();
        assert!(order.observe(&turn(2, 1)).is_ok());
        assert!(order.observe(&turn(3, 2)).is_ok());
        assert!(order.observe(&turn(4, 2)).is_err());
        let late = |turn| Observation::Entry(DeliveredEntry { turn, ..entry(BOB, 1, 1) });
        assert!(order.observe(&late(1)).is_err());
    }

    #[test]
    fn going_back_is_caught() {
        let mut order = Order::default();
        assert!(order.observe(&Observation::Entry(entry(ANN, 2, 10))).is_ok());
        assert!(order.observe(&Observation::Entry(entry(ANN, 1, 11))).is_err());
    }

    #[test]
    fn a_new_membership_may_read_old_entries_again() {
        let mut order = Order::default();
        assert!(order.observe(&Observation::Entry(entry(ANN, 2, 10))).is_ok());
        assert!(order.observe(&joined(ANN, true)).is_ok());
        assert!(order.observe(&Observation::Entry(entry(ANN, 2, 10))).is_err());
        assert!(order.observe(&joined(ANN, false)).is_ok());
        assert!(order.observe(&Observation::Entry(entry(ANN, 2, 10))).is_ok());
    }

    #[test]
    fn the_same_order_for_all_passes() {
        let mut order = Order::default();
        for client_life in [ANN, BOB] {
            for seq in 1..5 {
                assert!(order.observe(&Observation::Entry(entry(client_life, seq, seq))).is_ok());
            }
        }
    }
}
