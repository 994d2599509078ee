//! The search for a match.
//!
//! The wish stays with the client until the server has said how it ended, and is sent anew
//! on every connection: the server knows a ticket that is there, or a match that was found
//! meanwhile, and says so. So a search survives a change of the connection, and of the node.
//!
//! What the server says and what is sent anew may cross. So each search has a number, and
//! only what is told of that number is about it; the rules are at the head of `match.proto`.
//! The first number of a client's life is drawn from its seed, and each search has the next
//! one: that of a life before, or of another client of the player, is another number.
//!
//! While no search goes on, the application hears of what is not this client's own: a
//! ticket of an earlier life may wait yet, or the player may be in a match.

use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1::{self, TicketState};

use super::transmit::plain;
use super::{Client, CommandError, Event};
use crate::base::id::Name;
use crate::base::plant::{Plant, Planted};
use crate::base::rng::{Rng, Seed};
use crate::base::time::Now;

/// Regions, attributes or conditions of a ticket, at most.
const MAX_ITEMS: usize = 8;

/// First numbers of clients are drawn from as many. Of two lives of a player's clients that
/// search a thousand times each, one in 10^11 pairs would have numbers in common.
const FIRST_NUMBERS: u64 = 1 << 48;

/// Why a search has ended that was answered with a match which the player is leaving.
const PARTING: &str = "the player is leaving the match that it is in";

/// What the client wants of the matchmaking, and what it was told.
#[derive(Debug)]
pub(super) struct Search {
    /// The number of this life's first search.
    first: u64,
    /// The number of the next one.
    next: u64,
    /// The search that has no end yet.
    wish: Option<v1::Queue>,
    /// Whether this connection has carried it.
    sent: bool,
    /// The session's epoch in the last [`TicketState::Lost`] of this connection, or 0.
    lost: u64,
    /// Whether it is to be taken back, and whether this connection has carried that.
    cancel: Option<bool>,
    /// The match that has answered it although it is to be taken back.
    crossed: String,
    /// The match that was told last.
    matched: String,
    /// Room of that match; empty if the match is over. And the number that it was told with last.
    room: String,
    answers: u64,
    /// How often its teams have changed.
    fills: u32,
    planted: Planted,
}

