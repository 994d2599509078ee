//! Searches for matches: acts of applications, reports to the oracle of G8, and failures of
//! matchers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use madsim::time::{Duration, sleep};
use skirmish_core::client::CommandError;
use skirmish_core::id::{Name, NodeId};
use skirmish_core::matchmaking::{decode, keys};
use skirmish_core::registrar::record_owner;
use skirmish_core::registry::{Change, News};
use skirmish_io::client::{Client, Error};
use skirmish_proto::v1::{self, TicketState};

use super::actions::{ClientCommand, Cut, ServerAction, ShellAction};
use super::cluster::unseen;
use super::hosts::Hosts;
use super::ledger::{AFTERMATH, Ledger, SharedLedger, at};
use super::player::player_name;
use super::registry_state::{LastMatch, OracleEvents, RegistryState};
use crate::history::Actor;
use crate::matches::{self, MatcherFailure};
use crate::oracle::{ClientLife, Guarantee, RoomNumber, Verdict, Violation};
use crate::scenario::MODES;

/// Memory by which changes of matches in the registry are marked for coverage.
#[derive(Default)]
pub(super) struct MatchMarks {
    /// Times at which the running matches were formed, by their keys.
    formed: BTreeMap<Bytes, u64>,
    /// Keys of rooms that a server leads.
    led: BTreeSet<Bytes>,
}

impl MatchMarks {
    /// Returns the mark of a change at a moment of the world. A match counts as abandoned if it
    /// ends more than `window` microseconds after it was formed, and no server leads its room.
    fn mark(&mut self, at: u64, change: &Change, window: u64) -> Option<&'static str> {
        let key = change.key();
        let is_matcher = |mode: &&str| Name::new(mode).is_ok_and(|mode| *key == keys::matcher(&mode));
        match change {
            Change::Put { kv, .. } if keys::matches().contains(key) => {
                let is_new = kv.created == kv.modified;
                if is_new {
                    self.formed.insert(key.clone(), at);
                }
                let fills = decode::<v1::MatchRecord>(&kv.value).r#match.unwrap_or_default().fills;
                (!is_new && fills > 0).then_some("match filled")
            }
            Change::Delete { .. } if keys::matches().contains(key) => {
                let formed = self.formed.remove(key)?;
                let id = std::str::from_utf8(key).ok()?.rsplit('/').next()?;
                let led = self.led.contains(&keys::room(&keys::room_of(id)));
                Some(if !led && at > formed + window { "match abandoned" } else { "match over" })
            }
            Change::Put { .. } if MODES.iter().any(is_matcher) => Some("matcher elected"),
            Change::Delete { .. } if MODES.iter().any(is_matcher) => Some("matcher deposed"),
            Change::Put { kv, .. } if record_owner(kv).is_some_and(|(node, _)| node.0 > 0) => {
                self.led.insert(key.clone());
                None
            }
            Change::Put { .. } | Change::Delete { .. } => {
                self.led.remove(key);
                None
            }
        }
    }
}

// Acts of applications.

/// Searches for a match, unless the application is searching already: an end that the application
/// has not heard of yet would be taken for the end of its next search.
pub(super) async fn search(
    shared: &SharedLedger,
    client_life: ClientLife,
    client: &Client,
    mode: i64,
    party: i64,
    rating: i64,
) -> Result<(), Error> {
    let wish = {
        let mut ledger = shared.lock();
        if ledger.clients[client_life.client].search.is_some() {
            return Err(CommandError::Searching.into());
        }
        ledger.clients[client_life.client].asking = true;
        matches::wish(&ledger.shape, mode, party, rating)
    };
    let result = client.queue(wish).await;
    let mut ledger = shared.lock();
    let process = &mut ledger.clients[client_life.client];
    process.asking = false;
    let search = result?;
    process.search = Some(search);
    let player = player_name(process.player);
    ledger.coverage.hit("search begun");
    let verdict = ledger.oracles.matches.asked(client_life.client, &player, search);
    ledger.judge(verdict);
    Ok(())
}

