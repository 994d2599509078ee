//! Decoding of frames from other nodes.

use bytes::Bytes;
use skirmish_proto::v1::op::Input as OpInput;
use skirmish_proto::v1::{self, Kind};

use super::message::{
    MAX_TYPE_URL, SESSION_LEN, body, check, check_items, check_plain, entry, latest, state,
};
use super::{Frame, MAX_METADATA, WireError};

/// A message from another node. Bodies are slices of the received buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum ToNode {
    /// The first frame of a link.
    Hello(v1::LinkHello),
    /// Asks for a sign of life.
    Ping(v1::Ping),
    /// Answers a ping.
    Pong(v1::LinkPong),
    /// A message about a room.
    Room(RoomMessage),
}

/// A message from another node about a room.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomMessage {
    /// Asks for the tail of the room's log.
    Attach(v1::Attach),
    /// States the position from which the tail starts.
    Attached(v1::Attached),
    /// Ends the tail of a room's log, since the follower has no members left.
    Detach(v1::Detach),
    /// Asks to make a session a member, or to resume its membership.
    Enter(v1::Enter),
    /// Answers an `Enter`.
    Entered(v1::Entered),
    /// A reliable message of a member.
    Relay(v1::Relay),
    /// The primary has not accepted a relayed message.
    Hold(v1::Hold),
    /// A member leaves, or the session is not at that node any more.
    Exit(v1::Exit),
    /// Tells that a membership has ended.
    Exited(v1::Exited),
    /// An entry of the room's log, and the frame that members get.
    Entry(v1::Entry, Bytes),
    /// A latest message, and the frame that members get.
    Latest(v1::Latest, Bytes),
    /// Entries of the room's replicated state.
    State(v1::State),
    /// Asks a node to become the room's backup.
    Recruit(v1::Recruit),
    /// State of the room for a new backup.
    Install(v1::Install),
    /// Ops for the backup.
    Replicate(v1::Replicate),
    /// States the ops that the backup has.
    Stored(v1::Stored),
    /// Tells which nodes lead the room and back it up.
    Lead(v1::Lead),
}

impl RoomMessage {
    /// Name of the room, as the other node has sent it.
    #[must_use]
    pub fn room(&self) -> &str {
        self.subject().0
    }

    /// Epoch of the room's life that the message is about.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.subject().1
    }

    fn subject(&self) -> (&str, u64) {
        match self {
            Self::Attach(v1::Attach { room, epoch, .. })
            | Self::Attached(v1::Attached { room, epoch, .. })
            | Self::Detach(v1::Detach { room, epoch, .. })
            | Self::Enter(v1::Enter { room, epoch, .. })
            | Self::Entered(v1::Entered { room, epoch, .. })
            | Self::Relay(v1::Relay { room, epoch, .. })
            | Self::Hold(v1::Hold { room, epoch, .. })
            | Self::Exit(v1::Exit { room, epoch, .. })
            | Self::Exited(v1::Exited { room, epoch, .. })
            | Self::Entry(v1::Entry { room, epoch, .. }, _)
            | Self::Latest(v1::Latest { room, epoch, .. }, _)
            | Self::State(v1::State { room, epoch, .. })
            | Self::Recruit(v1::Recruit { room, epoch, .. })
            | Self::Install(v1::Install { room, epoch, .. })
            | Self::Replicate(v1::Replicate { room, epoch, .. })
            | Self::Stored(v1::Stored { room, epoch, .. })
            | Self::Lead(v1::Lead { room, epoch, .. }) => (room, *epoch),
        }
    }
}

