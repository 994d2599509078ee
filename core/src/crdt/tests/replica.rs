//! Named behaviours of the replica.

use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use skirmish_proto::v1;

use super::{at, limits, property, reconcile, replica, skewed};
use crate::base::time::Now;
use crate::crdt::{ANSWER_BYTES, MAX_WALL_MS, Replica, ReplicaLimits, StateError, merkle, split};

const RED: Bytes = Bytes::from_static(b"red");
const BLUE: Bytes = Bytes::from_static(b"blue");

fn everything(replica: &Replica) -> Vec<v1::StateEntry> {
    replica.changes_since(0, usize::MAX).0
}

#[test]
fn keeps_what_is_written() {
    let mut r = replica(1);
    r.set_present(at(0), "ann", true).unwrap();
    r.set_property(at(0), "ann", "team", Some(RED)).unwrap();
    r.set_property(at(1), "ann", "team", Some(BLUE)).unwrap();
    r.add(at(2), "ann", "kills", 5).unwrap();
    r.add(at(2), "bob", "kills", -2).unwrap();
    assert!(r.is_present("ann") && !r.is_present("bob"));
    assert_eq!(r.property("ann", "team"), Some(&BLUE));
    assert_eq!(r.properties().collect::<Vec<_>>(), [("ann", "team", &BLUE)]);
    assert_eq!(r.present().collect::<Vec<_>>(), ["ann"]);
    assert_eq!((r.counter("kills"), r.counter("deaths")), (3, 0));
    r.set_property(at(3), "ann", "team", None).unwrap();
    r.set_present(at(3), "ann", false).unwrap();
    assert_eq!((r.property("ann", "team"), r.is_present("ann")), (None, false));
}

#[test]
fn a_client_changes_only_what_its_player_owns() {
    let mut server = replica(1);
    server.set_property(at(0), "bob", "team", Some(RED)).unwrap();
    server.set_present(at(0), "bob", true).unwrap();
    let foreign = property("bob", "team", 5, Some("blue"));
    assert_eq!(server.merge(at(5), Some("ann"), &[foreign]), Err(StateError::NotOwner));
    let presence = v1::StateEntry { domain: v1::Domain::Presence.into(), ..property("ann", "", 5, Some("")) };
    assert_eq!(server.merge(at(5), Some("ann"), &[presence]), Err(StateError::NotOwner));
    let share = v1::StateEntry {
        domain: v1::Domain::Counter.into(),
        owner: "bob".to_string(),
        name: "kills".to_string(),
        plus: 1,
        ..v1::StateEntry::default()
    };
    assert_eq!(server.merge(at(5), Some("ann"), &[share]), Err(StateError::NotOwner));
    // Known entries do no harm: a client may answer a reconciliation with all its entries.
    let known = everything(&server);
    assert_eq!(server.merge(at(5), Some("ann"), &known), Ok(false));
}

#[test]
fn a_batch_is_merged_wholly_or_not_at_all() {
    let mut server = replica(1);
    let good = property("ann", "a", 0, Some("x"));
    for (bad, why) in [
        (property("bob", "a", 0, Some("x")), StateError::NotOwner),
        (property("ann", "b", 2_001, Some("x")), StateError::ClockTooFarAhead),
        (property("", "b", 0, Some("x")), StateError::Malformed),
    ] {
        assert_eq!(server.merge(at(0), Some("ann"), &[good.clone(), bad]), Err(why));
        assert_eq!((server.change(), server.len()), (0, 0));
    }
    assert_eq!(server.merge(at(0), Some("ann"), core::slice::from_ref(&good)), Ok(true));
    assert_eq!(server.merge(at(0), Some("ann"), &[good]), Ok(false));
}

