//! How connecting and commanding can fail.

use std::io;

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
    /// 503: the server is full or about to stop.
    #[error("the server takes no more connections now (503)")]
    Unavailable,
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
    /// True if trying again cannot help: the server said no to this request for good, or
    /// the request cannot even be made. A client stops at such an error; after any other it
    /// backs off and tries again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Header(_) | Self::Unauthorized | Self::Forbidden)
    }
}

impl From<tungstenite::Error> for DialError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(answer) => match answer.status().as_u16() {
                401 => Self::Unauthorized,
                403 => Self::Forbidden,
                503 => Self::Unavailable,
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
