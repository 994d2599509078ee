//! Quits: matches that a player has left by its own action, until the registry confirms it.
//!
//! A player leaves a match for good: by leaving its room, by giving the match up, or because its
//! session has ended or was resumed without the room. Then the player's notice is deleted. The
//! player is notified when the registry confirms the deletion, not before. From then on any node
//! that is asked, or this one after a restart, knows of no match. Until then the node keeps the
//! quit and repeats it over lost answers, and the player repeats its request at another node.
//!
//! The number of quits of a player is limited. A request beyond the limit is refused. The end of a
//! session cannot be refused, so its quits take the places of others that can be spared: those of
//! matches that the player is not in, as far as this node knows, and requests. The player repeats
//! its requests on its next connection.

use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState};

use super::player::{LastMessage, Player};
use super::request::none;
use super::view::{MatchInfo, Notice, TicketView, View};
use super::wish::{Ended, Wish};
use super::{PlayerTickets, PlayerTicketsDecision};
use crate::base::id::Name;
use crate::base::time::Now;
use crate::matchmaking::keys;
use crate::matchmaking::record::Refused;

/// Maximum number of quits of one player that wait for the registry. Further requests are refused.
pub(super) const MOST: usize = 16;

/// A match that the player has left, and the message to send once the registry confirms it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quit {
    pub(super) what: QuitMatch,
    pub(super) answer: QuitAnswer,
    /// True if the player was in this match.
    hit: bool,
}

/// Match that a quit concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QuitMatch {
    /// The match of this name.
    Match(String),
    /// The match that has answered the search of this number; 0 for any match.
    Search(u64),
    /// The match whose room the player has joined.
    Joined,
}

/// Message to the player after a quit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum QuitAnswer {
    /// No message: the player did not ask.
    Nothing,
    /// The player has left the room. `member` is true if the session was a member. `request` is the
    /// number of the client's newest request to leave.
    Left { room: Name, request: u64, member: bool },
    /// The match is given up, by a `Cancel` of this number.
    GivenUp { search: u64 },
}

impl PlayerTickets {
    /// Notes, like [`Self::arrive`], that a session was resumed. Of the rooms of matches, the
    /// session keeps only `rooms`.
    pub fn resume(&mut self, now: Now, player: &Name, session_epoch: u64, rooms: Vec<Name>) {
        self.come(now, player, session_epoch, Some(rooms));
    }

    pub(super) fn come(&mut self, now: Now, player: &Name, session_epoch: u64, rooms: Option<Vec<Name>>) {
        self.now = now;
        if let Some(entry) = self.enter(player, session_epoch) {
            entry.last_message = LastMessage::Nothing;
            entry.returned = rooms;
            self.end_absence(player);
            self.put_in_line(player);
            self.drive();
        }
    }

    /// Gives up a match for the player. When the registry confirms it, a decision with the number
    /// of a search notifies the player. Returns false if there is no place for the quit: then
    /// no decision follows.
    pub fn give_up(&mut self, now: Now, player: &Name, id: &Name, search: u64) -> bool {
        let answer = QuitAnswer::GivenUp { search };
        self.quit(now, player, id.as_str(), |entry, what| entry.quit(what, answer)) == Some(true)
    }

    /// Takes the player out of the match of a room that it leaves. When the registry confirms it,
    /// [`PlayerTicketsDecision::Left`] follows. Returns false if the room is not that of a match, or if
    /// there is no place for the quit: then no decision follows.
    pub fn leave(&mut self, now: Now, player: &Name, room: &Name, request: u64, member: bool) -> bool {
        let Some(id) = keys::match_of(room.as_str()) else { return false };
        let answer = QuitAnswer::Left { room: room.clone(), request, member };
        self.quit(now, player, id, |entry, what| entry.quit(what, answer)) == Some(true)
    }

