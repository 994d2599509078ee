//! A room with a backup: recruiting, fail-over, and the return of the primary of before.

use alloc::vec::Vec;

use skirmish_proto::v1;

use super::record::node;
use super::sites::{Sites, config};
use crate::base::plant::Planted;
use crate::base::time::Duration;
use crate::hosting::pair::PairState;
use crate::hosting::{ATTACH_TIMEOUT, Role, RoomInput, SayVerdict};
use crate::wire::RoomMessage;

/// Nodes with a member each, of a room with a backup. The first node is the primary.
fn pair_on(count: usize) -> Sites {
    let mut sites = Sites::new(count, Planted::default());
    sites.replicas = 2;
    for at in 0..count {
        sites.join(at);
        sites.settle();
    }
    sites.time_out(0);
    sites.settle();
    let record = sites.registry.record.unwrap();
    assert_eq!((record.primary, record.term), (node(0), 1));
    assert!(record.backup.is_some(), "a candidate is named");
    sites
}

/// Two nodes, and a room whose only member is on the first. No backup is looked for yet.
fn alone() -> Sites {
    let mut sites = Sites::new(2, Planted::default());
    sites.replicas = 2;
    sites.join(0);
    sites.settle();
    sites
}

/// Nodes with a room whose only member is on the first.
fn backed_up() -> Sites {
    let mut sites = alone();
    sites.time_out(0);
    sites.settle();
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
    sites
}

fn head(sites: &Sites, at: usize) -> u64 {
    sites.sites[at].hosted.as_ref().unwrap().room().log().head()
}

fn leads(sites: &Sites, at: usize) -> bool {
    sites.sites[at].hosted.as_ref().is_some_and(|hosted| matches!(hosted.role(), Role::Leading(_)))
}

/// Returns the state of the pair at the first node, which leads.
fn pair_state(sites: &Sites) -> PairState {
    match sites.sites[0].hosted.as_ref().unwrap().role() {
        Role::Leading(leading) => leading.pair.state(),
        role => panic!("the node does not lead: {role:?}"),
    }
}

/// Lets the frames between two nodes arrive.
fn exchange(sites: &mut Sites, one: usize, other: usize) {
    let waits = |sites: &Sites, way| sites.frames.get(&way).is_some_and(|queue| !queue.is_empty());
    while let Some((from, to)) = [(one, other), (other, one)].into_iter().find(|way| waits(sites, *way)) {
        sites.take_frame(from, to);
    }
}

/// Has a member say its next message, and everything arrive.
fn say(sites: &mut Sites, at: usize) {
    sites.sites[at].player.to_say += 1;
    while sites.sites[at].player.said < sites.sites[at].player.to_say {
        let said = sites.sites[at].player.said;
        sites.say(at);
        sites.settle();
        assert!(sites.sites[at].player.said != said, "the message is held");
    }
}

#[test]
fn a_node_without_members_becomes_the_backup_and_has_every_entry() {
    let mut sites = backed_up();
    say(&mut sites, 0);
    say(&mut sites, 0);
    assert_eq!((head(&sites, 0), head(&sites, 1)), (3, 3));
    sites.leave(0);
    sites.settle();
    assert!(sites.sites.iter().all(|site| site.hosted.is_none()), "the room ends on both nodes");
    assert_eq!(sites.registry.record, None);
}

#[test]
fn a_message_is_in_the_log_only_once_the_backup_has_it() {
    let mut sites = backed_up();
    sites.say(0);
    assert_eq!(head(&sites, 0), 1, "appended, and not committed");
    sites.take_frame(0, 1);
    assert_eq!((head(&sites, 0), head(&sites, 1)), (1, 1), "stored, and not committed");
    sites.take_frame(1, 0);
    assert_eq!((head(&sites, 0), head(&sites, 1)), (2, 1), "committed, and not released");
    sites.settle();
    assert_eq!(head(&sites, 1), 2);
}

#[test]
fn the_backup_goes_on_in_the_same_life_when_the_primary_dies() {
    let mut sites = pair_on(2);
    say(&mut sites, 1);
    let epoch = sites.sites[1].player.epoch;
    sites.kill(0);
    sites.settle();
    assert!(leads(&sites, 1));
    let record = sites.registry.record.unwrap();
    assert_eq!((record.primary, record.term, record.backup), (node(1), 2, None), "swapped, then dropped");
    say(&mut sites, 1);
    assert_eq!(sites.in_log(1), [1, 2]);
    assert_eq!((sites.sites[1].player.epoch, sites.sites[1].player.expelled), (epoch, None));
}

