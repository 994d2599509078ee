//! The search for a match.
//!
//! The wish stays with the client until the server has said how it ended, and is sent anew
//! on every connection: the server knows a ticket that is there, or a match that was found
//! meanwhile, and says so. So a search survives a change of the connection, and of the node.
//! What the server says and what is sent anew may cross: then the server has a ticket of
//! which the client thinks that it has ended, and the client takes it back.

use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1::{self, TicketState};

use super::transmit::plain;
use super::{Client, CommandError, Event};
use crate::id::Name;
use crate::plant::{Plant, Planted};
use crate::time::Now;

/// Regions, attributes or conditions of a ticket, at most.
const MAX_ITEMS: usize = 8;

/// What the client wants of the matchmaking, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The ticket that has no end yet.
    wish: Option<v1::Queue>,
    /// Whether this connection has carried it.
    sent: bool,
    /// Whether it is to be taken back, and whether this connection has carried that.
    cancel: Option<bool>,
    /// This connection has carried a wish.
    asked: bool,
    /// A ticket of a search that has ended is to be taken back, and whether this connection
    /// has carried that.
    leftover: Option<bool>,
    /// The match that was told last.
    matched: String,
    /// How often free places of it were filled.
    fills: u32,
}

impl Search {
    /// A new connection has carried nothing yet. Of a search that was given up it need not
    /// carry more than that: asked for anew, it could end in a match once more.
    pub(super) fn reconnect(&mut self, planted: Planted) {
        let forgets = self.sent && planted.is(Plant::SearchForgotten);
        self.sent = self.cancel.is_some() || forgets;
        self.cancel = self.cancel.map(|_| false);
        self.leftover = self.leftover.map(|_| false);
        self.asked = false;
    }

    /// The next frame.
    pub(super) fn next_frame(&mut self) -> Option<Bytes> {
        if self.leftover == Some(false) {
            self.leftover = Some(true);
            return Some(plain(v1::Kind::Cancel, &v1::Cancel {}));
        }
        let wish = self.wish.as_ref()?;
        if !self.sent {
            (self.sent, self.asked) = (true, true);
            return Some(plain(v1::Kind::Queue, wish));
        }
        if self.cancel == Some(false) {
            self.cancel = Some(true);
            return Some(plain(v1::Kind::Cancel, &v1::Cancel {}));
        }
        None
    }

    /// Takes what is told of a ticket though no search goes on. A wish that was under way when
    /// an end was told, of the search or of what was there before, is one for another search to
    /// the server: its ticket is taken back. One that another life of this client, or another
    /// client of the player, has asked for is none of that.
    fn is_leftover(&mut self, state: TicketState) -> bool {
        match state {
            TicketState::Waiting if self.asked => {
                self.leftover.get_or_insert(false);
                true
            }
            TicketState::Waiting | TicketState::Unavailable | TicketState::Unspecified => {
                self.leftover.is_some()
            }
            _ => self.leftover.take().is_some(),
        }
    }

    fn end(&mut self) {
        self.wish = None;
        self.cancel = None;
    }
}

impl Client {
    /// Searches for a match, also while there is no connection. How that ends is told by
    /// [`Event::Matched`], or by [`Event::Ticket`] with a state that is an end.
    ///
    /// # Errors
    /// [`CommandError::Searching`] if there is a search already, [`CommandError::BadName`] if
    /// the mode is not a name, [`CommandError::TooLarge`] for more than 8 regions, attributes
    /// or conditions, [`CommandError::Undrained`].
    pub fn queue(&mut self, now: Now, queue: v1::Queue) -> Result<(), CommandError> {
        self.ready(now)?;
        Name::new(&queue.mode).map_err(|_| CommandError::BadName)?;
        let most = queue.latencies.len().max(queue.attributes.len()).max(queue.conditions.len());
        if most > MAX_ITEMS {
            return Err(CommandError::TooLarge);
        }
        if self.search.wish.is_some() {
            return Err(CommandError::Searching);
        }
        self.search.wish = Some(queue);
        self.search.sent = false;
        // The new ticket takes the place of any other.
        self.search.leftover = None;
        Ok(())
    }

    /// Gives the search up. It may have ended already: what comes of it is told as for
    /// [`Self::queue`].
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

    pub(super) fn queued(&mut self, queued: v1::Queued) {
        let state = queued.state();
        if self.search.wish.is_none() && self.search.is_leftover(state) {
            return;
        }
        match state {
            // The answer to a request to take back the ticket before this one, which had
            // ended already.
            TicketState::Cancelled | TicketState::None if self.search.cancel != Some(true) => return,
            TicketState::Cancelled
            | TicketState::TimedOut
            | TicketState::PartyLost
            | TicketState::Refused
            | TicketState::None => self.search.end(),
            TicketState::Unspecified | TicketState::Waiting | TicketState::Unavailable => {}
        }
        self.outputs.event(Event::Ticket { state, mode: queued.mode, reason: queued.reason });
    }

    /// A match is told until it is over, so it may be known. It is an answer all the same to
    /// whoever searches for another.
    pub(super) fn matched(&mut self, matched: v1::Matched) {
        let searching = self.search.wish.is_some();
        self.search.end();
        let known = self.search.matched == matched.r#match && self.search.fills >= matched.fills;
        if searching || !known {
            self.search.fills = matched.fills;
            self.search.matched.clone_from(&matched.r#match);
            self.outputs.event(Event::Matched(matched));
        }
    }
}
