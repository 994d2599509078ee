//! Transactions of a player, each of which answers with what there is.

use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use super::player::{Context, NextAction, Player};
use super::view::{SessionView, View};
use crate::base::id::NodeId;
use crate::matchmaking::keys;
use crate::registry::{Compare, Put, Range, RegistryOp, Span, Txn};

impl Player {
    /// Does something if the comparisons hold and the session is this node's: registered
    /// as it was claimed, or once more by this node, which gives it a newer epoch.
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

    /// A transaction that answers with what there is after it, whether it did anything or
    /// not: so it may be asked again as often as its outcome is unknown.
    pub(super) fn txn(&self, context: Context, compares: Vec<Compare>, op: RegistryOp) -> Txn {
        let look = self.reads(context, None);
        let success = [op].into_iter().chain(look.iter().cloned()).collect();
        Txn { compares, success, failure: look }
    }

    /// Reads what there is. In doubt it writes the node's key first: a ticket that was asked
    /// for before and is not written by then never will be.
    pub(super) fn look(&self, context: Context, pair: Option<&str>) -> Txn {
        let key = keys::desk(context.node);
        let fence = context.lease.filter(|_| self.doubt).map(|lease| Put::new(key, "", Some(lease)));
        let mut success: Vec<RegistryOp> = fence.into_iter().map(RegistryOp::Put).collect();
        success.extend(self.reads(context, pair));
        Txn { success, ..Txn::default() }
    }

    fn reads(&self, context: Context, pair: Option<&str>) -> Vec<RegistryOp> {
        let name = &self.name;
        let mut keys = vec![keys::session(name), keys::ticket(name), keys::notice(name)];
        keys.push(keys::desk(context.node));
        keys.extend(pair.map(keys::pair));
        keys.into_iter().map(|key| RegistryOp::Range(Range::of(Span::one(key)))).collect()
    }
}

/// There is no ticket of a search.
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
