//! A listener that goes on when there are no descriptors left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::FutureExt as _;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::sleep;
use tracing::error;

use super::Handle;

/// Wait after an error of the listener that has no remedy.
const BACKOFF: Duration = Duration::from_millis(100);

/// A listener with a spare descriptor. When no other descriptor is left, the spare one is closed to
/// accept one more connection.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    spare: SpareDescriptor,
    /// True if the last attempt failed.
    failing: bool,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: IpAddr,
    /// True if the connection has the listener's last descriptor. No other connection can be
    /// accepted until this one is closed, and if [`Acceptor::next`] is not called right after,
    /// another task may get the descriptor.
    pub(super) scarce: bool,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> Self {
        let mut spare = SpareDescriptor::default();
        spare.keep(&listener);
        Self { listener, spare, failing: false }
    }

    /// Waits for the next connection, in spite of errors. If no descriptor is left and the spare
    /// one is in use, `make_room` may close another connection, and returns true if one was closed.
    pub(super) async fn next(&mut self, server: &Handle, mut make_room: impl FnMut() -> bool) -> Accepted {
        loop {
            self.spare.keep(&self.listener);
            let error = match self.listener.accept().await {
                Ok(accepted) => {
                    self.failing = false;
                    return Accepted::new(accepted, false);
                }
                Err(error) => error,
            };
            if is_passing(&error) {
                continue;
            }
            if is_out_of_files(&error) {
                let mut room = self.spare.give_up();
                if !room && make_room() {
                    // An aborted task closes its connection in its own round.
                    yield_now().await;
                    room = true;
                }
                match if room { self.listener.accept().now_or_never() } else { Some(Err(error)) } {
                    Some(Ok(accepted)) => {
                        self.failed(server, &Errno::MFILE.into());
                        return Accepted::new(accepted, true);
                    }
                    Some(Err(error)) if is_passing(&error) => continue,
                    Some(Err(error)) => self.failed(server, &error),
                    // No connection waits: Linux looks for a descriptor first.
                    None => continue,
                }
            } else {
                self.failed(server, &error);
            }
            sleep(BACKOFF).await;
        }
    }

    fn failed(&mut self, server: &Handle, error: &io::Error) {
        let now = server.0.shared.clock().now().instant;
        let mut shard = server.0.shared.lock();
        shard.counters.accept_errors += 1;
        if is_out_of_files(error) {
            shard.out_of_files = Some(now);
        }
        drop(shard);
        // Logged once, not at each attempt.
        if !std::mem::replace(&mut self.failing, true) {
            error!("cannot accept connections: {error}");
        }
    }
}

impl Accepted {
    fn new((stream, peer): (TcpStream, SocketAddr), scarce: bool) -> Self {
        // Each run of the writer ends in one write; waiting to fill a packet would only delay that
        // write.
        let _ = stream.set_nodelay(true);
        Self { stream, address: peer.ip().to_canonical(), scarce }
    }
}

/// Returns true if only the connection in question has failed, and the listener is well.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Returns true if the process, or the whole system, has no descriptor left.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// A descriptor that is open only to be closed when a descriptor is needed. The first one opened
/// has a low number. That number is free again even if the limit was lowered since.
#[cfg(all(unix, not(madsim)))]
#[derive(Debug, Default)]
struct SpareDescriptor(Option<std::os::fd::OwnedFd>);

#[cfg(all(unix, not(madsim)))]
impl SpareDescriptor {
    /// Opens the spare descriptor, if one is left.
    fn keep(&mut self, listener: &TcpListener) {
        use std::os::fd::AsFd as _;
        if self.0.is_none() {
            self.0 = listener.as_fd().try_clone_to_owned().ok();
        }
    }

    /// Closes the spare descriptor. Returns true if it was open.
    fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }
}

/// No spare descriptor on this platform.
#[cfg(not(all(unix, not(madsim))))]
#[derive(Debug, Default)]
struct SpareDescriptor;

#[cfg(not(all(unix, not(madsim))))]
impl SpareDescriptor {
    const fn keep(&mut self, _: &TcpListener) {}

    const fn give_up(&mut self) -> bool {
        false
    }
}
