//! The WebSocket of an open connection. Its task reads from it, the shard's writer sends
//! through it; neither waits for the other.

use std::io::{self, ErrorKind, Read as _};
use std::task::Waker;

use bytes::Bytes;
use skirmish_core::id::ConnId;
use skirmish_core::node::Node;
use skirmish_core::time::Now;
use skirmish_proto::v1;
use tokio_tungstenite::tungstenite::WebSocket;
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::journal;
use super::stream::{Stream, Unwaiting};

/// Messages that are sent before the other connections have their turn.
const TRANSMIT_BUDGET: usize = 256;
/// Messages that are dropped before the other connections have their turn, from a peer
/// that is to close.
const LINGER_BUDGET: usize = 16;

/// An open connection. Nothing here waits: the connection's task is woken when there is
/// something to read, and when a socket that was full takes more.
#[derive(Debug)]
pub(super) struct Socket {
    web: WebSocket<Unwaiting>,
    stage: Stage,
    /// All that has come was read: there is more only when the stream under the WebSocket
    /// has more.
    drained: bool,
    /// The peer's close frame has come: the WebSocket answers it while it is read on.
    peer_closed: bool,
    /// Something was given to the WebSocket and not flushed.
    unflushed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Messages go both ways.
    Open,
    /// Its input is not the protocol any more; the node closes it.
    Deaf,
    /// The close frame was sent; the peer's is waited for, at most for the node's linger.
    Closed {
        /// Whether the WebSocket can still be read, or only the bytes under it.
        readable: bool,
    },
}

/// What came.
#[derive(Debug)]
pub(super) enum Input {
    Frame(Bytes),
    /// Something that is not for the node.
    Control,
    /// Something that is not the protocol, and the error behind it, if there is one.
    Violation(&'static str, Option<WsError>),
}

/// How far the sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// There is nothing more to send.
    All,
    /// There may be more; it is for another turn.
    Budget,
    /// The socket takes no more now. The task is woken when it does.
    Blocked,
    /// The close frame went out: what is left is [`Socket::linger`].
    Closed,
}

/// How far a peer is that is to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lingering {
    /// The task is woken when there is more to do.
    Waiting,
    /// There may be more to read; it is for another turn.
    Budget,
    /// It is over.
    Over,
}

/// The connection is lost, and there is nothing left to do for it.
#[derive(Debug)]
pub(super) struct Lost(pub(super) Option<WsError>);

impl From<WsError> for Lost {
    fn from(error: WsError) -> Self {
        match error {
            WsError::ConnectionClosed | WsError::AlreadyClosed => Self(None),
            error => Self(Some(error)),
        }
    }
}

impl Socket {
    /// A stream after its upgrade, of which `rest` was read already, and its task.
    pub(super) fn new(stream: Stream, rest: Vec<u8>, config: WebSocketConfig, task: Waker) -> Self {
        let stream = Unwaiting::new(stream, task);
        let web = WebSocket::from_partially_read(stream, rest, Role::Server, Some(config));
        Self { web, stage: Stage::Open, drained: false, peer_closed: false, unflushed: false }
    }

