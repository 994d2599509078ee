//! The task that owns the connection. It decides nothing about keys: groups, watches and
//! keep-alives are machines of their own, and this carries between them and the network.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use skirmish_core::backoff::Backoff;
use skirmish_core::registry::{Answer, Call, CallId, Error, Failure, Request, Response, Watched};
use skirmish_core::rng::Rng;
use skirmish_core::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::connect::Dialer;
use super::group::{Group, GroupId, Groups};
use super::lease::KeepAlives;
use super::link::{Happening, Keeping, Kept, Link, Up, Watching};
use super::outcome::Wrong;
use super::send::{Fault, is_read, send};
use super::watch::Watches;
use crate::clock::Clock;
use crate::registry::Backend;
use crate::turns::{before, turns};

/// Calls taken in one turn.
const CALLS: usize = 512;

/// Events that are taken before what is overdue is given up.
const EVENTS: usize = 4096;

/// A connection that has lasted this long is replaced at once when it breaks.
const LASTING: Duration = Duration::from_secs(5);

type Landing =
    std::pin::Pin<Box<dyn Future<Output = (GroupId, Result<Vec<Option<Response>>, Fault>)> + Send>>;

pub(super) struct Driver {
    clock: Clock,
    rng: Rng,
    dialer: Dialer,
    backoff: Backoff,
    /// Endpoints tried since the last connection, or the last wait.
    tried: usize,
    patience: Duration,
    node: Backend,
    link: Link,
    groups: Groups,
    flights: FuturesUnordered<Landing>,
    flying: BTreeMap<GroupId, SentGroup>,
    keeps: KeepAlives,
    watches: Watches,
    /// News that the handle has had no place for yet.
    news: Option<Watched>,
    open: BTreeMap<CallId, OpenRequest>,
    due: BTreeSet<(Instant, CallId)>,
    /// When etcd last said anything.
    heard: Instant,
}

struct SentGroup {
    group: Group,
    /// By which connection, and when.
    connection: Instant,
}

/// A request without an outcome.
#[derive(Clone, Copy)]
struct OpenRequest {
    since: Instant,
    due: Instant,
    /// It is a keep-alive.
    keep: bool,
    /// When it was last sent, if it may have arrived.
    sent: Option<Instant>,
}

enum Event {
    Landed(GroupId, Result<Vec<Option<Response>>, Fault>),
    Link(Happening),
    /// So many calls came; none if there is nobody any more to make them.
    Calls(usize),
    Told,
    Due,
    Gone,
}

impl Driver {
    #[allow(clippy::too_many_arguments, reason = "it is made in one place")]
    pub(super) fn new(
        clock: Clock,
        rng: Rng,
        dialer: Dialer,
        backoff: Backoff,
        patience: Duration,
        groups: Groups,
        node: Backend,
    ) -> Self {
        let now = clock.now().instant;
        let with_token = dialer.has_user();
        Self {
            clock,
            rng,
            dialer,
            backoff,
            tried: 0,
            patience,
            node,
            link: Link::Down(now),
            groups,
            flights: FuturesUnordered::new(),
            flying: BTreeMap::new(),
            keeps: KeepAlives::default(),
            watches: Watches::new(with_token),
            news: None,
            open: BTreeMap::new(),
            due: BTreeSet::new(),
            heard: now,
        }
    }

