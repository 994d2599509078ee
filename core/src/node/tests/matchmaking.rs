//! Players on several nodes search for a match.

use super::cluster::{Cluster, Member};
use super::*;
use alloc::string::String;

use crate::matchmaking::QueueConfig;

fn cluster() -> Cluster {
    configured(Config::default())
}

/// Nodes whose leases end together, so that sessions end with the tickets of their node.
fn cluster_with_short_leases() -> Cluster {
    let mut config = Config::default();
    config.registrar.room_ttl = config.registrar.node_ttl;
    configured(config)
}

fn configured(mut config: Config) -> Cluster {
    let name = |name| Name::new(name).unwrap();
    config.matchmaking.queues = vec![QueueConfig::new(name("duel"), 2, 1, vec![name("eu")])];
    let mut cluster = Cluster::with(3, config);
    // Time for the election of a matcher.
    cluster.advance(Duration::from_secs(1));
    cluster
}

/// Returns a match of ann and bob at the first two nodes, and the name of its room for `members`
/// members.
fn pair(members: usize, backfill: bool) -> (Cluster, [Member; 2], String) {
    let mut config = Config::default();
    let name = |name| Name::new(name).unwrap();
    let mut duel = QueueConfig::new(name("duel"), 2, 1, vec![name("eu")]);
    duel.backfill = backfill;
    config.matchmaking.queues = vec![duel];
    config.rooms.members = members;
    let mut cluster = Cluster::with(3, config);
    cluster.advance(Duration::from_secs(1));
    let both = [cluster.connect(0, "ann", None), cluster.connect(1, "bob", None)];
    both.iter().for_each(|member| queue(&mut cluster, member));
    cluster.advance(Duration::from_secs(2));
    let room = matched(&cluster.received(&both[0])).expect("they are matched").room;
    cluster.received(&both[1]);
    (cluster, both, room)
}

/// Returns true if the member is let into a room.
fn joins(cluster: &mut Cluster, member: &Member, room: &str) -> bool {
    cluster.send(member, v1::Kind::Join, &v1::Join { room: room.into(), history: 0, request: 0 });
    cluster.advance(Duration::from_millis(100));
    let answers = cluster.received(member);
    let is_full =
        |m: &ToClient| matches!(m, ToClient::Left(left) if left.reason() == v1::LeftReason::RoomFull);
    let is_in = answers.iter().any(|m| matches!(m, ToClient::Joined(_)));
    assert!(is_in || answers.iter().any(is_full), "{answers:?}");
    is_in
}

fn queue(cluster: &mut Cluster, member: &Member) {
    let latencies = vec![v1::RegionLatency { region: "eu".into(), millis: 20 }];
    let queue = v1::Queue { mode: "duel".into(), latencies, ..v1::Queue::default() };
    cluster.send(member, v1::Kind::Queue, &queue);
}

/// Queues with the number of a search, as a client does after a `Queued` with this epoch; 0 for
/// none.
fn search(cluster: &mut Cluster, member: &Member, session_epoch: u64) {
    let latencies = vec![v1::RegionLatency { region: "eu".into(), millis: 20 }];
    let queue =
        v1::Queue { mode: "duel".into(), latencies, search: 7, session_epoch, ..v1::Queue::default() };
    cluster.send(member, v1::Kind::Queue, &queue);
}

/// Returns the epoch of the `Queued` that tells a member that its ticket is lost.
fn lost(messages: &[ToClient]) -> Option<u64> {
    messages.iter().find_map(|m| match m {
        ToClient::Queued(queued) if queued.state() == v1::TicketState::Lost => Some(queued.session_epoch),
        _ => None,
    })
}

fn states(messages: &[ToClient]) -> Vec<v1::TicketState> {
    let state = |m: &ToClient| match m {
        ToClient::Queued(queued) => Some(queued.state()),
        _ => None,
    };
    messages.iter().filter_map(state).collect()
}

