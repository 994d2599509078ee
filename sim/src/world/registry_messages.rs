//! Messages between the nodes and the registry, and their arrivals.

use std::collections::BTreeSet;

use skirmish_core::registry::{CallId, Failure, GroupId, Request, Response, Watch, WatchId, Watched};

use super::{World, WorldEvent};
use crate::network::Way;
use crate::oracle::Verdict;

/// A message under way.
#[derive(Debug)]
pub(super) struct UndeliveredMessage {
    /// Node that sends or receives the message.
    pub(super) node: usize,
    /// Number of the connection.
    pub(super) session: u64,
    pub(super) content: MessageContent,
    /// True while a fault holds the message back.
    held: bool,
    /// Earliest arrival, since messages before this one are held back until then.
    not_before: u64,
}

/// Identity of a request and its answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum ExchangeId {
    Group(GroupId),
    /// Keep-alives are never grouped: drivers have a separate stream for them.
    KeepAlive(CallId),
}

/// Content of a message.
#[derive(Debug)]
pub(super) enum MessageContent {
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

impl MessageContent {
    const fn way(&self) -> Way {
        match self {
            Self::Dial | Self::Request(..) | Self::Watch(..) | Self::Unwatch(_) | Self::Close => Way::Up,
            Self::Opened | Self::Reply(..) | Self::Watched(_) | Self::Reset => Way::Down,
        }
    }

    /// Direction in which the message keeps its order, if any.
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
    /// Sends a message. Messages to the registry keep their order, and so do events of watches;
    /// replies may overtake each other.
    pub(super) fn send_message(&mut self, node: usize, session: u64, content: MessageContent) {
        let Some(registry) = self.registry.as_mut() else { return };
        let path = &mut self.registry_paths[node];
        let mut due = self.at + path.travel();
        let messages = &mut registry.node_messages[node];
        match &content {
            MessageContent::Opened | MessageContent::Reply(..) => {}
            MessageContent::Watched(_) => {
                due = (due + messages.lag).max(messages.watched);
                messages.watched = due;
            }
            MessageContent::Reset => due = due.max(messages.watched),
            _ => {
                due = due.max(messages.asked);
                messages.asked = due;
            }
        }
        let id = self.next_registry_message;
        self.next_registry_message += 1;
        self.registry_messages
            .insert(id, UndeliveredMessage { node, session, content, held: false, not_before: 0 });
        self.schedule(due, WorldEvent::RegistryMessageArrives(id));
    }

    /// Delivers a message, unless it must wait longer.
    pub(super) fn deliver_message(&mut self, id: u64) -> Verdict {
        let Some(message) = self.registry_messages.get(&id) else { return Ok(()) };
        if self.at < message.not_before {
            let at = message.not_before;
            self.schedule(at, WorldEvent::RegistryMessageArrives(id));
            return Ok(());
        }
        let (node, way) = (message.node, message.content.way());
        let stands_still = match way {
            Way::Up => self.registry.as_ref().is_some_and(|registry| registry.paused),
            Way::Down => self.nodes[node].is_paused(),
        };
        if stands_still || self.is_registry_cut(node, way) {
            if let Some(message) = self.registry_messages.get_mut(&id) {
                message.held = true;
            }
            return Ok(());
        }
        let Some(message) = self.registry_messages.remove(&id) else { return Ok(()) };
        match way {
            Way::Up => self.serve_message(message),
            Way::Down => self.read_message(message),
        }
    }

    /// Schedules the messages again that a fault held back, in their order.
    pub(super) fn schedule_registry_messages(&mut self, at: u64) {
        let mut free = Vec::new();
        // Messages that keep their order wait for the held messages before them.
        let mut lanes = BTreeSet::new();
        for (id, message) in &mut self.registry_messages {
            let lane = message.content.lane().map(|lane| (message.node, lane));
            if std::mem::take(&mut message.held) {
                free.push(*id);
                lanes.extend(lane);
            } else if lane.is_some_and(|lane| lanes.contains(&lane)) {
                message.not_before = message.not_before.max(at);
            }
        }
        for (node, lane) in lanes {
            let Some(registry) = self.registry.as_mut() else { break };
            let messages = &mut registry.node_messages[node];
            let last = match lane {
                Way::Up => &mut messages.asked,
                Way::Down => &mut messages.watched,
            };
            *last = at.max(*last);
        }
        for id in free {
            self.schedule(at, WorldEvent::RegistryMessageArrives(id));
        }
    }
}
