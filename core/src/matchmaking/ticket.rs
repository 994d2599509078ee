//! Items that wait in a queue: tickets, and the free places of running rooms.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::config::{Limits, MAX_RATING, QueueConfig};
use crate::base::id::Name;
use crate::base::time::Instant;

/// A party that wants a match: the whole party in one team, or no match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The mode, which must be that of the queue.
    pub mode: Name,
    /// The leader, who names the ticket.
    pub leader: Name,
    /// The other players of the party.
    pub others: Vec<Name>,
    /// Mean rating of the party, from minus to plus [`MAX_RATING`].
    pub rating: i32,
    /// Regions in which the party may play, each with the latency, in milliseconds, of the player
    /// with the highest one.
    pub latencies: Vec<(Name, u32)>,
    /// Attributes of the party, and conditions on others.
    pub traits: Traits,
    /// Start of the waiting time. The time that a ticket spent in a match that was not committed
    /// counts.
    pub queued: Instant,
}

/// Free places in one team of a running room. An offer serves one ticket and ends with it; then the
/// room offers the remaining places anew, with its new rating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacancy {
    /// The room. A room has at most one offer; a new offer replaces the old one.
    pub room: Name,
    /// The team.
    pub team: u8,
    /// Number of places, from 1 to the size of a team.
    pub places: u8,
    /// Rating that suits the room: that of its players, or one that would balance its teams.
    pub rating: i32,
    /// Region of the room.
    pub region: Name,
    /// The room's attributes, and its conditions on tickets.
    pub traits: Traits,
    /// Time since which the rating window of the offer widens.
    pub offered: Instant,
    /// Players that are not admitted, since they have left the room.
    pub barred: Vec<Name>,
}

/// Attributes, and conditions on the attributes of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traits {
    /// Attributes, with unique names.
    pub attributes: Vec<(Name, Value)>,
    /// Conditions that every other ticket or room in the match must meet.
    pub conditions: Vec<Condition>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A text of limited length.
    Text(String),
}

/// Condition on an attribute of another ticket or room. A ticket or room without such an attribute
/// fails the condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Name of the attribute.
    pub attribute: Name,
    /// Test of the attribute's value.
    pub test: Test,
}

/// Test of an attribute's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// The value is this one.
    Is(Value),
    /// The value is a number in this range, both ends included.
    Between(i64, i64),
    /// The value is one of these.
    OneOf(Vec<Value>),
}

/// Reason of the refusal of a ticket or a vacancy. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketRefusal {
    /// The queue is full.
    Full,
    /// The ticket is for another mode.
    WrongMode,
    /// The party is larger than a team, or the number of offered places is zero or more than a
    /// team.
    WrongSize,
    /// This player is in a waiting ticket, or twice in this one.
    AlreadyQueued(Name),
    /// The rating is out of range.
    RatingOutOfRange,
    /// The queue has no such region.
    UnknownRegion(Name),
    /// A region, or an attribute, is listed twice.
    ListedTwice(Name),
    /// In every region, the latency is above the maximum of the latency cap.
    NoRegionInReach,
    /// There are too many attributes, conditions, or values of a condition.
    TooMany,
    /// A text is too long.
    TextTooLong,
    /// The condition on this attribute cannot be met by any value.
    Unmeetable(Name),
    /// The waiting time begins in the future.
    QueuedInFuture,
}

impl Ticket {
    /// Returns the number of players of the party.
    #[must_use]
    pub fn size(&self) -> usize {
        1 + self.others.len()
    }

    /// Returns all players, the leader first.
    pub fn players(&self) -> impl Iterator<Item = &Name> {
        core::iter::once(&self.leader).chain(&self.others)
    }

    /// Checks everything that depends on the ticket alone. Returns the regions in reach, by their
    /// indexes in the configuration, nearest first. Known names are replaced by those of the queue,
    /// so that a hundred thousand tickets do not each keep a copy.
    pub(super) fn admit(&mut self, config: &QueueConfig, now: Instant) -> Result<Vec<Reach>, TicketRefusal> {
        if self.mode != config.mode {
            return Err(TicketRefusal::WrongMode);
        }
        if self.size() > config.team_size.into() {
            return Err(TicketRefusal::WrongSize);
        }
        check_common(self.rating, &self.traits, &config.limits)?;
        if self.queued > now {
            return Err(TicketRefusal::QueuedInFuture);
        }
        for (index, player) in self.others.iter().enumerate() {
            if *player == self.leader || self.others.iter().take(index).any(|earlier| earlier == player) {
                return Err(TicketRefusal::AlreadyQueued(player.clone()));
            }
        }
        let mut reach: Vec<Reach> = Vec::new();
        for (name, latency) in &mut self.latencies {
            let (region, known) = find_region(config, name)?;
            if reach.iter().any(|earlier| earlier.region == region) {
                return Err(TicketRefusal::ListedTwice(name.clone()));
            }
            *name = known.clone();
            reach.push(Reach { region, latency: *latency });
        }
        reach.retain(|reach| reach.latency <= config.latency.most);
        reach.sort_unstable_by_key(|reach| (reach.latency, reach.region));
        reach.shrink_to_fit();
        if reach.is_empty() {
            return Err(TicketRefusal::NoRegionInReach);
        }
        self.mode = config.mode.clone();
        Ok(reach)
    }
}

