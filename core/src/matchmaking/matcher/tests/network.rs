//! Time, and the messages between the nodes and the registry.

use crate::base::id::NodeId;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::registry::{Failure, News, RegistryCommand, RegistryEvent};

use super::cluster::{Cluster, Event, Fate, KEEP_ALIVE, ORACLE};

impl Cluster {
    /// Runs the cluster for this time.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.next().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = until;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let nodes = self.nodes.iter().filter(|node| !node.paused);
        let timeouts =
            nodes.flat_map(|node| [node.player_tickets.poll_timeout(), node.matcher.poll_timeout()]);
        let registry = self.registry.poll_timeout();
        let deadlines = timeouts.chain([registry]).flatten().map(|deadline| deadline.at);
        deadlines.chain(self.events.keys().next().map(|(at, _)| *at)).min()
    }

    pub(super) fn step(&mut self) {
        self.registry.handle_timeout(self.now);
        self.pump();
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let event = entry.remove();
            self.happen(event);
        }
        for index in 0..self.nodes.len() {
            self.wake(index);
        }
        self.registry.audit().unwrap();
    }

    pub(super) fn wake(&mut self, index: usize) {
        let now = self.time();
        let node = &mut self.nodes[index];
        if node.paused {
            return;
        }
        if node.player_tickets.poll_timeout().is_some_and(|next| next.at <= now.instant) {
            node.player_tickets.handle_timeout(now);
        }
        if node.matcher.poll_timeout().is_some_and(|next| next.at <= now.instant) {
            node.matcher.handle_timeout(now);
        }
        self.drain(index);
    }

    pub(super) fn schedule(&mut self, delay: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + delay, self.serial), event);
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Call { node, life, call, fate } => self.call(node, life, call, fate),
            Event::Registry { node, life, link, event } => {
                let there = &mut self.nodes[node];
                if there.life != life || link.is_some_and(|link| link != there.link) {
                    return;
                }
                if let RegistryEvent::Watched(watched) = &event {
                    match watched.news {
                        News::Compacted { .. } | News::Canceled => drop(there.watches.remove(&watched.id)),
                        _ => {
                            if let Some(watch) = there.watches.get_mut(&watched.id) {
                                watch.start = watched.revision + 1;
                            }
                        }
                    }
                }
                if there.paused {
                    return there.inbox.push(event);
                }
                self.tell(node, event);
            }
            Event::KeepAlive { node, life } if self.nodes[node].life == life => self.keep_alive(node),
            Event::Moved { node, life, player, epoch } if self.nodes[node].life == life => {
                if self.nodes[node].paused {
                    return self.schedule(KEEP_ALIVE, Event::Moved { node, life, player, epoch });
                }
                if self.nodes[node].cut {
                    // The node will not be notified of this change, but reads the state later.
                    return;
                }
                if self.nodes[node].sessions.get(&player).is_some_and(|mine| *mine < epoch) {
                    self.lose_session(&player, node);
                }
            }
            Event::Frames { player, connection } => self.arrive(&player, connection),
            Event::KeepAlive { .. } | Event::Moved { .. } => {}
        }
    }

    pub(super) fn tell(&mut self, index: usize, event: RegistryEvent) {
        let now = self.time();
        let node = &mut self.nodes[index];
        // Player tickets and matcher each handle their own events.
        node.player_tickets.handle_event(now, event.clone());
        node.matcher.handle_event(now, event);
        self.drain(index);
    }

    /// Executes the outputs of a node.
    pub(super) fn drain(&mut self, index: usize) {
        loop {
            let node = &mut self.nodes[index];
            let Some(call) = node.player_tickets.poll_call().or_else(|| node.matcher.poll_call()) else {
                break;
            };
            self.send(index, call);
        }
        let node = &mut self.nodes[index];
        node.decisions.extend(core::iter::from_fn(|| node.matcher.poll_decision()));
        while let Some(decision) = self.nodes[index].player_tickets.poll_decision() {
            self.deliver(index, decision);
        }
        let node = &self.nodes[index];
        node.player_tickets.audit().unwrap();
        node.matcher.audit().unwrap();
    }

    pub(super) fn send(&mut self, index: usize, call: RegistryCommand) {
        let life = self.nodes[index].life;
        let millis =
            |rng: &mut Rng, most| rng.duration(Duration::from_micros(100)..=Duration::from_millis(most));
        let delay = millis(&mut self.rng, 3);
        let id = match &call {
            RegistryCommand::Request { id, .. } => *id,
            RegistryCommand::Watch { id, watch } => {
                self.nodes[index].watches.insert(*id, watch.clone());
                let slow = self.rng.range(0..=999) < self.faults.slow_watch;
                let delay = if slow { millis(&mut self.rng, 3000) } else { delay };
                return self.schedule(delay, Event::Call { node: index, life, call, fate: Fate::Done });
            }
            RegistryCommand::Unwatch(id) => {
                self.nodes[index].watches.remove(id);
                return self.registry.unwatch(*id);
            }
        };
        let faults = self.faults;
        let mut drawn = self.rng.range(0..=999);
        let mut is = |rate: u64| {
            let hit = drawn < rate;
            drawn = if hit { u64::MAX } else { drawn.saturating_sub(rate) };
            hit
        };
        let cut = self.nodes[index].cut;
        let fail = |failure| RegistryEvent::Reply { id, outcome: Err(failure) };
        if is(faults.refused) {
            let event = fail(Failure::Unavailable);
            return self.schedule(delay, Event::Registry { node: index, life, link: None, event });
        }
        if cut || is(faults.lost_request) {
            let (timeout, event) = (millis(&mut self.rng, 900), fail(Failure::Unknown));
            return self.schedule(timeout, Event::Registry { node: index, life, link: None, event });
        }
        if is(faults.late) {
            self.late = true;
            let (timeout, event) = (millis(&mut self.rng, 500), fail(Failure::Unknown));
            self.schedule(timeout, Event::Registry { node: index, life, link: None, event });
            let late = timeout + millis(&mut self.rng, 8000);
            return self.schedule(late, Event::Call { node: index, life, call, fate: Fate::Late });
        }
        let fate = if is(faults.lost_reply) { Fate::LostReply } else { Fate::Done };
        self.schedule(delay, Event::Call { node: index, life, call, fate });
    }

    /// Executes a call that has arrived at the registry.
    pub(super) fn call(&mut self, index: usize, life: u64, call: RegistryCommand, fate: Fate) {
        match call {
            RegistryCommand::Request { id, request } => {
                let outcome = self.registry.handle(self.now, &request).map_err(Failure::Refused);
                self.pump();
                self.oracle.author(
                    NodeId(life),
                    &request,
                    outcome.as_ref().ok(),
                    &mut self.registry,
                    self.now,
                );
                let outcome = if fate == Fate::LostReply { Err(Failure::Unknown) } else { outcome };
                if fate != Fate::Late {
                    let most = if fate == Fate::LostReply { 900 } else { 3 };
                    let delay = self.rng.duration(Duration::from_micros(100)..=Duration::from_millis(most));
                    let event = RegistryEvent::Reply { id, outcome };
                    self.schedule(delay, Event::Registry { node: index, life, link: None, event });
                }
            }
            RegistryCommand::Watch { id, watch } => {
                let node = &self.nodes[index];
                if node.life == life && !node.cut && node.watches.contains_key(&id) {
                    self.registry.watch(self.now, id, watch).unwrap();
                    self.pump();
                }
            }
            RegistryCommand::Unwatch(_) => {}
        }
    }

    /// Passes on the reports of the registry's watches.
    pub(super) fn pump(&mut self) {
        while let Some(watched) = self.registry.poll_output() {
            if watched.id == ORACLE {
                self.oracle.watched(&watched);
                continue;
            }
            let Some(index) = self.nodes.iter().position(|node| node.watches.contains_key(&watched.id))
            else {
                continue;
            };
            let slow = self.rng.range(0..=999) < self.faults.slow_watch;
            let most = if slow { 3000 } else { 4 };
            let delay = self.rng.duration(Duration::from_micros(100)..=Duration::from_millis(most));
            let node = &mut self.nodes[index];
            node.watch_at = node.watch_at.max(self.now + delay);
            let (at, life, link) = (node.watch_at, node.life, Some(node.link));
            let event = RegistryEvent::Watched(watched);
            self.schedule(at - self.now, Event::Registry { node: index, life, link, event });
        }
    }
}
