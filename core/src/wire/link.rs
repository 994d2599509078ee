//! Frames to messages, between nodes.

use bytes::Bytes;
use skirmish_proto::v1::{self, Kind};

use super::message::{
    MAX_TYPE_URL, SESSION_LEN, body, check, check_items, check_plain, entry, latest, state,
};
use super::{Frame, WireError};

/// A message from another node. Bodies are slices of the buffer that was received.
#[derive(Clone, Debug, PartialEq)]
pub enum ToNode {
    /// The first frame of a link.
    Hello(v1::LinkHello),
    /// Asks whether the node lives.
    Ping(v1::Ping),
    /// Answers a ping.
    Pong(v1::LinkPong),
    /// Asks for the tail of a room's log.
    Attach(v1::Attach),
    /// Says from where the tail comes.
    Attached(v1::Attached),
    /// The tail is not needed any more.
    Detach(v1::Detach),
    /// A session becomes a member, or goes on as one.
    Enter(v1::Enter),
    /// Whether it did.
    Entered(v1::Entered),
    /// A reliable message of a member.
    Relay(v1::Relay),
    /// It was not taken.
    Hold(v1::Hold),
    /// A member goes.
    Exit(v1::Exit),
    /// A membership is over.
    Exited(v1::Exited),
    /// An entry of a room's log, and the frame that members get.
    Entry(v1::Entry, Bytes),
    /// A message of which only the newest counts, and the frame that members get.
    Latest(v1::Latest, Bytes),
    /// Entries of a room's replicated state.
    State(v1::State),
}

impl ToNode {
    /// Decodes the payload by the frame's kind; `bytes` are the whole frame. See
    /// [`super::ToServer::decode`].
    ///
    /// # Errors
    /// As for [`super::ToServer::decode`]; kinds that nodes do not send each other are
    /// refused.
    pub fn decode(frame: &Frame, bytes: Bytes) -> Result<Self, WireError> {
        check_plain(frame)?;
        let kind = frame.message()?;
        Ok(match kind {
            Kind::LinkHello => Self::Hello(body(frame)?),
            Kind::Ping => Self::Ping(body(frame)?),
            Kind::Pong => Self::Pong(body(frame)?),
            Kind::Attach => Self::Attach(body(frame)?),
            Kind::Attached => {
                check_items(frame, &[5], "Attached.members")?;
                Self::Attached(body(frame)?)
            }
            Kind::Detach => Self::Detach(body(frame)?),
            Kind::Enter => {
                let enter: v1::Enter = body(frame)?;
                check(enter.session.len() == SESSION_LEN, "Enter.session")?;
                Self::Enter(enter)
            }
            Kind::Entered => {
                let entered: v1::Entered = body(frame)?;
                check(entered.session.len() == SESSION_LEN, "Entered.session")?;
                Self::Entered(entered)
            }
            Kind::Relay => {
                let relay: v1::Relay = body(frame)?;
                check(relay.type_url.len() <= MAX_TYPE_URL, "Relay.type_url")?;
                Self::Relay(relay)
            }
            Kind::Hold => Self::Hold(body(frame)?),
            Kind::Exit => Self::Exit(body(frame)?),
            Kind::Exited => Self::Exited(body(frame)?),
            Kind::Entry => Self::Entry(entry(frame)?, bytes),
            Kind::Latest => Self::Latest(latest(frame)?, bytes),
            Kind::State => Self::State(state(frame)?),
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
