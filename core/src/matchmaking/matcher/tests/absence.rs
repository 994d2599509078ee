//! Players whose connections are lost while they wait.

use alloc::string::ToString as _;

use skirmish_proto::v1::TicketState as S;

use super::clients::{alone, party};
use super::cluster::{Cluster, name};
use super::rules::{cluster, run};
use crate::base::time::Duration;
use crate::matchmaking::keys;

fn modified(c: &mut Cluster, player: &str) -> u64 {
    c.get(keys::ticket(&name(player))).unwrap().modified
}

fn explained(c: &Cluster, player: &str) -> alloc::string::String {
    let leader = c.leader("duel").unwrap();
    c.nodes[leader].matcher.explain(c.now, &name(player)).unwrap().to_string()
}

#[test]
fn an_absent_player_is_not_matched_until_it_is_back() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 3);
    c.disconnect("ann");
    let lost_ms = c.time().wall.0;
    run(&mut c, 2);
    assert_eq!(c.ticket("ann").unwrap().absent_ms, lost_ms);
    c.queue("bob", alone("duel"));
    run(&mut c, 10);
    assert!(c.player("bob").matched.is_none() && c.notice("ann").is_none(), "nobody is there for Bob");
    let why = explained(&c, "ann");
    assert!(why.starts_with("absent: ann has no connection for 11 s") && why.ends_with("in 18 s"), "{why}");
    // Back at another node, the player is matched at once.
    c.connect("ann", 1);
    run(&mut c, 2);
    assert!(c.player("ann").matched.is_some() && c.player("bob").matched.is_some());
}

#[test]
fn the_waiting_time_goes_on_while_a_player_is_absent() {
    let mut c = cluster(1, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let before = c.ticket("ann").unwrap();
    c.disconnect("ann");
    run(&mut c, 5);
    c.connect("ann", 0);
    run(&mut c, 1);
    assert_eq!(c.ticket("ann"), Some(before));
    // The queue's own time-out still counts from the beginning.
    run(&mut c, 40);
    c.disconnect("ann");
    run(&mut c, 14);
    assert_eq!(c.ticket("ann").unwrap().state(), S::TimedOut);
    c.connect("ann", 0);
    run(&mut c, 1);
    assert_eq!((c.heard("ann").last(), c.ticket("ann")), (Some(&S::TimedOut), None));
}

#[test]
fn a_connection_that_is_back_at_once_costs_no_write() {
    let mut c = cluster(1, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let first = modified(&mut c, "ann");
    for _ in 0..10 {
        c.disconnect("ann");
        c.run(Duration::from_millis(400));
        c.connect("ann", 0);
        run(&mut c, 1);
    }
    assert_eq!(modified(&mut c, "ann"), first);
    // A longer absence costs one write, and another one when the player returns.
    let revision = c.registry.revision();
    c.disconnect("ann");
    run(&mut c, 3);
    c.connect("ann", 0);
    run(&mut c, 1);
    assert_eq!(c.registry.revision(), revision + 2);
}

#[test]
fn who_is_absent_for_too_long_hears_of_it_when_it_is_back() {
    for (back_at, own_number) in [(0, true), (1, true), (1, false)] {
        let mut c = cluster(2, &[("ann", 0)]);
        let search = c.queue("ann", alone("duel"));
        run(&mut c, 1);
        c.disconnect("ann");
        run(&mut c, 29);
        assert_eq!(c.ticket("ann").unwrap().state(), S::Waiting);
        run(&mut c, 2);
        assert_eq!(c.ticket("ann").unwrap().state(), S::TimedOut);
        if !own_number {
            // A client that was started again asks for nothing.
            c.player("ann").wish = None;
        }
        c.connect("ann", back_at);
        run(&mut c, 1);
        // A `Queue` that is repeated on the new connection has the same answer.
        let mut heard = c.heard("ann");
        heard.dedup();
        assert_eq!(heard, [S::Waiting, S::TimedOut], "{back_at} {own_number}");
        let last = &c.player("ann").last;
        assert_eq!(last.search, search);
        assert!(last.reason.contains("no connection"), "{}", last.reason);
        assert_eq!(c.ticket("ann"), None);
        c.queue("ann", alone("duel"));
        run(&mut c, 1);
        assert_eq!(c.ticket("ann").unwrap().state(), S::Waiting);
    }
}

#[test]
fn a_session_that_ends_takes_the_ticket_of_an_absent_player_with_it() {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0)]);
    for (player, away_s) in [("ann", 2), ("bob", 32)] {
        c.queue(player, alone("duo"));
        run(&mut c, 1);
        c.disconnect(player);
        run(&mut c, away_s);
        c.player(player).home = Some(0);
        c.end_session(player);
        run(&mut c, 1);
        assert_eq!(c.ticket(player), None, "{player}");
    }
}

#[test]
fn a_party_waits_for_an_absent_member() {
    let players = [("ann", 0), ("bob", 1), ("cid", 0), ("dan", 0)];
    let mut c = cluster(2, &players);
    for player in ["ann", "bob"] {
        c.queue(player, party("duo", "p", 2));
    }
    run(&mut c, 1);
    c.disconnect("bob");
    run(&mut c, 1);
    for player in ["cid", "dan"] {
        c.queue(player, alone("duo"));
    }
    run(&mut c, 10);
    assert!(c.player("ann").matched.is_none() && c.player("cid").matched.is_none());
    assert!(explained(&c, "ann").starts_with("absent: bob has no connection"), "{}", explained(&c, "ann"));
    c.connect("bob", 0);
    run(&mut c, 2);
    for (player, _) in players {
        assert!(c.player(player).matched.is_some(), "{player}");
    }
}

#[test]
fn a_party_whose_member_stays_absent_is_lost() {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0)]);
    for player in ["ann", "bob"] {
        c.queue(player, party("duo", "p", 2));
    }
    run(&mut c, 1);
    c.disconnect("bob");
    run(&mut c, 31);
    assert_eq!(c.ticket("bob").unwrap().state(), S::TimedOut);
    assert_eq!(c.heard("ann"), [S::Waiting], "Bob may queue again");
    run(&mut c, 6);
    assert_eq!(c.heard("ann"), [S::Waiting, S::PartyLost]);
    c.connect("bob", 0);
    run(&mut c, 1);
    assert_eq!(c.heard("bob")[..2], [S::Waiting, S::TimedOut]);
}