#[test]
fn a_message_that_the_dead_primary_did_not_pass_on_is_sent_again() {
    let mut sites = pair_on(2);
    sites.sites[1].player.to_say = 1;
    sites.say(1);
    assert_eq!(sites.judge(1, 1, true), SayVerdict::Passed);
    sites.kill(0);
    sites.settle();
    assert_eq!(sites.sites[1].player.said, 0, "the client is told");
    sites.say(1);
    sites.settle();
    assert_eq!(sites.in_log(1), [1]);
}

#[test]
fn a_message_that_the_backup_stored_is_there_once() {
    let mut sites = pair_on(2);
    sites.sites[1].player.to_say = 1;
    sites.say(1);
    sites.take_frame(1, 0);
    sites.take_frame(0, 1);
    sites.kill(0);
    sites.settle();
    while sites.sites[1].player.said < 1 {
        sites.say(1);
        sites.settle();
    }
    assert_eq!(sites.in_log(1), [1]);
}

#[test]
fn a_third_node_follows_the_backup_that_took_over() {
    let mut sites = pair_on(3);
    say(&mut sites, 2);
    sites.kill(0);
    sites.settle();
    sites.settle();
    let leaders: Vec<usize> = (0..3).filter(|at| leads(&sites, *at)).collect();
    assert_eq!(leaders.len(), 1);
    for at in [1, 2] {
        say(&mut sites, at);
        assert_eq!(sites.sites[at].player.expelled, None);
    }
    assert_eq!((sites.in_log(1), sites.in_log(2)), (Vec::from([1]), Vec::from([1, 2])));
    assert_eq!(head(&sites, 1), head(&sites, 2));
}

#[test]
fn a_primary_that_lost_its_backup_goes_on_alone() {
    let mut sites = pair_on(2);
    sites.kill(1);
    sites.settle();
    assert!(leads(&sites, 0));
    assert_eq!(sites.registry.record.unwrap().backup, None);
    say(&mut sites, 0);
}

#[test]
fn a_pair_goes_on_without_the_registry_and_a_lone_primary_does_not() {
    let mut sites = pair_on(2);
    sites.lapse_node(0);
    sites.lapse_node(1);
    say(&mut sites, 0);
    say(&mut sites, 1);
    sites.cut(0, 1);
    assert!(matches!(sites.judge(0, 2, true), SayVerdict::Held { .. } | SayVerdict::Next));
    sites.say(0);
    assert_eq!(head(&sites, 0), 4, "nothing is committed that the backup does not have");
}

#[test]
fn a_primary_that_was_suspected_wrongly_becomes_the_backup() {
    let mut sites = pair_on(2);
    sites.cut(0, 1);
    // The swap comes first.
    sites.registry.take_request(1);
    sites.settle();
    assert!(leads(&sites, 1));
    sites.connect(0, 1);
    sites.settle();
    assert!(!leads(&sites, 0));
    sites.settle();
    for at in [0, 1] {
        say(&mut sites, at);
    }
    assert_eq!((head(&sites, 0), head(&sites, 1)), (4, 4));
    assert_eq!((sites.sites[0].player.expelled, sites.sites[1].player.expelled), (None, None));
}

#[test]
fn a_backup_that_has_owed_nothing_for_long_is_kept() {
    let mut sites = pair_on(2);
    sites.pass(config().replication.backup_patience * 5);
    sites.say(0);
    // The backup has not had the time to answer.
    sites.input(0, RoomInput::Timeout);
    sites.settle();
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
}

#[test]
fn a_backup_that_stores_nothing_is_dropped() {
    let mut sites = pair_on(2);
    sites.say(0);
    sites.pass(config().replication.backup_patience);
    sites.input(0, RoomInput::Timeout);
    sites.registry.take_request(0);
    assert_eq!(sites.registry.record.unwrap().backup, None);
    sites.take_news(0);
    sites.check();
    assert_eq!(sites.in_log(0), [1], "the primary commits alone");
}

#[test]
fn a_follower_that_asks_the_primary_of_before_is_told_who_leads() {
    let mut sites = pair_on(3);
    sites.cut(0, 2);
    sites.cut(1, 2);
    sites.cut(0, 1);
    // The swap comes before the primary drops its backup.
    sites.registry.take_request(1);
    sites.settle();
    sites.connect(0, 1);
    sites.settle();
    assert!(leads(&sites, 1) && !leads(&sites, 0));
    // The third node has not heard of it, and comes back to the node that it knows.
    sites.connect(0, 2);
    sites.settle();
    sites.connect(1, 2);
    sites.settle();
    say(&mut sites, 2);
    assert_eq!((sites.in_log(2), sites.sites[2].player.expelled), (Vec::from([1]), None));
}

