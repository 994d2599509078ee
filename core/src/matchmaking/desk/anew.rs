//! The desk when the registry is another one.

use alloc::vec::Vec;

use super::Desk;
use crate::id::Name;
use crate::time::Now;

impl Desk {
    /// The registry is another one, and nothing is known of it: no player is here, and what
    /// is under way counts no more.
    pub fn begin_anew(&mut self, now: Now) {
        self.now = now;
        self.caller.forget();
        for name in self.players.keys().cloned().collect::<Vec<Name>>() {
            self.forget(&name);
        }
        self.rebase();
    }
}
