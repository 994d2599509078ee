//! The registry on a host of its own: its data and its faults. As with etcd, the data outlives the
//! process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skirmish_core::id::NodeId;
use skirmish_core::registry::{
    CallId, Error, Failure, Registry, RegistryCommand, RegistryConfig, Request, Response, WatchId, Watched,
};
use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant};
use skirmish_io::clock::Clock;
use tokio::sync::{Notify, mpsc};

use crate::matches::{self, NEWS};
use crate::records;

/// Longest delay of a request that is executed without an answer, in microseconds.
const MOST_LATE: u64 = 6_000_000;

/// Message of a server to the registry.
#[derive(Debug)]
pub(super) enum ServerMessage {
    Call {
        /// Node that makes the call.
        author: NodeId,
        call: RegistryCommand,
    },
    Ping,
}

/// Message of the registry to a server.
#[derive(Debug)]
pub(super) enum RegistryMessage {
    Opened,
    Reply(CallId, Result<Response, Failure>),
    Watched(Watched),
    Pong,
}

/// Data of the registry. Never locked over an await.
#[derive(Clone)]
pub(super) struct RegistryState(Arc<Mutex<RegistryData>>, Arc<Notify>);

struct RegistryData {
    machine: Registry,
    clock: Clock,
    rng: Rng,
    /// True while the registry has no leader.
    leaderless: bool,
    /// Faults of the connections, by server.
    connection_faults: Vec<ConnectionFaults>,
    sessions: BTreeMap<u64, ServerConnection>,
    next_session: u64,
    /// Watches, with their connections and the nodes' own numbers for them.
    watches: BTreeMap<WatchId, (u64, WatchId)>,
    next_watch: u64,
    /// Requests whose outcome was never reported, by the time of their execution, with the nodes
    /// that sent them.
    late: BTreeMap<(Instant, u64), (NodeId, Request)>,
    next_late: u64,
    /// Records for the oracle, if it watches the registry.
    oracle_events: Option<OracleEvents>,
    /// Servers that have written their last match, with their down-times in milliseconds.
    servers_to_kill: Vec<(usize, u64)>,
}

/// A server's connection.
struct ServerConnection {
    server: usize,
    replies: mpsc::UnboundedSender<RegistryMessage>,
    /// Watch events, with the times at which they leave.
    news: mpsc::UnboundedSender<(Instant, Watched)>,
    last: Instant,
}

#[derive(Clone, Copy, Default)]
struct ConnectionFaults {
    lag: Duration,
    blurred: u32,
    last_match: Option<LastMatch>,
}

/// Fault of a server: the next match that it forms is its last.
#[derive(Clone, Copy)]
pub(super) struct LastMatch {
    /// Delay until the request is executed.
    pub(super) after: Duration,
    /// Down-time of the server, in milliseconds.
    pub(super) down_ms: u64,
}

/// The serving task's ends of a connection.
pub(super) struct ConnectionEnds {
    pub(super) session: u64,
    pub(super) replies: mpsc::UnboundedReceiver<RegistryMessage>,
    pub(super) news: mpsc::UnboundedReceiver<(Instant, Watched)>,
}

/// Events of the oracle's watch.
#[derive(Default)]
pub(super) struct OracleEvents {
    pub(super) watched: Vec<Watched>,
    /// Nodes that made the requests, by revision.
    pub(super) authors: BTreeMap<u64, NodeId>,
}

/// An event that is recorded in the history.
pub(super) struct HistoryNote {
    pub(super) mark: Option<&'static str>,
    pub(super) text: String,
}

