//! A connection's task: from the upgrade until it is closed.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Sink as _, Stream as _};
use skirmish_core::id::ConnId;
use skirmish_core::node::Identity;
use skirmish_proto::v1;
use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::http::{HeadError, Refused, read_head};
use super::shard::Orders;
use super::stream::Stream;
use super::{Inner, journal, trace};

/// Messages that are read before the other connections have their turn.
const READ_BUDGET: usize = 16;
/// Messages that are sent before the other connections have their turn.
const TRANSMIT_BUDGET: usize = 256;

/// Serves a connection that the node has accepted.
pub(super) async fn serve(server: super::Handle, stream: TcpStream, conn: ConnId, address: IpAddr) {
    // In a box of its own, so that its buffers are gone when the connection is open.
    let upgraded = Box::pin(upgrade(&server.0, stream, conn, address)).await;
    if let Some(socket) = upgraded {
        Connection {
            server: &server,
            conn,
            socket,
            drained: false,
            peer_closed: false,
            deferred: false,
            unflushed: false,
            stage: Stage::Open,
        }
        .await;
    }
    server.0.shared.closed(conn);
}

/// TLS, and the checks of the upgrade. `None` if nothing came of it.
async fn upgrade(
    server: &Inner,
    stream: TcpStream,
    conn: ConnId,
    address: IpAddr,
) -> Option<WebSocketStream<Stream>> {
    // The deadline is the node's: it closes a connection that takes too long.
    let told_to_stop = poll_fn(|cx| match server.shared.lock().orders(conn, cx.waker()) {
        Some(Orders { closing: None, .. }) => Poll::Pending,
        Some(Orders { closing: Some(_), .. }) | None => Poll::Ready(()),
    });
    tokio::select! {
        biased;
        () = told_to_stop => None,
        socket = handshake(server, stream, conn, address) => socket,
    }
}

async fn handshake(
    server: &Inner,
    stream: TcpStream,
    conn: ConnId,
    address: IpAddr,
) -> Option<WebSocketStream<Stream>> {
    let fail = |error: &dyn std::fmt::Display| journal::failed(&server.shared.lock(), conn, error);
    let mut stream = server.secure(stream).await.inspect_err(|e| fail(e)).ok()?;
    let head = match read_head(&mut stream).await {
        Ok(head) => head,
        Err(HeadError::Io(error)) => {
            fail(&error);
            return None;
        }
        Err(HeadError::TooLong) => {
            refuse(server, &mut stream, conn, address, &Refused::too_large("the request is too long")).await;
            return None;
        }
    };
    let wall = server.shared.clock().now().wall;
    let accepted = match server.policy.check(head.bytes(), wall) {
        Ok(accepted) => accepted,
        Err(refused) => {
            refuse(server, &mut stream, conn, address, &refused).await;
            return None;
        }
    };
    let answered = async {
        stream.write_all(accepted.response.as_bytes()).await?;
        stream.flush().await
    };
    answered.await.inspect_err(|e| fail(e)).ok()?;
    server.shared.command(|shard, now| {
        let trace = accepted.trace.unwrap_or_else(|| trace::fresh(&mut shard.rng));
        let identity = Identity { player: accepted.player, token: accepted.token, trace };
        shard.upgraded(now, conn, identity);
        journal::upgraded(shard, address, conn, trace);
    });
    let config = Some(server.web_socket);
    Some(WebSocketStream::from_partially_read(stream, head.rest(), Role::Server, config).await)
}

/// Answers with a refusal and lets the peer read it.
async fn refuse(server: &Inner, stream: &mut Stream, conn: ConnId, address: IpAddr, refused: &Refused) {
    {
        let mut shard = server.shared.lock();
        shard.counters.refused_upgrade(refused.status());
        let trace = trace::fresh(&mut shard.rng);
        journal::refused_at_upgrade(address, conn, trace, refused);
    }
    goodbye(stream, refused.response(0)).await;
}

/// Sends a last answer. Closing with unread input would reset the connection, and the
/// peer might not get it: so what still comes is read and dropped, up to a bound.
pub(super) async fn goodbye(stream: &mut Stream, answer: String) {
    let sent = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    if sent.await.is_ok() {
        let mut scrap = [0; 512];
        for _ in 0..READ_BUDGET {
            if !matches!(tokio::io::AsyncReadExt::read(stream, &mut scrap).await, Ok(1..)) {
                break;
            }
        }
    }
}

/// An open connection, driven by hand: a task's size counts once for each connection,
/// and each flush is a system call.
///
/// In one turn the connection first reads what is there, then sends what the node has
/// for it, with one flush at the end. What a message makes the node send to others (or
/// back) wakes their tasks, which queue behind those that have something to read already.
/// A connection that has just read puts its own sending off by one turn too. So all
/// input that one look at the sockets has brought is read before anything is sent, and
/// each connection is flushed once for all of it.
struct Connection<'a> {
    server: &'a super::Handle,
    conn: ConnId,
    socket: WebSocketStream<Stream>,
    /// All that has come was read: there is more only when the stream under the WebSocket
    /// has more. Most turns are for sending, and ask no further than that.
    drained: bool,
    /// The peer's close frame has come: the WebSocket answers it while it is read on.
    peer_closed: bool,
    /// Sending was put off by one turn.
    deferred: bool,
    /// Something was given to the socket and not flushed.
    unflushed: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Messages go both ways.
    Open,
    /// Its input is not the protocol any more; the node has been told and closes it.
    Deaf,
    /// The close frame was sent; the peer's is waited for, at most for the node's linger.
    Closed {
        /// Whether the WebSocket can still be read, or only the bytes under it.
        readable: bool,
    },
}

