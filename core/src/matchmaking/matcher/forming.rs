//! Forming: a match that is being written to the registry.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::Fence;
use super::consuming::{ConsumeOutcome, MatchedGroup, MatchedPlayer, consume, judge, notify};
use super::waiting_tickets::GroupKey;
use crate::base::id::Name;
use crate::base::time::Wall;
use crate::matchmaking::formed::{Chosen, Formed, Widths};
use crate::matchmaking::keys;
use crate::matchmaking::record::{decode, encode, write_traits};
use crate::registry::{Answer, Compare, KeyValue, Put, RegistryOp, Txn};

/// A match, and the transaction that forms it. The transaction consumes all tickets and writes the
/// match, the notices and the room, or has no effect. A repeated transaction only reports if an
/// earlier one has succeeded.
#[derive(Clone, Debug)]
pub(super) struct Forming {
    pub(super) serial: u64,
    pub(super) id: String,
    pub(super) mode: Name,
    pub(super) teams: Vec<Vec<Name>>,
    pub(super) quality: u16,
    pub(super) explanation: String,
    parts: Vec<MatchedGroup>,
    /// Part of the match's record that later backfills need.
    open: v1::MatchRecord,
    pub(super) txn: Box<Txn>,
}

impl Forming {
    /// Returns the transaction of a match of these groups.
    pub(super) fn new(
        formed: &Formed,
        parts: Vec<MatchedGroup>,
        fence: &Fence,
        wall: Wall,
        serial: u64,
        id: String,
        backfill: bool,
    ) -> Self {
        let team =
            |team: &Vec<Chosen>| team.iter().flat_map(|chosen| chosen.ticket.players()).cloned().collect();
        let teams: Vec<Vec<Name>> = formed.teams.iter().map(team).collect();
        let Formed { quality, region, binding, .. } = formed;
        let explanation = format!(
            "quality {quality} of 1000 in {region}: {}; {}",
            binding.rule,
            Widths::of(formed.teams.iter().flatten())
        );
        let mut forming = Self {
            serial,
            id,
            mode: fence.mode.clone(),
            teams,
            quality: *quality,
            explanation,
            parts,
            open: if backfill { open(formed) } else { v1::MatchRecord::default() },
            txn: Box::default(),
        };
        *forming.txn = forming.write(fence, wall);
        forming
    }

    /// Returns the groups of the match.
    pub(super) fn groups(&self) -> impl Iterator<Item = &GroupKey> {
        self.parts.iter().map(|part| &part.key)
    }

    /// Returns the groups of the match, with their players.
    pub(super) fn parties(&self) -> impl Iterator<Item = (&GroupKey, &[MatchedPlayer])> {
        self.parts.iter().map(|part| (&part.key, part.seats.as_slice()))
    }

    fn write(&self, fence: &Fence, wall: Wall) -> Txn {
        let key = keys::match_key(&self.id);
        let mut txn = Txn { compares: vec![Compare::absent(key.clone())], ..Txn::default() };
        consume(&mut txn, fence, key.clone(), &self.parts);
        let room = keys::room_of(&self.id);
        // No node leads the room until the first player joins. The lease deletes the record if this
        // node and the players are gone before.
        let record = v1::RoomRecord::default();
        txn.success.push(RegistryOp::Put(Put::new(keys::room(&room), encode(&record), Some(fence.lease))));
        let team = |players: &Vec<Name>| v1::Team { players: players.iter().map(Name::to_string).collect() };
        let matched = v1::Matched {
            r#match: self.id.clone(),
            mode: self.mode.to_string(),
            room,
            team: 0,
            teams: self.teams.iter().map(team).collect(),
            quality: self.quality.into(),
            explanation: self.explanation.clone(),
            fills: 0,
            search: 0,
            over: false,
        };
        notify(&mut txn, &matched, self.parts.iter().flat_map(|part| &part.seats));
        let (matched, matcher_epoch) = (Some(matched), fence.epoch);
        let record =
            v1::MatchRecord { r#match: matched, formed_ms: wall.0, matcher_epoch, ..self.open.clone() };
        txn.success.push(RegistryOp::Put(Put::new(key, encode(&record), None)));
        txn
    }

    /// Judges the answer to the transaction.
    pub(super) fn judge(&self, fence: &Fence, succeeded: bool, answers: &[Answer]) -> ConsumeOutcome {
        // No other matcher uses the match's name.
        judge(fence, &self.parts, |kv| self.is(kv), succeeded, answers)
    }

    fn is(&self, kv: &KeyValue) -> bool {
        decode::<v1::MatchRecord>(&kv.value).r#match.is_some_and(|matched| matched.r#match == self.id)
    }
}

/// Returns the record of the properties that later tickets must fit.
fn open(formed: &Formed) -> v1::MatchRecord {
    let mut record = v1::MatchRecord { region: formed.region.to_string(), ..v1::MatchRecord::default() };
    let ratings = || formed.tickets().map(|ticket| i64::from(ticket.rating));
    let count = i64::try_from(ratings().count()).unwrap_or(i64::MAX).max(1);
    record.rating = i32::try_from(ratings().sum::<i64>() / count).unwrap_or_default();
    let mut tickets = formed.tickets();
    let mut together = tickets.next().map(|ticket| ticket.traits.clone()).unwrap_or_default();
    tickets.for_each(|ticket| together.join(&ticket.traits));
    write_traits(&together, &mut record);
    record
}
