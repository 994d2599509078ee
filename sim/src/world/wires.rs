//! Byte streams between nodes, and their arrivals.

use skirmish_core::id::{LinkId, NodeId};
use skirmish_core::node::Node;

use super::traffic::Label;
use super::{World, WorldEvent};
use crate::history::{Actor, FramePassage};
use crate::network::{NetworkPath, PipeItem, Way, Wire};
use crate::oracle::Verdict;

/// Direction from one node to another on the road between them.
const fn way(from: usize, to: usize) -> Way {
    if from < to { Way::Up } else { Way::Down }
}

impl World<'_> {
    /// Returns the road between two nodes; `None` from a node to itself.
    pub(super) fn road(&mut self, one: usize, other: usize) -> Option<&mut NetworkPath> {
        self.roads.get_mut(&(one.min(other), one.max(other)))
    }

    pub(super) fn is_road_cut(&self, from: usize, to: usize) -> bool {
        self.roads.get(&(from.min(to), from.max(to))).is_none_or(|road| road.is_cut(way(from, to)))
    }

    /// Dials another node for a stream.
    pub(super) fn dial_node(&mut self, from: usize, to: usize, dialed: NodeId) {
        let id = self.next_wire;
        self.next_wire += 1;
        let to = to % self.nodes.len();
        self.wires.insert(id, Wire::new(from, to, dialed, self.scenario.shape.node_pipe));
        self.send_wire(id, 0, PipeItem::Open);
        let timeout = self.nodes[from].machine.as_ref().map(|node| node.config().links.handshake_timeout);
        let process = &self.nodes[from];
        let over = process.clock.now(self.at).instant + timeout.unwrap_or_default();
        self.schedule(process.clock.world(over), WorldEvent::DialOver(id));
    }

    /// Ends a dial that was not answered in time.
    pub(super) fn dial_over(&mut self, id: u64) -> Verdict {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let end = &mut wire.ends[0];
        if !end.open || end.link.is_some() {
            return Ok(());
        }
        let (node, dialed) = (end.node, wire.dialed);
        if self.nodes[node].is_paused() {
            self.nodes[node].deferred.push(WorldEvent::DialOver(id));
            return Ok(());
        }
        end.open = false;
        self.send_wire(id, 0, PipeItem::Fin);
        self.forget_wire(id);
        self.node_input(node, |machine, now| machine.handle_dial_failed(now, dialed))?;
        Ok(())
    }

    /// Puts an item into a wire at one of its ends.
    fn send_wire(&mut self, id: u64, end: usize, item: PipeItem) {
        let Some(wire) = self.wires.get(&id) else { return };
        let (from, to) = (wire.ends[end].node, wire.ends[1 - end].node);
        if let PipeItem::Frame(frame) = &item {
            let lane = Actor::Node(from);
            self.history.record(
                self.at,
                lane,
                format_args!("sends on wire {id} to node {to}: {}", Label(frame)),
            );
            self.history.frame(frame);
        }
        let at = self.at;
        let Some(road) = self.road(from, to) else { return };
        let due = at + road.travel();
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.pipes[end].push(item, at, due);
        }
        self.schedule_wire(id, end, 0);
    }

    /// Schedules the arrival of the first flight from an end, unless a fault holds the flight back.
    fn schedule_wire(&mut self, id: u64, end: usize, not_before: u64) {
        let Some(wire) = self.wires.get(&id) else { return };
        let (from, to) = (wire.ends[end].node, wire.ends[1 - end].node);
        let held = wire.vanished || self.nodes[to].is_paused() || self.is_road_cut(from, to);
        let Some(pipe) = self.wires.get_mut(&id).map(|wire| &mut wire.pipes[end]) else { return };
        let Some(due) = pipe.due().filter(|_| !held && !pipe.scheduled) else { return };
        pipe.scheduled = true;
        self.schedule(due.max(not_before), WorldEvent::WireArrives(id, end));
    }

    /// Schedules all arrivals again, after a fault that held some of them back has ended.
    pub(super) fn schedule_wires(&mut self, not_before: u64) {
        for id in self.wires.keys().copied().collect::<Vec<_>>() {
            self.schedule_wire(id, 0, not_before);
            self.schedule_wire(id, 1, not_before);
        }
    }

    /// Handles the arrival of the first flight from an end at the other end.
    pub(super) fn wire_arrives(&mut self, id: u64, end: usize) -> Verdict {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let (from, to, vanished) = (wire.ends[end].node, wire.ends[1 - end].node, wire.vanished);
        let pipe = &mut wire.pipes[end];
        pipe.scheduled = false;
        if pipe.due().is_some_and(|due| self.at < due) {
            self.schedule_wire(id, end, 0);
            return Ok(());
        }
        if vanished || self.nodes[to].is_paused() || self.is_road_cut(from, to) {
            return Ok(());
        }
        let Some(flight) = self.wires.get_mut(&id).and_then(|wire| wire.pipes[end].pop()) else {
            return Ok(());
        };
        if let PipeItem::Frame(frame) = &flight.item
            && self.history.traced
        {
            let (from, to) = (Actor::Node(from), Actor::Node(to));
            let (sent, label) = (flight.sent, Label(frame).to_string());
            self.history.passages.push(FramePassage { from, to, sent, arrived: self.at, label });
        }
        self.schedule_wire(id, end, 0);
        self.take_wire_item(id, 1 - end, flight.item)?;
        self.wire_can_write(id, end)?;
        self.forget_wire(id);
        Ok(())
    }

    /// Handles an item that arrived at an end of a wire.
    fn take_wire_item(&mut self, id: u64, end: usize, item: PipeItem) -> Verdict {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let dialed = wire.dialed;
        let at = &mut wire.ends[end];
        let (node, open, link) = (at.node, at.open, at.link);
        if self.nodes[node].machine.is_none() && self.nodes[node].silent {
            return Ok(());
        }
        match (item, link) {
            (PipeItem::Open, None) if end == 1 => self.link_up(id, end, None),
            (PipeItem::Open, None) if open => self.link_up(id, end, Some(dialed)),
            (PipeItem::Open, _) => Ok(()),
            (PipeItem::Frame(frame), Some(link)) => self.link_frame(id, end, link, frame),
            (PipeItem::Frame(_), None) => {
                self.send_wire(id, end, PipeItem::Reset);
                Ok(())
            }
            (PipeItem::Fin | PipeItem::Reset, link) => {
                at.open = false;
                at.link = None;
                if let Some(link) = link {
                    self.nodes[node].wires.remove(&link);
                    self.node_input(node, |machine, now| machine.handle_link_closed(now, link))?;
                } else if open && end == 0 {
                    self.node_input(node, |machine, now| machine.handle_dial_failed(now, dialed))?;
                }
                Ok(())
            }
        }
    }

    /// Notifies a node's machine of a wire.
    fn link_up(&mut self, id: u64, end: usize, dialed: Option<NodeId>) -> Verdict {
        let ends = self.wires.get(&id).map(|wire| (wire.ends[end].node, wire.ends[1 - end].node));
        let Some((node, caller)) = ends else { return Ok(()) };
        let process = &mut self.nodes[node];
        let now = process.clock.now(self.at);
        let link = process.machine.as_mut().and_then(|machine| match dialed {
            Some(node) => machine.handle_link(now, node),
            None => machine.handle_caller(now, super::connections::address(caller)),
        });
        if let Some(link) = link {
            process.wires.insert(link, (id, end));
        }
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.ends[end].link = link;
            wire.ends[end].open = link.is_some();
        }
        match link {
            Some(_) if dialed.is_none() => self.send_wire(id, end, PipeItem::Open),
            Some(_) => {}
            None => self.send_wire(id, end, PipeItem::Reset),
        }
        self.settle_node(node)
    }

    /// Asks a node for frames as long as the wire accepts them.
    pub(super) fn pump_wire(&mut self, id: u64, end: usize) {
        loop {
            let Some(wire) = self.wires.get_mut(&id) else { return };
            let at = &mut wire.ends[end];
            let Some(link) = at.link.filter(|_| at.woken) else { return };
            if !wire.pipes[end].is_writable() {
                self.coverage.hit("back-pressure at link");
                return;
            }
            let process = &mut self.nodes[at.node];
            let now = process.clock.now(self.at);
            let frame = process.machine.as_mut().and_then(|machine| machine.poll_link_transmit(now, link));
            at.woken = frame.is_some();
            let Some(frame) = frame else { return };
            self.send_wire(id, end, PipeItem::Frame(frame));
        }
    }

    /// Continues to send, since a wire has room again.
    pub(super) fn wire_can_write(&mut self, id: u64, end: usize) -> Verdict {
        let Some(wire) = self.wires.get(&id) else { return Ok(()) };
        let node = wire.ends[end].node;
        if !wire.ends[end].woken || self.nodes[node].is_paused() {
            return Ok(());
        }
        self.pump_wire(id, end);
        self.settle_node(node)
    }

    /// Closes a wire whose link a node's machine has dropped. Some of the sent frames may be lost.
    pub(super) fn close_link(&mut self, node: usize, link: LinkId) {
        let Some((id, end)) = self.nodes[node].wires.remove(&link) else { return };
        self.drop_end(id, end, Some(PipeItem::Fin));
    }

    /// Closes an end of a wire and loses some of its sent frames. The other end is notified if
    /// `told` is set.
    fn drop_end(&mut self, id: u64, end: usize, told: Option<PipeItem>) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.ends[end].open = false;
        wire.ends[end].link = None;
        let (len, node, other) = (wire.pipes[end].len(), wire.ends[end].node, wire.ends[1 - end].node);
        let keep = self.road(node, other).map_or(0, |road| road.below(len));
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.pipes[end].truncate(keep);
        }
        if let Some(item) = told {
            self.send_wire(id, end, item);
        }
        self.forget_wire(id);
    }

    /// Closes all ends of wires of a node whose process is gone.
    pub(super) fn lose_wires(&mut self, node: usize, silent: bool) {
        self.nodes[node].wires.clear();
        for id in self.wires.keys().copied().collect::<Vec<_>>() {
            for end in 0..2 {
                let ours = |wire: &Wire| wire.ends[end].node == node && wire.ends[end].open;
                if self.wires.get(&id).is_some_and(ours) {
                    self.drop_end(id, end, (!silent).then_some(PipeItem::Reset));
                }
            }
        }
    }

    /// Drops a wire with two closed ends whose remaining items nobody waits for.
    fn forget_wire(&mut self, id: u64) {
        let over = |wire: &Wire| {
            let untold = |pipe: &crate::network::Pipe| !pipe.is_empty() && !wire.vanished;
            !wire.ends[0].open && !wire.ends[1].open && !wire.pipes.iter().any(untold)
        };
        if self.wires.get(&id).is_some_and(over) {
            self.wires.remove(&id);
        }
    }

    // Faults.

    fn wires_between(&self, one: usize, other: usize) -> Vec<u64> {
        let pair = (one.min(other), one.max(other));
        let joins = |wire: &Wire| {
            let (a, b) = (wire.ends[0].node, wire.ends[1].node);
            (a.min(b), a.max(b)) == pair
        };
        self.wires.iter().filter(|(_, wire)| joins(wire)).map(|(id, _)| *id).collect()
    }

    pub(super) fn cut_nodes(&mut self, one: usize, other: usize, way: i64) {
        // A road counts the ways from the lower node number, not from the step's first node.
        let way = if one <= other { way } else { [0, 2, 1][usize::try_from(way.rem_euclid(3)).unwrap_or(0)] };
        let at = self.at;
        let Some(road) = self.road(one, other) else { return };
        road.cut(way, at);
        self.coverage.hit("nodes cut off");
        for node in [one, other] {
            self.trouble(Actor::Node(node), "cut off from a node");
        }
    }

    pub(super) fn heal_nodes(&mut self, one: usize, other: usize) {
        let at = self.at;
        let Some(road) = self.road(one, other) else { return };
        road.heal();
        let after = at + road.latency;
        for node in [one, other] {
            let hurt =
                |((a, b), road): (&(usize, usize), &NetworkPath)| [*a, *b].contains(&node) && road.is_hurt();
            if !self.roads.iter().any(hurt) {
                self.relief(Actor::Node(node), "cut off from a node");
            }
        }
        self.schedule_wires(after);
    }

    /// Resets the links between two nodes: both are notified, and all data under way is lost from a
    /// random frame on.
    pub(super) fn reset_nodes(&mut self, one: usize, other: usize) {
        for id in self.wires_between(one, other) {
            for end in 0..2 {
                let Some(len) = self.wires.get(&id).map(|wire| wire.pipes[end].len()) else { continue };
                let keep = self.road(one, other).map_or(0, |road| road.below(len));
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.pipes[end].truncate(keep);
                }
                self.send_wire(id, end, PipeItem::Reset);
            }
        }
    }

    /// Kills the links between two nodes in silence: neither node is notified.
    pub(super) fn vanish_nodes(&mut self, one: usize, other: usize) {
        for id in self.wires_between(one, other) {
            if let Some(wire) = self.wires.get_mut(&id) {
                self.coverage.hit("link vanished");
                wire.vanished = true;
            }
        }
    }

    /// Returns true if a node has a room without a known primary.
    fn is_orphaned(&self) -> bool {
        let machines = || self.nodes.iter().filter_map(|node| node.machine.as_ref());
        self.rooms.open().into_iter().any(|(_, room)| {
            let led: Vec<u64> = machines().filter_map(|node| node.leads(&room)).collect();
            machines().filter_map(|node| node.head(&room)).any(|head| !led.contains(&head.epoch))
        })
    }

    /// Returns true if two nodes that are up lack a link that carries their frames.
    pub(super) fn is_apart(&self) -> bool {
        let full = |wire: &Wire| wire.stands() && wire.pipes.iter().any(|pipe| !pipe.is_writable());
        if self.roads.values().any(NetworkPath::is_hurt) || self.wires.values().any(full) {
            return true;
        }
        if self.is_orphaned() {
            return true;
        }
        let linked = |one: &Node, other: &Node| one.is_linked(other.id()) && other.is_linked(one.id());
        let machines: Vec<&Node> = self.nodes.iter().filter_map(|node| node.machine.as_ref()).collect();
        let pairs = machines
            .iter()
            .enumerate()
            .flat_map(|(n, one)| machines[..n].iter().map(move |other| (one, other)));
        pairs.into_iter().any(|(one, other)| !linked(one, other))
            || self.wires.values().any(|wire| wire.vanished && wire.ends.iter().any(|end| end.link.is_some()))
    }
}
