//! A room while the registry is asked for its primary.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::common::Common;
use super::{Context, Effect, Input, Next};
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::wire::RoomMessage;

/// State of a room that is being claimed.
#[derive(Debug, Default)]
pub(crate) struct Claiming {
    /// `Attach` messages that came meanwhile: one for each link.
    early: Vec<EarlyAttach>,
    /// Time at which the registry is to be asked; `None`: it is asked.
    ask_at: Option<Instant>,
}

/// An `Attach` that came before the registry had named the primary.
#[derive(Clone, Debug)]
pub(crate) struct EarlyAttach {
    pub(crate) link: Key,
    pub(crate) attach: v1::Attach,
}

impl Claiming {
    /// A claim that is made at a time.
    pub(super) const fn at(ask_at: Instant) -> Self {
        Self { early: Vec::new(), ask_at: Some(ask_at) }
    }

    /// Number of `Attach` messages that are kept.
    pub(crate) const fn early(&self) -> usize {
        self.early.len()
    }

    /// Time at which the registry is to be asked.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Ends the role: the messages are to be answered.
    pub(super) fn finish(self) -> Vec<EarlyAttach> {
        self.early
    }

    /// Asks the registry, if it is time.
    pub(super) fn ask(&mut self, common: &Common, cx: &mut Context<'_>) {
        if self.ask_at.is_some_and(|at| at <= cx.now.instant) {
            self.ask_at = None;
            common.emit(cx, Effect::Claim);
        }
    }

    pub(super) fn handle(&mut self, common: &mut Common, cx: &mut Context<'_>, input: Input) -> Next {
        match input {
            Input::Depart { session, .. } => drop(common.depart(cx, session)),
            Input::Led { epoch } => return Next::Lead { epoch },
            Input::LedBy { node, epoch } => return Next::Follow { node, epoch },
            Input::Unavailable => return Next::Close(v1::LeftReason::Gone),
            Input::Unclaimed => return Next::Close(v1::LeftReason::Limit),
            Input::Close(reason) => return Next::Close(reason),
            Input::Unlinked { link, .. } => self.early.retain(|early| early.link != link),
            Input::From { link, message, .. } => self.take(common, cx, link, message),
            Input::Timeout => self.ask(common, cx),
            // Every session waits for the registry, and there is no primary yet.
            Input::Arrive(_)
            | Input::Redirect { .. }
            | Input::Epoch { .. }
            | Input::Presence { .. }
            | Input::Lost
            | Input::PrimaryGone
            | Input::Linked { .. }
            | Input::PlacesKnown
            | Input::Leased => {}
        }
        Next::Stay
    }

    fn take(&mut self, common: &Common, cx: &mut Context<'_>, link: Key, message: RoomMessage) {
        match message {
            RoomMessage::Attach(attach) if !cx.planted.is(Plant::JoinRaceTold) => {
                self.early.retain(|kept| kept.link != link);
                self.early.push(EarlyAttach { link, attach });
                common.emit(cx, Effect::Read { link });
            }
            RoomMessage::Detach(_) => {
                self.early.retain(|early| early.link != link);
                common.emit(cx, Effect::Unread { link });
            }
            RoomMessage::Attach(v1::Attach { epoch, .. })
            | RoomMessage::Enter(v1::Enter { epoch, .. })
            | RoomMessage::Relay(v1::Relay { epoch, .. }) => common.refuse_epoch(cx, link, epoch),
            // Late: about an earlier life of the room.
            RoomMessage::Attached(_)
            | RoomMessage::Entered(_)
            | RoomMessage::Hold(_)
            | RoomMessage::Exit(_)
            | RoomMessage::Exited(_)
            | RoomMessage::Entry(..)
            | RoomMessage::Latest(..)
            | RoomMessage::State(_) => {}
        }
    }
}
