//! A node's connection to a registry in a process of its own, as seen by the node's driver.

use std::collections::{BTreeMap, BTreeSet};

use skirmish_core::registry::{
    CallId, Failure, GroupCommit, GroupId, News, RegistryCommand, RegistryEvent, Request, Watch, WatchId,
    Watched,
};
use skirmish_core::time::Duration;

use super::node::Registration;
use super::registry_messages::{ExchangeId, MessageContent, UndeliveredMessage};
use super::{World, WorldEvent, groups};
use crate::history::Actor;
use crate::network::Way;
use crate::oracle::Verdict;
use crate::scenario::Shape;

/// Wait of the driver before it connects again, in microseconds.
const RETRY: u64 = 300_000;

/// State of the driver: requests without an answer, and watches to keep alive.
pub(super) struct RegistryLink {
    /// The connection that the driver has or has asked for; 0 for none.
    pub(super) session: u64,
    pub(super) connected: bool,
    pub(super) groups: GroupCommit,
    /// Groups that were sent over this connection and are not answered.
    pub(super) flying: BTreeSet<GroupId>,
    /// True while requests are gathered before groups are sent.
    pub(super) gathers: bool,
    /// Keep-alives that were sent and are not answered.
    keeps: BTreeSet<CallId>,
    /// Keep-alives that wait for a connection.
    waiting: Vec<(CallId, Request)>,
    watches: BTreeMap<WatchId, KeptWatch>,
}

impl RegistryLink {
    pub(super) fn new(shape: &Shape) -> Self {
        Self {
            session: 0,
            connected: false,
            groups: GroupCommit::new(groups::config(shape)),
            flying: BTreeSet::new(),
            gathers: false,
            keeps: BTreeSet::new(),
            waiting: Vec::new(),
            watches: BTreeMap::new(),
        }
    }
}

/// A watch that is kept alive over connections.
struct KeptWatch {
    watch: Watch,
    /// True if the node was notified that the watch runs.
    told: bool,
}

