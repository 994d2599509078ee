//! Decoding of frames to messages, by kind and direction (row W4).

use alloc::string::String;

use bytes::Bytes;
use prost::Message;
use skirmish_proto::v1::{self, Kind};

use super::repeated_fields::{self, MAX_ITEMS};
use super::{FLAG_SEALED, FLAG_ZSTD, Frame, WireError};

/// Maximum length of a `type_url`, in bytes. A longer one is refused.
pub const MAX_TYPE_URL: usize = 256;
/// Maximum length of `Hello.agent`, in bytes. A longer text is cut.
const MAX_AGENT: usize = 64;
/// Maximum number of rooms in `Hello.joins`. With more, the `Hello` is refused.
pub(crate) const MAX_JOINS: usize = 16;
/// Maximum length of `Goodbye.message`, in bytes. A longer one is refused.
const MAX_GOODBYE: usize = 256;
const KEY_LEN: usize = 32;
pub(super) const SESSION_LEN: usize = 16;

/// A message from a client. Bodies are slices of the received buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum ToServer {
    /// A message of the application.
    Application {
        /// Type of the payload; 1 to [`MAX_TYPE_URL`] bytes.
        type_url: String,
        /// The message in the application's own encoding.
        payload: Bytes,
    },
    /// Opens a session or resumes one.
    Hello(v1::Hello),
    /// The last frame of the connection.
    Goodbye(v1::Goodbye),
    /// Asks for a sign of life.
    Ping(v1::Ping),
    /// Answers a ping.
    Pong(v1::Pong),
    /// Asks to become a member of a room.
    Join(v1::Join),
    /// Asks to leave a room.
    Leave(v1::Leave),
    /// A reliable message to a room.
    Say(v1::Say),
    /// A latest message to a room.
    Latest(v1::Latest),
    /// Entries of a room's replicated state.
    State(v1::State),
    /// One step of a reconciliation.
    Reconcile(v1::Reconcile),
    /// Asks for a match.
    Queue(v1::Queue),
    /// Takes the ticket back, or gives a match up.
    Cancel(v1::Cancel),
}

impl ToServer {
    /// Decodes the payload by the frame's kind. Checks the encoding, the lengths that the protocol
    /// fixes, and that no repeated field has more than 4,096 elements. The receiver of the message
    /// judges the meaning of names and numbers.
    ///
    /// # Errors
    /// If the payload is still sealed or compressed, only servers send this kind, or the payload or
    /// the metadata does not follow the protocol.
    pub fn decode(frame: &Frame) -> Result<Self, WireError> {
        check_plain(frame)?;
        let metadata = frame.metadata()?;
        let kind = frame.message()?;
        Ok(match kind {
            Kind::Application => {
                let (type_url, payload) = application(frame, metadata)?;
                Self::Application { type_url, payload }
            }
            Kind::Hello => Self::Hello(hello(frame)?),
            Kind::Goodbye => Self::Goodbye(goodbye(frame)?),
            Kind::Ping => Self::Ping(body(frame)?),
            Kind::Pong => Self::Pong(body(frame)?),
            Kind::Join => Self::Join(body(frame)?),
            Kind::Leave => Self::Leave(body(frame)?),
            Kind::Say => Self::Say(say(frame)?),
            Kind::Latest => Self::Latest(latest(frame)?),
            Kind::State => Self::State(state(frame)?),
            Kind::Reconcile => Self::Reconcile(reconcile(frame)?),
            Kind::Queue => Self::Queue(queue(frame)?),
            Kind::Cancel => Self::Cancel(body(frame)?),
            Kind::Queued | Kind::Matched => return Err(WireError::WrongDirection(kind)),
            Kind::Welcome
            | Kind::Joined
            | Kind::Left
            | Kind::Entry
            | Kind::Ack
            | Kind::Throttle
            | Kind::Snapshot
            | Kind::Unsupported => return Err(WireError::WrongDirection(kind)),
            Kind::LinkHello
            | Kind::Attach
            | Kind::Attached
            | Kind::Detach
            | Kind::Enter
            | Kind::Entered
            | Kind::Relay
            | Kind::Hold
            | Kind::Exit
            | Kind::Exited
            | Kind::Recruit
            | Kind::Install
            | Kind::Replicate
            | Kind::Stored
            | Kind::Lead => return Err(WireError::WrongDirection(kind)),
        })
    }
}

