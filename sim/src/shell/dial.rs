//! How clients reach the server: simulated TCP, made more like the real one.
//!
//! * A simulated dial through a cut link is refused at once. Here it hangs until the
//!   link is mended or the client gives up, as when no packet is answered.
//! * A simulated read never spans two flushes and a write always takes everything. Here
//!   both are chopped into pieces of any size, with turns in between in which nothing
//!   is taken; and what is written leaves in pieces, so that the server reads pieces.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use madsim::time::{Duration, sleep};
use skirmish_core::rng::{Rng, Seed};
use skirmish_io::client::{BoxFuture, Dial, Stream, Target, Tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often a packet that asks for a connection is sent again.
const RETRY: Duration = Duration::from_millis(200);
/// The largest piece, in bytes.
const PIECE: usize = 600;
/// What is written between two flushes leaves in at most this many pieces before the
/// rest: over a link that was cut, the simulated network takes one round for each.
const PIECES: usize = 2;

/// Dials from one client.
pub(super) struct Dialer {
    /// Whether nothing gets from the client to the server.
    pub(super) blocked: Arc<AtomicBool>,
    /// Gives each stream a seed; none if streams are left whole.
    chopping: Option<Arc<Mutex<Rng>>>,
}

impl Dialer {
    pub(super) fn new(blocked: Arc<AtomicBool>, chopping: Option<Seed>) -> Self {
        Self { blocked, chopping: chopping.map(|seed| Arc::new(Mutex::new(Rng::new(seed)))) }
    }
}

impl Dial for Dialer {
    fn dial(&self, target: &Target) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let opening = Tcp.dial(target);
        let (blocked, chopping) = (Arc::clone(&self.blocked), self.chopping.clone());
        Box::pin(async move {
            while blocked.load(Ordering::Relaxed) {
                sleep(RETRY).await;
            }
            let stream = opening.await?;
            let Some(seeds) = chopping else { return Ok(stream) };
            let rng = Rng::new(seeds.lock().unwrap_or_else(PoisonError::into_inner).split());
            Ok(Box::new(Chopped { stream, rng, pieces: 0 }) as Box<dyn Stream>)
        })
    }
}

/// A stream whose reads and writes come in pieces.
struct Chopped {
    stream: Box<dyn Stream>,
    rng: Rng,
    /// Pieces written since the last flush.
    pieces: usize,
}

impl Chopped {
    /// The length of the next piece; none if it is not this stream's turn.
    fn piece(&mut self, cx: &Context<'_>) -> Poll<usize> {
        if self.rng.range(0..=7) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = [1, 20, PIECE as u64][usize::try_from(self.rng.range(0..=2)).unwrap_or(0)];
        Poll::Ready(usize::try_from(self.rng.range(1..=most)).unwrap_or(1))
    }
}

impl AsyncRead for Chopped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = ready!(self.piece(cx)).min(buf.remaining());
        let mut bytes = [0; PIECE];
        let mut piece = ReadBuf::new(&mut bytes[..length]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        buf.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chopped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let length = ready!(self.piece(cx)).min(buf.len());
        if self.pieces >= PIECES {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        self.pieces += 1;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..length]))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pieces = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
