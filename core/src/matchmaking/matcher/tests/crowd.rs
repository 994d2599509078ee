//! More players than a matcher has places for.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::clients::{alone, party};
use super::cluster::{Cluster, name};
use crate::base::time::Duration;
use crate::matchmaking::record::encode;
use crate::matchmaking::{MatchmakingConfig, QueueConfig, keys};
use crate::registry::{Delete, Put, RegistryOp, Request, Span, Txn};

/// Number of places of a matcher.
const PLACES: u64 = 8;

fn cluster() -> Cluster {
    let queue = |mode, size| QueueConfig::new(name(mode), 2, size, vec![name("eu")]);
    let mut config = MatchmakingConfig::new(vec![queue("duel", 1), queue("duo", 2)]);
    config.trust_rating = true;
    config.tickets = usize::try_from(PLACES).unwrap();
    config.page = 5;
    let mut cluster = Cluster::new(config, 1, 1);
    cluster.run(Duration::from_secs(1));
    cluster
}

fn arrive(c: &mut Cluster, player: &str, wish: v1::Queue) {
    c.connect(player, 0);
    c.queue(player, wish);
    c.run(Duration::from_millis(5));
}

fn listings(c: &Cluster) -> u64 {
    c.nodes[0].matcher.stats().listings
}

/// Players keep arriving, with names before all others', until the awaited players are matched or
/// the maximum number of listings is reached.
fn rush(c: &mut Cluster, mode: &str, awaited: &[String], most: u64) {
    let until = listings(c) + most;
    for n in 0..3_000 {
        if listings(c) > until || awaited.iter().all(|player| c.player(player).matched.is_some()) {
            break;
        }
        arrive(c, &format!("a{n:05}"), alone(mode));
    }
    for player in awaited {
        assert!(c.player(player).matched.is_some(), "{player} waits after {most} listings");
    }
}

/// Each listing gives places to the first players, and the next listing follows when half of these
/// are gone.
#[test]
fn who_came_first_has_a_place_first_whoever_comes() {
    let mut c = cluster();
    // The players are in no order of names, and by name all are after the later ones.
    let players: Vec<String> = (0..40_u64).map(|n| format!("z{:02}", n * 17 % 40)).collect();
    for player in &players {
        c.connect(player, 0);
        c.queue(player, alone("duel"));
    }
    c.run(Duration::from_millis(20));
    let most = players.len() as u64 / (PLACES / 2) + 1;
    rush(&mut c, "duel", &players, most);
    // Later players had only the places left when the last of these got theirs.
    let later =
        c.players.iter().filter(|(name, player)| name.as_str().starts_with('a') && player.matched.is_some());
    assert!(later.count() <= usize::try_from(PLACES).unwrap());
}

#[test]
fn a_party_has_places_for_all_or_none() {
    let mut c = cluster();
    // The members of the party have queued at different times, and by name other players are
    // between them.
    let first: Vec<String> = (0..20).map(|n| format!("m{n:02}")).collect();
    c.connect("zoe", 0);
    c.queue("zoe", party("duo", "p", 2));
    for player in &first {
        c.connect(player, 0);
        c.queue(player, alone("duo"));
    }
    c.connect("aaa", 0);
    c.queue("aaa", party("duo", "p", 2));
    let awaited: Vec<String> = ["zoe", "aaa"].map(String::from).into_iter().chain(first).collect();
    // A party may leave places free that are too few for it.
    let most = 22 / (PLACES / 2 - 1) + 1;
    rush(&mut c, "duo", &awaited, most);
}

