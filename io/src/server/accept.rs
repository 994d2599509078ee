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

/// After an error of the listener that nothing can be done about.
const BACKOFF: Duration = Duration::from_millis(100);

/// A listener with a spare descriptor: where there are no others, it is given up for one more
/// connection.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    spare: Spare,
    /// Whether it went wrong the last time.
    failing: bool,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: IpAddr,
    /// It has the listener's last descriptor: until it is closed there is none for another, and
    /// if [`Acceptor::next`] is not called right after, somebody else may get it.
    pub(super) scarce: bool,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener) -> Self {
        let mut spare = Spare::default();
        spare.keep(&listener);
        Self { listener, spare, failing: false }
    }

    /// The next connection, whatever goes wrong before. Where there is no descriptor left and
    /// the spare one is in use, `make_room` may close another connection; whether it has.
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
                    // A task that is ended closes its connection in its turn.
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
                    // Nobody waits: Linux looks for a descriptor first.
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
        // Said once, not every time it is tried again.
        if !std::mem::replace(&mut self.failing, true) {
            error!("cannot accept connections: {error}");
        }
    }
}

impl Accepted {
    fn new((stream, peer): (TcpStream, SocketAddr), scarce: bool) -> Self {
        // Each drive ends in one write; waiting to fill a packet would only delay it.
        let _ = stream.set_nodelay(true);
        Self { stream, address: peer.ip().to_canonical(), scarce }
    }
}

/// Whether only the connection that was to be accepted has failed.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Whether the process, or the whole system, has no descriptor left.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// A descriptor that is open for nothing but to be closed when it is needed. The first that is
/// opened has a low number, which is free again even if the limit was lowered since.
#[cfg(all(unix, not(madsim)))]
#[derive(Debug, Default)]
struct Spare(Option<std::os::fd::OwnedFd>);

#[cfg(all(unix, not(madsim)))]
impl Spare {
    /// Opens it, if there is one left.
    fn keep(&mut self, listener: &TcpListener) {
        use std::os::fd::AsFd as _;
        if self.0.is_none() {
            self.0 = listener.as_fd().try_clone_to_owned().ok();
        }
    }

    /// Closes it. Whether it was open.
    fn give_up(&mut self) -> bool {
        self.0.take().is_some()
    }
}

/// Nothing to spare here.
#[cfg(not(all(unix, not(madsim))))]
#[derive(Debug, Default)]
struct Spare;

#[cfg(not(all(unix, not(madsim))))]
impl Spare {
    const fn keep(&mut self, _: &TcpListener) {}

    const fn give_up(&mut self) -> bool {
        false
    }
}
