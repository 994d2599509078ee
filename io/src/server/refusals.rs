//! Answers to connections that the node has no place for. They cost no state in the node, are
//! bounded, and are given so that they arrive.
//!
//! A client is told at once, without waiting for its request: then the server closes its
//! side, and reads what the client still sends for a short while, since closing with unread
//! input resets the connection and takes the answer away. When many are refused at a time
//! the others are answered without that while. Under TLS an answer takes a handshake: so
//! many are made each second, and the other connections are dropped.

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

/// How long a connection that is refused may take to be told so.
const TIMEOUT: Duration = Duration::from_secs(1);
/// TLS handshakes that are made to refuse somebody.
const HANDSHAKES: Rate = Rate { per_second: 50, burst: 50 };
/// When a client may try again, unless the server is about to stop.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What bounds the answers.
#[derive(Debug)]
pub(super) struct Refusals {
    places: Mutex<Places>,
    handshakes: Mutex<Bucket>,
    /// When clients of a server that is about to stop may try again.
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

    /// The answer to a connection that is refused.
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
        // In whole seconds, rounded up: never "at once".
        let seconds = u64::try_from(after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let refused = match refusal {
            Refusal::TooFast(_) => RefusedRequest::too_many_requests(refusal.to_string()),
            _ => RefusedRequest::unavailable(refusal.to_string()),
        };
        refused.response(seconds)
    }

    /// Whether a TLS handshake may be made only to refuse a connection.
    pub(super) fn affords_handshake(&self, now: Instant) -> bool {
        self.handshakes.lock().unwrap_or_else(PoisonError::into_inner).take(now, 1).is_ok()
    }

    /// Tells a client that there is no place for it, in a task where there is room for one.
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
            let _ = crate::turns::within(TIMEOUT, server.0.refusals.tell(&server, stream, refusal)).await;
        };
        self.places().start(told);
        // The answer is on its way before somebody else is.
        yield_now().await;
    }

    /// Tells a client over plain HTTP, or over TLS, that there is no place for it.
    pub(super) async fn tell(&self, server: &Handle, stream: TcpStream, refusal: Refusal) {
        if let Ok(mut stream) = server.0.secure(stream).await {
            goodbye(&mut stream, self.answer(refusal)).await;
        }
    }

    /// Ends the telling that goes on for the longest, for its descriptor. Whether there was one.
    pub(super) fn end_oldest(&self) -> bool {
        self.places().end_oldest()
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes an answer into the buffers of a new connection and closes it.
#[cfg(not(madsim))]
fn at_once(stream: TcpStream, answer: &str) {
    use std::io::{Read as _, Write as _};

    let Ok(mut stream) = stream.into_std() else { return };
    // What has come already would reset the connection. The stream does not block.
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(answer.as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Simulated connections are dropped.
#[cfg(madsim)]
fn at_once(stream: TcpStream, _: &str) {
    drop(stream);
}
