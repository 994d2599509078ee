//! The tickets of one mode that its matcher knows, and the parties that they make.
//!
//! What is known of tickets comes from one listing and the watch after it, in the order of
//! revisions, and from nothing else. A group whose tickets somebody was found to have
//! changed, be it this matcher, is left alone until the watch has told of it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use crate::id::Name;
use crate::matchmaking::record::queued_at;
use crate::time::{Duration, Instant, Now};

/// Who is matched as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// A player alone.
    Alone(Name),
    /// The tickets of equal party and size. Who names another size is in another party,
    /// which is never complete.
    Party(String, u32),
}

/// The tickets of a mode, by player, and by party.
#[derive(Debug)]
pub(super) struct Book {
    time_out: Duration,
    grace: Duration,
    cap: usize,
    tickets: BTreeMap<Name, Ticket>,
    groups: BTreeMap<Key, Group>,
    /// When something is to be done for a group that is not in the engine.
    deadlines: BTreeSet<(Instant, Key)>,
    /// Groups that have changed.
    dirty: BTreeSet<Key>,
    /// There are tickets that had no place.
    overflowed: bool,
}

/// A ticket that waits.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) modified: u64,
    pub(super) record: v1::TicketRecord,
    pub(super) queued: Instant,
    key: Key,
}

/// A party, or a player alone.
#[derive(Debug)]
pub(super) struct Group {
    size: usize,
    members: BTreeSet<Name>,
    pub(super) place: Place,
    /// It comes back from a match that was not committed.
    pub(super) returns: bool,
    /// Something has changed while it was busy.
    touched: bool,
    /// Players whose tickets are gone, and until when they may come back.
    missing: BTreeSet<Name>,
    lost_at: Option<Instant>,
    deadline: Option<Instant>,
}

/// Where a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Here: it is not complete.
    Out,
    /// In the engine, as the ticket of this leader.
    Engine(Name),
    /// In a transaction, of this number.
    Busy(u64),
    /// Its tickets have changed, and the watch has not told how.
    Awaited,
}

/// What has become of a group whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) key: Key,
    pub(super) state: TicketState,
    pub(super) players: Vec<Name>,
}

impl Key {
    fn of(player: &Name, record: &v1::TicketRecord) -> (Self, usize) {
        match record.queue.as_ref().filter(|queue| !queue.party.is_empty()) {
            None => (Self::Alone(player.clone()), 1),
            Some(queue) => {
                let size = usize::try_from(queue.party_size).unwrap_or(usize::MAX);
                (Self::Party(queue.party.clone(), queue.party_size), size.max(1))
            }
        }
    }
}

