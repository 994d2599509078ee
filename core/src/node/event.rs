//! Outputs, events and counters of a node, for its driver.

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

/// Reasons to refuse a connection before the node keeps any state for that connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node has reached its cap on connections.
    Full,
    /// The address has reached its cap on connections.
    AddressFull,
    /// Too many connections have not said `Hello` yet, and no address has more of them than this
    /// one.
    TooManyUnauthenticated,
    /// The node is about to stop.
    Draining,
    /// The address connects too often. The field is the time until its next connection is allowed.
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

/// Player that the token of an upgrade proves, with that token.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The player.
    pub player: Name,
    /// The token itself. A token in `Hello` must be the same.
    pub token: Bytes,
    /// The trace that the upgrade named, or a fresh one.
    pub trace: Trace,
}

/// Tasks for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Call `poll_transmit` for this connection until that returns `None` or the socket is full.
    Wake(ConnId),
    /// The connection [is not held](super::Node::is_held) any more: read on.
    Resume(ConnId),
    /// Send the frames that `poll_transmit` still returns, close the connection, and call
    /// `handle_closed`. The node ignores further input of the connection.
    Close(ConnId, v1::Reason),
    /// Drop the connection at once: its orderly close took too long, and the node has forgotten the
    /// connection.
    Abort(ConnId),
    /// Send a request to the registry; every request is answered with
    /// [`Node::handle_registry_event`](super::Node::handle_registry_event).
    Registry(RegistryCommand),
    /// Connect to another node, and call `handle_link` or `handle_dial_failed`.
    Dial {
        /// The node to dial.
        node: NodeId,
        /// Address from that node's record in the registry: "host:port".
        address: String,
        /// Time after which the dial has failed, if no connection is made until then.
        limit: Duration,
    },
    /// Call `poll_link_transmit` for this link until that returns `None` or the socket is full.
    WakeLink(LinkId),
    /// Drop the link at once, for this reason; the node has forgotten it.
    CloseLink(LinkId, LinkClosure),
    /// Report an event.
    Event(Event),
}

/// Kinds of violations by a peer, as far as the close code of the WebSocket tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A message is larger than the limits.
    Size,
    /// A message is not binary.
    Type,
    /// Anything else.
    Protocol,
}

