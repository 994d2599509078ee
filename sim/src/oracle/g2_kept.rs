//! G2: nothing acknowledged is lost while the node lives; nothing refused is applied.
//!
//! A message has one of three outcomes. An acknowledged message must reach its sender like every
//! other member, unless a snapshot says that entries are missing or the membership ended. A refused
//! message must reach nobody. An unknown message may do either.

use std::collections::{BTreeMap, BTreeSet};

use skirmish_core::client::Outcome;

use super::{Guarantee, Observation, RoomNumber, Verdict, Violation, Who, broken};

#[derive(Debug)]
struct SentMessage {
    who: Who,
    room: RoomNumber,
    outcome: Option<Outcome>,
    delivered: bool,
}

/// Sent messages with their outcomes.
#[derive(Debug, Default)]
pub(super) struct KeptOracle {
    messages: BTreeMap<u64, SentMessage>,
    serials: BTreeMap<(Who, u64), u64>,
    open: BTreeMap<Who, BTreeSet<u64>>,
    /// Messages that are acknowledged, and not delivered to the sender yet.
    owed: BTreeMap<(Who, RoomNumber), BTreeSet<u64>>,
    /// Messages that reached the sender before their acknowledgement.
    returned: BTreeSet<u64>,
}

impl KeptOracle {
    pub(super) fn observe(&mut self, seen: &Observation) -> Verdict {
        match *seen {
            Observation::Said { who, room, message, serial } => {
                self.messages.insert(serial, SentMessage { who, room, outcome: None, delivered: false });
                self.serials.insert((who, message), serial);
                self.open.entry(who).or_default().insert(serial);
                Ok(())
            }
            Observation::Outcome { who, message, outcome } => self.decided(who, message, outcome),
            Observation::Entry(entry) => match entry.serial {
                Some(serial) => self.delivered(&entry, serial),
                None => Ok(()),
            },
            Observation::Snapshot { who, room, missing: Some(_), .. } | Observation::Left { who, room } => {
                self.owed.remove(&(who, room));
                Ok(())
            }
            Observation::Joined { who, room, resumed: false, .. } => {
                self.owed.remove(&(who, room));
                Ok(())
            }
            Observation::Session { who, resumed: false, .. } | Observation::Gone { who } => {
                self.owed.retain(|(owner, _), _| *owner != who);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn decided(&mut self, who: Who, id: u64, outcome: Outcome) -> Verdict {
        let Some(&serial) = self.serials.get(&(who, id)) else {
            return broken(
                Guarantee::Kept,
                format_args!("{who} told the outcome of {id}, which was never said"),
            );
        };
        let Some(message) = self.messages.get_mut(&serial) else { return Ok(()) };
        if let Some(before) = message.outcome.replace(outcome) {
            return broken(
                Guarantee::Kept,
                format_args!(
                    "{who} told that message {serial} was {before:?}, and then that it was {outcome:?}"
                ),
            );
        }
        if outcome == Outcome::Refused && message.delivered {
            return broken(
                Guarantee::Kept,
                format_args!("message {serial} of {who} was refused and delivered"),
            );
        }
        self.open.entry(who).or_default().remove(&serial);
        if outcome == Outcome::Acknowledged && !self.returned.contains(&serial) {
            self.owed.entry((who, message.room)).or_default().insert(serial);
        }
        Ok(())
    }

    fn delivered(&mut self, entry: &super::DeliveredEntry, serial: u64) -> Verdict {
        let Some(message) = self.messages.get_mut(&serial) else {
            return broken(
                Guarantee::Kept,
                format_args!("{} delivered message {serial}, which nobody said", entry.who),
            );
        };
        message.delivered = true;
        if message.outcome == Some(Outcome::Refused) {
            return broken(
                Guarantee::Kept,
                format_args!("message {serial} of {} was refused and delivered", message.who),
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
            && self.serials.get(&(entry.who, own)) != Some(&serial)
        {
            return broken(
                Guarantee::Kept,
                format_args!("{} took message {serial} for its own message {own}", entry.who),
            );
        }
        if message.who != entry.who {
            return Ok(());
        }
        self.returned.insert(serial);
        let Some(owed) = self.owed.get_mut(&(entry.who, entry.room)) else { return Ok(()) };
        owed.remove(&serial);
        match owed.first() {
            Some(&earlier) if earlier < serial => {
                let who = entry.who;
                broken(
                    Guarantee::Kept,
                    format_args!(
                        "message {earlier} of {who} was acknowledged, but {serial} came in its place"
                    ),
                )
            }
            _ => Ok(()),
        }
    }

    pub(super) fn rest(&self) -> Verdict {
        self.owed.iter().find_map(|(&(who, room), owed)| Some((who, room, *owed.first()?))).map_or(
            Ok(()),
            |(who, room, serial)| {
                Err(Violation {
                    guarantee: Guarantee::Kept,
                    what: format!("message {serial} of {who} in room {room} was acknowledged and is nowhere"),
                })
            },
        )
    }

    pub(super) fn open(&self, who: Who) -> usize {
        self.open.get(&who).map_or(0, BTreeSet::len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{ANN, BOB, entry, said, snapshot};
    use super::*;

    fn outcome(message: u64, outcome: Outcome) -> Observation {
        Observation::Outcome { who: ANN, message, outcome }
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
