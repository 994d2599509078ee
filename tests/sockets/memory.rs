//! Memory that clients of one address can make a server use.

use std::time::Duration;

use futures_util::future::join_all;
use skirmish_core::wire::encode;
use skirmish_io::config::Config;
use skirmish_proto::v1;
use skirmish_tests::player::{Player, builder};
use skirmish_tests::process::Process;
use skirmish_tests::socket::Socket;
use skirmish_tests::{eventually, http, within};

/// Connections of one address: the default maximum.
const ABUSERS: usize = 256;

/// Messages of each connection, which never reads.
const MESSAGES: u64 = 24;

/// Returns the resident memory of a server, in bytes.
async fn resident(server: &Process) -> u64 {
    http::metric(server.admin, "skirmish_resident_memory_bytes").await.expect("the server knows it")
}

/// Returns an invalid name, nearly as long as a frame and different for each number.
fn name(number: u64) -> String {
    format!("{number}{}", "x".repeat(60_000))
}

fn frame<M: prost::Message>(kind: v1::Kind, message: &M) -> bytes::Bytes {
    encode(kind, &v1::Metadata::default(), message)
}

/// Returns one of the most expensive requests, with a room's epoch if the connection is in a room.
fn abuse(abuser: usize, number: u64, epoch: u64) -> bytes::Bytes {
    match abuser % 4 {
        0 => frame(v1::Kind::Say, &v1::Say { room: name(number), client_seq: 1, ..v1::Say::default() }),
        1 => frame(v1::Kind::Latest, &v1::Latest { room: name(number), ..v1::Latest::default() }),
        2 => frame(v1::Kind::Leave, &v1::Leave { room: name(number), request: 0 }),
        // An entry with a clock far ahead: the answer contains the whole written entry.
        _ => {
            let stamp = v1::Stamp { wall_ms: 1 << 47, ..v1::Stamp::default() };
            let entry = |n: u64| v1::StateEntry {
                domain: v1::Domain::Property.into(),
                owner: format!("abuser-{abuser}"),
                name: format!("{number}-{n}"),
                value: vec![0; 1024].into(),
                stamp: Some(stamp),
                ..v1::StateEntry::default()
            };
            let entries = (0..32).map(entry).collect();
            frame(
                v1::Kind::State,
                &v1::State { room: "arena".to_owned(), epoch, entries, ..v1::State::default() },
            )
        }
    }
}

#[tokio::test]
async fn one_address_takes_no_more_than_its_connections_are_bounded_by() {
    let server = Process::start(&[]).await;
    let open = async |n: usize| {
        let mut socket = Socket::connect_narrow(server.address, &format!("abuser-{n}")).await;
        socket.hello(None).await;
        let epoch = if n % 4 == 3 { socket.join("arena").await.epoch } else { 0 };
        (socket, epoch)
    };
    let mut sockets = Vec::new();
    for n in 0..ABUSERS {
        sockets.push(open(n).await);
    }
    let before = resident(&server).await;
    let flood = async |n: usize, socket: &mut Socket, epoch: u64| {
        for number in 0..MESSAGES {
            // The server closes an abusive connection, or stops reading it.
            let sending = socket.try_send(abuse(n, number, epoch));
            if !matches!(tokio::time::timeout(Duration::from_secs(2), sending).await, Ok(Ok(()))) {
                break;
            }
        }
    };
    let mut most = before;
    // A few at a time, so that this process needs less memory than the server.
    for (number, group) in sockets.chunks_mut(16).enumerate() {
        let group = group.iter_mut().enumerate();
        let floods = group.map(|(n, (socket, epoch))| flood(number * 16 + n, socket, *epoch));
        within("the floods", join_all(floods)).await;
        most = most.max(resident(&server).await);
    }
    let bound = (ABUSERS * Config::default().budget().of_connection()) as u64;
    let taken = most.saturating_sub(before);
    assert!(taken <= bound, "{ABUSERS} connections took {taken} bytes of at most {bound}");
    // Well-behaved clients are served as before.
    drop(sockets);
    let mut honest = Socket::open(server.address, "honest").await;
    honest.join("arena").await;
    honest.say("arena", 1, "still here").await;
    assert_eq!(honest.said().await.body, "still here");
}

