//! A room while the registry is asked for its primary.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::common::Common;
use super::{NextRole, RoomContext, RoomEffect, RoomInput};
use crate::base::id::NodeId;
use crate::base::plant::Plant;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::wire::RoomMessage;

/// State of a room that is being claimed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claiming {
    /// `Attach` messages that came meanwhile: one for each link.
    early: Vec<EarlyAttach>,
    /// Time of the next request to the registry; `None` while a request is open.
    ask_at: Option<Instant>,
}

/// An `Attach` that came before the registry had named the primary.
#[derive(Clone, Debug)]
pub(crate) struct EarlyAttach {
    pub(crate) link: Key,
    pub(crate) node: NodeId,
    pub(crate) attach: v1::Attach,
}

impl Claiming {
    /// Creates a claim that asks the registry at a time.
    pub(super) const fn at(ask_at: Instant) -> Self {
        Self { early: Vec::new(), ask_at: Some(ask_at) }
    }

    /// Number of `Attach` messages that are kept.
    pub(crate) const fn early(&self) -> usize {
        self.early.len()
    }

    /// Returns true if an `Attach` came over a link.
    pub(super) fn reads(&self, link: Key) -> bool {
        self.early.iter().any(|early| early.link == link)
    }

    /// Returns the time of the next request to the registry.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.ask_at
    }

    /// Ends the role: the messages are to be answered.
    pub(super) fn finish(self) -> Vec<EarlyAttach> {
        self.early
    }

    /// Asks the registry, if it is time.
    pub(super) fn ask(&mut self, common: &Common, cx: &mut RoomContext<'_>) {
        if self.ask_at.is_some_and(|at| at <= cx.now.instant) {
            self.ask_at = None;
            common.emit(cx, RoomEffect::Claim);
        }
    }

    pub(super) fn handle(
        &mut self,
        common: &mut Common,
        cx: &mut RoomContext<'_>,
        input: RoomInput,
    ) -> NextRole {
        match input {
            RoomInput::Depart { session, .. } => drop(common.depart(cx, session)),
            RoomInput::Led(reign) if reign.term == 1 && reign.backup.is_none() => {
                return NextRole::Lead(reign);
            }
            RoomInput::Led(_) => {
                // The answer to a take-over of an earlier life here, whose state is gone.
                common.emit(cx, RoomEffect::Release);
                common.emit(cx, RoomEffect::Claim);
            }
            RoomInput::LedBy(reign) => return NextRole::Follow(reign),
            RoomInput::Recruited(reign) => return NextRole::BackUp(reign),
            RoomInput::Unavailable => return NextRole::Close(v1::LeftReason::Gone),
            RoomInput::Unclaimed => return NextRole::Close(v1::LeftReason::Limit),
            RoomInput::Close(reason) => return NextRole::Close(reason),
            RoomInput::Unlinked { link, .. } => self.early.retain(|early| early.link != link),
            RoomInput::From { link, node, message, .. } => self.take(common, cx, link, node, message),
            RoomInput::Timeout => self.ask(common, cx),
            // Taken before the role is asked, or about a primary, of which there is none yet.
            RoomInput::Arrive(_)
            | RoomInput::Redirect { .. }
            | RoomInput::Epoch { .. }
            | RoomInput::Presence { .. }
            | RoomInput::Lost
            | RoomInput::Vacant
            | RoomInput::Paired { .. }
            | RoomInput::Deposed(_)
            | RoomInput::PeersChanged
            | RoomInput::NodeGone { .. }
            | RoomInput::Linked { .. }
            | RoomInput::PlacesKnown
            | RoomInput::Leased => {}
        }
        NextRole::Stay
    }

    fn take(
        &mut self,
        common: &Common,
        cx: &mut RoomContext<'_>,
        link: Key,
        node: NodeId,
        message: RoomMessage,
    ) {
        match message {
            RoomMessage::Attach(attach) if !cx.planted.is(Plant::JoinRaceTold) => {
                self.early.retain(|kept| kept.link != link);
                self.early.push(EarlyAttach { link, node, attach });
                common.emit(cx, RoomEffect::Read { link });
            }
            RoomMessage::Detach(_) => {
                self.early.retain(|early| early.link != link);
                common.emit(cx, RoomEffect::Unread { link });
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
            | RoomMessage::State(_)
            | RoomMessage::Stored(_)
            | RoomMessage::Install(_)
            | RoomMessage::Replicate(_)
            | RoomMessage::Lead(_) => {}
            // The registry will name that node. Its patience ends before, or it asks again.
            RoomMessage::Recruit(_) => {}
        }
    }
}
