//! The pair of a room's primary and its backup: the states of the pair, and which ops may be committed
//! in each.
//!
//! The registry's record of the room names the primary and the backup. A backup that is named may take
//! over at any moment, so it must have every op that is committed. While the primary does not know
//! whether the record names the backup, an op is committed only if both hold: the backup has stored it,
//! and no other node may take the room from a lone primary.

use alloc::boxed::Box;
use core::fmt;

use super::context::LiveLeases;
use super::op_stream::OpStream;
use super::reader::Readers;
use crate::base::id::NodeId;
use crate::base::plant::{Plant, Planted};
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::room::Room;

/// State of the pair, at the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PairState {
    /// The record names no backup. Nodes that own their leases commit alone.
    #[default]
    Alone,
    /// A candidate is sent the room. The record names no backup.
    Recruiting,
    /// The registry is asked to name the candidate, and may have done so.
    Naming,
    /// The record names the backup.
    Paired,
    /// The registry is asked not to name the backup any more, and may have done so.
    Dropping,
}

/// Cause of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairStep {
    /// A candidate is chosen.
    Recruit,
    /// The candidate has stored everything that is committed.
    CaughtUp,
    /// The record names the candidate.
    Named,
    /// The other node is gone, is too slow, or has lost the room.
    Lost,
    /// The record names no backup.
    Dropped,
}

/// All transitions. A step without a row for a state has no effect in that state.
pub(super) const TRANSITIONS: [(PairState, PairStep, PairState); 7] = [
    (PairState::Alone, PairStep::Recruit, PairState::Recruiting),
    (PairState::Recruiting, PairStep::CaughtUp, PairState::Naming),
    (PairState::Recruiting, PairStep::Lost, PairState::Alone),
    (PairState::Naming, PairStep::Named, PairState::Paired),
    (PairState::Naming, PairStep::Lost, PairState::Dropping),
    (PairState::Paired, PairStep::Lost, PairState::Dropping),
    (PairState::Dropping, PairStep::Dropped, PairState::Alone),
];

impl PairState {
    /// Returns the state after the step; `None` if the step has no effect in this state.
    pub(super) fn after(self, step: PairStep) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| *from == self && *by == step).map(|(_, _, to)| *to)
    }
}

impl fmt::Display for PairState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The pair of a room, at its primary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pair {
    state: PairState,
    /// The candidate or the backup; `None` while the primary is alone.
    peer: Option<Box<PairPeer>>,
    /// Time from which a candidate is looked for; `None` while none is wanted.
    pub(super) recruit_at: Option<Instant>,
    /// The last node that was lost, and the time until which it is not recruited again.
    pub(super) shunned: Option<(NodeId, Instant)>,
}

/// The candidate or the backup.
#[derive(Clone, Debug)]
pub(super) struct PairPeer {
    pub(super) node: NodeId,
    /// Link over which the other node reads; `None` without a link.
    pub(super) link: Option<Key>,
    /// The ops; `None` before the room was installed.
    pub(super) stream: Option<OpStream>,
    /// Time until which the other node has to make progress, while it owes any.
    pub(super) patience: Instant,
    /// Revision of the record that names the backup; 0 while unknown.
    pub(super) record: u64,
    /// True if the other node is lost, and is dropped as soon as the leases allow it.
    pub(super) is_lost: bool,
    /// Frames that the candidate had yet to read when its patience ended last; `u64::MAX` before.
    pub(super) unread: u64,
}

impl PairPeer {
    /// Returns the number of ops that the other node has not stored.
    pub(super) fn behind(&self) -> usize {
        self.stream.as_ref().map_or(0, OpStream::len)
    }

    /// Returns true if the other node has to make progress.
    pub(super) fn owes(&self) -> bool {
        self.link.is_none() || !self.stream.as_ref().is_some_and(OpStream::is_through)
    }

    /// Returns true if the candidate has less of the room to read than at the last call. `head` is the number
    /// of the last entry.
    pub(super) fn has_read_on(&mut self, readers: &Readers, head: u64) -> bool {
        let unread = match (&self.stream, self.link.and_then(|link| readers.get(link))) {
            (Some(_), _) => 0,
            // The state comes behind the entries.
            (None, Some(reader)) => head.saturating_sub(reader.seq) + 1,
            (None, None) => u64::MAX,
        };
        let has_read = unread < self.unread;
        self.unread = self.unread.min(unread);
        has_read
    }
}

impl Pair {
    /// Creates the pair of a backup that took over: the primary of before is its backup, and `is_lost` if
    /// there is no link to it.
    pub(super) fn swapped(room: &Room, peer: NodeId, record: u64, patience: Instant, is_lost: bool) -> Self {
        let mut stream = OpStream::after(room.applied());
        room.ops_after(room.applied()).for_each(|op| stream.push(op));
        let (link, stream) = (None, Some(stream));
        let peer = PairPeer { node: peer, link, stream, patience, record, is_lost, unread: 0 };
        Self { state: PairState::Paired, peer: Some(Box::new(peer)), recruit_at: None, shunned: None }
    }

