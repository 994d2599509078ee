//! The task that owns the connection. The task decides nothing about keys: groups, watches and
//! keep-alives are machines of their own, and the task carries between them and the network.

use std::collections::BTreeMap;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use skirmish_core::backoff::Backoff;
use skirmish_core::registry::{
    Aftermath, Answer, Error, Failure, GroupCommit, GroupFailure, GroupId, GroupOutput, RegistryCommand,
    Request, Response, Watched,
};
use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::connect::Dialer;
use super::lease::{KeepAlive, KeepAlives};
use super::link::{EtcdConnection, EtcdLink, KeepAliveAnswer, KeepAlivesStream, LinkEvent, WatchesStream};
use super::outcome::EtcdFailure;
use super::send::{SendFault, send};
use super::watch::EtcdWatches;
use crate::clock::Clock;
use crate::registry::Backend;
use crate::rounds::{before, rounds};

/// Maximum number of calls received in one round.
const CALLS: usize = 512;

/// Maximum number of events handled before overdue requests are given up.
const EVENTS: usize = 4096;

/// Lifetime from which on a connection that breaks is replaced at once.
const LASTING: Duration = Duration::from_secs(5);

type GroupSending = std::pin::Pin<Box<dyn Future<Output = (GroupId, Result<Response, SendFault>)> + Send>>;

pub(super) struct EtcdDriver {
    clock: Clock,
    rng: Rng,
    dialer: Dialer,
    backoff: Backoff,
    /// Endpoints tried since the last connection, or since the last wait.
    tried: usize,
    patience: Duration,
    node: Backend,
    link: EtcdLink,
    groups: GroupCommit,
    flights: FuturesUnordered<GroupSending>,
    flying: BTreeMap<GroupId, SentGroup>,
    keeps: KeepAlives,
    watches: EtcdWatches,
    /// News that the handle has had no place for yet.
    news: Option<Watched>,
    /// Time of etcd's last message.
    heard: Instant,
}

/// A group that was sent.
struct SentGroup {
    members: usize,
    /// Time at which the connection was made: identifies the connection.
    connection: Instant,
}

enum DriverEvent {
    Landed(GroupId, Result<Response, SendFault>),
    Link(LinkEvent),
    /// Number of received calls; 0 if the handle was dropped.
    Calls(usize),
    Told,
    Due,
    Gone,
}

impl EtcdDriver {
    pub(super) fn new(
        clock: Clock,
        rng: Rng,
        dialer: Dialer,
        backoff: Backoff,
        groups: GroupCommit,
        node: Backend,
    ) -> Self {
        let now = clock.now().instant;
        let with_token = dialer.has_user();
        let patience = groups.patience();
        Self {
            clock,
            rng,
            dialer,
            backoff,
            tried: 0,
            patience,
            node,
            link: EtcdLink::Down(now),
            groups,
            flights: FuturesUnordered::new(),
            flying: BTreeMap::new(),
            keeps: KeepAlives::new(patience),
            watches: EtcdWatches::new(with_token),
            news: None,
            heard: now,
        }
    }

    /// Runs until the handle is dropped.
    pub(super) async fn run(mut self) {
        let mut calls = Vec::with_capacity(CALLS);
        loop {
            let now = self.clock.now().instant;
            if let Some(at) = self.due().filter(|at| *at <= now) {
                // An answer that has already arrived is handled before its time runs out.
                rounds(before(at, now, 0)).await;
                for _ in 0..EVENTS {
                    match self.event(&mut calls, false).await {
                        Some(DriverEvent::Due) => break,
                        Some(event) => {
                            if !self.handle(event, &mut calls) {
                                return;
                            }
                        }
                        None => return,
                    }
                }
            }
            self.expire(now);
            self.dial(now);
            self.launch(now);
            let Some(event) = self.event(&mut calls, true).await else { return };
            if !self.handle(event, &mut calls) {
                return;
            }
        }
    }

