//! The line of players that are to be attended to, and the waits between their requests.

use super::player::{Context, NextAction};
use super::{Asked, PlayerTickets, STEP};
use crate::base::id::Name;
use crate::registry::Request;

impl PlayerTickets {
    /// Puts a player in line, unless an open request or a wait is to end first.
    pub(super) fn put_in_line(&mut self, name: &Name) {
        let Some(player) = self.players.get_mut(name) else {
            return self.bugs.found("a player is put in line that is not in the table");
        };
        if player.line_number.is_none() && player.asked.is_none() && player.retry.is_none() {
            self.line_number += 1;
            player.line_number = Some(self.line_number);
            self.line.insert(self.line_number, name.clone());
        }
    }

    pub(super) fn wait(&mut self, name: &Name) {
        let Some(player) = self.players.get_mut(name) else {
            return self.bugs.found("a player waits that is not in the table");
        };
        if player.retry.is_none() {
            let at = self.now.instant + self.backoff.after(player.failures, &mut self.rng);
            player.retry = Some(at);
            self.retries.insert((at, name.clone()));
        }
    }

    pub(super) fn stop_waiting(&mut self, name: &Name) {
        let Some(player) = self.players.get_mut(name) else {
            return self.bugs.found("a player has waited that is not in the table");
        };
        if let Some(at) = player.retry.take() {
            self.retries.remove(&(at, name.clone()));
        }
    }

    /// Returns true if a request may be sent. One request is reserved for the watch.
    pub(super) fn has_place(&self) -> bool {
        self.calls.len() + 1 < self.config.calls
    }

    /// Attends to players in order, as many as a step permits.
    pub(super) fn drive(&mut self) {
        self.ask_for_rosters();
        for _ in 0..STEP {
            if !self.has_place() {
                return;
            }
            let Some((_, name)) = self.line.pop_first() else { return };
            self.attend(&name);
        }
    }

    fn attend(&mut self, name: &Name) {
        let context =
            Context { wall: self.now.wall, node: self.node, lease: self.lease, planted: self.planted };
        loop {
            let Some(player) = self.players.get_mut(name) else {
                return self.bugs.found("a player in line is not in the table");
            };
            player.line_number = None;
            if player.asked.is_some() || player.retry.is_some() {
                return;
            }
            match player.next(context) {
                NextAction::Rest => return,
                NextAction::Tell(decision) => {
                    self.decisions.push_back(decision);
                }
                NextAction::Ask(txn, match_id) => {
                    self.asked += 1;
                    self.stats.asked += 1;
                    player.asked = Some(self.asked);
                    let asked = Asked::Player { name: name.clone(), serial: self.asked, match_id };
                    return self.calls.send(Request::Txn(txn), asked);
                }
                NextAction::Wait => {
                    player.failures = player.failures.saturating_add(1);
                    player.view = None;
                    return self.wait(name);
                }
                NextAction::Forget => return self.forget(name),
            }
        }
    }
}