    // Getters.

    pub(crate) const fn state(&self) -> PairState {
        self.state
    }

    pub(super) fn peer(&self) -> Option<&PairPeer> {
        self.peer.as_deref()
    }

    pub(super) fn peer_mut(&mut self) -> Option<&mut PairPeer> {
        self.peer.as_deref_mut()
    }

    /// Returns the other node, if it is this one.
    pub(super) fn peer_at(&mut self, node: NodeId) -> Option<&mut PairPeer> {
        self.peer_mut().filter(|peer| peer.node == node)
    }

    /// Returns the node that may take over.
    pub(super) fn backup(&self) -> Option<NodeId> {
        self.peer().filter(|_| self.state == PairState::Paired).map(|peer| peer.node)
    }

    /// Returns true if the other node has the state, and stores ops.
    fn is_installed(&self) -> bool {
        self.peer().and_then(|peer| peer.stream.as_ref()).is_some_and(OpStream::is_installed)
    }

    /// Returns true if ops are committed that no backup has stored.
    pub(super) const fn is_alone(&self) -> bool {
        matches!(self.state, PairState::Alone | PairState::Recruiting)
    }

    /// Returns true if ops may be appended: they can be committed sooner or later.
    pub(super) const fn may_serve(&self, leases: LiveLeases) -> bool {
        match self.state {
            PairState::Alone | PairState::Recruiting | PairState::Naming | PairState::Dropping => leases.lone,
            PairState::Paired => leases.rooms,
        }
    }

    /// Returns true if an op may be committed.
    pub(super) fn may_commit(&self, op: u64, leases: LiveLeases, planted: Planted) -> bool {
        let is_stored =
            || self.peer().and_then(|peer| peer.stream.as_ref()).is_some_and(|stream| op <= stream.stored());
        self.may_serve(leases)
            && match self.state {
                PairState::Alone => true,
                // From then on the candidate has all that is committed sooner or later, however many ops come.
                PairState::Recruiting => !self.is_installed() || is_stored(),
                PairState::Naming => is_stored() || planted.is(Plant::NamingAlone),
                PairState::Paired => is_stored() || planted.is(Plant::AckedUnstored),
                PairState::Dropping => is_stored() || planted.is(Plant::DropAssumed),
            }
    }

    // Steps.

    /// Makes a step. Returns false if the step has no effect in this state.
    pub(super) fn step(&mut self, step: PairStep) -> bool {
        let Some(next) = self.state.after(step) else { return false };
        self.state = next;
        if next == PairState::Alone {
            self.peer = None;
        }
        true
    }

    /// Recruits a node.
    pub(super) fn recruit(&mut self, node: NodeId, link: Key, patience: Instant) {
        if self.step(PairStep::Recruit) {
            let (link, stream, record, is_lost, unread) = (Some(link), None, 0, false, u64::MAX);
            self.peer = Some(Box::new(PairPeer { node, link, stream, patience, record, is_lost, unread }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_was_reviewed_and_each_step_leads_to_one_state() {
        crate::transitions::check(&TRANSITIONS, include_str!("pair.transitions.txt"));
    }

    fn pair(state: PairState, stored: u64) -> Pair {
        let stream = Some(OpStream::after(stored));
        let (link, patience) = (None, Instant::ZERO);
        let peer = PairPeer { node: NodeId(2), link, stream, patience, record: 0, is_lost: false, unread: 0 };
        let peer = (state != PairState::Alone).then(|| Box::new(peer));
        Pair { state, peer, ..Pair::default() }
    }

    /// Each row is a state, and whether an op is committed with no lease, with the lease of rooms, and
    /// with both: first an op that the backup has not stored, then one that it has.
    #[test]
    fn an_op_is_committed_only_if_it_cannot_be_lost() {
        let leases =
            [(false, false), (false, true), (true, true)].map(|(lone, rooms)| LiveLeases { lone, rooms });
        for (state, unstored, stored) in [
            (PairState::Alone, [false, false, true], [false, false, true]),
            (PairState::Recruiting, [false, false, false], [false, false, true]),
            (PairState::Naming, [false, false, false], [false, false, true]),
            (PairState::Paired, [false, false, false], [false, true, true]),
            (PairState::Dropping, [false, false, false], [false, false, true]),
        ] {
            let commits = |op| leases.map(|leases| pair(state, 4).may_commit(op, leases, Planted::default()));
            assert_eq!((commits(5), commits(4)), (unstored, stored), "{state}");
        }
    }
}