#[test]
fn malformed_entries_are_refused() {
    let long = "x".repeat(65);
    let sound = property("ann", "a", 0, Some("x"));
    let presence = v1::Domain::Presence.into();
    let counter = v1::Domain::Counter.into();
    let stamp = v1::Stamp { wall_ms: MAX_WALL_MS + 1, count: 0, replica: 1 };
    for entry in [
        v1::StateEntry { domain: 0, ..sound.clone() },
        v1::StateEntry { domain: 9, ..sound.clone() },
        v1::StateEntry { owner: long.clone(), ..sound.clone() },
        v1::StateEntry { name: long, ..sound.clone() },
        v1::StateEntry { stamp: None, ..sound.clone() },
        v1::StateEntry { stamp: Some(stamp), ..sound.clone() },
        v1::StateEntry { removed: true, ..sound.clone() },
        v1::StateEntry { value: Bytes::from(vec![0; 1025]), ..sound.clone() },
        v1::StateEntry { domain: presence, value: Bytes::new(), ..sound.clone() },
        v1::StateEntry { domain: presence, name: "".to_string(), ..sound.clone() },
        v1::StateEntry { domain: counter, value: Bytes::new(), ..sound },
    ] {
        let mut server = replica(1);
        assert_eq!(
            server.merge(at(0), None, core::slice::from_ref(&entry)),
            Err(StateError::Malformed),
            "{entry:?}"
        );
        assert_eq!(server.merge(at(0), Some("ann"), &[entry]), Err(StateError::Malformed));
    }
}

#[test]
fn caps_are_never_passed() {
    let limits = ReplicaLimits { entries_per_owner: 3, entries: 5, ..limits() };
    let mut r = Replica::new(1, limits, [1; 32]);
    for name in ["a", "b"] {
        r.set_property(at(0), "ann", name, Some(RED)).unwrap();
    }
    r.add(at(0), "ann", "kills", 1).unwrap();
    assert_eq!(r.add(at(0), "ann", "deaths", 1), Err(StateError::TooMany));
    assert_eq!(r.set_property(at(0), "ann", "c", Some(RED)), Err(StateError::TooMany));
    let two = [property("bob", "a", 0, Some("x")), property("bob", "b", 0, Some("x"))];
    assert_eq!(r.merge(at(0), Some("bob"), &two), Ok(true));
    assert_eq!(r.set_present(at(0), "bob", true), Err(StateError::TooMany));
    assert_eq!(r.merge(at(0), None, &[property("cat", "a", 0, Some("x"))]), Err(StateError::TooMany));
    // Existing entries can change, and a removed entry makes room after the horizon.
    r.set_property(at(1), "ann", "a", None).unwrap();
    r.add(at(1), "ann", "kills", 1).unwrap();
    assert_eq!(r.set_property(at(2), "ann", "c", Some(RED)), Err(StateError::TooMany));
    r.set_property(at(600_002), "ann", "c", Some(RED)).unwrap();
    assert_eq!(r.len(), 5);
}

#[test]
fn shares_of_one_owner_leave_place_for_others() {
    let limits = ReplicaLimits { entries_per_owner: 3, entries: 20, ..limits() };
    let mut server = Replica::new(1, limits, [1; 32]);
    let share = |replica| v1::StateEntry {
        domain: v1::Domain::Counter.into(),
        owner: "ann".to_string(),
        name: "kills".to_string(),
        replica,
        plus: 1,
        ..v1::StateEntry::default()
    };
    let shares: Vec<_> = (1..=7).map(share).collect();
    assert_eq!(server.merge(at(0), Some("ann"), &shares), Err(StateError::TooMany));
    assert_eq!(server.merge(at(0), Some("ann"), &shares[..6]), Ok(true));
    assert_eq!(server.merge(at(0), Some("ann"), &shares[6..]), Err(StateError::TooMany));
    assert_eq!(
        server.merge(at(0), Some("ann"), &[property("ann", "a", 0, Some("x"))]),
        Err(StateError::TooMany)
    );
    assert_eq!((server.counter("kills"), server.len()), (6, 6));
    let grown = v1::StateEntry { plus: 5, ..share(2) };
    assert_eq!(server.merge(at(0), Some("ann"), &[grown]), Ok(true), "what is there may grow");
    assert_eq!(server.merge(at(0), Some("bob"), &[property("bob", "a", 0, Some("x"))]), Ok(true));
}

