//! Searches and their numbers: an end answers only the search of its number.

use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState as S};

use super::clients::{alone, party};
use super::cluster::{Cluster, Frame, TTL, name};
use super::rules::{cluster, run};
use crate::matchmaking::keys;

/// Returns a cluster where Ann is at another node than at first. Her ticket has timed out while her
/// first node stood still, and she has not repeated her search at the second one.
fn ended_elsewhere() -> (Cluster, v1::Queue) {
    let mut c = cluster(2, &[]);
    let leader = c.leader("duel").unwrap();
    c.connect("ann", 1 - leader);
    c.queue("ann", alone("duel"));
    run(&mut c, 58);
    // The lease of her node outlives her ticket.
    c.pause(1 - leader);
    run(&mut c, 3);
    assert_eq!(c.ticket("ann").map(|ticket| ticket.state()), Some(S::TimedOut));
    let wish = c.player("ann").wish.take().unwrap();
    c.player("ann").heard.clear();
    c.connect("ann", leader);
    run(&mut c, 1);
    (c, wish)
}

/// Returns a cluster where Ann is in a match with Bob.
fn in_match() -> (Cluster, u64) {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0)]);
    let search = c.queue("ann", alone("duel"));
    c.queue("bob", alone("duel"));
    run(&mut c, 2);
    assert_eq!(c.player("ann").matched.as_ref().map(|matched| matched.search), Some(search));
    (c, search)
}

/// Returns the states of tickets that Ann has received since the last call, and the search of the
/// last one.
fn news(c: &mut Cluster) -> (Vec<S>, u64) {
    let ann = c.player("ann");
    (core::mem::take(&mut ann.heard), ann.last.search)
}

#[test]
fn a_search_that_has_ended_is_answered_again_and_does_not_begin_anew() {
    let (mut c, wish) = ended_elsewhere();
    assert_eq!(news(&mut c), (vec![S::TimedOut], wish.search), "nobody has to ask for it");
    assert_eq!(c.ticket("ann"), None);
    // Her `Queue` from before the message arrives, and arrives again.
    for _ in 0..2 {
        c.ask_for("ann", wish.clone());
        run(&mut c, 2);
        assert_eq!(news(&mut c), (vec![S::TimedOut], wish.search));
    }
    c.take_back("ann", wish.search);
    run(&mut c, 2);
    assert_eq!(news(&mut c), (vec![S::TimedOut], wish.search));
    // A search with another number is another search.
    let next = c.queue("ann", alone("duel"));
    run(&mut c, 1);
    assert_eq!(news(&mut c), (vec![S::Waiting], next));
    c.take_back("ann", wish.search);
    run(&mut c, 1);
    assert_eq!(news(&mut c), (vec![S::TimedOut], wish.search));
    assert_eq!(c.ticket("ann").and_then(|ticket| ticket.queue).map(|queue| queue.search), Some(next));
}