fn matched(messages: &[ToClient]) -> Option<v1::Matched> {
    messages.iter().find_map(|m| match m {
        ToClient::Matched(matched) => Some(matched.clone()),
        _ => None,
    })
}

#[test]
fn two_on_different_nodes_are_matched_and_meet_in_a_room() {
    let mut cluster = cluster();
    let mut ann = cluster.connect(0, "ann", None);
    let mut bob = cluster.connect(1, "bob", None);
    queue(&mut cluster, &ann);
    assert_eq!(states(&cluster.received(&ann)), [v1::TicketState::Waiting]);
    cluster.advance(Duration::from_secs(2));
    queue(&mut cluster, &bob);
    cluster.advance(Duration::from_secs(2));
    let (told, other) = (cluster.received(&ann), cluster.received(&bob));
    let (ours, theirs) = (matched(&told).expect("ann is told"), matched(&other).expect("bob is told"));
    assert_eq!((&ours.r#match, &ours.room, &ours.teams), (&theirs.r#match, &theirs.room, &theirs.teams));
    assert_ne!(ours.team, theirs.team);
    for member in [&mut ann, &mut bob] {
        cluster.send(member, v1::Kind::Join, &v1::Join { room: ours.room.clone(), history: 0, request: 0 });
        let messages = cluster.received(member);
        assert!(messages.iter().any(|m| matches!(m, ToClient::Joined(_))), "{messages:?}");
    }
    // A player is in one match at most: the next ticket has to wait until ann has left this one.
    queue(&mut cluster, &ann);
    assert_eq!(matched(&cluster.received(&ann)).map(|m| m.r#match), Some(ours.r#match.clone()));
    cluster.send(&ann, v1::Kind::Leave, &v1::Leave { room: ours.room, request: 0 });
    cluster.advance(Duration::from_secs(1));
    cluster.received(&ann);
    queue(&mut cluster, &ann);
    assert_eq!(states(&cluster.received(&ann)), [v1::TicketState::Waiting]);
}

#[test]
fn whoever_ends_its_session_in_a_match_is_in_it_no_more() {
    for expires in [false, true] {
        let mut cluster = cluster();
        let mut ann = cluster.connect(0, "ann", None);
        let mut bob = cluster.connect(1, "bob", None);
        queue(&mut cluster, &ann);
        queue(&mut cluster, &bob);
        cluster.advance(Duration::from_secs(2));
        let room = matched(&cluster.received(&ann)).expect("ann is told").room;
        for member in [&mut ann, &mut bob] {
            cluster.send(member, v1::Kind::Join, &v1::Join { room: room.clone(), history: 0, request: 0 });
            cluster.received(member);
        }
        assert!(cluster.get("/match/players/ann").is_some());
        if expires {
            let now = cluster.now;
            cluster.node(0).handle_closed(now, ann.conn);
            cluster.advance(Config::default().sessions.ttl + Duration::from_secs(1));
        } else {
            cluster.send(&ann, v1::Kind::Goodbye, &v1::Goodbye::default());
            cluster.advance(Duration::from_secs(1));
        }
        assert_eq!(cluster.get("/sessions/player:ann"), None);
        assert_eq!(cluster.get("/match/players/ann"), None);
        assert!(cluster.get("/match/players/bob").is_some(), "he plays on");
        // When ann returns, she searches anew.
        let ann = cluster.connect(2, "ann", None);
        queue(&mut cluster, &ann);
        assert_eq!(states(&cluster.received(&ann)), [v1::TicketState::Waiting]);
    }
}

#[test]
fn whoever_says_goodbye_as_soon_as_it_has_moved_leaves_no_ticket() {
    let mut cluster = cluster();
    let ann = cluster.connect(0, "ann", None);
    queue(&mut cluster, &ann);
    cluster.advance(Duration::from_secs(1));
    assert!(cluster.get("/match/queue/ann").is_some());
    let moved = cluster.accept(2, "ann");
    cluster.slow_registry = true;
    cluster.send(&moved, v1::Kind::Hello, &v1::Hello { resume: ann.resume(), ..v1::Hello::default() });
    // The node reads the session's record, and claims it. The answers to its next requests are held
    // back.
    cluster.ask_once();
    cluster.ask_once();
    assert!(matches!(&cluster.received(&moved)[..], [ToClient::Welcome(welcome)] if welcome.resumed));
    cluster.send(&moved, v1::Kind::Goodbye, &v1::Goodbye::default());
    cluster.ask();
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.get("/sessions/player:ann"), None);
    assert_eq!(cluster.get("/match/queue/ann"), None);
}

#[test]
fn a_search_goes_on_when_its_player_comes_back_at_another_node() {
    let mut cluster = cluster();
    let ann = cluster.connect(0, "ann", None);
    queue(&mut cluster, &ann);
    cluster.advance(Duration::from_secs(1));
    let ann = cluster.connect(2, "ann", ann.resume());
    cluster.advance(Duration::from_secs(1));
    let bob = cluster.connect(1, "bob", None);
    queue(&mut cluster, &bob);
    cluster.advance(Duration::from_secs(2));
    assert!(matched(&cluster.received(&ann)).is_some());
    assert!(matched(&cluster.received(&bob)).is_some());
}

#[test]
fn who_was_away_hears_of_the_match_when_he_is_back() {
    let mut cluster = cluster();
    let ann = cluster.connect(0, "ann", None);
    queue(&mut cluster, &ann);
    cluster.advance(Duration::from_secs(1));
    let now = cluster.now;
    cluster.node(0).handle_closed(now, ann.conn);
    let bob = cluster.connect(1, "bob", None);
    queue(&mut cluster, &bob);
    cluster.advance(Duration::from_secs(2));
    assert!(matched(&cluster.received(&bob)).is_some());
    let ann = cluster.connect(1, "ann", ann.resume());
    assert!(matched(&ann.told).is_some(), "{:?}", ann.told);
}

#[test]
fn who_has_no_connection_is_not_matched_until_it_is_back() {
    for back_at in [0, 1] {
        let mut cluster = cluster();
        let ann = cluster.connect(0, "ann", None);
        queue(&mut cluster, &ann);
        cluster.advance(Duration::from_secs(1));
        let now = cluster.now;
        cluster.node(0).handle_closed(now, ann.conn);
        cluster.advance(Duration::from_secs(1));
        let bob = cluster.connect(1, "bob", None);
        queue(&mut cluster, &bob);
        cluster.advance(Duration::from_secs(10));
        assert_eq!(matched(&cluster.received(&bob)), None, "nobody is there");
        let ann = cluster.connect(back_at, "ann", ann.resume());
        cluster.advance(Duration::from_secs(2));
        assert!(matched(&cluster.received(&ann)).is_some() && matched(&cluster.received(&bob)).is_some());
    }
}

#[test]
fn who_is_gone_before_its_session_has_moved_is_absent_too() {
    let mut cluster = cluster();
    let ann = cluster.connect(0, "ann", None);
    queue(&mut cluster, &ann);
    cluster.advance(Duration::from_secs(1));
    let moved = cluster.accept(2, "ann");
    cluster.slow_registry = true;
    cluster.send(&moved, v1::Kind::Hello, &v1::Hello { resume: ann.resume(), ..v1::Hello::default() });
    let now = cluster.now;
    cluster.node(2).handle_closed(now, moved.conn);
    cluster.ask();
    cluster.advance(Duration::from_secs(1));
    let bob = cluster.connect(1, "bob", None);
    queue(&mut cluster, &bob);
    cluster.advance(Duration::from_secs(5));
    assert_eq!(matched(&cluster.received(&bob)), None, "nobody is there");
    // The ticket ends with the session, which no client resumed.
    cluster.advance(Config::default().sessions.ttl);
    assert_eq!(cluster.get("/match/queue/ann"), None);
}

#[test]
fn a_match_s_room_keeps_places_for_its_players() {
    for (members, others) in [(2, 0), (3, 1)] {
        // The first player to join opens the room, whether as a player of the match or not.
        for order in
            [["ann", "cid", "dan", "bob"], ["cid", "dan", "ann", "bob"], ["cid", "bob", "dan", "ann"]]
        {
            let (mut cluster, [ann, bob], room) = pair(members, false);
            let strangers = [cluster.connect(2, "cid", None), cluster.connect(1, "dan", None)];
            let mut let_in = 0;
            for player in order {
                match player {
                    "ann" => assert!(joins(&mut cluster, &ann, &room), "{order:?} of {members}"),
                    "bob" => assert!(joins(&mut cluster, &bob, &room), "{order:?} of {members}"),
                    _ => {
                        let_in +=
                            u32::from(joins(&mut cluster, &strangers[usize::from(player == "dan")], &room))
                    }
                }
            }
            assert_eq!(let_in, others, "{order:?} of {members}");
        }
    }
}

#[test]
fn a_place_is_free_when_its_player_has_left_unless_it_is_to_be_filled() {
    for backfill in [false, true] {
        let (mut cluster, [ann, bob], room) = pair(2, backfill);
        assert!(joins(&mut cluster, &ann, &room) && joins(&mut cluster, &bob, &room));
        cluster.send(&bob, v1::Kind::Leave, &v1::Leave { room: room.clone(), request: 0 });
        cluster.advance(Duration::from_secs(1));
        cluster.received(&bob);
        let cid = cluster.connect(2, "cid", None);
        assert_eq!(joins(&mut cluster, &cid, &room), !backfill);
        if backfill {
            // Only players that the backfill has chosen are let in.
            queue(&mut cluster, &cid);
            cluster.advance(Duration::from_secs(40));
            assert_eq!(matched(&cluster.received(&cid)).map(|m| m.room), Some(room.clone()));
            assert!(joins(&mut cluster, &cid, &room));
        }
    }
}

#[test]
fn a_room_whose_name_is_only_like_a_match_s_is_as_any() {
    let (mut cluster, [ann, _], _) = pair(2, false);
    for room in ["match:", "match:1-1-1"] {
        assert!(joins(&mut cluster, &ann, room));
    }
}

#[test]
fn the_matches_go_on_when_the_node_that_forms_them_dies() {
    let mut cluster = cluster();
    cluster.kill(0);
    cluster.advance(Duration::from_secs(20));
    let ann = cluster.connect(1, "ann", None);
    let bob = cluster.connect(2, "bob", None);
    queue(&mut cluster, &ann);
    queue(&mut cluster, &bob);
    cluster.advance(Duration::from_secs(3));
    assert!(matched(&cluster.received(&ann)).is_some());
    assert!(matched(&cluster.received(&bob)).is_some());
}

#[test]
fn a_ticket_is_taken_back_and_an_unknown_queue_is_refused() {
    let mut cluster = cluster();
    let ann = cluster.connect(0, "ann", None);
    queue(&mut cluster, &ann);
    cluster.received(&ann);
    cluster.send(&ann, v1::Kind::Cancel, &v1::Cancel::default());
    assert_eq!(states(&cluster.received(&ann)), [v1::TicketState::Cancelled]);
    let unknown = v1::Queue { mode: "chess".into(), ..v1::Queue::default() };
    cluster.send(&ann, v1::Kind::Queue, &unknown);
    assert_eq!(states(&cluster.received(&ann)), [v1::TicketState::Refused]);
}

#[test]
fn a_ticket_that_was_lost_with_the_lease_is_back_when_its_player_says_so() {
    let mut cluster = cluster_with_short_leases();
    let mut ann = cluster.connect(0, "ann", None);
    search(&mut cluster, &ann, 0);
    assert_eq!(states(&cluster.received(&ann)), [v1::TicketState::Waiting]);
    for _ in 0..2 {
        cluster.lapse(&[0], &[]);
        let epoch = lost(&cluster.received(&ann)).expect("ann is asked");
        assert!(cluster.get("/match/queue/ann").is_none());
        search(&mut cluster, &ann, epoch);
        cluster.advance(Duration::from_secs(1));
        assert_eq!(states(&cluster.received(&ann)), [v1::TicketState::Waiting]);
        // After that answer the client resumes like a client whose session was never elsewhere.
        ann.welcomed = ann.welcomed.max(epoch);
        let (now, conn) = (cluster.now, ann.conn);
        let before = cluster.get("/sessions/player:ann").map(|kv| kv.modified);
        cluster.node(0).handle_closed(now, conn);
        ann = cluster.connect(0, "ann", ann.resume());
        assert_eq!(cluster.get("/sessions/player:ann").map(|kv| kv.modified), before);
        assert!(matches!(&ann.told[0], ToClient::Welcome(welcome) if welcome.resumed), "{:?}", ann.told);
        ann.welcomed = ann.welcomed.max(epoch);
        assert_eq!(states(&ann.told), [v1::TicketState::Waiting]);
        assert!(cluster.get("/match/queue/ann").is_some());
    }
}

#[test]
fn a_ticket_that_was_lost_with_its_nodes_lease_is_back_if_the_session_was_not_claimed() {
    let mut cluster = cluster();
    let ann = cluster.connect(0, "ann", None);
    search(&mut cluster, &ann, 0);
    let session = cluster.get("/sessions/player:ann");
    cluster.unregistered = vec![0];
    cluster.advance(Duration::from_secs(15));
    assert!(cluster.get("/match/queue/ann").is_none());
    cluster.unregistered = vec![];
    cluster.advance(Duration::from_secs(8));
    assert!(cluster.get("/match/queue/ann").is_some());
    assert_eq!(lost(&cluster.received(&ann)), None);
    assert_eq!(cluster.get("/sessions/player:ann"), session);
}

#[test]
fn a_node_that_had_the_session_before_does_not_speak_of_tickets_from_memory() {
    let mut cluster = cluster_with_short_leases();
    let ann = cluster.connect(0, "ann", None);
    // The session moves to node 1, but neither ann nor node 0 hears of that.
    cluster.unregistered = vec![0];
    let unheard = cluster.connect(1, "ann", ann.resume());
    let now = cluster.now;
    cluster.node(1).handle_closed(now, unheard.conn);
    cluster.node(0).handle_closed(now, ann.conn);
    let ann = cluster.connect(0, "ann", ann.resume());
    search(&mut cluster, &ann, 0);
    // Then node 1 is cut off until its lease is over, and node 0 registers the session again.
    cluster.lapse(&[0, 1], &[1]);
    let epoch = lost(&cluster.received(&ann)).expect("ann is asked");
    search(&mut cluster, &ann, epoch);
    cluster.advance(Duration::from_secs(1));
    assert!(cluster.get("/match/queue/ann").is_some());
    // Ann connects to node 1 and gives the search up.
    let now = cluster.now;
    cluster.node(0).handle_closed(now, ann.conn);
    let resume = v1::Resume { epoch, ..ann.resume().unwrap() };
    let back = cluster.accept(1, "ann");
    let hello = v1::Hello { resume: Some(resume.clone()), ..v1::Hello::default() };
    cluster.send(&back, v1::Kind::Hello, &hello);
    cluster.advance(Duration::from_secs(1));
    assert_eq!(cluster.received(&back), [], "node 1 knows nothing of what is now");
    cluster.lapse(&[1], &[]);
    let back = cluster.connect(1, "ann", Some(resume));
    cluster.send(&back, v1::Kind::Cancel, &v1::Cancel { search: 7, ..v1::Cancel::default() });
    cluster.advance(Duration::from_secs(1));
    assert_eq!(states(&cluster.received(&back)), [v1::TicketState::Cancelled]);
    assert!(cluster.get("/match/queue/ann").is_none());
}
