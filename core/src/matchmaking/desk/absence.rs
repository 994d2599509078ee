//! Players without a connection, whose sessions wait to be resumed.

use super::player::Player;
use super::{Desk, STEP};
use crate::base::id::Name;
use crate::base::time::{Deadline, Instant, Now};

/// A player's lack of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absence {
    /// When the connection was lost, Unix milliseconds.
    since_ms: u64,
    /// When that is to be written into the player's ticket.
    at: Instant,
    /// Whether that time has come.
    is_due: bool,
}

impl Desk {
    /// The player's connection is lost, and its session waits to be resumed: until the player
    /// arrives again its ticket is not to be matched.
    pub fn lose(&mut self, now: Now, player: &Name) {
        self.now = now;
        let at = now.instant + self.config.absence_delay;
        let Some(entry) = self.players.get_mut(player).filter(|entry| !entry.parting) else { return };
        if entry.absence.is_none() {
            // 0 says that the player is there.
            let since_ms = now.wall.0.max(1);
            entry.absence = Some(Absence { since_ms, at, is_due: false });
            self.absences.insert((at, player.clone()));
        }
    }

    /// The player has a connection, or its session has ended here.
    pub(super) fn end_absence(&mut self, player: &Name) {
        let absence = self.players.get_mut(player).and_then(|entry| entry.absence.take());
        if let Some(Absence { at, is_due: false, .. }) = absence {
            self.absences.remove(&(at, player.clone()));
        }
    }

    /// Has the absences written whose time has come.
    pub(super) fn write_absences(&mut self) {
        for _ in 0..STEP {
            let Some((at, player)) = self.absences.first().cloned() else { return };
            if at > self.now.instant {
                return;
            }
            self.absences.remove(&(at, player.clone()));
            if let Some(absence) = self.players.get_mut(&player).and_then(|entry| entry.absence.as_mut()) {
                absence.is_due = true;
            }
            self.look_at(&player);
        }
    }

    pub(super) fn next_absence(&self) -> Option<Deadline> {
        self.absences.first().map(|(at, _)| Deadline::new(*at, "a player's absence is written"))
    }
}

impl Player {
    /// Whether its absence is to be written later.
    pub(super) fn is_absence_awaited(&self) -> bool {
        self.absence.is_some_and(|absence| !absence.is_due)
    }

    /// Since when the player's ticket is to say that the player is absent, 0 for not at all;
    /// `written` is what it says. A write that nothing else needs waits for its time.
    pub(super) fn absent_ms(&self, written: u64, is_written_anyway: bool) -> u64 {
        match self.absence {
            Some(absence) if absence.is_due || is_written_anyway || written != 0 => absence.since_ms,
            _ => 0,
        }
    }
}
