//! The protocol of one key: what is asked of the registry about a session or a room, and
//! what its answers mean. A function of what was seen and what is answered; it knows no
//! time and no queue.
//!
//! Every request is a transaction that does its work only if the record still is what was
//! seen last, and reads it otherwise. So it can be sent again whenever there is no answer,
//! and whatever came of the earlier ones is read from the record.

use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::generation::{KnownKey, guard};
use super::keys::{self, Owner, RoomState, Subject};
use crate::base::id::{NodeId, SessionId};
use crate::registry::{
    Answer, Compare, Delete, KeyValue, LeaseId, Put, Range, RegistryOp, Request, Response, Span, Txn,
};

/// What a node wants of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// To have the player's session, whoever has it now; the session `named` goes on if
    /// that is the one there is.
    TakeSession { named: Option<SessionId>, fresh: SessionId },
    /// To go on having a session.
    KeepSession { session: SessionId, epoch: u64 },
    /// To be the room's primary, unless another node is that lives.
    TakeRoom,
    /// To know whether it still is the room's primary.
    CheckRoom { epoch: u64 },
    /// To write what is new in the room.
    WriteRoom { epoch: u64, state: RoomState },
    /// To have nothing there.
    Drop,
}

/// An attempt to reach a goal; as many requests as it takes.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) goal: Goal,
    /// The revision that last wrote the record, as far as is known; 0: there is none.
    seen: u64,
    /// What is put: the session, and the epoch (0: the revision of the write).
    session: SessionId,
    epoch: u64,
    /// The primary of the record that was seen, which does not live: that must hold too.
    dead: Option<NodeId>,
    /// The node that the session was taken from.
    pub(super) previous: Option<NodeId>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimAnswer {
    /// Nothing yet: the record is not what it was taken for. Ask again.
    Again,
    /// The record is ours.
    Ours { epoch: u64, modified: u64 },
    /// It is another node's.
    Others { node: NodeId, epoch: u64 },
    /// It is not there, or not ours, and that is what was wanted or cannot be helped.
    Gone,
    /// The answer answers something else.
    Garbled,
}

/// Who asks, and with which lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) node: NodeId,
    pub(super) lease: LeaseId,
    pub(super) generation: KnownKey,
}

impl Attempt {
    /// An attempt that knows nothing of the record yet, and so takes it for absent.
    pub(super) fn new(goal: Goal) -> Self {
        let session = match goal {
            Goal::TakeSession { fresh, .. } => fresh,
            Goal::KeepSession { session, .. } => session,
            _ => SessionId([0; 16]),
        };
        Self { goal, seen: 0, session, epoch: 0, dead: None, previous: None }
    }

    /// An attempt on a record that is ours, last written at this revision.
    pub(super) fn held(goal: Goal, me: NodeId, session: SessionId, modified: u64) -> Self {
        let mut attempt = Self { seen: modified, ..Self::new(goal) };
        match goal {
            Goal::TakeSession { .. } => attempt.succeed(Some(me), Some(session)),
            Goal::KeepSession { epoch, .. } | Goal::WriteRoom { epoch, .. } => attempt.epoch = epoch,
            Goal::TakeRoom | Goal::CheckRoom { .. } | Goal::Drop => {}
        }
        attempt
    }

    /// The session that is put, or was.
    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    /// Puts something new in the way: what a room's record is to say.
    pub(super) fn set_state(&mut self, new: RoomState) {
        if let Goal::WriteRoom { state, .. } = &mut self.goal {
            *state = new;
        }
    }

    /// The transaction to send.
    pub(super) fn request(&self, subject: &Subject, asker: Asker) -> Request {
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
        let base = asker.generation.base;
        let success = match self.goal {
            Goal::TakeSession { .. } => put(keys::session_record(self.session, asker.node, 0, base)),
            Goal::KeepSession { .. } => put(keys::session_record(self.session, asker.node, self.epoch, base)),
            Goal::TakeRoom => put(keys::room_record(asker.node, 0, base, RoomState::OPENED)),
            Goal::CheckRoom { .. } => Vec::new(),
            Goal::WriteRoom { epoch, state } => put(keys::room_record(asker.node, epoch, base, state)),
            Goal::Drop if self.seen == 0 => Vec::new(),
            Goal::Drop => vec![RegistryOp::Delete(Delete::of(Span::one(key.clone())))],
        };
        Request::Txn(Txn { compares, success, failure })
    }

