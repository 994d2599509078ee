//! A connection's byte stream: plain, or TLS. Also the non-blocking stream that the WebSocket
//! needs: it reports at once that it would have to wait, and wakes the connection's task later.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::overhead::FrameCounter;

/// A byte stream. The TLS variant is boxed, so that plain connections stay small.
#[derive(Debug)]
pub(super) enum ServerStream {
    Plain(TcpStream),
    #[cfg(not(madsim))]
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

/// Calls the same method of either stream.
macro_rules! either {
    ($self:ident, $method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(not(madsim))]
            Self::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for ServerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for ServerStream {
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

/// A byte stream that does not wait. A call that would have to wait returns
/// [`ErrorKind::WouldBlock`], and later wakes the task of the connection, whichever task has made
/// the call.
#[derive(Debug)]
pub(super) struct NonBlocking {
    stream: ServerStream,
    task: Waker,
    /// Bytes that were passed to [`Self::send`] and not yet accepted by the stream. Sent before
    /// anything else.
    kept: Vec<u8>,
    /// Received bytes that may not be read yet.
    ahead: Bytes,
    /// Counter of the frames in the bytes that were read.
    pub(super) counter: FrameCounter,
    /// Number of bytes, and of frames that are no message, that may be read until the next
    /// [`Self::allow`].
    allowance: (usize, u32),
}

impl NonBlocking {
    /// Creates a stream whose first bytes, `ahead`, were received already.
    pub(super) fn new(stream: ServerStream, ahead: Vec<u8>, task: Waker) -> Self {
        let (kept, ahead) = (Vec::new(), ahead.into());
        Self { stream, task, kept, ahead, counter: FrameCounter::default(), allowance: (0, 0) }
    }

    /// Allows a number of bytes to be read, and a number of pings, pongs, closes and fragments.
    /// After that, reading [has to wait](Self::is_spent), even if there are more bytes, and nothing
    /// wakes the task.
    pub(super) const fn allow(&mut self, bytes: usize, frames: u32) {
        self.allowance = (bytes, frames);
    }

    /// Returns true if reading has to wait for [`Self::allow`].
    pub(super) const fn is_spent(&self) -> bool {
        matches!(self.allowance, (0, _) | (_, 0))
    }

    /// Returns true if more bytes may be readable. If not, the task is woken when there are any.
    /// Cheaper than an attempt to read.
    pub(super) fn may_be_readable(&self) -> bool {
        if !self.ahead.is_empty() {
            return true;
        }
        match &self.stream {
            #[cfg(not(madsim))]
            ServerStream::Plain(stream) => {
                stream.poll_read_ready(&mut Context::from_waker(&self.task)).is_ready()
            }
            #[cfg(not(madsim))]
            ServerStream::Tls(stream) => {
                stream.get_ref().0.poll_read_ready(&mut Context::from_waker(&self.task)).is_ready()
            }
            // The simulated stream has no such method: only an attempt to read shows it.
            #[cfg(madsim)]
            ServerStream::Plain(_) => true,
        }
    }

    /// Sends bytes past the WebSocket, which must have nothing to send. The bytes are accepted in
    /// any case: those that would have to wait are sent before anything else.
    ///
    /// # Errors
    /// `WouldBlock` if bytes must be flushed before more are sent.
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
        self.at_once(ServerStream::poll_flush)
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
        f: impl FnOnce(Pin<&mut ServerStream>, &mut Context<'_>) -> Poll<io::Result<T>>,
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
        let (bytes, frames) = self.allowance;
        let fits = buf.len().min(bytes);
        let buf = buf.get_mut(..fits).unwrap_or_default();
        let fresh = self.ahead.is_empty();
        let come = if fresh {
            let mut filled = ReadBuf::new(buf);
            self.at_once(|stream, cx| stream.poll_read(cx, &mut filled))?;
            filled.filled().len()
        } else {
            (&*self.ahead).read(buf)?
        };
        let come = buf.get(..come).unwrap_or_default();
        let before = self.counter.counted();
        let taken = self.counter.feed(come, frames);
        self.allowance = (bytes - taken, frames - (self.counter.counted() - before));
        if !fresh {
            self.ahead.advance(taken);
            if self.ahead.is_empty() {
                self.ahead = Bytes::new();
            }
        } else if let Some(left @ [_, ..]) = come.get(taken..) {
            self.ahead = Bytes::copy_from_slice(left);
        }
        Ok(taken)
    }
}

impl Write for NonBlocking {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send_kept()?;
        self.at_once(|stream, cx| stream.poll_write(cx, buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_kept()?;
        self.at_once(ServerStream::poll_flush)
    }
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use std::future::poll_fn;

    use skirmish_core::node::Overhead;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    /// Reads everything that may be read now, up to `frames` frames.
    async fn read(stream: &mut NonBlocking, frames: u32) -> (Vec<u8>, Overhead) {
        stream.allow(4096, frames);
        poll_fn(|_| if stream.may_be_readable() { Poll::Ready(()) } else { Poll::Pending }).await;
        let (mut all, mut buffer) = (Vec::new(), [0; 512]);
        while let Ok(length) = stream.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
        }
        (all, stream.counter.take())
    }

    #[tokio::test]
    async fn frames_that_are_no_message_are_read_a_few_at_a_time_and_in_order() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let ping = |number: u8| [0x89, 0x81, 1, 2, 3, 4, number];
        let pings: Vec<u8> = (0..40).flat_map(ping).collect();
        // Some pings arrived together with the upgrade request.
        let (ahead, sent) = pings.split_at(100);
        let mut stream = NonBlocking::new(ServerStream::Plain(accepted), ahead.to_vec(), task);
        peer.write_all(sent).await.unwrap();

        let (mut all, mut most) = (Vec::new(), 0);
        while all.len() < pings.len() {
            let (bytes, overhead) = read(&mut stream, 8).await;
            assert!(stream.is_spent() || bytes.len() < 8 * 7);
            most = most.max(overhead.controls);
            all.extend(bytes);
        }
        assert_eq!(most, 8);
        assert_eq!(all, pings);
    }
}
