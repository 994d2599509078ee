//! Rooms with a backup: their life goes on when nodes are killed, and while etcd is away (M3, M7, G2, G6).

use std::collections::BTreeSet;

use prost::Message as _;
use skirmish_io::client::{Event, MessageId, Outcome};
use skirmish_proto::v1;
use skirmish_tests::eventually;
use skirmish_tests::history::{assert_outcomes, complaints};
use skirmish_tests::player::{Player, builder, heard};

use crate::nodes::{Nodes, Piped, Registry, number, ready, shows};

const ROOM: &str = "arena";
const PAIRS: &str = "cluster.replicas=2";

/// Players in the room, whose clients know all nodes, and what they have said.
struct Party {
    players: Vec<Player>,
    said: Vec<Vec<MessageId>>,
    bodies: Vec<String>,
}

impl Party {
    async fn gather<R: Registry>(nodes: &Nodes<R>) -> Self {
        let urls: Vec<String> = (0..nodes.nodes.len()).map(|node| nodes.url(node)).collect();
        let mut players = Vec::new();
        for name in ["alice", "bob", "carol"] {
            players.push(Player::join(builder(&urls[0], name).nodes(&urls[1..]), ROOM).await);
        }
        let said = players.iter().map(|_| Vec::new()).collect();
        Self { players, said, bodies: Vec::new() }
    }

    /// All players send this number of messages.
    async fn say(&mut self, count: usize) {
        for _ in 0..count {
            for (player, said) in self.players.iter().zip(&mut self.said) {
                let body = self.bodies.len().to_string();
                said.push(player.say(ROOM, &body).await);
                self.bodies.push(body);
            }
        }
    }

    /// Waits until everybody has heard everything.
    async fn hear(&mut self) {
        let bodies: Vec<&str> = self.bodies.iter().map(String::as_str).collect();
        for player in &mut self.players {
            player.hears(&bodies).await;
        }
    }

    /// Checks that everything was acknowledged and heard once, in one order, in one life of the room and in
    /// one membership of each player.
    async fn leave(mut self) {
        for (player, said) in self.players.iter_mut().zip(&self.said) {
            for message in said {
                player.outcome(*message).await;
            }
        }
        let mut orders = BTreeSet::new();
        let mut lives = BTreeSet::new();
        for (player, said) in self.players.into_iter().zip(&self.said) {
            let seen = player.leave().await;
            assert_eq!(complaints(&seen), Vec::<String>::new(), "{seen:#?}");
            assert_outcomes(&seen, said, Outcome::Acknowledged);
            orders.insert(heard(&seen).map(str::to_owned).collect::<Vec<_>>());
            let mut memberships = 0;
            for event in &seen {
                match event {
                    Event::Joined { epoch, resumed, .. } => {
                        lives.insert(*epoch);
                        memberships += usize::from(!resumed);
                    }
                    Event::Left { reason: v1::LeftReason::Asked, .. } => {}
                    Event::Left { .. } | Event::Session { lost: true, .. } => {
                        panic!("{event:?} in {seen:#?}")
                    }
                    _ => {}
                }
            }
            assert_eq!(memberships, 1, "{seen:#?}");
        }
        assert_eq!((orders.len(), lives.len()), (1, 1), "{orders:?} {lives:?}");
        let order = orders.first().expect("there is one");
        assert_eq!(order.len(), self.bodies.len(), "each is heard once: {order:?}");
    }
}

/// Waits until etcd's record of the room names two nodes that live. Returns the index of the primary.
async fn paired<R: Registry>(nodes: &Nodes<R>) -> usize {
    let index = |id: u64| nodes.nodes.iter().position(|node| number(node) == id);
    let mut primary = None;
    eventually("a backup to be named", async || {
        let records = nodes.records("/rooms/").await;
        let record = records.first().and_then(|kv| v1::RoomRecord::decode(kv.value.clone()).ok());
        primary = record.and_then(|record| index(record.backup).and_then(|_| index(record.primary)));
        primary.is_some()
    })
    .await;
    primary.expect("it is named")
}

#[tokio::test]
async fn a_room_outlives_one_primary_and_the_next() {
    let mut nodes = Nodes::start_with(3, &[PAIRS]).await;
    let mut party = Party::gather(&nodes).await;
    for _ in 0..2 {
        let primary = paired(&nodes).await;
        party.say(10).await;
        nodes.kill(primary).await;
        party.say(10).await;
        party.hear().await;
    }
    party.leave().await;
}

#[tokio::test]
async fn a_pair_goes_on_while_etcd_is_away() {
    let nodes = Nodes::on(Piped::start().await, 2, &[PAIRS]).await;
    let mut party = Party::gather(&nodes).await;
    paired(&nodes).await;
    nodes.etcd.pipe.hold();
    for node in &nodes.nodes {
        shows(node, "skirmish_serving", 0).await;
    }
    party.say(10).await;
    party.hear().await;
    nodes.etcd.pipe.open();
    for node in &nodes.nodes {
        ready(node).await;
    }
    party.say(10).await;
    party.hear().await;
    party.leave().await;
}
