//! Way of clients to the servers: simulated TCP, made more like the real one.
//!
//! * A simulated dial through a cut link is refused at once. Here the dial hangs until the link is
//!   mended or the client gives up, as if no packet were answered.
//! * A simulated read never spans two flushes, and a simulated write always accepts everything.
//!   Here both are chopped into pieces of any size, with turns in between that accept nothing.
//!   Writes leave in pieces, so that the server reads pieces.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use madsim::time::{Duration, sleep};
use skirmish_core::rng::{Rng, Seed};
use skirmish_io::client::{BoxFuture, Dial, ServerAddress, Stream, Tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ledger::SharedLedger;
use super::player::player_address;

/// Interval of the packets that ask for a connection.
const RETRY: Duration = Duration::from_millis(200);
/// Largest piece, in bytes.
const PIECE: usize = 600;
/// Most pieces of the data between two flushes, before the rest. Over a link that was cut, the
/// simulated network needs one round for each piece.
const PIECES: usize = 2;

/// Dialer of one client.
pub(super) struct SimDialer {
    pub(super) shared: SharedLedger,
    pub(super) client: usize,
    /// Source of a seed for each stream; `None` if streams are left whole.
    chopping: Option<Arc<Mutex<Rng>>>,
}

impl SimDialer {
    pub(super) fn new(shared: SharedLedger, client: usize, chopping: Option<Seed>) -> Self {
        Self { shared, client, chopping: chopping.map(|seed| Arc::new(Mutex::new(Rng::new(seed)))) }
    }
}

impl Dial for SimDialer {
    /// Opens a connection to the server that the client chooses at this moment.
    fn dial(&self, _: &ServerAddress) -> BoxFuture<io::Result<Box<dyn Stream>>> {
        let (shared, client, chopping) = (self.shared.clone(), self.client, self.chopping.clone());
        let server = shared.lock().choose(client);
        Box::pin(async move {
            let target = ServerAddress::parse(&format!("ws://{}/", player_address(server)));
            let target = target.map_err(|error| io::Error::other(error.to_string()))?;
            while shared.lock().is_blocked(client, server) {
                sleep(RETRY).await;
            }
            let stream = Tcp.dial(&target).await?;
            let chop = chopping.map(|seeds| {
                let seed = seeds.lock().unwrap_or_else(PoisonError::into_inner).split();
                Chop { rng: Rng::new(seed), pieces: 0 }
            });
            let cable = shared.lock().plug(client, server);
            Ok(Box::new(CableStream { stream, cable, chop }) as Box<dyn Stream>)
        })
    }
}

/// Cable of a connection, which can be pulled out.
#[derive(Clone, Default)]
pub(super) struct Cable(Arc<Mutex<(bool, Option<Waker>)>>);

impl Cable {
    /// Resets the connection at the client. Data that the client had sent is still under way.
    pub(super) fn pull(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        state.1 = Some(cx.waker().clone());
        Ok(())
    }
}

/// Stream that can be reset, with reads and writes that may be in pieces.
struct CableStream {
    stream: Box<dyn Stream>,
    cable: Cable,
    chop: Option<Chop>,
}

struct Chop {
    rng: Rng,
    /// Pieces written since the last flush.
    pieces: usize,
}

impl Chop {
    /// Returns the length of the next piece; pending if the stream must wait for a later turn.
    fn piece(&mut self, cx: &Context<'_>) -> Poll<usize> {
        if self.rng.range(0..=7) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let most = [1, 20, PIECE as u64][usize::try_from(self.rng.range(0..=2)).unwrap_or(0)];
        Poll::Ready(usize::try_from(self.rng.range(1..=most)).unwrap_or(1))
    }
}

impl AsyncRead for CableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cable.check(cx)?;
        let Some(chop) = &mut self.chop else { return Pin::new(&mut self.stream).poll_read(cx, buf) };
        let length = ready!(chop.piece(cx)).min(buf.remaining());
        let mut bytes = [0; PIECE];
        let mut piece = ReadBuf::new(&mut bytes[..length]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        buf.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.cable.check(cx)?;
        let Some(chop) = &mut self.chop else { return Pin::new(&mut self.stream).poll_write(cx, buf) };
        let length = ready!(chop.piece(cx)).min(buf.len());
        if chop.pieces >= PIECES {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        chop.pieces += 1;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &buf[..length]))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(chop) = &mut self.chop {
            chop.pieces = 0;
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
