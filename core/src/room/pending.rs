//! Ops that are appended and not committed yet, and the room as it will be once they are applied.
//!
//! The primary checks an op before it appends it. The check looks through the applied state at the
//! ops behind it: a member's next message follows the last one appended, not the last one applied.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use skirmish_proto::v1;

use super::machine::{Machine, Seat};
use super::op::{Input, Op};
use crate::base::id::Name;

/// Ops of a room that are appended and not committed yet, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingOps {
    /// Kept apart, since a lone primary has one op at most, and rooms without ops take no space.
    oldest: Option<PendingOp>,
    /// The ops behind the oldest.
    others: VecDeque<PendingOp>,
}

/// An op, with the metadata of the entry that it will make. Most entries have none.
#[derive(Clone, Debug)]
pub(super) struct PendingOp {
    pub(super) op: Op,
    pub(super) metadata: Option<Box<v1::Metadata>>,
}

/// A member of a room as it will be once all ops are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutureMember<'a> {
    /// Number of the member.
    pub number: u32,
    /// The player.
    pub player: &'a Name,
    /// Session of the player.
    pub seat: Seat,
    /// Highest `client_seq` appended.
    pub client_seq: u64,
}

impl PendingOps {
    pub(super) fn len(&self) -> usize {
        self.others.len() + usize::from(self.oldest.is_some())
    }

    /// Returns the number of bytes that each entry will take from its op.
    pub(super) fn contents(&self) -> impl Iterator<Item = usize> {
        self.inputs().map(Input::content)
    }

    /// Returns the log time of the newest op.
    pub(super) fn newest_ms(&self) -> Option<u64> {
        self.others.back().or(self.oldest.as_ref()).map(|pending| pending.op.at_ms)
    }

    /// Returns true if the end of a turn by its deadline is among the ops.
    pub(super) fn ends_turn(&self) -> bool {
        self.inputs().any(|input| matches!(input, Input::EndTurn { .. }))
    }

    pub(super) fn push(&mut self, pending: PendingOp) {
        if self.oldest.is_none() {
            self.oldest = Some(pending);
        } else {
            self.others.push_back(pending);
        }
    }

    /// Takes out the oldest op.
    pub(super) fn pop(&mut self) -> Option<PendingOp> {
        let oldest = self.oldest.take();
        self.oldest = self.others.pop_front();
        if self.others.is_empty() && self.others.capacity() > 0 {
            self.others = VecDeque::new();
        }
        oldest
    }

    /// Returns the ops, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PendingOp> {
        self.oldest.iter().chain(&self.others)
    }

    /// Drops all ops.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Drops the op of a number, and all ops behind it.
    pub(super) fn truncate_from(&mut self, number: u64) {
        self.others.retain(|pending| pending.op.number < number);
        self.oldest = self.oldest.take().filter(|pending| pending.op.number < number);
    }

    fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.iter().map(|pending| &pending.op.input)
    }

    /// Returns a member as it will be.
    pub(super) fn member<'a>(&'a self, machine: &'a Machine, number: u32) -> Option<FutureMember<'a>> {
        let known = machine.member(number).map(|member| FutureMember {
            number,
            player: &member.player,
            seat: member.seat,
            client_seq: member.client_seq,
        });
        if self.oldest.is_none() {
            return known;
        }
        let mut next = machine.next_member();
        self.inputs().fold(known, |known, input| {
            let joins = matches!(input, Input::Join { .. });
            let is_new = joins && next == number;
            next += u32::from(joins);
            match (known, input) {
                (_, Input::Join { player, seat }) if is_new => {
                    Some(FutureMember { number, player, seat: *seat, client_seq: 0 })
                }
                (Some(_), Input::Leave { member }) if *member == number => None,
                (Some(known), Input::Seat { member, seat }) if *member == number => {
                    Some(FutureMember { seat: *seat, ..known })
                }
                (Some(known), Input::Say { member, client_seq, .. }) if *member == number => {
                    Some(FutureMember { client_seq: *client_seq, ..known })
                }
                (known, _) => known,
            }
        })
    }

    /// Returns the members as they will be, by number.
    pub(super) fn members<'a>(&'a self, machine: &'a Machine) -> impl Iterator<Item = FutureMember<'a>> {
        let first = machine.next_member();
        let known = machine.members().iter().map(|member| member.number);
        let joins = self.inputs().filter(|input| matches!(input, Input::Join { .. }));
        let new = joins.zip(first..).map(|(_, number)| number);
        known.chain(new).filter_map(|number| self.member(machine, number))
    }

    /// Returns the number of the next player that joins.
    pub(super) fn next_member(&self, machine: &Machine) -> u32 {
        let joins = self.inputs().filter(|input| matches!(input, Input::Join { .. })).count();
        machine.next_member().saturating_add(u32::try_from(joins).unwrap_or(u32::MAX))
    }
}
