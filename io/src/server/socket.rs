//! The WebSocket of an open connection. The connection's task reads from the socket, the shard's
//! writer sends through it; neither waits for the other.

use std::io::{self, ErrorKind, Read as _};
use std::task::Waker;

use bytes::Bytes;
use skirmish_core::id::ConnId;
use skirmish_core::node::{Node, Overhead, Wrong};
use skirmish_core::time::Now;
use skirmish_proto::v1;
use tokio_tungstenite::tungstenite::WebSocket;
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};

use super::logging;
use super::stream::{NonBlocking, ServerStream};

/// Budget of a connection in one round of the writer, in bytes. The next frame is sent in the next
/// round.
const SEND_BUDGET: usize = 8 * 1024;
/// Budget of a connection for one read, in bytes, unless data that was read before already contains
/// more of a message. Without this bound, fragments without end would be read in one go.
const READ_BYTES: usize = 4 * 1024;
/// Pings, pongs, closes and fragments that are read at a time. A peer that sends nothing else is
/// found to be too fast before much work was spent on it.
const READ_FRAMES: u32 = 8;
/// Messages that are dropped in one round, from a peer that has still to close.
const LINGER_BUDGET: usize = 16;
/// Messages of a closing peer that are searched for its close frame. After this number only bytes
/// are dropped.
const LINGER_MESSAGES: usize = 256;
/// Bytes of a closing peer that are dropped: as many as can be in flight. The server does not wait
/// for a peer that sends more.
const LINGER_BYTES: usize = 16 << 20;

/// An open connection. No method waits: the connection's task is woken when there is input, and
/// when a socket that was full accepts more.
#[derive(Debug)]
pub(super) struct Socket {
    web: WebSocket<NonBlocking>,
    stage: SocketStage,
    /// True if all received bytes were read. More input can then only come from the stream under
    /// the WebSocket.
    drained: bool,
    /// True if the peer's close frame was received. The WebSocket answers the frame during later
    /// reads.
    peer_closed: bool,
    /// True if the WebSocket holds data that is not flushed.
    unflushed: bool,
    /// Messages and bytes that were dropped since the close.
    dropped: (usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketStage {
    /// Messages are sent and received.
    Open,
    /// The input has broken the protocol. The node closes the connection.
    Deaf,
    /// The close frame was given to the WebSocket. The server waits for the peer's close frame, at
    /// most for the node's linger time.
    Closed {
        /// True if the WebSocket can still be read; otherwise only the bytes under it.
        readable: bool,
    },
}

/// Input of a socket.
#[derive(Debug)]
pub(super) enum SocketInput {
    Frame(Bytes),
    /// A message that is not for the node, such as a ping.
    Control,
    /// A violation of the protocol, with the error behind it, if there is one.
    Violation(&'static str, Wrong, Option<WsError>),
}

/// Result of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendProgress {
    /// Everything was sent.
    All,
    /// There may be more to send, in another round.
    Budget,
    /// The socket accepts no more now. The task is woken when it does.
    Blocked,
    /// The close frame was sent as the last frame. [`Socket::linger`] is the rest.
    Closed,
}

/// Progress of waiting for the peer's close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lingering {
    /// The task is woken when there is more to do.
    Waiting,
    /// There may be more to read, in another round.
    Budget,
    /// The connection is over.
    Over,
}

/// The connection is lost, and nothing is left to do for it.
#[derive(Debug)]
pub(super) struct SocketLost(pub(super) Option<WsError>);

impl From<WsError> for SocketLost {
    fn from(error: WsError) -> Self {
        match error {
            WsError::ConnectionClosed | WsError::AlreadyClosed => Self(None),
            error => Self(Some(error)),
        }
    }
}

impl Socket {
    /// Creates a socket from an upgraded stream. `rest` are the bytes already read, `task` wakes
    /// the connection's task.
    pub(super) fn new(stream: ServerStream, rest: Vec<u8>, config: WebSocketConfig, task: Waker) -> Self {
        let stream = NonBlocking::new(stream, rest, task);
        let web = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
        let stage = SocketStage::Open;
        Self { web, stage, drained: false, peer_closed: false, unflushed: false, dropped: (0, 0) }
    }

