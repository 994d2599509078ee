//! Players' clients: they connect, want matches, and hear what comes of it.

use alloc::string::ToString as _;

use skirmish_proto::v1::{self, TicketState};

use super::cluster::{Cluster, Event, Player, name};
use crate::matchmaking::desk::Decision;
use crate::matchmaking::keys;
use crate::matchmaking::record::{decode, encode};
use crate::registry::{Delete, Put, Request, Span};
use crate::time::Duration;

impl Cluster {
    pub(super) fn player(&mut self, player: &str) -> &mut Player {
        self.players.entry(name(player)).or_default()
    }

    pub(super) fn can_connect(&mut self, index: usize) -> bool {
        let node = &self.nodes[index];
        let Some(id) = node.lease.filter(|_| !node.paused && !node.cut) else { return false };
        self.registry.handle(self.now, &Request::TimeToLive { id, keys: false }).is_ok()
    }

    /// The player's client connects: to the session that it has there, or a new one.
    pub(super) fn connect(&mut self, player: &str, index: usize) {
        assert!(self.can_connect(index));
        let player = name(player);
        let now = self.time();
        let mine = self.nodes[index].id.0;
        let record = self.get(keys::session(&player)).map(|kv| decode::<v1::SessionRecord>(&kv.value));
        let here = self.nodes[index].sessions.get(&player).copied();
        let epoch = match here.filter(|_| record.is_some_and(|record| record.node == mine)) {
            Some(epoch) => epoch,
            None => self.claim(&player, index, 0),
        };
        self.nodes[index].sessions.insert(player.clone(), epoch);
        for node in (0..self.nodes.len()).filter(|node| *node != index) {
            if self.nodes[node].sessions.contains_key(&player) {
                let (life, player) = (self.nodes[node].life, player.clone());
                let delay = self.rng.duration(Duration::ZERO..=Duration::from_millis(500));
                self.schedule(delay, Event::Moved { node, life, player, epoch });
            }
        }
        self.nodes[index].desk.arrive(now, &player, epoch);
        let client = self.players.entry(player.clone()).or_default();
        client.home = Some(index);
        if let Some(wish) = client.wish.clone() {
            let cancel = client.cancel;
            self.nodes[index].desk.queue(now, &player, epoch, wish);
            if cancel {
                self.nodes[index].desk.cancel(now, &player);
            }
        }
        self.drain(index);
    }

    /// The connection is gone; the session is not.
    pub(super) fn disconnect(&mut self, player: &str) {
        self.player(player).home = None;
    }

    /// The session ends.
    pub(super) fn end_session(&mut self, player: &str) {
        let player = name(player);
        let now = self.time();
        let client = self.players.entry(player.clone()).or_default();
        let Some(index) = client.home.take() else { return };
        (client.wish, client.cancel, client.ended) = (None, false, false);
        self.nodes[index].sessions.remove(&player);
        if !self.nodes[index].cut && !self.nodes[index].paused {
            self.ask(&Request::Delete(Delete::of(Span::one(keys::session(&player)))));
        }
        self.nodes[index].desk.depart(now, &player, false);
        self.drain(index);
    }

    pub(super) fn queue(&mut self, player: &str, queue: v1::Queue) {
        let now = self.time();
        let client = self.players.entry(name(player)).or_default();
        client.wish = Some(queue.clone());
        (client.cancel, client.ended) = (false, false);
        if let Some(index) = client.home
            && let Some(epoch) = self.nodes[index].sessions.get(&name(player)).copied()
        {
            self.nodes[index].desk.queue(now, &name(player), epoch, queue);
            self.drain(index);
        }
    }

    pub(super) fn cancel(&mut self, player: &str) {
        let now = self.time();
        let client = self.players.entry(name(player)).or_default();
        client.cancel = true;
        if let Some(index) = client.home {
            self.nodes[index].desk.cancel(now, &name(player));
            self.drain(index);
        }
    }

    /// The player leaves the room of the match that it knows of.
    pub(super) fn leave(&mut self, player: &str) {
        let now = self.time();
        let client = self.players.entry(name(player)).or_default();
        if let (Some(index), Some(matched)) = (client.home, client.matched.take()) {
            self.nodes[index].desk.leave_match(now, &name(player), &name(&matched.room));
            self.drain(index);
        }
    }

    /// A node is the primary of a match's room.
    pub(super) fn claim_room(&mut self, room: &str) {
        let record = v1::RoomRecord { primary: 1, ..v1::RoomRecord::default() };
        self.ask(&Request::Put(Put::new(keys::room(room), encode(&record), None)));
    }

    pub(super) fn deliver(&mut self, index: usize, decision: Decision) {
        let (Decision::Ticket { player, .. } | Decision::Matched { player, .. }) = &decision;
        let client = self.players.entry(player.clone()).or_default();
        if client.home != Some(index) {
            return;
        }
        match decision {
            Decision::Ticket { queued, .. } => {
                let state = queued.state();
                client.heard.push(state);
                client.last = queued;
                if !matches!(state, TicketState::Waiting | TicketState::Unavailable) {
                    (client.wish, client.cancel) = (None, false);
                    client.ended = state != TicketState::None;
                }
            }
            Decision::Matched { player, matched } => {
                (client.wish, client.cancel) = (None, false);
                assert!(!client.ended, "{player} is matched though its search had ended");
                self.oracle.heard(&player, &matched);
                client.matched = Some(matched);
            }
        }
    }
}

/// A wish for a match of this mode.
pub(super) fn alone(mode: &str) -> v1::Queue {
    v1::Queue { mode: mode.to_string(), ..v1::Queue::default() }
}

/// A wish for a match with a party.
pub(super) fn party(mode: &str, party: &str, party_size: u32) -> v1::Queue {
    v1::Queue { party: party.to_string(), party_size, ..alone(mode) }
}
