//! A connection's byte stream: plain, or TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream. The TLS variant is boxed, so that plain connections stay small.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    #[cfg(not(madsim))]
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

/// Calls the same method of whichever stream it is.
macro_rules! either {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(not(madsim))]
            Self::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl Stream {
    /// Whether there may be something to read beyond what was read; if not, the task is
    /// woken when there is. Cheaper than an attempt to read.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            #[cfg(not(madsim))]
            Self::Plain(stream) => stream.poll_read_ready(cx).map(drop),
            #[cfg(not(madsim))]
            Self::Tls(stream) => stream.get_ref().0.poll_read_ready(cx).map(drop),
            // The simulated stream cannot tell: the attempt does.
            #[cfg(madsim)]
            Self::Plain(_) => {
                let _ = cx;
                Poll::Ready(())
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_shutdown(cx))
    }
}
