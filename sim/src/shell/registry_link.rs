//! A server's connection to the registry on its own host: the task behind
//! [`Remote`](skirmish_io::registry::Remote), in the place of etcd's driver.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use madsim::net::{Endpoint, Receiver, Sender};
use skirmish_core::id::NodeId;
use skirmish_core::registry::{
    CallId, Failure, News, RegistryCommand, Request, Response, Watch, WatchId, Watched,
};
use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant};
use skirmish_io::clock::Clock;
use skirmish_io::registry::Backend;

use super::etcd::REGISTRY;
use super::ledger::SharedLedger;
use super::registry_state::{RegistryMessage, ServerMessage};
use crate::history::Actor;
use crate::scenario::Shape;

/// Wait before the task connects again.
const RETRY: Duration = Duration::from_millis(300);

/// State of the task.
pub(super) struct RegistryTask {
    node: Backend,
    shared: SharedLedger,
    server: usize,
    /// The node that the task serves.
    author: NodeId,
    clock: Clock,
    rng: Rng,
    /// Time-out of a request.
    patience: Duration,
    /// Longest silence of the connection before it counts as lost.
    keepalive: Duration,
    link: Option<RegistryConnection>,
    /// Time of the next connect.
    retry: Instant,
    heard: Instant,
    ping: Instant,
    /// Requests that were sent and are not answered.
    calls: BTreeMap<CallId, UnansweredRequest>,
    /// Requests that wait for a connection.
    waiting: VecDeque<(CallId, Request, UnansweredRequest)>,
    watches: BTreeMap<WatchId, OpenWatch>,
}

struct RegistryConnection {
    sender: Sender,
    receiver: Receiver,
    /// True after the registry's first message.
    opened: bool,
}

/// Times of a request without an answer.
#[derive(Clone, Copy)]
struct UnansweredRequest {
    since: Instant,
    due: Instant,
}

/// A watch that is kept alive over connections.
struct OpenWatch {
    watch: Watch,
    /// True if the node was notified that the watch runs.
    told: bool,
}

/// Next event of the task.
enum TaskEvent {
    Called(Option<RegistryCommand>),
    Heard(Option<RegistryMessage>),
    Due,
}

impl RegistryTask {
    pub(super) fn new(
        node: Backend,
        shared: SharedLedger,
        (server, author): (usize, NodeId),
        clock: Clock,
        rng: Rng,
        shape: &Shape,
    ) -> Self {
        let now = clock.now().instant;
        Self {
            node,
            shared,
            server,
            author,
            clock,
            rng,
            patience: Duration::from_millis(shape.registry_call_ms),
            keepalive: Duration::from_millis(shape.registry_keepalive_ms),
            link: None,
            retry: now,
            heard: now,
            ping: now,
            calls: BTreeMap::new(),
            waiting: VecDeque::new(),
            watches: BTreeMap::new(),
        }
    }