/// The connection is over, and there is nothing left to do for it.
struct Over;

impl Future for Connection<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn(cx) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) | Err(Over) => Poll::Ready(()),
        }
    }
}

impl Connection<'_> {
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Over> {
        let orders = self.server.0.shared.lock().orders(self.conn, cx.waker()).ok_or(Over)?;
        let has_read = match (self.stage, orders.closing) {
            (Stage::Open, None) => self.read(cx)?,
            (Stage::Open | Stage::Deaf, _) => false,
            (Stage::Closed { readable }, _) => return Ok(self.linger(readable, cx)),
        };
        // What the socket did not take last time comes first; until it has, nothing is
        // pulled, so that a peer that does not read costs no more than its buffers.
        if self.unflushed && self.flush(cx)?.is_pending() {
            return Ok(Poll::Pending);
        }
        if has_read && !self.deferred {
            self.deferred = true;
            cx.waker().wake_by_ref();
            return Ok(Poll::Pending);
        }
        self.deferred = false;
        self.transmit(cx)?;
        if self.unflushed && self.flush(cx)?.is_pending() {
            return Ok(Poll::Pending);
        }
        if let Stage::Closed { readable } = self.stage {
            return Ok(self.linger(readable, cx));
        }
        Ok(Poll::Pending)
    }

    /// Gives the node the messages that are there. Whether there were any.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, Over> {
        if self.drained && self.socket.get_ref().poll_readable(cx).is_pending() {
            return Ok(false);
        }
        self.drained = false;
        for turn in 0..READ_BUDGET {
            let Poll::Ready(item) = Pin::new(&mut self.socket).poll_next(cx) else {
                self.drained = !self.peer_closed;
                return Ok(turn > 0);
            };
            match item {
                Some(Ok(Message::Binary(frame))) => {
                    self.server.input(|shard, now| shard.node.handle_frame(now, self.conn, frame));
                }
                Some(Ok(Message::Text(_))) => {
                    self.violation("a text message");
                    return Ok(true);
                }
                // The WebSocket has put the answer with what is to be flushed.
                Some(Ok(Message::Ping(_))) => self.unflushed = true,
                Some(Ok(Message::Close(_))) => self.peer_closed = true,
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => {
                    journal::failed(&self.server.0.shared.lock(), self.conn, &error);
                    let what = violation(&error).ok_or(Over)?;
                    self.stage = Stage::Deaf;
                    self.violation(what);
                    return Ok(true);
                }
                None => return Err(Over),
            }
        }
        cx.waker().wake_by_ref();
        Ok(true)
    }

    fn violation(&self, what: &'static str) {
        self.server.input(|shard, now| shard.node.handle_violation(now, self.conn, what));
    }

    /// Gives the socket what the node has, for as long as it takes more.
    fn transmit(&mut self, cx: &mut Context<'_>) -> Result<(), Over> {
        let Self { server, conn, socket, unflushed, stage, .. } = self;
        let shared = &server.0.shared;
        let orders = shared.lock().orders(*conn, cx.waker()).ok_or(Over)?;
        if !orders.transmit && orders.closing.is_none() {
            return Ok(());
        }
        let mut socket = Pin::new(socket);
        shared.pull(|shard, now| {
            for _ in 0..TRANSMIT_BUDGET {
                match socket.as_mut().poll_ready(cx) {
                    Poll::Ready(ready) => ready.map_err(|_| Over)?,
                    Poll::Pending => return Ok(()),
                }
                let Some(frame) = shard.node.poll_transmit(now, *conn) else {
                    shard.transmitted(*conn);
                    if let Some(reason) = orders.closing {
                        socket.as_mut().start_send(close(reason)).map_err(|_| Over)?;
                        *unflushed = true;
                        *stage = Stage::Closed { readable: *stage == Stage::Open };
                    }
                    return Ok(());
                };
                socket.as_mut().start_send(Message::Binary(frame)).map_err(|_| Over)?;
                *unflushed = true;
            }
            cx.waker().wake_by_ref();
            Ok(())
        })
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Over> {
        let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx) else {
            return Ok(Poll::Pending);
        };
        flushed.map_err(|_| Over)?;
        self.unflushed = false;
        Ok(Poll::Ready(()))
    }

    /// Waits until the peer has closed too, so that it gets what was sent last.
    fn linger(&mut self, readable: bool, cx: &mut Context<'_>) -> Poll<()> {
        if self.unflushed {
            match self.flush(cx) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => return Poll::Pending,
                Err(Over) => return Poll::Ready(()),
            }
        }
        if !readable && ready!(Pin::new(self.socket.get_mut()).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        for _ in 0..READ_BUDGET {
            let more = if readable {
                matches!(ready!(Pin::new(&mut self.socket).poll_next(cx)), Some(Ok(_)))
            } else {
                let mut scrap = [0; 512];
                let mut scrap = ReadBuf::new(&mut scrap);
                ready!(Pin::new(self.socket.get_mut()).poll_read(cx, &mut scrap)).is_ok()
                    && !scrap.filled().is_empty()
            };
            if !more {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
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
