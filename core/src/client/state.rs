//! The five states of a client, and all transitions between them.

use core::fmt;

/// State of a client on its way to the server (row R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientState {
    /// Not connected; dials only on command.
    Idle,
    /// Dialling, upgrade included.
    Connecting,
    /// `Hello` is sent; `Welcome` and the answer for each room of a resume are received.
    Syncing,
    /// In session. Only in this state the client sends frames other than the handshake, and watches
    /// the silence of the server.
    Connected,
    /// The connection is lost, or a dial failed; the client waits for the end of the back-off.
    Disconnected,
}

/// Cause of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateTransition {
    /// The client has to connect, and nothing prevents the dial.
    Dial,
    /// The connection is open.
    Established,
    /// The server has sent `Welcome`, and has answered for every room.
    Synced,
    /// The connection is lost, for any reason.
    Lost,
    /// The back-off is over, or was cut short.
    BackoffOver,
    /// The application ends the connection, or a reason that another dial would not remove.
    Stop,
}

/// All transitions. A step without a row for a state has no effect in that state.
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
    /// Returns the state after the step; `None` if the step has no effect in this state.
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
