//! Drives the node.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use skirmish_core::id::{Address, ConnId, Name};
use skirmish_core::node::{Event, Identity, Node, Output, Trace};
use skirmish_core::plant::Planted;
use skirmish_core::rng::{Rng, Seed};
use skirmish_core::time::{Duration, Now};

use super::{Happening, MAX_ROUNDS, World};
use crate::clock::Clock;
use crate::history::Lane;
use crate::network::{Item, Way};
use crate::oracle::{Guarantee, Observation, Verdict};
use crate::scenario::Shape;

/// The node's process: the machine while it is up, and what stays when it is not.
pub(super) struct NodeProcess {
    pub(super) machine: Option<Node>,
    pub(super) life: u32,
    pub(super) clock: Clock,
    paused: bool,
    /// While it is down: whether nobody is told.
    silent: bool,
    wakes: Option<u64>,
    spins: (u64, u32),
    rng: Rng,
    planted: Planted,
    ids: BTreeMap<ConnId, u64>,
    /// The connection that each player's session has.
    holders: BTreeMap<Name, ConnId>,
    /// Connections that were taken over and are still there.
    fenced: Vec<ConnId>,
}

impl NodeProcess {
    pub(super) fn new(shape: &Shape, clock: Clock, seed: Seed, planted: Planted) -> Self {
        let mut process = Self {
            machine: None,
            life: 0,
            clock,
            paused: false,
            silent: false,
            wakes: None,
            spins: (0, 0),
            rng: Rng::new(seed),
            planted,
            ids: BTreeMap::new(),
            holders: BTreeMap::new(),
            fenced: Vec::new(),
        };
        process.start(shape);
        process
    }

    fn start(&mut self, shape: &Shape) {
        self.life += 1;
        let seal_key = self.rng.bytes();
        // Epochs count from the incarnation: those of one life must not reach the next.
        let incarnation = u64::from(self.life) << 32;
        let mut node = Node::new(shape.node_config(), self.rng.split(), incarnation, Some(seal_key));
        node.plant(self.planted);
        self.machine = Some(node);
        self.silent = false;
    }

    pub(super) fn wakes(&self) -> Option<u64> {
        self.wakes.filter(|_| !self.paused)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether something is wrong with the process itself.
    pub(super) fn is_troubled(&self) -> bool {
        self.paused || self.machine.is_none()
    }
}

impl World<'_> {
    /// One input to the node, and everything that follows from it at this moment.
    pub(super) fn node_input<T>(
        &mut self,
        input: impl FnOnce(&mut Node, Now) -> T,
    ) -> Result<Option<T>, crate::oracle::Violation> {
        let now = self.node.clock.now(self.at);
        let Some(node) = self.node.machine.as_mut() else { return Ok(None) };
        let result = input(node, now);
        self.settle_node()?;
        Ok(Some(result))
    }

    pub(super) fn node_timeout(&mut self) -> Verdict {
        let spins = &mut self.node.spins;
        *spins = if spins.0 == self.at { (self.at, spins.1 + 1) } else { (self.at, 0) };
        if spins.1 > MAX_ROUNDS {
            let reason = self.node.machine.as_ref().and_then(Node::poll_timeout).map(|due| due.reason);
            return self.broken(
                Guarantee::Bounded,
                format!("the node's deadline ({reason:?}) does not go away when it is served"),
            );
        }
        self.node_input(Node::handle_timeout)?;
        Ok(())
    }

    /// Drains the node: outputs, then frames, until there are neither.
    fn settle_node(&mut self) -> Verdict {
        let mut closed = VecDeque::new();
        let mut echoes = VecDeque::new();
        for round in 0.. {
            if round > MAX_ROUNDS {
                return self.broken(Guarantee::Bounded, "the node's output has no end");
            }
            let mut woken = Vec::new();
            while let Some(output) = self.node.machine.as_mut().and_then(Node::poll_output) {
                if woken.len() > 100_000 {
                    return self.broken(Guarantee::Bounded, "the node's output has no end");
                }
                self.node_output(output, &mut woken, &mut echoes)?;
            }
            let idle = woken.is_empty();
            for id in woken {
                self.pump_node(id, &mut closed);
            }
            if !idle {
                continue;
            }
            // The last input is done with: the next one.
            let now = self.node.clock.now(self.at);
            let Some(node) = self.node.machine.as_mut() else { break };
            if let Some(conn) = closed.pop_front() {
                node.handle_closed(now, conn);
            } else if let Some((conn, type_url, payload)) = echoes.pop_front() {
                if node.send(now, conn, &type_url, &payload) {
                    self.coverage.hit("application echoed");
                }
            } else {
                break;
            }
        }
        let Some(node) = self.node.machine.as_ref() else { return Ok(()) };
        let due = node.poll_timeout();
        self.node.wakes = due.map(|due| self.node.clock.world(due.at).max(self.at));
        let result = node.audit();
        self.observe(Observation::Audit { result })
    }

