//! Plain HTTP, written by hand.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::within;

/// Headers of a valid upgrade request, without the token.
pub const UPGRADE: &str = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Returns an upgrade request with more headers, each of which ends with `\r\n`.
#[must_use]
pub fn upgrade(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\n{UPGRADE}{headers}\r\n")
}

/// Connects from an address of this machine: on Linux, all addresses in 127.0.0.0/8.
///
/// # Panics
/// If the connection fails.
pub async fn connect_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((source, 0))).expect("an address of this machine");
    within("a connection", socket.connect(server)).await.expect("the server listens")
}

/// Sends bytes on a connection and reads the answer, like [`exchange`].
///
/// # Panics
/// If the answer does not end.
pub async fn exchange_over(mut stream: TcpStream, request: impl AsRef<[u8]>) -> String {
    // A server may close before it has read the whole request.
    let _ = stream.write_all(request.as_ref()).await;
    let answer = within("the answer to a request", read_answer(&mut stream)).await;
    String::from_utf8(answer).expect("the answer is text")
}

/// Sends bytes and reads the answer: to its end, or to the end of its head if the connection was upgraded.
/// Returns an empty text if there was no answer.
///
/// # Panics
/// If the connection fails, or the answer does not end.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    exchange_over(TcpStream::connect(address).await.expect("the server listens"), request).await
}

async fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // An error ends the answer too.
    while stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {
        if answer.starts_with(b"HTTP/1.1 101") && answer.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    answer
}

/// Requests a path. Returns the status (0 without an answer) and the body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status(&answer), body.to_owned())
}

/// Returns the status of an answer; 0 if the text is not an HTTP answer.
#[must_use]
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Returns a value of `/metrics`; `None` if the metric is absent.
pub async fn metric(admin: SocketAddr, name: &str) -> Option<u64> {
    let (status, text) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