/// Events for logs, metrics, the audit, and the application.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A player has a new session.
    SessionOpened {
        /// Connection of the session.
        conn: ConnId,
        /// Player of the session.
        player: Name,
        /// Epoch of the session.
        epoch: u64,
    },
    /// A session has a new connection.
    SessionResumed {
        /// The new connection.
        conn: ConnId,
        /// The session's player.
        player: Name,
        /// Epoch of the session.
        epoch: u64,
    },
    /// A session was claimed again, since another node had claimed it for an older connection.
    SessionKept {
        /// Connection of the session, if there is one.
        conn: Option<ConnId>,
        /// The session's player.
        player: Name,
        /// New epoch of the session.
        epoch: u64,
    },
    /// A session has ended, and its memberships with it. The reason is `REASON_UNSPECIFIED` if the
    /// session was without a connection for too long.
    SessionEnded {
        /// Player of the session.
        player: Name,
        /// Reason for the end.
        reason: v1::Reason,
    },
    /// A session has lost its connection. The node keeps the session for a while.
    ConnectionLost {
        /// The connection.
        conn: ConnId,
        /// The session's player.
        player: Name,
        /// Trace of the connection, which the node has forgotten.
        trace: Trace,
    },
    /// A connection that had not said `Hello` was dropped, since another needed its place.
    Displaced {
        /// The connection.
        conn: ConnId,
        /// Address that the connection was counted for.
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
        /// Description of the violation.
        what: String,
        /// Kind of the violation.
        wrong: Wrong,
    },
    /// A room was made.
    RoomOpened {
        /// Name of the room.
        room: Name,
        /// Epoch of the room.
        epoch: u64,
    },
    /// The last member left a room, and the room is closed.
    RoomClosed {
        /// Name of the room.
        room: Name,
        /// Epoch of the room.
        epoch: u64,
    },
    /// This node, the backup of a room, has become the room's primary.
    TookOver {
        /// Name of the room.
        room: Name,
        /// Epoch of the room.
        epoch: u64,
        /// Term of this node.
        term: u32,
    },
    /// Another node has become the primary of a room that this node led.
    SteppedDown {
        /// Name of the room.
        room: Name,
        /// Epoch of the room.
        epoch: u64,
        /// Term of the other node.
        term: u32,
    },
    /// The registry confirms that this node lives. The node serves the rooms that it leads.
    Serving,
    /// The registry has not confirmed for a long time that this node lives, and another node might
    /// claim its rooms. Until the next confirmation this node accepts nothing for these rooms.
    NotServing,
    /// The registry was restored, wiped or replaced. Every session and every room of this node is
    /// over, and the node starts anew.
    Anew {
        /// Evidence that the registry's data is not the known one.
        why: Anew,
    },
    /// The node has compared its wall clock with those of the others. It accepts no clients while
    /// its clock does not agree with theirs.
    ClockJudged {
        /// The verdict on the node's clock.
        verdict: ClockVerdict,
    },
    /// The registry names another node.
    NodeUp {
        /// The other node.
        node: NodeId,
    },
    /// The registry does not name a node any more. Without a link that node is dead.
    NodeDown {
        /// The other node.
        node: NodeId,
        /// True if the link to the node works: it is kept, with the rooms that are followed there.
        is_linked: bool,
    },
    /// This node forms the matches of a mode from now on.
    Elected {
        /// The mode.
        mode: Name,
        /// Revision of the registry at which this node was elected.
        epoch: u64,
    },
    /// This node does not form the matches of a mode any more.
    Deposed {
        /// The mode.
        mode: Name,
    },
    /// This node has filled free places of a match in progress.
    MatchFilled {
        /// Name of the match.
        id: String,
        /// The mode.
        mode: Name,
        /// The team.
        team: u8,
        /// Number of players added.
        players: usize,
        /// Description of the rule that let the players in.
        explanation: String,
    },
    /// This node has formed a match.
    MatchFormed {
        /// Name of the match.
        id: String,
        /// The mode.
        mode: Name,
        /// Number of players.
        players: usize,
        /// Quality of the match, per mille.
        quality: u16,
        /// Description of the rules that let the match form.
        explanation: String,
    },
    /// A ticket has ended without a match.
    TicketEnded {
        /// Player of the ticket.
        player: Name,
        /// The mode.
        mode: Name,
        /// Last state of the ticket.
        state: v1::TicketState,
    },
    /// Players were removed from a match since they did not join its room.
    PlayersMissed {
        /// The match's name.
        id: String,
        /// The mode.
        mode: Name,
        /// Number of players that did not join.
        players: usize,
        /// True if too few players joined: the match is over before its start.
        over: bool,
    },
    /// A match is over.
    MatchEnded {
        /// Name of the match.
        id: String,
        /// True if no node had the room of the match; false if all players had left the match.
        abandoned: bool,
    },
    /// A link is up.
    LinkUp {
        /// Node at the other end.
        node: NodeId,
    },
    /// A link is gone.
    LinkDown {
        /// Node at the other end.
        node: NodeId,
    },
    /// A traced message of a room has passed this node (row T1).
    Passed {
        /// The room.
        room: Name,
        /// Treatment of the message.
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
        /// Type of the payload.
        type_url: String,
        /// The message.
        payload: Bytes,
        /// Trace of the message.
        trace: Trace,
    },
    /// The node has found one of its own invariants broken, for the first time at this place. It
    /// skips the step that found the bug, and continues.
    Bug {
        /// The broken invariant.
        what: &'static str,
        /// Place in the source that found the broken invariant.
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
    /// Gauge: links that are up or being set up.
    pub links: usize,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused because of a cap.
    pub refused: u64,
    /// Log-ins refused because of their rate, by address or by player.
    pub logins_limited: u64,
    /// Connections dropped before their `Hello` to make room for others.
    pub displaced: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Bytes of the frames received.
    pub bytes_in: u64,
    /// Frames sent: handed to the driver.
    pub frames_out: u64,
    /// Bytes of the frames sent.
    pub bytes_out: u64,
    /// Reliable messages appended.
    pub entries: u64,
    /// Entries sent, counted for each member.
    pub deliveries: u64,
    /// Snapshots for members that fell out of a window.
    pub snapshots: u64,
    /// Latest messages accepted.
    pub latest: u64,
    /// Latest messages that replaced an older one.
    pub conflated: u64,
    /// Frames of an unknown kind or type.
    pub unsupported: u64,
    /// Messages refused because of their rate.
    pub throttled: u64,
    /// Pauses of connections that exceeded their limits.
    pub pauses: u64,
    /// Reliable messages received again.
    pub duplicates: u64,
    /// Connections closed because a newer connection of the player took the session over.
    pub takeovers: u64,
    /// Sessions resumed.
    pub resumes: u64,
    /// Sessions that ended because no client resumed them.
    pub expiries: u64,
    /// Connections closed for breaking the protocol.
    pub protocol_errors: u64,
    /// Connections closed for missing heartbeats.
    pub heartbeat_timeouts: u64,
    /// Connections closed for not sending `Hello` in time.
    pub handshake_timeouts: u64,
    /// Writes to a room's state that were refused because of their clock.
    pub clock_refusals: u64,
    /// Writes to a room's state that were refused because the state was full.
    pub state_full: u64,
    /// Rooms that another node claimed, or that vanished from the registry.
    pub rooms_lost: u64,
    /// Suspensions: times that this node stopped serving until the registry answered again.
    pub suspensions: u64,
    /// Times that this node closed all connections since its wall clock was off.
    pub clock_stops: u64,
    /// Messages relayed by another node for a session that this other node had lost.
    pub fenced: u64,
    /// Requests of other nodes for a room that this node does not lead in that epoch.
    pub refused_epochs: u64,
    /// Joins that asked the registry again, since the room's epoch had ended before the player was
    /// a member.
    pub joins_retried: u64,
    /// Rooms that this node, as the backup, has gone on with.
    pub rooms_taken_over: u64,
    /// Times that this node gave a room's backup up since its state differed from that of the primary.
    pub backups_diverged: u64,
    /// Matches that this node has formed.
    pub matches: u64,
    /// Frames received from links.
    pub link_frames_in: u64,
    /// Links dropped since too much waited for them.
    pub link_overflows: u64,
    /// Frames sent on links: handed to the driver.
    pub link_frames_out: u64,
    /// Broken invariants found in the node itself; 0 in a correct program.
    pub bugs: u64,
}
