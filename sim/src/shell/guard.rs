//! What is remembered to see whether a room has two primaries and a player two sessions
//! that write. The servers are looked at whenever an application is told something, and
//! now and then.

use std::collections::BTreeMap;

use skirmish_core::client::ClientState;
use skirmish_core::id::{Cursor, NodeId};

use super::ledger::{Ledger, at};
use crate::oracle::{DeliveredEntry, Observation, RoomNumber, Who};

/// See the module.
#[derive(Default)]
pub(super) struct WriteWatch {
    /// How far each server was in the rooms that it led.
    leads: BTreeMap<(usize, RoomNumber), Lead>,
    /// Where each player was let in last, by player and room.
    seats: BTreeMap<(usize, RoomNumber), Entrance>,
    /// By serial: what was said by whoever had no session any more.
    fenced: BTreeMap<u64, FencedWrite>,
}

/// A server that leads a room, when it was last looked at.
#[derive(Clone, Copy)]
struct Lead {
    life: u32,
    head: Cursor,
    serves: bool,
}

/// A member that was told that it is one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entrance {
    who: Who,
    /// Epoch of its session: newer ones of a player have higher ones.
    session: u64,
    /// Life of the room.
    epoch: u64,
    /// When it was told: whoever has left in between is another one.
    at: u64,
}

/// Why a message must not be written.
#[derive(Clone, Copy)]
struct FencedWrite {
    who: Who,
    /// The session that it was said in, and since when that is over.
    session: u64,
    since: Option<u64>,
    /// Who has been let into the room since, if it is on another server perhaps.
    by: Option<Entrance>,
}

/// What a server says of itself.
pub(super) struct ServerView {
    pub(super) id: NodeId,
    pub(super) serves: bool,
    /// For each room that anybody may have: the epoch in which it leads it, and the newest
    /// entry.
    pub(super) rooms: BTreeMap<RoomNumber, (Option<u64>, Option<Cursor>)>,
}

impl Ledger {
    /// What the servers say of themselves; `None` for those that do not run.
    pub(super) fn views(&self) -> Vec<Option<ServerView>> {
        let rooms = self.open_rooms();
        let view = |server: &super::seats::ServerSeat| {
            let now = server.clock.as_ref()?.now().instant;
            Some(server.handle.as_ref()?.inspect(|node| ServerView {
                id: node.id(),
                serves: node.is_serving(now),
                rooms:
                    rooms.iter().map(|(room, name)| (*room, (node.leads(name), node.head(name)))).collect(),
            }))
        };
        self.servers.iter().map(view).collect()
    }

    /// Looks at the rooms that servers lead.
    pub(super) fn sample(&mut self) {
        let views = self.views();
        for (room, _) in self.open_rooms() {
            let mut serving = 0;
            for (server, view) in views.iter().enumerate() {
                let led = view.as_ref().and_then(|view| {
                    let (epoch, head) = view.rooms.get(&room).copied()?;
                    Some((epoch?, head?, view.serves))
                });
                let Some((epoch, head, serves)) = led else {
                    self.guard.leads.remove(&(server, room));
                    continue;
                };
                let node = (server, self.servers[server].life);
                let lead = Lead { life: node.1, head, serves };
                let before = self.guard.leads.insert((server, room), lead);
                let before = before.filter(|lead| lead.life == node.1 && lead.head.epoch == epoch);
                if before.is_none() {
                    self.observe(&Observation::Leads { node, room, epoch });
                }
                if let Some(before) = before
                    && before.head.seq < head.seq
                {
                    // It wrote while it served, if it did at either end.
                    let serves = serves || before.serves;
                    self.observe(&Observation::Appended { node, room, epoch, serves });
                }
                serving |= u32::from(serves) << server;
            }
            self.observe(&Observation::Serving { room, nodes: serving });
        }
    }

