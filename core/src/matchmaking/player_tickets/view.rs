//! Known state of a player in the registry.

use alloc::boxed::Box;
use alloc::string::String;

use skirmish_proto::v1::{self, TicketState};

use crate::base::id::NodeId;
use crate::matchmaking::record::decode;
use crate::registry::{KeyValue, LeaseId};

/// State of a player in the registry at a revision, with the changes that were reported since.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// Revision of the read; earlier changes are included.
    pub(super) read: u64,
    /// Revision of the newest reported change.
    pub(super) reported: u64,
    /// Revision of the last write of the node's ticket fence.
    pub(super) fence: u64,
    pub(super) session: Option<SessionView>,
    pub(super) ticket: Option<Box<TicketView>>,
    pub(super) notice: Option<Notice>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SessionView {
    pub(super) modified: u64,
    pub(super) epoch: u64,
    pub(super) node: NodeId,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct TicketView {
    pub(super) modified: u64,
    pub(super) lease: Option<LeaseId>,
    pub(super) record: v1::TicketRecord,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    pub(super) modified: u64,
    pub(super) record: v1::NoticeRecord,
}

/// Knowledge of the match that the player's notice names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MatchInfo {
    Unread,
    Known(Box<v1::Matched>),
    /// No match has this name.
    Absent(String),
}

impl View {
    /// Returns true if the player has neither a ticket nor a match.
    pub(super) const fn is_empty(&self) -> bool {
        self.ticket.is_none() && self.notice.is_none()
    }
}

impl SessionView {
    pub(super) fn of(kv: &KeyValue) -> Self {
        let record: v1::SessionRecord = decode(&kv.value);
        let claimed = record.base.saturating_add(kv.modified);
        let epoch = if record.epoch == 0 { claimed } else { record.epoch };
        Self { modified: kv.modified, epoch, node: NodeId(record.node) }
    }
}

impl TicketView {
    pub(super) fn of(kv: &KeyValue) -> Self {
        Self { modified: kv.modified, lease: kv.lease, record: decode(&kv.value) }
    }

    /// Returns the request of a waiting ticket; `None` if the ticket has ended, or if its record is
    /// no ticket.
    pub(super) fn waiting(&self) -> Option<&v1::Queue> {
        self.record.queue.as_ref().filter(|_| self.record.state() == TicketState::Waiting)
    }

    /// Returns the number of the ticket's search.
    pub(super) fn search(&self) -> u64 {
        self.record.queue.as_ref().map_or(0, |queue| queue.search)
    }

    pub(super) fn mode(&self) -> String {
        self.record.queue.as_ref().map(|queue| queue.mode.clone()).unwrap_or_default()
    }
}

impl Notice {
    pub(super) fn of(kv: &KeyValue) -> Self {
        Self { modified: kv.modified, record: decode(&kv.value) }
    }
}
