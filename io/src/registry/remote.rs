//! A registry behind another task, and the channels for calls and news between node and task.

use std::collections::{BTreeMap, VecDeque};

use skirmish_core::registry::{
    CallId, Failure, News, RegistryCommand, RegistryEvent, Response, Watch, WatchId, Watched,
};
use skirmish_core::time::{Duration, Instant};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::prefix::Prefix;
use super::shared::SharedStatus;
use super::{RegistryCounters, Status};

/// News that may wait for the node. While there is no place, [`Backend::tell`] waits.
const NEWS: usize = 256;

/// The node's end of a registry behind another task: etcd's driver, or any other task with the
/// [`Backend`]. After a drop the task receives no more calls; calls in flight may still be
/// executed.
#[derive(Debug)]
pub struct Remote {
    calls: Sender<RegistryCommand>,
    replies: Receiver<RegistryEvent>,
    news: Receiver<Watched>,
    shared: SharedStatus,
    /// Events that need no answer of the backend.
    events: VecDeque<RegistryEvent>,
    /// Requests without an outcome; at most `most_requests`.
    requests: usize,
    most_requests: usize,
    most_watches: usize,
    /// Names by which the backend knows the watches, by the node's names. The backend's names are
    /// never used twice: late news of an ended watch are not taken for news of the next one.
    watches: BTreeMap<WatchId, WatchId>,
    named: BTreeMap<WatchId, WatchId>,
    next_name: u64,
    prefix: Prefix,
    /// Number of connections that the node knows.
    connections: u64,
    /// Ended watches of which the backend is not notified yet, because its queue was full.
    ending: VecDeque<WatchId>,
}

/// The other end of a [`Remote`], for the task that talks to the registry. The task has these
/// duties:
///
/// * Every request is answered once, within the task's time limit. The answer is
///   [`Failure::Unavailable`] only if the request surely was not executed and never will be. The
///   answer is [`Failure::Unknown`] if the connection broke, or nothing was received, after the
///   request was sent.
/// * A watch is kept alive over connections: a new one starts at the revision after the last
///   reported one. Its news keep their order, and none follow [`News::Compacted`] or
///   [`News::Canceled`].
/// * Answers and news need no order among each other. But nothing from a connection is reported
///   before [`Backend::connected`]: that call makes the node check if the registry has lost data.
///
/// ```
/// use skirmish_core::registry::{Embedded, RegistryCommand, RegistryConfig, RegistryEvent};
/// use skirmish_core::time::Duration;
/// use skirmish_io::clock::Clock;
/// use skirmish_io::registry::{Backend, NodeRegistry, Remote};
///
/// let (remote, mut backend) = Remote::new(1024, 64);
/// // For `ServerBuilder::registry`, of any number of servers.
/// let registry = NodeRegistry::Remote(remote);
///
/// // Spawned beside them. This one is right at hand, keeps no lease and tells no news.
/// let serve = async move {
///     let clock = Clock::new();
///     let mut store = Embedded::new(RegistryConfig::default(), clock.now().instant);
///     backend.connected(clock.now().instant, 1);
///     while let Some(call) = backend.next_call().await {
///         store.handle_call(clock.now().instant, call);
///         while let Some(event) = store.poll_event() {
///             match event {
///                 RegistryEvent::Reply { id, outcome } => backend.answer(id, outcome, Duration::ZERO),
///                 RegistryEvent::Watched(watched) => backend.tell(watched).await,
///                 RegistryEvent::Connected { .. } => {}
///             }
///         }
///     }
/// };
/// # drop((registry, serve));
/// ```
#[derive(Debug)]
pub struct Backend {
    pub(super) calls: Receiver<RegistryCommand>,
    pub(super) replies: Sender<RegistryEvent>,
    pub(super) news: Sender<Watched>,
    pub(super) shared: SharedStatus,
}

impl Backend {
    /// Returns the next call, in the node's order; `None` if the node was dropped. Cancel-safe.
    pub async fn next_call(&mut self) -> Option<RegistryCommand> {
        self.calls.recv().await
    }

    /// Answers a request. `latency` is the time since the call. There is always a place for an
    /// answer.
    pub fn answer(&self, id: CallId, outcome: Result<Response, Failure>, latency: Duration) {
        self.shared.answered(&outcome, latency);
        // An error means that the node was dropped.
        let _ = self.replies.try_send(RegistryEvent::Reply { id, outcome });
    }