impl ToNode {
    /// Decodes the payload by the frame's kind; `bytes` are the whole frame. See
    /// [`super::ToServer::decode`].
    ///
    /// # Errors
    /// As for [`super::ToServer::decode`]. Kinds that nodes do not send to each other are refused.
    pub fn decode(frame: &Frame, bytes: Bytes) -> Result<Self, WireError> {
        check_plain(frame)?;
        let kind = frame.message()?;
        Ok(match kind {
            Kind::LinkHello => Self::Hello(body(frame)?),
            Kind::Ping => Self::Ping(body(frame)?),
            Kind::Pong => Self::Pong(body(frame)?),
            Kind::Attach => {
                check_items(frame, &[6], "Attach.runs")?;
                Self::Room(RoomMessage::Attach(body(frame)?))
            }
            Kind::Attached => {
                check_items(frame, &[5], "Attached.members")?;
                Self::Room(RoomMessage::Attached(body(frame)?))
            }
            Kind::Detach => Self::Room(RoomMessage::Detach(body(frame)?)),
            Kind::Enter => {
                let enter: v1::Enter = body(frame)?;
                check(enter.session.len() == SESSION_LEN, "Enter.session")?;
                Self::Room(RoomMessage::Enter(enter))
            }
            Kind::Entered => {
                let entered: v1::Entered = body(frame)?;
                check(entered.session.len() == SESSION_LEN, "Entered.session")?;
                Self::Room(RoomMessage::Entered(entered))
            }
            Kind::Relay => {
                let relay: v1::Relay = body(frame)?;
                check(relay.type_url.len() <= MAX_TYPE_URL, "Relay.type_url")?;
                Self::Room(RoomMessage::Relay(relay))
            }
            Kind::Hold => Self::Room(RoomMessage::Hold(body(frame)?)),
            Kind::Exit => Self::Room(RoomMessage::Exit(body(frame)?)),
            Kind::Exited => Self::Room(RoomMessage::Exited(body(frame)?)),
            Kind::Entry => Self::Room(RoomMessage::Entry(entry(frame)?, bytes)),
            Kind::Latest => Self::Room(RoomMessage::Latest(latest(frame)?, bytes)),
            Kind::State => Self::Room(RoomMessage::State(state(frame)?)),
            Kind::Recruit => Self::Room(RoomMessage::Recruit(body(frame)?)),
            Kind::Install => Self::Room(RoomMessage::Install(install(frame)?)),
            Kind::Replicate => Self::Room(RoomMessage::Replicate(replicate(frame)?)),
            Kind::Stored => Self::Room(RoomMessage::Stored(body(frame)?)),
            Kind::Lead => Self::Room(RoomMessage::Lead(body(frame)?)),
            Kind::Application
            | Kind::Hello
            | Kind::Welcome
            | Kind::Goodbye
            | Kind::Join
            | Kind::Joined
            | Kind::Leave
            | Kind::Left
            | Kind::Say
            | Kind::Ack
            | Kind::Throttle
            | Kind::Snapshot
            | Kind::Reconcile
            | Kind::Queue
            | Kind::Cancel
            | Kind::Queued
            | Kind::Matched
            | Kind::Unsupported => return Err(WireError::WrongDirection(kind)),
        })
    }
}

fn install(frame: &Frame) -> Result<v1::Install, WireError> {
    check_items(frame, &[7], "Install.members")?;
    check_items(frame, &[11], "Install.left")?;
    let install: v1::Install = body(frame)?;
    let are_sessions = install.members.iter().all(|member| member.session.len() == SESSION_LEN);
    check(are_sessions, "InstalledMember.session")?;
    Ok(install)
}

fn replicate(frame: &Frame) -> Result<v1::Replicate, WireError> {
    check_items(frame, &[4], "Replicate.ops")?;
    let replicate: v1::Replicate = body(frame)?;
    for op in &replicate.ops {
        check(op.metadata.len() <= MAX_METADATA, "Op.metadata")?;
        match &op.input {
            Some(OpInput::Say(say)) => check(say.type_url.len() <= MAX_TYPE_URL, "Message.type_url")?,
            Some(OpInput::Join(arrival) | OpInput::Seat(arrival)) => {
                check(arrival.session.len() == SESSION_LEN, "Arrival.session")?;
            }
            Some(OpInput::Leave(_) | OpInput::EndTurn(_)) | None => {}
        }
    }
    Ok(replicate)
}
