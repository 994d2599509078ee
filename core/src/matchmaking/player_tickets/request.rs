//! Transactions of a player. Each one answers with the player's state in the registry.

use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use super::player::{Context, NextAction, Player};
use super::view::{SessionView, View};
use crate::base::id::NodeId;
use crate::matchmaking::keys;
use crate::registry::{Answer, Compare, Put, Range, RegistryOp, Span, Txn};

impl Player {
    /// Executes an operation if the comparisons hold and the session is this node's: with the epoch
    /// of its claim, or with the newer epoch of a later registration by this node.
    pub(super) fn write(
        &self,
        context: Context,
        view: &View,
        mut compares: Vec<Compare>,
        op: RegistryOp,
    ) -> NextAction {
        let is_ours = |session: &SessionView| session.node == context.node && session.epoch >= self.epoch;
        let session = view.session.filter(is_ours);
        let Some(session) = session else { return NextAction::Wait };
        compares.push(Compare::unchanged(keys::session(&self.name), session.modified));
        NextAction::Ask(self.txn(context, compares, op), None)
    }

    /// Returns a transaction that reads the state in either case, after the operation. So it may be
    /// sent again as long as its outcome is unknown.
    pub(super) fn txn(&self, context: Context, compares: Vec<Compare>, op: RegistryOp) -> Txn {
        let look = self.reads(context, None);
        let success = [op].into_iter().chain(look.iter().cloned()).collect();
        Txn { compares, success, failure: look }
    }

    /// Returns a transaction that reads the player's state. If the outcome of a write is in doubt,
    /// the transaction first writes the node's ticket fence: an earlier write of a ticket then has been
    /// executed, or never will be.
    pub(super) fn look(&self, context: Context, match_id: Option<&str>) -> Txn {
        let key = keys::ticket_fence(context.node);
        let fence = context.lease.filter(|_| self.doubt).map(|lease| Put::new(key, "", Some(lease)));
        let mut success: Vec<RegistryOp> = fence.into_iter().map(RegistryOp::Put).collect();
        success.extend(self.reads(context, match_id));
        Txn { success, ..Txn::default() }
    }

    fn reads(&self, context: Context, match_id: Option<&str>) -> Vec<RegistryOp> {
        let name = &self.name;
        let mut keys = vec![keys::session(name), keys::ticket(name), keys::notice(name)];
        keys.push(keys::ticket_fence(context.node));
        keys.extend(match_id.map(keys::match_key));
        keys.into_iter().map(|key| RegistryOp::Range(Range::of(Span::one(key)))).collect()
    }
}

/// Returns true if these are answers to the reads of a player's state, and of a match if one was
/// read.
pub(super) fn has_state(answers: &[Answer], of_match: bool) -> bool {
    let reads = answers.iter().filter(|answer| matches!(answer, Answer::Range { .. })).count();
    reads == 4 + usize::from(of_match)
}

/// Returns true if an answer is that to a transaction of this number of reads.
pub(super) fn has_reads(answer: &Answer, reads: usize) -> bool {
    let is_range = |answer: &Answer| matches!(answer, Answer::Range { .. });
    matches!(answer, Answer::Txn { answers, .. } if answers.len() == reads && answers.iter().all(is_range))
}

/// Returns the message that a search has no ticket.
pub(super) fn none(search: u64) -> v1::Queued {
    v1::Queued { state: TicketState::None.into(), search, ..v1::Queued::default() }
}

pub(super) fn record(
    queue: &v1::Queue,
    queued_ms: u64,
    node: NodeId,
    session_epoch: u64,
) -> v1::TicketRecord {
    let (queue, state) = (Some(queue.clone()), TicketState::Waiting.into());
    v1::TicketRecord { queue, state, node: node.0, session_epoch, queued_ms, absent_ms: 0 }
}
