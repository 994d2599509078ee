//! The registry as a process of its own: etcd's part.

use std::collections::BTreeMap;

use skirmish_core::id::NodeId;
use skirmish_core::registry::{Failure, Registry, RegistryConfig, Request, Snapshot, WatchId, Watched};
use skirmish_core::time::Deadline;

use super::registry_messages::{ExchangeId, MessageContent, UndeliveredMessage};
use super::{MAX_ROUNDS, World, WorldEvent};
use crate::clock::SkewedClock;
use crate::history::Actor;
use crate::matches::NEWS;
use crate::oracle::{Guarantee, Verdict};
use crate::records;

/// Longest delay of a request that is executed without an answer, in microseconds.
const MOST_LATE: u64 = 6_000_000;

/// Process of the registry. Its data outlives the process, as etcd's data does.
pub(super) struct RegistryProcess {
    pub(super) machine: Registry,
    pub(super) clock: SkewedClock,
    pub(super) paused: bool,
    /// Present while the registry is being started again; true if nobody is notified.
    pub(super) down: Option<bool>,
    /// The last copy of the data.
    copy: Option<Snapshot>,
    /// Present if the next start restores the data; true for an empty registry, false for the copy.
    returns: Option<bool>,
    /// Present while the registry has no space: since when and until when.
    pub(super) full: Option<(u64, u64)>,
    /// Time until which the registry has no leader.
    pub(super) leaderless: u64,
    wakes: Option<u64>,
    spins: (u64, u32),
    /// Connections to the registry, with their nodes.
    sessions: BTreeMap<u64, usize>,
    /// Watches, with their connections and the nodes' own numbers for them.
    watches: BTreeMap<WatchId, (u64, WatchId)>,
    next_watch: u64,
    /// Requests that are executed later, after their senders got an unknown outcome or no answer.
    late: BTreeMap<u64, (NodeId, Request)>,
    next_late: u64,
    /// Order of messages, and faults of the registry, for each node.
    pub(super) node_messages: Vec<NodeMessages>,
}

/// Order and faults of one node's messages.
#[derive(Clone, Copy, Default)]
pub(super) struct NodeMessages {
    /// Arrival time of the last request.
    pub(super) asked: u64,
    /// Arrival time of the last event of a watch.
    pub(super) watched: u64,
    /// Delay of watch events, in microseconds.
    pub(super) lag: u64,
    /// Number of the next requests whose outcome is not reported.
    pub(super) blurred: u64,
    /// Set if the node's next match is its last. The value is the down-time afterwards, in
    /// milliseconds.
    pub(super) last_match: Option<u64>,
}

impl RegistryProcess {
    pub(super) fn new(clock: SkewedClock, nodes: usize) -> Self {
        let machine = Registry::new(RegistryConfig::etcd(), clock.now(0).instant);
        Self {
            machine,
            clock,
            paused: false,
            down: None,
            copy: None,
            returns: None,
            full: None,
            leaderless: 0,
            wakes: None,
            spins: (0, 0),
            sessions: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 1,
            late: BTreeMap::new(),
            next_late: 1,
            node_messages: vec![NodeMessages::default(); nodes],
        }
    }

    pub(super) fn wakes(&self) -> Option<u64> {
        self.wakes.filter(|_| !self.paused && self.down.is_none())
    }

    fn forget_session(&mut self, session: u64) {
        self.sessions.remove(&session);
        let of_session: Vec<WatchId> =
            self.watches.iter().filter(|(_, (of, _))| *of == session).map(|(id, _)| *id).collect();
        for id in of_session {
            self.watches.remove(&id);
            self.machine.unwatch(id);
        }
    }
}

