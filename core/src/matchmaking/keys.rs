//! Where matchmaking keeps what in the registry.
//!
//! | key | value | lease |
//! |---|---|---|
//! | `/match/queue/{player}` | `TicketRecord` | of the node that has the session |
//! | `/match/players/{player}` | `NoticeRecord` | none |
//! | `/match/pairs/{match}` | `MatchRecord` | none |
//! | `/match/matcher/{mode}` | `MatcherRecord` | of the matcher's node |
//! | `/match/desks/{node}` | nothing: when it was written counts | of the node |
//!
//! Every node watches tickets and notices, and reads a match when a notice names it: a match
//! with its room is told by the notices of its players, so nobody has to look through those of
//! others. Which node a match is played at is not decided with it: the room's primary is the
//! node whose player comes first, and its record says so.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;

use crate::base::id::{Name, NodeId};
use crate::registry::Span;

const QUEUE: &str = "/match/queue/";
const PLAYERS: &str = "/match/players/";
const PAIRS: &str = "/match/pairs/";
const MATCHER: &str = "/match/matcher/";
const DESKS: &str = "/match/desks/";

/// What the name of a match's room starts with; the match's own name follows.
const ROOM: &str = "match:";

/// The key of a player's ticket.
#[must_use]
pub fn ticket(player: &Name) -> Bytes {
    format!("{QUEUE}{player}").into()
}

/// The keys of all tickets.
#[must_use]
pub fn tickets() -> Span {
    Span::prefix(QUEUE)
}

/// The key of the notice of a player's match.
#[must_use]
pub fn notice(player: &Name) -> Bytes {
    format!("{PLAYERS}{player}").into()
}

/// The keys of all notices and all tickets. They are neighbours, so that one watch tells
/// of both, in the order of revisions: a ticket that is gone and the notice that took its
/// place come together.
#[must_use]
pub fn notices_and_tickets() -> Span {
    let end = Span::prefix(QUEUE).end;
    Span { key: Bytes::from_static(PLAYERS.as_bytes()), end }
}

/// The key of a match. Its name is `id`.
#[must_use]
pub fn pair(id: &str) -> Bytes {
    format!("{PAIRS}{id}").into()
}

/// The keys of all matches.
#[must_use]
pub fn pairs() -> Span {
    Span::prefix(PAIRS)
}

/// The key of the one who forms the matches of a mode.
#[must_use]
pub fn matcher(mode: &Name) -> Bytes {
    format!("{MATCHER}{mode}").into()
}

/// The key that a node writes to make void what it asked before: every ticket that it
/// writes compares when that was.
#[must_use]
pub fn desk(node: NodeId) -> Bytes {
    format!("{DESKS}{node}").into()
}

/// The key of a player's session.
#[must_use]
pub fn session(player: &Name) -> Bytes {
    format!("/sessions/player:{player}").into()
}

/// The key of a room's record.
#[must_use]
pub fn room(room: &str) -> Bytes {
    format!("/rooms/{room}/state").into()
}

/// The name of a match's room.
#[must_use]
pub fn room_of(id: &str) -> String {
    format!("{ROOM}{id}")
}

/// The match whose room has this name; `None` for another room. Whether there is such a match,
/// the registry knows.
#[must_use]
pub fn match_of(room: &str) -> Option<&str> {
    room.strip_prefix(ROOM).filter(|id| !id.is_empty())
}

/// Whose ticket or notice it is; `None` for another key.
#[must_use]
pub fn owner(key: &[u8]) -> Option<(Kind, Name)> {
    let key = core::str::from_utf8(key).ok()?;
    let (kind, name) = match (key.strip_prefix(QUEUE), key.strip_prefix(PLAYERS)) {
        (Some(name), _) => (Kind::Ticket, name),
        (None, Some(name)) => (Kind::Notice, name),
        (None, None) => return None,
    };
    Some((kind, Name::new(name).ok()?))
}

/// What a key of a player holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The ticket.
    Ticket,
    /// The notice.
    Notice,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_players_name_their_owner_and_lie_in_one_span() {
        let ann = Name::new("ann:1").unwrap();
        let span = notices_and_tickets();
        for (key, kind) in [(ticket(&ann), Kind::Ticket), (notice(&ann), Kind::Notice)] {
            assert_eq!(owner(&key), Some((kind, ann.clone())));
            assert!(span.contains(&key));
        }
        assert_eq!(
            (match_of(&room_of("1-1")), match_of("arena"), match_of("match:")),
            (Some("1-1"), None, None)
        );
        assert!(tickets().contains(&ticket(&ann)) && !tickets().contains(&notice(&ann)));
        for other in [pair("1-1"), matcher(&ann), desk(NodeId(7)), session(&ann), room(&room_of("1-1"))] {
            assert_eq!(owner(&other), None);
            assert!(!span.contains(&other), "{other:?}");
        }
    }
}
