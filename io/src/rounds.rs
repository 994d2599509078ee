//! Input before time: input that has arrived is read before a deadline is judged.
//!
//! A process that was stopped, or ran on a stopped host, finds its timers due and its sockets full
//! at once, and a runtime may serve the timers first. [`rounds`] lets the runtime poll every socket,
//! and lets every woken task run. The number of rounds is fixed, and each round is bounded by the
//! budgets of the tasks: endless input delays no deadline any longer.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use skirmish_core::time::{Instant, LATE};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

/// Rounds before a deadline is judged: one in which a socket's task reads; one for a task that the
/// first one wakes, such as the driver of a connection that many requests share, or the task of a
/// connection that was just accepted; and one more, since the runtime polls the future of `block_on`
/// before the tasks.
pub(crate) const ROUNDS: usize = 3;
/// Rounds before a late deadline is judged: for a longer chain of such tasks.
pub(crate) const ROUNDS_LATE: usize = 5;
/// Maximum number of sockets that tokio reports in one round.
const EVENTS: usize = 1024;

/// Returns the number of rounds to wait before a deadline is judged that was due at `due`, with so
/// many sockets.
pub(crate) fn before(due: Instant, now: Instant, sockets: usize) -> usize {
    if now.since(due) > LATE { ROUNDS_LATE + sockets / EVENTS } else { ROUNDS }
}

/// Waits for whole rounds of the runtime. In each round the runtime asks the system for the ready
/// sockets, and every task that is ready, by that or before, runs once before this future
/// continues.
///
/// This is the way in which tokio's current-thread scheduler serves a task that yields: the task is
/// woken after the driver of sockets was polled, and is queued behind the tasks that the driver has
/// woken. The tests of this module fail if that changes.
pub(crate) async fn rounds(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Waits for a future for at most `limit`. Input that has arrived by then still counts.
///
/// # Errors
/// The future was not ready in time.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let patience = async {
        sleep(limit).await;
        rounds(ROUNDS_LATE).await;
    };
    tokio::select! {
        biased;
        output = &mut future => return Ok(output),
        () = patience => {}
    }
    // The last poll, and the error.
    timeout(Duration::ZERO, future).await
}

#[cfg(all(test, not(madsim)))]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Returns connections whose peers are plain sockets of the system.
    async fn pairs(count: usize) -> Vec<(TcpStream, std::net::TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let mut pairs = Vec::new();
        for _ in 0..count {
            let address = listener.local_addr().expect("it is bound");
            let peer = std::net::TcpStream::connect(address).expect("somebody listens");
            pairs.push((listener.accept().await.expect("a connection").0, peer));
        }
        pairs
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whatever_had_arrived_is_read_in_one_round() {
        const SOCKETS: usize = 200;
        static READ: AtomicUsize = AtomicUsize::new(0);
        let mut peers = Vec::new();
        for (mut stream, peer) in pairs(SOCKETS).await {
            peers.push(peer);
            tokio::spawn(async move {
                while stream.read_u8().await.is_ok() {
                    READ.fetch_add(1, Relaxed);
                }
            });
        }
        // In a task, like every driver: the runtime polls the future of `block_on` before the tasks.
        let driver = tokio::spawn(async move {
            rounds(ROUNDS).await;
            for round in 1..=20 {
                // Nothing is read meanwhile, as when the process stands still.
                peers.iter_mut().for_each(|peer| peer.write_all(&[1]).unwrap());
                rounds(1).await;
                assert_eq!(READ.load(Relaxed), round * SOCKETS);
            }
        });
        driver.await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_timer_that_is_due_waits_for_what_has_arrived() {
        for (mut stream, mut peer) in pairs(20).await {
            let limit = Duration::from_millis(20);
            // The time-out passes while the thread stands still, and the answer arrives.
            let read = async {
                let stall = async {
                    tokio::task::yield_now().await;
                    peer.write_all(&[7]).unwrap();
                    std::thread::sleep(4 * limit);
                };
                tokio::join!(stall, stream.read_u8()).1
            };
            assert_eq!(within(limit, read).await.unwrap().unwrap(), 7);
        }
        assert!(within(Duration::from_millis(1), std::future::pending::<()>()).await.is_err());
    }
}
