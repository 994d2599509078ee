//! Keys of matchmaking in the registry.
//!
//! | key | value | lease |
//! |---|---|---|
//! | `/match/queue/{player}` | `TicketRecord` | of the node that has the session |
//! | `/match/players/{player}` | `NoticeRecord` | none |
//! | `/match/pairs/{match}` | `MatchRecord` | none |
//! | `/match/matcher/{mode}` | `MatcherRecord` | of the matcher's node |
//! | `/match/desks/{node}` | nothing: only the revision of the write counts | of the node |
//!
//! Every node watches tickets and notices, and reads a match when a notice names the match. The
//! notices of a match's players name its room, so no node has to search the notices of other
//! players. The match does not decide its node: the primary of the room is the node whose player
//! arrives first, as the room's record says.

use alloc::format;
use alloc::string::String;

use bytes::Bytes;

use crate::base::id::{Name, NodeId};
use crate::registry::Span;

const QUEUE: &str = "/match/queue/";
const PLAYERS: &str = "/match/players/";
const MATCHES: &str = "/match/pairs/";
const MATCHER: &str = "/match/matcher/";
const TICKET_FENCES: &str = "/match/desks/";

/// Prefix of the names of match rooms; the name of the match follows.
const ROOM: &str = "match:";

/// Returns the key of a player's ticket.
#[must_use]
pub fn ticket(player: &Name) -> Bytes {
    format!("{QUEUE}{player}").into()
}

/// Returns the span of all tickets.
#[must_use]
pub fn tickets() -> Span {
    Span::prefix(QUEUE)
}

/// Returns the key of the notice of a player's match.
#[must_use]
pub fn notice(player: &Name) -> Bytes {
    format!("{PLAYERS}{player}").into()
}

/// Returns the span of all notices and tickets. They are neighbours, so that one watch reports both
/// in the order of revisions: the deletion of a ticket, and the notice that replaces the ticket,
/// arrive together.
#[must_use]
pub fn notices_and_tickets() -> Span {
    let end = Span::prefix(QUEUE).end;
    Span { key: Bytes::from_static(PLAYERS.as_bytes()), end }
}

/// Returns the key of the match with the name `id`.
#[must_use]
pub fn match_key(id: &str) -> Bytes {
    format!("{MATCHES}{id}").into()
}

/// Returns the span of all matches.
#[must_use]
pub fn matches() -> Span {
    Span::prefix(MATCHES)
}

/// Returns the key of the matcher of a mode.
#[must_use]
pub fn matcher(mode: &Name) -> Bytes {
    format!("{MATCHER}{mode}").into()
}

/// Returns the key that a node writes to make its earlier requests void. Every write of a ticket by
/// the node compares the revision of this key.
#[must_use]
pub fn ticket_fence(node: NodeId) -> Bytes {
    format!("{TICKET_FENCES}{node}").into()
}

/// Returns the key of a player's session.
#[must_use]
pub fn session(player: &Name) -> Bytes {
    format!("/sessions/player:{player}").into()
}

/// Returns the key of a room's record.
#[must_use]
pub fn room(room: &str) -> Bytes {
    format!("/rooms/{room}/state").into()
}

/// Returns the name of a match's room.
#[must_use]
pub fn room_of(id: &str) -> String {
    format!("{ROOM}{id}")
}

/// Returns the match whose room would have this name; `None` for another room. Only the registry
/// knows if the match exists.
#[must_use]
pub fn match_of(room: &str) -> Option<&str> {
    room.strip_prefix(ROOM).filter(|id| !id.is_empty())
}

/// Returns the player whose ticket or notice is at this key; `None` for another key.
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

/// Kind of a player's record.
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
        for other in
            [match_key("1-1"), matcher(&ann), ticket_fence(NodeId(7)), session(&ann), room(&room_of("1-1"))]
        {
            assert_eq!(owner(&other), None);
            assert!(!span.contains(&other), "{other:?}");
        }
    }
}
