//! A connection's byte stream: plain, or TLS. And as the WebSocket wants it: one that says
//! at once that it would have to wait, and wakes the connection's task when it has not to.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::overhead::FrameCounter;

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

/// A byte stream that does not wait: what would have to is [`ErrorKind::WouldBlock`], and
/// wakes the task to which the connection belongs later, whoever tried.
#[derive(Debug)]
pub(super) struct NonBlocking {
    stream: Stream,
    task: Waker,
    /// What [`Self::send`] was given and the stream has not taken yet. It goes before
    /// anything else.
    kept: Vec<u8>,
    /// What has come.
    pub(super) counter: FrameCounter,
    /// Bytes that may be read until [`Self::allow`] is called again.
    allowance: usize,
}

impl NonBlocking {
    /// A stream of which `rest` was read already.
    pub(super) fn new(stream: Stream, rest: &[u8], task: Waker) -> Self {
        let mut counter = FrameCounter::default();
        counter.feed(rest);
        Self { stream, task, kept: Vec::new(), counter, allowance: 0 }
    }

    /// Lets so many bytes be read. When they are read, reading [has to wait](Self::is_spent)
    /// whether there are more or not, and nothing wakes the task.
    pub(super) const fn allow(&mut self, bytes: usize) {
        self.allowance = bytes;
    }

    /// Whether reading has to wait for [`Self::allow`].
    pub(super) const fn is_spent(&self) -> bool {
        self.allowance == 0
    }

    /// Whether there may be something to read beyond what was read; if not, the task is
    /// woken when there is. Cheaper than an attempt to read.
    pub(super) fn may_be_readable(&self) -> bool {
        match &self.stream {
            #[cfg(not(madsim))]
            Stream::Plain(stream) => stream.poll_read_ready(&mut Context::from_waker(&self.task)).is_ready(),
            #[cfg(not(madsim))]
            Stream::Tls(stream) => {
                stream.get_ref().0.poll_read_ready(&mut Context::from_waker(&self.task)).is_ready()
            }
            // The simulated stream cannot tell: the attempt does.
            #[cfg(madsim)]
            Stream::Plain(_) => true,
        }
    }

    /// Sends bytes past the WebSocket, which must have nothing to send itself. They are taken
    /// in any case: those that would have to wait go before anything else.
    ///
    /// # Errors
    /// `WouldBlock` if something has to be flushed before there is more.
    pub(super) fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.at_once(|stream, cx| stream.poll_write(cx, bytes)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
                Err(error) => {
                    self.kept.extend_from_slice(bytes);
                    return Err(error);
                }
            }
        }
        self.at_once(Stream::poll_flush)
    }

    fn send_kept(&mut self) -> io::Result<()> {
        if !self.kept.is_empty() {
            let kept = std::mem::take(&mut self.kept);
            self.send(&kept)?;
        }
        Ok(())
    }

    /// Tells the peer that nothing more will be sent.
    pub(super) fn shutdown(&mut self) -> io::Result<()> {
        self.at_once(|stream, cx| stream.poll_shutdown(cx))
    }

    fn at_once<T>(
        &mut self,
        f: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        match f(Pin::new(&mut self.stream), &mut Context::from_waker(&self.task)) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Read for NonBlocking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_spent() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let fits = buf.len().min(self.allowance);
        let mut buf = ReadBuf::new(buf.get_mut(..fits).unwrap_or_default());
        self.at_once(|stream, cx| stream.poll_read(cx, &mut buf))?;
        let read = buf.filled();
        self.counter.feed(read);
        self.allowance -= read.len();
        Ok(read.len())
    }
}

impl Write for NonBlocking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send_kept()?;
        self.at_once(|stream, cx| stream.poll_write(cx, buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_kept()?;
        self.at_once(Stream::poll_flush)
    }
}
