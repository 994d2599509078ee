//! A proxy between clients and a server that cuts connections at WebSocket messages.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What becomes of the message at which a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It is lost.
    Before,
    /// Half of its bytes arrive.
    Within,
    /// It arrives, and nothing after it.
    After,
}

/// Where connections are cut.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which messages are counted.
    pub way: Way,
    /// At which of them, from 1, a connection is cut; counted anew on each connection.
    pub at: usize,
    /// What becomes of that message.
    pub edge: Edge,
    /// How many connections are cut; later ones are left alone.
    pub times: usize,
}

/// The proxy. It forwards until the runtime ends.
#[derive(Clone, Debug)]
pub struct Proxy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    server: SocketAddr,
    plan: Mutex<Option<Plan>>,
    /// No connection is let through.
    blocked: AtomicBool,
    /// What comes is read and dropped, and nobody is told: the connections so far.
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
    /// If there is no free port.
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

    /// For the client library.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}/", self.0.address)
    }

    /// Cuts every connection, and lets none through until [`Self::unblock`].
    pub fn block(&self) {
        self.0.blocked.store(true, SeqCst);
        self.0.cut_all.notify_waiters();
    }

    /// Lets connections through again.
    pub fn unblock(&self) {
        self.0.blocked.store(false, SeqCst);
    }

    /// Drops what comes over the connections that there are, and tells nobody, as a path does
    /// that is dead; those that come later are let through.
    pub fn silence(&self) {
        self.0.silenced.store(self.0.accepted.load(SeqCst), SeqCst);
    }

    /// Connections that came so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.0.accepted.load(SeqCst)
    }

    /// Connections cut by the plan so far.
    #[must_use]
    pub fn cuts(&self) -> usize {
        self.0.cuts.load(SeqCst)
    }

    /// Messages that went this way so far.
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
        // When one of them ends, all four halves are dropped: the connection is cut.
        tokio::select! {
            biased;
            () = cut_all => {}
            () = self.pump(number, Way::Up, from_client, to_server) => {}
            () = self.pump(number, Way::Down, from_server, to_client) => {}
        }
    }

    /// Passes on what goes one way, until it ends or is cut.
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
                    // Nor is the end of a dead path told.
                    std::future::pending::<()>().await;
                }
                return;
            }
        }
    }

    /// Counts a message, the `count`th of its connection, and says whether to cut there.
    fn count(&self, way: Way, count: usize) -> Option<Edge> {
        self.0.messages[way as usize].fetch_add(1, SeqCst);
        let mut plan = self.0.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = plan.as_mut().filter(|plan| (plan.way, plan.at) == (way, count) && plan.times > 0)?;
        plan.times -= 1;
        self.0.cuts.fetch_add(1, SeqCst);
        Some(plan.edge)
    }
}

/// The length of what comes next, once it is all there: an HTTP head, then frames.
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
