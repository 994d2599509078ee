//! Protocol of one key: requests about a session or a room, and the meaning of their answers. A pure function
//! of the known record and the answer, without time or queue.
//!
//! Every request is a transaction that acts only if the record is unchanged since it was last seen, and reads
//! the record otherwise. So a request can be sent again after a lost answer, and the record shows the outcome
//! of earlier requests.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::event::Reign;
use super::generation::{KnownKey, guard};
use super::keys::{self, FIRST_TERM, Owner, RoomState, Subject};
use super::table::Held;
use crate::base::id::{DialNumber, NodeId, SessionId};
use crate::base::plant::{Plant, Planted};
use crate::registry::{
    Answer, Compare, Delete, KeyValue, LeaseId, Put, Range, RegistryOp, Response, Span, Txn,
};

/// State of a record that a node wants to reach.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// Own the player's session for the connection `dial`, regardless of the present owner, unless the
    /// session was claimed for a newer connection. The session `named` is resumed if the record holds that
    /// session.
    TakeSession { named: Option<SessionId>, fresh: SessionId, dial: DialNumber },
    /// Keep a session, whose newest connection is `dial`. A later claim for an older connection is
    /// overridden.
    KeepSession { session: SessionId, epoch: u64, dial: DialNumber },
    /// Be the room's primary in a new epoch, unless another live node is, or a backup is named.
    TakeRoom,
    /// Confirm that this node still is the room's primary. The backup is the one named by the last known
    /// record.
    CheckRoom { epoch: u64, term: u32, backup: Option<NodeId> },
    /// Write the changed backup and state of the room.
    WriteRoom { epoch: u64, term: u32, backup: Option<NodeId>, state: RoomState },
    /// As the backup of this primary in this term, be the primary of the next term.
    SwapRoom { epoch: u64, term: u32, primary: NodeId },
    /// Have no own record. A room's record names this node in the epoch and the term of `held`, or is a stray
    /// one. A stray record with a backup that lives is left to the backup.
    Drop { held: Option<(u64, u32)> },
}

/// Attempt to reach a goal, with as many requests as necessary.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) goal: Goal,
    /// Revision of the last write of the record, as far as is known; 0: no record.
    seen: u64,
    /// Session and epoch to write (epoch 0: the revision of the write).
    session: SessionId,
    epoch: u64,
    /// State in the room's record as it was read, which a swap writes again.
    pub(super) state: RoomState,
    /// Node named by the seen record that does not live: its primary, or the backup of a stray record. The
    /// transaction compares that the record of this node is absent.
    dead: Option<NodeId>,
    /// True if the attempt to keep a session writes over the claim of another node.
    pub(super) overrides: bool,
    /// Former owner of the session.
    pub(super) previous: Option<NodeId>,
}

/// Meaning of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimAnswer {
    /// Undecided: the record was not as expected. Ask again.
    Again,
    /// This node owns the record.
    Ours(Held),
    /// Another node owns the record.
    Others(Owner),
    /// The session was claimed for a newer connection of the same client.
    Superseded,
    /// Another node leads the room that this node led, in a later term of the same epoch.
    Deposed(Owner),
    /// The record is absent, or not owned by this node; this is the goal, or cannot be changed.
    Gone,
    /// The answer is of the wrong type.
    Garbled,
}

/// Node, leases and generation of a request, and the bug planted in its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) node: NodeId,
    /// Lease of the record.
    pub(super) lease: LeaseId,
    /// Lease of the node's own record.
    pub(super) node_lease: LeaseId,
    pub(super) generation: KnownKey,
    pub(super) planted: Planted,
}

impl Attempt {
    /// Creates an attempt without knowledge of the record, which assumes an absent record.
    pub(super) fn new(goal: Goal) -> Self {
        let session = match goal {
            Goal::TakeSession { fresh, .. } => fresh,
            Goal::KeepSession { session, .. } => session,
            Goal::TakeRoom | Goal::CheckRoom { .. } | Goal::WriteRoom { .. } => SessionId([0; 16]),
            Goal::SwapRoom { .. } | Goal::Drop { .. } => SessionId([0; 16]),
        };
        let state = RoomState::default();
        Self { goal, seen: 0, session, epoch: 0, state, dead: None, overrides: false, previous: None }
    }

    /// Creates an attempt on a record that was last written at this revision.
    pub(super) fn seen(goal: Goal, modified: u64) -> Self {
        Self { seen: modified, ..Self::new(goal) }
    }

