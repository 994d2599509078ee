//! etcd as the registry: a task that owns the connection, and the handle to it.

mod connect;
mod driver;
mod group;
mod lease;
mod link;
mod outcome;
mod request;
mod response;
mod send;
mod shared;
mod touch;
mod watch;

use std::collections::{BTreeMap, VecDeque};

use skirmish_core::registry::{Call, Failure, News, Told, Watch, WatchId, Watched};
use skirmish_core::rng::{Rng, Seed};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use self::connect::{Backoff, Dialer};
use self::driver::{Driver, Ends};
use self::group::{Groups, Limits};
use self::shared::Shared;
use super::{Counters, Status};
use crate::clock::Clock;
use crate::config::RegistryEtcd;

pub use self::connect::OptionsError;

/// News that may wait for the node. While there is no place the stream is not read, and
/// etcd holds the rest back.
const NEWS: usize = 256;

/// The handle to the task that talks to etcd. The task ends when it is dropped; what is
/// under way then may still be done.
#[derive(Debug)]
pub struct Etcd {
    calls: Sender<Call>,
    replies: Receiver<Told>,
    news: Receiver<Watched>,
    shared: Shared,
    /// What is to be told without asking etcd.
    told: VecDeque<Told>,
    /// Requests without an outcome, and how many there may be.
    requests: usize,
    most_requests: usize,
    most_watches: usize,
    /// The watches, by the names that the task knows them by. Those are never used twice:
    /// what is still on its way when a watch ends is not taken for the next one's.
    watches: BTreeMap<WatchId, WatchId>,
    named: BTreeMap<WatchId, WatchId>,
    next_name: u64,
    /// Watches whose end the task has had no place to hear of.
    ending: VecDeque<WatchId>,
}

impl Etcd {
    /// Starts the task, on the runtime that this is called on. It connects by itself and
    /// for as long as it takes.
    ///
    /// # Errors
    /// If the options are unusable; whether there is an etcd is not known yet.
    pub fn start(options: &RegistryEtcd, clock: Clock, seed: Seed) -> Result<Self, OptionsError> {
        let dialer = Dialer::new(options)?;
        let groups = Groups::new(Limits {
            waiting: options.requests,
            members: options.group_requests,
            bytes: options.group_bytes,
            in_flight: options.groups,
        });
        let (calls, calls_end) = mpsc::channel(options.requests.saturating_add(options.watches));
        let (replies_end, replies) = mpsc::channel(options.requests);
        let (news_end, news) = mpsc::channel(NEWS);
        let shared = Shared::default();
        let driver = Driver::new(
            clock,
            Rng::new(seed),
            dialer,
            Backoff::new(options.backoff_min, options.backoff_max),
            options.request_timeout,
            groups,
            shared.clone(),
            Ends { calls: calls_end, replies: replies_end, news: news_end },
        );
        tokio::spawn(driver.run());
        Ok(Self {
            calls,
            replies,
            news,
            shared,
            told: VecDeque::new(),
            requests: 0,
            most_requests: options.requests,
            most_watches: options.watches,
            watches: BTreeMap::new(),
            named: BTreeMap::new(),
            next_name: 0,
            ending: VecDeque::new(),
        })
    }

    /// Takes a call. Never waits: what there is no place for is answered at once that the
    /// registry is unavailable, or that the watch has ended.
    pub fn handle(&mut self, call: Call) {
        self.end_watches();
        match call {
            Call::Request { id, request } => {
                let told = Told::Reply { id, outcome: Err(Failure::Unavailable) };
                if self.requests >= self.most_requests
                    || self.calls.try_send(Call::Request { id, request }).is_err()
                {
                    self.told.push_back(told);
                } else {
                    self.requests += 1;
                }
            }
            Call::Watch { id, watch } => self.watch(id, watch),
            Call::Unwatch(id) => self.unwatch(id),
        }
    }

    /// What there is to tell the node.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.end_watches();
        if let Some(told) = self.told.pop_front() {
            return Some(told);
        }
        if let Ok(told) = self.replies.try_recv() {
            return Some(self.replied(told));
        }
        loop {
            match self.news.try_recv() {
                Ok(watched) => {
                    if let Some(told) = self.rename(watched) {
                        return Some(told);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// Waits until there is something to tell. Can be dropped at any time.
    pub async fn ready(&mut self) {
        while self.told.is_empty() {
            let told = tokio::select! {
                biased;
                Some(told) = self.replies.recv() => Some(self.replied(told)),
                Some(watched) = self.news.recv() => self.rename(watched),
                else => std::future::pending().await,
            };
            self.told.extend(told);
        }
    }

    /// Whether etcd can be reached.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    fn replied(&mut self, told: Told) -> Told {
        self.requests = self.requests.saturating_sub(1);
        told
    }

    fn watch(&mut self, id: WatchId, watch: Watch) {
        self.unwatch(id);
        let name = WatchId(self.next_name);
        self.next_name += 1;
        if self.watches.len() + self.ending.len() >= self.most_watches
            || self.calls.try_send(Call::Watch { id: name, watch }).is_err()
        {
            self.told.push_back(Told::Watched(Watched { id, revision: 0, news: News::Canceled }));
            return;
        }
        self.watches.insert(id, name);
        self.named.insert(name, id);
    }

    fn unwatch(&mut self, id: WatchId) {
        // What is queued here is news of it, too.
        self.told.retain(|told| !matches!(told, Told::Watched(watched) if watched.id == id));
        if let Some(name) = self.watches.remove(&id) {
            self.named.remove(&name);
            self.ending.push_back(name);
            self.end_watches();
        }
    }

    fn end_watches(&mut self) {
        while let Some(name) = self.ending.pop_front() {
            if self.calls.try_send(Call::Unwatch(name)).is_err() {
                self.ending.push_front(name);
                return;
            }
        }
    }

    /// The news under the node's own name; `None` if the watch has ended meanwhile.
    fn rename(&mut self, watched: Watched) -> Option<Told> {
        let id = *self.named.get(&watched.id)?;
        if matches!(watched.news, News::Compacted { .. } | News::Canceled) {
            self.named.remove(&watched.id);
            self.watches.remove(&id);
        }
        Some(Told::Watched(Watched { id, ..watched }))
    }
}
