//! Tickets that a transaction consumes for a match, and the judgement of the answer.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::Fence;
use super::waiting_tickets::{GroupKey, WaitingTicket, WaitingTickets};
use crate::base::id::Name;
use crate::base::plant::Plant;
use crate::base::time::Wall;
use crate::matchmaking::keys;
use crate::matchmaking::record::{encode, unmatched};
use crate::matchmaking::ticket as engine;
use crate::registry::{Answer, Compare, Delete, KeyValue, Put, Range, RegistryOp, Span, Txn};

/// A group that is added to a match.
#[derive(Clone, Debug)]
pub(super) struct MatchedGroup {
    pub(super) key: GroupKey,
    /// Players of the group, with the revisions of their tickets.
    pub(super) seats: Vec<MatchedPlayer>,
}

/// A player that is added to a match, or is in it.
#[derive(Clone, Debug)]
pub(super) struct MatchedPlayer {
    pub(super) player: Name,
    /// Revision of the player's ticket or notice.
    pub(super) modified: u64,
    /// Number of the search that led to the match.
    pub(super) search: u64,
    /// True if the player has joined the room.
    pub(super) joined: bool,
    /// Start of the player's time in the match, in Unix milliseconds.
    pub(super) since_ms: u64,
    /// Waiting time of the player's ticket until then, in milliseconds.
    pub(super) waited_ms: u64,
}

/// Outcome of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ConsumeOutcome {
    /// The match was written.
    Formed,
    /// The match was not written, since this node is no longer the matcher.
    Deposed,
    /// The match was not written. These groups are unchanged.
    Refused(BTreeSet<GroupKey>),
}

impl MatchedGroup {
    /// Returns the group of the engine's ticket; `None` if one of the group's tickets is not known.
    /// The players' time in the match starts now.
    pub(super) fn of(group: &engine::Ticket, waiting: &WaitingTickets, wall: Wall) -> Option<Self> {
        let key = waiting.key_of(&group.leader)?.clone();
        let seat = |player: &Name| {
            let WaitingTicket { modified, record, .. } = waiting.ticket(player)?;
            let search = record.queue.as_ref().map_or(0, |queue| queue.search);
            let waited_ms = waiting.credit_ms(wall.0.saturating_sub(record.queued_ms));
            let (player, since_ms) = (player.clone(), wall.0);
            Some(MatchedPlayer { player, modified: *modified, search, joined: false, since_ms, waited_ms })
        };
        Some(Self { key, seats: group.players().map(seat).collect::<Option<_>>()? })
    }
}

/// Adds the groups to a transaction that writes the match at `match_key`: the transaction compares
/// their tickets and deletes them. If a comparison fails, the transaction reads the state that
/// [`judge`] needs.
pub(super) fn consume(txn: &mut Txn, fence: &Fence, match_key: Bytes, parts: &[MatchedGroup]) {
    fence.guard(&mut txn.compares);
    txn.failure.extend([read(fence.key()), read(match_key)]);
    for MatchedPlayer { player, modified, .. } in parts.iter().flat_map(|part| &part.seats) {
        let ticket = keys::ticket(player);
        if !fence.planted.is(Plant::TicketUncompared) {
            txn.compares.push(Compare::unchanged(ticket.clone(), *modified));
        }
        unmatched(&mut txn.compares, player);
        txn.success.push(RegistryOp::Delete(Delete::of(Span::one(ticket.clone()))));
        txn.failure.extend([read(ticket), read(keys::notice(player))]);
    }
}

impl MatchedPlayer {
    /// Returns the player with this notice.
    pub(super) fn of(player: &Name, modified: u64, notice: &v1::NoticeRecord) -> Self {
        let v1::NoticeRecord { search, joined, since_ms, waited_ms, .. } = *notice;
        Self { player: player.clone(), modified, search, joined, since_ms, waited_ms }
    }
}

