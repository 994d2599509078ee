//! Links between nodes, as byte streams, and their arrivals.

use std::time::Duration;

use skirmish_core::id::{LinkId, NodeId};
use skirmish_core::node::Node;

use super::traffic::Label;
use super::{World, WorldEvent};
use crate::history::{Actor, FramePassage};
use crate::network::{NetworkPath, NodeLink, PipeItem, Way};
use crate::oracle::Verdict;

/// Direction from one node to another on the path between them.
const fn way(from: usize, to: usize) -> Way {
    if from < to { Way::Up } else { Way::Down }
}

impl World<'_> {
    /// Returns the path between two nodes; `None` from a node to itself.
    pub(super) fn node_path(&mut self, one: usize, other: usize) -> Option<&mut NetworkPath> {
        self.node_paths.get_mut(&(one.min(other), one.max(other)))
    }

    pub(super) fn is_node_path_cut(&self, from: usize, to: usize) -> bool {
        self.node_paths.get(&(from.min(to), from.max(to))).is_none_or(|path| path.is_cut(way(from, to)))
    }

    /// Dials another node. The dial fails if no connection is made within `limit`.
    pub(super) fn dial_node(&mut self, from: usize, to: usize, dialed: NodeId, limit: Duration) {
        let id = self.next_node_link;
        self.next_node_link += 1;
        let to = to % self.nodes.len();
        self.node_links.insert(id, NodeLink::new(from, to, dialed, self.scenario.shape.node_pipe));
        self.send_on_link(id, 0, PipeItem::Open);
        let process = &self.nodes[from];
        let over = process.clock.now(self.at).instant + limit;
        self.schedule(process.clock.world(over), WorldEvent::DialOver(id));
    }

    /// Ends a dial that was not answered in time.
    pub(super) fn dial_over(&mut self, id: u64) -> Verdict {
        let Some(node_link) = self.node_links.get_mut(&id) else { return Ok(()) };
        let end = &mut node_link.ends[0];
        if !end.open || end.link.is_some() {
            return Ok(());
        }
        let (node, dialed) = (end.node, node_link.dialed);
        if self.nodes[node].is_paused() {
            self.nodes[node].deferred.push(WorldEvent::DialOver(id));
            return Ok(());
        }
        end.open = false;
        self.send_on_link(id, 0, PipeItem::Fin);
        self.forget_node_link(id);
        self.node_input(node, |machine, now| machine.handle_dial_failed(now, dialed))?;
        Ok(())
    }

    /// Puts an item into a link at one of its ends.
    fn send_on_link(&mut self, id: u64, end: usize, item: PipeItem) {
        let Some(node_link) = self.node_links.get(&id) else { return };
        let (from, to) = (node_link.ends[end].node, node_link.ends[1 - end].node);
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
        let Some(path) = self.node_path(from, to) else { return };
        let due = at + path.travel();
        if let Some(node_link) = self.node_links.get_mut(&id) {
            node_link.pipes[end].push(item, at, due);
        }
        self.schedule_node_link(id, end, 0);
    }

    /// Schedules the arrival of the first flight from an end, unless a fault holds the flight back.
    fn schedule_node_link(&mut self, id: u64, end: usize, not_before: u64) {
        let Some(node_link) = self.node_links.get(&id) else { return };
        let (from, to) = (node_link.ends[end].node, node_link.ends[1 - end].node);
        let held = node_link.vanished || self.nodes[to].is_paused() || self.is_node_path_cut(from, to);
        let Some(pipe) = self.node_links.get_mut(&id).map(|node_link| &mut node_link.pipes[end]) else {
            return;
        };
        let Some(due) = pipe.due().filter(|_| !held && !pipe.scheduled) else { return };
        pipe.scheduled = true;
        self.schedule(due.max(not_before), WorldEvent::NodeLinkArrives(id, end));
    }

    /// Schedules all arrivals again, after a fault that held some of them back has ended.
    pub(super) fn schedule_node_links(&mut self, not_before: u64) {
        for id in self.node_links.keys().copied().collect::<Vec<_>>() {
            self.schedule_node_link(id, 0, not_before);
            self.schedule_node_link(id, 1, not_before);
        }
    }

    /// Handles the arrival of the first flight from an end at the other end.
    pub(super) fn node_link_arrives(&mut self, id: u64, end: usize) -> Verdict {
        let Some(node_link) = self.node_links.get_mut(&id) else { return Ok(()) };
        let (from, to, vanished) =
            (node_link.ends[end].node, node_link.ends[1 - end].node, node_link.vanished);
        let pipe = &mut node_link.pipes[end];
        pipe.scheduled = false;
        if pipe.due().is_some_and(|due| self.at < due) {
            self.schedule_node_link(id, end, 0);
            return Ok(());
        }
        if vanished || self.nodes[to].is_paused() || self.is_node_path_cut(from, to) {
            return Ok(());
        }
        let Some(flight) = self.node_links.get_mut(&id).and_then(|node_link| node_link.pipes[end].pop())
        else {
            return Ok(());
        };
        if let PipeItem::Frame(frame) = &flight.item
            && self.history.traced
        {
            let (from, to) = (Actor::Node(from), Actor::Node(to));
            let (sent, label) = (flight.sent, Label(frame).to_string());
            self.history.passages.push(FramePassage { from, to, sent, arrived: self.at, label });
        }
        self.schedule_node_link(id, end, 0);
        self.take_link_item(id, 1 - end, flight.item)?;
        self.node_link_can_write(id, end)?;
        self.forget_node_link(id);
        Ok(())
    }

    /// Handles an item that arrived at an end of a link.
    fn take_link_item(&mut self, id: u64, end: usize, item: PipeItem) -> Verdict {
        let Some(node_link) = self.node_links.get_mut(&id) else { return Ok(()) };
        let dialed = node_link.dialed;
        let at = &mut node_link.ends[end];
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
                self.send_on_link(id, end, PipeItem::Reset);
                Ok(())
            }
            (PipeItem::Fin | PipeItem::Reset, link) => {
                at.open = false;
                at.link = None;
                if let Some(link) = link {
                    self.nodes[node].node_links.remove(&link);
                    self.node_input(node, |machine, now| machine.handle_link_closed(now, link))?;
                } else if open && end == 0 {
                    self.node_input(node, |machine, now| machine.handle_dial_failed(now, dialed))?;
                }
                Ok(())
            }
        }
    }

    /// Notifies a node's machine of a link.
    fn link_up(&mut self, id: u64, end: usize, dialed: Option<NodeId>) -> Verdict {
        let ends = self
            .node_links
            .get(&id)
            .map(|node_link| (node_link.ends[end].node, node_link.ends[1 - end].node));
        let Some((node, caller)) = ends else { return Ok(()) };
        let process = &mut self.nodes[node];
        let now = process.clock.now(self.at);
        let link = process.machine.as_mut().and_then(|machine| match dialed {
            Some(node) => machine.handle_link(now, node),
            None => machine.handle_caller(now, super::connections::address(caller)),
        });
        if let Some(link) = link {
            process.node_links.insert(link, (id, end));
        }
        if let Some(node_link) = self.node_links.get_mut(&id) {
            node_link.ends[end].link = link;
            node_link.ends[end].open = link.is_some();
        }
        match link {
            Some(_) if dialed.is_none() => self.send_on_link(id, end, PipeItem::Open),
            Some(_) => {}
            None => self.send_on_link(id, end, PipeItem::Reset),
        }
        self.settle_node(node)
    }

    /// Asks a node for frames as long as the link accepts them.
    pub(super) fn pump_node_link(&mut self, id: u64, end: usize) {
        loop {
            let Some(node_link) = self.node_links.get_mut(&id) else { return };
            let at = &mut node_link.ends[end];
            let Some(link) = at.link.filter(|_| at.woken) else { return };
            if !node_link.pipes[end].is_writable() {
                self.coverage.hit("back-pressure at link");
                return;
            }
            let process = &mut self.nodes[at.node];
            let now = process.clock.now(self.at);
            let frame = process.machine.as_mut().and_then(|machine| machine.poll_link_transmit(now, link));
            at.woken = frame.is_some();
            let Some(frame) = frame else { return };
            self.send_on_link(id, end, PipeItem::Frame(frame));
        }
    }

    /// Continues to send, since a link has room again.
    pub(super) fn node_link_can_write(&mut self, id: u64, end: usize) -> Verdict {
        let Some(node_link) = self.node_links.get(&id) else { return Ok(()) };
        let node = node_link.ends[end].node;
        if !node_link.ends[end].woken || self.nodes[node].is_paused() {
            return Ok(());
        }
        self.pump_node_link(id, end);
        self.settle_node(node)
    }

    /// Closes a link that a node's machine has dropped. Some of the sent frames may be lost.
    pub(super) fn close_link(&mut self, node: usize, link: LinkId) {
        let Some((id, end)) = self.nodes[node].node_links.remove(&link) else { return };
        self.drop_end(id, end, Some(PipeItem::Fin));
    }

    /// Closes an end of a link and loses some of its sent frames. The other end is notified if
    /// `told` is set.
    fn drop_end(&mut self, id: u64, end: usize, told: Option<PipeItem>) {
        let Some(node_link) = self.node_links.get_mut(&id) else { return };
        node_link.ends[end].open = false;
        node_link.ends[end].link = None;
        let (len, node, other) =
            (node_link.pipes[end].len(), node_link.ends[end].node, node_link.ends[1 - end].node);
        let keep = self.node_path(node, other).map_or(0, |path| path.below(len));
        if let Some(node_link) = self.node_links.get_mut(&id) {
            node_link.pipes[end].truncate(keep);
        }
        if let Some(item) = told {
            self.send_on_link(id, end, item);
        }
        self.forget_node_link(id);
    }

    /// Closes all ends of links of a node whose process is gone.
    pub(super) fn lose_node_links(&mut self, node: usize, silent: bool) {
        self.nodes[node].node_links.clear();
        for id in self.node_links.keys().copied().collect::<Vec<_>>() {
            for end in 0..2 {
                let ours =
                    |node_link: &NodeLink| node_link.ends[end].node == node && node_link.ends[end].open;
                if self.node_links.get(&id).is_some_and(ours) {
                    self.drop_end(id, end, (!silent).then_some(PipeItem::Reset));
                }
            }
        }
    }

    /// Drops a link with two closed ends whose remaining items nobody waits for.
    fn forget_node_link(&mut self, id: u64) {
        let over = |node_link: &NodeLink| {
            let untold = |pipe: &crate::network::Pipe| !pipe.is_empty() && !node_link.vanished;
            !node_link.ends[0].open && !node_link.ends[1].open && !node_link.pipes.iter().any(untold)
        };
        if self.node_links.get(&id).is_some_and(over) {
            self.node_links.remove(&id);
        }
    }

    // Faults.

    fn links_between(&self, one: usize, other: usize) -> Vec<u64> {
        let pair = (one.min(other), one.max(other));
        let joins = |node_link: &NodeLink| {
            let (a, b) = (node_link.ends[0].node, node_link.ends[1].node);
            (a.min(b), a.max(b)) == pair
        };
        self.node_links.iter().filter(|(_, node_link)| joins(node_link)).map(|(id, _)| *id).collect()
    }

    pub(super) fn cut_nodes(&mut self, one: usize, other: usize, way: i64) {
        // A path counts the ways from the lower node number, not from the step's first node.
        let way = if one <= other { way } else { [0, 2, 1][usize::try_from(way.rem_euclid(3)).unwrap_or(0)] };
        let at = self.at;
        let Some(path) = self.node_path(one, other) else { return };
        path.cut(way, at);
        self.coverage.hit("nodes cut off");
        for node in [one, other] {
            self.trouble(Actor::Node(node), "cut off from a node");
        }
    }

    pub(super) fn heal_nodes(&mut self, one: usize, other: usize) {
        let at = self.at;
        let Some(path) = self.node_path(one, other) else { return };
        path.heal();
        let after = at + path.latency;
        for node in [one, other] {
            let hurt =
                |((a, b), path): (&(usize, usize), &NetworkPath)| [*a, *b].contains(&node) && path.is_hurt();
            if !self.node_paths.iter().any(hurt) {
                self.relief(Actor::Node(node), "cut off from a node");
            }
        }
        self.schedule_node_links(after);
    }

    /// Resets the links between two nodes: both are notified, and all data under way is lost from a
    /// random frame on.
    pub(super) fn reset_nodes(&mut self, one: usize, other: usize) {
        for id in self.links_between(one, other) {
            for end in 0..2 {
                let Some(len) = self.node_links.get(&id).map(|node_link| node_link.pipes[end].len()) else {
                    continue;
                };
                let keep = self.node_path(one, other).map_or(0, |path| path.below(len));
                if let Some(node_link) = self.node_links.get_mut(&id) {
                    node_link.pipes[end].truncate(keep);
                }
                self.send_on_link(id, end, PipeItem::Reset);
            }
        }
    }

    /// Kills the links between two nodes in silence: neither node is notified.
    pub(super) fn vanish_nodes(&mut self, one: usize, other: usize) {
        for id in self.links_between(one, other) {
            if let Some(node_link) = self.node_links.get_mut(&id) {
                self.coverage.hit("link vanished");
                node_link.vanished = true;
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
        let full = |node_link: &NodeLink| {
            node_link.stands() && node_link.pipes.iter().any(|pipe| !pipe.is_writable())
        };
        if self.node_paths.values().any(NetworkPath::is_hurt) || self.node_links.values().any(full) {
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
            || self
                .node_links
                .values()
                .any(|node_link| node_link.vanished && node_link.ends.iter().any(|end| end.link.is_some()))
    }
}
