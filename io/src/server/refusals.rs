//! Answers to connections for which the node has no place. They cost no state in the node, are
//! bounded, and are sent in a way that lets them arrive.
//!
//! A client is answered at once, before its request is read. Then the server closes its side, and
//! for a short while reads the client's data: closing a socket with unread input resets the
//! connection and discards the answer. When many connections are refused at a time, the others are
//! answered without that while. Under TLS an answer takes a handshake: only a limited number is
//! made each second, and the other connections are dropped.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skirmish_core::config::Rate;
use skirmish_core::node::Refusal;
use skirmish_core::rate::Bucket;
use skirmish_core::time::Instant;
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::Handle;
use super::connection::goodbye;
use super::descriptors;
use super::http::RefusedRequest;
use super::places::Places;

/// Maximum time for the answer to a refused connection.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Rate of TLS handshakes that only serve to refuse a connection.
const HANDSHAKES: Rate = Rate { per_second: 50, burst: 50 };
/// Time after which a client may try again, unless the server will stop soon.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds of the answers.
#[derive(Debug)]
pub(super) struct Refusals {
    places: Mutex<Places>,
    handshakes: Mutex<Bucket>,
    /// Time after which clients of a draining server may try again.
    after_drain: Duration,
}

impl Refusals {
    pub(super) fn new(now: Instant, after_drain: Duration) -> Self {
        Self {
            places: Mutex::new(Places::new(descriptors::REFUSALS)),
            handshakes: Mutex::new(Bucket::new(HANDSHAKES, now)),
            after_drain,
        }
    }

    /// Returns the answer to a refused connection.
    pub(super) fn answer(&self, refusal: Refusal) -> String {
        let after = match refusal {
            Refusal::Draining => self.after_drain,
            Refusal::TooFast(wait) => wait,
            Refusal::Full
            | Refusal::AddressFull
            | Refusal::TooManyUnauthenticated
            | Refusal::ClockUnknown
            | Refusal::ClockOff => RETRY_AFTER,
        };
        // In whole seconds, rounded up: never 0, which would mean "at once".
        let seconds = u64::try_from(after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let refused = match refusal {
            Refusal::TooFast(_) => RefusedRequest::too_many_requests(refusal.to_string()),
            _ => RefusedRequest::unavailable(refusal.to_string()),
        };
        refused.response(seconds)
    }

    /// Returns true if a TLS handshake may be made only to refuse a connection.
    pub(super) fn affords_handshake(&self, now: Instant) -> bool {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).take(now, 1).is_ok()
    }

    /// Answers a refused connection, in a task of its own if there is a place for one.
    pub(super) async fn turn_away(&self, server: &Handle, stream: TcpStream, refusal: Refusal) {
        let is_full = self.places().is_full();
        if server.0.uses_tls() {
            let now = server.0.shared.clock().now().instant;
            if is_full || !self.affords_handshake(now) {
                return;
            }
        } else if is_full {
            return at_once(stream, &self.answer(refusal));
        }
        let server = server.clone();
        let told = async move {
            let _ = crate::rounds::within(TIMEOUT, server.0.refusals.tell(&server, stream, refusal)).await;
        };
        self.places().start(told);
        // Lets the answer be sent before the next connection is accepted.
        yield_now().await;
    }

    /// Sends a refusal over plain HTTP, or over TLS.
    pub(super) async fn tell(&self, server: &Handle, stream: TcpStream, refusal: Refusal) {
        if let Ok(mut stream) = server.0.secure(stream).await {
            goodbye(&mut stream, self.answer(refusal)).await;
        }
    }

    /// Ends the oldest answer to free its descriptor. Returns true if there was one.
    pub(super) fn end_oldest(&self) -> bool {
        self.places().end_oldest()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes an answer into the buffers of a new connection and closes the connection.
#[cfg(not(madsim))]
fn at_once(stream: TcpStream, answer: &str) {
    use std::io::{Read as _, Write as _};

    let Ok(mut stream) = stream.into_std() else { return };
    // Input that has already arrived would reset the connection. The stream does not block.
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(answer.as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Simulated connections are dropped.
#[cfg(madsim)]
fn at_once(stream: TcpStream, _: &str) {
    drop(stream);
}