impl RegistryState {
    /// Creates an empty registry. `watched` is true if the oracle watches matches.
    pub(super) fn new(servers: usize, clock: Clock, rng: Rng, watched: bool) -> Self {
        let now = clock.now().instant;
        let mut machine = Registry::new(RegistryConfig::etcd(), now);
        if watched {
            // The registry has room for this watch.
            let _ = machine.watch(now, NEWS, matches::watch());
        }
        let inner = RegistryData {
            machine,
            clock,
            rng,
            leaderless: false,
            connection_faults: vec![ConnectionFaults::default(); servers],
            sessions: BTreeMap::new(),
            next_session: 1,
            watches: BTreeMap::new(),
            next_watch: 1,
            late: BTreeMap::new(),
            next_late: 1,
            oracle_events: watched.then(OracleEvents::default),
            servers_to_kill: Vec::new(),
        };
        Self(Arc::new(Mutex::new(inner)), Arc::new(Notify::new()))
    }

    fn lock(&self) -> MutexGuard<'_, RegistryData> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clock(&self) -> Clock {
        self.lock().clock.clone()
    }

    pub(super) fn revision(&self) -> u64 {
        self.lock().machine.revision()
    }

    pub(super) fn audit(&self) -> Result<(), &'static str> {
        self.lock().machine.audit()
    }

    /// Returns true if the registry has a fault that is not one of its host.
    pub(super) fn is_troubled(&self) -> bool {
        let inner = self.lock();
        inner.leaderless
            || inner.connection_faults.iter().any(|faults| faults.lag > Duration::ZERO || faults.blurred > 0)
    }

    /// Opens a connection of a server.
    pub(super) fn open(&self, server: usize) -> ConnectionEnds {
        let mut inner = self.lock();
        let session = inner.next_session;
        inner.next_session += 1;
        let ((replies, replies_end), (news, news_end)) =
            (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let _ = replies.send(RegistryMessage::Opened);
        inner.sessions.insert(session, ServerConnection { server, replies, news, last: Instant::ZERO });
        ConnectionEnds { session, replies: replies_end, news: news_end }
    }

    /// Closes a connection.
    pub(super) fn close(&self, session: u64) {
        let mut inner = self.lock();
        inner.sessions.remove(&session);
        let watches: Vec<WatchId> =
            inner.watches.iter().filter(|(_, (of, _))| *of == session).map(|(id, _)| *id).collect();
        for id in watches {
            inner.watches.remove(&id);
            inner.machine.unwatch(id);
        }
    }

    /// Closes all connections of the old process, as a new one starts.
    pub(super) fn restart(&self) {
        let sessions: Vec<u64> = self.lock().sessions.keys().copied().collect();
        for session in sessions {
            self.close(session);
        }
        self.elected();
    }

    /// Handles a message of a server.
    pub(super) fn take(&self, session: u64, ask: ServerMessage) -> Option<HistoryNote> {
        let noted = self.lock().take(session, ask);
        self.1.notify_one();
        noted
    }

    /// Executes the work that is due. Returns the time of the next call.
    pub(super) fn tick(&self) -> (Instant, Vec<HistoryNote>) {
        self.lock().tick()
    }

    /// Waits until [`Self::tick`] may be due earlier.
    pub(super) async fn changed(&self) {
        self.1.notified().await;
    }

    /// Returns the sessions and rooms of the registry: their keys, owners and epochs.
    pub(super) fn records(&self) -> Vec<(String, NodeId, u64)> {
        let mut inner = self.lock();
        let now = inner.clock.now().instant;
        records::all(&mut inner.machine, now)
    }

    /// Takes the events of the oracle's watch since the last call.
    pub(super) fn take_oracle_events(&self) -> OracleEvents {
        self.lock().oracle_events.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Takes the servers that have written their last match, with their down-times in milliseconds.
    pub(super) fn take_servers_to_kill(&self) -> Vec<(usize, u64)> {
        std::mem::take(&mut self.lock().servers_to_kill)
    }

    /// Returns true if lagging watch events are still under way.
    pub(super) fn is_lagging(&self) -> bool {
        let inner = self.lock();
        let now = inner.clock.now().instant;
        inner.sessions.values().any(|session| session.last > now)
    }

    // Faults.

    pub(super) fn depose(&self) {
        self.lock().leaderless = true;
    }

    pub(super) fn elect(&self) {
        let was = std::mem::take(&mut self.lock().leaderless);
        if was {
            self.elected();
        }
        self.1.notify_one();
    }

    /// Elects a new leader, which renews every lease.
    fn elected(&self) {
        let mut inner = self.lock();
        let now = inner.clock.now().instant;
        inner.machine.handle_leader_change(now);
        inner.settle();
    }

    pub(super) fn compact(&self, keep: u64) {
        let mut inner = self.lock();
        let now = inner.clock.now().instant;
        let revision = inner.machine.revision().saturating_sub(keep);
        // No event that the oracle has not got is compacted.
        inner.settle();
        // A revision that is compacted already stays compacted.
        let _ = inner.machine.handle(now, &Request::Compact { revision });
        inner.settle();
        self.1.notify_one();
    }

    pub(super) fn lag(&self, server: usize, millis: u64) {
        self.lock().connection_faults[server].lag = Duration::from_millis(millis);
    }

    pub(super) fn blur(&self, server: usize, count: u32) {
        self.lock().connection_faults[server].blurred = count;
    }

    pub(super) fn last_match(&self, server: usize, last: LastMatch) {
        self.lock().connection_faults[server].last_match = Some(last);
    }

    /// Ends all faults.
    pub(super) fn calm(&self) {
        {
            let mut inner = self.lock();
            inner.connection_faults.fill(ConnectionFaults::default());
            inner.servers_to_kill.clear();
        }
        self.elect();
    }
}

impl RegistryData {
    fn take(&mut self, session: u64, ask: ServerMessage) -> Option<HistoryNote> {
        let now = self.clock.now().instant;
        let server = self.sessions.get(&session)?.server;
        let noted = match ask {
            ServerMessage::Ping => {
                self.reply(session, RegistryMessage::Pong);
                None
            }
            ServerMessage::Call { author, call } => self.call(now, session, server, author, call),
        };
        self.settle();
        noted
    }

    fn call(
        &mut self,
        now: Instant,
        session: u64,
        server: usize,
        author: NodeId,
        call: RegistryCommand,
    ) -> Option<HistoryNote> {
        match call {
            RegistryCommand::Request { id, request } if self.is_last_match(now, server, author, &request) => {
                let text = format!("server {server} has written its last match: {id:?}, {request:?}");
                Some(HistoryNote { mark: None, text })
            }
            RegistryCommand::Request { id, request } => {
                let faults = &mut self.connection_faults[server];
                let blurred = faults.blurred > 0;
                faults.blurred = faults.blurred.saturating_sub(1);
                if blurred || self.leaderless {
                    Some(self.blur(now, session, author, id, request))
                } else {
                    let outcome = self.handle(now, author, &request).map_err(Failure::Refused);
                    let text = format!("answers server {server}'s {id:?}, {request:?}: {outcome:?}");
                    self.reply(session, RegistryMessage::Reply(id, outcome));
                    Some(HistoryNote { mark: None, text })
                }
            }
            RegistryCommand::Watch { id, watch } => {
                self.unwatch(session, id);
                let own = WatchId(self.next_watch);
                self.next_watch += 1;
                self.watches.insert(own, (session, id));
                // The registry has room for all watches.
                let _ = self.machine.watch(now, own, watch);
                None
            }
            RegistryCommand::Unwatch(id) => {
                self.unwatch(session, id);
                None
            }
        }
    }

    /// Returns true if the request is the last write of a server that forms matches. Then the
    /// request is executed late, and the server gets no answer.
    fn is_last_match(&mut self, now: Instant, server: usize, author: NodeId, request: &Request) -> bool {
        let last = &mut self.connection_faults[server].last_match;
        let Some(LastMatch { after, down_ms }) = last.take_if(|_| matches::is_of_matcher(request)) else {
            return false;
        };
        self.execute_late(now + after, author, request.clone());
        self.servers_to_kill.push((server, down_ms));
        true
    }

    /// Executes a node's request.
    fn handle(&mut self, now: Instant, author: NodeId, request: &Request) -> Result<Response, Error> {
        let before = self.machine.revision();
        let outcome = self.machine.handle(now, request);
        let after = self.machine.revision();
        if let Some(events) = self.oracle_events.as_mut().filter(|_| before < after) {
            events.authors.insert(after, author);
        }
        outcome
    }

    fn execute_late(&mut self, at: Instant, author: NodeId, request: Request) {
        self.late.insert((at, self.next_late), (author, request));
        self.next_late += 1;
    }

    fn unwatch(&mut self, session: u64, id: WatchId) {
        let own = self.watches.iter().find(|(_, of)| **of == (session, id)).map(|(own, _)| *own);
        if let Some(own) = own {
            self.watches.remove(&own);
            self.machine.unwatch(own);
        }
    }

    /// Blurs a request: it is executed now, later or never, and its outcome is not reported.
    fn blur(
        &mut self,
        now: Instant,
        session: u64,
        author: NodeId,
        id: CallId,
        request: Request,
    ) -> HistoryNote {
        let (choice, after) = (self.rng.range(0..=3), self.rng.range(0..=MOST_LATE));
        let text = match choice {
            0 => format!("does not do {id:?}, {request:?}"),
            1 => {
                let text = format!("will do {id:?} after {after} us, {request:?}");
                self.execute_late(now + Duration::from_micros(after), author, request);
                text
            }
            _ => {
                let outcome = self.handle(now, author, &request);
                format!("does {id:?} and does not say so, {request:?}: {outcome:?}")
            }
        };
        // The answer is "unknown", or missing.
        if after % 2 == 0 {
            self.reply(session, RegistryMessage::Reply(id, Err(Failure::Unknown)));
        }
        HistoryNote { mark: Some("registry ambiguous"), text }
    }

    fn reply(&self, session: u64, say: RegistryMessage) {
        if let Some(session) = self.sessions.get(&session) {
            // If the send fails, the connection is being closed.
            let _ = session.replies.send(say);
        }
    }

    fn tick(&mut self) -> (Instant, Vec<HistoryNote>) {
        let now = self.clock.now().instant;
        let mut notes = Vec::new();
        let revision = self.machine.revision();
        self.machine.handle_timeout(now);
        if self.machine.revision() > revision {
            notes.push(HistoryNote { mark: Some("lease ended"), text: "leases end".to_owned() });
        }
        while !self.leaderless
            && let Some(entry) = self.late.first_entry().filter(|entry| entry.key().0 <= now)
        {
            let (author, request) = entry.remove();
            let outcome = self.handle(now, author, &request);
            notes.push(HistoryNote { mark: None, text: format!("does late: {request:?}: {outcome:?}") });
        }
        self.settle();
        let late = self.late.keys().next().map(|(at, _)| *at).filter(|_| !self.leaderless);
        let due = self.machine.poll_timeout().map(|due| due.at);
        let far = now + Duration::from_secs(3600);
        (due.unwrap_or(far).min(late.unwrap_or(far)), notes)
    }

    /// Sends the events of watches.
    fn settle(&mut self) {
        let now = self.clock.now().instant;
        while let Some(watched) = self.machine.poll_output() {
            if watched.id == NEWS {
                self.oracle_events.iter_mut().for_each(|events| events.watched.push(watched.clone()));
                continue;
            }
            let Some(&(of, id)) = self.watches.get(&watched.id) else { continue };
            let Some(session) = self.sessions.get_mut(&of) else { continue };
            // Events of a connection keep their order.
            session.last = session.last.max(now + self.connection_faults[session.server].lag);
            let _ = session.news.send((session.last, Watched { id, ..watched }));
        }
    }
}
