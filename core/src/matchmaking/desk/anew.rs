//! The desk when the registry is another one.

use alloc::vec::Vec;

use super::Desk;
use super::places::Rosters;
use crate::base::id::Name;
use crate::base::time::Now;

impl Desk {
    /// The registry is another one, and nothing is known of it: no player is here, this
    /// node is the primary of no room, and answers to requests under way are ignored.
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