    /// Handles an event. Returns false if the handle was dropped.
    fn handle(&mut self, event: DriverEvent, calls: &mut Vec<RegistryCommand>) -> bool {
        let now = self.clock.now().instant;
        match event {
            DriverEvent::Landed(id, result) => self.land(now, id, result),
            DriverEvent::Link(event) => self.handle_event(now, event),
            DriverEvent::Calls(0) | DriverEvent::Gone => return false,
            DriverEvent::Calls(_) => {
                for call in calls.drain(..) {
                    self.take(now, call);
                }
            }
            DriverEvent::Told | DriverEvent::Due => {}
        }
        true
    }

    /// Returns the next event. If `waits` is false and there is no event, returns
    /// [`DriverEvent::Due`].
    async fn event(&mut self, calls: &mut Vec<RegistryCommand>, waits: bool) -> Option<DriverEvent> {
        let due = self.due();
        let Self { link, flights, node, news, watches, keeps, clock, .. } = self;
        let wake = due.into_iter().chain(if let EtcdLink::Down(at) = link { Some(*at) } else { None }).min();
        let listening = news.is_none();
        let event = tokio::select! {
            biased;
            Some((id, result)) = flights.next() => DriverEvent::Landed(id, result),
            permit = node.news.reserve(), if !listening => match permit {
                Ok(permit) => {
                    permit.send(news.take()?);
                    DriverEvent::Told
                }
                Err(_) => DriverEvent::Gone,
            },
            event = link.next_event(watches.to_send(), keeps.to_send(), listening) => DriverEvent::Link(event),
            count = node.calls.recv_many(calls, CALLS) => DriverEvent::Calls(count),
            () = std::future::ready(()), if !waits => DriverEvent::Due,
            () = sleep_until(clock, wake) => DriverEvent::Due,
        };
        Some(event)
    }

    /// Handles a call of the handle.
    fn take(&mut self, now: Instant, call: RegistryCommand) {
        match call {
            RegistryCommand::Watch { id, watch } => self.watches.add(id, watch),
            RegistryCommand::Unwatch(id) => self.watches.remove(id),
            RegistryCommand::Request { id, request: Request::KeepAlive(lease) } => {
                self.keeps.push(now, id, lease)
            }
            RegistryCommand::Request { id, request } => {
                self.groups.handle_request(now, id, request);
                self.settle(now);
            }
        }
    }

    /// Returns the time at which the first request runs out of time.
    fn due(&self) -> Option<Instant> {
        let group = self.groups.poll_timeout().map(|deadline| deadline.at);
        group.into_iter().chain(self.keeps.poll_timeout()).min()
    }

    /// Gives up requests that have waited for too long.
    fn expire(&mut self, now: Instant) {
        while let Some((keep, is_pending)) = self.keeps.take_expired(now) {
            if is_pending {
                self.restart_keeping();
            }
            let failure = if keep.sent.is_some() { Failure::Unknown } else { Failure::Unavailable };
            self.answer_keep(now, keep, Err(failure));
            if let Some(sent) = keep.sent {
                self.judge_silence(now, sent);
            }
        }
        self.groups.handle_timeout(now);
        self.settle(now);
    }

