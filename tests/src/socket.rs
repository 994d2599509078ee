//! A player's WebSocket without the client library: the test makes and reads the frames.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message;
use skirmish_core::wire::{Frame, ToClient, encode, encode_bytes};
use skirmish_proto::v1;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderName;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::{token, within};

/// Largest accepted frame, in bytes.
const MAX_FRAME: usize = 1 << 20;

/// An upgraded connection. Reading it also answers the server's pings.
#[derive(Debug)]
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Connects as a player.
    pub async fn connect(address: SocketAddr, player: &str) -> Self {
        Self::connect_with(address, player, &[]).await
    }

    /// Connects as a player, with more headers.
    ///
    /// # Panics
    /// If the connection fails.
    pub async fn connect_with(address: SocketAddr, player: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self::upgrade(stream, player, headers).await
    }

    /// Connects as a player with a small receive buffer.
    ///
    /// # Panics
    /// If the connection fails.
    pub async fn connect_narrow(address: SocketAddr, player: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("there are sockets");
        socket.set_recv_buffer_size(4 * 1024).expect("the size of a buffer can be set");
        let stream = socket.connect(address).await.expect("the server listens");
        Self::upgrade(stream, player, &[]).await
    }

    async fn upgrade(stream: TcpStream, player: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = "ws://localhost/".into_client_request().expect("an address");
        let token = token(player);
        for (name, value) in [("x-game-token", token.as_str())].iter().chain(headers) {
            let name: HeaderName = name.parse().expect("a header's name");
            request.headers_mut().insert(name, value.parse().expect("a header's value"));
        }
        let upgraded = within("the upgrade", client_async(request, stream)).await;
        Self(upgraded.expect("the server upgrades the connection").0)
    }

    /// Connects, sends `Hello` and waits for the `Welcome`.
    pub async fn open(address: SocketAddr, player: &str) -> Self {
        let mut socket = Self::connect(address, player).await;
        socket.hello(None).await;
        socket
    }

    /// Sends `Hello` and waits for the `Welcome`.
    pub async fn hello(&mut self, resume: Option<v1::Resume>) -> v1::Welcome {
        self.send(v1::Kind::Hello, &v1::Hello { resume, ..v1::Hello::default() }).await;
        match self.next().await {
            ToClient::Welcome(welcome) => welcome,
            other => panic!("not a welcome: {other:?}"),
        }
    }

    /// Joins a room and waits for `Joined`.
    pub async fn join(&mut self, room: &str) -> v1::Joined {
        self.send(v1::Kind::Join, &v1::Join { room: room.to_owned(), history: 0, request: 0 }).await;
        self.until(|message| match message {
            ToClient::Joined(joined) if joined.room == room => Some(joined),
            _ => None,
        })
        .await
    }

    /// Sends a reliable message.
    pub async fn say(&mut self, room: &str, client_seq: u64, body: impl Into<Bytes>) {
        self.send(v1::Kind::Say, &say(room, client_seq, body)).await;
    }

    /// Sends a frame.
    pub async fn send(&mut self, kind: v1::Kind, message: &impl Message) {
        self.send_with(kind, &v1::Metadata::default(), message).await;
    }

    /// Sends a frame with metadata.
    pub async fn send_with(&mut self, kind: v1::Kind, metadata: &v1::Metadata, message: &impl Message) {
        self.try_send(encode(kind, metadata, message)).await.expect("the connection is open");
    }

    /// Sends an application message.
    pub async fn send_application(&mut self, type_url: &str, payload: &[u8]) {
        let metadata = v1::Metadata { type_url: type_url.to_owned(), ..v1::Metadata::default() };
        let frame = encode_bytes(v1::Kind::Application, &metadata, payload);
        self.try_send(frame).await.expect("the connection is open");
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// If the connection is closed.
    pub async fn try_send(&mut self, message: Bytes) -> Result<(), String> {
        let sent = within("a message to be sent", self.0.send(WsMessage::Binary(message))).await;
        sent.map_err(|error| error.to_string())
    }

    /// Sends a text message.
    ///
    /// # Panics
    /// If the connection is closed.
    pub async fn send_text(&mut self, text: &str) {
        self.0.send(WsMessage::text(text)).await.expect("the connection is open");
    }

    /// Sends a WebSocket ping and waits for the pong, which must be the next message.
    ///
    /// # Panics
    /// If another message arrives.
    pub async fn ping(&mut self, payload: &'static [u8]) {
        self.0.send(WsMessage::Ping(payload.into())).await.expect("the connection is open");
        match within("the pong", self.0.next()).await {
            Some(Ok(WsMessage::Pong(answer))) => assert_eq!(answer, payload),
            other => panic!("not a pong: {other:?}"),
        }
    }

    /// Sends a close frame and reads to the end of the connection. The server must answer with a close frame.
    ///
    /// # Panics
    /// If another message arrives.
    pub async fn close(&mut self) {
        self.0.send(WsMessage::Close(None)).await.expect("the connection is open");
        match within("the close frame", self.0.next()).await {
            Some(Ok(WsMessage::Close(_))) => {}
            other => panic!("not a close frame: {other:?}"),
        }
        self.ended().await;
    }

    /// Sends bytes below the WebSocket layer.
    ///
    /// # Panics
    /// If the connection is closed.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let written = within("bytes to be sent", self.0.get_mut().write_all(bytes)).await;
        written.expect("the connection is open");
    }

    /// Sends the same bytes below the WebSocket layer again and again, as fast as the server reads, until the
    /// server sends `Goodbye`.
    ///
    /// # Panics
    /// If the connection ends in another way.
    pub async fn flood(&mut self, bytes: &[u8]) -> v1::Goodbye {
        let mut sent = 0;
        within("the end of the flood", async {
            loop {
                if let Ok(written) = self.0.get_ref().try_write(&bytes[sent..]) {
                    sent = (sent + written) % bytes.len();
                }
                let message = match tokio::time::timeout(Duration::from_millis(1), self.0.next()).await {
                    Err(_) => continue,
                    Ok(message) => message.expect("a goodbye comes first").expect("a goodbye comes first"),
                };
                let WsMessage::Binary(bytes) = message else { continue };
                let frame = Frame::decode(bytes, MAX_FRAME).expect("the server sends frames");
                if let Ok(ToClient::Goodbye(goodbye)) = ToClient::decode(&frame) {
                    return goodbye;
                }
            }
        })
        .await
    }

    /// Returns the next message, skipping pings.
    pub async fn next(&mut self) -> ToClient {
        self.next_with_metadata().await.1
    }

    /// Returns the next message with its metadata, skipping pings.
    ///
    /// # Panics
    /// If the connection has ended.
    pub async fn next_with_metadata(&mut self) -> (v1::Metadata, ToClient) {
        loop {
            let message = within("a message", self.0.next()).await;
            let frame = match message.expect("the connection is open").expect("the connection is well") {
                WsMessage::Binary(bytes) => Frame::decode(bytes, MAX_FRAME).expect("the server sends frames"),
                WsMessage::Pong(_) => continue,
                other => panic!("not a frame: {other:?}"),
            };
            match ToClient::decode(&frame).expect("the server sends messages") {
                ToClient::Ping(ping) => {
                    self.send(v1::Kind::Pong, &v1::Pong { nonce: ping.nonce }).await;
                }
                message => return (frame.metadata().expect("it was decoded"), message),
            }
        }
    }

    /// Reads until `pick` returns a value.
    pub async fn until<T>(&mut self, mut pick: impl FnMut(ToClient) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.next().await) {
                return picked;
            }
        }
    }

    /// Returns the next entry that is a player's message.
    pub async fn said(&mut self) -> v1::Entry {
        self.until(|message| match message {
            ToClient::Entry(entry) if entry.kind() == v1::EntryKind::Say => Some(entry),
            _ => None,
        })
        .await
    }

    /// Reads to the end of the connection. The last frame must be a `Goodbye`, followed by a close frame with
    /// this code.
    ///
    /// # Panics
    /// If the server closes the connection in another way.
    pub async fn closed(&mut self, reason: v1::Reason, code: u16) -> v1::Goodbye {
        let goodbye = self
            .until(|message| match message {
                ToClient::Goodbye(goodbye) => Some(goodbye),
                _ => None,
            })
            .await;
        assert_eq!(goodbye.reason(), reason, "{}", goodbye.message);
        match within("the close frame", self.0.next()).await {
            Some(Ok(WsMessage::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), code),
            other => panic!("not a close frame: {other:?}"),
        }
        self.ended().await;
        goodbye
    }

    /// Reads to the end of the connection, and ignores all messages.
    pub async fn ended(&mut self) {
        within("the end of the connection", async { while let Some(Ok(_)) = self.0.next().await {} }).await;
    }
}

/// Returns a reliable message.
pub fn say(room: &str, client_seq: u64, body: impl Into<Bytes>) -> v1::Say {
    v1::Say { room: room.to_owned(), client_seq, body: body.into(), type_url: String::new(), ends_turn: None }
}

/// Returns the bytes of one WebSocket frame with at most 65,535 bytes of payload. With `masked`, the frame is
/// masked, as frames of clients must be.
///
/// # Panics
/// If the payload is longer.
#[must_use]
pub fn web_socket_frame(last: bool, opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![u8::from(last) << 7 | opcode];
    let length = u16::try_from(payload.len()).expect("a short payload");
    frame.push(u8::from(masked) << 7 | 126);
    frame.extend(length.to_be_bytes());
    if masked {
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend(payload);
    }
    frame
}
