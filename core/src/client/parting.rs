//! Matches that are over for the application, which the server may not know yet.
//!
//! A server that has not heard of it tells the player of the match again, wherever the player
//! comes. So the room of a match is being left until a [`Left`](v1::Left) answers the `Leave`,
//! over connections and sessions; rooms of which the application was told at the end of its
//! session that it has left them are kept here for that, and so are matches that were given up.
//! Meanwhile the application does not hear of those matches.

use alloc::collections::VecDeque;
use alloc::string::String;

use bytes::Bytes;
use skirmish_proto::v1;

use super::room::RoomPhase;
use super::transmit::plain;
use super::{Client, CommandError};
use crate::base::time::Now;
use crate::matchmaking::keys;

/// Rooms, and matches, that wait for the server's word; of more, the oldest are forgotten. Only
/// the newest can be of a match that goes on: a player is in one.
const MOST: usize = 8;

/// What the server is to be told.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// Rooms of matches, left.
    rooms: VecDeque<(String, Sent)>,
    /// Matches, given up, each with the number of its search.
    matches: VecDeque<(String, u64, Sent)>,
}

/// Whether this connection has carried it.
type Sent = bool;

impl Parting {
    /// The application was told that it has left this room, and the server may not know.
    pub(super) fn left(&mut self, room: &str) {
        if keys::match_of(room).is_some() && !self.takes(room) {
            self.rooms.push_back((room.into(), false));
            if self.rooms.len() > MOST {
                self.rooms.pop_front();
            }
        }
    }

    fn takes(&self, room: &str) -> bool {
        self.rooms.iter().any(|(name, _)| name == room)
    }

    /// The room is left by other means.
    pub(super) fn take_room(&mut self, room: &str) -> bool {
        let before = self.rooms.len();
        self.rooms.retain(|(name, _)| name != room);
        self.rooms.len() < before
    }

    fn give_up(&mut self, id: String, search: u64) {
        self.matches.push_back((id, search, false));
        if self.matches.len() > MOST {
            self.matches.pop_front();
        }
    }

    /// The server has it that the match is given up. Returns whether that was waited for.
    pub(super) fn given_up(&mut self, id: &str) -> bool {
        let before = self.matches.len();
        self.matches.retain(|(given, _, _)| given != id);
        self.matches.len() < before
    }

    /// A new connection has carried nothing yet.
    pub(super) fn reconnect(&mut self) {
        self.rooms.iter_mut().for_each(|(_, sent)| *sent = false);
        self.matches.iter_mut().for_each(|(_, _, sent)| *sent = false);
    }

    /// The next frame.
    pub(super) fn next_frame(&mut self) -> Option<Bytes> {
        if let Some((room, sent)) = self.rooms.iter_mut().find(|(_, sent)| !sent) {
            *sent = true;
            return Some(plain(v1::Kind::Leave, &v1::Leave { room: room.clone() }));
        }
        let (id, search, sent) = self.matches.iter_mut().find(|(_, _, sent)| !sent)?;
        *sent = true;
        Some(plain(v1::Kind::Cancel, &v1::Cancel { search: *search, r#match: id.clone() }))
    }
}

impl Client {
    /// Gives up the match that was told last, whether the player is in its room or not; also
    /// while there is no connection. If it is in the room, it leaves that. The server is told on
    /// every connection until it has taken that in, which [`Event::GivenUp`](super::Event::GivenUp)
    /// says; from then on a search finds another match. A search that is begun before the
    /// match is given up may end with [`TicketState::None`](v1::TicketState::None).
    ///
    /// # Errors
    /// [`CommandError::NotMatched`] if no match was told, or it was left or given up;
    /// [`CommandError::Undrained`].
    pub fn give_up_match(&mut self, now: Now) -> Result<(), CommandError> {
        self.ready(now)?;
        let known = self.search.live().filter(|(_, room, _)| !self.is_leaving(room));
        let (id, room, search) = known.ok_or(CommandError::NotMatched)?;
        let (id, room) = (String::from(id), String::from(room));
        self.parting.give_up(id, search);
        self.search.forget_match();
        match self.leave(now, &room) {
            Ok(()) | Err(CommandError::NotInRoom) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the room is being left.
    fn is_leaving(&self, room: &str) -> bool {
        let leaves = |room: &super::room::ClientRoom| matches!(room.phase, RoomPhase::Leaving { .. });
        self.parting.takes(room) || self.rooms.get(room).is_some_and(leaves)
    }

    /// Whether the match is over for the application, and the server may not know yet.
    pub(super) fn is_parting(&self, matched: &v1::Matched) -> bool {
        self.is_leaving(&matched.room) || self.parting.matches.iter().any(|(id, _, _)| *id == matched.r#match)
    }
}