    /// Whether input is for the node.
    pub(super) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the close frame went out.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed { .. })
    }

    /// Whether something waits for a flush: it may be an answer to what was read.
    pub(super) const fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// What has come, if anything has.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn receive(&mut self) -> Result<Option<Input>, Lost> {
        if self.drained && !self.web.get_ref().may_be_readable() {
            return Ok(None);
        }
        self.drained = false;
        Ok(Some(match self.web.read() {
            Ok(Message::Binary(frame)) => Input::Frame(frame),
            Ok(Message::Text(_)) => Input::Violation("a text message", None),
            // The WebSocket has put the answer with what is to be flushed.
            Ok(Message::Ping(_)) => {
                self.unflushed = true;
                Input::Control
            }
            Ok(Message::Close(_)) => {
                self.peer_closed = true;
                Input::Control
            }
            Ok(Message::Pong(_) | Message::Frame(_)) => Input::Control,
            Err(WsError::Io(error)) if would_block(&error) => {
                self.drained = !self.peer_closed;
                return Ok(None);
            }
            Err(error) => match violation(&error) {
                Some(what) => {
                    self.stage = Stage::Deaf;
                    Input::Violation(what, Some(error))
                }
                None => return Err(error.into()),
            },
        }))
    }

    /// Sends what the node has for the connection, and at its end the close frame if the
    /// node closes it, with one flush. Not to be called again after it was blocked before a
    /// flush came through: a peer that does not read costs no more than its buffers.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn send(
        &mut self,
        node: &mut Node,
        now: Now,
        conn: ConnId,
        closing: Option<v1::Reason>,
    ) -> Result<Sent, Lost> {
        let sent = self.transmit(node, now, conn, closing)?;
        if self.unflushed && !self.flush()? && sent != Sent::Closed {
            return Ok(Sent::Blocked);
        }
        Ok(sent)
    }

    /// Gives the WebSocket what the node has, for as long as it takes more.
    fn transmit(
        &mut self,
        node: &mut Node,
        now: Now,
        conn: ConnId,
        closing: Option<v1::Reason>,
    ) -> Result<Sent, Lost> {
        for _ in 0..TRANSMIT_BUDGET {
            let Some(frame) = node.poll_transmit(now, conn) else {
                let Some(reason) = closing else { return Ok(Sent::All) };
                self.give(close(reason))?;
                self.stage = Stage::Closed { readable: self.stage == Stage::Open };
                return Ok(Sent::Closed);
            };
            if !self.give(Message::Binary(frame))? {
                break;
            }
        }
        Ok(Sent::Budget)
    }

    /// Gives the WebSocket a message. Whether it takes another before a flush.
    fn give(&mut self, message: Message) -> Result<bool, Lost> {
        self.unflushed = true;
        match self.web.write(message) {
            Ok(()) => Ok(true),
            // It has taken this one all the same.
            Err(WsError::Io(error)) if would_block(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what waits for it. Whether all of it went out.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn flush(&mut self) -> Result<bool, Lost> {
        match self.web.flush() {
            // Both sides have closed: there is nothing to send any more.
            Ok(()) | Err(WsError::ConnectionClosed) => {
                self.unflushed = false;
                Ok(true)
            }
            Err(WsError::Io(error)) if would_block(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads on until the peer has closed too, so that it gets what was sent last.
    pub(super) fn linger(&mut self) -> Lingering {
        let waits = |error: &io::Error| match would_block(error) {
            true => Lingering::Waiting,
            false => Lingering::Over,
        };
        if self.unflushed {
            match self.flush() {
                Ok(true) => {}
                Ok(false) => return Lingering::Waiting,
                Err(_) => return Lingering::Over,
            }
        }
        let readable = self.stage == Stage::Closed { readable: true };
        if !readable && let Err(error) = self.web.get_mut().shutdown() {
            return waits(&error);
        }
        for _ in 0..LINGER_BUDGET {
            if readable {
                match self.web.read() {
                    Ok(_) => {}
                    Err(WsError::Io(error)) => return waits(&error),
                    Err(_) => return Lingering::Over,
                }
            } else {
                match self.web.get_mut().read(&mut [0; 512]) {
                    Ok(0) => return Lingering::Over,
                    Ok(_) => {}
                    Err(error) => return waits(&error),
                }
            }
        }
        Lingering::Budget
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// How an error of the WebSocket breaks the protocol; `None` if the connection is just
/// gone.
const fn violation(error: &WsError) -> Option<&'static str> {
    match error {
        WsError::Capacity(_) => Some("a message longer than the largest frame"),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        WsError::Protocol(_) => Some("not the WebSocket protocol"),
        WsError::Utf8(_) => Some("a text message"),
        _ => None,
    }
}

/// The close frame for a reason.
fn close(reason: v1::Reason) -> Message {
    use v1::Reason;
    let code = match reason {
        Reason::Unspecified | Reason::ClientLeft => CloseCode::Normal,
        Reason::Draining | Reason::HeartbeatTimeout => CloseCode::Away,
        Reason::ProtocolError | Reason::Incompatible => CloseCode::Protocol,
        Reason::TakenOver
        | Reason::HandshakeTimeout
        | Reason::Unauthenticated
        | Reason::RateLimited
        | Reason::Kicked => CloseCode::Policy,
        Reason::Overloaded => CloseCode::Again,
    };
    Message::Close(Some(CloseFrame { code, reason: journal::name(reason).into() }))
}
