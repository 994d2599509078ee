//! G3: nothing twice. No message has two places in a log. No latest message comes again, or after a
//! newer one of the same key.

use std::collections::BTreeMap;

use skirmish_core::id::Cursor;

use super::{ClientLife, Guarantee, Observation, RoomNumber, Verdict, broken};

/// The place of each reliable message, and the newest version of each latest message.
#[derive(Debug, Default)]
pub(super) struct Once {
    places: BTreeMap<u64, (RoomNumber, Cursor)>,
    versions: BTreeMap<(ClientLife, RoomNumber), BTreeMap<(u32, u32), u64>>,
}

impl Once {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Entry(entry) => {
                let Some(serial) = entry.serial else { return Ok(()) };
                let place = (entry.room, entry.cursor);
                let first = *self.places.entry(serial).or_insert(place);
                if first == place {
                    return Ok(());
                }
                broken(
                    Guarantee::Once,
                    format_args!(
                        "message {serial} is at {:?} of room {} and again at {:?}",
                        first.1, first.0, entry.cursor
                    ),
                )
            }
            Observation::Joined { client_life, room, resumed: false, .. } => {
                self.versions.remove(&(client_life, room));
                Ok(())
            }
            Observation::Latest { client_life, room, member, key, version } => {
                let versions = self.versions.entry((client_life, room)).or_default();
                match versions.insert((member, key), version) {
                    Some(before) if before >= version => broken(
                        Guarantee::Once,
                        format_args!(
                            "{client_life} delivered version {version} of key {key} of member {member} in \
                             room {room} after {before}"
                        ),
                    ),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{ANN, BOB, entry};
    use super::*;

    #[test]
    fn a_message_at_two_places_is_caught() {
        let mut once = Once::default();
        assert!(once.observe(&Observation::Entry(entry(ANN, 1, 5))).is_ok());
        assert!(once.observe(&Observation::Entry(entry(BOB, 1, 5))).is_ok());
        assert!(once.observe(&Observation::Entry(entry(BOB, 2, 5))).is_err());
    }

    #[test]
    fn an_older_or_equal_latest_is_caught() {
        let latest = |version| Observation::Latest { client_life: ANN, room: 0, member: 2, key: 0, version };
        let mut once = Once::default();
        assert!(once.observe(&latest(3)).is_ok());
        assert!(once.observe(&latest(4)).is_ok());
        assert!(once.observe(&latest(4)).is_err());
    }
}
