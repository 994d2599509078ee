//! The parts of HTTP/1.1 that the upgrade and the admin listener need: reads a bounded request
//! head, writes a small answer.

use std::borrow::Cow;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Maximum number of headers of a request.
pub(super) const MAX_HEADERS: usize = 64;

const END: &[u8] = b"\r\n\r\n";

/// A request head, with the bytes that followed it in the same reads.
#[derive(Debug)]
pub(super) struct RequestHead {
    bytes: Vec<u8>,
    end: usize,
}

impl RequestHead {
    /// Returns the head, with its final empty line.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// Returns the bytes after the head.
    pub(super) fn rest(&self) -> Vec<u8> {
        self.bytes[self.end..].to_vec()
    }
}

/// The reason for a missing request head.
#[derive(Debug)]
pub(super) enum HeadError {
    /// The peer closed, or the connection failed.
    Io(io::Error),
    /// The head is too long.
    TooLong,
}

/// Reads a request head of at most `most` bytes. Waits as long as the peer does: the caller has the
/// deadline.
pub(super) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Result<RequestHead, HeadError> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let seen = bytes.len();
        if seen >= most {
            return Err(HeadError::TooLong);
        }
        let room = u64::try_from(most - seen).unwrap_or(u64::MAX);
        match (&mut *stream).take(room).read_buf(&mut bytes).await {
            Ok(0) => return Err(HeadError::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(HeadError::Io(error)),
        }
        // The end may straddle two reads.
        let from = seen.saturating_sub(END.len() - 1);
        if let Some(at) = bytes[from..].windows(END.len()).position(|window| window == END) {
            return Ok(RequestHead { end: from + at + END.len(), bytes });
        }
    }
}

/// The refusal of a request: a status, a reason, and headers that the status requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedRequest {
    status: u16,
    name: &'static str,
    headers: &'static str,
    body: Cow<'static, str>,
    /// The refused origin.
    origin: Option<String>,
}

impl RefusedRequest {
    const fn new(status: u16, name: &'static str, headers: &'static str, body: Cow<'static, str>) -> Self {
        Self { status, name, headers, body, origin: None }
    }

    pub(super) fn bad_request(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "Bad Request", "", body.into())
    }

    pub(super) const fn unauthorized(body: String) -> Self {
        Self::new(401, "Unauthorized", "WWW-Authenticate: X-Game-Token\r\n", Cow::Owned(body))
    }

    pub(super) const fn forbidden(body: &'static str) -> Self {
        Self::new(403, "Forbidden", "", Cow::Borrowed(body))
    }

    /// Refuses an origin, which the log names.
    pub(super) fn forbidden_origin(body: &'static str, origin: &str) -> Self {
        Self { origin: Some(origin.to_owned()), ..Self::forbidden(body) }
    }

    pub(super) const fn not_found() -> Self {
        Self::new(404, "Not Found", "", Cow::Borrowed("there is nothing at this path"))
    }

    #[cfg(not(madsim))]
    pub(super) const fn nothing_known(body: String) -> Self {
        Self::new(404, "Not Found", "", Cow::Owned(body))
    }

    /// Answers methods other than `GET`, `HEAD` and `OPTIONS`.
    #[cfg(not(madsim))]
    pub(super) const fn only_reads() -> Self {
        let headers = "Allow: GET, HEAD, OPTIONS\r\n";
        Self::new(405, "Method Not Allowed", headers, Cow::Borrowed("only GET, HEAD and OPTIONS are allowed"))
    }

    pub(super) const fn method_not_allowed() -> Self {
        Self::new(405, "Method Not Allowed", "Allow: GET\r\n", Cow::Borrowed("only GET is allowed"))
    }

    pub(super) const fn upgrade_required(body: &'static str) -> Self {
        let headers = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        Self::new(426, "Upgrade Required", headers, Cow::Borrowed(body))
    }

    pub(super) const fn too_large(body: &'static str) -> Self {
        Self::new(431, "Request Header Fields Too Large", "", Cow::Borrowed(body))
    }

    pub(super) fn too_many_requests(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(429, "Too Many Requests", "", body.into())
    }

    pub(super) fn unavailable(body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(503, "Service Unavailable", "", body.into())
    }

    pub(super) const fn status(&self) -> u16 {
        self.status
    }

    /// Returns the reason, for the client and for the log.
    pub(super) fn body(&self) -> &str {
        &self.body
    }

    /// Returns the refused origin as it was sent, for the log.
    pub(super) fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Returns the whole answer. Has a `Retry-After` header if `retry_after`, in seconds, is above
    /// zero.
    pub(super) fn response(&self, retry_after: u64) -> String {
        let Self { status, name, headers, body, .. } = self;
        let retry = match retry_after {
            0 => String::new(),
            seconds => format!("Retry-After: {seconds}\r\n"),
        };
        let length = body.len() + 1;
        let connection = if *status == 426 { "upgrade, close" } else { "close" };
        format!(
            "HTTP/1.1 {status} {name}\r\n{headers}{retry}Content-Type: text/plain\r\n\
             Content-Length: {length}\r\nConnection: {connection}\r\n\r\n{body}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1024;

    async fn head_of(reads: &[&[u8]]) -> Result<RequestHead, HeadError> {
        let chained = reads.iter().fold(Vec::new(), |mut all, read| {
            all.extend_from_slice(read);
            all
        });
        read_head(&mut chained.as_slice(), MOST).await
    }

    #[tokio::test]
    async fn a_head_ends_at_its_empty_line() {
        let head = head_of(&[b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"]).await.unwrap();
        assert_eq!(head.bytes(), b"GET / HTTP/1.1\r\nA: b\r\n\r\n");
        assert_eq!(head.rest(), b"rest");
    }

    #[tokio::test]
    async fn a_head_may_come_byte_by_byte() {
        let whole = b"GET / HTTP/1.1\r\n\r\nrest";
        let (mut near, mut far) = tokio::io::duplex(1);
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut near, whole).await.ok();
        });
        let head = read_head(&mut far, MOST).await.unwrap();
        assert_eq!(head.bytes(), &whole[..18]);
        drop(far);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_head_is_bounded() {
        let endless = vec![b'a'; MOST + 1];
        assert!(matches!(head_of(&[&endless]).await, Err(HeadError::TooLong)));
        assert!(matches!(head_of(&[b"GET /"]).await, Err(HeadError::Io(_))));
    }
}