/// All places belong to parties whose first players are last by name. A listing reads the other
/// players of these parties first, and passes them over.
#[test]
fn the_rest_of_a_party_is_read_again_if_it_was_passed() {
    let mut c = cluster();
    let first = c.leader("duo").unwrap();
    let node = c.boot();
    c.nodes.push(node);
    c.begin(1);
    c.run(Duration::from_secs(1));
    let queue = |c: &mut Cluster, player: String, wish| {
        c.connect(&player, 1);
        c.queue(&player, wish);
        c.run(Duration::from_millis(20));
    };
    // In the meantime no matches are formed.
    c.pause(first);
    for n in 0..4 {
        queue(&mut c, format!("z{n}"), party("duo", &format!("p{n}"), 2));
    }
    for n in 0..8 {
        queue(&mut c, format!("m{n}"), alone("duo"));
    }
    for n in 0..4 {
        queue(&mut c, format!("a{n}"), party("duo", &format!("p{n}"), 2));
    }
    c.run(Duration::from_secs(10));
    assert!(c.nodes[1].matcher.elected().any(|mode| mode.as_str() == "duo"));
    let waits: Vec<_> = c.players.iter().filter(|(_, player)| player.matched.is_none()).collect();
    assert!(waits.is_empty(), "{:?}", waits.iter().map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn who_finds_nobody_does_not_keep_the_free_places_from_others() {
    let mut c = cluster();
    c.run(Duration::from_secs(10));
    let rated = |rating| v1::Queue { rating, ..alone("duel") };
    for n in 0..6 {
        c.connect(&format!("odd{n}"), 0);
        c.queue(&format!("odd{n}"), rated(10_000 * (n + 1)));
    }
    // The windows of the first two widen for two seconds until they accept each other.
    let players = ["ann", "bob", "cat", "dan", "eve", "fay"];
    for (player, rating) in players.into_iter().zip([1500, 1620, 3000, 3120, 1500, 1500]) {
        c.connect(player, 0);
        c.queue(player, rated(rating));
        c.run(Duration::from_millis(20));
    }
    let matched = |c: &mut Cluster| players.map(|player| c.player(player).matched.is_some());
    c.run(Duration::from_secs(1));
    assert_eq!(matched(&mut c), [false; 6]);
    // The next two get places at once, since the last listing was long ago; the last two get theirs
    // five seconds after that.
    c.run(Duration::from_secs(2));
    assert_eq!(matched(&mut c), [true, true, true, true, false, false]);
    // Players that arrive meanwhile do not get the free places.
    for player in ["aaa", "aab"] {
        arrive(&mut c, player, rated(5000));
    }
    c.run(Duration::from_secs(1));
    assert!(c.player("aaa").matched.is_none());
    c.run(Duration::from_secs(5));
    assert_eq!(matched(&mut c), [true; 6]);
    c.run(Duration::from_secs(6));
    assert!(c.player("aaa").matched.is_some());
    assert_eq!(c.nodes[0].matcher.stats().tickets, 6);
    // Once all players have places, no further listing follows.
    c.run(Duration::from_secs(6));
    let before = listings(&c);
    c.run(Duration::from_secs(30));
    assert_eq!(listings(&c), before);
}

/// In one report of the registry, a place becomes free and is taken. By name, the group that takes
/// the place is before the group that frees it.
#[test]
fn a_ticket_takes_the_place_of_one_that_is_gone_at_the_same_time() {
    let mut c = cluster();
    // No two of these fit together.
    let rated = |n: u32| v1::Queue { rating: 10_000 * n, ..alone("duel") };
    for n in 0..8 {
        arrive(&mut c, &format!("z{n}"), rated(n));
    }
    c.run(Duration::from_secs(1));
    let (gone, ann) = (keys::ticket(&name("z7")), keys::ticket(&name("ann")));
    let record = v1::TicketRecord { queue: Some(rated(6)), ..c.ticket("z6").unwrap() };
    let success = vec![
        RegistryOp::Delete(Delete::of(Span::one(gone))),
        RegistryOp::Put(Put::new(ann, encode(&record), None)),
    ];
    c.ask(&Request::Txn(Txn { success, ..Txn::default() }));
    c.run(Duration::from_secs(1));
    assert!(c.player("z6").matched.is_some(), "{:?}", c.nodes[0].matcher.explain(c.now, &name("ann")));
}
