//! Proxy between clients and a server that cuts connections at WebSocket messages.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Fate of the message at which a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The message is lost.
    Before,
    /// Half of the message's bytes arrive.
    Within,
    /// The message arrives, and nothing after it.
    After,
}

/// Plan of cuts.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Direction of the counted messages.
    pub way: Way,
    /// Number of the message, from 1, at which a connection is cut; counted for each connection.
    pub at: usize,
    /// Fate of that message.
    pub edge: Edge,
    /// Number of connections to cut; later ones are not cut.
    pub times: usize,
}

/// The proxy. Runs until the runtime ends.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    server: SocketAddr,
    plan: Mutex<Option<Plan>>,
    /// True while no connection is forwarded.
    blocked: AtomicBool,
    /// Number of connections, the oldest ones, whose bytes are read and dropped silently.
    silenced: AtomicUsize,
    accepted: AtomicUsize,
    cut_all: Notify,
    cuts: AtomicUsize,
    messages: [AtomicUsize; 2],
}

impl Proxy {
    /// Starts a proxy to a server.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(server: SocketAddr, plan: Option<Plan>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port is free");
        let proxy = Self(Arc::new(Shared {
            address: listener.local_addr().expect("it is bound"),
            server,
            plan: Mutex::new(plan),
            blocked: AtomicBool::new(false),
            silenced: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            cut_all: Notify::new(),
            cuts: AtomicUsize::new(0),
            messages: [AtomicUsize::new(0), AtomicUsize::new(0)],
        }));
        let this = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let this = this.clone();
                tokio::spawn(async move { this.forward(client).await });
            }
        });
        proxy
    }

    /// URL for the client library.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.0.address)
    }

    /// Cuts all connections, and forwards none until [`Self::unblock`].
    pub fn block(&self) {
        self.0.blocked.store(true, SeqCst);
        self.0.cut_all.notify_waiters();
    }

    /// Forwards connections again.
    pub fn unblock(&self) {
        self.0.blocked.store(false, SeqCst);
    }

    /// Drops all bytes of the present connections silently, like a dead path. Later connections are
    /// forwarded.
    pub fn silence(&self) {
        self.0.silenced.store(self.0.accepted.load(SeqCst), SeqCst);
    }

    /// Returns the number of accepted connections so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.0.accepted.load(SeqCst)
    }

    /// Returns the number of connections cut by the plan so far.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.0.cuts.load(SeqCst)
    }

    /// Returns the number of messages in this direction so far.
    #[must_use]
    pub fn messages(&self, way: Way) -> usize {
        self.0.messages[way as usize].load(SeqCst)
    }

    async fn forward(&self, client: TcpStream) {
        let number = self.0.accepted.fetch_add(1, SeqCst) + 1;
        let cut_all = self.0.cut_all.notified();
        if self.0.blocked.load(SeqCst) {
            return;
        }
        let Ok(server) = TcpStream::connect(self.0.server).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = tokio::io::split(client);
        let (from_server, to_server) = tokio::io::split(server);
        // The end of one direction drops all four halves, which cuts the connection.
        tokio::select! {
            biased;
            () = cut_all => {}
            () = self.pump(number, Way::Up, from_client, to_server) => {}
            () = self.pump(number, Way::Down, from_server, to_client) => {}
        }
    }

    /// Forwards one direction until it ends or is cut.
    async fn pump(
        &self,
        number: usize,
        way: Way,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) {
        let mut buffer = Vec::new();
        let mut upgraded = false;
        let mut count = 0;
        loop {
            while let Some(length) = next_length(&buffer, upgraded) {
                let piece: Vec<u8> = buffer.drain(..length).collect();
                let is_message = upgraded && piece[0] & 0x0f <= 2;
                upgraded = true;
                count += usize::from(is_message);
                let edge = if is_message { self.count(way, count) } else { None };
                let passed = match edge {
                    Some(Edge::Before) => 0,
                    Some(Edge::Within) => length / 2,
                    Some(Edge::After) | None => length,
                };
                if number <= self.0.silenced.load(SeqCst) {
                    continue;
                }
                if to.write_all(&piece[..passed]).await.is_err() || edge.is_some() {
                    return;
                }
            }
            if !from.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                if number <= self.0.silenced.load(SeqCst) {
                    // A dead path does not report the end either.
                    std::future::pending::<()>().await;
                }
                return;
            }
        }
    }

    /// Counts the `count`th message of its connection. Returns the edge if the plan cuts there.
    fn count(&self, way: Way, count: usize) -> Option<Edge> {
        self.0.messages[way as usize].fetch_add(1, SeqCst);
        let mut plan = self.0.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = plan.as_mut().filter(|plan| (plan.way, plan.at) == (way, count) && plan.times > 0)?;
        plan.times -= 1;
        self.0.cuts.fetch_add(1, SeqCst);
        Some(plan.edge)
    }
}

/// Returns the length of the next unit, once all of it is in the buffer: an HTTP head, then frames.
fn next_length(buffer: &[u8], upgraded: bool) -> Option<usize> {
    if !upgraded {
        return buffer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
    }
    let second = *buffer.get(1)?;
    let masked = if second & 0x80 == 0 { 0 } else { 4 };
    let (header, length) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*buffer.get(2..)?.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*buffer.get(2..)?.first_chunk()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let whole = header + masked + length;
    (buffer.len() >= whole).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::web_socket_frame;

    #[test]
    fn pieces_are_heads_and_frames() {
        assert_eq!(next_length(b"GET / HTTP/1.1\r\n\r\nrest", false), Some(18));
        assert_eq!(next_length(b"GET / HTTP/1.1\r\n", false), None);
        let frame = web_socket_frame(true, 2, true, &[0; 300]);
        assert_eq!(next_length(&frame, true), Some(frame.len()));
        for cut in 0..frame.len() {
            assert_eq!(next_length(&frame[..cut], true), None);
        }
        assert_eq!(next_length(&[0x82, 1, 7, 9], true), Some(3));
    }
}
