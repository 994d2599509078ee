//! A match ends for a player that has left or given it up, at any node, and for no other player.

use super::cluster::{Cluster, Member};
use super::*;
use crate::matchmaking::{QueueConfig, decode};

/// Ann at node 0 and bob at node 1, matched with each other.
struct Duel {
    cluster: Cluster,
    ann: Member,
    bob: Member,
    matched: v1::Matched,
}

/// Number of the player's search.
const SEARCH: u64 = 7;

impl Duel {
    fn new() -> Self {
        let mut config = Config::default();
        let name = |name| Name::new(name).unwrap();
        config.matchmaking.queues = vec![QueueConfig::new(name("duel"), 2, 1, vec![name("eu")])];
        let mut cluster = Cluster::with(3, config);
        cluster.advance(Duration::from_secs(1));
        let ann = cluster.connect(0, "ann", None);
        let bob = cluster.connect(1, "bob", None);
        queue(&mut cluster, &ann, SEARCH);
        queue(&mut cluster, &bob, SEARCH);
        cluster.advance(Duration::from_secs(2));
        let matched = matched(&cluster.received(&ann)).expect("ann is told");
        cluster.received(&bob);
        Self { cluster, ann, bob, matched }
    }

    /// Ann and bob are in the room: bob's node is the primary, and ann's node follows.
    fn joined() -> Self {
        let mut duel = Self::new();
        let join = v1::Join { room: duel.matched.room.clone(), history: 0, request: 0 };
        for member in [&mut duel.bob, &mut duel.ann] {
            duel.cluster.send(member, v1::Kind::Join, &join);
            let messages = duel.cluster.received(member);
            assert!(messages.iter().any(|m| matches!(m, ToClient::Joined(_))), "{messages:?}");
            member.learn(&messages);
        }
        duel.cluster.advance(Duration::from_secs(1));
        assert!(duel.notice("/match/players/ann").is_some_and(|notice| notice.joined));
        duel
    }

    fn notice(&mut self, key: &'static str) -> Option<v1::NoticeRecord> {
        self.cluster.get(key).map(|kv| decode(&kv.value))
    }

    /// Closes ann's connection.
    fn lose(&mut self) {
        let (now, conn) = (self.cluster.now, self.ann.conn);
        self.cluster.node(self.ann.node).handle_closed(now, conn);
    }

    /// Resumes ann's session at a node, and names these rooms, with a cursor or as joins.
    fn resume(&mut self, node: usize, cursors: &[&str], joins: &[&str]) -> Vec<ToClient> {
        self.lose();
        let cursor = |room: &&str| v1::RoomCursor {
            room: (*room).into(),
            epoch: self.ann.epoch,
            seq: self.ann.seq,
            request: 0,
        };
        let rooms = cursors.iter().map(cursor).collect();
        let (session, epoch) = (self.ann.session.clone(), self.ann.welcomed);
        let joins =
            joins.iter().map(|room| v1::Join { room: (*room).into(), history: 0, request: 0 }).collect();
        let resume = Some(v1::Resume { session, rooms, epoch });
        let mut ann = self.cluster.accept(node, "ann");
        self.cluster.send(&ann, v1::Kind::Hello, &v1::Hello { resume, joins, ..v1::Hello::default() });
        self.cluster.advance(Duration::from_secs(1));
        let told = self.cluster.received(&ann);
        let ToClient::Welcome(welcome) = &told[0] else { panic!("no Welcome: {told:?}") };
        assert!(welcome.resumed);
        (ann.session, ann.welcomed) = (welcome.session.clone(), welcome.epoch);
        ann.learn(&told);
        self.ann = ann;
        told
    }

    fn leave(&mut self) -> Vec<ToClient> {
        let leave = v1::Leave { room: self.matched.room.clone(), request: 0 };
        self.cluster.send(&self.ann, v1::Kind::Leave, &leave);
        self.cluster.received(&self.ann)
    }