    /// Notes that the player's session is a member of a room, which may be that of its match.
    pub fn join_match(&mut self, now: Now, player: &Name, room: &Name) {
        self.now = now;
        if let Some(entry) = self.players.get_mut(player).filter(|_| keys::match_of(room.as_str()).is_some())
        {
            entry.join(room);
            self.put_in_line(player);
            self.drive();
        }
    }

    /// Notes that the player has left a room without a request: its session has ended, or was
    /// resumed without the room. If the room was that of its match, the player is in no match.
    pub fn leave_match(&mut self, now: Now, player: &Name, room: &Name) {
        if let Some(id) = keys::match_of(room.as_str()) {
            self.quit(now, player, id, Player::quit_unasked);
        }
    }

    /// Notes that a player's membership of a room is over while its session is not here. If the
    /// player has no session at any node, it is no longer in the match of the room.
    pub fn expire_match(&mut self, now: Now, player: &Name, room: &Name) {
        self.now = now;
        self.expire(player, room);
        self.drive();
    }

    /// Quits the match of a room for a player without a session here, or does so once there is a
    /// place for the player.
    pub(super) fn expire(&mut self, player: &Name, room: &Name) {
        let Some(id) = keys::match_of(room.as_str()) else { return };
        let entry = match self.players.get_mut(player) {
            // The session is here again.
            Some(entry) if !entry.parting => return,
            Some(entry) => entry,
            None => match self.enter(player, 0) {
                Some(entry) => entry,
                None => return self.rosters.expire(player, room),
            },
        };
        entry.parting = true;
        entry.view = None;
        entry.quit_unasked(QuitMatch::Match(id.into()));
        self.put_in_line(player);
    }

    /// Quits a match for a player. Returns `None` for a player beyond the maximum, which is not
    /// known.
    fn quit<R>(
        &mut self,
        now: Now,
        player: &Name,
        id: &str,
        add: impl FnOnce(&mut Player, QuitMatch) -> R,
    ) -> Option<R> {
        self.now = now;
        let entry = self.players.get_mut(player)?;
        if entry.room.as_ref().is_some_and(|room| keys::match_of(room.as_str()) == Some(id)) {
            entry.room = None;
        }
        let added = add(entry, QuitMatch::Match(id.into()));
        self.put_in_line(player);
        self.drive();
        Some(added)
    }
}

impl Player {
    /// Adds a quit that can be refused. Returns false if the maximum number of quits wait for the
    /// registry.
    pub(super) fn quit(&mut self, what: QuitMatch, answer: QuitAnswer) -> bool {
        let quit = Quit { what, answer, hit: false };
        for known in self.quits.iter_mut().filter(|known| known.what == quit.what) {
            if known.answer == quit.answer {
                return true;
            }
            // A client that leaves again, over another connection, waits for one answer.
            if let (
                QuitAnswer::Left { request, member, .. },
                QuitAnswer::Left { request: newest, member: is_member, .. },
            ) = (&mut known.answer, &quit.answer)
            {
                *request = *newest;
                *member |= *is_member;
                return true;
            }
        }
        let has_place = self.quits.len() < MOST;
        if has_place {
            self.quits.push(quit);
        }
        has_place
    }

    /// Adds a quit that follows from a new connection, or from the end of the session, without a
    /// request. If too many quits wait, one that can be spared goes, the oldest first.
    pub(super) fn quit_unasked(&mut self, what: QuitMatch) {
        if self.quits.iter().any(|known| known.what == what) {
            return;
        }
        if self.quits.len() >= MOST {
            let spared = self.quits.iter().position(|quit| self.can_be_spared(quit));
            let oldest = || self.quits.iter().position(|quit| quit.what != QuitMatch::Joined);
            spared.or_else(oldest).map(|at| self.quits.remove(at));
        }
        self.quits.push(Quit { what, answer: QuitAnswer::Nothing, hit: false });
    }

