//! Matches at the maximum size of a transaction, and larger ones.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState as S};

use super::clients::{alone, party};
use super::cluster::{Cluster, name};
use crate::base::time::Duration;
use crate::matchmaking::{MAX_FORMED_PLAYERS, MatchmakingConfig, QueueConfig};

fn cluster(teams: u8, size: u8) -> Cluster {
    let mut queue = QueueConfig::new(name("war"), teams, size, vec![name("eu")]);
    queue.backfill = true;
    let mut config = MatchmakingConfig::new(vec![queue]);
    config.trust_rating = true;
    config.sweep_interval = Duration::from_secs(5);
    let mut cluster = Cluster::new(config, 1, 1);
    cluster.run(Duration::from_secs(1));
    cluster
}

/// Queues three teams of 21, each of four parties of five and a single player, all with the maximum
/// number of attributes and conditions.
fn everybody(c: &mut Cluster) -> Vec<String> {
    let wish = |n: u32| if n < 60 { party("war", &format!("p{}", n / 5), 5) } else { alone("war") };
    let players: Vec<String> = (0..MAX_FORMED_PLAYERS).map(|n| format!("n{n:02}")).collect();
    for (player, n) in players.iter().zip(0..) {
        c.connect(player, 0);
        c.queue(player, demanding(n, wish(n)));
    }
    c.run(Duration::from_secs(20));
    players
}

/// Adds eight attributes, and eight conditions that no other player has and that all players meet.
fn demanding(n: u32, wish: v1::Queue) -> v1::Queue {
    let attribute = |n: u32| format!("attribute-{n}");
    let number = |n| v1::Attribute { name: attribute(n), value: Some(v1::attribute::Value::Number(7)) };
    let range = |index| {
        let range = v1::NumberRange { low: -i64::from(n), high: 7 };
        v1::Condition { name: attribute(index), value: Some(v1::condition::Value::Range(range)) }
    };
    v1::Queue { attributes: (0..8).map(number).collect(), conditions: (0..8).map(range).collect(), ..wish }
}

#[test]
fn the_largest_match_is_formed_and_its_last_place_filled() {
    let mut c = cluster(3, 21);
    let players = everybody(&mut c);
    let matched = c.player("n00").matched.clone().expect("all are matched");
    for player in &players {
        assert_eq!(c.player(player).matched.as_ref().map(|m| &m.r#match), Some(&matched.r#match), "{player}");
    }
    c.claim_room(&matched.room);
    c.leave("n62");
    c.connect("eve", 0);
    c.queue("eve", demanding(99, alone("war")));
    c.run(Duration::from_secs(20));
    let filled = c.player("eve").matched.clone().expect("there is a place");
    assert_eq!((&filled.r#match, filled.fills), (&matched.r#match, 1));
    let players: usize = filled.teams.iter().map(|team| team.players.len()).sum();
    assert_eq!(players, MAX_FORMED_PLAYERS as usize);
    assert_eq!(c.nodes[0].matcher.stats().failed, 0);
}

#[test]
fn a_match_that_no_transaction_takes_is_not_tried_again() {
    let mut c = cluster(3, 21);
    // The restarted node has a queue that the check of its settings would refuse.
    (c.config.queues[0].teams, c.config.queues[0].team_size) = (4, 16);
    c.config.queues[0].work.candidates = 64;
    c.crash(0);
    c.run(Duration::from_secs(10));
    let players: Vec<String> = (0..=MAX_FORMED_PLAYERS).map(|n| format!("n{n:02}")).collect();
    for player in &players {
        c.connect(player, 0);
        c.queue(player, alone("war"));
    }
    c.run(Duration::from_secs(20));
    for player in &players {
        assert_eq!(c.heard(player), [S::Waiting, S::Refused], "{player}");
    }
    let stats = c.nodes[0].matcher.stats();
    assert_eq!((stats.failed, stats.formed, stats.ended, stats.tickets), (1, 0, 64, 0));
    // The next player can queue like the first one.
    c.connect("eve", 0);
    c.queue("eve", alone("war"));
    c.run(Duration::from_secs(5));
    assert_eq!(c.heard("eve"), [S::Waiting]);
}