/// Number of rooms that a player fills.
const ROOMS: usize = 8;

/// Returns the name of a player's room.
fn room(player: usize, number: usize) -> String {
    format!("room-{player}-{number}")
}

/// Starts a player that leaves as many data as possible in rooms of its own.
async fn hoard(server: &Process, player: usize) -> Player {
    let body = vec![b'x'; 16_000];
    let hoarder = Player::start(builder(&server.url(), &format!("hoarder-{player}")));
    let client = &hoarder.client;
    for number in 0..ROOMS {
        let room = room(player, number);
        client.join(&room, 0).await.expect("the room has a good name");
        for key in 0..8 {
            client.latest(&room, key, body.clone(), "").await.expect("the key is one");
        }
        for entry in 0..31 {
            let value = vec![b'x'; 1_024].into();
            client.set_property(&room, &format!("{entry}"), Some(value)).await.expect("it is a good one");
        }
        for _ in 0..5 {
            client.say(&room, body.clone(), "").await.expect("there is place for it");
        }
    }
    hoarder
}

#[tokio::test]
async fn players_take_no_more_with_rooms_of_their_own_than_they_are_bounded_by() {
    const HOARDERS: usize = 16;
    let server = Process::start(&[]).await;
    let before = resident(&server).await;
    let hoarders = join_all((0..HOARDERS).map(|n| hoard(&server, n))).await;
    let said = (HOARDERS * ROOMS * 5) as u64;
    eventually("everything to be said", async || {
        http::metric(server.admin, "skirmish_entries_total").await.is_some_and(|entries| entries >= said)
    })
    .await;
    // The state is complete, too: another player gets it.
    for group in (0..HOARDERS).collect::<Vec<_>>().chunks(ROOMS) {
        let witness = Player::start(builder(&server.url(), "witness"));
        for n in group {
            let room = room(*n, ROOMS - 1);
            witness.client.join(&room, 0).await.expect("the room has a good name");
            eventually("the last property", async || {
                let known = witness.client.property(&room, &format!("hoarder-{n}"), "30").await;
                known.expect("the client plays").is_some()
            })
            .await;
        }
    }
    let budget = Config::default().budget();
    let bound = budget.of_address() / ABUSERS as u64 * HOARDERS as u64;
    let taken = resident(&server).await.saturating_sub(before);
    assert!(taken <= bound, "{HOARDERS} players took {taken} bytes of at most {bound}");
    // Much less memory would mean that the players stored less than they should.
    assert!(taken >= bound / 8, "{HOARDERS} players took {taken} bytes of at most {bound}");
    drop(hoarders);
}

#[tokio::test]
async fn a_name_is_told_back_no_longer_than_names_are() {
    let server = Process::start(&[]).await;
    let mut socket = Socket::open(server.address, "alice").await;
    for kind in 0..3 {
        socket.try_send(abuse(kind, 7, 0)).await.expect("the connection is open");
        let left = socket.until(|message| match message {
            skirmish_core::wire::ToClient::Left(left) => Some(left),
            _ => None,
        });
        let left = left.await;
        assert_eq!((left.room.len(), left.reason()), (64, v1::LeftReason::NotAMember));
        assert!(left.room.starts_with("7xx"));
        // The answers to all kinds are equal; this join separates them.
        socket.join(&format!("room-{kind}")).await;
    }
}

#[tokio::test]
async fn the_budget_is_told_at_the_start() {
    let mut server = Process::start(&[]).await;
    let budget = Config::default().budget();
    let line = server
        .logged("the budget", |line| {
            line["message"].as_str().is_some_and(|text| text.starts_with("memory that the limits allow"))
        })
        .await;
    assert_eq!(line["total"], skirmish_core::node::budget::Size(budget.total()).to_string());
    assert_eq!(line["address"], skirmish_core::node::budget::Size(budget.of_address()).to_string());
}