    /// Sends news of a watch to the node, and waits for a place. If the future is dropped before,
    /// the news are not sent.
    pub async fn tell(&self, watched: Watched) {
        self.shared.news();
        // An error means that the node was dropped.
        let _ = self.news.send(watched).await;
    }

    /// Reports a connection to the registry. `cluster` identifies the registry's cluster: another
    /// registry has another number.
    pub fn connected(&self, now: Instant, cluster: u64) {
        self.shared.connected(now, cluster);
    }

    /// Reports that there is no connection to the registry. `error` is the reason, without secrets.
    pub fn failed(&self, now: Instant, error: String) {
        self.shared.failed(now, error, None);
    }
}

impl Remote {
    /// Creates both ends, with bounds for unanswered requests and for watches. Beyond the bounds a
    /// request is answered at once with [`Failure::Unavailable`], and a watch with
    /// [`News::Canceled`].
    #[must_use]
    pub fn new(requests: usize, watches: usize) -> (Self, Backend) {
        let (calls, calls_end) = mpsc::channel(requests.saturating_add(watches));
        let (replies_end, replies) = mpsc::channel(requests);
        let (news_end, news) = mpsc::channel(NEWS);
        let shared = SharedStatus::default();
        let backend =
            Backend { calls: calls_end, replies: replies_end, news: news_end, shared: shared.clone() };
        let remote = Self {
            calls,
            replies,
            news,
            shared,
            events: VecDeque::new(),
            requests: 0,
            most_requests: requests,
            most_watches: watches,
            watches: BTreeMap::new(),
            named: BTreeMap::new(),
            next_name: 0,
            prefix: Prefix::default(),
            connections: 0,
            ending: VecDeque::new(),
        };
        (remote, backend)
    }