#[test]
fn a_search_that_was_taken_back_does_not_begin_anew() {
    let mut c = cluster(1, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let wish = c.player("ann").wish.clone().unwrap();
    c.cancel("ann");
    run(&mut c, 1);
    assert_eq!(news(&mut c), (vec![S::Waiting, S::Cancelled], wish.search));
    c.connect("ann", 0);
    c.ask_for("ann", wish.clone());
    run(&mut c, 1);
    assert_eq!((news(&mut c), c.ticket("ann")), ((vec![S::Cancelled], wish.search), None));
}

#[test]
fn a_cancel_that_comes_late_does_not_hit_the_next_search() {
    let mut c = cluster(1, &[("ann", 0)]);
    let first = c.queue("ann", alone("duel"));
    run(&mut c, 61);
    assert_eq!(news(&mut c), (vec![S::Waiting, S::TimedOut], first));
    let second = c.queue("ann", alone("duel"));
    run(&mut c, 1);
    news(&mut c);
    // One search whose end this node knows, and one that it does not know.
    for (search, state) in [(first, S::TimedOut), (777, S::None)] {
        c.take_back("ann", search);
        run(&mut c, 1);
        assert_eq!(news(&mut c), (vec![state], search));
    }
    assert!(c.ticket("ann").is_some_and(|ticket| ticket.queue.unwrap().search == second));
    c.cancel("ann");
    run(&mut c, 1);
    assert_eq!((news(&mut c), c.ticket("ann")), ((vec![S::Cancelled], second), None));
}

#[test]
fn a_cancel_that_comes_to_another_node_hits_its_search_only() {
    let mut c = cluster(2, &[("ann", 0)]);
    let search = c.queue("ann", alone("duel"));
    run(&mut c, 1);
    news(&mut c);
    // Another client of hers has given up a search that never arrived here.
    c.player("ann").wish = None;
    c.connect("ann", 1);
    c.take_back("ann", 777);
    run(&mut c, 1);
    assert_eq!(c.player("ann").heard, [S::None, S::Waiting]);
    assert!(c.ticket("ann").is_some_and(|ticket| ticket.queue.unwrap().search == search));
    news(&mut c);
    c.connect("ann", 0);
    c.take_back("ann", search);
    run(&mut c, 1);
    assert_eq!((news(&mut c), c.ticket("ann")), ((vec![S::Cancelled], search), None));
}

#[test]
fn a_cancel_of_a_search_that_another_node_has_ended_finds_none() {
    let mut c = cluster(2, &[("ann", 0)]);
    let search = c.queue("ann", alone("duel"));
    run(&mut c, 61);
    assert_eq!(news(&mut c), (vec![S::Waiting, S::TimedOut], search));
    // She has not received the end yet, and cancels at another node.
    c.player("ann").wish = None;
    c.connect("ann", 1);
    c.take_back("ann", search);
    run(&mut c, 1);
    assert_eq!(news(&mut c), (vec![S::None], search));
    // A search that has just begun, and is not written yet, is cancelled.
    let next = c.queue("ann", alone("duel"));
    c.take_back("ann", next);
    run(&mut c, 1);
    assert_eq!((news(&mut c), c.ticket("ann")), ((vec![S::Cancelled], next), None));
}

#[test]
fn a_match_answers_the_search_that_asks_and_says_else_which_it_ended() {
    let (mut c, first) = in_match();
    let told = |c: &mut Cluster| c.player("ann").matched.take().map(|matched| matched.search);
    assert_eq!((told(&mut c), c.notice("ann").map(|notice| notice.search)), (Some(first), Some(first)));
    // A client that was started since knows of no search.
    c.connect("ann", 0);
    assert_eq!(told(&mut c), Some(first));
    let second = c.queue("ann", alone("duel"));
    run(&mut c, 1);
    assert_eq!((told(&mut c), c.ticket("ann")), (Some(second), None));
    c.connect("ann", 0);
    let third = c.queue("ann", alone("duel"));
    c.cancel("ann");
    run(&mut c, 1);
    assert_eq!((told(&mut c), &c.player("ann").wish), (Some(third), &None));
}

#[test]
fn a_search_whose_match_is_over_has_ended() {
    let (mut c, search) = in_match();
    let wish = v1::Queue { search, ..alone("duel") };
    c.leave("ann");
    run(&mut c, 1);
    assert_eq!(c.notice("ann"), None);
    news(&mut c);
    c.ask_for("ann", wish);
    run(&mut c, 1);
    assert_eq!((news(&mut c), c.ticket("ann")), ((vec![S::None], search), None));
    assert_eq!(c.player("ann").last.reason, "the match is over that was found");
    assert!(c.player("ann").matched.is_none());
}

#[test]
fn what_another_client_of_the_player_was_told_does_not_count_when_the_first_is_back() {
    let mut c = cluster(2, &[("ann", 0)]);
    let first = c.queue("ann", alone("duel"));
    run(&mut c, 1);
    // The search is cancelled at another node, and only that node knows of it.
    c.connect("ann", 1);
    c.cancel("ann");
    run(&mut c, 1);
    assert_eq!(news(&mut c).1, first);
    let second = c.queue("ann", alone("duel"));
    run(&mut c, 1);
    // Back at the first node, her search is the one that she has begun at the other.
    c.connect("ann", 0);
    run(&mut c, 2);
    assert!(c.ticket("ann").is_some_and(|ticket| ticket.queue.unwrap().search == second));
    assert_eq!(news(&mut c), (vec![S::Waiting, S::Waiting], second));
}

#[test]
fn a_search_without_a_number_is_one_for_as_long_as_its_ticket_waits() {
    let mut c = cluster(1, &[("ann", 0)]);
    c.ask_for("ann", alone("duel"));
    run(&mut c, 1);
    let key = keys::ticket(&name("ann"));
    let ticket = c.get(key.clone()).unwrap();
    c.ask_for("ann", alone("duel"));
    run(&mut c, 1);
    assert_eq!(c.get(key.clone()), Some(ticket));
    c.cancel("ann");
    run(&mut c, 1);
    assert_eq!(news(&mut c), (vec![S::Waiting, S::Waiting, S::Cancelled], 0));
    c.ask_for("ann", alone("duel"));
    run(&mut c, 61);
    assert_eq!((news(&mut c), c.get(key.clone())), ((vec![S::Waiting, S::TimedOut], 0), None));
    // The old search has ended: this one is new. A `Cancel` of number 0 cancels any search.
    c.ask_for("ann", alone("duel"));
    run(&mut c, 1);
    assert!(c.get(key).is_some());
    c.queue("ann", alone("duo"));
    run(&mut c, 1);
    c.take_back("ann", 0);
    run(&mut c, 1);
    assert_eq!(c.ticket("ann"), None);
}

#[test]
fn a_search_that_ended_elsewhere_does_not_begin_anew_where_it_was_asked_for_before() {
    let mut c = cluster(2, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let wish = c.player("ann").wish.clone().unwrap();
    // Her node is cut off until its lease is over, and receives no change.
    c.cut(0);
    c.connect("ann", 1);
    run(&mut c, 1);
    c.cancel("ann");
    run(&mut c, 1);
    assert_eq!(news(&mut c).0.last(), Some(&S::Cancelled));
    c.end_session("ann");
    run(&mut c, TTL.as_secs());
    assert!(c.nodes[0].sessions.contains_key(&name("ann")), "it has not heard of the move");
    c.heal(0);
    run(&mut c, 10);
    assert_eq!(c.ticket("ann"), None);
    // The same holds if a frame that she sent before she moved arrives only now.
    c.carry(&name("ann"), 0, Frame::Queue(wish));
    run(&mut c, 1);
    assert_eq!(c.ticket("ann"), None);
}

#[test]
fn what_a_player_has_answered_does_not_count_after_the_next_lapse() {
    let mut c = cluster(2, &[("ann", 0)]);
    let search = c.queue("ann", alone("duel"));
    run(&mut c, 1);
    c.cut(0);
    run(&mut c, TTL.as_secs() + 1);
    c.heal(0);
    run(&mut c, 10);
    assert_eq!(news(&mut c), (vec![S::Waiting, S::Unavailable, S::Lost, S::Waiting], search));
    c.cut(0);
    c.connect("ann", 1);
    run(&mut c, 1);
    c.cancel("ann");
    run(&mut c, 1);
    c.end_session("ann");
    run(&mut c, TTL.as_secs());
    c.heal(0);
    run(&mut c, 10);
    assert_eq!(c.ticket("ann"), None);
}

#[test]
fn another_search_is_told_that_it_has_to_answer_too() {
    let mut c = cluster(1, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    // A client that has forgotten its search does not answer.
    c.player("ann").wish = None;
    c.cut(0);
    run(&mut c, TTL.as_secs() + 1);
    c.heal(0);
    run(&mut c, 10);
    assert_eq!((news(&mut c).0.last(), c.ticket("ann")), (Some(&S::Lost), None));
    let search = c.queue("ann", alone("duo"));
    run(&mut c, 1);
    assert_eq!(news(&mut c), (vec![S::Lost, S::Waiting], search));
}

#[test]
fn a_player_that_leaves_its_party_searches_on_alone() {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0)]);
    c.queue("ann", party("duo", "p", 2));
    c.queue("bob", party("duo", "p", 2));
    run(&mut c, 1);
    // By key, a player without a party is before every party.
    c.queue("ann", alone("duo"));
    run(&mut c, 1);
    c.queue("ann", party("duo", "a", 2));
    c.queue("bob", party("duo", "a", 2));
    run(&mut c, 1);
    c.queue("bob", alone("duo"));
    run(&mut c, 2);
    assert_eq!(c.heard("ann"), [S::Waiting; 3]);
    assert_eq!(c.heard("bob"), [S::Waiting; 3]);
}

