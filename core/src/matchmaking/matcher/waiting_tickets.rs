//! Known tickets of one mode, with the parties that they form.
//!
//! The knowledge of tickets comes only from one listing and the watch after it, in the order of
//! revisions. If a transaction finds that a group's tickets were changed, by this matcher or
//! another party, the group is left alone until the watch or a listing reports the change.
//!
//! # Places
//!
//! The number of places is limited. A player without a party takes one place. A party takes one
//! place for each of its players, present or not. If the places are too few, the tickets that were
//! created first have them: a ticket has a place if it was created before the first ticket without
//! a place, or if its party has such a ticket. Later tickets find no place, even if some are free
//! again, until the next listing. Otherwise the first tickets would wait for the last ones.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use bytes::Bytes;

use super::consuming::MatchedPlayer;
use crate::base::bug::Bugs;
use crate::base::id::Name;
use crate::base::time::{Duration, Instant, Now};
use crate::matchmaking::config::QueueConfig;
use crate::matchmaking::record::queued_at;
use crate::matchmaking::settings::MatchmakingConfig;
use crate::registry::KeyValue;

/// A group: players that are matched together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GroupKey {
    /// A player without a party.
    Alone(Name),
    /// Tickets of equal party, size, and digest of the key. A ticket with another size or key is in
    /// another party.
    Party(String, u32, Bytes),
}

/// Tickets of a mode, by player and by group.
#[derive(Debug)]
pub(super) struct WaitingTickets {
    time_out: Duration,
    grace: Duration,
    /// Time for which the ticket of an absent player is kept.
    absence: Duration,
    cap: usize,
    /// Size of a team. A larger party is never matched, and no places are kept for its missing
    /// players.
    team: usize,
    tickets: BTreeMap<Name, WaitingTicket>,
    groups: BTreeMap<GroupKey, WaitingGroup>,
    /// Deadlines of groups outside the engine.
    deadlines: BTreeSet<(Instant, GroupKey)>,
    /// Groups that have changed.
    dirty: BTreeSet<GroupKey>,
    /// Groups by their ages.
    ages: BTreeSet<(Age, GroupKey)>,
    /// Number of places taken.
    places: usize,
    /// Age of the first ticket without a place.
    first_out: Option<Age>,
    /// Groups that have lost their places to others, by their leaders in the engine.
    displaced: Vec<Name>,
    /// Number of the current listing.
    listing: u64,
}

/// Age of a ticket: the revision that created it, and its player.
type Age = (u64, Name);

/// A waiting ticket.
#[derive(Debug)]
pub(super) struct WaitingTicket {
    pub(super) modified: u64,
    pub(super) record: v1::TicketRecord,
    pub(super) queued: Instant,
    /// Start of the player's absence, if it is absent.
    pub(super) absent: Option<Instant>,
    key: GroupKey,
    /// Last listing that contained the ticket.
    listed: u64,
}

/// A party, or a player without a party.
#[derive(Debug)]
pub(super) struct WaitingGroup {
    size: usize,
    /// Places that are kept for the group.
    kept: usize,
    /// Age of the group's oldest ticket.
    age: Age,
    members: BTreeSet<Name>,
    pub(super) place: GroupPlace,
    /// True if the group returns from a match that was not committed.
    pub(super) returns: bool,
    /// True if a ticket of the group has changed during a transaction.
    touched: bool,
    /// Players whose tickets are gone, and may still queue again until `lost_at`.
    missing: BTreeSet<Name>,
    lost_at: Option<Instant>,
    deadline: Option<Instant>,
}

/// Current place of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GroupPlace {
    /// Outside the engine: the group is not complete, or has just changed.
    Out,
    /// In the engine, as the ticket of this leader.
    Engine(Name),
    /// In the transaction with this number.
    Busy(u64),
    /// Outside the engine: tickets of the group have changed, and the watch has not reported the change
    /// yet.
    Awaited,
}

/// A group with a due deadline, and the end of its tickets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) key: GroupKey,
    pub(super) state: TicketState,
    pub(super) players: Vec<Name>,
}

