//! Matches that are over for the application, while the server may not know this yet.
//!
//! Until the server knows, it sends the match to the player again, on every connection to any node.
//! So the client sends `Leave` for the room of a match, over connections and sessions, until a
//! [`Left`](v1::Left) answers the `Leave`. This module keeps two lists: rooms that the end of a
//! session left before such an answer, and matches that were given up. Meanwhile the application
//! gets no events about these matches.

use alloc::collections::VecDeque;
use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use super::room::{RequestCounter, RoomPhase};
use super::transmit::plain;
use super::{Client, CommandError};
use crate::base::time::Now;
use crate::matchmaking::keys;

/// Maximum number of rooms, and of matches, that wait for the answer of the server; at the bound,
/// the oldest is dropped. Only the newest can belong to a live match, since a player is in one
/// match at a time.
const MOST: usize = 8;

/// Requests that the server has not answered yet.
#[derive(Debug, Default)]
pub(super) struct PendingLeaves {
    /// Rooms of matches that were left, each with the number of the `Leave` on this connection; 0
    /// if none was sent.
    rooms: VecDeque<(String, u64)>,
    /// Matches that were given up, each with the number of its search.
    matches: VecDeque<(String, u64, Sent)>,
}

/// True if the request was sent on this connection.
type Sent = bool;

impl PendingLeaves {
    /// Notes that the application was notified of leaving this room, while the server may not know
    /// yet.
    pub(super) fn left(&mut self, room: &str) {
        if keys::match_of(room).is_some() && !self.takes(room) {
            self.rooms.push_back((room.into(), 0));
            if self.rooms.len() > MOST {
                self.rooms.pop_front();
            }
        }
    }

    fn takes(&self, room: &str) -> bool {
        self.rooms.iter().any(|(name, _)| name == room)
    }

    /// Removes a room that is left in another way. Returns true if the room was here.
    pub(super) fn take_room(&mut self, room: &str) -> bool {
        let before = self.rooms.len();
        self.rooms.retain(|(name, _)| name != room);
        self.rooms.len() < before
    }

    /// Removes the room whose `Leave` of this number is answered. Returns true if the room was here.
    pub(super) fn take_answered(&mut self, request: u64) -> bool {
        let before = self.rooms.len();
        self.rooms.retain(|(_, number)| *number != request || request == 0);
        self.rooms.len() < before
    }

    fn give_up(&mut self, id: String, search: u64) {
        self.matches.push_back((id, search, false));
        if self.matches.len() > MOST {
            self.matches.pop_front();
        }
    }

    /// Removes a match that the server knows to be given up. Returns true if the match was here.
    pub(super) fn given_up(&mut self, id: &str) -> bool {
        let before = self.matches.len();
        self.matches.retain(|(given, _, _)| given != id);
        self.matches.len() < before
    }

    /// Marks all requests as not sent, for a new connection.
    pub(super) fn reconnect(&mut self) {
        self.rooms.iter_mut().for_each(|(_, number)| *number = 0);
        self.matches.iter_mut().for_each(|(_, _, sent)| *sent = false);
    }

    /// Returns the next frame.
    pub(super) fn next_frame(&mut self, requests: &mut RequestCounter) -> Option<Bytes> {
        if let Some((room, number)) = self.rooms.iter_mut().find(|(_, number)| *number == 0) {
            *number = requests.next_number();
            return Some(plain(v1::Kind::Leave, &v1::Leave { room: room.clone(), request: *number }));
        }
        let (id, search, sent) = self.matches.iter_mut().find(|(_, _, sent)| !sent)?;
        *sent = true;
        Some(plain(v1::Kind::Cancel, &v1::Cancel { search: *search, r#match: id.clone() }))
    }
}

impl Client {
    /// Gives up the last match that was reported, also while there is no connection. The player may
    /// be in the room of the match or not; a player in the room leaves it. The request is sent on
    /// every connection until the server has answered, which
    /// [`Event::GivenUp`](super::Event::GivenUp) reports. From then on a search finds another
    /// match. A search that begins before this may end with
    /// [`TicketState::None`](v1::TicketState::None).
    ///
    /// # Errors
    /// [`CommandError::NotMatched`] if no match was reported, or the match was left or given up;
    /// [`CommandError::Undrained`].
    pub fn give_up_match(&mut self, now: Now) -> Result<(), CommandError> {
        self.ready(now)?;
        let known = self.search.live().filter(|(_, room, _)| !self.is_leaving(room));
        let (id, room, search) = known.ok_or(CommandError::NotMatched)?;
        let (id, room) = (String::from(id), String::from(room));
        self.pending_leaves.give_up(id, search);
        self.search.forget_match();
        match self.leave(now, &room) {
            Ok(()) | Err(CommandError::NotInRoom) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns true if the client is leaving the room.
    fn is_leaving(&self, room: &str) -> bool {
        let leaves = |room: &super::room::ClientRoom| matches!(room.phase, RoomPhase::Leaving { .. });
        self.pending_leaves.takes(room) || self.rooms.get(room).is_some_and(leaves)
    }

    /// Returns true if the match is over for the application, while the server may not know yet.
    pub(super) fn is_leaving_match(&self, matched: &v1::Matched) -> bool {
        self.is_leaving(&matched.room)
            || self.pending_leaves.matches.iter().any(|(id, _, _)| *id == matched.r#match)
    }
}