#[test]
fn a_message_that_a_deposed_primary_could_not_commit_is_sent_again() {
    let mut sites = pair_on(2);
    sites.cut(0, 1);
    sites.sites[0].player.to_say = 1;
    sites.say(0);
    assert_eq!(sites.judge(0, 1, true), SayVerdict::Passed, "appended, and not stored by the backup");
    sites.registry.take_request(1);
    sites.settle();
    sites.connect(0, 1);
    sites.settle();
    assert!(leads(&sites, 1) && !leads(&sites, 0));
    assert_eq!(sites.sites[0].player.said, 0, "the client is told");
    sites.say(0);
    sites.settle();
    assert_eq!(sites.in_log(0), [1]);
}

#[test]
fn the_ops_are_for_the_new_backup_even_if_the_former_one_has_not_heard_of_it() {
    let mut sites = pair_on(3);
    let backup = |sites: &Sites| sites.registry.record.unwrap().backup;
    let former = (1..3).find(|at| backup(&sites) == Some(node(*at))).unwrap();
    let next = 3 - former;
    sites.say(0);
    sites.pass(config().replication.backup_patience);
    sites.input(0, RoomInput::Timeout);
    sites.registry.take_request(0);
    sites.take_news(0);
    sites.input(0, RoomInput::Timeout);
    // The former backup would read first.
    sites.sites[0].player.to_say = 2;
    sites.say(0);
    exchange(&mut sites, 0, next);
    assert_eq!((sites.in_log(0), head(&sites, next)), (Vec::from([1, 2]), head(&sites, 0)));
    sites.settle();
    assert_eq!((backup(&sites), head(&sites, former)), (Some(node(next)), head(&sites, 0)));
}

#[test]
fn a_candidate_is_waited_for_while_the_state_is_under_way() {
    let mut sites = alone();
    sites.time_out(0);
    sites.take_frame(0, 1);
    sites.take_frame(1, 0);
    sites.pass(config().replication.backup_patience);
    sites.input(0, RoomInput::Timeout);
    sites.settle();
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
}

#[test]
fn a_candidate_may_read_the_entries_for_longer_than_the_patience() {
    let mut sites = alone();
    (0..8).for_each(|_| say(&mut sites, 0));
    sites.is_slow = true;
    sites.time_out(0);
    for _ in 0..12 {
        sites.settle();
        sites.pass(config().replication.backup_patience);
        // One more frame each.
        (0..2).for_each(|at| sites.input(at, RoomInput::Timeout));
    }
    sites.settle();
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
}

#[test]
fn a_candidate_that_does_not_answer_is_given_up() {
    let mut sites = alone();
    sites.time_out(0);
    assert_eq!(pair_state(&sites), PairState::Recruiting);
    sites.pass(config().replication.backup_patience);
    sites.input(0, RoomInput::Timeout);
    assert_eq!(pair_state(&sites), PairState::Alone);
}

#[test]
fn a_candidate_is_named_however_many_messages_come() {
    let mut sites = alone();
    sites.sites[0].player.to_say = 40;
    sites.time_out(0);
    // There is a message under way to the candidate at any time.
    for _ in 0..40 {
        sites.say(0);
        let first = [(0, 1), (1, 0)].map(|way| sites.frames.get(&way).map_or(0, |queue| queue.len()));
        (0..first[0]).for_each(|_| sites.take_frame(0, 1));
        sites.say(0);
        (0..first[1]).for_each(|_| sites.take_frame(1, 0));
    }
    sites.registry.take_request(0);
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
}

#[test]
fn a_backup_that_takes_over_before_it_has_the_tail_reads_nothing_over_the_old_link() {
    let mut sites = backed_up();
    sites.cut(0, 1);
    sites.connect(0, 1);
    sites.registry.take_request(1);
    sites.take_news(1);
    assert!(leads(&sites, 1));
    sites.check();
}

#[test]
fn a_follower_that_waited_at_the_backup_and_leaves_reads_nothing() {
    let mut sites = pair_on(3);
    let backup = (1..3).find(|at| sites.registry.record.unwrap().backup == Some(node(*at))).unwrap();
    let third = 3 - backup;
    sites.cut(0, third);
    sites.settle();
    let link = sites.link(backup, third).unwrap();
    assert!(sites.sites[backup].reads.contains(&link));
    let detach = v1::Detach { room: "arena".into(), epoch: sites.registry.record.unwrap().epoch };
    let message = RoomMessage::Detach(detach);
    let metadata = v1::Metadata::default();
    sites.input(backup, RoomInput::From { link, node: node(third), message, metadata });
    assert!(!sites.sites[backup].reads.contains(&link));
    sites.check();
}

#[test]
fn a_primary_that_was_deposed_while_a_link_was_down_hears_of_it_with_the_next_link() {
    let mut sites = pair_on(2);
    sites.cut(0, 1);
    sites.registry.take_request(1);
    sites.take_news(1);
    assert!(leads(&sites, 1) && leads(&sites, 0));
    sites.connect(0, 1);
    // The registry says nothing.
    exchange(&mut sites, 0, 1);
    assert!(!leads(&sites, 0));
}

