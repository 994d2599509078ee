//! Nodes on an etcd that is restored from a copy, or wiped, while they run.

use std::collections::BTreeMap;

use skirmish_io::client::Event;
use skirmish_proto::v1::LeftReason;
use skirmish_tests::duel::{DUEL, matched, meet, part, queue, wish};
use skirmish_tests::etcd::{Etcd, Version};
use skirmish_tests::eventually;
use skirmish_tests::http::get;
use skirmish_tests::player::{Player, builder};

use crate::chaos::SHORT_ROOM_TTL;
use crate::holders::settled;
use crate::nodes::{Nodes, ready};

const ROOM: &str = "arena";

/// Returns the room's epochs that a player has joined, in order.
fn epochs(player: &Player) -> Vec<u64> {
    let epochs = player.seen.iter().filter_map(|event| match event {
        Event::Joined { room, epoch, .. } if room == ROOM => Some(*epoch),
        _ => None,
    });
    epochs.collect()
}

/// Returns the number of reports to a player that the room is gone.
fn gone(seen: &[Event]) -> usize {
    let is_gone =
        |event: &&Event| matches!(event, Event::Left { room, reason: LeftReason::Gone } if room == ROOM);
    seen.iter().filter(is_gone).count()
}

/// Both players are in the room and hear each other.
async fn together(players: &mut [Player; 2], text: &str) {
    let said = [format!("{text} of alice"), format!("{text} of bob")];
    for (player, text) in players.iter().zip(&said) {
        player.say(ROOM, text).await;
    }
    for player in players {
        player.hears(&[&said[0], &said[1]]).await;
    }
}

/// Checks that the nodes report another registry, notify their players, and serve again by themselves: with a
/// higher epoch than before, and with matches.
async fn begins_anew(nodes: &mut Nodes, players: &mut [Player; 2], round: usize) {
    for node in &nodes.nodes {
        eventually("a node to say what has happened", async || {
            let (status, body) = get(node.admin, "/readyz").await;
            status == 503 && body.contains("restored, wiped or replaced")
        })
        .await;
    }
    for player in &mut *players {
        player.has_seen("the room to be gone", |seen| gone(seen) == round).await;
    }
    for node in &nodes.nodes {
        ready(node).await;
    }
    for player in &mut *players {
        player.client.join(ROOM, 0).await.expect("the room has a good name");
        player.joined(ROOM).await;
    }
    together(players, &format!("round {round}")).await;
    settled(nodes, ROOM, &BTreeMap::from([("alice", 0), ("bob", 1)])).await;
    for player in &*players {
        let epochs = epochs(player);
        assert!(epochs.len() > round && epochs.is_sorted() && epochs.first() < epochs.last(), "{epochs:?}");
    }
}

/// Both players find a match and play it.
async fn plays(players: &mut [Player; 2]) {
    let [alice, bob] = players;
    queue(alice).await;
    bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
    let found = [matched(alice).await, matched(bob).await];
    meet(alice, bob, found.each_ref()).await;
    part(alice, bob, &found[0]).await;
}

#[tokio::test]
async fn an_etcd_that_is_restored_or_wiped_is_noticed_and_play_begins_anew_by_itself() {
    let etcd = Etcd::start_with(Version::durable(), &[]).await;
    let mut nodes = Nodes::on(etcd, 2, &[DUEL, SHORT_ROOM_TTL]).await;
    let alice = Player::join(builder(&nodes.url(0), "alice"), ROOM).await;
    let bob = Player::join(builder(&nodes.url(1), "bob"), ROOM).await;
    let mut players = [alice, bob];
    together(&mut players, "before").await;

    // A copy with the present sessions, room and leases.
    nodes.etcd.kill().await;
    let copy = nodes.etcd.copy();
    nodes.etcd.restart().await;
    for node in &nodes.nodes {
        ready(node).await;
    }
    together(&mut players, "since the copy").await;
    plays(&mut players).await;

    nodes.etcd.kill().await;
    nodes.etcd.put_back(Some(&copy));
    nodes.etcd.restart().await;
    begins_anew(&mut nodes, &mut players, 1).await;
    plays(&mut players).await;

    nodes.etcd.kill().await;
    nodes.etcd.put_back(None);
    nodes.etcd.restart().await;
    begins_anew(&mut nodes, &mut players, 2).await;
    plays(&mut players).await;
}
