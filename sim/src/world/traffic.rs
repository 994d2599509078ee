//! Traffic of connections: sending, and arrivals at the other end.

use bytes::Bytes;
use skirmish_core::id::ConnId;
use skirmish_core::wire::Frame;

use super::{World, WorldEvent};
use crate::history::{Actor, FramePassage};
use crate::network::{Conn, PipeItem, Way};
use crate::oracle::Verdict;

impl World<'_> {
    /// Opens a connection for the client.
    pub(super) fn dial(&mut self, client: usize) {
        let shape = &self.scenario.shape;
        let id = self.next_conn;
        self.next_conn += 1;
        let to = self.clients[client].choose(shape);
        self.conns.insert(id, Conn::new(client, to, shape.pipe_up, shape.pipe_down));
        self.clients[client].conn = Some(id);
        self.send(id, Way::Up, PipeItem::Open);
    }

    /// Puts an item into a pipe. The path decides when the item arrives.
    pub(super) fn send(&mut self, id: u64, way: Way, item: PipeItem) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let path = &mut self.client_paths[conn.client][conn.to];
        if let PipeItem::Frame(frame) = &item {
            let lane = if way == Way::Up { Actor::Client(conn.client) } else { Actor::Node(conn.to) };
            self.history.record(self.at, lane, format_args!("sends on {id}: {}", Label(frame)));
            self.history.frame(frame);
        }
        let due = self.at + path.travel();
        conn.pipe(way).push(item, self.at, due);
        self.schedule_arrival(id, way, 0);
    }

    /// Schedules the arrival of the first flight, unless a fault holds the flight back.
    pub(super) fn schedule_arrival(&mut self, id: u64, way: Way, not_before: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let held = (way == Way::Up && self.nodes[conn.to].holds(conn.node))
            || conn.vanished.is_some()
            || self.client_paths[conn.client][conn.to].is_cut(way)
            || (way == Way::Down && self.clients[conn.client].is_reading_nothing());
        let not_before = if way == Way::Up { not_before.max(conn.held_until) } else { not_before };
        let pipe = conn.pipe(way);
        let Some(due) = pipe.due().filter(|_| !held && !pipe.scheduled) else { return };
        pipe.scheduled = true;
        self.schedule(due.max(not_before), WorldEvent::Arrive(id, way));
    }

    /// Schedules all arrivals of a client's connections again, after the end of a fault that held
    /// them back.
    pub(super) fn schedule_arrivals(&mut self, client: usize, not_before: u64) {
        let of_client = |(id, conn): (&u64, &Conn)| (conn.client == client).then_some(*id);
        for id in self.conns.iter().filter_map(of_client).collect::<Vec<_>>() {
            self.schedule_arrival(id, Way::Up, not_before);
            self.schedule_arrival(id, Way::Down, not_before);
        }
    }

    /// Handles the arrival of the first flight of a pipe.
    pub(super) fn arrive(&mut self, id: u64, way: Way) -> Verdict {
        let Some(conn) = self.conns.get_mut(&id) else { return Ok(()) };
        let (client, node) = (conn.client, conn.to);
        conn.pipe(way).scheduled = false;
        let early = conn.pipe(way).due().is_some_and(|due| self.at < due);
        if early || (way == Way::Up && self.at < conn.held_until) {
            self.schedule_arrival(id, way, 0);
            return Ok(());
        }
        let paused = match way {
            Way::Up => self.nodes[node].is_paused() || self.nodes[node].holds(conn.node),
            Way::Down => self.clients[client].is_reading_nothing(),
        };
        if conn.vanished.is_some() || paused || self.client_paths[client][node].is_cut(way) {
            return Ok(());
        }
        let Some(flight) = conn.pipe(way).pop() else { return Ok(()) };
        if matches!((&flight.item, way), (PipeItem::Open, Way::Up)) && flight.due < self.nodes[node].resumed {
            conn.waited = Some(flight.due);
        }
        if let PipeItem::Frame(frame) = &flight.item
            && self.history.traced
        {
            let label = Label(frame).to_string();
            let (up, down) = (Actor::Client(client), Actor::Node(node));
            let (from, to) = if way == Way::Up { (up, down) } else { (down, up) };
            self.history.passages.push(FramePassage { from, to, sent: flight.sent, arrived: self.at, label });
        }
        let gap = if way == Way::Down { self.clients[client].read_gap } else { 0 };
        self.schedule_arrival(id, way, self.at + gap);
        match way {
            Way::Up => {
                self.arrive_at_node(id, flight.item)?;
                self.caught_up(id)?;
                self.client_can_write(id)?;
            }
            Way::Down => {
                self.arrive_at_client(id, flight.item)?;
                self.node_can_write(id)?;
            }
        }
        self.forget_if_over(id);
        Ok(())
    }

    /// Notifies the node that all received data of a connection is read, if the node has held the
    /// connection.
    fn caught_up(&mut self, id: u64) -> Verdict {
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let (node, name) = (conn.to, conn.node);
        if self.nodes[node].holds(name) {
            self.coverage.hit("connection held");
            return Ok(());
        }
        let drained = conn.up.due().is_none_or(|due| due > self.at);
        let machine = self.nodes[node].machine.as_ref();
        let behind = |name: &ConnId| machine.is_some_and(|machine| machine.is_behind(*name));
        let Some(name) = name.filter(behind).filter(|_| drained) else { return Ok(()) };
        self.node_input(node, |machine, now| machine.handle_drained(now, name))?;
        Ok(())
    }

    /// Drops a connection that neither end has any more.
    pub(super) fn forget_if_over(&mut self, id: u64) {
        let over = |conn: &Conn| {
            !conn.client_open && conn.node.is_none() && (conn.up.is_empty() || conn.vanished.is_some())
        };
        if self.conns.get(&id).is_some_and(over) {
            self.conns.remove(&id);
        }
    }

    /// Returns true if something keeps the node's frames from the client.
    pub(super) fn is_held_back(&self, client: usize) -> bool {
        let process = &self.clients[client];
        let conn = process.conn.and_then(|id| self.conns.get(&id));
        let standing =
            conn.is_some_and(|conn| conn.connected && conn.node.is_some() && conn.vanished.is_none());
        // A small pipe over a long way is slow: data under way holds back the rest.
        let full = conn.is_some_and(|conn| !conn.down.is_writable());
        !standing
            || full
            || conn.is_some_and(|conn| self.client_paths[client][conn.to].is_hurt())
            || process.is_troubled()
            || !process.is_connected()
    }
}

/// Text that names the kind of a frame.
pub(super) struct Label<'a>(pub(super) &'a Bytes);

impl std::fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The kind stands in the header, which is never sealed.
        match Frame::decode(self.0.clone(), usize::MAX) {
            Ok(frame) => {
                let name = match frame.message() {
                    Ok(kind) => kind.as_str_name().trim_start_matches("KIND_").to_lowercase(),
                    Err(unknown) => unknown.to_string(),
                };
                let flags = ["", " zstd", " sealed", " zstd sealed"][usize::from(frame.flags & 3)];
                write!(f, "{name} ({} bytes{flags})", self.0.len())
            }
            Err(error) => write!(f, "no frame ({error})"),
        }
    }
}
