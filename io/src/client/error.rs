//! How connecting and commanding can fail.

use std::io;
use std::time::Duration;

use skirmish_core::client::CommandError;
use tokio_tungstenite::tungstenite;

/// Why there is no connection to the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address is not one of the form `ws://host[:port]/path` or `wss://...`.
    #[error("not a ws:// or wss:// address: {0}")]
    Url(String),
    /// A header or the token has a character that HTTP does not allow.
    #[error("header {0} has a character that is not allowed")]
    Header(String),
    /// The token could not be had from its provider.
    #[error("no token: {0}")]
    Token(#[source] io::Error),
    /// 401: the token is missing, expired, forged or meant for somebody else.
    #[error("the server refused the token (401)")]
    Unauthorized,
    /// 403: the server does not serve this origin or this player.
    #[error("the server refused the request (403)")]
    Forbidden,
    /// 429: this address connects too often.
    #[error("this address connects too often (429)")]
    TooFast {
        /// When to come back; zero if the server did not say.
        retry_after: Duration,
    },
    /// 503: the server is full or about to stop.
    #[error("the server takes no more connections now (503)")]
    Unavailable {
        /// When to come back; zero if the server did not say.
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
    /// When the server wants the client to come back; zero if it has not said.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::TooFast { retry_after } | Self::Unavailable { retry_after } => *retry_after,
            _ => Duration::ZERO,
        }
    }

    /// True if trying again cannot help: the server said no to this request for good, or
    /// the request cannot even be made. A client stops at such an error; after any other it
    /// backs off and tries again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Header(_) | Self::Unauthorized | Self::Forbidden)
    }
}

/// The header `Retry-After` in seconds; a date in it is not understood, and counts as none.
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

/// What the client library answers with when it cannot do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no connection, and there will be none.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The machine refused the command; nothing was kept of it.
    #[error("the command was refused: {0}")]
    Command(#[from] CommandError),
    /// The client has ended: it was asked to, or the server ended its session for good.
    #[error("the client has ended")]
    Ended,
    /// The operating system gave no random seed.
    #[error("no randomness from the operating system: {0}")]
    Seed(String),
}