impl World<'_> {
    pub(super) fn registry_link(&mut self, node: usize) -> Option<&mut RegistryLink> {
        match &mut self.nodes[node].registry {
            Registration::Remote(link) => Some(link.as_mut()),
            Registration::Embedded(_) => None,
        }
    }

    /// Returns the connection that a node's driver has or has asked for, and true if it stands.
    pub(super) fn session_of(&mut self, node: usize) -> (u64, bool) {
        self.registry_link(node).map_or((0, false), |link| (link.session, link.connected))
    }

    /// Handles a command of a node to its registry.
    pub(super) fn call_registry(&mut self, node: usize, call: RegistryCommand) {
        self.history.record(self.at, Actor::Node(node), format_args!("asks the registry: {call:?}"));
        let now = self.nodes[node].clock.now(self.at);
        if let Registration::Embedded(embedded) = &mut self.nodes[node].registry {
            return embedded.handle_call(now.instant, call);
        }
        match call {
            RegistryCommand::Request { id, request } => self.call(node, id, request),
            RegistryCommand::Watch { id, watch } => {
                let Some(link) = self.registry_link(node) else { return };
                link.watches.insert(id, KeptWatch { watch: watch.clone(), told: false });
                let session = link.connected.then_some(link.session);
                if let Some(session) = session {
                    self.send_message(node, session, MessageContent::Watch(id, watch));
                }
            }
            RegistryCommand::Unwatch(id) => {
                let Some(link) = self.registry_link(node) else { return };
                link.watches.remove(&id);
                let session = link.connected.then_some(link.session);
                if let Some(session) = session {
                    self.send_message(node, session, MessageContent::Unwatch(id));
                }
            }
        }
    }

    fn call(&mut self, node: usize, id: CallId, request: Request) {
        let impatient = self.rng.range(0..=1) == 0;
        let Some(link) = self.registry_link(node) else { return };
        if !link.connected && impatient {
            // Some drivers fail at once without a connection, others wait for one.
            let outcome = Err(Failure::Unavailable);
            return self.nodes[node].told.push_back(RegistryEvent::Reply { id, outcome });
        }
        match request {
            Request::KeepAlive(_) => self.keep_alive(node, id, request),
            request => self.ask(node, id, request),
        }
    }

    fn keep_alive(&mut self, node: usize, id: CallId, request: Request) {
        let life = self.nodes[node].life;
        let wait = Duration::from_millis(self.scenario.shape.registry_call_ms);
        let Some(link) = self.registry_link(node) else { return };
        if link.connected {
            link.keeps.insert(id);
            let session = link.session;
            self.send_message(node, session, MessageContent::Request(ExchangeId::KeepAlive(id), request));
        } else {
            link.waiting.push((id, request));
        }
        let process = &self.nodes[node];
        let over = process.clock.world(process.clock.now(self.at).instant + wait);
        self.schedule(over, WorldEvent::KeepAliveOver(node, life, id));
    }

    /// Ends the driver's wait for the answer to a keep-alive.
    pub(super) fn keep_alive_over(&mut self, node: usize, life: u32, id: CallId) -> Verdict {
        if self.nodes[node].life != life {
            return Ok(());
        }
        if self.nodes[node].is_paused() {
            self.nodes[node].deferred.push(WorldEvent::KeepAliveOver(node, life, id));
            return Ok(());
        }
        let Some(link) = self.registry_link(node) else { return Ok(()) };
        let waiting = link.waiting.len();
        link.waiting.retain(|(call, _)| *call != id);
        let failure = if link.waiting.len() < waiting {
            Failure::Unavailable
        } else if link.keeps.remove(&id) {
            self.coverage.hit("registry silent");
            Failure::Unknown
        } else {
            return Ok(());
        };
        self.tell(node, RegistryEvent::Reply { id, outcome: Err(failure) })
    }

    fn tell(&mut self, node: usize, told: RegistryEvent) -> Verdict {
        self.history.record(self.at, Actor::Node(node), format_args!("is told: {told:?}"));
        self.node_input(node, |machine, now| machine.handle_registry_event(now, told))?;
        Ok(())
    }

    /// Connects the driver to the registry.
    pub(super) fn dial_registry(&mut self, node: usize) {
        let session = self.next_session;
        let Some(link) = self.registry_link(node) else { return };
        if link.session != 0 {
            return;
        }
        link.session = session;
        self.next_session += 1;
        if let Some(machine) = &self.nodes[node].machine {
            self.authors.insert(session, machine.id());
        }
        self.send_message(node, session, MessageContent::Dial);
        let wait = self.scenario.shape.registry_keepalive_ms * 1_000;
        self.schedule(self.at + wait, WorldEvent::RegistryDialOver(node, session));
    }

    /// Ends a dial that the registry has not answered.
    pub(super) fn registry_dial_over(&mut self, node: usize, session: u64) -> Verdict {
        let Some(link) = self.registry_link(node) else { return Ok(()) };
        if link.session != session || link.connected {
            return Ok(());
        }
        self.lose_registry(node, session)
    }

    /// Connects again, unless the node has died since.
    pub(super) fn retry_registry(&mut self, node: usize, life: u32) {
        if self.nodes[node].life == life && self.nodes[node].machine.is_some() {
            self.dial_registry(node);
        }
    }

    /// Drops the driver's dead connection. Requests without an answer may have been executed or
    /// not.
    pub(super) fn lose_registry(&mut self, node: usize, session: u64) -> Verdict {
        let life = self.nodes[node].life;
        let Some(link) = self.registry_link(node) else { return Ok(()) };
        if link.session != session {
            return Ok(());
        }
        link.session = 0;
        link.connected = false;
        let keeps = std::mem::take(&mut link.keeps);
        self.coverage.hit("registry lost");
        self.history.record(self.at, Actor::Node(node), format_args!("has lost the registry"));
        self.send_message(node, session, MessageContent::Close);
        self.schedule(self.at + RETRY, WorldEvent::RetryRegistry(node, life));
        for id in keeps {
            self.tell(node, RegistryEvent::Reply { id, outcome: Err(Failure::Unknown) })?;
        }
        self.lose_groups(node)
    }

    /// Ends the connection of a node whose process is gone.
    pub(super) fn hang_up_registry(&mut self, node: usize, silent: bool) {
        let Some(session) = self.registry_link(node).map(|link| link.session).filter(|session| *session != 0)
        else {
            return;
        };
        if silent {
            let wait = self.scenario.shape.registry_keepalive_ms * 1_000;
            self.schedule(self.at + wait, WorldEvent::SessionOver(session));
        } else {
            self.send_message(node, session, MessageContent::Close);
        }
    }

    /// Handles a message from the registry at a node.
    pub(super) fn read_message(&mut self, message: UndeliveredMessage) -> Verdict {
        let UndeliveredMessage { node, session, content, .. } = message;
        if self.nodes[node].machine.is_none() {
            return Ok(());
        }
        let Some(link) = self.registry_link(node).filter(|link| link.session == session) else {
            return Ok(());
        };
        match content {
            MessageContent::Opened => {
                link.connected = true;
                let watches: Vec<_> =
                    link.watches.iter().map(|(id, kept)| (*id, kept.watch.clone())).collect();
                let waiting = std::mem::take(&mut link.waiting);
                link.keeps.extend(waiting.iter().map(|(id, _)| *id));
                for (id, watch) in watches {
                    self.send_message(node, session, MessageContent::Watch(id, watch));
                }
                for (id, request) in waiting {
                    self.send_message(
                        node,
                        session,
                        MessageContent::Request(ExchangeId::KeepAlive(id), request),
                    );
                }
                self.launch(node);
                self.tell(node, RegistryEvent::Connected { cluster: 1 })
            }
            MessageContent::Reply(ExchangeId::Group(id), outcome) => self.group_answered(node, id, outcome),
            MessageContent::Reply(ExchangeId::KeepAlive(id), outcome) => {
                let told = RegistryEvent::Reply { id, outcome };
                if link.keeps.remove(&id) { self.tell(node, told) } else { Ok(()) }
            }
            MessageContent::Watched(watched) => self.watched(node, watched),
            MessageContent::Reset => self.lose_registry(node, session),
            MessageContent::Dial
            | MessageContent::Request(..)
            | MessageContent::Watch(..)
            | MessageContent::Unwatch(_)
            | MessageContent::Close => Ok(()),
        }
    }

    fn watched(&mut self, node: usize, watched: Watched) -> Verdict {
        let Some(link) = self.registry_link(node) else { return Ok(()) };
        let Some(kept) = link.watches.get_mut(&watched.id) else { return Ok(()) };
        kept.watch.start = watched.revision + 1;
        match watched.news {
            News::Created if std::mem::replace(&mut kept.told, true) => return Ok(()),
            News::Created | News::Changes(_) | News::Progress => {}
            News::Compacted { .. } => {
                self.coverage.hit("watch compacted");
                if let Some(link) = self.registry_link(node) {
                    link.watches.remove(&watched.id);
                }
            }
            News::Canceled => {
                link.watches.remove(&watched.id);
            }
        }
        self.tell(node, RegistryEvent::Watched(watched))
    }

    /// Returns true if no message gets through in this direction now.
    pub(super) fn is_registry_cut(&self, node: usize, way: Way) -> bool {
        self.registry_paths[node].is_cut(way)
    }
}
