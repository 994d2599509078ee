//! A connection's task: from the upgrade until it is closed.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use skirmish_core::id::ConnId;
use skirmish_core::node::{Identity, Refusal};
use skirmish_core::time::{Duration, Instant, Now};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::http::{HeadError, RefusedRequest, read_head};
#[cfg(not(madsim))]
use super::peer::{HeaderError, ProxyHeader, read_header};
use super::shard::{ConnectionOver, Received, Shard};
use super::socket::{Socket, SocketInput};
use super::stream::ServerStream;
use super::{HandleInner, logging, trace};
#[cfg(not(madsim))]
use crate::config::ProxyProtocol;

/// Messages that a connection's task reads in one round.
const READ_BUDGET: usize = 16;
/// Time after which a connection's task reads nothing more in a round: messages that cost much are
/// read one at a time.
const READ_TIME: Duration = Duration::from_micros(20);

/// Reads of at most 2 KiB each, after the last answer to a peer: more bytes than a request head may
/// have.
const LAST_READS: usize = 64;

/// Serves a connection that the node has accepted.
pub(super) async fn serve(server: super::Handle, stream: TcpStream, conn: ConnId, peer: IpAddr) {
    let _served = Served { server: &server, conn };
    // In a box of its own, so that the upgrade's buffers are freed when the connection is open.
    let upgraded = Box::pin(upgrade(&server.0, stream, conn, peer)).await;
    if let Some((stream, rest)) = upgraded {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let socket = Socket::new(stream, rest, server.0.web_socket, task);
        server.0.shared.lock().open(conn, socket);
        ConnectionTask { server: &server, conn }.await;
    }
    server.0.shared.closed(conn);
}

/// A connection with a running task.
struct Served<'a> {
    server: &'a super::Handle,
    conn: ConnId,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        // A handler of application messages may panic. The peer must not wait for a task that is
        // gone. The node learns of the loss by the heartbeat.
        if std::thread::panicking() {
            self.server.0.shared.lock().lose(self.conn);
        }
    }
}

/// Does the TLS handshake and the checks of the upgrade. Returns the stream and the bytes that were
/// already read from it. Returns `None` if the upgrade failed.
async fn upgrade(
    server: &HandleInner,
    stream: TcpStream,
    conn: ConnId,
    peer: IpAddr,
) -> Option<(ServerStream, Vec<u8>)> {
    // The deadline is the node's: the node closes a connection that takes too long.
    let told_to_stop = poll_fn(|cx| server.shared.lock().poll_closing(conn, cx));
    tokio::select! {
        biased;
        () = told_to_stop => None,
        socket = handshake(server, stream, conn, peer) => socket,
    }
}

async fn handshake(
    server: &HandleInner,
    stream: TcpStream,
    conn: ConnId,
    peer: IpAddr,
) -> Option<(ServerStream, Vec<u8>)> {
    let fail = |error: &dyn std::fmt::Display| logging::failed(&server.shared.lock(), conn, error);
    let (stream, mut client) = introduced(server, stream, conn, peer).await?;
    let named = !server.proxies.reads_head_of(client);
    let refusal = if named { identify(server, conn, client) } else { None };
    if refusal.is_some() && server.uses_tls() {
        let now = server.shared.clock().now().instant;
        if !server.refusals.affords_handshake(now) {
            return None;
        }
    }
    let mut stream = server.secure(stream).await.inspect_err(|e| fail(e)).ok()?;
    if let Some(refusal) = refusal {
        goodbye(&mut stream, server.refusals.answer(refusal)).await;
        return None;
    }
    let head = match read_head(&mut stream, server.head_bytes).await {
        Ok(head) => head,
        Err(HeadError::Io(error)) => {
            fail(&error);
            return None;
        }
        Err(HeadError::TooLong) => {
            refuse(server, &mut stream, conn, client, &RefusedRequest::too_large("the request is too long"))
                .await;
            return None;
        }
    };
    if !named {
        client = server.proxies.client(client, head.bytes());
        if let Some(refusal) = identify(server, conn, client) {
            goodbye(&mut stream, server.refusals.answer(refusal)).await;
            return None;
        }
    }
    let address = client;
    // Tokens are judged only by a clock that is right.
    if let Err(refusal) = server.shared.command(|shard, now| shard.node.check_clock(now)) {
        goodbye(&mut stream, server.refusals.answer(refusal)).await;
        return None;
    }
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
        logging::upgraded(shard, address, conn, trace);
    });
    Some((stream, head.rest()))
}

