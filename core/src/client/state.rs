//! The five states of a client and every way between them.

use core::fmt;

/// Where a client is on its way to the server (row R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Not connected, and not about to be, unless told to.
    Idle,
    /// Dialling, upgrade included.
    Connecting,
    /// `Hello` goes out; `Welcome` and the answer for each room of a resume come in.
    Syncing,
    /// In session. Only now frames other than the handshake are sent and the silence of
    /// the server is watched.
    Connected,
    /// The connection is lost, or a dial failed; waits out the back-off.
    Disconnected,
}

/// What moves a client from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The client wants to be connected, and nothing keeps it from dialling.
    Dial,
    /// The connection is open.
    Established,
    /// The server welcomed the client and answered for every room.
    Synced,
    /// The connection is lost, whoever's doing it is.
    Lost,
    /// The back-off is over, or is cut short.
    BackoffOver,
    /// The application, or a reason that a dial would not cure, ends the connection.
    Stop,
}

/// Every transition there is. A step that has no row for a state does nothing in it.
pub(super) const TRANSITIONS: [(State, Step, State); 11] = [
    (State::Idle, Step::Dial, State::Connecting),
    (State::Connecting, Step::Established, State::Syncing),
    (State::Connecting, Step::Lost, State::Disconnected),
    (State::Connecting, Step::Stop, State::Idle),
    (State::Syncing, Step::Synced, State::Connected),
    (State::Syncing, Step::Lost, State::Disconnected),
    (State::Syncing, Step::Stop, State::Idle),
    (State::Connected, Step::Lost, State::Disconnected),
    (State::Connected, Step::Stop, State::Idle),
    (State::Disconnected, Step::BackoffOver, State::Idle),
    (State::Disconnected, Step::Stop, State::Idle),
];

impl State {
    /// The state after the step; `None` if the step does nothing here.
    pub(super) fn after(self, step: Step) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| *from == self && *by == step).map(|(_, _, to)| *to)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_was_reviewed_and_each_step_leads_to_one_state() {
        crate::transitions::check(&TRANSITIONS, include_str!("transitions.txt"));
    }
}
