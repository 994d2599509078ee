//! Links to other nodes: the listener, dials, and a task for each link.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use skirmish_core::id::LinkId;
use skirmish_core::wire::{Decoder, WireError};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::{TcpListener, TcpStream};

use super::accept::{Accepted, Acceptor};
use super::shard::LinkDial;
use super::stream::ServerStream;
use super::{Handle, logging};
use crate::rounds::within;

/// Size of one read from a link, in bytes.
const READ_BUFFER: usize = 16 * 1024;
/// Reads of one link in a round.
const READ_BUDGET: usize = 8;
/// Buffered output, in bytes, from which on the buffer is written before the node is asked for more
/// frames.
const WRITE_BUFFER: usize = 64 * 1024;
/// Writes of one link in a round.
const WRITE_BUDGET: usize = 8;

/// Settings of links.
pub(super) struct Settings {
    #[cfg(not(madsim))]
    pub(super) tls: Option<super::tls::MutualTls>,
    /// True if a link over an address that is not loopback may be without TLS.
    #[cfg_attr(madsim, allow(dead_code, reason = "TLS is not simulated"))]
    pub(super) insecure: bool,
    /// Largest frame, in bytes.
    pub(super) frame_bytes: usize,
}

/// Accepts links, and dials the nodes that the node wants, for as long as the future is polled.
pub(super) async fn serve(listener: Option<TcpListener>, server: Handle) {
    let mut acceptor = listener.map(Acceptor::new);
    loop {
        let accepted = async {
            match &mut acceptor {
                // A link may have the last descriptor: links are few, and matter to many players.
                Some(acceptor) => acceptor.next(&server, || false).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            to = server.0.shared.next_dial() => {
                tokio::spawn(dial(server.clone(), to));
            }
            Accepted { stream, address, .. } = accepted => {
                // From now on the node counts the link, and has a deadline for it.
                match server.0.shared.command(|shard, now| shard.caller(now, address)) {
                    Some(link) => {
                        tokio::spawn(accepted_link(server.clone(), stream, link));
                    }
                    None => server.0.shared.command(|shard, now| logging::link_refused(shard, now.instant, address)),
                }
            }
        }
    }
}

/// Connects to another node, and serves the link.
async fn dial(server: Handle, to: LinkDial) {
    let LinkDial { node, address, limit } = to;
    let connected = match within(limit, connect(&server.0.links, &address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match connected {
        Ok(stream) => {
            let link = server.0.shared.command(|shard, now| shard.link(now, node, address.clone()));
            match link {
                Some(link) => serve_link(&server, stream, link).await,
                None => server.0.shared.command(|shard, _| {
                    logging::dial_failed(shard, node, &address, "there is no place for another link");
                }),
            }
        }
        Err(error) => {
            server.0.shared.command(|shard, now| {
                logging::dial_failed(shard, node, &address, &error.to_string());
                shard.link_errors.insert(node, error.to_string());
                shard.node.handle_dial_failed(now, node);
            });
        }
    }
}

async fn connect(settings: &Settings, address: &str) -> io::Result<ServerStream> {
    let stream = TcpStream::connect(address).await?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let _ = stream.set_nodelay(true);
    settings.connect(stream, peer).await
}

/// Serves a link that another node has dialed.
async fn accepted_link(server: Handle, stream: TcpStream, link: LinkId) {
    // The deadline is the node's: the node drops a link that takes too long.
    let told_to_stop = poll_fn(|cx| match server.0.shared.lock().link_orders(link, cx.waker()) {
        Some(_) => Poll::Pending,
        None => Poll::Ready(()),
    });
    let secured = tokio::select! {
        biased;
        () = told_to_stop => return,
        secured = server.0.links.accept(stream) => secured,
    };
    match secured {
        Ok(stream) => serve_link(&server, stream, link).await,
        Err(error) => {
            over(&server, link, &LinkEnd::Stranger(error));
        }
    }
}

/// Serves a link until it ends.
async fn serve_link(server: &Handle, stream: ServerStream, link: LinkId) {
    let end = LinkTask::new(server, stream, link).await;
    over(server, link, &end);
}

/// Reports that a link's task has ended.
fn over(server: &Handle, link: LinkId, end: &LinkEnd) {
    server.0.shared.command(|shard, now| {
        logging::link_over(shard, now.instant, link, end);
        shard.unlink(now, link, end.to_string());
    });
}

impl Settings {
    #[cfg(not(madsim))]
    async fn accept(&self, stream: TcpStream) -> io::Result<ServerStream> {
        Ok(match &self.tls {
            Some(tls) => ServerStream::Tls(Box::new(tls.accept(stream).await?)),
            None => ServerStream::Plain(stream),
        })
    }

    #[cfg(not(madsim))]
    async fn connect(&self, stream: TcpStream, peer: IpAddr) -> io::Result<ServerStream> {
        match &self.tls {
            Some(tls) => Ok(ServerStream::Tls(Box::new(tls.connect(stream).await?))),
            None if self.insecure || peer.is_loopback() => Ok(ServerStream::Plain(stream)),
            None => Err(io::Error::other(
                "not without mutual TLS (`cluster.tls`) or `cluster.insecure = true`: it is not a loopback address",
            )),
        }
    }

    #[cfg(madsim)]
    #[allow(clippy::unused_async, reason = "TLS is not simulated")]
    async fn accept(&self, stream: TcpStream) -> io::Result<ServerStream> {
        Ok(ServerStream::Plain(stream))
    }

    #[cfg(madsim)]
    #[allow(clippy::unused_async, reason = "TLS is not simulated")]
    async fn connect(&self, stream: TcpStream, _: IpAddr) -> io::Result<ServerStream> {
        Ok(ServerStream::Plain(stream))
    }
}

/// A link, polled by hand like a [`connection`](super::connection). In one round the task first
/// reads all input, then lets every other task with input read, then writes the node's frames.
struct LinkTask<'a> {
    server: &'a Handle,
    link: LinkId,
    stream: ServerStream,
    decoder: Decoder,
    input: BytesMut,
    output: Vec<u8>,
    /// Number of bytes of `output` that are written.
    written: usize,
    /// True if writing was put off by one round.
    deferred: bool,
    /// True if written bytes are not flushed.
    unflushed: bool,
}

/// The reason for the end of a link.
#[derive(Debug)]
pub(super) enum LinkEnd {
    /// The node has dropped the link.
    Dropped,
    /// The other side has closed the link.
    Closed,
    /// The connection failed.
    Failed(io::Error),
    /// The received bytes are not frames.
    Rubbish(WireError),
    /// The peer that dialed is no node of this cluster.
    Stranger(io::Error),
}

impl fmt::Display for LinkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => f.write_str("dropped by this node"),
            Self::Closed => f.write_str("closed by the other side"),
            Self::Failed(error) => write!(f, "the connection failed: {error}"),
            Self::Rubbish(error) => write!(f, "what came is not frames: {error}"),
            Self::Stranger(error) => write!(f, "no node of this cluster: {error}"),
        }
    }
}

