//! Tests of the server over real sockets, within the unit. Tests from the outside cover the
//! behaviour that clients see.

#![cfg(not(madsim))]

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use skirmish_core::id::Name;
use skirmish_core::registry::{Embedded, RegistryConfig, RegistryEvent};
use skirmish_core::wire::{Frame, ToClient, encode};
use skirmish_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::clock::Clock;
use crate::config::RateLimit;
use crate::registry::{NodeRegistry, Remote};
use crate::token::Keys;

struct Running {
    address: SocketAddr,
    admin: SocketAddr,
    handle: Handle,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

async fn start(
    change: impl FnOnce(&mut Config),
    route: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> Running {
    let mut config = Config::default();
    config.listen.address.set_port(0);
    config.admin.address.set_port(0);
    change(&mut config);
    let server = route(Server::builder(config).keys(keys())).bind().await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    Running {
        address: server.local_addr(),
        admin: server.admin_addr().unwrap(),
        handle: server.handle(),
        stop,
        done: tokio::spawn(server.run(async { drop(stopped.await) })),
    }
}

fn keys() -> Keys {
    Keys::from_secret("test", &[7; 32]).unwrap()
}

fn token() -> String {
    keys().sign(&Name::new("alice").unwrap(), Duration::from_secs(60), Clock::new().now().wall, None).unwrap()
}

async fn connect(server: &Running) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}/ws", server.address).into_client_request().unwrap();
    request.headers_mut().insert("x-game-token", token().parse().unwrap());
    let stream = TcpStream::connect(server.address).await.unwrap();
    client_async(request, stream).await.unwrap().0
}

async fn hello(socket: &mut WebSocketStream<TcpStream>) {
    let hello = encode(v1::Kind::Hello, &v1::Metadata::default(), &v1::Hello::default());
    socket.send(WsMessage::Binary(hello)).await.unwrap();
    assert!(matches!(next(socket).await, ToClient::Welcome(_)));
}