    /// Creates an attempt on a record that this node owns.
    pub(super) fn held(goal: Goal, me: NodeId, held: Held) -> Self {
        let mut attempt = Self::seen(goal, held.modified);
        match goal {
            Goal::TakeSession { named, fresh, .. } => {
                attempt.choose_session(named, fresh, Some(me), Some(held.session));
            }
            Goal::KeepSession { epoch, .. } => attempt.epoch = epoch,
            Goal::TakeRoom | Goal::CheckRoom { .. } | Goal::WriteRoom { .. } => {}
            Goal::SwapRoom { .. } | Goal::Drop { .. } => {}
        }
        attempt
    }

    /// Returns the session that the attempt writes or has written.
    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// Returns the transaction to send.
    pub(super) fn request(&self, subject: &Subject, asker: Asker) -> Txn {
        let key = subject.key();
        let get = |key: Bytes| RegistryOp::Range(Range::of(Span::one(key)));
        let put = |value| vec![RegistryOp::Put(Put::new(key.clone(), value, Some(asker.lease)))];
        let mut compares = vec![match self.seen {
            0 => Compare::absent(key.clone()),
            seen => Compare::unchanged(key.clone(), seen),
        }];
        let mut failure = vec![get(key.clone())];
        if let Some(dead) = self.dead {
            compares.push(Compare::absent(keys::node_key(dead)));
            failure.push(get(keys::node_key(dead)));
        }
        compares.push(guard(asker.generation));
        failure.push(RegistryOp::Range(Range::of(Span::one(keys::GENERATION))));
        let Asker { node, node_lease, generation, .. } = asker;
        let base = generation.base;
        let success = match self.goal {
            Goal::TakeSession { dial, .. } => put(keys::session_record(self.session, dial, node, 0, base)),
            Goal::KeepSession { dial, .. } => {
                put(keys::session_record(self.session, dial, node, self.epoch, base))
            }
            Goal::TakeRoom => put(keys::room_record(Reign::first(0, node), base, RoomState::OPENED)),
            Goal::CheckRoom { .. } => Vec::new(),
            Goal::WriteRoom { epoch, term, backup, state } => {
                let reign = Reign { term, backup, ..Reign::first(epoch, node) };
                put(keys::room_record(reign, base, state))
            }
            // The record is not known yet: it is read.
            Goal::SwapRoom { .. } if self.seen == 0 => Vec::new(),
            Goal::SwapRoom { epoch, term, primary } => {
                // A node whose own record is gone counts as dead, and must not lead.
                compares.push(Compare::leased(keys::node_key(node), node_lease));
                let (term, backup) = (term.saturating_add(1), Some(primary));
                let reign = Reign { term, backup, ..Reign::first(epoch, node) };
                put(keys::room_record(reign, base, self.state))
            }
            Goal::Drop { .. } if self.seen == 0 => Vec::new(),
            Goal::Drop { .. } => vec![RegistryOp::Delete(Delete::of(Span::one(key.clone())))],
        };
        Txn { compares, success, failure }
    }

    /// Returns the meaning of the answer to the last request. Counts unreadable records in `garbage`.
    pub(super) fn conclude(
        &mut self,
        subject: &Subject,
        asker: Asker,
        response: &Response,
        lives: impl Fn(NodeId) -> bool,
        garbage: &mut u64,
    ) -> ClaimAnswer {
        let Answer::Txn { succeeded, answers } = &response.answer else { return ClaimAnswer::Garbled };
        if *succeeded {
            return self.done(response.revision, asker);
        }
        let mut found = answers.iter().map(|answer| match answer {
            Answer::Range { kvs, .. } => Some(kvs.first()),
            _ => None,
        });
        let Some(Some(kv)) = found.next() else { return ClaimAnswer::Garbled };
        let dead = match self.dead {
            Some(node) => match found.next() {
                Some(Some(record)) => Some((node, record.is_none())),
                _ => return ClaimAnswer::Garbled,
            },
            None => None,
        };
        let lives = |node| {
            dead.map_or_else(|| lives(node), |(d, is_dead)| if d == node { !is_dead } else { lives(node) })
        };
        let owner = kv.and_then(|kv| subject.owner(kv));
        if kv.is_some() && owner.is_none() {
            *garbage += 1;
        }
        self.judge_record(asker, kv, owner, lives)
    }

