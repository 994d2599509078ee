//! Nodes while their etcd is killed, stands still, is unreachable, changes its leader or loses its history.
//! Nodes that must not serve say so, other nodes go on; afterwards players hear each other, and nothing has
//! two owners.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use etcd_client::CompactionOptions;
use skirmish_core::registrar::record_owner;
use skirmish_io::client::{Event, MessageId, Outcome};
use skirmish_proto::v1::Reason;
use skirmish_tests::etcd::{Cluster, Etcd, Version};
use skirmish_tests::history::complaints;
use skirmish_tests::http::{get, metric};
use skirmish_tests::player::{Player, builder, heard};
use skirmish_tests::{PATIENCE, eventually};

use tokio::time::timeout;

use crate::holders::{Holders, holders_now, settled};
use crate::nodes::{Nodes, Piped, Registry, TTL, endpoints, number, ready, shows};

/// With this setting, rooms end soon after their primaries, and not an hour later.
pub(crate) const SHORT_ROOM_TTL: &str = "cluster.room_ttl=\"3s\"";
/// No fault lasts longer than this, even on a slow computer.
const LONG_NODE_TTL: &str = "cluster.node_ttl=\"10m\"";
const ROOM: &str = "arena";
/// Players and the indices of their nodes.
const PARTY: [(&str, usize); 4] = [("alice", 0), ("bob", 1), ("carol", 0), ("dave", 1)];

/// Players at several nodes in one room. The first node is the room's primary.
struct Party<R> {
    nodes: Nodes<R>,
    players: Vec<Player>,
    at: BTreeMap<&'static str, usize>,
    /// Number of conversations so far.
    rounds: usize,
}

/// Reasons of a node that has no connection to the registry, or gets no answer.
const SILENT: [&str; 2] = [NOT_CONFIRMED, "the registry takes no writes, players cannot log in: "];

/// Reason of a node while the registry does not answer.
const NOT_CONFIRMED: &str = "the registry does not confirm that this node lives: ";

impl<R: Registry> Party<R> {
    async fn gather(nodes: Nodes<R>) -> Self {
        let mut players = Vec::new();
        for (name, node) in PARTY {
            players.push(Player::join(builder(&nodes.url(node), name), ROOM).await);
        }
        Self { nodes, players, at: PARTY.into(), rounds: 0 }
    }

    /// Runs a fault with checks before, during and after. `fault` causes it and `end` ends it. The fault
    /// lasts until the leases of the nodes in `lapsed` are over, and of no others: these nodes report that
    /// they do not serve, and the others serve all the time. Afterwards players hear each other, and every
    /// session, the room and every lease has one owner. Returns the holders before and after.
    async fn survives<T>(
        &mut self,
        lapsed: &[usize],
        fault: impl AsyncFnOnce(&mut Self) -> T,
        end: impl AsyncFnOnce(&mut Self, T),
    ) -> [Holders; 2] {
        let before = self.check().await;
        let suspensions = self.suspensions().await;
        let admins = self.nodes.nodes.iter().map(|node| node.admin).enumerate();
        let steady = admins.filter(|(node, _)| !lapsed.contains(node)).map(|(_, admin)| admin).collect();
        let faults = async {
            let during = fault(self).await;
            for node in lapsed {
                self.says_why_not(*node).await;
            }
            let meanwhile = self.players[0].say(ROOM, "meanwhile").await;
            end(self, during).await;
            meanwhile
        };
        let meanwhile: MessageId = tokio::select! {
            biased;
            meanwhile = faults => meanwhile,
            () = until_not_serving(steady) => unreachable!("it panics"),
        };
        let after = self.check().await;
        for (node, (before, after)) in suspensions.into_iter().zip(self.suspensions().await).enumerate() {
            assert_eq!(after > before, lapsed.contains(&node), "node {node}: {after} after {before}");
        }
        // The message has any outcome.
        self.players[0].outcome(meanwhile).await;
        [before, after]
    }

    /// Checks that all nodes and players work, now and after a conversation.
    async fn check(&mut self) -> Holders {
        for node in &self.nodes.nodes {
            ready(node).await;
            shows(node, "skirmish_serving", 1).await;
            shows(node, "skirmish_registry_connected", 1).await;
        }
        let holders = self.assembled().await;
        self.talk().await;
        let (now, wrong) = holders_now(&self.nodes, ROOM, &self.at).await;
        assert_eq!(wrong, Vec::<String>::new());
        assert_eq!(now, holders);
        holders
    }