/// A message from a server. Bodies are slices of the received buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum ToClient {
    /// A message of the application.
    Application {
        /// Type of the payload; 1 to [`MAX_TYPE_URL`] bytes.
        type_url: String,
        /// The message in the application's own encoding.
        payload: Bytes,
    },
    /// Answers a `Hello`.
    Welcome(v1::Welcome),
    /// The last frame of the connection.
    Goodbye(v1::Goodbye),
    /// Asks for a sign of life.
    Ping(v1::Ping),
    /// Answers the client's ping.
    Pong(v1::Pong),
    /// The session is a member of a room.
    Joined(v1::Joined),
    /// The session is not a member of a room.
    Left(v1::Left),
    /// One entry of a room's log.
    Entry(v1::Entry),
    /// Acknowledges reliable messages.
    Ack(v1::Ack),
    /// The server has not accepted messages for now.
    Throttle(v1::Throttle),
    /// Replaces entries that the member cannot get.
    Snapshot(v1::Snapshot),
    /// A latest message of a member.
    Latest(v1::Latest),
    /// Entries of a room's replicated state.
    State(v1::State),
    /// One step of a reconciliation.
    Reconcile(v1::Reconcile),
    /// State of the player's ticket.
    Queued(v1::Queued),
    /// The player's match.
    Matched(v1::Matched),
    /// The server has not understood a frame.
    Unsupported(v1::Unsupported),
}

impl ToClient {
    /// Decodes the payload by the frame's kind; see [`ToServer::decode`].
    ///
    /// # Errors
    /// As for [`ToServer::decode`], except that the kinds that only clients send are refused.
    pub fn decode(frame: &Frame) -> Result<Self, WireError> {
        check_plain(frame)?;
        let metadata = frame.metadata()?;
        let kind = frame.message()?;
        Ok(match kind {
            Kind::Application => {
                let (type_url, payload) = application(frame, metadata)?;
                Self::Application { type_url, payload }
            }
            Kind::Welcome => Self::Welcome(welcome(frame)?),
            Kind::Goodbye => Self::Goodbye(goodbye(frame)?),
            Kind::Ping => Self::Ping(body(frame)?),
            Kind::Pong => Self::Pong(body(frame)?),
            Kind::Joined => Self::Joined(body(frame)?),
            Kind::Left => Self::Left(body(frame)?),
            Kind::Entry => Self::Entry(entry(frame)?),
            Kind::Ack => Self::Ack(body(frame)?),
            Kind::Throttle => Self::Throttle(body(frame)?),
            Kind::Snapshot => Self::Snapshot(snapshot(frame)?),
            Kind::Latest => Self::Latest(latest(frame)?),
            Kind::State => Self::State(state(frame)?),
            Kind::Reconcile => Self::Reconcile(reconcile(frame)?),
            Kind::Queued => Self::Queued(body(frame)?),
            Kind::Unsupported => Self::Unsupported(body(frame)?),
            Kind::Matched => {
                check_items(frame, &[5], "Matched.teams")?;
                check_items(frame, &[5, 1], "Team.players")?;
                Self::Matched(body(frame)?)
            }
            Kind::Queue | Kind::Cancel => return Err(WireError::WrongDirection(kind)),
            Kind::Hello | Kind::Join | Kind::Leave | Kind::Say => {
                return Err(WireError::WrongDirection(kind));
            }
            Kind::LinkHello
            | Kind::Attach
            | Kind::Attached
            | Kind::Detach
            | Kind::Enter
            | Kind::Entered
            | Kind::Relay
            | Kind::Hold
            | Kind::Exit
            | Kind::Exited
            | Kind::Recruit
            | Kind::Install
            | Kind::Replicate
            | Kind::Stored
            | Kind::Lead => return Err(WireError::WrongDirection(kind)),
        })
    }
}

pub(super) fn check_plain(frame: &Frame) -> Result<(), WireError> {
    if frame.flags & FLAG_SEALED != 0 {
        return Err(WireError::StillSealed);
    }
    if frame.flags & FLAG_ZSTD != 0 {
        return Err(WireError::StillCompressed);
    }
    Ok(())
}