#[test]
fn a_value_does_not_keep_the_frame_that_it_came_in() {
    let frame = Bytes::from(vec![b'x'; 60_000]);
    let entry = v1::StateEntry { value: frame.slice(100..101), ..property("ann", "a", 0, Some("x")) };
    let mut server = replica(1);
    assert_eq!(server.merge(at(0), Some("ann"), &[entry]), Ok(true));
    let kept = server.property("ann", "a").unwrap().as_ptr() as usize;
    let start = frame.as_ptr() as usize;
    assert!(!(start..start + frame.len()).contains(&kept));
}

#[test]
fn a_share_that_is_full_is_an_error() {
    let mut r = replica(1);
    for _ in 0..2 {
        r.add(at(0), "ann", "n", i64::MAX).unwrap();
    }
    r.add(at(0), "ann", "n", 1).unwrap();
    assert_eq!(r.add(at(0), "ann", "n", 1), Err(StateError::TooMany));
    assert_eq!(r.counter("n"), i64::MAX);
    r.add(at(0), "ann", "n", i64::MIN).unwrap();
    assert_eq!(r.counter("n"), i64::MAX);
}

#[test]
fn changes_are_conflated_and_come_in_order() {
    let mut r = replica(1);
    for (ms, name) in ["a", "b", "a", "c"].into_iter().enumerate() {
        r.set_property(at(ms as u64), "ann", name, Some(RED)).unwrap();
    }
    let names = |entries: &[v1::StateEntry]| entries.iter().map(|e| e.name.to_string()).collect::<Vec<_>>();
    let (entries, reached) = r.changes_since(0, usize::MAX);
    assert_eq!((names(&entries), reached), (vec!["b".to_string(), "a".to_string(), "c".to_string()], 4));
    assert_eq!(r.changes_since(4, usize::MAX), (vec![], 4));
    // At least one entry at a time, with any budget.
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let (entries, reached) = r.changes_since(after, 0);
        if entries.is_empty() {
            break;
        }
        assert_eq!(entries.len(), 1);
        seen.extend(names(&entries));
        after = reached;
    }
    assert_eq!(seen, ["b", "a", "c"]);
}

#[test]
fn a_tombstone_is_dropped_past_the_horizon_and_no_sooner() {
    let mut r = replica(1);
    r.set_property(at(0), "ann", "a", Some(RED)).unwrap();
    assert_eq!(r.poll_timeout(), None);
    r.set_property(at(10), "ann", "a", None).unwrap();
    let root = r.root();
    let due = r.poll_timeout().unwrap().at;
    assert_eq!(due, at(600_011).instant);
    r.collect(at(600_010));
    assert_eq!((r.len(), r.poll_timeout().unwrap().at), (1, due));
    r.collect(at(600_011));
    assert_eq!((r.len(), r.poll_timeout(), everything(&r)), (0, None, vec![]));
    assert_eq!(r.root(), root, "collecting is not seen in the tree");
    // The tombstone itself, from a replica that still has it, changes nothing.
    assert_eq!(r.merge(at(600_012), None, &[property("ann", "a", 10, None)]), Ok(false));
    assert_eq!(r.len(), 0);
}

#[test]
fn a_tombstone_of_a_clock_that_is_behind_is_passed_on_before_it_is_dropped() {
    let mut server = replica(1);
    server.merge(at(0), None, &[property("ann", "a", 0, Some("x"))]).unwrap();
    server.merge(at(5_000_000), Some("ann"), &[property("ann", "a", 1, None)]).unwrap();
    server.collect(at(5_600_000));
    assert_eq!(everything(&server).len(), 1);
    server.collect(at(5_600_001));
    assert_eq!(everything(&server).len(), 0);
}

#[test]
fn collecting_at_another_wall_time_asks_for_another_deadline() {
    let mut r = replica(1);
    r.set_property(at(0), "ann", "a", Some(RED)).unwrap();
    r.set_property(at(0), "ann", "a", None).unwrap();
    let due = r.poll_timeout().unwrap().at;
    let now = Now { instant: due, ..at(500_000) };
    r.collect(now);
    assert!(r.poll_timeout().unwrap().at > due);
}

