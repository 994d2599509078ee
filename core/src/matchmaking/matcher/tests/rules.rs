//! The rules, one by one, on a registry without faults other than the stated ones.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState as S};

use super::clients::{alone, party};
use super::cluster::{Cluster, TTL, name};
use crate::base::id::MAX_NAME;
use crate::base::time::Duration;
use crate::matchmaking::matcher::{MatcherDecision, Standing};
use crate::matchmaking::record::{decode, encode};
use crate::matchmaking::{MatchmakingConfig, QueueConfig, keys};
use crate::registry::{Delete, Put, Request, Span};

fn config() -> MatchmakingConfig {
    let regions = vec![name("eu")];
    let queue = |mode, size| {
        let mut queue = QueueConfig::new(name(mode), 2, size, regions.clone());
        queue.time_out = Duration::from_secs(60);
        queue
    };
    let mut config = MatchmakingConfig::new(vec![queue("duel", 1), queue("duo", 2)]);
    config.trust_rating = true;
    config
}

pub(super) fn cluster(nodes: usize, players: &[(&str, usize)]) -> Cluster {
    let mut cluster = Cluster::new(config(), nodes, 1);
    for (player, node) in players {
        cluster.connect(player, *node);
    }
    run(&mut cluster, 1);
    cluster
}

pub(super) fn run(cluster: &mut Cluster, seconds: u64) {
    cluster.run(Duration::from_secs(seconds));
}

