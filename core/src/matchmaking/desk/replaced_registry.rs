//! Start of the desk after the registry was replaced.

use alloc::vec::Vec;

use super::Desk;
use super::places::Rosters;
use crate::base::id::Name;
use crate::base::time::Now;

impl Desk {
    /// Starts again with another registry, of which the desk knows nothing. No player is here, this
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