    /// Runs until the node is gone.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.clock.now().instant;
            self.expire(now);
            self.keep_alive(now).await;
            if self.link.is_none() && self.retry <= now {
                self.connect().await;
            }
            match self.event().await {
                TaskEvent::Called(None) => return,
                TaskEvent::Called(Some(call)) => self.call(call).await,
                TaskEvent::Heard(Some(say)) => self.hear(say).await,
                TaskEvent::Heard(None) => self.lose("the connection was closed"),
                TaskEvent::Due => {}
            }
        }
    }

    async fn event(&mut self) -> TaskEvent {
        let opened = self.link.as_ref().is_some_and(|link| link.opened);
        let calls = self.calls.values().map(|open| open.due);
        let waiting = self.waiting.iter().map(|(.., open)| open.due);
        let silence = self.link.iter().map(|_| self.heard + self.keepalive);
        let ping = opened.then_some(self.ping).into_iter();
        let retry = self.link.is_none().then_some(self.retry).into_iter();
        let wake = calls.chain(waiting).chain(silence).chain(ping).chain(retry).min();
        let Self { node, link, clock, .. } = self;
        tokio::select! {
            biased;
            said = hear(link) => TaskEvent::Heard(said),
            call = node.next_call() => TaskEvent::Called(call),
            () = sleep_until(clock, wake) => TaskEvent::Due,
        }
    }

    async fn connect(&mut self) {
        let now = self.clock.now().instant;
        let dialed = async {
            let endpoint = Endpoint::bind("0.0.0.0:0").await?;
            endpoint.connect1(SocketAddr::from(REGISTRY)).await
        };
        match dialed.await {
            Ok((sender, receiver)) => {
                self.heard = now;
                self.link = Some(RegistryConnection { sender, receiver, opened: false });
            }
            Err(error) => {
                self.retry = now + RETRY;
                self.node.failed(now, error.to_string());
            }
        }
    }

    async fn call(&mut self, call: RegistryCommand) {
        let now = self.clock.now().instant;
        let opened = self.link.as_ref().is_some_and(|link| link.opened);
        self.note(format_args!("asks the registry: {call:?}"));
        match call {
            RegistryCommand::Request { id, request } => {
                let open = UnansweredRequest { since: now, due: now + self.patience };
                let impatient = self.rng.range(0..=1) == 0;
                if opened {
                    self.calls.insert(id, open);
                    self.ask(RegistryCommand::Request { id, request }).await;
                } else if impatient {
                    // Some drivers fail at once without a connection, others wait for one.
                    self.answer(now, id, open, Err(Failure::Unavailable));
                } else {
                    self.waiting.push_back((id, request, open));
                }
            }
            RegistryCommand::Watch { id, watch } => {
                self.watches.insert(id, OpenWatch { watch: watch.clone(), told: false });
                if opened {
                    self.ask(RegistryCommand::Watch { id, watch }).await;
                }
            }
            RegistryCommand::Unwatch(id) => {
                self.watches.remove(&id);
                if opened {
                    self.ask(RegistryCommand::Unwatch(id)).await;
                }
            }
        }
    }

    async fn ask(&mut self, call: RegistryCommand) {
        self.send(ServerMessage::Call { author: self.author, call }).await;
    }

    async fn send(&mut self, ask: ServerMessage) {
        let Some(link) = &self.link else { return };
        if link.sender.send(Box::new(ask)).await.is_err() {
            self.lose("the connection was reset");
        }
    }

    async fn hear(&mut self, say: RegistryMessage) {
        let now = self.clock.now().instant;
        self.heard = now;
        match say {
            RegistryMessage::Pong => {}
            RegistryMessage::Opened => self.opened(now).await,
            RegistryMessage::Reply(id, outcome) => {
                if let Some(open) = self.calls.remove(&id) {
                    self.answer(now, id, open, outcome);
                }
            }
            RegistryMessage::Watched(watched) => self.watched(watched).await,
        }
    }

    async fn opened(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.opened = true;
        }
        self.node.connected(now, 1);
        self.ping = now + self.keepalive / 2;
        let watches: Vec<_> = self.watches.iter().map(|(id, kept)| (*id, kept.watch.clone())).collect();
        for (id, watch) in watches {
            self.ask(RegistryCommand::Watch { id, watch }).await;
        }
        for (id, request, open) in std::mem::take(&mut self.waiting) {
            self.calls.insert(id, open);
            self.ask(RegistryCommand::Request { id, request }).await;
        }
    }

    async fn watched(&mut self, watched: Watched) {
        let Some(kept) = self.watches.get_mut(&watched.id) else { return };
        kept.watch.start = watched.revision + 1;
        match watched.news {
            News::Created if std::mem::replace(&mut kept.told, true) => return,
            News::Created | News::Changes(_) | News::Progress => {}
            News::Compacted { .. } => {
                self.watches.remove(&watched.id);
                self.shared.lock().coverage.hit("watch compacted");
            }
            News::Canceled => {
                self.watches.remove(&watched.id);
            }
        }
        self.note(format_args!("is told: {watched:?}"));
        self.node.tell(watched).await;
    }

    /// Pings the registry, or drops a connection that has been silent for too long.
    async fn keep_alive(&mut self, now: Instant) {
        let Some(opened) = self.link.as_ref().map(|link| link.opened) else { return };
        if self.heard + self.keepalive <= now {
            self.lose("nothing was heard for too long");
        } else if opened && self.ping <= now {
            self.ping = now + self.keepalive / 2;
            self.send(ServerMessage::Ping).await;
        }
    }

    /// Ends requests that have waited for too long.
    fn expire(&mut self, now: Instant) {
        while self.waiting.front().is_some_and(|(.., open)| open.due <= now)
            && let Some((id, _, open)) = self.waiting.pop_front()
        {
            self.answer(now, id, open, Err(Failure::Unavailable));
        }
        let over = |(id, open): (&CallId, &UnansweredRequest)| (open.due <= now).then_some((*id, *open));
        for (id, open) in self.calls.iter().filter_map(over).collect::<Vec<_>>() {
            self.calls.remove(&id);
            self.shared.lock().coverage.hit("registry silent");
            self.answer(now, id, open, Err(Failure::Unknown));
        }
    }

    /// Drops a dead connection. Requests without an answer may have been executed or not.
    fn lose(&mut self, why: &str) {
        if self.link.take().is_none() {
            return;
        }
        let now = self.clock.now().instant;
        self.retry = now + RETRY;
        self.shared.lock().coverage.hit("registry lost");
        self.note(format_args!("has lost the registry: {why}"));
        self.node.failed(now, why.to_owned());
        for (id, open) in std::mem::take(&mut self.calls) {
            self.answer(now, id, open, Err(Failure::Unknown));
        }
    }

    fn answer(&self, now: Instant, id: CallId, open: UnansweredRequest, outcome: Result<Response, Failure>) {
        self.note(format_args!("is told of {id:?}: {outcome:?}"));
        self.node.answer(id, outcome, now.since(open.since));
    }

    /// Records a message between the node and the registry, and inspects the rooms: a node whose
    /// leases begin and end may serve only for a moment, and write in that moment.
    fn note(&self, text: std::fmt::Arguments<'_>) {
        let mut ledger = self.shared.lock();
        ledger.note(Actor::Node(self.server), text);
        ledger.sample();
    }
}

/// Returns the next message of the registry; `None` if the connection is gone. Cancel safe.
async fn hear(link: &mut Option<RegistryConnection>) -> Option<RegistryMessage> {
    match link {
        None => std::future::pending().await,
        Some(link) => Some(*link.receiver.recv().await.ok()?.downcast::<RegistryMessage>().ok()?),
    }
}

async fn sleep_until(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(clock.deadline(at)).await,
        None => std::future::pending().await,
    }
}
