//! Matches that are over for a client, as the client was notified.

use skirmish_core::matchmaking::keys;
use skirmish_proto::v1;

use super::{Matches, Verdict, unlike};

impl Matches {
    /// Observes that a client was notified that it is not in a room. A client that has left the
    /// room of a match, or was put out of the room, is out of the match. A client whose room is
    /// gone or full has not left it. Returns true if the client thereby left a match that was
    /// formed, for the first time.
    pub fn left(&mut self, client: usize, room: &str, reason: v1::LeftReason) -> bool {
        let is_out = matches!(reason, v1::LeftReason::Asked | v1::LeftReason::Kicked);
        let id = keys::match_of(room).filter(|id| is_out && self.formed.contains_key(*id));
        id.is_some_and(|id| self.left.insert((client, id.to_owned())))
    }

    /// Observes that a client was notified that it has given up a match.
    ///
    /// # Errors
    /// If no such match was ever formed.
    pub fn given_up(&mut self, client: usize, id: &str) -> Verdict {
        if !self.formed.contains_key(id) {
            return unlike(format_args!("client {client} has given up match {id}, which was never formed"));
        }
        self.left.insert((client, id.to_owned()));
        Ok(())
    }
}