impl Future for LinkTask<'_> {
    type Output = LinkEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        match self.pass(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }
}

impl<'a> LinkTask<'a> {
    fn new(server: &'a Handle, stream: ServerStream, link: LinkId) -> Self {
        Self {
            server,
            link,
            stream,
            decoder: Decoder::new(server.0.links.frame_bytes),
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            deferred: false,
            unflushed: false,
        }
    }

    /// Makes one pass over the work, and makes sure that the task is woken for the rest.
    fn pass(&mut self, cx: &mut Context<'_>) -> Result<(), LinkEnd> {
        self.server.0.shared.lock().link_orders(self.link, cx.waker()).ok_or(LinkEnd::Dropped)?;
        let has_read = self.read(cx)?;
        // Bytes that the socket did not accept last time are written first.
        if !self.write(cx)? {
            return Ok(());
        }
        if has_read && !self.deferred {
            self.deferred = true;
            cx.waker().wake_by_ref();
            return Ok(());
        }
        self.deferred = false;
        for _ in 0..WRITE_BUDGET {
            self.pull(cx)?;
            if self.output.is_empty() || !self.write(cx)? {
                return self.flush(cx);
            }
        }
        cx.waker().wake_by_ref();
        self.flush(cx)
    }

    /// Gives the node the frames that have arrived. Returns true if there were any bytes.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkEnd> {
        for round in 0..READ_BUDGET {
            self.input.reserve(READ_BUFFER);
            match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(0)) => return Err(LinkEnd::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(LinkEnd::Failed(error)),
                Poll::Pending => return Ok(round > 0),
            }
            self.decoder.push(self.input.split().freeze()).map_err(LinkEnd::Rubbish)?;
            while let Some(frame) = self.decoder.poll_bytes().map_err(LinkEnd::Rubbish)? {
                // The node may keep a frame for long, and must not keep the whole chunk.
                let frame = Bytes::copy_from_slice(&frame);
                self.server.input(|shard, now| shard.node.handle_link_frame(now, self.link, frame));
            }
        }
        cx.waker().wake_by_ref();
        Ok(true)
    }

    /// Takes frames of the node until the write buffer is full. The last frame may exceed the
    /// bound.
    fn pull(&mut self, cx: &Context<'_>) -> Result<(), LinkEnd> {
        let Self { server, link, output, .. } = self;
        server.0.shared.command(|shard, now| {
            let transmit = shard.link_orders(*link, cx.waker()).ok_or(LinkEnd::Dropped)?;
            while transmit && output.len() < WRITE_BUFFER {
                let Some(frame) = shard.node.poll_link_transmit(now, *link) else {
                    shard.link_transmitted(*link);
                    break;
                };
                output.extend_from_slice(&frame);
            }
            Ok(())
        })
    }

    /// Writes the pulled frames. Returns true if the socket has accepted all of them.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, LinkEnd> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(LinkEnd::Failed(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.written += written,
                Poll::Ready(Err(error)) => return Err(LinkEnd::Failed(error)),
                Poll::Pending => return Ok(false),
            }
            self.unflushed = true;
        }
        self.written = 0;
        self.output.clear();
        // The memory for one large frame is not kept.
        self.output.shrink_to(2 * WRITE_BUFFER);
        Ok(true)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), LinkEnd> {
        if self.unflushed && self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(flushed) => flushed.map_err(LinkEnd::Failed)?,
                Poll::Pending => return Ok(()),
            }
            self.unflushed = false;
        }
        Ok(())
    }
}
