//! Links with another node whose part the test plays. Tests from the outside cover links between
//! several real nodes.

#![cfg(not(madsim))]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use skirmish_core::id::NodeId;
use skirmish_core::registry::{CallId, Put, RegistryCommand, Request};
use skirmish_core::wire::{Frame, RoomMessage, ToNode, encode};
use skirmish_proto::v1;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::*;
use crate::client::{Client, ClientConfig, Event};
use crate::clock::Clock;
use crate::config::{Config, RateLimit};
use crate::server::Server;
use crate::token::Keys;

/// Maximum time for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited for {what}"))
}

/// A server that runs until the test ends.
struct Running {
    address: SocketAddr,
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn keys() -> Keys {
    Keys::from_secret("test", &[7; 32]).unwrap()
}

async fn start(change: impl FnOnce(&mut Config)) -> Running {
    let mut config = Config::default();
    config.listen.address.set_port(0);
    config.admin.enabled = false;
    // The other side is slow to read and never answers a ping.
    config.cluster.heartbeat.interval = Duration::from_secs(3600);
    change(&mut config);
    let server = Server::builder(config).keys(keys()).incarnation(1).bind().await.unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    Running { address, handle, task: tokio::spawn(server.run(pending())) }
}

/// The node that has a record in the registry.
const OTHER: NodeId = NodeId(2);

/// Puts a record of another node into the registry. The server dials that node, since its number is
/// higher.
fn name(server: &Running, address: SocketAddr) {
    let address = address.to_string();
    // `NodeRecord` with its field `link`.
    let mut record = vec![2 << 3 | 2, u8::try_from(address.len()).unwrap()];
    record.extend_from_slice(address.as_bytes());
    let request = Request::Put(Put::new(format!("/nodes/{OTHER}"), record, None));
    server.handle.input(|shard, now| {
        shard.registry.handle(now.instant, RegistryCommand::Request { id: CallId(u64::MAX), request });
    });
}

/// The other node's end of a link.
struct Other {
    stream: TcpStream,
    decoder: Decoder,
}

impl Other {
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = within("to be dialed", listener.accept()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, decoder: Decoder::new(1 << 20) }
    }

    /// Accepts a link and greets.
    async fn greet(listener: &TcpListener) -> Self {
        let mut other = Self::accept(listener).await;
        assert!(matches!(other.next().await, ToNode::Hello(v1::LinkHello { node: 1, to: 2 })));
        other.send(&hello()).await;
        other
    }

    async fn send(&mut self, frame: &[u8]) {
        within("a frame to be sent", self.stream.write_all(frame)).await.unwrap();
    }

    async fn next(&mut self) -> ToNode {
        loop {
            if let Some(bytes) = self.decoder.poll_bytes().unwrap() {
                let frame = Frame::decode(bytes.clone(), 1 << 20).unwrap();
                match ToNode::decode(&frame, bytes).unwrap() {
                    // The server asks for the clock; nothing answers here.
                    ToNode::Ping(_) => continue,
                    message => return message,
                }
            }
            let mut chunk = BytesMut::with_capacity(4096);
            let read = within("a frame", self.stream.read_buf(&mut chunk)).await.unwrap();
            assert!(read > 0, "the link was closed");
            self.decoder.push(chunk.freeze()).unwrap();
        }
    }
}

fn hello() -> Bytes {
    encode(v1::Kind::LinkHello, &v1::Metadata::default(), &v1::LinkHello { node: 2, to: 1 })
}

fn ping(nonce: u64) -> Bytes {
    encode(v1::Kind::Ping, &v1::Metadata::default(), &v1::Ping { nonce, rtt_us: 0 })
}

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

#[tokio::test]
async fn frames_may_come_in_any_pieces() {
    let (server, listener) = (start(|_| ()).await, listener().await);
    name(&server, listener.local_addr().unwrap());
    let mut other = Other::accept(&listener).await;
    assert!(matches!(other.next().await, ToNode::Hello(_)));
    for byte in [hello(), ping(1)].concat() {
        other.send(&[byte]).await;
    }
    assert!(matches!(other.next().await, ToNode::Pong(v1::LinkPong { nonce: 1, .. })));
}

#[tokio::test]
async fn a_link_that_has_more_than_is_read_at_a_time_is_read_to_the_end() {
    let (server, listener) = (start(|_| ()).await, listener().await);
    name(&server, listener.local_addr().unwrap());
    let Other { stream, decoder } = Other::greet(&listener).await;
    // A thread of its own keeps the socket full. These frames have no answer.
    let writer = tokio::task::spawn_blocking(move || {
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        let detach = v1::Detach { room: "x".repeat(60_000), epoch: 1 };
        let frame = encode(v1::Kind::Detach, &v1::Metadata::default(), &detach);
        for _ in 0..400 {
            io::Write::write_all(&mut stream, &frame).unwrap();
        }
        stream.set_nonblocking(true).unwrap();
        TcpStream::from_std(stream).unwrap()
    });
    let stream = within("everything to be sent", writer).await.unwrap();
    let mut other = Other { stream, decoder };
    other.send(&ping(1)).await;
    assert!(matches!(other.next().await, ToNode::Pong(v1::LinkPong { nonce: 1, .. })));
}