#[test]
fn players_of_two_nodes_are_matched_and_told() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    assert_eq!(c.heard("ann"), [S::Waiting]);
    assert!(c.player("ann").matched.is_none());
    c.queue("bob", alone("duel"));
    run(&mut c, 2);
    let (ann, bob) = (c.player("ann").matched.clone().unwrap(), c.player("bob").matched.clone().unwrap());
    assert_eq!((&ann.r#match, &ann.room, &ann.mode), (&bob.r#match, &bob.room, &"duel".to_string()));
    assert_ne!(ann.team, bob.team);
    assert_eq!(ann.room, keys::room_of(&ann.r#match));
    assert!(name(&ann.room).as_str().starts_with("match:"));
    let room = c.get(keys::room(&ann.room)).unwrap();
    assert_eq!(decode::<v1::RoomRecord>(&room.value), v1::RoomRecord::default());
    assert!(room.lease.is_some());
    assert_eq!((c.ticket("ann"), c.ticket("bob")), (None, None));
    assert_eq!(c.notice("ann").unwrap().r#match, ann.r#match);
    assert!(ann.explanation.starts_with("quality 1000 of 1000 in eu: "), "{}", ann.explanation);
}

#[test]
fn the_same_wish_again_changes_nothing_and_another_one_takes_its_place() {
    let mut c = cluster(1, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let key = keys::ticket(&name("ann"));
    let first = c.get(key.clone()).unwrap();
    let wish = c.player("ann").wish.clone().unwrap();
    c.ask_for("ann", wish);
    run(&mut c, 1);
    assert_eq!(c.get(key.clone()).unwrap(), first);
    assert_eq!(c.heard("ann"), [S::Waiting, S::Waiting]);
    let search = c.queue("ann", alone("duo"));
    run(&mut c, 1);
    let second: v1::TicketRecord = decode(&c.get(key).unwrap().value);
    assert_eq!(second.queue, Some(v1::Queue { search, ..alone("duo") }));
    assert!(second.queued_ms > decode::<v1::TicketRecord>(&first.value).queued_ms);
}

#[test]
fn a_ticket_is_taken_back() {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0)]);
    c.cancel("ann");
    assert_eq!(c.heard("ann"), [S::None]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    c.cancel("ann");
    run(&mut c, 1);
    assert_eq!(c.heard("ann"), [S::None, S::Waiting, S::Cancelled]);
    assert_eq!((c.ticket("ann"), c.player("ann").last.mode.as_str()), (None, "duel"));
    // A player in a match does not queue for another one.
    let search = c.queue("ann", alone("duel"));
    c.queue("bob", alone("duel"));
    run(&mut c, 2);
    c.player("ann").matched.take().unwrap();
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let matched = c.player("ann").matched.take().unwrap();
    assert_eq!(c.ticket("ann"), None);
    // A `Cancel` of a search that was answered with a match gives the match up.
    c.take_back("ann", search);
    run(&mut c, 1);
    assert_eq!((c.player("ann").last.state(), &c.player("ann").last.r#match), (S::GivenUp, &matched.r#match));
    assert!(c.notice("ann").is_none() && c.notice("bob").is_some());
}

#[test]
fn what_is_not_taken_is_refused_with_a_reason() {
    let mut config = config();
    config.players = 1;
    let mut c = Cluster::new(config, 1, 1);
    c.connect("ann", 0);
    c.queue("ann", alone("war"));
    assert_eq!(
        (c.player("ann").last.state(), c.player("ann").last.reason.as_str()),
        (S::Refused, "there is no queue of this mode")
    );
    c.connect("bob", 0);
    c.queue("bob", alone("duel"));
    assert_eq!(c.player("bob").last.reason, "the node has no place for another player");
    // He may have a ticket nevertheless.
    c.take_back("bob", 0);
    assert_eq!(c.player("bob").last.state(), S::Unavailable);
}

#[test]
fn a_ticket_times_out() {
    let mut c = cluster(1, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 59);
    assert_eq!(c.heard("ann"), [S::Waiting]);
    run(&mut c, 2);
    assert_eq!(c.heard("ann"), [S::Waiting, S::TimedOut]);
    assert_eq!((c.ticket("ann"), c.player("ann").last.waited_ms / 1000), (None, 60));
    // The same holds for a ticket of a party that no other player joins.
    c.queue("ann", party("duo", "p", 2));
    run(&mut c, 61);
    assert_eq!(c.heard("ann")[2..], [S::Waiting, S::TimedOut]);
}

#[test]
fn a_party_is_one_team_and_its_queue_time_is_the_oldest() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1), ("cat", 0), ("dan", 1)]);
    c.queue("ann", party("duo", "p", 2));
    c.queue("cat", alone("duo"));
    c.queue("dan", alone("duo"));
    run(&mut c, 30);
    assert!(c.players.values().all(|player| player.matched.is_none()));
    let (leader, now) = (c.leader("duo").unwrap(), c.now);
    let standing = c.nodes[leader].matcher.explain(now, &name("ann"));
    assert_eq!(standing, Some(Standing::Gathers { here: 1, of: 2 }));
    // The same party name with another size is another party.
    c.connect("eve", 0);
    c.queue("eve", party("duel", "p", 1));
    c.queue("bob", party("duo", "p", 2));
    run(&mut c, 2);
    let (ann, bob) = (c.player("ann").matched.clone().unwrap(), c.player("bob").matched.clone().unwrap());
    assert_eq!((ann.team, &ann.r#match), (bob.team, &bob.r#match));
    assert_ne!(c.player("cat").matched.clone().unwrap().team, ann.team);
}

#[test]
fn a_stranger_who_knows_the_name_of_a_party_takes_no_place_in_it() {
    let players = [("eve", 0), ("ann", 0), ("bob", 1), ("cat", 0), ("dan", 1)];
    let mut c = cluster(2, &players);
    let keyed = |key: &'static [u8]| v1::Queue { party_key: key.into(), ..party("duo", "p", 2) };
    // She queues first: without a key, with a wrong key, and with the digest that is in the
    // registry.
    c.queue("eve", party("duo", "p", 2));
    run(&mut c, 1);
    c.queue("ann", keyed(b"friends"));
    run(&mut c, 1);
    let digest = c.ticket("ann").unwrap().queue.unwrap().party_key;
    assert!(!digest.windows(7).any(|part| part == b"friends"));
    for key in [&b"guess"[..], &digest] {
        c.queue("eve", v1::Queue { party_key: bytes::Bytes::copy_from_slice(key), ..party("duo", "p", 2) });
        run(&mut c, 2);
    }
    for player in ["cat", "dan"] {
        c.queue(player, alone("duo"));
    }
    run(&mut c, 5);
    assert!(c.players.values().all(|player| player.matched.is_none()));
    c.queue("bob", keyed(b"friends"));
    run(&mut c, 2);
    let (ann, bob) = (c.player("ann").matched.clone().unwrap(), c.player("bob").matched.clone().unwrap());
    assert_eq!((ann.team, &ann.r#match), (bob.team, &bob.r#match));
    assert!(c.player("eve").matched.is_none());
    // Her ticket is the same at another node.
    c.leave("ann");
    let search = c.queue("ann", keyed(b"friends"));
    run(&mut c, 1);
    let modified = c.ticket("ann").unwrap();
    c.ask_for("ann", v1::Queue { search, ..keyed(b"friends") });
    run(&mut c, 1);
    assert_eq!(c.ticket("ann"), Some(modified));
}

#[test]
fn a_complete_party_times_out_with_its_oldest() {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0)]);
    c.queue("ann", party("duo", "p", 2));
    run(&mut c, 40);
    c.queue("bob", party("duo", "p", 2));
    run(&mut c, 19);
    assert_eq!((c.heard("ann"), c.heard("bob")), (vec![S::Waiting], vec![S::Waiting]));
    run(&mut c, 2);
    assert_eq!(
        (c.heard("ann"), c.heard("bob")),
        (vec![S::Waiting, S::TimedOut], vec![S::Waiting, S::TimedOut])
    );
}

#[test]
fn a_party_that_loses_a_player_is_lost() {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0), ("cat", 0)]);
    for (first, second, size) in [("ann", "bob", 2), ("bob", "cat", 2)] {
        let before = c.heard(first).len();
        c.queue(first, party("duo", "p", size));
        c.queue(second, party("duo", "p", size));
        run(&mut c, 1);
        c.cancel(second);
        run(&mut c, 4);
        assert_eq!(c.heard(first)[before..], [S::Waiting], "it may come back");
        run(&mut c, 2);
        assert_eq!(c.heard(first)[before..], [S::Waiting, S::PartyLost]);
        assert_eq!((c.ticket(first), c.heard(second).last()), (None, Some(&S::Cancelled)));
    }
}

