//! L2: while nothing is wrong with nodes, links and registry, a client is notified that a room is
//! gone only if the client was a member and named the room in its resume. A `Join` asks for the
//! room in any of its lives, so a race between nodes must not show in the answer.

use std::collections::BTreeSet;

use super::{Guarantee, Observation, RoomNumber, Verdict, broken};

/// Rooms that a connection has named in its resume, and that were not reported as gone yet.
#[derive(Debug, Default)]
pub(super) struct Joins {
    resumed: BTreeSet<(u64, RoomNumber)>,
}

impl Joins {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Resumes { conn, room } => {
                self.resumed.insert((conn, room));
                Ok(())
            }
            Observation::ToldGone { client_life, conn, room, healthy } => {
                let resumed = self.resumed.remove(&(conn, room));
                if !healthy || resumed {
                    return Ok(());
                }
                broken(
                    Guarantee::Joins,
                    format_args!(
                        "{client_life} was told that room {room} is gone, which it had asked to be let into"
                    ),
                )
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::ANN;
    use super::*;

    fn gone(conn: u64, healthy: bool) -> Observation {
        Observation::ToldGone { client_life: ANN, conn, room: 0, healthy }
    }

    #[test]
    fn a_join_that_is_told_of_a_race_is_caught() {
        assert!(Joins::default().observe(&gone(1, true)).is_err());
    }

    #[test]
    fn after_a_fault_a_room_may_be_gone() {
        assert!(Joins::default().observe(&gone(1, false)).is_ok());
    }

    #[test]
    fn a_resumed_membership_may_be_gone_once_on_its_connection() {
        let mut joins = Joins::default();
        for conn in [1, 2] {
            joins.observe(&Observation::Resumes { conn, room: 0 }).unwrap();
        }
        assert!(joins.observe(&gone(1, true)).is_ok());
        assert!(joins.observe(&gone(1, true)).is_err(), "it has joined since");
        assert!(joins.observe(&gone(3, true)).is_err(), "another connection has named it");
    }
}