#[tokio::test]
async fn a_node_that_is_not_there_is_dialed_again_until_it_is() {
    let server = start(|_| ()).await;
    let address = listener().await.local_addr().unwrap();
    name(&server, address);
    // The first dial fails at once, and is repeated.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    socket.bind(address).unwrap();
    Other::greet(&socket.listen(16).unwrap()).await;
}

#[tokio::test]
async fn a_link_that_ends_is_dialed_again() {
    let (server, listener) = (start(|_| ()).await, listener().await);
    name(&server, listener.local_addr().unwrap());
    let mut rubbish = Other::greet(&listener).await;
    rubbish.send(b"GET / HTTP/1.1\r\n\r\n").await;
    let read = within("the end", rubbish.stream.read_buf(&mut BytesMut::new())).await;
    assert!(!matches!(read, Ok(1..)), "rubbish is not answered");
    drop(Other::greet(&listener).await);
    let mut other = Other::greet(&listener).await;
    other.send(&ping(1)).await;
    assert!(matches!(other.next().await, ToNode::Pong(_)));
    assert_eq!(server.handle.stats().links, 1);
}

#[tokio::test]
async fn a_link_ends_with_its_server() {
    let (server, listener) = (start(|_| ()).await, listener().await);
    name(&server, listener.local_addr().unwrap());
    let mut other = Other::greet(&listener).await;
    other.send(&ping(1)).await;
    assert!(matches!(other.next().await, ToNode::Pong(_)));
    let handle = server.handle.clone();
    drop(server);
    let end = within("the end", other.stream.read_u8()).await;
    assert!(end.is_err(), "{end:?}");
    drop(handle);
}

#[tokio::test]
async fn a_node_that_does_not_read_costs_no_more_than_the_buffers() {
    const MESSAGES: u64 = 600;
    let server = start(|config| {
        config.rates.reliable = RateLimit { per_second: 100_000, burst: 100_000 };
        config.rates.bytes = RateLimit { per_second: 1 << 30, burst: 1 << 30 };
    })
    .await;
    // Accepted sockets have the small buffer, too.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    name(&server, listener.local_addr().unwrap());
    let mut other = Other::greet(&listener).await;

    let alice = skirmish_core::id::Name::new("alice").unwrap();
    let token = keys().sign(&alice, PATIENCE, Clock::new().now().wall, None).unwrap();
    let client = Client::builder(&format!("ws://{}/", server.address), token).config(ClientConfig::default());
    let (client, mut events) = client.start().unwrap();
    client.join("arena", 0).await.unwrap();
    let epoch = loop {
        if let Some(Event::Joined { epoch, .. }) = within("to join", events.next_event()).await {
            break epoch;
        }
    };
    let attach = v1::Attach { room: "arena".to_owned(), epoch, number: 1, ..v1::Attach::default() };
    other.send(&encode(v1::Kind::Attach, &v1::Metadata::default(), &attach)).await;
    assert!(matches!(other.next().await, ToNode::Room(RoomMessage::Attached(_))));

    // From now on nothing is read from the link. The member is not delayed by that.
    let last = loop {
        let before = server.handle.stats().link_frames_out;
        for _ in 0..MESSAGES {
            client.say("arena", vec![b'x'; 15_000], "").await.unwrap();
            let acknowledged = async {
                loop {
                    match events.next_event().await {
                        Some(Event::Outcome { .. }) => break,
                        Some(_) => {}
                        None => panic!("the client has ended"),
                    }
                }
            };
            within("a message to be acknowledged", acknowledged).await;
        }
        let after = server.handle.stats();
        if after.link_frames_out - before < MESSAGES {
            break after.entries;
        }
        // The buffers of the system have an end.
        assert!(after.entries < 20 * MESSAGES, "{after:?}");
    };
    // The server names the missed entries, and sends the rest in order.
    let mut at = 0;
    let mut afresh = 0;
    while at < last {
        match other.next().await {
            ToNode::Room(RoomMessage::Entry(entry, _)) => {
                assert!(at == 0 || entry.seq == at + 1, "after {at} came {}", entry.seq);
                at = entry.seq;
            }
            ToNode::Room(RoomMessage::Attached(attached)) => {
                afresh += 1;
                at = attached.seq;
            }
            _ => {}
        }
    }
    assert!(afresh > 0, "it was behind by more than the window");
}

#[tokio::test]
async fn without_mutual_tls_only_loopback_addresses_are_dialed() {
    let listener = listener().await;
    let settings = |insecure| Settings { tls: None, insecure, frame_bytes: 1 << 20 };
    let connect = async |insecure, peer: &str| {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        settings(insecure).connect(stream, peer.parse().unwrap()).await
    };
    for peer in ["127.0.0.1", "127.8.8.8", "::1"] {
        assert!(connect(false, peer).await.is_ok(), "{peer}");
    }
    for peer in ["10.0.0.1", "192.0.2.1", "2001:db8::1"] {
        let error = connect(false, peer).await.unwrap_err().to_string();
        assert!(error.contains("mutual TLS"), "{peer}: {error}");
        assert!(connect(true, peer).await.is_ok(), "{peer}");
    }
}