/// Sends an application message.
async fn tell(socket: &mut WebSocketStream<TcpStream>, type_url: &str) {
    let metadata = v1::Metadata { type_url: type_url.to_owned(), ..v1::Metadata::default() };
    let message = skirmish_core::wire::encode_bytes(v1::Kind::Application, &metadata, b"payload");
    socket.send(WsMessage::Binary(message)).await.unwrap();
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> ToClient {
    match socket.next().await.unwrap().unwrap() {
        WsMessage::Binary(bytes) => ToClient::decode(&Frame::decode(bytes, 1 << 20).unwrap()).unwrap(),
        other => panic!("not a frame: {other:?}"),
    }
}

async fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn expect_close(socket: &mut WebSocketStream<TcpStream>, reason: v1::Reason, code: CloseCode) {
    match next(socket).await {
        ToClient::Goodbye(goodbye) => assert_eq!(goodbye.reason(), reason),
        other => panic!("not a goodbye: {other:?}"),
    }
    match socket.next().await.unwrap().unwrap() {
        WsMessage::Close(Some(frame)) => assert_eq!(frame.code, code),
        other => panic!("not a close frame: {other:?}"),
    }
}

#[tokio::test]
async fn welcomes_and_drains() {
    let server = start(|_| {}, |builder| builder).await;
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    assert!(http(server.admin, "GET /readyz HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    let metrics = http(server.admin, "GET /metrics HTTP/1.1\r\n\r\n").await;
    assert!(metrics.contains("skirmish_connections{state=\"open\"} 1"), "{metrics}");

    server.stop.send(()).unwrap();
    expect_close(&mut socket, v1::Reason::Draining, CloseCode::Away).await;
    assert!(socket.next().await.is_none_or(|end| end.is_err()));
    drop(socket);
    server.done.await.unwrap();
    assert_eq!(server.handle.stats().connections, 0);
    let why = server.handle.ready().unwrap_err();
    assert_eq!(why.causes()[0].reason, Reason::Draining, "{why}");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_registry_that_is_given_is_asked() {
    let (remote, mut backend) = Remote::new(1024, 64);
    let (asked, records) = oneshot::channel();
    tokio::spawn(async move {
        let clock = Clock::new();
        let mut store = Embedded::new(RegistryConfig::default(), clock.now().instant);
        let mut asked = Some(asked);
        while let Some(call) = backend.next_call().await {
            store.handle_call(clock.now().instant, call);
            while let Some(event) = store.poll_event() {
                match event {
                    RegistryEvent::Reply { id, outcome } => backend.answer(id, outcome, Duration::ZERO),
                    RegistryEvent::Watched(watched) => backend.tell(watched).await,
                    RegistryEvent::Connected { .. } => {}
                }
            }
            // The records of the node itself and of the session.
            if store.registry().keys() == 2
                && let Some(asked) = asked.take()
            {
                asked.send(()).unwrap();
            }
        }
    });
    // Links need a registry that nodes share; this one counts as such.
    let link = |config: &mut Config| config.cluster.link.address = "127.0.0.1:0".parse().ok();
    let server = start(link, |builder| builder.registry(NodeRegistry::Remote(remote))).await;
    // The server accepts no player before it knows whether there are other nodes.
    while server.handle.ready().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    records.await.unwrap();
    assert_eq!(server.handle.ready(), Ok(()));
}

#[tokio::test]
async fn a_text_message_is_a_violation() {
    let server = start(|_| {}, |builder| builder).await;
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    socket.send(WsMessage::text("hello")).await.unwrap();
    expect_close(&mut socket, v1::Reason::ProtocolError, CloseCode::Unsupported).await;
}

#[tokio::test]
async fn a_message_beyond_the_frame_size_is_a_violation() {
    let server = start(|_| {}, |builder| builder).await;
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    let too_large = Bytes::from(vec![0; Config::default().frames.frame_bytes + 1]);
    socket.send(WsMessage::Binary(too_large)).await.unwrap();
    expect_close(&mut socket, v1::Reason::ProtocolError, CloseCode::Size).await;
}

#[tokio::test]
async fn application_messages_go_to_their_handler() {
    let echo = |message: ApplicationMessage, server: &Handle| {
        assert_eq!(message.player.as_str(), "alice");
        assert!(server.send(message.conn, "test.Echoed", &message.payload));
    };
    let server = start(|_| {}, |builder| builder.route("test.Echo", echo)).await;
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    tell(&mut socket, "test.Echo").await;
    match next(&mut socket).await {
        ToClient::Application { type_url, payload } => {
            assert_eq!((type_url.as_str(), payload.as_ref()), ("test.Echoed", b"payload".as_ref()));
        }
        other => panic!("not an application message: {other:?}"),
    }
    tell(&mut socket, "test.Unknown").await;
    match next(&mut socket).await {
        ToClient::Unsupported(answer) => assert_eq!(answer.type_url, "test.Unknown"),
        other => panic!("not the answer: {other:?}"),
    }
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_connection() {
    let panics = |_: ApplicationMessage, _: &Handle| panic!("a handler's mistake");
    let server = start(|_| {}, |builder| builder.route("test.Panic", panics)).await;
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    tell(&mut socket, "test.Panic").await;
    assert!(socket.next().await.is_none_or(|end| end.is_err()));
    hello(&mut connect(&server).await).await;
}

#[tokio::test]
async fn a_panic_of_the_writer_is_the_servers() {
    let server = start(|_| {}, |builder| builder).await;
    let vital =
        [tokio::spawn(std::future::pending()), tokio::spawn(async { panic!("the writer's mistake") })];
    let mut running = RunningTasks { handle: server.handle, vital, others: Vec::new() };
    let failed = tokio::spawn(async move { running.failed().await });
    assert!(failed.await.unwrap_err().is_panic());
}

/// Checks that bytes that a full socket has not accepted, including answers to pings, are neither
/// lost nor mixed with later bytes, and that the connection goes on afterwards.
#[tokio::test]
async fn a_full_socket_gets_everything_in_order() {
    let (told, conn) = std::sync::mpsc::channel();
    let takes = move |message: ApplicationMessage, _: &Handle| told.send(message.conn).unwrap();
    // Pings count as control frames, and in this number they must not exceed the rate.
    let fast = RateLimit { per_second: 100_000, burst: 100_000 };
    let server =
        start(|config| config.rates.control = fast, |builder| builder.route("test.Tell", takes)).await;
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    tell(&mut socket, "test.Tell").await;
    let conn = loop {
        match conn.try_recv() {
            Ok(conn) => break conn,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };

    let payload = |number: u32| [number.to_be_bytes().as_slice(), &[7; 10_000]].concat();
    let ping = |number: u32| Bytes::copy_from_slice(&number.to_be_bytes());
    let (mut sent, mut refused, mut pings) = (0, 0, 0);
    // After so many refusals, with rounds for the writer in between, the socket is full as well.
    while refused < 500 {
        if server.handle.send(conn, "test.Number", &payload(sent)) {
            (sent, refused) = (sent + 1, 0);
        } else {
            refused += 1;
            pings += 1;
            socket.send(WsMessage::Ping(ping(pings))).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    let mut answered = Bytes::new();
    let mut expect = async |number: u32| loop {
        match socket.next().await.unwrap().unwrap() {
            WsMessage::Pong(data) => answered = data,
            WsMessage::Binary(bytes) => {
                let frame = Frame::decode(bytes, 1 << 20).unwrap();
                let Ok(ToClient::Application { payload: got, .. }) = ToClient::decode(&frame) else {
                    continue;
                };
                assert!(got == payload(number), "number {number}");
                break;
            }
            other => panic!("neither a message nor an answer: {other:?}"),
        }
    };
    for number in 0..sent {
        expect(number).await;
    }
    assert!(server.handle.send(conn, "test.Number", &payload(sent)));
    expect(sent).await;
    assert_eq!(answered, ping(pings), "the newest is answered");
}

#[tokio::test]
async fn refusals_are_answered() {
    let server = start(|config| config.connections.total = 1, |builder| builder).await;
    let upgrade = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = http(server.address, &format!("{upgrade}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    let mut socket = connect(&server).await;
    hello(&mut socket).await;
    let answer = http(server.address, &format!("{upgrade}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    let metrics = http(server.admin, "GET /metrics HTTP/1.1\r\n\r\n").await;
    assert!(metrics.contains("skirmish_upgrades_refused_total{status=\"401\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_time() {
    let short = |config: &mut Config| config.connections.handshake_timeout = Duration::from_millis(20);
    let server = start(short, |builder| builder).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HT").await.unwrap();
    let mut end = Vec::new();
    // An end or a reset, but no endless wait.
    let _ = stream.read_to_end(&mut end).await;
    assert!(end.is_empty());
}

#[tokio::test]
async fn a_port_in_use_is_said() {
    let first = start(|_| {}, |builder| builder).await;
    let mut config = Config::default();
    config.listen.address = first.address;
    config.admin.enabled = false;
    let error = Server::builder(config).keys(keys()).bind().await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("listen.address: cannot listen at {}: ", first.address)), "{error}");
}

/// The memory of an idle connection is bounded (row O3). This checks the part of the shell that
/// depends on its code.
#[tokio::test]
async fn a_connection_is_a_small_task() {
    let server = start(|_| {}, |builder| builder).await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let conn = server.handle.input(|shard, now| shard.accept(now, server.address.ip(), false)).unwrap();
    let task = connection::serve(server.handle.clone(), stream, conn, server.address.ip());
    let size = size_of_val(&task) + size_of::<socket::Socket>();
    assert!(size <= 1024, "a connection's task and socket have {size} bytes");
}
