//! Tickets that a transaction consumes for a match, and what its answer says of them.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Fence;
use super::book::{Book, Key};
use crate::id::Name;
use crate::matchmaking::keys;
use crate::matchmaking::record::unmatched;
use crate::matchmaking::ticket::Ticket;
use crate::plant::Plant;
use crate::registry::{Answer, Compare, Delete, KeyValue, Op, Range, Span, Txn};

/// A group that comes into a match, its players, and the revisions of their tickets.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) key: Key,
    pub(super) players: Vec<(Name, u64)>,
}

/// What came of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The match is written.
    Formed,
    /// It is not, since it is somebody else who forms matches.
    Deposed,
    /// It is not. These groups are as they were.
    Refused(BTreeSet<Key>),
}

impl Part {
    /// The group that the engine knows as this ticket; `None` if one of its tickets is not
    /// known.
    pub(super) fn of(ticket: &Ticket, book: &Book) -> Option<Self> {
        let key = book.key_of(&ticket.leader)?.clone();
        let player = |name: &Name| Some((name.clone(), book.ticket(name)?.modified));
        Some(Self { key, players: ticket.players().map(player).collect::<Option<_>>()? })
    }
}

/// Has a transaction write the match `pair` for these groups: it compares their tickets and
/// deletes them. If it does nothing, it reads what [`judge`] looks at.
pub(super) fn consume(txn: &mut Txn, fence: &Fence, pair: Bytes, parts: &[Part]) {
    fence.guard(&mut txn.compares);
    txn.failure.extend([read(fence.key()), read(pair)]);
    for (player, modified) in parts.iter().flat_map(|part| &part.players) {
        let ticket = keys::ticket(player);
        if !fence.planted.is(Plant::TicketUncompared) {
            txn.compares.push(Compare::unchanged(ticket.clone(), *modified));
        }
        unmatched(&mut txn.compares, player);
        txn.success.push(Op::Delete(Delete::of(Span::one(ticket.clone()))));
        txn.failure.extend([read(ticket), read(keys::notice(player))]);
    }
}

/// What an answer to such a transaction says; `is_written` knows the match as nobody else
/// would have written it, in case that an earlier answer was lost.
pub(super) fn judge(
    fence: &Fence,
    parts: &[Part],
    is_written: impl Fn(&KeyValue) -> bool,
    succeeded: bool,
    answers: &[Answer],
) -> Verdict {
    if succeeded {
        return Verdict::Formed;
    }
    let mut found = answers.iter().map(|answer| match answer {
        Answer::Range { kvs, .. } => kvs.first(),
        _ => None,
    });
    let mut next = || found.next().flatten();
    let (matcher, pair) = (next(), next());
    if pair.is_some_and(is_written) {
        return Verdict::Formed;
    }
    if matcher.is_none_or(|kv| kv.created != fence.epoch) {
        return Verdict::Deposed;
    }
    let mut same = BTreeSet::new();
    for part in parts {
        let mut unchanged = true;
        for (_, known) in &part.players {
            let (ticket, notice) = (next(), next());
            // Whoever has the session of a player that is in a match takes the ticket away.
            unchanged &= ticket.is_some_and(|kv| kv.modified == *known) && notice.is_none();
        }
        if unchanged {
            same.insert(part.key.clone());
        }
    }
    Verdict::Refused(same)
}

pub(super) fn read(key: Bytes) -> Op {
    Op::Range(Range::of(Span::one(key)))
}
