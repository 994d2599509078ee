//! Errors of connecting and commanding.

use std::io;
use std::time::Duration;

use skirmish_core::client::CommandError;
use tokio_tungstenite::tungstenite;

/// The reason for a failed connection to the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address is not one of the form `ws://host[:port]/path` or `wss://...`.
    #[error("not a ws:// or wss:// address: {0}")]
    Url(String),
    /// A header or the token has a character that HTTP does not allow.
    #[error("header {0} has a character that is not allowed")]
    Header(String),
    /// The provider has returned no token.
    #[error("no token: {0}")]
    Token(#[source] io::Error),
    /// 401: the token is missing, expired, forged or meant for another server.
    #[error("the server refused the token (401)")]
    Unauthorized,
    /// 403: the server does not serve this origin or this player.
    #[error("the server refused the request (403)")]
    Forbidden,
    /// 429: this address connects too often.
    #[error("this address connects too often (429)")]
    TooFast {
        /// Time to wait before the next attempt; zero if the server has named none.
        retry_after: Duration,
    },
    /// 503: the server is full or will stop soon.
    #[error("the server takes no more connections now (503)")]
    Unavailable {
        /// Time to wait before the next attempt; zero if the server has named none.
        retry_after: Duration,
    },
    /// Any other status but 101.
    #[error("the server answered with HTTP status {0}")]
    Http(u16),
    /// The connection could not be made, or broke during the handshake.
    #[error("cannot reach the server: {0}")]
    Io(#[source] io::Error),
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// The answer was not that of a WebSocket server.
    #[error("WebSocket handshake: {0}")]
    Handshake(#[source] Box<tungstenite::Error>),
}

impl DialError {
    /// Returns the time to wait that the server has named; zero if none.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::TooFast { retry_after } | Self::Unavailable { retry_after } => *retry_after,
            _ => Duration::ZERO,
        }
    }

    /// Returns true if another attempt cannot help: the server has refused this request for good,
    /// or the request cannot even be made. A client stops at such an error; after any other it
    /// backs off and dials again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Header(_) | Self::Unauthorized | Self::Forbidden)
    }
}

/// Returns the header `Retry-After` in seconds. A date counts as a missing header.
fn retry_after<T>(answer: &tungstenite::http::Response<T>) -> Duration {
    let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
    Duration::from_secs(header.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

impl From<tungstenite::Error> for DialError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(answer) => match answer.status().as_u16() {
                401 => Self::Unauthorized,
                403 => Self::Forbidden,
                429 => Self::TooFast { retry_after: retry_after(&answer) },
                503 => Self::Unavailable { retry_after: retry_after(&answer) },
                status => Self::Http(status),
            },
            tungstenite::Error::Io(error) => Self::Io(error),
            other => Self::Handshake(Box::new(other)),
        }
    }
}

/// An error of the client library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client has no connection, and will have none.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The machine has refused the command, without any effect.
    #[error("the command was refused: {0}")]
    Command(#[from] CommandError),
    /// The client has ended: by [`Client::disconnect`](super::Client::disconnect), or because the
    /// server has ended the session for good.
    #[error("the client has ended")]
    Ended,
    /// The operating system gave no random seed.
    #[error("no randomness from the operating system: {0}")]
    Seed(String),
}