#[test]
fn a_party_whose_player_is_back_in_time_is_not_lost() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 0)]);
    c.queue("ann", party("duo", "p", 2));
    c.queue("bob", party("duo", "p", 2));
    run(&mut c, 1);
    c.cancel("bob");
    run(&mut c, 3);
    c.queue("bob", party("duo", "p", 2));
    run(&mut c, 20);
    assert_eq!(c.heard("ann"), [S::Waiting]);
    let (leader, now) = (c.leader("duo").unwrap(), c.now);
    let standing = c.nodes[leader].matcher.explain(now, &name("bob"));
    assert!(matches!(standing, Some(Standing::Waits(_))), "{standing:?}");
}

#[test]
fn a_party_without_a_region_in_common_is_refused() {
    let mut config = config();
    config.queues[1].regions.push(name("us"));
    let mut c = Cluster::new(config, 1, 1);
    for (player, region) in [("ann", "eu"), ("bob", "us")] {
        c.connect(player, 0);
        let latencies = vec![v1::RegionLatency { region: region.to_string(), millis: 10 }];
        c.queue(player, v1::Queue { latencies, ..party("duo", "p", 2) });
    }
    run(&mut c, 2);
    for player in ["ann", "bob"] {
        assert_eq!(c.heard(player), [S::Waiting, S::Refused]);
        assert!(c.player(player).last.reason.contains("do not fit"), "{:?}", c.player(player).last);
    }
}

#[test]
fn a_search_moves_to_another_node_and_keeps_its_time() {
    let mut c = cluster(2, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 10);
    let before = c.ticket("ann").unwrap();
    c.connect("ann", 1);
    run(&mut c, 2);
    let after = c.ticket("ann").unwrap();
    assert_eq!((after.queued_ms, after.node), (before.queued_ms, c.nodes[1].id.0));
    assert!(after.session_epoch > before.session_epoch);
    assert_eq!(c.nodes[0].player_tickets.stats().players, 0);
    // The same holds if the client has forgotten its search.
    c.player("ann").wish = None;
    c.connect("ann", 0);
    run(&mut c, 2);
    assert_eq!(
        (c.ticket("ann").unwrap().queued_ms, c.heard("ann").last()),
        (before.queued_ms, Some(&S::Waiting))
    );
    // The end of the session ends the ticket.
    c.end_session("ann");
    run(&mut c, 1);
    assert_eq!((c.ticket("ann"), c.nodes[0].player_tickets.stats().players), (None, 0));
}

