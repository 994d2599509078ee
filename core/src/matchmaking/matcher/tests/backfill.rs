//! Free places of running matches.

use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1;

use super::clients::{alone, party};
use super::cluster::{Cluster, name};
use crate::base::time::Duration;
use crate::matchmaking::matcher::MatcherDecision;
use crate::matchmaking::{MatchmakingConfig, QueueConfig};

fn cluster(backfill: bool, players: &[&str]) -> Cluster {
    let mut config = config(backfill);
    config.sweep_interval = Duration::from_secs(5);
    cluster_of(config, players)
}

fn config(backfill: bool) -> MatchmakingConfig {
    let mut queue = QueueConfig::new(name("duo"), 2, 2, vec![name("eu")]);
    queue.backfill = backfill;
    let mut config = MatchmakingConfig::new(vec![queue]);
    config.trust_rating = true;
    config
}

fn cluster_of(config: MatchmakingConfig, players: &[&str]) -> Cluster {
    let mut cluster = Cluster::new(config, 2, 1);
    for (player, node) in players.iter().zip([0, 1].into_iter().cycle()) {
        cluster.connect(player, node);
    }
    run(&mut cluster, 1);
    cluster
}

fn run(cluster: &mut Cluster, seconds: u64) {
    cluster.run(Duration::from_secs(seconds));
}

/// Returns a running match of four.
fn battle(c: &mut Cluster, wish: impl Fn(&str) -> v1::Queue) -> v1::Matched {
    let matched = form(c, wish);
    for player in ["ann", "bob", "cat", "dan"] {
        c.join(player);
    }
    run(c, 1);
    matched
}

/// Returns a match of four that no player has joined yet.
fn form(c: &mut Cluster, wish: impl Fn(&str) -> v1::Queue) -> v1::Matched {
    for player in ["ann", "bob", "cat", "dan"] {
        c.queue(player, wish(player));
    }
    run(c, 2);
    c.player("ann").matched.clone().expect("all four are matched")
}

fn teams(c: &mut Cluster, player: &str) -> Vec<Vec<alloc::string::String>> {
    let matched = c.player(player).matched.clone().unwrap();
    matched.teams.into_iter().map(|team| team.players).collect()
}

