//! The search for a match.
//!
//! The client keeps the request until the server has reported the end of the search, and sends the
//! request again on every connection. The server knows an existing ticket, or a match that was
//! found meanwhile, and reports it. So a search survives a change of the connection, and of the
//! node.
//!
//! Answers of the server may cross requests that are sent again. So each search has a number, and
//! only answers with this number are about the search; the rules are at the head of `match.proto`.
//! The first number of a client's life is drawn from its seed, and each search has the next number.
//! So a search of an earlier life, or of another client of the player, has another number.
//!
//! While no search goes on, the application is also notified of searches and matches that are not
//! this client's: a ticket of an earlier life may still wait, or the player may be in a match.

use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1::{self, TicketState};

use super::transmit::plain;
use super::{Client, CommandError, Event, Fault};
use crate::base::id::Name;
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::Now;

/// Maximum number of regions, of attributes or of conditions of a ticket. With more,
/// [`Client::queue`] returns [`CommandError::TooLarge`].
const MAX_ITEMS: usize = 8;

/// Number of possible first numbers of a client. If two lives of a player's clients make a thousand
/// searches each, they have numbers in common with a chance of about 1 in 10^11.
const FIRST_NUMBERS: u64 = 1 << 48;

/// Reason for the end of a search that was answered with a match that the player is leaving.
const LEAVING: &str = "the player is leaving the match that it is in";

/// State of the search, and the answers of the server.
#[derive(Debug)]
pub(super) struct Search {
    /// Number of the first search of this life.
    first: u64,
    /// Number of the next search.
    next: u64,
    /// Request of the search that goes on.
    request: Option<v1::Queue>,
    /// True if the request was sent on this connection.
    sent: bool,
    /// Epoch of the session in the last [`TicketState::Lost`] of this connection, or 0.
    lost: u64,
    /// `Some` if the search was cancelled; true if the `Cancel` was sent on this connection.
    cancel: Option<bool>,
    /// Name of the match that has answered the search although the search was cancelled.
    crossed: String,
    /// Name of the match that was reported last.
    matched: String,
    /// Room of that match; empty if the match is over.
    room: String,
    /// Number of the search that the match was last reported with.
    answers: u64,
    /// Number of changes of the teams of that match.
    fills: u32,
    planted: Planted,
}

impl Search {
    /// Creates the state without a search. The seed is the client's.
    pub(super) fn new(seed: Seed) -> Self {
        let first = Rng::new(seed).range(1..=FIRST_NUMBERS);
        Self {
            first,
            next: first,
            request: None,
            sent: false,
            lost: 0,
            cancel: None,
            crossed: String::new(),
            matched: String::new(),
            room: String::new(),
            answers: 0,
            fills: 0,
            planted: Planted::default(),
        }
    }

    /// Plants a bug.
    #[cfg(feature = "plant")]
    pub(super) const fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Prepares the requests for a new connection. For a cancelled search only the `Cancel` is sent
    /// again: a repeated request could end in a match once more.
    pub(super) fn reconnect(&mut self) {
        let forgets = self.sent && self.planted.is(Plant::SearchForgotten);
        self.sent = self.cancel.is_some() || forgets;
        self.cancel = self.cancel.map(|_| false);
        self.lost = 0;
    }

    /// Returns the next frame.
    pub(super) fn next_frame(&mut self) -> Option<Bytes> {
        let request = self.request.as_ref()?;
        if !self.sent {
            self.sent = true;
            return Some(plain(v1::Kind::Queue, &v1::Queue { session_epoch: self.lost, ..request.clone() }));
        }
        if self.cancel == Some(false) {
            self.cancel = Some(true);
            let cancel = v1::Cancel { search: request.search, r#match: self.crossed.clone() };
            return Some(plain(v1::Kind::Cancel, &cancel));
        }
        None
    }

    /// Returns the number of the search that goes on.
    fn number(&self) -> Option<u64> {
        self.request.as_ref().map(|request| request.search)
    }

    /// Returns true if an answer with this number is about the search that goes on.
    fn is_about(&self, search: u64) -> bool {
        let number = self.number();
        number == Some(search) || (number.is_some() && self.planted.is(Plant::SearchUnnumbered))
    }

    /// Returns true if a search belongs to this life of the client.
    fn is_own(&self, search: u64) -> bool {
        (self.first..self.next).contains(&search)
    }

    /// Handles the loss of the ticket: the request is sent again, unless the search was cancelled.
    const fn lose(&mut self, session_epoch: u64) {
        self.lost = session_epoch;
        self.sent = self.cancel.is_some();
    }

    fn end(&mut self) {
        self.request = None;
        self.cancel = None;
        self.crossed.clear();
    }

    /// Returns the match that was reported last, its room, and the number of the search that it was
    /// last reported with.
    pub(super) fn live(&self) -> Option<(&str, &str, u64)> {
        (!self.room.is_empty()).then_some((&self.matched, &self.room, self.answers))
    }

    /// Forgets the match if this room is the room of the match.
    pub(super) fn leave(&mut self, room: &str) {
        if self.room == room {
            self.forget_match();
        }
    }

    pub(super) fn forget_match(&mut self) {
        self.matched.clear();
        self.room.clear();
    }
}

impl Client {
    /// Searches for a match, also while there is no connection. Returns the number of the search; a
    /// number in `queue` is ignored. The end of the search is reported with this number, by
    /// [`Event::Matched`], or by [`Event::Ticket`] with a state that is an end.
    ///
    /// # Errors
    /// [`CommandError::Searching`] if a search goes on already, [`CommandError::BadName`] if the
    /// mode is not a name, [`CommandError::TooLarge`] for more than 8 regions, attributes or
    /// conditions, [`CommandError::Undrained`].
    pub fn queue(&mut self, now: Now, mut queue: v1::Queue) -> Result<u64, CommandError> {
        self.ready(now)?;
        Name::new(&queue.mode).map_err(|_| CommandError::BadName)?;
        let most = queue.latencies.len().max(queue.attributes.len()).max(queue.conditions.len());
        if most > MAX_ITEMS {
            return Err(CommandError::TooLarge);
        }
        if self.search.request.is_some() {
            return Err(CommandError::Searching);
        }
        let number = self.search.next;
        queue.search = number;
        self.search.next += 1;
        self.search.request = Some(queue);
        self.search.sent = false;
        Ok(number)
    }