/// Judges the answer to such a transaction. `is_written` recognises the match as the one that this
/// transaction writes, in case that an earlier answer was lost.
pub(super) fn judge(
    fence: &Fence,
    parts: &[MatchedGroup],
    is_written: impl Fn(&KeyValue) -> bool,
    succeeded: bool,
    answers: &[Answer],
) -> ConsumeOutcome {
    if succeeded {
        return ConsumeOutcome::Formed;
    }
    let mut found = answers.iter().map(|answer| match answer {
        Answer::Range { kvs, .. } => kvs.first(),
        _ => None,
    });
    let mut next = || found.next().flatten();
    let (matcher, written) = (next(), next());
    let (mut same, mut is_consumed) = (BTreeSet::new(), true);
    for part in parts {
        let mut unchanged = true;
        for seat in &part.seats {
            let (ticket, notice) = (next(), next());
            let is_there = ticket.is_some_and(|kv| kv.modified == seat.modified);
            is_consumed &= !is_there;
            // The node with the session of a player in a match deletes the ticket.
            unchanged &= is_there && notice.is_none();
        }
        if unchanged {
            same.insert(part.key.clone());
        }
    }
    // An equal match may have been written for earlier tickets of the same players.
    if is_consumed && written.is_some_and(is_written) {
        return ConsumeOutcome::Formed;
    }
    if matcher.is_none_or(|kv| kv.created != fence.epoch) {
        return ConsumeOutcome::Deposed;
    }
    ConsumeOutcome::Refused(same)
}

/// Adds the notices of these players of a match to a transaction.
pub(super) fn notify<'a>(
    txn: &mut Txn,
    matched: &v1::Matched,
    seats: impl Iterator<Item = &'a MatchedPlayer>,
) {
    let seats: BTreeMap<&str, &MatchedPlayer> = seats.map(|seat| (seat.player.as_str(), seat)).collect();
    for (players, team) in matched.teams.iter().zip(0..) {
        for seat in players.players.iter().filter_map(|name| seats.get(name.as_str())) {
            let MatchedPlayer { player, search, joined, since_ms, waited_ms, .. } = (*seat).clone();
            let (r#match, fills) = (matched.r#match.clone(), matched.fills);
            let notice = v1::NoticeRecord { r#match, team, fills, search, joined, since_ms, waited_ms };
            txn.success.push(RegistryOp::Put(Put::new(keys::notice(&player), encode(&notice), None)));
        }
    }
}

pub(super) fn read(key: Bytes) -> RegistryOp {
    RegistryOp::Range(Range::of(Span::one(key)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::plant::Planted;
    use crate::registry::LeaseId;

    fn kv(modified: u64) -> KeyValue {
        let (key, value) = (Bytes::new(), Bytes::new());
        KeyValue { key, value, created: 5, modified, version: 1, lease: None }
    }

    #[test]
    fn a_match_is_written_only_if_its_tickets_are_gone() {
        let player = Name::new("ann").unwrap();
        let (mode, planted) = (Name::new("duel").unwrap(), Planted::default());
        let fence = Fence { mode, epoch: 5, lease: LeaseId(9), planted };
        let seat = MatchedPlayer {
            player: player.clone(),
            modified: 7,
            search: 1,
            joined: false,
            since_ms: 0,
            waited_ms: 0,
        };
        let part = MatchedGroup { key: GroupKey::Alone(player), seats: Vec::from([seat]) };
        let judged = |ticket: Option<KeyValue>, is_written: bool| {
            let found = [Some(kv(5)), Some(kv(6)), ticket, None];
            let range =
                |kv: Option<KeyValue>| Answer::Range { kvs: Vec::from_iter(kv), more: false, count: 1 };
            let answers = found.map(range);
            judge(&fence, core::slice::from_ref(&part), |_| is_written, false, &answers)
        };
        let refused = |keys: &[&GroupKey]| ConsumeOutcome::Refused(keys.iter().copied().cloned().collect());
        assert_eq!(judged(None, true), ConsumeOutcome::Formed, "an earlier answer was lost");
        assert_eq!(judged(Some(kv(8)), true), ConsumeOutcome::Formed, "the player searches again");
        assert_eq!(judged(Some(kv(7)), true), refused(&[&part.key]), "the match is of earlier tickets");
        assert_eq!(judged(Some(kv(7)), false), refused(&[&part.key]));
        assert_eq!(judged(Some(kv(8)), false), refused(&[]));
    }
}
