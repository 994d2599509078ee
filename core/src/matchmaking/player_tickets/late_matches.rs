//! Matches that are over before they have begun, and matches that go on without a player that did
//! not join.

use alloc::string::ToString as _;

use skirmish_proto::v1;
use skirmish_proto::v1::TicketState;

use super::PlayerTicketsDecision;
use super::player::{LastMessage, MATCH_OVER, NextAction, Player};
use super::request::none;
use super::view::{MatchInfo, Notice};
use super::wish::Wish;

/// Reason given to a player that has not joined the room of its match within
/// `matchmaking.join_window`.
const TOO_LATE: &str = "the room of the match was not joined in time";

impl Player {
    /// Returns the action that notifies the player that its match is over without having begun.
    /// Returns `None` if the player was notified before: then the notice is deleted, and the
    /// player's next search of the mode keeps the time that it has waited.
    pub(super) fn end_match(&mut self, matched: v1::Matched, notice: &Notice) -> Option<NextAction> {
        if self.absence.is_some() {
            // No connection would receive the message.
            return Some(NextAction::Rest);
        }
        let message = LastMessage::Matched(matched.fills);
        if self.last_message == message {
            self.credit = Some((matched.mode, notice.record.waited_ms));
            return None;
        }
        // The search that ended with the match by the last message, or else that of the notice.
        let id = matched.r#match.clone();
        let ended = self.ended.as_ref().filter(|ended| ended.match_id.as_deref() == Some(&*id));
        let search = ended.map_or(notice.record.search, |ended| ended.queued.search);
        let queued =
            v1::Queued { mode: matched.mode.clone(), reason: MATCH_OVER.to_string(), ..none(search) };
        // The end does not concern another search that the player has begun since.
        let wish = core::mem::replace(&mut self.wish, Wish::Nothing);
        self.end(queued, Some(&id));
        if wish.search().is_some_and(|wished| wished != search) {
            self.wish = wish;
        }
        (self.last_message, self.adopts) = (message, false);
        let matched = v1::Matched { team: notice.record.team, search, ..matched };
        Some(NextAction::Tell(PlayerTicketsDecision::Matched { player: self.name.clone(), matched }))
    }

    /// Returns the decision that the player was removed from its match for not joining in time: the
    /// notice of the match is gone, and the player has neither joined the room nor given the match
    /// up.
    pub(super) fn is_late(&mut self) -> Option<PlayerTicketsDecision> {
        let MatchInfo::Known(matched) = &self.match_info else { return None };
        let is_notified = matches!(self.last_message, LastMessage::Matched(_)) && !matched.over;
        let is_in = self.room.as_ref().is_some_and(|room| room.as_str() == matched.room);
        if !is_notified || is_in || self.absence.is_some() || !self.quits.is_empty() {
            return None;
        }
        let (id, mode) = (matched.r#match.clone(), matched.mode.clone());
        let ended = self.ended.as_mut().filter(|ended| ended.match_id.as_deref() == Some(&*id));
        let search = ended.as_ref().map_or(0, |ended| ended.queued.search);
        let (state, reason) = (TicketState::GivenUp.into(), TOO_LATE.to_string());
        let queued = v1::Queued { state, mode, reason, r#match: id, ..none(search) };
        if let Some(ended) = ended {
            ended.queued = queued.clone();
        }
        self.last_message = LastMessage::Nothing;
        Some(PlayerTicketsDecision::Ticket { player: self.name.clone(), queued })
    }

    /// Adds the waiting time of a failed match to the search that is about to be queued, if both
    /// have the same mode.
    pub(super) fn use_credit(&mut self) {
        if let Wish::Queue { queue, queued_ms } = &mut self.wish
            && let Some((mode, waited_ms)) = self.credit.take()
            && mode == queue.mode
        {
            *queued_ms = queued_ms.saturating_sub(waited_ms);
        }
    }
}