    /// Cancels the search, and gives up the match that the search may have ended with meanwhile.
    /// The end is reported by [`Event::Ticket`] with a state that is an end.
    ///
    /// # Errors
    /// [`CommandError::NotSearching`], [`CommandError::Undrained`].
    pub fn cancel(&mut self, now: Now) -> Result<(), CommandError> {
        self.ready(now)?;
        if self.search.request.is_none() {
            return Err(CommandError::NotSearching);
        }
        self.search.cancel.get_or_insert(false);
        Ok(())
    }

    /// Returns true if a search goes on.
    #[must_use]
    pub const fn is_searching(&self) -> bool {
        self.search.request.is_some()
    }

    /// Returns the number of the search that goes on; no other search of the player has this
    /// number.
    #[must_use]
    pub fn search(&self) -> Option<u64> {
        self.search.number()
    }

    pub(super) fn queued(&mut self, queued: v1::Queued) -> Result<(), Fault> {
        let (state, search) = (queued.state(), queued.search);
        let session_epoch = queued.session_epoch;
        let is_given_up = state == TicketState::GivenUp;
        if is_given_up {
            let is_live = self.search.live().is_some_and(|(id, ..)| id == queued.r#match);
            if self.pending_leaves.given_up(&queued.r#match) || self.search.is_about(search) || is_live {
                self.outputs.event(Event::GivenUp { matched: queued.r#match });
            }
            if is_live {
                self.search.forget_match();
            }
        }
        if self.search.is_about(search) {
            match state {
                TicketState::Cancelled
                | TicketState::TimedOut
                | TicketState::PartyLost
                | TicketState::Refused
                | TicketState::GivenUp
                | TicketState::None => self.search.end(),
                TicketState::Lost => {
                    self.search.lose(session_epoch);
                    // A node that had the session before knows a lower epoch than the client has to
                    // send now.
                    let session = self.session.as_mut().ok_or(Fault::BeforeWelcome)?;
                    session.epoch = session.epoch.max(session_epoch);
                }
                TicketState::Unspecified | TicketState::Waiting | TicketState::Unavailable => {}
            }
        } else if self.search.request.is_some() || self.search.is_own(search) || is_given_up {
            return Ok(());
        }
        self.outputs.event(Event::Ticket { search, state, mode: queued.mode, reason: queued.reason });
        Ok(())
    }

    /// Handles a match. The server sends a match until the match is over, so the match may be known
    /// already. With the number of the present search, the match answers this search in any case.
    /// With another number it does not: the server has not received the present search yet. A match
    /// that the player is leaving or has given up is not reported, since the server may not know
    /// this yet.
    pub(super) fn matched(&mut self, matched: v1::Matched) {
        let (leaving, answers) = (self.is_leaving_match(&matched), self.search.is_about(matched.search));
        if answers && self.search.cancel.is_some() {
            if self.search.crossed != matched.r#match {
                self.search.crossed = matched.r#match;
                self.search.cancel = Some(false);
            }
            return;
        }
        if leaving {
            if answers {
                self.search.end();
                let (search, state, mode) = (matched.search, TicketState::None, matched.mode);
                let reason = String::from(LEAVING);
                self.outputs.event(Event::Ticket { search, state, mode, reason });
            }
            return;
        }
        if answers {
            self.search.end();
        } else {
            let known = self.search.matched == matched.r#match && self.search.fills >= matched.fills;
            if self.search.request.is_some() || known {
                return;
            }
        }
        self.search.fills = matched.fills;
        self.search.matched.clone_from(&matched.r#match);
        self.search.room.clone_from(&matched.room);
        if matched.over {
            self.search.room.clear();
        }
        self.search.answers = matched.search;
        self.outputs.event(Event::Matched(matched));
    }
}
