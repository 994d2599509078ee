//! Matches that are over before they have begun, or that went on without a player that did not
//! come.

use alloc::string::ToString as _;

use skirmish_proto::v1;
use skirmish_proto::v1::TicketState;

use super::DeskDecision;
use super::player::{LastNotice, MATCH_OVER, MatchInfo, NextAction, Player};
use super::request::none;
use super::view::Notice;
use super::wish::Wish;

/// Said of a match to a player that has not joined its room within `matchmaking.join_window`.
const TOO_LATE: &str = "the room of the match was not joined in time";

impl Player {
    /// Tells the player that its match is over without having begun; `None` if it was told: then
    /// the notice goes, and the player may search again, as one that has waited before.
    pub(super) fn end_match(&mut self, matched: v1::Matched, notice: &Notice) -> Option<NextAction> {
        if self.absence.is_some() {
            // Nobody would hear of it.
            return Some(NextAction::Rest);
        }
        let told = LastNotice::Matched(matched.fills);
        if self.told == told {
            self.credit = Some((matched.mode, notice.record.waited_ms));
            return None;
        }
        // The search that was told to have ended with the match, or else the one that has.
        let id = matched.r#match.clone();
        let ended = self.ended.as_ref().filter(|ended| ended.pair.as_deref() == Some(&*id));
        let search = ended.map_or(notice.record.search, |ended| ended.queued.search);
        let queued =
            v1::Queued { mode: matched.mode.clone(), reason: MATCH_OVER.to_string(), ..none(search) };
        // Of another search that the player has begun since it is no end.
        let wish = core::mem::replace(&mut self.wish, Wish::Nothing);
        self.end(queued, Some(&id));
        if wish.search().is_some_and(|wished| wished != search) {
            self.wish = wish;
        }
        (self.told, self.adopts) = (told, false);
        let matched = v1::Matched { team: notice.record.team, search, ..matched };
        Some(NextAction::Tell(DeskDecision::Matched { player: self.name.clone(), matched }))
    }

    /// The notice of the match that the player was told of is gone, though it has neither come
    /// nor given it up: it was not there in time.
    pub(super) fn is_late(&mut self) -> Option<DeskDecision> {
        let MatchInfo::Known(matched) = &self.pair else { return None };
        let is_told = matches!(self.told, LastNotice::Matched(_)) && !matched.over;
        let is_in = self.room.as_ref().is_some_and(|room| room.as_str() == matched.room);
        if !is_told || is_in || self.absence.is_some() || !self.quits.is_empty() {
            return None;
        }
        let (id, mode) = (matched.r#match.clone(), matched.mode.clone());
        let ended = self.ended.as_mut().filter(|ended| ended.pair.as_deref() == Some(&*id));
        let search = ended.as_ref().map_or(0, |ended| ended.queued.search);
        let (state, reason) = (TicketState::GivenUp.into(), TOO_LATE.to_string());
        let queued = v1::Queued { state, mode, reason, r#match: id, ..none(search) };
        if let Some(ended) = ended {
            ended.queued = queued.clone();
        }
        self.told = LastNotice::Nothing;
        Some(DeskDecision::Ticket { player: self.name.clone(), queued })
    }

    /// The search that is about to be queued has waited before, if it is of the mode of the
    /// match that has let the player down.
    pub(super) fn use_credit(&mut self) {
        if let Wish::Queue { queue, queued_ms } = &mut self.wish
            && let Some((mode, waited_ms)) = self.credit.take()
            && mode == queue.mode
        {
            *queued_ms = queued_ms.saturating_sub(waited_ms);
        }
    }
}
