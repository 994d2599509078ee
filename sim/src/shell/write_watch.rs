//! Memory by which a second primary of a room and a second writing session of a player are found.
//! The servers are inspected at every event of an application, and regularly in between.

use std::collections::BTreeMap;

use skirmish_core::client::ClientState;
use skirmish_core::id::{Cursor, NodeId};
use skirmish_core::node::Node;
use skirmish_core::time::Instant;

use super::ledger::{Ledger, at};
use crate::oracle::{ClientLife, DeliveredEntry, Observation, RoomNumber};

/// State of the module.
#[derive(Default)]
pub(super) struct WriteWatch {
    /// Last head of each room on each server that led it.
    leads: BTreeMap<(usize, RoomNumber), LedRoom>,
    /// Last join of each player to each room.
    joins: BTreeMap<(usize, RoomNumber), PlayerJoin>,
    /// By serial: messages of senders whose session was superseded.
    fenced: BTreeMap<u64, FencedWrite>,
}

/// A server that leads a room, as of the last inspection.
#[derive(Clone, Copy)]
struct LedRoom {
    life: u32,
    head: Cursor,
    serves: bool,
}

/// A join of which the member was notified.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PlayerJoin {
    client_life: ClientLife,
    /// Epoch of the member's session: newer sessions of a player have higher epochs.
    session: u64,
    /// Epoch of the room.
    epoch: u64,
    /// Time of the notification: a membership after a leave has another time.
    at: u64,
}

/// Reason why a message must not be written.
#[derive(Clone, Copy)]
struct FencedWrite {
    client_life: ClientLife,
    /// Session of the message, and the time since which the session is superseded.
    session: u64,
    since: Option<u64>,
    /// Member of the player that has joined the room since, possibly on another server.
    by: Option<PlayerJoin>,
}

/// State of a server as its node reports it.
pub(super) struct ServerView {
    pub(super) id: NodeId,
    pub(super) serves: bool,
    pub(super) rooms: BTreeMap<RoomNumber, RoomView>,
}

/// State of an open room on a server.
#[derive(Clone, Copy)]
pub(super) struct RoomView {
    /// Epoch and term in which the server leads the room.
    pub(super) reign: Option<(u64, u32)>,
    /// The newest entry.
    pub(super) head: Option<Cursor>,
    may_change: bool,
    commits_alone: bool,
}

impl RoomView {
    fn of(node: &Node, now: Instant, room: &str) -> Self {
        Self {
            reign: node.reign(room),
            head: node.head(room),
            may_change: node.may_change(now, room),
            commits_alone: node.commits_alone(now, room),
        }
    }
}

impl Ledger {
    /// Returns the state of each server; `None` for a server that does not run.
    pub(super) fn views(&self) -> Vec<Option<ServerView>> {
        let rooms = self.open_rooms();
        let view = |server: &super::processes::HostedServer| {
            let now = server.clock.as_ref()?.now().instant;
            Some(server.handle.as_ref()?.inspect(|node| ServerView {
                id: node.id(),
                serves: node.is_serving(now),
                rooms: rooms.iter().map(|(room, name)| (*room, RoomView::of(node, now, name))).collect(),
            }))
        };
        self.servers.iter().map(view).collect()
    }

    /// Inspects the rooms that servers lead.
    pub(super) fn sample(&mut self) {
        let views = self.views();
        for (room, _) in self.open_rooms() {
            let mut serving = 0;
            for (server, view) in views.iter().enumerate() {
                let led = view.as_ref().and_then(|view| {
                    let room = view.rooms.get(&room).copied()?;
                    Some((room.reign?, room.head?, room.may_change, room.commits_alone))
                });
                let Some(((epoch, term), head, serves, is_alone)) = led else {
                    self.write_watch.leads.remove(&(server, room));
                    continue;
                };
                let node = (server, self.servers[server].life);
                let lead = LedRoom { life: node.1, head, serves };
                let before = self.write_watch.leads.insert((server, room), lead);
                let before = before.filter(|lead| lead.life == node.1 && lead.head.epoch == epoch);
                if before.is_none() {
                    self.observe(&Observation::Leads { node, room, epoch, term });
                }
                if let Some(before) = before
                    && before.head.seq < head.seq
                {
                    // The server wrote while it served if it served before or after the writing.
                    let serves = serves || before.serves;
                    self.observe(&Observation::Appended { node, room, epoch, term, serves });
                }
                serving |= u32::from(is_alone) << server;
            }
            self.observe(&Observation::Serving { room, nodes: serving });
        }
    }