#[test]
fn who_comes_takes_the_place_of_who_has_left_and_all_are_told() {
    let mut c = cluster(true, &["ann", "bob", "cat", "dan", "eve"]);
    let before = battle(&mut c, |_| alone("duo"));
    c.queue("eve", alone("duo"));
    run(&mut c, 10);
    assert!(c.player("eve").matched.is_none(), "there is no place");
    let place = c.player("dan").matched.clone().unwrap().team;
    c.leave("dan");
    run(&mut c, 10);
    let eve = c.player("eve").matched.clone().expect("there is a place");
    assert_eq!((&eve.r#match, &eve.room, eve.team, eve.fills), (&before.r#match, &before.room, place, 1));
    let mut expected: Vec<Vec<_>> = before.teams.iter().map(|team| team.players.clone()).collect();
    expected[place as usize].retain(|player| player != "dan");
    expected[place as usize].push("eve".to_string());
    for player in ["ann", "bob", "cat", "eve"] {
        assert_eq!(teams(&mut c, player), expected, "{player}");
    }
    assert_eq!((c.notice("dan"), c.ticket("eve")), (None, None));
    let filled = c.nodes.iter().flat_map(|node| &node.decisions).find_map(|decision| match decision {
        MatcherDecision::Filled { players, explanation, .. } => Some((players.clone(), explanation.clone())),
        _ => None,
    });
    let (players, explanation) = filled.unwrap();
    assert_eq!(players, [name("eve")]);
    let (rule, widths) = explanation.split_once("; ").unwrap();
    assert_eq!(rule, "closeness 1000 of 1000 in eu: the room had to have free places");
    assert!(widths.starts_with("waited up to 1") && widths.contains("ratings within 0 of 2"), "{widths}");
}

#[test]
fn without_the_rule_free_places_stay_free() {
    let mut c = cluster(false, &["ann", "bob", "cat", "dan", "eve"]);
    battle(&mut c, |_| alone("duo"));
    c.leave("dan");
    c.queue("eve", alone("duo"));
    run(&mut c, 20);
    assert!(c.player("eve").matched.is_none());
}

#[test]
fn nobody_is_sent_to_a_match_that_has_not_begun() {
    let mut c = cluster(true, &["ann", "bob", "cat", "dan", "eve"]);
    let matched = form(&mut c, |_| alone("duo"));
    c.leave("dan");
    c.queue("eve", alone("duo"));
    run(&mut c, 20);
    assert!(c.player("eve").matched.is_none());
    c.claim_room(&matched.room);
    run(&mut c, 10);
    assert!(c.player("eve").matched.is_some());
}

#[test]
fn a_party_needs_places_for_all_in_one_team() {
    let mut c = cluster(true, &["ann", "bob", "cat", "dan", "eve", "fay"]);
    battle(
        &mut c,
        |player| if matches!(player, "ann" | "bob") { party("duo", "p", 2) } else { alone("duo") },
    );
    c.queue("eve", party("duo", "q", 2));
    c.queue("fay", party("duo", "q", 2));
    c.leave("ann");
    c.leave("cat");
    run(&mut c, 20);
    assert!(c.player("eve").matched.is_none(), "a place in each team is none for a party");
    c.leave("bob");
    run(&mut c, 10);
    let (eve, fay) = (c.player("eve").matched.clone().unwrap(), c.player("fay").matched.clone().unwrap());
    assert_eq!((&eve.r#match, eve.team), (&fay.r#match, fay.team));
}

#[test]
fn who_comes_must_fit_to_everybody() {
    let rated = |rating| v1::Queue { rating, ..alone("duo") };
    let level =
        |level| v1::Attribute { name: "level".to_string(), value: Some(v1::attribute::Value::Number(level)) };
    let at_least = |low| v1::Condition {
        name: "level".to_string(),
        value: Some(v1::condition::Value::Range(v1::NumberRange { low, high: 100 })),
    };
    let mut c = cluster(true, &["ann", "bob", "cat", "dan", "far", "low", "fit"]);
    let wish = |low: i64| v1::Queue {
        attributes: vec![level(low.max(7))],
        conditions: vec![at_least(low)],
        ..rated(1500)
    };
    battle(&mut c, |player| wish(if player == "ann" { 5 } else { 0 }));
    // Her conditions on other players hold after she has left.
    c.leave("ann");
    c.queue("far", v1::Queue { attributes: vec![level(7)], ..rated(3000) });
    c.queue("low", v1::Queue { attributes: vec![level(4)], ..rated(1500) });
    run(&mut c, 30);
    assert!(c.player("far").matched.is_none() && c.player("low").matched.is_none());
    c.queue("fit", v1::Queue { attributes: vec![level(5)], conditions: vec![at_least(7)], ..rated(1500) });
    run(&mut c, 10);
    assert!(c.player("fit").matched.is_some());
}

#[test]
fn a_match_that_has_changed_since_it_was_looked_at_gives_the_ticket_back() {
    let mut config = config(true);
    config.sweep_interval = Duration::from_secs(60);
    let mut c = cluster_of(config, &["ann", "bob", "cat", "dan", "eve"]);
    battle(&mut c, |_| alone("duo"));
    c.leave("dan");
    // The sweep finds the free place; then another player leaves, which the sweep has not seen.
    run(&mut c, 61);
    c.leave("cat");
    c.queue("eve", alone("duo"));
    run(&mut c, 2);
    let leader = c.leader("duo").unwrap();
    assert_eq!(c.nodes[leader].matcher.stats().refused, 1);
    assert!(c.player("eve").matched.is_none());
    run(&mut c, 61);
    assert_eq!(c.player("eve").matched.clone().unwrap().fills, 1);
}

#[test]
fn who_leaves_and_queues_again_before_that_is_known_is_not_lost() {
    let mut config = config(true);
    config.sweep_interval = Duration::from_secs(60);
    let mut c = cluster_of(config, &["ann", "bob", "cat", "dan"]);
    battle(&mut c, |_| alone("duo"));
    c.leave("dan");
    run(&mut c, 61);
    // By the record of the last sweep, she is in the match into which she would be filled.
    c.leave("ann");
    c.queue("ann", alone("duo"));
    run(&mut c, 2);
    assert!(c.player("ann").matched.is_none());
    // Her ticket waits for another match: this one is over for her.
    run(&mut c, 30);
    assert!(c.ticket("ann").is_some() && c.player("ann").matched.is_none());
}

#[test]
fn who_has_left_a_match_does_not_fill_its_places_again() {
    let mut c = cluster(true, &["ann", "bob", "cat", "dan", "eve"]);
    let before = battle(&mut c, |_| alone("duo"));
    c.leave("dan");
    c.queue("dan", alone("duo"));
    run(&mut c, 15);
    assert!(c.player("dan").matched.is_none());
    c.queue("eve", alone("duo"));
    run(&mut c, 15);
    let eve = c.player("eve").matched.clone().expect("there is a place for others");
    assert_eq!(eve.r#match, before.r#match);
    // Nor is he filled into the match when a place is free and its teams no longer name him.
    c.leave("cat");
    run(&mut c, 15);
    assert!(c.player("dan").matched.is_none() && c.ticket("dan").is_some());
}