    /// Returns true if the input is for the node.
    pub(super) fn is_open(&self) -> bool {
        self.stage == SocketStage::Open
    }

    /// Returns true if the close frame was the last data to send.
    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.stage, SocketStage::Closed { .. })
    }

    /// Returns true if data waits for a flush, perhaps an answer to a message that was read.
    pub(super) const fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// Reads the next input, if any has arrived.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn receive(&mut self) -> Result<Option<SocketInput>, SocketLost> {
        if self.drained && !self.web.get_ref().may_be_readable() {
            return Ok(None);
        }
        self.drained = false;
        self.web.get_mut().allow(READ_BYTES, READ_FRAMES);
        Ok(Some(match self.web.read() {
            Ok(Message::Binary(frame)) => SocketInput::Frame(frame),
            Ok(Message::Text(_)) => SocketInput::Violation("a text message", Wrong::Type, None),
            // The WebSocket has an answer to flush, both to a ping and to a close frame.
            Ok(Message::Ping(_)) => {
                self.unflushed = true;
                SocketInput::Control
            }
            Ok(Message::Close(_)) => {
                self.peer_closed = true;
                self.unflushed = true;
                SocketInput::Control
            }
            Ok(Message::Pong(_) | Message::Frame(_)) => SocketInput::Control,
            Err(WsError::Io(error)) if would_block(&error) => {
                if self.web.get_ref().is_spent() {
                    return Ok(Some(SocketInput::Control));
                }
                self.drained = !self.peer_closed;
                return Ok(None);
            }
            Err(error) => match violation(&error) {
                Some((what, wrong)) => {
                    self.stage = SocketStage::Deaf;
                    SocketInput::Violation(what, wrong, Some(error))
                }
                None => return Err(error.into()),
            },
        }))
    }

    /// Returns the number of control frames and fragments since the last call.
    pub(super) fn overhead(&mut self) -> Overhead {
        self.web.get_mut().counter.take()
    }

    /// Sends the node's frames for the connection with one flush. If the node closes the
    /// connection, the close frame is sent last. Pulls no frame while data waits for a flush: a
    /// peer that does not read costs no more than its buffers. `scratch` is any buffer. One buffer
    /// for all connections stays in the CPU cache; one for each would not.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn send(
        &mut self,
        node: &mut Node,
        now: Now,
        conn: ConnId,
        closing: Option<Closing>,
        scratch: &mut Vec<u8>,
    ) -> Result<SendProgress, SocketLost> {
        if self.unflushed && !self.flush()? {
            return Ok(SendProgress::Blocked);
        }
        if self.peer_closed {
            return Err(SocketLost(None));
        }
        scratch.clear();
        let mut sent = SendProgress::Budget;
        while scratch.len() < SEND_BUDGET {
            let Some(frame) = node.poll_transmit(now, conn) else {
                sent = SendProgress::All;
                break;
            };
            let opcode = OpCode::Data(Data::Binary);
            FrameHeader { opcode, ..FrameHeader::default() }.format(frame.len() as u64, scratch)?;
            scratch.extend_from_slice(&frame);
        }
        if !scratch.is_empty()
            && let Err(error) = self.web.get_mut().send(scratch)
        {
            self.unflushed = would_block(&error);
            return if self.unflushed { Ok(SendProgress::Blocked) } else { Err(WsError::Io(error).into()) };
        }
        match (sent, closing) {
            (SendProgress::All, Some(closing)) => self.close(closing),
            _ => Ok(sent),
        }
    }

    fn close(&mut self, closing: Closing) -> Result<SendProgress, SocketLost> {
        match self.web.write(close(closing)) {
            Ok(()) => {}
            // The WebSocket has kept the frame all the same.
            Err(WsError::Io(error)) if would_block(&error) => {}
            Err(error) => return Err(error.into()),
        }
        self.unflushed = true;
        // Searching the data of a flooding peer for a close frame would cost the work that the
        // close has to save.
        let readable = self.stage == SocketStage::Open && closing.reason != v1::Reason::RateLimited;
        self.stage = SocketStage::Closed { readable };
        self.flush()?;
        Ok(SendProgress::Closed)
    }

    /// Flushes the data that waits. Returns true if all of it was sent.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn flush(&mut self) -> Result<bool, SocketLost> {
        // Twice: an answer that found no space in the WebSocket's buffer is written there only
        // after the buffer was sent.
        for _ in 0..2 {
            match self.web.flush() {
                // Both sides have closed: nothing is left to send.
                Ok(()) | Err(WsError::ConnectionClosed) => {}
                Err(WsError::Io(error)) if would_block(&error) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.unflushed = false;
        Ok(true)
    }

    /// Reads until the peer has closed too, so that the peer receives the last frames.
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
        let readable =
            self.stage == SocketStage::Closed { readable: true } && self.dropped.0 < LINGER_MESSAGES;
        if !readable && let Err(error) = self.web.get_mut().shutdown() {
            return waits(&error);
        }
        let mut scrap = [0; 2048];
        for _ in 0..LINGER_BUDGET {
            self.web.get_mut().allow(READ_BYTES, READ_FRAMES);
            if readable {
                match self.web.read() {
                    Ok(_) => self.dropped.0 += 1,
                    Err(WsError::Io(error)) if would_block(&error) && self.web.get_ref().is_spent() => {
                        self.dropped.0 += 1;
                    }
                    Err(WsError::Io(error)) => return waits(&error),
                    Err(_) => return Lingering::Over,
                }
            } else {
                match self.web.get_mut().read(&mut scrap) {
                    Ok(0) => return Lingering::Over,
                    Ok(_) if self.dropped.1 > LINGER_BYTES => return Lingering::Over,
                    Ok(read) => self.dropped.1 += read,
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

/// Returns the violation of the protocol behind an error of the WebSocket, or `None` if the
/// connection is just gone.
const fn violation(error: &WsError) -> Option<(&'static str, Wrong)> {
    match error {
        WsError::Capacity(_) => Some(("a message longer than the largest frame", Wrong::Size)),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        WsError::Protocol(_) => Some(("not the WebSocket protocol", Wrong::Protocol)),
        WsError::Utf8(_) => Some(("a text message", Wrong::Type)),
        _ => None,
    }
}

/// The reason for closing a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) reason: v1::Reason,
    pub(super) wrong: Wrong,
}

/// Returns the close frame for a reason. The codes (RFC 6455, section 7.4.1):
///
/// | code | when |
/// |---|---|
/// | 1000 normal | the client has left |
/// | 1001 going away | the server drains; heartbeats were missed |
/// | 1002 protocol error | the WebSocket or the protocol on it is broken; another version |
/// | 1003 unsupported data | a text message |
/// | 1008 policy violation | taken over, kicked, too late, not the token, far beyond a rate |
/// | 1009 message too big | a frame, its payload inflated, or a body is larger than the limits |
/// | 1013 try again later | a cap of the server is reached |
fn close(Closing { reason, wrong }: Closing) -> Message {
    use v1::Reason;
    let code = match reason {
        Reason::ProtocolError if wrong == Wrong::Size => CloseCode::Size,
        Reason::ProtocolError if wrong == Wrong::Type => CloseCode::Unsupported,
        Reason::Unspecified | Reason::ClientLeft => CloseCode::Normal,
        Reason::Draining | Reason::HeartbeatTimeout => CloseCode::Away,
        Reason::ProtocolError | Reason::Incompatible => CloseCode::Protocol,
        Reason::TakenOver
        | Reason::HandshakeTimeout
        | Reason::Unauthenticated
        | Reason::RateLimited
        | Reason::Kicked => CloseCode::Policy,
        Reason::Overloaded | Reason::RegistryReplaced => CloseCode::Again,
    };
    Message::Close(Some(CloseFrame { code, reason: logging::name(reason).into() }))
}