    /// Handles a comparison that held.
    fn done(&self, revision: u64, asker: Asker) -> ClaimAnswer {
        let claimed = asker.generation.base.saturating_add(revision);
        let (session, dial) = (self.session, self.dial());
        let session = Held { epoch: claimed, term: 0, backup: None, modified: revision, session, dial };
        ClaimAnswer::Ours(match self.goal {
            Goal::TakeSession { .. } => session,
            Goal::KeepSession { .. } if self.epoch == 0 => session,
            Goal::KeepSession { .. } => Held { epoch: self.epoch, ..session },
            Goal::TakeRoom => Held { term: FIRST_TERM, ..session },
            Goal::CheckRoom { epoch, term, backup } => {
                Held { epoch, term, backup, modified: self.seen, ..session }
            }
            Goal::WriteRoom { epoch, term, backup, .. } => Held { epoch, term, backup, ..session },
            Goal::SwapRoom { .. } if self.seen == 0 => return ClaimAnswer::Gone,
            Goal::SwapRoom { epoch, term, primary } => {
                Held { epoch, term: term.saturating_add(1), backup: Some(primary), ..session }
            }
            Goal::Drop { .. } => return ClaimAnswer::Gone,
        })
    }

    /// Handles a comparison that did not hold, with the record found.
    fn judge_record(
        &mut self,
        asker: Asker,
        kv: Option<&KeyValue>,
        owner: Option<Owner>,
        lives: impl Fn(NodeId) -> bool,
    ) -> ClaimAnswer {
        self.dead = None;
        self.epoch = 0;
        let Some(kv) = kv else {
            self.seen = 0;
            return match self.goal {
                Goal::TakeSession { fresh, .. } => {
                    self.session = fresh;
                    ClaimAnswer::Again
                }
                Goal::KeepSession { .. } | Goal::TakeRoom => ClaimAnswer::Again,
                Goal::CheckRoom { .. } | Goal::WriteRoom { .. } => ClaimAnswer::Gone,
                Goal::SwapRoom { .. } | Goal::Drop { .. } => ClaimAnswer::Gone,
            };
        };
        self.seen = kv.modified;
        let ours = owner.filter(|owner| owner.node == asker.node);
        // An earlier request of this attempt wrote the record, so the attempt is over. Or a late request of
        // an abandoned attempt wrote the record; nobody knows that epoch. A record from before the attempt
        // cannot be here: the comparison with its revision failed.
        if let Some(owner) = ours
            && kv.lease == Some(asker.lease)
            && self.is_own_result(owner, asker.generation.base)
        {
            self.session = owner.session.unwrap_or(self.session);
            return self.ours(owner);
        }
        let others = owner.filter(|owner| owner.node != asker.node);
        match (self.goal, ours, others) {
            (Goal::TakeSession { dial, .. }, _, Some(owner))
                if dial.is_behind(owner.dial) && !asker.planted.is(Plant::DialUncompared) =>
            {
                ClaimAnswer::Superseded
            }
            (Goal::TakeSession { named, fresh, .. }, ..) => {
                let session = owner.and_then(|owner| owner.session);
                self.choose_session(named, fresh, owner.map(|owner| owner.node), session);
                ClaimAnswer::Again
            }
            // With a lower epoch, the store has gone back.
            (Goal::KeepSession { dial, epoch, .. }, _, Some(owner))
                if owner.dial.is_behind(dial)
                    && owner.epoch > epoch
                    && !asker.planted.is(Plant::KeepOverridden) =>
            {
                self.overrides = true;
                ClaimAnswer::Again
            }
            (Goal::KeepSession { session, epoch, .. }, Some(owner), _) => {
                // An own record with another session comes from a claim that was to be undone.
                let is_current = owner.claimed.is_none_or(|base| base == asker.generation.base);
                let keeps = owner.session == Some(session) && (is_current || owner.epoch == epoch);
                self.epoch = if keeps { owner.epoch } else { 0 };
                ClaimAnswer::Again
            }
            (Goal::TakeRoom, _, Some(owner)) if owner.backup.is_none() && !lives(owner.node) => {
                self.dead = Some(owner.node);
                ClaimAnswer::Again
            }
            // A late swap, which this node has given up. The former primary has the room, if that node lives.
            (Goal::TakeRoom, Some(owner), _) if owner.backup.is_some_and(&lives) => {
                ClaimAnswer::Others(owner)
            }
            (Goal::TakeRoom, Some(owner), _) => {
                self.dead = owner.backup;
                ClaimAnswer::Again
            }
            (Goal::CheckRoom { epoch, term, .. }, Some(owner), _) if owner.is_of(epoch, term) => {
                self.ours(owner)
            }
            (Goal::WriteRoom { epoch, term, .. }, Some(owner), _) if owner.is_of(epoch, term) => {
                ClaimAnswer::Again
            }
            (Goal::CheckRoom { epoch, term, .. } | Goal::WriteRoom { epoch, term, .. }, _, Some(owner))
                if owner.epoch == epoch && owner.term > term =>
            {
                ClaimAnswer::Deposed(owner)
            }
            (Goal::CheckRoom { .. } | Goal::WriteRoom { .. }, Some(owner), _) => ClaimAnswer::Others(owner),
            (Goal::SwapRoom { epoch, term, primary }, _, Some(owner))
                if owner.is_of(epoch, term) && owner.node == primary && owner.backup == Some(asker.node) =>
            {
                self.state = owner.state;
                ClaimAnswer::Again
            }
            (Goal::SwapRoom { .. }, Some(owner), _) => ClaimAnswer::Others(owner),
            (Goal::Drop { held }, Some(owner), _) => {
                let is_held = held.is_some_and(|(epoch, term)| owner.is_of(epoch, term));
                match owner.backup.filter(|_| !is_held) {
                    Some(backup) if lives(backup) => ClaimAnswer::Gone,
                    dead => {
                        self.dead = dead;
                        ClaimAnswer::Again
                    }
                }
            }
            (Goal::Drop { .. }, ..) => ClaimAnswer::Gone,
            (_, _, Some(owner)) => ClaimAnswer::Others(owner),
            // An earlier record of this node, or an unreadable record: overwritten if unchanged.
            (Goal::KeepSession { .. } | Goal::TakeRoom, ..) => ClaimAnswer::Again,
            (Goal::CheckRoom { .. } | Goal::WriteRoom { .. } | Goal::SwapRoom { .. }, ..) => {
                ClaimAnswer::Gone
            }
        }
    }