#[test]
fn a_ticket_that_is_lost_with_its_lease_is_queued_again() {
    let mut c = cluster(2, &[("ann", 0)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let before = c.ticket("ann").unwrap();
    c.cut(0);
    run(&mut c, TTL.as_secs() + 1);
    assert_eq!(c.ticket("ann"), None);
    c.heal(0);
    run(&mut c, 8);
    assert_eq!(c.ticket("ann").unwrap().queued_ms, before.queued_ms);
    assert_eq!(c.get(keys::ticket(&name("ann"))).unwrap().lease, c.nodes[0].lease);
}

#[test]
fn a_session_that_was_written_again_is_the_same() {
    let mut c = cluster(1, &[("ann", 0)]);
    let epoch = c.nodes[0].sessions[&name("ann")];
    let record = v1::SessionRecord {
        session: vec![1; 16].into(),
        node: c.nodes[0].id.0,
        epoch,
        base: 0,
        ..v1::SessionRecord::default()
    };
    let put = Put::new(keys::session(&name("ann")), encode(&record), c.nodes[0].lease);
    c.ask(&Request::Put(put));
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    assert_eq!(c.ticket("ann").unwrap().session_epoch, epoch);
}

#[test]
fn who_was_away_hears_of_its_match_and_it_ends_when_all_have_left() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1)]);
    c.queue("ann", alone("duel"));
    c.disconnect("ann");
    c.queue("bob", alone("duel"));
    run(&mut c, 2);
    let matched = c.player("bob").matched.clone().unwrap();
    assert!(c.player("ann").matched.is_none());
    // Ann receives the match when she is back, even if her client has forgotten the search.
    c.player("ann").wish = None;
    c.connect("ann", 0);
    assert_eq!(c.player("ann").matched.clone().unwrap().r#match, matched.r#match);
    // At another node, the player receives the match again.
    c.player("ann").matched = None;
    c.connect("ann", 1);
    run(&mut c, 1);
    assert!(c.player("ann").matched.is_some());
    c.join("ann");
    c.join("bob");
    run(&mut c, 35);
    c.leave("ann");
    run(&mut c, 150);
    assert_eq!(c.notice("ann"), None);
    assert!(c.notice("bob").is_some() && c.get(keys::match_key(&matched.r#match)).is_some());
    c.leave("bob");
    run(&mut c, 32);
    assert_eq!((c.notice("bob"), c.get(keys::match_key(&matched.r#match))), (None, None));
    // The room belongs to its primary.
    assert!(c.get(keys::room(&matched.room)).is_some());
}

#[test]
fn a_match_that_nobody_comes_to_is_ended() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1)]);
    c.queue("ann", alone("duel"));
    c.queue("bob", alone("duel"));
    run(&mut c, 115);
    let matched = c.player("bob").matched.clone().unwrap();
    assert!(c.notice("ann").is_some());
    run(&mut c, 40);
    assert_eq!((c.notice("ann"), c.notice("bob")), (None, None));
    assert_eq!((c.get(keys::match_key(&matched.r#match)), c.get(keys::room(&matched.room))), (None, None));
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    assert!(c.ticket("ann").is_some());
}

#[test]
fn another_node_is_elected_when_the_matcher_is_gone() {
    let mut c = cluster(3, &[("ann", 0), ("bob", 1)]);
    let first = c.leader("duel").unwrap();
    let home = (first + 1) % 3;
    c.connect("ann", home);
    c.connect("bob", home);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    c.crash(first);
    run(&mut c, 1);
    assert_eq!(c.leader("duel"), None, "its lease lives");
    run(&mut c, 7);
    assert!(c.leader("duel").is_some());
    c.queue("bob", alone("duel"));
    run(&mut c, 1);
    assert!(c.player("ann").matched.is_some());
}

#[test]
fn a_matcher_that_was_paused_writes_nothing() {
    let mut c = cluster(2, &[]);
    let first = c.leader("duel").unwrap();
    let other = 1 - first;
    c.connect("ann", other);
    c.connect("bob", other);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    c.pause(first);
    run(&mut c, 8);
    assert_eq!(c.leader("duel"), Some(first.min(other)), "both believe it");
    assert!(c.nodes.iter().all(|node| node.matcher.elected().count() == 2));
    c.queue("bob", alone("duel"));
    run(&mut c, 2);
    assert!(c.player("bob").matched.is_some());
    // The oracle checks that the deposed node writes nothing.
    c.resume(first);
    run(&mut c, 3);
    assert_eq!(c.leader("duel"), Some(other));
    assert_eq!(c.oracle.formed, 1);
}

#[test]
fn who_follows_misses_nothing_before_it_watches() {
    let mut c = cluster(2, &[]);
    let first = c.leader("duel").unwrap();
    c.faults.slow_watch = 1000;
    c.crash(1 - first);
    c.run(Duration::from_millis(20));
    // The other node knows the elected one, and does not watch yet.
    c.pause(first);
    c.revoke(first);
    run(&mut c, 10);
    assert!(c.nodes[1 - first].matcher.elected().count() == 2);
}

#[test]
fn a_transaction_that_is_done_after_the_election_of_another_does_nothing() {
    let mut c = cluster(2, &[]);
    let first = c.leader("duel").unwrap();
    let other = 1 - first;
    c.connect("ann", other);
    c.connect("bob", other);
    c.queue("ann", alone("duel"));
    c.queue("bob", alone("duel"));
    c.run(Duration::from_millis(20));
    assert!(c.ticket("ann").is_some() && c.ticket("bob").is_some());
    // From now on, requests are executed a few seconds later, when another node is elected that has
    // not read the tickets.
    c.faults.late = 1000;
    run(&mut c, 1);
    c.faults.late = 0;
    c.pause(first);
    let mode = name("duel");
    c.ask(&Request::Delete(Delete::of(Span::one(keys::matcher(&mode)))));
    let record = v1::MatcherRecord { node: 99 };
    c.ask(&Request::Put(Put::new(keys::matcher(&mode), encode(&record), None)));
    run(&mut c, 12);
    assert_eq!((c.oracle.formed, c.ticket("ann").map(|ticket| ticket.state())), (0, Some(S::Waiting)));
}

#[test]
fn who_has_missed_what_is_compacted_reads_all_again() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1)]);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    let leader = c.leader("duel").unwrap();
    let listings = c.nodes[leader].matcher.stats().listings;
    for node in 0..2 {
        c.cut(node);
    }
    // A change that the watches miss.
    let revision = c.ask(&Request::Put(Put::new(keys::ticket(&name("zoe")), "", None))).revision;
    c.ask(&Request::Put(Put::new(keys::ticket(&name("zoe")), "", None)));
    c.ask(&Request::Compact { revision: revision + 1 });
    for node in 0..2 {
        c.heal(node);
    }
    run(&mut c, 3);
    assert!(c.nodes[leader].matcher.stats().listings > listings);
    assert!(c.nodes.iter().all(|node| node.player_tickets.stats().rebased > 1));
    c.queue("bob", alone("duel"));
    run(&mut c, 3);
    assert!(c.player("ann").matched.is_some() && c.player("bob").matched.is_some());
}

/// The explanation is the same for players and in the log, and is short for any players.
#[test]
fn what_let_a_match_form_is_told_with_how_far_the_bounds_had_widened() {
    let long = |letter: &str| letter.repeat(MAX_NAME);
    let (ann, bob) = (long("a"), long("b"));
    let mut c = cluster(1, &[(&ann, 0), (&bob, 0)]);
    let wish = |rating, millis| {
        let latencies = vec![v1::RegionLatency { region: "eu".to_string(), millis }];
        v1::Queue { rating, latencies, ..alone("duel") }
    };
    c.queue(&ann, wish(1500, 20));
    run(&mut c, 20);
    c.queue(&bob, wish(1620, 60));
    run(&mut c, 5);
    let told = c.player(&ann).matched.clone().unwrap().explanation;
    let logged = c.nodes[0].decisions.iter().find_map(|decision| match decision {
        MatcherDecision::Formed { explanation, .. } => Some(explanation.clone()),
        _ => None,
    });
    assert_eq!(Some(&told), logged.as_ref());
    let (rule, widths) = told.split_once("; ").unwrap();
    assert_eq!(rule, format!("quality 400 of 1000 in eu: the rating window of {bob} had to widen"));
    // It names his window, not hers, which is wider; and his latency.
    assert_eq!(widths, "waited up to 22 s, ratings within 120 of 120 points, latency 60 of 88 ms");
    assert!(told.len() < 256, "{}", told.len());
}

#[test]
fn more_tickets_than_a_matcher_knows_wait_for_their_turn() {
    let mut config = config();
    config.queues.truncate(1);
    (config.tickets, config.page) = (4, 3);
    let mut c = Cluster::new(config, 1, 1);
    let players: Vec<_> = (0..14).map(|player| alloc::format!("p{player}")).collect();
    for player in &players {
        c.connect(player, 0);
        c.queue(player, alone("duel"));
    }
    run(&mut c, 20);
    assert!(c.players.values().all(|player| player.matched.is_some()));
    assert_eq!(c.oracle.formed, 7);
}

#[test]
fn a_session_that_was_registered_once_more_is_the_same() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1)]);
    let epoch = c.nodes[0].sessions[&name("ann")];
    // Her record was deleted with the node's lease, and was written again with another epoch, of
    // which the node's sessions know nothing.
    assert!(c.claim(&name("ann"), 0, 0) > epoch);
    c.queue("ann", alone("duel"));
    run(&mut c, 1);
    assert_eq!(c.ticket("ann").unwrap().session_epoch, epoch);
    // A session of another node is not accepted.
    c.claim(&name("bob"), 0, 0);
    c.queue("bob", alone("duel"));
    run(&mut c, 1);
    assert_eq!((c.ticket("bob"), c.heard("bob")), (None, vec![S::Unavailable]));
}

