//! What waits in a queue: tickets, and the free places of running rooms.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::config::{Limits, MAX_RATING, QueueConfig};
use crate::base::id::Name;
use crate::base::time::Instant;

/// A party that wants a match: all of it, in one team, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The mode it is for; the queue's.
    pub mode: Name,
    /// The leader, who gives the ticket its name.
    pub leader: Name,
    /// The other players of the party.
    pub others: Vec<Name>,
    /// The mean rating of the party, from minus to plus [`MAX_RATING`].
    pub rating: i32,
    /// The regions it may play in, and the latency there in milliseconds, of the player
    /// who has it worst.
    pub latencies: Vec<(Name, u32)>,
    /// What it is, and wants others to be.
    pub traits: Traits,
    /// Since when it waits, also if it was out for a match that was not committed.
    pub queued: Instant,
}

/// Free places in one team of a running room. They are offered for one ticket: then the
/// offer is gone, and the room offers what is left anew, with the rating it has by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vacancy {
    /// The room. It has at most one offer; a new one takes the place of the old.
    pub room: Name,
    /// The team.
    pub team: u8,
    /// How many places, from 1 to the size of a team.
    pub places: u8,
    /// The rating it looks for: that of its players, or what would balance its teams.
    pub rating: i32,
    /// Where the room is.
    pub region: Name,
    /// What the room is, and wants tickets to be.
    pub traits: Traits,
    /// Since when its rating window widens.
    pub offered: Instant,
    /// Players that do not come into the room: they have left it.
    pub barred: Vec<Name>,
}

/// Attributes, and conditions on the attributes of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traits {
    /// Names are unique.
    pub attributes: Vec<(Name, Value)>,
    /// Everybody else in the match must meet all of them.
    pub conditions: Vec<Condition>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A number.
    Number(i64),
    /// A text; its length is capped.
    Text(String),
}

/// A condition on an attribute of another. One who has no such attribute fails it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// The attribute's name.
    pub attribute: Name,
    /// What must hold of it.
    pub test: Test,
}

/// What must hold of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    /// It has this value.
    Is(Value),
    /// It is a number in this range, both ends included.
    Between(i64, i64),
    /// It has one of these values.
    OneOf(Vec<Value>),
}

/// Why a ticket or a vacancy is not taken. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketRefusal {
    /// The queue is full.
    Full,
    /// It is for another mode.
    WrongMode,
    /// The party is larger than a team, or no or too many places are offered.
    WrongSize,
    /// This player is in a ticket that waits, or twice in this one.
    AlreadyQueued(Name),
    /// The rating is out of range.
    RatingOutOfRange,
    /// The queue has no such region.
    UnknownRegion(Name),
    /// A region, or an attribute, is listed twice.
    ListedTwice(Name),
    /// In no region is the latency within what the cap ever widens to.
    NoRegionInReach,
    /// There are too many attributes, conditions, or values of a condition.
    TooMany,
    /// A text is too long.
    TextTooLong,
    /// A condition that nothing can meet: on this attribute.
    Unmeetable(Name),
    /// It claims to wait since a moment that is yet to come.
    QueuedInFuture,
}

impl Ticket {
    /// The party's number of players.
    #[must_use]
    pub fn size(&self) -> usize {
        1 + self.others.len()
    }

    /// All players, the leader first.
    pub fn players(&self) -> impl Iterator<Item = &Name> {
        core::iter::once(&self.leader).chain(&self.others)
    }

    /// Checks what can be checked of it alone, and returns the regions in reach, by their
    /// places in the configuration, nearest first. Names the queue knows are replaced by
    /// the queue's own, so that a hundred thousand tickets do not each keep a copy.
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
    /// Checks it and returns the place of its region in the configuration.
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

/// A region that a ticket may play in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Its place in the configuration.
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
    /// Whether `other` meets the conditions.
    ///
    /// # Errors
    /// If not: the place of the first condition that it does not meet.
    pub fn accept(&self, other: &Self) -> Result<(), usize> {
        match self.conditions.iter().position(|condition| !condition.is_met_by(&other.attributes)) {
            None => Ok(()),
            Some(failed) => Err(failed),
        }
    }

    /// Those of two together: the attributes that both have alike, the conditions of both.
    pub(super) fn join(&mut self, other: &Self) {
        self.attributes.retain(|attribute| other.attributes.contains(attribute));
        for condition in &other.conditions {
            if !self.conditions.contains(condition) {
                self.conditions.push(condition.clone());
            }
        }
    }

    /// Whether each meets the conditions of the other.
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