    fn cancel(&mut self, search: u64, id: &str) -> Vec<v1::Queued> {
        let cancel = v1::Cancel { search, r#match: id.into() };
        self.cluster.send(&self.ann, v1::Kind::Cancel, &cancel);
        self.cluster.advance(Duration::from_secs(1));
        queued(&self.cluster.received(&self.ann))
    }

    /// Checks that the match is over for ann at every node, also in another session, and continues
    /// for bob.
    fn is_over(&mut self) {
        assert_eq!(self.notice("/match/players/ann"), None);
        assert!(self.notice("/match/players/bob").is_some(), "he plays on");
        for node in [2, 0, 1] {
            let told = self.resume(node, &[], &[]);
            assert_eq!(matched(&told), None, "{told:?}");
        }
        self.lose();
        self.ann = self.cluster.connect(2, "ann", None);
        queue(&mut self.cluster, &self.ann, SEARCH + 1);
        self.cluster.advance(Duration::from_secs(1));
        let told = self.cluster.received(&self.ann);
        let states: Vec<_> = queued(&told).iter().map(v1::Queued::state).collect();
        assert_eq!((states, matched(&told)), (vec![v1::TicketState::Waiting], None));
    }
}

fn queue(cluster: &mut Cluster, member: &Member, search: u64) {
    let latencies = vec![v1::RegionLatency { region: "eu".into(), millis: 20 }];
    let queue = v1::Queue { mode: "duel".into(), latencies, search, ..v1::Queue::default() };
    cluster.send(member, v1::Kind::Queue, &queue);
}

fn matched(messages: &[ToClient]) -> Option<v1::Matched> {
    messages.iter().find_map(|m| match m {
        ToClient::Matched(matched) => Some(matched.clone()),
        _ => None,
    })
}

fn queued(messages: &[ToClient]) -> Vec<v1::Queued> {
    let of = |m: &ToClient| match m {
        ToClient::Queued(queued) => Some(queued.clone()),
        _ => None,
    };
    messages.iter().filter_map(of).collect()
}

/// Returns the reasons of the answers to a `Leave`.
fn answers(messages: &[ToClient]) -> Vec<v1::LeftReason> {
    let of = |m: &ToClient| match m {
        ToClient::Left(left) if left.answers_leave => Some(left.reason()),
        _ => None,
    };
    messages.iter().filter_map(of).collect()
}

#[test]
fn whoever_leaves_a_match_where_it_is_no_member_is_in_it_no_more() {
    for node in [0, 1, 2] {
        let mut duel = Duel::joined();
        let room = duel.matched.room.clone();
        // The client resumes with the room, as it may. After the leave, no membership is known at
        // the node.
        duel.resume(node, &[&room], &[]);
        assert_eq!(answers(&duel.leave()), [v1::LeftReason::Asked]);
        assert_eq!(answers(&duel.leave()), [v1::LeftReason::NotAMember], "it may not have heard");
        duel.is_over();
        // A player that never joined has no membership anywhere.
        let mut duel = Duel::new();
        duel.resume(node, &[], &[]);
        assert_eq!(answers(&duel.leave()), [v1::LeftReason::Asked]);
        duel.is_over();
    }
}

#[test]
fn a_session_that_goes_on_without_the_room_has_left_the_match() {
    for node in [0, 1, 2] {
        let mut duel = Duel::joined();
        let told = duel.resume(node, &[], &[]);
        assert!(matched(&told).is_none() || node == 0, "{told:?}");
        assert_eq!(answers(&duel.leave()), [v1::LeftReason::NotAMember]);
        duel.is_over();
    }
}

#[test]
fn a_session_that_names_the_room_is_in_the_match_yet() {
    for node in [0, 1, 2] {
        for joins in [false, true] {
            let mut duel = Duel::joined();
            let room = duel.matched.room.clone();
            // The client may not have heard of its join.
            let told =
                if joins { duel.resume(node, &[], &[&room]) } else { duel.resume(node, &[&room], &[]) };
            assert!(matched(&told).is_some(), "{told:?}");
            assert!(told.iter().any(|m| matches!(m, ToClient::Joined(_))), "{told:?}");
            assert!(duel.notice("/match/players/ann").is_some_and(|notice| notice.joined));
        }
    }
}

#[test]
fn whoever_has_never_come_hears_of_its_match_again() {
    for node in [0, 1, 2] {
        let mut duel = Duel::new();
        for _ in 0..2 {
            assert_eq!(
                matched(&duel.resume(node, &[], &[])).map(|m| m.r#match),
                Some(duel.matched.r#match.clone())
            );
        }
        assert!(duel.notice("/match/players/ann").is_some_and(|notice| !notice.joined));
    }
    // A client that has sent a join, but has not received the answer, names the room again.
    let mut duel = Duel::new();
    duel.cluster.slow_registry = true;
    let room = duel.matched.room.clone();
    duel.cluster.send(&duel.ann, v1::Kind::Join, &v1::Join { room: room.clone(), history: 0, request: 0 });
    duel.lose();
    duel.cluster.ask();
    assert!(matched(&duel.resume(0, &[], &[&room])).is_some());
}

#[test]
fn another_session_of_the_player_is_told_of_the_match() {
    for node in [0, 1, 2] {
        let mut duel = Duel::joined();
        duel.lose();
        let ann = duel.cluster.connect(node, "ann", None);
        duel.cluster.advance(Duration::from_secs(1));
        let mut told = ann.told.clone();
        told.extend(duel.cluster.received(&ann));
        assert!(matched(&told).is_some(), "at node {node}: {told:?}");
    }
}

#[test]
fn a_leave_is_answered_when_the_registry_has_it() {
    let mut duel = Duel::joined();
    duel.cluster.slow_registry = true;
    assert_eq!(answers(&duel.leave()), []);
    let left = duel.cluster.received(&duel.bob);
    let leaves = |m: &ToClient| matches!(m, ToClient::Entry(e) if e.kind() == v1::EntryKind::Leave);
    assert!(left.iter().any(leaves), "the others hear of it at once");
    // The outcome of the first request is unknown.
    duel.cluster.unregistered = vec![0];
    duel.cluster.ask();
    assert_eq!(answers(&duel.cluster.received(&duel.ann)), []);
    duel.cluster.heal();
    duel.cluster.advance(Duration::from_secs(6));
    assert_eq!(answers(&duel.cluster.received(&duel.ann)), [v1::LeftReason::Asked]);
    duel.is_over();
    // A leave of another room is answered at once.
    duel.cluster.slow_registry = true;
    duel.cluster.send(&duel.ann, v1::Kind::Leave, &v1::Leave { room: "arena".into(), request: 0 });
    assert_eq!(answers(&duel.cluster.received(&duel.ann)), [v1::LeftReason::NotAMember]);
}

#[test]
fn a_match_is_given_up_by_its_name_or_the_number_of_its_search_at_any_node() {
    for node in [0, 2] {
        for by_name in [true, false] {
            let mut duel = Duel::new();
            let id = duel.matched.r#match.clone();
            duel.resume(node, &[], &[]);
            let given_up = v1::Queued {
                state: v1::TicketState::GivenUp.into(),
                search: SEARCH,
                r#match: id.clone(),
                ..v1::Queued::default()
            };
            assert_eq!(duel.cancel(SEARCH, "other").last().map(|q| q.r#match.clone()), Some("other".into()));
            assert!(duel.notice("/match/players/ann").is_some(), "that was another one");
            for _ in 0..2 {
                let told = duel.cancel(SEARCH, if by_name { &id } else { "" });
                assert_eq!(told, core::slice::from_ref(&given_up));
            }
            duel.is_over();
        }
    }
    // Without a number, any search is cancelled.
    let mut duel = Duel::joined();
    assert_eq!(
        duel.cancel(0, "").iter().map(v1::Queued::state).collect::<Vec<_>>(),
        [v1::TicketState::GivenUp]
    );
    duel.is_over();
}

#[test]
fn a_match_that_is_given_up_and_the_next_search_do_not_cross() {
    for node in [0, 2] {
        for id in [true, false] {
            let mut duel = Duel::new();
            duel.lose();
            let resume = v1::Resume { rooms: vec![], ..duel.ann.resume().unwrap() };
            let ann = duel.cluster.accept(node, "ann");
            duel.cluster.slow_registry = true;
            let hello = v1::Hello { resume: Some(resume), ..v1::Hello::default() };
            duel.cluster.send(&ann, v1::Kind::Hello, &hello);
            duel.cluster.ask_once();
            duel.cluster.ask_once();
            // The node does not know the registry's records of the player yet.
            let r#match = if id { duel.matched.r#match.clone() } else { String::new() };
            duel.cluster.send(&ann, v1::Kind::Cancel, &v1::Cancel { search: SEARCH, r#match });
            queue(&mut duel.cluster, &ann, SEARCH + 1);
            duel.cluster.ask();
            duel.cluster.advance(Duration::from_secs(1));
            let told = duel.cluster.received(&ann);
            let last = queued(&told).last().map(|queued| (queued.search, queued.state()));
            assert_eq!(last, Some((SEARCH + 1, v1::TicketState::Waiting)), "{told:?}");
            duel.ann = ann;
        }
    }
}

#[test]
fn a_session_that_ends_after_it_has_moved_leaves_its_match() {
    // Ends the session by a `Goodbye`, by an operator, or because no client resumes it.
    for how in 0..3 {
        let mut duel = Duel::joined();
        // The room is lost meanwhile, so ann's session is in no room when it ends.
        let room = duel.matched.room.clone();
        duel.cluster.swallow = true;
        duel.resume(2, &[&room], &[]);
        duel.cluster.swallow = false;
        let now = duel.cluster.now;
        match how {
            0 => duel.cluster.send(&duel.ann, v1::Kind::Goodbye, &v1::Goodbye::default()),
            1 => assert!(duel.cluster.node(2).kick(now, "ann")),
            _ => {
                duel.lose();
                duel.cluster.advance(Config::default().sessions.ttl);
            }
        }
        duel.cluster.advance(Duration::from_secs(2));
        assert_eq!(duel.notice("/match/players/ann"), None, "{how}");
        assert!(duel.notice("/match/players/bob").is_some(), "he plays on");
    }
}

#[test]
fn whoever_does_not_come_back_from_a_node_that_died_leaves_its_match() {
    let mut duel = Duel::joined();
    duel.cluster.kill(0);
    duel.cluster.advance(Duration::from_secs(30));
    assert!(duel.notice("/match/players/ann").is_some(), "she may come back");
    duel.cluster.advance(Config::default().sessions.ttl);
    assert_eq!(duel.notice("/match/players/ann"), None);
    assert!(duel.notice("/match/players/bob").is_some(), "he plays on");
}