    /// Waits until everything has one owner, and all players are in the room's life that etcd has.
    async fn assembled(&mut self) -> Holders {
        let Self { nodes, players, at, .. } = self;
        let assembled = timeout(PATIENCE, async {
            'again: loop {
                let holders = settled(nodes, ROOM, at).await;
                for player in &mut *players {
                    let is_in = |seen: &[Event]| in_life(seen) == Some(holders.epoch);
                    // The room may have another primary by now.
                    if timeout(PATIENCE / 100, player.has_seen("the room", is_in)).await.is_err() {
                        continue 'again;
                    }
                }
                return holders;
            }
        });
        match assembled.await {
            Ok(holders) => holders,
            Err(_) => {
                let (now, wrong) = holders_now(nodes, ROOM, at).await;
                let seen: Vec<_> = players.iter().map(|player| &player.seen).collect();
                panic!("waited {PATIENCE:?} for all to be in the room: {now:?} {wrong:?} {seen:#?}")
            }
        }
    }

    /// All players send a message, and all hear each message once, in one order.
    async fn talk(&mut self) {
        self.rounds += 1;
        let mut said = Vec::new();
        for (number, player) in self.players.iter().enumerate() {
            let body = format!("round {} of {number}", self.rounds);
            said.push((player.say(ROOM, &body).await, body));
        }
        let bodies: Vec<&str> = said.iter().map(|(_, body)| body.as_str()).collect();
        let mut orders = Vec::new();
        for (player, (message, _)) in self.players.iter_mut().zip(&said) {
            player.hears(&bodies).await;
            assert_eq!(player.outcome(*message).await, Outcome::Acknowledged);
            let order: Vec<_> = heard(&player.seen).filter(|body| bodies.contains(body)).collect();
            orders.push(order.iter().map(|body| body.to_string()).collect::<Vec<_>>());
        }
        for order in &orders {
            assert_eq!((order.len(), order), (bodies.len(), &orders[0]));
        }
    }

    /// Waits until a node reports that it does not serve because of the registry.
    async fn says_why_not(&self, node: usize) {
        let node = &self.nodes.nodes[node];
        eventually("a node to say that it does not serve", async || {
            let (status, body) = get(node.admin, "/readyz").await;
            status == 503 && body.contains(NOT_CONFIRMED)
        })
        .await;
        shows(node, "skirmish_serving", 0).await;
        assert_eq!(get(node.admin, "/healthz").await.0, 200, "it lives all the same");
    }

    /// Returns the number of suspensions of each node.
    async fn suspensions(&self) -> Vec<u64> {
        let mut suspensions = Vec::new();
        for node in &self.nodes.nodes {
            suspensions.push(metric(node.admin, "skirmish_suspensions_total").await.expect("a figure"));
        }
        suspensions
    }

    async fn leave(self) {
        for player in self.players {
            leave(player).await;
        }
    }
}

/// Returns the epoch of the room, if the player is in it.
fn in_life(seen: &[Event]) -> Option<u64> {
    let life = |event: &Event| match event {
        Event::Joined { epoch, .. } => Some(Some(*epoch)),
        Event::Left { .. } => Some(None),
        _ => None,
    };
    seen.iter().rev().find_map(life).flatten()
}

async fn leave(player: Player) {
    let seen = player.leave().await;
    assert_eq!(complaints(&seen), Vec::<String>::new(), "{seen:#?}");
    let lost = |event: &Event| matches!(event, Event::Session { lost: true, .. });
    assert!(!seen.iter().any(lost), "the session was lost: {seen:#?}");
}

/// Waits until the player has a session.
async fn welcomed(player: &mut Player) {
    let is = |event: &Event| matches!(event, Event::Session { .. }).then_some(());
    player.until("a session", is).await;
}

