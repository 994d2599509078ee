//! What a node tells its driver.

use alloc::string::String;
use core::panic::Location;

use bytes::Bytes;
use skirmish_proto::v1;

use super::LinkClosure;
use super::{Passage, Trace};
use crate::base::id::{Address, ConnId, LinkId, Name, NodeId};
use crate::base::time::Duration;
use crate::node::clocks::ClockVerdict;
use crate::registrar::Anew;
use crate::registry::RegistryCommand;

/// Why a connection is refused before there is any state for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node has as many connections as it may.
    Full,
    /// The address has as many connections as it may.
    AddressFull,
    /// Too many connections have not said `Hello` yet, and no address has more than this one.
    TooManyUnauthenticated,
    /// The node is about to stop.
    Draining,
    /// The address connects too often; the time until it may again.
    TooFast(Duration),
    /// The node has not compared its wall clock with those of the others yet.
    ClockUnknown,
    /// The node's wall clock is off.
    ClockOff,
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "the server is full",
            Self::AddressFull => "too many connections from this address",
            Self::TooManyUnauthenticated => "too many connections are waiting to authenticate",
            Self::Draining => "the server is about to stop",
            Self::TooFast(_) => "this address connects too often (rates.logins_per_address)",
            Self::ClockUnknown => "the server is starting and compares its clock with other nodes: try again",
            Self::ClockOff => {
                "the clock of this server is off, it serves nobody: try another one; its operator has to synchronize it (NTP, chrony)"
            }
        })
    }
}

impl core::error::Error for Refusal {}

/// Whom the upgrade's token named.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The player.
    pub player: Name,
    /// The token itself: if `Hello` has one, it must be the same.
    pub token: Bytes,
    /// The trace that the upgrade named, or a fresh one.
    pub trace: Trace,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Ask `poll_transmit` for this connection until it has nothing or the socket is full.
    Wake(ConnId),
    /// The connection [is not held](super::Node::is_held) any more: read on.
    Resume(ConnId),
    /// Send what `poll_transmit` still has, close the connection, and call
    /// `handle_closed`. Its input is ignored from now on.
    Close(ConnId, v1::Reason),
    /// Drop the connection at once: it did not let itself be closed, and the node has
    /// forgotten it.
    Abort(ConnId),
    /// Ask the registry; every request is answered with
    /// [`Node::handle_registry_event`](super::Node::handle_registry_event).
    Registry(RegistryCommand),
    /// Connect to another node, and call `handle_link` or `handle_dial_failed`.
    Dial {
        /// Which.
        node: NodeId,
        /// Where: "host:port", as that node says.
        address: String,
    },
    /// Ask `poll_link_transmit` for this link until it has nothing or the socket is full.
    WakeLink(LinkId),
    /// Drop the link at once, for this reason; the node has forgotten it.
    CloseLink(LinkId, LinkClosure),
    /// Tell whoever wants to know.
    Event(Event),
}

/// What is wrong with what a peer has sent, as far as the close code of its WebSocket tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is larger than the limits.
    Size,
    /// It is no binary message.
    Type,
    /// Anything else.
    Protocol,
}