    /// Returns the ownership that a record of this node tells of.
    const fn ours(&self, owner: Owner) -> ClaimAnswer {
        let Owner { epoch, term, backup, modified, .. } = owner;
        ClaimAnswer::Ours(Held { epoch, term, backup, modified, session: self.session, dial: self.dial() })
    }

    /// Returns the connection for which the session is claimed or kept.
    const fn dial(&self) -> DialNumber {
        match self.goal {
            Goal::TakeSession { dial, .. } | Goal::KeepSession { dial, .. } => dial,
            _ => DialNumber { client: 0, dial: 0 },
        }
    }

    /// Returns true if a record of this node can be the result of this attempt.
    fn is_own_result(&self, owner: Owner, base: u64) -> bool {
        // A claim with an earlier base is made again: its epoch may have been given before.
        let claimed = owner.claimed == Some(base);
        match self.goal {
            Goal::TakeSession { named, fresh, dial } => {
                let session = owner.session.is_some_and(|id| id == fresh || Some(id) == named);
                claimed && session && owner.dial == dial
            }
            Goal::KeepSession { session, epoch, .. } => {
                let is_current = claimed || owner.claimed.is_none() || owner.epoch == epoch;
                is_current && owner.session == Some(session)
            }
            Goal::TakeRoom => claimed,
            Goal::WriteRoom { epoch, term, backup, state } => {
                owner.is_of(epoch, term) && (owner.backup, owner.state) == (backup, state)
            }
            Goal::SwapRoom { epoch, term, primary } => {
                owner.is_of(epoch, term.saturating_add(1)) && owner.backup == Some(primary)
            }
            Goal::CheckRoom { .. } | Goal::Drop { .. } => false,
        }
    }

    /// Selects the session to write: the present one if the claim names it, otherwise a fresh one.
    fn choose_session(
        &mut self,
        named: Option<SessionId>,
        fresh: SessionId,
        owner: Option<NodeId>,
        present: Option<SessionId>,
    ) {
        self.session = present.filter(|session| named == Some(*session)).unwrap_or(fresh);
        self.previous = owner;
    }

    /// Returns true if the session to write is the one that the claim named.
    pub(super) fn is_resumed(&self) -> bool {
        matches!(self.goal, Goal::TakeSession { named: Some(named), .. } if named == self.session)
    }
}