/// Checks repeatedly that nodes serve their players, and are ready for new ones while the registry answers.
///
/// # Panics
/// If a node does not serve, or is not ready for another reason.
async fn until_not_serving(admins: Vec<SocketAddr>) {
    loop {
        for admin in &admins {
            assert_eq!(metric(*admin, "skirmish_serving").await, Some(1));
            let (status, body) = get(*admin, "/readyz").await;
            let is_the_registry = body.lines().all(|line| SILENT.iter().any(|why| line.starts_with(why)));
            assert!(status == 200 || is_the_registry, "{status}: {body}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn etcd_is_killed_and_started_again() {
    let etcd = Etcd::start_with(Version::durable(), &[]).await;
    let mut party = Party::gather(Nodes::on(etcd, 2, &[]).await).await;
    let kill = async |party: &mut Party<Etcd>| party.nodes.etcd.kill().await;
    let start = async |party: &mut Party<Etcd>, ()| party.nodes.etcd.restart().await;
    party.survives(&[0, 1], kill, start).await;
    party.leave().await;
}

#[tokio::test]
async fn etcd_pauses_for_longer_than_leases_last() {
    let mut party = Party::gather(Nodes::start_with(2, &[SHORT_ROOM_TTL]).await).await;
    let pause = async |party: &mut Party<Etcd>| party.nodes.etcd.pause();
    let resume = async |party: &mut Party<Etcd>, ()| {
        // After this time the leases are over by etcd's clock too.
        tokio::time::sleep(TTL).await;
        party.nodes.etcd.resume();
    };
    let [before, after] = party.survives(&[0, 1], pause, resume).await;
    assert!(before.leases.is_disjoint(&after.leases), "{before:?} {after:?}");
    assert!(before.epoch < after.epoch, "it is another room: {before:?} {after:?}");
    party.leave().await;
}

#[tokio::test]
async fn the_port_of_etcd_is_dead_for_longer_than_nodes_are_taken_to_live() {
    let mut party = Party::gather(Nodes::on(Piped::start().await, 2, &[]).await).await;
    let hold = async |party: &mut Party<Piped>| party.nodes.etcd.pipe.hold();
    let open = async |party: &mut Party<Piped>, ()| {
        // The nodes are dead by etcd's clock too.
        eventually("the nodes to be gone", async || party.nodes.keys("/nodes/").await.is_empty()).await;
        let sessions = party.nodes.keys("/sessions/").await;
        assert_eq!(sessions.len(), party.players.len(), "they are on the lease of rooms");
        party.nodes.etcd.pipe.open();
    };
    let [before, after] = party.survives(&[0, 1], hold, open).await;
    let both = before.leases.intersection(&after.leases).count();
    assert_eq!(both, 2, "only those of rooms last: {before:?} {after:?}");
    party.leave().await;
}

#[tokio::test]
async fn a_room_is_led_by_another_node_when_its_own_cannot_reach_etcd() {
    let mut nodes = Nodes::on(Piped::start().await, 1, &[]).await;
    let direct = endpoints(&[nodes.etcd.etcd.url()]);
    nodes.add(&[&direct]).await;
    nodes.linked().await;
    let second = number(&nodes.nodes[1]);
    let mut party = Party::gather(nodes).await;
    let hold = async |party: &mut Party<Piped>| party.nodes.etcd.pipe.hold();
    let open = async |party: &mut Party<Piped>, ()| {
        eventually("the second node to lead the room", async || {
            let rooms = party.nodes.records("/rooms/").await;
            rooms.iter().filter_map(record_owner).any(|(node, _)| node.0 == second)
        })
        .await;
        party.nodes.etcd.pipe.open();
    };
    let [before, after] = party.survives(&[0], hold, open).await;
    assert!(before.epoch < after.epoch, "{before:?} {after:?}");
    party.leave().await;
}

#[tokio::test]
async fn an_etcd_of_three_loses_its_leader() {
    let mut cluster = Cluster::start_with(Version::durable(), &[]).await;
    // The first node uses the leader.
    let leader = cluster.leader().await;
    cluster.members.swap(0, leader);
    let mut party = Party::gather(Nodes::on(cluster, 2, &[LONG_NODE_TTL]).await).await;
    for kills in [true, false] {
        let lose = async |party: &mut Party<Cluster>| {
            let leader = party.nodes.etcd.leader().await;
            let member = &mut party.nodes.etcd.members[leader];
            if kills {
                member.kill().await;
            } else {
                member.pause();
            }
            // The other members continue without the leader, and so do both nodes.
            assert_ne!(party.nodes.etcd.leader().await, leader);
            for (node, name) in ["erin", "frank"].into_iter().enumerate() {
                let mut guest = Player::start(builder(&party.nodes.url(node), name));
                welcomed(&mut guest).await;
                leave(guest).await;
            }
            leader
        };
        let find = async |party: &mut Party<Cluster>, leader: usize| {
            let member = &mut party.nodes.etcd.members[leader];
            if kills {
                member.restart().await;
            } else {
                member.resume();
            }
        };
        let [before, after] = party.survives(&[], lose, find).await;
        assert_eq!(before, after);
    }
    party.leave().await;
}

#[tokio::test]
async fn history_is_compacted_while_nodes_do_not_watch() {
    let nodes = Nodes::on(Piped::start().await, 2, &[LONG_NODE_TTL]).await;
    let mut party = Party::gather(nodes).await;
    // Carol is at the first node.
    let (name, number) = ("carol", 2);
    let cut = async |party: &mut Party<Piped>| {
        party.nodes.etcd.pipe.cut();
        // A node that the others do not know, to which one of their players moves.
        let direct = endpoints(&[party.nodes.etcd.etcd.url()]);
        ready(party.nodes.add(&[LONG_NODE_TTL, &direct]).await).await;
        let mut anew = Player::start(builder(&party.nodes.url(2), name));
        welcomed(&mut anew).await;
        party.at.insert(name, 2);
        let former = std::mem::replace(&mut party.players[number], anew);

        let mut client = party.nodes.etcd.client().await;
        let answer = client.get("revision", None).await.expect("etcd answers");
        let revision = answer.header().expect("answers have a header").revision();
        let now = CompactionOptions::new().with_physical();
        client.compact(revision, Some(now)).await.expect("etcd compacts");
        former
    };
    let open = async |party: &mut Party<Piped>, mut former: Player| {
        party.nodes.etcd.pipe.open();
        party.nodes.linked().await;
        let is =
            |event: &Event| matches!(event, Event::Closed { reason: Reason::TakenOver, .. }).then_some(());
        former.until("to be told that she is elsewhere", is).await;
        leave(former).await;
        party.players[number].client.join(ROOM, 0).await.expect("a good name");
    };
    let [before, after] = party.survives(&[], cut, open).await;
    assert_eq!(before.epoch, after.epoch);
    assert!(before.leases.is_subset(&after.leases), "{before:?} {after:?}");
    party.leave().await;
}