#[test]
fn what_was_dropped_is_buried_when_a_client_brings_it_back() {
    let mut server = replica(1);
    let old = property("ann", "a", 0, Some("x"));
    server.merge(at(0), Some("ann"), core::slice::from_ref(&old)).unwrap();
    server.set_property(at(10), "ann", "a", None).unwrap();
    server.collect(at(700_000));
    assert_eq!(server.len(), 0);
    let mut client = replica(77);
    client.merge(at(0), None, &[old]).unwrap();
    assert_eq!(server.merge(at(700_001), Some("ann"), &everything(&client)), Ok(true));
    assert_eq!(server.property("ann", "a"), None);
    client.merge(at(700_002), None, &everything(&server)).unwrap();
    assert_eq!(client.property("ann", "a"), None);
    assert_eq!(client.root(), server.root());
    // New entries from the same client are believed.
    assert_eq!(server.merge(at(700_003), Some("ann"), &[property("ann", "b", 700_003, Some("x"))]), Ok(true));
    assert_eq!(server.property("ann", "b"), Some(&Bytes::from_static(b"x")));
}

#[test]
fn what_was_dropped_is_buried_when_a_follower_brings_it_back() {
    let mut primary = replica(1);
    let old = property("ann", "a", 0, Some("x"));
    primary.merge_from_follower(at(0), core::slice::from_ref(&old)).unwrap();
    primary.set_present(at(0), "ann", true).unwrap();
    let mut follower = replica(2);
    follower.merge(at(0), None, &everything(&primary)).unwrap();
    // The follower is cut off while both entries are removed, and for so long that the tombstones
    // are dropped.
    primary.set_property(at(10), "ann", "a", None).unwrap();
    primary.set_present(at(10), "ann", false).unwrap();
    primary.collect(at(700_000));
    assert_eq!(primary.len(), 0);
    assert_eq!(primary.merge_from_follower(at(700_001), &everything(&follower)), Ok(true));
    assert_eq!((primary.property("ann", "a"), primary.is_present("ann")), (None, false));
    follower.merge(at(700_002), None, &everything(&primary)).unwrap();
    assert_eq!((follower.property("ann", "a"), follower.is_present("ann")), (None, false));
    assert_eq!(follower.root(), primary.root());
    // New entries are believed.
    assert_eq!(
        primary.merge_from_follower(at(700_003), &[property("ann", "b", 700_003, Some("x"))]),
        Ok(true)
    );
    assert_eq!(primary.property("ann", "b"), Some(&Bytes::from_static(b"x")));
}

#[test]
fn a_follower_that_brings_what_is_older_is_told_what_is_newer() {
    let mut primary = replica(1);
    let old = [property("ann", "a", 0, Some("x")), property("ann", "b", 0, Some("x"))];
    primary.merge_from_follower(at(0), &old).unwrap();
    primary.set_present(at(1), "ann", true).unwrap();
    let before = everything(&primary);
    primary.set_property(at(10), "ann", "a", None).unwrap();
    primary.set_property(at(10), "ann", "b", Some(RED)).unwrap();
    primary.set_present(at(10), "ann", false).unwrap();
    // The follower has received the removals long ago, or they were too old to be kept. Then a
    // client sent its old writes to the follower again.
    let mut follower = replica(2);
    follower.merge(at(20), None, &before).unwrap();
    let told = primary.change();
    assert_eq!(primary.merge_from_follower(at(20), &everything(&follower)), Ok(true));
    follower.merge(at(20), None, &primary.changes_since(told, usize::MAX).0).unwrap();
    assert_eq!(follower.root(), primary.root());
    assert_eq!((follower.property("ann", "a"), follower.property("ann", "b")), (None, Some(&RED)));
    assert!(!follower.is_present("ann"));
    // The answer of the follower changes nothing, so the entries do not circulate for ever.
    let told = primary.change();
    assert_eq!(primary.merge_from_follower(at(21), &everything(&follower)), Ok(false));
    assert_eq!(primary.change(), told);
}

