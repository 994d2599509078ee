//! Rooms with members on several nodes (G1 to G5).

use skirmish_core::wire::ToClient;
use skirmish_io::client::{Event, MessageId, Outcome};
use skirmish_proto::v1::{self, LeftReason};
use skirmish_tests::history::{assert_outcomes, complaints};
use skirmish_tests::player::{Player, builder, heard};
use skirmish_tests::socket::Socket;

use crate::nodes::{Nodes, shows};

const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Returns a member of the arena at each node. The first node is the room's primary.
async fn members(nodes: &Nodes) -> Vec<Player> {
    let mut players = Vec::new();
    for (node, name) in NAMES.iter().enumerate() {
        players.push(Player::join(builder(&nodes.url(node), name), "arena").await);
    }
    shows(&nodes.nodes[0], "skirmish_rooms_led", 1).await;
    shows(&nodes.nodes[1], "skirmish_rooms_followed", 1).await;
    players
}

/// All players send this number of messages. Returns the bodies, and the identifiers by player.
async fn talk(players: &[Player], topic: &str, count: usize) -> (Vec<String>, Vec<Vec<MessageId>>) {
    let mut bodies = Vec::new();
    let mut messages = vec![Vec::new(); players.len()];
    for number in 0..count {
        for (index, player) in players.iter().enumerate() {
            let body = format!("{topic} {index}.{number}");
            messages[index].push(player.say("arena", &body).await);
            bodies.push(body);
        }
    }
    (bodies, messages)
}

/// Checks that all players have heard these messages, in the same order.
async fn hear(players: &mut [Player], topic: &str, bodies: &[String]) {
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    let mut orders: Vec<Vec<String>> = Vec::new();
    for player in players {
        player.hears(&bodies).await;
        let on_topic = heard(&player.seen).filter(|body| body.starts_with(topic));
        orders.push(on_topic.map(str::to_owned).collect());
    }
    for order in &orders {
        assert_eq!(order.len(), bodies.len(), "some were heard twice");
        assert_eq!(*order, orders[0]);
    }
}

async fn leave(players: Vec<Player>) {
    for player in players {
        let seen = player.leave().await;
        assert_eq!(complaints(&seen), Vec::<String>::new(), "{seen:#?}");
    }
}

#[tokio::test]
async fn members_on_three_nodes_hear_the_same_in_the_same_order() {
    let nodes = Nodes::start(3).await;
    let mut players = members(&nodes).await;
    let (bodies, messages) = talk(&players, "all", 30).await;
    hear(&mut players, "all", &bodies).await;
    for (player, messages) in players.iter_mut().zip(messages) {
        for message in &messages {
            player.outcome(*message).await;
        }
        assert_outcomes(&player.seen, &messages, Outcome::Acknowledged);
    }
    leave(players).await;
}

#[tokio::test]
async fn when_the_primary_of_a_room_is_killed_members_are_told_and_play_on() {
    let mut nodes = Nodes::start(3).await;
    let mut players = members(&nodes).await;
    let (bodies, _) = talk(&players, "before", 3).await;
    hear(&mut players, "before", &bodies).await;

    nodes.kill(0).await;
    // The players of the node ended with it.
    drop(players.remove(0));
    for player in &mut players {
        let gone = |event: &Event| {
            let is = matches!(event, Event::Left { room, reason: LeftReason::Gone } if room == "arena");
            is.then_some(())
        };
        player.until("to be told that the room is gone", gone).await;
        let joined = |event: &Event| match event {
            Event::Joined { resumed, .. } => Some(*resumed),
            _ => None,
        };
        assert!(!player.until("to be in the room again", joined).await, "what is gone is not resumed");
    }
    let (bodies, messages) = talk(&players, "after", 10).await;
    hear(&mut players, "after", &bodies).await;
    for (player, messages) in players.iter_mut().zip(messages) {
        for message in messages {
            assert_eq!(player.outcome(message).await, Outcome::Acknowledged);
        }
        assert!(player.seen.iter().all(|event| !matches!(event, Event::Session { lost: true, .. })));
    }
    leave(players).await;
}

/// Waits for the answer to a join, and skips the `Left` of an earlier leave.
async fn admitted(socket: &mut Socket, room: &str) -> Result<v1::Joined, LeftReason> {
    socket
        .until(|message| match message {
            ToClient::Joined(joined) if joined.room == room => Some(Ok(joined)),
            ToClient::Left(left) if left.room == room && left.reason() != LeftReason::Asked => {
                Some(Err(left.reason()))
            }
            _ => None,
        })
        .await
}

/// Joins one room at all sockets at once. Returns the epochs of the answers.
async fn join_at_once(sockets: &mut [Socket], room: &str) -> Vec<Result<u64, LeftReason>> {
    for socket in sockets.iter_mut() {
        socket.send(v1::Kind::Join, &v1::Join { room: room.to_owned(), history: 0, request: 0 }).await;
    }
    let mut epochs = Vec::new();
    for socket in sockets {
        epochs.push(admitted(socket, room).await.map(|joined| joined.epoch));
    }
    epochs
}

#[tokio::test]
async fn no_join_is_told_of_another_that_it_crosses_at_another_node() {
    // The sockets send more requests than players would.
    let nodes = Nodes::start_with(3, &["rates.control={per_second=1000, burst=10000}"]).await;
    let mut sockets = Vec::new();
    for number in 0..6 {
        sockets.push(Socket::open(nodes.nodes[number % 3].address, &format!("player-{number}")).await);
    }
    for room in 0..60 {
        let room = format!("new-{room}");
        let epochs = join_at_once(&mut sockets, &room).await;
        assert!(epochs.iter().all(|epoch| epoch.is_ok() && *epoch == epochs[0]), "{room}: {epochs:?}");
        for socket in &mut sockets {
            socket.send(v1::Kind::Leave, &v1::Leave { room: room.clone(), request: 0 }).await;
        }
    }
    // The leave of the last member crosses the joins of the others.
    for round in 0..60 {
        let leaver = &mut sockets[round % 6];
        leaver.join("again").await;
        leaver.send(v1::Kind::Leave, &v1::Leave { room: "again".to_owned(), request: 0 }).await;
        let epochs = join_at_once(&mut sockets, "again").await;
        assert!(epochs.iter().all(Result::is_ok), "round {round}: {epochs:?}");
        for socket in &mut sockets {
            socket.send(v1::Kind::Leave, &v1::Leave { room: "again".to_owned(), request: 0 }).await;
        }
    }
}
