//! Matches that are over for a client, as it was told.

use skirmish_core::matchmaking::keys;
use skirmish_proto::v1;

use super::{Matches, Verdict, unlike};

impl Matches {
    /// A client was told that it is not in a room: if it has left the room of a match, or was
    /// put out of it, it is out of the match. What is gone or full it has not left. Returns
    /// whether it was the room of a match that has formed.
    pub fn left(&mut self, client: usize, room: &str, reason: v1::LeftReason) -> bool {
        let is_out = matches!(reason, v1::LeftReason::Asked | v1::LeftReason::Kicked);
        let id = keys::match_of(room).filter(|id| is_out && self.formed.contains_key(*id));
        id.is_some_and(|id| self.parted.insert((client, id.to_owned())))
    }

    /// A client was told that it has given up a match.
    ///
    /// # Errors
    /// If there never was such a match.
    pub fn given_up(&mut self, client: usize, id: &str) -> Verdict {
        if !self.formed.contains_key(id) {
            return unlike(format_args!("client {client} has given up match {id}, which was never formed"));
        }
        self.parted.insert((client, id.to_owned()));
        Ok(())
    }
}