    /// Returns true if a quit concerns another match than the last one that this node knows, or if
    /// the player repeats its request.
    fn can_be_spared(&self, quit: &Quit) -> bool {
        match &quit.what {
            QuitMatch::Match(id) => {
                let notice = self.view.as_ref().and_then(|view| view.notice.as_ref());
                let is_noticed = notice.is_some_and(|notice| notice.record.r#match == *id);
                let is_read = matches!(&self.match_info, MatchInfo::Known(known) if known.r#match == *id);
                !(quit.hit || is_noticed || is_read)
            }
            QuitMatch::Search(_) => quit.answer != QuitAnswer::Nothing,
            QuitMatch::Joined => false,
        }
    }

    /// Quits the match whose room the player has joined, after the end of the session.
    pub(super) fn quit_joined(&mut self) {
        let known = self.room.take();
        if let Some(id) = known.as_ref().and_then(|room| keys::match_of(room.as_str())) {
            self.quit_unasked(QuitMatch::Match(id.into()));
        }
        self.quit_unasked(QuitMatch::Joined);
    }

    /// Cancels the search of this number. Returns a message to be sent at once if the search has
    /// ended, or if nothing is left to cancel: there is no ticket, or only one of another search,
    /// and no match.
    pub(super) fn cancel(&mut self, search: u64) -> Option<v1::Queued> {
        let is_other = match &self.wish {
            Wish::Queue { queue, .. } => search != 0 && queue.search != search,
            Wish::Nothing | Wish::Cancel { .. } => false,
        };
        let may_be_in_match = self.may_be_in_match();
        let nothing = match &self.wish {
            Wish::Nothing => self.view.as_ref().is_some_and(View::is_empty),
            Wish::Queue { .. } => is_other && !may_be_in_match,
            Wish::Cancel { .. } => false,
        };
        if nothing {
            let ended = self.ended.as_ref().filter(|ended| ended.is_of(search));
            return Some(ended.map_or_else(|| none(search), |ended| ended.queued.clone()));
        }
        if is_other {
            let kept = self.quit(QuitMatch::Search(search), QuitAnswer::GivenUp { search });
            return (!kept).then(|| unavailable(search, &Refused::TooManyQuits));
        }
        let ticket = self.view.as_ref().and_then(|view| view.ticket.as_deref());
        let (mode, found) = match &self.wish {
            Wish::Queue { queue, .. } => (queue.mode.clone(), true),
            Wish::Cancel { mode, search: before, found } => (mode.clone(), *found && *before == search),
            Wish::Nothing => (ticket.map(TicketView::mode).unwrap_or_default(), false),
        };
        self.wish = Wish::Cancel { mode, search, found };
        if self.failures > 0 {
            // A ticket may have been written.
            self.view = None;
        }
        None
    }

    /// Gives up the match that has answered the search of a `Cancel`, if there is one, when the
    /// player starts another search instead. Returns false if there is no place for the quit: then
    /// the search must not start.
    pub(super) fn replace_cancel(&mut self) -> bool {
        match self.wish {
            Wish::Cancel { search, .. } if self.may_be_in_match() => {
                self.quit(QuitMatch::Search(search), QuitAnswer::Nothing)
            }
            _ => true,
        }
    }

    /// Returns true if the player may have a notice in the registry, as far as this node knows.
    pub(super) fn may_be_in_match(&self) -> bool {
        self.view.as_ref().is_none_or(|view| view.notice.is_some())
    }

    /// Notes that the session is a member of the room of a match. In more rooms than are kept, the
    /// session counts as one that has left none.
    pub(super) fn join(&mut self, room: &Name) {
        self.room = Some(room.clone());
        if let Some(rooms) = self.returned.as_mut().filter(|rooms| !rooms.contains(room)) {
            if rooms.len() < MOST {
                rooms.push(room.clone());
            } else {
                self.returned = None;
            }
        }
    }

    /// Returns true if the match of a notice has answered the search of this number; 0 is any.
    fn is_answer(&self, notice: &Notice, search: u64) -> bool {
        let id = Some(notice.record.r#match.as_str());
        let was_told =
            self.ended.as_ref().is_some_and(|ended| ended.is_of(search) && ended.match_id.as_deref() == id);
        search == 0 || search == notice.record.search || was_told
    }

    /// Gives up the live match if it has answered the search that the player cancels.
    pub(super) fn give_up_answer(&mut self, notice: &Notice) {
        if let Wish::Cancel { search, .. } = self.wish
            && self.is_answer(notice, search)
            && self.quit(QuitMatch::Match(notice.record.r#match.clone()), QuitAnswer::GivenUp { search })
        {
            self.wish = Wish::Nothing;
        }
    }

    /// Returns true if the player has left the match of its notice.
    pub(super) fn is_out(&self, notice: &Notice) -> bool {
        let room = keys::room_of(&notice.record.r#match);
        let goes_on_without = notice.record.joined
            && self.returned.as_ref().is_some_and(|rooms| !rooms.iter().any(|name| name.as_str() == room));
        goes_on_without || self.quits.iter().any(|quit| self.hits(quit, notice))
    }

    fn hits(&self, quit: &Quit, notice: &Notice) -> bool {
        match &quit.what {
            QuitMatch::Match(id) => *id == notice.record.r#match,
            QuitMatch::Search(search) => self.is_answer(notice, *search),
            QuitMatch::Joined => notice.record.joined,
        }
    }

    /// Completes the quits of matches that the player is no longer in: all but that of the notice.
    /// Returns the next message that follows.
    pub(super) fn settle_quit(&mut self, notice: Option<&Notice>) -> Option<PlayerTicketsDecision> {
        let mut at = 0;
        while let Some(quit) = self.quits.get(at) {
            let hit = notice.filter(|notice| self.hits(quit, notice));
            if let (Some(notice), Some(quit)) = (hit, self.quits.get_mut(at)) {
                // Once the notice is deleted, nothing else identifies the match.
                quit.what = QuitMatch::Match(notice.record.r#match.clone());
                quit.hit = true;
                at += 1;
                continue;
            }
            let quit = self.quits.remove(at);
            if let Some(decision) = self.answer_quit(quit) {
                return Some(decision);
            }
        }
        None
    }

    fn answer_quit(&mut self, quit: Quit) -> Option<PlayerTicketsDecision> {
        let player = self.name.clone();
        match (quit.answer, quit.what) {
            (QuitAnswer::Nothing, _) => None,
            (QuitAnswer::Left { room, request, member }, _) => {
                Some(PlayerTicketsDecision::Left { player, room, request, was_in: member || quit.hit })
            }
            (QuitAnswer::GivenUp { search }, QuitMatch::Match(id)) => {
                let state = TicketState::GivenUp.into();
                let queued = v1::Queued { state, search, r#match: id.clone(), ..v1::Queued::default() };
                if search != 0 && quit.hit {
                    self.ended = Some(Ended { queued: queued.clone(), match_id: Some(id) }.into());
                }
                Some(PlayerTicketsDecision::Ticket { player, queued })
            }
            // No match has answered the search.
            (QuitAnswer::GivenUp { search }, QuitMatch::Search(_) | QuitMatch::Joined) => {
                let ended = self.ended.as_ref().filter(|ended| ended.is_of(search));
                let queued = ended.map_or_else(|| none(search), |ended| ended.queued.clone());
                Some(PlayerTicketsDecision::Ticket { player, queued })
            }
        }
    }
}

/// Returns the answer to a `Cancel` that is refused, so that the outcome is unknown.
pub(super) fn unavailable(search: u64, refused: &Refused) -> v1::Queued {
    let reason = refused.to_string();
    v1::Queued { state: TicketState::Unavailable.into(), search, reason, ..v1::Queued::default() }
}
