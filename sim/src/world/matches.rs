//! Searches for matches: acts of applications, and reports to the oracle of G8.

use std::collections::BTreeSet;

use bytes::Bytes;
use skirmish_core::client::{Client, CommandError};
use skirmish_core::id::NodeId;
use skirmish_core::registry::{RegistryCommand, Request};
use skirmish_core::wire::{Frame, ToServer};
use skirmish_proto::v1::{self, Kind, TicketState};

use super::node::Registration;
use super::{World, WorldEvent};
use crate::history::Actor;
use crate::matches::{self, MatcherFailure, NEWS};
use crate::oracle::{Guarantee, Observation, Verdict};
use crate::scenario::MODES;

impl World<'_> {
    // The registry's history.

    /// Starts to report all decisions of the registry to the oracle. The registry is a process of
    /// its own, or the new one in a node's process.
    pub(super) fn watch_matches(&mut self, node: Option<usize>) {
        if self.scenario.shape.queues == 0 {
            return;
        }
        let watch = matches::watch();
        match node.map(|node| &mut self.nodes[node]) {
            Some(process) => {
                let now = process.clock.now(self.at).instant;
                if let Registration::Embedded(embedded) = &mut process.registry {
                    embedded.handle_call(now, RegistryCommand::Watch { id: NEWS, watch });
                    self.oracles.matches.forgotten();
                }
            }
            None => {
                if let Some(registry) = self.registry.as_mut() {
                    let now = registry.clock.now(self.at).instant;
                    // The registry has room for all watches.
                    let _ = registry.machine.watch(now, NEWS, watch);
                }
            }
        }
    }

    /// Reports the registry's decisions to the oracle.
    pub(super) fn read_match_news(&mut self) -> Verdict {
        let mut news = std::mem::take(&mut self.news);
        for node in &mut self.nodes {
            news.append(&mut node.news);
        }
        let author = self.author.take();
        let Self { oracles, at, .. } = self;
        news.iter()
            .try_for_each(|watched| matches::observe_watched(&mut oracles.matches, *at, |_| author, watched))
    }

    // Acts of applications.

    /// Starts a search for a client's application.
    pub(super) fn queue(&mut self, client: usize, mode: i64, party: i64, rating: i64) -> Verdict {
        let queue = matches::wish(&self.scenario.shape, mode, party, rating);
        let result = self.client_input(client, |machine, now| machine.queue(now, queue))?;
        if let Ok(search) = result {
            self.coverage.hit("search begun");
            self.oracles.matches.asked(client, &self.clients[client].player, search)?;
        }
        self.answered(client, result.err());
        Ok(())
    }

    /// Observes an event about a client's ticket.
    pub(super) fn ticket_told(&mut self, client: usize, search: u64, state: TicketState) -> Verdict {
        if let Some(mark) = matches::mark(state) {
            self.coverage.hit(mark);
        }
        if !matches::is_end(state) {
            return Ok(());
        }
        let process = &self.clients[client];
        self.oracles.matches.ended(client, &process.player, search, state)
    }

    /// Observes an event about a client's match. Most applications go to the match's room.
    pub(super) fn match_told(&mut self, client: usize, matched: v1::Matched) -> Verdict {
        self.coverage.hit("match told");
        let process = &mut self.clients[client];
        let goes = matches::joins_match(&mut process.rng);
        self.oracles.matches.told(client, &process.player, &matched)?;
        // After a fill of free places, the application already knows the room.
        if process.matches.insert(matched.r#match) && goes && !matched.over {
            process.invited.push(matched.room);
        }
        Ok(())
    }

    /// Lets the application join the room of its match and speak there. The application leaves the
    /// room once the match is played. Returns true if such a room was open.
    pub(super) fn accept_match(&mut self, client: usize) -> Result<bool, crate::oracle::Violation> {
        let process = &mut self.clients[client];
        let Some(room) = process.invited.pop() else { return Ok(false) };
        let (now, life) = (process.clock.now(self.at), process.client_life().life);
        let plays = process.rng.range(0..=self.scenario.shape.match_ms * 1_000);
        let result = process.machine.join(now, &room, 0);
        let number = self.rooms.number(&room);
        if result.is_ok() {
            self.coverage.hit("match joined");
            self.schedule(self.at + plays, WorldEvent::MatchPlayed(client, life, number));
            self.say(client, number, 2, 16)?;
        }
        self.answered(client, result.err());
        Ok(true)
    }

    /// Leaves the room of a match that the application has played.
    pub(super) fn match_played(&mut self, client: usize, life: u32, room: u64) -> Verdict {
        if self.clients[client].client_life().life != life {
            return Ok(());
        }
        if self.clients[client].paused {
            self.schedule(self.at + 100_000, WorldEvent::MatchPlayed(client, life, room));
            return Ok(());
        }
        let name = self.rooms.name(room);
        match self.leave(client, &name)? {
            // The application has left before.
            Ok(()) | Err(CommandError::NotInRoom) => Ok(()),
            Err(error) => {
                self.answered(client, Some(error));
                Ok(())
            }
        }
    }

    /// Gives up the application's match.
    pub(super) fn give_up_match(&mut self, client: usize) -> Verdict {
        let wanted = |world: &Self| -> BTreeSet<String> {
            world.clients[client].machine.rooms().map(str::to_owned).collect()
        };
        let before = wanted(self);
        let result = self.client_input(client, Client::give_up_match)?;
        for room in before.difference(&wanted(self)) {
            let (client_life, room) = (self.clients[client].client_life(), self.room(room));
            self.observe(Observation::Leaves { client_life, room })?;
        }
        self.answered(client, result.err());
        Ok(())
    }

    /// Leaves a room.
    pub(super) fn leave(
        &mut self,
        client: usize,
        room: &str,
    ) -> Result<Result<(), CommandError>, crate::oracle::Violation> {
        let result = self.client_input(client, |machine, now| machine.leave(now, room))?;
        if result.is_ok() && !self.clients[client].machine.rooms().any(|wanted| wanted == room) {
            let (client_life, room) = (self.clients[client].client_life(), self.room(room));
            self.observe(Observation::Leaves { client_life, room })?;
        }
        Ok(result)
    }

    /// Leaves the rooms of all matches of the application.
    pub(super) fn leave_matches(&mut self, client: usize) -> Verdict {
        let life = self.clients[client].client_life().life;
        for (room, _) in self.rooms.open() {
            if room >= self.rooms.plain() {
                self.match_played(client, life, room)?;
            }
        }
        Ok(())
    }

    /// Marks a request about a search that has ended while the request was under way to the node.
    pub(super) fn note_search(&mut self, client: usize, frame: &Bytes) {
        let is_of = |kind: Kind| frame.get(10..12) == Some((kind as u16).to_be_bytes().as_slice());
        if !is_of(Kind::Queue) && !is_of(Kind::Cancel) {
            return;
        }
        let Ok(frame) = Frame::decode(frame.clone(), usize::MAX) else { return };
        let search = match ToServer::decode(&frame) {
            Ok(ToServer::Queue(queue)) => queue.search,
            Ok(ToServer::Cancel(cancel)) => cancel.search,
            _ => return,
        };
        if self.oracles.matches.has_ended(&self.clients[client].player, search) {
            self.coverage.hit("ended search asked for");
        }
    }

    // Faults.

    /// Makes the elected matcher of a mode fail.
    pub(super) fn fail_matcher(&mut self, mode: i64, how: i64, millis: u64) {
        let Some(id) = self.oracles.matches.elected(MODES[matches::mode_at(mode)]) else { return };
        let is_it = |machine: &skirmish_core::node::Node| machine.id() == id;
        let Some(node) = self.nodes.iter().position(|node| node.machine.as_ref().is_some_and(is_it)) else {
            return;
        };
        self.coverage.hit("matcher made to fail");
        self.history.record(
            self.at,
            Actor::Node(node),
            format_args!("forms the matches, and is made to fail"),
        );
        let failure = MatcherFailure::numbered(how);
        match failure {
            MatcherFailure::Crash | MatcherFailure::Vanish => {
                return self.crash_node(node, millis, failure == MatcherFailure::Vanish);
            }
            MatcherFailure::Pause => return self.pause_node(node, millis),
            MatcherFailure::Cut => self.cut_registry(node, 0),
            MatcherFailure::Deafen => self.cut_registry(node, 2),
            MatcherFailure::Blur | MatcherFailure::Lag | MatcherFailure::LastMatch => {
                if let Some(registry) = self.registry.as_mut() {
                    let messages = &mut registry.node_messages[node];
                    match failure {
                        MatcherFailure::Blur => messages.blurred = MatcherFailure::BLURRED.into(),
                        MatcherFailure::Lag => messages.lag = millis * 1_000,
                        _ => messages.last_match = Some(millis),
                    }
                }
            }
        }
        self.schedule(self.at + millis * 1_000, WorldEvent::MatcherHeals(node));
    }

    pub(super) fn heal_matcher(&mut self, node: usize) {
        self.heal_registry(node);
        if let Some(registry) = self.registry.as_mut() {
            registry.node_messages[node].lag = 0;
        }
    }

    /// Returns true if the request is the last write of a matcher that is to fail. Then the request
    /// is executed about when the node's lease ends, and the node is gone.
    pub(super) fn is_last_match(&mut self, node: usize, author: NodeId, request: &Request) -> bool {
        let Some(registry) = self.registry.as_mut().filter(|_| matches::is_of_matcher(request)) else {
            return false;
        };
        let Some(millis) = registry.node_messages[node].last_match.take() else { return false };
        let after = matches::lateness(&mut self.rng, &self.scenario.shape);
        self.execute_late(author, request.clone(), after);
        self.crash_node(node, millis, true);
        true
    }

    // At rest.

    /// Checks that no match keeps a player for long that never joined.
    pub(super) fn missed(&mut self) -> Verdict {
        match self.oracles.matches.overdue(self.at, self.scenario.shape.missed_bound()) {
            Some(description) => self.broken(Guarantee::Liveness, description),
            None => Ok(()),
        }
    }

    /// Checks that every search has ended, every match is over, and the registry has no remains of
    /// either.
    pub(super) fn matched(&mut self, present: &[usize]) -> Verdict {
        let searching = present.iter().copied().find(|client| self.clients[*client].machine.is_searching());
        let nodes: Vec<NodeId> =
            self.nodes.iter().filter_map(|node| Some(node.machine.as_ref()?.id())).collect();
        matches::at_rest(&self.oracles.matches, &self.scenario.shape, searching, &nodes, self.passed_over)
    }

    /// Lets every player search for the same match, after the last fault and with no remains of the
    /// searches before.
    pub(super) fn search_all(&mut self, present: &[usize]) -> Verdict {
        if self.scenario.shape.queues > 0 {
            // Nodes may not know yet that the last matches are over. A lagging watch may still have
            // events under way, and all later ones wait behind them.
            let messages = self.registry.iter().flat_map(|registry| &registry.node_messages);
            let told = messages.map(|messages| messages.watched).max().unwrap_or(0);
            self.run_until(told.max(self.at + 2_000_000))?;
            self.oracles.matches.calm(self.at);
            self.passed_over = Some(self.oracles.matches.counts().passed_over);
            for &client in present {
                self.queue(client, 0, 0, 1_500)?;
            }
        }
        Ok(())
    }

    /// Lets every player search and then end the session, as the last act of a run: nothing of the
    /// searches remains.
    pub(super) fn leave_searching(&mut self, present: &[usize]) -> Verdict {
        if self.scenario.shape.queues == 0 {
            return Ok(());
        }
        for (&client, rating) in present.iter().zip(0..) {
            self.queue(client, 0, 0, rating * 1_000)?;
        }
        self.run_until(self.at + 1_000_000)?;
        for &client in present {
            self.client_input(client, Client::disconnect)?;
        }
        let end = self.at + self.scenario.shape.liveness_bound(0);
        while let Some(description) = self.oracles.matches.left_behind() {
            if self.at >= end {
                return self.broken(Guarantee::Match, format!("all sessions have ended, and {description}"));
            }
            self.run_until(self.at + 100_000)?;
        }
        Ok(())
    }

    /// Adds the counts of the oracle to the coverage.
    pub(super) fn retire_match_counts(&mut self) {
        for (mark, count) in matches::marks(&self.oracles.matches.counts()) {
            self.coverage.add(mark, count);
        }
    }
}
