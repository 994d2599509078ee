//! Messages between the nodes and the registry, and their arrivals.

use std::collections::BTreeSet;

use skirmish_core::registry::{CallId, Failure, GroupId, Request, Response, Watch, WatchId, Watched};

use super::{World, WorldEvent};
use crate::network::Way;
use crate::oracle::Verdict;

/// A message under way.
#[derive(Debug)]
pub(super) struct Letter {
    /// Node that sends or receives the letter.
    pub(super) node: usize,
    /// Number of the connection.
    pub(super) session: u64,
    pub(super) content: Content,
    /// True while a fault holds the letter back.
    held: bool,
    /// Earliest arrival, since letters before this one are held back until then.
    not_before: u64,
}

/// Identity of a request and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExchangeId {
    Group(GroupId),
    /// Keep-alives are never grouped: drivers have a separate stream for them.
    KeepAlive(CallId),
}

/// Content of a letter.
#[derive(Debug)]
pub(super) enum Content {
    // To the registry.
    Dial,
    Request(ExchangeId, Request),
    Watch(WatchId, Watch),
    Unwatch(WatchId),
    Close,
    // To the node.
    Opened,
    Reply(ExchangeId, Result<Response, Failure>),
    Watched(Watched),
    Reset,
}

impl Content {
    const fn way(&self) -> Way {
        match self {
            Self::Dial | Self::Request(..) | Self::Watch(..) | Self::Unwatch(_) | Self::Close => Way::Up,
            Self::Opened | Self::Reply(..) | Self::Watched(_) | Self::Reset => Way::Down,
        }
    }

    /// Direction in which the letter keeps its order, if any.
    const fn lane(&self) -> Option<Way> {
        match self {
            Self::Opened | Self::Reply(..) => None,
            Self::Watched(_) | Self::Reset => Some(Way::Down),
            Self::Dial | Self::Request(..) | Self::Watch(..) | Self::Unwatch(_) | Self::Close => {
                Some(Way::Up)
            }
        }
    }
}

impl World<'_> {
    /// Sends a letter. Letters to the registry keep their order, and so do events of watches;
    /// replies may overtake each other.
    pub(super) fn post(&mut self, node: usize, session: u64, content: Content) {
        let Some(registry) = self.registry.as_mut() else { return };
        let line = &mut self.lines[node];
        let mut due = self.at + line.travel();
        let order = &mut registry.order[node];
        match &content {
            Content::Opened | Content::Reply(..) => {}
            Content::Watched(_) => {
                due = (due + order.lag).max(order.watched);
                order.watched = due;
            }
            Content::Reset => due = due.max(order.watched),
            _ => {
                due = due.max(order.asked);
                order.asked = due;
            }
        }
        let id = self.next_letter;
        self.next_letter += 1;
        self.letters.insert(id, Letter { node, session, content, held: false, not_before: 0 });
        self.schedule(due, WorldEvent::Letter(id));
    }

    /// Delivers a letter, unless it must wait longer.
    pub(super) fn deliver(&mut self, id: u64) -> Verdict {
        let Some(letter) = self.letters.get(&id) else { return Ok(()) };
        if self.at < letter.not_before {
            let at = letter.not_before;
            self.schedule(at, WorldEvent::Letter(id));
            return Ok(());
        }
        let (node, way) = (letter.node, letter.content.way());
        let stands_still = match way {
            Way::Up => self.registry.as_ref().is_some_and(|registry| registry.paused),
            Way::Down => self.nodes[node].is_paused(),
        };
        if stands_still || self.is_line_cut(node, way) {
            if let Some(letter) = self.letters.get_mut(&id) {
                letter.held = true;
            }
            return Ok(());
        }
        let Some(letter) = self.letters.remove(&id) else { return Ok(()) };
        match way {
            Way::Up => self.serve_letter(letter),
            Way::Down => self.read_letter(letter),
        }
    }

    /// Schedules the letters again that a fault held back, in their order.
    pub(super) fn schedule_letters(&mut self, at: u64) {
        let mut free = Vec::new();
        // Letters that keep their order wait for the held letters before them.
        let mut lanes = BTreeSet::new();
        for (id, letter) in &mut self.letters {
            let lane = letter.content.lane().map(|lane| (letter.node, lane));
            if std::mem::take(&mut letter.held) {
                free.push(*id);
                lanes.extend(lane);
            } else if lane.is_some_and(|lane| lanes.contains(&lane)) {
                letter.not_before = letter.not_before.max(at);
            }
        }
        for (node, lane) in lanes {
            let Some(registry) = self.registry.as_mut() else { break };
            let order = &mut registry.order[node];
            let last = match lane {
                Way::Up => &mut order.asked,
                Way::Down => &mut order.watched,
            };
            *last = at.max(*last);
        }
        for id in free {
            self.schedule(at, WorldEvent::Letter(id));
        }
    }
}