    fn node_output(
        &mut self,
        output: Output,
        woken: &mut Vec<u64>,
        echoes: &mut VecDeque<(ConnId, String, Bytes)>,
    ) -> Verdict {
        match output {
            Output::Wake(conn) => {
                if let Some(&id) = self.node.ids.get(&conn) {
                    woken.push(id);
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.woken = true;
                    }
                }
                Ok(())
            }
            Output::Close(conn, reason) => {
                self.history.record(self.at, Lane::Node, format_args!("closes {conn}: {reason:?}"));
                if let Some(&id) = self.node.ids.get(&conn)
                    && let Some(conn) = self.conns.get_mut(&id)
                {
                    conn.closing = true;
                    conn.woken = true;
                    woken.push(id);
                }
                Ok(())
            }
            Output::Abort(conn) => {
                self.history.record(self.at, Lane::Node, format_args!("aborts {conn}"));
                if let Some(id) = self.detach(conn) {
                    self.send(id, Way::Down, Item::Reset);
                }
                Ok(())
            }
            Output::Event(event) => {
                self.history.record(self.at, Lane::Node, format_args!("{event:?}"));
                self.node_event(event, echoes)
            }
        }
    }

    fn node_event(&mut self, event: Event, echoes: &mut VecDeque<(ConnId, String, Bytes)>) -> Verdict {
        match event {
            Event::SessionOpened { conn, player, .. } => {
                self.coverage.hit("session opened");
                self.hold(conn, player);
            }
            Event::SessionResumed { conn, player, .. } => self.hold(conn, player),
            Event::SessionEnded { .. } => self.coverage.hit("session ended"),
            Event::ConnectionLost { .. } => self.coverage.hit("connection lost"),
            Event::Unhealthy { .. } => self.coverage.hit("connection unhealthy"),
            Event::RoomOpened { .. } => self.coverage.hit("room opened"),
            Event::RoomClosed { .. } => self.coverage.hit("room closed"),
            Event::Application { conn, type_url, payload, .. } => echoes.push_back((conn, type_url, payload)),
            Event::Misbehaved { conn, what } => {
                // Every client here is the real one: it never misbehaves.
                let client = self.node.ids.get(&conn).and_then(|id| self.conns.get(id)).map(|c| c.client);
                return self.broken(
                    Guarantee::Liveness,
                    format!("the node accuses client {client:?}, which is honest: {what}"),
                );
            }
        }
        Ok(())
    }

    /// The player's session has this connection now; another one that it had is fenced.
    fn hold(&mut self, conn: ConnId, player: Name) {
        if let Some(before) = self.node.holders.insert(player, conn)
            && before != conn
            && self.node.ids.contains_key(&before)
        {
            self.node.fenced.push(before);
            self.release_behind(before);
        }
    }

    /// What was held back until its connection was taken over arrives now.
    fn release_behind(&mut self, before: ConnId) {
        let Some(&id) = self.node.ids.get(&before) else { return };
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.released_by_takeover) else { return };
        conn.held_until = self.at;
        // It is scheduled for later; that arrival finds what is there then, or nothing.
        conn.up.scheduled = false;
        self.schedule_arrival(id, Way::Up, self.at);
    }

    /// Asks the node for frames as long as the connection takes them.
    fn pump_node(&mut self, id: u64, closed: &mut VecDeque<ConnId>) {
        let now = self.node.clock.now(self.at);
        loop {
            let Some(conn) = self.conns.get(&id) else { return };
            let Some(name) = conn.node.filter(|_| conn.woken) else { return };
            if !conn.down.is_writable() {
                self.coverage.hit("back-pressure at node");
                return;
            }
            let (closing, fin_sent) = (conn.closing, conn.fin_sent);
            let waits = self.scenario.shape.close_waits > 0 && conn.client_open;
            match self.node.machine.as_mut().and_then(|node| node.poll_transmit(now, name)) {
                Some(frame) => self.send(id, Way::Down, Item::Frame(frame)),
                None => {
                    if let Some(conn) = self.conns.get_mut(&id) {
                        conn.woken = false;
                        conn.fin_sent = closing;
                    }
                    if closing && !fin_sent {
                        self.send(id, Way::Down, Item::Fin);
                        if !waits {
                            self.detach(name);
                            closed.push_back(name);
                        }
                    }
                    return;
                }
            }
        }
    }

    /// A pipe to a client has room again.
    pub(super) fn node_can_write(&mut self, id: u64) -> Verdict {
        if self.node.is_paused() || !self.conns.get(&id).is_some_and(|conn| conn.woken) {
            return Ok(());
        }
        let mut closed = VecDeque::new();
        self.pump_node(id, &mut closed);
        self.settle_node()?;
        for conn in closed {
            self.node_input(|node, now| node.handle_closed(now, conn))?;
        }
        Ok(())
    }

    /// The node's end of the connection is gone.
    fn detach(&mut self, conn: ConnId) -> Option<u64> {
        let id = self.node.ids.remove(&conn)?;
        self.node.fenced.retain(|fenced| *fenced != conn);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.node = None;
            conn.woken = false;
        }
        Some(id)
    }

    pub(super) fn arrive_at_node(&mut self, id: u64, item: Item) -> Verdict {
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let (client, name) = (conn.client, conn.node);
        if self.node.machine.is_none() && self.node.silent {
            return Ok(());
        }
        match (item, name) {
            (Item::Open, None) => self.accept(id, client),
            (Item::Frame(frame), Some(conn)) => self.node_frame(client, conn, frame),
            (Item::Fin | Item::Reset, Some(conn)) => {
                self.detach(conn);
                self.node_input(|node, now| node.handle_closed(now, conn))?;
                Ok(())
            }
            // The node's end is gone: its host says so.
            (Item::Frame(_), None) => {
                self.send(id, Way::Down, Item::Reset);
                Ok(())
            }
            (Item::Open, Some(_)) | (Item::Fin | Item::Reset, None) => Ok(()),
        }
    }

    fn accept(&mut self, id: u64, client: usize) -> Verdict {
        let mut address = [0; 16];
        address[15] = u8::try_from(client).unwrap_or(u8::MAX);
        let now = self.node.clock.now(self.at);
        let accepted = self.node.machine.as_mut().map(|node| node.handle_accept(now, Address(address)));
        match accepted {
            Some(Ok(name)) => {
                self.node.ids.insert(name, id);
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.node = Some(name);
                }
                let upgrade = self.rng.range(0..=self.scenario.shape.upgrade_us);
                self.schedule(self.at + upgrade, Happening::Upgrade(id));
                self.settle_node()
            }
            Some(Err(refusal)) => {
                self.coverage.hit("connection refused");
                self.history.record(self.at, Lane::Node, format_args!("refuses {id}: {refusal:?}"));
                self.send(id, Way::Down, Item::Reset);
                self.settle_node()
            }
            None => {
                self.send(id, Way::Down, Item::Reset);
                Ok(())
            }
        }
    }

    /// The connection's token has been checked.
    pub(super) fn upgrade(&mut self, id: u64) -> Verdict {
        if self.node.is_paused() {
            self.schedule(self.at + 1_000, Happening::Upgrade(id));
            return Ok(());
        }
        let Some(conn) = self.conns.get(&id) else { return Ok(()) };
        let Some(name) = conn.node.filter(|_| !conn.closing) else { return Ok(()) };
        let player = self.clients[conn.client].player.clone();
        self.send(id, Way::Down, Item::Open);
        let token = Bytes::copy_from_slice(player.as_str().as_bytes());
        let identity = Identity { player, token, trace: Trace::default() };
        self.node_input(|node, now| node.handle_upgraded(now, name, identity))?;
        Ok(())
    }

    fn node_frame(&mut self, client: usize, conn: ConnId, frame: Bytes) -> Verdict {
        if !self.node.fenced.contains(&conn) {
            self.node_input(|node, now| node.handle_frame(now, conn, frame))?;
            return Ok(());
        }
        self.coverage.hit("fenced input");
        let before = self.written();
        self.node_input(|node, now| node.handle_frame(now, conn, frame))?;
        self.observe(Observation::Fenced { client, written: (before, self.written()) })
    }

    /// Grows with everything that clients can write.
    fn written(&self) -> u64 {
        let Some(node) = self.node.machine.as_ref() else { return 0 };
        let rooms = 0..self.scenario.shape.rooms;
        let changes = rooms.filter_map(|room| node.replica(&super::client::room_name(room)));
        node.stats().entries + changes.map(skirmish_core::crdt::Replica::change).sum::<u64>()
    }

    pub(super) fn kick(&mut self, player: &Name) -> Verdict {
        self.node_input(|node, now| node.kick(now, player.as_str()))?;
        Ok(())
    }

    pub(super) fn pause_node(&mut self, millis: u64) {
        if !self.node.paused {
            self.node.paused = true;
            self.trouble(Lane::Node, "paused");
            self.schedule(self.at + millis * 1_000, Happening::NodeResumes(self.node.life));
        }
    }

    pub(super) fn resume_node(&mut self, life: u32) -> Verdict {
        if life != self.node.life || !self.node.paused {
            return Ok(());
        }
        self.node.paused = false;
        self.relief(Lane::Node, "paused");
        self.rouse_node()
    }

    /// What waited for the node goes on.
    fn rouse_node(&mut self) -> Verdict {
        for client in 0..self.clients.len() {
            self.schedule_arrivals(client, self.at);
        }
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            self.node_can_write(id)?;
        }
        Ok(())
    }

    /// The node dies with everything it had; it is started again later.
    pub(super) fn crash_node(&mut self, millis: u64, silent: bool) -> Verdict {
        if self.node.machine.is_none() {
            return Ok(());
        }
        self.coverage.hit("node crash");
        self.stop_node(silent);
        self.schedule(self.at + millis * 1_000, Happening::NodeStarts);
        Ok(())
    }

    fn stop_node(&mut self, silent: bool) {
        self.retire_node_stats();
        self.trouble(Lane::Node, "down");
        let node = &mut self.node;
        (node.machine, node.wakes, node.silent) = (None, None, silent);
        let names: Vec<ConnId> = node.ids.keys().copied().collect();
        node.holders.clear();
        if node.paused {
            node.paused = false;
            self.relief(Lane::Node, "paused");
        }
        for name in names {
            let Some(id) = self.detach(name) else { continue };
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            // Of what the node had handed over, some had left the host.
            let keep = self.links[conn.client].below(conn.down.len());
            conn.down.truncate(keep);
            if !silent {
                self.send(id, Way::Down, Item::Reset);
            }
            self.forget_if_over(id);
        }
    }

    pub(super) fn start_node(&mut self) -> Verdict {
        if self.node.machine.is_some() {
            return Ok(());
        }
        self.history.record(self.at, Lane::Node, format_args!("starts"));
        self.node.clock = self.node.clock.restarted(self.at);
        self.node.start(&self.scenario.shape);
        self.relief(Lane::Node, "down");
        self.settle_node()?;
        self.rouse_node()
    }

    pub(super) fn drain_node(&mut self, millis: u64) -> Verdict {
        self.coverage.hit("node drain");
        let life = self.node.life;
        self.node_input(|node, now| node.drain(now, Duration::from_millis(millis)))?;
        self.schedule(self.at + millis * 1_000, Happening::NodeStops(life));
        Ok(())
    }

    pub(super) fn stop_drained(&mut self, life: u32) -> Verdict {
        if life != self.node.life || self.node.machine.is_none() {
            return Ok(());
        }
        self.stop_node(false);
        self.start_node()
    }

    /// Adds what the node counted to the marks, at the end of its life.
    pub(super) fn retire_node_stats(&mut self) {
        let Some(stats) = self.node.machine.as_ref().map(Node::stats) else { return };
        let marks = [
            ("session resumed", stats.resumes),
            ("take-over", stats.takeovers),
            ("heartbeat timeout", stats.heartbeat_timeouts),
            ("duplicate said", stats.duplicates),
            ("throttled at node", stats.throttled),
            ("latest conflated", stats.conflated),
            ("protocol error", stats.protocol_errors),
        ];
        for (mark, count) in marks {
            self.coverage.add(mark, count);
        }
    }
}
