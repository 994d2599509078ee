//! G1: any two members deliver the same entries in the same order, and a place in a
//! log never names two entries.

use std::collections::BTreeMap;

use skirmish_core::id::Cursor;

use super::{Guarantee, Observation, Room, Verdict, Who, broken};

/// One digest per place, one direction per member: together they make the order.
#[derive(Debug, Default)]
pub(super) struct Order {
    digests: BTreeMap<(Room, Cursor), u64>,
    reached: BTreeMap<(Who, Room), Cursor>,
    newest: BTreeMap<Room, Cursor>,
}

impl Order {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        let entry = match seen {
            Observation::Entry(entry) => entry,
            // A new membership reads from wherever its history begins.
            Observation::Joined { who, room, resumed: false, .. } => {
                self.reached.remove(&(*who, *room));
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
                    entry.who, entry.room
                ),
            );
        }
        let reached = self.reached.entry((entry.who, entry.room)).or_default();
        if place <= *reached {
            return broken(
                Guarantee::Order,
                format_args!("{} delivered {place:?} of room {} after {:?}", entry.who, entry.room, *reached),
            );
        }
        *reached = place;
        let newest = self.newest.entry(entry.room).or_default();
        *newest = place.max(*newest);
        Ok(())
    }

    pub(super) fn newest(&self, room: Room) -> Option<Cursor> {
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
        for who in [ANN, BOB] {
            for seq in 1..5 {
                assert!(order.observe(&Observation::Entry(entry(who, seq, seq))).is_ok());
            }
        }
    }
}
