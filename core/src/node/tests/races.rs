//! Joins that cross another message of a node.

use super::cluster::{Cluster, Member};
use super::*;

fn ask(cluster: &mut Cluster, member: &Member) {
    cluster.send(member, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
}

fn leave(cluster: &mut Cluster, member: &Member) {
    cluster.send(member, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
}

/// Returns the answers about a member's membership since the last call.
fn told(cluster: &mut Cluster, member: &Member) -> Vec<Result<u64, v1::LeftReason>> {
    let messages = cluster.received(member);
    let of_membership = messages.iter().filter_map(|message| match message {
        ToClient::Joined(joined) => Some(Ok(joined.epoch)),
        ToClient::Left(left) => Some(Err(left.reason())),
        _ => None,
    });
    of_membership.collect()
}

#[test]
fn a_tail_that_is_asked_for_while_its_room_is_being_claimed_comes_when_it_is() {
    let mut cluster = Cluster::new(3);
    let players = [("ann", 0), ("bob", 1), ("cid", 2)];
    let [ann, bob, cid] = players.map(|(name, node)| cluster.connect(node, name, None));
    cluster.deaf = Some(0);
    for member in [&ann, &bob, &cid] {
        ask(&mut cluster, member);
        assert_eq!(told(&mut cluster, member), []);
    }
    cluster.hear();
    let epochs = [&ann, &bob, &cid].map(|member| told(&mut cluster, member));
    assert!(matches!(epochs[0][..], [Ok(_)]) && epochs.iter().all(|told| *told == epochs[0]), "{epochs:?}");
}

#[test]
fn a_join_that_crosses_the_last_leave_gets_into_the_next_life_of_the_room() {
    let mut cluster = Cluster::new(2);
    let ann = cluster.join(0, "ann");
    let bob = cluster.connect(1, "bob", None);
    cluster.slow = Some(1);
    ask(&mut cluster, &bob);
    leave(&mut cluster, &ann);
    cluster.release();
    cluster.advance(Duration::from_secs(1));
    let told = told(&mut cluster, &bob);
    assert!(matches!(told[..], [Ok(epoch)] if epoch > ann.epoch), "{told:?}");
    assert_eq!(cluster.node(1).stats().joins_retried, 1);
}

#[test]
fn a_join_whose_enter_crosses_the_end_of_the_room_gets_into_its_next_life() {
    let mut cluster = Cluster::new(2);
    let ann = cluster.join(0, "ann");
    let bob = cluster.connect(1, "bob", None);
    cluster.slow = Some(1);
    ask(&mut cluster, &bob);
    // The tail is attached, and the `Enter` is under way.
    cluster.release_next();
    leave(&mut cluster, &ann);
    cluster.release();
    cluster.advance(Duration::from_secs(1));
    let told = told(&mut cluster, &bob);
    assert!(matches!(told[..], [Ok(epoch)] if epoch > ann.epoch), "{told:?}");
}

#[test]
fn what_was_sent_before_a_node_followed_a_room_anew_leaves_the_link_alone() {
    let mut cluster = Cluster::new(2);
    let mut ann = cluster.join(0, "ann");
    let mut bob = cluster.join(1, "bob");
    cluster.heard(&mut bob);
    cluster.slow = Some(0);
    cluster.say(&mut ann, "one");
    cluster.say(&mut ann, "two");
    leave(&mut cluster, &bob);
    ask(&mut cluster, &bob);
    cluster.release();
    cluster.advance(Duration::from_secs(1));
    let down = |(_, event): &&(usize, Event)| matches!(event, Event::LinkDown { .. });
    assert_eq!(cluster.events.iter().find(down), None);
    let told = told(&mut cluster, &bob);
    assert!(matches!(told[..], [Err(v1::LeftReason::Asked), Ok(epoch)] if epoch == ann.epoch), "{told:?}");
    cluster.say(&mut ann, "three");
    assert_eq!(cluster.heard(&mut bob), ["three"]);
}

#[test]
fn a_join_that_waits_for_a_node_which_stops_goes_on_without_it() {
    let mut cluster = Cluster::new(2);
    let ann = cluster.join(0, "ann");
    let bob = cluster.connect(1, "bob", None);
    cluster.cut(0, 1);
    ask(&mut cluster, &bob);
    cluster.stop(0);
    cluster.advance(Duration::from_secs(1));
    let told = told(&mut cluster, &bob);
    assert!(matches!(told[..], [Ok(epoch)] if epoch > ann.epoch), "{told:?}");
}

#[test]
fn a_join_is_given_up_when_its_time_is_over() {
    let mut cluster = Cluster::new(2);
    drop(cluster.join(0, "ann"));
    let bob = cluster.connect(1, "bob", None);
    cluster.cut(0, 1);
    ask(&mut cluster, &bob);
    cluster.advance(Duration::from_secs(6));
    assert_eq!(told(&mut cluster, &bob), [Err(v1::LeftReason::Gone)]);
}

#[test]
fn a_resumed_membership_of_a_room_that_is_gone_is_told_so() {
    let mut cluster = Cluster::new(2);
    drop(cluster.join(0, "ann"));
    let bob = cluster.join(1, "bob");
    let resume = bob.resume();
    cluster.cut(0, 1);
    cluster.stop(0);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(told(&mut cluster, &bob).last(), Some(&Err(v1::LeftReason::Gone)));
    let again = cluster.connect(1, "bob", resume);
    let gone = |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::Gone);
    let later = cluster.received(&again);
    assert!(again.told.iter().chain(&later).any(gone), "{:?} {later:?}", again.told);
    assert_eq!(cluster.node(1).stats().joins_retried, 0);
}