impl Book {
    pub(super) const fn new(time_out: Duration, grace: Duration, cap: usize) -> Self {
        Self {
            time_out,
            grace,
            cap,
            tickets: BTreeMap::new(),
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dirty: BTreeSet::new(),
            overflowed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Tickets had no place, and now there is some.
    pub(super) fn has_place_again(&self) -> bool {
        self.overflowed && self.tickets.len() <= self.cap / 2
    }

    pub(super) fn ticket(&self, player: &Name) -> Option<&Ticket> {
        self.tickets.get(player)
    }

    pub(super) fn key_of(&self, player: &Name) -> Option<&Key> {
        self.tickets.get(player).map(|ticket| &ticket.key)
    }

    pub(super) fn group(&self, key: &Key) -> Option<&Group> {
        self.groups.get(key)
    }

    pub(super) fn group_mut(&mut self, key: &Key) -> Option<&mut Group> {
        self.groups.get_mut(key)
    }

    /// A player's ticket is now this one; `None`: there is none that waits for this mode.
    pub(super) fn set(&mut self, now: Now, player: &Name, ticket: Option<(u64, v1::TicketRecord)>) {
        if ticket.is_some() && !self.tickets.contains_key(player) && self.tickets.len() >= self.cap {
            self.overflowed = true;
            return;
        }
        let new = ticket.map(|(modified, record)| {
            let (key, size) = Key::of(player, &record);
            let queued = queued_at(now, record.queued_ms, self.time_out);
            (Ticket { modified, record, queued, key }, size)
        });
        if let Some(old) = self.tickets.remove(player)
            && new.as_ref().is_none_or(|(new, _)| new.key != old.key)
        {
            self.leave(now.instant, &old.key, player);
        }
        if let Some((ticket, size)) = new {
            self.join(&ticket.key, size, player);
            self.tickets.insert(player.clone(), ticket);
        }
    }

    fn leave(&mut self, now: Instant, key: &Key, player: &Name) {
        self.touch(key);
        let Some(group) = self.groups.get_mut(key) else { return };
        group.members.remove(player);
        if group.members.len() < group.size {
            group.missing.insert(player.clone());
            group.lost_at.get_or_insert(now + self.grace);
        }
    }

    fn join(&mut self, key: &Key, size: usize, player: &Name) {
        let group = self.groups.entry(key.clone()).or_insert_with(|| Group::new(size));
        group.members.insert(player.clone());
        group.missing.remove(player);
        if group.members.len() >= group.size {
            group.missing.clear();
        }
        if group.missing.is_empty() {
            group.lost_at = None;
        }
        self.touch(key);
    }

    fn touch(&mut self, key: &Key) {
        self.dirty.insert(key.clone());
        let Some(group) = self.groups.get_mut(key) else { return };
        match group.place {
            Place::Awaited => group.place = Place::Out,
            Place::Busy(_) => group.touched = true,
            Place::Out | Place::Engine(_) => {}
        }
    }

    /// A group that has changed.
    pub(super) fn take_dirty(&mut self) -> Option<Key> {
        let key = self.dirty.pop_first()?;
        self.book(&key, None);
        Some(key)
    }

    /// Forgets a group that has no tickets any more.
    pub(super) fn drop_empty(&mut self, key: &Key) {
        if self.groups.get(key).is_some_and(|group| group.members.is_empty()) {
            self.book(key, None);
            self.groups.remove(key);
        }
    }

    /// The players of a complete party, who queued first if there are too many, the oldest
    /// first; of equals by name.
    pub(super) fn complete(&self, key: &Key) -> Option<Vec<(&Name, &Ticket)>> {
        let group = self.groups.get(key)?;
        if group.members.len() < group.size {
            return None;
        }
        let member = |name| self.tickets.get_key_value(name);
        let mut members: Vec<_> = group.members.iter().filter_map(member).collect();
        members.sort_by_key(|(name, ticket)| (ticket.queued, *name));
        members.truncate(group.size);
        Some(members)
    }

    /// A group stays here for now: its time-outs are to be kept.
    pub(super) fn keep(&mut self, key: &Key) {
        let Some(group) = self.groups.get(key) else { return };
        let queued = group.members.iter().filter_map(|name| self.tickets.get(name)).map(|t| t.queued);
        let time_out = queued.min().map(|queued| queued + self.time_out);
        let at = time_out.into_iter().chain(group.lost_at).min();
        self.book(key, at);
    }

    /// A group goes into a transaction.
    pub(super) fn engage(&mut self, key: &Key, serial: u64) {
        self.book(key, None);
        if let Some(group) = self.groups.get_mut(key) {
            (group.place, group.touched) = (Place::Busy(serial), false);
        }
    }

    /// A group's transaction is over; `unchanged`: its tickets are as they were known.
    pub(super) fn release(&mut self, key: &Key, serial: u64, unchanged: bool) {
        let Some(group) = self.groups.get_mut(key).filter(|group| group.place == Place::Busy(serial)) else {
            return;
        };
        group.returns = unchanged;
        if unchanged || group.touched {
            group.place = Place::Out;
            self.dirty.insert(key.clone());
        } else {
            group.place = Place::Awaited;
        }
    }

    fn book(&mut self, key: &Key, at: Option<Instant>) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if let Some(old) = group.deadline.take() {
            self.deadlines.remove(&(old, key.clone()));
        }
        group.deadline = at;
        self.deadlines.extend(at.map(|at| (at, key.clone())));
    }

    /// When something is to be done for a group that is not in the engine.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A group whose time has come: players who have waited for too long, or those of a
    /// party that has lost one.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let (at, key) = self.deadlines.first().cloned()?;
        if at > now {
            return None;
        }
        self.book(&key, None);
        let group = self.groups.get(&key)?;
        let lost = group.lost_at.is_some_and(|at| at <= now);
        let state = if lost { TicketState::PartyLost } else { TicketState::TimedOut };
        let over = |name: &&Name| {
            lost || self.tickets.get(*name).is_some_and(|ticket| ticket.queued + self.time_out <= now)
        };
        let players = group.members.iter().filter(over).cloned().collect();
        Some(Due { key, state, players })
    }

    /// Checks that the tables agree with each other.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, error: &'static str| if holds { Ok(()) } else { Err(error) };
        check(self.tickets.len() <= self.cap, "the matcher knows too many tickets")?;
        let members: usize = self.groups.values().map(|group| group.members.len()).sum();
        check(members == self.tickets.len(), "a ticket is in no group, or in two")?;
        let booked = self.groups.values().filter(|group| group.deadline.is_some()).count();
        check(booked == self.deadlines.len(), "a group is booked twice, or is gone")
    }
}

impl Group {
    const fn new(size: usize) -> Self {
        Self {
            size,
            members: BTreeSet::new(),
            place: Place::Out,
            returns: false,
            touched: false,
            missing: BTreeSet::new(),
            lost_at: None,
            deadline: None,
        }
    }

    /// Players who have tickets, and who are needed.
    pub(super) fn filled(&self) -> (usize, usize) {
        (self.members.len(), self.size)
    }
}
