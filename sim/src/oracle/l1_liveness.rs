//! L1: after the last fault, within the stated bound, every client is connected and a member of
//! each room that the client wants to be in, every message has an outcome, and every client has
//! every entry that another client has.

use skirmish_core::client::ClientState;
use skirmish_core::id::Cursor;

use super::{Guarantee, Verdict, broken};

/// Progress of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientProgress {
    /// The client's number.
    pub client: usize,
    /// State of the client's machine.
    pub state: ClientState,
    /// Messages without outcome, as the application counts them.
    pub open: usize,
    /// Messages without outcome, as the machine counts them.
    pub outstanding: usize,
    /// Rooms that the client wants to be in.
    pub rooms: Vec<RoomProgress>,
}

/// Progress of a client in one room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomProgress {
    /// The room's name.
    pub room: String,
    /// True if the client was notified that it is a member.
    pub member: bool,
    /// The client's cursor.
    pub cursor: Option<Cursor>,
    /// The furthest cursor of any client.
    pub newest: Option<Cursor>,
}

/// Checks that the client has everything that was promised.
///
/// # Errors
/// If something is missing; the verdict names the first such thing.
pub fn satisfied(standing: &ClientProgress) -> Verdict {
    let client = standing.client;
    if standing.state != ClientState::Connected {
        return unmet(format_args!("client {client} is {:?}, not Connected", standing.state));
    }
    for place in &standing.rooms {
        if !place.member {
            return unmet(format_args!("client {client} has no answer to its wish to join {}", place.room));
        }
        let behind = place.newest.is_some_and(|newest| place.cursor.is_none_or(|at| at < newest));
        if behind {
            return unmet(format_args!(
                "client {client} is at {:?} of {}, others at {:?}",
                place.cursor, place.room, place.newest
            ));
        }
    }
    if standing.outstanding > 0 {
        return unmet(format_args!("{} messages of client {client} have no outcome", standing.outstanding));
    }
    if standing.open > 0 {
        return unmet(format_args!(
            "client {client} never told the outcome of {} messages that it no longer keeps",
            standing.open
        ));
    }
    Ok(())
}

/// Checks a node's connection over which nothing has arrived for `dead_for` microseconds. The
/// node's heartbeat has to find this out `within` the given time.
///
/// # Errors
/// If the heartbeat has not found this out in time.
pub fn found_out(node: usize, client: usize, dead_for: u64, within: u64) -> Verdict {
    if dead_for > within {
        return unmet(format_args!(
            "node {node} has a connection of client {client} that has been dead for {} ms",
            dead_for / 1_000
        ));
    }
    Ok(())
}

/// Checks a client's connection that the client takes for alive, and over which nothing has arrived
/// for `dead_for` microseconds. The client's pings have to find this out `within` the given time.
///
/// # Errors
/// If the pings have not found this out in time.
pub fn deaf_to(client: usize, node: usize, dead_for: u64, within: u64) -> Verdict {
    if dead_for > within {
        return unmet(format_args!(
            "client {client} has a connection to node {node} over which nothing has come for {} ms",
            dead_for / 1_000
        ));
    }
    Ok(())
}

/// Checks a node that gives a client up for silence, or gives up the client's session. `waits_for`
/// is the time, in microseconds, for which input of the client has been waiting there to be read.
///
/// # Errors
/// If any input waits.
pub fn heard_first(node: usize, client: usize, given_up: &str, waits_for: Option<u64>) -> Verdict {
    match waits_for {
        Some(micros) => unmet(format_args!(
            "node {node} has given up client {client} ({given_up}), of whom something had waited there for {} ms",
            micros / 1_000
        )),
        None => Ok(()),
    }
}

fn unmet(description: std::fmt::Arguments<'_>) -> Verdict {
    broken(Guarantee::Liveness, description)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing() -> ClientProgress {
        let cursor = Some(Cursor { epoch: 1, seq: 4 });
        let place = RoomProgress { room: "room-0".into(), member: true, cursor, newest: cursor };
        ClientProgress {
            client: 0,
            state: ClientState::Connected,
            open: 0,
            outstanding: 0,
            rooms: vec![place],
        }
    }

    #[test]
    fn a_dead_connection_that_is_not_found_out_is_caught() {
        assert!(found_out(0, 1, 5_000, 5_000).is_ok());
        assert!(found_out(0, 1, 5_001, 5_000).is_err());
        assert!(deaf_to(1, 0, 5_000, 5_000).is_ok());
        assert!(deaf_to(1, 0, 5_001, 5_000).is_err());
    }

    #[test]
    fn whoever_is_given_up_unheard_is_told_of() {
        assert!(heard_first(0, 1, "HandshakeTimeout", None).is_ok());
        assert!(heard_first(0, 1, "HandshakeTimeout", Some(0)).is_err());
    }

    #[test]
    fn each_condition_is_demanded() {
        assert!(satisfied(&standing()).is_ok());
        assert!(satisfied(&ClientProgress { state: ClientState::Syncing, ..standing() }).is_err());
        assert!(satisfied(&ClientProgress { open: 1, ..standing() }).is_err());
        assert!(satisfied(&ClientProgress { outstanding: 1, ..standing() }).is_err());
        let mut behind = standing();
        behind.rooms[0].newest = Some(Cursor { epoch: 1, seq: 5 });
        assert!(satisfied(&behind).is_err());
        let mut outside = standing();
        outside.rooms[0].member = false;
        assert!(satisfied(&outside).is_err());
    }
}