#[test]
fn a_search_that_ended_at_its_former_node_does_not_begin_anew_where_nobody_came() {
    let mut c = cluster(2, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let (ann, lease) = (name("ann"), c.nodes[1].lease);
    let former = c.nodes[0].sessions[&ann];
    c.disconnect("ann");
    run(&mut c, 1);
    // Node 1 claims the session for a connection that is gone, and cannot write yet. Node 0 does not
    // hear of it.
    let (epoch, now) = (c.claim(&ann, 1, 0), c.time());
    let tickets = &mut c.nodes[1].player_tickets;
    tickets.set_lease(now, None);
    tickets.arrive(now, &ann, epoch);
    tickets.lose(now, &ann);
    c.drain(1);
    run(&mut c, 31);
    assert_eq!(c.ticket("ann").map(|ticket| ticket.state()), Some(S::TimedOut));
    // She resumes her session at node 0, learns of the end, and leaves.
    c.player("ann").home = Some(0);
    let now = c.time();
    c.nodes[0].player_tickets.arrive(now, &ann, former);
    c.drain(0);
    run(&mut c, 1);
    assert_eq!(c.heard("ann").last(), Some(&S::TimedOut));
    c.player("ann").home = None;
    c.nodes[0].sessions.remove(&ann);
    let now = c.time();
    c.nodes[0].player_tickets.depart(now, &ann, false);
    c.drain(0);
    run(&mut c, 10);
    assert_eq!(c.ticket("ann"), None);
    let now = c.time();
    c.nodes[1].player_tickets.set_lease(now, lease);
    c.drain(1);
    run(&mut c, 2);
    assert_eq!(c.ticket("ann"), None);
}
