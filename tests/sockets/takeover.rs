//! Take-over of a half-open connection by a new one (G7).

use std::time::Duration;

use skirmish_core::wire::encode;
use skirmish_proto::v1::{Kind, LeftReason, Metadata, Reason, Resume, RoomCursor, Welcome};
use skirmish_tests::server::Running;
use skirmish_tests::socket::{Socket, say};

/// Returns a member of a room with one message in its log, and the cursor after this message.
async fn member(server: &Running) -> (Socket, Welcome, RoomCursor) {
    let mut socket = Socket::connect(server.address, "alice").await;
    let welcome = socket.hello(None).await;
    socket.join("arena").await;
    socket.say("arena", 1, "first").await;
    let entry = socket.said().await;
    (socket, welcome, RoomCursor { room: "arena".to_owned(), epoch: entry.epoch, seq: entry.seq, request: 0 })
}

async fn resume(server: &Running, welcome: &Welcome, cursor: RoomCursor) -> (Socket, Welcome) {
    let mut socket = Socket::connect(server.address, "alice").await;
    let welcome = socket
        .hello(Some(Resume { session: welcome.session.clone(), epoch: welcome.epoch, rooms: vec![cursor] }))
        .await;
    (socket, welcome)
}

#[tokio::test]
async fn the_old_connection_can_write_nothing_and_harms_nobody() {
    // The server waits long for the end of the old connection.
    let server = Running::start(|config| {
        config.connections.linger = Duration::from_secs(3600);
        config.rooms.tombstone_horizon = Duration::from_secs(2 * 3600);
    })
    .await;
    let (mut old, welcome, cursor) = member(&server).await;
    let (mut new, again) = resume(&server, &welcome, cursor.clone()).await;
    assert!(again.resumed && again.epoch == welcome.epoch, "{again:?}");
    assert_eq!(again.session, welcome.session);

    // Frames of the old connection have no effect: neither a message number that the new one has not used
    // yet, nor a request to leave the room.
    let forged = encode(Kind::Say, &Metadata::default(), &say("arena", 2, "from the past"));
    let leave = encode(
        Kind::Leave,
        &Metadata::default(),
        &skirmish_proto::v1::Leave { room: "arena".to_owned(), request: 0 },
    );
    for frame in [forged, leave] {
        // The connection may be refused already.
        let _ = old.try_send(frame).await;
    }
    let entries_before = server.handle.stats().entries;
    new.say("arena", 2, "from now").await;
    let entry = new.said().await;
    assert_eq!((entry.client_seq, entry.body.as_ref()), (2, b"from now".as_ref()));
    assert_eq!(entry.seq, cursor.seq + 1, "something else was written");
    assert_eq!(server.handle.stats().entries, entries_before + 1);

    // The old connection is notified of the reason, and its late end does not harm the new one.
    old.closed(Reason::TakenOver, 1008).await;
    drop(old);
    server.connections(1).await;
    new.say("arena", 3, "and on").await;
    assert_eq!(new.said().await.client_seq, 3);
    let stats = server.handle.stats();
    assert_eq!((stats.takeovers, stats.sessions, stats.detached, stats.members), (1, 1, 0, 1));
    server.audit();
}

#[tokio::test]
async fn an_old_connection_that_stays_silent_is_given_up() {
    let server = Running::start(|config| config.connections.linger = Duration::from_millis(100)).await;
    let (old, welcome, cursor) = member(&server).await;
    let (mut new, _) = resume(&server, &welcome, cursor).await;
    // The peer of the old connection neither reads nor closes.
    server.connections(1).await;
    new.say("arena", 2, "alone").await;
    assert_eq!(new.said().await.client_seq, 2);
    drop(old);
    server.audit();
}

#[tokio::test]
async fn a_player_who_comes_anew_ends_the_old_session() {
    let server = Running::start(|_| {}).await;
    let (mut old, welcome, cursor) = member(&server).await;
    let mut new = Socket::connect(server.address, "alice").await;
    let fresh = new.hello(None).await;
    assert!(!fresh.resumed && fresh.session != welcome.session);
    old.closed(Reason::TakenOver, 1008).await;
    // The old session cannot be resumed any more, as the server reports. Its room ended with it.
    let (mut late, welcome) = resume(&server, &welcome, cursor).await;
    assert!(!welcome.resumed);
    let left = late
        .until(|message| match message {
            skirmish_core::wire::ToClient::Left(left) => Some(left),
            _ => None,
        })
        .await;
    assert_eq!((left.room.as_str(), left.reason()), ("arena", LeftReason::Gone));
    new.closed(Reason::TakenOver, 1008).await;
    server.audit();
}

#[tokio::test]
async fn a_session_is_not_resumed_by_another_player() {
    let server = Running::start(|_| {}).await;
    let (mut alice, welcome, cursor) = member(&server).await;
    let mut mallory = Socket::connect(server.address, "mallory").await;
    let resume = Resume { session: welcome.session, epoch: welcome.epoch, rooms: vec![cursor] };
    assert!(!mallory.hello(Some(resume)).await.resumed);
    alice.say("arena", 2, "still mine").await;
    assert_eq!(alice.said().await.body, "still mine");
    assert_eq!(server.handle.stats().takeovers, 0);
}