impl Vacancy {
    /// Checks the vacancy. Returns the index of its region in the configuration.
    pub(super) fn admit(&self, config: &QueueConfig, now: Instant) -> Result<u8, TicketRefusal> {
        if self.places == 0 || self.places > config.team_size {
            return Err(TicketRefusal::WrongSize);
        }
        check_common(self.rating, &self.traits, &config.limits)?;
        if self.offered > now {
            return Err(TicketRefusal::QueuedInFuture);
        }
        find_region(config, &self.region).map(|(region, _)| region)
    }
}

/// A region in which a ticket may play.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Index of the region in the configuration.
    pub(super) region: u8,
    pub(super) latency: u32,
}

fn find_region<'a>(config: &'a QueueConfig, name: &Name) -> Result<(u8, &'a Name), TicketRefusal> {
    let found = (0..).zip(&config.regions).find(|(_, region)| *region == name);
    found.ok_or_else(|| TicketRefusal::UnknownRegion(name.clone()))
}

fn check_common(rating: i32, traits: &Traits, limits: &Limits) -> Result<(), TicketRefusal> {
    if !(-MAX_RATING..=MAX_RATING).contains(&rating) {
        return Err(TicketRefusal::RatingOutOfRange);
    }
    traits.check(limits)
}

impl Traits {
    /// Checks that `other` meets the conditions.
    ///
    /// # Errors
    /// The index of the first condition that `other` does not meet.
    pub fn accept(&self, other: &Self) -> Result<(), usize> {
        match self.conditions.iter().position(|condition| !condition.is_met_by(&other.attributes)) {
            None => Ok(()),
            Some(failed) => Err(failed),
        }
    }

    /// Keeps the attributes that both traits share, and adds the conditions of `other`.
    pub(super) fn join(&mut self, other: &Self) {
        self.attributes.retain(|attribute| other.attributes.contains(attribute));
        for condition in &other.conditions {
            if !self.conditions.contains(condition) {
                self.conditions.push(condition.clone());
            }
        }
    }

    /// Returns true if each meets the conditions of the other.
    #[must_use]
    pub fn agree(&self, other: &Self) -> bool {
        self.accept(other).is_ok() && other.accept(self).is_ok()
    }

    fn check(&self, limits: &Limits) -> Result<(), TicketRefusal> {
        let fits = |value: &Value| match value {
            Value::Text(text) if text.len() > limits.text => Err(TicketRefusal::TextTooLong),
            Value::Text(_) | Value::Number(_) => Ok(()),
        };
        if self.attributes.len() > limits.attributes || self.conditions.len() > limits.conditions {
            return Err(TicketRefusal::TooMany);
        }
        for (index, (name, value)) in self.attributes.iter().enumerate() {
            fits(value)?;
            if self.attributes.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(TicketRefusal::ListedTwice(name.clone()));
            }
        }
        for Condition { attribute, test } in &self.conditions {
            match test {
                Test::Is(value) => fits(value)?,
                Test::OneOf(values) if values.len() > limits.values => return Err(TicketRefusal::TooMany),
                Test::OneOf(values) if !values.is_empty() => values.iter().try_for_each(fits)?,
                Test::Between(least, most) if least <= most => {}
                Test::OneOf(_) | Test::Between(..) => {
                    return Err(TicketRefusal::Unmeetable(attribute.clone()));
                }
            }
        }
        Ok(())
    }
}

impl Condition {
    fn is_met_by(&self, attributes: &[(Name, Value)]) -> bool {
        let Some((_, value)) = attributes.iter().find(|(name, _)| *name == self.attribute) else {
            return false;
        };
        match &self.test {
            Test::Is(wanted) => value == wanted,
            Test::Between(least, most) => {
                matches!(value, Value::Number(number) if (least..=most).contains(&number))
            }
            Test::OneOf(values) => values.contains(value),
        }
    }
}

impl fmt::Display for TicketRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the queue is full"),
            Self::WrongMode => f.write_str("the ticket is for another mode"),
            Self::WrongSize => f.write_str("the party or the number of places does not fit a team"),
            Self::AlreadyQueued(player) => write!(f, "player {player} is queued already"),
            Self::RatingOutOfRange => f.write_str("the rating is out of range"),
            Self::UnknownRegion(name) => write!(f, "there is no region {name}"),
            Self::ListedTwice(name) => write!(f, "{name} is listed twice"),
            Self::NoRegionInReach => f.write_str("the latency is too high in every region"),
            Self::TooMany => f.write_str("there are too many attributes, conditions or values"),
            Self::TextTooLong => f.write_str("a text is too long"),
            Self::Unmeetable(name) => write!(f, "nothing can meet the condition on {name}"),
            Self::QueuedInFuture => f.write_str("it waits since a moment that is yet to come"),
        }
    }
}

impl core::error::Error for TicketRefusal {}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.attribute;
        match &self.test {
            Test::Is(value) => write!(f, "{name} = {value}"),
            Test::Between(least, most) => write!(f, "{name} in {least}..={most}"),
            Test::OneOf(values) => {
                write!(f, "{name} one of")?;
                values.iter().try_for_each(|value| write!(f, " {value}"))
            }
        }
    }
}