    /// What the answer to the last request means. Records that cannot be read are counted.
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
            return self.done(response.revision, asker.generation.base);
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
        self.look(asker, kv, owner, lives)
    }

    /// The comparison held.
    fn done(&self, revision: u64, base: u64) -> ClaimAnswer {
        let claimed = base.saturating_add(revision);
        match self.goal {
            Goal::TakeSession { .. } | Goal::TakeRoom => {
                ClaimAnswer::Ours { epoch: claimed, modified: revision }
            }
            Goal::KeepSession { .. } => {
                let epoch = if self.epoch == 0 { claimed } else { self.epoch };
                ClaimAnswer::Ours { epoch, modified: revision }
            }
            Goal::CheckRoom { epoch } => ClaimAnswer::Ours { epoch, modified: self.seen },
            Goal::WriteRoom { epoch, .. } => ClaimAnswer::Ours { epoch, modified: revision },
            Goal::Drop => ClaimAnswer::Gone,
        }
    }

    /// The comparison did not hold; this is what is there.
    fn look(
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
                Goal::CheckRoom { .. } | Goal::WriteRoom { .. } | Goal::Drop => ClaimAnswer::Gone,
            };
        };
        self.seen = kv.modified;
        let ours = owner.filter(|owner| owner.node == asker.node);
        // What an earlier request of this attempt has put: the attempt is over. Or one of
        // an attempt that was given up and is done late; nobody was told of its epoch. What
        // was held before is not taken for it: that is what the comparison was with.
        if let Some(owner) = ours
            && kv.lease == Some(asker.lease)
            && self.is_fruit(owner, asker.generation.base)
        {
            self.session = owner.session.unwrap_or(self.session);
            return ClaimAnswer::Ours { epoch: owner.epoch, modified: kv.modified };
        }
        let others = owner.filter(|owner| owner.node != asker.node);
        match (self.goal, ours, others) {
            (Goal::TakeSession { .. }, ..) => {
                self.succeed(owner.map(|owner| owner.node), owner.and_then(|owner| owner.session));
                ClaimAnswer::Again
            }
            (Goal::KeepSession { session, epoch }, Some(owner), _) => {
                // Another session of ours is one that was to be undone.
                let is_current = owner.claimed.is_none_or(|base| base == asker.generation.base);
                let keeps = owner.session == Some(session) && (is_current || owner.epoch == epoch);
                self.epoch = if keeps { owner.epoch } else { 0 };
                ClaimAnswer::Again
            }
            (Goal::TakeRoom, _, Some(owner)) if !lives(owner.node) => {
                self.dead = Some(owner.node);
                ClaimAnswer::Again
            }
            (Goal::CheckRoom { epoch } | Goal::WriteRoom { epoch, .. }, Some(owner), _) => {
                if owner.epoch != epoch {
                    ClaimAnswer::Others { node: owner.node, epoch: owner.epoch }
                } else if matches!(self.goal, Goal::CheckRoom { .. }) {
                    ClaimAnswer::Ours { epoch, modified: kv.modified }
                } else {
                    ClaimAnswer::Again
                }
            }
            (Goal::Drop, Some(_), _) => ClaimAnswer::Again,
            (
                Goal::KeepSession { .. } | Goal::TakeRoom | Goal::CheckRoom { .. } | Goal::WriteRoom { .. },
                _,
                Some(owner),
            ) => ClaimAnswer::Others { node: owner.node, epoch: owner.epoch },
            // Ours from before, or what nobody can read: written over, if it still is that.
            (Goal::KeepSession { .. } | Goal::TakeRoom, ..) => ClaimAnswer::Again,
            (Goal::CheckRoom { .. } | Goal::WriteRoom { .. } | Goal::Drop, ..) => ClaimAnswer::Gone,
        }
    }

    /// Whether a record of ours can be what this attempt has put.
    fn is_fruit(&self, owner: Owner, base: u64) -> bool {
        // A claim with a base from before is made again: its epoch may have been given before.
        let claimed = owner.claimed == Some(base);
        match self.goal {
            Goal::TakeSession { named, fresh } => {
                claimed && owner.session.is_some_and(|id| id == fresh || Some(id) == named)
            }
            Goal::KeepSession { session, epoch } => {
                let is_current = claimed || owner.claimed.is_none() || owner.epoch == epoch;
                is_current && owner.session == Some(session)
            }
            Goal::TakeRoom => claimed,
            Goal::CheckRoom { .. } | Goal::WriteRoom { .. } | Goal::Drop => false,
        }
    }

    /// The session there is goes on if it is the one that is named; else a fresh one
    /// takes its place.
    fn succeed(&mut self, owner: Option<NodeId>, session: Option<SessionId>) {
        if let Goal::TakeSession { named, fresh } = self.goal {
            self.session = session.filter(|session| named == Some(*session)).unwrap_or(fresh);
            self.previous = owner;
        }
    }

    /// Whether the session that is put is the one that was named.
    pub(super) fn is_resumed(&self) -> bool {
        matches!(self.goal, Goal::TakeSession { named: Some(named), .. } if named == self.session)
    }
}
