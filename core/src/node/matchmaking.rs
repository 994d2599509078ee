//! Matchmaking, for the players of this node and, if it is elected, for all.

use skirmish_proto::v1;

use super::{Event, Node};
use crate::id::Name;
use crate::matchmaking::{desk, matcher};
use crate::registry::{CallId, Told, WatchId};
use crate::session::{self, SessionKey};
use crate::time::Now;
use crate::wire;

/// Machines of a node that share its registry; each numbers its calls and watches in
/// steps of this.
pub(super) const ASKERS: u64 = 3;

impl Node {
    /// Gives what the registry tells to the machine that asked.
    pub(super) fn pass_on(&mut self, now: Now, told: Told) {
        let id = match &told {
            Told::Reply { id: CallId(id), .. } => *id,
            Told::Watched(watched) => {
                let WatchId(id) = watched.id;
                id
            }
            Told::Connected { .. } => 0,
        };
        match id % ASKERS {
            0 => self.registrar.handle_told(now, told),
            1 => self.desk.handle_told(now, told),
            _ => self.matcher.handle_told(now, told),
        }
    }

    /// Whether there is anything to be queued for.
    pub(super) fn makes_matches(&self) -> bool {
        !self.config.matchmaking.queues.is_empty()
    }

    pub(super) fn queue(&mut self, now: Now, session: SessionKey, mut queue: v1::Queue) {
        let Some(session) = self.sessions.get(session) else { return };
        let (player, epoch) = (session.player.clone(), session.registered);
        if self.makes_matches() {
            queue.session_epoch = session::revision(queue.session_epoch);
            return self.desk.queue(now, &player, epoch, queue);
        }
        let reason = "this server makes no matches".into();
        let state = v1::TicketState::Refused.into();
        let v1::Queue { mode, search, .. } = queue;
        let queued = v1::Queued { state, mode, reason, search, ..v1::Queued::default() };
        self.tell_ticket(now, &player, &queued);
    }

    pub(super) fn cancel(&mut self, now: Now, session: SessionKey, v1::Cancel { search }: v1::Cancel) {
        let Some(player) = self.sessions.get(session).map(|session| session.player.clone()) else { return };
        if self.makes_matches() {
            self.desk.cancel(now, &player, search);
        } else {
            let state = v1::TicketState::None.into();
            self.tell_ticket(now, &player, &v1::Queued { state, search, ..v1::Queued::default() });
        }
    }

    /// A player has a session here, or a new connection of it: it is told what there is.
    pub(super) fn arrive(&mut self, now: Now, player: &Name, session_epoch: u64) {
        if self.makes_matches() {
            self.desk.arrive(now, player, session_epoch);
        }
    }

    /// A player's connection is lost; its session waits to be resumed.
    pub(super) fn lose(&mut self, now: Now, player: &Name) {
        if self.makes_matches() {
            self.desk.lose(now, player);
        }
    }

    /// A player's session is not here any more.
    pub(super) fn depart(&mut self, now: Now, player: &Name, moved: bool) {
        if self.makes_matches() {
            self.desk.depart(now, player, moved);
        }
    }

    /// Lets the machines of matchmaking do what follows from the last input.
    pub(super) fn consult_matchmaking(&mut self, now: Now) {
        if !self.makes_matches() {
            return;
        }
        let lease = self.registrar.lease();
        if lease != self.matchmaking_lease {
            self.matchmaking_lease = lease;
            self.desk.set_lease(now, lease);
            self.matcher.set_lease(now, lease);
        }
        while let Some(decision) = self.desk.poll_decision() {
            match decision {
                desk::Decision::Ticket { player, queued } => {
                    let session_epoch = session::told(queued.session_epoch);
                    self.tell_ticket(now, &player, &v1::Queued { session_epoch, ..queued });
                }
                desk::Decision::Matched { player, matched } => {
                    let frame = wire::encode(v1::Kind::Matched, &v1::Metadata::default(), &matched);
                    self.tell_player(now, &player, frame);
                }
            }
        }
        while let Some(decision) = self.matcher.poll_decision() {
            let event = match decision {
                matcher::Decision::Elected { mode, epoch } => Event::Elected { mode, epoch },
                matcher::Decision::Deposed { mode } => Event::Deposed { mode },
                matcher::Decision::Formed { id, mode, teams, quality, explanation } => {
                    self.stats.matches += 1;
                    let players = teams.iter().map(alloc::vec::Vec::len).sum();
                    Event::MatchFormed { id, mode, players, quality, explanation }
                }
                matcher::Decision::Filled { id, mode, team, players, explanation } => {
                    Event::MatchFilled { id, mode, team, players: players.len(), explanation }
                }
                matcher::Decision::TicketEnded { player, mode, state } => {
                    Event::TicketEnded { player, mode, state }
                }
                matcher::Decision::MatchEnded { id, abandoned } => Event::MatchEnded { id, abandoned },
            };
            self.event(event);
        }
        while let Some(call) = self.desk.poll_call() {
            self.outputs.push_back(super::Output::Registry(call));
        }
        while let Some(call) = self.matcher.poll_call() {
            self.outputs.push_back(super::Output::Registry(call));
        }
    }

    fn tell_ticket(&mut self, now: Now, player: &Name, queued: &v1::Queued) {
        self.tell_player(now, player, wire::encode(v1::Kind::Queued, &v1::Metadata::default(), queued));
    }

    /// Sends a frame to a player, if it is connected here: else it is told when it comes.
    fn tell_player(&mut self, now: Now, player: &Name, frame: bytes::Bytes) {
        let session = self.sessions.of_player(player).and_then(|key| self.sessions.get(key));
        if let Some(conn) = session.and_then(|session| session.conn) {
            self.answer(now, conn.key(), frame);
        }
    }
}
