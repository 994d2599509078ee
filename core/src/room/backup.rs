//! The room as its backup has it: ops are stored, and applied once the primary says so.
//!
//! A backup begins with the state of the primary after an op ([`Room::install`]), and stores the ops
//! behind it ([`Room::store`]). They are pending, as at the primary: a backup that takes over has them
//! already, and appends behind them. A backup never drops an op that it has stored, unless the primary
//! of a later term has another one in its place.

use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::machine::{Machine, Member, Seat};
use super::op_message::MalformedOp;
use super::pending::PendingOp;
use super::turn::Turn;
use super::{RecentlyLeft, Room};
use crate::base::id::{Name, SessionId};
use crate::base::time::{Duration, Now};

/// Result of storing an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpStored {
    /// The op is stored.
    Stored,
    /// The op is applied already.
    Applied,
    /// Ops before this one are missing.
    Gap,
}

/// Place in the sequence of applied ops, with the digest of everything up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpMark {
    /// Number of the op.
    pub number: u64,
    /// Digest of the entries up to that op; 0 while the room has no replica.
    pub digest: u64,
}

/// Returns the digest of the entries up to an op.
pub(super) fn chain(digest: u64, number: u64, frame: &[u8]) -> u64 {
    // 0 stands for a room without a replica.
    xxh3_64_with_seed(frame, digest ^ number).max(1)
}

impl Room {
    // Getters.

    /// Returns the term in which ops are appended.
    #[must_use]
    pub const fn term(&self) -> u32 {
        self.term
    }

    /// Returns the last op whose entry members may read, with the digest of everything up to there.
    #[must_use]
    pub const fn released_op(&self) -> OpMark {
        self.released_op
    }

    /// Returns the last op that is applied, with the digest of everything up to there.
    #[must_use]
    pub const fn applied_op(&self) -> OpMark {
        OpMark { number: self.machine.applied(), digest: self.digest }
    }

    /// Returns the ops behind an op that are not applied yet, as messages.
    pub fn ops_after(&self, number: u64) -> impl Iterator<Item = v1::Op> {
        self.pending.iter().filter(move |pending| pending.op.number > number).map(PendingOp::to_message)
    }

    /// Returns the number of ops that are appended or stored, and not applied.
    #[must_use]
    pub fn pending_ops(&self) -> usize {
        self.pending.len()
    }

    /// Returns the terms of the ops that are not applied yet, in runs of one term each.
    #[must_use]
    pub fn runs(&self) -> Vec<v1::OpRun> {
        let mut runs: Vec<v1::OpRun> = Vec::new();
        for pending in self.pending.iter() {
            let (term, last) = (pending.op.term, pending.op.number);
            match runs.last_mut().filter(|run| run.term == term) {
                Some(run) => run.last = last,
                None => runs.push(v1::OpRun { term, last }),
            }
        }
        runs
    }

    // Inputs.

    /// Begins a term in which this node is the primary. Versions of latest messages and the deadline of
    /// the turn go on from where the primary before may have been.
    pub fn lead(&mut self, now: Now, term: u32) {
        self.term = term;
        self.latest.begin_term(term);
        self.set_turn_deadline(now);
    }

    fn set_turn_deadline(&mut self, now: Now) {
        let ends_ms = Some(self.turn().ends_ms).filter(|ends_ms| *ends_ms > 0);
        let lasts = ends_ms.map(|ends_ms| Duration::from_millis(ends_ms.saturating_sub(now.wall.0)));
        self.turn_ends_at = lasts.map(|lasts| now.instant + lasts);
    }

    /// Begins to make the digest of the entries.
    pub fn begin_digest(&mut self) {
        if self.digest == 0 {
            self.digest = chain(self.epoch, self.machine.applied(), &[]);
            self.released_op.digest = self.digest;
        }
    }

    /// Drops the ops that are stored and not applied: this node is no backup any more.
    pub fn end_backup(&mut self) {
        self.pending.clear();
        self.end_digest();
    }

    /// Ends the digest: the room has no replica.
    pub fn end_digest(&mut self) {
        (self.digest, self.released_op.digest) = (0, 0);
    }

    /// Returns the state for a new backup that has all entries. No op may be pending, and no entry
    /// unreleased.
    #[must_use]
    pub fn installed(&self) -> v1::Install {
        let member = |member: &Member| v1::InstalledMember {
            member: member.number,
            player: member.player.as_str().into(),
            session: Bytes::copy_from_slice(member.seat.session.as_bytes()),
            session_epoch: member.seat.epoch,
            client_seq: member.client_seq,
        };
        v1::Install {
            room: self.name.as_str().into(),
            epoch: self.epoch,
            term: self.term,
            applied: self.machine.applied(),
            at_ms: self.machine.log_time(0),
            seq: self.log.head(),
            members: self.members().iter().map(member).collect(),
            next_member: self.machine.next_member(),
            turn: self.turn().number,
            turn_ends_ms: self.turn().ends_ms,
            left: self.recently_left().to_messages(),
            digest: self.digest,
        }
    }

    /// Takes the state of the room's primary. The log must have all entries up to then.
    ///
    /// # Errors
    /// [`MalformedOp`]; then nothing has changed.
    pub fn install(&mut self, now: Now, install: v1::Install) -> Result<(), MalformedOp> {
        let v1::Install { applied, at_ms, members, next_member, turn, turn_ends_ms, left, digest, .. } =
            install;
        let member = |member: v1::InstalledMember| {
            let session = SessionId::from_wire(&member.session).ok_or(MalformedOp)?;
            let player = Name::new(&member.player).map_err(|_| MalformedOp)?;
            let seat = Seat { session, epoch: member.session_epoch };
            Ok(Member { number: member.member, player, seat, client_seq: member.client_seq })
        };
        let members: Vec<Member> = members.into_iter().map(member).collect::<Result<_, _>>()?;
        if !members.is_sorted_by(|one, next| one.number < next.number)
            || members.last().is_some_and(|last| last.number >= next_member)
        {
            return Err(MalformedOp);
        }
        let left = RecentlyLeft::from_messages(self.recently_left(), left)?;
        let turn = Turn { number: turn, ends_ms: turn_ends_ms };
        self.machine.install(applied, at_ms, members, next_member, turn, left);
        self.pending.clear();
        self.digest = digest;
        self.released_op = OpMark { number: applied, digest };
        self.set_turn_deadline(now);
        Ok(())
    }

    /// Stores an op of the room's primary. Another op with the same number, and all ops behind that,
    /// are dropped.
    ///
    /// # Errors
    /// [`MalformedOp`]; then nothing has changed.
    pub fn store(&mut self, message: v1::Op) -> Result<OpStored, MalformedOp> {
        let number = message.number;
        if number <= self.machine.applied() {
            return Ok(OpStored::Applied);
        }
        if number > self.appended() + 1 {
            return Ok(OpStored::Gap);
        }
        let known = self.pending.iter().find(|pending| pending.op.number == number);
        if known.is_some_and(|known| known.op.term == message.term) {
            return Ok(OpStored::Stored);
        }
        let op = PendingOp::from_message(message)?;
        self.pending.truncate_from(number);
        self.pending.push(op);
        Ok(OpStored::Stored)
    }
}

impl Machine {
    /// Takes the state after an op.
    pub(super) fn install(
        &mut self,
        number: u64,
        at_ms: u64,
        members: Vec<Member>,
        next_member: u32,
        turn: Turn,
        left: RecentlyLeft,
    ) {
        self.applied = (number, at_ms);
        self.members = members;
        self.next_member = next_member;
        self.turn = turn;
        self.recently_left = left;
    }
}
