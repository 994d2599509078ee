//! Backfill of free places of running matches: offers, and the transactions that fill them.
//!
//! The sweep finds free places: those of players of a team without a notice of the match. They are
//! offered to the engine as long as the sweep finds them, one team of a match at a time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::Fence;
use super::consuming::{ConsumeOutcome, MatchedGroup, MatchedPlayer, consume, judge, notify};
use super::sweep::Running;
use crate::base::id::Name;
use crate::base::time::Instant;
use crate::matchmaking::config::QueueConfig;
use crate::matchmaking::formed::{Backfill, Widths};
use crate::matchmaking::keys;
use crate::matchmaking::record::{self, encode};
use crate::matchmaking::ticket::{Traits, Vacancy};
use crate::registry::{Answer, Compare, KeyValue, Put, RegistryOp, Txn};

/// Maximum number of players that have left a match. With more, the match is filled no further.
const MOST_LEFT: usize = 64;

/// Matches whose free places are offered, by room; as many as the engine accepts.
#[derive(Debug, Default)]
pub(super) struct Offers(BTreeMap<Name, OfferedMatch>);

/// A running match whose free places are offered.
#[derive(Debug)]
pub(super) struct OfferedMatch {
    running: Running,
    /// Revision that created the room's record.
    room: u64,
    traits: Traits,
    /// Time at which the free places were first found.
    since: Instant,
}

impl Offers {
    /// Returns the offer of a match with free places; `None` if no place is free, or if the match
    /// cannot be filled: no node leads its room, too many players have left, or its record does not
    /// say what tickets must fit. The rating window of the offer widens since the places were first
    /// found.
    pub(super) fn offer(&mut self, rules: &QueueConfig, now: Instant, running: Running) -> Option<Vacancy> {
        let room = running.swept.room.clone();
        let before = self.0.remove(&room);
        let created = running.room?;
        let (team, places) = running.free(rules)?;
        let v1::MatchRecord { region, rating, attributes, conditions, .. } = &running.swept.record;
        let traits = record::traits(attributes, conditions).ok()?;
        let region = Name::new(region).ok()?;
        let same = before.filter(|before| before.running.swept.id == running.swept.id);
        let offered = same.map_or(now, |before| before.since);
        let rating = *rating;
        let barred = running.left();
        if barred.len() > MOST_LEFT {
            return None;
        }
        let of_match = OfferedMatch { running, room: created, traits: traits.clone(), since: offered };
        self.0.insert(room.clone(), of_match);
        Some(Vacancy { room, team, places, rating, region, traits, offered, barred })
    }

    /// Removes the offer of a room's match.
    pub(super) fn withdraw(&mut self, room: &Name) -> Option<OfferedMatch> {
        self.0.remove(room)
    }
}

impl Running {
    fn is_there(&self, player: &str) -> bool {
        self.there.iter().any(|seat| seat.player.as_str() == player)
    }

    /// Returns the players that have left the match, now or earlier.
    fn left(&self) -> Vec<Name> {
        let left = self
            .swept
            .matched
            .teams
            .iter()
            .flat_map(|team| &team.players)
            .filter(|player| !self.is_there(player));
        left.chain(&self.swept.record.left).filter_map(|player| Name::new(player).ok()).collect()
    }

    /// Returns the teams with their current players.
    fn teams(&self) -> Vec<v1::Team> {
        let left = |team: &v1::Team| {
            let players = team.players.iter().filter(|player| self.is_there(player));
            v1::Team { players: players.cloned().collect() }
        };
        self.swept.matched.teams.iter().map(left).collect()
    }

    /// Returns the first of the teams with the most free places, and the number of these.
    fn free(&self, rules: &QueueConfig) -> Option<(u8, u8)> {
        let free = |team: &v1::Team| {
            let players = u8::try_from(team.players.len()).unwrap_or(u8::MAX);
            rules.team_size.saturating_sub(players)
        };
        let teams: Vec<u8> = self.teams().iter().map(free).collect();
        let most = teams.iter().copied().max().filter(|most| *most > 0)?;
        (0..).zip(teams).find(|(_, places)| *places == most)
    }
}