#[test]
fn old_entries_are_news_to_a_new_replica() {
    let mut server = replica(1);
    server.set_property(at(0), "ann", "a", Some(RED)).unwrap();
    server.set_property(at(0), "ann", "b", Some(RED)).unwrap();
    server.set_property(at(9), "ann", "b", None).unwrap();
    server.collect(at(5_000_000));
    let mut client = replica(2);
    client.merge(at(5_000_000), None, &everything(&server)).unwrap();
    assert_eq!(client.properties().count(), 1);
    // The same holds for a server that was started again and receives the entries from the client.
    let mut restarted = replica(3);
    assert_eq!(restarted.merge(at(5_000_000), Some("ann"), &everything(&client)), Ok(true));
    assert_eq!(restarted.root(), server.root());
}

#[test]
fn a_player_that_left_for_good_leaves_only_what_was_counted() {
    let mut r = replica(1);
    for owner in ["ann", "annabel", "an"] {
        r.set_property(at(0), owner, "a", Some(RED)).unwrap();
        r.set_property(at(0), owner, "", Some(RED)).unwrap();
        r.add(at(0), owner, "kills", 2).unwrap();
    }
    r.remove_owner(at(1), "ann");
    let owners: Vec<_> = r.properties().map(|(owner, ..)| owner).collect();
    assert_eq!(owners, ["an", "an", "annabel", "annabel"]);
    assert_eq!(r.counter("kills"), 6);
}

/// Returns an entry of a property in the form of the wire.
fn entry(replica: &Replica, owner: &str, name: &str) -> v1::StateEntry {
    let is_it = |entry: &v1::StateEntry| entry.owner == owner && entry.name == name;
    everything(replica).into_iter().find(is_it).unwrap()
}

#[test]
fn a_client_whose_clock_is_ahead_stamps_afresh_and_is_heard() {
    let mut server = replica(1);
    let mut client = replica(2);
    server.set_property(at(0), "ann", "old", Some(RED)).unwrap();
    client.merge(skewed(0, 3_600_000), None, &everything(&server)).unwrap();
    client.set_property(skewed(1, 3_600_000), "ann", "a", Some(RED)).unwrap();
    client.set_property(skewed(2, 3_600_000), "ann", "old", None).unwrap();
    client.add(skewed(2, 3_600_000), "ann", "kills", 1).unwrap();
    let sent = everything(&client);
    assert_eq!(server.merge(at(3), Some("ann"), &sent), Err(StateError::ClockTooFarAhead));
    let again =
        client.restamp(skewed(4, 3_600_000), "ann", server.believes(at(3)).0, server.believes(at(3)).1);
    assert_eq!(server.merge(at(5), Some("ann"), &again), Ok(true));
    assert_eq!((server.property("ann", "old"), server.property("ann", "a")), (None, Some(&RED)));
    assert_eq!((server.counter("kills"), server.root()), (1, client.root()));
    // From now on the stamps of the client follow the server's clock.
    client.set_property(skewed(6, 3_600_000), "ann", "a", Some(BLUE)).unwrap();
    assert_eq!(server.merge(at(7), Some("ann"), &everything(&client)), Ok(true));
    assert_eq!(server.property("ann", "a"), Some(&BLUE));
}