#[test]
fn a_ticket_of_which_nobody_knows_is_taken_back_before_that_is_said() {
    let mut c = cluster(1, &[("ann", 0)]);
    // The ticket is written, the answer is lost, and the watch reports the ticket only later.
    (c.faults.lost_reply, c.faults.slow_watch) = (1000, 1000);
    c.queue("ann", alone("duel"));
    c.run(Duration::from_millis(10));
    assert!(c.ticket("ann").is_some());
    (c.faults.lost_reply, c.faults.slow_watch) = (0, 1000);
    c.cancel("ann");
    for _ in 0..500 {
        c.run(Duration::from_millis(10));
        let cancelled = c.heard("ann").contains(&S::Cancelled);
        assert!(!cancelled || c.ticket("ann").is_none(), "the ticket is there yet");
    }
    assert_eq!(c.heard("ann").last(), Some(&S::Cancelled));
}

#[test]
fn a_match_from_a_time_to_come_is_ended_too() {
    let mut c = cluster(2, &[("ann", 0), ("bob", 1)]);
    c.queue("ann", alone("duel"));
    c.queue("bob", alone("duel"));
    run(&mut c, 2);
    // The record is as if written by a clock that was an hour ahead.
    let key = keys::match_key(&c.player("bob").matched.clone().unwrap().r#match);
    let record: v1::MatchRecord = decode(&c.get(key.clone()).unwrap().value);
    let ahead = v1::MatchRecord { formed_ms: record.formed_ms + 3_600_000, ..record };
    c.ask(&Request::Put(Put::new(key.clone(), encode(&ahead), None)));
    run(&mut c, 120);
    assert!(c.notice("ann").is_some());
    run(&mut c, 70);
    assert_eq!((c.notice("ann"), c.notice("bob"), c.get(key)), (None, None, None));
}

#[test]
fn a_ticket_that_is_written_long_after_it_was_given_up_is_void() {
    for seed in 0..20 {
        let mut c = Cluster::new(config(), 1, seed);
        c.connect("ann", 0);
        run(&mut c, 1);
        // The request will be executed in a few seconds, with unknown outcome.
        c.faults.late = 1000;
        c.queue("ann", alone("duel"));
        c.run(Duration::from_millis(1));
        c.faults.late = 0;
        run(&mut c, 1);
        assert_eq!(c.heard("ann").last(), Some(&S::Waiting));
        c.cancel("ann");
        run(&mut c, 1);
        assert_eq!(c.heard("ann").last(), Some(&S::Cancelled));
        for _ in 0..2_000 {
            c.run(Duration::from_millis(5));
            assert_eq!(c.ticket("ann"), None, "seed {seed}: the ticket is back");
        }
    }
}