/// Reads the header of the PROXY protocol, in which a trusted proxy names its client. Returns
/// `None` if the connection is refused.
#[cfg(not(madsim))]
async fn introduced(
    server: &HandleInner,
    mut stream: TcpStream,
    conn: ConnId,
    peer: IpAddr,
) -> Option<(TcpStream, IpAddr)> {
    let refused = match (server.proxies.protocol, server.proxies.trusts(peer)) {
        (ProxyProtocol::Off, _) | (ProxyProtocol::Accept, false) => return Some((stream, peer)),
        (ProxyProtocol::Require, false) => {
            RefusedRequest::forbidden("this server is reached through its proxies only")
        }
        (protocol @ (ProxyProtocol::Accept | ProxyProtocol::Require), true) => {
            match read_header(&mut stream).await {
                Ok(Some(ProxyHeader::Client(client))) => return Some((stream, client)),
                Ok(Some(ProxyHeader::Nobody)) => return Some((stream, peer)),
                Ok(None) if protocol == ProxyProtocol::Accept => return Some((stream, peer)),
                Ok(None) => RefusedRequest::bad_request("a PROXY protocol header is missing"),
                Err(HeaderError::Io(error)) => {
                    logging::failed(&server.shared.lock(), conn, &error);
                    return None;
                }
                Err(error @ HeaderError::Malformed(_)) => RefusedRequest::bad_request(error.to_string()),
            }
        }
    };
    if server.uses_tls() {
        // A peer that speaks TLS would not understand the answer.
        note_refusal(server, conn, peer, &refused);
    } else {
        refuse(server, &mut ServerStream::Plain(stream), conn, peer, &refused).await;
    }
    None
}

/// The PROXY protocol is not simulated.
#[cfg(madsim)]
#[allow(clippy::unused_async, reason = "the other one waits")]
async fn introduced(
    _: &HandleInner,
    stream: TcpStream,
    _: ConnId,
    peer: IpAddr,
) -> Option<(TcpStream, IpAddr)> {
    Some((stream, peer))
}

/// Tells the node the client of a connection. Returns the refusal, if the node refuses the client.
fn identify(server: &HandleInner, conn: ConnId, client: IpAddr) -> Option<Refusal> {
    let identified = |shard: &mut Shard, now: Now| {
        let refusal = shard.identify(now, conn, client).err()?;
        logging::refused_at_accept(shard, now.instant, client, refusal);
        Some(refusal)
    };
    server.shared.command(identified)
}

/// Answers with a refusal and lets the peer read it.
async fn refuse(
    server: &HandleInner,
    stream: &mut ServerStream,
    conn: ConnId,
    address: IpAddr,
    refused: &RefusedRequest,
) {
    note_refusal(server, conn, address, refused);
    goodbye(stream, refused.response(0)).await;
}

fn note_refusal(server: &HandleInner, conn: ConnId, address: IpAddr, refused: &RefusedRequest) {
    let now = server.shared.clock().now().instant;
    let mut shard = server.shared.lock();
    shard.counters.refused_upgrade(refused.status());
    logging::refused_at_upgrade(&mut shard, now, address, conn, refused);
}

/// Sends a last answer. Closing a socket with unread input would reset the connection, and the peer
/// might lose the answer. So later input is read and dropped, up to a bound.
pub(super) async fn goodbye(stream: &mut ServerStream, answer: String) {
    let sent = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    if sent.await.is_ok() {
        let mut scrap = [0; 2048];
        for _ in 0..LAST_READS {
            if !matches!(tokio::io::AsyncReadExt::read(stream, &mut scrap).await, Ok(1..)) {
                break;
            }
        }
    }
}

/// An open connection, until it is closed. Gives the node the input. The shard's writer sends the
/// node's frames, unless the socket is full: then this task waits until the socket accepts more.
struct ConnectionTask<'a> {
    server: &'a super::Handle,
    conn: ConnId,
}

impl Future for ConnectionTask<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.read(cx).and_then(|()| self.server.0.shared.lock().wait(self.conn, cx)) {
            Ok(()) => Poll::Pending,
            Err(ConnectionOver) => Poll::Ready(()),
        }
    }
}

impl ConnectionTask<'_> {
    /// Gives the node the messages that have arrived.
    fn read(&self, cx: &Context<'_>) -> Result<(), ConnectionOver> {
        let mut start: Option<Instant> = None;
        for _ in 0..READ_BUDGET {
            let Received { input, overhead, caught_up } = self.server.0.shared.lock().receive(self.conn)?;
            let mut now = None;
            if !overhead.is_none() {
                now = Some(self.server.input(|shard, now| {
                    shard.node.handle_overhead(now, self.conn, overhead);
                    now.instant
                }));
            }
            match input {
                None => {
                    if caught_up {
                        self.server.input(|shard, now| shard.node.handle_drained(now, self.conn));
                    }
                    return Ok(());
                }
                Some(SocketInput::Frame(frame)) => {
                    now = Some(self.server.input(|shard, now| {
                        shard.node.handle_frame(now, self.conn, frame);
                        now.instant
                    }));
                }
                Some(SocketInput::Control) => {}
                Some(SocketInput::Violation(what, wrong, _)) => {
                    self.server.input(|shard, now| shard.node.handle_violation(now, self.conn, what, wrong));
                    return Ok(());
                }
            }
            // Time of the input: the time that an input has taken shows at the next one.
            if now.is_some_and(|now| now.since(*start.get_or_insert(now)) >= READ_TIME) {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }
}