    /// Runs until the handle is dropped.
    pub(super) async fn run(mut self) {
        let mut calls = Vec::with_capacity(CALLS);
        loop {
            let now = self.clock.now().instant;
            if let Some((at, _)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
                // An answer that is there comes before the end of its time.
                turns(before(at, now, 0)).await;
                for _ in 0..EVENTS {
                    match self.event(&mut calls, false).await {
                        Some(Event::Due) => break,
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

    /// False if there is no handle any more.
    fn handle(&mut self, event: Event, calls: &mut Vec<Call>) -> bool {
        let now = self.clock.now().instant;
        match event {
            Event::Landed(id, result) => self.land(now, id, result),
            Event::Link(happening) => self.happen(now, happening),
            Event::Calls(0) | Event::Gone => return false,
            Event::Calls(_) => {
                for call in calls.drain(..) {
                    self.take(now, call);
                }
            }
            Event::Told | Event::Due => {}
        }
        true
    }

    /// The next event; if it is not to be waited for, [`Event::Due`] when there is none.
    async fn event(&mut self, calls: &mut Vec<Call>, waits: bool) -> Option<Event> {
        let Self { link, flights, node, news, watches, keeps, due, clock, .. } = self;
        let wake = due.first().map(|(at, _)| *at).into_iter();
        let wake = wake.chain(if let Link::Down(at) = link { Some(*at) } else { None }).min();
        let listening = news.is_none();
        let event = tokio::select! {
            biased;
            Some((id, result)) = flights.next() => Event::Landed(id, result),
            permit = node.news.reserve(), if !listening => match permit {
                Ok(permit) => {
                    permit.send(news.take()?);
                    Event::Told
                }
                Err(_) => Event::Gone,
            },
            happening = link.happening(watches.to_say(), keeps.to_send(), listening) => Event::Link(happening),
            count = node.calls.recv_many(calls, CALLS) => Event::Calls(count),
            () = std::future::ready(()), if !waits => Event::Due,
            () = sleep_until(clock, wake) => Event::Due,
        };
        Some(event)
    }

    /// Takes a call of the handle's.
    fn take(&mut self, now: Instant, call: Call) {
        match call {
            Call::Watch { id, watch } => self.watches.add(id, watch),
            Call::Unwatch(id) => self.watches.remove(id),
            Call::Request { id, request } => {
                let due = now + self.patience;
                let keep = matches!(request, Request::KeepAlive(_));
                self.open.insert(id, OpenRequest { since: now, due, keep, sent: None });
                self.due.insert((due, id));
                if let Request::KeepAlive(lease) = request {
                    self.keeps.push(id, lease);
                } else if self.groups.push(id, request).is_err() {
                    self.answer(now, id, Err(Failure::Unavailable));
                }
            }
        }
    }

    /// Gives up on what has waited for too long.
    fn expire(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.due.first() {
            if at > now {
                return;
            }
            let Some(&OpenRequest { sent, keep, .. }) = self.open.get(&id) else {
                self.due.pop_first();
                continue;
            };
            if keep {
                if self.keeps.remove(id) {
                    self.restart_keeping();
                }
            } else if sent.is_none() {
                self.groups.remove(id);
            }
            let failure = if sent.is_some() { Failure::Unknown } else { Failure::Unavailable };
            self.answer(now, id, Err(failure));
            // A slow answer is one thing; if nothing at all was heard since, nothing may ever be.
            if sent.is_some_and(|sent| self.heard < sent) {
                self.lose(now, "no answer in time".to_owned());
            }
        }
    }

    fn dial(&mut self, now: Instant) {
        if !matches!(self.link, Link::Down(at) if at <= now) {
            return;
        }
        if let Some((endpoint, dialing)) = self.dialer.dial() {
            debug!(endpoint, "connecting to the registry");
            self.link = Link::Dialing(endpoint, dialing);
        }
    }

    /// Sends what can be sent.
    fn launch(&mut self, now: Instant) {
        let Link::Up(up) = &mut self.link else { return };
        if matches!(up.watching, Watching::None)
            && let Some(say) = self.watches.to_say()
        {
            up.watching = Watching::open(&up.client, say, std::mem::take(&mut up.stale), self.patience);
            if matches!(up.watching, Watching::Opening(_)) {
                self.watches.handle_said();
            }
        }
        if matches!(up.keeping, Keeping::None)
            && let Some(lease) = self.keeps.to_send()
        {
            up.keeping = Keeping::open(&up.client, lease, self.patience);
        }
        while let Some(group) = self.groups.take() {
            for member in &group.members {
                if let Some(open) = self.open.get_mut(&member.id) {
                    open.sent = Some(now);
                }
            }
            self.node.shared.sent(group.members.len());
            let (id, sending) = (group.id, send(&up.client, &group, self.patience));
            self.flights.push(Box::pin(async move { (id, sending.await) }));
            self.flying.insert(id, SentGroup { group, connection: up.since });
        }
    }

    /// A group has come back, or not.
    fn land(&mut self, now: Instant, id: GroupId, result: Result<Vec<Option<Response>>, Fault>) {
        let Some(SentGroup { mut group, connection }) = self.flying.remove(&id) else { return };
        let (wrong, said, text) = match result {
            Ok(responses) => {
                self.heard = now;
                self.handle_answers(now, group, responses);
                return;
            }
            Err(Fault::Wrong { wrong, said, text }) => (wrong, said, text),
            Err(Fault::Silence) => (Wrong::Outcome(Failure::Unknown), false, "no answer in time".to_owned()),
        };
        if said {
            self.heard = now;
        }
        let is_current = matches!(&self.link, Link::Up(up) if up.since == connection);
        let unsound = wrong == Wrong::NotDone
            || (wrong == Wrong::Outcome(Failure::Unknown) && (!said || self.dialer.len() > 1));
        debug!(members = group.members.len(), ?wrong, error = text, "a group came to nothing");
        match wrong {
            Wrong::Outcome(Failure::Refused(_)) if group.members.len() > 1 => {
                self.node.shared.halved();
                self.unsend(&mut group);
                self.groups.halve(group);
            }
            Wrong::NotDone => {
                self.unsend(&mut group);
                self.groups.again(group);
            }
            Wrong::Outcome(Failure::Unknown)
                if unsound && group.members.iter().all(|member| is_read(&member.request)) =>
            {
                self.unsend(&mut group);
                self.groups.again(group);
            }
            Wrong::Outcome(failure) => {
                self.node.shared.not_done(failure, text.clone());
                self.groups.end(id);
                for member in group.members {
                    self.answer(now, member.id, Err(failure));
                }
            }
        }
        if unsound && is_current {
            self.lose(now, text);
        }
    }

    /// Answers to the members of a group; those without one are sent again.
    fn handle_answers(&mut self, now: Instant, mut group: Group, responses: Vec<Option<Response>>) {
        let has_answer: Vec<bool> = responses.iter().map(Option::is_some).collect();
        for (member, response) in group.members.iter().zip(responses) {
            if let Some(response) = response {
                self.answer(now, member.id, Ok(response));
            }
        }
        self.groups.answered(&mut group, &has_answer);
        self.unsend(&mut group);
        self.groups.again(group);
    }

    /// Nothing was done of these. Who is not waited for any more is not sent again.
    fn unsend(&mut self, group: &mut Group) {
        group.members.retain(|member| self.open.contains_key(&member.id));
        for member in &group.members {
            if let Some(open) = self.open.get_mut(&member.id) {
                open.sent = None;
            }
        }
    }

    fn happen(&mut self, now: Instant, happening: Happening) {
        match happening {
            Happening::Dialed(Ok((client, cluster))) => {
                let endpoint = if let Link::Dialing(endpoint, _) = &self.link { endpoint } else { "" };
                info!(endpoint, watches = self.watches.len(), "connected to the registry");
                self.node.shared.connected(now, cluster);
                self.tried = 0;
                self.heard = now;
                self.watches.restart();
                self.keeps.restart();
                let (watching, keeping) = (Watching::None, Keeping::None);
                self.link = Link::Up(Box::new(Up { client, since: now, stale: false, watching, keeping }));
            }
            Happening::Dialed(Err(error)) => self.lose_by(now, error.text, error.refusal),
            Happening::Broken(error) => self.lose(now, error),
            Happening::WatchOpen(sender, stream) => {
                if let Link::Up(up) = &mut self.link {
                    up.watching = Watching::Open(sender, stream);
                }
            }
            Happening::Said => self.watches.handle_said(),
            Happening::Heard(heard) => {
                self.heard = now;
                self.node.shared.news();
                self.news = self.watches.handle_heard(heard);
                if self.watches.take_stale()
                    && let Link::Up(up) = &mut self.link
                {
                    up.watching = Watching::None;
                    up.stale = true;
                    self.watches.restart();
                }
            }
            Happening::KeepOpen(lease, stream) => {
                self.heard = now;
                let none = stream.is_none();
                if let Link::Up(up) = &mut self.link {
                    up.keeping =
                        stream.map_or(Keeping::None, |(keeper, stream)| Keeping::Open(keeper, stream));
                }
                if none && let Some(id) = self.keeps.take_first(lease) {
                    self.answer(now, id, Err(Failure::Refused(Error::LeaseNotFound)));
                }
            }
            Happening::KeepSent => {
                if let Some(id) = self.keeps.handle_sent()
                    && let Some(open) = self.open.get_mut(&id)
                {
                    open.sent = Some(now);
                }
            }
            Happening::Kept(Kept { lease, ttl_s, revision }) => {
                self.heard = now;
                match self.keeps.handle_answer(lease) {
                    Ok(id) => {
                        let kept = Ok(Response { revision, answer: Answer::KeptAlive { ttl_s } });
                        let gone = Err(Failure::Refused(Error::LeaseNotFound));
                        self.answer(now, id, if ttl_s > 0 { kept } else { gone });
                    }
                    Err(_) => self.restart_keeping(),
                }
            }
        }
    }

    /// The connection is of no use: on to the next endpoint.
    fn lose(&mut self, now: Instant, error: String) {
        self.lose_by(now, error, None);
    }

    /// The connection is of no use, or there was none, perhaps since the registry has refused
    /// it: on to the next endpoint.
    fn lose_by(&mut self, now: Instant, error: String, refusal: Option<Failure>) {
        self.tried += 1;
        let lasted = match &self.link {
            Link::Up(up) => now.since(up.since) >= LASTING,
            Link::Dialing(..) => false,
            // It is lost already.
            Link::Down(_) => return,
        };
        if lasted {
            self.backoff.reset();
        }
        // All are tried in turn before there is a wait.
        let wait = if lasted || self.tried < self.dialer.len() {
            Duration::ZERO
        } else {
            self.tried = 0;
            self.backoff.next(&mut self.rng, Duration::ZERO)
        };
        if matches!(self.link, Link::Up(_)) {
            warn!(error, "lost the registry");
        } else {
            debug!(error, "cannot connect to the registry");
        }
        self.node.shared.failed(now, error, refusal);
        self.link = Link::Down(now + wait);
    }

    fn restart_keeping(&mut self) {
        self.keeps.restart();
        if let Link::Up(up) = &mut self.link {
            up.keeping = Keeping::None;
        }
    }

    fn answer(&mut self, now: Instant, id: CallId, outcome: Result<Response, Failure>) {
        let Some(open) = self.open.remove(&id) else { return };
        self.due.remove(&(open.due, id));
        self.node.answer(id, outcome, now.since(open.since));
    }
}

async fn sleep_until(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(clock.deadline(at)).await,
        None => std::future::pending().await,
    }
}