impl World<'_> {
    pub(super) fn registry_timeout(&mut self) -> Verdict {
        let Some(registry) = self.registry.as_mut() else { return Ok(()) };
        let spins = &mut registry.spins;
        *spins = if spins.0 == self.at { (self.at, spins.1 + 1) } else { (self.at, 0) };
        if spins.1 > MAX_ROUNDS {
            let reason = registry.machine.poll_timeout().map(|due| due.reason);
            return self.broken(
                Guarantee::Bounded,
                format!("the registry's deadline ({reason:?}) does not go away when it is served"),
            );
        }
        let now = registry.clock.now(self.at).instant;
        let revision = registry.machine.revision();
        registry.machine.handle_timeout(now);
        let ended = registry.machine.revision() > revision;
        if ended {
            self.coverage.hit("lease ended");
            if self.scenario.shape.drift_ppm > 0 {
                self.coverage.hit("lease ended adrift");
            }
            self.history.record(self.at, Actor::Registry, format_args!("leases end"));
        }
        self.settle_registry();
        Ok(())
    }

    /// Sends the events of watches.
    pub(super) fn settle_registry(&mut self) {
        while let Some(registry) = self.registry.as_mut()
            && let Some(watched) = registry.machine.poll_output()
        {
            if watched.id == NEWS {
                self.news.push(watched);
                continue;
            }
            let Some(&(session, id)) = registry.watches.get(&watched.id) else { continue };
            let Some(&node) = registry.sessions.get(&session) else { continue };
            self.send_message(node, session, MessageContent::Watched(Watched { id, ..watched }));
        }
        if let Some(registry) = self.registry.as_mut() {
            let due: Option<Deadline> = registry.machine.poll_timeout();
            registry.wakes = due.map(|due| registry.clock.world(due.at).max(self.at));
        }
    }

    /// Returns the sessions and rooms of the registry: their keys, owners and epochs.
    pub(super) fn records(&mut self) -> Vec<(String, NodeId, u64)> {
        let Some(registry) = self.registry.as_mut() else { return Vec::new() };
        let now = registry.clock.now(self.at).instant;
        records::all(&mut registry.machine, now)
    }

    /// Handles a message from a node.
    pub(super) fn serve_message(&mut self, message: UndeliveredMessage) -> Verdict {
        let UndeliveredMessage { node, session, content, .. } = message;
        let at = self.at;
        let Some(registry) = self.registry.as_mut() else { return Ok(()) };
        if let Some(silent) = registry.down {
            if !silent && !matches!(content, MessageContent::Close) {
                self.send_message(node, session, MessageContent::Reset);
            }
            return Ok(());
        }
        let now = registry.clock.now(at).instant;
        let known = registry.sessions.contains_key(&session);
        let author = self.author_of(session);
        if let MessageContent::Request(_, request) = &content
            && known
            && self.is_last_match(node, author, request)
        {
            return Ok(());
        }
        let Some(registry) = self.registry.as_mut() else { return Ok(()) };
        match content {
            MessageContent::Dial => {
                registry.sessions.insert(session, node);
                self.send_message(node, session, MessageContent::Opened);
            }
            MessageContent::Close => registry.forget_session(session),
            _ if !known => self.send_message(node, session, MessageContent::Reset),
            MessageContent::Request(asked, request) => {
                let messages = &mut registry.node_messages[node];
                let blurred = messages.blurred > 0;
                messages.blurred = messages.blurred.saturating_sub(1);
                if blurred || at < registry.leaderless {
                    self.blur(node, session, asked, request);
                } else {
                    let outcome = registry.machine.handle(now, &request).map_err(Failure::Refused);
                    self.author = Some(author);
                    self.history.record(
                        at,
                        Actor::Registry,
                        format_args!("answers node {node}'s {asked:?}: {outcome:?}"),
                    );
                    self.send_message(node, session, MessageContent::Reply(asked, outcome));
                }
            }
            MessageContent::Watch(id, watch) => {
                registry.watches.retain(|_, (of, called)| (*of, *called) != (session, id));
                let own = WatchId(registry.next_watch);
                registry.next_watch += 1;
                registry.watches.insert(own, (session, id));
                // The registry has room for all watches.
                let _ = registry.machine.watch(now, own, watch);
            }
            MessageContent::Unwatch(id) => {
                let own = registry.watches.iter().find(|(_, of)| **of == (session, id)).map(|(own, _)| *own);
                if let Some(own) = own {
                    registry.watches.remove(&own);
                    registry.machine.unwatch(own);
                }
            }
            MessageContent::Opened
            | MessageContent::Reply(..)
            | MessageContent::Watched(_)
            | MessageContent::Reset => {}
        }
        self.settle_registry();
        Ok(())
    }

    /// Returns the node that dialed a connection.
    pub(super) fn author_of(&self, session: u64) -> NodeId {
        self.authors.get(&session).copied().unwrap_or(NodeId(0))
    }

    /// Blurs a request: it is executed now, later or never, and its outcome is not reported.
    fn blur(&mut self, node: usize, session: u64, asked: ExchangeId, request: Request) {
        let (choice, after) = (self.rng.range(0..=3), self.rng.range(0..=MOST_LATE));
        self.coverage.hit("registry ambiguous");
        let author = self.author_of(session);
        let Some(registry) = self.registry.as_mut() else { return };
        match choice {
            0 => {}
            1 => self.execute_late(author, request, after),
            _ => {
                let now = registry.clock.now(self.at).instant;
                let outcome = registry.machine.handle(now, &request);
                self.author = Some(author);
                self.history.record(
                    self.at,
                    Actor::Registry,
                    format_args!("does node {node}'s {asked:?} and does not say so: {outcome:?}"),
                );
            }
        }
        // The answer is "unknown", or missing.
        if after % 2 == 0 {
            self.send_message(node, session, MessageContent::Reply(asked, Err(Failure::Unknown)));
        }
    }

    /// Executes a request after this many microseconds.
    pub(super) fn execute_late(&mut self, author: NodeId, request: Request, after: u64) {
        let Some(registry) = self.registry.as_mut() else { return };
        let late = registry.next_late;
        registry.next_late += 1;
        registry.late.insert(late, (author, request));
        self.schedule(self.at + after, WorldEvent::LateRequest(late));
    }

    /// Executes a request whose sender was not notified of the outcome.
    pub(super) fn late_request(&mut self, late: u64) {
        let at = self.at;
        let Some(registry) = self.registry.as_mut() else { return };
        if registry.paused || registry.down.is_some() || at < registry.leaderless {
            return self.schedule(at + 100_000, WorldEvent::LateRequest(late));
        }
        let Some((author, request)) = registry.late.remove(&late) else { return };
        self.author = Some(author);
        let now = registry.clock.now(at).instant;
        let outcome = registry.machine.handle(now, &request);
        self.history.record(at, Actor::Registry, format_args!("does late: {request:?}: {outcome:?}"));
        self.settle_registry();
    }

    // Faults.

    pub(super) fn pause_registry(&mut self, millis: u64) {
        let Some(registry) = self.registry.as_mut().filter(|registry| !registry.paused) else { return };
        registry.paused = true;
        self.coverage.hit("registry paused");
        self.trouble(Actor::Registry, "paused");
        self.schedule(self.at + millis * 1_000, WorldEvent::RegistryResumes);
        for node in 0..self.nodes.len() {
            self.await_silence(node);
        }
    }

    pub(super) fn resume_registry(&mut self) {
        let Some(registry) = self.registry.as_mut().filter(|registry| registry.paused) else { return };
        registry.paused = false;
        self.relief(Actor::Registry, "paused");
        self.schedule_registry_messages(self.at);
    }

    pub(super) fn stop_registry(&mut self, millis: u64, silent: bool) {
        let Some(registry) = self.registry.as_mut().filter(|registry| registry.down.is_none()) else {
            return;
        };
        registry.down = Some(silent);
        let paused = std::mem::take(&mut registry.paused);
        let sessions = std::mem::take(&mut registry.sessions);
        for id in std::mem::take(&mut registry.watches).into_keys() {
            registry.machine.unwatch(id);
        }
        self.coverage.hit("registry restarted");
        if paused {
            self.relief(Actor::Registry, "paused");
            self.schedule_registry_messages(self.at);
        }
        self.trouble(Actor::Registry, "down");
        for (session, node) in sessions {
            if silent {
                self.await_silence(node);
            } else {
                self.send_message(node, session, MessageContent::Reset);
            }
        }
        self.schedule(self.at + millis * 1_000, WorldEvent::RegistryStarts);
    }

    pub(super) fn copy_registry(&mut self) {
        if let Some(registry) = self.registry.as_mut() {
            registry.copy = Some(registry.machine.snapshot());
        }
    }

    pub(super) fn return_registry(&mut self, millis: u64, wiped: bool) {
        let Some(registry) = self.registry.as_mut().filter(|registry| registry.down.is_none()) else {
            return;
        };
        registry.returns = Some(wiped);
        self.stop_registry(millis, false);
    }

    pub(super) fn start_registry(&mut self) {
        let Some(registry) = self.registry.as_mut().filter(|registry| registry.down.is_some()) else {
            return;
        };
        registry.down = None;
        let now = registry.clock.now(self.at).instant;
        registry.machine.handle_leader_change(now);
        if let Some(wiped) = registry.returns.take() {
            registry.machine.restore(now, registry.copy.clone().filter(|_| !wiped));
            registry.late.clear();
            let revision = registry.machine.revision();
            self.coverage.hit(if wiped { "registry wiped" } else { "registry restored" });
            self.history.record(self.at, Actor::Registry, format_args!("is back at revision {revision}"));
        }
        self.relief(Actor::Registry, "down");
        self.settle_registry();
    }

    pub(super) fn depose_leader(&mut self, millis: u64) {
        let until = self.at + millis * 1_000;
        let Some(registry) = self.registry.as_mut() else { return };
        registry.leaderless = registry.leaderless.max(until);
        self.coverage.hit("registry leader lost");
        self.trouble(Actor::Registry, "no leader");
        self.schedule(until, WorldEvent::LeaderElected);
    }

    pub(super) fn elect_leader(&mut self) {
        let at = self.at;
        let Some(registry) = self.registry.as_mut().filter(|registry| registry.leaderless <= at) else {
            return;
        };
        registry.machine.handle_leader_change(registry.clock.now(at).instant);
        self.relief(Actor::Registry, "no leader");
        self.settle_registry();
    }

    pub(super) fn end_leaderless(&mut self) {
        if let Some(registry) = self.registry.as_mut() {
            registry.leaderless = registry.leaderless.min(self.at);
        }
        self.elect_leader();
    }

    pub(super) fn compact_registry(&mut self, keep: u64) {
        let Some(registry) = self.registry.as_mut().filter(|registry| registry.down.is_none()) else {
            return;
        };
        let now = registry.clock.now(self.at).instant;
        let revision = registry.machine.revision().saturating_sub(keep);
        // A revision that is compacted already stays compacted.
        let _ = registry.machine.handle(now, &Request::Compact { revision });
        self.coverage.hit("registry compacted");
        self.settle_registry();
    }

    pub(super) fn cut_registry(&mut self, node: usize, way: i64) {
        if self.registry.is_none() {
            return;
        }
        self.registry_paths[node].cut(way, self.at);
        self.coverage.hit("registry cut off");
        self.trouble(Actor::Node(node), "cut off from the registry");
        self.await_silence(node);
    }

    pub(super) fn heal_registry(&mut self, node: usize) {
        self.registry_paths[node].heal();
        self.relief(Actor::Node(node), "cut off from the registry");
        let latency = self.registry_paths[node].latency;
        self.schedule_registry_messages(self.at + latency);
    }

    /// Schedules the moment at which both ends of a node's connection detect its death, if nothing
    /// passes until then.
    fn await_silence(&mut self, node: usize) {
        let since = self.at;
        let wait = self.scenario.shape.registry_keepalive_ms * 1_000;
        self.schedule(since + wait, WorldEvent::Silence(node, since));
    }

    /// Loses a node's connection to the registry if nothing has passed since then.
    pub(super) fn silence(&mut self, node: usize, since: u64) -> Verdict {
        if self.nodes[node].is_paused() {
            self.nodes[node].deferred.push(WorldEvent::Silence(node, since));
            return Ok(());
        }
        let path = &self.registry_paths[node];
        let cut = [path.up_cut, path.down_cut].into_iter().flatten().any(|at| at <= since);
        let (session, connected) = self.session_of(node);
        let Some(registry) = self.registry.as_mut() else { return Ok(()) };
        let still = registry.paused || registry.down.is_some();
        if cut {
            let sessions = registry.sessions.iter().filter(|(_, of)| **of == node);
            for session in sessions.map(|(session, _)| *session).collect::<Vec<_>>() {
                registry.forget_session(session);
            }
        }
        let unknown = connected && !registry.sessions.contains_key(&session);
        if session != 0 && (cut || still || unknown) { self.lose_registry(node, session) } else { Ok(()) }
    }

    /// Ends the connection of a node's process that died in silence.
    pub(super) fn session_over(&mut self, session: u64) {
        if let Some(registry) = self.registry.as_mut() {
            registry.forget_session(session);
        }
    }
}
