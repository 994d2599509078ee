//! A server process that stands still: input from this time counts as input in time.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use skirmish_proto::v1;
use skirmish_tests::http::upgrade;
use skirmish_tests::process::Process;
use skirmish_tests::socket::Socket;
use skirmish_tests::{eventually, token, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Duration of the standstill: longer than every deadline of these tests.
const STALL: Duration = Duration::from_secs(4);

/// Stops the process, runs `meanwhile`, lets every deadline pass, and continues the process.
async fn stalled(server: &Process, meanwhile: impl AsyncFnOnce()) {
    server.signal(Signal::STOP);
    meanwhile().await;
    tokio::time::sleep(STALL).await;
    server.signal(Signal::CONT);
}

fn closings(server: &Process, reason: &str) -> usize {
    server.count(|line| line["message"] == "closing" && line["reason"] == reason)
}

#[tokio::test]
async fn a_hello_sent_while_the_server_stands_still_is_in_time() {
    let server = Process::start(&["connections.handshake_timeout=3s"]).await;
    let mut sockets = Vec::new();
    for player in 0..40 {
        sockets.push(Socket::connect(server.address, &format!("player-{player}")).await);
    }
    stalled(&server, async || {
        for socket in &mut sockets {
            socket.send(v1::Kind::Hello, &v1::Hello::default()).await;
        }
    })
    .await;
    for socket in &mut sockets {
        socket
            .until(|message| matches!(message, skirmish_core::wire::ToClient::Welcome(_)).then_some(()))
            .await;
    }
    assert_eq!(closings(&server, "HANDSHAKE_TIMEOUT"), 0);
}

#[tokio::test]
async fn an_upgrade_asked_for_while_the_server_stands_still_is_in_time() {
    let server = Process::start(&["connections.handshake_timeout=3s"]).await;
    // One connection that the server has accepted, and one that waits for it.
    let mut accepted = TcpStream::connect(server.address).await.expect("the server listens");
    eventually("the connection to be accepted", async || connections(&server).await == 1).await;
    let mut waiting = None;
    stalled(&server, async || {
        let mut late = TcpStream::connect(server.address).await.expect("its system accepts");
        for stream in [&mut accepted, &mut late] {
            let request = upgrade(&format!("X-Game-Token: {}\r\n", token("alice")));
            stream.write_all(request.as_bytes()).await.expect("its system takes it");
        }
        waiting = Some(late);
    })
    .await;
    for mut stream in [accepted, waiting.expect("it was connected")] {
        let mut answer = [0; 12];
        within("the answer", stream.read_exact(&mut answer)).await.expect("the server answers");
        assert_eq!(answer, *b"HTTP/1.1 101");
        // `Hello` has the time of a round trip from now on, however late the upgrade was.
        stream.write_all(&hello()).await.expect("the connection is open");
        let mut rest = vec![0; 4096];
        let read = within("the welcome", async {
            let mut read = 0;
            while !rest[..read].windows(4).any(|magic| magic == b"\xf5KRM") {
                read += stream.read(&mut rest[read..]).await.expect("the connection is open");
            }
            read
        });
        assert!(read.await > 0);
    }
    assert_eq!(closings(&server, "HANDSHAKE_TIMEOUT"), 0);
}

/// Returns a `Hello` in a WebSocket frame.
fn hello() -> Vec<u8> {
    let frame = skirmish_core::wire::encode(v1::Kind::Hello, &v1::Metadata::default(), &v1::Hello::default());
    skirmish_tests::socket::web_socket_frame(true, 2, true, &frame)
}

/// Returns the number of connections by the server's metrics.
async fn connections(server: &Process) -> u64 {
    let (_, metrics) = skirmish_tests::http::get(server.admin, "/metrics").await;
    let counts = metrics.lines().filter(|line| line.starts_with("skirmish_connections{"));
    counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn a_pong_that_waits_to_be_read_is_no_missed_heartbeat() {
    let heartbeat = ["heartbeat.interval=2s", "heartbeat.unhealthy_after=1", "heartbeat.close_after=2"];
    let server = Process::start(&heartbeat).await;
    let mut socket = Socket::open(server.address, "alice").await;
    for _ in 0..3 {
        // Two misses end the connection: one is counted, then the client answers while the server stands
        // still.
        let unhealthy = |line: &serde_json::Value| line["message"] == "connection misses heartbeats";
        let before = server.count(unhealthy);
        eventually("one miss to be counted", async || server.count(unhealthy) > before).await;
        stalled(&server, async || {
            socket.send(v1::Kind::Join, &v1::Join { room: "arena".to_owned(), history: 0, request: 0 }).await;
        })
        .await;
        socket.join("arena").await;
    }
    assert_eq!(closings(&server, "HEARTBEAT_TIMEOUT"), 0);
}

/// Resumes a session while the server stands still. Returns true if the session was resumed.
async fn resumed(address: SocketAddr, session: &v1::Welcome) -> bool {
    let mut socket = Socket::connect(address, "alice").await;
    let resume =
        v1::Resume { session: session.session.clone(), epoch: session.epoch, ..v1::Resume::default() };
    socket.hello(Some(resume)).await.resumed
}

#[tokio::test]
async fn a_session_whose_player_waits_at_the_door_goes_on() {
    let server = Process::start(&["sessions.ttl=3s"]).await;
    let mut socket = Socket::connect(server.address, "alice").await;
    let session = socket.hello(None).await;
    drop(socket);
    eventually("the connection to be gone", async || connections(&server).await == 0).await;
    let address = server.address;
    let mut back = None;
    stalled(&server, async || {
        back = Some(tokio::spawn(async move { resumed(address, &session).await }));
    })
    .await;
    let back = within("the player to be back", back.expect("it was spawned")).await;
    assert!(back.expect("the player is welcomed"), "the session is gone");
}

#[tokio::test]
async fn a_server_alone_keeps_its_rooms_however_long_it_stands_still() {
    let server = Process::start(&["cluster.node_ttl=3s", "cluster.room_ttl=3s"]).await;
    let mut socket = Socket::open(server.address, "alice").await;
    let epoch = socket.join("arena").await.epoch;
    stalled(&server, async || socket.say("arena", 1, "said meanwhile").await).await;
    // The client may have to send its message again, but in the same life of the room.
    let mut seq = 1;
    loop {
        let said = socket.until(|message| match message {
            skirmish_core::wire::ToClient::Entry(entry) if entry.kind() == v1::EntryKind::Say => {
                Some(Ok(entry))
            }
            skirmish_core::wire::ToClient::Throttle(throttle) => Some(Err(throttle.expected)),
            skirmish_core::wire::ToClient::Left(left) => panic!("the room is gone: {left:?}"),
            _ => None,
        });
        match said.await {
            Ok(entry) => break assert_eq!(entry.epoch, epoch),
            Err(expected) => {
                seq = expected;
                tokio::time::sleep(Duration::from_millis(100)).await;
                socket.say("arena", seq, "said again").await;
            }
        }
    }
    assert_eq!(seq, 1);
}