#[test]
fn an_op_that_the_deposed_primary_has_stored_is_committed_when_it_comes_back() {
    let mut sites = pair_on(2);
    sites.leave(0);
    sites.settle();
    // It does not drop its backup.
    sites.lapse_node(0);
    sites.cut(0, 1);
    sites.connect(0, 1);
    exchange(&mut sites, 0, 1);
    sites.say(1);
    sites.take_frame(1, 0);
    sites.take_frame(0, 1);
    sites.registry.take_request(1);
    sites.take_news(1);
    assert!(leads(&sites, 1));
    sites.settle();
    assert_eq!(sites.in_log(1), [1]);
    assert_eq!(head(&sites, 1), head(&sites, 0));
}

#[test]
fn a_backup_that_was_dropped_gives_its_take_over_up() {
    let mut sites = backed_up();
    sites.cut(0, 1);
    sites.registry.take_request(0);
    sites.take_news(0);
    sites.connect(0, 1);
    exchange(&mut sites, 0, 1);
    assert!(sites.sites[1].hosted.is_none());
    // It is recruited again.
    sites.pass(Duration::from_secs(10));
    sites.input(0, RoomInput::PeersChanged);
    assert_eq!(pair_state(&sites), PairState::Recruiting);
    exchange(&mut sites, 0, 1);
    assert_eq!(pair_state(&sites), PairState::Naming);
    sites.registry.take_request(0);
    sites.take_news(0);
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
    sites.settle();
    assert_eq!((sites.registry.record.unwrap().primary, leads(&sites, 0)), (node(0), true));
}

#[test]
fn a_backup_that_takes_over_writes_nothing_of_a_session_that_has_moved() {
    let mut sites = pair_on(2);
    sites.leave(0);
    sites.settle();
    sites.resume(1, 0);
    sites.settle();
    assert!(!leads(&sites, 1) && sites.sites[1].player.is_local, "its node has not heard of it");
    sites.cut(0, 1);
    sites.registry.take_request(1);
    sites.take_news(1);
    assert!(leads(&sites, 1));
    assert_eq!(sites.judge(1, 1, true), SayVerdict::Nobody);
}

#[test]
fn a_node_that_hears_of_a_take_over_before_the_backup_does_is_let_in() {
    let mut sites = Sites::new(3, Planted::default());
    sites.replicas = 2;
    sites.join(0);
    sites.settle();
    sites.time_out(0);
    sites.settle();
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
    sites.cut(0, 1);
    sites.registry.take_request(1);
    sites.join(2);
    sites.registry.take_request(2);
    sites.take_news(2);
    sites.take_frame(2, 1);
    sites.take_frame(1, 2);
    sites.settle();
    assert!(leads(&sites, 1));
    assert!(sites.sites[2].player.number > 0, "the tail is asked for again");
}

#[test]
fn a_follower_comes_back_to_a_primary_that_was_without_a_name_and_without_a_link() {
    let mut sites = pair_on(3);
    let third = (1..3).find(|at| sites.registry.record.unwrap().backup != Some(node(*at))).unwrap();
    sites.cut(0, third);
    sites.settle();
    sites.lapse_node(0);
    sites.expire(0);
    sites.take_news(third);
    sites.connect(0, third);
    exchange(&mut sites, 0, third);
    let link = sites.link(0, third).unwrap();
    assert!(sites.sites[0].reads.contains(&link), "the tail is asked for");
}

#[test]
fn a_backup_whose_primary_has_the_room_no_more_asks_until_the_registry_answers() {
    let mut sites = backed_up();
    sites.leave(0);
    exchange(&mut sites, 0, 1);
    assert!(sites.sites[0].hosted.is_none() && sites.sites[1].hosted.is_some());
    // The take-over has no answer.
    sites.registry.requests[1].clear();
    sites.input(1, RoomInput::Unavailable);
    sites.time_out(1);
    sites.settle();
    assert!(sites.sites[1].hosted.is_none(), "the life is over");
}

#[test]
fn a_follower_without_a_link_finds_a_backup_that_it_has_not_heard_of() {
    let mut sites = Sites::new(3, Planted::default());
    sites.replicas = 2;
    for at in [0, 2] {
        sites.join(at);
        sites.settle();
    }
    let before = sites.now.instant;
    sites.cut(0, 2);
    sites.time_out(0);
    sites.settle();
    assert_eq!(sites.registry.record.unwrap().backup, Some(node(1)));
    sites.cut(0, 1);
    sites.registry.take_request(1);
    sites.take_news(1);
    assert!(leads(&sites, 1));
    sites.time_out(2);
    sites.settle();
    say(&mut sites, 2);
    assert!(sites.now.instant.since(before) < ATTACH_TIMEOUT);
}