    /// Hands the outcomes of requests to the node.
    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.groups.poll_output() {
            match output {
                GroupOutput::Reply { id, outcome, asked } => self.node.answer(id, outcome, now.since(asked)),
                GroupOutput::Overdue { sent } => self.judge_silence(now, sent),
            }
        }
    }

    /// Judges the connection after a request, sent at `sent`, has run out of time. A slow answer is
    /// tolerated. If nothing at all was received since, the connection is given up.
    fn judge_silence(&mut self, now: Instant, sent: Instant) {
        if self.heard < sent {
            self.lose(now, "no answer in time".to_owned());
        }
    }

    fn dial(&mut self, now: Instant) {
        if !matches!(self.link, EtcdLink::Down(at) if at <= now) {
            return;
        }
        if let Some((endpoint, dialing)) = self.dialer.dial() {
            debug!(endpoint, "connecting to the registry");
            self.link = EtcdLink::Dialing(endpoint, dialing);
        }
    }

    /// Opens streams and sends groups as far as possible.
    fn launch(&mut self, now: Instant) {
        let EtcdLink::Up(up) = &mut self.link else { return };
        if matches!(up.watching, WatchesStream::None)
            && let Some(request) = self.watches.to_send()
        {
            up.watching =
                WatchesStream::open(&up.client, request, std::mem::take(&mut up.stale), self.patience);
            if matches!(up.watching, WatchesStream::Opening(_)) {
                self.watches.handle_sent();
            }
        }
        if matches!(up.keeping, KeepAlivesStream::None)
            && let Some(lease) = self.keeps.to_send()
        {
            up.keeping = KeepAlivesStream::open(&up.client, lease, self.patience);
        }
        while let Some(group) = self.groups.poll_group(now) {
            self.node.shared.sent(group.members);
            let (id, sending) = (group.id, send(&up.client, group.request, self.patience));
            self.flights.push(Box::pin(async move { (id, sending.await) }));
            self.flying.insert(id, SentGroup { members: group.members, connection: up.since });
        }
    }

    /// Handles the result of a group.
    fn land(&mut self, now: Instant, id: GroupId, result: Result<Response, SendFault>) {
        let Some(flight) = self.flying.remove(&id) else { return };
        let (wrong, from_etcd, text) = match result {
            Ok(response) => {
                match self.groups.handle_response(now, id, response) {
                    Ok(()) => self.heard = now,
                    Err(malformed) => self.lose_flight(now, &flight, malformed.to_string()),
                }
                return self.settle(now);
            }
            Err(SendFault::Wrong { wrong, from_etcd, text }) => (wrong, from_etcd, text),
            Err(SendFault::Silence) => {
                (EtcdFailure::Outcome(Failure::Unknown), false, "no answer in time".to_owned())
            }
        };
        if from_etcd {
            self.heard = now;
        }
        let failure = match wrong {
            EtcdFailure::NotDone => GroupFailure::NotDone,
            // The next endpoint may be better, if there is one.
            EtcdFailure::Outcome(Failure::Unknown) if !from_etcd || self.dialer.len() > 1 => {
                GroupFailure::Lost
            }
            EtcdFailure::Outcome(failure) => GroupFailure::Outcome(failure),
        };
        debug!(members = flight.members, ?failure, error = text, "a group came to nothing");
        match self.groups.handle_failure(now, id, failure) {
            Aftermath::Halved => self.node.shared.halved(),
            Aftermath::Again => {}
            Aftermath::Settled => self.node.shared.not_done(settled_by(failure), text.clone()),
        }
        self.settle(now);
        if !matches!(failure, GroupFailure::Outcome(_)) {
            self.lose_flight(now, &flight, text);
        }
    }

    /// Gives up the connection over which a group was sent, if that connection is still in use.
    fn lose_flight(&mut self, now: Instant, flight: &SentGroup, error: String) {
        if matches!(&self.link, EtcdLink::Up(up) if up.since == flight.connection) {
            self.lose(now, error);
        }
    }

    fn handle_event(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Dialed(Ok((client, cluster))) => {
                let endpoint = if let EtcdLink::Dialing(endpoint, _) = &self.link { endpoint } else { "" };
                info!(endpoint, watches = self.watches.len(), "connected to the registry");
                self.node.shared.connected(now, cluster);
                self.tried = 0;
                self.heard = now;
                self.watches.restart();
                self.keeps.restart();
                let (watching, keeping) = (WatchesStream::None, KeepAlivesStream::None);
                self.link = EtcdLink::Up(Box::new(EtcdConnection {
                    client,
                    since: now,
                    stale: false,
                    watching,
                    keeping,
                }));
            }
            LinkEvent::Dialed(Err(error)) => self.lose_by(now, error.text, error.refusal),
            LinkEvent::Broken(error) => self.lose(now, error),
            LinkEvent::WatchOpen(sender, stream) => {
                if let EtcdLink::Up(up) = &mut self.link {
                    up.watching = WatchesStream::Open(sender, stream);
                }
            }
            LinkEvent::WatchSent => self.watches.handle_sent(),
            LinkEvent::Heard(heard) => {
                self.heard = now;
                self.node.shared.news();
                self.news = self.watches.handle_heard(heard);
                if self.watches.take_stale()
                    && let EtcdLink::Up(up) = &mut self.link
                {
                    up.watching = WatchesStream::None;
                    up.stale = true;
                    self.watches.restart();
                }
            }
            LinkEvent::KeepOpen(lease, stream) => {
                self.heard = now;
                let none = stream.is_none();
                if let EtcdLink::Up(up) = &mut self.link {
                    up.keeping = stream.map_or(KeepAlivesStream::None, |(keeper, stream)| {
                        KeepAlivesStream::Open(keeper, stream)
                    });
                }
                if none && let Some(keep) = self.keeps.take_first(lease) {
                    self.answer_keep(now, keep, Err(Failure::Refused(Error::LeaseNotFound)));
                }
            }
            LinkEvent::KeepSent => self.keeps.handle_sent(now),
            LinkEvent::Kept(KeepAliveAnswer { lease, ttl_s, revision }) => {
                self.heard = now;
                match self.keeps.handle_answer(lease) {
                    Ok(keep) => {
                        let kept = Ok(Response { revision, answer: Answer::KeptAlive { ttl_s } });
                        let gone = Err(Failure::Refused(Error::LeaseNotFound));
                        self.answer_keep(now, keep, if ttl_s > 0 { kept } else { gone });
                    }
                    Err(_) => self.restart_keeping(),
                }
            }
        }
    }

    /// Gives up the connection and goes on to the next endpoint.
    fn lose(&mut self, now: Instant, error: String) {
        self.lose_by(now, error, None);
    }

    /// Gives up the connection or the attempt to connect, and goes on to the next endpoint.
    /// `refusal` is set if the registry has refused to connect.
    fn lose_by(&mut self, now: Instant, error: String, refusal: Option<Failure>) {
        self.tried += 1;
        let lasted = match &self.link {
            EtcdLink::Up(up) => now.since(up.since) >= LASTING,
            EtcdLink::Dialing(..) => false,
            // The connection is lost already.
            EtcdLink::Down(_) => return,
        };
        if lasted {
            self.backoff.reset();
        }
        // Every endpoint is tried once before a wait.
        let wait = if lasted || self.tried < self.dialer.len() {
            Duration::ZERO
        } else {
            self.tried = 0;
            self.backoff.next(&mut self.rng, Duration::ZERO)
        };
        if matches!(self.link, EtcdLink::Up(_)) {
            warn!(error, "lost the registry");
        } else {
            debug!(error, "cannot connect to the registry");
        }
        self.node.shared.failed(now, error, refusal);
        self.link = EtcdLink::Down(now + wait);
    }

    fn restart_keeping(&mut self) {
        self.keeps.restart();
        if let EtcdLink::Up(up) = &mut self.link {
            up.keeping = KeepAlivesStream::None;
        }
    }

    fn answer_keep(&self, now: Instant, keep: KeepAlive, outcome: Result<Response, Failure>) {
        self.node.answer(keep.id, outcome, now.since(keep.asked));
    }
}

/// Returns the outcome of each member of a group that has failed for good.
const fn settled_by(failure: GroupFailure) -> Failure {
    match failure {
        GroupFailure::Outcome(failure) => failure,
        GroupFailure::Lost | GroupFailure::NotDone => Failure::Unknown,
    }
}

async fn sleep_until(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(clock.deadline(at)).await,
        None => std::future::pending().await,
    }
}