    /// Puts every key below this prefix. To be called before the first call.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        self.prefix = Prefix::new(prefix);
        self
    }

    /// Passes a call on. Never waits: if there is no place, a request is answered with
    /// [`Failure::Unavailable`], and a watch with [`News::Canceled`].
    pub fn handle(&mut self, call: RegistryCommand) {
        self.end_watches();
        match self.prefix.add(call) {
            RegistryCommand::Request { id, request } => {
                let event = RegistryEvent::Reply { id, outcome: Err(Failure::Unavailable) };
                if self.requests >= self.most_requests
                    || self.calls.try_send(RegistryCommand::Request { id, request }).is_err()
                {
                    self.events.push_back(event);
                } else {
                    self.requests += 1;
                }
            }
            RegistryCommand::Watch { id, watch } => self.watch(id, watch),
            RegistryCommand::Unwatch(id) => self.unwatch(id),
        }
    }

    /// Returns the next event for the node.
    pub fn poll_event(&mut self) -> Option<RegistryEvent> {
        self.end_watches();
        let (connections, cluster) = self.shared.connections();
        if connections > self.connections {
            self.connections = connections;
            return Some(RegistryEvent::Connected { cluster });
        }
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Ok(event) = self.replies.try_recv() {
            return Some(self.replied(event));
        }
        loop {
            match self.news.try_recv() {
                Ok(watched) => {
                    if let Some(event) = self.rename(watched) {
                        return Some(event);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// Waits until there is an event for the node. Cancel-safe.
    pub async fn ready(&mut self) {
        while self.events.is_empty() && self.shared.connections().0 == self.connections {
            let event = tokio::select! {
                biased;
                () = self.shared.woken() => None,
                Some(event) = self.replies.recv() => Some(self.replied(event)),
                Some(watched) = self.news.recv() => self.rename(watched),
                else => std::future::pending().await,
            };
            self.events.extend(event);
        }
    }

    /// Returns the state of the connection to the registry.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> RegistryCounters {
        self.shared.counters()
    }

    fn replied(&mut self, event: RegistryEvent) -> RegistryEvent {
        self.requests = self.requests.saturating_sub(1);
        self.prefix.strip(event)
    }

    fn watch(&mut self, id: WatchId, watch: Watch) {
        self.unwatch(id);
        let name = WatchId(self.next_name);
        self.next_name += 1;
        if self.watches.len() + self.ending.len() >= self.most_watches
            || self.calls.try_send(RegistryCommand::Watch { id: name, watch }).is_err()
        {
            self.events.push_back(RegistryEvent::Watched(Watched { id, revision: 0, news: News::Canceled }));
            return;
        }
        self.watches.insert(id, name);
        self.named.insert(name, id);
    }

    fn unwatch(&mut self, id: WatchId) {
        // Queued news of this watch are removed, too.
        self.events.retain(|event| !matches!(event, RegistryEvent::Watched(watched) if watched.id == id));
        if let Some(name) = self.watches.remove(&id) {
            self.named.remove(&name);
            self.ending.push_back(name);
            self.end_watches();
        }
    }

    fn end_watches(&mut self) {
        while let Some(name) = self.ending.pop_front() {
            if self.calls.try_send(RegistryCommand::Unwatch(name)).is_err() {
                self.ending.push_front(name);
                return;
            }
        }
    }

    /// Puts the node's own name on the news; `None` if the watch has ended meanwhile.
    fn rename(&mut self, watched: Watched) -> Option<RegistryEvent> {
        let id = *self.named.get(&watched.id)?;
        if matches!(watched.news, News::Compacted { .. } | News::Canceled) {
            self.named.remove(&watched.id);
            self.watches.remove(&id);
        }
        Some(self.prefix.strip(RegistryEvent::Watched(Watched { id, ..watched })))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use skirmish_core::registry::{LeaseId, Request, Span};

    use super::*;

    fn request(id: u64) -> RegistryCommand {
        RegistryCommand::Request { id: CallId(id), request: Request::Revoke(LeaseId(1)) }
    }

    fn watch(id: u64) -> RegistryCommand {
        RegistryCommand::Watch { id: WatchId(id), watch: Watch::of(Span::one(Bytes::from_static(b"k")), 0) }
    }

    fn news(id: WatchId, news: News) -> Watched {
        Watched { id, revision: 7, news }
    }

    /// Returns the backend's name of a watch that the node has just requested.
    async fn name(backend: &mut Backend) -> WatchId {
        match backend.next_call().await {
            Some(RegistryCommand::Watch { id, .. }) => id,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_there_is_no_place_for_is_answered_at_once() {
        let (mut remote, mut backend) = Remote::new(1, 1);
        for call in [request(1), request(2), watch(1), watch(2)] {
            remote.handle(call);
        }
        let unavailable = RegistryEvent::Reply { id: CallId(2), outcome: Err(Failure::Unavailable) };
        assert_eq!(remote.poll_event(), Some(unavailable));
        assert!(
            matches!(remote.poll_event(), Some(RegistryEvent::Watched(w)) if w.id == WatchId(2) && w.news == News::Canceled)
        );
        assert_eq!(remote.poll_event(), None);
        assert_eq!(backend.next_call().await, Some(request(1)));
        backend.answer(CallId(1), Err(Failure::Unknown), Duration::from_millis(3));
        remote.ready().await;
        assert!(matches!(remote.poll_event(), Some(RegistryEvent::Reply { id: CallId(1), .. })));
        let counters = remote.counters();
        assert_eq!((counters.calls, counters.unknown, counters.latency_us), (1, 1, 3_000));
        // The place is free again.
        remote.handle(request(3));
        assert_eq!(remote.poll_event(), None);
    }

    #[tokio::test]
    async fn news_of_a_watch_that_has_ended_are_not_the_next_ones() {
        let (mut remote, mut backend) = Remote::new(4, 4);
        remote.handle(watch(5));
        let first = name(&mut backend).await;
        backend.tell(news(first, News::Created)).await;
        remote.handle(RegistryCommand::Unwatch(WatchId(5)));
        remote.handle(watch(5));
        assert_eq!(backend.next_call().await, Some(RegistryCommand::Unwatch(first)));
        let second = name(&mut backend).await;
        backend.tell(news(second, News::Progress)).await;
        assert_eq!(remote.poll_event(), Some(RegistryEvent::Watched(news(WatchId(5), News::Progress))));
        assert_eq!(remote.poll_event(), None);
    }

    #[tokio::test]
    async fn whether_it_can_be_reached_is_what_the_backend_says() {
        let (mut remote, mut backend) = Remote::new(1, 1);
        assert!(!remote.status().connected);
        backend.connected(Instant::from_micros(3), 9);
        assert!(remote.status().connected);
        remote.ready().await;
        assert_eq!(remote.poll_event(), Some(RegistryEvent::Connected { cluster: 9 }));
        assert_eq!(remote.poll_event(), None);
        backend.failed(Instant::from_micros(5), "gone".to_owned());
        let status = remote.status();
        assert_eq!(
            (status.connected, status.since, status.error),
            (false, Instant::from_micros(5), Some("gone".to_owned()))
        );
        drop(remote);
        assert_eq!(backend.next_call().await, None);
    }
}
