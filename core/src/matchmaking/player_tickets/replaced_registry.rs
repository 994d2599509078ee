//! Start of the player tickets after the registry was replaced.

use alloc::vec::Vec;

use super::PlayerTickets;
use super::places::Rosters;
use crate::base::id::Name;
use crate::base::time::Now;

impl PlayerTickets {
    /// Starts again with another registry, of which nothing is known. No player is here, this
    /// node is the primary of no room, and answers to open requests are ignored.
    pub fn begin_anew(&mut self, now: Now) {
        self.now = now;
        self.calls.forget();
        self.rosters = Rosters::default();
        for name in self.players.keys().cloned().collect::<Vec<Name>>() {
            self.forget(&name);
        }
        self.rebase();
    }
}