/// A server with a clock an hour ahead has written entries. Another server, with the right clock,
/// has merged them.
#[test]
fn what_a_wrong_clock_has_stamped_keeps_nothing_else_from_being_written() {
    let (mut wrong, mut server, mut client) = (replica(1), replica(2), replica(3));
    wrong.set_present(skewed(0, 3_600_000), "bob", true).unwrap();
    wrong.set_property(skewed(0, 3_600_000), "ann", "lost", Some(RED)).unwrap();
    server.merge(at(0), None, &everything(&wrong)).unwrap();
    client.merge(at(0), None, &everything(&server)).unwrap();

    client.set_property(at(1), "ann", "kept", Some(BLUE)).unwrap();
    let kept = entry(&client, "ann", "kept");
    assert_eq!(server.merge(at(1), Some("ann"), &[kept]), Ok(true));
    server.set_present(at(2), "bob", false).unwrap();
    assert!(!server.present().any(|player| player == "bob"), "the servers' own word counts");
    server.set_present(at(2), "ann", true).unwrap();
    client.merge(at(3), None, &everything(&server)).unwrap();
    assert_eq!(client.property("ann", "kept"), Some(&BLUE));

    // Until that time the client cannot overwrite an entry of the wrong clock, and the error says
    // so.
    client.set_property(at(4), "ann", "lost", Some(BLUE)).unwrap();
    let lost = entry(&client, "ann", "lost");
    assert_eq!(server.merge(at(4), Some("ann"), &[lost]), Err(StateError::ClockTooFarAhead));
    let (wall_ms, latest_ms) = server.believes(at(4));
    client.restamp(at(5), "ann", wall_ms, latest_ms);
    let lost = entry(&client, "ann", "lost");
    assert_eq!(server.merge(at(5), Some("ann"), &[lost]), Err(StateError::BehindTheFuture));
    assert!(client.restamp(at(5), "ann", wall_ms, latest_ms).iter().any(|entry| entry.name == "kept"));
    let kept = entry(&client, "ann", "kept");
    assert!(server.merge(at(6), Some("ann"), &[kept]).is_ok());
}

/// A client that starts a new session copies its own entries into a new replica.
#[test]
fn entries_taken_along_are_stamped_afresh_too() {
    let (mut server, mut old, mut new) = (replica(1), replica(2), replica(3));
    old.set_property(skewed(0, 3_600_000), "ann", "a", Some(RED)).unwrap();
    new.merge(skewed(0, 3_600_000), None, &everything(&old)).unwrap();
    let again = new.restamp(skewed(0, 3_600_000), "ann", server.believes(at(0)).0, server.believes(at(0)).1);
    assert_eq!(server.merge(at(1), Some("ann"), &again), Ok(true));
}

#[test]
fn a_walk_between_equal_replicas_is_one_message() {
    let (mut a, mut b) = (replica(1), replica(2));
    a.set_present(at(0), "ann", true).unwrap();
    b.merge(at(0), None, &everything(&a)).unwrap();
    let cost = reconcile((at(1), at(1)), &mut a, &mut b);
    assert_eq!((cost.messages, cost.entries), (1, 0));
}

#[test]
fn a_walk_ships_only_buckets_that_differ() {
    let (mut a, mut b) = (replica(1), replica(2));
    for n in 0..500 {
        a.set_property(at(0), &format!("player{n}"), "name", Some(RED)).unwrap();
    }
    b.merge(at(0), None, &everything(&a)).unwrap();
    a.set_property(at(1), "player7", "name", Some(BLUE)).unwrap();
    b.set_property(at(1), "player9", "name", None).unwrap();
    b.add(at(1), "player11", "kills", 1).unwrap();
    let cost = reconcile((at(2), at(2)), &mut a, &mut b);
    assert_eq!(a.root(), b.root());
    assert_eq!((cost.messages, cost.buckets.len()), (5 - 1, 3), "{cost:?}");
    // A bucket has two entries on average; both sides send theirs.
    assert!(cost.entries <= 3 * 2 * 10, "{cost:?}");
}

#[test]
fn a_walk_through_large_replicas_goes_in_bounded_steps() {
    let limits = ReplicaLimits { entries: 5000, ..limits() };
    let (mut a, mut b) = (Replica::new(1, limits.clone(), [1; 32]), Replica::new(2, limits, [2; 32]));
    let value = Bytes::from(vec![7; 1024]);
    for n in 0..1500 {
        let replica = if n % 3 == 0 { &mut a } else { &mut b };
        replica.set_property(at(0), &format!("player{n}"), "x", Some(value.clone())).unwrap();
    }
    let cost = reconcile((at(1), at(1)), &mut a, &mut b);
    assert_eq!(a.root(), b.root());
    assert_eq!(a.properties().count(), 1500);
    assert!(cost.messages > 20, "{cost:?}");
    // The budget, and one bucket with about six more entries on top.
    assert!(cost.largest <= ANSWER_BYTES / 1024 + 25, "{cost:?}");
}