impl GroupKey {
    fn of(player: &Name, record: &v1::TicketRecord) -> (Self, usize) {
        match record.queue.as_ref().filter(|queue| !queue.party.is_empty()) {
            None => (Self::Alone(player.clone()), 1),
            Some(queue) => {
                let size = usize::try_from(queue.party_size).unwrap_or(usize::MAX);
                (Self::Party(queue.party.clone(), queue.party_size, queue.party_key.clone()), size.max(1))
            }
        }
    }
}

impl WaitingTickets {
    pub(super) fn new(rules: &QueueConfig, config: &MatchmakingConfig) -> Self {
        Self {
            time_out: rules.time_out,
            grace: config.party_grace,
            absence: config.absence_grace,
            cap: config.tickets,
            team: rules.team_size.into(),
            tickets: BTreeMap::new(),
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dirty: BTreeSet::new(),
            ages: BTreeSet::new(),
            places: 0,
            first_out: None,
            displaced: Vec::new(),
            listing: 0,
        }
    }

    /// Returns the waiting time that a player's next search keeps after a failed match: at most
    /// half of the time-out, so that the other half is left.
    pub(super) fn credit_ms(&self, waited_ms: u64) -> u64 {
        waited_ms.min(u64::try_from((self.time_out / 2).as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Returns true if some tickets have no place, and places are free.
    pub(super) fn has_place_again(&self) -> bool {
        self.first_out.is_some() && self.places < self.cap
    }

    /// Returns true if some tickets have no place, and half of the places are free.
    pub(super) fn is_half_empty(&self) -> bool {
        self.has_place_again() && self.places <= self.cap / 2
    }

    pub(super) fn ticket(&self, player: &Name) -> Option<&WaitingTicket> {
        self.tickets.get(player)
    }

    pub(super) fn key_of(&self, player: &Name) -> Option<&GroupKey> {
        self.tickets.get(player).map(|ticket| &ticket.key)
    }

    pub(super) fn group(&self, key: &GroupKey) -> Option<&WaitingGroup> {
        self.groups.get(key)
    }

    /// Returns true if the ticket of a matched player is still the same.
    pub(super) fn is_unchanged(&self, seat: &MatchedPlayer) -> bool {
        self.tickets.get(&seat.player).is_some_and(|ticket| ticket.modified == seat.modified)
    }

    /// Returns the ticket of a player, if it is in this group.
    pub(super) fn member(&self, key: &GroupKey, player: &Name) -> Option<&WaitingTicket> {
        self.tickets.get(player).filter(|ticket| ticket.key == *key)
    }

    /// Returns a group, which must be known, and removes its deadline.
    #[track_caller]
    pub(super) fn reopen(&mut self, bugs: &mut Bugs, key: &GroupKey) -> Option<&mut WaitingGroup> {
        let Some(group) = self.groups.get_mut(key) else {
            bugs.found("a group of tickets is not in the table");
            return None;
        };
        if let Some(at) = group.deadline.take() {
            self.deadlines.remove(&(at, key.clone()));
        }
        Some(group)
    }

    /// Starts a listing of all tickets, in which tickets without a place may find one.
    pub(super) fn begin_listing(&mut self) {
        self.listing += 1;
        self.first_out = None;
    }

    /// Returns true if the tickets must be listed once more: tickets of a party may have been
    /// passed over before the party had places.
    pub(super) fn lacks_members(&self) -> bool {
        let lacks = |group: &WaitingGroup| group.members.len() < group.places();
        self.first_out.is_some() && self.groups.values().any(lacks)
    }

    /// Ends a listing: tickets that were not listed do not exist any more.
    pub(super) fn end_listing(&mut self, bugs: &mut Bugs, now: Now) {
        let gone = |(_, ticket): &(&Name, &WaitingTicket)| ticket.listed < self.listing;
        let gone: Vec<Name> = self.tickets.iter().filter(gone).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|player| self.set(bugs, now, player, None));
    }

    /// Sets a player's ticket; `None` if the player has no waiting ticket of this mode.
    pub(super) fn set(
        &mut self,
        bugs: &mut Bugs,
        now: Now,
        player: &Name,
        ticket: Option<(&KeyValue, v1::TicketRecord)>,
    ) {
        let listed = self.listing;
        if let (Some(known), Some((kv, _))) = (self.tickets.get_mut(player), &ticket)
            && known.modified == kv.modified
        {
            known.listed = listed;
            return;
        }
        let new = ticket.map(|(kv, record)| {
            let (key, size) = GroupKey::of(player, &record);
            let queued = queued_at(now, record.queued_ms, self.time_out);
            let is_absent = record.absent_ms > 0;
            let absent = is_absent.then(|| queued_at(now, record.absent_ms, self.absence));
            let age = (kv.created, player.clone());
            (WaitingTicket { modified: kv.modified, record, queued, absent, key, listed }, size, age)
        });
        if let Some(old) = self.tickets.remove(player)
            && new.as_ref().is_none_or(|(new, ..)| new.key != old.key)
        {
            self.leave(bugs, now.instant, &old.key, player);
        }
        if let Some((ticket, size, age)) = new
            && self.find_place(bugs, &ticket.key, size, &age)
        {
            self.join(&ticket.key, size, age);
            self.tickets.insert(player.clone(), ticket);
        }
    }

    /// Returns true if there is a place for a ticket. Later tickets may lose their places to it.
    fn find_place(&mut self, bugs: &mut Bugs, key: &GroupKey, size: usize, age: &Age) -> bool {
        if let Some(group) = self.groups.get(key).filter(|group| !group.members.is_empty()) {
            let is_kept = group.members.contains(&age.1) || group.members.len() < group.kept;
            if !is_kept && self.places >= self.cap {
                // The ticket exceeds the size of its party: it ranks after all others.
                self.pass_over((u64::MAX, age.1.clone()));
                return false;
            }
            return true;
        }
        if self.first_out.as_ref().is_some_and(|first| first <= age) {
            return false;
        }
        let kept = self.kept(size);
        while self.places + kept > self.cap {
            let Some(last) = self.last_after(age) else {
                self.pass_over(age.clone());
                return false;
            };
            self.displace(bugs, last);
        }
        true
    }

    /// Returns the youngest group, if it is younger than `age` and in no transaction.
    fn last_after(&self, age: &Age) -> Option<(Age, GroupKey)> {
        let is_idle = |place: &GroupPlace| matches!(place, GroupPlace::Out | GroupPlace::Engine(_));
        let mut later = self.ages.iter().rev().take_while(|(other, _)| other > age);
        later.find(|(_, key)| self.groups.get(key).is_none_or(|group| is_idle(&group.place))).cloned()
    }

    fn pass_over(&mut self, age: Age) {
        self.first_out = self.first_out.take().into_iter().chain([age]).min();
    }

    /// Removes a group from its places.
    fn displace(&mut self, bugs: &mut Bugs, last: (Age, GroupKey)) {
        self.ages.remove(&last);
        let (age, key) = last;
        self.pass_over(age);
        self.dirty.remove(&key);
        let Some(group) = self.groups.remove(&key) else {
            return bugs.found("a group of the order of age is not in the table");
        };
        self.places -= group.places();
        for player in &group.members {
            self.tickets.remove(player);
        }
        if let Some(at) = group.deadline {
            self.deadlines.remove(&(at, key));
        }
        if let GroupPlace::Engine(leader) = group.place {
            self.displaced.push(leader);
        }
    }

    /// Takes a group that has lost its places while it was in the engine, by its leader.
    pub(super) fn take_displaced(&mut self) -> Option<Name> {
        self.displaced.pop()
    }

    /// Returns the number of places that are kept for a party of this size; 1 if it exceeds a team.
    const fn kept(&self, size: usize) -> usize {
        if size <= self.team { size } else { 1 }
    }

    fn leave(&mut self, bugs: &mut Bugs, now: Instant, key: &GroupKey, player: &Name) {
        let Some(group) = self.groups.get_mut(key) else { return bugs.found("a ticket has no group") };
        group.touch();
        self.dirty.insert(key.clone());
        let before = group.places();
        group.members.remove(player);
        if group.members.len() < group.size {
            group.missing.insert(player.clone());
            group.lost_at.get_or_insert(now + self.grace);
        }
        self.places = self.places - before + group.places();
    }

    fn join(&mut self, key: &GroupKey, size: usize, age: Age) {
        let (kept, player) = (self.kept(size), age.1.clone());
        let group =
            self.groups.entry(key.clone()).or_insert_with(|| WaitingGroup::new(size, kept, age.clone()));
        let before = group.places();
        if group.members.is_empty() || age < group.age {
            self.ages.remove(&(group.age.clone(), key.clone()));
            group.age = age.clone();
            self.ages.insert((age, key.clone()));
        }
        group.missing.remove(&player);
        group.members.insert(player);
        if group.members.len() >= group.size {
            group.missing.clear();
        }
        if group.missing.is_empty() {
            group.lost_at = None;
        }
        self.places = self.places - before + group.places();
        group.touch();
        self.dirty.insert(key.clone());
    }

    /// Takes a group that has changed.
    pub(super) fn take_dirty(&mut self) -> Option<GroupKey> {
        self.dirty.pop_first()
    }

    /// Removes a reopened group if it has no tickets. Returns true if the group was removed.
    pub(super) fn drop_empty(&mut self, key: &GroupKey) -> bool {
        let is_empty = self.groups.get(key).is_some_and(|group| group.members.is_empty());
        if is_empty && let Some(group) = self.groups.remove(key) {
            self.ages.remove(&(group.age, key.clone()));
        }
        is_empty
    }

    /// Returns the players of a complete party, the oldest first, equally old players by name; of
    /// too many players, the first to queue. While one of these is absent, the party is not
    /// complete.
    pub(super) fn complete(&self, key: &GroupKey) -> Option<Vec<(&Name, &WaitingTicket)>> {
        let group = self.groups.get(key)?;
        if group.members.len() < group.size {
            return None;
        }
        let member = |name| self.tickets.get_key_value(name);
        let mut members: Vec<_> = group.members.iter().filter_map(member).collect();
        members.sort_by_key(|(name, ticket)| (ticket.queued, *name));
        members.truncate(group.size);
        members.iter().all(|(_, ticket)| ticket.absent.is_none()).then_some(members)
    }

    /// Keeps a group outside the engine for now, and sets its deadline.
    pub(super) fn keep(&mut self, bugs: &mut Bugs, key: &GroupKey) {
        let Self { groups, tickets, deadlines, time_out, absence, .. } = self;
        let Some(group) = groups.get_mut(key) else {
            return bugs.found("a group of tickets is not in the table");
        };
        let tickets = group.members.iter().filter_map(|name| tickets.get(name));
        let at = tickets.map(|ticket| ticket.end(*time_out, *absence)).chain(group.lost_at).min();
        if let Some(old) = core::mem::replace(&mut group.deadline, at) {
            deadlines.remove(&(old, key.clone()));
        }
        deadlines.extend(at.map(|at| (at, key.clone())));
    }

    /// Returns an absent member of a group, `player` itself if absent, with the start of the
    /// absence and the time until which its ticket is kept.
    pub(super) fn absent(&self, key: &GroupKey, player: &Name) -> Option<(&Name, Instant, Instant)> {
        let members = self.groups.get(key)?.members.iter();
        let absent = |name| {
            let (name, ticket) = self.tickets.get_key_value(name)?;
            Some((name, ticket.absent?, ticket.end(self.time_out, self.absence)))
        };
        absent(player).or_else(|| members.filter_map(absent).next())
    }

    /// Marks a group as being in a transaction.
    #[track_caller]
    pub(super) fn engage(&mut self, bugs: &mut Bugs, key: &GroupKey, serial: u64) {
        if let Some(group) = self.reopen(bugs, key) {
            (group.place, group.touched) = (GroupPlace::Busy(serial), false);
        }
    }

    /// Takes a group back that the engine has chosen in vain.
    #[track_caller]
    pub(super) fn take_back(&mut self, bugs: &mut Bugs, key: &GroupKey) {
        if let Some(group) = self.reopen(bugs, key) {
            (group.place, group.returns) = (GroupPlace::Out, true);
            self.dirty.insert(key.clone());
        }
    }

    /// Ends a group's transaction. `unchanged` is true if the group's tickets are still the known
    /// ones. Returns false if the group was dropped meanwhile, since it had no tickets; there may be
    /// another group with this key.
    pub(super) fn release(&mut self, key: &GroupKey, serial: u64, unchanged: bool) -> bool {
        let busy = self.groups.get_mut(key).filter(|group| group.place == GroupPlace::Busy(serial));
        let Some(group) = busy else { return false };
        group.returns = unchanged;
        if unchanged || group.touched {
            group.place = GroupPlace::Out;
            self.dirty.insert(key.clone());
        } else {
            group.place = GroupPlace::Awaited;
        }
        true
    }

    /// Returns the earliest deadline of a group outside the engine.
    pub(super) fn next(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes a group with a due deadline: players that have waited or were absent for too long, or
    /// all players of a party that is lost.
    pub(super) fn take_due(&mut self, bugs: &mut Bugs, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.deadlines.pop_first()?;
        let Some(group) = self.groups.get_mut(&key) else {
            bugs.found("a deadline belongs to no group of tickets");
            return None;
        };
        group.deadline = None;
        let lost = group.lost_at.is_some_and(|at| at <= now);
        let state = if lost { TicketState::PartyLost } else { TicketState::TimedOut };
        let end = |name: &Name| Some(self.tickets.get(name)?.end(self.time_out, self.absence));
        let over = |name: &&Name| lost || end(name).is_some_and(|end| end <= now);
        let players = group.members.iter().filter(over).cloned().collect();
        Some(Due { key, state, players })
    }

    /// Checks that the tables agree with each other.
    pub(super) fn audit(&self) -> Result<(), &'static str> {
        let check = |holds: bool, error: &'static str| if holds { Ok(()) } else { Err(error) };
        check(self.places <= self.cap, "the matcher knows too many tickets")?;
        let places: usize = self.groups.values().map(WaitingGroup::places).sum();
        check(places == self.places, "a place is taken by nobody, or by two")?;
        check(self.ages.len() == self.groups.len(), "a group is not in the order of age")?;
        let members: usize = self.groups.values().map(|group| group.members.len()).sum();
        check(members == self.tickets.len(), "a ticket is in no group, or in two")?;
        let armed = self.groups.values().filter(|group| group.deadline.is_some()).count();
        check(armed == self.deadlines.len(), "a deadline belongs to no group, or to two")
    }
}

impl WaitingTicket {
    /// Returns the time at which the ticket ends without a match. The ticket of an absent player is
    /// kept for the time `absence`.
    fn end(&self, time_out: Duration, absence: Duration) -> Instant {
        let time_out = self.queued + time_out;
        self.absent.map_or(time_out, |since| time_out.min(since + absence))
    }
}

impl WaitingGroup {
    const fn new(size: usize, kept: usize, age: Age) -> Self {
        Self {
            size,
            kept,
            age,
            members: BTreeSet::new(),
            place: GroupPlace::Out,
            returns: false,
            touched: false,
            missing: BTreeSet::new(),
            lost_at: None,
            deadline: None,
        }
    }

    /// Notes that a ticket of the group has changed.
    fn touch(&mut self) {
        match self.place {
            GroupPlace::Awaited => self.place = GroupPlace::Out,
            GroupPlace::Busy(_) => self.touched = true,
            GroupPlace::Out | GroupPlace::Engine(_) => {}
        }
    }

    /// Returns the number of places that the group takes.
    fn places(&self) -> usize {
        if self.members.is_empty() { 0 } else { self.members.len().max(self.kept) }
    }

    /// Returns the number of players with tickets, and the number needed.
    pub(super) fn filled(&self) -> (usize, usize) {
        (self.members.len(), self.size)
    }
}
