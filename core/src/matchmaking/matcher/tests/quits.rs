//! Matches that players leave while the registry does not answer.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use skirmish_proto::v1::{self, TicketState as S};

use super::clients::alone;
use super::cluster::{Cluster, name};
use super::rules::{cluster, run};
use crate::base::id::Name;
use crate::matchmaking::{MatchmakingConfig, QueueConfig, keys};
use crate::registry::{Delete, Request, Span};

/// Maximum number of quits of one player that wait.
const MOST: u64 = 16;

/// Ann, in a match with Bob, is at a node that has not read her state since she came, and cannot
/// reach the registry. At node 0, she was told of the match before.
struct Unreached {
    c: Cluster,
    node: usize,
    epoch: u64,
    /// Number of the search that the match has answered.
    search: u64,
    room: Name,
}

impl Unreached {
    /// `joins` is true if the registry knows that Ann has joined the room.
    fn new(node: usize, joins: bool) -> Self {
        let (mut c, ann) = (cluster(2, &[("ann", 0), ("bob", 0)]), name("ann"));
        let search = c.queue("ann", alone("duel"));
        c.queue("bob", alone("duel"));
        run(&mut c, 2);
        let room = name(&c.player("ann").matched.as_ref().unwrap().room);
        if joins {
            c.join("ann");
            run(&mut c, 1);
        }
        assert_eq!(c.notice("ann").map(|notice| notice.joined), Some(joins));
        let epoch = c.claim(&ann, node, 0);
        if node != 0 {
            c.lose_session(&ann, 0);
        }
        c.cut(node);
        c.player("ann").home = Some(node);
        c.nodes[node].sessions.insert(ann.clone(), epoch);
        let now = c.time();
        c.nodes[node].player_tickets.arrive(now, &ann, epoch);
        c.drain(node);
        c.player("ann").heard.clear();
        Self { c, node, epoch, search, room }
    }

    /// Gives up as many other matches as may wait.
    fn fill(&mut self) {
        let now = self.c.time();
        let tickets = &mut self.c.nodes[self.node].player_tickets;
        for n in 1..=MOST {
            assert!(tickets.give_up(now, &name("ann"), &name(&format!("other-{n}")), 100 + n));
        }
        assert!(!tickets.give_up(now, &name("ann"), &name("one-more"), 200), "there is no place");
    }

    /// Leaves a room without a request.
    fn leave(&mut self, room: &Name) {
        let now = self.c.time();
        self.c.nodes[self.node].player_tickets.leave_match(now, &name("ann"), room);
    }

    fn end(&mut self) {
        let (now, ann) = (self.c.time(), name("ann"));
        self.c.ask(&Request::Delete(Delete::of(Span::one(keys::session(&ann)))));
        let node = &mut self.c.nodes[self.node];
        node.sessions.remove(&ann);
        node.player_tickets.depart(now, &ann, false);
    }

    /// Lets the node reach the registry again. Returns true if Ann is still in the match.
    fn heal(&mut self) -> bool {
        self.c.drain(self.node);
        self.c.heal(self.node);
        run(&mut self.c, 10);
        assert!(self.c.notice("bob").is_some(), "he plays on");
        self.c.notice("ann").is_some()
    }

    fn heard(&self, state: S) -> usize {
        self.c.heard("ann").iter().filter(|heard| **heard == state).count()
    }
}

#[test]
fn a_match_is_left_however_many_quits_wait() {
    for (node, joins) in [(0, false), (0, true), (1, false), (1, true)] {
        for ends in [false, true] {
            let mut ann = Unreached::new(node, joins);
            ann.fill();
            let room = ann.room.clone();
            ann.leave(&room);
            if ends {
                ann.end();
            }
            assert!(!ann.heal(), "at node {node}, joins: {joins}, ends: {ends}");
            // One request is not answered, and would be repeated on the next connection.
            assert!(ends || ann.heard(S::GivenUp) == 15);
        }
    }
}