#[test]
fn malformed_steps_are_refused() {
    let r = replica(1);
    let node = |index| v1::MerkleNode { index, hash: 1 };
    for (level, nodes, leaves) in [
        (3, vec![], vec![]),
        (0, vec![node(1)], vec![]),
        (1, vec![node(16)], vec![]),
        (2, vec![node(256)], vec![]),
        (1, vec![node(1), node(1)], vec![]),
        (2, vec![node(2), node(1)], vec![]),
        (1, vec![], vec![1]),
        (2, vec![], vec![256]),
        (2, vec![], vec![3, 3]),
    ] {
        let step = v1::Reconcile { level, nodes, leaves, ..v1::Reconcile::default() };
        assert_eq!(r.reconcile(&step), Err(StateError::Malformed), "{step:?}");
    }
}

#[test]
fn entries_split_by_size() {
    let entries: Vec<_> = (0..7).map(|_| property("ann", "a", 0, Some("0123456789"))).collect();
    assert_eq!(split(&entries, 0).map(<[_]>::len).collect::<Vec<_>>(), [1; 7]);
    assert_eq!(split(&entries, 120).map(<[_]>::len).sum::<usize>(), 7);
    assert_eq!(split(&entries, usize::MAX).count(), 1);
    assert_eq!(split(&[], 0).count(), 0);
}

/// Figures for checking a client in another language, computed from the description in [`merkle`],
/// step by step.
#[test]
fn the_tree_is_what_is_described() {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

    let mut r = replica(1);
    r.merge(at(0), None, &[property("ann", "team", 5, Some("red"))]).unwrap();
    let key = b"\x02\x03annteam";
    let k = xxh3_64(key);
    let mut stamp = Vec::new();
    stamp.extend(1_000_005_u64.to_be_bytes());
    stamp.extend(0_u32.to_be_bytes());
    stamp.extend(77_u64.to_be_bytes());
    let mut leaves = [0_u64; merkle::LEAVES];
    leaves[(k >> 56) as usize] = xxh3_64_with_seed(b"red", xxh3_64_with_seed(&stamp, k));
    let level = |hashes: &[u64]| -> Vec<u64> {
        let nodes = hashes.chunks(16);
        nodes.map(|node| xxh3_64(&node.iter().flat_map(|h| h.to_be_bytes()).collect::<Vec<_>>())).collect()
    };
    assert_eq!(level(&level(&leaves)), [r.root()]);
}

#[cfg(feature = "plant")]
mod planted {
    use super::*;
    use crate::base::plant::{Plant, Planted};

    fn planted(plant: Plant) -> Replica {
        Replica::new(1, ReplicaLimits { planted: Planted::with(plant), ..limits() }, [1; 32])
    }

    #[test]
    fn arrival_wins() {
        let mut r = planted(Plant::ArrivalWins);
        r.merge(at(0), None, &[property("ann", "a", 5, Some("new"))]).unwrap();
        r.merge(at(0), None, &[property("ann", "a", 4, Some("old"))]).unwrap();
        assert_eq!(r.property("ann", "a"), Some(&Bytes::from_static(b"old")));
    }

    #[test]
    fn tombstone_forgotten() {
        let mut r = planted(Plant::TombstoneForgotten);
        r.merge(at(0), None, &[property("ann", "a", 5, None)]).unwrap();
        assert_eq!(r.poll_timeout().unwrap().at, at(0).instant);
        r.collect(at(0));
        r.merge(at(0), None, &[property("ann", "a", 4, Some("old"))]).unwrap();
        assert_eq!(r.property("ann", "a"), Some(&Bytes::from_static(b"old")));
    }
}
