//! Searches that are queued again only once their player has confirmed that it is here and still searches.

use skirmish_proto::v1::{self, TicketState};

use super::PlayerTicketsDecision;
use super::player::{Context, LastMessage, NextAction, Player};
use super::view::View;
use crate::base::plant::Plant;

impl Player {
    /// Returns the epoch of the session's record, if the record is this node's and the player may have
    /// learnt the end of the search at another node: the record was written again since the player
    /// arrived or answered, or an adopted ticket is gone that the player has not asked for here.
    pub(super) fn to_confirm(&self, context: Context, view: &View) -> Option<u64> {
        let session = view.session.filter(|session| session.node == context.node)?;
        let is_unsure = session.epoch > self.vouched || self.is_unasked && view.ticket.is_none();
        (is_unsure && !context.planted.is(Plant::LapseIgnored)).then_some(session.epoch)
    }

    /// Asks the player, once, to confirm that it is here and still searches.
    pub(super) fn ask_again(&mut self, context: Context, session_epoch: u64) -> NextAction {
        if self.last_message == LastMessage::Lost(session_epoch) {
            return NextAction::Rest;
        }
        self.last_message = LastMessage::Lost(session_epoch);
        let reason = "the ticket is gone, and has to be asked for anew";
        let queued = v1::Queued { session_epoch, ..self.queued(context.wall, TicketState::Lost, reason) };
        NextAction::Tell(PlayerTicketsDecision::Ticket { player: self.name.clone(), queued })
    }

    /// Notes that the player has sent a `Queue` with the epoch of the last `Lost` message that it
    /// received; 0 if it received none.
    pub(super) fn handle_answer(&mut self, session_epoch: u64) {
        if self.last_message == LastMessage::Lost(session_epoch) {
            (self.vouched, self.last_message) = (session_epoch, LastMessage::Nothing);
        }
    }
}