#[test]
fn a_session_that_ends_leaves_a_match_that_it_joined_elsewhere() {
    let mut ann = Unreached::new(1, true);
    ann.fill();
    ann.end();
    assert!(!ann.heal());
    let mut ann = Unreached::new(1, false);
    ann.fill();
    ann.end();
    assert!(ann.heal(), "she hears of a match that she did not join in her next session");
}

#[test]
fn the_quit_of_the_known_match_outlasts_those_of_others() {
    let mut ann = Unreached::new(0, false);
    let room = ann.room.clone();
    ann.leave(&room);
    for n in 0..3 * MOST {
        ann.leave(&name(&format!("match:watched-{n}")));
        ann.c.nodes[0].player_tickets.audit().unwrap();
    }
    assert!(!ann.heal());
}

#[test]
fn a_search_is_refused_while_the_one_before_cannot_be_given_up() {
    let mut ann = Unreached::new(0, false);
    let (now, search, epoch) = (ann.c.time(), ann.search, ann.epoch);
    ann.c.nodes[0].player_tickets.cancel(now, &name("ann"), search);
    ann.fill();
    let queue = v1::Queue { search: search + 1, ..alone("duel") };
    ann.c.nodes[0].player_tickets.queue(now, &name("ann"), epoch, queue);
    ann.c.drain(0);
    let last = ann.c.player("ann").last.clone();
    assert_eq!((last.state(), last.search), (S::Refused, search + 1));
    assert_eq!(last.reason, "too much is given up at once");
    assert!(!ann.heal());
    assert_eq!((ann.c.ticket("ann"), ann.heard(S::GivenUp)), (None, 17));
}

#[test]
fn a_membership_that_expires_ends_the_match_even_if_the_node_is_full() {
    let queue = QueueConfig::new(name("duel"), 2, 1, vec![name("eu")]);
    let mut config = MatchmakingConfig::new(vec![queue]);
    config.players = 2;
    let mut c = Cluster::new(config, 2, 1);
    for player in ["ann", "bob"] {
        c.connect(player, 1);
        c.queue(player, alone("duel"));
    }
    run(&mut c, 2);
    let room = name(&c.player("ann").matched.as_ref().unwrap().room);
    c.join("ann");
    c.join("bob");
    for player in ["yan", "zoe"] {
        c.connect(player, 0);
    }
    // Node 0 is the primary of the room, and the players' node dies.
    let now = c.time();
    c.nodes[0].player_tickets.host(now, &room);
    c.drain(0);
    run(&mut c, 1);
    c.pause(1);
    c.revoke(1);
    let now = c.time();
    for player in ["ann", "bob", "eve"] {
        c.nodes[0].player_tickets.expire_match(now, &name(player), &room);
    }
    c.drain(0);
    run(&mut c, 2);
    let joined = |c: &mut Cluster| ["ann", "bob"].map(|player| c.notice(player).map(|n| n.joined));
    assert_eq!(joined(&mut c), [Some(true); 2], "there is no place for them yet");
    c.end_session("zoe");
    run(&mut c, 2);
    assert_eq!(joined(&mut c), [None; 2]);
}

#[test]
fn a_match_goes_on_that_is_joined_after_many_other_rooms() {
    let mut c = cluster(1, &[("ann", 0), ("bob", 0)]);
    c.queue("ann", alone("duel"));
    c.queue("bob", alone("duel"));
    run(&mut c, 2);
    let rooms: Vec<Name> = (0..MOST).map(|n| name(&format!("match:watched-{n}"))).collect();
    let (now, epoch) = (c.time(), c.nodes[0].sessions[&name("ann")]);
    c.nodes[0].player_tickets.resume(now, &name("ann"), epoch, rooms);
    c.drain(0);
    run(&mut c, 1);
    c.join("ann");
    run(&mut c, 3);
    assert_eq!(c.notice("ann").map(|notice| notice.joined), Some(true));
}
