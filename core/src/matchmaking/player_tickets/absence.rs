//! Players without a connection, whose sessions wait to be resumed.

use super::player::Player;
use super::{PlayerTickets, STEP};
use crate::base::id::Name;
use crate::base::time::{Deadline, Instant, Now};

/// Absence of a player: the time without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Absence {
    /// Time at which the connection was lost, in Unix milliseconds.
    since_ms: u64,
    /// Time at which the absence must be written into the player's ticket.
    at: Instant,
    /// True if that time has passed.
    is_due: bool,
}

impl PlayerTickets {
    /// Notes that the player's connection is lost, and that its session waits to be resumed. Until
    /// the player arrives again, its ticket must not be matched.
    pub fn lose(&mut self, now: Now, player: &Name) {
        self.now = now;
        let at = now.instant + self.config.absence_delay;
        // A player beyond the maximum, and one without a session here, has no ticket of this node.
        let Some(entry) = self.players.get_mut(player).filter(|entry| !entry.parting) else { return };
        if entry.absence.is_none() {
            // 0 means that the player is present.
            let since_ms = now.wall.0.max(1);
            entry.absence = Some(Absence { since_ms, at, is_due: false });
            self.absences.insert((at, player.clone()));
        }
    }

    /// Ends the absence: the player has a connection, or its session has ended here.
    pub(super) fn end_absence(&mut self, player: &Name) {
        let absence = self.players.get_mut(player).and_then(|entry| entry.absence.take());
        if let Some(Absence { at, is_due: false, .. }) = absence {
            self.absences.remove(&(at, player.clone()));
        }
    }

    /// Starts the writes of the absences that are due.
    pub(super) fn write_absences(&mut self) {
        for _ in 0..STEP {
            let Some((at, player)) = self.absences.first().cloned() else { return };
            if at > self.now.instant {
                return;
            }
            self.absences.remove(&(at, player.clone()));
            let entry = self.players.get_mut(&player);
            let Some(absence) = entry.and_then(|entry| entry.absence.as_mut()) else {
                self.bugs.found("the absence of a player is due that is not absent");
                continue;
            };
            absence.is_due = true;
            self.put_in_line(&player);
        }
    }

    pub(super) fn next_absence(&self) -> Option<Deadline> {
        self.absences.first().map(|(at, _)| Deadline::new(*at, "a player's absence is written"))
    }
}

impl Player {
    /// Returns true if the absence is to be written later.
    pub(super) fn is_absence_awaited(&self) -> bool {
        self.absence.is_some_and(|absence| !absence.is_due)
    }

    /// Returns the start of the absence that the player's ticket must contain, in Unix
    /// milliseconds; 0 if none. `written` is the value in the ticket. An absence that is not due
    /// yet counts only if the ticket is written anyway, or contains an absence already.
    pub(super) fn absent_ms(&self, written: u64, is_written_anyway: bool) -> u64 {
        match self.absence {
            Some(absence) if absence.is_due || is_written_anyway || written != 0 => absence.since_ms,
            _ => 0,
        }
    }
}
