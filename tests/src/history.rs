//! Checks of a player's events under any cuts: the guarantees G3 and G5 from one player's side, and the
//! finality of outcomes.

use std::collections::{BTreeMap, BTreeSet};

use skirmish_io::client::{Event, MessageId, Outcome};

/// Returns the errors in a player's history; empty if there are none.
#[must_use]
pub fn complaints(seen: &[Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut cursors = BTreeMap::new();
    let mut settled = BTreeSet::new();
    for event in seen {
        match event {
            // A new membership begins at the cursor of its snapshot.
            Event::Joined { room, resumed: false, .. } => {
                cursors.remove(room);
            }
            Event::Snapshot { room, cursor, missing, .. } => {
                if let Some((epoch, seq)) = cursors.get(room) {
                    // The first and the last entry that the snapshot must name as missing.
                    let owed = (cursor.seq != *seq).then_some((*seq + 1, cursor.seq));
                    if *epoch != cursor.epoch || *missing != owed {
                        wrong.push(format!(
                            "{room}: after {epoch}.{seq} a snapshot of {cursor:?} without {missing:?}"
                        ));
                    }
                }
                cursors.insert(room.clone(), (cursor.epoch, cursor.seq));
            }
            Event::Entry { room, cursor, .. } => {
                let at = (cursor.epoch, cursor.seq);
                match cursors.insert(room.clone(), at) {
                    Some((epoch, seq)) if (epoch, seq + 1) != at => {
                        wrong.push(format!("{room}: after {epoch}.{seq} came {}.{}", at.0, at.1));
                    }
                    Some(_) => {}
                    None => wrong.push(format!("{room}: {}.{} came before a snapshot", at.0, at.1)),
                }
            }
            Event::Outcome { message, .. } if !settled.insert(*message) => {
                wrong.push(format!("{message:?} has two outcomes"));
            }
            _ => {}
        }
    }
    wrong
}

/// Checks that each of these messages, sent in this order by the player, has exactly one outcome, the
/// expected one.
///
/// # Panics
/// If an outcome differs.
pub fn assert_outcomes(seen: &[Event], messages: &[MessageId], expected: Outcome) {
    for message in messages {
        let outcomes: Vec<_> = crate::player::outcomes(seen, *message).collect();
        assert_eq!(outcomes, [expected], "{message:?}");
    }
}

#[cfg(test)]
mod tests {
    use skirmish_core::id::Cursor;
    use skirmish_core::room::Turn;
    use skirmish_proto::v1;

    use super::*;

    fn snapshot(seq: u64, missing: Option<(u64, u64)>) -> Event {
        let (room, cursor) = ("a".to_owned(), Cursor { epoch: 1, seq });
        Event::Snapshot { room, cursor, missing, members: Vec::new(), turn: Turn::default() }
    }

    fn entry(seq: u64) -> Event {
        Event::Entry {
            room: "a".to_owned(),
            cursor: Cursor { epoch: 1, seq },
            kind: v1::EntryKind::Say,
            member: 1,
            message: None,
            client_seq: 1,
            at_ms: 0,
            body: bytes::Bytes::new(),
            type_url: String::new(),
            player: String::new(),
            turn: None,
        }
    }

    fn outcome() -> Event {
        Event::Outcome { room: "a".to_owned(), message: MessageId(1), outcome: Outcome::Acknowledged }
    }

    #[test]
    fn a_good_history_passes() {
        let seen = [snapshot(3, None), entry(4), entry(5), snapshot(9, Some((6, 9))), entry(10), outcome()];
        assert_eq!(complaints(&seen), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_bad_history_is_told() {
        let bad: [&[Event]; 6] = [
            &[snapshot(3, None), entry(5)],
            &[snapshot(3, None), entry(4), entry(4)],
            &[snapshot(3, None), snapshot(9, Some((5, 9)))],
            &[snapshot(3, None), snapshot(9, None)],
            &[entry(1)],
            &[outcome(), outcome()],
        ];
        for seen in bad {
            assert_eq!(complaints(seen).len(), 1, "{seen:?}");
        }
    }
}