    /// Returns true if two servers lack a link, or a server does not serve or has a room without a
    /// known primary.
    pub(super) fn is_disunited(&self) -> bool {
        let views: Vec<ServerView> = self.views().into_iter().flatten().collect();
        let is_linked = |handle: &skirmish_io::server::Handle| {
            handle.inspect(|node| views.iter().all(|other| other.id == node.id() || node.is_linked(other.id)))
        };
        let lost = |room: RoomNumber| {
            let of_room = || views.iter().filter_map(|view| view.rooms.get(&room));
            let led: Vec<u64> = of_room().filter_map(|room| Some(room.reign?.0)).collect();
            of_room().filter_map(|room| room.head).any(|head| !led.contains(&head.epoch))
        };
        views.iter().any(|view| !view.serves)
            || !self.servers.iter().filter_map(|server| server.handle.as_ref()).all(is_linked)
            || self.open_rooms().into_iter().any(|(room, _)| lost(room))
    }

    /// Records that the client has its player's session, unless the client may have been notified
    /// late. Epochs order the sessions. If the registry does not outlive the server, epochs start
    /// again with a new session.
    pub(super) fn holds(&mut self, client: usize, epoch: u64) {
        let at = at();
        let process = &mut self.clients[client];
        (process.superseded, process.epoch) = (None, epoch);
        let (player, late) = (process.player, process.is_late(at));
        if late || at < self.unsettled_until {
            return;
        }
        for (other, process) in self.clients.iter_mut().enumerate() {
            if other != client && process.player == player && process.running && process.epoch < epoch {
                process.superseded.get_or_insert(at);
            }
        }
    }

    /// Records that the client was notified of a join.
    pub(super) fn note_joined(&mut self, client_life: ClientLife, room: RoomNumber, epoch: u64) {
        let process = &self.clients[client_life.client];
        let join = PlayerJoin { client_life, session: process.epoch, epoch, at: at() };
        let known = self.write_watch.joins.entry((process.player, room)).or_insert(join);
        let again = PlayerJoin { at: known.at, ..join } == *known;
        let newer = known.session <= join.session
            || self.clients[known.client_life.client].life != known.client_life.life;
        if newer && !again {
            *known = join;
        }
    }

    /// Records a message that must not be written: one that is said after another client has got
    /// the session of the player. With several servers this holds once the other client has joined
    /// the room.
    pub(super) fn fence(&mut self, client_life: ClientLife, room: RoomNumber, serial: u64) {
        let process = &self.clients[client_life.client];
        let fence = FencedWrite { client_life, session: process.epoch, since: process.superseded, by: None };
        if self.servers.len() == 1 {
            if fence.since.is_some() {
                self.write_watch.fenced.insert(serial, fence);
            }
            return;
        }
        let newest = self.write_watch.joins.get(&(process.player, room)).copied();
        if let Some(by) = newest.filter(|by| by.client_life != client_life && by.session > process.epoch) {
            self.write_watch.fenced.insert(serial, FencedWrite { by: Some(by), ..fence });
        }
    }

    /// Checks G7 as far as it shows from the outside: a message behind the fence reaches nobody, if
    /// its sender has no session again.
    pub(super) fn delivered(&mut self, entry: &DeliveredEntry) {
        let fence = entry.serial.and_then(|serial| self.write_watch.fenced.get(&serial).copied());
        let Some(FencedWrite { client_life, session, since, by }) = fence else { return };
        let process = &self.clients[client_life.client];
        let late = process.is_late(at());
        let over = by.is_some() || process.superseded == since;
        let same = process.life == client_life.life && process.epoch == session && over;
        // The other client still has its session, and is in the room.
        let stands = by.is_none_or(|by| {
            let other = &self.clients[by.client_life.client];
            other.life == by.client_life.life
                && other.epoch == by.session
                && other.state == ClientState::Connected
                && self.write_watch.joins.get(&(process.player, entry.room)) == Some(&by)
                && entry.cursor.epoch == by.epoch
        });
        if same && stands && !late {
            self.observe(&Observation::Fenced { client: client_life.client, written: (0, 1) });
        }
    }
}
