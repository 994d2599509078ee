//! Players' clients: they connect, search for matches, and receive the outcomes.

use alloc::string::ToString as _;
use core::mem::take;

use skirmish_proto::v1::{self, TicketState};

use super::cluster::{Cluster, Event, Frame, KEEP_ALIVE, Player, name};
use crate::base::id::Name;
use crate::base::time::Duration;
use crate::matchmaking::keys;
use crate::matchmaking::player_tickets::PlayerTicketsDecision;
use crate::matchmaking::record::{decode, encode};
use crate::registry::{Delete, Put, Request, Span};

impl Cluster {
    pub(super) fn player(&mut self, player: &str) -> &mut Player {
        self.players.entry(name(player)).or_default()
    }

    pub(super) fn can_connect(&mut self, index: usize) -> bool {
        let node = &self.nodes[index];
        let Some(id) = node.lease.filter(|_| !node.paused && !node.cut) else { return false };
        self.registry.handle(self.now, &Request::TimeToLive { id, keys: false }).is_ok()
    }

    /// Connects the player's client: to its session on that node, or to a new one.
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
        self.nodes[index].player_tickets.arrive(now, &player, epoch);
        let client = self.players.entry(player.clone()).or_default();
        (client.home, client.connection) = (Some(index), client.connection + 1);
        client.line.clear();
        if let Some(wish) = client.wish.clone() {
            let frame = if client.cancel { Frame::Cancel(wish.search) } else { Frame::Queue(wish) };
            self.transmit(&player, frame);
        }
        self.drain(index);
    }

    /// Sends a frame to the player's node.
    fn transmit(&mut self, player: &Name, frame: Frame) {
        let most = self.faults.slow_frames;
        let client = self.players.entry(player.clone()).or_default();
        let Some(index) = client.home else { return };
        if most == 0 {
            return self.carry(player, index, frame);
        }
        client.line.push_back(frame);
        if client.line.len() == 1 {
            let connection = client.connection;
            let delay = self.rng.duration(Duration::ZERO..=Duration::from_millis(most));
            self.schedule(delay, Event::Frames { player: player.clone(), connection });
        }
    }

    /// Delivers the frames of a connection, if that connection still exists.
    pub(super) fn arrive(&mut self, player: &Name, connection: u64) {
        let client = self.players.entry(player.clone()).or_default();
        let Some(index) = client.home.filter(|_| client.connection == connection) else { return };
        if self.nodes[index].paused {
            return self.schedule(KEEP_ALIVE, Event::Frames { player: player.clone(), connection });
        }
        for frame in take(&mut client.line) {
            self.carry(player, index, frame);
        }
    }

    pub(super) fn carry(&mut self, player: &Name, index: usize, frame: Frame) {
        let now = self.time();
        let node = &mut self.nodes[index];
        // Without its session the connection is being closed.
        let Some(epoch) = node.sessions.get(player).copied() else { return };
        match frame {
            Frame::Queue(queue) => node.player_tickets.queue(now, player, epoch, queue),
            Frame::Cancel(search) => node.player_tickets.cancel(now, player, search),
            Frame::Leave(room) => node.player_tickets.leave_match(now, player, &room),
            Frame::Join(room) => node.player_tickets.join_match(now, player, &room),
        }
        self.drain(index);
    }

    /// Closes the connection, but not the session.
    pub(super) fn disconnect(&mut self, player: &str) {
        let (player, now) = (name(player), self.time());
        let home = self.players.get_mut(&player).and_then(|client| client.home.take());
        if let Some(index) = home {
            // A paused node detects the loss later, as if the connection were lost then.
            self.nodes[index].player_tickets.lose(now, &player);
            self.drain(index);
        }
    }

    /// Ends the session.
    pub(super) fn end_session(&mut self, player: &str) {
        let player = name(player);
        let now = self.time();
        let client = self.players.entry(player.clone()).or_default();
        let Some(index) = client.home.take() else { return };
        (client.wish, client.cancel) = (None, false);
        self.nodes[index].sessions.remove(&player);
        if !self.nodes[index].cut && !self.nodes[index].paused {
            self.ask(&Request::Delete(Delete::of(Span::one(keys::session(&player)))));
        }
        self.nodes[index].player_tickets.depart(now, &player, false);
        self.drain(index);
    }

    /// Starts a search of the player, in place of an earlier one. Returns the number of the search.
    pub(super) fn queue(&mut self, player: &str, queue: v1::Queue) -> u64 {
        self.searches += 1;
        let search = self.searches;
        self.ask_for(player, v1::Queue { search, ..queue });
        search
    }

    /// Sends a `Queue` with the number of a search, or without one.
    pub(super) fn ask_for(&mut self, player: &str, queue: v1::Queue) {
        let client = self.players.entry(name(player)).or_default();
        (client.wish, client.cancel) = (Some(queue.clone()), false);
        self.transmit(&name(player), Frame::Queue(queue));
    }

    pub(super) fn cancel(&mut self, player: &str) {
        let client = self.players.entry(name(player)).or_default();
        client.cancel = true;
        let search = client.wish.as_ref().map_or(0, |wish| wish.search);
        self.take_back(player, search);
    }

    /// Sends a `Cancel` of this number, even if the player has another search.
    pub(super) fn take_back(&mut self, player: &str, search: u64) {
        self.transmit(&name(player), Frame::Cancel(search));
    }

    /// Leaves the room of the match that the player knows.
    pub(super) fn leave(&mut self, player: &str) {
        let client = self.players.entry(name(player)).or_default();
        if client.home.is_some()
            && let Some(matched) = client.matched.take()
        {
            self.transmit(&name(player), Frame::Leave(name(&matched.room)));
        }
    }

    /// Joins the room of the match that the player knows, which has a primary from then on.
    pub(super) fn join(&mut self, player: &str) {
        let client = self.players.entry(name(player)).or_default();
        if client.home.is_some()
            && let Some(room) = client.matched.as_ref().map(|matched| matched.room.clone())
        {
            self.claim_room(&room);
            self.transmit(&name(player), Frame::Join(name(&room)));
        }
    }

    /// Makes a node the primary of a match's room.
    pub(super) fn claim_room(&mut self, room: &str) {
        let record = v1::RoomRecord { primary: 1, ..v1::RoomRecord::default() };
        self.ask(&Request::Put(Put::new(keys::room(room), encode(&record), None)));
    }

    pub(super) fn deliver(&mut self, index: usize, decision: PlayerTicketsDecision) {
        let (PlayerTicketsDecision::Ticket { player, .. }
        | PlayerTicketsDecision::Matched { player, .. }
        | PlayerTicketsDecision::Left { player, .. }) = &decision
        else {
            return;
        };
        let client = self.players.entry(player.clone()).or_default();
        if client.home != Some(index) {
            return;
        }
        let searches = client.wish.as_ref().map(|wish| wish.search);
        match decision {
            PlayerTicketsDecision::Ticket { player, queued } => {
                let state = queued.state();
                client.heard.push(state);
                if state == TicketState::Lost && searches == Some(queued.search) && !client.cancel {
                    let session_epoch = queued.session_epoch;
                    let wish = client.wish.clone().unwrap_or_default();
                    client.last = queued;
                    return self.transmit(&player, Frame::Queue(v1::Queue { session_epoch, ..wish }));
                }
                if !matches!(state, TicketState::Waiting | TicketState::Unavailable | TicketState::Lost) {
                    if searches == Some(queued.search) {
                        (client.wish, client.cancel) = (None, false);
                    }
                    self.oracle.ended(&player, queued.search, state);
                }
                client.last = queued;
            }
            PlayerTicketsDecision::Matched { player, matched } => {
                self.oracle.heard(&player, &matched);
                if searches == Some(matched.search) {
                    (client.wish, client.cancel) = (None, false);
                } else if searches.is_some() {
                    // The node does not know the search yet.
                    return;
                }
                client.matched = Some(matched).filter(|matched| !matched.over);
            }
            // No client here waits for that.
            PlayerTicketsDecision::Left { .. } | PlayerTicketsDecision::PlacesKnown { .. } => {}
        }
    }
}

/// Returns a `Queue` for a match of this mode.
pub(super) fn alone(mode: &str) -> v1::Queue {
    v1::Queue { mode: mode.to_string(), ..v1::Queue::default() }
}

/// Returns a `Queue` for a match with a party.
pub(super) fn party(mode: &str, party: &str, party_size: u32) -> v1::Queue {
    v1::Queue { party: party.to_string(), party_size, ..alone(mode) }
}