pub(super) fn body<M: Message + Default>(frame: &Frame) -> Result<M, WireError> {
    M::decode(frame.payload.clone()).map_err(|_| malformed(frame))
}

fn malformed(frame: &Frame) -> WireError {
    frame.message().map_or_else(|unknown| unknown, WireError::BadPayload)
}

fn application(frame: &Frame, metadata: v1::Metadata) -> Result<(String, Bytes), WireError> {
    if metadata.type_url.is_empty() {
        return Err(WireError::NoTypeUrl);
    }
    Ok((metadata.type_url, frame.payload.clone()))
}

fn hello(frame: &Frame) -> Result<v1::Hello, WireError> {
    check_items(frame, &[2, 2], "Resume.rooms")?;
    check_count(frame, &[7], MAX_JOINS, "Hello.joins")?;
    let mut hello: v1::Hello = body(frame)?;
    // The agent is for logs only, so a long one is cut, not refused.
    while hello.agent.len() > MAX_AGENT {
        hello.agent.pop();
    }
    check(matches!(hello.seal_key.len(), 0 | KEY_LEN), "Hello.seal_key")?;
    check(hello.resume.as_ref().is_none_or(|resume| resume.session.len() == SESSION_LEN), "Resume.session")?;
    Ok(hello)
}

fn welcome(frame: &Frame) -> Result<v1::Welcome, WireError> {
    let welcome: v1::Welcome = body(frame)?;
    check(welcome.session.len() == SESSION_LEN, "Welcome.session")?;
    check(matches!(welcome.seal_key.len(), 0 | KEY_LEN), "Welcome.seal_key")?;
    Ok(welcome)
}

fn goodbye(frame: &Frame) -> Result<v1::Goodbye, WireError> {
    let goodbye: v1::Goodbye = body(frame)?;
    check(goodbye.message.len() <= MAX_GOODBYE, "Goodbye.message")?;
    Ok(goodbye)
}

pub(super) fn say(frame: &Frame) -> Result<v1::Say, WireError> {
    let say: v1::Say = body(frame)?;
    check(say.type_url.len() <= MAX_TYPE_URL, "Say.type_url")?;
    Ok(say)
}

pub(super) fn entry(frame: &Frame) -> Result<v1::Entry, WireError> {
    let entry: v1::Entry = body(frame)?;
    check(entry.type_url.len() <= MAX_TYPE_URL, "Entry.type_url")?;
    Ok(entry)
}

pub(super) fn latest(frame: &Frame) -> Result<v1::Latest, WireError> {
    let latest: v1::Latest = body(frame)?;
    check(latest.type_url.len() <= MAX_TYPE_URL, "Latest.type_url")?;
    Ok(latest)
}

fn snapshot(frame: &Frame) -> Result<v1::Snapshot, WireError> {
    check_items(frame, &[6], "Snapshot.members")?;
    body(frame)
}

pub(super) fn state(frame: &Frame) -> Result<v1::State, WireError> {
    check_items(frame, &[3], "State.entries")?;
    body(frame)
}

fn reconcile(frame: &Frame) -> Result<v1::Reconcile, WireError> {
    check_items(frame, &[4], "Reconcile.nodes")?;
    body(frame)
}

fn queue(frame: &Frame) -> Result<v1::Queue, WireError> {
    check_items(frame, &[5], "Queue.latencies")?;
    check_items(frame, &[6], "Queue.attributes")?;
    check_items(frame, &[7], "Queue.conditions")?;
    check_items(frame, &[7, 5, 1], "TextSet.texts")?;
    body(frame)
}

/// Refuses more than [`MAX_ITEMS`] elements of the field at the end of `path`.
pub(super) fn check_items(frame: &Frame, path: &[u64], field: &'static str) -> Result<(), WireError> {
    check_count(frame, path, MAX_ITEMS, field)
}

fn check_count(frame: &Frame, path: &[u64], most: usize, field: &'static str) -> Result<(), WireError> {
    match repeated_fields::count(&frame.payload, path) {
        None => Err(malformed(frame)),
        Some(count) if count > most => Err(WireError::TooManyItems(field)),
        Some(_) => Ok(()),
    }
}

pub(super) fn check(right: bool, field: &'static str) -> Result<(), WireError> {
    if right { Ok(()) } else { Err(WireError::BadFieldLength(field)) }
}