    /// Whether two servers lack a link, one does not serve, or has a room whose primary is
    /// gone or is not seen to be.
    pub(super) fn is_disunited(&self) -> bool {
        let views: Vec<ServerView> = self.views().into_iter().flatten().collect();
        let is_linked = |handle: &skirmish_io::server::Handle| {
            handle.inspect(|node| views.iter().all(|other| other.id == node.id() || node.is_linked(other.id)))
        };
        let lost = |room: RoomNumber| {
            let of_room = || views.iter().filter_map(|view| view.rooms.get(&room));
            let led: Vec<u64> = of_room().filter_map(|(led, _)| *led).collect();
            of_room().filter_map(|(_, head)| *head).any(|head| !led.contains(&head.epoch))
        };
        views.iter().any(|view| !view.serves)
            || !self.servers.iter().filter_map(|server| server.handle.as_ref()).all(is_linked)
            || self.open_rooms().into_iter().any(|(room, _)| lost(room))
    }

    /// The client has its player's session, unless it was told so late. Epochs say who
    /// was later, but start again with a session that is new where the registry does not
    /// outlive the server.
    pub(super) fn holds(&mut self, client: usize, epoch: u64) {
        let at = at();
        let seat = &mut self.seats[client];
        (seat.superseded, seat.epoch) = (None, epoch);
        let (player, late) = (seat.player, seat.is_late(at));
        if late || at < self.unsettled_until {
            return;
        }
        for (other, seat) in self.seats.iter_mut().enumerate() {
            if other != client && seat.player == player && seat.running && seat.epoch < epoch {
                seat.superseded.get_or_insert(at);
            }
        }
    }

    /// The client was told that it is a member.
    pub(super) fn let_in(&mut self, who: Who, room: RoomNumber, epoch: u64) {
        let seat = &self.seats[who.client];
        let entrance = Entrance { who, session: seat.epoch, epoch, at: at() };
        let known = self.guard.seats.entry((seat.player, room)).or_insert(entrance);
        let again = Entrance { at: known.at, ..entrance } == *known;
        let newer = known.session <= entrance.session || self.seats[known.who.client].life != known.who.life;
        if newer && !again {
            *known = entrance;
        }
    }

    /// The client says something. Not to be written is what it says after another one has
    /// got the session of its player; on another server, after that was let into the room.
    pub(super) fn fence(&mut self, who: Who, room: RoomNumber, serial: u64) {
        let seat = &self.seats[who.client];
        let fence = FencedWrite { who, session: seat.epoch, since: seat.superseded, by: None };
        if self.servers.len() == 1 {
            if fence.since.is_some() {
                self.guard.fenced.insert(serial, fence);
            }
            return;
        }
        let newest = self.guard.seats.get(&(seat.player, room)).copied();
        if let Some(by) = newest.filter(|by| by.who != who && by.session > seat.epoch) {
            self.guard.fenced.insert(serial, FencedWrite { by: Some(by), ..fence });
        }
    }

    /// G7, as far as it shows from the outside: what was said behind the fence, and before
    /// its sender has a session again, reaches nobody.
    pub(super) fn delivered(&mut self, entry: &DeliveredEntry) {
        let fence = entry.serial.and_then(|serial| self.guard.fenced.get(&serial).copied());
        let Some(FencedWrite { who, session, since, by }) = fence else { return };
        let seat = &self.seats[who.client];
        let late = seat.is_late(at());
        let over = by.is_some() || seat.superseded == since;
        let same = seat.life == who.life && seat.epoch == session && over;
        // The other one has its session still, and is in the room.
        let stands = by.is_none_or(|by| {
            let other = &self.seats[by.who.client];
            other.life == by.who.life
                && other.epoch == by.session
                && other.state == ClientState::Connected
                && self.guard.seats.get(&(seat.player, entry.room)) == Some(&by)
                && entry.cursor.epoch == by.epoch
        });
        if same && stands && !late {
            self.observe(&Observation::Fenced { client: who.client, written: (0, 1) });
        }
    }
}
