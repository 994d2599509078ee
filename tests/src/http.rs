//! Plain HTTP, written by hand.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::within;

/// What a good upgrade request has beside its first line and the token.
pub const UPGRADE: &str = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// An upgrade request with more headers; each ends with `\r\n`.
#[must_use]
pub fn upgrade(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\n{UPGRADE}{headers}\r\n")
}

/// Connects from an address of this machine: on Linux all of 127.0.0.0/8 are.
///
/// # Panics
/// If there is no connection.
pub async fn connect_from(source: Ipv4Addr, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((source, 0))).expect("an address of this machine");
    within("a connection", socket.connect(server)).await.expect("the server listens")
}

/// Sends bytes on a connection and reads the answer, as [`exchange`] does.
///
/// # Panics
/// If there is no end of the answer.
pub async fn exchange_over(mut stream: TcpStream, request: impl AsRef<[u8]>) -> String {
    // A server that has heard enough may close while this is still being sent.
    let _ = stream.write_all(request.as_ref()).await;
    let answer = within("the answer to a request", read_answer(&mut stream)).await;
    String::from_utf8(answer).expect("the answer is text")
}

/// Sends bytes and reads the answer: to its end, or to the end of its head if the
/// connection was upgraded. Empty if there was none.
///
/// # Panics
/// If there is no connection, or no end of the answer.
pub async fn exchange(address: SocketAddr, request: impl AsRef<[u8]>) -> String {
    exchange_over(TcpStream::connect(address).await.expect("the server listens"), request).await
}

async fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // An error is an end, too.
    while stream.read_buf(&mut answer).await.is_ok_and(|read| read > 0) {
        if answer.starts_with(b"HTTP/1.1 101") && answer.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    answer
}

/// Asks for a path. The status, 0 if there was no answer, and the body.
pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status(&answer), body.to_owned())
}

/// The status of an answer; 0 if it is none.
#[must_use]
pub fn status(answer: &str) -> u16 {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// A figure of `/metrics`; `None` if it is not there.
pub async fn metric(admin: SocketAddr, name: &str) -> Option<u64> {
    let (status, text) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
