//! A real client and the player tickets of two nodes: frames that the client sends on a new
//! connection cross the messages that it receives there.

use alloc::vec::Vec;

use bytes::Bytes;
use prost::Message;
use skirmish_proto::v1::{self, TicketState as S};

use super::clients::alone;
use super::cluster::{Cluster, name};
use super::rules::{cluster, run};
use crate::base::time::Duration;
use crate::client::{Client, ClientConfig, ClientState, Event, Output};
use crate::wire::{self, Frame, ToServer};

/// Ann's client, and its frames that no node has received yet.
struct Ann {
    client: Client,
    under_way: Vec<ToServer>,
    /// True if the client has a session to resume.
    known: bool,
    events: Vec<Event>,
}

impl Ann {
    fn new() -> Self {
        let config = ClientConfig { player: "ann".into(), ..ClientConfig::default() };
        Self { client: Client::new(config, [3; 32]), under_way: Vec::new(), known: false, events: Vec::new() }
    }

    /// Connects to a node, which sends the current state, and sends the client's frames. Returns
    /// the node's frames, which the client has not read.
    fn connect(&mut self, c: &mut Cluster, node: usize) -> Vec<Bytes> {
        self.client.connect(c.time());
        self.client.handle_disconnected(c.time());
        self.drain(c);
        while self.client.state() != ClientState::Connecting {
            let next = self.client.poll_timeout().expect("it dials again");
            c.run(next.at - c.now);
            self.client.handle_timeout(c.time());
            self.drain(c);
        }
        self.client.handle_connected(c.time());
        self.drain(c);
        self.under_way.clear();
        let welcome = v1::Welcome {
            session: Bytes::from_static(&[7; 16]),
            epoch: 1,
            resumed: core::mem::replace(&mut self.known, true),
            heartbeat_ms: 1_000_000,
            session_ttl_ms: 60_000,
            replica: 9,
            ..v1::Welcome::default()
        };
        self.read(c, &frame(v1::Kind::Welcome, &welcome));
        assert_eq!(self.client.state(), ClientState::Connected);
        c.connect("ann", node);
        c.run(Duration::from_millis(500));
        self.told(c)
    }

    /// Returns the frames that the node has sent since.
    fn told(&mut self, c: &mut Cluster) -> Vec<Bytes> {
        let there = c.player("ann");
        let mut told = Vec::new();
        if !core::mem::take(&mut there.heard).is_empty() {
            told.push(frame(v1::Kind::Queued, &there.last));
        }
        told.extend(there.matched.take().map(|matched| frame(v1::Kind::Matched, &matched)));
        told
    }

    fn read(&mut self, c: &Cluster, frame: &Bytes) {
        self.client.handle_frame(c.time(), frame.clone());
        self.drain(c);
    }

    /// Takes the client's frames and events.
    fn drain(&mut self, c: &Cluster) {
        while let Some(output) = self.client.poll_output() {
            if let Output::Event(event @ (Event::Matched(_) | Event::Ticket { .. })) = output {
                self.events.push(event);
            }
        }
        let frames = core::iter::from_fn(|| self.client.poll_transmit(c.time()));
        let frames = frames.map(|frame| ToServer::decode(&Frame::decode(frame, 1 << 20).unwrap()).unwrap());
        self.under_way.extend(frames);
    }

    /// Delivers the frames under way to the node, and the answers to the client.
    fn arrive(&mut self, c: &mut Cluster) {
        let now = c.time();
        for message in core::mem::take(&mut self.under_way) {
            let node = c.player("ann").home.unwrap();
            let tickets = &mut c.nodes[node].player_tickets;
            match message {
                ToServer::Queue(queue) => c.ask_for("ann", queue),
                ToServer::Cancel(cancel) => c.take_back("ann", cancel.search),
                ToServer::Leave(leave) => tickets.leave_match(now, &name("ann"), &name(&leave.room)),
                _ => {}
            }
        }
        run(c, 1);
        // The real client searches, not its stand-in in the cluster.
        c.player("ann").wish = None;
        for frame in self.told(c) {
            self.read(c, &frame);
        }
    }

    fn search(&mut self, c: &mut Cluster) {
        self.client.queue(c.time(), alone("duel")).unwrap();
        self.drain(c);
    }

    fn events(&mut self) -> Vec<Event> {
        core::mem::take(&mut self.events)
    }
}

fn frame(kind: v1::Kind, message: &impl Message) -> Bytes {
    wire::encode(kind, &v1::Metadata::default(), message)
}

fn ended_with(events: &[Event], ended: S) -> bool {
    matches!(events, [Event::Ticket { state, .. }] if *state == ended)
}

#[test]
fn the_end_of_a_search_and_the_wish_that_is_sent_again_cross() {
    let mut c = cluster(2, &[]);
    let leader = c.leader("duel").unwrap();
    let mut ann = Ann::new();
    assert_eq!(ann.connect(&mut c, 1 - leader), [] as [Bytes; 0]);
    ann.search(&mut c);
    ann.arrive(&mut c);
    assert!(ended_with(&ann.events(), S::Waiting));
    run(&mut c, 57);
    c.pause(1 - leader);
    run(&mut c, 3);
    assert_eq!(c.ticket("ann").map(|ticket| ticket.state()), Some(S::TimedOut));
    // At another node she learns that her search has timed out; her `Queue` is under way again.
    let told = ann.connect(&mut c, leader);
    assert!(matches!(ann.under_way[..], [ToServer::Queue(_)]), "{:?}", ann.under_way);
    told.iter().for_each(|frame| ann.read(&c, frame));
    assert!(ended_with(&ann.events(), S::TimedOut));
    assert!(!ann.client.is_searching());
    ann.arrive(&mut c);
    assert_eq!((c.ticket("ann"), ann.events()), (None, Vec::new()), "that is no other search");
    // The next search is not ended, even if it is sent before the last message on the old one.
    ann.search(&mut c);
    ann.arrive(&mut c);
    assert!(ended_with(&ann.events(), S::Waiting));
    assert!(c.ticket("ann").is_some() && ann.client.is_searching());
}

#[test]
fn the_last_match_is_told_while_it_is_left_and_the_next_is_searched_for() {
    let mut c = cluster(1, &[("bob", 0)]);
    let mut ann = Ann::new();
    ann.connect(&mut c, 0);
    ann.search(&mut c);
    c.queue("bob", alone("duel"));
    ann.arrive(&mut c);
    let Some(Event::Matched(matched)) = ann.events().pop() else { panic!("she is told of the match") };
    ann.client.join(c.time(), &matched.room, 0).unwrap();
    ann.drain(&c);
    // While she has no connection, she leaves the match and starts another search.
    ann.client.handle_disconnected(c.time());
    ann.client.leave(c.time(), &matched.room).unwrap();
    ann.client.queue(c.time(), alone("duel")).unwrap();
    let told = ann.connect(&mut c, 0);
    assert!(matches!(ann.under_way[..], [ToServer::Leave(_), ToServer::Queue(_)]), "{:?}", ann.under_way);
    assert_eq!(told.len(), 1, "the node does not know yet that she leaves");
    told.iter().for_each(|frame| ann.read(&c, frame));
    assert_eq!(ann.events(), [], "that match is no answer to the search for another");
    assert!(ann.client.is_searching());
    ann.arrive(&mut c);
    assert!(ended_with(&ann.events(), S::Waiting));
    assert!(c.ticket("ann").is_some() && c.notice("ann").is_none());
}