/// What happened: for logs, metrics, the audit, and the application.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A player has a new session.
    SessionOpened {
        /// Its connection.
        conn: ConnId,
        /// Its player.
        player: Name,
        /// Its epoch.
        epoch: u64,
    },
    /// A session has a new connection.
    SessionResumed {
        /// The new connection.
        conn: ConnId,
        /// The session's player.
        player: Name,
        /// Its new epoch.
        epoch: u64,
    },
    /// A session is gone, and its memberships with it. `REASON_UNSPECIFIED` if it
    /// was without a connection for too long.
    SessionEnded {
        /// Its player.
        player: Name,
        /// Why.
        reason: v1::Reason,
    },
    /// A session has lost its connection; it is kept for a while.
    ConnectionLost {
        /// The connection.
        conn: ConnId,
        /// The session's player.
        player: Name,
        /// The trace that the connection belonged to; the node has forgotten it.
        trace: Trace,
    },
    /// A connection that had not said `Hello` was dropped, since another needed its place.
    Displaced {
        /// The connection.
        conn: ConnId,
        /// The address that it was counted for.
        address: Address,
    },
    /// A connection misses heartbeats.
    Unhealthy {
        /// The connection.
        conn: ConnId,
    },
    /// A peer broke the protocol or its limits; its connection is being closed.
    Misbehaved {
        /// The connection.
        conn: ConnId,
        /// How.
        what: String,
        /// What kind of wrong that is.
        wrong: Wrong,
    },
    /// A room was made.
    RoomOpened {
        /// Its name.
        room: Name,
        /// Which life of it this is.
        epoch: u64,
    },
    /// The last member left a room, and it is gone.
    RoomClosed {
        /// Its name.
        room: Name,
        /// Which life of it this was.
        epoch: u64,
    },
    /// The registry confirms that this node lives: it serves the rooms that it leads.
    Serving,
    /// The registry has not confirmed for so long that this node lives that another might
    /// take its rooms: it takes nothing for them until it hears.
    NotServing,
    /// The registry was restored, wiped or replaced: every session and every room of this
    /// node is over, and it begins anew.
    Anew {
        /// What shows it.
        why: Anew,
    },
    /// The node has compared its wall clock with those of the others: while it does not agree
    /// with them, the node lets nobody in.
    ClockJudged {
        /// The verdict on the node's clock.
        verdict: ClockVerdict,
    },
    /// The registry names another node.
    NodeUp {
        /// Which.
        node: NodeId,
    },
    /// The registry does not name a node any more: it is dead.
    NodeDown {
        /// Which.
        node: NodeId,
    },
    /// This node forms the matches of a mode from now on.
    Elected {
        /// The mode.
        mode: Name,
        /// The revision at which it was elected.
        epoch: u64,
    },
    /// It does not any more.
    Deposed {
        /// The mode.
        mode: Name,
    },
    /// This node has filled free places of a match that goes on.
    MatchFilled {
        /// Its name.
        id: String,
        /// The mode.
        mode: Name,
        /// The team.
        team: u8,
        /// How many come.
        players: usize,
        /// What let them.
        explanation: String,
    },
    /// This node has formed a match.
    MatchFormed {
        /// Its name.
        id: String,
        /// The mode.
        mode: Name,
        /// How many play.
        players: usize,
        /// Per mille.
        quality: u16,
        /// What let it form.
        explanation: String,
    },
    /// A ticket has ended without a match.
    TicketEnded {
        /// Whose.
        player: Name,
        /// The mode.
        mode: Name,
        /// How.
        state: v1::TicketState,
    },
    /// Players are out of a match since they did not come.
    PlayersMissed {
        /// The match's name.
        id: String,
        /// The mode.
        mode: Name,
        /// How many did not come.
        players: usize,
        /// Too few came: the match is over before it has begun.
        over: bool,
    },
    /// A match is over.
    MatchEnded {
        /// Its name.
        id: String,
        /// Whether it was since nobody had its room; else all players had left it.
        abandoned: bool,
    },
    /// A link is up.
    LinkUp {
        /// Where it leads.
        node: NodeId,
    },
    /// A link is gone.
    LinkDown {
        /// Where it led.
        node: NodeId,
    },
    /// A traced message of a room has passed this node (row T1).
    Passed {
        /// The room.
        room: Name,
        /// What was done with it.
        passage: Passage,
        /// The trace.
        trace: Trace,
    },
    /// A message for the application, to be answered with [`Node::send`](super::Node::send).
    Application {
        /// The sender's connection.
        conn: ConnId,
        /// The sender.
        player: Name,
        /// What the payload is.
        type_url: String,
        /// The message.
        payload: Bytes,
        /// The trace it belongs to.
        trace: Trace,
    },
    /// The node has found an invariant of its own broken, for the first time at this place. It
    /// goes on without the step that has found it.
    Bug {
        /// The broken invariant.
        what: &'static str,
        /// The place in the source that has found it.
        place: &'static Location<'static>,
    },
}

/// Gauges, and counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Gauge: connections of every phase.
    pub connections: usize,
    /// Gauge: connections without a session yet.
    pub unauthenticated: usize,
    /// Gauge: connections that are being closed.
    pub closing: usize,
    /// Gauge: connections that miss heartbeats.
    pub unhealthy: usize,
    /// Gauge: sessions.
    pub sessions: usize,
    /// Gauge: sessions without a connection.
    pub detached: usize,
    /// Gauge: rooms.
    pub rooms: usize,
    /// Gauge: members of rooms that this node leads.
    pub members: usize,
    /// Gauge: links that are up or on their way.
    pub links: usize,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused for a cap.
    pub refused: u64,
    /// Log-ins refused for their rate, by address or by player.
    pub logins_limited: u64,
    /// Connections dropped before their `Hello`, since another needed their place.
    pub displaced: u64,
    /// Frames taken.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames handed out.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Reliable messages appended.
    pub entries: u64,
    /// Entries handed out, one for each member.
    pub deliveries: u64,
    /// Snapshots for members that fell out of a window.
    pub snapshots: u64,
    /// Latest messages taken.
    pub latest: u64,
    /// Latest messages that replaced one.
    pub conflated: u64,
    /// Frames of a kind or type that is not known here.
    pub unsupported: u64,
    /// Messages not taken for their rate.
    pub throttled: u64,
    /// Pauses of connections that were faster than their limits.
    pub pauses: u64,
    /// Reliable messages that came again.
    pub duplicates: u64,
    /// Connections closed because a newer one of the player came.
    pub takeovers: u64,
    /// Sessions resumed.
    pub resumes: u64,
    /// Sessions that ended because nobody resumed them.
    pub expiries: u64,
    /// Connections closed for breaking the protocol.
    pub protocol_errors: u64,
    /// Connections closed for missing heartbeats.
    pub heartbeat_timeouts: u64,
    /// Connections closed for not saying `Hello` in time.
    pub handshake_timeouts: u64,
    /// Writes to a room's state that were refused for their clock.
    pub clock_refusals: u64,
    /// Writes to a room's state that found it full.
    pub state_full: u64,
    /// Rooms that another node took, or that vanished from the registry.
    pub rooms_lost: u64,
    /// Times that this node had to stop serving until the registry answered again.
    pub suspensions: u64,
    /// Times that this node had to turn everybody away since its wall clock was off.
    pub clock_stops: u64,
    /// Messages that another node passed on for a session which it had lost.
    pub fenced: u64,
    /// Requests of other nodes for a room that this node does not lead in that epoch.
    pub refused_epochs: u64,
    /// Joins that asked the registry again, as the room's life had ended before they were in it.
    pub joins_retried: u64,
    /// Matches that this node has formed.
    pub matches: u64,
    /// Frames taken from links.
    pub link_frames_in: u64,
    /// Frames handed out to links.
    pub link_frames_out: u64,
    /// Invariants of the node itself that were found broken: none, if the program is right.
    pub bugs: u64,
}
