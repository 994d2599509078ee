//! Late players, and matches that are over before they have begun.

use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState as S};

use super::clients::alone;
use super::cluster::{Cluster, name};
use crate::base::time::Duration;
use crate::matchmaking::matcher::MatcherDecision;
use crate::matchmaking::record::decode;
use crate::matchmaking::{MatchmakingConfig, QueueConfig, keys};

/// Returns a cluster with a join window of 20 seconds and a sweep every two.
fn cluster(mode: &str, teams: u8, size: u8, backfill: bool, players: &[&str]) -> Cluster {
    let mut queue = QueueConfig::new(name(mode), teams, size, vec![name("eu")]);
    queue.backfill = backfill;
    queue.time_out = Duration::from_secs(60);
    let mut config = MatchmakingConfig::new(vec![queue]);
    config.join_window = Duration::from_secs(20);
    config.sweep_interval = Duration::from_secs(2);
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

/// Queues the players, and returns their match.
fn form(c: &mut Cluster, players: &[&str], mode: &str) -> v1::Matched {
    for player in players {
        c.queue(player, alone(mode));
    }
    run(c, 1);
    c.player(players[0]).matched.clone().expect("they are matched")
}

fn record(c: &mut Cluster, id: &str) -> Option<v1::MatchRecord> {
    c.get(keys::match_key(id)).map(|kv| decode(&kv.value))
}

fn players(matched: &v1::Matched) -> Vec<String> {
    let mut players: Vec<String> = matched.teams.iter().flat_map(|team| team.players.clone()).collect();
    players.sort_unstable();
    players
}

/// Returns the players of each `Missed` decision, with true if their match was over by that.
fn missed(c: &Cluster) -> Vec<(Vec<String>, bool)> {
    let missed = |decision: &MatcherDecision| match decision {
        MatcherDecision::Missed { players, over, .. } => {
            Some((players.iter().map(|player| player.to_string()).collect(), *over))
        }
        _ => None,
    };
    c.nodes.iter().flat_map(|node| &node.decisions).filter_map(missed).collect()
}

/// Returns the match that the last message to the player reports as given up.
fn given_up(c: &mut Cluster, player: &str) -> Option<String> {
    let last = &c.player(player).last;
    (last.state() == S::GivenUp).then(|| last.r#match.clone())
}

#[test]
fn who_does_not_come_is_out_and_who_came_has_its_waiting_time_back() {
    let mut c = cluster("duel", 2, 1, false, &["ann", "bob", "cid"]);
    c.queue("ann", alone("duel"));
    run(&mut c, 10);
    let matched = form(&mut c, &["bob"], "duel");
    c.join("ann");
    run(&mut c, 18);
    assert!(c.notice("ann").unwrap().joined && !c.notice("bob").unwrap().joined);
    run(&mut c, 5);
    assert_eq!(missed(&c), [(vec!["bob".to_string()], true)]);
    assert_eq!((c.notice("ann"), c.notice("bob")), (None, None));
    assert!(c.player("ann").matched.is_none(), "she was told that it is over");
    assert_eq!(given_up(&mut c, "bob"), Some(matched.r#match.clone()));
    assert_eq!(given_up(&mut c, "ann"), None);
    run(&mut c, 3);
    assert_eq!(record(&mut c, &matched.r#match), None);
    assert!(c.get(keys::room(&matched.room)).is_some(), "the room belongs to its primary");
    // Both may search again. Ann is ahead of all tickets of the last ten seconds.
    c.queue("cid", alone("duel"));
    run(&mut c, 5);
    c.disconnect("cid");
    run(&mut c, 1);
    for player in ["ann", "bob"] {
        c.queue(player, alone("duo"));
        assert_eq!(c.heard(player).last(), Some(&S::Refused));
        c.queue(player, alone("duel"));
        if player == "ann" {
            c.run(Duration::from_millis(100));
            let queued_ms = c.ticket("ann").unwrap().queued_ms;
            assert_eq!((c.time().wall.0 - queued_ms) / 1_000, 10);
        }
    }
    run(&mut c, 2);
    assert!(c.player("ann").matched.is_some() && c.player("bob").matched.is_some());
    // The credit was for that search only.
    assert_eq!(c.notice("bob").unwrap().waited_ms / 1_000, 0);
}

#[test]
fn the_waiting_time_of_a_search_that_crosses_is_given_back_too() {
    let mut c = cluster("duel", 2, 1, false, &["ann", "bob"]);
    c.queue("ann", alone("duel"));
    run(&mut c, 50);
    form(&mut c, &["bob"], "duel");
    c.join("ann");
    run(&mut c, 1);
    c.leave("bob");
    // She searches before she knows that the match is over, and receives the match in its current
    // state.
    let search = c.queue("ann", alone("duel"));
    c.run(Duration::from_millis(50));
    assert!(c.player("ann").matched.is_some() && c.player("ann").wish.is_none());
    run(&mut c, 4);
    assert_eq!((missed(&c), c.notice("ann")), (vec![(vec!["bob".to_string()], true)], None));
    // That search is answered. The next one keeps its waiting time, up to half of the time-out.
    c.ask_for("ann", v1::Queue { search, ..alone("duel") });
    run(&mut c, 1);
    assert_eq!((c.heard("ann").last(), c.ticket("ann")), (Some(&S::None), None));
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let waited_ms = c.time().wall.0 - c.ticket("ann").unwrap().queued_ms;
    assert_eq!(waited_ms / 1_000, 31);
}

#[test]
fn the_place_of_who_does_not_come_is_filled() {
    let all = ["ann", "bob", "cat", "dan"];
    let mut c = cluster("duo", 2, 2, true, &["ann", "bob", "cat", "dan", "eve", "fay"]);
    let matched = form(&mut c, &all, "duo");
    for player in ["ann", "bob", "cat"] {
        c.join(player);
    }
    c.queue("eve", alone("duo"));
    run(&mut c, 25);
    assert_eq!(missed(&c), [(vec!["dan".to_string()], false)]);
    assert_eq!(given_up(&mut c, "dan"), Some(matched.r#match.clone()));
    let eve = c.player("eve").matched.clone().expect("there is a place");
    assert_eq!(
        (&eve.r#match, eve.fills, players(&eve)),
        (
            &matched.r#match,
            2,
            vec!["ann".to_string(), "bob".to_string(), "cat".to_string(), "eve".to_string()]
        )
    );
    assert_eq!(c.player("ann").matched.clone().unwrap().fills, 2);
    assert!(c.notice("ann").unwrap().joined, "a fill does not forget who came");
    assert_eq!(record(&mut c, &matched.r#match).unwrap().missed, ["dan"]);
    // A player that was added later has as much time, and is removed too without joining.
    c.queue("fay", alone("duo"));
    run(&mut c, 15);
    assert_eq!(missed(&c).len(), 1);
    run(&mut c, 12);
    assert_eq!(missed(&c)[1], (vec!["eve".to_string()], false));
    assert!(players(&c.player("fay").matched.clone().unwrap()).contains(&"fay".to_string()));
    c.join("fay");
    run(&mut c, 40);
    assert_eq!(missed(&c).len(), 2, "all are there");
    // A late player may queue again.
    c.queue("dan", alone("duo"));
    run(&mut c, 1);
    assert_eq!(c.ticket("dan").unwrap().state(), S::Waiting);
}

#[test]
fn without_the_rule_a_match_goes_on_if_two_teams_have_anybody() {
    for (mode, teams, size, come, goes_on) in [
        ("duo", 2, 2, vec!["ann", "bob", "cat"], true),
        ("duo", 2, 2, vec!["ann"], false),
        ("all", 4, 1, vec!["ann", "dan"], true),
        ("all", 4, 1, vec!["ann"], false),
        ("raid", 1, 4, vec!["ann"], true),
        ("raid", 1, 4, vec![], false),
    ] {
        let all = ["ann", "bob", "cat", "dan"];
        let mut c = cluster(mode, teams, size, false, &all);
        let matched = form(&mut c, &all, mode);
        c.claim_room(&matched.room);
        come.iter().for_each(|player| c.join(player));
        run(&mut c, 27);
        for player in all {
            let stays = goes_on && come.contains(&player);
            assert_eq!(c.notice(player).is_some(), stays, "{player} of {mode}, {come:?}");
            if stays {
                assert_eq!(players(&c.player(player).matched.clone().unwrap()), come, "{mode}");
            }
        }
        assert_eq!(record(&mut c, &matched.r#match).is_some_and(|record| record.begun), goes_on, "{mode}");
        // Once the match has begun, a player that leaves ends nothing for the others.
        run(&mut c, 10);
        if goes_on && come.len() > 1 {
            c.leave("ann");
            run(&mut c, 30);
            assert!(c.notice(come[1]).is_some() && c.notice("ann").is_none());
        }
    }
}

#[test]
fn who_leaves_before_the_match_has_begun_lets_the_others_go_at_once() {
    for joins in [false, true] {
        let mut c = cluster("duel", 2, 1, false, &["ann", "bob"]);
        let matched = form(&mut c, &["ann", "bob"], "duel");
        if joins {
            c.join("bob");
        }
        c.leave("ann");
        run(&mut c, 4);
        assert_eq!(missed(&c), [(vec!["ann".to_string()], true)]);
        assert_eq!((c.notice("bob"), c.player("bob").matched.clone()), (None, None));
        run(&mut c, 3);
        assert_eq!(record(&mut c, &matched.r#match), None);
    }
}

#[test]
fn a_match_to_which_all_came_goes_on_when_one_has_left() {
    let mut c = cluster("duel", 2, 1, false, &["ann", "bob"]);
    let matched = form(&mut c, &["ann", "bob"], "duel");
    c.join("ann");
    c.join("bob");
    run(&mut c, 4);
    assert!(record(&mut c, &matched.r#match).unwrap().begun);
    c.leave("ann");
    run(&mut c, 60);
    assert!(c.notice("bob").is_some() && missed(&c).is_empty());
    c.leave("bob");
    run(&mut c, 4);
    assert_eq!(record(&mut c, &matched.r#match), None);
}

#[test]
fn who_is_away_when_the_match_is_over_hears_of_it_when_it_is_back() {
    for away_s in [10, 40] {
        let mut c = cluster("duel", 2, 1, false, &["ann", "bob"]);
        let matched = form(&mut c, &["ann", "bob"], "duel");
        c.join("bob");
        run(&mut c, 1);
        c.disconnect("bob");
        c.leave("ann");
        run(&mut c, away_s);
        // The match waits for him, but not forever.
        let waits = away_s < 20;
        assert_eq!((c.notice("bob").is_some(), record(&mut c, &matched.r#match).is_some()), (waits, waits));
        c.connect("bob", 0);
        run(&mut c, 4);
        assert_eq!((c.notice("bob"), record(&mut c, &matched.r#match)), (None, None));
        if waits {
            assert_eq!(c.player("bob").matched, None);
        }
        c.queue("bob", alone("duel"));
        run(&mut c, 1);
        assert_eq!(c.ticket("bob").unwrap().state(), S::Waiting);
    }
}

#[test]
fn who_came_at_another_node_has_come() {
    let mut c = cluster("duel", 2, 1, false, &["ann", "bob"]);
    form(&mut c, &["ann", "bob"], "duel");
    c.join("ann");
    c.connect("bob", 0);
    run(&mut c, 1);
    c.join("bob");
    run(&mut c, 1);
    c.connect("bob", 1);
    c.connect("ann", 1);
    run(&mut c, 40);
    assert!(c.notice("ann").unwrap().joined && c.notice("bob").unwrap().joined && missed(&c).is_empty());
}

#[test]
fn a_player_that_left_is_not_put_back_when_others_do_not_come() {
    let mut c = cluster("duo", 2, 2, true, &["ann", "bob", "cat", "dan", "eve"]);
    let matched = form(&mut c, &["ann", "bob", "cat", "dan"], "duo");
    for player in ["ann", "bob", "cat"] {
        c.join(player);
    }
    run(&mut c, 18);
    c.leave("bob");
    // Once Dan is out, the teams name neither of the two any more.
    run(&mut c, 8);
    assert_eq!(missed(&c), [(vec!["dan".to_string()], false)]);
    assert_eq!(record(&mut c, &matched.r#match).unwrap().left, ["bob", "dan"]);
    for player in ["bob", "dan"] {
        c.queue(player, alone("duo"));
    }
    run(&mut c, 15);
    for player in ["bob", "dan"] {
        assert_eq!(
            (c.notice(player), c.ticket(player).map(|ticket| ticket.state())),
            (None, Some(S::Waiting))
        );
    }
    c.queue("eve", alone("duo"));
    run(&mut c, 15);
    assert_eq!(c.player("eve").matched.clone().map(|m| m.r#match), Some(matched.r#match));
}