/// A ticket that is being added to a running match, and the transaction that adds it. The
/// transaction consumes the ticket and writes the match and all its notices, or has no effect. A
/// repeated transaction only reports if an earlier one has succeeded.
#[derive(Clone, Debug)]
pub(super) struct Backfilling {
    pub(super) serial: u64,
    pub(super) id: String,
    pub(super) team: u8,
    pub(super) explanation: String,
    /// The added group.
    pub(super) part: MatchedGroup,
    /// Record of the match, as written.
    record: Bytes,
    pub(super) txn: Box<Txn>,
}

impl Backfilling {
    /// Returns the transaction that adds a group; `None` if the match has changed since the sweep
    /// read it.
    pub(super) fn new(
        backfill: &Backfill,
        of_match: &OfferedMatch,
        part: MatchedGroup,
        fence: &Fence,
        serial: u64,
    ) -> Option<Self> {
        let Backfill { vacancy, chosen, quality, binding } = backfill;
        let running = &of_match.running;
        // A player that has left and queued again since the sweep: the match has one more free
        // place.
        if part.seats.iter().any(|seat| running.is_there(seat.player.as_str())) {
            return None;
        }
        let (mut record, mut together) = (running.swept.record.clone(), of_match.traits.clone());
        together.join(&chosen.ticket.traits);
        record::write_traits(&together, &mut record);
        record.matcher_epoch = fence.epoch;
        record.left = running.left().iter().map(Name::to_string).collect();
        let mut matched = running.swept.matched.clone();
        matched.fills += 1;
        matched.teams = running.teams();
        let team = matched.teams.get_mut(usize::from(vacancy.team))?;
        team.players.extend(part.seats.iter().map(|seat| seat.player.to_string()));
        record.r#match = Some(matched.clone());
        let rule = &binding.rule;
        let mut backfilling = Self {
            serial,
            id: running.swept.id.clone(),
            team: vacancy.team,
            explanation: format!(
                "closeness {quality} of 1000 in {}: {rule}; {}",
                vacancy.region,
                Widths::of(core::iter::once(chosen))
            ),
            part,
            record: encode(&record),
            txn: Box::default(),
        };
        *backfilling.txn = backfilling.write(of_match, &matched, fence);
        Some(backfilling)
    }

    /// Returns the added players.
    pub(super) fn players(&self) -> impl Iterator<Item = &Name> {
        self.part.seats.iter().map(|seat| &seat.player)
    }

    fn write(&self, of_match: &OfferedMatch, matched: &v1::Matched, fence: &Fence) -> Txn {
        let running = &of_match.running;
        let key = keys::match_key(&self.id);
        let compares = vec![Compare::unchanged(key.clone(), running.swept.modified)];
        let mut txn = Txn { compares, ..Txn::default() };
        consume(&mut txn, fence, key.clone(), core::slice::from_ref(&self.part));
        // A node leads the room, and has led it since the sweep.
        txn.compares.push(Compare::same_life(keys::room(running.swept.room.as_str()), of_match.room));
        for MatchedPlayer { player, modified, .. } in &running.there {
            txn.compares.push(Compare::unchanged(keys::notice(player), *modified));
        }
        notify(&mut txn, matched, running.there.iter().chain(&self.part.seats));
        txn.success.push(RegistryOp::Put(Put::new(key, self.record.clone(), None)));
        txn
    }

    /// Judges the answer to the transaction.
    pub(super) fn judge(&self, fence: &Fence, succeeded: bool, answers: &[Answer]) -> ConsumeOutcome {
        // No other matcher would write the same record for these tickets.
        let is_written = |kv: &KeyValue| kv.value == self.record;
        judge(fence, core::slice::from_ref(&self.part), is_written, succeeded, answers)
    }
}
