//! A match forms exactly once, even if etcd fails during the search (G8).

use std::collections::{BTreeMap, BTreeSet};

use skirmish_io::client::{ClientState, Event, Matched};
use skirmish_proto::v1::LeftReason;
use skirmish_tests::duel::{DUEL, matched, meet, part, queue, wish};
use skirmish_tests::etcd::{Etcd, Version};
use skirmish_tests::eventually;
use skirmish_tests::http::get;
use skirmish_tests::pipe::Pipe;
use skirmish_tests::player::{Player, builder};

use crate::holders::settled;
use crate::nodes::{Nodes, TTL, ready};

/// Removes finished matches soon.
const SWEEP: &str = "matchmaking.sweep_interval=\"200ms\"";

/// Both players get the same match, and there is no other one; they meet in its room and leave.
async fn one_match(nodes: &Nodes, alice: &mut Player, bob: &mut Player) -> String {
    let found: [Matched; 2] = [matched(alice).await, matched(bob).await];
    for node in &nodes.nodes {
        ready(node).await;
    }
    let (id, room) = (found[0].r#match.clone(), found[0].room.clone());
    meet(alice, bob, found.each_ref()).await;
    settled(nodes, &room, &BTreeMap::from([("alice", 0), ("bob", 1)])).await;
    assert_eq!(nodes.keys("/match/pairs/").await, [format!("/match/pairs/{id}")]);
    assert_eq!(nodes.keys("/match/players/").await, ["/match/players/alice", "/match/players/bob"]);
    assert_eq!(nodes.keys("/match/queue/").await, Vec::<String>::new());
    part(alice, bob, &found[0]).await;
    eventually("the match to be over", async || nodes.keys("/match/pairs/").await.is_empty()).await;
    id
}

/// Returns the matches that the player got.
fn match_ids(player: &Player) -> BTreeSet<&str> {
    let ids = player.seen.iter().filter_map(|event| match event {
        Event::Matched(matched) => Some(matched.r#match.as_str()),
        _ => None,
    });
    ids.collect()
}

#[tokio::test]
async fn a_match_forms_once_though_etcd_is_away_while_players_search() {
    let etcd = Etcd::start_with(Version::durable(), &[]).await;
    let mut nodes = Nodes::on(etcd, 2, &[DUEL, SWEEP]).await;
    let mut alice = Player::start(builder(&nodes.url(0), "alice"));
    let mut bob = Player::start(builder(&nodes.url(1), "bob"));

    // One player waits, the other one starts a search during the pause, and the ticket is gone when etcd is
    // back.
    queue(&mut alice).await;
    nodes.etcd.pause();
    bob.client.queue(wish("duel")).await.expect("nothing else is searched for");
    for node in &nodes.nodes {
        eventually("a node not to serve", async || get(node.admin, "/readyz").await.0 == 503).await;
    }
    // After this time the nodes' leases are over by etcd's clock too.
    tokio::time::sleep(TTL).await;
    nodes.etcd.resume();
    let first = one_match(&nodes, &mut alice, &mut bob).await;

    // etcd ends while the match forms, at any point of the formation.
    queue(&mut bob).await;
    alice.client.queue(wish("duel")).await.expect("nothing else is searched for");
    nodes.etcd.kill().await;
    nodes.etcd.restart().await;
    let second = one_match(&nodes, &mut alice, &mut bob).await;

    for player in [&alice, &bob] {
        assert_eq!(match_ids(player), BTreeSet::from([first.as_str(), second.as_str()]));
    }
}

#[tokio::test]
async fn a_match_that_was_left_or_given_up_without_a_connection_is_over() {
    let nodes = Nodes::start_with(2, &[DUEL, SWEEP]).await;
    let pipes = [Pipe::start(nodes.nodes[0].address).await, Pipe::start(nodes.nodes[1].address).await];
    let urls = pipes.each_ref().map(|pipe| pipe.url().replace("http://", "ws://") + "/");
    let mut alice = Player::start(builder(&urls[0], "alice").nodes([&urls[1]]));
    let mut bob = Player::start(builder(&nodes.url(1), "bob"));
    for round in 0..8 {
        for player in [&alice, &bob] {
            player.client.queue(wish("duel")).await.expect("nothing else is searched for");
        }
        let found = [matched(&mut alice).await, matched(&mut bob).await];
        let room = found[0].room.clone();
        let comes = round % 4 != 3;
        if comes {
            meet(&mut alice, &mut bob, found.each_ref()).await;
        }
        pipes.iter().for_each(Pipe::cut);
        let lost = |event: &Event| matches!(event, Event::StateChanged { to: ClientState::Disconnected, .. });
        alice.until("the cut", |event| lost(event).then_some(())).await;
        match round % 4 {
            0 | 1 => alice.client.leave(&room).await.expect("a member"),
            _ => alice.client.give_up_match().await.expect("it was told"),
        }
        pipes.iter().for_each(Pipe::open);
        match round % 4 {
            0 | 1 => {
                let left = |event: &Event| matches!(event, Event::Left { room: left, reason: LeftReason::Asked } if *left == room);
                alice.until("to have left", |event| left(event).then_some(())).await;
            }
            _ => {
                let given_up = |event: &Event| matches!(event, Event::GivenUp { matched } if *matched == found[0].r#match);
                alice.until("the match to be given up", |event| given_up(event).then_some(())).await;
            }
        }
        if comes {
            bob.client.leave(&room).await.expect("a member");
            let left = |event: &Event| matches!(event, Event::Left { room: left, .. } if *left == room);
            bob.until("to have left", |event| left(event).then_some(())).await;
        } else {
            bob.client.give_up_match().await.expect("it was told");
            bob.until("the match to be given up", |event| {
                matches!(event, Event::GivenUp { .. }).then_some(())
            })
            .await;
        }
        let counted = |player: &Player| {
            player
                .seen
                .iter()
                .filter(
                    |event| matches!(event, Event::Matched(matched) if matched.r#match == found[0].r#match),
                )
                .count()
        };
        assert_eq!((counted(&alice), counted(&bob)), (1, 1), "in round {round}");
    }
    for player in [&alice, &bob] {
        assert_eq!(match_ids(player).len(), 8);
    }
}
