//! The five states of a client and every way between them.

use core::fmt;

/// Where a client is on its way to the server (row R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientState {
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
pub(super) enum StateTransition {
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
pub(super) const TRANSITIONS: [(ClientState, StateTransition, ClientState); 11] = [
    (ClientState::Idle, StateTransition::Dial, ClientState::Connecting),
    (ClientState::Connecting, StateTransition::Established, ClientState::Syncing),
    (ClientState::Connecting, StateTransition::Lost, ClientState::Disconnected),
    (ClientState::Connecting, StateTransition::Stop, ClientState::Idle),
    (ClientState::Syncing, StateTransition::Synced, ClientState::Connected),
    (ClientState::Syncing, StateTransition::Lost, ClientState::Disconnected),
    (ClientState::Syncing, StateTransition::Stop, ClientState::Idle),
    (ClientState::Connected, StateTransition::Lost, ClientState::Disconnected),
    (ClientState::Connected, StateTransition::Stop, ClientState::Idle),
    (ClientState::Disconnected, StateTransition::BackoffOver, ClientState::Idle),
    (ClientState::Disconnected, StateTransition::Stop, ClientState::Idle),
];

impl ClientState {
    /// The state after the step; `None` if the step does nothing here.
    pub(super) fn after(self, step: StateTransition) -> Option<Self> {
        TRANSITIONS.iter().find(|(from, by, _)| *from == self && *by == step).map(|(_, _, to)| *to)
    }
}

impl fmt::Display for ClientState {
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
