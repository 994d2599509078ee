//! G2: nothing acknowledged is lost while the node lives; nothing refused is applied.
//!
//! A message has one of three outcomes. An acknowledged message must reach its sender like every
//! other member, unless a snapshot says that entries are missing or the membership ended. A refused
//! message must reach nobody. An unknown message may do either.

use std::collections::{BTreeMap, BTreeSet};

use skirmish_core::client::Outcome;

use super::{ClientLife, Guarantee, Observation, RoomNumber, Verdict, Violation, broken};

#[derive(Debug)]
struct SentMessage {
    client_life: ClientLife,
    room: RoomNumber,
    outcome: Option<Outcome>,
    delivered: bool,
}

/// Sent messages with their outcomes.
#[derive(Debug, Default)]
pub(super) struct KeptOracle {
    messages: BTreeMap<u64, SentMessage>,
    serials: BTreeMap<(ClientLife, u64), u64>,
    open: BTreeMap<ClientLife, BTreeSet<u64>>,
    /// Messages that are acknowledged, and not delivered to the sender yet.
    owed: BTreeMap<(ClientLife, RoomNumber), BTreeSet<u64>>,
    /// Messages that reached the sender before their acknowledgement.
    returned: BTreeSet<u64>,
}

impl KeptOracle {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Said { client_life, room, message, serial } => {
                self.messages
                    .insert(serial, SentMessage { client_life, room, outcome: None, delivered: false });
                self.serials.insert((client_life, message), serial);
                self.open.entry(client_life).or_default().insert(serial);
                Ok(())
            }
            Observation::Outcome { client_life, message, outcome } => {
                self.decided(client_life, message, outcome)
            }
            Observation::BackedUp { room, committed, stored } if stored < committed => broken(
                Guarantee::Kept,
                format_args!(
                    "room {room} has {committed} committed ops, and a node that may take over has {stored}"
                ),
            ),
            Observation::Entry(entry) => match entry.serial {
                Some(serial) => self.delivered(&entry, serial),
                None => Ok(()),
            },
            Observation::Snapshot { client_life, room, missing: Some(_), .. }
            | Observation::Left { client_life, room } => {
                self.owed.remove(&(client_life, room));
                Ok(())
            }
            Observation::Joined { client_life, room, resumed: false, .. } => {
                self.owed.remove(&(client_life, room));
                Ok(())
            }
            Observation::Session { client_life, resumed: false, .. } | Observation::Gone { client_life } => {
                self.owed.retain(|(owner, _), _| *owner != client_life);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn decided(&mut self, client_life: ClientLife, id: u64, outcome: Outcome) -> Verdict {
        let Some(&serial) = self.serials.get(&(client_life, id)) else {
            return broken(
                Guarantee::Kept,
                format_args!("{client_life} told the outcome of {id}, which was never said"),
            );
        };
        let Some(message) = self.messages.get_mut(&serial) else { return Ok(()) };
        if let Some(before) = message.outcome.replace(outcome) {
            return broken(
                Guarantee::Kept,
                format_args!(
                    "{client_life} told that message {serial} was {before:?}, and then that it \
                     was {outcome:?}"
                ),
            );
        }
        if outcome == Outcome::Refused && message.delivered {
            return broken(
                Guarantee::Kept,
                format_args!("message {serial} of {client_life} was refused and delivered"),
            );
        }
        self.open.entry(client_life).or_default().remove(&serial);
        if outcome == Outcome::Acknowledged && !self.returned.contains(&serial) {
            self.owed.entry((client_life, message.room)).or_default().insert(serial);
        }
        Ok(())
    }

    fn delivered(&mut self, entry: &super::DeliveredEntry, serial: u64) -> Verdict {
        let Some(message) = self.messages.get_mut(&serial) else {
            return broken(
                Guarantee::Kept,
                format_args!("{} delivered message {serial}, which nobody said", entry.client_life),
            );
        };
        message.delivered = true;
        if message.outcome == Some(Outcome::Refused) {
            return broken(
                Guarantee::Kept,
                format_args!("message {serial} of {} was refused and delivered", message.client_life),
            );
        }
        if message.room != entry.room {
            return broken(
                Guarantee::Kept,
                format_args!(
                    "message {serial} was said in room {} and delivered in {}",
                    message.room, entry.room
                ),
            );
        }
        if let Some(own) = entry.own
            && self.serials.get(&(entry.client_life, own)) != Some(&serial)
        {
            return broken(
                Guarantee::Kept,
                format_args!("{} took message {serial} for its own message {own}", entry.client_life),
            );
        }
        if message.client_life != entry.client_life {
            return Ok(());
        }
        self.returned.insert(serial);
        let Some(owed) = self.owed.get_mut(&(entry.client_life, entry.room)) else { return Ok(()) };
        owed.remove(&serial);
        match owed.first() {
            Some(&earlier) if earlier < serial => {
                let client_life = entry.client_life;
                broken(
                    Guarantee::Kept,
                    format_args!(
                        "message {earlier} of {client_life} was acknowledged, but {serial} came in its place"
                    ),
                )
            }
            _ => Ok(()),
        }
    }

    pub(super) fn rest(&self) -> Verdict {
        self.owed
            .iter()
            .find_map(|(&(client_life, room), owed)| Some((client_life, room, *owed.first()?)))
            .map_or(Ok(()), |(client_life, room, serial)| {
                Err(Violation {
                    guarantee: Guarantee::Kept,
                    description: format!(
                        "message {serial} of {client_life} in room {room} was acknowledged and is nowhere"
                    ),
                })
            })
    }

    pub(super) fn open(&self, client_life: ClientLife) -> usize {
        self.open.get(&client_life).map_or(0, BTreeSet::len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{ANN, BOB, entry, said, snapshot};
    use super::*;

    fn outcome(message: u64, outcome: Outcome) -> Observation {
        Observation::Outcome { client_life: ANN, message, outcome }
    }

    fn run(history: &[Observation]) -> Verdict {
        let mut kept = KeptOracle::default();
        history.iter().try_for_each(|seen| kept.observe(seen))?;
        kept.rest()
    }

    #[test]
    fn an_acknowledged_message_that_never_comes_is_caught() {
        assert!(run(&[said(1), outcome(1, Outcome::Acknowledged)]).is_err());
        let come = Observation::Entry(entry(ANN, 1, 1));
        assert!(run(&[said(1), outcome(1, Outcome::Acknowledged), come]).is_ok());
        assert!(run(&[said(1), come, outcome(1, Outcome::Acknowledged)]).is_ok());
    }

    #[test]
    fn a_later_message_in_its_place_is_caught_at_once() {
        let acknowledged = outcome(1, Outcome::Acknowledged);
        assert!(run(&[said(1), said(2), acknowledged, Observation::Entry(entry(ANN, 1, 2))]).is_err());
    }

    #[test]
    fn an_announced_loss_is_no_loss() {
        assert!(run(&[said(1), outcome(1, Outcome::Acknowledged), snapshot(ANN, 9, Some((1, 9)))]).is_ok());
    }

    #[test]
    fn refused_and_delivered_is_caught_in_either_order() {
        let come = Observation::Entry(entry(BOB, 1, 1));
        assert!(run(&[said(1), come, outcome(1, Outcome::Refused)]).is_err());
        assert!(run(&[said(1), outcome(1, Outcome::Refused), come]).is_err());
        assert!(run(&[said(1), outcome(1, Outcome::Unknown), come]).is_ok());
    }

    #[test]
    fn a_message_that_nobody_said_and_two_outcomes_are_caught() {
        assert!(run(&[Observation::Entry(entry(BOB, 1, 7))]).is_err());
        assert!(run(&[said(1), outcome(1, Outcome::Unknown), outcome(1, Outcome::Refused)]).is_err());
    }

    #[test]
    fn a_message_taken_for_another_is_caught() {
        let mistaken = super::super::DeliveredEntry { own: Some(1), ..entry(ANN, 1, 2) };
        assert!(run(&[said(1), said(2), Observation::Entry(mistaken)]).is_err());
    }
}
