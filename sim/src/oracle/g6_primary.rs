//! G6: one primary. Only one node ever leads a term of a life of a room. A node whose lease may be
//! over writes nothing. No two nodes may commit changes alone at once. A client that was notified of
//! a later life gets nothing of an earlier one.

use std::collections::BTreeMap;

use super::{ClientLife, Guarantee, Observation, RoomNumber, Verdict, broken};

/// A life of a node.
type NodeLife = (usize, u32);

/// Leader of each term of a room's life, and the newest life that each client knows.
#[derive(Debug, Default)]
pub(super) struct Primary {
    leaders: BTreeMap<(RoomNumber, u64, u32), NodeLife>,
    newest: BTreeMap<(ClientLife, RoomNumber), u64>,
}

impl Primary {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Leads { node, room, epoch, term } => self.leads(node, room, epoch, term),
            Observation::Appended { node, room, epoch, term, serves } => {
                self.leads(node, room, epoch, term)?;
                if serves {
                    return Ok(());
                }
                broken(
                    Guarantee::Primary,
                    format_args!(
                        "node {} wrote in room {room} although its lease may be over, in epoch {epoch}",
                        node.0
                    ),
                )
            }
            Observation::Serving { room, nodes } if nodes.count_ones() > 1 => {
                let names: Vec<u32> = (0..u32::BITS).filter(|node| nodes & (1 << node) != 0).collect();
                broken(Guarantee::Primary, format_args!("nodes {names:?} serve room {room} at the same time"))
            }
            Observation::Joined { client_life, room, epoch, .. } => self.told(client_life, room, epoch),
            Observation::Entry(entry) => self.told(entry.client_life, entry.room, entry.cursor.epoch),
            _ => Ok(()),
        }
    }

    fn leads(&mut self, node: NodeLife, room: RoomNumber, epoch: u64, term: u32) -> Verdict {
        let first = *self.leaders.entry((room, epoch, term)).or_insert(node);
        if first == node {
            return Ok(());
        }
        broken(
            Guarantee::Primary,
            format_args!(
                "room {room} is led in epoch {epoch}, term {term}, by node {} and by node {}",
                first.0, node.0
            ),
        )
    }

    fn told(&mut self, client_life: ClientLife, room: RoomNumber, epoch: u64) -> Verdict {
        let newest = self.newest.entry((client_life, room)).or_default();
        if epoch >= *newest {
            *newest = epoch;
            return Ok(());
        }
        broken(
            Guarantee::Primary,
            format_args!("{client_life} was told of epoch {epoch} of room {room} after {newest}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{ANN, entry};
    use super::super::{Cursor, DeliveredEntry};
    use super::*;

    fn run(history: &[Observation]) -> Verdict {
        let mut primary = Primary::default();
        history.iter().try_for_each(|seen| primary.observe(seen))
    }

    fn appended(node: NodeLife, epoch: u64, serves: bool) -> Observation {
        Observation::Appended { node, room: 0, epoch, term: 1, serves }
    }

    #[test]
    fn a_life_of_a_room_that_two_nodes_lead_is_caught() {
        let leads = |node| Observation::Leads { node, room: 0, epoch: 4, term: 1 };
        assert!(run(&[leads((0, 1)), appended((0, 1), 4, true), appended((1, 1), 5, true)]).is_ok());
        assert!(run(&[leads((0, 1)), leads((1, 1))]).is_err());
        assert!(run(&[leads((0, 1)), leads((0, 2))]).is_err());
        assert!(run(&[leads((0, 1)), appended((1, 1), 4, true)]).is_err());
    }

    #[test]
    fn writing_with_a_lease_that_may_be_over_is_caught() {
        assert!(run(&[appended((0, 1), 4, false)]).is_err());
    }

    #[test]
    fn two_that_serve_at_once_are_caught() {
        let serving = |nodes| Observation::Serving { room: 0, nodes };
        assert!(run(&[serving(0), serving(1), serving(4)]).is_ok());
        assert!(run(&[serving(5)]).is_err());
    }

    #[test]
    fn an_earlier_life_after_a_later_one_is_caught() {
        let got = |epoch| {
            Observation::Entry(DeliveredEntry { cursor: Cursor { epoch, seq: 1 }, ..entry(ANN, 1, 1) })
        };
        assert!(run(&[got(3), got(4), got(4)]).is_ok());
        assert!(run(&[got(4), got(3)]).is_err());
    }
}