impl Search {
    /// Without a search. The seed is the client's.
    pub(super) fn new(seed: Seed) -> Self {
        let first = Rng::new(seed).range(1..=FIRST_NUMBERS);
        Self {
            first,
            next: first,
            wish: None,
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

    /// A new connection has carried nothing yet. Of a search that was given up it need not
    /// carry more than that: asked for anew, it could end in a match once more.
    pub(super) fn reconnect(&mut self) {
        let forgets = self.sent && self.planted.is(Plant::SearchForgotten);
        self.sent = self.cancel.is_some() || forgets;
        self.cancel = self.cancel.map(|_| false);
        self.lost = 0;
    }

    /// The next frame.
    pub(super) fn next_frame(&mut self) -> Option<Bytes> {
        let wish = self.wish.as_ref()?;
        if !self.sent {
            self.sent = true;
            return Some(plain(v1::Kind::Queue, &v1::Queue { session_epoch: self.lost, ..wish.clone() }));
        }
        if self.cancel == Some(false) {
            self.cancel = Some(true);
            let cancel = v1::Cancel { search: wish.search, r#match: self.crossed.clone() };
            return Some(plain(v1::Kind::Cancel, &cancel));
        }
        None
    }

    /// The number of the search that goes on.
    fn number(&self) -> Option<u64> {
        self.wish.as_ref().map(|wish| wish.search)
    }

    /// Whether what is told of a search is about the one that goes on.
    fn is_about(&self, search: u64) -> bool {
        let number = self.number();
        number == Some(search) || (number.is_some() && self.planted.is(Plant::SearchUnnumbered))
    }

    /// Whether a search was one of this life of the client.
    fn is_own(&self, search: u64) -> bool {
        (self.first..self.next).contains(&search)
    }

    /// The ticket is lost: it is asked for again, unless the search was given up.
    const fn lose(&mut self, session_epoch: u64) {
        self.lost = session_epoch;
        self.sent = self.cancel.is_some();
    }

    fn end(&mut self) {
        self.wish = None;
        self.cancel = None;
        self.crossed.clear();
    }

    /// The match that was told last, its room, and the number that it was told with.
    pub(super) fn live(&self) -> Option<(&str, &str, u64)> {
        (!self.room.is_empty()).then_some((&self.matched, &self.room, self.answers))
    }

    /// The room is left: if it is that match's, the player is in none.
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
    /// Searches for a match, also while there is no connection. How that ends is told by
    /// [`Event::Matched`], or by [`Event::Ticket`] with a state that is an end, with the number
    /// of the search, which this returns. One that is in `queue` is of no account.
    ///
    /// # Errors
    /// [`CommandError::Searching`] if there is a search already, [`CommandError::BadName`] if
    /// the mode is not a name, [`CommandError::TooLarge`] for more than 8 regions, attributes
    /// or conditions, [`CommandError::Undrained`].
    pub fn queue(&mut self, now: Now, mut queue: v1::Queue) -> Result<u64, CommandError> {
        self.ready(now)?;
        Name::new(&queue.mode).map_err(|_| CommandError::BadName)?;
        let most = queue.latencies.len().max(queue.attributes.len()).max(queue.conditions.len());
        if most > MAX_ITEMS {
            return Err(CommandError::TooLarge);
        }
        if self.search.wish.is_some() {
            return Err(CommandError::Searching);
        }
        let number = self.search.next;
        queue.search = number;
        self.search.next += 1;
        self.search.wish = Some(queue);
        self.search.sent = false;
        Ok(number)
    }

    /// Gives the search up, and with it the match that it may have ended with meanwhile: what
    /// comes of it is told by [`Event::Ticket`] with a state that is an end.
    ///
    /// # Errors
    /// [`CommandError::NotSearching`], [`CommandError::Undrained`].
    pub fn cancel(&mut self, now: Now) -> Result<(), CommandError> {
        self.ready(now)?;
        if self.search.wish.is_none() {
            return Err(CommandError::NotSearching);
        }
        self.search.cancel.get_or_insert(false);
        Ok(())
    }

    /// Whether a search goes on.
    #[must_use]
    pub const fn is_searching(&self) -> bool {
        self.search.wish.is_some()
    }

    /// The number of the search that goes on; no other search of the player has it.
    #[must_use]
    pub fn search(&self) -> Option<u64> {
        self.search.number()
    }

    pub(super) fn queued(&mut self, queued: v1::Queued) {
        let (state, search) = (queued.state(), queued.search);
        let session_epoch = queued.session_epoch;
        let is_given_up = state == TicketState::GivenUp;
        if is_given_up {
            let is_live = self.search.live().is_some_and(|(id, ..)| id == queued.r#match);
            if self.parting.given_up(&queued.r#match) || self.search.is_about(search) || is_live {
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
                    // A node that had the session before knows less than is to be told now.
                    if let Some(session) = &mut self.session {
                        session.epoch = session.epoch.max(session_epoch);
                    }
                }
                TicketState::Unspecified | TicketState::Waiting | TicketState::Unavailable => {}
            }
        } else if self.search.wish.is_some() || self.search.is_own(search) || is_given_up {
            return;
        }
        self.outputs.event(Event::Ticket { search, state, mode: queued.mode, reason: queued.reason });
    }

    /// A match is told until it is over, so it may be known. It is an answer all the same to
    /// the search of its number. One of another number is none to the search that goes on:
    /// the server has not heard of that yet. Nor is one that is left or given up, of which the
    /// server has not heard either.
    pub(super) fn matched(&mut self, matched: v1::Matched) {
        let (parting, answers) = (self.is_parting(&matched), self.search.is_about(matched.search));
        if answers && self.search.cancel.is_some() {
            if self.search.crossed != matched.r#match {
                self.search.crossed = matched.r#match;
                self.search.cancel = Some(false);
            }
            return;
        }
        if parting {
            if answers {
                self.search.end();
                let (search, state, mode) = (matched.search, TicketState::None, matched.mode);
                let reason = String::from(PARTING);
                self.outputs.event(Event::Ticket { search, state, mode, reason });
            }
            return;
        }
        if answers {
            self.search.end();
        } else {
            let known = self.search.matched == matched.r#match && self.search.fills >= matched.fills;
            if self.search.wish.is_some() || known {
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
