//! The WebSocket of a client: frames in, frames out, one flush at the end of a pass.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::dial::Stream;

/// A WebSocket to a server.
pub(super) type ClientSocket = WebSocketStream<Box<dyn Stream>>;

/// Size of one read or write, in bytes. Small, because a process may have ten thousand clients;
/// larger frames need several reads.
const BUFFER: usize = 2 * 1024;

/// Returns the settings for sockets that accept messages of at most `max_frame` bytes.
pub(super) fn config(max_frame: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        // The driver asks for room before each message, so at most one message exceeds the buffer.
        .max_write_buffer_size(BUFFER + 2 * max_frame + 64)
        .max_message_size(Some(max_frame))
        .max_frame_size(Some(max_frame))
}

/// The socket is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketGone;

/// A socket with the state of its write side.
pub(super) struct TrackedSocket {
    socket: PinnedSocket,
    unflushed: bool,
    closing: bool,
}

/// Boxed, so that a client without a connection is small.
type PinnedSocket = std::pin::Pin<Box<ClientSocket>>;

impl TrackedSocket {
    pub(super) fn new(socket: ClientSocket) -> Self {
        Self { socket: Box::pin(socket), unflushed: false, closing: false }
    }

    /// Returns the next message. A text message is returned as its bytes: the machine refuses it
    /// like any data that is no frame.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, SocketGone>> {
        loop {
            match ready!(self.socket.as_mut().poll_next(cx)) {
                Some(Ok(Message::Binary(frame))) => return Poll::Ready(Ok(frame)),
                Some(Ok(Message::Text(text))) => return Poll::Ready(Ok(text.into())),
                // The library's answer is sent with the next flush.
                Some(Ok(_)) => self.unflushed = true,
                Some(Err(error)) => {
                    tracing::debug!(%error, "connection broke");
                    return Poll::Ready(Err(SocketGone));
                }
                None => return Poll::Ready(Err(SocketGone)),
            }
        }
    }

    /// Writes frames from `next` while the socket accepts them, then flushes. Pending while the
    /// socket accepts no more.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Bytes>,
    ) -> Poll<Result<(), SocketGone>> {
        loop {
            if ready!(self.socket.as_mut().poll_ready(cx)).is_err() {
                return Poll::Ready(Err(SocketGone));
            }
            let Some(frame) = next() else { break };
            self.unflushed = true;
            if self.socket.as_mut().start_send(Message::Binary(frame)).is_err() {
                return Poll::Ready(Err(SocketGone));
            }
        }
        if self.unflushed {
            if ready!(self.socket.as_mut().poll_flush(cx)).is_err() {
                return Poll::Ready(Err(SocketGone));
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends the rest and the close frame, then waits for the end of the connection and discards
    /// later input. Ready when the socket can be dropped.
    pub(super) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        next: impl FnMut() -> Option<Bytes>,
    ) -> Poll<()> {
        if !self.closing {
            if ready!(self.poll_send(cx, next)).is_err() {
                return Poll::Ready(());
            }
            if ready!(self.socket.as_mut().poll_close(cx)).is_err() {
                return Poll::Ready(());
            }
            self.closing = true;
        }
        while ready!(self.poll_frame(cx)).is_ok() {}
        Poll::Ready(())
    }
}
