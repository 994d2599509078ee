//! Inputs of a room, in the order in which they are applied.
//!
//! Every change of a room's members, of their messages or of its turn is an op. Ops have numbers
//! from 1 on, within the room's epoch, and times that never go back: the room's log time. An op is
//! *appended* by the room's primary, *committed* once it cannot be lost any more, and then
//! *applied* by the [machine](super::machine). A lone primary commits an op as soon as it appends
//! it. An op also names the *term* in which it was appended: the term grows when another node
//! becomes the primary in the same epoch.

use alloc::string::String;

use bytes::Bytes;

use super::machine::Seat;
use crate::base::id::Name;

/// Numbered change of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Number of the op, from 1 in the room's epoch.
    pub number: u64,
    /// Term in which the op was appended.
    pub term: u32,
    /// Log time of the op, Unix milliseconds: the wall clock of the primary that appended it,
    /// or the time of the op before if that clock went back.
    pub at_ms: u64,
    /// The input.
    pub input: Input,
}

/// An input of a room's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A reliable message of a member.
    Say {
        /// Number of the member.
        member: u32,
        /// Number of the message, from 1 in the member's life.
        client_seq: u64,
        /// Payload of the message.
        body: Bytes,
        /// Type of the payload.
        type_url: String,
        /// Number of the turn that the message is to end. Ignored unless that is the current turn.
        ends_turn: Option<u32>,
    },
    /// A player becomes a member.
    Join {
        /// The player.
        player: Name,
        /// Session of the player.
        seat: Seat,
    },
    /// A member leaves.
    Leave {
        /// Number of the member.
        member: u32,
    },
    /// The session of a member is registered with a higher epoch: it has moved to another node,
    /// or was claimed anew. Makes no entry.
    Seat {
        /// Number of the member.
        member: u32,
        /// Session with the new epoch.
        seat: Seat,
    },
    /// The deadline of a turn has passed. Makes no entry if that turn has ended.
    EndTurn {
        /// Number of the turn.
        turn: u32,
    },
}

impl Input {
    /// Returns the number of bytes that the entry takes from the input.
    pub(super) fn content(&self) -> usize {
        match self {
            Self::Say { body, type_url, .. } => body.len() + type_url.len(),
            Self::Join { player, .. } => player.as_str().len(),
            Self::Leave { .. } | Self::Seat { .. } | Self::EndTurn { .. } => 0,
        }
    }
}
