//! G4: in the log, each sender's messages keep the order in which they were said.

use std::collections::BTreeMap;

use skirmish_core::id::Cursor;

use super::{ClientLife, Guarantee, Observation, RoomNumber, Verdict, broken};

/// Each sender's messages by place. Serials grow, so they are the order of saying.
#[derive(Debug, Default)]
pub(super) struct Fifo {
    senders: BTreeMap<u64, ClientLife>,
    logs: BTreeMap<(ClientLife, RoomNumber), BTreeMap<Cursor, u64>>,
    /// The sender's number of the last message that a reader got from each member, without a gap
    /// since.
    counted: BTreeMap<(ClientLife, RoomNumber), BTreeMap<u32, u64>>,
}

impl Fifo {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Said { client_life, serial, .. } => {
                self.senders.insert(serial, client_life);
                Ok(())
            }
            Observation::Snapshot { client_life, room, .. }
            | Observation::Left { client_life, room }
            | Observation::Joined { client_life, room, resumed: false, .. } => {
                self.counted.remove(&(client_life, room));
                Ok(())
            }
            Observation::Entry(entry) => {
                let Some(serial) = entry.serial else { return Ok(()) };
                let counted = self.counted.entry((entry.client_life, entry.room)).or_default();
                if let Some(before) = counted.insert(entry.member, entry.client_seq)
                    && entry.client_seq != before + 1
                {
                    return broken(
                        Guarantee::Fifo,
                        format_args!(
                            "in room {} message {} of member {} follows its message {before}",
                            entry.room, entry.client_seq, entry.member
                        ),
                    );
                }
                self.place(entry.room, entry.cursor, serial)
            }
            _ => Ok(()),
        }
    }

    fn place(&mut self, room: RoomNumber, cursor: Cursor, serial: u64) -> Verdict {
        let Some(&sender) = self.senders.get(&serial) else { return Ok(()) };
        let log = self.logs.entry((sender, room)).or_default();
        log.insert(cursor, serial);
        let before = log.range(..cursor).next_back().filter(|(_, other)| **other > serial);
        let after = log.range(cursor..).nth(1).filter(|(_, other)| **other < serial);
        match before.or(after) {
            None => Ok(()),
            Some((place, other)) => broken(
                Guarantee::Fifo,
                format_args!(
                    "message {serial} of {sender} is at {cursor:?} of room {room}, but {other} at {place:?}"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DeliveredEntry;
    use super::super::build::{BOB, entry, said};
    use super::*;

    #[test]
    fn messages_that_changed_places_are_caught() {
        let mut fifo = Fifo::default();
        let member =
            |seq, serial, member| Observation::Entry(DeliveredEntry { member, ..entry(BOB, seq, serial) });
        assert!(fifo.observe(&said(1)).is_ok());
        assert!(fifo.observe(&said(2)).is_ok());
        assert!(fifo.observe(&member(7, 2, 1)).is_ok());
        assert!(fifo.observe(&member(8, 1, 2)).is_err());
    }

    #[test]
    fn a_hole_in_a_members_count_is_caught() {
        let mut fifo = Fifo::default();
        assert!(fifo.observe(&Observation::Entry(entry(BOB, 1, 1))).is_ok());
        assert!(fifo.observe(&Observation::Entry(entry(BOB, 2, 2))).is_ok());
        assert!(fifo.observe(&Observation::Entry(entry(BOB, 3, 4))).is_err());
    }
}
