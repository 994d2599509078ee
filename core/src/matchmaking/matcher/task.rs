//! Tasks: the requests of a mode's matcher.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1::{self, TicketState};

use super::Fence;
use super::attendance::AttendanceUpdate;
use super::backfill::Backfilling;
use super::consuming::read;
use super::forming::Forming;
use super::mode_matcher::ModeMatcher;
use super::sweep::SweptMatch;
use super::waiting_tickets::GroupKey;
use crate::base::id::Name;
use crate::matchmaking::keys;
use crate::matchmaking::record::encode;
use crate::registry::{Compare, Put, Range, RegistryOp, Request, Txn};

/// A request to the registry, with its failures in a row.
#[derive(Debug)]
pub(super) struct MatcherTask {
    pub(super) what: TaskKind,
    pub(super) failures: u32,
}

#[derive(Debug)]
pub(super) enum TaskKind {
    /// Claims the election, or reads the elected node.
    Claim,
    /// Lists the tickets from a key on; revision 0 for the first page.
    List {
        revision: u64,
        from: Option<Bytes>,
        /// True if this is a second listing, for parties that lack members.
        again: bool,
    },
    Form(Forming),
    Backfill(Backfilling),
    End(TicketEnd),
    SweepPage(Request),
    SweepMatch(SweptMatch),
    SweepEnd {
        id: String,
        abandoned: bool,
        txn: Txn,
    },
    SweepDate(Txn),
    SweepAttendance(Box<AttendanceUpdate>),
}

/// The end of a ticket without a match.
#[derive(Debug)]
pub(super) struct TicketEnd {
    pub(super) serial: u64,
    pub(super) key: GroupKey,
    pub(super) player: Name,
    pub(super) state: TicketState,
    pub(super) modified: u64,
    pub(super) record: v1::TicketRecord,
}

impl MatcherTask {
    pub(super) const fn new(what: TaskKind) -> Self {
        Self { what, failures: 0 }
    }

    pub(super) const fn list() -> Self {
        Self::new(TaskKind::List { revision: 0, from: None, again: false })
    }
}

impl TicketEnd {
    pub(super) fn txn(&self, fence: &Fence) -> Txn {
        let key = keys::ticket(&self.player);
        let mut compares = Vec::from([Compare::unchanged(key.clone(), self.modified)]);
        fence.guard(&mut compares);
        let mut put = Put::new(key, encode(&self.record), None);
        put.ignore_lease = true;
        let failure = Vec::from([read(fence.key())]);
        Txn { compares, success: Vec::from([RegistryOp::Put(put)]), failure }
    }
}

impl ModeMatcher {
    /// Returns the request of a task; `None` without the lease or the election that the task needs.
    pub(super) fn request(&self, what: &TaskKind) -> Option<Request> {
        Some(match what {
            TaskKind::Claim => {
                let key = keys::matcher(self.mode());
                let record = v1::MatcherRecord { node: self.node.0 };
                let put = Put::new(key.clone(), encode(&record), Some(self.lease?));
                let compares = Vec::from([Compare::absent(key.clone())]);
                let success = Vec::from([RegistryOp::Put(put), read(key.clone())]);
                Request::Txn(Txn { compares, success, failure: Vec::from([read(key)]) })
            }
            TaskKind::List { revision, from, .. } => {
                let mut span = keys::tickets();
                if let Some(from) = from {
                    span.key = from.clone();
                }
                let limit = self.config.page.into();
                Request::Range(Range { revision: *revision, limit, ..Range::of(span) })
            }
            TaskKind::Form(forming) => Request::Txn((*forming.txn).clone()),
            TaskKind::Backfill(backfilling) => Request::Txn((*backfilling.txn).clone()),
            TaskKind::End(end) => Request::Txn(end.txn(self.fence()?)),
            TaskKind::SweepPage(request) => request.clone(),
            TaskKind::SweepMatch(swept) => Request::Txn(swept.look()),
            TaskKind::SweepEnd { txn, .. } | TaskKind::SweepDate(txn) => Request::Txn(txn.clone()),
            TaskKind::SweepAttendance(update) => Request::Txn(update.txn.clone()),
        })
    }
}
