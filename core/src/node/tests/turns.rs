//! Turns of rooms, on one node and on several.

use super::cluster::{Cluster, Member};
use super::*;

/// Returns the turns that began, as sent to members: number, end, and the number of the ending
/// message.
fn turns(messages: &[ToClient]) -> Vec<(u32, u64, u64)> {
    let began = messages.iter().filter_map(|message| match message {
        ToClient::Entry(entry) if entry.turn > 0 => Some((entry.turn, entry.turn_ends_ms, entry.client_seq)),
        _ => None,
    });
    began.collect()
}

fn timed() -> Config {
    let mut config = Config::default();
    config.rooms.turn_time = Duration::from_secs(5);
    config
}

/// Sends a message that ends a turn.
fn ends(cluster: &mut Cluster, member: &mut Member, turn: u32) {
    member.said += 1;
    let message = v1::Say { ends_turn: Some(turn), ..say(member.said, "done") };
    cluster.send(member, v1::Kind::Say, &message);
}

/// Returns the room's record in the registry.
fn record(cluster: &mut Cluster) -> v1::RoomRecord {
    let kv = cluster.get("/rooms/arena/state").expect("the room has a record");
    v1::RoomRecord::decode(kv.value).unwrap()
}

#[test]
fn a_turn_is_ended_once_whoever_ends_it_and_all_see_it_at_the_same_entry() {
    let mut config = timed();
    config.registrar.room_refresh = Duration::from_secs(1);
    let mut cluster = Cluster::with(2, config);
    let (mut ann, mut bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    let start = cluster.now.wall.0;
    ends(&mut cluster, &mut ann, 0);
    let ann_heard = cluster.received(&ann);
    assert_eq!(turns(&ann_heard), [(1, start + 5_000, 1)]);
    // Turn 0 is over, so this is a message like any other.
    ends(&mut cluster, &mut ann, 0);
    // A member at the other node ends a turn as well.
    ends(&mut cluster, &mut bob, 1);
    let bob_heard = cluster.received(&bob);
    assert_eq!(turns(&bob_heard), [(1, start + 5_000, 1), (2, start + 5_000, 1)]);
    assert_eq!(said(&bob_heard).len(), 3);
    cluster.advance(Duration::from_secs(1));
    let record = record(&mut cluster);
    assert_eq!((record.turn, record.countdown_ms, record.players), (2, start + 5_000, 2));
}

#[test]
fn time_ends_a_turn_once_it_has_begun() {
    let mut cluster = Cluster::with(2, timed());
    let (mut ann, bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    cluster.received(&bob);
    cluster.advance(Duration::from_secs(20));
    assert_eq!(turns(&cluster.received(&bob)), [], "there is none yet");
    ends(&mut cluster, &mut ann, 0);
    cluster.advance(Duration::from_secs(11));
    let heard = cluster.received(&bob);
    let (numbers, by): (Vec<u32>, Vec<u64>) = turns(&heard).iter().map(|(turn, _, by)| (*turn, *by)).unzip();
    assert_eq!((numbers, by), (vec![1, 2, 3], vec![1, 0, 0]));
    // The wall clock of this cluster drops fractions of a millisecond at every step.
    let ends: Vec<u64> = turns(&heard).iter().map(|(_, ends_ms, _)| *ends_ms).collect();
    assert!(ends.windows(2).all(|pair| (4_900..=5_000).contains(&(pair[1] - pair[0]))), "{ends:?}");
    let by_time = |m: &ToClient| matches!(m, ToClient::Entry(e) if e.kind() == v1::EntryKind::Turn);
    assert_eq!(heard.iter().filter(|m| by_time(m)).count(), 2);
    assert_eq!(record(&mut cluster).turn, 3);
}

#[test]
fn without_a_time_turns_last_until_they_are_ended() {
    let mut cluster = Cluster::with(1, Config::default());
    let mut ann = cluster.join(0, "ann");
    ends(&mut cluster, &mut ann, 0);
    cluster.advance(Duration::from_secs(40));
    assert_eq!(turns(&cluster.received(&ann)), [(1, 0, 1)]);
}

/// Returns the turn that a player receives when joining the room.
fn told_on_coming(cluster: &mut Cluster, node: usize, player: &str) -> Option<(u32, u64)> {
    let member = cluster.connect(node, player, None);
    cluster.send(&member, v1::Kind::Join, &v1::Join { room: "arena".into(), history: 0, request: 0 });
    cluster.received(&member).iter().find_map(|message| match message {
        ToClient::Snapshot(snapshot) => Some((snapshot.turn, snapshot.turn_ends_ms)),
        _ => None,
    })
}

#[test]
fn who_comes_later_is_told_the_turn_here_and_there() {
    let mut config = timed();
    config.rooms.window_entries = 2;
    let mut cluster = Cluster::with(2, config);
    let mut ann = cluster.join(0, "ann");
    let start = cluster.now.wall.0;
    ends(&mut cluster, &mut ann, 0);
    for _ in 0..3 {
        cluster.say(&mut ann, "on");
    }
    for (node, player) in [(0, "bob"), (1, "cid")] {
        let told = told_on_coming(&mut cluster, node, player);
        assert_eq!(told, Some((1, start + 5_000)), "{player}");
    }
}

#[test]
fn a_node_that_follows_knows_the_turn_from_the_log() {
    let mut cluster = Cluster::with(2, timed());
    let (mut ann, _bob) = (cluster.join(0, "ann"), cluster.join(1, "bob"));
    let start = cluster.now.wall.0;
    ends(&mut cluster, &mut ann, 0);
    assert_eq!(told_on_coming(&mut cluster, 1, "cid"), Some((1, start + 5_000)));
}

#[test]
fn a_primary_that_may_not_serve_ends_no_turn_until_it_may() {
    let mut cluster = Cluster::with(1, timed());
    let mut ann = cluster.join(0, "ann");
    cluster.unregistered.push(0);
    cluster.advance(Duration::from_secs(6));
    ends(&mut cluster, &mut ann, 0);
    assert_eq!(turns(&cluster.received(&ann)).len(), 1);
    cluster.advance(Duration::from_secs(6));
    assert_eq!(cluster.events.last(), Some(&(0, Event::NotServing)));
    assert_eq!(turns(&cluster.received(&ann)), []);
    cluster.heal();
    cluster.advance(Duration::from_secs(4));
    assert_eq!(cluster.events.last(), Some(&(0, Event::Serving)));
    assert_eq!(turns(&cluster.received(&ann)).len(), 1);
}