/// Leaves the rooms of all matches.
pub(super) async fn leave(
    shared: &SharedLedger,
    client_life: ClientLife,
    client: &Client,
) -> Result<(), Error> {
    let rooms = {
        let ledger = shared.lock();
        let plain = ledger.rooms.plain();
        ledger.rooms.open().into_iter().filter(move |(number, _)| *number >= plain)
    };
    for (number, name) in rooms {
        match client.leave(&name).await {
            Ok(()) => shared.lock().leaves(client_life, u32::try_from(number).unwrap_or(RoomNumber::MAX)),
            // The client never was there, or has left before.
            Err(Error::Command(CommandError::NotInRoom)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives up the client's match.
pub(super) async fn give_up(
    shared: &SharedLedger,
    client_life: ClientLife,
    client: &Client,
) -> Result<(), Error> {
    let rooms = || client.inspect(|machine| machine.rooms().map(str::to_owned).collect::<BTreeSet<_>>());
    let before = rooms().await?;
    client.give_up_match().await?;
    for room in before.difference(&rooms().await?) {
        let mut ledger = shared.lock();
        let room = ledger.room(room);
        ledger.leaves(client_life, room);
    }
    Ok(())
}

/// Joins the room of a match, speaks there, and leaves the room when the match is played.
pub(super) async fn play(shared: SharedLedger, client_life: ClientLife, room: RoomNumber, plays: u64) {
    let send_command = |command| {
        let ledger = shared.lock();
        if ledger.client_life(client_life.client) == client_life
            && let Some(commands) = &ledger.clients[client_life.client].commands
        {
            // A client that has just ended needs no commands.
            let _ = commands.send(command);
        }
    };
    send_command(ClientCommand::Join { room, history: 0 });
    send_command(ClientCommand::Say { room, count: 2, size: 16 });
    sleep(Duration::from_micros(plays)).await;
    send_command(ClientCommand::Leave { room });
}

impl Ledger {
    /// Passes the events of the oracle's watch to the oracle. They wait while a search may have a
    /// number that the oracle does not know yet.
    pub(super) fn pass_oracle_events(&mut self, registry_state: &RegistryState) {
        if self.clients.iter().any(|process| process.asking) {
            return;
        }
        let OracleEvents { watched, authors } = registry_state.take_oracle_events();
        let (at, window) = (at(), self.shape.join_window_ms * 1_000);
        for watched in watched {
            if let News::Changes(changes) = &watched.news {
                let marks = changes.iter().filter_map(|change| self.match_marks.mark(at, change, window));
                marks.for_each(|mark| self.coverage.hit(mark));
            }
            let author = |revision| authors.get(&revision).copied();
            let verdict = matches::observe_watched(&mut self.oracles.matches, at, author, &watched);
            self.judge(verdict);
        }
    }

    /// Records that a client has asked to join a room.
    pub(super) fn enters(&mut self, room: RoomNumber) {
        if u64::from(room) >= self.rooms.plain() {
            self.coverage.hit("match joined");
        }
    }

    /// Handles an event about a client's ticket.
    pub(super) fn ticket_told(&mut self, client_life: ClientLife, search: u64, state: TicketState) {
        if let Some(mark) = matches::mark(state) {
            self.coverage.hit(mark);
        }
        if !matches::is_end(state) {
            return;
        }
        let late = self.is_late(client_life, search);
        let process = &mut self.clients[client_life.client];
        let player = player_name(process.player);
        let verdict = if late {
            self.oracles.matches.ended_before(client_life.client, &player, search, state)
        } else {
            process.search = None;
            self.oracles.matches.ended(client_life.client, &player, search, state)
        };
        self.judge(verdict);
    }

    /// Returns true if the event was waiting for the application while the application began
    /// another search.
    fn is_late(&self, client_life: ClientLife, search: u64) -> bool {
        self.clients[client_life.client].search.is_some_and(|own| own != search)
    }

    /// Handles an event about a client's match. Most applications go to the match's room.
    pub(super) fn match_told(&mut self, client_life: ClientLife, matched: v1::Matched) {
        self.coverage.hit("match told");
        let (room, late) = (self.room(&matched.room), self.is_late(client_life, matched.search));
        let process = &mut self.clients[client_life.client];
        if !late {
            process.search = None;
        }
        let goes = matches::joins_match(&mut process.decisions);
        let plays = process.decisions.range(0..=self.shape.match_ms * 1_000);
        // After a fill of free places, the application already knows the room.
        if process.matches.insert(matched.r#match.clone()) && goes {
            process.invited.push((room, plays));
        }
        let player = player_name(process.player);
        let matches = &mut self.oracles.matches;
        let verdict = if late {
            matches.told_before(client_life.client, &player, &matched)
        } else {
            matches.told(client_life.client, &player, &matched)
        };
        self.judge(verdict);
    }

    /// Adds the counts of the oracle to the coverage.
    pub(super) fn retire_match_counts(&mut self) {
        for (mark, count) in matches::marks(&self.oracles.matches.counts()) {
            self.coverage.add(mark, count);
        }
    }

    /// Returns the running nodes, by server.
    fn nodes(&self) -> impl Iterator<Item = (usize, NodeId)> {
        let id =
            |server: &super::processes::HostedServer| Some(server.handle.as_ref()?.inspect(|node| node.id()));
        self.servers.iter().enumerate().filter_map(move |(number, server)| Some((number, id(server)?)))
    }
}

impl Hosts {
    // Faults.

    /// Makes the matcher of a mode fail for a time.
    pub(super) fn fail_matcher(&mut self, mode: i64, how: MatcherFailure, millis: u64) {
        let matcher = {
            let ledger = self.shared.lock();
            let elected = ledger.oracles.matches.elected(MODES[matches::mode_at(mode)]);
            ledger.nodes().find(|(_, id)| Some(*id) == elected).map(|(server, _)| server)
        };
        let Some(server) = matcher else { return };
        {
            let mut ledger = self.shared.lock();
            ledger.coverage.hit("matcher made to fail");
            ledger.note(Actor::Node(server), format_args!("forms the matches, and is made to fail"));
        }
        let (begin, end) = (at(), at() + millis * 1_000);
        let mut then = |at, action| self.schedule(at, ShellAction::Server(server, action));
        match how {
            MatcherFailure::Crash => {
                then(begin, ServerAction::Kill);
                then(end, ServerAction::Start);
            }
            MatcherFailure::Vanish => {
                then(begin, ServerAction::Cut(Cut::Both));
                then(begin, ServerAction::Pause);
                let gone = begin + millis.max(unseen(&self.plan.shape)) * 1_000;
                let mut then = |at, action| self.schedule(at, ShellAction::Server(server, action));
                then(gone, ServerAction::Kill);
                then(gone + 1_000, ServerAction::Mend);
                then(gone + 2_000, ServerAction::Start);
            }
            MatcherFailure::Pause => {
                then(begin, ServerAction::Pause);
                then(end, ServerAction::Resume);
            }
            MatcherFailure::Cut | MatcherFailure::Deafen => {
                let cut = if how == MatcherFailure::Cut { Cut::Both } else { Cut::Down };
                then(begin, ServerAction::CutRegistry(cut));
                then(end, ServerAction::HealRegistry);
            }
            MatcherFailure::Blur => then(begin, ServerAction::BlurRegistry(MatcherFailure::BLURRED)),
            MatcherFailure::Lag => {
                then(begin, ServerAction::LagWatches(millis));
                then(end, ServerAction::LagWatches(0));
            }
            MatcherFailure::LastMatch => {
                let after = Duration::from_micros(matches::lateness(&mut self.rng, &self.plan.shape));
                let last = LastMatch { after, down_ms: millis };
                self.shared.lock().registry_state.iter().for_each(|state| state.last_match(server, last));
            }
        }
    }

    /// Kills servers that have written their last match, and plans their next start.
    pub(super) fn kill_after_last_matches(&mut self) {
        let state = self.shared.lock().registry_state.clone();
        let servers = state.as_ref().map(RegistryState::take_servers_to_kill).unwrap_or_default();
        for (server, millis) in servers {
            self.schedule(at(), ShellAction::Server(server, ServerAction::Kill));
            self.schedule(at() + millis * 1_000, ShellAction::Server(server, ServerAction::Start));
        }
    }

    // At rest.

    /// Checks that every search has ended and its application knows this, that every match is over,
    /// and that the registry has no remains of either.
    pub(super) fn matched(&self, present: &[usize], searching: Option<usize>) -> Verdict {
        let ledger = self.shared.lock();
        let untold = present.iter().copied().find(|client| ledger.clients[*client].search.is_some());
        let nodes: Vec<NodeId> = ledger.nodes().map(|(_, id)| id).collect();
        let shape = &self.plan.shape;
        matches::at_rest(&ledger.oracles.matches, shape, searching.or(untold), &nodes, self.passed_over)
    }

    /// Lets every player search for the same match, after the last fault and with no remains of the
    /// searches before.
    pub(super) async fn search_all(&mut self, present: &[usize]) -> Verdict {
        if self.plan.shape.queues == 0 {
            return Ok(());
        }
        // Servers may not know yet that the last matches are over. A lagging watch may still have
        // events under way, and all later ones wait behind them.
        self.pass_until(at() + 2_000_000).await?;
        while self.shared.lock().registry_state.as_ref().is_some_and(RegistryState::is_lagging) {
            self.pass_until(at() + 100_000).await?;
        }
        self.passed_over = Some(self.shared.lock().oracles.matches.counts().passed_over);
        for &client in present {
            self.send_command(client, ClientCommand::Queue { mode: 0, party: 0, rating: 1_500 });
        }
        Ok(())
    }

    /// Lets every player search and then end the session, as the last act of a run: nothing of the
    /// searches remains.
    pub(super) async fn leave_searching(&mut self, present: &[usize]) -> Verdict {
        if self.plan.shape.queues == 0 {
            return Ok(());
        }
        for (&client, rating) in present.iter().zip(0..) {
            self.send_command(client, ClientCommand::Queue { mode: 0, party: 0, rating: rating * 1_000 });
        }
        self.pass_until(at() + 1_000_000).await?;
        for &client in present {
            self.send_command(client, ClientCommand::Quit);
        }
        let end = at() + self.plan.shape.liveness_bound(0) + AFTERMATH;
        loop {
            self.pass_until(at() + 100_000).await?;
            let left = self.shared.lock().oracles.matches.left_behind();
            match left {
                Some(description) if at() >= end => {
                    let description = format!("all sessions have ended, and {description}");
                    return Err(Violation { guarantee: Guarantee::Match, description });
                }
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
}
